import yaml

from llamafactory_dids.artifacts.run_config import save_config

ARGUMENTS = {
    "model_name_or_path": "Qwen/Qwen2.5-0.5B",
    "dataset": "a,b",
    "learning_rate": 5e-05,
    "bf16": False,
    "dids_tasks": "数学, 'quoted': yes # no comment",
    "dids_eta": None,
    "long": "x" * 500,
    "extra": ["on", "1e3", "2024-01-01"],
}


def test_the_arguments_load_back_as_they_were_with_the_notes_as_comments(tmp_path):
    path = tmp_path / "dids" / "config.yaml"
    save_config(path, ARGUMENTS, {"llamafactory-dids": "0.1.0", "llamafactory": "0.9.5"})
    text = path.read_text(encoding="utf-8")
    assert list(yaml.safe_load(text).items()) == list(ARGUMENTS.items()), "in their order"
    assert text.splitlines()[:3] == [
        "# llamafactory-cli train config.yaml repeats this run.",
        "# llamafactory-dids: 0.1.0",
        "# llamafactory: 0.9.5",
    ]
