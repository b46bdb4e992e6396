"""Gradients the slow way: one sample at a time, no padding, autograd on the weights themselves."""

import torch


def token_losses(model, sample):
    """-log p of each labelled token, given the tokens before it."""
    logits_SV = model(input_ids=torch.tensor([sample["input_ids"]])).logits[0]
    return [
        -torch.log_softmax(logits_SV[position - 1], dim=0)[label]
        for position, label in enumerate(sample["labels"])
        if position > 0 and label != -100
    ]


def mean_loss(model, sample):
    losses = token_losses(model, sample)
    return sum(losses) / len(losses)


def weight_gradients(model, layers, loss):
    """Gradient of `loss` on each layer's weight, outputs first."""
    gradients = torch.autograd.grad(loss, [layer.weight for layer in layers], retain_graph=True)
    conv = [type(layer).__name__ == "Conv1D" for layer in layers]
    return [g.T if transposed else g for g, transposed in zip(gradients, conv, strict=True)]


def sample_gradient(model, layers, sample):
    """All of the layers' gradients of the sample's mean loss, one after the other, flat."""
    gradients = weight_gradients(model, layers, mean_loss(model, sample))
    return torch.cat([gradient.flatten() for gradient in gradients])


def on_block(gradients, rows, columns):
    """The entries of each gradient that lie in chosen rows and columns, one after the other, flat."""
    parts = []
    for gradient, chosen_rows, chosen_columns in zip(gradients, rows, columns, strict=True):
        parts += [gradient[r, c] for r in chosen_rows for c in chosen_columns]
    return torch.stack(parts)


def keep_largest_by_sorting(gradient_P, count):
    """The `count` entries of largest magnitude, zeros elsewhere."""
    order = sorted(range(len(gradient_P)), key=lambda p: -abs(gradient_P[p]))
    kept_P = gradient_P * 0
    kept_P[order[:count]] = gradient_P[order[:count]]
    return kept_P
