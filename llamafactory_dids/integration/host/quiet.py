"""Silence for our own loading through the host, which would repeat the host's lines and bars."""

import contextlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
from transformers.utils import logging as model_logging


@contextmanager
def quiet() -> Iterator[None]:
    """Print no configuration, example, "loading" or bar of `datasets` inside this context; warnings stay."""
    host = logging.getLogger("llamafactory")
    level, verbosity, no_bars = host.level, model_logging.get_verbosity(), datasets.are_progress_bars_disabled()
    host.setLevel(max(level, logging.WARNING))
    model_logging.set_verbosity(max(verbosity, logging.WARNING))
    datasets.disable_progress_bars()
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # examples are printed
            yield
    finally:
        host.setLevel(level)
        model_logging.set_verbosity(verbosity)
        if not no_bars:
            datasets.enable_progress_bars()
