"""The validity of impacts: scores by hand, the truth by common random numbers, estimates where the answer is known."""

import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llamafactory_dids.artifacts.domain_map import save_map
from llamafactory_dids.errors import DidsError
from llamafactory_dids.integration.plan import planning
from scripts.experiments import runner, sizes
from scripts.validity import records, scoring, tables, validity, worlds
from scripts.validity.estimates import ESTIMATES, TODAY
from scripts.validity.scene import Scene
from scripts.validity.trials import Draws, Learner, truth
from tests.helpers import VOCAB, tiny_model

# --- scores ------------------------------------------------------------------------------------------------

TRUTH_DT = np.array([[5.0, 4.0, 3.0, 1.0, 0.0, -1.0]]).T  # its mean is 2, its best three bring 2 more


def scores_of(estimate_D) -> list[float]:
    found = scoring.score(np.array(estimate_D, dtype=float)[:, None], TRUTH_DT)
    return [float(values[0]) for values in found]


def test_a_perfect_estimate_scores_one_in_any_unit():
    assert scores_of(10 * TRUTH_DT[:, 0] - 7) == pytest.approx([1, 1, 1])


def test_a_reversed_estimate_loses_as_much_as_its_first_three_are_below_the_mean():
    assert scores_of(-TRUTH_DT[:, 0]) == pytest.approx([-1, -1, 0])


def test_a_gain_is_that_of_the_first_three_whatever_their_order():
    # first three: 4, 3 and -1, whose mean is 2; that is the mean of all
    gain, _, best = scores_of([0, 7, 8, 1, 2, 9])
    assert (gain, best) == (pytest.approx(0), 0)
    assert scores_of([1, 3, 2, 0, 0, 0])[0] == pytest.approx(1)


def test_domains_that_are_held_for_equal_share_their_places():
    assert scores_of([1, 1, 1, 1, 1, 1]) == pytest.approx([0, 0, 0.5])
    # one place is sure, two are shared by the four domains of 4, 1, 0 and -1: (5 + 2 * 1) / 3 - 2
    assert scores_of([2, 1, 0, 1, 1, 1])[0] == pytest.approx((7 / 3 - 2) / 2)


def test_the_correlation_is_pearsons():
    noisy_D = [4.0, 6.0, 1.0, 0.0, 2.0, 1.0]
    assert scores_of(noisy_D)[1] == pytest.approx(np.corrcoef(noisy_D, TRUTH_DT[:, 0])[0, 1])


def test_a_task_that_no_domain_moves_is_left_out_of_the_mean():
    truth_DT = np.hstack([TRUTH_DT, np.full((6, 1), 0.25)])
    found = scoring.score(np.hstack([TRUTH_DT, TRUTH_DT]), truth_DT)
    assert np.isnan(found.gain[1]) and [float(x) for x in found.mean()] == pytest.approx([1, 1, 1])


def test_an_estimate_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match=r"estimate: got shape \(6, 1\), allowed: \(6, 1\), all of it finite"):
        scores_of([1, 2, math.nan, 3, 4, 5])


# --- noise of the truth ------------------------------------------------------------------------------------


def noisy_truth(noise: float, orders: int, domains: int = 18, tasks: int = 20) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    true_DT = generator.standard_normal((domains, tasks))
    return true_DT, true_DT + noise * generator.standard_normal((orders, domains, tasks))


def test_the_reliability_is_the_share_of_the_variance_that_is_not_noise():
    for noise, orders in ((0.0, 2), (1.0, 2), (1.0, 4), (2.0, 5)):
        _, truth_RDT = noisy_truth(noise, orders)
        expected = 1 / (1 + noise**2 / orders)
        assert scoring.reliability(truth_RDT).mean() == pytest.approx(expected, abs=0.06)


def test_the_spearman_brown_formula_is_applied_to_the_halves():
    truth_RDT = noisy_truth(1.0, 2, tasks=1)[1]
    halves = np.corrcoef(truth_RDT[0, :, 0], truth_RDT[1, :, 0])[0, 1]
    assert scoring.reliability(truth_RDT)[0] == pytest.approx(2 * halves / (1 + halves))


def test_a_truth_without_noise_allows_all_and_a_noisy_one_less():
    for values in scoring.ceiling(noisy_truth(0.0, 3)[1]):
        assert values == pytest.approx(1)
    assert all(float(value) < 0.9 for value in scoring.ceiling(noisy_truth(1.5, 3)[1]).mean())


def test_the_ceiling_is_what_the_true_truth_scores():
    true_DT, truth_RDT = noisy_truth(1.0, 4)
    scored = scoring.score(true_DT, truth_RDT.mean(axis=0)).mean()
    for allowed, found in zip(scoring.ceiling(truth_RDT).mean(), scored, strict=True):
        assert float(allowed) == pytest.approx(float(found), abs=0.05)


def test_one_order_tells_nothing_about_its_noise():
    truth_RDT = noisy_truth(1.0, 1)[1]
    assert np.isnan(scoring.reliability(truth_RDT)).all() and np.isnan(scoring.ceiling(truth_RDT).gain).all()


# --- worlds ------------------------------------------------------------------------------------------------

NUM_DOMAINS = 5


def language(domain: int, count: int, seed: int) -> list[dict]:
    """Samples that go on with two tokens of the domain's own, after a prompt that does not tell which."""
    generator = np.random.default_rng((domain, seed))
    rows = []
    for _ in range(count):
        prompt = generator.integers(2 + 2 * NUM_DOMAINS, VOCAB, 3).tolist()
        answer = [2 + 2 * domain + int(x) for x in generator.integers(0, 2, 4)]
        rows.append({"input_ids": prompt + answer, "labels": [-100] * 3 + answer})
    return rows


def small_world(num_domains: int = NUM_DOMAINS, tasks: tuple[int, ...] = (0, 3), steps: int = 12) -> worlds.World:
    """Domains that each teach two tokens; task i is of the same language as its domain."""
    return worlds.World(
        rows_D={f"d{i}": language(i, 30, seed=1) for i in range(num_domains)},
        observed_T={f"t{i}": language(i, 8, seed=2) for i in tasks},
        held_out_T={f"t{i}": language(i, 12, seed=3) for i in tasks},
        make_model=lambda: tiny_model(num_blocks=2),
        training=worlds.Training(learning_rate=3e-3, max_steps=steps, warmup_steps=1, batch_size=10),
    )


CONFIG = {"k": 4, "share": 0.5, "orders": 2, "window": 4, "size": "tiny"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A finished file of the small world; read, never changed."""
    path = tmp_path_factory.mktemp("validity") / "results.jsonl"
    validity.run(path, lambda seed: small_world(), CONFIG, [1], [6])
    return path


@pytest.fixture(scope="module")
def checkpoint(results):
    return records.checkpoints(records.read(results))[1, 6]


def test_in_a_world_of_one_domain_more_of_it_changes_nothing():
    learner = Learner(small_world(num_domains=1, tasks=(0,)))
    truth_RDT = truth(learner, learner.state(), num_steps=3, share=0.5, orders=2, seed=0)
    assert truth_RDT.shape == (2, 1, 1) and not truth_RDT.any()
    assert truth(Learner(small_world()), learner.state(), num_steps=3, share=0.5, orders=1, seed=0).all()


def test_within_an_order_all_domains_have_the_same_other_samples_and_the_order_is_the_seeds():
    draws = Draws.by([0.5, 0.3, 0.2], 50, 40, 7)
    one, two = draws.with_share(1, 0.4), draws.with_share(2, 0.4)
    replaced_SB = draws.turns_SB < 0.4
    assert replaced_SB.mean() == pytest.approx(0.4, abs=0.04)
    assert (one.domains_SB[replaced_SB] == 1).all() and (two.domains_SB[replaced_SB] == 2).all()
    assert (one.domains_SB == two.domains_SB)[~replaced_SB].all() and (one.places_SB == two.places_SB).all()
    assert (Draws.by([0.5, 0.3, 0.2], 50, 40, 7).domains_SB == draws.domains_SB).all()
    assert (Draws.by([0.5, 0.3, 0.2], 50, 40, 8).domains_SB != draws.domains_SB).any()


def test_a_run_goes_on_from_a_state_as_it_went_on_before():
    learner = Learner(small_world())
    draws = Draws.by(learner.world.mixture_D, 8, 10, 1)
    learner.train(draws.steps(0, 4))
    state = learner.state()
    ends = []
    for _ in range(2):
        learner.restore(state)
        learner.train(draws.steps(4, 8))
        ends.append(learner.losses(learner.world.held_out_T))
    straight = Learner(small_world())
    straight.train(draws)
    assert (ends[0] == ends[1]).all()
    assert straight.losses(learner.world.held_out_T) == pytest.approx(ends[0], abs=1e-5)


def test_the_truth_is_that_a_task_gains_most_from_the_domain_of_its_own_language(checkpoint):
    assert checkpoint.truth_RDT.shape == (2, NUM_DOMAINS, 2)
    assert checkpoint.truth_RDT.mean(axis=0).argmax(axis=0).tolist() == [0, 3]
    assert scoring.reliability(checkpoint.truth_RDT).min() > 0.8


def test_each_estimate_finds_the_domain_that_equals_the_task(checkpoint):
    assert checkpoint.estimates.keys() == ESTIMATES.keys()
    best = {name: estimate_DT.argmax(axis=0).tolist() for name, estimate_DT in checkpoint.estimates.items()}
    assert {name: found for name, found in best.items() if found != [0, 3]} == {}


def test_todays_estimate_is_in_the_table_and_is_the_products(checkpoint):
    assert TODAY in ESTIMATES and np.isfinite(checkpoint.estimates[TODAY]).all()


@pytest.fixture(scope="module")
def scene():
    world = small_world()
    learner = Learner(world)
    draws = Draws.by(world.mixture_D, 8, 10, 1)
    learner.train(draws.steps(0, 4))
    before = learner.state()
    learner.train(draws.steps(4, 8))
    return Scene(learner, before, draws.steps(4, 8), learner.state(), seed=1)


def test_the_in_run_impact_is_of_the_windows_samples_at_their_steps(scene):
    """Little moves within four steps: the mean gradients of the window along the same directions are nearly it."""
    found_DT, covariance_DTT, _ = scene.in_run("all", "gradient")
    scene.learner.restore(scene.before)
    tasks = scene.meter("all").tasks(list(scene.world.observed_T.values()))
    expected_DT = (scene.running("all") @ tasks.gradients_TP.T).numpy()
    drawn_D = np.isfinite(covariance_DTT).all(axis=(1, 2))
    np.testing.assert_allclose(found_DT[drawn_D], expected_DT[drawn_D], rtol=1e-3, atol=1e-6)


def test_what_is_measured_is_at_the_checkpoint_wherever_the_training_stands(scene):
    scene.learner.restore(scene.here)
    expected_T = scene.learner.losses(scene.world.observed_T)
    scene.learner.restore(scene.before)
    again = Scene(scene.learner, scene.before, scene.window, scene.here, seed=1)
    assert again.observed() == pytest.approx(expected_T, abs=1e-5)


def test_estimates_leave_the_run_as_it_was(scene):
    scene.probe(2), scene.fresh("all", 4), scene.running("all")
    scene.learner.restore(scene.here)
    assert scene.learner.step == 8
    assert (scene.learner.losses(scene.world.observed_T) == scene.observed()).all()


# --- results -----------------------------------------------------------------------------------------------


def never(_scene):
    raise AssertionError("it was estimated again")


def test_what_is_done_is_skipped_and_a_new_estimate_is_scored_against_the_kept_truth(results, tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    path.write_bytes(results.read_bytes())
    known = dict.fromkeys(ESTIMATES, never)

    def no_world(seed):
        raise AssertionError("a world was made")

    validity.run(path, no_world, CONFIG, [1], [6], known)
    assert path.read_bytes() == results.read_bytes()
    monkeypatch.setattr(validity, "truth", never)
    new_DT = np.arange(NUM_DOMAINS * 2.0).reshape(NUM_DOMAINS, 2)
    validity.run(path, lambda seed: small_world(), CONFIG, [1], [6], known | {"new": lambda scene: new_DT})
    assert path.read_bytes().startswith(results.read_bytes()) and len(records.read(path)) == 3
    found = records.checkpoints(records.read(path))[1, 6]
    assert found.estimates.keys() == {*ESTIMATES, "new"} and (found.estimates["new"] == new_DT).all()


def test_a_line_says_how_it_was_made(results):
    for line in records.read(results):
        assert line["config"] == CONFIG and line["versions"].keys() == set(validity.LIBRARIES)
        assert line["command"] and line["cpu_seconds"] >= 0


def test_a_line_that_was_cut_off_is_passed_over_and_the_next_one_is_whole(results, tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(results.read_bytes()[:-40])
    assert len(records.read(path)) == 1
    records.add(path, {"seed": 2})
    assert records.read(path)[-1] == {"seed": 2} and len(records.read(path)) == 2


def test_a_truth_of_other_options_or_of_another_run_is_refused(results, tmp_path):
    with pytest.raises(DidsError, match=r"--k: got 9, allowed: 4, as .*results.jsonl has it, or another file"):
        validity.run(results, lambda seed: small_world(), CONFIG | {"k": 9}, [1], [6])
    path = tmp_path / "results.jsonl"
    line = next(line for line in records.read(results) if "truth" in line)
    path.write_text(json.dumps(line | {"losses": [loss + 0.01 for loss in line["losses"]]}) + "\n")
    with pytest.raises(DidsError, match="seed 1, step 6: got a loss of .*, allowed: .*, as where its truth"):
        validity.run(path, lambda seed: small_world(), CONFIG, [1], [6], {"new": never})


@pytest.mark.parametrize("step", [3, 9])
def test_a_checkpoint_without_room_before_or_after_it_is_refused(tmp_path, step):
    with pytest.raises(DidsError, match=f"--steps: got {step}, allowed: 4 to 8, of 12"):
        validity.run(tmp_path / "none.jsonl", lambda seed: small_world(), CONFIG, [1], [step])


# --- the table ---------------------------------------------------------------------------------------------


def made_up(seed: int, step: int) -> records.Checkpoint:
    generator = np.random.default_rng((seed, step))
    truth_RDT = TRUTH_DT + 0.01 * generator.standard_normal((2, 6, 1))
    estimates = {"good": TRUTH_DT, "bad": -TRUTH_DT, TODAY: TRUTH_DT * [[1], [0], [1], [1], [1], [1]]}
    return records.Checkpoint(list("abcdef"), ["task"], truth_RDT, np.zeros(1), estimates)


def test_the_table_has_the_ceiling_first_and_then_the_best_with_intervals():
    known = {(seed, step): made_up(seed, step) for seed in (1, 2) for step in (5, 9)}
    page = tables.table(known)
    about, _, head, _, ceiling, good, today, bad = page.splitlines()
    assert about.startswith("4 checkpoints (seeds 1, 2; steps 5, 9), 6 domains, 1 tasks. Reliability of the truth")
    assert head.startswith("| estimate | share of the gain |") and "ceiling" in ceiling
    assert good.startswith("| good | 1.00 ± 0.00 | 1.00 ± 0.00 | 100% ± 0% | **+0.")
    assert today.startswith(f"| **{TODAY}** (today's) | 0.5") and today.endswith("|  |")
    assert bad.startswith("| bad | −1.00")


def test_the_table_is_of_the_seeds_and_steps_that_are_asked_for(monkeypatch):
    known = {(seed, step): made_up(seed, step) for seed in (1, 2) for step in (5, 9)}
    assert tables.table(known, [2], [9]).startswith("1 checkpoints (seeds 2; steps 9)")
    assert "| good | 1.00 | 1.00 | 100% |  |" in tables.table(known, [2], [9])
    with pytest.raises(DidsError, match="results: got no checkpoint with a truth"):
        tables.table(known, [3])
    del known[1, 5].estimates["good"]
    assert "| good (3 of 4 checkpoints) |" in tables.table(known)


def test_a_size_of_other_tasks_than_the_nine_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["validity.py", "run", "results.jsonl", "--size", "quickstart"])
    with pytest.raises(SystemExit):
        validity.main()
    assert "invalid choice: 'quickstart' (choose from" in capsys.readouterr().err


# --- the mini preset's world -------------------------------------------------------------------------------


def test_a_domain_map_or_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DidsError, match="--domains: got '.*none', allowed: a folder with domains.json"):
        worlds.mini(tmp_path, tmp_path, 1, domains=tmp_path / "none")
    with pytest.raises(DidsError, match="--model: got '.*none', allowed: a folder with config.json"):
        worlds.mini(tmp_path, tmp_path, 1, model=tmp_path / "none")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with two sources and two tasks."""

    def write(name: str, count: int) -> None:
        rows = [{"instruction": f"{name} {i}", "input": "", "output": f"answer {i}"} for i in range(count)]
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")

    write("data/train/poems", 100)
    write("data/train/sums", 60)
    for task in ("boolq", "piqa"):
        write(f"data/eval/{task}_val", 50)
        write(f"data/eval/{task}_test", 30)
    (tmp_path / "data/dataset_info.json").write_text("{}")
    monkeypatch.setitem(runner.SIZES, "cpu", replace(sizes.CPU, tasks=("boolq", "piqa"), unseen=()))
    monkeypatch.setattr(sizes, "TASKS", ("boolq", "piqa"))
    return tmp_path / "data"


def test_a_continued_world_begins_with_the_proxy_which_began_from_scratch(tmp_path, data, monkeypatch):
    monkeypatch.setattr(worlds, "of_keys", lambda keys, held_out: keys)
    runs = []
    monkeypatch.setattr(runner, "_in_a_process", lambda function, values, log, start: runs.append(values))
    keys = worlds.mini(data, tmp_path / "saves", 3, continued=True)
    (proxy,) = runs
    assert keys["model_name_or_path"] == proxy["output_dir"] and not proxy["bf16"]
    assert proxy["model_name_or_path"] == str(tmp_path / "saves/fp32/models" / str(sizes.PROXY_SEED))
    assert (tmp_path / "saves/fp32/models" / str(sizes.PROXY_SEED) / "config.json").exists()
    assert (keys["learning_rate"], proxy["learning_rate"]) == (5e-4, 2e-3)


def test_another_model_is_trained_as_a_continued_one_and_needs_no_proxy(tmp_path, data, monkeypatch):
    monkeypatch.setattr(worlds, "of_keys", lambda keys, held_out: keys)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    keys = worlds.mini(data, tmp_path / "saves", 3, model=tmp_path / "model")
    assert keys["model_name_or_path"] == str(tmp_path / "model") and keys["learning_rate"] == 5e-4


@pytest.mark.integration
def test_the_mini_presets_world_has_its_sources_or_a_maps_clusters_as_domains_and_its_training(
    tmp_path, data, monkeypatch
):
    plans, make_plan = [], planning.make_plan
    monkeypatch.setattr(planning, "make_plan", lambda source: plans.append(make_plan(source)) or plans[-1])
    world = worlds.mini(data, tmp_path / "saves", 1, held_out=20)
    assert {name: len(rows) for name, rows in world.rows_D.items()} == {"poems": 15, "sums": 9}
    assert {name: len(rows) for name, rows in world.observed_T.items()} == {"boolq": 40, "piqa": 40}
    assert {name: len(rows) for name, rows in world.held_out_T.items()} == {"boolq": 20, "piqa": 20}
    assert world.training == replace(worlds.Training(), learning_rate=2e-3, max_steps=200, batch_size=32)
    assert world.mixture_D == pytest.approx([0.5 * 15 / 24 + 0.25, 0.5 * 9 / 24 + 0.25])
    learner = Learner(world)
    learner.train(Draws.by(world.mixture_D, 1, 4, 0))
    assert np.isfinite(learner.losses(world.held_out_T)).all()

    sources = plans[0]["mixing"].domain_map
    clusters = replace(sources, names=("a", "b", "c"), domains_N=np.arange(24) % 3, inputs={})
    save_map(clusters, tmp_path / "map")
    world = worlds.mini(data, tmp_path / "saves", 1, domains=tmp_path / "map")
    assert {name: len(rows) for name, rows in world.rows_D.items()} == {"a": 8, "b": 8, "c": 8}
