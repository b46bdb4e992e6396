"""LLaMA-Factory's own options that do not go with a mixture, each refused in one line."""

from typing import Any

from ...errors import DidsError
from ..host.objectives import STAGES
from ..host.sharding import fsdp_version


def check_host_options(data_args: Any, training_args: Any, finetuning_args: Any, model_args: Any) -> None:
    """Raise DidsError for an option of the host's that a mixture cannot be trained with."""

    def need(key: str, value: Any, ok: bool, allowed: str) -> None:
        if not ok:
            raise DidsError(f"{key}: got {value!r}, allowed with mix_strategy {data_args.mix_strategy}: {allowed}")

    need("stage", finetuning_args.stage, finetuning_args.stage in STAGES, ", ".join(STAGES))
    _check_stage(data_args, finetuning_args)
    kind = finetuning_args.finetuning_type
    need("finetuning_type", kind, kind in ("full", "freeze", "lora"), "full, freeze, lora")
    need("interleave_probs", data_args.interleave_probs, data_args.interleave_probs is None, "none (see dids_probs)")
    grouped = getattr(training_args, "group_by_length", False) or (
        getattr(training_args, "train_sampling_strategy", "random") == "group_by_length"
    )
    need("group_by_length", True, not grouped, "false (the mixture decides which sample comes next)")
    need("ignore_data_skip", True, not training_args.ignore_data_skip, "false (skipping loads no data)")
    need("auto_find_batch_size", True, not training_args.auto_find_batch_size, "false (a step must not change)")
    version = fsdp_version(training_args)
    need("fsdp", f"version {version}", version != 1, "version 2 (fsdp_version in fsdp_config)")
    saved = not (version and STAGES[finetuning_args.stage].value_head)
    need("fsdp", f"version {version}", saved, "none in this stage (LLaMA-Factory cannot save a value head from shards)")
    for key in ("use_unsloth", "use_kt"):
        need(key, True, not getattr(model_args, key, False), "false")
    for key in ("use_mca", "use_hyper_parallel", "use_megatron_bridge"):
        need(key, True, not getattr(finetuning_args, key, False), "false")
    for key in ("use_dft_loss", "use_asft_loss", "use_eaft_loss"):
        need(key, True, not getattr(finetuning_args, key, False), "false (the signals are of plain cross-entropy)")


def _check_stage(data_args: Any, finetuning_args: Any) -> None:
    """Raise DidsError for what makes a sample's loss depend on its batch, and for what the stage would ignore."""
    name, stage = finetuning_args.stage, STAGES[finetuning_args.stage]
    for key in stage.refused:
        if value := getattr(finetuning_args, key):
            raise DidsError(f"{key}: got {value}, allowed with stage {name} and a mix_strategy of this plugin: 0")
    if data_args.packing and stage.objective is not None:
        raise DidsError(f"packing: got True, allowed with stage {name}: false (a pair or an answer has its own row)")
