"""What the page shows of a folder, and what stands in front of the host's functions."""

import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("llamafactory")
import gradio as gr
from llamafactory.extras.constants import TRAINER_LOG
from llamafactory.webui.common import gen_cmd

from llamafactory_dids.artifacts.domain_map import BY_SOURCE, DomainMap, load_map, save_map
from llamafactory_dids.artifacts.mixture_log import MixtureLog
from llamafactory_dids.integration.webui import fields, figures, page, view
from tests.report.letters import only_font

pytestmark = pytest.mark.integration


def write_log(folder, shares, losses=()):
    """A log of these probabilities of `a/0`, `a/1`, …, an update every 100 samples."""
    log = MixtureLog(folder / "mixture.jsonl")
    for update, row in enumerate(shares):
        names = [f"a/{i}" for i in range(len(row))]
        line = {"step": update, "samples_seen": 100 * update, "probabilities": dict(zip(names, row, strict=True))}
        log.append({**line, "task_loss": dict(losses[update]) if losses else {}})
    return log


@pytest.fixture
def run(tmp_path):
    """A run's output folder: two domains, of which the first took over."""
    folder = tmp_path / "out"
    write_log(folder / "dids", [[0.5, 0.5], [0.75, 0.25]], [{"t": 2.0}, {"t": 1.5}])
    domain_map = DomainMap(
        ("a/0", "a/1"),
        ["k0", "k1", "k2", "k3"],
        ["a", "b", "a", "a"],
        np.array([0, 0, 0, 1]),
        {"a/0": ["<script>alert(1)</script>", "second"], "a/1": []},
    )
    save_map(domain_map, folder / "dids")
    return folder


def text_of(html):
    return re.sub(r"<[^>]+>", "|", html)


def test_table_says_size_sources_and_probability_the_most_probable_first(run):
    table = view.show_domains("en", str(run))
    rows = [[cell for cell in text_of(row).split("|") if cell] for row in table.split("<tr>")[2:]]
    assert rows[0][:5] == ["a/0", "3", "a 67%, b 33%", "75.00%", "×1.50"]
    assert rows[1][:5] == ["a/1", "1", "a 100%", "25.00%", "×0.50"]


def test_samples_are_shown_as_text_never_as_html(run):
    table = view.show_domains("en", str(run))
    assert "<script>" not in table and "&lt;script&gt;" in table and "second" in table


def test_samples_that_are_random_are_called_so(run):
    assert "Typical samples" in view.show_domains("en", str(run))
    save_map(replace(load_map(run / "dids"), inputs=BY_SOURCE), run / "dids")
    table = view.show_domains("en", str(run))
    assert "Samples drawn at random" in table and "Typical samples" not in table


def test_map_without_a_run_has_no_probabilities(run):
    (run / "dids" / "mixture.jsonl").unlink()
    assert "%</td>" in view.show_domains("en", str(run / "dids")) and "–" in view.show_domains("en", str(run / "dids"))
    assert "75.00%" not in view.show_domains("en", str(run))


@pytest.mark.parametrize("path", ["", "/no/such/folder", "  "])
def test_what_is_no_map_is_told_in_a_line(path):
    said = view.show_domains("en", path)
    assert said.startswith("<p>") and "allowed" in said or "no such file" in said
    assert "\n" not in said


def test_look_shows_a_run_once_and_again_when_it_has_changed(run):
    look = ("en", "Custom", "lora", str(run))
    seen, *shown = view.look(*look, None)
    assert [update["visible"] for update in shown[:2]] == [True, True]
    assert view.look(*look, seen) == [gr.skip()] * (1 + len(view.SHOWN))
    write_log(run / "dids", [[0.9, 0.1]], [{"t": 1.0}])
    assert view.look(*look, seen)[0] != seen


def test_look_at_a_folder_that_is_not_there_takes_away_what_was_shown(run, tmp_path):
    seen, *_ = view.look("en", "Custom", "lora", str(run), None)
    _, probabilities, losses, report, *texts = view.look("en", "Custom", "lora", str(tmp_path / "new"), seen)
    assert not (probabilities["visible"] or losses["visible"] or report["visible"]) and texts == ["", "", ""]


def test_report_is_framed_whole_and_apart_from_the_page(run):
    report = '<h1 title="a&b">Verdict</h1><script>1 < 2</script>'
    (run / "dids" / "report.html").write_text(report)
    *_, update, html, _, _ = view.look("en", "Custom", "lora", str(run), None)
    source = re.search(r'sandbox="allow-scripts" srcdoc="([^"]*)"', html)[1]
    assert (
        update["visible"]
        and source.replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == report
    )


def test_probabilities_are_drawn_for_the_largest_movers_and_the_rest_as_a_band(tmp_path):
    start = np.full(1152, 1 / 1152)
    end = start.copy()
    end[[7, 900]] = 0.2
    record = write_log(tmp_path, [start.tolist(), (end / end.sum()).tolist()]).record()
    axes = figures.probabilities_figure(record).axes[0]
    names = [line.get_label() for line in axes.lines]
    assert {"a/7", "a/900"} <= set(names) and len(names) == figures.MAX_NAMED
    drawn = next(line for line in axes.lines if line.get_label() == "a/7").get_ydata()
    assert drawn == pytest.approx(100 * record.probabilities_UD[:, 7])
    assert axes.collections[0].get_label() == f"{1152 - figures.MAX_NAMED} others"


def test_losses_are_drawn_as_measured_and_not_at_all_where_none_was(tmp_path):
    record = write_log(tmp_path / "with", [[1.0], [1.0]], [{"t": 2.0, "u": 3.0}, {"t": 1.5, "u": None}]).record()
    lines = figures.losses_figure(record).axes[0].lines
    assert [list(line.get_ydata()) for line in lines][0] == [2.0, 1.5]
    assert figures.losses_figure(write_log(tmp_path / "without", [[1.0]]).record()) is None


@pytest.mark.parametrize("letters", ["数学", ""])
def test_live_pictures_of_chinese_names_have_no_letter_that_their_fonts_lack(letters, tmp_path, monkeypatch):
    with only_font(tmp_path, letters, monkeypatch), warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each such letter
        log = write_log(tmp_path, [[0.5, 0.5], [0.7, 0.3]], [{"数": 2.0}, {"数": 1.5}])
        log.path.write_text(log.path.read_text().replace("a/0", "数学/0"))
        for draw in (figures.probabilities_figure, figures.losses_figure):
            draw(log.record()).savefig(tmp_path / "picture.png")  # as the page does


def test_switch_that_is_off_is_kept_and_the_hosts_are_dropped_as_ever():
    def host(args):
        return {key: value for key, value in args.items() if value not in (None, False, "")}

    cleaned = page.keeping_switches(host)({"dids_trajectory": False, "use_dora": False, "stage": "sft"})
    assert cleaned == {"stage": "sft", "dids_trajectory": False}
    assert "use_dora" not in gen_cmd({"use_dora": False, "stage": "sft"})


@pytest.mark.parametrize(
    ("shown", "left"),
    [
        ("Failed. Exit code: 1\n\n```\nwarning\nerror: dids_x: got 1, allowed: 2\n```\n", "dids_x: got 1, allowed: 2"),
        ("Failed. Exit code: 1\n\n```\nTraceback\nKeyError: 'a'\n```\n", None),
        ("Failed.\n```\nerror: of a run before\nerror: of this one\n```", "of this one"),
        ("```\n[INFO] an error: of the host\n```", None),
        ("Finished.", None),
    ],
)  # fmt: skip
def test_refused_run_shows_the_reason_alone_and_other_ends_as_the_host_tells_them(shown, left):
    class Runner:
        monitor = page.one_line_failures(lambda self: iter([{"box": shown, "bar": 3}]))

    assert list(Runner().monitor()) == [{"box": shown if left is None else left, "bar": 3}]


def test_strategy_that_cannot_be_loaded_is_told_in_a_line(monkeypatch):
    def broken(name):
        raise ValueError(f"mix_strategy: {name!r} cannot be loaded")

    class Runner:
        _initialize = page.refusing(lambda self, data, do_train, from_preview: "")
        _parse_train_args = page.with_our_keys(lambda self, data: {})
        manager = type("Manager", (), {"get_elem_by_id": staticmethod(lambda elem_id: elem_id)})

    data = {f"train.{key}": value for key, value in fields.FIRST.items()} | {"train.mix_strategy": "dids"}
    monkeypatch.setattr(fields.mixers, "options", broken)
    assert Runner()._initialize(data, True, True) == "mix_strategy: 'dids' cannot be loaded"


def test_extra_arguments_of_the_hosts_come_before_our_fields():
    class Runner:
        _parse_train_args = page.with_our_keys(lambda self, data: {"stage": "sft", "dids_num_domains": 9})
        manager = type("Manager", (), {"get_elem_by_id": staticmethod(lambda elem_id: elem_id)})

    chosen = {"mix_strategy": "uniform", "dids_num_domains": 6}
    data = {f"train.{key}": value for key, value in (fields.FIRST | chosen).items()}
    assert Runner()._parse_train_args(data) == {"stage": "sft", "mix_strategy": "uniform", "dids_num_domains": 9}


def test_bar_shows_the_domain_stage_until_the_trainer_has_logged(tmp_path):
    log = "[INFO|now] progress.py:1 >> gradients: 30 of 120 samples, 0:00:10 < 0:00:30, 9 tokens/s\n"
    info = page.with_domain_progress(lambda lang, output_path, do_train: (log, "the host's", {}))
    _, bar, _ = info("en", tmp_path, True)
    assert (bar.label, bar.value) == ("Making domains, gradients 30/120: 0:00:10 < 0:00:30", 25.0)
    (tmp_path / TRAINER_LOG).write_text(json.dumps({"loss": 1}) + "\n")
    assert info("en", tmp_path, True)[1] == "the host's"
