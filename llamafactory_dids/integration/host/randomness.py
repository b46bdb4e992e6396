"""Protection of the host's random numbers from our work before and during a training."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ...core import devices


@contextmanager
def undisturbed_randomness() -> Iterator[None]:
    """Restore Python's, numpy's and torch's global generators afterwards, with the accelerators' generators.

    It is a context, and (called) a decorator of a function that runs inside it.
    """
    python, array, ours = random.getstate(), np.random.get_state(), torch.get_rng_state()
    accelerator = devices.here()
    theirs = devices.random_states(accelerator)
    try:
        yield
    finally:
        devices.set_random_states(accelerator, theirs)
        torch.set_rng_state(ours)
        random.setstate(python)
        np.random.set_state(array)
