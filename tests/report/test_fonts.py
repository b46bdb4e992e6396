import logging
import warnings

import matplotlib
import pytest

from llamafactory_dids.report import fonts
from llamafactory_dids.report.pictures import FIGURES, render
from llamafactory_dids.report.run import load_run
from llamafactory_dids.report.words import in_language, language
from tests.helpers import edit
from tests.report.letters import FAMILY, only_font
from tests.report.made_up import write_run
from tests.report.test_words import TABLE


@pytest.fixture(params=["数学题目", "数", ""], ids=["all letters", "some letters", "no letters"])
def letters(request, tmp_path, monkeypatch):
    """The letters of the only font that there is for Chinese."""
    with only_font(tmp_path, request.param, monkeypatch):
        yield request.param


@pytest.fixture
def run(tmp_path):
    """A run whose domains, data sets and tasks have Chinese names."""
    write_run(tmp_path, 6, 5, num_sources=2)
    for path in tmp_path.glob("*.json*"):
        edit(path, source_0="数学", task_0_val="题目")
    return tmp_path


def texts_of(figure) -> dict[str, list[str]]:
    """The families of each text that is seen."""
    fonts.use_fonts_for_letters(figure)
    figure.canvas.draw()
    found = figure.findobj(lambda artist: hasattr(artist, "get_fontfamily") and artist.get_visible())
    return {text.get_text(): text.get_fontfamily() for text in found if text.get_text().strip()}


def test_every_picture_of_chinese_names_is_drawn_without_a_letter_that_its_fonts_lack(letters, run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each such letter
        assert render(load_run(run)).keys() == FIGURES.keys()


def test_names_are_whole_where_there_is_a_font_and_have_boxes_for_what_there_is_not(letters, run):
    expected = "".join(letter if letter in letters else "□" for letter in "数学")
    for name in ("mixture", "impact"):
        texts = texts_of(FIGURES[name](load_run(run)))
        (families,) = [families for text, families in texts.items() if text.startswith(f"{expected}/0")]
        assert (FAMILY in families) == bool(letters), name


def test_letters_without_a_font_are_told_of_once(letters, run, caplog):
    with caplog.at_level(logging.WARNING):
        render(load_run(run))
        render(load_run(run))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (0 if letters == "数学题目" else 1)
    assert all("Noto Sans CJK" in message for message in told)


def test_names_that_the_own_font_has_look_for_no_other(letters, tmp_path, monkeypatch):
    write_run(tmp_path, 3, 3, text="a")
    assert fonts.with_boxes("é Ж → naïve") == "é Ж → naïve"
    families = texts_of(FIGURES["mixture"](load_run(tmp_path))).values()
    assert all(family == matplotlib.rcParams["font.family"] for family in families)


def test_the_hosts_settings_stay_as_they_are(letters, run):
    before = dict(matplotlib.rcParams)
    render(load_run(run))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("has_font", [True, False])
def test_pictures_are_in_english_where_no_font_has_the_letters_of_the_language(has_font, tmp_path, monkeypatch, caplog):
    letters = "".join(sorted({letter for text in TABLE.values() for letter in text if not letter.isascii()}))
    write_run(tmp_path, 6, 5, num_sources=2)
    with only_font(tmp_path, letters if has_font else "", monkeypatch), in_language("zh"):
        with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
            warnings.simplefilter("error")  # matplotlib warns of letters that it has no font for
            for _ in range(2):
                render(load_run(tmp_path))
        with fonts.drawable_language():
            assert language() == ("zh" if has_font else "en")
        assert language() == "zh"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (0 if has_font else 1)
    assert all("the pictures are in English" in message for message in told)
