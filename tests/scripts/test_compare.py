"""The comparison of strategies: what is run, what is skipped, and the arithmetic of its tables."""

import json
import math
from pathlib import Path

import pytest

from llamafactory_dids import mixers
from scripts import compare, compare_table

CHECKOUT = Path(__file__).resolve().parents[2]


def result(strategy, seed, losses, **more):
    plain = {"base": "quickstart", "samples": 7680, "proxy_samples": 0, "cpu_seconds": 60.0, "wall_seconds": 61.0}
    return {**plain, "strategy": strategy, "seed": seed, "losses": losses, "shares": {}, **more}


def runs_of(*results):
    runs = {}
    for one in results:
        runs.setdefault(one["strategy"], {})[one["seed"]] = one
    return runs


def test_every_strategy_is_compared_and_has_its_file():
    assert {name for name in mixers.names() if name not in compare_table.STRATEGIES} == set()
    assert [name for name in compare_table.STRATEGIES if not (compare.FILES / f"{name}.yaml").exists()] == []


def test_the_difference_is_paired_by_seed():
    runs = runs_of(
        result("dids", 1, {"a": 1.0, "b": 2.0}),
        result("dids", 2, {"a": 3.0, "b": 4.0}),
        result("proportional", 1, {"a": 1.5, "b": 2.1}),
        result("proportional", 2, {"a": 3.3, "b": 4.3}),
        result("proportional", 3, {"a": 9.0, "b": 9.0}),
    )
    assert compare_table.difference(runs, "dids") == "−0.300 ± 0.000"
    assert compare_table.difference(runs, "proportional") == ""


def test_an_interval_is_the_standard_error_of_the_mean():
    values = [1.0, 2.0, 4.0]
    deviation = math.sqrt(sum((value - 7 / 3) ** 2 for value in values) / 2)
    assert compare_table.interval(values) == f"2.333 ± {deviation / math.sqrt(3):.3f}"
    assert compare_table.interval([2.0]) == "2.000"


def test_the_table_has_a_row_a_strategy_with_the_lowest_loss_first():
    runs = runs_of(
        result("proportional", 1, {"a": 2.0, "b": 1.0}),
        result("doge", 1, {"a": 1.0, "b": 1.0}, proxy_samples=7680, cpu_seconds=90.0),
    )
    lines = compare_table.table(runs).splitlines()
    assert lines[0].startswith("| strategy | a | b | mean |")
    assert lines[2] == "| `doge` | 1.000 | 1.000 | 1.000 | −0.500 | 7,680 + 7,680 | 90 |"
    assert lines[3] == "| `proportional` | 2.000 | 1.000 | 1.500 |  | 7,680 | 60 |"


def test_the_tables_of_the_docs_are_those_of_the_committed_results():
    page = compare_table.PAGE.read_text(encoding="utf-8")
    assert compare_table.with_tables(page) == page


@pytest.fixture
def base(tmp_path):
    return compare.Base("quickstart", tmp_path, Path("data"))


def leave_a_run(base, words):
    """What a training leaves behind."""
    folder = Path(next(word for word in words if word.startswith("output_dir=")).partition("=")[2])
    (folder / "dids" / "proxy_runs").mkdir(parents=True)
    metrics = {"eval_task_x_test_loss": 1.25, "train_runtime": 10.0, "train_samples_per_second": 768.0}
    (folder / "all_results.json").write_text(json.dumps(metrics))
    domains = [{"name": "d", "size": 4, "sources": {"s": 1, "t": 3}}]
    (folder / "dids" / "domains.json").write_text(json.dumps({"domains": domains}))
    line = {"samples_seen": 0, "probabilities": {"d": 1.0}, "samples_drawn": {"d": 0}}
    (folder / "dids" / "mixture.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "dids" / "proxy_runs" / "proxy.jsonl").write_text(json.dumps({"samples_seen": 640}) + "\n")


def test_a_run_that_has_ended_is_skipped_and_its_result_kept(base, monkeypatch):
    commands = []

    def call(command, log):
        commands.append([str(word) for word in command])
        log.parent.mkdir(parents=True, exist_ok=True)
        leave_a_run(base, commands[-1])
        return 2.0, 1.5

    monkeypatch.setattr(compare, "call", call)
    compare.run(base, "uniform", 1)
    compare.run(base, "uniform", 1)
    assert len(commands) == 1
    assert commands[0][:2] == ["llamafactory-cli", "train"] and commands[0][2].endswith("strategies/uniform.yaml")
    assert "seed=1" in commands[0] and f"max_steps={compare.QUICKSTART['max_steps']}" in commands[0]
    kept = json.loads((base.of_seed(1) / "uniform.json").read_text())["result"]
    assert kept["losses"] == {"x": 1.25} and kept["samples"] == 7680 and kept["proxy_samples"] == 640
    assert kept["shares"] == {"s": 0.25, "t": 0.75} and kept["cpu_seconds"] == 1.5


def test_a_run_with_other_keys_is_made_again(base, monkeypatch):
    marker = base.of_seed(1) / "uniform.json"
    marker.parent.mkdir(parents=True)
    marker.write_text(json.dumps({"digest": "of other keys", "result": {}}))
    made = []
    monkeypatch.setattr(
        compare, "call", lambda command, log: made.append(command) or leave_a_run(base, command[3:]) or (1, 1)
    )
    compare.run(base, "uniform", 1)
    assert len(made) == 1


def test_static_takes_over_the_mixture_of_the_same_seeds_run(base):
    keys = base.overrides("static", 2)
    assert keys["dids_probs"] == base.of_seed(2) / "dids" / "dids" / "mixture.jsonl"
    assert "dids_probs" not in base.overrides("dids", 2)


def test_each_kind_of_features_has_a_map_of_its_own_that_the_strategies_of_a_seed_share(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(compare, "call", lambda command, _: commands.append([*map(str, command)]) or (1, 1))
    base = compare.Base("real", tmp_path, Path("data"), Path("encoder"))
    (base.of_seed(1) / "model").mkdir(parents=True)
    (base.of_seed(1) / "model" / "config.json").touch()
    base.prepare(1, ["dids", "dga", "dids_gc"])
    assert [command[1:3] for command in commands] == [
        ["cluster", str(compare.FILES / f"{name}.yaml")] for name in ("dids", "dids_gc")
    ]
    assert ["dids_semantic_model=encoder" in command for command in commands] == [False, True]
    base.prepare(1, ["dids_gc", "uniform"])
    assert len(commands) == 2


def test_strategies_that_cluster_texts_are_left_out_without_an_encoder_and_refused_if_named():
    assert "dids_gc" in compare.chosen(None, Path("encoder"))
    assert set(compare_table.STRATEGIES) - set(compare.chosen(None, None)) == {"dids_gc"}
    assert compare.chosen("dga,odm", None) == ["dga", "odm"]
    with pytest.raises(SystemExit, match="--encoder: got none, allowed with dids_gc: the folder"):
        compare.chosen("dids,dids_gc", None)
    with pytest.raises(SystemExit, match="--only: got 'did', allowed: dids, dids_paper"):
        compare.chosen("did", None)


def test_a_command_that_fails_names_its_log(tmp_path):
    with pytest.raises(SystemExit, match="failed; all of its output: .*run.log"):
        compare.call(["python", "-c", "print('why'); raise SystemExit(3)"], tmp_path / "run.log")
    assert "why" in (tmp_path / "run.log").read_text()
