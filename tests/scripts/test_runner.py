"""The mini preset: what its words become, what a run's scores are, and the intervals of its tables."""

import json
import random
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from sentence_transformers import SentenceTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import normalize
from transformers import AutoModelForCausalLM, AutoTokenizer

from llamafactory_dids import mixers
from llamafactory_dids.artifacts.domain_map import DomainMap
from llamafactory_dids.config import MixingConfig
from llamafactory_dids.errors import DidsError
from scripts.experiments import definition, encoder, maps, models, results, runner, scores, sizes
from scripts.quickstart import build_model

RUNS = yaml.safe_load((Path(runner.__file__).parent / "runs.yaml").read_text())


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def row(question: str, answer: str, **more) -> dict:
    return {"instruction": question, "input": "", "output": answer, **more}


@pytest.fixture
def data(tmp_path):
    """A data folder with two sources, an irrelevant one, and a task."""
    folder = tmp_path / "given"
    for name, count in {"poems": 100, "sums": 40, "finance_finqa": 20}.items():
        write(folder / "train" / f"{name}.parquet", [row(f"{name} {i}", f"answer {i}") for i in range(count)])
    choices = {"choices": ["one", "two"], "label": 0}
    write(folder / "eval" / "boolq_val.parquet", [row(f"val {i}", "one") for i in range(5)])
    write(folder / "eval" / "boolq_test.parquet", [row(f"test {i}", "one", **choices) for i in range(250)])
    (folder / "dataset_info.json").write_text("{}")
    return folder


@pytest.fixture
def preset(tmp_path, data):
    made = runner.Preset(tmp_path / "saves", data)
    sizes.prepare_data(data, made.data)
    return made


def test_the_data_are_a_part_of_each_source_all_that_is_irrelevant_and_the_first_of_what_is_scored(data, tmp_path):
    for folder in (tmp_path / "one", tmp_path / "two"):
        sizes.prepare_data(data, folder)
        counts = {path.stem: pq.read_table(path).num_rows for path in folder.glob("*.parquet")}
        assert counts == {"poems": 15, "sums": 6, "finance_finqa": 20, "boolq_val": 5, "boolq_test": 200}
    assert pq.read_table(tmp_path / "one/poems.parquet").equals(pq.read_table(tmp_path / "two/poems.parquet"))
    assert sizes.sources_of_preset(tmp_path / "one") == ["poems", "sums"]


def test_a_folder_without_data_is_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"--data: got .*, allowed: a folder with dataset_info.json"):
        sizes.prepare_data(tmp_path / "none", tmp_path / "out")


def test_the_words_of_a_run_become_keys_in_the_presets_size(preset):
    assert "finance" not in preset.arguments("dids", 7)["dataset"]
    preset.runs = {"a": {"mix_strategy": "dids", "updates": 64, "budget": 0.5, "tasks": ["gsm8k"], "mix_in": 0.1}}
    values = preset.arguments("a", 7)
    assert values["max_steps"] == 100 and values["dids_update_samples"] == 100 * 32 // 64
    assert values["dids_tasks"] == "gsm8k_val" and values["seed"] == values["dids_seed"] == 7
    sources = ["poems", "sums", "finance_banking77_10", "finance_twitter_10", "finance_finqa_10"]
    assert values["dataset"].split(",") == sources
    assert len(values["eval_dataset"].split(",")) == 11, "what was not observed is scored all the same"


def test_another_proxy_is_refused_for_there_is_one(preset):
    with pytest.raises(DidsError, match="run: got 'dids_proxy_1b', allowed: no _proxy_ ending"):
        preset.arguments("dids_proxy_1b", 1)


@pytest.mark.parametrize("name", RUNS)
def test_each_run_is_of_keys_that_there_are(name, preset):
    keys = set(MixingConfig.__dataclass_fields__)
    run = RUNS[name]
    assert run["mix_strategy"] in mixers.names()
    assert set(run) - {"mix_strategy", "updates", "budget", "tasks", "mix_in", "of", "spoilt", "own_proxy"} <= keys
    assert set(run.get("tasks", [])) <= {*sizes.TASKS, *sizes.UNSEEN}
    assert run.get("of", name) in RUNS
    assert ("dids_probs" in preset.arguments(name, 1)) == (run["mix_strategy"] == "static")


def test_a_continued_run_differs_in_first_weights_and_rate_alone(preset, data):
    continued = runner.Preset(preset.folder, data, continued=True)
    assert continued.name == "mini_continued"
    scratch, other = preset.arguments("dids", 3), continued.arguments("dids", 3)
    differ = {key for key in scratch if scratch[key] != other[key]}
    assert scratch.keys() == other.keys() and differ == {"model_name_or_path", "learning_rate", "output_dir"}
    assert other["model_name_or_path"] == other["dids_proxy_model"] == scratch["dids_proxy_model"]


def test_in_32_bits_the_runs_and_their_proxy_are_apart_from_those_in_bf16(preset, data):
    whole = runner.Preset(preset.folder, data, continued=True, fp32=True)
    sizes.prepare_data(data, whole.data)
    assert whole.name == "mini_continued_fp32"
    assert preset.arguments("dids", 3)["bf16"] and not whole.arguments("dids", 3)["bf16"]
    assert whole.proxy.is_relative_to(whole.folder) and whole.folder.parent == preset.folder


def test_a_result_belongs_to_its_keys_wherever_the_folder_is(tmp_path, data):
    digests = set()
    for folder in (tmp_path / "here", tmp_path / "there"):
        preset = runner.Preset(folder, data)
        sizes.prepare_data(data, preset.data)
        digests.add(runner._digest(preset.arguments("dids", 1), folder))
    assert len(digests) == 1
    assert runner._digest(preset.arguments("dids", 2), folder) not in digests


# --- domains of other kinds --------------------------------------------------------------------------------


@given(st.data())
def test_shuffled_domains_have_as_many_samples_of_each_source_and_equal_ones_stay_together(draw):
    """Rows are drawn with repeated contents, which a clustered map has in one domain."""
    pairs = draw.draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), min_size=1, max_size=60))
    of_pair = {pair: draw.draw(st.integers(0, 3)) for pair in set(pairs)}
    names = tuple(f"d{i}" for i in range(4))
    sources, keys = [source for source, _ in pairs], [f"key {key}" for _, key in pairs]
    labels_N = np.array([of_pair[pair] for pair in pairs])
    old = DomainMap(names, keys, sources, labels_N, {"d0": ["a text"]}, {"dids_num_domains": 4})
    new = maps.shuffled_map(old, seed=1)
    assert (new.names, new.keys_N.to_pylist(), new.sources_N.to_pylist()) == (names, keys, sources)
    assert new.typical_texts == {}
    assert new.inputs == {"dids_num_domains": 4, "shuffled": 1}
    of_new = dict(zip(pairs, new.domains_N.tolist(), strict=True))
    assert new.domains_N.tolist() == [of_new[pair] for pair in pairs]
    counts = [Counter((pair[0], domain) for pair, domain in labels.items()) for labels in (of_pair, of_new)]
    assert counts[0] == counts[1]


def test_a_run_of_spoilt_domains_takes_its_seeds_map_of_as_many(preset):
    values = preset.arguments("dids_shuffled_domains_72", 3)
    assert values["dids_domains"] == str(preset.folder / "shuffled" / "72_3")
    assert preset.arguments("dids_shuffled", 3)["dids_domains"] == str(preset.folder / "shuffled" / "36_3")
    assert preset.arguments("dids_swapped", 3)["dids_domains"] == str(preset.folder / "swapped" / "36_3")


@pytest.mark.parametrize(
    ("name", "made"), [("proportional", ["train_and_score"]), ("dids_shuffled", ["spoil", "train_and_score"])]
)
def test_only_a_run_of_spoilt_domains_makes_a_map_first(preset, monkeypatch, name, made):
    called, lines = [], []

    def instead(function, values, *_):
        called.append(function.func.__name__)
        return {"losses": {"a": 1.0}, "cost": {}, "seconds": 1.0, "cpu_seconds": 1.0}

    monkeypatch.setattr(runner, "_in_a_process", instead)
    monkeypatch.setattr(results, "add", lambda path, line: lines.append(line["run"]))
    preset.run(name, 1, 2.0)
    assert called == made and lines == [name]


def test_a_text_of_the_encoder_is_its_projection_on_the_axes_of_latent_semantic_analysis(data, tmp_path):
    words = [f"word{i}" for i in range(40)]
    draw = random.Random(1)
    rows = [row(" ".join(draw.choices(words, k=6)), draw.choice(words).upper()) for _ in range(300)]
    write(data / "train" / "poems.parquet", rows)
    folder = tmp_path / "own"
    sizes.prepare_data(data, folder)
    encoder.prepare([folder / f"{name}.parquet" for name in ("poems", "sums")], tmp_path / "encoder", dimensions=8)
    texts = [
        f"{one['instruction']}\n\n{one['output']}"
        for name in ("poems", "sums")
        for one in pq.read_table(folder / f"{name}.parquet").to_pylist()
    ]
    analysis = make_pipeline(TfidfVectorizer(token_pattern=r"\w+", min_df=3), TruncatedSVD(8, random_state=0))
    expected_NE = normalize(analysis.fit_transform(texts))
    made = SentenceTransformer(str(tmp_path / "encoder"), device="cpu")
    assert made.encode([*texts, "unknown"]) == pytest.approx(np.vstack([expected_NE, np.zeros(8)]), abs=1e-4)


def test_the_encoder_is_made_for_runs_that_cluster_by_it_alone(tmp_path, data, monkeypatch):
    made = []
    monkeypatch.setattr(encoder, "prepare", lambda *places: made.append(places))
    monkeypatch.setattr(runner.Preset, "sources", lambda *_: ["poems"])
    monkeypatch.setattr(runner.Preset, "prepare", lambda *_: None)
    monkeypatch.setattr(runner, "run_all", lambda *_: None)
    for name in ("dids", "dids_global"):
        runner.execute([name], [1], 1, folder=tmp_path, data=data)
    assert not made
    runner.execute(["dids", "dids_gc"], [1], 1, folder=tmp_path, data=data)
    assert made == [([tmp_path / "data" / "poems.parquet"], tmp_path / "encoder")]


def test_a_run_with_the_encoder_names_it(preset):
    assert preset.arguments("dids_gc", 1)["dids_semantic_model"] == str(preset.encoder)
    assert "dids_semantic_model" not in preset.arguments("dids", 1)


def test_a_run_that_clusters_semantically_is_refused_without_the_library(tmp_path, data, monkeypatch):
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="^--runs: run: got 'dids_gc', allowed: others, or this after `pip install"):
        runner.execute(["dids", "dids_gc"], [1], 1, folder=tmp_path, data=data)


# --- side by side ------------------------------------------------------------------------------------------


@pytest.fixture
def noted(preset, monkeypatch, tmp_path):
    """A preset whose runs only note that they began and ended; `fails` are names of those that fail instead."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    preset.notes, preset.fails, lock = [], set(), threading.Lock()

    def note(*what):
        with lock:
            preset.notes.append(what)

    def cluster(seed):
        note("domains", seed)
        return 3.0

    def run(name, seed, clustering):
        note("begin", name, seed, clustering)
        time.sleep(0.05)
        if name in preset.fails:
            raise SystemExit(f"{name} failed")
        note("end", name, seed)

    preset.cluster, preset.run = cluster, run
    preset.runs = {name: {"mix_strategy": "dids"} for name in ("a", "b", "late")} | {"fixed": {"of": "late"}}
    return preset


@pytest.mark.parametrize("jobs", [1, 2, 7])
def test_a_run_begins_after_its_seeds_domains_and_the_run_it_takes_over(noted, jobs):
    runner.run_all(noted, ["fixed", "a", "b"], [1, 2], jobs)
    at = {note[:3]: place for place, note in enumerate(noted.notes)}
    assert len(at) == len(noted.notes) == 2 + 2 * 2 * 4, "each once"
    for seed in (1, 2):
        assert at["end", "late", seed] < at["begin", "fixed", seed]
        assert all(at["domains", seed] < at["begin", name, seed] for name in noted.runs)


def test_more_jobs_than_seeds_run_more_at_once(noted):
    runner.run_all(noted, ["a", "b"], [1], jobs=2)
    kinds = [note[0] for note in noted.notes]
    assert kinds == ["domains", "begin", "begin", "end", "end"]


def test_what_is_done_is_not_run_nor_its_seeds_domains_made(noted):
    digest = runner._digest(noted.arguments("a", 1), noted.folder)
    results.add(results.path_of("mini", "a"), {"run": "a", "seed": 1, "digest": digest})
    runner.run_all(noted, ["a"], [1, 2], jobs=2)
    assert {note[:2] for note in noted.notes} == {("domains", 2), ("begin", "a"), ("end", "a")}
    assert all(2 in note for note in noted.notes)


def test_a_run_that_fails_stops_only_those_that_need_it(noted):
    noted.fails = {"late"}
    with pytest.raises(SystemExit, match="late failed"):
        runner.run_all(noted, ["fixed", "a"], [1], jobs=2)
    assert ("end", "a", 1) in noted.notes
    assert not any(note[1] == "fixed" for note in noted.notes)


def test_only_one_run_makes_the_tokens_that_several_share(preset, tmp_path):
    folder, events = tmp_path / "tokens", []

    def run(name: str) -> None:
        with preset._alone_while_tokenising(folder):
            made = (folder / runner.TOKENS_ARE_WHOLE).exists()
            events.append((name, made))
            time.sleep(0.05)
            folder.mkdir(exist_ok=True)
            (folder / runner.TOKENS_ARE_WHOLE).touch()

    threads = [threading.Thread(target=run, args=(str(i),)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [made for _, made in events] == [False, True, True]


# --- other sizes -------------------------------------------------------------------------------------------


def test_the_cpus_larger_size_differs_in_its_model_alone_and_has_its_own_results(tmp_path, data):
    small, large = (runner.Preset(tmp_path / "saves", data, size, continued=True) for size in ("cpu", "cpu_3m"))
    sizes.prepare_data(data, small.data, small.size)
    assert small.arguments("dids", 1) == large.arguments("dids", 1)
    assert (small.name, large.name) == ("mini_continued", "mini_3m_continued")
    models = []
    for preset in (small, large):
        folder = tmp_path / preset.name / "model"
        sizes.prepare_model(preset.data, folder, 1, preset.size)
        models.append(AutoModelForCausalLM.from_pretrained(folder))
    vocabulary = models[0].config.vocab_size  # that of this little data, not the 2,048 of the preset's
    embedding = (sizes.CPU_3M.vocabulary - vocabulary) * sizes.CPU_3M.hidden_size
    assert 2e6 <= models[1].num_parameters() + embedding <= 5e6
    assert models[1].config.vocab_size == vocabulary


def test_the_gpu_size_has_its_own_keys_model_folder_and_results(tmp_path, data, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    preset = runner.Preset(tmp_path / "saves", data, "gpu")
    sizes.prepare_data(data, preset.data, preset.size)
    assert pq.read_table(preset.data / "poems.parquet").num_rows == round(sizes.GPU.share * 100)
    values = preset.arguments("dids", 1)
    assert not values["use_cpu"] and values["bf16"] and values["cutoff_len"] < sizes.GPU.max_length
    samples = values["max_steps"] * values["per_device_train_batch_size"]
    assert samples % values["dids_update_samples"] == 0 and 16 <= samples // values["dids_update_samples"] <= 25
    line = {"run": "dids", "seed": 1, "digest": runner._digest(values, preset.folder)}
    results.add(tmp_path / "results" / "mini_gpu" / "dids.jsonl", line)
    assert preset.is_done("dids", 1)


def test_the_gpu_size_is_refused_without_a_gpu(tmp_path, data, monkeypatch):
    monkeypatch.setattr(runner.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--size: got 'gpu', but torch finds no GPU here; allowed: cpu, cpu_3m"):
        runner.execute(["dids"], [1], 1, size="gpu", folder=tmp_path / "saves", data=data)


@pytest.mark.parametrize("size", ["quickstart", "real"])
def test_a_size_without_a_proxy_clusters_by_its_seeds_model_and_has_its_own_tasks(tmp_path, data, size):
    for name in sizes.REAL.chosen:
        write(data / "train" / f"{name}.parquet", [row(f"{name} {i}", "yes") for i in range(20)])
    preset = runner.Preset(tmp_path / "saves", data, size)
    sizes.prepare_data(data, preset.data, preset.size)
    values, info = preset.arguments("dga", 3), json.loads((preset.data / "dataset_info.json").read_text())
    assert "dids_proxy_model" not in values and values["mix_strategy"] == "dga"
    assert values["model_name_or_path"].endswith("models/3") and preset.name == size
    assert set(values["dataset"].split(",")) == set(preset.size.chosen) <= set(info)
    assert values["dids_tasks"].split(",") == [f"{task}_val" for task in preset.size.tasks]
    if size == "quickstart":
        assert set(values["dids_tasks"].split(",") + values["eval_dataset"].split(",")) <= set(info)
        example = yaml.safe_load((runner.KEYS[1] / "quickstart.yaml").read_text())
        assert {key for key in example if example[key] != values[key]} <= {
            *("model_name_or_path", "dataset_dir", "mix_strategy", "dids_tasks", "dids_cache_dir", "output_dir", "seed")
        }


def test_every_strategy_has_a_run():
    assert {run["mix_strategy"] for run in RUNS.values()} == set(mixers.names())


CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture
def pretrained(tmp_path, monkeypatch):
    """A tiny model in the place of the one that is fetched; its folder."""
    words = (f"{name} {i} answer {i} val test one two" for name in ("poems", "sums") for i in range(100))
    tokenizer = build_model.train_tokenizer(words, 400, 64)
    tokenizer.add_tokens(list(sizes.SMOLLM2.marks), special_tokens=True)
    tokenizer.chat_template = CHAT
    folder = tmp_path / "cache" / "smollm2"
    tokenizer.save_pretrained(folder)
    build_model.build_llama(tokenizer, seed=5).save_pretrained(folder)
    monkeypatch.setattr(models, "CACHE", folder.parent)
    monkeypatch.setattr(models, "ensure", lambda name: models.CACHE / name)
    return folder


@pytest.fixture
def smollm2(tmp_path, data, pretrained):
    made = runner.Preset(tmp_path / "saves", data, "smollm2")
    sizes.prepare_data(data, made.data, made.size)
    return made


def test_a_pretrained_models_rows_are_whole_or_left_out(data, tmp_path, pretrained):
    long = row("poems " * 400, "the end")
    write(data / "train" / "poems.parquet", [long, *[row(f"poems {i}", f"answer {i}") for i in range(39)]])
    write(data / "eval" / "boolq_test.parquet", [long, *[row(f"test {i}", "one") for i in range(99)]])
    size = replace(sizes.SMOLLM2, share=1.0, scored=40)
    sizes.prepare_data(data, tmp_path / "own", size)
    found = {path.stem: pq.read_table(path).to_pylist() for path in (tmp_path / "own").glob("*.parquet")}
    assert {name: len(rows) for name, rows in found.items()} == {
        "poems": 39,
        "sums": 40,
        "finance_finqa": 20,
        "boolq_val": 5,
        "boolq_test": 40,
    }
    assert all(long["instruction"] not in one["instruction"] for rows in found.values() for one in rows)


@pytest.mark.parametrize("spare", [0, 1])
def test_a_row_fits_with_a_token_to_spare(pretrained, spare):
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    one = row("poems 3", "answer 3") | {"input": "sums 4"}
    text = "<|im_start|>user\npoems 3\nsums 4<|im_end|>\n<|im_start|>assistant\nanswer 3<|im_end|>\n"
    length = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert sizes._fits(tokenizer, one, length + spare) == bool(spare)


def test_each_seed_begins_with_the_pretrained_model_and_the_proxy_is_a_mini_one(smollm2, pretrained, monkeypatch):
    trained = []
    monkeypatch.setattr(runner, "_in_a_process", lambda function, values, *_: trained.append(values))
    smollm2.prepare([1, 2])
    runs = [smollm2.arguments("dids", seed) for seed in (1, 2)]
    assert {values["model_name_or_path"] for values in runs} == {str(pretrained)}
    assert runs[0]["finetuning_type"] == "lora" and runs[0]["dids_proxy_model"] == str(smollm2.proxy)
    (proxy,) = trained
    base = yaml.safe_load((runner.KEYS[0] / "mini.yaml").read_text())
    shared = ("template", "cutoff_len")
    assert {key: proxy[key] for key in base if key not in shared} == {
        key: value for key, value in base.items() if key not in shared
    }
    assert [proxy[key] for key in shared] == [runs[0][key] for key in shared]
    assert "lora_rank" not in proxy and proxy["output_dir"] == str(smollm2.proxy)
    assert proxy["tokenized_path"] != runs[0]["tokenized_path"], "another tokenizer's"
    own = AutoModelForCausalLM.from_pretrained(proxy["model_name_or_path"])
    tokenizer = AutoTokenizer.from_pretrained(proxy["model_name_or_path"])
    assert own.config.hidden_size == sizes.CPU.hidden_size
    assert len(tokenizer.encode("<|im_end|>", add_special_tokens=False)) == 1
    assert own.config.vocab_size == len(tokenizer)
    assert [path.name for path in (smollm2.folder / "models").iterdir() if path.name != "tokenizer"] == ["1000"]


def test_domains_by_the_model_itself_are_a_run_of_their_own(smollm2):
    given, own = smollm2.arguments("dids", 1), smollm2.arguments("dids_own_proxy", 1)
    assert "dids_proxy_model" not in own
    assert {key for key in given if given[key] != own.get(key)} == {"dids_proxy_model", "output_dir"}


@pytest.mark.parametrize("size", ["smollm2", "smollm2_gpu"])
def test_a_pretrained_models_runs_have_eight_to_twenty_five_updates_and_rows_that_fit(tmp_path, data, size):
    preset = runner.Preset(tmp_path / "saves", data, size)
    values = preset.base
    samples = scores.samples_of(values)
    assert samples % values["dids_update_samples"] == 0 and 8 <= samples // values["dids_update_samples"] <= 25
    assert values["cutoff_len"] == preset.size.tokens <= preset.size.max_length
    assert values["use_cpu"] != preset.size.on_gpu and preset.name == f"mini_{size}"


@pytest.mark.parametrize("size", ["smollm2", "smollm2_gpu"])
def test_a_pretrained_models_irrelevant_data_are_rows_that_fit(tmp_path, data, pretrained, size):
    for name in sizes.IRRELEVANT:
        rows = [row("poems " * 1200, "much"), *[row(f"{name} {i}", "money") for i in range(20)]]
        write(data / "train" / f"{name}.parquet", rows)
    preset = runner.Preset(tmp_path / "saves", data, size)
    preset.size = replace(preset.size, share=1.0)
    sizes.prepare_data(data, preset.data, preset.size)
    preset.cut_irrelevant(["dids", "dids_mix_in_20"])
    names = preset.arguments("dids_mix_in_20", 1)["dataset"].split(",")
    found = {name: pq.read_table(preset.data / f"{name}.parquet").to_pylist() for name in names}
    assert names[:2] == ["poems", "sums"] and [len(rows) for rows in found.values()] == [100, 40, 12, 12, 11]
    assert all(one["output"] == "money" for name in names[2:] for one in found[name])


def test_too_little_irrelevant_data_is_refused_in_one_line(tmp_path, data, pretrained, monkeypatch):
    for name in sizes.IRRELEVANT:
        write(data / "train" / f"{name}.parquet", [row(f"{name} {i}", "money") for i in range(2)])
    monkeypatch.setattr(runner.Preset, "prepare", lambda made, _: sizes.prepare_data(data, made.data, sizes.CPU))
    with pytest.raises(SystemExit, match=r"^--runs: .*: got 6 rows of finance_[^\n]* beside [^\n]*$"):
        runner.execute(["dids_mix_in_50"], [1], 1, size="smollm2", folder=tmp_path / "saves", data=data)


def test_a_pretrained_models_spoilt_domains_are_those_of_its_proxy(smollm2, monkeypatch):
    made = []
    monkeypatch.setattr(runner, "_in_a_process", lambda function, values, *_: made.append((function.args, values)))
    values = smollm2.arguments("dids_swapped", 2)
    smollm2._spoil("swapped", values)
    ((args, spoilt),) = made
    assert args == ("swapped",) and spoilt["dids_domains"] == "cluster"
    assert values["dids_domains"] == str(smollm2.folder / "swapped" / "36_2")
    assert spoilt["dids_proxy_model"] == str(smollm2.proxy), "not the model itself"


def test_the_words_of_a_run_count_accumulated_batches(smollm2):
    values = smollm2.arguments("dids_updates_20", 1)
    assert values["dids_update_samples"] == values["max_steps"] * 16 // 20


def test_a_pretrained_models_texts_are_clustered_by_minilm(smollm2, tmp_path, data, monkeypatch):
    assert smollm2.arguments("dids_gc", 1)["dids_semantic_model"] == str(models.CACHE / "minilm")
    asked = []
    monkeypatch.setattr(models, "ensure", asked.append)
    monkeypatch.setattr(runner.Preset, "prepare", lambda *_: None)
    monkeypatch.setattr(runner, "run_all", lambda *_: None)
    monkeypatch.setattr(encoder, "prepare", lambda *_: pytest.fail("made an encoder"))
    for name in ("dids", "dids_gc"):
        runner.execute([name], [1], 1, size="smollm2", folder=tmp_path / "saves", data=data)
    assert asked == ["minilm"]


def test_a_pretrained_model_is_not_continued_from_a_proxy(tmp_path, data):
    with pytest.raises(SystemExit, match="^--continued: got it with --size smollm2, allowed: with cpu, cpu_3m, gpu,"):
        runner.execute(["dids"], [1], 1, size="smollm2", continued=True, folder=tmp_path, data=data)


def test_a_result_of_a_pretrained_model_is_the_same_wherever_the_model_is(smollm2, monkeypatch, tmp_path):
    one = runner._digest(smollm2.arguments("dids", 1), smollm2.folder)
    monkeypatch.setattr(models, "CACHE", tmp_path / "elsewhere")
    assert runner._digest(smollm2.arguments("dids", 1), smollm2.folder) == one


def broken(values: dict, log: Path) -> None:
    raise SystemExit("error: a key is wrong")


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_a_process_that_fails_says_where_its_output_is(tmp_path, start):
    with pytest.raises(SystemExit, match="runner: there: error: a key is wrong; all of its output: .*one.log"):
        runner._in_a_process(broken, {"output_dir": "there"}, tmp_path / "one.log", start)


# --- accuracy ----------------------------------------------------------------------------------------------


def test_the_gold_choice_wins_where_the_model_finds_it_likelier(tmp_path):
    words = iter(["Human: is it ?", "\nAssistant: yes no"] * 20)
    tokenizer = build_model.train_tokenizer(words, 300, 64)
    model = build_model.build_llama(tokenizer, seed=3)
    tokenizer.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    rows = [row("is it?", "yes", choices=["yes", "no"], label=label) for label in (0, 1)]
    write(tmp_path / "quiz_test.parquet", [*rows, row("no choices here", "yes")])
    write(tmp_path / "story_test.parquet", [row("no choices here", "yes")])
    how = {"template": "default", "cutoff_len": 32}
    found = scores.accuracies(tmp_path / "model", tmp_path, ["quiz", "story"], how)
    assert found == {"quiz": 0.5}, "one of two opposite questions, whichever choice the model prefers"


@pytest.mark.parametrize("num_shared", [0, 1, 2, 9])
def test_a_choices_likelihood_is_that_of_question_and_choice_read_together(num_shared):
    model = build_model.build_llama(build_model.train_tokenizer(iter(["some words"] * 9), 300, 64), seed=3)
    model.config.use_cache = False  # as the host leaves what it trained
    for seed in range(12):
        drawn = random.Random(seed)
        some = [drawn.randrange(model.config.vocab_size) for _ in range(num_shared)]
        sequences, lengths, means = [], [], []
        for length in (1, 4, 2):
            prompt = some if num_shared else [drawn.randrange(model.config.vocab_size) for _ in range(3)]
            answer = [drawn.randrange(model.config.vocab_size) for _ in range(length)]
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            means.append(logits.gather(1, torch.tensor(answer)[:, None]).mean().item())
            sequences.append(prompt + answer)
            lengths.append(length)
        wins = [scores._gold_wins(model, sequences, lengths, label) for label in range(3)]
        assert wins == [mean == max(means) for mean in means]


def test_an_adapters_folder_is_loaded_as_its_model_with_it(tmp_path, pretrained):
    bare = AutoModelForCausalLM.from_pretrained(pretrained)
    torch.manual_seed(1)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(pretrained),
        LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False),
    ).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(20).reshape(2, 10)
    found = [model(input_ids=ids).logits for model in (scores._load(tmp_path / "adapter"), adapted, bare)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    assert (found[0] - found[2]).abs().max() > 1e-2


def test_each_point_of_figure_3b_has_the_number_of_domains_that_it_says(preset):
    rows = [row for row in definition.load_all()["figure_3b"].in_mini().rows if row.x is not None]
    for row in rows:
        values = preset.arguments(row.run, 1)
        said = "the sources" if values.get("dids_domains") == "source" else values["dids_num_domains"]
        assert said == ("the sources" if row.x == 18 else row.x), row.label
