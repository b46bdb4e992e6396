"""The quickstart's generator, and its run at a fifth of the size."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from llamafactory_dids.report.run import load_run
from llamafactory_dids.report.verdict import judge
from scripts.quickstart import build_model, generate, world
from tests.integration.support import train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def datasets() -> dict[str, list[dict[str, str]]]:
    return generate.generate(0)


# --- generator


def test_the_same_seed_writes_the_same_bytes(tmp_path, datasets):
    generate.write(datasets, tmp_path / "a")
    generate.write(generate.generate(0), tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert "dataset_info.json" in files
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_another_seed_is_another_world(datasets):
    assert generate.make_world(0) != generate.make_world(1)
    assert generate.generate(1)["weekdays"] != datasets["weekdays"]


def test_no_prompt_occurs_twice(datasets):
    prompts = Counter((row["instruction"], row["input"]) for rows in datasets.values() for row in rows)
    assert prompts.most_common(1)[0][1] == 1


def test_sizes_are_as_documented(datasets):
    for name, (_, size) in generate.SOURCES.items():
        assert len(datasets[name]) == size
        assert [name, str(size)] in [line.split()[:2] for line in generate.__doc__.splitlines()]
    for name in generate.TASKS:
        assert (len(datasets[name]), len(datasets[f"{name}_test"])) == (200, 300)


def test_random_answers_have_nothing_to_do_with_their_prompts(datasets):
    """Neither a copied word nor the best guess from any word of the prompt does better than chance."""
    rows = datasets["random_answers"]
    chance = 1 / len(world.WORDS)
    words = [(set(row["instruction"].split()) & set(world.WORDS), row["output"].split()) for row in rows]
    copied = sum(word in prompt for prompt, output in words for word in output)
    expected = sum(len(prompt) * len(output) for prompt, output in words) * chance
    assert copied == pytest.approx(expected, rel=0.15)

    half = len(words) // 2
    seen: dict[str, Counter[str]] = {}
    for prompt, output in words[:half]:
        for word in prompt:
            seen.setdefault(word, Counter()).update(output[:1])
    best = {word: firsts.most_common(1)[0][0] for word, firsts in seen.items()}
    hits = [best[word] == output[0] for prompt, output in words[half:] for word in prompt & best.keys()]
    assert sum(hits) / len(hits) < 4 * chance


def test_the_lexicon_can_be_learned_and_helps_no_task(datasets):
    meanings: dict[str, set[str]] = {}
    for row in datasets["lexicon"]:
        for word, translation in zip(row["input"].split(), row["output"].split(), strict=True):
            meanings.setdefault(word, set()).add(translation)
    assert all(len(translations) == 1 for translations in meanings.values())
    of_tasks = {word for name in generate.TASKS for row in datasets[name] for word in row["output"].split()}
    assert not of_tasks & set.union(*meanings.values())


def test_what_a_task_asks_is_taught_by_some_source(datasets):
    """In other words: the questions of a task occur nowhere in training, the parts of its answers do."""
    taught = {row["output"] for name in generate.SOURCES for row in datasets[name]}
    taught |= {part for answer in taught for part in answer.split(" and ")}
    for name in generate.TASKS:
        parts = [part for row in datasets[f"{name}_test"] for part in row["output"].split(" and ")]
        assert sum(part in taught for part in parts) / len(parts) > 0.9, name


def test_too_many_rows_are_an_error():
    draw = generate.ask(generate.traits)
    with pytest.raises(ValueError, match="traits has only .* distinct prompts, 5000 are needed"):
        generate.draw_distinct("traits", draw, 5000, 0, generate.make_world(0), set())


def test_the_yaml_names_what_the_generator_writes():
    settings = yaml.safe_load((ROOT / "examples/yaml/quickstart.yaml").read_text(encoding="utf-8"))
    assert settings["dataset"].split(",") == list(generate.SOURCES)
    assert settings["dids_tasks"].split(",") == list(generate.TASKS)
    assert settings["eval_dataset"].split(",") == [f"{name}_test" for name in generate.TASKS]
    samples = settings["max_steps"] * settings["per_device_train_batch_size"]
    assert samples // settings["dids_update_samples"] >= 20


def test_fewer_seeds_than_before_are_compared_without_the_older_runs(tmp_path):
    """The programs are stood in for by one that notes how it was called, and makes the output folder of a run."""
    programs, calls = tmp_path / "env" / "bin", tmp_path / "calls"
    for folder in (programs, tmp_path / "scripts", *(tmp_path / "quickstart" / "seeds" / seed for seed in "12")):
        folder.mkdir(parents=True)
    for name in ("quickstart.sh", "venv.sh"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    made = 'for word in "$@"; do case "$word" in output_dir=*) mkdir -p "${word#output_dir=}";; esac; done\n'
    for name in ("python", "llamafactory-cli", "llamafactory-dids"):
        (programs / name).write_text(f'#!/bin/sh\necho "$@" >>{calls}\n{made}')
        (programs / name).chmod(0o755)
    for seeds in ("2", "1"):
        command = ["bash", str(tmp_path / "scripts" / "quickstart.sh"), "--seeds", seeds]
        subprocess.run(command, env={**os.environ, "VENV": str(tmp_path / "env")}, check=True, capture_output=True)
    reports = [line for line in calls.read_text().splitlines() if line.startswith("report ")]
    assert [sorted(re.findall(r"seeds/(\d)/dids", line)) for line in reports] == [["1", "2"], ["1"]]


@pytest.mark.integration
@pytest.mark.slow
def test_the_report_begins_with_what_teaches_nothing_as_cut_most(tmp_path, datasets, monkeypatch):
    data, model = tmp_path / "data", tmp_path / "model"
    generate.write({name: rows[::5] for name, rows in datasets.items()}, data)
    monkeypatch.setattr(sys, "argv", ["build_model.py", "--data", str(data), "--output", str(model)])
    build_model.main()
    smaller = {"dataset_dir": str(data), "model_name_or_path": str(model), "dids_cache_dir": str(tmp_path / "cache")}
    smaller |= {"max_steps": 30, "dids_update_samples": 128, "do_eval": False, "eval_strategy": "no"}
    settings = yaml.safe_load((ROOT / "examples/yaml/quickstart.yaml").read_text(encoding="utf-8"))
    ran = train(settings | smaller | {"output_dir": str(tmp_path / "run"), "disable_tqdm": True})
    (cut,) = [line for line in judge(load_run(ran.dids)).lines[:3] if line.startswith("Cut most")]
    found = re.findall(r"(\w+) [\d.]+% → ([\d.]+)%", cut)[:2]  # an even mixture draws 8% and more of each
    assert [name for name, _ in found] == ["random_answers", "lexicon"] and all(float(drawn) < 2 for _, drawn in found)
