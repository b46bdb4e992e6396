"""Checks of a model by its configuration: it is built without weights, so no model is loaded in vain."""

import copy
from typing import Any

import torch

from ...stages.layers import track_layers
from ..domains.encoder import check_encoder
from ..domains.proxy import is_trained_model, without_weights
from ..domains.sizes import check_proxy
from ..host.randomness import undisturbed
from ..host.sharding import whole_models
from ..settings import Settings


def check_features(settings: Settings, model_args: Any, device: torch.device) -> bool:
    """Raise DidsError if the model for the features cannot make them. Returns whether the features are gradients."""
    if settings.config.dids_domains != "cluster" and not settings.needs.task_samples:
        return False
    if settings.config.dids_cluster_features == "semantic":
        check_encoder(settings, model_args)
        return False
    check_proxy(settings, model_args, device)
    return True


@undisturbed
def check_tracked(settings: Settings, model_args: Any, finetuning_args: Any) -> None:
    """Raise DidsError if no tracked layer is trained, in the model whose gradients an update compares."""
    if finetuning_args.finetuning_type == "full":
        return
    proxy_first = settings.needs.proxy_run is not None and not is_trained_model(settings, model_args)
    if not settings.needs.gradients or proxy_first or model_args.adapter_name_or_path:
        return
    finetuning_args = copy.copy(finetuning_args)
    finetuning_args.pissa_init = False  # PiSSA reads weights
    if (model := without_weights(model_args)) is None:
        return
    from llamafactory.model.adapter import init_adapter

    with whole_models(), torch.device("meta"):
        model = init_adapter(model.config, model, model_args, finetuning_args, is_trainable=True)
    track_layers(model, settings.config.dids_gradient_layers, trainable_only=True)
