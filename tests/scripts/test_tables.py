"""Intervals over seeds, and the tables and the picture that are made of them."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from llamafactory_dids.errors import DidsError
from scripts.experiments import compare, figures, pages, results, stats


def test_an_interval_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    first, second = rng.normal(5, 1, 6), rng.normal(4.5, 1, 6)
    expected = scipy_stats.ttest_rel(first, second).confidence_interval(0.95)
    found = stats.estimate(list(first - second))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((expected.low, expected.high))
    assert stats.plus_minus(list(first - second)) == f"{found.mean:.3f} ± {found.half:.3f}"
    assert stats.plus_minus([-1.0], 1) == "−1.0" and stats.plus_minus([]) == "–"
    with pytest.raises(ValueError, match="values: got 1, allowed: at least 2"):
        stats.estimate([1.0])


def made_up(values: list[float]) -> dict[int, dict]:
    rest = {"unseen": {"c": 1.0}, "accuracy": {"d": 0.5}, "samples": 640, "proxy_samples": 0, "cpu_seconds": 9.0}
    return {seed: {"losses": {"a": value, "b": value + 1}, **rest} for seed, value in enumerate(values)}


@pytest.fixture
def leave(tmp_path, monkeypatch):
    """A function that leaves results, a folder of its own for the test."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)

    def put(place: str, lines: dict[int, dict]) -> None:
        for seed, line in lines.items():
            results.add(tmp_path / f"{place}.jsonl", {"seed": seed, **line})

    return put


def test_differences_are_paired_by_seed_and_bold_where_the_interval_excludes_zero():
    noise = [0.3, -0.2, 0.9, 0.0]
    worse, better = made_up([1 + x for x in noise]), made_up([0.5 + x + 1e-3 * i for i, x in enumerate(noise)])
    assert stats.difference(better, worse).startswith("**−0.498 [")
    assert stats.difference(better, made_up([1.0, 0.1])) == stats.difference(
        {seed: better[seed] for seed in (0, 1)}, made_up([1.0, 0.1])
    )
    assert not stats.difference(better, better)
    assert stats.difference({0: better[0]}, worse) == "−0.500 (one seed)"
    assert not stats.difference({0: better[0]}, {1: worse[1]})


def test_a_table_stands_between_its_markers_and_says_what_was_not_run(leave):
    leave("mini/dids", made_up([1.0, 1.1]))
    leave("mini/uniform", made_up([2.0, 2.2]))
    page = "before\n<!-- mini: uniform, dids, doge | against: uniform -->\nold\n<!-- end -->\nafter\n"
    once = pages.rebuilt(page)
    assert pages.rebuilt(once) == once and "old" not in once
    assert once.startswith("before\n<!-- mini: uniform, dids, doge | against: uniform -->") and once.endswith("after\n")
    assert once.index("| `dids` |") < once.index("| `uniform` |") and "Not run: doge." in once
    assert f"| `dids` | 2 | {1.55:.3f} |" in once


def test_a_table_of_several_folders_has_the_first_run_and_the_others_less_it(leave):
    leave("mini/dids", made_up([1.0, 1.1]))
    leave("mini/uniform", made_up([2.0, 2.2]))
    leave("mini_gpu/dids", made_up([3.0, 3.1]))
    lines = pages.rebuilt("<!-- mini, mini_gpu: dids, uniform -->\n<!-- end -->\n").splitlines()
    above = stats.ends([1.0, 1.1])
    assert "| `dids` | 1.550 | 3.550 | 1.000 |" in lines
    assert f"| `uniform` | {above} | – | {stats.ends([0.0, 0.0])} |" in lines
    one = pages.rebuilt("<!-- mini: dids, uniform -->\n<!-- end -->\n").splitlines()
    assert "| `dids` | 1.550 | 1.000 |" in one and f"| `uniform` | {above} | {stats.ends([0.0, 0.0])} |" in one


def test_a_marker_says_which_folder_its_results_are_in(leave):
    leave("mini_first/dids", made_up([1.0]))
    page = "".join(f"<!-- {preset}: dids | against: doge -->\n<!-- end -->\n" for preset in ("mini", "mini_first"))
    new, old = pages.rebuilt(page).split("<!-- mini_first:")
    assert "Not run: dids." in new and "| `dids` | 1 |" in old


def test_the_table_of_tasks_has_each_tasks_mean_over_seeds(leave):
    leave("mini/dids", made_up([1.0, 1.5]))
    page = "<!-- mini tasks: dids, doge -->\n<!-- end -->\n"
    lines = pages.rebuilt(page).splitlines()
    assert "| run | a | b | c (unseen) |" in lines and "| `dids` | 1.25 | 2.25 | 1.00 |" in lines


def test_the_picture_shows_differences_to_proportional_of_the_seeds_in_common(leave):
    leave("mini/dids", made_up([1.0, 1.1, 9.0]))
    leave("mini/proportional", made_up([2.0, 2.3]))
    assert figures.differences("dids", "mini") == pytest.approx([-1.0, -1.2])
    assert figures.differences("doge", "mini") == []
    text = figures.draw(("dids", "doge"))
    assert "from scratch" in text and "continued" not in text, "only where the first strategy was run"


def test_the_picture_has_dots_of_each_preset_that_was_run(leave):
    for preset in pages.TITLES:
        leave(f"{preset}/dids", made_up([1.0, 1.1]))
        leave(f"{preset}/proportional", made_up([2.0, 2.3]))
    text = figures.draw(("dids",))
    assert [title for title in pages.TITLES.values() if f">{title}<" not in text] == []


# --- two runs beside each other ----------------------------------------------------------------------------


LOSSES_RS = np.random.default_rng(7).normal(4.0, 0.3, (2, 5))  # two runs, five seeds


@pytest.fixture
def some_runs(leave):
    """Runs `one` and `two` of the folder `mini`, `alone`, which has a single seed, and `other`, with another task."""
    for number, (name, losses_S) in enumerate(zip(("one", "two"), LOSSES_RS, strict=True)):
        shares = {"poems": 0.1 * (1 + number), "sums": 0.9 - 0.1 * number, "rare": 0.001}
        leave(f"mini/{name}", {seed: line | {"shares": shares} for seed, line in made_up(losses_S.tolist()).items()})
    leave("mini/alone", made_up([1.0]))
    leave("mini/other", {seed: {"losses": {"a": 1.0}, "unseen": {}} for seed in range(5)})


def row_of(page: str, label: str) -> list[str]:
    (found,) = [line for line in page.splitlines() if line.startswith(f"| {label} |")]
    return [word.strip() for word in found.strip("|").split("|")]


def said(differences: np.ndarray) -> str:
    """By scipy's t test, which shares nothing with what is tested."""
    low, high = scipy_stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    text = f"{differences.mean():+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−")
    return f"**{text}**" if low > 0 or high < 0 else text


def test_two_runs_are_compared_by_task_and_on_their_mean(some_runs):
    one, two = LOSSES_RS
    page = compare.page("mini/one", "mini/two")
    for label, more in (("**mean of 2 observed tasks**", 0.5), ("b", 1.0)):
        means = [f"{run.mean() + more:.3f}" for run in (one, two)]
        assert row_of(page, label) == [label, *means, said(one - two), f"{(one < two).sum()} of 5"]
    assert "seeds 0, 1, 2, 3, 4" in page and row_of(page, "c")[1:3] == ["1.000", "1.000"]


def test_seeds_above_the_number_are_left_out(some_runs):
    first, second = LOSSES_RS[:, :3]
    page = compare.page("mini/one", "mini/two", seeds=2)
    assert row_of(page, "a")[3:] == [said(first - second), f"{(first < second).sum()} of 3"]


def test_what_was_drawn_stands_below_but_for_what_nobody_drew(some_runs):
    page = compare.page("mini/one", "mini/two")
    assert row_of(page, "sums") == ["sums", "90.0%", "80.0%"] and row_of(page, "poems") == ["poems", "10.0%", "20.0%"]
    assert "rare" not in page and page.index("sums") < page.index("poems")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("mini/lost", "run: got 'mini/lost', allowed: the folder and name of a file in docs/results"),
        ("mini/alone", "allowed: runs with at least two seeds in common (they have 1)"),
        ("mini/other", "runs: got 'mini/one, mini/other', allowed: runs that were scored on the same tasks"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_by_name(some_runs, other, said):
    with pytest.raises(DidsError) as refused:
        compare.page("mini/one", other)
    assert said in str(refused.value)
