"""`llamafactory-dids explain`: what it says is what the run then does."""

import json

import pytest
import torch

from llamafactory_dids.integration.commands import cli
from tests.integration.support import (
    BY_SOURCE,
    SOURCES,
    TASKS,
    arguments,
    finish_well,
    same_domains,
    start,
    tuner,
    write_yaml,
)

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_model")]


@pytest.fixture
def explained(world, tmp_path, capsys, monkeypatch):
    """Explains a run with changes, as JSON or as text."""
    tuner()

    def explain(*words, text=False, **changes):
        monkeypatch.setattr("sys.argv", [])
        path = write_yaml(tmp_path / "run.yaml", arguments(world, tmp_path, **changes))
        capsys.readouterr()
        cli.main(["explain", str(path), *words, *([] if text else ["--json"])])
        out = capsys.readouterr().out
        return out if text else json.loads(out)

    return explain


def test_it_counts_what_the_run_then_has(explained, finished):
    found = explained()
    assert found["sources"] == SOURCES
    assert found["tasks"] == dict.fromkeys(TASKS, 12)
    assert (found["steps"], found["training_samples"]) == (24, 192)
    assert found["num_updates"] == len(finished.lines) - 2  # of the start, and of the end
    assert found["num_domains"] == len(finished.probabilities[0])
    assert found["parameters"] == sum(weight.numel() for weight in finished.trainer.model.parameters())


def test_the_figures_follow_from_each_other(explained):
    found = explained()
    share = 0.1  # of the blocks is tracked
    samples, observed = sum(SOURCES.values()), 2 * 12
    passes = {"domains": samples * (1 + 2 * share), "updates": 5 * observed * (1 + 2 * share) + 2 * observed}
    assert found["costs"] == pytest.approx({what: count / (192 * 3) for what, count in passes.items()})
    assert found["overhead"] == pytest.approx(sum(passes.values()) / (192 * 3))
    assert found["disk_bytes"] == samples * (64 * 2 + 5 + 40)


def test_words_and_processes_change_what_is_explained(explained):
    found = explained("max_steps=48", "dids_update_samples=64", "--processes", "4")
    assert (found["processes"], found["samples_per_step"], found["training_samples"]) == (4, 32, 1536)
    assert found["num_updates"] == 23


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_run_for_gpus_is_explained_without_one(explained):
    assert explained("--processes", "8", bf16=True, use_cpu=None, dids_update_samples=64)["samples_per_step"] == 64


def test_epochs_are_counted_in_samples(explained):
    found = explained(max_steps=None, num_train_epochs=2)
    assert found["steps"] == 2 * 34 and found["training_samples"] == 2 * 34 * 8


def test_domains_that_are_there_cost_nothing(explained, finished):
    found = explained(**same_domains(finished))
    assert found["num_domains"] == 6 and "domains" not in found["costs"]
    assert explained(**BY_SOURCE)["num_domains"] == 3


def test_a_fixed_mixture_has_no_updates_and_costs_nothing(explained):
    options = {"mix_strategy": "uniform", **BY_SOURCE}
    found = explained(**options)
    assert (found["num_updates"], found["overhead"], found["tasks"]) == (0, 0, {})
    text = explained(text=True, **options)
    assert "the mixture is fixed" in text and "as much computing as without mixing" in text


def test_a_strategy_that_compares_features_alone_is_told_with_its_tasks_and_their_cost(explained, world):
    options = {"mix_strategy": "importance", "dids_domains": "source", "dids_num_domains": None}
    found = explained(**options)
    assert found["tasks"] == dict.fromkeys(TASKS, 12) and found["proxy_parameters"] == found["parameters"]
    assert found["costs"] == pytest.approx({"domains": sum(SOURCES.values()) * 1.2 / (192 * 3)})
    assert "observes 12 samples each of task_sums, task_pairs" in explained(text=True, **options)


def test_a_mixture_by_name_is_told_as_it_comes_out(explained, finished):
    options = {"mix_strategy": "static", "dids_tasks": None, **BY_SOURCE}
    assert "Mixture:  sums 60.0%, pairs 24.0%, noise 16.0% of the samples\n" in explained(
        text=True, **options, dids_probs={"sums": 0.6}
    )
    plan = {"mix_strategy": "schedule", "dids_probs": None, "dids_schedule": "0: proportional; 1: noise=1"}
    said = " ".join(explained(text=True, **options | plan, dids_share_of="tokens").split())
    assert "at 0: sums 44.4%, pairs 33.3%, noise 22.2%; at 1: sums 0.0%, pairs 0.0%, noise 100.0% of the tokens" in said
    assert "5, one every 32 samples" in said
    by_domain = explained(**options | same_domains(finished), dids_probs={"sums": 0.6})["mixtures"]["0"]
    assert len(by_domain) == 6
    assert sum(share for name, share in by_domain.items() if name.startswith("sums")) == pytest.approx(0.6)


def test_a_number_of_domains_that_is_not_given_is_that_of_the_samples(explained, world):
    assert explained(dids_num_domains=None)["num_domains"] == 270 // 10
    assert explained(dids_num_domains=None, dids_min_domain_size=None, dataset="sums")["num_domains"] == 1


def test_a_proxy_run_is_told_with_its_share(explained):
    found = explained(mix_strategy="doge", dids_proxy_share=0.5)
    assert found["proxy_run"] and found["costs"]["proxy_run"] == pytest.approx(0.5)


def test_it_says_so_in_words(explained, world):
    text = explained(text=True)
    assert all(len(line) <= 80 or str(world.folder) in line for line in text.splitlines())
    words = " ".join(text.split())
    assert "270 samples of 3 datasets: sums 120, pairs 90, noise 60" in words
    assert f"up to 6: k-means inside each dataset, on gradients of {world.model}" in words
    assert "observes 12 samples each of task_sums, task_pairs" in words
    assert "192 samples in 24 steps of 8, on 1 process" in words and "processs" not in words
    assert "5, one every 32 samples" in words and "Caution: 5 updates: with fewer than 6" in words
    more = " ".join(explained(text=True, max_steps=25).split())
    assert "6, one every 32 samples" in more and "Caution" not in more


def test_where_nothing_says_how_often_the_mixture_is_updated_the_runs_length_does(explained):
    found = explained(dids_update_samples=None, max_steps=200)
    assert found["training_samples"] == 1600 and found["update_samples"] == 1600 // 25 and found["num_updates"] == 24
    assert "by the length of the run" in explained(text=True, dids_update_samples=None, max_steps=200)
    papers = explained("--processes", "8", dids_update_samples=None, per_device_train_batch_size=5, max_steps=2500)
    assert (papers["training_samples"], papers["update_samples"]) == (100_000, 4000)
    assert explained(dids_update_samples=None)["update_samples"] == 8, "a step, at least"


def test_cautions_name_a_task_that_is_trained_on_and_samples_that_are_repeated(explained):
    found = explained(dids_tasks="sums,task_pairs", max_steps=200)
    assert found["cautions"] == [["trained_task", {"name": "sums"}], ["repeated", {"times": 5.9}]]
    text = " ".join(explained(text=True, dids_tasks="sums,task_pairs", max_steps=200).split())
    assert "sums is both trained on and observed" in text and "drawn 5.9 times" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mix_strategy": "concat", "dids_tasks": None}, "mix_strategy: got 'concat', allowed: a training with"),
        ({"streaming": True, **BY_SOURCE}, "streaming: got True, allowed: false"),
        ({"dids_tasks": "nothing"}, "dids_tasks: got 'nothing', allowed: a name in"),
        ({"dids_num_domains": 271}, "dids_num_domains: got 271, allowed: at most the number of training samples, 270"),
        ({"torch_compile": True}, "torch_compile: got True, allowed with mix_strategy dids: false, or"),
        ({"stage": "pt", "predict_with_generate": True}, "LLaMA-Factory refuses these arguments: "),
    ],
)
def test_what_would_be_refused_is_refused_in_one_line(explained, changes, message):
    with pytest.raises(SystemExit) as caught:
        explained(**changes)
    assert str(caught.value).startswith(f"error: {message}") and "\n" not in str(caught.value)


def test_a_number_of_processes_that_cannot_be_is_refused(explained):
    with pytest.raises(SystemExit, match=r"error: --processes: got 0, allowed: an integer >= 1"):
        explained("--processes", "0")


def test_the_command_explains_in_a_process_of_its_own(world, tmp_path):
    path = write_yaml(tmp_path / "run.yaml", arguments(world, tmp_path))
    out = finish_well(start(["llamafactory-dids", "explain", str(path)]))
    assert out.startswith("Strategy: dids\n") and "5, one every 32 samples" in out
    assert "Loading" not in out and len(out.splitlines()) < 25
    assert not (tmp_path / "out").exists(), "nothing is written"
