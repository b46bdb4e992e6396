"""Every way to train that the plugin knows, through the host's own entry."""

import json
import math
import re

import numpy as np
import pytest
import yaml

from llamafactory_dids.artifacts.domain_map import load_map
from llamafactory_dids.report.pictures import FIGURES
from llamafactory_dids.training.observer import Observer
from llamafactory_dids.training.sampler import MixtureSampler
from tests.integration.support import (
    BY_SOURCE,
    SOURCES,
    TASKS,
    arguments,
    drawn_rows,
    our_log,
    outlived_by_trainer,
    same_domains,
    timeless,
    train,
)

pytestmark = pytest.mark.integration

KEYS = {
    "step",
    "samples_seen",
    "seconds",
    "applies_from_sample",
    "probabilities",
    "impact",
    "task_loss",
    "task_potential",
    "task_weight",
    "domain_loss",
    "domain_tokens",
    "samples_drawn",
}
WAYS = {
    "sft_full": {},
    "sft_lora": {"finetuning_type": "lora", "lora_rank": 4},
    "sft_freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "sft_packed": {"packing": True, "per_device_train_batch_size": 2, "dids_update_samples": 8},
    "pt_packed": {"stage": "pt", "per_device_train_batch_size": 2, "dids_update_samples": 8},
    "pt_unpacked": {"stage": "pt", "packing": False},
}
PRESETS = [{"dids_preset": name} for name in ("paper", "literal", "authors")]
FRESH = {"dids_domain_gradients": "fresh"}


@pytest.fixture(scope="module", params=WAYS)
def run(request, world, tmp_path_factory):
    """A finished run of each way to train, with the samples of its 24 steps and of a window."""
    if request.param == "sft_full":
        return request.getfixturevalue("finished"), 192, 32
    ran = train(arguments(world, tmp_path_factory.mktemp(request.param), **WAYS[request.param]))
    return (ran, 48, 8) if "_packed" in request.param else (ran, 192, 32)


def test_run_leaves_every_artifact_behind(run):
    names = {path.name for path in run[0].dids.iterdir()}
    written = {"mixture.jsonl", "domains.parquet", "domains.json", "config.yaml", "cost.json", "run.json"}
    pictures = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    assert names == written | pictures | {"report.html", "tables"}
    assert all((run[0].dids / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in FIGURES)
    assert {"domains.csv", "tasks.csv", "mixture.csv"} <= {path.name for path in (run[0].dids / "tables").iterdir()}


def test_a_run_writes_down_when_where_and_by_which_command_it_was_made(finished):
    about = json.loads((finished.dids / "run.json").read_text())
    assert about["is_updated"] and about["processes"] == 1 and "CPU" in about["hardware"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", about["started"]) and about["command"]
    assert about["versions"]["llamafactory"]
    report = (finished.dids / "report.html").read_text()
    assert about["started"] in report and about["hardware"].split(" (")[0] in report


def test_log_starts_before_training_and_then_has_a_line_a_window(run):
    ran, samples, window = run
    assert [line["samples_seen"] for line in ran.lines] == list(range(0, samples + 1, window))
    assert [line["step"] for line in ran.lines] == [24 * n // (samples // window) for n in range(len(ran.lines))]
    assert all(set(line) == KEYS for line in ran.lines[:-1]) and set(ran.lines[-1]) == KEYS | {"closing"}
    assert ran.lines[0]["impact"] == {}


def test_the_default_starts_from_the_histogram_of_the_tasks_samples_above_the_floor(run):
    start = np.array(list(run[0].probabilities[0].values()))
    least = 0.05 / len(start)
    shares = start[start > least * (1 + 1e-9)]  # of the domains that have any of the two tasks' 12 observed samples
    counts = 24 * shares / (1 - least * (len(start) - len(shares)))
    assert counts == pytest.approx(np.round(counts), abs=1e-6)
    assert len(set(start)) > 1


def test_probabilities_stay_on_the_simplex_above_the_floor_and_move(run):
    for probabilities in run[0].probabilities:
        assert math.isclose(sum(probabilities.values()), 1, abs_tol=1e-9)
        assert min(probabilities.values()) >= 0.05 / len(probabilities) - 1e-12
    assert run[0].probabilities[0] != run[0].probabilities[-1]


def test_each_line_names_every_domain_and_every_task(run):
    domains = set(load_map(run[0].dids).names)
    for line in run[0].lines:
        assert set(line["probabilities"]) == set(line["samples_drawn"]) == domains
        assert set(line["task_loss"]) == set(TASKS)
    assert set(run[0].lines[-2]["impact"]) == domains
    assert all(set(by_task) == set(TASKS) for by_task in run[0].lines[-2]["impact"].values())


def test_samples_drawn_add_up_to_the_draw_from_which_the_mixture_applies(run):
    assert all(sum(line["samples_drawn"].values()) == line["applies_from_sample"] for line in run[0].lines)


def test_map_has_each_sample_once_and_each_source(run):
    domain_map = load_map(run[0].dids)
    sizes = {name: domain_map.sources_N.to_pylist().count(name) for name in SOURCES}
    assert sizes == SOURCES
    assert len(domain_map.lookup()) == sum(SOURCES.values())
    assert all(name.split("/")[0] in domain["sources"] for name, domain in _described(run[0]).items())


def _described(ran):
    content = json.loads((ran.dids / "domains.json").read_text())
    return {domain["name"]: domain for domain in content["domains"]}


def test_training_learns_the_tasks(finished):
    before, after = finished.lines[0]["task_loss"], finished.lines[-1]["task_loss"]
    assert all(after[task] < before[task] - 1 for task in TASKS)


def replayed(ran, folder, **changes):
    values = yaml.safe_load((ran.dids / "config.yaml").read_text())
    return train(values | {"output_dir": str(folder)} | changes)


@pytest.mark.parametrize("strategy", ["dids", "odm"])
def test_the_trainer_is_gone_with_its_run_as_the_hosts_own_is(strategy, world, tmp_path):
    assert not outlived_by_trainer(arguments(world, tmp_path, mix_strategy=strategy, max_steps=8, **BY_SOURCE))


@pytest.mark.parametrize("run", ["sft_lora", "pt_packed"], indirect=True)
def test_run_repeated_from_its_config_is_the_same(run, tmp_path):
    assert timeless(replayed(run[0], tmp_path)) == timeless(run[0])


def test_run_repeated_from_its_config_in_another_cache_is_the_same(finished, tmp_path):
    assert timeless(replayed(finished, tmp_path, dids_cache_dir=str(tmp_path / "cache"))) == timeless(finished)


@pytest.fixture(scope="module")
def by_source(world, tmp_path_factory):
    """A finished run with the data sets as domains, no task named and few updates; and what it logged."""
    few = {"dids_update_samples": 64, "dids_tasks": None, "eval_dataset": "task_sums"}
    with our_log() as messages:
        return train(arguments(world, tmp_path_factory.mktemp("by_source"), **BY_SOURCE, **few)), messages


def test_sources_are_domains_where_asked_and_are_started_evenly(by_source):
    ran, _ = by_source
    assert {name: domain["sources"] for name, domain in _described(ran).items()} == {
        name: {name: size} for name, size in SOURCES.items()
    }
    assert set(ran.probabilities[0].values()) == {1 / 3}
    assert not (ran.folder.parent / "cache").exists()
    assert "samples drawn at random" in (ran.dids / "report.html").read_text()


def test_run_says_how_many_updates_it_makes_and_warns_when_they_are_few(by_source):
    ran, messages = by_source
    assert len(ran.lines) == 4
    assert any("2 updates: one every 64 of 192" in message for message in messages)
    assert any(message.startswith("only 2 updates") for message in messages)


def test_observed_tasks_default_to_the_evaluated_ones(by_source):
    assert set(by_source[0].lines[0]["task_loss"]) == {"task_sums"}


def test_sources_as_domains_show_a_few_of_their_own_samples_by_the_seed_that_draws_others(by_source, world, tmp_path):
    def one_step(folder, **changes):
        return train(arguments(world, tmp_path / folder, **BY_SOURCE, max_steps=1, **changes))

    def shown(ran):
        return {name: domain["typical_texts"] for name, domain in _described(ran).items()}

    first = shown(by_source[0])
    for place, texts in enumerate(first[name] for name in SOURCES):
        numbers = [int(re.search(r"Case (\d+)", text)[1]) for text in texts]  # counted from 1000 x place
        assert len(set(numbers)) == 3 and {number // 1000 for number in numbers} == {place}
    assert shown(one_step("packed", packing=True)) == first
    other = one_step("other", dids_seed=9)
    assert shown(other) != first and drawn_rows(other)[:8] != drawn_rows(by_source[0])[:8]


def test_map_given_by_its_path_gives_its_domains(finished, world, tmp_path):
    ran = train(arguments(world, tmp_path, max_steps=8, **same_domains(finished)))
    columns = ["dids_source", "dids_key", "dids_domain"]
    given, made = (one.trainer.train_dataset.select_columns(columns).to_list() for one in (ran, finished))
    assert given == made
    assert not (tmp_path / "cache").exists()
    assert timeless(replayed(ran, tmp_path / "again")) == timeless(ran)


def test_map_fits_cut_and_reordered_data(finished, own, tmp_path):
    for name in SOURCES:
        own.rewrite(name, lambda rows: rows[::-1])
    ran = train(arguments(own, tmp_path, max_samples=50, max_steps=4, **same_domains(finished)))
    lookup, full = ran.trainer.mixture.plan.domain_map.lookup(), load_map(finished.dids)
    names = ran.trainer.mixture.plan.domain_names
    rows = ran.trainer.train_dataset
    assert len(rows) == 150
    for source, key, domain in zip(rows["dids_source"], rows["dids_key"], rows["dids_domain"], strict=True):
        assert names[domain] == names[lookup[source, key]] == full.names[full.lookup()[source, key]]


@pytest.mark.parametrize("packing", [False, True])
def test_proxy_with_another_tokenizer_makes_the_domains_and_the_start(packing, world, tmp_path):
    ran = train(arguments(world, tmp_path, dids_proxy_model=str(world.proxy), packing=packing, max_steps=2))
    inputs = load_map(ran.dids).inputs["gradients"]
    assert inputs["proxy"]["name"] == "proxy"
    assert inputs["vocabulary"] != len(ran.trainer.processing_class)
    assert sum(ran.probabilities[0].values()) == pytest.approx(1) and len(set(ran.probabilities[0].values())) > 1


@pytest.mark.parametrize("changes", [*PRESETS, FRESH], ids=lambda changes: next(iter(changes.values())))
def test_every_preset_moves_the_mixture_and_fresh_domain_gradients_do(changes, finished, world, tmp_path):
    ran = train(arguments(world, tmp_path, max_steps=12, **changes, **same_domains(finished)))
    assert [line["step"] for line in ran.lines] == [0, 4, 8, 12]
    assert all(math.isclose(sum(p.values()), 1, abs_tol=1e-9) for p in ran.probabilities)
    assert ran.probabilities[-1] != ran.probabilities[0]
    assert (ran.trainer.mixture.observer.running is None) == (changes == FRESH)


def test_static_shares_are_given_by_dataset(finished, world, tmp_path):
    shares = {"mix_strategy": "static", "dids_tasks": None, "dids_probs": [0.7, 0.3, 0.0]}
    ran = train(arguments(world, tmp_path, **shares, **same_domains(finished)))
    by_source = dict.fromkeys(SOURCES, 0.0)
    for name, probability in ran.probabilities[0].items():
        by_source[name.split("/")[0]] += probability
    assert by_source == pytest.approx({"sums": 0.7, "pairs": 0.3, "noise": 0.0})
    drawn = ran.trainer.mixture.sampler.drawn()
    names = ran.trainer.mixture.plan.domain_names
    assert sum(n for name, n in zip(names, drawn, strict=True) if name.startswith("noise")) == 0
    assert [line["step"] for line in ran.lines] == [*range(0, 25, 4)]
    assert list(ran.lines[-1]["samples_drawn"].values()) == drawn.tolist()


def test_exhausted_domain_leaves_its_share_to_the_others(world, tmp_path):
    shares = {"mix_strategy": "static", "dids_tasks": None, "dids_domains": "source", "dids_probs": "0.1,0.1,0.8"}
    ran = train(arguments(world, tmp_path, dids_max_repeats=1, **shares))
    assert ran.trainer.mixture.sampler.drawn()[2] == SOURCES["noise"]


def test_accumulated_batches_give_the_mixture_of_whole_ones(finished, world, tmp_path):
    halves = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 8}
    ran = train(arguments(world, tmp_path, dids_cache_dir=str(finished.folder.parent / "cache"), **halves))
    assert [line["step"] for line in ran.lines] == [0, 4, 8]
    # a batch that is being fetched keeps the old mixture, and it is smaller here: the later draws differ
    assert ran.probabilities[1] == pytest.approx(finished.probabilities[1], abs=1e-4)
    assert ran.lines[1]["impact"].keys() == finished.lines[1]["impact"].keys()
    for domain, by_task in ran.lines[1]["impact"].items():
        assert by_task == pytest.approx(finished.lines[1]["impact"][domain], abs=1e-3)


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_trained_are_those_that_the_history_of_the_mixture_gives(workers, world, tmp_path, monkeypatch):
    trained = []
    watch = Observer.watch

    def spy(self, domains, *args):
        trained.extend(domains)
        return watch(self, domains, *args)

    monkeypatch.setattr(Observer, "watch", spy)
    epochs = {"max_steps": None, "num_train_epochs": 2, "max_samples": 30}  # 90 samples, 12 steps an epoch
    ran = train(arguments(world, tmp_path, **BY_SOURCE, **epochs, dataloader_num_workers=workers))
    plan, sampler = ran.trainer.mixture.plan, ran.trainer.mixture.sampler
    again = MixtureSampler(plan.domains_N, plan.mixer.init().probabilities_D, seed=plan.seed, epoch_size=2 * 96)
    again.history = sampler.history
    assert len(trained) == 2 * 96 and len(ran.lines) == 1 + 2 * 96 // 32
    assert trained == plan.domains_N[list(again)].tolist()
