"""The tracked layers: the linear layers of the last decoder blocks (method section 1.1, paper section 5.4).

Blocks are found by structure, not by name: the longest list of modules with linear layers, in the part of the model
that reads tokens. Embeddings, norms, the head, and towers for pictures or sounds are excluded. With short answers the
head would cluster samples by answer token. Experts (layer lists inside a block, or 3-D weights) are excluded too: a
router sends them tokens, and nothing says which sample a token came from.
"""

import logging
import math
from dataclasses import dataclass

from torch import nn

from ..errors import DidsError, refuse

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackedLayers:
    """The tracked linear layers in execution order, and the first block that has one."""

    first_block: nn.Module
    names: tuple[str, ...]
    layers: tuple[nn.Module, ...]

    def shapes(self) -> list[tuple[int, int]]:
        """(outputs, inputs) of each layer."""
        return [linear_shape(layer) for layer in self.layers]

    def num_entries(self) -> int:
        """P, the number of gradient entries of a sample."""
        return sum(outputs * inputs for outputs, inputs in self.shapes())


def is_linear(module: nn.Module) -> bool:
    """Whether a layer multiplies by one matrix: torch's Linear, its quantised variants, or GPT-2's Conv1D."""
    return isinstance(module, nn.Linear) or (type(module).__name__ == "Conv1D" and hasattr(module, "nf"))


def linear_shape(layer: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of a linear layer. Its weight is not read, since it may be packed or sharded."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    return int(layer.nf), int(layer.nx)  # type: ignore[arg-type]


def decoder_blocks(model: nn.Module) -> list[nn.Module]:
    """The model's decoder blocks, first to last.

    Raises DidsError if the model has none, or several lists that may be the decoder blocks.
    """
    named = _in_language_model(model)
    lists = named or _block_lists(model)
    config = getattr(model, "config", None)
    name = getattr(config, "_name_or_path", "") or type(model).__name__
    if not lists:
        raise refuse("dids_proxy_model", name, "a model with decoder blocks (a list of blocks with linear layers)")
    depth = getattr(config, "num_hidden_layers", None)
    likely = [found for found in lists if len(found) == depth] or lists
    longest = [found for found in likely if len(found) == max(map(len, likely))]
    if len(longest) > 1 and not named:
        raise refuse(
            "dids_proxy_model",
            name,
            f"a model that tells which of its {len(longest)} lists of {len(longest[0])} blocks reads tokens (by "
            "get_decoder or get_input_embeddings)",
        )
    return list(longest[0])


def _in_language_model(model: nn.Module) -> list[nn.ModuleList]:
    """The lists of blocks inside the first decoder that the model or one of its parts names.

    Without a named decoder: the lists inside the smallest part with blocks and the token embeddings.
    """
    for module in model.modules():
        decoder = _asked(module, "get_decoder")
        if decoder is not None and decoder is not module:
            lists = _block_lists(decoder)
        else:
            lists = _beside(module, _asked(module, "get_input_embeddings"))
        if lists:
            return lists
    return []


def _beside(model: nn.Module, embeddings: nn.Module | None) -> list[nn.ModuleList]:
    if not isinstance(embeddings, nn.Embedding):  # a tower uses this name for its patch embedding
        return []
    holders = [part for part in model.modules() if embeddings in set(part.modules())]
    return next(filter(None, map(_block_lists, reversed(holders))), [])  # reversed: the smallest part


def _asked(module: nn.Module, method: str) -> nn.Module | None:
    """The method's answer, or None. A transformers model without an answer raises."""
    try:
        return getattr(module, method, lambda: None)()  # type: ignore[no-any-return]
    except (NotImplementedError, AttributeError):
        return None


def _block_lists(model: nn.Module) -> list[nn.ModuleList]:
    found: list[nn.ModuleList] = []
    for child in model.children():
        if isinstance(child, nn.ModuleList) and len(child) and all(_linears(block) for block in child):
            found.append(child)  # lists nested inside, such as experts, are part of a block
        else:
            found.extend(_block_lists(child))
    return found


def _linears(block: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in block.named_modules() if is_linear(module)]


def _routed(block: nn.Module) -> set[nn.Module]:
    """The modules inside a block's own lists. A list of experts gets a token through one or a few of them."""
    lists = [module for module in block.modules() if isinstance(module, nn.ModuleList)]
    return {module for found in lists for module in found.modules()}


def track_layers(model: nn.Module, share: float, *, trainable_only: bool = False) -> TrackedLayers:
    """`find_layers`, with a report in the log."""
    tracked = find_layers(model, share, trainable_only=trainable_only)
    _report(tracked, _last_blocks(model, share)[1], trainable_only)
    return tracked


def _last_blocks(model: nn.Module, share: float) -> tuple[int, list[nn.Module]]:
    """The last `share` of the decoder blocks, after the index of the first."""
    blocks = decoder_blocks(model)
    first = len(blocks) - max(1, math.ceil(share * len(blocks) - 1e-9))
    return first, blocks[first:]


def find_layers(model: nn.Module, share: float, *, trainable_only: bool = False) -> TrackedLayers:
    """The linear layers of the last `share` of the decoder blocks, rounded up, at least one block.

    `trainable_only` keeps the layers whose weight is trained: LoRA's A and B, or unfrozen layers. Raises DidsError if
    no layer is left.
    """
    first, blocks = _last_blocks(model, share)
    routed = set().union(*map(_routed, blocks))
    found = [
        (f"{i}.{name}", module, block)
        for i, block in enumerate(blocks, first)
        for name, module in _linears(block)
        if module not in routed
        and (not trainable_only or any(weight.requires_grad for weight in module.parameters(recurse=False)))
    ]
    if not found:
        raise DidsError(
            f"dids_gradient_layers: got {share}, which tracks blocks {first} to {first + len(blocks) - 1} where no "
            "linear layer is trained; allowed: a share that reaches a trained block"
        )
    names, layers, owners = zip(*found, strict=True)
    return TrackedLayers(owners[0], names, layers)


def _report(tracked: TrackedLayers, blocks: list[nn.Module], trainable_only: bool) -> None:
    own = {id(weight) for layer in tracked.layers for weight in layer.parameters(recurse=False)}
    others = [
        weight
        for block in blocks
        for weight in block.parameters()
        if weight.dim() > 1 and id(weight) not in own and (weight.requires_grad or not trainable_only)
    ]
    logger.info("tracking %d linear layers with %d weights", len(tracked.layers), tracked.num_entries())
    if others:
        logger.info(
            "%d other weights of their blocks are not tracked (of experts and what routes tokens to them)",
            sum(weight.numel() for weight in others),
        )
