"""Scoring by the harness: which task is which there, what is refused, and a tiny model from end to end."""

import json
import math

import pytest
import yaml

from llamafactory_dids.errors import DidsError
from scripts.experiments import results
from scripts.experiments.definition import TASKS
from scripts.paper import score, score_local, score_loss
from scripts.paper.task_sources import SOURCES
from tests.helpers import write_lines

NO_HARNESS = "lm-evaluation-harness is not installed: pip install llamafactory-dids[paper]"


def given(*words):
    return score.parser().parse_args(["--model", "m", *words])


@pytest.fixture
def data(tmp_path):
    """Eight documents of three kinds of tasks."""
    folder = tmp_path / "data"
    for part, start in (("val", 100), ("test", 0)):
        numbers = range(start, start + 8)
        write_lines(folder / f"boolq_{part}.jsonl", [choice(n) for n in numbers])
        write_lines(
            folder / f"gsm8k_{part}.jsonl", [answer(f"Question: {n} and 2?", f"Sum.\n#### {n + 2}") for n in numbers]
        )
        write_lines(folder / f"ifeval_{part}.jsonl", [answer(f"Write {n}.", f"well {n}") for n in numbers])
    return folder


def answer(instruction, output):
    return {"instruction": instruction, "input": "", "output": output}


def choice(n):
    return answer(f"Is {n} odd?", ("no", "yes")[n % 2]) | {"choices": ["no", "yes"], "label": n % 2}


def test_all_nine_tasks_and_those_of_the_other_tables_are_known():
    assert set(TASKS) <= set(score.HARNESS)
    assert {"arc_challenge", "mbpp", "humaneval", "wmt16"} == set(score.HARNESS) - set(TASKS)


def test_the_left_out_documents_are_of_the_tasks_that_are_scored():
    for task, source in SOURCES.items():
        if source.by_hash:
            first = source.names.format(config=source.configs[0])
            assert any(first.startswith(name) for name in score.HARNESS[task].names), task


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tasks", "tldr"), "tldr needs a judge model"),
        (("--tasks", "poetry"), "got 'poetry', allowed: bbh"),
        (("--tasks", "mbpp"), "mbpp runs code that the model wrote; allowed: with --allow-code"),
    ],
)
def test_what_cannot_be_scored_is_refused(words, said):
    with pytest.raises(DidsError, match="--tasks: ") as error:
        score.check(score.split_list(given(*words).tasks), given(*words))
    assert said in str(error.value)


def test_a_fall_back_on_the_slower_backend_is_said(monkeypatch, capsys):
    monkeypatch.setattr(score.importlib.util, "find_spec", lambda name: None)
    assert score.choose_backend("auto") == "hf"
    assert "vllm is not installed, so the HF backend is used" in capsys.readouterr().out
    with pytest.raises(DidsError, match="--backend: got 'vllm', which is not installed; allowed: hf"):
        score.choose_backend("vllm")
    monkeypatch.setattr(score.importlib.util, "find_spec", lambda name: object())
    assert score.choose_backend("auto") == "vllm" and capsys.readouterr().out == ""


def test_a_score_over_several_of_the_harness_tasks_is_weighted_by_their_documents():
    task = score.Harness(("a", "b"), "acc,none")
    found = {
        "results": {"a": {"acc,none": 0.5, "acc_stderr,none": 0.08}, "b": {"acc,none": 1.0, "acc_stderr,none": 0.16}},
        "n-samples": {"a": {"effective": 30}, "b": {"effective": 10}},
    }
    assert score.value_of(task, found) == (62.5, pytest.approx(100 * math.hypot(0.75 * 0.08, 0.25 * 0.16), abs=1e-4))
    assert score.value_of(score.Harness(("a",), "acc,none", percent=True), found) == (0.5, 0.08)
    grouped = {"results": {}, "groups": {"bbh": {"acc,none": 0.25, "acc_stderr,none": "N/A"}}}
    assert score.value_of(score.Harness(("bbh",), "acc,none"), grouped) == (25.0, None)
    with pytest.raises(DidsError, match="bbh: the harness gave acc,none, acc_stderr,none; allowed: exact_match,none"):
        score.value_of(score.Harness(("bbh",), "exact_match,none"), grouped)


def test_documents_that_were_observed_are_left_out_or_it_is_said_that_nobody_knows_them(tmp_path):
    assert score.scored(None) is None
    with pytest.raises(DidsError, match="--observed: got .*, which has no scored.json"):
        score.scored(tmp_path)
    (tmp_path / "scored.json").write_text('{"ifeval": [0, 2]}')
    assert score.scored(tmp_path) == {"ifeval": [0, 2]}


def test_a_local_task_is_scored_by_what_its_file_has(data):
    kinds = {task: score_local.config(data, task, 3)["output_type"] for task in ("boolq", "gsm8k", "ifeval")}
    assert kinds == {"boolq": "multiple_choice", "gsm8k": "generate_until", "ifeval": "loglikelihood"}
    found = score_local.config(data, "boolq", 0)
    assert "fewshot_split" not in found and set(found["dataset_kwargs"]["data_files"]) == {"test"}
    with pytest.raises(DidsError, match="--local: got .*, which has no mmlu_test; allowed: a folder with mmlu_test"):
        score_local.config(data, "mmlu", 3)


def test_a_local_configuration_is_yaml_with_the_harness_tag(data):
    text = score_local.text_of(score_local.config(data, "ifeval", 0))
    assert "process_results: !function score_loss.process_results" in text
    assert yaml.safe_load(score_local.text_of(score_local.config(data, "boolq", 3)))["doc_to_target"] == "label"


def test_the_loss_of_an_answer_is_by_its_length():
    assert score_loss.process_results({"output": "abcd"}, [(-8.0, False)]) == {"loss": 2.0}


# --- with the harness -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny Llama with random weights, and a tokenizer with a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special, letters = ["<pad>", "<s>", "</s>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=letters, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(["Is 3 odd? yes no"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    fast.model_max_length = 512
    fast.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    fast.save_pretrained(folder)
    config = LlamaConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    config.num_key_value_heads, config.vocab_size, config.max_position_embeddings = 2, len(fast), 512
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def loss_of(model_folder, prompt, answer):
    """Nats a character of an answer after the prompt in the chat template, by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    context = f"user: {prompt}\nassistant: "
    head = tokenizer(context.rstrip(), add_special_tokens=False).input_ids
    whole = tokenizer(context + answer, add_special_tokens=False).input_ids
    with torch.no_grad():
        logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    scores = [logits[place - 1, whole[place]].item() for place in range(len(head), len(whole))]
    return -math.fsum(scores) / len(answer)


@pytest.mark.integration
def test_a_tiny_model_is_scored_from_local_files(model, data, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval", reason=NO_HARNESS)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "out.jsonl"
    words = [
        "--local",
        str(data),
        "--tasks",
        "boolq,gsm8k,ifeval",
        "--backend",
        "hf",
        "--device",
        "cpu",
        "--shots",
        "0",
    ]
    asked = score.parser().parse_args(["--model", str(model), *words, "--run", "dids", "--seed", "3"])
    line = score.score(asked)
    results.add(output, line)
    assert json.loads(output.read_text()) == line
    assert (line["backend"], line["shots"], line["run"], line["seed"]) == ("hf", 0, "dids", 3)
    shares = [100 * n / 8 for n in range(9)]  # of eight documents
    assert line["scores"]["boolq"] in shares and line["scores"]["gsm8k"] in shares
    share = line["scores"]["boolq"] / 100  # the standard error of a mean of eight zeros and ones
    assert line["errors"]["boolq"] == pytest.approx(100 * math.sqrt(share * (1 - share) / 7), abs=1e-3)
    reference = [loss_of(model, f"Write {n}.", f"well {n}") for n in range(8)]
    assert line["scores"]["ifeval"] == pytest.approx(sum(reference) / 8, rel=0.02)


@pytest.mark.integration
def test_an_adapter_is_scored_with_the_model_that_it_was_trained_on(model, data, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval", reason=NO_HARNESS)
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(target_modules="all-linear"))
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    adapted.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "merged")
    words = ["--local", str(data), "--tasks", "ifeval", "--backend", "hf", "--device", "cpu", "--shots", "0"]
    losses = [
        score.score(score.parser().parse_args(["--model", str(folder), *words]))["scores"]["ifeval"]
        for folder in (tmp_path / "adapter", tmp_path / "merged", model)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3) and abs(losses[0] - losses[2]) > 0.01


@pytest.mark.integration
def test_the_harness_has_the_tasks_by_these_names():
    pytest.importorskip("lm_eval", reason=NO_HARNESS)
    from lm_eval.tasks import TaskManager

    known = set(TaskManager().all_tasks)
    assert [name for task in score.HARNESS.values() for name in task.names if name not in known] == []
    bbh = SOURCES["bbh"]
    assert [c for c in bbh.configs if bbh.names.format(config=c) not in known] == []


@pytest.mark.integration
def test_without_the_harness_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(score.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        DidsError, match=r"lm_eval: not installed; allowed: after `pip install llamafactory-dids\[paper\]`"
    ):
        score.score(given("--tasks", "boolq", "--backend", "hf"))
