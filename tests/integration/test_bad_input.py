"""Bad input is told in one line that names the key or file, what was received and what is allowed.

Wherever it can be known before a model is loaded, no model is loaded: `load_model` fails the test.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import LlamaConfig, TrainingArguments

from llamafactory_dids.errors import DidsError
from tests.helpers import edit
from tests.integration.support import (
    World,
    arguments,
    build_model,
    refusal,
    same_domains,
    train,
    tuner,
    write_dataset,
)

pytestmark = pytest.mark.integration

BY_LENGTH = {"train_sampling_strategy": "group_by_length"}
if "train_sampling_strategy" not in {field.name for field in dataclasses.fields(TrainingArguments)}:
    BY_LENGTH = {"group_by_length": True}  # transformers before 5
STATIC = {"mix_strategy": "static", "dids_tasks": None, "dids_domains": "source"}

OF_CACHE = {"max_steps": 4, "dids_init": "uniform"}  # no store of the tasks' gradients

STREAM = {"streaming": True, "dids_domains": "source"}

# name: (what is changed in a good run of 3 datasets and 270 samples, what the message must say)
BEFORE_LOADING = {
    "misspelt_key": ({"dids_num_domain": 3}, ["dids_num_domain: unknown key", "did you mean dids_num_domains?"]),
    "unknown_strategy": ({"mix_strategy": "dits"}, ["mix_strategy: got 'dits'", "did you mean dids?", "concat"]),
    "text_for_a_number": ({"dids_task_samples": "many"}, ["dids_task_samples: got 'many'", "an integer"]),
    "fraction_for_a_count": ({"dids_num_domains": 2.5}, ["dids_num_domains: got 2.5", "an integer"]),
    "number_for_a_switch": ({"dids_divide_by_p": 3}, ["dids_divide_by_p: got 3", "true or false"]),
    "list_for_a_number": ({"dids_eta": [1, 2]}, ["dids_eta: got [1, 2]", "a number"]),
    "unknown_choice": ({"dids_preset": "best"}, ["dids_preset: got 'best'", "default, paper, literal, authors"]),
    "share_above_one": ({"dids_topk_ratio": 1.5}, ["dids_topk_ratio: got 1.5", "(0, 1]"]),
    "no_domains": ({"dids_num_domains": 0}, ["dids_num_domains: got 0", "an integer >= 1"]),
    "beta_above_one": ({"dids_ema_beta": 1.5}, ["ema_beta", "1.5"]),
    "negative_seed": ({"dids_seed": -1}, ["dids_seed: got -1", "an integer from 0"]),
    "missing_dataset": ({"dataset": "sums,lost"}, ["dataset: got 'lost'", "dataset_info.json"]),
    "missing_task": ({"dids_tasks": "task_sums,lost"}, ["dids_tasks: got 'lost'", "dataset_info.json"]),
    "no_tasks": ({"dids_tasks": None}, ["dids_tasks: got none", "at least one task", "(or an eval_dataset)"]),
    "val_size_alone": ({"dids_tasks": None, "val_size": 9}, ["dids_tasks: got none", "(or an eval_dataset)"]),
    "task_without_examples": ({"dids_tasks": "empty"}, ["dids_tasks: 'empty' cannot be read", "at least one example"]),
    "task_of_a_broken_file": ({"dids_tasks": "broken"}, ["dids_tasks: 'broken' cannot be read", "dataset_info.json"]),
    "task_of_a_missing_file": ({"dids_tasks": "gone"}, ["dids_tasks: got 'gone'", "gone.json is missing"]),
    "dataset_without_examples": ({"dataset": "sums,empty"}, ["dataset: 'empty' cannot be read", "one example"]),
    "dataset_twice": ({"dataset": "sums,pairs,sums"}, ["dataset: got 'sums'", "each name once"]),
    "task_twice": ({"dids_tasks": "task_sums,task_sums"}, ["dids_tasks: got 'task_sums'", "each name once"]),
    "more_domains_than_samples": ({"dids_num_domains": 271}, ["dids_num_domains: got 271", "samples, 270"]),
    "fewer_domains_than_datasets": ({"dids_num_domains": 2}, ["dids_num_domains: got 2", "the 3 datasets"]),
    "fewer_domains_than_datasets_before_data": (
        {"dids_num_domains": 2, "dataset": "sums,pairs,broken"},
        ["dids_num_domains: got 2", "the 3 datasets"],
    ),
    "no_such_proxy": ({"dids_proxy_model": "/no/such/model"}, ["dids_proxy_model: got '/no/such/model'", "folder"]),
    "no_such_map": ({"dids_domains": "/no/such/map"}, ["dids_domains: got '/no/such/map'", "path of a domain map"]),
    "streaming_clustered": (STREAM | {"dids_domains": "cluster"}, ["dids_domains: got 'cluster'", "source, or the"]),
    "streaming_once": (STREAM | {"dids_max_repeats": 1}, ["dids_max_repeats: got 1", "with streaming: none"]),
    "more_samples_than_repeats": (
        {"dids_domains": "source", "dids_max_repeats": 2, "max_steps": 69},
        ["dids_max_repeats: got 2", "at least 3, since the run draws 552 samples of 270"],
    ),
    "streaming_packed": (STREAM | {"packing": True}, ["packing: got True", "with streaming: false"]),
    "streaming_val_size": (STREAM | {"val_size": 5}, ["val_size: got 5", "eval_dataset"]),
    "streaming_proxy_run": (STREAM | {"mix_strategy": "doge"}, ["mix_strategy: got 'doge'", "without a proxy run"]),
    "streaming_importance": (STREAM | {"mix_strategy": "importance"}, ["mix_strategy: got 'importance'", "features"]),
    "streaming_proportional": (
        STREAM | {"mix_strategy": "proportional", "dids_tasks": None},
        ["dids_domains: got 'source'", "a domain map", "proportional"],
    ),
    "tokenized_path": ({"tokenized_path": str(Path(__file__).parent)}, ["tokenized_path: got ", "dids_data.json"]),
    "interleave_probs": ({"interleave_probs": "0.2,0.3,0.5"}, ["interleave_probs", "dids_probs"]),
    "group_by_length": (BY_LENGTH, ["group_by_length", "(the mixture decides which sample comes next"]),
    "auto_find_batch_size": ({"auto_find_batch_size": True}, ["auto_find_batch_size: got True", "false"]),
    "another_loss": ({"use_dft_loss": True}, ["use_dft_loss: got True", "false", "cross-entropy"]),
    "ignore_data_skip": ({"ignore_data_skip": True}, ["ignore_data_skip: got True", "false"]),
    "compiled": ({"torch_compile": True}, ["torch_compile: got True", "dids_domain_gradients: fresh"]),
    "compiled_by_its_backend": ({"torch_compile_backend": "eager"}, ["torch_compile: got True"]),
    "eight_bits": ({"fp8": True}, ["fp8: got True", "false"]),
    "split_batches": (
        {"accelerator_config": {"split_batches": True}},
        ["accelerator_config: got {'split_batches': True}", "split_batches: false"],
    ),
    "label_smoothing": ({"label_smoothing_factor": 0.1}, ["label_smoothing_factor: got 0.1", "0", "cross-entropy"]),
    "labelled_padding": ({"ignore_pad_token_for_loss": False}, ["ignore_pad_token_for_loss: got False", "true"]),
    "frozen_last_blocks": (
        {"finetuning_type": "freeze", "freeze_trainable_layers": -1},
        ["dids_gradient_layers: got 0.1", "blocks 2 to 2 where no linear layer is trained"],
    ),
    "adapters_in_the_first_block": (
        {"finetuning_type": "lora", "lora_target": "layers.0.self_attn.q_proj"},
        ["dids_gradient_layers: got 0.1", "blocks 2 to 2 where no linear layer is trained"],
    ),
    "ppo": ({"stage": "ppo", "reward_model": "x", "reward_model_type": "full"}, ["'ppo'", "pt, sft, dpo, kto, rm"]),
    "first_fsdp": ({"fsdp": "full_shard"}, ["fsdp: got 'version 1'", "version 2"]),
    "window_below_a_step": ({"dids_update_samples": 7}, ["dids_update_samples: got 7", "samples of a step, 8"]),
    "probs_without_static": ({"dids_probs": "0.5,0.5"}, ["dids_probs: got '0.5,0.5'", "mix_strategy is dids"]),
    "static_without_probs": (STATIC, ["dids_probs: got None", "a mixture or a log for static"]),
    "schedule_without_points": (
        STATIC | {"mix_strategy": "schedule"},
        ["dids_schedule: got None", "mixtures at points of the run for schedule"],
    ),
    "schedule_without_the_strategy": ({"dids_schedule": "0: uniform"}, ["dids_schedule: got", "mix_strategy is dids"]),
    "a_name_that_is_not_there": (STATIC | {"dids_probs": "sumz=0.5"}, ["got 'sumz'", "did you mean sums?"]),
    "probs_of_a_wrong_sum": (STATIC | {"dids_probs": "0.5,0.5,0.5"}, ["dids_probs: got '0.5,0.5,0.5'", "sum to 1"]),
    "probs_of_a_wrong_length": (STATIC | {"dids_probs": "0.5,0.5"}, ["dids_probs: got '0.5,0.5'", "3 numbers"]),
    "probs_of_a_lost_run": (
        STATIC | {"dids_probs": "/no/such/run"},
        ["dids_probs: got '/no/such/run'", "mixture.jsonl"],
    ),
    "unknown_features": (
        {"dids_cluster_features": "both"},
        ["dids_cluster_features: got 'both'", "gradient, semantic"],
    ),
    "probs_that_are_words": (STATIC | {"dids_probs": "a,b,c"}, ["dids_probs: got 'a,b,c'", "numbers"]),
}


@pytest.fixture(scope="module")
def bad_world(world, tmp_path_factory):
    """The world's data with an empty, a broken and a lost file among it."""
    folder = tmp_path_factory.mktemp("bad")
    shutil.copytree(world.data, folder / "data")
    shutil.copytree(world.model, folder / "model")
    for name in ("empty", "broken", "gone"):
        write_dataset(folder / "data", name, [])
    (folder / "data" / "broken.json").write_text('[{"instruction": "cut off')
    (folder / "data" / "gone.json").unlink()
    return World(folder)


@pytest.mark.parametrize("case", BEFORE_LOADING)
def test_is_refused_before_a_model_is_loaded(case, bad_world, no_model, tmp_path):
    changes, words = BEFORE_LOADING[case]
    message = refusal(arguments(bad_world, tmp_path, **changes))
    assert [word for word in words if word not in message] == [], message
    assert not (tmp_path / "out" / "dids").exists()


def test_proxy_without_decoder_blocks_is_refused_before_it_is_loaded(bad_world, no_model, tmp_path):
    build_model(tmp_path / "headless", bad_world.data, vocab_size=300, layers=1)
    config = LlamaConfig.from_pretrained(tmp_path / "headless", num_hidden_layers=0)
    config.save_pretrained(tmp_path / "headless")
    message = refusal(arguments(bad_world, tmp_path, dids_proxy_model=str(tmp_path / "headless")))
    assert message.startswith("dids_proxy_model: got ") and "headless" in message and "decoder blocks" in message


@pytest.mark.parametrize("case", ["another_loss", "frozen_last_blocks", "label_smoothing"])
def test_options_are_refused_before_any_data_is_read(case, bad_world, no_data, tmp_path):
    assert "allowed" in refusal(arguments(bad_world, tmp_path, **BEFORE_LOADING[case][0]))


def test_more_domains_than_samples_are_refused_before_they_are_tokenised(bad_world, monkeypatch, tmp_path):
    from llamafactory.data import loader

    host = loader._get_preprocessed_dataset

    def tasks_alone(*args, is_eval, **kwargs):
        return host(*args, is_eval=is_eval, **kwargs) if is_eval else never()

    monkeypatch.setattr(loader, "_get_preprocessed_dataset", tasks_alone)
    message = refusal(arguments(bad_world, tmp_path, dids_num_domains=271))
    assert message == "dids_num_domains: got 271, allowed: at most the number of training samples, 270"


@pytest.fixture
def no_data(monkeypatch):
    """Loading data fails the test."""
    from llamafactory.data import loader

    tuner()
    monkeypatch.setattr(loader, "_get_merged_dataset", never)


def never(*_args, **_kwargs):
    raise AssertionError("this was not to be called")


# --- artifacts that are broken or of others ---------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_cache(world, tmp_path_factory):
    """The cache of a finished clustering; read, never changed."""
    folder = tmp_path_factory.mktemp("whole_cache")
    train(arguments(world, folder, **OF_CACHE))
    return folder / "cache"


@pytest.fixture
def cache(whole_cache, world, tmp_path):
    """A copy of it, which a test may break, with the arguments that made it."""
    shutil.copytree(whole_cache, tmp_path / "cache")
    return tmp_path / "cache", arguments(world, tmp_path, **OF_CACHE)


def only(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


def test_corrupt_part_is_refused_by_name(cache, no_model):
    folder, values = cache
    shutil.rmtree(folder / "domains")
    part = only(folder, "gradients/*/part-00000.npy")
    part.write_bytes(part.read_bytes()[:1000])
    message = refusal(values)
    assert str(part) in message and "delete it" in message


def test_part_that_was_deleted_is_made_anew_as_it_was(cache):
    folder, values = cache
    shutil.rmtree(folder / "domains")
    part = only(folder, "gradients/*/part-00000.npy")
    whole = part.read_bytes()
    part.unlink()
    train(values)
    assert part.read_bytes() == whole


def test_part_of_another_shape_is_refused(cache, no_model):
    folder, values = cache
    shutil.rmtree(folder / "domains")
    part = only(folder, "gradients/*/part-00000.npy")
    np.save(part, np.zeros((270, 32), dtype=np.float16))
    message = refusal(values)
    assert str(part) in message and "[270, 32]" in message and "[270, 64]" in message


def test_store_of_other_inputs_is_refused_with_both_values(cache, no_model):
    folder, values = cache
    shutil.rmtree(folder / "domains")
    manifest = only(folder, "gradients/*/manifest.json")
    edit(manifest, sft="pt")
    message = refusal(values)
    assert str(manifest.parent) in message and "stage = 'pt'" in message and "'sft'" in message


def test_corrupt_map_is_refused_by_name(cache, no_model):
    folder, values = cache
    parquet = only(folder, "domains/*/domains.parquet")
    parquet.write_bytes(parquet.read_bytes()[:100])
    message = refusal(values)
    assert str(parquet) in message and "parquet" in message


def test_map_of_other_inputs_is_refused_with_both_values(cache, no_model):
    folder, values = cache
    path = only(folder, "domains/*/domains.json")
    edit(path, **{'"dids_num_domains": 6': '"dids_num_domains": 5'})
    message = refusal(values)
    assert str(path.parent) in message and "dids_num_domains = 5" in message and "this run has 6" in message


def test_map_that_lacks_samples_is_refused(finished, world, no_model, tmp_path):
    shutil.copytree(world.data, tmp_path / "data")
    rows = json.loads((world.data / "noise.json").read_text())
    write_dataset(tmp_path / "data", "noise", [*rows, {"instruction": "new", "input": "", "output": "one"}])
    message = refusal(arguments(world, tmp_path, dataset_dir=str(tmp_path / "data"), **same_domains(finished)))
    assert "dids_domains: the map lacks 1 of 271 training samples" in message and "'noise'" in message


def test_map_that_contradicts_a_key_is_refused_with_both_values(finished, world, no_model, tmp_path):
    message = refusal(arguments(world, tmp_path, dids_domains=str(finished.dids), dids_num_domains=7))
    assert "dids_num_domains: got 7" in message and "was made with 6" in message


# --- what a failed run leaves -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_cluster", "fill_store"])
def test_good_run_after_a_failed_one_is_as_if_that_had_not_been(name, finished, world, tmp_path, monkeypatch):
    from llamafactory_dids.integration.domains import features
    from llamafactory_dids.integration.domains import making as domains

    def fail(*_args, **_kwargs):
        raise DidsError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(domains if name == "_cluster" else features, name, fail)
        assert refusal(arguments(world, tmp_path)) == "no space left"
    assert train(arguments(world, tmp_path)).probabilities == finished.probabilities


def test_broken_checkpoint_is_refused_by_name(world, tmp_path):
    values = arguments(world, tmp_path, dids_domains="source", save_strategy="steps", save_steps=4, max_steps=4)
    train(values)
    state = tmp_path / "out" / "checkpoint-4" / "dids_state.safetensors"
    state.write_bytes(b"short")
    message = refusal(values | {"resume_from_checkpoint": str(state.parent), "overwrite_output_dir": False})
    assert str(state) in message
