"""What is wrong with a model, seen from its configuration: it is built without weights, and nothing is loaded in vain."""

import copy
from typing import Any

import torch

from ...errors import refuse
from ...stages.layers import decoder_blocks, track_layers
from ..domains.encoder import check_encoder
from ..domains.proxy import is_trained_model, proxy_arguments, without_weights
from ..host.randomness import undisturbed
from ..host.sharding import whole_models
from ..settings import Settings


def check_features(settings: Settings, model_args: Any) -> bool:
    """Raise DidsError where the model that features are made with cannot make them; whether they are gradients."""
    makes_features = settings.config.dids_domains == "cluster" or settings.needs.task_samples
    if makes_features and settings.config.dids_cluster_features == "semantic":
        check_encoder(settings, model_args)
        return False
    if makes_features:
        arguments, _ = proxy_arguments(settings, model_args)
        key = "dids_proxy_model" if settings.config.dids_proxy_model else "model_name_or_path"
        if (model := _without_weights(arguments, key)) is not None:
            decoder_blocks(model)
    return bool(makes_features)


@undisturbed
def check_tracked(settings: Settings, model_args: Any, finetuning_args: Any) -> None:
    """Raise DidsError where no tracked layer is trained, of the model whose gradients an update compares."""
    if finetuning_args.finetuning_type == "full":
        return
    proxy_first = settings.needs.proxy_run is not None and not is_trained_model(settings, model_args)
    if settings.needs.impact is None or proxy_first or model_args.adapter_name_or_path:
        return
    finetuning_args = copy.copy(finetuning_args)
    finetuning_args.pissa_init = False  # it looks at weights
    if (model := _without_weights(model_args, "model_name_or_path")) is None:
        return
    from llamafactory.model.adapter import init_adapter

    with whole_models(), torch.device("meta"):
        model = init_adapter(model.config, model, model_args, finetuning_args, is_trainable=True)
    track_layers(model, settings.config.dids_gradient_layers, trainable_only=True)


def _without_weights(arguments: Any, key: str) -> torch.nn.Module | None:
    """The model of the host's arguments; None of a kind that is looked at when it is loaded."""
    try:
        return without_weights(arguments)
    except (OSError, ValueError) as error:
        raise refuse(key, arguments.model_name_or_path, f"a model's folder or hub name ({error})") from None
