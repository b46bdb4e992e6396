"""What the meter measures against plain loops over samples with autograd."""

import numpy as np
import pytest
import torch

from llamafactory_dids.stages import meter as module
from llamafactory_dids.stages.entries import TrackedEntries
from llamafactory_dids.stages.layers import track_layers
from llamafactory_dids.stages.meter import GradientMeter
from llamafactory_dids.stages.per_sample import GradientEngine
from tests.helpers import NEXT_TOKENS, collate, num_labelled, samples, tiny_model, unlabelled
from tests.reference.gradients import mean_loss, on_block, token_losses, weight_gradients

TASKS = [samples(7, seed=1), samples(4, seed=2), samples(1, seed=3)]


@pytest.fixture(scope="module")
def model():
    return tiny_model(num_blocks=3)


def make_meter(model, budget=900, **options) -> GradientMeter:
    tracked = track_layers(model, 0.3)
    return GradientMeter(
        GradientEngine(model, tracked, NEXT_TOKENS), TrackedEntries(tracked, budget, seed=5), collate, **options
    )


def block_gradient(model, meter, loss) -> torch.Tensor:
    gradients = weight_gradients(model, meter.engine.tracked.layers, loss)
    return on_block(gradients, meter.entries.rows, meter.entries.columns)


def close(found, expected) -> bool:
    return torch.allclose(found, expected, atol=2e-5 * float(expected.abs().max()), rtol=1e-4)


def test_task_loss_mean_gradient_and_fisher_are_plain_means_over_samples(model):
    meter = make_meter(model, max_samples=3)
    measured = meter.tasks(TASKS)
    assert measured.gradients_TP.shape == measured.fisher_TP.shape == (3, meter.entries.size)
    for task, rows in enumerate(TASKS):
        losses = [mean_loss(model, row) for row in rows]
        gradients = [block_gradient(model, meter, loss) for loss in losses]
        assert measured.losses_T[task] == pytest.approx(sum(loss.item() for loss in losses) / len(rows), rel=1e-5)
        assert close(measured.gradients_TP[task], sum(gradients) / len(rows))
        assert close(measured.fisher_TP[task], sum(g * g for g in gradients) / len(rows))


def test_a_domains_gradient_is_the_mean_over_its_tokens(model):
    meter, rows = make_meter(model, max_samples=4), [*samples(6, seed=4), unlabelled()]
    expected_P = torch.zeros(meter.entries.size)
    for row in rows:
        for loss in token_losses(model, row):
            expected_P += block_gradient(model, meter, loss) / num_labelled(rows).sum()
    assert close(meter.domain(rows), expected_P)


def test_a_domain_without_labels_has_a_gradient_of_zero(model):
    assert not make_meter(model).domain([unlabelled(), unlabelled(4)]).any()


@pytest.mark.parametrize("options", [{"max_samples": 1}, {"max_samples": 64}, {"max_tokens": 20}])
def test_batches_do_not_matter(model, options):
    one, other = make_meter(model).tasks(TASKS), make_meter(model, **options).tasks(TASKS)
    np.testing.assert_allclose(one.losses_T, other.losses_T, rtol=1e-5)
    assert close(one.gradients_TP, other.gradients_TP) and close(one.fisher_TP, other.fisher_TP)


def test_the_order_of_the_samples_does_not_matter(model):
    one, other = make_meter(model).tasks(TASKS), make_meter(model).tasks([rows[::-1] for rows in TASKS])
    np.testing.assert_allclose(one.losses_T, other.losses_T, rtol=1e-5)
    assert close(one.gradients_TP, other.gradients_TP)


def test_measuring_leaves_the_samples_as_they_were(model):
    rows = samples(3, seed=6)
    before = [dict(row) for row in rows]
    make_meter(model).tasks([rows])
    assert rows == before


def test_the_scores_of_samples_are_their_gradients_along_each_direction_times_their_terms():
    meter = make_meter(tiny_model(), 500)
    rows = samples(5, seed=3)
    directions_TP = torch.randn(2, meter.entries.size, generator=torch.Generator().manual_seed(4))
    counts_N, scores_NT = meter.scores(rows, directions_TP)
    assert counts_N.tolist() == num_labelled(rows).tolist()
    for row, count, score_T in zip(rows, counts_N, scores_NT, strict=True):
        torch.testing.assert_close(score_T, count * (directions_TP @ meter.domain([row])), rtol=1e-3, atol=1e-5)


def spoil(meter, monkeypatch, bad, *, loss=False):
    """The loss, or a gradient, of the samples that begin with these tokens is not finite."""
    run = meter.engine.run

    def overflow(batch):
        found = run(batch)
        for n, ids in enumerate(batch["input_ids"].tolist()):
            if ids[: len(bad)] == bad:
                (found.losses_N if loss else found.pairs[-1][1])[n] = torch.inf
        return found

    monkeypatch.setattr(meter.engine, "run", overflow)


@pytest.mark.parametrize("loss", [True, False])
def test_a_sample_that_is_not_finite_spoils_no_other_and_is_counted(model, monkeypatch, caplog, loss):
    meter, rows = make_meter(model), TASKS[0]
    without = [rows[:2] + rows[3:], TASKS[1]]
    expected, expected_P = meter.tasks(without), meter.domain(without[0])
    spoil(meter, monkeypatch, rows[2]["input_ids"], loss=loss)
    found = meter.tasks([rows, TASKS[1]])
    np.testing.assert_allclose(found.losses_T, expected.losses_T, rtol=1e-6)
    assert close(found.gradients_TP, expected.gradients_TP) and close(found.fisher_TP, expected.fisher_TP)
    assert close(meter.domain(rows), expected_P)
    meter.report()
    meter.report()
    assert [record.getMessage() for record in caplog.records] == [
        "2 samples are left out of this measurement: their loss or gradient is not finite"
    ]


def test_a_task_that_no_sample_is_left_of_cannot_be_measured(model, monkeypatch):
    meter = make_meter(model)
    spoil(meter, monkeypatch, TASKS[2][0]["input_ids"])
    found = meter.tasks(TASKS)
    assert np.isfinite(found.losses_T[:2]).all() and np.isnan(found.losses_T[2])
    assert found.gradients_TP[:2].isfinite().all() and found.gradients_TP[2].isnan().all()


def test_no_more_gradients_are_whole_than_there_is_room_for(model, monkeypatch):
    meter, taken = make_meter(model), []
    expected = meter.tasks(TASKS)
    monkeypatch.setattr(module, "ENTRIES_AT_ONCE", 2 * meter.entries.size)
    gradients = meter.entries.gradients
    monkeypatch.setattr(meter.entries, "gradients", lambda i, x, y: taken.append(len(x)) or gradients(i, x, y))
    found = meter.tasks(TASKS)
    assert max(taken) == 2
    assert close(found.gradients_TP, expected.gradients_TP) and close(found.fisher_TP, expected.fisher_TP)
