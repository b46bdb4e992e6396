"""How large a model is, told by its configuration (it is built without weights), and whether such a proxy fits."""

import logging
import os
from typing import Any, NamedTuple

import torch

from ...core import devices
from ...errors import DidsError, refuse
from ...stages.layers import find_layers
from ..settings import Settings
from .proxy import is_trained_model, proxy_arguments, without_weights

logger = logging.getLogger(__name__)

MOST_ENTRIES = (1 << 32) - 1  # that a projection tells apart
LARGE = 3_000_000_000  # parameters of a proxy from which on a smaller one is worth a word
_BYTES_AN_ENTRY = 12  # of a gradient: its row, its magnitudes, and where the projection puts it


class Size(NamedTuple):
    """`parameters`, gradient entries that are `tracked`, and `num_bytes` of memory that computing its gradients takes.

    The bytes are those of the weights, of one sample's gradient and its projection; activations come on top.
    """

    parameters: int
    tracked: int
    num_bytes: int


def size_of(model_args: Any, share: float) -> Size | None:
    """The size of a model whose last `share` of the blocks is tracked; None of a kind that transformers does not know.

    Raises DidsError where it has no decoder blocks, and OSError or ValueError where there is no such model.
    """
    if (model := without_weights(model_args)) is None:
        return None
    parameters = sum(weight.numel() for weight in model.parameters())
    tracked = find_layers(model, share).num_entries()
    bits = model_args.quantization_bit or 8 * _precision(model_args, model.config).itemsize
    return Size(parameters, tracked, parameters * bits // 8 + tracked * _BYTES_AN_ENTRY)


def _precision(model_args: Any, config: Any) -> torch.dtype:
    """What the host loads the weights in: the run's precision, or else the model's own."""
    own = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    found = model_args.compute_dtype or own or torch.float32
    return found if isinstance(found, torch.dtype) else getattr(torch, found)  # type: ignore[no-any-return]


def check_proxy(settings: Settings, model_args: Any, device: torch.device) -> None:
    """Raise DidsError for a proxy that cannot work on `device`, before it is loaded: it is whole on each rank.

    On a CPU too little memory is a warning: the file may be for a machine with accelerators.
    """
    arguments, _ = proxy_arguments(settings, model_args)
    name, share = arguments.model_name_or_path, settings.config.dids_gradient_layers
    try:
        size = size_of(arguments, share)
    except DidsError:
        raise
    except (OSError, ValueError) as error:
        key = "dids_proxy_model" if settings.config.dids_proxy_model else "model_name_or_path"
        raise refuse(key, name, f"a model's folder or hub name ({error})") from None
    if size is None:
        return  # looked at again when it is loaded
    if size.tracked > MOST_ENTRIES:
        raise refuse(
            "dids_proxy_model",
            name,
            f"a model of which dids_gradient_layers ({share}) tracks at most {MOST_ENTRIES:,} weights (of this one "
            f"{size.tracked:,}): a smaller one",
        )
    memory = _memory_of_a_rank(device)
    if memory is not None and size.num_bytes > memory:
        too_large = refuse(
            "dids_proxy_model",
            name,
            f"a model that fits whole into the {_gb(memory)} of each process on {device} (this one, of "
            f"{size.parameters:,} parameters, takes {_gb(size.num_bytes)} and its activations): a smaller one",
        )
        if device.type != "cpu":
            raise too_large
        logger.warning(str(too_large))
    elif size.parameters >= LARGE and is_trained_model(settings, model_args):
        logger.warning(
            "dids_proxy_model: the trained model itself, whole on each process (%s); a small model of its family makes "
            "the domains faster",
            _gb(size.num_bytes),
        )


def _memory_of_a_rank(device: torch.device) -> int | None:
    """Bytes that a process has on its device in all; those on CPUs share the machine's. None where it does not say."""
    found = devices.memory(device)
    if found is None:
        return None
    return found[1] // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if device.type == "cpu" else found[1]


def _gb(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
