"""The paper preset: what the commands of a run are, and that the dry run finds what is wrong with them."""

import json

import pytest
import yaml

from llamafactory_dids.errors import DidsError
from scripts.experiments import definition, runs
from scripts.experiments.definition import TASKS
from scripts.paper import dry_run
from scripts.paper.recipe import Preset, Step, execute

KNOWN = {
    "dids": {"mix_strategy": "dids"},
    "dids_paper": {"mix_strategy": "dids", "dids_preset": "paper"},
    "dids_gc": {"mix_strategy": "dids", "dids_cluster_features": "semantic"},
    "dids_sources": {"mix_strategy": "dids", "dids_domains": "source"},
    "dids_own_proxy": {"mix_strategy": "dids", "own_proxy": True},
    "dids_swapped": {"mix_strategy": "dids", "spoilt": "swapped", "dids_init": "importance"},
    "proportional": {"mix_strategy": "proportional"},
    **{name: {"mix_strategy": name} for name in ("uniform", "dga", "doge", "doremi", "velocitune", "importance")},
}


@pytest.fixture
def preset():
    return Preset(KNOWN)


def recipe(preset, run, base="llama_tulu", tasks=TASKS):
    return preset.recipe(run, base, 1, tasks)


def config(preset, run, what="train", base="llama_tulu"):
    return next(step.config for step in recipe(preset, run, base).steps if step.what == what)


def test_a_run_is_domains_training_and_scores(preset):
    steps = recipe(preset, "dids").steps
    assert [step.what for step in steps] == ["cluster", "train", "score"]
    assert steps[0].command[:5] == ("torchrun", "--nproc-per-node", "8", "-m", "llamafactory_dids")
    assert steps[1].command == ("llamafactory-cli", "train", steps[1].file)
    assert steps[1].environment["FORCE_TORCHRUN"] == "1"
    assert steps[1].config["output_dir"] in steps[2].command


def test_the_examples_mixture_does_not_leak_into_a_run_that_does_not_ask_for_it(preset):
    assert "dids_preset" not in config(preset, "dids") and "dids_ema_beta" not in config(preset, "dids")
    assert config(preset, "dids_paper")["dids_preset"] == "paper"


def test_a_run_has_the_papers_numbers(preset):
    found = config(preset, "dids")
    assert found["learning_rate"] == 5e-4 and found["cutoff_len"] == 8192 and found["max_steps"] == 782
    assert found["dids_update_samples"] == 4000 and found["dids_num_domains"] == 72
    assert found["per_device_train_batch_size"] * found["gradient_accumulation_steps"] * 8 == dry_run.BATCH
    assert len(found["dids_tasks"].split(",")) == 9 and not found["overwrite_output_dir"]


@pytest.mark.parametrize(
    ("run", "key", "value"),
    [
        ("dids_updates_5", "dids_update_samples", 20_019),
        ("dids_budget_50", "max_steps", 391),
        ("dids_only_gsm8k", "dids_tasks", "gsm8k_val"),
        ("dids_domains_1152", "dids_num_domains", 1152),
        ("dids_proxy_8b", "dids_proxy_model", "meta-llama/Llama-3.1-8B"),
    ],
)
def test_a_word_is_read_at_the_papers_size(preset, run, key, value):
    assert config(preset, run)[key] == value
    assert not set(config(preset, run)) & set(runs.WORDS)


def test_spoilt_domains_are_a_map_of_the_clustered_ones_made_before_the_training(preset):
    steps = recipe(preset, "dids_swapped").steps
    assert [step.what for step in steps] == ["cluster", "spoil", "train", "score"]
    _, spoil, train, _ = steps
    folder = train.config["dids_domains"]
    assert {**spoil.config, "dids_domains": folder} == train.config and spoil.done == f"{folder}/domains.json"
    assert spoil.command == ("python", "scripts/experiments/maps.py", spoil.file, "swapped", "--output", folder)
    assert steps[0].done == recipe(preset, "dids").steps[0].done, "the domains are those of the run that is compared"


def test_a_run_that_clusters_by_the_model_itself_names_no_proxy(preset):
    given, own = config(preset, "dids"), config(preset, "dids_own_proxy")
    assert "dids_proxy_model" in given and "dids_proxy_model" not in own
    done = {
        preset._cluster(values | {"model_name_or_path": model}).done for values in (given, own) for model in ("a", "b")
    }
    assert len(done) == 3, "with a proxy the domains are the same whatever the model"


def test_all_data_is_one_pass_without_a_strategy_of_ours(preset):
    found = config(preset, "full")
    assert found["num_train_epochs"] == 1.0 and "max_steps" not in found
    assert [key for key in found if key.startswith("dids_") or key == "mix_strategy"] == []
    assert len(found["dataset"].split(",")) == 19


def test_an_untrained_model_is_only_scored(preset):
    (step,) = recipe(preset, "base", "mistral_tulu").steps
    assert step.what == "score" and "mistralai/Mistral-7B-v0.1" in step.command


def test_other_models_and_data_are_other_configurations(preset):
    one, other = config(preset, "dids", base="mistral_tulu"), config(preset, "dids", base="llama_openhermes")
    assert (one["model_name_or_path"], one["template"]) == ("mistralai/Mistral-7B-v0.1", "mistral")
    assert set(one["dataset"].split(",")) == set(config(preset, "dids")["dataset"].split(","))
    assert (other["dataset_dir"], other["template"]) == ("data/openhermes", "llama3")


def test_an_offline_strategy_trains_its_proxy_apart_and_hands_its_mixture_over(preset):
    made = recipe(preset, "doremi")
    assert [step.what for step in made.steps] == ["cluster", "proxy run", "train", "score"] and made.departures
    proxy, model = config(preset, "doremi", "proxy run"), config(preset, "doremi")
    assert proxy["model_name_or_path"] == "Qwen/Qwen2.5-0.5B" and "deepspeed" not in proxy
    assert model["mix_strategy"] == "static" and model["deepspeed"]
    assert model["dids_probs"] == f"{proxy['output_dir']}/dids/mixture.jsonl"
    assert model["dids_domains"] == f"{proxy['output_dir']}/dids" and model["template"] == proxy["template"]


def test_a_fixed_mixture_has_a_probability_for_each_of_its_data_sets_in_their_order(preset):
    found = config(preset, "mix_general_256")
    weights = dict(zip(found["dataset"].split(","), map(float, found["dids_probs"].split(",")), strict=True))
    assert sum(weights.values()) == pytest.approx(1, abs=1e-5)
    special = sum(weight for name, weight in weights.items() if preset.parts[name] == "special")
    assert special > 0.99


def test_code_is_run_only_where_a_task_needs_it(preset):
    assert "--allow-code" in recipe(preset, "dids", tasks=["mbpp"]).steps[-1].command
    assert "--allow-code" not in recipe(preset, "dids").steps[-1].command


def test_a_step_that_is_done_is_skipped_and_one_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.paper.recipe.ROOT", tmp_path)
    (tmp_path / "trained").touch()
    said = []
    steps = (
        Step("train", ("false",), "trained", {"a": 1}, "a.yaml"),
        Step("cluster", ("true",), "domains/1.done", {"a": 2}, "b.yaml"),
        Step("score", ("false",), "scores.jsonl", environment={"X": "1"}),
    )
    made = type("Made", (), {"steps": steps})
    with pytest.raises(DidsError, match="^X=1 false: ended with code 1; the same command goes on from here$"):
        execute([made], said.append)
    assert said == ["true", "X=1 false"]
    assert (tmp_path / "domains" / "1.done").exists() and yaml.safe_load((tmp_path / "b.yaml").read_text()) == {"a": 2}
    assert not (tmp_path / "a.yaml").exists()


def test_what_is_missing_is_said_once(preset):
    found = dry_run.missing([recipe(preset, run) for run in ("dids", "dga")])
    assert len(found) == len(set(found))
    assert any(line.startswith("28 data sets in data/tulu3, which prepare_data.py makes: oasst1") for line in found)
    assert "model meta-llama/Llama-3.1-8B" in found


def test_irrelevant_data_stands_beside_the_sources_cut_to_its_share(preset):
    dataset = config(preset, "dids")["dataset"]
    assert config(preset, "dids_mix_in_20")["dataset"] == f"{dataset},finance_20"


# --- through the host's own arguments ---------------------------------------------------------------------------

VALID = (
    *("dids", "dids_paper", "dids_gc", "dids_sources", "dids_swapped", "doge", "velocitune", "full", "base"),
    *("dids_only_gsm8k", "dids_mix_in_25", "dids_domains_1152", "dids_proxy_1b", "mix_special_64", "importance"),
)


@pytest.mark.integration
@pytest.mark.parametrize("run", VALID)
def test_a_run_passes_the_dry_run(preset, tmp_path, run):
    assert dry_run.problems(recipe(preset, run), dry_run.StandIns(tmp_path)) == []


@pytest.mark.integration
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dids_num_domain": 3}, "dids_num_domain: unknown key, did you mean dids_num_domains?"),
        ({"learning_rat": 1.0}, "learning_rat"),
        ({"template": "lama"}, "template: got 'lama', allowed: a name of LLaMA-Factory's templates"),
        ({"dids_eta": -1.0}, "dids_eta"),
        ({"packing": True, "stage": "dpo"}, "packing"),
        ({"gradient_accumulation_steps": 4}, "a step has 32 samples on 8 GPUs, allowed: 128"),
        ({"deepspeed": "examples/lost.json"}, "deepspeed: got 'examples/lost.json'"),
        ({"dids_update_samples": 8}, "dids_update_samples: got 8"),
        ({"dids_num_domains": 18}, "dids_num_domains: got 18, allowed: at least one for each of the 19 datasets"),
    ],
)
def test_the_dry_run_finds_what_is_wrong(preset, tmp_path, change, said):
    made = recipe(preset, "dids")
    step = made.steps[1]
    broken = Step(step.what, step.command, step.done, {**step.config, **change}, step.file)
    found = dry_run.problems(type(made)("dids", "llama_tulu", 1, (broken,)), dry_run.StandIns(tmp_path))
    assert any(said in line for line in found), found
    assert all("\n" not in line for line in found)


@pytest.mark.integration
def test_a_scoring_command_with_an_unknown_task_or_option_is_found(preset, tmp_path):
    made = recipe(preset, "base", tasks=["poetry"])
    (found,) = dry_run.problems(made, dry_run.StandIns(tmp_path))
    assert "--tasks: got 'poetry', allowed: bbh" in found


def test_each_point_of_figure_3b_has_the_number_of_domains_that_it_says(preset):
    preset.named = runs.load()
    for row in definition.load_all()["figure_3b"].rows:
        if row.x is not None:
            found = config(preset, row.run)
            said = "the sources" if found.get("dids_domains") == "source" else found["dids_num_domains"]
            assert said == ("the sources" if row.x == 18 else row.x), row.label


@pytest.mark.integration
def test_every_run_of_every_table_has_steps(preset):
    preset.named, count = runs.load(), 0
    for one in definition.load_all().values():
        for run, base in one.wanted():
            made = recipe(preset, run, base)
            count += len(made.steps)
            assert json.dumps([dict(step.config or {}) for step in made.steps])
    assert count > 500
