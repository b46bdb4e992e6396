"""The web page, clicked through in a real Chromium: from the choice of a strategy to the domains of a finished run."""

import json
import shutil
from types import SimpleNamespace

import pytest
import yaml

from llamafactory_dids.artifacts.mixture_log import MixtureLog
from tests.integration.support import World, make_world, read_lines
from tests.webui.board import CHROMIUM, Board, browser, server, wait_until

pytest.importorskip("playwright", reason="playwright is not installed: pip install 'llamafactory-dids[test]'")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that the page is started in, and that of its data and models."""
    return SimpleNamespace(home=tmp_path_factory.mktemp("board"), world=World(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def board(place):
    with server(place.world, place.home) as address, browser() as chromium:
        make_world(place.world.folder)  # while the server starts
        board = Board(chromium.new_page(viewport={"width": 1400, "height": 1000}), address)
        board.open()
        yield board
        assert board.errors == []


@pytest.fixture(scope="module")
def first_look(board):
    """What the page shows before anything is chosen, the section unfolded."""
    folded = board.shown("Strategy")
    board.unfold("Data mixing configurations")
    board.block("Strategy").wait_for()
    return SimpleNamespace(
        folded=not folded, strategy=board.value("Strategy"), tasks=board.shown("Tasks"), tau=board.shown(TAU)
    )


@pytest.fixture(scope="module")
def filled(board, place, first_look):
    """A small run of `dids`, filled in."""
    board.fill_in(place.world, place.home)
    return board


@pytest.fixture(scope="module")
def ran(filled, place):
    """That run, started from the page and watched to its end."""
    args = filled.preview()
    filled.start()
    filled.says("gradients: 270 of 270 samples")  # in the log; the bar has it for as long as nothing has been trained
    filled.says("Domain probabilities")
    during = filled.page.get_by_text("Finished.").count()
    filled.says("Finished.")
    return SimpleNamespace(args=args, folder=place.home / args["output_dir"], finished_at_first_picture=during > 0)


TAU = "Samples between updates (τ)"


def pictures(board):
    """The names of the pictures that are shown."""
    return set(board.page.locator(".dids-picture:visible:has(svg) h4").all_inner_texts())


def domain_rows(board):
    """The texts of the cells of each domain, and of its sample."""
    rows = board.page.locator("table.dids-domains tbody tr").all()
    texts = [row.locator("td").all_inner_texts() for row in rows]
    return [[*first, *second] for first, second in zip(texts[::2], texts[1::2], strict=True)]


# Every opacity below 1 that a component of the page has within so many milliseconds.
FADING = """async (milliseconds) => {
  const faded = new Set(), end = performance.now() + milliseconds;
  while (performance.now() < end) {
    for (const part of document.querySelectorAll('.block, .html-container, .prose')) {
      const opacity = parseFloat(getComputedStyle(part).opacity);
      if (opacity < 1 && part.checkVisibility()) faded.add(part.className + ': ' + opacity);
    }
    await new Promise(requestAnimationFrame);
  }
  return [...faded];
}"""


def test_section_is_folded_and_offers_the_strategy_alone_until_one_is_chosen(first_look):
    shown = "concat — no mixing: all data, shuffled"
    assert first_look == SimpleNamespace(folded=True, strategy=shown, tasks=False, tau=False)


def test_section_stands_below_the_datasets(board, first_look):
    tops = [board.block(label).bounding_box()["y"] for label in ("Dataset", "Strategy", "Learning rate")]
    assert tops == sorted(tops)


def test_fields_that_do_not_apply_to_the_strategy_are_hidden(filled):
    filled.choose("Strategy", "uniform")
    wait_until(lambda: not filled.shown("Tasks"))
    assert not filled.shown(TAU) and not filled.shown("Number of domains"), "the datasets are the domains"
    filled.choose("Domains from", "cluster")
    wait_until(lambda: filled.shown("Number of domains"))
    filled.choose("Domains from", "auto")
    filled.choose("Strategy", "dids")
    wait_until(lambda: filled.shown("Tasks"))
    assert filled.value(TAU) == "32"
    assert filled.tokens("Tasks") == ["task_sums", "task_pairs"]  # what was entered is still there


def test_preview_shows_what_was_chosen_and_nothing_else_of_ours(filled):
    assert {key: value for key, value in filled.preview().items() if key.startswith(("mix_", "dids_"))} == {
        "mix_strategy": "dids",
        "dids_tasks": "task_sums,task_pairs",
        "dids_task_samples": "12",
        "dids_num_domains": "6",
        "dids_update_samples": "32",
        "dids_min_domain_size": "5",
        "dids_projection_dim": "64",
        "dids_cache_dir": filled.preview()["dids_cache_dir"],
    }


def test_what_the_run_would_do_stands_below_the_fields_and_in_the_preview(filled):
    filled.says("640 training samples in 40 steps")
    filled.press("Preview command")
    filled.says("What this run would do")
    shown = filled.page.locator(".dids-line:visible, .prose:visible:has-text('What this run would do')")
    said = ("19 updates, one every 32 samples", "more computing", "more memory")
    wait_until(lambda: shown.count() >= 2 and all(part in text for text in shown.all_inner_texts() for part in said))


def test_wrong_entry_is_told_in_one_line_and_nothing_starts(filled, place):
    filled.unfold("Details of the method")
    for button, entry in (("Preview command", "much"), ("Start", "more")):
        filled.fill("Smoothing (β)", entry)
        filled.press(button)
        filled.says(f"Smoothing (β): got '{entry}', allowed: a number")
        assert filled.page.get_by_text("Traceback").count() == 0
    filled.fill("Smoothing (β)", "")
    assert not (place.home / "saves").exists()


def test_tasks_chosen_from_another_folder_stay_shown_and_are_refused_by_name(filled, place):
    other = shutil.copytree(place.world.data, place.home / "other")
    info = json.loads((other / "dataset_info.json").read_text())
    del info["task_sums"]
    (other / "dataset_info.json").write_text(json.dumps({**info, "only_here": info["noise"]}))
    filled.fill("Data dir", str(other))
    filled.block("Tasks").locator("input").first.click()
    filled.page.get_by_role("option", name="only_here", exact=True).wait_for()
    assert filled.tokens("Tasks") == ["task_sums", "task_pairs"]
    filled.press("Preview command")
    filled.says(f"Tasks: got 'task_sums', allowed: a name in {other}'s dataset_info.json")
    filled.fill("Data dir", str(place.world.data))
    assert filled.preview()["dids_tasks"] == "task_sums,task_pairs"


def test_saved_arguments_come_back_when_they_are_loaded(filled, place):
    filled.switch("Loss trajectory", False)
    filled.press("Save arguments")
    filled.says("saved")
    (saved,) = (place.home / "llamaboard_config").glob("*.yaml")
    assert yaml.safe_load(saved.read_text())["train.dids_tasks"] == ["task_sums", "task_pairs"]

    filled.switch("Loss trajectory", True)
    filled.choose("Strategy", "concat")
    wait_until(lambda: not filled.shown("Tasks"))
    filled.press("Load arguments")
    wait_until(lambda: filled.shown("Tasks"))
    assert filled.value("Strategy").startswith("dids — ") and filled.value("Number of domains") == "6"
    assert filled.tokens("Tasks") == ["task_sums", "task_pairs"]
    assert filled.preview()["dids_trajectory"] == "False"
    filled.switch("Loss trajectory", True)


def test_run_that_was_started_uses_what_was_chosen(ran):
    written = yaml.safe_load((ran.folder / "training_args.yaml").read_text())
    assert {key: str(value) for key, value in written.items() if key in ran.args} == ran.args
    lines = read_lines(ran.folder / "dids" / "mixture.jsonl")
    assert len(lines[0]["probabilities"]) == 6 and set(lines[0]["task_loss"]) == {"task_sums", "task_pairs"}
    assert lines[1]["samples_seen"] == 32


def test_pictures_are_there_while_it_trains_and_after(board, ran):
    assert not ran.finished_at_first_picture
    assert pictures(board) == {"Domain probabilities", "Task losses"}


def test_pictures_have_the_text_of_the_theme_and_open_large(board, ran):
    def colours():
        text = "document.querySelector('.dids-picture svg text')"
        return board.page.evaluate(f"[getComputedStyle({text}).fill, getComputedStyle(document.body).color]")

    light = colours()
    board.page.evaluate("document.body.classList.add('dark')")
    dark = colours()
    board.page.evaluate("document.body.classList.remove('dark')")
    assert light[0] != dark[0]
    picture = board.page.locator(".dids-picture:visible").first
    small = picture.bounding_box()["width"]
    picture.locator("svg").click()
    wait_until(lambda: picture.bounding_box()["width"] > 2 * small)
    picture.locator("svg").click()
    wait_until(lambda: picture.bounding_box()["width"] == small)


def test_domains_view_says_what_the_map_holds(board, ran):
    board.unfold("Domains")
    board.page.locator("table.dids-domains").wait_for()
    described = {d["name"]: d for d in json.loads((ran.folder / "dids" / "domains.json").read_text())["domains"]}
    now = read_lines(ran.folder / "dids" / "mixture.jsonl")[-1]["probabilities"]
    shares = {name: f"{100 * share:.2f}%" for name, share in now.items()}
    wait_until(lambda: {row[0]: row[4] for row in domain_rows(board)} == shares)  # in the order of an earlier update
    rows = {row[0]: row[1:] for row in domain_rows(board)}
    assert rows.keys() == described.keys()
    for name, (size, sources, _, probability, _, texts) in rows.items():
        assert size == str(described[name]["size"])
        assert sources == f"{name.split('/')[0]} 100%"
        assert probability == f"{100 * now[name]:.2f}%"
        assert texts.split()[1] in described[name]["typical_texts"][0]


def test_nothing_fades_while_the_page_is_idle_nor_when_an_update_comes(board, ran):
    assert board.page.evaluate(FADING, 5000) == []
    touch(ran)
    assert board.page.evaluate(FADING, 5000) == []


def touch(ran):
    """As an update does: the log has another stamp, and its last line another share."""
    log = MixtureLog(ran.folder / "dids" / "mixture.jsonl")
    lines = log.read()
    lines[-1]["samples_seen"] += 1
    log.replace(lines)


def test_what_was_typed_and_unfolded_survives_an_update(board, ran):
    board.page.locator("table.dids-domains details").first.locator("summary").click()
    drawn = board.page.locator(".dids-picture svg").first.inner_html()
    touch(ran)
    wait_until(lambda: board.page.locator(".dids-picture svg").first.inner_html() != drawn)
    assert board.page.locator("table.dids-domains details[open]").count() == 1

    own = board.value("Run or domain map")
    board.fill("Run or domain map", "another/run")
    drawn = board.page.locator(".dids-picture svg").first.inner_html()
    touch(ran)
    wait_until(lambda: board.page.locator(".dids-picture svg").first.inner_html() != drawn)
    assert board.value("Run or domain map") == "another/run"
    board.fill("Run or domain map", own)


def test_baseline_is_the_same_run_with_every_sample_alike_and_is_compared_in_the_page(board, place, ran):
    board.unfold("Did it help? Compare runs")
    board.start("Train the baseline (same arguments, proportional)")
    baseline = ran.folder.parent / f"{ran.folder.name}_proportional"
    wait_until((baseline / "dids" / "report.html").exists)
    written = yaml.safe_load((baseline / "training_args.yaml").read_text())
    changed = {"mix_strategy", "dids_domains", "output_dir"}
    ours = {key: value for key, value in written.items() if key not in changed and not key.startswith("dids_")}
    assert {key: str(value) for key, value in ours.items() if key in ran.args}.items() <= ran.args.items()
    assert (written["mix_strategy"], written["dids_domains"]) == ("proportional", "source")

    board.choose("Runs", str(ran.folder.relative_to(place.home)), str(baseline.relative_to(place.home)))
    board.press("Compare")
    frame = board.page.frame_locator(".dids-report iframe >> visible=true")
    frame.get_by_text(baseline.name).first.wait_for()


def test_language_changes_what_the_section_and_the_domains_say(board, ran):
    board.unfold("Data mixing configurations")
    board.unfold("Domains")
    board.choose("Language", "zh")
    board.says("数据混合参数设置")
    board.block("目标任务").wait_for()
    board.page.locator("table.dids-domains th:text-is('领域')").wait_for()
    board.choose("语言", "en")
    board.block("Tasks").wait_for()
    board.page.locator("table.dids-domains th:text-is('Domain')").wait_for()


def test_finished_run_can_be_opened_again_with_its_report(board, ran):
    board.open()
    assert pictures(board) == set()
    board.type_choice("Output dir", ran.folder.name)
    wait_until(lambda: len(pictures(board)) == 2)
    board.unfold("Report")
    title = ran.folder.name
    board.page.frame_locator(".dids-report iframe").first.get_by_text(title).first.wait_for()
    with board.page.expect_download() as download:
        board.page.locator(".file-preview:visible a[download='mixture.jsonl']").click()
    assert download.value.suggested_filename == "mixture.jsonl"
    with board.page.expect_popup() as popup:
        board.page.get_by_text("Open in a new tab").first.click()
    popup.value.get_by_text(title).first.wait_for()
    popup.value.close()


def test_report_follows_the_theme_of_the_page(board, ran):
    body = board.page.frame_locator(".dids-report iframe >> visible=true").first.locator("body")

    def background():
        return body.evaluate("body => getComputedStyle(body).backgroundColor")

    light = background()
    board.page.evaluate("document.body.classList.add('dark')")
    wait_until(lambda: background() != light)
    board.page.evaluate("document.body.classList.remove('dark')")
    wait_until(lambda: background() == light)
