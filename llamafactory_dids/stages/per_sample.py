"""The one gradient engine: per-sample gradients of linear layers from activations and output gradients.

For a linear layer with input x and output y, a sample's weight gradient is the sum over its tokens of
dL/dy outer x. So one forward and one backward pass over a padded batch gives the gradient of every sample,
with no second look at the weights: quantised, sharded and LoRA layers work alike. The alternative, a loop or
`vmap` over samples, costs a pass a sample or needs the whole parameter.

Three readers: the gradient stage (whole gradients), the measurement of tasks and domains, and the running
gradients of training (both on a fixed block of entries). Shapes: N samples, R rows of the model's batch (a pair of
answers is two rows, see `losses`), S positions, I inputs, O outputs.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DidsError
from .layers import TrackedLayers
from .losses import Objective, sample_losses


def sample_gradients(inputs_NSI: Tensor, output_gradients_NSO: Tensor) -> Tensor:
    """Each sample's weight gradient, shape (N, O, I), in fp32 whatever the model's precision."""
    return torch.bmm(output_gradients_NSO.float().transpose(1, 2), inputs_NSI.float())


def by_sample(values: Tensor, num_rows: int, num_samples: int) -> Tensor:
    """What a layer takes or gives, shape (N, tokens, features): the rows of a sample side by side.

    `values` is (R, S, features), or (R * S, features) where a block flattens its tokens, as those of experts do.
    Raises ValueError for any other shape.
    """
    if values.dim() == 2 and len(values) % num_rows == 0:
        values = values.reshape(num_rows, -1, values.shape[-1])
    if values.dim() != 3 or len(values) % num_samples:
        raise ValueError(
            f"a tracked layer got a shape of {tuple(values.shape)}, expected (rows, tokens, features) of {num_rows} "
            f"rows, {num_samples} samples"
        )
    if len(values) == num_samples:
        return values
    return values.unflatten(0, (-1, num_samples)).transpose(0, 1).flatten(1, 2)


class GradientEngine:
    """Runs batches through a model and yields what per-sample gradients are made of.

    No graph is built below the first tracked block, and no parameter's `.grad` is touched, so it can run
    in the middle of a training. The model runs in eval mode: a measurement does not depend on dropout.
    """

    def __init__(self, model: nn.Module, tracked: TrackedLayers, objective: Objective) -> None:
        self.model = model
        self.tracked = tracked
        self.objective = objective

    def run(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Loss of each sample (N), its terms (N), and for each tracked layer (x_NSI, dL_n/dy_NSO).

        A sample without any terms has loss 0 and gradient 0, and so has, for all samples, a layer that did not run.
        """
        recording = _Recording(self.tracked)
        with evaluating(self.model), recording.of(self.model), torch.enable_grad():
            losses_N, counts_N = sample_losses(self.objective, self.model, batch)
            ran = list(recording.seen)
            outputs = [recording.seen[i][1] for i in ran]
            gradients = dict(
                zip(ran, torch.autograd.grad(losses_N.sum(), outputs, allow_unused=True), strict=True) if ran else ()
            )
        pairs = []
        for i, (num_outputs, num_inputs) in enumerate(self.tracked.shapes()):
            if gradients.get(i) is None:
                zero = losses_N.new_zeros(len(losses_N), 0, 1)
                pairs.append((zero.expand(-1, -1, num_inputs), zero.expand(-1, -1, num_outputs)))
                continue
            x, y = recording.seen[i][0], gradients[i]
            if x.shape[:-1].numel() != recording.num_tokens:
                raise DidsError(
                    f"tracked layer {self.tracked.names[i]} got {x.shape[:-1].numel()} of a batch's "
                    f"{recording.num_tokens} tokens, so that it cannot be told whose they are; allowed: models whose "
                    "linear layers, outside of lists of experts, take every token"
                )
            pairs.append(tuple(by_sample(v, recording.num_rows, len(losses_N)) for v in (x, y)))
        return losses_N.detach(), counts_N, pairs


class _Recording:
    """What the tracked layers took and gave in the one forward pass of a model that wants a gradient."""

    def __init__(self, tracked: TrackedLayers) -> None:
        self.tracked = tracked
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}
        self.num_rows = self.num_tokens = 0
        self._wanted = False

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        handles = [layer.register_forward_hook(self._keep(i)) for i, layer in enumerate(self.tracked.layers)]
        handles.append(self.tracked.first_block.register_forward_pre_hook(self._start_graph, with_kwargs=True))
        handles.append(model.register_forward_pre_hook(self._begin))
        handles.append(model.register_forward_hook(self._end))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, *_: Any) -> None:
        self._wanted = torch.is_grad_enabled()  # not that of a reference, which runs without
        torch.set_grad_enabled(False)

    def _start_graph(self, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Turn gradients on at the first tracked block, whose input becomes the leaf of the graph."""
        if not self._wanted:
            return args, kwargs
        torch.set_grad_enabled(True)
        hidden = (args[0] if args else kwargs["hidden_states"]).detach().requires_grad_()
        self.num_rows, self.num_tokens = len(hidden), hidden.shape[:-1].numel()
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    def _keep(self, index: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if self._wanted:
                self.seen[index] = (args[0].detach(), output)

        return hook

    def _end(self, *_: Any) -> None:
        torch.set_grad_enabled(self._wanted)
        self._wanted = False


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
