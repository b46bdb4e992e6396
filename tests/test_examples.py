"""The examples in docstrings: they run, and each public function of the formulas has one."""

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch

import llamafactory_dids.core as core
import llamafactory_dids.mixers as mixers

MACHINE = ("here", "has_wide_products", "memory", "release", "is_out_of_memory", "random_states", "set_random_states")
CHECKS = ("require_", "read_")  # they refuse or clean an argument
MODULES = [
    importlib.import_module(f"{package.__name__}.{found.name}")
    for package in (core, mixers)
    for found in pkgutil.iter_modules(package.__path__)
    if found.name not in ("gpu", "kernels")
] + [mixers]


def public(module):
    for name, function in vars(module).items():
        own = inspect.isfunction(function) and function.__module__ == module.__name__
        if own and name not in MACHINE and not name.startswith(("_", *CHECKS)):
            yield name, function


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.split(".", 1)[1])
def test_each_public_function_has_an_example_that_holds(module):
    without = [name for name, function in public(module) if ">>>" not in (function.__doc__ or "")]
    assert not without
    found = doctest.testmod(module, extraglobs={"np": np, "torch": torch})
    assert not found.failed
