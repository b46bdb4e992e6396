"""Every component has every language."""

import re

import pytest

from llamafactory_dids import mixers
from llamafactory_dids.integration.arguments.keys import HOST_STRATEGIES
from llamafactory_dids.integration.webui import texts

ALL = texts.locales()


@pytest.mark.parametrize("name", ALL)
def test_component_has_each_language_and_none_twice(name):
    by_language = ALL[name]
    assert set(by_language) == {"en", "ru", "zh", "ko", "ja"}
    (kinds,) = {tuple(text) for text in by_language.values()}
    for kind in kinds:
        said = [by_language[lang][kind] for lang in texts.LANGUAGES]  # texts, or the choices of a field
        assert all(said) and len(set(said)) == len(said)


@pytest.mark.parametrize("phrase", texts.PHRASES)
def test_phrase_has_each_language_with_the_same_gaps(phrase):
    said = [texts.say(phrase, lang) for lang in texts.LANGUAGES]
    assert all(said) and len({tuple(sorted(re.findall(r"{\w+}", text))) for text in said}) == 1


def test_each_strategy_of_ours_has_a_line_in_each_language():
    for lang in texts.LANGUAGES:
        shown = {name: text for text, name in texts.choices(lang)}
        assert set(shown) == {*HOST_STRATEGIES, *mixers.names()}
        assert [name for name, text in shown.items() if text == name] == []


@pytest.mark.parametrize(
    ("lang", "first", "last"), [("ru", "А", "я"), ("zh", "一", "鿿"), ("ko", "가", "힣"), ("ja", "ぁ", "ヿ")]
)
def test_help_is_written_in_the_script_of_its_language(lang, first, last):
    for name, by_language in ALL.items():
        help_text = by_language[lang].get("info")
        assert help_text is None or any(first <= letter <= last for letter in help_text), (name, help_text)


@pytest.mark.parametrize("lang", [None, "xx"])
def test_phrase_is_english_before_a_language_was_chosen(lang):
    assert texts.say("domain", lang) == "Domain"
