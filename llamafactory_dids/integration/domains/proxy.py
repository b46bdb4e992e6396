"""The proxy model: its arguments, its identity, and its loading (by the host's own loader)."""

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from llamafactory.data import get_template_and_fix_tokenizer
from llamafactory.hparams.model_args import QuantizationArguments
from llamafactory.model import load_config, load_model, load_tokenizer
from llamafactory.model.model_utils.liger_kernel import apply_liger_kernel
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.utils.hub import cached_file, extract_commit_hash

from ...artifacts.files import digest
from ..host.objectives import stage_of
from ..host.quiet import quiet
from ..host.sharding import whole_models
from ..settings import Settings, with_changes

WEIGHT_FILES = ("*.safetensors", "*.bin")
EDGE, WHOLE = 1 << 20, 1 << 40  # bytes at a file's beginning and end that identify it

# Model arguments that change the weights, or their precision, after they are read from the files.
LOADED_BY = (
    *(field.name for field in dataclasses.fields(QuantizationArguments)),
    *("rope_scaling", "compute_dtype", "infer_dtype", "mixture_of_depths", "shift_attn", "resize_vocab"),
    "upcast_layernorm",
)

# Model arguments to reset when the proxy is not the trained model.
RESET_FOR_ANOTHER_PROXY = {
    "model_revision": "main",
    "adapter_name_or_path": None,
    "quantization_bit": None,
    "train_from_scratch": False,
}


def is_trained_model(settings: Settings, model_args: Any) -> bool:
    """Whether the trained model is its own proxy."""
    return settings.config.dids_proxy_model in (None, model_args.model_name_or_path)


def proxy_arguments(settings: Settings, model_args: Any) -> tuple[Any, Any]:
    """The host's model and finetuning arguments for the proxy. A proxy other than the trained model is a bare model."""
    if is_trained_model(settings, model_args):
        return copy.copy(model_args), copy.copy(settings.finetuning_args)
    bare = {"model_name_or_path": settings.config.dids_proxy_model, **RESET_FOR_ANOTHER_PROXY}
    return with_changes(model_args, **bare), with_changes(settings.finetuning_args, finetuning_type="full")


def load_proxy_tokenizer(settings: Settings, model_args: Any, data_args: Any) -> tuple[Any, dict[str, Any]]:
    """The proxy's template, and a dictionary of its tokenizer and processor, as the host makes them."""
    arguments, _ = proxy_arguments(settings, model_args)
    with quiet():
        module = load_tokenizer(arguments)
    return get_template_and_fix_tokenizer(module["tokenizer"], data_args), module


def load_proxy(settings: Settings, model_args: Any, tokenizer: Any, device: torch.device) -> torch.nn.Module:
    """The proxy model on `device`, frozen, in eval mode. It is not sharded: each rank computes its own samples.

    With `enable_liger_kernel` the proxy has liger's kernels too. They change features by rounding only, so the cache
    does not tell the two apart.
    """
    arguments, finetuning_args = proxy_arguments(settings, model_args)
    if arguments.enable_liger_kernel:  # the host does this only for a model to train
        require_logits = finetuning_args.stage not in ("pt", "sft")
        apply_liger_kernel(load_config(arguments), arguments, is_trainable=True, require_logits=require_logits)
    torch.manual_seed(settings.seed)  # for a value head, which starts at random like the trained model's
    value_head = stage_of(finetuning_args).value_head
    with whole_models(), quiet():
        model = load_model(tokenizer, arguments, finetuning_args, is_trainable=False, add_valuehead=value_head)
    return model if getattr(model, "is_quantized", False) else model.to(device)


def without_weights(arguments: Any) -> torch.nn.Module | None:
    """The model of the host's model arguments, built from its configuration on the meta device. None for a kind that
    transformers does not know. Raises OSError or ValueError without a configuration.
    """
    with quiet():
        config = load_config(arguments)
    for kind in (AutoModelForImageTextToText, AutoModelForCausalLM):  # the host's order
        if type(config) in kind._model_mapping:
            with whole_models(), torch.device("meta"):
                return kind.from_config(config, trust_remote_code=arguments.trust_remote_code)  # type: ignore[no-any-return]
    return None


def identity(settings: Settings, model_args: Any) -> dict[str, Any]:
    """The identity of a proxy: its weights, its adapters, and the arguments that the host loads it with.

    Weights are identified by a hub name and commit, or by a folder's name and a digest of its files.
    """
    arguments, _ = proxy_arguments(settings, model_args)
    folder = Path(arguments.model_name_or_path)
    if folder.is_dir():
        weights = {"name": folder.name, "digest": _content(folder, EDGE)}
    else:
        with quiet():
            commit = getattr(load_config(arguments), "_commit_hash", None)
        weights = {"name": arguments.model_name_or_path, "commit": commit}
    adapters = [_adapter(name, arguments) for name in arguments.adapter_name_or_path or []]
    scratch = {"seed": settings.seed} if arguments.train_from_scratch else {}
    loaded = {name: getattr(arguments, name) for name in LOADED_BY}
    return weights | {"adapters": adapters, **scratch, **{k: None if v is None else str(v) for k, v in loaded.items()}}


def _content(folder: Path, edge: int) -> str:
    configs = [folder / "config.json", folder / "adapter_config.json"]
    files = sorted([*configs, *(path for kind in WEIGHT_FILES for path in folder.glob(kind))])
    return digest(part for path in files for part in marks_of(path, edge))


def _adapter(name: str, arguments: Any) -> dict[str, Any]:
    """The identity of an adapter, by its whole content: it is small, and may be trained again at the same path."""
    folder = Path(name) / (arguments.adapter_folder or "")
    if folder.is_dir():
        return {"name": folder.name, "digest": _content(folder, edge=WHOLE)}
    where = {"cache_dir": arguments.cache_dir, "token": arguments.hf_hub_token, "revision": arguments.model_revision}
    path = cached_file(name, "adapter_config.json", subfolder=arguments.adapter_folder or "", **where)
    return {"name": name, "commit": extract_commit_hash(path, None)}


def marks_of(path: Path, edge: int = EDGE) -> Iterator[bytes]:
    """A file's identity: its name and size, its first and last `edge` bytes; nothing if there is no file.

    Weights are too large to be read twice for an identity.
    """
    if not path.is_file():
        return
    size = path.stat().st_size
    yield f"{path.name}:{size}".encode()
    with open(path, "rb") as stream:
        yield stream.read(min(edge, size))
        if size > edge:
            stream.seek(max(edge, size - edge))
            yield stream.read(edge)
