import pytest
import torch

from llamafactory_dids.stages.entries import TrackedEntries
from llamafactory_dids.stages.layers import TrackedLayers, track_layers
from tests.helpers import tiny_model
from tests.reference.gradients import on_block


def layers_of(*shapes: tuple[int, int]) -> TrackedLayers:
    layers = tuple(torch.nn.Linear(inputs, outputs) for outputs, inputs in shapes)
    return TrackedLayers(layers[0], tuple(map(str, range(len(layers)))), layers)


@pytest.mark.parametrize("budget", [200, 1000, 5000, 20_000])
def test_the_block_is_within_the_budget_and_uses_most_of_it(budget):
    tracked = track_layers(tiny_model(), 0.5)
    entries = TrackedEntries(tracked, budget, seed=0)
    sizes = [len(r) * len(c) for r, c in zip(entries.rows, entries.columns, strict=True)]
    assert entries.size == sum(sizes)
    assert min(budget, tracked.num_entries()) * 0.5 < entries.size <= budget


@pytest.mark.parametrize("surplus", [0, 1000])
def test_everything_is_kept_where_the_budget_allows(surplus):
    tracked = layers_of((5, 7), (3, 4))
    entries = TrackedEntries(tracked, tracked.num_entries() + surplus, seed=0)
    assert entries.size == 47
    assert [r.tolist() for r in entries.rows] == [list(range(5)), list(range(3))]
    assert [c.tolist() for c in entries.columns] == [list(range(7)), list(range(4))]


def test_slices_follow_each_other_and_cover_all():
    entries = TrackedEntries(layers_of((9, 7), (3, 14), (20, 2)), 60, seed=3)
    bounds = [(part.start, part.stop) for part in entries.slices]
    assert bounds[0][0] == 0 and bounds[-1][1] == entries.size
    assert all(a[1] == b[0] for a, b in zip(bounds, bounds[1:], strict=False))


def test_every_layer_keeps_an_entry_however_small_the_budget():
    assert TrackedEntries(layers_of((50, 50), (2, 3), (50, 50)), 4, seed=0).size >= 3


def test_sums_over_coordinates_are_unbiased_up_to_scale():
    matrix_OI = torch.randn(12, 20, generator=torch.Generator().manual_seed(1)).double()
    tracked = layers_of((12, 20))
    sums = []
    for seed in range(1500):
        entries = TrackedEntries(tracked, 60, seed)
        scale = matrix_OI.numel() / entries.size
        sums.append(scale * matrix_OI[entries.rows[0]][:, entries.columns[0]].sum().item())
    sums = torch.tensor(sums)
    error = sums.std() / len(sums) ** 0.5
    assert abs(sums.mean() - matrix_OI.sum()) < 4 * error, (sums.mean(), matrix_OI.sum(), error)


def test_the_seed_decides():
    tracked = layers_of((40, 40))
    first, again, other = (TrackedEntries(tracked, 400, seed) for seed in (1, 1, 2))
    assert torch.equal(first.rows[0], again.rows[0]) and torch.equal(first.columns[0], again.columns[0])
    assert not torch.equal(first.rows[0], other.rows[0])


@pytest.mark.parametrize("budget", [10, 30, 47])
def test_gradients_on_the_block_are_those_entries_of_the_whole_gradient(budget):
    tracked = layers_of((5, 7), (3, 4))
    entries = TrackedEntries(tracked, budget, seed=2)
    torch.manual_seed(0)
    for n in range(2):
        whole, parts = [], []
        for layer, (outputs, inputs) in enumerate(tracked.shapes()):
            x_NSI, y_NSO = torch.randn(2, 6, inputs), torch.randn(2, 6, outputs)
            whole.append(sum(torch.outer(y_NSO[n, s], x_NSI[n, s]) for s in range(6)))
            parts.append(entries.gradients(layer, entries.inputs(layer, x_NSI), y_NSO)[n])
        assert [part.shape for part in parts] == [(s.stop - s.start,) for s in entries.slices]
        expected_P = on_block(whole, entries.rows, entries.columns)
        assert torch.allclose(torch.cat(parts), expected_P, atol=1e-5)
