"""The benchmarks' arithmetic, and that each runs what it says; nothing here looks at how long a thing takes."""

import argparse
import json
import mmap
import os

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from llamafactory_dids.artifacts.domain_map import load_map
from llamafactory_dids.stages.cluster import StoredFeatures
from scripts.bench import curves, gradients, kmeans, overhead, overhead_child, plan, sampler, shares, timing

SMALL = LlamaConfig(
    vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, head_dim=8
)


def test_candidates_take_turns_and_the_first_run_of_each_does_not_count():
    calls = []
    candidates = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = timing.in_turns(candidates, rounds=2, clock_name="cpu")
    assert calls == [*"abc", *"abc", *"bca"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2, "c": 2}


def test_a_ratio_is_of_one_round_and_the_middle_of_them_counts():
    rows = timing.ratios({"one": [2.0, 9.0, 4.0], "other": [1.0, 3.0, 4.0]}, "other")
    assert rows["one"] == {"seconds": 4.0, "ratio": 2.0, "lowest": 1.0, "highest": 3.0}
    assert rows["other"]["ratio"] == 1.0


def test_a_result_for_programs_is_one_json_object(capsys):
    timing.report("title", {"a": {"b": {"ratio": 1.5}}}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"benchmark": "title", "a": {"b": {"ratio": 1.5}}}
    timing.report("title", {"a": {"b": {"ratio": 1.5}}, "tokens": 12}, as_json=False)
    assert capsys.readouterr().out == "title\n  a b: ratio 1.5\n  tokens: 12\n"


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux counts it")
def test_peak_memory_counts_what_was_held_in_between():
    before = timing.reset_peak_memory()
    with mmap.mmap(-1, 40 << 20) as held:  # an array may get memory that the process already holds
        held.write(bytes([1]) * len(held))
    assert timing.peak_memory() - before > 30 << 20


def test_the_gradient_stage_is_timed_on_the_batches_that_it_makes(monkeypatch):
    monkeypatch.setitem(gradients.MODELS, "llama", SMALL)
    arguments = argparse.Namespace(model="llama", samples=5, lengths=None, batch=2, rounds=1, clock="cpu", liger=False)
    result = gradients.stage(arguments)
    assert (result["samples"], result["batches"], result["tokens"]) == (5, 3, 5 * 256)
    assert set(result["against a plain forward pass"]) == {"forward", "stage", "floor"}


def test_inertia_is_the_squared_distance_to_the_clusters_means(tmp_path):
    features = StoredFeatures(kmeans.make_store(tmp_path, 60), normalize=True)
    labels_N = np.arange(60) % 3
    rows = features(np.arange(60)).astype(np.float64)
    expected = sum(((rows[labels_N == c] - rows[labels_N == c].mean(0)) ** 2).sum() for c in range(3))
    assert kmeans.inertia(features, labels_N) == pytest.approx(expected, rel=1e-6)


def test_the_rows_of_the_k_means_benchmark_are_of_unit_length(tmp_path):
    rows = StoredFeatures(kmeans.make_store(tmp_path, 20), normalize=True)(np.arange(20))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-3)


def test_the_sampler_that_is_timed_draws_by_the_new_probabilities():
    built, _, mib = sampler.build(np.arange(300) % 3, np.full(3, 1 / 3), "cpu")
    assert len(built) == 300 and mib > 0
    assert set(sampler.change(3, 3 * sampler.CHUNK, "cpu")) == {"alone", "with the first draw"}


def steps(*seconds, **parts):
    return [{"seconds": one, **{name: values[i] for name, values in parts.items()}} for i, one in enumerate(seconds)]


def test_a_step_is_compared_without_its_update_and_the_first_one_is_left_out():
    dids = steps(99.0, 2.0, 12.0, running=[0.0, 0.02, 0.04])
    dids[2] |= {"update": 10.0, "measure": 5.0, "fresh": 4.0, "forward": 5.0}
    result = overhead.summary({"concat": steps(9.0, 1.0, 1.0), "proportional": steps(9.0, 2.0, 1.0), "dids": dids})
    assert result["a step, without updates, against concat"]["dids"]["ratio"] == 2.0
    assert result["a step, without updates, against proportional"]["dids"]["ratio"] == 1.5
    assert result["running gradients, share of a step"][""]["highest"] == pytest.approx(0.02)
    update = result["an update of dids"]
    assert update["against a forward pass over the task tokens"]["ratio"] == 1.2
    assert update["its measurement of the tasks alone"]["ratio"] == 1.0
    assert update["all else of it, in steps"]["ratio"] == 0.5
    assert update["domains that were never drawn, in steps"]["ratio"] == 2.0


def test_what_the_kernel_took_is_told_apart_where_cpu_seconds_are_counted():
    ours, other = steps(9.0, 7.0, kernel=[5.0, 4.0]), steps(9.0, 3.0, kernel=[5.0, 1.0])
    result = overhead.summary({"proportional": other, "odm": ours})
    assert result["a step, without updates, in the kernel"]["odm"]["seconds"] == 4.0
    assert result["a step, without updates, against proportional"]["odm"]["ratio"] == pytest.approx(7 / 3)
    assert result["a step, without updates and the kernel, against proportional"]["odm"]["ratio"] == 1.5
    assert "a step, without updates, in the kernel" not in overhead.summary({"proportional": steps(9.0, 3.0)})


OPTIONS = argparse.Namespace(model="llama", sources=3, tasks=2, samples=4, task_samples=3, batch=2, rounds=5, window=2)


def test_candidates_differ_in_how_they_mix_alone(tmp_path):
    keys = {name: overhead.keys_of(name, tmp_path, OPTIONS) for name in (*overhead.HOST, *overhead.OURS)}
    mixing = {"mix_strategy", "interleave_probs", "output_dir"}
    plain = [{k: v for k, v in one.items() if k not in mixing and not k.startswith("dids_")} for one in keys.values()]
    assert all(one == plain[0] for one in plain)
    theirs = overhead.keys_of(overhead.DATAFLEX, tmp_path, OPTIONS)
    assert {key: theirs[key] for key in plain[0] if key != "output_dir"} == plain[0]


def test_the_data_of_the_overhead_benchmark_fill_the_context(tmp_path, monkeypatch):
    monkeypatch.setitem(overhead.SIZES, "llama", SMALL)
    overhead.prepare(tmp_path, OPTIONS)
    info = json.loads((tmp_path / "data" / "dataset_info.json").read_text())
    assert set(info) == {"source_00", "source_01", "source_02", "task_0", "task_1"}
    rows = json.loads((tmp_path / "data" / "source_00.json").read_text())
    assert len(rows) == 4 and min(len(row["output"].split()) for row in rows) >= overhead.LENGTH


def test_a_step_is_timed_without_the_reference_that_ran_in_it():
    stopwatch = overhead_child.Stopwatch("wall")
    times = iter([0.0, 1.0, 4.0, 10.0])
    stopwatch.now = lambda: next(times)
    stopwatch.start()
    assert stopwatch.timing("forward", lambda: "done")() == "done"
    assert stopwatch.stop() == {"forward": 3.0, "seconds": 7.0}


def test_what_a_mixture_does_itself_is_timed_without_what_the_host_does_inside_of_it():
    stopwatch = overhead_child.Stopwatch("wall")
    times = iter([0.0, 1.0, 2.0, 7.0, 9.0, 10.0])
    stopwatch.now = lambda: next(times)
    stopwatch.start()
    host = stopwatch.timing("host", lambda: None)
    stopwatch.timing("mixing", host, own=True)()
    assert stopwatch.stop() == {"host": 5.0, "mixing": 3.0, "seconds": 10.0}
    result = overhead.summary({"proportional": steps(9.0, 10.0, 10.0, mixing=[0.0, 0.1, 0.3])})
    assert result["all else of a mixture, share of a step"]["proportional"]["ratio"] == pytest.approx(0.02)


def test_our_projection_is_the_reference_of_the_projectors():
    made = gradients._index_add(torch.ones(2, 40))
    (result_NK,) = [run() for run in made.values()]
    assert result_NK.shape == (2, gradients.DIM)
    assert torch.equal(result_NK[0], result_NK[1]) and int(result_NK[0].abs().sum()) <= 40


def test_shares_add_up_to_the_stage():
    parts = {"passes": 5.0, "loss": 1.0, "selection": 2.0, "seconds": 9.0}
    assert shares.split(parts) == {
        "passes": 4.0,
        "loss": 1.0,
        "selection": 2.0,
        "all else": 2.0,
        "the stage": 9.0,
    }


def test_a_curve_says_how_its_last_doubling_grew(monkeypatch):
    seconds = {"10": [3.0, 1.0], "20": [2.0, 9.0], "40": [8.0, 8.5]}
    monkeypatch.setattr(timing, "in_turns", lambda runs, rounds, clock: seconds)
    arguments = argparse.Namespace(rounds=2, clock="cpu")
    assert curves.measure(dict.fromkeys((10, 20, 40)), arguments) == {"10": 1.0, "20": 2.0, "40": 8.0, "exponent": 2.0}


def test_ranks_share_the_samples_of_their_curve(monkeypatch):
    sizes = []
    monkeypatch.setattr(curves, "fill_store", lambda store, features: sizes.append(store.num_rows))
    for ranks in (1, 2, 4):
        curves.gradient_stage(10, 8, slice(0, None, ranks))()
    assert sizes == [10, 5, 3]


@pytest.mark.integration
def test_the_plan_is_timed_on_the_rows_that_the_host_loads(tmp_path):
    arguments = argparse.Namespace(rows=60, sources=3, tokens=4, rounds=1, clock="cpu", threads=1)
    result = plan.measure(arguments, tmp_path)
    assert set(result["loading, against the host"]) == set(plan.CANDIDATES)
    assert result["by a map:"][""]["reading a map"] > 0 == result["host:"][""]["seconds added"]
    assert "reading a map" not in result["by source:"][""] and result["by source:"][""]["keys of the examples"] > 0
    assert len(load_map(tmp_path / "map").keys_N) == 60


def test_what_is_done_with_a_map_is_timed_part_by_part():
    parts = plan.parts_of_a_map(300, 7, 3, "cpu")
    assert set(parts) >= {"digest", "written", "read", "a domain for each row", "MiB"}
