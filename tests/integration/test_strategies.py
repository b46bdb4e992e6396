"""Strategies that ask for other signals than gradients of tasks and domains, through the host's entry."""

import os
import tomllib
from pathlib import Path
from unittest import mock

import pytest
import torch

from llamafactory_dids.errors import DidsError
from llamafactory_dids.training.observer import Observer
from tests.integration.support import arguments, finish_well, read_lines, start, train, write_yaml

pytestmark = pytest.mark.integration

CUSTOM = Path(__file__).resolve().parents[2] / "examples" / "custom_mixer"


def test_importance_feeds_the_sources_that_look_like_the_tasks(world, tmp_path):
    ran = train(arguments(world, tmp_path, mix_strategy="importance", dids_domains="source", dids_num_domains=None))
    p, *others = ran.probabilities
    assert all(other == p for other in others)
    counts = {name: round(share * 24) for name, share in p.items()}  # two tasks of 12 observed samples
    assert sum(counts.values()) == 24
    assert p["noise"] < min(p["sums"], p["pairs"]), p


def test_importance_uses_what_a_run_of_dids_left_in_the_cache(world, finished, tmp_path):
    values = arguments(world, tmp_path, mix_strategy="importance", dids_cache_dir=str(finished.folder.parent / "cache"))
    before = set((finished.folder.parent / "cache" / "gradients").iterdir())
    ran = train(values)
    assert all(p == ran.probabilities[0] for p in ran.probabilities)
    assert sum(ran.probabilities[0].values()) == pytest.approx(1)
    assert set((finished.folder.parent / "cache" / "gradients").iterdir()) == before, "gradients of samples and tasks"


def test_dids_starts_where_importance_stays(world, finished, tmp_path):
    keys = {"dids_cache_dir": str(finished.folder.parent / "cache"), "dids_floor": 0.1}
    fixed = train(arguments(world, tmp_path / "fixed", mix_strategy="importance", **keys))
    moving = train(arguments(world, tmp_path / "moving", dids_init="importance", **keys))
    assert moving.probabilities[0] == fixed.probabilities[0] != finished.probabilities[0]
    assert moving.probabilities[-1] != moving.probabilities[0]


@pytest.mark.parametrize("packing", [False, True])
def test_importance_sees_the_proxys_tokens(world, tmp_path, packing):
    ran = train(
        arguments(
            world, tmp_path, mix_strategy="importance", dids_proxy_model=str(world.proxy), packing=packing, max_steps=2
        )
    )
    assert sum(ran.probabilities[0].values()) == pytest.approx(1)


def test_odm_needs_no_task_and_feeds_what_has_the_highest_reward(world, tmp_path):
    with mock.patch.object(Observer, "_task_losses", side_effect=AssertionError):
        ran = train(
            arguments(
                world, tmp_path, mix_strategy="odm", dids_tasks=None, dids_domains="source", dids_num_domains=None
            )
        )
    assert len(ran.lines) == 7 and ran.lines[-1]["task_loss"] == {}
    rewards = dict(zip(ran.probabilities[-1], ran.trainer.mixture.state.reward_D, strict=True))
    assert min(rewards.values()) > 0, "each domain was drawn and has a loss"
    order = sorted(rewards, key=rewards.get)
    assert sorted(order, key=ran.probabilities[-1].get) == order and ran.probabilities[0] != ran.probabilities[-1]


def test_odm_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(world, tmp_path):
    keys = {"mix_strategy": "odm", "dids_tasks": None, "dids_domains": "source", "dids_num_domains": None}
    values = arguments(world, tmp_path, **keys, save_strategy="steps", save_steps=6)
    whole = train(values)
    resumed = train(
        values | {"overwrite_output_dir": False, "resume_from_checkpoint": str(tmp_path / "out/checkpoint-6")}
    )
    assert resumed.probabilities == whole.probabilities
    weights, expected = resumed.weights(), whole.weights()
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []


def test_a_model_without_logits_is_refused_for_a_strategy_that_needs_them(world, tmp_path):
    values = arguments(
        world, tmp_path, mix_strategy="odm", dids_tasks=None, dids_domains="source", dids_num_domains=None
    )
    observe = Observer.watch_outputs
    with (
        mock.patch.object(
            Observer, "watch_outputs", lambda self, domains, counts, _, batch: observe(self, domains, counts, {}, batch)
        ),
        pytest.raises(DidsError, match="mix_strategy: odm needs the logits of each training batch"),
    ):
        train(values)


def test_what_a_strategy_does_not_take_is_named(world, tmp_path):
    values = arguments(world, tmp_path, dids_impact_normalize="sum")
    with pytest.raises(DidsError, match="dids_impact_normalize: got 'sum', allowed with dids_update 'evidence': dot"):
        train(values)


def test_a_strategy_of_another_package_is_trained_with_from_a_yaml_file(world, tmp_path):
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
    keys = {"mix_strategy": "neediest", "dids_eta": 3.0, "dids_domains": "source", "dids_num_domains": None}
    path = write_yaml(tmp_path / "run.yaml", arguments(world, tmp_path, **keys))
    places = [str(tmp_path / "site"), str(CUSTOM), os.environ.get("PYTHONPATH", "")]
    finish_well(start(["llamafactory-cli", "train", str(path)], PYTHONPATH=os.pathsep.join(filter(None, places))))
    lines = read_lines(tmp_path / "out" / "dids" / "mixture.jsonl")
    assert len(lines) == 7 and lines[-1]["probabilities"] != lines[0]["probabilities"]
    assert all(sum(line["probabilities"].values()) == pytest.approx(1) for line in lines)
