"""Runs side by side: budgets, ties, seeds, and what the page shows of them."""

import json
import shutil

import numpy as np
import pytest
from scipy import stats

from llamafactory_dids.artifacts.files import read_json, write_json
from llamafactory_dids.artifacts.mixture_log import MixtureLog
from llamafactory_dids.errors import DidsError
from llamafactory_dids.report.compare import compare
from llamafactory_dids.report.compare_pictures import loss_figure, shares_figure
from llamafactory_dids.report.groups import difference, mean_of
from llamafactory_dids.report.html import write_comparison, write_report
from llamafactory_dids.report.run import load_run
from tests.report.made_up import write_run
from tests.report.test_html import COST, read

STATE = {"global_step": 640, "train_batch_size": 125}


def make_run(folder, strategy="dids", seed=1, losses=None, steps=640, **options):
    """A run of 80,000 samples in 640 steps, whose held-out losses are given."""
    config = f"mix_strategy: {strategy}\nseed: {seed}\noutput_dir: {folder}\nmodel_name_or_path: models/{seed}/m\n"
    write_run(folder / "dids", 12, 21, num_sources=3, seed=seed, config=config, **options)
    (folder / "trainer_state.json").write_text(json.dumps(STATE | {"global_step": steps}))
    if losses is not None:
        results = {f"eval_{task}_test_loss": loss for task, loss in zip("abc", losses, strict=True)}
        (folder / "all_results.json").write_text(json.dumps(results))
    return folder / "dids"


def make_pair(folder, **second):
    return [make_run(folder / "one", seed=1), make_run(folder / "two", **({"seed": 5} | second))]


def keep_lines(folder, count):
    """Leave the first lines of a run's log alone."""
    log = MixtureLog(folder / "mixture.jsonl")
    log.replace(log.read()[:count])


def said(folders, output):
    path, comparison = write_comparison(folders, output / "comparison.html")
    return comparison, read(path).text


def test_a_comparison_has_each_groups_shares_at_the_end_beside_those_of_the_data(tmp_path):
    folders = make_pair(tmp_path)
    path, comparison = write_comparison(folders, tmp_path / "comparison.html")
    names = {path.name for path in (tmp_path / "comparison_files").iterdir()}
    assert names == {"shares.png", "shares.svg", "losses.csv", "runs.csv", "shares.csv"}
    rows = comparison.as_dict()["shares"]
    assert comparison.unit == "domain" and len(rows) == 2 * len(comparison.names)
    for group, folder in zip(comparison.groups, folders, strict=True):
        last = load_run(folder).lines[-1]["probabilities"]
        assert {row["domain"]: row["end"] for row in rows if row["group"] == group.label} == pytest.approx(last)
    assert sum(row["data"] for row in rows) == pytest.approx(2)


def test_the_pictures_have_the_losses_of_all_runs_over_samples_and_what_each_was_fed(tmp_path):
    folders = of_seeds(tmp_path)
    comparison = compare([load_run(folder) for folder in folders])
    losses = loss_figure(comparison)
    titles = [axes.get_title() for axes in losses.axes]
    assert titles == ["mean of 3, observed", *(f"task_{j}_val, observed" for j in range(3))] + [""] * 2
    lines = losses.axes[1].get_lines()
    assert len(lines) == 2 * (4 + 1), "each run, and the mean of each group"
    expected = load_run(folders[0]).record.task_losses_UT[1:, 0]
    assert lines[0].get_ydata() == pytest.approx(expected.tolist()), "what was measured before the training is left out"
    runs = [load_run(folders[i]).record.task_losses_UT[1:, 0] for i in (0, 2, 4, 6)]
    assert lines[4].get_ydata() == pytest.approx(np.mean(runs, axis=0).tolist())
    shares = shares_figure(comparison)
    assert [axes.get_title() for axes in shares.axes] == ["", "dids", "proportional"]
    assert sum(bar.get_height() for bar in shares.axes[0].patches) == pytest.approx(1)


def test_a_picture_that_has_no_room_for_all_runs_says_so(tmp_path):
    runs = [load_run(make_run(tmp_path / str(i), f"strategy_{i}")) for i in range(9)]
    assert shares_figure(compare(runs)).get_suptitle() == "What each run was fed (the first 8 of 9)"
    assert shares_figure(compare(runs[:8])).get_suptitle() == "What each run was fed"


def test_runs_that_were_evaluated_at_their_ends_alone_are_dots(tmp_path):
    folders = [make_run(tmp_path / name, losses=(1, 2, 3), measured=False) for name in ("one", "two")]
    figure = loss_figure(compare([load_run(folder) for folder in folders]))
    assert [axes.get_title() for axes in figure.axes[:2]] == ["mean of 3, held out", "a_test, held out"]
    (line, _) = figure.axes[0].get_lines()
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([80_000], [2.0])


def test_runs_of_other_budgets_are_refused_as_a_verdict(tmp_path):
    """The second was trained on a quarter; its losses are lower."""
    folders = [
        make_run(tmp_path / "one", losses=(2, 2, 2)),
        make_run(tmp_path / "two", seed=5, losses=(1, 1, 1), steps=160),
    ]
    keep_lines(folders[1], 6)
    comparison, text = said(folders, tmp_path)
    assert comparison.said == () and "not trained on equally many samples (one 80,000, two 20,000)" in text
    assert "ends lower" not in text and 'class="best"' not in (tmp_path / "comparison.html").read_text()
    assert comparison.as_dict()["refused"].startswith("No verdict: ")


def test_a_budget_that_nothing_tells_is_not_taken_for_an_equal_one(tmp_path):
    folders = make_pair(tmp_path, strategy="proportional")
    keep_lines(folders[1], 1)
    (folders[1].parent / "trainer_state.json").unlink()
    assert "(one 80,000, two unknown)" in said(folders, tmp_path)[1]


def test_the_budget_of_a_mixture_that_was_logged_once_is_the_trainers_own_count(tmp_path):
    folders = make_pair(tmp_path, strategy="proportional", losses=(2, 2, 2))
    keep_lines(folders[1], 1)
    comparison, _ = said(folders, tmp_path)
    assert [summary.samples for summary in comparison.summaries] == [80_000, 80_000] and not comparison.refused


def test_what_was_measured_before_the_training_is_compared_with_nothing(tmp_path):
    folders = make_pair(tmp_path, strategy="proportional")
    keep_lines(folders[1], 1)  # with losses, at sample 0
    comparison, text = said(folders, tmp_path)
    assert comparison.summaries[1].losses == {} and comparison.said == ()
    assert loss_figure(compare([load_run(folders[1])] * 2)) is None, "no panel without a point"
    assert "The runs have no losses of the same tasks, measured after equally many samples" in text


def test_observed_losses_are_compared_where_they_were_measured_after_equally_many_samples(tmp_path):
    folders = make_pair(tmp_path)
    assert len(said(folders, tmp_path)[0].said) == 1
    keep_lines(folders[1], 11)  # broken off; 80,000 trained
    assert said(folders, tmp_path)[0].said == ()


def test_a_run_whose_loss_is_not_a_number_is_not_called_lower(tmp_path):
    folders = [make_run(tmp_path / "one", losses=[np.nan] * 3), make_run(tmp_path / "two", seed=5, losses=(1, 2, 3))]
    comparison, text = said(folders, tmp_path)
    assert not any(sentence.startswith("On the held-out data") for sentence in comparison.said)
    assert "b_test – 2.000 –" in text


def test_a_run_against_its_copy_is_a_tie(tmp_path):
    one = make_run(tmp_path / "one", losses=(1.0, 2.0, 3.0))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    comparison, text = said([one, tmp_path / "two" / "dids"], tmp_path)
    expected = (
        "On the held-out data, one and two end level: mean loss 2.000 and 2.000; lower on 0 of 3 tasks, higher on 0"
    )
    assert comparison.said[0].startswith(expected) and expected in text
    assert 'class="best"' not in (tmp_path / "comparison.html").read_text()


def test_a_comparison_begins_with_which_run_ends_lower(tmp_path):
    folders = [make_run(tmp_path / "one", losses=(1, 2, 3)), make_run(tmp_path / "two", "odm", losses=(1.5, 1, 2))]
    comparison, text = said(folders, tmp_path)
    words = (
        "On the held-out data, two ends lower than one: mean loss 1.500 against 2.000; lower on 2 of 3 tasks, "
        "higher on 1, level on 0."
    )
    assert comparison.said[0] == words and words in text
    assert comparison.said[1].startswith("On the observed samples, ")
    assert "mean 2.000 1.500 +0.500 a_test 1.000 1.500 −0.500" in text
    (tmp_path / "one" / "all_results.json").unlink()
    assert len(said(folders, tmp_path)[0].said) == 1, "what one run lacks is not compared"


def of_seeds(folder, gap=0.1, noise=0.001):
    """Two strategies over four seeds: one is lower by `gap`, and seeds differ by far more."""
    rng = np.random.default_rng(3)
    found = []
    for seed in (1, 2, 3, 4):
        for strategy, less in (("dids", gap), ("proportional", 0)):
            losses = [2 + seed - less + x for x in rng.normal(0, noise, 3)]
            found.append(make_run(folder / "seeds" / str(seed) / strategy, strategy, seed, losses))
    return found


def test_runs_of_a_strategy_over_seeds_are_a_group_with_paired_intervals(tmp_path):
    folders = of_seeds(tmp_path)
    comparison, text = said(folders, tmp_path)
    assert [(group.label, group.seeds) for group in comparison.groups] == [
        ("dids", (1, 2, 3, 4)),
        ("proportional", (1, 2, 3, 4)),
    ]
    ends = [np.mean(list(summary.held_out.values())) for summary in comparison.summaries]
    expected = stats.ttest_rel(ends[::2], ends[1::2]).confidence_interval(0.95)
    words = f"95% interval {-expected.high:.3f} to {-expected.low:.3f}, 4 seeds, paired by seed)"
    assert words in comparison.said[0] and "dids ends lower than proportional" in text
    assert "dids − proportional" in text and "dids (n = 4)" in text
    assert comparison.as_dict()["groups"][0]["members"] == (0, 2, 4, 6)


def test_what_seeds_do_not_tell_apart_is_not_called_lower(tmp_path):
    comparison, _ = said(of_seeds(tmp_path, gap=0.01, noise=0.2), tmp_path)
    assert comparison.said[0].startswith("On the held-out data, 4 seeds do not tell ")


def test_runs_that_differ_in_more_than_a_seed_are_no_group(tmp_path):
    folders = of_seeds(tmp_path)
    config = folders[0] / "config.yaml"
    config.write_text(config.read_text() + "learning_rate: 1.0\n")
    comparison, text = said(folders, tmp_path)
    assert [group.members for group in comparison.groups] == [(0,), (1, 3, 5, 7), (2, 4, 6)]
    assert "learning_rate 1.0 – –" in text


def test_intervals_are_those_of_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 0.3, 5), rng.normal(0, 0.2, 4)
    apart = difference(dict(enumerate(a)), {10 + i: x for i, x in enumerate(b)})
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (apart.mean - apart.half, apart.mean + apart.half) == pytest.approx((expected.low, expected.high))
    paired = difference(dict(enumerate(a)), dict(enumerate(b)))
    expected = stats.ttest_rel(a[:4], b).confidence_interval(0.95)
    assert (paired.mean - paired.half, paired.mean + paired.half) == pytest.approx((expected.low, expected.high))
    assert mean_of([2.0]).half is None and mean_of([1.0, 3.0]).half == pytest.approx(12.7062, rel=1e-4)


def test_shares_of_tokens_are_compared_as_shares_of_samples_with_a_run_that_has_these(tmp_path):
    """Both runs draw the same samples: by their number, and by their tokens, which are more in every next domain."""
    folders = [make_run(tmp_path / name) for name in ("samples", "tokens")]
    log = MixtureLog(folders[1] / "mixture.jsonl")
    lines = log.read()
    tokens = {name: 10.0 * (i + 1) for i, name in enumerate(lines[0]["probabilities"])}
    for line in lines:
        amounts = {name: p * tokens[name] for name, p in line["probabilities"].items()}
        line["probabilities"] = {name: amount / sum(amounts.values()) for name, amount in amounts.items()}
        line |= {"share_of": "tokens", "tokens_per_sample": tokens}
    log.replace(lines)
    for order in (folders, folders[::-1]):
        found = compare([load_run(folder) for folder in order])
        assert found.shares[0] == pytest.approx(found.shares[1])
        assert found.data == pytest.approx(compare([load_run(folders[0])] * 2).data)


def test_tokens_that_differ_are_told_and_links_lead_to_the_runs_reports(tmp_path):
    folders = make_pair(tmp_path)
    log = MixtureLog(folders[1] / "mixture.jsonl")
    lines = log.read()
    lines[-1]["domain_tokens"] = {name: 2 * count for name, count in lines[-1]["domain_tokens"].items()}
    log.replace(lines)
    write_report(folders[0])
    comparison, text = said(folders, tmp_path / "one")
    assert [summary.tokens for summary in comparison.summaries] == [800_000, 1_600_000]
    assert "two was trained on 1,600,000 (whose loss was counted), one on 800,000" in text
    assert 'href="dids/report.html"' in (tmp_path / "one" / "comparison.html").read_text()


def test_a_comparison_has_what_each_run_cost(tmp_path):
    folders = make_pair(tmp_path)
    (folders[0] / "cost.json").write_text(json.dumps(COST))
    comparison, text = said(folders, tmp_path)
    assert [(run.seconds, run.update_seconds, run.domain_seconds) for run in comparison.summaries] == [
        (620, 61.5, 300.0),
        (1230.0, None, None),
    ]
    assert "5 min 10.3 min 61.5 s two" in text and "– 20.5 min –" in text


def test_runs_with_other_domains_are_compared_by_data_set(tmp_path):
    folders = make_pair(tmp_path)
    write_run(tmp_path / "other" / "dids", 6, 21, num_sources=3)
    comparison = compare([load_run(folders[0]), load_run(tmp_path / "other" / "dids")])
    assert comparison.unit == "data set"
    rows = comparison.last_shares()
    assert [row["data_set"] for row in rows[::2]] == ["source_0", "source_1", "source_2"]
    assert [sum(row["end"] for row in rows[run::2]) for run in range(2)] == pytest.approx([1, 1])


def test_domains_of_the_same_names_and_other_sizes_are_not_the_same(tmp_path):
    folders = make_pair(tmp_path)
    path = folders[1] / "domains.json"
    content = read_json(path)
    content["domains"][0]["size"] += 1
    write_json(path, content)
    assert compare([load_run(folder) for folder in folders]).unit == "data set"


def test_runs_with_nothing_in_common_are_refused_by_name(tmp_path):
    write_run(tmp_path / "a", 4, 3, num_sources=2)
    write_run(tmp_path / "b", 4, 3, num_sources=4)
    with pytest.raises(DidsError, match="/a and .*/b: neither the same domains nor the same data sets"):
        write_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "c.html")


def test_a_task_that_one_run_alone_was_measured_on_is_left_to_its_own_report(tmp_path):
    folders = make_pair(tmp_path)
    for folder in folders:
        history = [{"step": step, "eval_a_test_loss": 2.0} for step in (0, 320, 640)]  # 0: `eval_on_start`
        (folder.parent / "trainer_state.json").write_text(json.dumps(STATE | {"log_history": history}))
    log = MixtureLog(folders[1] / "mixture.jsonl")
    log.replace([line | {"task_loss": {}} for line in log.read()])
    figure = loss_figure(compare([load_run(folder) for folder in folders]))
    assert [axes.get_title() for axes in figure.axes] == ["a_test, held out"]
    assert [list(line.get_xdata()) for line in figure.axes[0].get_lines()] == [[40_000, 80_000]] * 2
