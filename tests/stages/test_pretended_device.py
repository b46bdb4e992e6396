"""The measurements and the gradient stage on an accelerator that is none of those that they know."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import PATIENCE


@pytest.fixture(scope="module")
def found():
    """What was found on the CPU, and on the pretended device."""
    driver = Path(__file__).with_name("pretended_driver.py")
    process = subprocess.run([sys.executable, str(driver)], capture_output=True, text=True, timeout=180 * PATIENCE)
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout)


def test_it_computed_there(found):
    assert [one.pop("device") for one in found] == ["cpu", "npu"]


@pytest.mark.parametrize("what", ["losses", "impact", "token losses", "features"])
def test_it_finds_what_the_cpu_finds(found, what):
    on_cpu, there = (np.array(one[what] if what != "features" else sum(one[what], [])) for one in found)
    assert np.abs(on_cpu).max() > 0
    np.testing.assert_allclose(there, on_cpu, rtol=1e-4, atol=1e-5 * np.abs(on_cpu).max())
