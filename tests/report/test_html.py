import json
import re
from html.parser import HTMLParser

import pytest

from llamafactory_dids.errors import DidsError
from llamafactory_dids.report.html import find_run, write_comparison, write_report
from llamafactory_dids.report.run import load_run
from llamafactory_dids.report.verdict import LONGEST_EXAMPLE, judge
from tests.report.made_up import write_run

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \" ' & <b>ü漢</b>"


class Page(HTMLParser):
    """What a browser would make of a file: elements with their attributes, and the text that is seen."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements, self.words, self.scripts, self._in = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._in = tag

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        (self.scripts if self._in in ("script", "style") else self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("my_run") / "dids"


@pytest.fixture(scope="module")
def page(folder):
    write_run(folder, 5)
    return read(write_report(folder))


def test_the_file_needs_nothing_but_itself(page, folder):
    for tag, attributes in page.elements:
        for key in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(key, "data:").startswith("data:"), (tag, attributes)
        assert tag not in ("link", "iframe", "object", "embed")
    code = "".join(page.scripts).replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|\bfetch\(|XMLHttpRequest|@import|url\(", code)
    assert sum(tag == "img" for tag, _ in page.elements) == 4
    assert {path.name for path in folder.glob("*.png")} == {"mixture.png", "impact.png", "losses.png", "clusters.png"}


def test_the_verdict_has_the_numbers_of_the_log(page, folder):
    lines = load_run(folder).lines
    first, last = lines[0]["probabilities"], lines[-1]["probabilities"]
    most = max(first, key=lambda name: last[name] - first[name])
    least = min(first, key=lambda name: last[name] - first[name])
    verdict = page.text[page.text.index("5 domains") : page.text.index("Cost:")]
    assert "25 updates over 100,000 training samples" in verdict
    moved = sum(abs(last[name] - first[name]) for name in first) / 2
    assert f"{100 * moved:.1f}% of the mixture moved" in verdict
    more, less = verdict.index("Fed more"), verdict.index("Fed less")
    assert f"{most} 20.0% → {100 * last[most]:.1f}%" in verdict[more:less]
    assert f"{least} 20.0% → {100 * last[least]:.2g}%" in verdict[less:]
    for task, loss in lines[-1]["task_loss"].items():
        start = lines[0]["task_loss"][task]
        assert f"{task} {start:.3f} → {loss:.3f} ({loss - start:+.3f})" in verdict
    assert "25.6 min from the start" in page.text


def test_the_first_lines_say_what_was_trained_on_what_and_show_samples(tmp_path):
    write_run(tmp_path, 12, 11, num_sources=12)
    (tmp_path / "config.yaml").write_text(
        "mix_strategy: dids\nmodel_name_or_path: my/model\ndataset: a,b, c,d,e,f,g,h,i,j\n"
    )
    run = load_run(tmp_path)
    text = read(write_report(tmp_path)).text
    verdict = text[: text.index("Cost:")]
    size = sum(domain["size"] for domain in run.domains)
    assert f"chosen by dids : my/model on {size:,} samples of a, b, c, d, e, f, g, h and 2 more." in verdict
    first, last = run.lines[0]["probabilities"], run.lines[-1]["probabilities"]
    most = max(first, key=lambda name: last[name] - first[name])
    assert f"such as “A typical sample. {most} 0”" in verdict and "at the start on 3 of 3" in verdict


def test_a_sample_in_the_verdict_is_one_short_line(tmp_path):
    write_run(tmp_path, 2, 3, text="line one\n\n" + "word " * 99)
    moved = judge(load_run(tmp_path)).fed_more[0]
    assert moved.example.startswith("line one word word") and moved.example.endswith("word …")
    assert len(moved.example) <= LONGEST_EXAMPLE + 2


def test_held_out_losses_are_told_where_there_are_any(tmp_path, page):
    assert "held-out" not in page.text
    write_run(tmp_path / "dids", 4, 11)
    (tmp_path / "all_results.json").write_text('{"eval_a_test_loss": 1.25, "eval_b_test_loss": 0.5, "train_loss": 3}')
    text = read(write_report(tmp_path / "dids")).text
    assert "Loss on held-out data after the training: a_test 1.250, b_test 0.500." in text


COST = {"seconds": 620, "update_seconds": 61.5, "domain_seconds": 300.0, "importance_seconds": 0.0}


def report_of_cost(folder, num_lines=11, **changes):
    """The report of a run with this `cost.json`: COST with changes, keys without a value left out."""
    write_run(folder, 4, num_lines)
    (folder / "config.yaml").write_text("dids_domains: cluster\n")
    found = {key: value for key, value in {**COST, **changes}.items() if value is not None}
    (folder / "cost.json").write_text(json.dumps(found))
    return read(write_report(folder)).text


def test_the_cost_tells_the_training_the_updates_and_the_domains_before(tmp_path, page):
    assert "25.6 min from the start of the training to the last update. " in page.text, "where no cost.json says"
    text = report_of_cost(tmp_path)
    told = "Cost: 10.3 min of training; 61.5 s of it (9.9%) went into measuring and choosing the mixture. "
    assert f"{told}Making the domains took 5 min before that. " in text
    assert "before the training: making the domains 5 min the training 10.3 min" in text
    assert "each of these 11 times, on average 5.59 s" in text and "nearest" not in text


def test_domains_that_had_been_made_before_cost_nothing(tmp_path):
    text = report_of_cost(tmp_path, domain_seconds=0.0, importance_seconds=4.0)
    assert (
        "The domains had been made before. Finding the domains that the tasks' samples are nearest to took 4 s." in text
    )
    assert "making the domains 0 s: they had been made before" in text


def test_a_fixed_mixture_tells_its_training_and_its_domains_too(tmp_path):
    text = report_of_cost(tmp_path, num_lines=1, update_seconds=0.01)
    assert "Cost: 10.3 min of training, as much as without mixing, since nothing was measured while" in text
    assert "Making the domains took 5 min before that." in text and "the training 10.3 min Settings" in text


def test_a_cost_of_an_earlier_version_does_not_say_how_long_the_domains_took(tmp_path):
    text = report_of_cost(tmp_path, domain_seconds=None, importance_seconds=None)
    assert "choosing the mixture. Making the domains came before that." in text and "making the domains" not in text


def test_there_is_a_row_a_domain_with_its_size_sources_and_typical_samples(page, folder):
    for domain in load_run(folder).domains:
        assert domain["name"] in page.text and f"{domain['size']:,}" in page.text
        assert all(text in page.text for text in domain["typical_texts"])


def test_samples_that_are_random_are_not_called_typical(tmp_path, page):
    assert "typical samples" in page.text and "at random" not in page.text
    write_run(tmp_path, 3, 2)
    path = tmp_path / "domains.json"
    path.write_text(path.read_text().replace('"inputs": {}', '"inputs": {"domains": "source"}'))
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
        path.write_text(
            path.read_text().replace("source_0", "<i onclick=x>").replace("task_0_val", "<script>1</script>")
        )
    (tmp_path / "config.yaml").write_text("note: </pre><script>alert(3)</script>\n")
    page = read(write_report(tmp_path))
    assert page.text.count("onerror=alert(2)") == 9 + 3 and "</pre><script>alert(3)</script>" in page.text
    assert not any("onerror" in attributes or "onclick" in attributes for _, attributes in page.elements)
    assert sum(tag == "script" for tag, _ in page.elements) == 2
    assert sum(tag in ("b", "i") for tag, _ in page.elements) < 20
    assert all(name in page.text for name in ("<i onclick=x>/0", "<script>1</script>"))


@pytest.mark.parametrize("text", ["x" * 400, EVIL * 5, "漢" * 400])
def test_a_thousand_domains_with_long_texts_stay_below_two_megabytes(tmp_path, text):
    write_run(tmp_path, 1152, 60, 9, num_sources=18, text=text)
    path = write_report(tmp_path)
    assert path.stat().st_size < 2_000_000
    assert sum(tag == "tr" for tag, _ in read(path).elements) > 1152


def test_a_fixed_mixture_is_called_one(tmp_path):
    write_run(tmp_path, 4, 1, measured=False)
    text = read(write_report(tmp_path)).text
    assert "the mixture was fixed" in text and "No task's loss was measured" in text and "Fed more" not in text
    assert "Cost: as much as without mixing" in text and "update" not in text[: text.index("Settings")]
    assert "drawn" not in text, "what had been drawn at the start says nothing"


def test_a_data_set_that_started_without_a_share_has_no_factor(tmp_path):
    write_run(tmp_path, 4, 3, num_sources=2)
    log = tmp_path / "mixture.jsonl"
    first, *rest = [json.loads(line) for line in log.read_text().splitlines()]
    first["probabilities"] = {name: 0.5 * name.startswith("source_0") for name in first["probabilities"]}
    log.write_text("".join(json.dumps(line) + "\n" for line in (first, *rest)))
    text = read(write_report(tmp_path)).text
    assert re.search(r"source_1 0% \d+\.\d% – ", text) and "inf" not in text.split()


def test_few_updates_are_said_to_be_few(tmp_path):
    write_run(tmp_path, 4, 4)
    assert "3 updates: at least 6 are needed" in read(write_report(tmp_path)).text


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
    path.write_text(path.read_text().replace("source_1/0", "other"))
    with pytest.raises(DidsError, match=r"domains.json: not the domain map of .*mixture.jsonl \(lacks 'source_1/0'\)"):
        write_report(tmp_path)


def test_a_run_is_found_by_each_of_its_folders(tmp_path):
    write_run(tmp_path / "dids", 2, 2)
    for path in (tmp_path, tmp_path / "dids", tmp_path / "dids" / "mixture.jsonl"):
        assert find_run(path) == tmp_path / "dids"
    with pytest.raises(DidsError, match="no mixture log"):
        find_run(tmp_path / "nowhere")


def make_runs(folder, **second):
    for name, options in (("one", {}), ("two", {"seed": 5, **second})):
        write_run(folder / name / "dids", 12, 21, num_sources=3, **options)
    return [folder / name / "dids" for name in ("one", "two")]


def test_a_comparison_has_the_weights_at_each_tenth_of_the_training_as_in_table_9(tmp_path):
    folders = make_runs(tmp_path)
    path, comparison = write_comparison(folders, tmp_path / "comparison.html")
    assert comparison.unit == "domain" and len(comparison.trajectories) == 10
    for group in comparison.trajectories:
        for line, folder in zip(group, folders, strict=True):
            lines = load_run(folder).lines
            expected = [100 * lines[2 * tenth]["probabilities"][line.name] for tenth in range(11)]
            assert line.shares == pytest.approx(expected), line
    page = read(path)
    assert "domain run 0% 10% 20% 30% 40% 50% 60% 70% 80% 90% 100%" in page.text
    assert sum(tag == "tr" for tag, _ in page.elements) == (1 + 3) + (1 + 2) + (1 + 20)


def test_a_comparison_has_each_runs_last_loss_and_marks_the_lowest(tmp_path):
    folders = make_runs(tmp_path)
    (tmp_path / "two" / "all_results.json").write_text('{"eval_task_0_test_loss": 1.25, "train_loss": 3}')
    path, comparison = write_comparison(folders, tmp_path / "comparison.html")
    for summary, folder in zip(comparison.summaries, folders, strict=True):
        assert summary.losses == load_run(folder).lines[-1]["task_loss"]
    assert [summary.held_out for summary in comparison.summaries] == [{}, {"task_0_test": 1.25}]
    text = path.read_text()
    for task in comparison.tasks:
        low = min(summary.losses[task] for summary in comparison.summaries)
        assert f'class="best">{low:.4f}' in text
    assert "<td>–</td><td>1.2500</td>" in text.replace("\n", ""), "one alone is not the lowest"


def test_a_comparison_has_what_each_run_cost(tmp_path):
    folders = make_runs(tmp_path)
    (folders[0] / "cost.json").write_text(json.dumps(COST))
    path, comparison = write_comparison(folders, tmp_path / "comparison.html")
    assert [(run.seconds, run.update_seconds, run.domain_seconds) for run in comparison.summaries] == [
        (620, 61.5, 300.0),
        (1230.0, None, None),
    ]
    assert "5 min 10.3 min 61.5 s two" in read(path).text and "– 20.5 min – Weights" in read(path).text


def test_a_comparison_begins_with_which_run_ends_lower(tmp_path):
    folders = make_runs(tmp_path)
    losses = {"one": (1.0, 2.0, 3.0), "two": (1.5, 1.0, 2.0)}
    for name, values in losses.items():
        found = {f"eval_{task}_test_loss": loss for task, loss in zip("abc", values, strict=True)}
        (tmp_path / name / "all_results.json").write_text(json.dumps(found))
    path, comparison = write_comparison(folders, tmp_path / "comparison.html")
    words = "On the held-out data, two has the lowest mean loss, 1.500 (one 2.000), and the lowest on 2 of 3 tasks."
    assert comparison.verdict()[0] == words and words in read(path).text
    assert comparison.verdict()[1].startswith("On the observed samples, ")
    (tmp_path / "one" / "all_results.json").unlink()
    assert len(write_comparison(folders, path)[1].verdict()) == 1, "what one run lacks is not compared"


def test_runs_with_other_domains_are_compared_by_data_set(tmp_path):
    folders = make_runs(tmp_path)
    write_run(folders[1].parent / "dids2", 6, 21, num_sources=3)
    _, comparison = write_comparison([folders[0], folders[1].parent / "dids2"], tmp_path / "c.html")
    assert comparison.unit == "data set"
    assert [group[0].name for group in comparison.trajectories] == ["source_0", "source_1", "source_2"]
    for run in range(2):
        for at in range(11):
            assert sum(group[run].shares[at] for group in comparison.trajectories) == pytest.approx(100)


def test_runs_with_nothing_in_common_are_refused_by_name(tmp_path):
    write_run(tmp_path / "a", 4, 3, num_sources=2)
    write_run(tmp_path / "b", 4, 3, num_sources=4)
    with pytest.raises(DidsError, match="/a and .*/b: neither the same domains nor the same data sets"):
        write_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "c.html")
