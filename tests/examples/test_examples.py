"""Every example opens with the command that runs it, and asks for what there is."""

import dataclasses
import itertools
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from llamafactory_dids import mixers
from llamafactory_dids.config import FIELDS, make_config

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = sorted((CHECKOUT / "examples" / "yaml").glob("*.yaml"))
EXAMPLES = {path.name: path.read_text(encoding="utf-8") for path in FILES}


def test_there_are_examples():
    assert "quickstart.yaml" in EXAMPLES


@pytest.fixture(params=EXAMPLES)
def text(request):
    return EXAMPLES[request.param]


@pytest.fixture
def values(text):
    return yaml.safe_load(text)


@pytest.mark.parametrize("name", EXAMPLES)
def test_opens_with_a_comment_that_names_its_command_and_says_what_it_needs(name):
    opening = list(itertools.takewhile(lambda line: line.startswith("#"), EXAMPLES[name].splitlines()))
    assert any(f"train examples/yaml/{name}" in line for line in opening)
    assert any("# Needs: " in line for line in opening)


def test_asks_for_a_strategy_and_keys_that_there_are(values):
    assert values["mix_strategy"] in mixers.names()
    assert [key for key in values if key.startswith("dids_") and key not in FIELDS] == []


def test_values_are_allowed(values):
    config = make_config(values)
    given = {key: value for key, value in values.items() if key in FIELDS and not isinstance(value, list)}
    assert {key: getattr(config, key) for key in given} == given


def test_names_no_folder_of_one_machine(values):
    assert [key for key, value in values.items() if str(value).startswith(("/", "~"))] == []


def test_the_page_of_strategies_has_keys_for_each_that_are_allowed():
    page = (CHECKOUT / "docs" / "strategies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| `(mix_strategy=[^`]+)`", page, re.MULTILINE)
    given = [dict(word.split("=", 1) for word in shlex.split(row)) for row in rows]
    assert {values["mix_strategy"] for values in given} == set(mixers.names())
    for values in given:
        make_config({key: yaml.safe_load(value) if ":" not in value else value for key, value in values.items()})


def test_the_papers_file_has_the_papers_numbers():
    """Appendix B.4, and 100k samples in 25 updates (section 5.4)."""
    text = EXAMPLES["llama3_8b_tulu3_dids.yaml"]
    values = yaml.safe_load(text)
    expected = {
        "dids_preset": "paper",
        "optim": "adamw_torch",
        "learning_rate": 5e-4,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "cutoff_len": 8192,
        "dids_update_samples": 4000,
        "dids_ema_beta": 0.1,
        "dids_num_domains": 72,
        "dids_projection_dim": 1024,
        "dids_topk_ratio": 0.1,
        "finetuning_type": "full",
    }
    assert {key: values[key] for key in expected} == expected
    batch = 8 * values["per_device_train_batch_size"] * values["gradient_accumulation_steps"]
    assert batch == 128 and "8 GPUs" in text
    samples = batch * values["max_steps"]
    assert 100_000 <= samples < 100_000 + batch and samples // values["dids_update_samples"] == 25
    assert len(values["dids_tasks"].split(",")) == 9


def test_an_example_has_as_many_windows_as_it_says(text, values):
    said = re.search(r"so (\d+) windows", text)
    if said is None or "max_steps" not in values:
        pytest.skip("says nothing of windows")
    gpus = int(found[1]) if (found := re.search(r"(\d+) GPUs of", text)) else 1
    per_step = gpus * values["per_device_train_batch_size"] * values.get("gradient_accumulation_steps", 1)
    assert per_step * values["max_steps"] // values["dids_update_samples"] == int(said[1])


def test_a_file_that_it_names_beside_the_data_is_there(values):
    if path := values.get("deepspeed"):
        assert json.loads((CHECKOUT / path).read_text())["zero_optimization"]["stage"] <= 2


@pytest.mark.integration
def test_has_only_keys_and_values_that_the_host_or_the_plugin_takes(values):
    from transformers import HfArgumentParser

    from tests.integration.support import tuner

    tuner()
    from llamafactory.hparams import parser

    known = {field.name for kind in parser._TRAIN_ARGS for field in dataclasses.fields(kind)}
    assert [key for key in values if key not in known] == []
    from llamafactory.data.template import TEMPLATES

    assert values.get("template", "default") in TEMPLATES
    # the host's own reading of types and choices; whether there is a GPU for bf16, or DeepSpeed, is the machine's
    of_the_machine = {"bf16": False, "deepspeed": None, "use_cpu": True}
    read = HfArgumentParser(parser._TRAIN_ARGS).parse_dict({**values, **of_the_machine})
    assert any(getattr(part, "mix_strategy", "") == values["mix_strategy"] for part in read)
