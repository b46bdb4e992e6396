"""Every example opens with the command that runs it, and asks for what there is."""

from pathlib import Path

import pytest
import yaml

from llamafactory_dids import mixers
from llamafactory_dids.config import FIELDS, make_config

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((CHECKOUT / "examples" / "yaml").rglob("*.yaml"))
STRATEGIES = [path for path in EXAMPLES if path.parent.name == "strategies"]
# What a strategy's file may have otherwise than the others: whatever is about the mixture.
OF_THE_MIXTURE = {"mix_strategy", "output_dir", "dataset"}


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


def test_every_strategy_has_a_file_of_its_own():
    used = [yaml.safe_load(path.read_text(encoding="utf-8"))["mix_strategy"] for path in STRATEGIES]
    assert set(used) >= set(mixers.names())
    assert {path.stem for path in STRATEGIES} >= set(mixers.names())


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.stem)
def test_files_of_strategies_differ_in_the_mixture_alone(path):
    base = yaml.safe_load((CHECKOUT / "examples" / "yaml" / "quickstart.yaml").read_text(encoding="utf-8"))
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    differ = {key for key in base.keys() | values.keys() if base.get(key) != values.get(key)}
    assert {key for key in differ if not key.startswith("dids_")} <= OF_THE_MIXTURE
    mixed_in = values.get("dids_mix_in", "").split(",")
    assert {*values["dataset"].split(","), *mixed_in} - {""} == set(base["dataset"].split(","))
    assert values["output_dir"] == f"quickstart/strategies/{path.stem}"
