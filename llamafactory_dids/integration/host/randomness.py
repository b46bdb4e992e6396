"""Protection of the host's random numbers from our work before and during a training."""

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

from ...core import devices

Result = TypeVar("Result")


@contextmanager
def undisturbed_randomness() -> Iterator[None]:
    """Restore Python's, numpy's and torch's global generators afterwards, with the accelerators' generators."""
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


def undisturbed(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function, run inside `undisturbed_randomness`."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Result:
        with undisturbed_randomness():
            return function(*args, **kwargs)

    return wrapper
