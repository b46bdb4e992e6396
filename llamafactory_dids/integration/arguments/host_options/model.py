"""LLaMA-Factory's model arguments."""

from .entries import Handled, Refused, Table, Untouched

MODEL: Table = (
    Refused("use_unsloth", "false"),
    Refused("use_kt", "false"),
    Refused("mixture_of_depths", "none (a layer that skips tokens does not tell whose gradient it has)"),
    Refused(
        "moe_aux_loss_coef",
        "none, or dids_domain_gradients: fresh (the gradients of training batches would have the routers' loss in "
        "them, those of the tasks have not)",
        lambda value, run: bool(value) and run.reads_batches,
    ),
    Handled(
        "the proxy is loaded with the same, where it is the trained model",
        "model_name_or_path model_revision adapter_name_or_path adapter_folder quantization_bit train_from_scratch",
    ),
    Handled(
        "the proxy is loaded with the same",
        "cache_dir use_fast_tokenizer resize_vocab split_special_tokens add_tokens add_special_tokens "
        "new_special_tokens_config init_special_tokens low_cpu_mem_usage rope_scaling flash_attn shift_attn "
        "enable_liger_kernel upcast_layernorm upcast_lmhead_output use_v1_kernels trust_remote_code "
        "quantization_method quantization_type double_quantization quantization_device_map",
    ),
    Handled(
        "a block that is computed again for its backward pass is counted once",
        "disable_gradient_checkpointing use_reentrant_gc use_unsloth_gc",
    ),
    Handled(
        "an image, video or sound is what the host's processor makes of it",
        "image_max_pixels image_min_pixels image_do_pan_and_scan crop_to_patches video_max_pixels video_min_pixels "
        "video_fps video_maxlen use_audio_in_video audio_sampling_rate",
    ),
    Handled("set by the host itself", "compute_dtype device_map model_max_length block_diag_attn"),
    Untouched("of the hubs", "hf_hub_token ms_hub_token om_hub_token"),
    Untouched("of the log", "print_param_status"),
    Untouched(
        "of inference alone",
        "infer_backend infer_dtype offload_folder use_kv_cache vllm_maxlen vllm_gpu_util vllm_enforce_eager "
        "vllm_max_lora_rank vllm_config sglang_maxlen sglang_mem_fraction sglang_tp_size sglang_config "
        "sglang_lora_backend",
    ),
    Untouched(
        "of exporting a model",
        "export_dir export_size export_device export_quantization_bit export_quantization_dataset "
        "export_quantization_nsamples export_quantization_maxlen export_legacy_format export_hub_model_id",
    ),
    Untouched(
        "read with `use_kt` alone, which is refused",
        "kt_weight_path kt_expert_checkpoint_path kt_use_lora_experts kt_lora_expert_num "
        "kt_lora_expert_intermediate_size kt_cpu_activation kt_non_expert_weight_path _kt_inference_config "
        "_kt_config_handle _kt_adapter_artifact_path",
    ),
)
