"""The running gradients of training against sums of per-token gradients by autograd, the model held still."""

import pytest
import torch

from llamafactory_dids.stages.entries import TrackedEntries
from llamafactory_dids.stages.layers import track_layers
from llamafactory_dids.training.running import RunningGradients
from tests.helpers import FAMILIES, LORA, collate, num_labelled, samples, tiny_model, unlabelled, with_lora
from tests.reference.gradients import on_block, token_losses, weight_gradients

NUM_DOMAINS = 4  # the last one is never drawn
ROWS = [*samples(8, seed=11), unlabelled()]
DOMAINS = [0, 1, 0, 2, 1, 1, 0, 2, 1]
MICRO_BATCHES = [[0, 1, 2], [3, 4], [5, 6], [7, 8]]


class Trained:
    """A model in training mode whose running gradients are watched."""

    def __init__(
        self, family: str = "llama", lora: str | None = None, budget: int = 700, watches=RunningGradients
    ) -> None:
        model = tiny_model(family, num_blocks=3)
        self.model = model if lora is None else with_lora(model, **LORA[lora])
        self.tracked = track_layers(self.model, 0.6, trainable_only=True)
        self.entries = TrackedEntries(self.tracked, budget, seed=5)
        self.running = watches(NUM_DOMAINS, self.tracked, self.entries)
        self.model.train()

    def loss_of(self, indices: list[int], token_weight: float, step_weight: int = 1) -> torch.Tensor:
        """Watched, as the trainer mixin does it: each labelled token's loss times `token_weight`."""
        batch = collate([ROWS[i] for i in indices])
        counts_N = num_labelled([ROWS[i] for i in indices])
        self.running.watch([DOMAINS[i] for i in indices], counts_N, token_weight, step_weight=step_weight)
        labels = batch.pop("labels")
        logits = self.model(**batch, use_cache=False).logits[:, :-1].flatten(0, 1)
        loss = token_weight * torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")
        self.running.watch_loss(loss)
        return loss

    def step(self, scale: float = 1.0, batches=MICRO_BATCHES, token_weight=None) -> None:
        for indices in batches:
            tokens = num_labelled([ROWS[i] for i in indices]).sum().item()
            (self.loss_of(indices, token_weight or 1 / tokens) * scale).backward()

    def expected(self, batches=MICRO_BATCHES, token_weight=None) -> torch.Tensor:
        """For each domain the mean of its tokens' gradients, each token as heavy as in its micro-batch's loss."""
        self.model.eval()
        sums_DP, weights_D = torch.zeros(NUM_DOMAINS, self.entries.size), torch.zeros(NUM_DOMAINS)
        for indices in batches:
            weight = token_weight or 1 / num_labelled([ROWS[i] for i in indices]).sum().item()
            for i in indices:
                for loss in token_losses(self.model, ROWS[i]):
                    gradients = weight_gradients(self.model, self.tracked.layers, loss)
                    sums_DP[DOMAINS[i]] += weight * on_block(gradients, self.entries.rows, self.entries.columns)
                    weights_D[DOMAINS[i]] += weight
        return sums_DP / weights_D.clamp(min=1e-9)[:, None]


def assert_same(found_DP: torch.Tensor, expected_DP: torch.Tensor) -> None:
    error = (found_DP - expected_DP).abs().max() / expected_DP.abs().max()
    assert error < 1e-4, f"largest error, relative to the largest entry: {error}"


@pytest.mark.parametrize("token_weight", [None, 1 / 37], ids=["mean-of-the-micro-batch", "per-item-of-the-step"])
@pytest.mark.parametrize("scale", [1.0, 1 / 4, 1024.0], ids=["plain", "accumulated", "loss-scaled"])
def test_they_are_the_token_weighted_mean_however_the_loss_is_scaled(token_weight, scale):
    trained = Trained()
    trained.step(scale, token_weight=token_weight)
    found_DP, known_D = trained.running.close_window()
    assert known_D.tolist() == [True, True, True, False]
    assert_same(found_DP, trained.expected(token_weight=token_weight))


@pytest.mark.parametrize("family", ["gpt2", *sorted(FAMILIES)])
def test_so_they_are_for_each_family_of_models(family):
    trained = Trained(family)
    trained.step(1 / 4)
    found_DP, _ = trained.running.close_window()
    assert found_DP[:3].norm(dim=1).min() > 0
    assert_same(found_DP, trained.expected())


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("lora", [None, *LORA])
def test_gradient_checkpointing_counts_each_batch_once(reentrant, lora):
    trained = Trained(lora=lora)
    trained.model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    trained.model.enable_input_require_grads()
    trained.step(1 / 4)
    found_DP, _ = trained.running.close_window()
    assert found_DP[:3].norm(dim=1).min() > 0
    trained.model.gradient_checkpointing_disable()
    assert_same(found_DP, trained.expected())


def test_the_training_itself_is_left_as_it_was():
    watched, plain = Trained(), tiny_model(num_blocks=3).train()
    watched.step(token_weight=1.0)
    for indices in MICRO_BATCHES:
        batch = collate([ROWS[i] for i in indices])
        labels = batch.pop("labels")
        logits = plain(**batch, use_cache=False).logits[:, :-1].flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum").backward()
    for ours, theirs in zip(watched.model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_a_domain_that_is_not_drawn_keeps_its_last_estimate():
    trained = Trained()
    trained.step()
    first_DP = trained.running.close_window()[0].clone()
    only_domain_two = [[3], [7]]
    trained.step(batches=only_domain_two)
    second_DP, known_D = trained.running.close_window()
    assert known_D.tolist() == [True, True, True, False]
    assert torch.equal(second_DP[[0, 1, 3]], first_DP[[0, 1, 3]])
    assert_same(second_DP[2], trained.expected(only_domain_two)[2])
    assert not torch.allclose(second_DP[2], first_DP[2])


def test_a_new_window_begins_at_zero():
    trained = Trained()
    trained.step()
    once_DP = trained.running.close_window()[0].clone()
    trained.step()
    trained.step()
    assert_same(trained.running.close_window()[0], once_DP)


def test_an_estimate_that_was_set_is_known_and_kept_until_its_domain_is_drawn():
    trained = Trained()
    trained.running.set_estimate(3, torch.full((trained.entries.size,), 2.0))
    trained.running.set_estimate(0, torch.full((trained.entries.size,), 2.0))
    trained.step()
    found_DP, known_D = trained.running.close_window()
    assert known_D.all() and (found_DP[3] == 2).all()
    assert_same(found_DP[0], trained.expected()[0])


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_an_overflow_that_the_optimizer_skips_does_not_poison_the_window(bad):
    trained = Trained()
    trained.step(batches=MICRO_BATCHES[:2])
    trained.step(bad, batches=MICRO_BATCHES[2:])
    found_DP, _ = trained.running.close_window()
    assert found_DP.isfinite().all()
    expected_DP = trained.expected(MICRO_BATCHES[:2])
    for domain in range(3):  # what was lost is a matter of length: the direction is that of the good batches
        assert torch.cosine_similarity(found_DP[domain], expected_DP[domain], dim=0) > 0.9999


def test_a_measurement_after_rest_is_no_training_batch():
    trained = Trained()
    trained.step()
    trained.running.rest()
    batch = collate(ROWS[:3])
    trained.model(**batch).loss.backward()
    assert_same(trained.running.close_window()[0], trained.expected())


def test_an_evaluation_without_gradients_is_no_training_batch():
    trained = Trained()
    trained.step()
    with torch.no_grad():
        trained.model(**collate(ROWS[:3]))
    assert_same(trained.running.close_window()[0], trained.expected())


@pytest.mark.parametrize("batches", [0, 1, 2, 4])
def test_a_restored_window_goes_on_as_if_never_interrupted(batches):
    whole, first, second = Trained(), Trained(), Trained()
    for trained in (whole, first):
        trained.step(batches=[[5, 7]])
        trained.running.close_window()
    whole.step()
    first.step(batches=MICRO_BATCHES[:batches])
    second.running.restore([first.running.share()])
    second.step(batches=MICRO_BATCHES[batches:])
    (found_DP, known_D), (expected_DP, expected_known_D) = second.running.close_window(), whole.running.close_window()
    assert torch.equal(found_DP, expected_DP)
    assert known_D.tolist() == expected_known_D.tolist() == [True, True, True, False]


def test_a_window_that_changes_from_one_rank_to_two_weighs_both_parts_alike():
    """With two ranks the host doubles each rank's loss, whose mean over the ranks is what it trains on."""
    whole, first, second = Trained(), Trained(), Trained()
    for part, weight in ((whole, 0.1), (first, 0.1)):
        for indices in MICRO_BATCHES[:2]:
            part.loss_of(indices, weight).backward()
    second.running.restore([first.running.share()])
    for indices in MICRO_BATCHES[2:]:
        whole.loss_of(indices, 0.1).backward()
        second.loss_of(indices, 0.2, step_weight=2).backward()
    assert_same(second.running.close_window()[0], whole.running.close_window()[0])


def test_shares_of_two_ranks_can_go_to_one():
    whole, shares, taker = Trained(), [], Trained()
    for indices in MICRO_BATCHES:
        rank = Trained()
        for trained in (whole, rank):
            trained.loss_of(indices, 0.1).backward()
        shares.append(rank.running.share())
    taker.running.restore(shares)
    assert_same(taker.running.close_window()[0], whole.running.close_window()[0])


def test_closing_removes_the_hooks():
    trained = Trained()
    trained.running.close()
    assert not any(layer._forward_hooks for layer in trained.tracked.layers)


def test_a_domain_of_unlabelled_samples_alone_keeps_its_last_estimate():
    trained = Trained()
    trained.step()
    before_DP = trained.running.close_window()[0].clone()
    trained.step(batches=[[4, 8], [2, 8]])  # of domain 1, whose sample here has no labels, and domain 0
    after_DP, known_D = trained.running.close_window()
    assert known_D.tolist() == [True, True, True, False]
    assert DOMAINS[8] == 1 and num_labelled([ROWS[8]]).item() == 0
    assert_same(after_DP, trained.expected([[4], [2]]) + torch.eye(NUM_DOMAINS)[2][:, None] * before_DP[2])
    trained.step(batches=[[2, 8]])
    last_DP, _ = trained.running.close_window()
    assert torch.equal(last_DP[1], after_DP[1]) and after_DP[1].norm() > 0


def test_a_domain_that_was_only_seen_without_labels_is_not_known():
    trained = Trained()
    trained.step(batches=[[0, 8]])
    assert trained.running.close_window()[1].tolist() == [True, False, False, False]


def test_an_estimate_that_is_not_finite_does_not_stay():
    trained = Trained()
    trained.step()
    trained.running.close_window()
    trained.running.set_estimate(1, torch.full((trained.entries.size,), float("nan")))
    trained.step(batches=[[3]])
    found_DP, known_D = trained.running.close_window()
    assert found_DP.isfinite().all() and known_D.tolist() == [True, False, True, False]
    trained.step()
    assert_same(trained.running.close_window()[0], trained.expected())


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_window_that_overflowed_as_a_whole_changes_nothing(bad):
    trained = Trained()
    trained.step()
    before_DP = trained.running.close_window()[0].clone()
    trained.step(bad)
    after_DP, known_D = trained.running.close_window()
    assert torch.equal(after_DP, before_DP) and known_D.tolist() == [True, True, True, False]


def test_it_is_seen_that_no_backward_pass_came_by():
    trained = Trained()
    assert not trained.running.none_reached()  # nothing was watched
    trained.step(batches=MICRO_BATCHES[:1])
    assert not trained.running.none_reached()
    trained.running.watch([0, 1], torch.ones(2), 0.5)
    assert trained.running.none_reached()
