"""The one gradient engine: per-sample gradients of linear layers from activations and output gradients.

For a linear layer with input x and output y, a sample's weight gradient is the sum over its tokens of
dL/dy outer x. So one forward and one backward pass over a padded batch gives the gradient of every sample,
with no second look at the weights: quantised, sharded and LoRA layers work alike. The alternative, a loop or
`vmap` over samples, costs a pass a sample or needs the whole parameter.

Three readers: the gradient stage (whole gradients), the measurement of tasks and domains, and the running
gradients of training (both on a fixed block of entries). Shapes: N samples, S positions, I inputs, O outputs.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DidsError
from .layers import TrackedLayers
from .losses import causal_lm_losses


def sample_gradients(inputs_NSI: Tensor, output_gradients_NSO: Tensor) -> Tensor:
    """Each sample's weight gradient, shape (N, O, I), in fp32 whatever the model's precision."""
    if inputs_NSI.dim() != 3:
        raise ValueError(
            f"a tracked layer got an input of shape {tuple(inputs_NSI.shape)}, expected (samples, tokens, inputs)"
        )
    return torch.bmm(output_gradients_NSO.float().transpose(1, 2), inputs_NSI.float())


class GradientEngine:
    """Runs batches through a model and yields what per-sample gradients are made of.

    No graph is built below the first tracked block, and no parameter's `.grad` is touched, so it can run
    in the middle of a training. The model runs in eval mode: a measurement does not depend on dropout.
    """

    def __init__(self, model: nn.Module, tracked: TrackedLayers) -> None:
        self.model = model
        self.tracked = tracked

    def run(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Loss of each sample (N), its labelled tokens (N), and for each tracked layer (x_NSI, dL_n/dy_NSO).

        The loss is the mean over a sample's labelled tokens; a sample without any has loss 0 and gradient 0.
        """
        seen: dict[int, tuple[Tensor, Tensor]] = {}
        with evaluating(self.model), self._recording(seen), torch.no_grad():
            losses_N, tokens_N = causal_lm_losses(self.model, batch)  # gradients are on from the first tracked block
            if idle := [name for i, name in enumerate(self.tracked.names) if i not in seen]:
                raise DidsError(
                    f"tracked layer {idle[0]} does not run for every batch (a mixture of experts?); allowed: models "
                    "whose decoder blocks use all of their linear layers"
                )
            records = [seen[i] for i in range(len(seen))]
            gradients = torch.autograd.grad(losses_N.sum(), [y for _, y in records], allow_unused=True)
        pairs = [
            (x, torch.zeros_like(y) if gradient is None else gradient)
            for (x, y), gradient in zip(records, gradients, strict=True)
        ]
        return losses_N.detach(), tokens_N, pairs

    @contextmanager
    def _recording(self, seen: dict[int, tuple[Tensor, Tensor]]) -> Iterator[None]:
        def keep(index: int) -> Any:
            def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
                seen[index] = (args[0].detach(), output)

            return hook

        handles = [layer.register_forward_hook(keep(i)) for i, layer in enumerate(self.tracked.layers)]
        handles.append(self.tracked.first_block.register_forward_pre_hook(_start_graph, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _start_graph(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Turn gradients on at the first tracked block, whose input becomes the leaf of the graph."""
    torch.set_grad_enabled(True)
    if args:
        return (args[0].detach().requires_grad_(), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": kwargs["hidden_states"].detach().requires_grad_()}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for the time of a measurement, then each module as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
