"""The size of a model, by its configuration (it is built without weights), and whether such a proxy fits."""

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

MOST_ENTRIES = (1 << 32) - 1  # most entries that a projection can index
LARGE = 3_000_000_000  # parameters of a proxy from which a smaller one is advised
_BYTES_AN_ENTRY = 12  # for each entry: the gradient, its magnitude, and its projection code


class Size(NamedTuple):
    """Number of parameters, number of `tracked` gradient entries, and bytes of memory for computing gradients.

    The bytes are for the weights, one sample's gradient and its projection. Activations come on top.
    """

    parameters: int
    tracked: int
    num_bytes: int


def size_of(model_args: Any, share: float) -> Size | None:
    """The size of a model with the last `share` of its blocks tracked; None for a kind that transformers does not know.

    Raises DidsError if it has no decoder blocks, and OSError or ValueError if there is no such model.
    """
    if (model := without_weights(model_args)) is None:
        return None
    parameters = sum(weight.numel() for weight in model.parameters())
    tracked = find_layers(model, share).num_entries()
    bits = model_args.quantization_bit or 8 * _precision(model_args, model.config).itemsize
    return Size(parameters, tracked, parameters * bits // 8 + tracked * _BYTES_AN_ENTRY)


def _precision(model_args: Any, config: Any) -> torch.dtype:
    """The precision in which the host loads the weights: the run's, or else the model's own."""
    own = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    found = model_args.compute_dtype or own or torch.float32
    return found if isinstance(found, torch.dtype) else getattr(torch, found)  # type: ignore[no-any-return]


def check_proxy(settings: Settings, model_args: Any, device: torch.device) -> None:
    """Raise DidsError for a proxy that cannot work on `device`, before it is loaded. Each rank holds the whole proxy.

    On a CPU too little memory is only a warning: the file may be for a machine with accelerators.
    """
    arguments, _ = proxy_arguments(settings, model_args)
    name, share = arguments.model_name_or_path, settings.config.dids_gradient_layers
    try:
        size = size_of(arguments, share)
    except DidsError:
        raise
    except (OSError, ValueError) as error:
        key = "model_name_or_path" if settings.config.dids_proxy_model is None else "dids_proxy_model"
        raise refuse(key, name, f"a model's folder or hub name ({error})") from None
    if size is None:
        return  # checked when it is loaded
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
    """Bytes of memory of a process's device; processes on CPUs divide the machine's. None if the device gives none."""
    found = devices.memory(device)
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if device.type == "cpu" else 1
    return None if found is None else found[1] // sharing


def _gb(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
