"""The next-token loss and its hand-made gradient against autograd in float64."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from llamafactory_dids.stages.losses import IGNORE_INDEX, LanguageModelling, _CrossEntropy

N, Q, V = 3, 5, 11


def batch(dtype=torch.float32, scale=1.0):
    """Logits, and targets of a sample with all, one with some and one with none."""
    generator = torch.Generator().manual_seed(0)
    logits_NQV = (scale * torch.randn(N, Q, V, generator=generator)).to(dtype)
    targets_NQ = torch.randint(V, (N, Q), generator=generator)
    targets_NQ[1, ::2] = IGNORE_INDEX
    targets_NQ[2] = IGNORE_INDEX
    return logits_NQV, targets_NQ, torch.rand(N, Q, generator=generator)


def expected(logits_NQV, targets_NQ, weights_NQ):
    logits = logits_NQV.double().requires_grad_()
    losses = F.cross_entropy(logits.flatten(0, 1), targets_NQ.flatten(), reduction="none").unflatten(0, (N, Q))
    (gradient,) = torch.autograd.grad((losses * weights_NQ).sum(), logits)
    return losses.detach().float(), gradient


def ours(logits_NQV, targets_NQ, weights_NQ, spent=False):
    leaf = logits_NQV.clone().requires_grad_()
    logits = leaf * 1
    losses = _CrossEntropy.apply(logits, targets_NQ, spent)
    (gradient,) = torch.autograd.grad((losses * weights_NQ).sum(), leaf)
    assert spent or torch.equal(logits.detach(), logits_NQV), "the logits are the model's"
    return losses.detach(), gradient


@pytest.mark.parametrize("spent", [False, True])
@pytest.mark.parametrize("scale", [1.0, 30.0, 3000.0])
def test_losses_and_gradients_are_autograds_where_softmax_underflows_too(scale, spent):
    given = batch(scale=scale)
    for mine, theirs in zip(ours(*given, spent), expected(*given), strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spent", [False, True])
def test_in_half_precision_what_is_left_of_a_sure_target_is_not_rounded_away(spent):
    given = batch(torch.bfloat16)
    given[0][0].scatter_(1, given[1][0][:, None], 12.0)  # a share of 0.999 and more, which bfloat16 rounds to 1
    losses, gradient = ours(*given, spent)
    expected_losses, expected_gradient = expected(*given)
    torch.testing.assert_close(losses, expected_losses, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=2e-2, atol=1e-8)


def test_without_a_gradient_the_losses_are_the_same():
    logits, targets, weights = batch()
    with torch.no_grad():
        losses = _CrossEntropy.apply(logits, targets, False)
    torch.testing.assert_close(losses, expected(logits, targets, weights)[0])
    some = targets[:2]  # the last sample has none, so that its losses have no gradient
    torch.testing.assert_close(losses[:2], ours(logits[:2], some, weights[:2])[0], rtol=0, atol=0)


class Capped(torch.nn.Module):
    """A model whose last step needs what it gave: its logits must not be written over."""

    def __init__(self, cap):
        super().__init__()
        self.cap, self.weight = cap, torch.nn.Parameter(torch.randn(V, V, generator=torch.Generator().manual_seed(1)))

    def forward(self, input_ids, use_cache=False):
        logits = F.linear(F.one_hot(input_ids, V).float(), self.weight)
        return SimpleNamespace(logits=logits.tanh() if self.cap else logits)


@pytest.mark.parametrize("cap", [False, True])
def test_gradients_of_a_models_weights_are_autograds_whether_it_needs_its_logits_or_not(cap):
    model = Capped(cap)
    ids = torch.randint(V, (N, Q), generator=torch.Generator().manual_seed(2))
    losses_J, _ = LanguageModelling().terms(model, {"input_ids": ids, "labels": ids})
    (mine,) = torch.autograd.grad(losses_J.sum(), model.weight)
    loss = F.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(mine, torch.autograd.grad(loss, model.weight)[0])
