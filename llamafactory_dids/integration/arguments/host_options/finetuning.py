"""LLaMA-Factory's finetuning arguments."""

from ...host.objectives import STAGES
from .entries import Handled, Refused, Table, Untouched, given_with_streaming

TYPES = ("full", "freeze", "lora")
PLAIN = "false (the signals are of plain cross-entropy)"


FINETUNING: Table = (
    Refused("stage", ", ".join(STAGES), lambda value, _: value not in STAGES),
    Refused(
        "stage",
        "a stage whose samples stand alone",
        lambda value, run: value == "kto" and run.data_args.streaming,
        where="streaming",
    ),
    Refused("finetuning_type", ", ".join(TYPES), lambda value, _: value not in TYPES),
    Refused(
        "pref_bco_weight",
        "0",
        lambda value, run: value and run.finetuning_args.stage == "dpo",
        where="stage dpo and a mix_strategy of this plugin",
    ),
    Refused(
        "pref_ftx",
        "0",
        lambda value, run: value and run.finetuning_args.stage == "kto",
        where="stage kto and a mix_strategy of this plugin",
    ),
    Refused("use_dft_loss", PLAIN),
    Refused("use_asft_loss", PLAIN),
    Refused("use_eaft_loss", PLAIN),
    Refused("use_mca", "false"),
    Refused("use_hyper_parallel", "false"),
    Refused("use_megatron_bridge", "false"),
    Refused(
        "use_badam",
        "false, badam_mode: ratio, or dids_domain_gradients: fresh (below the one block that trains, the gradients of "
        "training batches are lost)",
        lambda value, run: value and run.reads_batches and run.finetuning_args.badam_mode == "layer",
    ),
    Refused("include_effective_tokens_per_second", "false", given_with_streaming, where="streaming"),
    Handled(
        "signals are of the stage's own loss",
        "stage pref_beta pref_ftx pref_loss dpo_label_smoothing simpo_gamma kto_chosen_weight kto_rejected_weight "
        "ld_alpha",
    ),
    Handled("the reference is the trainer's", "ref_model ref_model_adapters ref_model_quantization_bit"),
    Handled(
        "the tracked layers are those that are trained; where none is, the run is refused",
        "finetuning_type freeze_trainable_layers freeze_trainable_modules freeze_extra_modules use_llama_pro "
        "additional_target lora_rank lora_alpha lora_dropout lora_target use_rslora use_dora pissa_init pissa_iter "
        "create_new_adapter freeze_vision_tower freeze_multi_modal_projector freeze_language_model",
    ),
    Handled("the domain keeps being drawn by the mixture, its samples in the order of the data", "disable_shuffling"),
    Handled("sums of gradients stay in 32 bits", "pure_bf16"),
    Untouched(
        "of the step of the optimizer, which comes after the gradients",
        "loraplus_lr_ratio loraplus_lr_embedding use_adam_mini use_muon "
        "use_galore galore_target galore_rank galore_update_interval galore_scale galore_proj_type galore_layerwise "
        "use_apollo apollo_target apollo_rank apollo_update_interval apollo_scale apollo_proj apollo_proj_type "
        "apollo_scale_type apollo_layerwise apollo_scale_front "
        "badam_mode badam_start_block badam_switch_mode badam_switch_interval badam_update_ratio badam_mask_mode "
        "badam_verbose",
    ),
    Untouched("of what is saved at the end", "pissa_convert"),
    Untouched(
        "of the host's evaluation and figures",
        "compute_accuracy plot_loss early_stopping_steps include_effective_tokens_per_second",
    ),
    Untouched(
        "of a tracker",
        "use_swanlab swanlab_project swanlab_workspace swanlab_run_name swanlab_mode swanlab_api_key swanlab_logdir "
        "swanlab_lark_webhook_url swanlab_lark_secret",
    ),
    Untouched(
        "read with what is refused alone: `oft`, `ppo`, other losses and backends",
        "module_dropout oft_rank oft_block_size oft_target "
        "ppo_buffer_size ppo_epochs ppo_score_norm ppo_target ppo_whiten_rewards "
        "reward_model reward_model_adapters reward_model_quantization_bit reward_model_type "
        "asft_alpha eaft_alpha hyper_parallel_args hyper_parallel_cp_size megatron_bridge_args",
    ),
)
