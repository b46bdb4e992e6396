import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from llamafactory_dids.artifacts.files import read_json, write_json
from llamafactory_dids.artifacts.mixture_log import MixtureLog
from llamafactory_dids.errors import DidsError
from llamafactory_dids.report import html
from llamafactory_dids.report.evaluation import evaluations
from llamafactory_dids.report.html import find_run, write_report
from llamafactory_dids.report.impact import measured_impact
from llamafactory_dids.report.pictures import Picture, render
from llamafactory_dids.report.run import load_run
from llamafactory_dids.report.shares import LONGEST_EXAMPLE, domain_shares
from llamafactory_dids.report.verdict import judge
from llamafactory_dids.report.words import percent
from tests.helpers import PATIENCE, edit
from tests.report.made_up import write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \" ' & <b>ü漢</b>"


BREAK = "\N{ZERO WIDTH SPACE}"


class Page(HTMLParser):
    """What a browser would make of a file: elements with their attributes, and the text that is seen."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements, self.words, self.scripts, self._in = [], [], [], ""
        self.rows, self._table, self._cell = [], "", None  # (table's id, its row's cells: text and class)
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._in = tag
        if tag == "wbr":  # a name may break here and is one word
            self.words.append(BREAK)
        found = dict(attributes)
        if tag == "table":
            self._table = found.get("id", "")
        elif tag == "tr":
            self.rows.append((self._table, []))
        self._cell = found.get("class", "") if tag == "td" else None if tag == "th" else self._cell
        if tag == "td":
            self.rows[-1][1].append(("", self._cell))

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        (self.scripts if self._in in ("script", "style") else self.words).append(data)
        if self._cell is not None and self.rows and self.rows[-1][1]:
            text, kind = self.rows[-1][1][-1]
            self.rows[-1][1][-1] = ((text + data).strip(), kind)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split()).replace(f" {BREAK} ", "")


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("my_run") / "dids"


@pytest.fixture(scope="module")
def made(folder):
    return write_run(folder, 5)


@pytest.fixture(scope="module")
def page(made, folder):
    assert html.render is render, "with real pictures"
    return read(write_report(folder))


def test_the_file_needs_nothing_but_itself(page, folder):
    for tag, attributes in page.elements:
        for key in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(key, "data:").startswith("data:"), (tag, attributes)
        assert tag not in ("link", "iframe", "object", "embed")
    code = "".join(page.scripts).replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|\bfetch\(|XMLHttpRequest|@import|url\(", code)
    assert sum(tag == "img" for tag, _ in page.elements) == 5
    for kind in ("png", "svg"):
        names = {path.stem for path in folder.glob(f"*.{kind}")}
        assert names == {"mixture", "impact", "losses", "training", "clusters"}


def test_the_verdict_counts_from_the_data_and_has_the_numbers_of_the_log(page, made, folder):
    run = load_run(folder)
    names = run.record.domain_names
    gains = dict(zip(names, (made["drawn"] - made["data"]).tolist(), strict=True))
    most, least = max(gains, key=gains.get), min(gains, key=gains.get)
    verdict = page.text[page.text.index("Cut most") : page.text.index("Cost:")]
    assert "25 updates over 100,000 training samples" in verdict
    moved = np.abs(made["drawn"] - made["data"]).sum() / 2
    assert f"{100 * moved:.1f}% of what was drawn went elsewhere" in verdict
    for name, heading in ((least, "Cut most"), (most, "Fed more than its share of the data")):
        data, drawn = (percent(made[key][names.index(name)]) for key in ("data", "drawn"))
        assert verdict[verdict.index(heading) :].split(": ", 1)[1].startswith(f"{name} {data} → {drawn} (")
    losses_UT = run.record.task_losses_UT
    for j, task in enumerate(run.record.task_names):
        before, first, last = losses_UT[[0, 1, -1], j]
        assert f"{task} {before:.3f} {first:.3f} {last:.3f} {last - first:+.3f}" in verdict
    assert "25.6 min from the start" in page.text


def test_what_a_strategy_cut_before_the_first_step_is_said_to_be_cut_most(tmp_path):
    """Random answers are 40% of the data, start at 1% of the mixture, and end at 2%."""
    shares = {"sums": (0.5, 0.48), "random_answers": (0.01, 0.02), "maps": (0.49, 0.5)}
    sizes = {"sums": 300, "random_answers": 400, "maps": 300}
    write_shares(tmp_path, shares, sizes)
    page = read(write_report(tmp_path))
    (least,) = judge(load_run(tmp_path)).fed_less
    assert least.name == "random_answers" and (least.data, least.now) == (0.4, 0.02)
    assert page.text.split("Cut most")[1].split(". ")[0].split(": ")[1].startswith("random_answers 40.0% → 1.0% (÷40)")
    rows = {row["name"]: row for row in csv.DictReader((tmp_path / "tables" / "domains.csv").open())}
    assert float(rows["random_answers"]["times"]) == pytest.approx(0.025)
    (cells,) = [row for row in rows_of(page, "domains") if row[1][0] == "random_answers"]
    assert ("÷40", "less") in cells, "a domain that was cut forty-fold is not green"


def write_shares(folder, shares, sizes, samples=10_000):
    """A run of two lines: the share of each domain at its start and end; all was drawn by the first."""
    names = list(shares)
    log = MixtureLog(folder / "mixture.jsonl")
    for u in range(2):
        drawn = {name: round(u * samples * shares[name][0]) for name in names}
        line = {"step": u, "samples_seen": u * samples, "seconds": u, "applies_from_sample": u * samples}
        more = {"impact": {}, "task_loss": {}, "samples_drawn": drawn}
        log.append({**line, "probabilities": {name: shares[name][u] for name in names}, **more})
    domains = [{"name": n, "size": sizes[n], "sources": {n: sizes[n]}, "typical_texts": []} for n in names]
    write_json(folder / "domains.json", {"schema": 1, "inputs": {}, "domains": domains})


def rows_of(page, table):
    """The cells of a table's rows, (text, class) each."""
    return [cells for where, cells in page.rows if where == table and cells]


def test_shares_of_tokens_are_counted_against_the_datas_tokens(tmp_path):
    """Half of the samples each, and one has three times as many tokens; samples are drawn evenly too."""
    write_shares(tmp_path, {"long": (0.75, 0.75), "short": (0.25, 0.25)}, {"long": 50, "short": 50})
    log = MixtureLog(tmp_path / "mixture.jsonl")
    units = {"share_of": "tokens", "tokens_per_sample": {"long": 30.0, "short": 10.0}}
    lines = [line | units for line in log.read()]
    lines[1]["samples_drawn"] = {"long": 5000, "short": 5000}
    log.replace(lines)
    run = load_run(tmp_path)
    assert [(share.data, share.drawn) for share in domain_shares(run)] == [(0.75, 0.75), (0.25, 0.25)]
    assert judge(run).lines[0] == "Everything was drawn by its share of the data (in tokens), but for chance."


def test_shares_that_differ_by_chance_alone_are_no_moves(tmp_path):
    even = {"a": (0.301, 0.301), "b": (0.699, 0.699)}
    write_shares(tmp_path, even, {"a": 300, "b": 700}, samples=1000)
    verdict = judge(load_run(tmp_path))
    assert not verdict.fed_more and not verdict.fed_less
    assert verdict.lines[0] == "Everything was drawn by its share of the data, but for chance."


def write_sources(folder, shares, sources):
    """As `write_shares`, with the samples of each domain from each data set."""
    write_shares(folder, shares, {name: sum(counts.values()) for name, counts in sources.items()})
    content = read_json(folder / "domains.json")
    for domain in content["domains"]:
        domain["sources"] = sources[domain["name"]]
    write_json(folder / "domains.json", content)


def test_moves_within_data_sets_are_told_by_domain(tmp_path):
    """Both data sets keep their half, and each feeds one of its domains four times as much as the other."""
    shares = {"a/0": (0.4, 0.4), "a/1": (0.1, 0.1), "b/0": (0.25, 0.25), "b/1": (0.25, 0.25)}
    write_sources(tmp_path, shares, {name: {name[0]: 100} for name in shares})
    lines = judge(load_run(tmp_path)).lines
    assert lines[0].endswith(": a/1 25.0% → 10.0% (÷2.5).") and lines[1].endswith(": a/0 25.0% → 40.0% (×1.6).")


def test_data_sets_are_told_where_as_many_domains_are_mixed_of_them(tmp_path):
    sources = {"all/0": {"a": 90, "b": 10}, "all/1": {"a": 10, "b": 90}}
    write_sources(tmp_path, {"all/0": (0.9, 0.9), "all/1": (0.1, 0.1)}, sources)
    found = [(share.name, share.drawn) for share in judge(load_run(tmp_path)).sources]
    assert found == [("a", pytest.approx(0.82)), ("b", pytest.approx(0.18))]


@pytest.mark.parametrize("scale", [1e-4, 1, 1e4])
def test_a_domains_impact_is_shown_in_digits_of_its_size(tmp_path, scale):
    write_run(tmp_path, 3, 9)
    log = MixtureLog(tmp_path / "mixture.jsonl")
    lines = log.read()
    for line in lines:
        line["impact"] = {name: {task: scale * x for task, x in row.items()} for name, row in line["impact"].items()}
    log.replace(lines)
    largest = float(np.nanmax(np.abs(measured_impact(load_run(tmp_path)).overall_D())))
    cells = [row[9][0] for row in rows_of(read(write_report(tmp_path)), "domains")]
    told = [abs(float(re.match(r"[+-][\d.]+", cell)[0])) for cell in cells]
    assert max(told) == pytest.approx(largest, rel=0.1)


def test_domains_that_are_repeated_often_are_cautioned_of(tmp_path):
    write_run(tmp_path, 3, 9, repeats=6.0)
    text = read(write_report(tmp_path)).text
    assert "3 domains repeated more than 4 times: " in text and "×6" in text
    write_run(tmp_path / "seldom", 3, 9, repeats=3.9)
    assert "repeated more than" not in read(write_report(tmp_path / "seldom")).text


def test_the_first_lines_say_what_was_trained_on_what_and_show_samples(tmp_path):
    write_run(tmp_path, 12, 11, num_sources=12)
    (tmp_path / "config.yaml").write_text(
        "mix_strategy: dids\nmodel_name_or_path: my/model\ndataset: a,b, c,d,e,f,g,h,i,j\n"
    )
    run = load_run(tmp_path)
    text = read(write_report(tmp_path)).text
    verdict = text[: text.index("Cost:")]
    size = sum(domain["size"] for domain in run.domains)
    assert f"chosen by dids: my/model on {size:,} samples of a, b, c, d, e, f, g, h and 2 more." in verdict
    most = judge(run).fed_more[0].name
    assert f"such as “A typical sample. {most} 0”" in verdict and "after the first window on 3 of 3" in verdict


def test_a_sample_in_the_verdict_is_one_short_line(tmp_path):
    write_run(tmp_path, 2, 3, text="line one\n\n" + "word " * 99)
    moved = judge(load_run(tmp_path)).fed_less[0]
    assert moved.example.startswith("line one word word") and moved.example.endswith("word …")
    assert len(moved.example) <= LONGEST_EXAMPLE + 2


def test_held_out_losses_come_first_where_there_are_any(tmp_path, page):
    assert "held-out" not in page.text
    write_run(tmp_path / "dids", 4, 11)
    results = {"eval_a_test_loss": 1.25, "eval_b_test_loss": 0.5, "eval_b_test_accuracy": 0.75, "train_loss": 3}
    (tmp_path / "all_results.json").write_text(json.dumps(results | {"eval_a_test_runtime": 9}))
    page = read(write_report(tmp_path / "dids"))
    first = "Loss on held-out data after the training: mean 0.875 (a_test 1.250, b_test 0.500)."
    assert page.text.index(first) < page.text.index("Cut most")
    assert "a_test 1.250 3.49 b_test 0.500 1.649 accuracy 0.75" in page.text and "runtime" not in page.text


def test_the_one_held_out_set_that_the_host_gives_no_name_has_that_of_the_settings(tmp_path):
    write_run(tmp_path / "dids", 4, 3, config="mix_strategy: dids\neval_dataset: exam\n")
    (tmp_path / "all_results.json").write_text('{"eval_loss": 1.25, "eval_accuracy": 0.5}')
    assert evaluations(load_run(tmp_path / "dids")) == {"exam": {"loss": 1.25, "accuracy": 0.5}}


COST = {"seconds": 620, "update_seconds": 61.5, "domain_seconds": 300.0, "importance_seconds": 0.0}


def report_of_cost(folder, num_lines=11, **changes):
    """The report of a run with this `cost.json`: COST with changes."""
    write_run(folder, 4, num_lines, config="dids_domains: cluster\n")
    (folder / "cost.json").write_text(json.dumps(COST | changes))
    return read(write_report(folder)).text


def test_the_cost_tells_the_training_the_updates_and_the_domains_before(tmp_path, page):
    assert "25.6 min from the start of the training to the last update. " in page.text, "where no cost.json says"
    text = report_of_cost(tmp_path)
    told = "Cost: 10.3 min of training; 61.5 s of it (9.9%) went into measuring and choosing the mixture. "
    assert f"{told}Making the domains took 5 min before that. " in text and "nearest" not in text


def test_domains_that_had_been_made_before_cost_nothing(tmp_path):
    text = report_of_cost(tmp_path, domain_seconds=0.0, importance_seconds=4.0)
    assert (
        "The domains had been made before. Finding the domains that the tasks' samples are nearest to took 4 s." in text
    )


def test_a_fixed_mixture_tells_its_training_and_its_domains_too(tmp_path):
    text = report_of_cost(tmp_path, num_lines=1, update_seconds=0.01)
    assert "Cost: 10.3 min of training, as much as without mixing, since nothing was measured while" in text
    assert "Making the domains took 5 min before that." in text


def test_there_is_a_row_a_domain_with_its_size_sources_and_typical_samples(page, folder):
    for domain in load_run(folder).domains:
        assert domain["name"] in page.text and f"{domain['size']:,}" in page.text
        assert all(text in page.text for text in domain["typical_texts"])


def test_samples_that_are_random_are_not_called_typical(tmp_path, page):
    assert "typical samples" in page.text and "at random" not in page.text
    write_run(tmp_path, 3, 2)
    path = tmp_path / "domains.json"
    edit(path, **{'"inputs": {}': '"inputs": {"domains": "source"}'})
    text = read(write_report(tmp_path)).text
    assert "samples drawn at random" in text and "typical samples" not in text


def test_the_table_begins_with_the_largest_share_and_ticks_keep_the_logs_place(page, folder):
    last = load_run(folder).lines[-1]["probabilities"]
    ticks = [int(attributes["value"]) for tag, attributes in page.elements if attributes.get("type") == "checkbox"]
    assert [list(last)[i] for i in ticks] == sorted(last, key=last.get, reverse=True)


def test_the_settings_are_those_of_the_run(page):
    assert "# seed: 1 mix_strategy: dids dids_update_samples: 4000" in page.text


def test_the_curves_are_those_of_the_log(page, folder):
    curves = json.loads(next(text for text in page.scripts if '"samples"' in text))
    shares_UD = load_run(folder).record.probabilities_UD
    assert curves["names"] == list(load_run(folder).record.domain_names)
    for values, shares_U in zip(curves["values"], shares_UD.T, strict=True):
        assert [value / curves["unit"] for value in values] == pytest.approx(shares_U.tolist(), abs=1e-5)


def test_texts_and_names_of_the_data_are_shown_and_never_run(tmp_path):
    write_run(tmp_path, 3, 4, text=EVIL)
    for path in tmp_path.glob("*.json*"):
        edit(path, source_0="<i onclick=x>", task_0_val="<script>1</script>")
    (tmp_path / "config.yaml").write_text("note: </pre><script>alert(3)</script>\n")
    page = read(write_report(tmp_path))
    named = judge(load_run(tmp_path))
    shown = 9 + len(named.fed_more) + len(named.fed_less)
    assert shown > 10 and page.text.count("onerror=alert(2)") == shown
    assert "</pre><script>alert(3)</script>" in page.text
    assert not any("onerror" in attributes or "onclick" in attributes for _, attributes in page.elements)
    assert sum(tag == "script" for tag, _ in page.elements) == 2
    assert sum(tag in ("b", "i") for tag, _ in page.elements) < 20
    assert all(name in page.text for name in ("<i onclick=x>/0", "<script>1</script>"))


def test_a_page_may_run_its_own_script_and_request_nothing(page):
    (policy,) = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    (code,) = [text for text in page.scripts if "getElementById" in text]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert policy.split("; ")[:2] == ["default-src 'none'", f"script-src 'sha256-{digest}'"]
    assert not re.search(r"https?:|\*|'self'|unsafe-eval", policy)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
def test_a_browser_runs_the_pages_script_and_no_other(tmp_path):
    write_run(tmp_path, 3, 4)
    path = write_report(tmp_path)
    text = path.read_text().replace("</body>", "<script>document.body.id = 'ran'</script></body>")
    path.write_text(text.replace("<h1>", "<h1><img src=x onerror=\"document.body.id = 'ran'\">"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser", "--dump-dom"]
    ran = subprocess.run([CHROMIUM, *options, path.as_uri()], capture_output=True, text=True, timeout=120 * PATIENCE)
    body = Page(ran.stdout)
    assert sum(tag == "path" for tag, _ in body.elements) == 3, "the chart is drawn by the page's own script"
    assert [a.get("id") for tag, a in body.elements if tag == "body"] == [None]


@pytest.mark.parametrize("text", ["\u202egpj.exe", "nul \x00 in it", "<b>" + "x" * 1_000_000])
def test_odd_texts_do_no_harm(tmp_path, text):
    write_run(tmp_path, 3, 4, text=text)
    path = write_report(tmp_path)
    assert path.stat().st_size < 500_000 and "<b>x" not in path.read_text()
    assert text[:8] in read(path).text


@pytest.mark.parametrize("text", ["x" * 400, EVIL * 5, "漢" * 400])
def test_a_thousand_domains_with_long_texts_stay_below_two_megabytes(tmp_path, text, monkeypatch):
    """With as many bytes of pictures as such a run has."""
    write_run(tmp_path, 1152, 60, 9, num_sources=18, text=text)
    large = {name: Picture(b"p" * 150_000, b"s" * 300_000) for name in ("mixture", "impact", "losses", "clusters")}
    monkeypatch.setattr(html, "render", lambda run: large)
    path = write_report(tmp_path)
    assert path.stat().st_size < 2_000_000
    assert sum(tag == "tr" for tag, _ in read(path).elements) > 1152


def test_a_fixed_mixture_is_called_one(tmp_path):
    write_run(tmp_path, 4, 1, measured=False)
    text = read(write_report(tmp_path)).text
    assert "4 domains: a mixture that is not updated" in text and "No task's loss was measured" in text
    assert "Cost: as much as without mixing" in text and "chosen anew" not in text


def test_what_the_data_has_none_of_has_no_factor(tmp_path):
    write_shares(tmp_path, {"a": (0.5, 0.5), "b": (0.5, 0.5)}, {"a": 10, "b": 0})
    page = read(write_report(tmp_path))
    (cells,) = [row for row in rows_of(page, "domains") if row[1][0] == "b"]
    assert cells[6][0] == "–" and "inf" not in page.text.split()


def test_a_run_that_ended_before_its_first_update_says_so_and_claims_nothing(tmp_path):
    write_run(tmp_path, 4, 1)
    log = MixtureLog(tmp_path / "mixture.jsonl")
    end = log.read()[0] | {"step": 5, "samples_seen": 640, "closing": True}
    log.append(end | {"samples_drawn": dict.fromkeys(end["samples_drawn"], 160)})
    text = read(write_report(tmp_path)).text
    assert "no update was made. The training ended after 640 samples, before the first one (a window has 4000)" in text
    assert "0 updates: at least 6 are needed" in text
    assert "lower at the end" not in text and "the mixture was fixed" not in text


def test_losses_that_were_measured_before_the_training_alone_are_called_so(tmp_path):
    write_run(tmp_path, 4, 1)
    run = load_run(tmp_path)
    assert all(task.last is None and task.change is None for task in judge(run).tasks) and not judge(run).learned
    assert "measured before the training alone" in read(write_report(tmp_path)).text


def test_the_change_of_a_task_counts_from_what_was_measured_while_it_trained(tmp_path):
    losses_UT = write_run(tmp_path, 4, 9)["losses"]
    for task, losses_U in zip(judge(load_run(tmp_path)).tasks, losses_UT.T, strict=True):
        assert (task.before, task.first) == (losses_U[0], losses_U[1])
        assert task.change == pytest.approx(losses_U[-1] - losses_U[1])


def test_there_is_a_training_loss_for_each_domain(tmp_path):
    write_run(tmp_path, 3, 5)
    page = read(write_report(tmp_path))
    assert "3.900 → 3.600" in page.text and "the mean of its samples, in the first window and in the last" in page.text
    log = MixtureLog(tmp_path / "mixture.jsonl")
    log.replace([line | {"domain_loss": {}} for line in log.read()])
    text = read(write_report(tmp_path)).text
    assert "The training loss of each domain is not known: the model gave no logits" in text and "3.900" not in text


ABOUT = {
    "started": "2026-05-04 10:00 UTC",
    "hardware": "2 x H200",
    "command": "llamafactory-cli train my.yaml",
    "commits": {"llamafactory-dids": "abc1234"},
    "versions": {"torch": "2.8"},
}


def test_the_run_tells_when_where_and_by_what_it_was_made(tmp_path, page):
    assert "2026-05-04" not in page.text
    write_run(tmp_path, 3, 5)
    write_json(tmp_path / "run.json", ABOUT)
    text = read(write_report(tmp_path)).text
    for told in ("2026-05-04 10:00 UTC", "2 x H200", "llamafactory-cli train my.yaml", "abc1234", "torch 2.8"):
        assert told in text
    assert "trained on 16,000 samples, 160,000 tokens whose loss was counted" in text


def test_tables_and_pictures_can_be_saved_from_the_page_and_lie_beside_it(page, folder):
    saved = {at["download"]: at.get("href") for tag, at in page.elements if tag == "a"}
    assert {"domains.csv", "mixture.csv", "impact.csv", "mixture.svg", "mixture.png", "losses.svg"} <= saved.keys()
    pictures = {at["id"] for tag, at in page.elements if tag == "img"}
    assert {at["data-picture"] for _, at in page.elements if "data-picture" in at} == pictures
    content = base64.b64decode(saved["domains.csv"].split(",", 1)[1])
    assert content == (folder / "tables" / "domains.csv").read_bytes()
    rows = list(csv.DictReader((folder / "tables" / "mixture.csv").open()))
    lines = load_run(folder).lines
    assert [int(row["samples"]) for row in rows] == [line["samples_seen"] for line in lines]
    assert float(rows[-1]["source_1/0"]) == lines[-1]["probabilities"]["source_1/0"]
    impact = list(csv.DictReader((folder / "tables" / "impact.csv").open()))
    values = [line["impact"]["source_0/0"]["task_0_val"] for line in lines[1:]]
    assert float(impact[0]["mean"]) == pytest.approx(np.mean(values))
    assert float(impact[0]["standard_error"]) == pytest.approx(np.std(values, ddof=1) / 5)
    assert float(impact[0]["task_weight"]) == pytest.approx(1 / 3)


def test_few_updates_are_said_to_be_few(tmp_path):
    write_run(tmp_path, 4, 4)
    assert "3 updates: at least 6 are needed" in read(write_report(tmp_path)).text


@pytest.mark.parametrize(
    ("num_same", "moves"), [(1, "8 updates over"), (8, "1 of them moved"), (9, "none of them moved")]
)
def test_updates_that_left_the_mixture_as_it_was_are_told(tmp_path, num_same, moves):
    write_run(tmp_path, 4, 9)
    log = MixtureLog(tmp_path / "mixture.jsonl")
    lines = log.read()
    for line in lines[1:num_same]:
        line["probabilities"] = lines[0]["probabilities"]
    log.replace(lines)
    verdict = judge(load_run(tmp_path))
    assert any(moves in line for line in verdict.lines)
    said = "The mixture never moved from its start" in " ".join(verdict.cautions)
    assert said == (num_same == 9) and (not said or "8,000 samples of each domain" in verdict.cautions[0])


def test_an_output_elsewhere_leaves_the_runs_folder_as_it_is(tmp_path):
    write_run(tmp_path / "run", 4, 4)
    before = sorted(tmp_path.joinpath("run").iterdir())
    path = write_report(tmp_path / "run", tmp_path / "there.html")
    assert path == tmp_path / "there.html" and path.exists()
    assert sorted(tmp_path.joinpath("run").iterdir()) == before


def test_a_run_without_its_domain_map_or_settings_still_gets_a_report(tmp_path):
    write_run(tmp_path, 4, 5)
    (tmp_path / "domains.json").unlink()
    (tmp_path / "config.yaml").unlink()
    text = read(write_report(tmp_path)).text
    assert "4 domains" in text and "no config.yaml" in text


def test_a_map_of_other_domains_is_refused_with_its_name(tmp_path):
    write_run(tmp_path, 4, 5)
    path = tmp_path / "domains.json"
    edit(path, **{"source_1/0": "other"})
    with pytest.raises(DidsError, match=r"domains.json: not the domain map of .*mixture.jsonl \(lacks 'source_1/0'\)"):
        write_report(tmp_path)


def test_a_run_is_found_by_each_of_its_folders(tmp_path):
    write_run(tmp_path / "dids", 2, 2)
    for path in (tmp_path, tmp_path / "dids", tmp_path / "dids" / "mixture.jsonl"):
        assert find_run(path) == tmp_path / "dids"
    with pytest.raises(DidsError, match="no mixture log"):
        find_run(tmp_path / "nowhere")


def test_each_colour_of_the_page_has_a_light_and_a_dark_form():
    style = (Path(html.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    light, _, rest = style.partition("prefers-color-scheme: dark")
    dark = rest[: rest.index("\n}")]
    used = set(re.findall(r"var\((--\w+)\)", style))
    for part in (light, dark):
        assert used <= set(re.findall(r"(--\w+):", part))
