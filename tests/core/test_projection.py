import numpy as np
import pytest
import torch

from llamafactory_dids.core import projection
from llamafactory_dids.core.projection import Projection
from llamafactory_dids.core.selection import keep_largest
from tests.reference.projection import appendix_a_matrix, explicit_matrix

P, K, SEEDS = 300, 32, 800


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inner_products_over_seeds(x_2P: torch.Tensor, output_dim: int) -> np.ndarray:
    """<Sx, Sy> for each of SEEDS seeds."""
    projected = [Projection(x_2P.shape[1], output_dim, seed).project(x_2P) for seed in range(SEEDS)]
    return np.array([float(y[0] @ y[1]) for y in projected])


@pytest.fixture(scope="module")
def pair_2P() -> torch.Tensor:
    x_2P = normal(2, P)
    x_2P[1] = 0.5 * x_2P[0] + x_2P[1]
    return x_2P


@pytest.fixture(scope="module")
def products(pair_2P) -> np.ndarray:
    return inner_products_over_seeds(pair_2P, K)


def expected_variance(x: np.ndarray, y: np.ndarray, output_dim: int) -> float:
    return ((x @ x) * (y @ y) + (x @ y) ** 2 - 2 * (x**2 @ y**2)) / output_dim


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**40 + 5])
def test_it_equals_the_explicit_sign_matrix_of_unbounded_integers(seed):
    x_NP = normal(4, P)
    expected_NK = x_NP.double().numpy() @ explicit_matrix(P, K, seed)
    np.testing.assert_allclose(Projection(P, K, seed).project(x_NP).numpy(), expected_NK, rtol=1e-6, atol=1e-6)


def test_the_matrix_of_seed_zero_never_changes():
    y_NK = Projection(12, 5, seed=0).project(torch.eye(12))
    bucket_P, sign_P = y_NK.abs().argmax(dim=1), y_NK.sum(dim=1)
    assert bucket_P.tolist() == PINNED_BUCKETS
    assert sign_P.tolist() == PINNED_SIGNS


def test_inner_products_are_unbiased_over_seeds(pair_2P, products):
    exact = float(pair_2P[0] @ pair_2P[1])
    standard_error = products.std() / np.sqrt(SEEDS)
    assert abs(products.mean() - exact) < 4 * standard_error, (products.mean(), exact, standard_error)


def test_the_variance_of_inner_products_is_the_one_in_the_docstring(pair_2P, products):
    x, y = pair_2P.double().numpy()
    assert products.var() / expected_variance(x, y, K) == pytest.approx(1.0, abs=0.2)


def test_the_variance_falls_as_one_over_the_output_dimension(pair_2P, products):
    finer = inner_products_over_seeds(pair_2P, 8 * K)
    assert products.var() / finer.var() == pytest.approx(8.0, rel=0.25)


def test_it_is_as_accurate_as_the_dense_matrix_of_appendix_a(pair_2P, products):
    x, y = pair_2P.double().numpy()
    matrices = (appendix_a_matrix(P, K, seed) for seed in range(SEEDS))
    dense = np.array([(x @ matrix_PK) @ (y @ matrix_PK) for matrix_PK in matrices])
    assert products.var() / dense.var() == pytest.approx(1.0, abs=0.25)


def test_gradients_keep_their_distances_within_a_tenth_in_the_mean():
    x_NP = torch.nn.functional.normalize(normal(40, 20_000))
    distances = torch.pdist(x_NP)
    projected = torch.pdist(Projection(20_000, 1024).project(x_NP))
    assert (projected / distances - 1).abs().mean() < 0.1


def test_buckets_and_signs_are_balanced_and_independent():
    num_entries, one_each = 20_000, torch.ones(20_000, 1)
    y_NK = Projection(num_entries, 16, seed=5).project_sparse(torch.arange(num_entries)[:, None], one_each)
    expected = num_entries / 16
    assert ((y_NK.abs().sum(dim=0) - expected).abs() < 5 * expected**0.5).all()
    assert (y_NK.sum(dim=0).abs() < 5 * expected**0.5).all()


def test_the_same_seed_is_the_same_projection_and_another_seed_is_not():
    x_NP = normal(2, P)
    first = Projection(P, K, seed=7).project(x_NP)
    torch.rand(3)  # the global generator is no part of it
    assert torch.equal(first, Projection(P, K, seed=7).project(x_NP))
    assert not torch.allclose(first, Projection(P, K, seed=8).project(x_NP))
    assert not torch.allclose(first, Projection(P, K, seed=7 + 2**32).project(x_NP))


def test_a_row_is_the_same_whatever_the_batch():
    x_NP, made = normal(9, 5000), Projection(5000, K)
    together_NK = made.project(x_NP)
    assert torch.equal(together_NK[4:5], made.project(x_NP[4:5]))
    assert torch.equal(together_NK[3:7], made.project(x_NP[3:7]))


def test_sparse_rows_project_as_the_same_rows_written_out():
    x_NP, made = normal(6, 2000), Projection(2000, K, seed=3)
    indices_NM, values_NM = keep_largest(x_NP, 0.1)
    written_out_NP = torch.zeros_like(x_NP).scatter(1, indices_NM, values_NM)
    assert torch.equal(made.project_sparse(indices_NM, values_NM), made.project(written_out_NP))


def test_chunks_leave_no_seam(monkeypatch):
    x_NP = normal(3, 1000)
    indices_NM, values_NM = keep_largest(x_NP, 0.5)
    whole = Projection(1000, K).project(x_NP), Projection(1000, K).project_sparse(indices_NM, values_NM)
    monkeypatch.setattr(projection, "_chunk", lambda device: 64)
    parts = Projection(1000, K).project(x_NP), Projection(1000, K).project_sparse(indices_NM, values_NM)
    assert torch.equal(whole[0], parts[0]) and torch.equal(whole[1], parts[1])


def test_half_precision_rows_are_summed_in_full_precision():
    x_NP = torch.full((1, 40_000), 0.125, dtype=torch.bfloat16)
    y_NK = Projection(40_000, 1).project(x_NP)
    assert y_NK.dtype == torch.float32
    assert y_NK.item() == Projection(40_000, 1).project(x_NP.double()).item()


@pytest.mark.parametrize(("input_dim", "output_dim"), [(0, 4), (2**32, 4), (4, 0)])
def test_impossible_dimensions_are_refused_with_their_value(input_dim, output_dim):
    with pytest.raises(ValueError, match=f"got {4294967296 if input_dim > 4 else 0}"):
        Projection(input_dim, output_dim)


def test_rows_of_another_length_are_refused_with_their_shape():
    with pytest.raises(ValueError, match=r"\(2, 5\).*N x 4"):
        Projection(4).project(torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 2\)"):
        Projection(4).project_sparse(torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 2))


PINNED_BUCKETS = [1, 4, 2, 3, 3, 3, 2, 4, 2, 1, 0, 3]
PINNED_SIGNS = [1.0, 1.0, -1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0]
