"""The languages of a report: tables that have each text that is used, and nothing else."""

import ast
import json
import re
from pathlib import Path

import pytest

from llamafactory_dids import report
from llamafactory_dids.errors import DidsError
from llamafactory_dids.report import html, words
from tests.report.made_up import write_run
from tests.report.test_html import read

HERE = Path(report.__file__).parent
TABLE = json.loads((HERE / "templates" / "zh.json").read_text(encoding="utf-8"))


def literals() -> set[str]:
    """All strings of the sources."""
    trees = [ast.parse(path.read_text()) for path in HERE.glob("*.py")]
    return {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def asked_for() -> set[str]:
    """The texts that `t` and `counted` are called with, in the sources and the templates."""
    found = set()
    for path in HERE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("t", "counted"):
                text = node.args[0] if node.func.id == "t" else node.args[1]
                found |= {text.value} if isinstance(text, ast.Constant) else set()
    for path in (HERE / "templates").glob("*.html"):
        found |= set(re.findall(r'\bt\("([^"]*)"', path.read_text()))
    return found


def test_each_text_that_is_used_is_in_the_table_and_no_other():
    assert asked_for() - TABLE.keys() == set()
    assert TABLE.keys() - asked_for() - literals() == set(), "of no text that is there"


def test_a_translation_has_the_same_values():
    for english, chinese in TABLE.items():
        assert sorted(re.findall(r"{\w+}", english)) == sorted(re.findall(r"{\w+}", chinese)), english


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (words.number(253.4), "253"),
        (words.times(1234.0), "×1,234"),
        (words.times(1 / 1234), "÷1,234"),
        (words.duration(3600 * 1234), "1,234 h"),
        (words.duration(61.54), "61.5 s"),
    ],
)
def test_large_numbers_are_told_without_a_power_of_ten(told, expected):
    assert told == expected


def test_a_report_in_chinese_has_the_same_numbers_and_english_comes_back(tmp_path):
    write_run(tmp_path, 4, 9, num_sources=2)
    english = read(html.write_report(tmp_path)).text
    chinese = read(html.write_report(tmp_path, lang="zh")).text
    numbers = [re.findall(r"\d+\.\d+%", text) for text in (english, chinese)]
    assert numbers[0] == numbers[1] and len(numbers[0]) > 20
    assert "减少最多" in chinese and "Cut most" not in chinese and "的占比" in chinese
    assert read(html.write_report(tmp_path)).text == english
    with pytest.raises(DidsError, match="--lang: got 'xx', allowed: en, zh"):
        html.write_report(tmp_path, lang="xx")
    assert words.language() == "en"
