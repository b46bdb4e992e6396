"""Every option of the host's is classed, and what the tables refuse is refused in one line."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest

from llamafactory_dids.errors import DidsError
from llamafactory_dids.integration.arguments import host_options
from llamafactory_dids.integration.arguments.host_options import TABLES, names_of, refused, unknown_options
from llamafactory_dids.integration.arguments.host_options.entries import Refused, Untouched
from llamafactory_dids.integration.commands import doctor
from tests.integration.support import arguments, our_log, timeless, train, tuner

pytestmark = pytest.mark.integration

# Options that only some of the admitted versions of LLaMA-Factory and transformers have.
OF_SOME_VERSIONS = """
    _kt_adapter_artifact_path _kt_config_handle _kt_inference_config kt_cpu_activation kt_non_expert_weight_path
    hyper_parallel_cp_size megatron_bridge_args use_megatron_bridge
    _n_gpu adafactor fp16_backend fp16_opt_level fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap group_by_length
    half_precision_backend include_inputs_for_metrics include_tokens_per_second jit_mode_eval mp_parameters no_cuda
    past_index per_gpu_eval_batch_size per_gpu_train_batch_size push_to_hub_model_id push_to_hub_organization
    push_to_hub_token ray_scope save_safetensors torchdynamo tpu_metrics_debug tpu_num_cores use_ipex
    use_legacy_prediction_loop use_mps_device
    use_cache project trackio_space_id trackio_bucket_id trackio_static_space_id enable_jit_checkpoint
    parallelism_config train_sampling_strategy ddp_static_graph
"""


def test_every_option_of_the_installed_host_is_in_its_table():
    assert unknown_options(TABLES) == []


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_an_option_that_is_taken_out_of_its_table_is_found(kind):
    for field in dataclasses.fields(kind):
        entries = tuple(without(entry, field.name) for entry in TABLES[kind])
        assert unknown_options({**TABLES, kind: entries}) == [field.name]


def without(entry, name):
    """The entry, or one like it that lacks the name."""
    return SimpleNamespace(names=" ".join(other for other in entry.names.split() if other != name))


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_a_table_has_no_option_that_there_is_not(kind):
    assert names_of(TABLES[kind]) - {field.name for field in dataclasses.fields(kind)} <= set(OF_SOME_VERSIONS.split())


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_an_option_is_left_alone_or_handled_but_for_what_is_refused(kind):
    once = [name for entry in TABLES[kind] if not isinstance(entry, Refused) for name in entry.names.split()]
    assert sorted(set(once)) == sorted(once)


# --- what is refused --------------------------------------------------------------------------------------------

STREAM = {"streaming": True}
PROXY = {"trains_a_proxy": True}
# (the option and its value, what else the run has, the end of the line)
CASES = [
    ({"stage": "ppo"}, {}, "stage: got 'ppo', allowed with mix_strategy dids: pt, sft, dpo, kto, rm"),
    ({"stage": "kto"}, STREAM, "allowed with streaming: a stage whose samples stand alone"),
    ({"finetuning_type": "oft"}, {}, "finetuning_type: got 'oft', allowed with mix_strategy dids: full, freeze, lora"),
    ({"pref_bco_weight": 0.5}, {"stage": "dpo"}, "allowed with stage dpo and a mix_strategy of this plugin: 0"),
    ({"pref_ftx": 0.5}, {"stage": "kto"}, "allowed with stage kto and a mix_strategy of this plugin: 0"),
    ({"use_dft_loss": True}, {}, "false (the signals are of plain cross-entropy)"),
    ({"use_asft_loss": True}, {}, "false (the signals are of plain cross-entropy)"),
    ({"use_eaft_loss": True}, {}, "false (the signals are of plain cross-entropy)"),
    ({"use_mca": True}, {}, "false"),
    ({"use_hyper_parallel": True}, {}, "false"),
    ({"use_megatron_bridge": True}, {}, "false"),
    ({"use_badam": True}, {}, "fresh (below the one block that trains, the gradients of training batches are lost)"),
    ({"include_effective_tokens_per_second": True}, STREAM, "allowed with streaming: false"),
    ({"group_by_length": True}, {}, "false (the mixture decides which sample comes next)"),
    ({"train_sampling_strategy": "sequential"}, {}, "disable_shuffling keeps the order within a domain)"),
    ({"ignore_data_skip": True}, {}, "false (skipping loads no data)"),
    ({"auto_find_batch_size": True}, {}, "false (a step must not change)"),
    ({"accelerator_config": {"split_batches": True}}, {}, "split_batches: false (a batch is one rank's)"),
    ({"accelerator_config": {"dispatch_batches": True}}, {}, "dispatch_batches: false (a rank reads its own batches)"),
    (
        {"accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 4}}},
        {},
        "accelerator_config: got {'num_steps': 4}, allowed with mix_strategy dids: no num_steps "
        "(gradient_accumulation_steps says it)",
    ),
    ({"per_gpu_train_batch_size": 4}, {}, "none (per_device_train_batch_size says it)"),
    ({"parallelism_config": {"tp_size": 2}}, {}, "tp_size, cp_size, sp_size: 1 (a rank trains on samples of its own)"),
    ({"label_smoothing_factor": 0.1}, {}, "0 (the signals are of plain cross-entropy)"),
    ({"past_index": 1}, {}, "-1 (else a sample's loss depends on the batch before)"),
    ({"torch_compile": True}, {}, "false, or dids_domain_gradients: fresh (a compiled model does not tell"),
    ({"fp8": True}, {}, "false (it puts other layers in the place of those that gradients are read off)"),
    ({"use_ipex": True}, {}, "false (it puts other layers in the place of those that gradients are read off)"),
    ({"half_precision_backend": "apex"}, {}, "auto (measurements are made in accelerate's precision)"),
    ({"mp_parameters": "x"}, {}, "none (a rank trains on samples of its own)"),
    ({"fsdp": ["full_shard"]}, {"version": 1}, "fsdp: got 'version 1', allowed with mix_strategy dids: version 2"),
    ({"fsdp": ["full_shard"]}, {"version": 2, "stage": "rm"}, "none in this stage (LLaMA-Factory cannot save a value"),
    ({"fsdp": ["full_shard"]}, {"version": 2, **PROXY}, "none with a strategy that trains a proxy model"),
    ({"deepspeed": "ds.json"}, PROXY, "deepspeed: got 'ds.json', allowed with mix_strategy dids: none with a strategy"),
    ({"deepspeed": "ds.json"}, {"autotp_size": 2}, "tensor_parallel.autotp_size 1 (a rank trains on samples of"),
    ({"save_on_each_node": True}, {"ranks": 16}, "false (a checkpoint's mixture is on the first machine)"),
    ({"enable_jit_checkpoint": True}, {}, "false (its checkpoint has no mixture)"),
    ({"include_tokens_per_second": True}, {}, "false (it reads the training batches before the training)"),
    ({"interleave_probs": [0.5, 0.5]}, {}, "none (see dids_probs)"),
    ({"ignore_pad_token_for_loss": False}, {}, "true (else a sample's loss depends on how far its batch is padded)"),
    ({"packing": True}, {"stage": "dpo"}, "packing: got True, allowed with stage dpo: false (a pair or an answer has"),
    ({"packing": True}, STREAM, "packing: got True, allowed with streaming: false"),
    ({"val_size": 5}, STREAM, "0 (name an eval_dataset, which is not streamed)"),
    ({"streaming": True}, {"tokenized": True}, "streaming: got True, allowed with tokenized_path: false"),
    ({"use_unsloth": True}, {}, "false"),
    ({"use_kt": True}, {}, "false"),
    ({"mixture_of_depths": "convert"}, {}, "none (a layer that skips tokens does not tell whose gradient it has)"),
    ({"moe_aux_loss_coef": 0.01}, {}, "none, or dids_domain_gradients: fresh (the gradients of training batches"),
]


@pytest.fixture(scope="module")
def parsed(world, tmp_path_factory):
    """The settings and the host's arguments of a run that is let pass."""
    values = arguments(world, tmp_path_factory.mktemp("parsed"))
    model_args, data_args, training_args, finetuning_args, _ = tuner().get_train_args(values)
    return data_args.mixing, model_args, data_args, training_args, finetuning_args


@pytest.fixture
def line_of(parsed, monkeypatch):
    """The line that changed options are refused with; None where they are let pass."""

    def check(options, context):
        with monkeypatch.context() as patched:
            return line(options, context, patched)

    def line(options, context, patched):
        settings, *holders = (copy.copy(holder) for holder in parsed)
        set_up(holders, context, patched)
        if context.get("trains_a_proxy"):
            needs = dataclasses.replace(settings.needs, proxy_run=SimpleNamespace(name="first"))
            settings = dataclasses.replace(settings, needs=needs)
        if fresh := context.get("fresh"):
            config = dataclasses.replace(settings.config, dids_domain_gradients=fresh)
            settings = dataclasses.replace(settings, config=config)
        for name, value in options.items():
            (kind,) = (kind for kind, table in TABLES.items() if name in names_of(table))
            setattr(next(holder for holder in holders if isinstance(holder, kind)), name, value)
        try:
            host_options.check_host_options(settings, *holders)
        except DidsError as error:
            return str(error)
        return None

    return check


def set_up(holders, context, monkeypatch):
    """Give copies of a run's arguments what a case has beside its option."""
    model_args, data_args, training_args, finetuning_args = holders
    data_args.streaming = context.get("streaming", False)
    finetuning_args.stage = context.get("stage", "sft")
    if context.get("tokenized"):
        data_args.tokenized_path = "kept"
        monkeypatch.setattr(host_options.data, "is_saved", lambda data_args: data_args.tokenized_path == "kept")
    if version := context.get("version"):
        monkeypatch.setattr(host_options.training, "fsdp_version", lambda _: version)
    if size := context.get("autotp_size"):
        configuration = SimpleNamespace(get_value=lambda key, _: {"tensor_parallel.autotp_size": size}[key])
        training_args.hf_deepspeed_config = configuration
    if ranks := context.get("ranks"):
        monkeypatch.setattr(type(training_args), "world_size", ranks)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")


@pytest.mark.parametrize(("options", "context", "words"), CASES, ids=lambda value: str(value)[:40])
def test_refused_value_is_told_in_one_line(options, context, words, line_of):
    line = line_of(options, context)
    assert line is not None and words in line and "\n" not in line
    assert line.startswith(f"{next(iter(options))}: got ")


def test_each_refusal_of_the_tables_has_a_case(line_of):
    lines = [line_of(options, context).partition(": got ") for options, context, _ in CASES]
    told = {(name, rest.partition(", allowed with ")[2].partition(": ")[2]) for name, _, rest in lines}
    assert told == {(entry.name, entry.allowed) for table in TABLES.values() for entry in refused(table)}


@pytest.mark.parametrize(
    "options",
    [{"torch_compile": True}, {"moe_aux_loss_coef": 0.01}, {"use_badam": True}],
    ids=lambda options: next(iter(options)),
)
def test_what_spoils_the_gradients_of_training_batches_goes_with_fresh_ones(options, line_of):
    assert line_of(options, {"fresh": "fresh"}) is None


@pytest.mark.parametrize(
    "options",
    [
        {"accelerator_config": {"split_batches": False, "dispatch_batches": None}},
        {"parallelism_config": {"dp_replicate_size": 2}},
        {"parallelism_config": SimpleNamespace(tp_size=1, cp_size=1, sp_size=1)},
        {"save_on_each_node": True},
        {"use_badam": True, "badam_mode": "ratio"},
        {"val_size": 0.1},
        {"packing": True},
    ],
    ids=str,
)
def test_other_values_are_let_pass(options, line_of):
    assert line_of(options, {}) is None


def test_ranks_that_share_samples_by_accelerates_environment_are_refused(line_of, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_PARALLELISM_CONFIG", "true")
    assert line_of({"parallelism_config": None}, {}) is None
    monkeypatch.setenv("PARALLELISM_CONFIG_CP_SIZE", "2")
    assert 'got "accelerate\'s"' in line_of({"parallelism_config": None}, {})


# --- what is left alone -----------------------------------------------------------------------------------------

LEFT_ALONE = {
    "torch_empty_cache_steps": 2,
    "use_cache": True,
    "dataloader_pin_memory": False,
    "ddp_bucket_cap_mb": 5,
    "logging_first_step": True,
    "logging_nan_inf_filter": False,
    "include_num_input_tokens_seen": True,
    "skip_memory_metrics": False,
    "debug": "underflow_overflow",
    "profile_modules": "model.layers.*",
    "print_param_status": True,
    "label_names": ["labels"],
    "prediction_loss_only": True,
    "eval_strategy": "steps",
    "eval_steps": 8,
    "eval_on_start": True,
    "do_eval": True,
    "per_device_eval_batch_size": 3,
    "compute_accuracy": True,
    "plot_loss": True,
    "generation_max_length": 9,
    "temperature": 0.1,
    "length_column_name": "words",
    "preprocessing_batch_size": 7,
    "overwrite_cache": True,
    "restore_callback_states_from_checkpoint": True,
}


def test_options_that_are_left_alone_leave_the_mixture_as_it_was(world, tmp_path):
    untouched = [entry for table in TABLES.values() for entry in table if isinstance(entry, Untouched)]
    alone = {name for entry in untouched for name in entry.names.split()}
    assert set(LEFT_ALONE) <= alone
    there = {field.name for kind in TABLES for field in dataclasses.fields(kind)}
    changes = {name: value for name, value in LEFT_ALONE.items() if name in there}
    values = {"dids_domains": "source", "eval_dataset": "task_sums", "max_steps": 12}
    plain = train(arguments(world, tmp_path / "plain", **values))
    other = train(arguments(world, tmp_path / "other", **values, **changes))
    assert timeless(plain) == timeless(other)
    assert len({tuple(line.values()) for line in plain.probabilities}) > 1


# --- a host that has grown an option ----------------------------------------------------------------------------


@pytest.fixture
def grown(monkeypatch):
    """As if the host's next version brought `max_steps`."""
    (kind,) = (kind for kind, table in TABLES.items() if "max_steps" in names_of(table))
    monkeypatch.setitem(TABLES, kind, tuple(without(entry, "max_steps") for entry in TABLES[kind]))


def test_doctor_names_an_option_that_is_not_known(grown):
    (finding,) = (finding for finding in doctor.examine() if finding.what == "llamafactory options")
    assert finding.found == "not known here: max_steps" and "defaults" in finding.mend


def test_a_run_that_sets_an_option_that_is_not_known_warns(grown, world, tmp_path):
    with our_log() as messages:
        tuner().get_train_args(arguments(world, tmp_path))
    assert "max_steps: not known to this plugin, so no mixture was tried with it" in messages
