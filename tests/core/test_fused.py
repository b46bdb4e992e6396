"""The kernels of a GPU against the functions that they stand for, on a GPU or by Triton's interpreter."""

import importlib.util
import math

import pytest
import torch

from llamafactory_dids.core import fused, gpu
from llamafactory_dids.core.projection import Projection
from llamafactory_dids.core.selection import keep_largest

N, P, K = 3, 30_011, 64


@pytest.fixture
def device(monkeypatch):
    """Where the kernels run."""
    if torch.cuda.is_available():
        return "cuda"
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs triton")
    monkeypatch.setattr(gpu, "has_kernels", lambda _like: True)  # which Triton interprets: see conftest.py
    return "cpu"


def gradients(of):
    x_NP = torch.randn(N, P, generator=torch.Generator().manual_seed(1))
    if of == "heavy-tailed":
        return x_NP**5
    if of == "mostly zero":
        return x_NP * (x_NP.abs() > 1.8)
    if of == "all the same":
        return torch.ones_like(x_NP)
    if of == "of few magnitudes":
        return (x_NP * 4).round()
    if of == "an outer product":
        return (x_NP[:, :173, None].bfloat16() * x_NP[:, None, 200:373].bfloat16()).float().flatten(1)
    if of == "not all numbers":
        x_NP[0, 5], x_NP[1, 7] = math.nan, math.inf
    return x_NP


@pytest.mark.parametrize("ratio", [0.001, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(
    "of",
    ["even", "heavy-tailed", "mostly zero", "all the same", "of few magnitudes", "an outer product", "not all numbers"],
)
def test_the_projection_is_that_of_the_largest_entries_to_the_last_bit(device, of, ratio, monkeypatch):
    monkeypatch.setattr(fused, "_SAMPLED", 1 << 11)
    x_NP = gradients(of)
    projection = Projection(x_NP.shape[1], K, seed=3)
    expected_NK = projection.project_sparse(*keep_largest(x_NP, ratio))
    projected_NK = fused.project_largest(x_NP.to(device), ratio, projection).cpu()
    torch.testing.assert_close(projected_NK, expected_NK, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("of", ["even", "an outer product"])
def test_most_rows_do_not_go_the_long_way(device, of, monkeypatch):
    def long_way(*_):
        raise AssertionError("the long way")

    x_NP = gradients(of).to(device)
    monkeypatch.setattr(fused, "keep_largest", long_way)
    assert fused.project_largest(x_NP, 0.1, Projection(x_NP.shape[1], K)).isfinite().all()


@pytest.mark.parametrize("what", ["_MAGNITUDES", "_TIES"])
def test_a_row_without_room_for_its_magnitudes_or_ties_goes_the_long_way(device, what, monkeypatch):
    x_NP = gradients("of few magnitudes" if what == "_TIES" else "heavy-tailed").to(device)
    expected_NK = Projection(P, K).project_sparse(*keep_largest(x_NP.cpu(), 0.1))
    monkeypatch.setattr(fused, what, 1 << 10 if what == "_MAGNITUDES" else 1 << 3)
    calls = []
    monkeypatch.setattr(fused, "keep_largest", lambda *a: calls.append(a) or keep_largest(*a))
    assert torch.equal(fused.project_largest(x_NP, 0.1, Projection(P, K)).cpu(), expected_NK)
    assert calls


def test_the_projection_of_whole_rows_is_the_same_too(device, monkeypatch):
    x_NP = gradients("even")
    with monkeypatch.context() as plain:
        plain.setattr(gpu, "has_kernels", lambda _like: False)
        expected_NK = Projection(P, K).project(x_NP)
    assert torch.equal(Projection(P, K).project(x_NP.to(device)).cpu(), expected_NK)
