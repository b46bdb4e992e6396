"""docs/keys.md: each key once, with the type, range and default that the code has."""

import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from llamafactory_dids import config, mixers
from llamafactory_dids.config import FIELDS
from llamafactory_dids.integration.strategy import option_key
from llamafactory_dids.mixers.dids_options import PRESETS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "keys.md").read_text(encoding="utf-8")
KEY = r"^### `(?P<key>\w+)`\n\n\*Type: (?P<type>.+?)\. Default: (?P<default>.+)\.\*\n\n(?P<text>(?:[^#\n].*\n)+)"
SECTIONS = {found["key"]: found for found in re.finditer(KEY, PAGE, flags=re.MULTILINE)}
OURS = {key: found for key, found in SECTIONS.items() if key in FIELDS}
TIERS = ("Needed", "Useful", "Method", "Research")


def written(value: object) -> str:
    """A value as a YAML file has it, in code."""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def range_of_an_option(key: str) -> str:
    """What the strategies that have the option say is allowed, asked by a value that none allows."""
    said = set()
    for strategy in mixers.names():
        for name in mixers.options(strategy):
            if option_key(strategy, name) == key:
                with pytest.raises(ValueError, match=key) as refusal:
                    mixers.create(strategy, 2, 1, **{name: -1.0})
                said.add(str(refusal.value).partition("allowed: ")[2])
    (allowed,) = said
    return allowed


def type_of(key: str) -> str:
    (kind,) = [kind for kind in config._kinds(FIELDS[key].type) if kind is not type(None)]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(written, get_args(kind)))
    if kind is bool:
        return "`true`, `false`"
    if key in config._RANGES:
        return config._RANGES[key][2]
    return "text" if kind is str else range_of_an_option(key)


def test_the_page_has_each_key_and_none_that_there_is_not():
    headings = re.findall(r"^### `(.+)`$", PAGE, flags=re.MULTILINE)
    assert sorted(headings) == sorted(["mix_strategy", *FIELDS])
    assert list(SECTIONS) == headings, "a key without its line of type and default"


@pytest.mark.parametrize("key", OURS)
def test_type_range_and_default_are_the_codes(key):
    assert OURS[key]["type"] == type_of(key)
    if FIELDS[key].default is not None:
        assert OURS[key]["default"] == written(FIELDS[key].default)


@pytest.mark.parametrize("key", SECTIONS)
def test_each_key_says_when_to_change_it(key):
    assert "\n**Change it** " in SECTIONS[key]["text"]


def test_the_keys_stand_in_four_tiers():
    tiers = re.findall(r"^## (\w+)\n(?:(?!^## ).*\n)*?### `", PAGE, flags=re.MULTILINE)
    assert tuple(tiers) == TIERS


def test_each_strategy_is_named():
    assert [name for name in mixers.names() if f"`{name}`" not in SECTIONS["mix_strategy"]["text"]] == []


def test_the_table_of_presets_has_the_presets_values():
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `dids_")]
    table = {row[0].strip("`"): dict(zip(PRESETS, row[1:], strict=True)) for row in rows}
    assert sorted(table) == sorted(f"dids_{key}" for key in PRESETS["default"])
    for preset, values in PRESETS.items():
        for key, value in values.items():
            shown = table[f"dids_{key}"][preset]
            if shown != "–":  # what the reading does not use
                assert shown.replace("`", "") == (f"{value:g}" if isinstance(value, float) else written(value)[1:-1])
