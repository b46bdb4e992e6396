"""Pictures, videos and sounds: checks of a run with a template for them, before any data or model is loaded."""

import copy
from typing import Any

from llamafactory.data.template import TEMPLATES
from llamafactory.extras.constants import MROPE_MODELS
from llamafactory.model import load_config, load_tokenizer

from ...errors import DidsError, refuse
from ..domains.proxy import is_trained_model, proxy_arguments
from ..settings import Settings


def check_media(settings: Settings, model_args: Any, data_args: Any, finetuning_args: Any) -> None:
    """Raise DidsError if the template is for media, and the stage or the proxy cannot read them.

    With a template for texts alone, the host refuses rows with media.
    """
    if not _reads_media(data_args.template):
        return
    if finetuning_args.stage == "kto":
        _check_kto(model_args)
    if settings.loads_proxy and not is_trained_model(settings, model_args):
        _check_proxy(settings, model_args, data_args)


def _reads_media(template: str | None) -> bool:
    if template not in TEMPLATES:  # the host takes the tokenizer's template, which is for texts
        return False
    plugin = TEMPLATES[template].mm_plugin
    return any((plugin.image_token, plugin.video_token, plugin.audio_token))


def _check_kto(model_args: Any) -> None:
    kind = load_config(copy.copy(model_args)).model_type
    if kind in MROPE_MODELS:
        raise DidsError(
            f"stage: got 'kto', allowed with a {kind} model and pictures: sft, dpo, rm (LLaMA-Factory's kto does not "
            "hand it the places of its tokens)"
        )


def _check_proxy(settings: Settings, model_args: Any, data_args: Any) -> None:
    """Raise DidsError for a proxy without a processor. The host reads every row by the template, even texts."""
    arguments, _ = proxy_arguments(settings, model_args)
    if load_tokenizer(arguments)["processor"] is None:
        raise refuse(
            "dids_proxy_model",
            settings.config.dids_proxy_model,
            f"a model with a processor, since template {data_args.template} is one for pictures, videos or sounds",
        )
