"""A run that was broken off goes on as if it had not been."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamafactory_dids.artifacts.domain_map import load_map, save_map
from llamafactory_dids.artifacts.gradient_store import open_store
from llamafactory_dids.errors import DidsError
from llamafactory_dids.training.collator import DomainCollator
from tests.integration.support import (
    TORCHRUN,
    arguments,
    assert_same_weights,
    finish_well,
    module_of,
    our_log,
    refusal,
    start,
    timeless,
    train,
    tuner,
)
from tests.integration.traced import Break, traced

pytestmark = pytest.mark.integration

DRIVER = str(Path(__file__).with_name("resume_driver.py"))

# 90 samples and 8 a step: 12 steps an epoch, 24 in all, an update every 4
SHORT = {"dids_domains": "source", "max_samples": 30, "save_strategy": "steps", "save_steps": 6}


@pytest.fixture(scope="module")
def whole_runs(world, tmp_path_factory):
    """Runs that were not broken off, by what they changed, made once."""
    made = {}

    def whole(**changes):
        key = json.dumps(changes, sort_keys=True)
        if key not in made:
            values = arguments(world, tmp_path_factory.mktemp("whole"), **SHORT, **changes)
            made[key] = traced(values)
        return made[key]

    return whole


def assert_the_same(broken, resumed, step, whole, accumulation=1):
    """`resumed` went on from `step` of `broken`, and the two are what `whole` is."""
    assert broken.seen[: step * accumulation] + resumed.seen == whole.seen
    assert timeless(resumed) == timeless(whole)
    assert [line["step"] for line in resumed.lines] == [0, 4, 8, 12, 16, 20, 24]
    assert_same_weights(resumed.weights, whole.weights)


# (what is changed, after which step it is killed, at which steps it saves, where it goes on)
KILLED = {
    "before_an_update": ({}, 7, 7, 7),
    "at_an_update": ({}, 8, 8, 8),
    "after_an_update": ({}, 10, 9, 9),
    "at_the_end_of_an_epoch": ({}, 13, 12, 12),
    "in_the_second_epoch": ({}, 23, 18, 18),
    "workers_before_an_update": ({"dataloader_num_workers": 2}, 7, 7, 7),
    "workers_at_an_update": ({"dataloader_num_workers": 2}, 8, 8, 8),
    "workers_after_an_update": ({"dataloader_num_workers": 2}, 10, 9, 9),
    "workers_in_the_second_epoch": ({"dataloader_num_workers": 2}, 16, 14, 14),
    "accumulation": ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, 7, 6, 6),
    "fresh_gradients": ({"dids_domain_gradients": "fresh"}, 11, 6, 6),
    "max_repeats": ({"dids_max_repeats": 2}, 11, 9, 9),
    "odm": ({"mix_strategy": "odm", "dids_tasks": None}, 11, 9, 9),
}


@pytest.mark.parametrize("case", KILLED)
def test_killed_run_ends_as_one_that_was_not_killed(case, whole_runs, world, tmp_path):
    changes, killed_at, save_steps, resumed_from = KILLED[case]
    values = arguments(world, tmp_path, **SHORT, **changes) | {"save_steps": save_steps}
    broken = traced(values, Break(killed_at))
    checkpoint = tmp_path / "out" / f"checkpoint-{resumed_from}"
    # another save_steps from here on
    resumed = traced(values | {"resume_from_checkpoint": str(checkpoint), "save_steps": 10})
    accumulation = changes.get("gradient_accumulation_steps", 1)
    assert_the_same(broken, resumed, resumed_from, whole_runs(**changes), accumulation)


@pytest.mark.parametrize("workers", [0, 2])
def test_run_that_had_ended_within_an_epoch_is_not_trained_on(workers, world, tmp_path):
    """As where it was killed in its report: transformers would train a step more."""
    values = arguments(world, tmp_path, **SHORT, max_steps=10, dataloader_num_workers=workers)
    ended = train(values)
    again = train(values | {"overwrite_output_dir": False})
    assert again.trainer.state.global_step == 10 and timeless(again) == timeless(ended)
    assert_same_weights(again.weights(), ended.weights())
    assert sorted(path.name for path in again.folder.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-6"]


def test_run_is_resumed_in_another_folder_with_its_whole_log_and_loads_no_data_of_skipped_steps(
    whole_runs, world, tmp_path, monkeypatch
):
    batches, collate = [], DomainCollator.__call__

    def counting(self, samples):
        batches.append(len(samples))
        return collate(self, samples)

    whole = whole_runs()
    monkeypatch.setattr(DomainCollator, "__call__", counting)
    values = arguments(world, tmp_path, **SHORT)
    resumed = traced(values | {"resume_from_checkpoint": str(whole.folder / "checkpoint-18")})
    assert timeless(resumed) == timeless(whole)
    assert resumed.seen == whole.seen[18:]
    assert batches == [8] * 6
    assert (tmp_path / "out" / "dids" / "domains.parquet").exists()


# --- a checkpoint that was cut off -------------------------------------------------------------------------


def kill_while_writing(monkeypatch, step):
    """The host is killed within its checkpoint of this step, after the weights and before the optimizer."""
    from transformers import Trainer

    write = Trainer._save_optimizer_and_scheduler

    def killed(self, folder):
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return write(self, folder)

    monkeypatch.setattr(Trainer, "_save_optimizer_and_scheduler", killed)


@pytest.fixture
def cut_off(world, tmp_path, monkeypatch):
    """A run that was killed while it wrote checkpoint-12, and its arguments."""
    values = arguments(world, tmp_path, **SHORT, save_total_limit=1, overwrite_output_dir=False)
    tuner()
    with monkeypatch.context() as patched:
        kill_while_writing(patched, 12)
        broken = traced(values, kill=KeyboardInterrupt)
    assert (tmp_path / "out" / "checkpoint-12" / "model.safetensors").exists()
    return broken, values


def test_last_whole_checkpoint_is_taken_where_the_last_was_cut_off(cut_off, whole_runs):
    broken, values = cut_off
    with our_log() as messages:
        resumed = traced(values)
    assert any("checkpoint-12 is not whole: resuming from" in message for message in messages)
    assert_the_same(broken, resumed, 6, whole_runs())
    assert [path.name for path in resumed.folder.glob("checkpoint-*")] == ["checkpoint-24"]


def test_truncated_file_of_the_host_makes_a_checkpoint_one_to_pass_over(whole_runs, world, tmp_path, no_model):
    values = _copy_of(whole_runs(), tmp_path, arguments(world, tmp_path, **SHORT))
    path = tmp_path / "out" / "checkpoint-24" / "optimizer.pt"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:1000])
    message = refusal(values | {"resume_from_checkpoint": str(path.parent)})
    assert message == f"{path}: 1000 bytes of {size}; resume from another checkpoint"
    for asked in ({}, {"resume_from_checkpoint": True}):
        with our_log() as messages, pytest.raises(AssertionError, match="a model was loaded"):
            train(values | asked)
        assert any("checkpoint-24 is not whole: resuming from" in m and "checkpoint-18" in m for m in messages)


def test_run_whose_only_checkpoint_was_cut_off_starts_anew(whole_runs, world, tmp_path, monkeypatch):
    values = arguments(world, tmp_path, **SHORT, overwrite_output_dir=False)
    with monkeypatch.context() as patched:
        kill_while_writing(patched, 6)
        traced(values, kill=KeyboardInterrupt)
    again = traced(values | {"max_steps": 9})
    assert again.seen == whole_runs().seen[:9]
    assert timeless(again)[:3] == timeless(whole_runs())[:3]


# --- ranks -------------------------------------------------------------------------------------------------


# (after which step it is killed, at which steps it saves and so where it goes on), for updates at steps 4, 8, 12, ...
KILLED_PAIRS = {"before_an_update": (9, 7), "at_an_update": (8, 8), "after_an_update": (10, 9)}


def test_two_ranks_go_on_bit_by_bit_and_another_number_of_ranks_in_the_same_order(whole_runs, world, tmp_path):
    """One launch of two ranks trains whole, is broken off thrice, goes on, and takes over a run of one rank."""
    pair = {"per_device_train_batch_size": 4}
    single = pair | {"gradient_accumulation_steps": 2}
    one = whole_runs(**single)

    def job(name, checkpoint=None, **more):
        values = arguments(world, tmp_path / name, **SHORT, **pair) | more
        return {"name": name, "values": values | ({"resume_from_checkpoint": str(checkpoint)} if checkpoint else {})}

    jobs = [job("whole"), job("from_one", one.folder / "checkpoint-18")]
    for case, (killed_at, saved_at) in KILLED_PAIRS.items():
        checkpoint = tmp_path / case / "out" / f"checkpoint-{saved_at}"
        jobs.append(job(case, save_steps=saved_at) | {"kill_at": killed_at})
        jobs.append(job(case, checkpoint) | {"name": f"resumed_{case}"})
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    finish_well(start([*TORCHRUN, DRIVER, str(tmp_path)]))
    found = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    for of_rank in found:
        whole = of_rank["whole"]
        for case, (_, saved_at) in KILLED_PAIRS.items():
            again = of_rank[f"resumed_{case}"]
            assert of_rank[case]["seen"][:saved_at] + again["seen"] == whole["seen"]
            assert again["weights"] == whole["weights"]
            assert again["lines"] == whole["lines"]
    assert both(found, "from_one") == one.steps(2)[18:]
    # and one rank takes over what two began
    values = arguments(world, tmp_path / "from_two", **SHORT, **single)
    from_two = traced(values | {"resume_from_checkpoint": str(tmp_path / "before_an_update" / "out" / "checkpoint-7")})
    assert from_two.steps(2) == both(found, "whole")[7:]
    for ours, theirs in zip(timeless(from_two), found[0]["whole"]["lines"], strict=True):
        assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)


def both(found, name):
    """The samples of each step of a job, over the two ranks."""
    return [first + second for first, second in zip(*(of_rank[name]["seen"] for of_rank in found), strict=True)]


# --- refusals ----------------------------------------------------------------------------------------------


def test_clock_and_window_go_on_where_the_checkpoint_left_them(whole_runs, world, tmp_path):
    values = _copy_of(whole_runs(), tmp_path, arguments(world, tmp_path, **SHORT, dids_update_samples=None))
    ran = train(values | {"resume_from_checkpoint": str(tmp_path / "out" / "checkpoint-18"), "max_steps": 26})
    seconds = [line["seconds"] for line in ran.lines]
    assert seconds == sorted(seconds)
    assert [line["samples_seen"] for line in ran.lines][1:-1] == [32, 64, 96, 128, 160, 192], "though none is set"


def test_output_folder_that_is_read_only_is_refused_before_anything_is_made(world, tmp_path, no_model, monkeypatch):
    allows = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: tmp_path not in Path(path).parents and allows(path, mode))
    (tmp_path / "out" / "dids").mkdir(parents=True)
    message = refusal(arguments(world, tmp_path))
    assert message == f"output_dir: got {str(tmp_path / 'out')!r}, allowed: a folder that can be written to"
    assert not (tmp_path / "cache").exists()


def _copy_of(ran, folder, values):
    shutil.copytree(ran.folder, folder / "out")
    return values | {"overwrite_output_dir": False}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dids_seed": 4}, ["seed = 3", "this run has 4"]),
        ({"dids_eta": 9.0}, ["option eta = ", "this run has 9.0"]),
        ({"per_device_train_batch_size": 4}, ["samples_per_step = 8", "this run has 4"]),
        ({"dataset": "sums,pairs"}, ["domains = ['sums', 'pairs', 'noise']", "this run has ['sums', 'pairs']"]),
        ({"dids_domains": "moved"}, ["domain_map = '", "this run has '"]),
    ],
    ids=["seed", "option", "batch", "datasets", "domain_map"],
)
def test_checkpoint_of_another_set_up_is_refused_with_both_values(whole_runs, changes, words, world, tmp_path):
    values = _copy_of(whole_runs(), tmp_path, arguments(world, tmp_path, **SHORT))
    log = tmp_path / "out" / "dids" / "mixture.jsonl"
    before = log.read_bytes()
    checkpoint = str(tmp_path / "out" / "checkpoint-12")
    if "dids_domains" in changes:
        found = load_map(tmp_path / "out" / "dids")
        save_map(replace(found, domains_N=np.roll(found.domains_N, 1)), tmp_path / "moved")
        changes = {"dids_domains": str(tmp_path / "moved")}
    with pytest.raises(DidsError) as caught:
        train(values | changes | {"resume_from_checkpoint": checkpoint})
    assert [word for word in [checkpoint, *words] if word not in str(caught.value)] == [], str(caught.value)
    assert log.read_bytes() == before


def test_broken_gradient_stage_goes_on_with_the_missing_parts(world, tmp_path, monkeypatch):
    tuner()
    from llamafactory_dids.integration.domains import features
    from llamafactory_dids.stages.gradients import SampleProjector

    monkeypatch.setattr(features, "open_store", lambda *inputs: open_store(*inputs, part_rows=50))
    values = arguments(world, tmp_path, dids_init="uniform")  # no store of the tasks' gradients
    whole = map_of(values | {"dids_cache_dir": str(tmp_path / "whole")})
    project, samples = SampleProjector.project, []

    def breaking(self, batch):
        samples.append(len(batch["input_ids"]))
        if sum(samples) > 170:
            raise KeyboardInterrupt
        return project(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(SampleProjector, "project", breaking)
        with pytest.raises(KeyboardInterrupt):
            map_of(values)
    (folder,) = (tmp_path / "cache" / "gradients").iterdir()
    done = {path: path.stat().st_mtime_ns for path in sorted(folder.glob("part-*.npy"))}
    assert len(done) == 3
    with our_log() as messages:
        found = map_of(values)
    assert any("3 of 6 parts to compute" in message for message in messages)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(list(folder.glob("part-*.npy"))) == 6
    (expected,) = (tmp_path / "whole" / "gradients").iterdir()
    for path in sorted(expected.glob("*.npy")):
        np.testing.assert_array_equal(np.load(folder / path.name), np.load(path))
    assert found.lookup() == whole.lookup()


def map_of(values):
    """The domain map of a run, which is made and not trained with."""
    return module_of(values)[0]["mixing"].domain_map
