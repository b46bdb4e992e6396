"""LLaMA-Factory's training arguments, and the arguments of transformers 4.55 to 5.8 that they extend."""

import os
from typing import Any

from accelerate.utils import parse_flag_from_env

from ...host.objectives import STAGES
from ...host.sharding import fsdp_version, uses_deepspeed
from .entries import Handled, Refused, Run, Table, Untouched

WITHIN_A_REPLICA = ("tp_size", "cp_size", "sp_size")  # ranks that share a sample
REPLACES = "it puts other layers in the place of those that gradients are read off"
BY_ITSELF = (
    "none with a strategy that trains a proxy model in the same processes (make that run without, and hand its mixture "
    "over: mix_strategy static with dids_probs)"
)


def _in_config(value: Any, name: str) -> Any:
    """The value under `name` in an accelerate configuration, or in the dictionary for one."""
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _in_accelerator(name: str, why: str) -> Refused:
    """A switch of `accelerator_config` that has to be off."""
    return Refused(
        "accelerator_config",
        f"{name}: false ({why})",
        lambda value, _: _in_config(value, name),
        shown=lambda value, _: {name: _in_config(value, name)},
    )


def _shares_samples(value: Any, _run: Run) -> bool:
    """Whether several ranks work on one sample, by the YAML file or accelerate's environment."""
    if value is None and parse_flag_from_env("ACCELERATE_USE_PARALLELISM_CONFIG"):
        value = {name: int(os.environ.get(f"PARALLELISM_CONFIG_{name.upper()}", "1")) for name in WITHIN_A_REPLICA}
    return any((_in_config(value, name) or 1) > 1 for name in WITHIN_A_REPLICA)


def _splits_layers(_value: Any, run: Run) -> bool:
    configuration = getattr(run.training_args, "hf_deepspeed_config", None)
    return configuration is not None and configuration.get_value("tensor_parallel.autotp_size", 0) > 1


def _on_several_machines(value: bool, run: Run) -> bool:
    ranks = run.training_args.world_size
    return value and ranks > int(os.environ.get("LOCAL_WORLD_SIZE", ranks))


def _configured(value: Any, _run: Run) -> Any:
    """The value shown: the YAML file's, or else accelerate's."""
    return value or "accelerate's"


def _fsdp_shown(_value: Any, run: Run) -> str:
    return f"version {fsdp_version(run.training_args)}"


TRAINING: Table = (
    Refused("group_by_length", "false (the mixture decides which sample comes next)"),
    Refused(
        "train_sampling_strategy",
        "random (the mixture decides which sample comes next; disable_shuffling keeps the order within a domain)",
        lambda value, _: value != "random",
    ),
    Refused("ignore_data_skip", "false (skipping loads no data)"),
    Refused("auto_find_batch_size", "false (a step must not change)"),
    _in_accelerator("split_batches", "a batch is one rank's"),
    _in_accelerator("dispatch_batches", "a rank reads its own batches"),
    Refused(
        "accelerator_config",
        "no num_steps (gradient_accumulation_steps says it)",
        lambda value, _: "num_steps" in (_in_config(value, "gradient_accumulation_kwargs") or {}),
        shown=lambda value, _: _in_config(value, "gradient_accumulation_kwargs"),
    ),
    Refused("per_gpu_train_batch_size", "none (per_device_train_batch_size says it)"),
    Refused(
        "parallelism_config",
        f"{', '.join(WITHIN_A_REPLICA)}: 1 (a rank trains on samples of its own)",
        _shares_samples,
        shown=_configured,
    ),
    Refused("label_smoothing_factor", "0 (the signals are of plain cross-entropy)"),
    Refused("past_index", "-1 (else a sample's loss depends on the batch before)", lambda value, _: value >= 0),
    Refused(
        "torch_compile",
        "false, or dids_domain_gradients: fresh (a compiled model does not tell the gradients of its training batches)",
        lambda value, run: value and run.reads_batches,
    ),
    Refused("fp8", f"false ({REPLACES})", lambda value, run: value and run.compares_gradients),
    Refused("use_ipex", f"false ({REPLACES})", lambda value, run: value and run.compares_gradients),
    Refused(
        "half_precision_backend",
        "auto (measurements are made in accelerate's precision)",
        lambda value, _: value == "apex",
    ),
    Refused("mp_parameters", "none (a rank trains on samples of its own)"),
    Refused(
        "fsdp",
        "version 2 (fsdp_version in fsdp_config)",
        lambda _, run: fsdp_version(run.training_args) == 1,
        shown=_fsdp_shown,
    ),
    Refused(
        "fsdp",
        "none in this stage (LLaMA-Factory cannot save a value head from shards)",
        lambda _, run: fsdp_version(run.training_args) > 0 and STAGES[run.finetuning_args.stage].value_head,
        shown=_fsdp_shown,
    ),
    Refused(
        "fsdp",
        BY_ITSELF,
        lambda _, run: fsdp_version(run.training_args) > 0 and run.trains_a_proxy,
        shown=_configured,
    ),
    Refused(
        "deepspeed",
        BY_ITSELF,
        lambda _, run: uses_deepspeed(run.training_args) and run.trains_a_proxy,
        shown=_configured,
    ),
    Refused("deepspeed", "tensor_parallel.autotp_size 1 (a rank trains on samples of its own)", _splits_layers),
    Refused("save_on_each_node", "false (a checkpoint's mixture is on the first machine)", _on_several_machines),
    Refused("enable_jit_checkpoint", "false (its checkpoint has no mixture)"),
    Refused("include_tokens_per_second", "false (it reads the training batches before the training)"),
    Handled(
        "decide how many samples a step has and how many a run",
        "per_device_train_batch_size gradient_accumulation_steps max_steps num_train_epochs dataloader_drop_last",
    ),
    Handled("a term weighs what it weighs in the training's loss", "average_tokens_across_devices"),
    Handled("measurements are made in the training's precision", "bf16 fp16 half_precision_backend fp16_backend"),
    Handled(
        "a block that is computed again for its backward pass is counted once",
        "gradient_checkpointing gradient_checkpointing_kwargs",
    ),
    Handled("set `torch_compile`", "torch_compile torch_compile_backend torch_compile_mode torchdynamo"),
    Handled(
        "a strategy that needs the logits of a batch (odm) stops where its kernels give none",
        "use_liger_kernel liger_kernel_config",
    ),
    Handled("the gradients of training batches have the noise, measurements have not", "neftune_noise_alpha"),
    Handled("the seed of the mixture, unless dids_seed is given", "seed"),
    Handled("no effect: dids_seed, or else seed, decides which sample comes next", "data_seed"),
    Handled(
        "batches that workers asked for keep the probabilities that they were drawn with",
        "dataloader_num_workers dataloader_prefetch_factor dataloader_persistent_workers",
    ),
    Handled("the host keeps all columns", "remove_unused_columns"),
    Handled("tasks are tokenised as for training", "predict_with_generate do_predict"),
    Handled("without it nothing is mixed, and no key of a mixture is looked at", "do_train"),
    Handled("a checkpoint has the mixture", "save_strategy save_steps save_total_limit save_only_model output_dir"),
    Handled("a run resumes with its mixture, or is refused", "resume_from_checkpoint overwrite_output_dir"),
    Handled("ZeRO-2, ZeRO-3 and FSDP 2: above", "deepspeed fsdp fsdp_config"),
    Handled("as `fsdp`", "fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap"),
    Handled("each rank has its share, on the backend that the host chose", "ddp_backend accelerator_config"),
    Handled("domains are made by some ranks while others wait: raise it for much data", "ddp_timeout"),
    Handled("above", "ray_num_workers ray_init_kwargs master_addr master_port"),
    Handled("the mixture is logged with the rest", "report_to logging_steps disable_tqdm"),
    Handled("decide the device that gradients are computed on", "use_cpu no_cuda use_mps_device"),
    Untouched(
        "of the step of the optimizer, which comes after the gradients",
        "learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps warmup_ratio optim optim_args "
        "optim_target_modules adafactor weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm",
    ),
    Untouched(
        "how the host and its backends compute",
        "tf32 full_determinism use_cache torch_empty_cache_steps fp16_opt_level dataloader_pin_memory "
        "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph tpu_num_cores "
        "local_rank _n_gpu ray_scope fp8_backend fp8_enable_fsdp_float8_all_gather",
    ),
    Untouched(
        "of the host's evaluation and prediction",
        "do_eval eval_strategy eval_steps eval_delay eval_on_start per_device_eval_batch_size per_gpu_eval_batch_size "
        "eval_do_concat_batches eval_use_gather_object eval_accumulation_steps batch_eval_metrics include_for_metrics "
        "include_inputs_for_metrics prediction_loss_only label_names bf16_full_eval fp16_full_eval jit_mode_eval "
        "use_legacy_prediction_loop generation_max_length generation_num_beams generation_config sortish_sampler "
        "load_best_model_at_end metric_for_best_model greater_is_better",
    ),
    Untouched(
        "of the log and of what is measured of a machine",
        "logging_strategy logging_first_step logging_dir logging_nan_inf_filter log_on_each_node log_level "
        "log_level_replica run_name project trackio_space_id trackio_bucket_id trackio_static_space_id "
        "include_num_input_tokens_seen skip_memory_metrics debug tpu_metrics_debug enable_torch_profiler "
        "profiler_output_dir profiler_wait_steps profiler_warmup_steps profiler_active_steps profiler_repeat "
        "profiler_record_shapes profiler_profile_memory profiler_with_stack profile_modules",
    ),
    Untouched("of the host's own part of a checkpoint", "restore_callback_states_from_checkpoint save_safetensors"),
    Untouched("read with `group_by_length` alone, which is refused", "length_column_name"),
    Untouched(
        "of the hub",
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision "
        "push_to_hub_model_id push_to_hub_organization push_to_hub_token",
    ),
)
