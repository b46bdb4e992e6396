"""Losses by forward passes against a plain loop over samples and tokens."""

import math

import pytest
import torch

from llamafactory_dids.stages.meter import Meter, TokenLosses
from tests.helpers import NEXT_TOKENS, collate, num_labelled, samples, tiny_model, unlabelled
from tests.reference.gradients import mean_loss, token_losses

ROWS = [*samples(7, seed=1), unlabelled()]


@pytest.fixture(scope="module")
def model():
    return tiny_model(num_blocks=2)


@pytest.fixture(scope="module")
def other():
    return tiny_model(num_blocks=2, seed=9)


@pytest.mark.parametrize("options", [{}, {"max_samples": 1}, {"max_tokens": 20}])
def test_each_labelled_token_has_its_loss_in_its_samples_row(model, options):
    found = Meter(model, NEXT_TOKENS, collate, **options).token_losses(ROWS)
    assert found.counts_N.tolist() == num_labelled(ROWS).tolist()
    for row, losses_S, count in zip(ROWS, found.losses_NS, found.counts_N, strict=True):
        expected = torch.tensor([float(loss) for loss in token_losses(model, row)], dtype=torch.float64)
        torch.testing.assert_close(losses_S[:count], expected, rtol=1e-5, atol=1e-6)
        assert not losses_S[count:].any()


def test_the_mean_is_over_the_samples_that_have_labels(model):
    expected = sum(float(mean_loss(model, row)) for row in ROWS[:-1]) / (len(ROWS) - 1)
    assert Meter(model, NEXT_TOKENS, collate).token_losses(ROWS).mean() == pytest.approx(expected, rel=1e-5)


def test_the_excess_is_clipped_at_each_token_and_averaged_over_tokens(model, other):
    found = Meter(model, NEXT_TOKENS, collate).token_losses(ROWS)
    reference = Meter(other, NEXT_TOKENS, collate).token_losses(ROWS)
    over = []
    for row in ROWS:
        pairs = zip(token_losses(model, row), token_losses(other, row), strict=True)
        over += [max(float(now) - float(then), 0.0) for now, then in pairs]
    assert found.excess_over(reference) == pytest.approx(sum(over) / len(over), rel=1e-4)
    assert found.excess_over(found) == 0


def test_nothing_labelled_has_neither_a_mean_nor_an_excess():
    nothing = TokenLosses(torch.zeros(2, 5, dtype=torch.float64), torch.zeros(2, dtype=torch.int64))
    assert math.isnan(nothing.mean()) and math.isnan(nothing.excess_over(nothing))


def test_a_training_model_is_given_back_in_training_mode(model):
    model.train()
    Meter(model, NEXT_TOKENS, collate).token_losses(ROWS)
    assert model.training
    model.eval()


def test_losses_from_the_logits_of_a_batch_are_those_of_its_samples(model):
    batch = collate(ROWS)
    outputs = model(batch["input_ids"], attention_mask=batch["attention_mask"])
    losses_N = NEXT_TOKENS.training_losses(outputs, batch)
    assert NEXT_TOKENS.counts(batch).tolist() == num_labelled(ROWS).tolist()
    expected = [float(mean_loss(model, row)) for row in ROWS[:-1]]
    assert losses_N.tolist() == pytest.approx([*expected, 0.0], rel=1e-4)


@pytest.mark.parametrize("num_items", [None, 31])
def test_losses_that_the_models_own_loss_left_in_its_graph_are_those_of_its_samples(model, num_items):
    """Without logits, so that no softmax is computed anew; divided by what the host says, and with a router's loss."""
    batch = collate(ROWS)
    loss = model(**batch, num_items_in_batch=num_items).loss * 2 + model.lm_head.weight.mean()
    losses_N = NEXT_TOKENS.training_losses({"loss": loss}, batch)
    expected = [float(mean_loss(model, row)) for row in ROWS[:-1]]
    assert losses_N.tolist() == pytest.approx([*expected, 0.0], rel=1e-4)
    loss.backward()
    assert NEXT_TOKENS.training_losses({"loss": loss.detach()}, batch) is None
