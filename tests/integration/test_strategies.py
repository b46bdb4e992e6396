"""Strategies that ask for other signals than gradients of tasks and domains, through the host's entry."""

import os
import tomllib
from pathlib import Path
from unittest import mock

import pytest

from llamafactory_dids.training.observer import Observer
from tests.integration.support import BY_SOURCE, arguments, finish_well, read_lines, refusal, start, train, write_yaml

pytestmark = pytest.mark.integration

CUSTOM = Path(__file__).resolve().parents[2] / "examples" / "custom_mixer"


def test_importance_feeds_the_sources_that_look_like_the_tasks(world, tmp_path):
    p, *others = train(arguments(world, tmp_path, mix_strategy="importance", max_steps=8, **BY_SOURCE)).probabilities
    assert all(other == p for other in others)
    counts = {name: round(share * 24) for name, share in p.items()}  # two tasks of 12 observed samples
    assert sum(counts.values()) == 24
    assert p["noise"] < min(p["sums"], p["pairs"]), p


def test_importance_uses_what_a_run_of_dids_left_in_the_cache_and_dids_starts_where_it_stays(world, finished, tmp_path):
    cache = finished.folder.parent / "cache"
    keys = {"dids_cache_dir": str(cache), "dids_floor": 0.1, "max_steps": 12}
    before = set((cache / "gradients").iterdir())
    fixed = train(arguments(world, tmp_path / "fixed", mix_strategy="importance", **keys))
    assert all(p == fixed.probabilities[0] for p in fixed.probabilities)
    assert sum(fixed.probabilities[0].values()) == pytest.approx(1)
    assert set((cache / "gradients").iterdir()) == before, "gradients of samples and tasks"
    moving = train(arguments(world, tmp_path / "moving", dids_init="importance", **keys))
    assert moving.probabilities[0] == fixed.probabilities[0] != finished.probabilities[0]
    assert moving.probabilities[-1] != moving.probabilities[0]


ODM = {"mix_strategy": "odm", "dids_tasks": None, **BY_SOURCE}


def test_odm_needs_no_task_and_feeds_what_has_the_highest_reward(world, tmp_path):
    with mock.patch.object(Observer, "_task_losses", side_effect=AssertionError):
        ran = train(arguments(world, tmp_path, **ODM))
    assert len(ran.lines) == 7 and ran.lines[-1]["task_loss"] == {}
    rewards = dict(zip(ran.probabilities[-1], ran.trainer.mixture.state.reward_D, strict=True))
    assert min(rewards.values()) > 0, "each domain was drawn and has a loss"
    order = sorted(rewards, key=rewards.get)
    assert sorted(order, key=ran.probabilities[-1].get) == order and ran.probabilities[0] != ran.probabilities[-1]


def test_a_model_without_logits_is_refused_for_a_strategy_that_needs_them(world, tmp_path, monkeypatch):
    observe = Observer.watch_outputs

    def without_logits(self, domains, counts, _, batch):
        return observe(self, domains, counts, {}, batch)

    monkeypatch.setattr(Observer, "watch_outputs", without_logits)
    assert refusal(arguments(world, tmp_path, **ODM)).startswith(
        "mix_strategy: odm needs the logits of each training batch"
    )


def test_a_strategy_of_another_package_is_trained_with_from_a_yaml_file_and_its_table_printed(world, tmp_path):
    """`pip install examples/custom_mixer`, without pip: what its entry point is found by lies on the path."""
    project = tomllib.loads((CUSTOM / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    metadata = tmp_path / "site" / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{key} = {place}\n" for key, place in members.items())
        for group, members in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("".join(groups))
    keys = {"mix_strategy": "neediest", "dids_eta": 3.0}
    path = write_yaml(tmp_path / "run.yaml", arguments(world, tmp_path, **keys, **BY_SOURCE))
    places = [str(tmp_path / "site"), str(CUSTOM), os.environ.get("PYTHONPATH", "")]
    command = ["llamafactory-cli", "train", str(path)]
    printed = finish_well(start(command, PYTHONPATH=os.pathsep.join(filter(None, places))))
    assert "neediest: update 1 of 5" in printed
    lines = read_lines(tmp_path / "out" / "dids" / "mixture.jsonl")
    assert len(lines) == 7 and lines[-1]["probabilities"] != lines[0]["probabilities"]
    assert all(sum(line["probabilities"].values()) == pytest.approx(1) for line in lines)
