"""Every example opens with the command that runs it, and asks for what there is."""

from pathlib import Path

import pytest
import yaml

from llamafactory_dids import mixers
from llamafactory_dids.config import FIELDS, make_config

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((CHECKOUT / "examples" / "yaml").glob("*.yaml"))


def test_there_are_examples():
    assert "quickstart.yaml" in [path.name for path in EXAMPLES]


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request):
    return request.param


def test_opens_with_a_comment_that_names_its_command(example):
    lines = example.read_text(encoding="utf-8").splitlines()
    opening = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert any(f"train {example.relative_to(CHECKOUT)}" in line for line in opening)


def test_asks_for_a_strategy_and_keys_that_there_are(example):
    values = yaml.safe_load(example.read_text(encoding="utf-8"))
    assert values["mix_strategy"] in mixers.names()
    assert [key for key in values if key.startswith("dids_") and key not in FIELDS] == []


def test_values_are_allowed(example):
    values = yaml.safe_load(example.read_text(encoding="utf-8"))
    config = make_config(values)
    assert {key: getattr(config, key) for key in values if key in FIELDS and not isinstance(values[key], list)} == {
        key: value for key, value in values.items() if key in FIELDS and not isinstance(value, list)
    }


def test_names_no_folder_of_one_machine(example):
    values = yaml.safe_load(example.read_text(encoding="utf-8"))
    assert [key for key, value in values.items() if str(value).startswith(("/", "~"))] == []
