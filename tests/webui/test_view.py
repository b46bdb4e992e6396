"""What the page shows of a folder, and what stands in front of the host's functions."""

import html
import json
import re
import shlex
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("llamafactory")
import gradio as gr
from llamafactory.extras.constants import TRAINER_LOG
from llamafactory.webui import common
from llamafactory.webui.common import gen_cmd

from llamafactory_dids.artifacts.domain_map import BY_SOURCE, DomainMap, load_map, save_map
from llamafactory_dids.artifacts.mixture_log import MixtureLog
from llamafactory_dids.integration.webui import (
    domains_table,
    events,
    explainer,
    fields,
    figures,
    messages,
    page,
    translated,
    view,
)
from llamafactory_dids.report.html import write_report
from tests.helpers import edit
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
        {"a/0": ["first", "second"], "a/1": []},
    )
    save_map(domain_map, folder / "dids")
    return folder


def add_update(run):
    """An update after which the first domain has 90%."""
    line = {"step": 2, "samples_seen": 200, "probabilities": {"a/0": 0.9, "a/1": 0.1}, "task_loss": {"t": 1.0}}
    MixtureLog(run / "dids" / "mixture.jsonl").append(line)


def cells_of(table):
    """The texts of the cells of each domain's first row."""
    rows = re.findall(r'<tr class="first"[^>]*>(.*?)</tr>', table)
    return [re.findall(r">([^<>]+)</(?:b|td)>", row) for row in rows]


def show(run, shown=view.NOTHING, path="", lang="en"):
    """What is shown of a run after something else was, with `path` in the field of the domains."""
    seen = view.look(lang, "Custom", "lora", str(run))
    now, *updates = view.show(seen, shown, path)
    return now, dict(zip(view.SHOWN, updates, strict=True))


def names_of(update):
    """The names of the files that can be downloaded."""
    return {Path(path).name for path in update["value"]}


class Runner:
    """The host's runner, for tests that wrap its methods: an element's id stands for the element."""

    manager = SimpleNamespace(get_elem_by_id=lambda elem_id: elem_id)


def test_table_says_size_sources_and_shares_the_largest_share_first(run):
    rows = cells_of(domains_table.show_domains("en", str(run)))
    assert rows == [
        ["a/0", "3", "a 67%, b 33%", "75.00%", "75.00%", "×1.00"],
        ["a/1", "1", "a 100%", "25.00%", "25.00%", "×1.00"],
    ]


def test_times_are_counted_from_the_share_of_the_data_and_not_from_the_first_mixture(run):
    add_update(run)
    rows = cells_of(domains_table.show_domains("en", str(run)))
    assert [row[3:] for row in rows] == [["75.00%", "90.00%", "×1.20"], ["25.00%", "10.00%", "×0.40"]]


ODD = "\u202egpj.exe \x00 <img src=//x onerror=alert(1)>"


def test_texts_of_any_kind_and_length_stay_texts(run):
    odd = {"a/0": [ODD + "x" * 1_000_000, ODD], "a/1": ["</pre></table><script>1</script>"]}
    save_map(replace(load_map(run / "dids"), typical_texts=odd), run / "dids")
    table = domains_table.show_domains("en", str(run))
    assert len(table) < 20_000 and "<img" not in table and "<script>" not in table and table.count("</table>") == 1
    assert table.count("&lt;img") == 3, "the first line, and both samples whole"


def test_a_link_that_leads_out_of_the_runs_folder_is_not_followed(run, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of somebody else")
    for name in ("report.html", "config.yaml", "mixture.png"):
        (run / "dids" / name).symlink_to(secret)
    _, updates = show(run)
    assert not updates["dids_report_tab"]["visible"]
    (run / "dids" / "report.html").unlink()
    (run / "dids" / "report.html").write_text("<h1>Verdict</h1>")
    _, updates = show(run)
    assert names_of(updates["dids_files"]) == {"report.html", "mixture.jsonl", "domains.parquet", "domains.json"}


def test_notices_are_texts_though_gradio_takes_html(run, monkeypatch):
    said = []
    monkeypatch.setattr(gr, "Warning", said.append)
    domains_table.show_domains("en", "/no/<img src=x onerror=alert(1)>")
    assert len(said) == 1 and "<" not in said[0] and "&lt;img" in said[0]


def test_command_that_is_shown_has_each_value_in_one_word_and_the_hosts_own_are_as_ever():
    args = {
        "mix_strategy": "dids",
        "dids_tasks": "a;touch /tmp/x",
        "freeze": "$(id)",
        "names": ["a b", "c"],
        "empty": "",
    }
    shown = page.quoting(gen_cmd)(args | {"rope": {"a": 1}, "lr": 0.1})
    words = shlex.split(shown.removeprefix("```bash\n").removesuffix("\n```").replace("\\\n", ""))
    pairs = ["--mix_strategy", "dids", "--dids_tasks", "a;touch /tmp/x", "--freeze", "$(id)", "--names", "a b", "c"]
    assert words[2:] == [*pairs, "--rope", '{"a": 1}', "--lr", "0.1"]
    assert page.quoting(gen_cmd)({"stage": "a b"}) == gen_cmd({"stage": "a b"})


def test_samples_that_are_random_are_called_so(run):
    assert "Typical samples" in domains_table.show_domains("en", str(run))
    save_map(replace(load_map(run / "dids"), inputs=BY_SOURCE), run / "dids")
    table = domains_table.show_domains("en", str(run))
    assert "Samples drawn at random" in table and "Typical samples" not in table


def test_map_without_a_run_has_no_shares(run):
    (run / "dids" / "mixture.jsonl").unlink()
    assert [row[4:] for row in cells_of(domains_table.show_domains("en", str(run)))] == [["–", "–"]] * 2


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "no folder"),
        (None, "no folder"),
        ("/no/such/folder", "no folder '/no/such/folder'"),
        ("{tmp}", "neither"),
        ("x" * 300, "File name too long"),
        ("~nobody-at-all/run", "home directory"),
    ],
)
def test_what_is_no_map_is_told_in_a_line(path, said, tmp_path):
    told = domains_table.show_domains("en", path and path.format(tmp=tmp_path))
    assert told.startswith("<p>") and said in html.unescape(told) and "\n" not in told


@pytest.mark.parametrize("path", ["", None])  # None from a page that has not drawn the field yet
def test_a_run_is_shown_once_and_nothing_is_touched_until_it_has_changed(path, run):
    now, updates = show(run, path=path)
    assert updates["dids_probabilities"]["visible"] and updates["dids_losses"]["visible"]
    assert updates["dids_map"] == str(run / "dids") and "a/0" in updates["dids_table"]
    again, updates = show(run, now, str(run / "dids"))
    assert again == now and all(update == gr.skip() for update in updates.values())


def test_an_update_draws_the_pictures_and_leaves_the_path_and_the_table_alone(run):
    now, _ = show(run)
    add_update(run)
    later, updates = show(run, now, str(run / "dids"))
    assert later != now and "<svg" in updates["dids_probabilities"]["value"]
    assert updates["dids_map"] == updates["dids_table"] == updates["dids_report"] == gr.skip()
    assert json.loads(updates["dids_shares"])["cells"]["a/0"] == ["90.00%", "×1.20"]


def test_the_host_warns_of_a_path_once_though_the_page_looks_at_it_again_and_again(run, monkeypatch):
    said = []
    monkeypatch.setattr(common.logger, "warning_rank0", said.append, raising=False)
    for _ in range(3):
        view.look("en", "Custom", "lora", str(run))
    assert len(said) == 1


def test_a_path_that_was_typed_is_not_overwritten(run):
    now, updates = show(run, path="another/run")
    assert updates["dids_map"] == updates["dids_table"] == gr.skip()
    add_update(run)
    assert show(run, now, "another/run")[1]["dids_map"] == gr.skip()


def test_a_folder_that_is_not_there_takes_away_what_was_shown(run, tmp_path):
    now, _ = show(run)
    _, updates = show(tmp_path / "new", now, str(run / "dids"))
    assert not any(updates[name]["visible"] for name in ("dids_probabilities", "dids_losses", "dids_report_tab"))
    assert updates["dids_map"] == updates["dids_table"] == ""


def test_report_is_framed_whole_and_apart_from_the_page_and_its_files_can_be_downloaded(run):
    report = '<h1 title="a&b">Verdict</h1><script>1 < 2</script>'
    (run / "dids" / "report.html").write_text(report)
    _, updates = show(run)
    source = re.search(r'sandbox="allow-scripts allow-downloads" srcdoc="([^"]*)"', updates["dids_report"])[1]
    assert updates["dids_report_tab"]["visible"] and html.unescape(source) == report
    assert names_of(updates["dids_files"]) == {"report.html", "mixture.jsonl", "domains.parquet", "domains.json"}


@pytest.mark.parametrize(
    ("written", "lang", "other"), [("en", "zh", "what the mixture did"), ("zh", "en", "配比的作用")]
)
def test_report_is_in_the_pages_language_and_made_in_it_once(written, lang, other, run, monkeypatch):
    write_report(run / "dids", lang=written)
    now, updates = show(run, lang=written)
    assert other in html.unescape(updates["dids_report"])
    assert names_of(updates["dids_files"]) >= {"report.html", "mixture.png"}
    now, updates = show(run, now, lang=lang)
    page_source = html.unescape(updates["dids_report"])
    assert f'<html lang="{lang}"' in page_source and other not in page_source
    assert names_of(updates["dids_files"]) >= {f"report_{lang}.html", "mixture.png"}
    assert all(Path(path).parent.name != "dids" for path in updates["dids_files"]["value"] if path.endswith(".png"))
    monkeypatch.setattr(translated, "write_report", None)  # not asked for again
    assert lang in show(run, lang=lang)[1]["dids_report"]


def test_report_that_was_written_again_is_translated_again(run):
    write_report(run / "dids")
    path = translated.report_in(run / "dids", "zh")
    first = path.read_text()
    add_update(run)
    write_report(run / "dids")
    assert translated.report_in(run / "dids", "zh").read_text() != first


def test_page_in_a_language_that_a_report_has_no_texts_in_shows_the_english_one(run):
    write_report(run / "dids")
    assert translated.report_in(run / "dids", "ko") == run / "dids" / "report.html"


def test_report_that_cannot_be_translated_is_told_in_a_line(run):
    write_report(run / "dids")
    (run / "dids" / "mixture.jsonl").write_text("{}\n")
    _, updates = show(run, lang="zh")
    assert updates["dids_report"].startswith("<p>") and "mixture.jsonl" in updates["dids_report"]
    assert "report.html" in names_of(updates["dids_files"])


def record_of(folder, shares, losses=()):
    return write_log(folder, shares, losses).record()


def test_the_largest_domains_and_those_that_moved_most_are_named_and_the_rest_is_their_sum(tmp_path):
    start = np.full(1152, 1 / 1152)
    start[5] += 0.3
    end = start.copy()
    end[[7, 900]] = 0.2
    record = record_of(tmp_path, [(start / start.sum()).tolist(), (end / end.sum()).tolist()])
    axes = figures.probabilities_figure(record, "en").axes[0]
    *named, rest = axes.lines
    names = [line.get_label() for line in named]
    assert {"a/5", "a/7", "a/900"} <= set(names) and len(names) == figures.MAX_NAMED
    assert rest.get_label() == f"{1152 - figures.MAX_NAMED} others together" and not axes.collections
    total = np.sum([line.get_ydata() for line in axes.lines], axis=0)
    assert total == pytest.approx([100, 100])


def test_a_domain_has_the_same_colour_at_every_update(tmp_path):
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.ones(20), size=6).tolist()
    looks = []
    for num in range(2, 7):
        axes = figures.probabilities_figure(record_of(tmp_path / str(num), shares[:num]), "en").axes[0]
        looks.append({line.get_label(): (line.get_color(), line.get_linestyle()) for line in axes.lines[:-1]})
    assert len(set(map(frozenset, looks))) > 1, "other domains are named"
    for name in set().union(*looks):
        assert len({look[name] for look in looks if name in look}) == 1, name


def test_losses_are_drawn_as_measured_and_not_at_all_where_none_was(tmp_path):
    record = record_of(tmp_path / "with", [[1.0], [1.0]], [{"t": 2.0, "u": 3.0}, {"t": 1.5, "u": None}])
    lines = figures.losses_figure(record, "en").axes[0].lines
    assert [list(line.get_ydata()) for line in lines][0] == [2.0, 1.5]
    assert figures.losses_picture(record_of(tmp_path / "without", [[1.0]]), "en") == ""


@pytest.mark.parametrize("letters", ["数学", ""])
def test_live_pictures_leave_names_to_the_browsers_fonts_and_have_the_pages_colour_of_text(
    letters, tmp_path, monkeypatch
):
    with only_font(tmp_path, letters, monkeypatch), warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of letters that it has no font for
        log = write_log(tmp_path, [[0.5, 0.5], [0.7, 0.3]], [{"$数": 2.0}, {"$数": 1.5}])
        edit(log.path, **{"a/0": "数学/0"})
        shares, losses = (draw(log.record(), "zh") for draw in (figures.probabilities_picture, figures.losses_picture))
    assert "数学/0" in shares and "$数" in losses and "占比" in shares and "已训练样本数" in losses
    for svg in (shares, losses):
        assert svg.startswith("<svg") and "currentColor" in svg and "#ffffff" not in svg and "#000000" not in svg


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
        ("Failed.\n```\nerror: dids_tasks: got none, allowed: a b\n```", "Tasks: got nothing, allowed: a b"),
        ("Failed. Exit code: 1\n\n```\nTraceback\nKeyError: 'a'\n```\n", None),
        ("Failed.\n```\nerror: of a run before\nerror: of this one\n```", "of this one"),
        ("```\n[INFO] an error: of the host\n```", None),
        ("Finished.", None),
    ],
)  # fmt: skip
def test_refused_run_shows_the_reason_alone_and_other_ends_as_the_host_tells_them(shown, left):
    class Monitored(Runner):
        monitor = page.one_line_failures(lambda self: iter([{"box": shown, "bar": 3}]))
        running_data: ClassVar = {"top.lang": "en"}

    assert list(Monitored().monitor()) == [{"box": shown if left is None else left, "bar": 3}]


def test_strategy_that_cannot_be_loaded_is_told_in_a_line(monkeypatch):
    def broken(name):
        raise ValueError(f"mix_strategy: {name!r} cannot be loaded")

    class Checking(Runner):
        _initialize = page.refusing(lambda self, data, do_train, from_preview: "")
        _parse_train_args = page.with_our_keys(lambda self, data: {})

    data = {f"train.{key}": value for key, value in fields.FIRST.items()}
    data |= {"train.mix_strategy": "dids", "train.dataset": ["a"], "top.lang": "en"}
    monkeypatch.setattr(fields.mixers, "options", broken)
    assert Checking()._initialize(data, True, True) == "mix_strategy: 'dids' cannot be loaded"
    assert events.explanation(Checking(), data, "en") == "mix_strategy: 'dids' cannot be loaded"


def test_extra_arguments_of_the_hosts_come_before_our_fields():
    class Parsing(Runner):
        _parse_train_args = page.with_our_keys(lambda self, data: {"stage": "sft", "dids_num_domains": 9})

    chosen = {"mix_strategy": "uniform", "dids_num_domains": 6}
    data = {f"train.{key}": value for key, value in (fields.FIRST | chosen).items()}
    assert Parsing()._parse_train_args(data) == {
        "stage": "sft",
        "mix_strategy": "uniform",
        "dids_domains": "source",
        "dids_num_domains": 9,
    }


def test_bar_shows_the_domain_stage_until_the_trainer_has_logged(tmp_path):
    log = "[INFO|now] progress.py:1 >> gradients: 30 of 120 samples, 0:00:10 < 0:00:30, 9 tokens/s\n"
    info = page.with_domain_progress(lambda lang, output_path, do_train: (log, "the host's", {}))
    _, bar, _ = info("en", tmp_path, True)
    assert (bar.label, bar.value) == ("Before training, gradients of the samples 30/120: 0:00:10 < 0:00:30", 25.0)
    log += "[INFO|now] bar.py:1 >> k-means: 40 of 120 samples, 0:00:01 < 0:00:02\n"
    assert info("zh", tmp_path, True)[1].label == "训练前准备，k-means 聚类 40/120: 0:00:01 < 0:00:02"
    (tmp_path / TRAINER_LOG).write_text(json.dumps({"loss": 1}) + "\n")
    assert info("en", tmp_path, True)[1] == "the host's"


@pytest.mark.parametrize(
    ("error", "lang", "said"),
    [
        (
            "dids_tasks: got none, allowed: at least one task for mix_strategy 'dids'",
            "en",
            "Tasks: got nothing, allowed: at least one task for mix_strategy 'dids'",
        ),
        (
            "dids_tasks: got none, allowed: at least one task for mix_strategy 'dids'",
            "zh",
            "目标任务：当前为 空，允许：策略 dids 至少需要一个任务",
        ),
        ("dids_ema_beta: got 'x', allowed: a number", "zh", "平滑系数 (β)：当前为 'x'，允许：数字"),
        ("dids_ema_beta: got 'x', allowed: a number", None, "Smoothing (β): got 'x', allowed: a number"),
        (
            "dids_flor: unknown key, did you mean dids_floor?; `--help` lists the dids_ keys",
            "en",
            "Extra arguments: there is no key dids_flor; did you mean dids_floor?",
        ),
        ("dids_nothing_at_all: unknown key; `--help`", "zh", "额外参数：没有 dids_nothing_at_all 这个键"),
        ("something else", "zh", "something else"),
    ],
)
def test_errors_use_the_labels_of_the_fields_in_the_pages_language(error, lang, said):
    assert messages.in_words(error, lang) == said


def test_what_a_run_would_do_is_a_line_with_its_updates_cost_and_memory_and_one_for_each_caution():
    found = {
        "training_samples": 12_800,
        "steps": 400,
        "num_updates": 3,
        "update_samples": 4000,
        "updates_wanted": True,
        "overhead": 0.25,
        "gradient_bytes": 15_700_000,
        "cautions": [["few_updates", {"count": 3, "least": 6}], ["trained_task", {"name": "a"}]],
    }
    first, few, task = explainer.in_words(found, "en").split("  \n")
    assert first == (
        "12,800 training samples in 400 steps · **3 updates**, one every 4,000 samples · about 25.0% more computing · "
        "15.7 MB more memory on each device"
    )
    assert few.startswith("⚠️ Only 3 updates: with fewer than 6") and task.startswith("⚠️ a is both trained on")
    assert "更新 3 次" in explainer.in_words(found, "zh")
    assert "the mixture is fixed" in explainer.in_words({**found, "updates_wanted": False}, "en")
    assert explainer.in_words({"error": "what is wrong"}, "en") == "what is wrong"


def test_a_question_that_is_asked_again_is_answered_again(monkeypatch):
    answers = iter([{"error": "no such file"}, {"steps": 1}])
    asked = explainer.Explainer()
    monkeypatch.setattr(asked, "_ask", lambda line: next(answers))
    assert [asked({"dataset": "a"}) for _ in range(2)] == [{"error": "no such file"}, {"steps": 1}]
