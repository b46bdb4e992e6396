"""The in-run impact against per-token gradients by autograd, the model held still."""

from functools import partial

import pytest
import torch

from llamafactory_dids.training.in_run import InRunImpact
from tests.helpers import LORA
from tests.training.test_running import MICRO_BATCHES, NUM_DOMAINS, Trained

NUM_TASKS = 2


def in_run(num_domains, tracked, entries) -> InRunImpact:
    found = InRunImpact(num_domains, NUM_TASKS, tracked, entries)
    found.aim(torch.randn(NUM_TASKS, entries.size, generator=torch.Generator().manual_seed(1)))
    return found


WatchedInRun = partial(Trained, watches=in_run)


def assert_along(found_DT, trained, expected_DP) -> None:
    expected_DT = expected_DP @ trained.running.directions_TP.T
    assert torch.allclose(torch.tensor(found_DT).float(), expected_DT, atol=1e-4 * expected_DT.abs().max())


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2_moe"])
@pytest.mark.parametrize("scale", [1.0, 1024.0], ids=["plain", "loss-scaled"])
def test_it_is_the_token_weighted_mean_gradient_along_each_direction(family, scale):
    trained = WatchedInRun(family)
    trained.step(scale)
    mean_DT, covariance_DTT, _ = trained.running.close_window()
    assert_along(mean_DT, trained, trained.expected())
    assert torch.tensor(covariance_DTT).isfinite().all(dim=(1, 2)).tolist() == [True, True, True, False]


def test_adapters_are_seen_as_whole_layers_are():
    trained = WatchedInRun(lora=next(iter(LORA)))
    trained.step()
    assert_along(trained.running.close_window()[0], trained, trained.expected())


def test_memory_does_not_grow_with_the_domains():
    few = WatchedInRun()
    many = InRunImpact(1000, NUM_TASKS, few.tracked, few.entries)
    held = sum(total.numel() for total in many.share().values())
    assert many.directions_TP.numel() == few.running.directions_TP.numel() and held < 1000 * 12


def test_a_window_begins_where_it_is_aimed_anew():
    trained = WatchedInRun()
    trained.step()
    first_DT, *_ = trained.running.close_window()
    trained.running.aim(2 * trained.running.directions_TP)
    trained.step()
    assert trained.running.close_window()[0] == pytest.approx(2 * first_DT, rel=1e-4)


def test_what_runs_while_it_rests_is_not_seen():
    trained = WatchedInRun()
    trained.step()
    loss = trained.loss_of([0, 3], 1.0)
    trained.running.rest()
    loss.backward()
    assert_along(trained.running.close_window()[0], trained, trained.expected())


def test_shares_of_a_window_add_up_on_fewer_ranks():
    whole, first, second, taker = (WatchedInRun() for _ in range(4))
    whole.step()
    first.step(batches=MICRO_BATCHES[:2])
    second.step(batches=MICRO_BATCHES[2:])
    taker.running.restore([first.running.share(), second.running.share()])
    for found, expected in zip(taker.running.close_window(), whole.running.close_window(), strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_window_goes_on_exactly_after_it_was_stored():
    whole, first, second = (WatchedInRun() for _ in range(3))
    whole.step()
    first.step(batches=MICRO_BATCHES[:2])
    second.running.restore([first.running.share()])
    second.step(batches=MICRO_BATCHES[2:])
    for found, expected in zip(second.running.close_window(), whole.running.close_window(), strict=True):
        assert (found == expected).all()


def test_it_says_when_no_gradient_came():
    trained = WatchedInRun()
    trained.step()
    assert not trained.running.none_reached()
    trained.running.watch([0, 1], torch.ones(2), 0.5)
    assert trained.running.none_reached() and len(trained.running.close_window().mean_DT) == NUM_DOMAINS
