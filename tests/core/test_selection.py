import math

import pytest
import torch

from llamafactory_dids.core.selection import _SAMPLED, keep_largest


@pytest.fixture
def gradients_NP() -> torch.Tensor:
    return torch.randn((7, 503), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("ratio", [0.001, 0.1, 0.37, 1.0])
def test_exactly_the_entries_of_largest_magnitude_are_kept(gradients_NP, ratio):
    indices_NM, values_NM = keep_largest(gradients_NP, ratio)
    assert indices_NM.shape == (7, math.ceil(ratio * 503))
    for gradient_P, indices_M, values_M in zip(gradients_NP, indices_NM, values_NM, strict=True):
        expected = sorted(range(503), key=lambda p: -abs(gradient_P[p].item()))[: len(indices_M)]
        assert indices_M.tolist() == sorted(expected)
        assert torch.equal(values_M, gradient_P[indices_M])


@pytest.mark.parametrize(("num_entries", "ratio", "kept"), [(100, 0.07, 7), (3, 0.1, 1), (10, 0.3, 3), (11, 0.3, 4)])
def test_the_count_is_the_share_rounded_up_and_not_up_by_rounding_errors(num_entries, ratio, kept):
    assert keep_largest(torch.randn(1, num_entries), ratio)[0].shape == (1, kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_whatever_the_batch_even_with_ties(gradients_NP, dtype):
    coarse_NP = (gradients_NP * 4).round().to(dtype)  # about ten distinct magnitudes, so the threshold is tied
    together_NM, _ = keep_largest(coarse_NP, 0.2)
    alone_NM = torch.cat([keep_largest(coarse_NP[n : n + 1], 0.2)[0] for n in reversed(range(7))]).flip(0)
    assert torch.equal(together_NM, alone_NM)


def test_of_tied_entries_the_first_are_kept():
    gradients_NP = torch.tensor([[1.0, -2.0, 2.0, -3.0, 2.0, 0.0]])
    indices_NM, values_NM = keep_largest(gradients_NP, 0.5)
    assert indices_NM.tolist() == [[1, 2, 3]]
    assert values_NM.tolist() == [[-2.0, 2.0, -3.0]]


def test_what_is_not_a_number_is_kept_for_the_caller_to_see():
    gradients_NP = torch.tensor([[1.0, math.nan, 3.0, 2.0], [1.0, math.inf, math.nan, 9.0]])
    indices_NM, values_NM = keep_largest(gradients_NP, 0.5)
    assert indices_NM.tolist() == [[1, 2], [1, 2]]
    assert values_NM[0].isnan().tolist() == [True, False]


@pytest.mark.parametrize("ratio", [0.001, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("of", ["even", "heavy-tailed", "mostly-zero", "constant", "larger-where-sampled"])
def test_the_threshold_is_exact_whatever_a_sample_of_the_entries_says(of, ratio):
    generator = torch.Generator().manual_seed(5)
    gradient_P = torch.randn(100_003, generator=generator)
    if of == "heavy-tailed":
        gradient_P = gradient_P**5
    elif of == "mostly-zero":
        gradient_P[torch.rand(len(gradient_P), generator=generator) < 0.95] = 0.0
    elif of == "constant":
        gradient_P = gradient_P.sign()
    elif of == "larger-where-sampled":
        gradient_P[:: max(1, len(gradient_P) // _SAMPLED) | 1] *= 100
    indices_NM, _ = keep_largest(gradient_P[None], ratio)
    expected = torch.sort(gradient_P.abs(), descending=True, stable=True).indices[: indices_NM.shape[1]]
    assert torch.equal(indices_NM[0], expected.sort().values)


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.5, math.nan])
def test_a_ratio_outside_its_range_is_refused_with_its_value(ratio):
    with pytest.raises(ValueError, match=f"dids_topk_ratio: got {ratio}"):
        keep_largest(torch.ones(1, 4), ratio)


def test_gradients_without_rows_and_columns_are_refused_with_their_shape():
    with pytest.raises(ValueError, match=r"\(4,\)"):
        keep_largest(torch.ones(4), 0.1)
