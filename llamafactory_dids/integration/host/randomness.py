"""What we do before and during a training must not shift the host's random numbers."""

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

Result = TypeVar("Result")


@contextmanager
def undisturbed_randomness() -> Iterator[None]:
    """Python's, numpy's and torch's global generators, as they were."""
    python, array = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)


def undisturbed(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function, run within `undisturbed_randomness`."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Result:
        with undisturbed_randomness():
            return function(*args, **kwargs)

    return wrapper
