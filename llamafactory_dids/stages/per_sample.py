"""The one gradient engine: per-sample gradients of linear layers from activations and output gradients.

For a linear layer with input x and output y, a sample's weight gradient is the sum over its tokens of dL/dy outer x.
One forward and one backward pass over a padded batch therefore give the gradient of every sample. The weights are not
read, so quantised, sharded and LoRA layers work alike. The alternative, a loop or `vmap` over samples, costs a pass for
each sample or needs the whole parameter.

Three readers: the gradient stage (whole gradients), the measurement of tasks and domains, and the running gradients of
training (both on a fixed block of entries). Shapes: N samples, R rows of the model's batch (a pair of answers is two
rows, see `losses`), S positions, I inputs, O outputs.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core import devices
from ..errors import DidsError
from .layers import TrackedLayers, is_linear
from .losses import Objective, sample_losses


def sample_gradients(inputs_NSI: Tensor, output_gradients_NSO: Tensor, out_NOI: Tensor | None = None) -> Tensor:
    """Each sample's weight gradient, shape (N, O, I), in fp32 whatever the model's precision."""
    y_NOS, dtype = output_gradients_NSO.transpose(1, 2), inputs_NSI.dtype
    half = dtype == y_NOS.dtype and dtype in (torch.bfloat16, torch.float16)
    if half and devices.has_wide_products(inputs_NSI.device):
        # The matrix units' products are exact in fp32, and they add in fp32. Widening the inputs first gains nothing.
        return torch.bmm(y_NOS, inputs_NSI, torch.float32, out=out_NOI)
    return torch.bmm(y_NOS.float(), inputs_NSI.float(), out=out_NOI)


def by_sample(values: Tensor, num_rows: int, num_samples: int) -> Tensor:
    """A layer's inputs or outputs, shape (N, tokens, features), with the rows of a sample side by side.

    `values` is (R, S, features), or (R * S, features) if a block flattens its tokens, as blocks with experts do. Raises
    ValueError for any other shape.
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


class SampleGradients(NamedTuple):
    """Losses (N), terms (N), and (x_NSI, dL_n/dy_NSO * scale_N) of each tracked layer, for N samples.

    The scale is a power of two. It keeps the small gradients of long samples within the range of fp16. A reader divides
    the fp32 sums by it. In other precisions it changes no digit.
    """

    losses_N: Tensor
    counts_N: Tensor
    pairs: list[tuple[Tensor, Tensor]]
    scale_N: Tensor


class GradientEngine:
    """Runs batches through a model and returns the factors of the per-sample gradients.

    No graph is built below the first tracked block, and no parameter's `.grad` changes, so the engine can run in the
    middle of a training. The model runs in eval mode: a measurement does not depend on dropout.
    """

    def __init__(self, model: nn.Module, tracked: TrackedLayers, objective: Objective) -> None:
        self.model = model
        self.tracked = tracked
        self.objective = objective

    def run(self, batch: Mapping[str, Any]) -> SampleGradients:
        """The factors of the gradients of the batch's samples.

        A sample without terms has loss 0 and gradient 0. A layer that did not run has gradient 0 for all samples.
        Raises DidsError if a layer did not get every token.
        """
        recording = _Recording(self.tracked)
        with evaluating(self.model), recording.of(self.model), torch.enable_grad():
            losses_N, counts_N = sample_losses(self.objective, self.model, batch)
            scale_N = _scale(counts_N)
            outputs = [call.output for call in recording.calls]
            gradients = torch.autograd.grad((losses_N * scale_N).sum(), outputs, allow_unused=True) if outputs else ()
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self.tracked.layers]
        for call, gradient in zip(recording.calls, gradients, strict=True):
            if gradient is not None:  # the loss depends on this call
                self._check_tokens(call, recording.num_tokens)
                x_NSI = by_sample(call.inputs, recording.num_rows, len(losses_N))
                found[call.layer].append((x_NSI, by_sample(gradient, recording.num_rows, len(losses_N))))
        empty = losses_N.detach().new_zeros(len(losses_N), 0, 1)
        pairs = [
            (_side_by_side([x for x, _ in calls]), _side_by_side([y for _, y in calls]))
            if calls
            else (empty.expand(-1, -1, num_inputs), empty.expand(-1, -1, num_outputs))
            for calls, (num_outputs, num_inputs) in zip(found, self.tracked.shapes(), strict=True)
        ]
        return SampleGradients(losses_N.detach(), counts_N, pairs, scale_N)

    def _check_tokens(self, call: "_Call", num_tokens: int) -> None:
        if (count := call.inputs.shape[:-1].numel()) != num_tokens:
            raise DidsError(
                f"tracked layer {self.tracked.names[call.layer]} got {count} of a batch's {num_tokens} tokens, so that "
                "it cannot be told whose they are; allowed: models whose linear layers take every token, but for lists "
                "of experts"
            )


_TERM_SCALE = 5  # about the power of two that scales a term's loss: far from both ends of fp16's range


def _scale(counts_N: Tensor) -> Tensor:
    """The factor of each sample's mean loss: it undoes the division by the number of terms, and adds _TERM_SCALE."""
    return torch.exp2(counts_N.clamp(min=1).float().log2().round() + _TERM_SCALE)


def _side_by_side(calls: list[Tensor]) -> Tensor:
    """The calls of a layer joined along the tokens, since their gradients add up. A single call is not copied."""
    return calls[0] if len(calls) == 1 else torch.cat(calls, dim=1)


class _Call(NamedTuple):
    """The input and output of one call of a tracked layer."""

    layer: int
    inputs: Tensor
    output: Tensor


class _Recording:
    """The calls of the tracked layers in the one forward pass with a gradient."""

    def __init__(self, tracked: TrackedLayers) -> None:
        self.tracked = tracked
        self.calls: list[_Call] = []
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
        self._wanted = torch.is_grad_enabled()  # False for a reference model, which runs without gradient
        torch.set_grad_enabled(False)

    def _start_graph(self, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Turn gradients on at the first tracked block. Its input becomes the leaf of the graph."""
        if not self._wanted:
            return args, kwargs
        torch.set_grad_enabled(True)
        hidden = (args[0] if args else kwargs["hidden_states"]).detach().requires_grad_()
        self.num_rows, self.num_tokens = len(hidden), hidden.shape[:-1].numel()
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    def _keep(self, index: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            if self._wanted and output.requires_grad:
                self.calls.append(_Call(index, args[0].detach(), output))

        return hook

    def _end(self, *_: Any) -> None:
        torch.set_grad_enabled(self._wanted)
        self._wanted = False


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode for a measurement, then each module back into its mode.

    Linear layers keep their mode: they compute the same in either. When a 4-bit layer runs in eval mode on a CPU,
    bitsandbytes packs its weight anew, and the layer gives no gradient from then on.
    """
    training = [module for module in model.modules() if module.training and not is_linear(module)]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
