"""The next-token loss and its hand-made gradient against autograd in float64, and that logits are few."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from llamafactory_dids.stages.losses import IGNORE_INDEX, LanguageModelling, _CrossEntropy

J, V = 9, 11
N, S = 3, 5


def rows(dtype=torch.float32, scale=1.0):
    """Logits, targets, and the weight of each loss."""
    generator = torch.Generator().manual_seed(0)
    logits_JV = (scale * torch.randn(J, V, generator=generator)).to(dtype)
    return logits_JV, torch.randint(V, (J,), generator=generator), torch.rand(J, generator=generator)


def expected(logits_JV, targets_J, weights_J):
    logits = logits_JV.double().requires_grad_()
    losses_J = F.cross_entropy(logits, targets_J, reduction="none")
    (gradient,) = torch.autograd.grad((losses_J * weights_J).sum(), logits)
    return losses_J.detach().float(), gradient


def ours(logits_JV, targets_J, weights_J, spent=False):
    leaf = logits_JV.clone().requires_grad_()
    logits = leaf * 1
    losses_J = _CrossEntropy.apply(logits, targets_J, spent)
    (gradient,) = torch.autograd.grad((losses_J * weights_J).sum(), leaf)
    assert spent or torch.equal(logits.detach(), logits_JV), "the logits are the model's"
    return losses_J.detach(), gradient


@pytest.mark.parametrize("spent", [False, True])
@pytest.mark.parametrize("scale", [1.0, 30.0, 3000.0])
def test_losses_and_gradients_are_autograds_where_softmax_underflows_too(scale, spent):
    given = rows(scale=scale)
    for mine, theirs in zip(ours(*given, spent), expected(*given), strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spent", [False, True])
def test_in_half_precision_what_is_left_of_a_sure_target_is_not_rounded_away(spent):
    given = rows(torch.bfloat16)
    given[0].scatter_(1, given[1][:, None], 12.0)  # a share of 0.999 and more, which bfloat16 rounds to 1
    losses, gradient = ours(*given, spent)
    expected_losses, expected_gradient = expected(*given)
    torch.testing.assert_close(losses, expected_losses, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=2e-2, atol=1e-8)


def test_without_a_gradient_the_losses_are_the_same():
    logits, targets, weights = rows()
    with torch.no_grad():
        losses = _CrossEntropy.apply(logits, targets, False)
    torch.testing.assert_close(losses, expected(logits, targets, weights)[0])
    torch.testing.assert_close(losses, ours(logits, targets, weights)[0], rtol=0, atol=0)


class Tiny(torch.nn.Module):
    """A language model of embeddings and a head, which notes how many logits it made.

    With a `cap` its last step needs what the head gave, so its logits must not be written over; without `head` it
    multiplies by a weight, and there is nothing to hook on.
    """

    def __init__(self, cap=False, head=True):
        super().__init__()
        torch.manual_seed(1)
        self.embeddings, self.lm_head = torch.nn.Embedding(V, 4), torch.nn.Linear(4, V, bias=False)
        self.cap, self.head, self.made = cap, head, 0

    def get_output_embeddings(self):
        return self.lm_head if self.head else None

    def forward(self, input_ids, use_cache=False):
        hidden = self.embeddings(input_ids)
        logits = self.lm_head(hidden) if self.head else hidden @ self.lm_head.weight.T
        self.made = logits.shape[:-1].numel()
        return SimpleNamespace(logits=logits.tanh() if self.cap else logits)


def batch():
    """A sample with all labels, one with some and one with none."""
    ids = torch.randint(V, (N, S), generator=torch.Generator().manual_seed(2))
    labels = ids.clone()
    labels[1, :3] = IGNORE_INDEX
    labels[2] = IGNORE_INDEX
    return {"input_ids": ids, "labels": labels}


@pytest.mark.parametrize("cap", [False, True])
@pytest.mark.parametrize("head", [False, True])
def test_gradients_of_a_models_weights_are_autograds_whatever_the_model_does_with_its_logits(cap, head):
    model, given = Tiny(cap, head), batch()
    losses_J, samples_J = LanguageModelling().terms(model, given)
    mine = torch.autograd.grad(losses_J.sum(), list(model.parameters()))
    assert model.made == (6 if head else N * S)
    assert samples_J.tolist() == [0] * 4 + [1] * 2
    logits = model(given["input_ids"]).logits[:, :-1].flatten(0, 1)
    loss = F.cross_entropy(logits, given["labels"][:, 1:].flatten(), reduction="sum", ignore_index=IGNORE_INDEX)
    for one, other in zip(mine, torch.autograd.grad(loss, list(model.parameters())), strict=True):
        torch.testing.assert_close(one, other)


def test_a_batch_without_labels_has_no_loss_and_a_gradient_of_zero():
    model, given = Tiny(), batch()
    given["labels"] = torch.full_like(given["labels"], IGNORE_INDEX)
    losses_J, samples_J = LanguageModelling().terms(model, given)
    assert len(losses_J) == len(samples_J) == 0
    assert all(not g.any() for g in torch.autograd.grad(losses_J.sum(), list(model.parameters())))
