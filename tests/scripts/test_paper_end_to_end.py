"""The paper preset at toy size, from files to a row of a table: data, a recipe's own training, scores, Markdown."""

import json

import pytest

from scripts.experiments import definition, results, tables
from scripts.experiments.results import Table
from scripts.paper import prepare_data, score
from scripts.paper.recipe import Preset
from tests.helpers import write_lines
from tests.integration.support import build_model, examples, train

pytestmark = [pytest.mark.integration, pytest.mark.slow]

KNOWN = {name: {"mix_strategy": name} for name in ("dids", "proportional")}
# What is the machine's or the models' size, and nothing of the method.
TOY = {
    **{"use_cpu": True, "bf16": False, "template": "default", "cutoff_len": 96, "preprocessing_num_workers": 1},
    **{"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 6, "save_strategy": "no"},
    **{"dids_num_domains": 4, "dids_min_domain_size": 4, "dids_projection_dim": 32, "dids_update_samples": 16},
    **{"dids_task_samples": 8, "disable_tqdm": True, "plot_loss": False},
}


def make_files(folder):
    """Two sources in one collection, and two tasks in the hub's columns."""
    rows = []
    for seed, kind in enumerate(("sums", "pairs")):
        for one in examples(kind, 40, seed):
            question = {"role": "user", "content": f"{one['instruction']} {one['input']}"}
            rows.append(
                {"source": f"made/{kind}", "messages": [question, {"role": "assistant", "content": one["output"]}]}
            )
    write_lines(folder / "collection.jsonl", rows)
    for part, seed in (("train", 5), ("test", 6), ("validation", 6)):
        sums = examples("sums", 16, seed)
        gsm8k = [{"question": one["instruction"], "answer": f"#### {one['output']}"} for one in sums]
        piqa = [{"goal": one["instruction"], "sol1": one["output"], "sol2": "none", "label": 0} for one in sums]
        write_lines(folder / "tasks" / "gsm8k" / f"{part}.jsonl", gsm8k)
        write_lines(folder / "tasks" / "piqa" / f"{part}.jsonl", piqa)


def prepare(folder):
    words = [str(folder / "collection.jsonl"), "--output", str(folder / "data"), "--tasks", "gsm8k,piqa"]
    given = prepare_data.parser().parse_args([*words, "--task-files", str(folder / "tasks"), "--observed", "12"])
    said = list(prepare_data.prepare(given))
    assert any(line.startswith("gsm8k: 12 observed, 16 scored") for line in said), said


def test_a_run_goes_from_files_to_its_row_of_a_table(tmp_path, monkeypatch):
    pytest.importorskip(
        "lm_eval", reason="lm-evaluation-harness is not installed: pip install llamafactory-dids[paper]"
    )
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    make_files(tmp_path)
    prepare(tmp_path)
    names = json.loads((tmp_path / "data" / "sources.json").read_text())
    write_lines(
        tmp_path / "text" / "text.json", list(map(json.loads, (tmp_path / "collection.jsonl").read_text().splitlines()))
    )
    build_model(tmp_path / "model", tmp_path / "text", vocab_size=300, layers=2)
    preset = Preset(KNOWN, tmp_path / "saves")
    table = Table(definition.load_all()["table_11"], "paper", [1], None)
    for run in ("proportional", "dids"):
        config = dict(preset.config(run, "llama_tulu", 1))
        config = {key: value for key, value in config.items() if key not in ("deepspeed", "optim")} | TOY
        config |= {"model_name_or_path": str(tmp_path / "model"), "dids_proxy_model": str(tmp_path / "model")}
        config |= {
            "dataset_dir": str(tmp_path / "data"),
            "dataset": ",".join(names),
            "dids_tasks": "gsm8k_val,piqa_val",
        }
        made = train(config | {"dids_cache_dir": str(tmp_path / "domains")})
        words = ["--local", str(tmp_path / "data"), "--tasks", "piqa", "--backend", "hf", "--device", "cpu"]
        asked = ["--model", str(made.folder), *words, "--shots", "1", "--limit", "4", "--run", run]
        results.add(
            results.path_of("paper", run, "llama_tulu"),
            score.score(score.parser().parse_args(asked)),
        )
    table = Table(table.definition, "paper", [1], None)
    row = next(row for row in table.definition.rows if row.run == "dids")
    assert set(table.values(row, "piqa")) == {1} and table.values(row, "average") == {}, "one of nine tasks was scored"
    assert table.left("dids", "llama_tulu") == [1]
    text = tables.page(table)
    assert "| DIDS (Original) | paper | 69.2 |" in text and "|  | here, n = 1 | – | – |" in text
    line = results.read("paper", "dids", "llama_tulu")[1]
    assert line["cost"]["update_seconds"] > 0 and set(line["scores"]) == {"piqa"}
