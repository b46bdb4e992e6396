import json
from pathlib import Path

import pytest
import yaml

from scripts import split_sources

CHECKOUT = Path(__file__).resolve().parents[2]

ROWS = [
    {"source": "ai2/Flan_v2 converted", "messages": [{"role": "user", "content": "a"}]},
    {"source": None, "conversations": [{"from": "human", "value": "b"}, {"from": "gpt", "value": "ü"}]},
    {"source": "ai2/Flan_v2 converted", "messages": [{"role": "system", "content": "c"}]},
    {"source": "empty", "messages": []},
]


def test_each_source_becomes_a_dataset_with_its_rows(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"gsm8k_val": {"file_name": "gsm8k_val.json"}}')
    counts = split_sources.split(ROWS, tmp_path, "source")
    assert counts == {"flan_v2_converted": 2, "other": 1}
    (line,) = (tmp_path / "other.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["messages"] == [
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "ü"},
    ]
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert set(info) == {*counts, "gsm8k_val"}, "what was entered before stays"
    assert all((tmp_path / info[name]["file_name"]).exists() for name in counts)


def test_the_names_in_the_example_are_those_that_the_collections_sources_get():
    values = yaml.safe_load((CHECKOUT / "examples" / "yaml" / "llama3_8b_tulu3_dids.yaml").read_text())
    names = values["dataset"].split(",")
    assert len(set(names)) == len(names) == 19
    assert [split_sources.dataset_name(name) for name in names] == names
    assert split_sources.dataset_name("ai2-adapt-dev/tulu_v3.9_aya_100k") in names


@pytest.mark.parametrize("name", ["a/b/C-d.e", "C d e"])
def test_a_name_is_made_of_letters_digits_and_underscores(name):
    assert split_sources.dataset_name(name) == "c_d_e"


@pytest.mark.parametrize("inputs", [["a/b", "c/d"], ["rows.jsonl", "a/b"]])
def test_a_second_hub_name_is_not_passed_over(inputs):
    with pytest.raises(SystemExit, match="input: got .*, allowed: one hub name, or .parquet"):
        split_sources.read(inputs, "train")
