"""Whether a run shards its model over the ranks, and how to load a model unsharded."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate.utils import parse_flag_from_env
from transformers.integrations import deepspeed

FSDP_SWITCH = "ACCELERATE_USE_FSDP"  # set by `accelerate launch`, and by accelerate itself once it has an FSDP plugin


def fsdp_version(training_args: Any) -> int:
    """1 or 2, by the YAML file or `accelerate launch`; 0 without FSDP.

    transformers 4 does not pass on the file's `fsdp_version`. There the environment alone gives the version.
    """
    if training_args.fsdp and hasattr(training_args, "fsdp_plugin_args"):
        return int((training_args.fsdp_config or {}).get("version", 1))
    used = training_args.fsdp or parse_flag_from_env(FSDP_SWITCH)
    return int(os.environ.get("FSDP_VERSION", "1")) if used else 0


def uses_deepspeed(training_args: Any) -> bool:
    """Whether the YAML file or `accelerate launch` asks for DeepSpeed."""
    return bool(training_args.deepspeed) or parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")


@contextmanager
def whole_models() -> Iterator[None]:
    """Load models unsharded inside this context, which hides the FSDP and DeepSpeed settings from the host's loader."""
    switch = os.environ.pop(FSDP_SWITCH, None)
    config = deepspeed._hf_deepspeed_config_weak_ref and deepspeed._hf_deepspeed_config_weak_ref()
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if switch is not None:
            os.environ[FSDP_SWITCH] = switch
        if config is not None:
            deepspeed.set_hf_deepspeed_config(config)
