"""A run that was broken off goes on as if it had not been."""

import shutil

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from llamafactory_dids.artifacts.gradient_store import open_store
from llamafactory_dids.errors import DidsError
from tests.integration.support import arguments, captured_trainers, our_log, train, tuner

pytestmark = pytest.mark.integration

SAVING = {"save_strategy": "steps", "save_steps": 6}


class Break(TrainerCallback):
    """Breaks a run off, as Ctrl-C would, after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def timeless(ran):
    return [{key: value for key, value in line.items() if key != "seconds"} for line in ran.lines]


# checkpoints are at 6, 12, 18; updates after 4, 8, 12, …: so a checkpoint lies inside a window or at its end,
# and what was trained and logged after it has to be forgotten
@pytest.mark.parametrize(
    ("gradients", "broken_at", "resumed_from"),
    [("running", 7, 6), ("running", 11, 6), ("running", 13, 12), ("running", 23, 18), ("fresh", 11, 6)],
)
def test_resumed_run_ends_as_one_that_was_not_broken_off(
    whole_runs, gradients, broken_at, resumed_from, world, tmp_path
):
    whole = whole_runs[gradients]
    values = arguments(world, tmp_path, dids_domain_gradients=gradients, dids_domains="source", **SAVING)
    with pytest.raises(KeyboardInterrupt):
        train(values, [Break(broken_at)])
    checkpoint = tmp_path / "out" / f"checkpoint-{resumed_from}"
    ran = train(values | {"resume_from_checkpoint": str(checkpoint), "overwrite_output_dir": False})
    assert timeless(ran) == timeless(whole)
    assert [line["step"] for line in ran.lines] == [0, 4, 8, 12, 16, 20, 24]
    weights, expected = ran.weights(), whole.weights()
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []


@pytest.fixture(scope="module")
def whole_runs(world, tmp_path_factory):
    """Runs that were not broken off."""
    kinds = ("running", "fresh")
    common = {"dids_domains": "source", **SAVING}
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in kinds}
    return {kind: train(arguments(world, folders[kind], dids_domain_gradients=kind, **common)) for kind in kinds}


def test_clock_of_the_log_goes_on_where_the_checkpoint_left_it(whole_runs, world, tmp_path):
    values = _copy_of(whole_runs["running"], tmp_path, arguments(world, tmp_path, dids_domains="source", **SAVING))
    ran = train(values | {"resume_from_checkpoint": str(tmp_path / "out" / "checkpoint-12")})
    seconds = [line["seconds"] for line in ran.lines]
    assert seconds == sorted(seconds)


def _copy_of(ran, folder, values):
    shutil.copytree(ran.folder, folder / "out")
    return values | {"overwrite_output_dir": False}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dids_tasks": "task_sums"}, ["tasks = ['task_sums', 'task_pairs']", "this run has ['task_sums']"]),
        ({"mix_strategy": "dga"}, ["strategy = 'dids'", "this run has 'dga'"]),
        ({"dids_seed": 4}, ["seed = 3", "this run has 4"]),
        ({"per_device_train_batch_size": 4}, ["samples_per_step = 8", "this run has 4"]),
        ({"dataset": "sums,pairs"}, ["domains = ['sums', 'pairs', 'noise']", "this run has ['sums', 'pairs']"]),
    ],
    ids=["tasks", "strategy", "seed", "batch", "datasets"],
)
def test_checkpoint_of_another_set_up_is_refused_with_both_values(whole_runs, changes, words, world, tmp_path):
    values = _copy_of(whole_runs["running"], tmp_path, arguments(world, tmp_path, dids_domains="source", **SAVING))
    log = tmp_path / "out" / "dids" / "mixture.jsonl"
    before = log.read_bytes()
    checkpoint = str(tmp_path / "out" / "checkpoint-12")
    with pytest.raises(DidsError) as caught:
        train(values | changes | {"resume_from_checkpoint": checkpoint})
    assert [word for word in [checkpoint, *words] if word not in str(caught.value)] == [], str(caught.value)
    assert log.read_bytes() == before


def test_checkpoint_made_without_a_mixture_is_refused_by_name(world, tmp_path):
    values = arguments(world, tmp_path, dids_domains="source", **SAVING)
    ours = {key: value for key, value in values.items() if not key.startswith("dids_")}
    host = tuner()
    with captured_trainers() as seen:
        host.run_exp(ours | {"mix_strategy": "concat", "max_steps": 6}, [])
    assert seen == []
    checkpoint = str(tmp_path / "out" / "checkpoint-6")
    with pytest.raises(DidsError, match=f"{checkpoint}/dids_state.json: no such file"):
        train(values | {"resume_from_checkpoint": checkpoint, "overwrite_output_dir": False})


def test_broken_gradient_stage_goes_on_with_the_missing_parts(world, tmp_path, monkeypatch):
    tuner()
    from llamafactory_dids.integration import features
    from llamafactory_dids.stages.gradients import SampleProjector

    monkeypatch.setattr(features, "open_store", lambda *inputs: open_store(*inputs, part_rows=50))
    values = arguments(world, tmp_path, max_steps=4)
    whole = train(values | {"dids_cache_dir": str(tmp_path / "whole")})
    project, samples = SampleProjector.project, []

    def breaking(self, batch):
        samples.append(len(batch["input_ids"]))
        if sum(samples) > 170:
            raise KeyboardInterrupt
        return project(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(SampleProjector, "project", breaking)
        with pytest.raises(KeyboardInterrupt):
            train(values)
    (folder,) = (tmp_path / "cache" / "gradients").iterdir()
    done = {path: path.stat().st_mtime_ns for path in sorted(folder.glob("part-*.npy"))}
    assert len(done) == 3
    with our_log() as messages:
        ran = train(values)
    assert any("3 of 6 parts to compute" in message for message in messages)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(list(folder.glob("part-*.npy"))) == 6
    (expected,) = (tmp_path / "whole" / "gradients").iterdir()
    for path in sorted(expected.glob("*.npy")):
        np.testing.assert_array_equal(np.load(folder / path.name), np.load(path))
    assert ran.probabilities == whole.probabilities
