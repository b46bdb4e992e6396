"""Checks of a model by its configuration: it is built without weights, so no model is loaded in vain."""

import copy
from pathlib import Path
from typing import Any

import torch
from llamafactory.model import load_config
from safetensors import SafetensorError, safe_open

from ...errors import DidsError, refuse
from ...stages.layers import track_layers
from ..domains.encoder import check_encoder
from ..domains.proxy import WEIGHT_FILES, is_trained_model, without_weights
from ..domains.sizes import check_proxy
from ..host.quiet import quiet
from ..host.randomness import undisturbed_randomness
from ..host.sharding import whole_models
from ..settings import Settings, with_changes

TOKENIZER_FILES = ("token*", "vocab*", "*.model")


def check_files(settings: Settings, model_args: Any, finetuning_args: Any) -> None:
    """Raise DidsError for a model that is not there, and for a folder that lacks files or has weights cut off."""
    weights = () if model_args.train_from_scratch else WEIGHT_FILES
    _check_folder("model_name_or_path", model_args.model_name_or_path, weights, TOKENIZER_FILES)
    try:
        with quiet():
            load_config(copy.copy(model_args))
    except (OSError, ValueError) as error:
        name = model_args.model_name_or_path
        raise refuse("model_name_or_path", name, f"a model's folder or hub name ({error})") from None
    if not is_trained_model(settings, model_args):
        _check_folder("dids_proxy_model", settings.config.dids_proxy_model, WEIGHT_FILES, TOKENIZER_FILES)
    for name in model_args.adapter_name_or_path or ():
        folder = str(Path(name) / (model_args.adapter_folder or ""))
        if folder.startswith(("/", ".", "~")) and not Path(folder).is_dir():
            raise refuse("adapter_name_or_path", name, "a folder that is there, or the name of an adapter on the hub")
        adapter = finetuning_args.finetuning_type in ("lora", "oft")
        _check_folder("adapter_name_or_path", folder, ("adapter_config.json",) if adapter else (), WEIGHT_FILES)


def _check_folder(key: str, name: str, *needed: tuple[str, ...]) -> None:
    """Of each of `needed` one file has to be there. A name on the hub is left alone."""
    folder = Path(name)
    for kinds in needed if folder.is_dir() else ():
        if kinds and not any(path for kind in kinds for path in folder.glob(kind)):
            raise refuse(key, name, f"a folder with {' or '.join(kinds)}")
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "numpy"):  # which reads how long it has to be
                pass
        except (OSError, SafetensorError) as error:
            raise DidsError(f"{key}: {path} is not whole ({error}); allowed: whole files of weights") from None


def check_features(settings: Settings, model_args: Any, device: torch.device) -> None:
    """Raise DidsError if the model for the features cannot make them."""
    if settings.makes_features and settings.config.dids_cluster_features == "semantic":
        check_encoder(settings, model_args)
    elif settings.makes_features:
        check_proxy(settings, model_args, device)


@undisturbed_randomness()
def check_tracked(settings: Settings, model_args: Any, finetuning_args: Any) -> None:
    """Raise DidsError if no tracked layer is trained, in the model whose gradients an update compares."""
    if finetuning_args.finetuning_type == "full":
        return
    proxy_first = settings.needs.proxy_run is not None and not is_trained_model(settings, model_args)
    if not settings.needs.gradients or proxy_first or model_args.adapter_name_or_path:
        return
    finetuning_args = with_changes(finetuning_args, pissa_init=False)  # PiSSA reads weights
    if (model := without_weights(model_args)) is None:
        return
    from llamafactory.model.adapter import init_adapter

    with whole_models(), torch.device("meta"):
        model = init_adapter(model.config, model, model_args, finetuning_args, is_trainable=True)
    track_layers(model, settings.config.dids_gradient_layers, trainable_only=True)
