"""The results that the documents show are those of the committed result files."""

import re

import pytest

from scripts.experiments import definition, pages, reproduce, results, stats, tables

CONTINUED, SCRATCH, SMOLLM2 = "mini_continued", "mini", "mini_smollm2"
SAID_ONCE = [  # the same of runs with one seed, on all three pages
    (SMOLLM2, "dids", "proportional", "losses"),
    (SMOLLM2, "dids", "importance", "losses"),
    (SMOLLM2, "dids", "proportional", "unseen"),
]
SAID = [  # folder, run, the run that it is compared with, the losses, where: in README too, or in results.md alone
    (CONTINUED, "dids", "proportional", "losses", "README"),
    (CONTINUED, "dids", "importance", "losses", "README"),
    (CONTINUED, "dids", "proportional", "unseen", "README"),
    (CONTINUED, "dids", "static", "losses", "results"),
    (CONTINUED, "dids", "proportional", "mbpp", "results"),
    (CONTINUED, "dids", "proportional", "arc_challenge", "results"),
    (CONTINUED, "dga_domains_72", "dga", "losses", "results"),
    (CONTINUED, "importance_domains_72", "importance", "losses", "results"),
    (SCRATCH, "dids", "proportional", "unseen", "results"),
]
LATER = range(5, 10)  # the seeds that chose nothing
ALL = definition.load_all()
WRITTEN = sorted(reproduce.TABLES.glob("*/*.md"))


@pytest.mark.parametrize("path", pages.PAGES, ids=lambda path: path.name)
def test_the_tables_of_a_page_are_those_of_the_result_files(path):
    page = path.read_text(encoding="utf-8")
    assert pages.MARKER.search(page)
    assert pages.rebuilt(page) == page, "python scripts/experiments/pages.py makes them anew"


@pytest.mark.parametrize(("folder", "run", "other", "what", "where"), SAID)
def test_a_difference_in_a_sentence_is_that_of_the_result_files(folder, run, other, what, where):
    a, b = (results.read(folder, name) for name in (run, other))
    if what not in ("losses", "unseen"):
        a, b = ({seed: {"one": {what: line["unseen"][what]}} for seed, line in runs.items()} for runs in (a, b))
    mean, half = stats.estimate(stats.paired(a, b, what if what in ("losses", "unseen") else "one"))[:2]
    low, high = abs(mean) - half, abs(mean) + half
    for page in pages.PAGES[:3] if where == "README" else pages.PAGES[2:3]:
        text = " ".join(pages.MARKER.sub("", page.read_text(encoding="utf-8")).replace("−", "-").split())
        assert f"{abs(mean):.3f}" in text
        assert re.search(rf"{low:.3f} ?(to|至) ?{high:.3f}", text), page.name


@pytest.mark.parametrize("other", ["importance", "dga", "proportional"])
def test_a_difference_over_the_seeds_that_chose_nothing_is_that_of_the_result_files(other):
    run = {seed: line for seed, line in results.read(CONTINUED, "dids").items() if seed in LATER}
    mean, half = stats.estimate(stats.paired(run, results.read(CONTINUED, other)))[:2]
    text = " ".join(pages.PAGES[2].read_text(encoding="utf-8").split())
    assert f"{-mean:.3f} ({-mean - half:.3f} to {-mean + half:.3f})" in text


@pytest.mark.parametrize(("folder", "run", "other", "what"), SAID_ONCE)
def test_the_difference_of_one_seed_in_a_sentence_is_said_to_be_one(folder, run, other, what):
    pairs = stats.paired(*(results.read(folder, name) for name in (run, other)), what)
    assert len(pairs) == 1, "with more, SAID has it with its interval"
    for page in pages.PAGES[:3]:
        text = pages.MARKER.sub("", page.read_text(encoding="utf-8"))
        assert f"{abs(pairs[0]):.3f}" in text and re.search("one seed|一个种子", text), page.name


@pytest.mark.parametrize("path", WRITTEN, ids=[f"{path.parent.name}-{path.stem}" for path in WRITTEN])
def test_a_table_of_the_paper_is_what_its_own_command_makes(path):
    text = path.read_text(encoding="utf-8")
    command = re.search(r"--(?:table|figure) (\S+) --preset (\S+) --seeds (\d+) --render", text)
    assert command is not None and command[2] == path.parent.name
    table = reproduce.table_of(ALL[path.stem], command[2], range(1, int(command[3]) + 1))
    assert tables.page(table) == text, command[0]
