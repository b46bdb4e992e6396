"""What we have the host load beside its own loading: without the lines and bars that it would say again of it."""

import contextlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
from transformers.utils import logging as model_logging


@contextmanager
def quiet() -> Iterator[None]:
    """No configuration, example or "loading" is printed, and no bar of `datasets`; warnings stay."""
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
