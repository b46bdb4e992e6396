"""The loop around a mixer, with a tiny model that moves by rule and batches taken from the sampler by hand."""

import itertools
import json
import logging
import weakref

import numpy as np
import pytest
import torch

from llamafactory_dids import mixers
from llamafactory_dids.artifacts.domain_map import DomainMap, load_map
from llamafactory_dids.config import make_config
from llamafactory_dids.errors import DidsError
from llamafactory_dids.training import impacts, schedule
from llamafactory_dids.training.collator import DOMAIN_COLUMN, DomainCollator
from llamafactory_dids.training.controller import MixtureController
from llamafactory_dids.training.observer import Observer
from llamafactory_dids.training.plan import MixingPlan
from tests.helpers import NEXT_TOKENS, collate, num_labelled, samples, tiny_model, unlabelled

NAMES = ("math", "code", "chat")
DOMAINS_N = np.array([0, 1, 2, 1, 0, 2, 2, 1, 0, 2, 2, 2])
ROWS = [{**row, DOMAIN_COLUMN: int(d)} for row, d in zip(samples(12, seed=21), DOMAINS_N, strict=True)]
TASKS = {"exam": samples(3, seed=31), "quiz": samples(2, seed=32)}
PER_STEP, WINDOW = 4, 8
COSINES = {"update": "exponentiated", "impact_normalize": "cosine"}  # of mean gradients, and moved by noise too


def make_plan(
    folder, strategy="dids", tasks=TASKS, window=WINDOW, seed=5, options=None, spent=None, **keys
) -> MixingPlan:
    config = make_config({"dids_update_samples": window, "dids_gradient_layers": 0.3, **keys})
    mixer = mixers.create(strategy, len(NAMES), len(tasks), sizes_D=np.bincount(DOMAINS_N), **(options or {}))
    keys_N = [f"key{i}" for i in range(len(ROWS))]
    domain_map = DomainMap(NAMES, keys_N, ["books"] * len(ROWS), DOMAINS_N)
    plan = MixingPlan(strategy, config, mixer, domain_map, DOMAINS_N, tasks, folder / "dids", seed)
    plan.clock.counted.update(spent or {})
    return plan


class Run:
    """A training run of PER_STEP samples a step; the model's head shrinks by a share `drift` of it a step."""

    def __init__(self, folder, drift: float = 0.0, tells: bool = True, **options) -> None:
        self.tells = tells  # whether the model gives its outputs
        self.model = tiny_model(num_blocks=3).train()
        self.head, self.drift = self.model.lm_head.weight.detach().clone(), drift
        plan = make_plan(folder, **options)
        how = {"precision": torch.no_grad, "device": torch.device("cpu")}  # any context will do
        observer = Observer(plan, self.model, collate, ROWS, NEXT_TOKENS, batch_size=2, **how)
        self.controller = MixtureController(plan, observer, PER_STEP)
        self.drawn: list[int] = []
        self.step = self.num_skipped = 0
        self.stream = itertools.chain.from_iterable(iter(self.controller.sampler) for _ in itertools.count())

    def resume(self, checkpoint, step: int) -> "Run":
        """As the host does it: load, and skip what this epoch had already seen once the training begins."""
        self.controller.load(checkpoint)
        self.step = step
        self.model.lm_head.weight.data.copy_(self.head * (1 - self.drift * step))
        self.num_skipped = step * PER_STEP % len(self.controller.sampler)
        return self

    def go(self, until: int, max_steps: int = 1000) -> "Run":
        """Train up to a step, of a run that may have more."""
        self.controller.start(self.step, max_steps, self.model)
        for _ in range(self.num_skipped):
            next(self.stream)
        self.num_skipped = 0
        while self.step < until:
            self.step += 1
            chosen = list(itertools.islice(self.stream, PER_STEP))
            self.drawn += chosen
            self.train_on([ROWS[i] for i in chosen])
            self.model.lm_head.weight.data.copy_(self.head * (1 - self.drift * self.step))
            self.controller.after_step(self.step)
        return self

    def train_on(self, rows) -> None:
        batch, tokens_N = DomainCollator(collate)(rows), num_labelled(rows)
        domains, observer = batch.pop(DOMAIN_COLUMN), self.controller.observer
        observer.watch(domains, tokens_N, 1 / tokens_N.sum(), len(rows))
        outputs = self.model(**batch, use_cache=False)
        observer.watch_outputs(domains, tokens_N, outputs if self.tells else None, batch)
        observer.watch_loss(outputs.loss)
        outputs.loss.backward()

    def lines(self) -> list[dict]:
        return [{k: v for k, v in line.items() if k != "seconds"} for line in self.controller.log.read()]


@pytest.mark.parametrize("gradients", ["running", "fresh"])
def test_the_log_has_a_line_before_training_and_one_a_window(tmp_path, gradients):
    run = Run(tmp_path, dids_domain_gradients=gradients).go(until=6)
    lines = run.lines()
    assert [line["step"] for line in lines] == [0, 2, 4, 6]
    assert [line["samples_seen"] for line in lines] == [0, 8, 16, 24]
    assert [line["applies_from_sample"] for line in lines] == [0, 8, 16, 24]
    assert lines[0]["impact"] == {} and list(lines[0]["task_loss"]) == ["exam", "quiz"]
    assert {name: list(row) for name, row in lines[2]["impact"].items()} == dict.fromkeys(NAMES, ["exam", "quiz"])
    assert lines[0]["probabilities"] == pytest.approx(dict.fromkeys(NAMES, 1 / 3))
    for line in lines:
        counts = np.bincount(DOMAINS_N[run.drawn[: line["samples_seen"]]], minlength=3)
        assert line["samples_drawn"] == dict(zip(NAMES, counts.tolist(), strict=True))


def test_the_sampler_draws_by_what_the_mixer_decided(tmp_path):
    run = Run(tmp_path, options=COSINES).go(until=4)
    logged = [(line["applies_from_sample"], list(line["probabilities"].values())) for line in run.lines()]
    history = [(start, p_D.tolist()) for start, p_D in run.controller.sampler.history]
    assert history == logged
    assert len({tuple(p) for _, p in logged}) == len(logged), "the mixture did not move"


def test_running_gradients_of_a_model_held_still_give_the_impact_of_fresh_ones(tmp_path):
    everything = {"dids_fresh_samples": 99, "window": 240}
    running = Run(tmp_path / "a", **everything).go(until=60).lines()[-1]["impact"]
    fresh = Run(tmp_path / "b", **everything, dids_domain_gradients="fresh").go(until=60).lines()[-1]["impact"]
    values = [value for row in fresh.values() for value in row.values()]
    assert max(values) - min(values) > 0.02 * max(map(abs, values))
    for name in NAMES:  # the batches of the window weigh samples a little differently
        assert running[name] == pytest.approx(fresh[name], abs=0.02 * max(map(abs, values)))


def test_the_map_is_written_with_the_run(tmp_path):
    Run(tmp_path).go(until=1)
    assert load_map(tmp_path / "dids").names == NAMES


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"dids_domain_gradients": "fresh"},
        {"options": COSINES | {"task_weights": "raw"}},  # looks at all losses so far
        {"strategy": "dga"},
        {"dids_max_repeats": 1},
    ],
    ids=["running", "fresh", "trajectory", "dga", "drop"],
)
@pytest.mark.parametrize("stopped", [3, 4])
def test_a_run_resumed_from_a_checkpoint_is_the_run_that_was_not_interrupted(tmp_path, stopped, kind):
    whole = Run(tmp_path / "whole", drift=0.05, **kind).go(until=8)
    first = Run(tmp_path / "run", drift=0.05, **kind).go(until=stopped)
    checkpoint = tmp_path / "run" / f"checkpoint-{stopped}"
    checkpoint.mkdir()
    first.controller.save(checkpoint, stopped)
    first.go(until=7)  # what follows the checkpoint is lost
    second = Run(tmp_path / "run", drift=0.05, **kind).resume(checkpoint, stopped).go(until=8)
    assert first.drawn[: stopped * PER_STEP] + second.drawn == whole.drawn
    assert second.lines() == whole.lines()


def cost_of(folder) -> dict[str, float]:
    return json.loads((folder / "dids" / "cost.json").read_text())


@pytest.mark.parametrize(
    "kind", [{}, {"strategy": "uniform", "tasks": {}}, {"strategy": "proportional", "tasks": {}}], ids=str
)
def test_the_cost_at_the_end_is_of_the_whole_training(tmp_path, kind):
    run = Run(tmp_path, spent={"domain_seconds": 30.0}, **kind).go(until=5)  # the last update was after step 4
    run.controller.clock.started -= 1000
    run.controller.finish()
    cost = cost_of(tmp_path)
    assert 1000 < cost["seconds"] < 1100 and cost["update_seconds"] < 100
    assert cost["domain_seconds"] == 30 and cost["importance_seconds"] == 0


def test_the_cost_of_a_resumed_run_is_that_of_all_its_processes(tmp_path):
    first = Run(tmp_path, spent={"domain_seconds": 30.0, "importance_seconds": 2.0}).go(until=2)
    first.controller.save(tmp_path, 2)
    second = Run(tmp_path, spent={"importance_seconds": 1.0}).resume(tmp_path, 2).go(until=4)
    assert cost_of(tmp_path)["domain_seconds"] == 30 and cost_of(tmp_path)["importance_seconds"] == 3
    second.controller.save(tmp_path, 4)
    Run(tmp_path).resume(tmp_path, 4).go(until=6)
    assert cost_of(tmp_path)["domain_seconds"] == 30


@pytest.mark.parametrize(
    ("other", "key"),
    [
        ({"strategy": "dga"}, "strategy = 'dids', this run has 'dga'"),
        ({"seed": 6}, "seed = 5, this run has 6"),
        ({"tasks": {"exam": TASKS["exam"]}}, r"tasks = \['exam', 'quiz'\], this run has \['exam'\]"),
    ],
)
def test_a_checkpoint_of_another_set_up_is_refused_with_both_values(tmp_path, other, key):
    Run(tmp_path).controller.save(tmp_path, 0)
    with pytest.raises(DidsError, match=f"{tmp_path}: .*{key}"):
        Run(tmp_path, **other).controller.load(tmp_path)


@pytest.mark.parametrize("strategy", ["uniform", "proportional"])
def test_a_fixed_mixture_measures_no_impact_and_has_lines_that_are_no_updates(tmp_path, strategy):
    run = Run(tmp_path, strategy=strategy, tasks={}, window=1).go(until=5)
    assert run.controller.observer.meter is None and not run.controller.measures
    lines = run.lines()
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4, 5]
    assert all(line["fixed"] and line["probabilities"] == lines[0]["probabilities"] for line in lines[1:])
    run.controller.save(tmp_path, 5)
    again = Run(tmp_path, strategy=strategy, tasks={}, window=1).resume(tmp_path, 5)
    assert run.go(until=9).drawn[20:] == again.go(until=9).drawn
    assert run.lines() == again.lines()


@pytest.mark.parametrize("strategy", ["dids", "proportional", "dga"])
def test_each_line_has_the_training_loss_of_each_domain_since_the_line_before(tmp_path, strategy):
    """Against a pass over each sample alone; the model stands still."""
    run = Run(tmp_path, strategy=strategy).go(until=5, max_steps=5)
    lines = run.lines()
    assert [line["step"] for line in lines] == [0, 2, 4, 5] and lines[0]["domain_loss"] == {}
    for before, line in itertools.pairwise(lines):
        drawn = run.drawn[before["samples_seen"] : line["samples_seen"]]
        for domain, name in enumerate(NAMES):
            rows = [ROWS[i] for i in drawn if DOMAINS_N[i] == domain]
            losses = [run.model(**collate([row]), use_cache=False).loss.item() for row in rows]
            found = line["domain_loss"][name]
            assert found == pytest.approx(np.mean(losses), rel=1e-5) if rows else found is None
            seen = [ROWS[i] for i in run.drawn[: line["samples_seen"]] if DOMAINS_N[i] == domain]
            assert line["domain_tokens"][name] == int(num_labelled(seen).sum())


def test_a_model_that_gives_no_logits_has_no_training_losses_in_its_log_and_all_else(tmp_path):
    line = Run(tmp_path, tells=False).go(until=2).lines()[-1]
    assert line["domain_loss"] == {} and sum(line["domain_tokens"].values()) > 0 and len(line["impact"]) == 3


def test_an_update_is_logged_with_the_weight_of_each_task(tmp_path):
    lines = Run(tmp_path).go(until=2).lines()
    assert lines[0]["task_weight"] == {} and lines[1]["task_weight"] == {"exam": 0.5, "quiz": 0.5}


def test_a_window_shorter_than_a_step_is_refused_with_both_sizes(tmp_path):
    with pytest.raises(DidsError, match="dids_update_samples: got 3, allowed: at least the samples of a step, 4"):
        Run(tmp_path, window=3)


def test_a_window_that_is_no_multiple_of_a_step_ends_with_the_step_that_completes_it(tmp_path):
    lines = Run(tmp_path, window=6).go(until=6).lines()
    assert [line["step"] for line in lines] == [0, 2, 3, 5, 6]


def test_a_domain_that_was_never_drawn_is_measured_freshly_and_the_log_says_so(tmp_path, caplog):
    run = Run(tmp_path, options=COSINES)
    with caplog.at_level(logging.INFO):
        run.controller.start(0, 3, run.model)
        run.train_on([ROWS[0], ROWS[4]])  # math alone
        run.controller.after_step(2)
    said = "measuring the tasks before the first step", "domains that no batch has had: 2 of 2 domains"
    assert all(caplog.text.count(line) == 1 for line in said)
    running = run.controller.observer.running
    for domain in (1, 2):
        rows = [ROWS[i] for i in np.flatnonzero(domain == DOMAINS_N)]
        assert torch.allclose(running.sums_DP[domain], run.controller.observer.meter.domain(rows), atol=1e-6)
    assert (running.weights_D == 1).all() and running.sums_DP.norm(dim=1).min() > 0


@pytest.mark.parametrize(("max_steps", "warned"), [(12, True), (13, False)])
def test_few_updates_are_announced_with_a_warning(tmp_path, caplog, max_steps, warned):
    with caplog.at_level(logging.INFO, logger=schedule.logger.name):
        run = Run(tmp_path)
        run.controller.start(0, max_steps, run.model)
    assert f"{(max_steps - 1) * PER_STEP // WINDOW} updates: one every 8" in caplog.text
    assert ("lower dids_update_samples (now 8)" in caplog.text) == warned


def test_an_update_that_leaves_the_mixture_as_it_is_says_so(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        lines = Run(tmp_path).go(until=8).lines()
    stayed = sum(one["probabilities"] == other["probabilities"] for one, other in itertools.pairwise(lines))
    assert caplog.text.count("the mixture stays as it is") == stayed > 0


def test_a_task_without_a_gradient_is_reported_and_the_others_still_count(tmp_path, caplog):
    run = Run(tmp_path, tasks={"empty": [unlabelled()], **TASKS})
    with caplog.at_level(logging.WARNING, logger=impacts.logger.name):
        run.go(until=2)
    assert "task empty is left out" in caplog.text and "task exam" not in caplog.text
    assert all(np.isfinite(list(run.lines()[1]["probabilities"].values())))


def test_a_new_run_into_an_old_folder_starts_a_new_log(tmp_path):
    Run(tmp_path).go(until=4)
    assert [line["step"] for line in Run(tmp_path).go(until=2).lines()] == [0, 2]


def test_finishing_gives_the_model_back_without_hooks(tmp_path):
    run = Run(tmp_path).go(until=2)
    assert any(layer._forward_hooks for layer in run.model.modules())
    run.controller.finish()
    assert not any(layer._forward_hooks for layer in run.model.modules())


@pytest.mark.parametrize("strategy", ["dids", "proportional"])
def test_after_the_last_step_losses_are_measured_and_nothing_is_updated(tmp_path, strategy):
    run = Run(tmp_path, strategy=strategy, drift=0.1).go(until=6, max_steps=6)
    lines = run.lines()
    assert [line["step"] for line in lines] == [0, 2, 4, 6]
    last = lines[-1]
    assert last["closing"] and last["impact"] == {} and last["probabilities"] == lines[-2]["probabilities"]
    assert sum(last["samples_drawn"].values()) == 24
    assert not any("closing" in line for line in lines[:-1])
    if strategy == "dids":
        assert last["task_loss"] != lines[-2]["task_loss"] and np.isfinite(list(last["task_loss"].values())).all()


@pytest.mark.parametrize("last", [4, 5])
@pytest.mark.parametrize("strategy", ["dids", "proportional"])
def test_a_run_that_ended_and_goes_on_is_as_one_that_had_more_steps(tmp_path, strategy, last):
    whole = Run(tmp_path / "whole", strategy=strategy, drift=0.1).go(until=9, max_steps=9)
    ended = Run(tmp_path / "ended", strategy=strategy, drift=0.1).go(until=last, max_steps=last)
    ended.controller.save(tmp_path / "checkpoint", last)
    longer = Run(tmp_path / "longer", strategy=strategy, drift=0.1).resume(tmp_path / "checkpoint", last)
    longer.go(until=9, max_steps=9)
    assert longer.lines() == whole.lines()
    assert ended.drawn + longer.drawn == whole.drawn


def test_a_step_whose_gradients_do_not_come_by_the_hooks_ends_the_run(tmp_path):
    run = Run(tmp_path)
    run.controller.observer.running.close()  # as a compiler does, which runs the layers without their hooks
    with pytest.raises(DidsError, match="dids takes gradients from the training batches, and a step gave none"):
        run.go(until=1)


def passes_of(run, monkeypatch):
    """The tokens of each batch that goes through the gradient engine from now on, padding counted."""
    engine, taken = run.controller.observer.meter.engine, []
    measure = engine.run
    monkeypatch.setattr(engine, "run", lambda batch: taken.append(batch["input_ids"].numel()) or measure(batch))
    return taken


def test_an_updates_batches_are_as_large_as_a_training_batch_may_be_whatever_its_number_of_samples(
    tmp_path, monkeypatch
):
    longest, tasks = max(len(row["input_ids"]) for row in ROWS), {"exam": samples(40, seed=31, longest=5)}
    run = Run(tmp_path, tasks=tasks)
    taken = passes_of(run, monkeypatch)
    run.controller.observer.measure(1, 8, np.full(3, np.nan))
    of_tasks = [tokens for tokens in taken if tokens]
    assert max(of_tasks) <= 2 * longest, "the training's batches are of two samples"
    assert len(taken) < 40 / 2, "fewer than by two samples at a time"


def test_with_gradient_checkpointing_they_are_half_as_large(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.PreTrainedModel.is_gradient_checkpointing", True)
    longest = max(len(row["input_ids"]) for row in ROWS)
    assert Run(tmp_path).controller.observer.meter.passes.max_tokens == longest


@pytest.mark.parametrize("step", [0, 2])
def test_a_batch_of_the_longest_samples_is_tried_before_the_training(tmp_path, monkeypatch, step):
    run = Run(tmp_path)
    taken = passes_of(run, monkeypatch)
    run.controller.start(step, 6, run.model)
    tokens = taken[0]
    longest = max(len(row["input_ids"]) for rows in (ROWS, *TASKS.values()) for row in rows)
    assert tokens % longest == 0


def test_a_measurement_that_does_not_fit_stops_the_run_before_it_starts(tmp_path, monkeypatch):
    def full(_batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    run = Run(tmp_path)
    monkeypatch.setattr(run.controller.observer.meter.engine, "run", full)
    with pytest.raises(DidsError, match=r"dids_tasks: one sample .* does not fit .* allowed: a smaller cutoff_len"):
        run.controller.start(0, 6, run.model)


def test_fresh_gradients_are_there_once(tmp_path, monkeypatch):
    """The tensor that an impact is computed of, and no list of the same size beside it."""
    run = Run(tmp_path, dids_domain_gradients="fresh", options=COSINES)
    living = []

    def domain(_rows):
        gradient_P = torch.ones(run.controller.observer.meter.entries.size)
        living.append(weakref.ref(gradient_P))
        assert sum(one() is not None for one in living) <= 2
        return gradient_P

    monkeypatch.setattr(run.controller.observer.meter, "domain", domain)
    fresh_DP = run.controller.observer._impacts._domain_gradients(1)
    assert len(living) == len(fresh_DP) == 3 and (fresh_DP == 1).all()


def test_where_only_positive_impacts_count_a_task_may_have_none(tmp_path, monkeypatch):
    """`sum` keeps the positive part: all domains may harm a task, but without any gradient the run ends."""
    run = Run(tmp_path, options={"preset": "paper"})
    monkeypatch.setattr(impacts, "impact", lambda *_: np.zeros((3, 2)))
    run.go(until=2)
    run.controller.observer.running.sums_DP.zero_()
    monkeypatch.setattr(run.controller.observer.running, "close_window", lambda: (torch.zeros(3, 5), np.ones(3, bool)))
    with pytest.raises(DidsError, match="impact of all 3 domains on the task 'exam' is zero"):
        run.controller.observer.measure(2, 16, np.full(3, np.nan))


@pytest.mark.parametrize("gradients", ["running", "fresh"])
def test_impacts_with_errors_come_with_a_covariance_and_others_without(tmp_path, gradients):
    run = Run(tmp_path, dids_domain_gradients=gradients)
    run.controller.start(0, 9, run.model)
    run.train_on(ROWS)
    signals = run.controller.observer.measure(1, 12, np.full(3, np.nan))
    assert signals.impact_covariance_DTT.shape == (3, 2, 2) and np.isfinite(signals.impact_covariance_DTT).all()
    assert signals.task_losses_UT.shape == (2, 2)
    other = Run(tmp_path, dids_domain_gradients=gradients, options=COSINES)
    other.controller.start(0, 9, other.model)
    other.train_on(ROWS)
    assert other.controller.observer.measure(1, 12, np.full(3, np.nan)).impact_covariance_DTT is None
