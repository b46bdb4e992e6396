"""One reading of the data for everything that looks at it, and rows that are the host's own whatever the options."""

import copy
import json

import pytest

from llamafactory_dids.artifacts.domain_map import load_map
from tests.integration.support import (
    SOURCES,
    arguments,
    examples,
    module_of,
    refusal,
    same_domains,
    train,
    tuner,
    without_mixture,
    write_dataset,
)
from tests.integration.test_data_path import DOMAIN, KEY, SOURCE, UNANSWERED, cases

pytestmark = pytest.mark.integration


def describe(world, name, **entry):
    """Change a data set's entry in dataset_info.json."""
    path = world.data / "dataset_info.json"
    info = json.loads(path.read_text())
    info[name] |= entry
    path.write_text(json.dumps(info))


# --- num_samples: the host draws anew with each reading --------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"packing": True}], ids=["unpacked", "packed"])
def test_a_sampled_data_set_is_drawn_once_for_the_map_and_the_rows(changes, own, tmp_path):
    describe(own, "sums", num_samples=30)
    values = arguments(own, tmp_path, dids_proxy_model=str(own.proxy), dids_init="uniform", **changes)
    module, tokenizer = module_of(values)
    plan = module["mixing"]
    assert plan.domain_map.sources_N.to_pylist().count("sums") == 30
    seen = {case for row in module["train_dataset"] for case in cases(tokenizer, row["input_ids"]) if case < 1000}
    assert len(seen) == 30


def test_importance_is_measured_on_the_rows_that_are_trained_on(own, tmp_path):
    describe(own, "sums", num_samples=30)
    describe(own, "task_sums", num_samples=15)
    module, tokenizer = module_of(arguments(own, tmp_path, mix_strategy="importance", dids_update_samples=None))
    assert len(list((tmp_path / "cache" / "gradients").iterdir())) == 2  # of the training rows, and of the tasks'
    drawn = {cases(tokenizer, row["input_ids"])[0] for row in module["train_dataset"] if row[SOURCE] == "sums"}
    assert len(drawn) == 30


# --- what the host would do ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["sft", "pt"])
def test_packing_holds_out_the_rows_that_the_host_would(stage, world, tmp_path):
    values = arguments(world, tmp_path, stage=stage, packing=True, val_size=0.2)
    module, tokenizer = module_of(values)
    host = module_of(without_mixture(values))[0]
    assert list(module["eval_dataset"]) == list(host["eval_dataset"])
    held_out = {case for row in host["eval_dataset"] for case in cases(tokenizer, row["input_ids"])}
    trained = {case for row in module["train_dataset"] for case in cases(tokenizer, row["input_ids"])}
    assert stage == "pt" or not held_out & trained  # pt cuts numbers in two


def test_no_text_is_lost_where_a_domain_fills_no_row(world, tmp_path):
    changes = {"stage": "pt", "packing": True, "cutoff_len": 512}
    module = module_of(arguments(world, tmp_path, dids_num_domains=20, dids_min_domain_size=1, **changes))[0]
    unpacked = arguments(world, tmp_path, stage="pt", packing=False, cutoff_len=4096)
    alone = module_of(without_mixture(unpacked))[0]
    rows = module["train_dataset"]
    tokens = sorted(token for row in alone["train_dataset"] for token in row["input_ids"])
    assert sorted(token for row in rows for token in row["input_ids"]) == tokens
    assert len(set(rows[DOMAIN])) == len(module["mixing"].domain_names) == 20
    assert all(row["attention_mask"] == [1] * len(row["input_ids"]) for row in rows)


def test_a_few_short_texts_are_trained_on(own, tmp_path):
    write_dataset(own.data, "few", examples("pairs", 3, 7))
    values = arguments(own, tmp_path, stage="pt", cutoff_len=2048, dataset="few", dids_domains="source", max_steps=2)
    assert len(train(values).trainer.train_dataset) == 1


def test_saved_tokens_are_the_hosts_own(world, tmp_path):
    values = arguments(world, tmp_path, tokenized_path=str(tmp_path / "tokens"), dids_domains="source")
    ours = module_of(values)[0]["train_dataset"]
    host = module_of(without_mixture(values))[0]["train_dataset"]
    assert set(host.column_names) == set(ours.column_names) - {DOMAIN, KEY, SOURCE}
    assert list(host) == list(module_of(without_mixture(arguments(world, tmp_path)))[0]["train_dataset"])


@pytest.fixture
def own_template(monkeypatch):
    """The host keeps `default_system` on the template that all runs of a process share."""
    tuner()
    from llamafactory.data.template import TEMPLATES

    monkeypatch.setitem(TEMPLATES, "default", copy.deepcopy(TEMPLATES["default"]))


@pytest.mark.parametrize("packing", [False, True])
def test_saved_tokens_that_other_options_would_make_are_refused(packing, world, tmp_path, no_model, own_template):
    values = arguments(world, tmp_path, tokenized_path=str(tmp_path / "tokens"), dids_domains="source", packing=packing)
    module_of(values)
    assert "holds other tokens than this run's" in refusal(values | {"default_system": "Be brief."})


def test_dropped_rows_are_tokenised_and_told_once(own, tmp_path):
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor

    write_dataset(own.data, "sums", [UNANSWERED, *examples("sums", 9, 0), UNANSWERED])
    encoded, encode = [], SupervisedDatasetProcessor._encode_data_example
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            SupervisedDatasetProcessor,
            "_encode_data_example",
            lambda self, *args, **kwargs: encoded.append(1) or encode(self, *args, **kwargs),
        )
        changes = {"dataset": "sums,pairs", "dids_domains": "source", "mix_strategy": "uniform", "dids_tasks": None}
        changes |= {"overwrite_cache": True, "preprocessing_batch_size": 1}  # the first batch gives no row
        module = module_of(arguments(own, tmp_path, **changes))[0]
    assert len(module["train_dataset"]) == 9 + SOURCES["pairs"]
    assert len(encoded) == 9 + SOURCES["pairs"]


# --- features are named by what makes them ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"default_system": "Be brief."}, {"cutoff_len": 24}, {"train_on_prompt": True}, {"infer_dtype": "bfloat16"}]
    + [{"rope_scaling": "linear"}, {"bf16": True}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_changes_the_gradients_is_not_taken_from_the_cache(changes, unchanged, finished, world, own_template):
    assert inputs_of(arguments(world, finished.folder.parent, **changes)) != unchanged


@pytest.fixture(scope="module")
def unchanged(finished, world):
    """What names the features of the finished run."""
    inputs = inputs_of(arguments(world, finished.folder.parent))
    assert {"gradients": inputs} == {k: v for k, v in load_map(finished.dids).inputs.items() if isinstance(v, dict)}
    return inputs


def test_an_adapter_that_was_trained_again_at_its_path_is_another_proxy(world, tmp_path):
    changes = {"finetuning_type": "lora", "max_steps": 1, "output_dir": str(tmp_path / "a")}
    values = without_mixture(arguments(world, tmp_path, **changes))
    tuner().run_exp(dict(values))
    changes = {"finetuning_type": "lora", "adapter_name_or_path": str(tmp_path / "a")}
    first = inputs_of(arguments(world, tmp_path, **changes))
    assert inputs_of(arguments(world, tmp_path, **changes)) == first
    tuner().run_exp(dict(values) | {"seed": 11, "overwrite_output_dir": True})
    assert inputs_of(arguments(world, tmp_path, **changes)) != first


def inputs_of(values):
    """What names the features of a run, which are not made."""
    from llamafactory_dids.integration.domains import making

    class Stop(Exception):
        pass

    found = []

    def look(source, samples):
        features = original(source, samples)
        found.append(features.inputs())
        raise Stop

    original = making.feature_source
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Stop):
        patched.setattr(making, "feature_source", look)
        module_of(values)
    return json.loads(json.dumps(found[0]))


def test_a_given_map_still_fits_where_rows_are_held_out(finished, world, tmp_path):
    module = module_of(arguments(world, tmp_path, val_size=0.2, packing=True, **same_domains(finished)))[0]
    assert set(module["train_dataset"][DOMAIN]) <= set(range(len(module["mixing"].domain_names)))
