import math

import numpy as np
import pytest

from llamafactory_dids.training.progress import MAX_SERIES, NUM_MOVERS, Progress, tracker_series, update_table


def progress(num_domains: int, **changes) -> Progress:
    rng = np.random.default_rng(num_domains)
    start_D, before_D, now_D = (w / w.sum() for w in 1 + rng.random((3, num_domains)))
    values = {
        "domains": [f"set/{i}" for i in range(num_domains)],
        "tasks": ["exam", "quiz"],
        "start_D": start_D,
        "before_D": before_D,
        "now_D": now_D,
        "losses_UT": np.array([[3.0, 2.0], [2.5, 2.0], [2.2, 2.001], [2.0, 2.0], [1.9, 2.0]]),
        "impact_DT": rng.normal(size=(num_domains, 2)),
    }
    return Progress(**(values | changes))


def test_each_of_a_few_domains_has_a_series_with_its_probability_and_impacts():
    given = progress(5)
    series = tracker_series(given)
    for i, name in enumerate(given.domains):
        assert series[f"dids/p/{name}"] == given.now_D[i]
        for j, task in enumerate(given.tasks):
            assert series[f"dids/impact/{task}/{name}"] == given.impact_DT[i, j]
    assert series["dids/loss/exam"] == 1.9 and series["dids/loss/quiz"] == 2.0


def test_of_many_domains_the_ten_furthest_from_their_start_have_one_and_impacts_are_summed_up():
    given = progress(MAX_SERIES + 1)
    series = tracker_series(given)
    shown = {name.removeprefix("dids/p/") for name in series if name.startswith("dids/p/")}
    moved = {name: abs(given.now_D[i] - given.start_D[i]) for i, name in enumerate(given.domains)}
    assert shown == set(sorted(moved, key=moved.get)[-NUM_MOVERS:])
    for j, task in enumerate(given.tasks):
        found = {name.rsplit("/", 1)[1]: x for name, x in series.items() if name.startswith(f"dids/impact/{task}/")}
        column = given.impact_DT[:, j]
        assert found == pytest.approx({"mean": column.mean(), "max": column.max(), "min": column.min()})
    assert len(tracker_series(progress(1152))) == len(series), "whatever the number of domains"


def test_an_even_mixture_has_as_many_effective_domains_as_domains():
    even = np.full(8, 1 / 8)
    series = tracker_series(progress(8, now_D=even))
    assert series["dids/mixture/effective_domains"] == pytest.approx(8)
    assert series["dids/mixture/entropy"] == pytest.approx(math.log(8))
    one = tracker_series(progress(8, now_D=np.eye(8)[0]))
    assert one["dids/mixture/effective_domains"] == pytest.approx(1)
    assert (one["dids/mixture/max"], one["dids/mixture/min"]) == (1, 0)


def test_what_was_not_measured_or_is_not_finite_has_no_series():
    series = tracker_series(progress(3, losses_UT=np.array([[np.nan, 1.0]]), impact_DT=None))
    assert "dids/loss/exam" not in series and series["dids/loss/quiz"] == 1
    assert not any(name.startswith("dids/impact") for name in series)
    assert not any(name.startswith("dids/loss") for name in tracker_series(progress(3, losses_UT=None)))


def test_the_table_shows_the_largest_moves_and_where_each_loss_is_going():
    before_D = np.array([0.25, 0.25, 0.2, 0.1, 0.1, 0.1])
    now_D = np.array([0.1, 0.4, 0.2, 0.15, 0.08, 0.07])
    lines = update_table(progress(6, before_D=before_D, now_D=now_D), width=120).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["set/1", "set/3", "set/4", "set/5", "set/0"]
    assert lines[1].split() == ["set/1", "25.00%", "40.00%", "exam", "1.9000", "-0.1000", "falling"]
    assert lines[2].split() == ["set/3", "10.00%", "15.00%", "quiz", "2.0000", "+0.0000", "level"]
    assert len({line.index("%") for line in lines[1:]}) == 1, "columns"


def test_a_move_that_does_not_show_has_no_row():
    before_D = np.array([0.5, 0.3, 0.2])
    assert "set/1" not in update_table(progress(3, before_D=before_D, now_D=before_D + [0.1, -1e-6, -0.1]))


def test_a_loss_that_rose_is_said_to_be_above_its_lowest():
    text = update_table(progress(2, losses_UT=np.array([[3.0, 1.0], [2.0, 1.0], [2.5, np.nan]])))
    assert "2.5000  +0.5000  above its lowest" in text and "not finite" in text


def test_the_table_is_short_and_narrow_for_a_thousand_domains_with_long_names():
    names = [f"a_rather_long_name_of_a_data_set_{i}/{i}" for i in range(1152)]
    wide = update_table(progress(1152, domains=names), width=112).splitlines()
    assert len(wide) == 7 and max(map(len, wide)) <= 112


@pytest.mark.parametrize("width", [None, 80, 111])
def test_the_table_fits_80_columns_unless_there_are_more(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"a_rather_long_name_of_a_data_set_{i}/{i}" for i in range(72)]
    tasks = ["a_rather_long_name_of_a_task_to_observe_1", "quiz"]
    losses = np.array([[3.0, 1.0], [2.0, 1.0], [2.5, 1.0]])
    lines = update_table(progress(72, domains=names, tasks=tasks, losses_UT=losses), width).splitlines()
    assert len(lines) == 7 + 3 and max(map(len, lines)) <= 80
    assert lines[0].split() == ["domain", "before", "now"] and lines[7].split() == ["task", "loss", "change", "trend"]
    assert "above its lowest" in lines[8]


def test_a_loss_that_fell_reads_as_falling_though_it_has_been_lower():
    text = update_table(progress(2, losses_UT=np.array([[3.0, 1.0], [1.9, 1.0], [2.8, 1.0], [2.04, 1.0]])))
    assert "2.0400  -0.7600  falling" in text and "above" not in text


def test_a_table_does_not_run_into_a_bar_that_stands_on_the_terminal(capsys, monkeypatch):
    import io

    from tqdm import tqdm

    from llamafactory_dids.stages.bar import beside_bars

    screen = io.StringIO()
    monkeypatch.setattr("sys.stdout", screen)
    with tqdm(total=2, file=screen) as bar:
        bar.update(1)
        with beside_bars():
            print("table")
    before = screen.getvalue().split("table")[0]
    assert before.endswith("\r") and before.split("\r")[-2].strip() == "", "a blank line, and its start"


def test_without_tasks_the_table_has_the_moves_alone():
    assert "task" not in update_table(progress(3, losses_UT=None, impact_DT=None))
