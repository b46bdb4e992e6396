"""The prepared data: what is observed is not scored, and what overlaps with a scored question is found."""

import json
import random
import re

import pytest

from llamafactory_dids.errors import DidsError
from scripts.paper import prepare_data, task_sources
from scripts.paper.contamination import COMMON, RUN, Questions, Report
from tests.helpers import write_lines

WORDS = [f"word{i}" for i in range(400)]


def sentence(seed, length=30):
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def naive(text):
    """All runs of 13 words as they stand."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}


# --- overlap ----------------------------------------------------------------------------------------------------


def test_a_shared_run_is_found_where_a_set_of_word_tuples_finds_it():
    rng = random.Random(1)
    questions = [sentence(seed) for seed in range(40)]
    found = Questions({"task": questions})
    known = set().union(*map(naive, questions))
    for seed in range(200):
        text = sentence(1000 + seed).split()
        taken = rng.choice(questions).split()
        start, count = rng.randrange(10), rng.choice((11, 12, 13, 14))
        text[5:5] = taken[start : start + count]
        text = " ".join(text)
        assert (found.task_of(text) is not None) == bool(naive(text) & known), (seed, count)


def test_case_and_marks_do_not_hide_a_run():
    question = sentence(1)
    found = Questions({"a": [sentence(2)], "b": [question]})
    hidden = " ... ".join(question.upper().split())
    assert found.task_of(f"Before: {hidden}!") == "b"
    assert found.task_of(" ".join(question.split()[:12])) is None


def test_order_counts():
    words = sentence(1, 13).split()
    assert Questions({"a": [" ".join(words)]}).task_of(" ".join(reversed(words))) is None


def test_wording_that_many_questions_share_is_no_overlap():
    wording = sentence(5, 13)
    many = Questions({"a": [f"{wording} {sentence(seed)}" for seed in range(COMMON)]})
    few = Questions({"a": [f"{wording} {sentence(seed)}" for seed in range(COMMON - 1)]})
    assert many.task_of(wording) is None and few.task_of(wording) == "a"


def test_short_questions_are_counted_as_not_checked():
    found = Questions({"a": ["too short", sentence(1)], "b": []})
    assert found.short == {"a": 1, "b": 0} and found.task_of("too short") is None


def test_the_report_counts_by_source_and_task_and_keeps_few_examples():
    report = Report()
    for number in range(5):
        report.add("s", "gsm8k", f"text {number}")
    report.add("s", None, "clean")
    found = report.as_dict()
    assert found["rows"] == {"s": 6} and found["overlapping"] == {"s": 5} and found["by_task"] == {"gsm8k": {"s": 5}}
    assert found["examples"] == {"s, gsm8k": ["text 0", "text 1", "text 2"]}


# --- tasks ------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Task files in the hub's columns, and a training file."""
    folder = tmp_path / "tasks"
    gsm8k = [{"question": sentence(seed), "answer": f"so\n#### {seed}"} for seed in range(60)]
    write_lines(folder / "gsm8k" / "train.jsonl", [*gsm8k[:30], gsm8k[40]])  # one is a scored one
    write_lines(folder / "gsm8k" / "test.jsonl", gsm8k[30:])
    piqa = [{"goal": f"goal {i}", "sol1": "a", "sol2": "b", "label": i % 2} for i in range(30)]
    write_lines(folder / "piqa" / "train.jsonl", piqa[:20])
    write_lines(folder / "piqa" / "validation.jsonl", piqa[20:])
    truth = [
        {"question": f"Is it {i}?", "mc1_targets": {"choices": ["yes", "no"], "labels": [0, 1]}} for i in range(25)
    ]
    write_lines(folder / "truthfulqa" / "validation.jsonl", truth)
    write_lines(folder / "ifeval" / "train.jsonl", [{"prompt": f"Write {i} words."} for i in range(20)])
    training = [
        {"source": "ai2/Maths", "messages": [{"role": "user", "content": gsm8k[35]["question"]}]},
        {"source": "ai2/Maths", "messages": [{"role": "user", "content": gsm8k[3]["question"]}]},
        {"source": "ai2/Talk", "messages": [{"role": "user", "content": "hello"}]},
    ]
    write_lines(tmp_path / "train.jsonl", training)
    write_lines(tmp_path / "finance.jsonl", [{"instruction": "What is a bond?", "input": "", "output": "A loan."}])
    return tmp_path


def prepare(files, *words):
    given = prepare_data.parser().parse_args(
        [str(files / "train.jsonl"), "--output", str(files / "out"), "--task-files", str(files / "tasks"), *words]
    )
    return list(prepare_data.prepare(given)), files / "out"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_observed_samples_are_not_scored_and_none_of_them_overlaps(files):
    parts = prepare_data.split("gsm8k", files / "tasks", 100)
    observed, scored = ({one.instruction for one in part} for part in (parts.observed, parts.scored))
    assert len(observed) == len(parts.observed) == 30 and len(scored) == 30 and parts.dropped == 1
    assert observed & scored == set()
    known = set().union(*(naive(one.question) for one in parts.scored))
    assert [one for one in parts.observed if naive(one.question) & known] == []


def test_a_task_of_one_part_is_shared_out_by_hash_whatever_its_order(files):
    once = prepare_data.split("truthfulqa", files / "tasks", 10)
    path = files / "tasks" / "truthfulqa" / "validation.jsonl"
    rows = lines(path)
    write_lines(path, rows[::-1])
    again = prepare_data.split("truthfulqa", files / "tasks", 10)
    assert {one.instruction for one in once.observed} == {one.instruction for one in again.observed}
    assert len(once.observed) == 10 and len(once.scored) == 15
    numbers = once.numbers["truthfulqa_mc1"]
    assert [rows[n]["question"] for n in numbers] == [one.question for one in once.scored]


def test_all_is_prepared_from_local_files(files):
    said, out = prepare(
        files, "--tasks", "gsm8k,piqa,truthfulqa,ifeval", "--observed", "10", "--finance", str(files / "finance.jsonl")
    )
    info = json.loads((out / "dataset_info.json").read_text())
    assert set(info) == {
        *("gsm8k_val", "gsm8k_test", "piqa_val", "piqa_test", "truthfulqa_val", "truthfulqa_test"),
        *("maths", "talk", "finance", "finance_25"),
    }
    assert all((out / entry["file_name"]).exists() for entry in info.values())
    assert lines(out / "piqa_val.jsonl")[0].keys() == {"instruction", "input", "output", "choices", "label"}
    assert len(lines(out / "maths.jsonl")) == 1, "the row with a scored question is left out"
    report = json.loads((out / "contamination.json").read_text())
    assert report["overlapping"] == {"maths": 1} and report["by_task"] == {"gsm8k": {"maths": 1}} and report["removed"]
    assert json.loads((out / "sources.json").read_text()) == ["maths", "talk"]
    assert set(json.loads((out / "scored.json").read_text())) == {"truthfulqa_mc1"}
    assert any(line.startswith("ifeval: no sample that can be observed") for line in said)


def conversation(user, assistant):
    return {"system": "", "user": user, "assistant": assistant}


def test_irrelevant_rows_may_be_of_either_kind_and_those_without_an_answer_are_left_out(files):
    for name, row in (("alpaca", {"instruction": "a", "input": "b", "output": "c"}), ("chat", conversation("a", "c"))):
        write_lines(files / f"{name}.jsonl", [row, row | dict.fromkeys(("output", "assistant") & row.keys())])
        _, out = prepare(files, "--tasks", "gsm8k", "--finance", str(files / f"{name}.jsonl"))
        expected = {"prompt": "a", "query": row.get("input", ""), "response": "c"}
        columns = json.loads((out / "dataset_info.json").read_text())["finance"]["columns"]
        (found,) = lines(out / "finance.jsonl")
        assert {key: found[column] for key, column in columns.items()} == expected
        assert json.loads((out / "contamination.json").read_text())["left"] == {"maths": 1, "talk": 1, "finance": 1}


def test_too_little_irrelevant_data_for_the_last_point_of_the_figure_is_said(files):
    talk = [{"source": "ai2/Talk", "messages": [{"role": "user", "content": f"hello {i}"}]} for i in range(8)]
    write_lines(files / "train.jsonl", talk)
    said, _ = prepare(files, "--tasks", "gsm8k", "--finance", str(files / "finance.jsonl"))
    said = [line.split("out: ")[1] for line in said if line.startswith("--finance: ")]
    assert said == [
        f"got 1 rows of finance, allowed: at least {least}, so that they are {share} beside 8 others"
        for least, share in ((2, "20%"), (3, "25%"))
    ]
    write_lines(files / "finance.jsonl", [conversation(f"What is {i}?", "A number.") for i in range(3)])
    said, out = prepare(files, "--tasks", "gsm8k", "--finance", str(files / "finance.jsonl"))
    assert not any(line.startswith("--finance") for line in said)
    assert [len(lines(out / f"finance_{share}.jsonl")) for share in (10, 20, 25)] == [1, 2, 3]


def test_irrelevant_data_that_cannot_be_read_is_refused_before_the_sources_are_made(files):
    with pytest.raises(SystemExit, match="input: got a/b, c/d, allowed: one hub name"):
        prepare(files, "--tasks", "gsm8k", "--finance", "a/b", "c/d")
    assert not (files / "out" / "maths.jsonl").exists()


def test_irrelevant_data_does_not_take_the_place_of_a_source_of_its_name(files):
    source = [{"source": "ai2/Finance", "messages": [{"role": "user", "content": "hello"}]}]
    write_lines(files / "train.jsonl", source)
    with pytest.raises(
        DidsError, match="--finance: got a source 'finance' in .*train.jsonl, allowed: sources of other"
    ):
        prepare(files, "--tasks", "gsm8k", "--finance", str(files / "finance.jsonl"))
    assert [row["messages"] for row in lines(files / "out" / "finance.jsonl")] == [source[0]["messages"]]


def test_irrelevant_data_without_answers_is_refused(files):
    write_lines(files / "finance.jsonl", [{"text": "a bond"}])
    with pytest.raises(DidsError, match="--finance: no answers, allowed: rows with `instruction` and `output`"):
        prepare(files, "--tasks", "gsm8k", "--finance", str(files / "finance.jsonl"))


def test_overlapping_rows_may_be_kept_and_are_reported_all_the_same(files):
    _, out = prepare(files, "--tasks", "gsm8k", "--keep-overlapping")
    assert len(lines(out / "maths.jsonl")) == 2
    report = json.loads((out / "contamination.json").read_text())
    assert report["overlapping"] == {"maths": 1} and not report["removed"]


def test_responses_make_ifeval_observable(files):
    write_lines(files / "responses.jsonl", [{"prompt": f"Write {i} words.", "response": "one"} for i in range(8)])
    _, out = prepare(files, "--tasks", "ifeval", "--responses", str(files / "responses.jsonl"), "--observed", "3")
    assert [row["output"] for row in lines(out / "ifeval_val.jsonl")] == ["one"] * 3
    assert len(json.loads((out / "scored.json").read_text())["ifeval"]) == 17


def test_every_task_has_a_place_on_the_hub_and_observes_nothing_of_a_test_part_that_has_others():
    assert set(task_sources.SOURCES) == set(prepare_data.SOURCES) and len(task_sources.SOURCES) == 9
    assert {name for name, one in task_sources.SOURCES.items() if one.by_hash} == {"bbh", "ifeval", "truthfulqa"}
    assert [name for name, one in task_sources.SOURCES.items() if one.observed == "test" and not one.by_hash] == []


ROWS = {
    "bbh": {"input": "a?", "target": "(A)"},
    "boolq": {"passage": "p", "question": "q", "label": 1},
    "minerva_math": {"problem": "p", "solution": "s"},
    "mmlu": {"question": "q", "choices": ["a", "b"], "answer": 1},
    "pubmedqa": {"QUESTION": "q", "CONTEXTS": ["c"], "final_decision": "maybe"},
}


@pytest.mark.parametrize(
    ("task", "output"), [("bbh", "(A)"), ("boolq", "yes"), ("minerva_math", "s"), ("mmlu", "B"), ("pubmedqa", "maybe")]
)
def test_the_answer_is_the_gold_one(task, output):
    sample = task_sources.SOURCES[task].convert(ROWS[task])
    assert sample.output == output
    assert sample.label is None or sample.choices[sample.label] == output


def test_a_missing_file_or_task_is_one_line(files):
    with pytest.raises(DidsError, match="--task-files: got .*, which has no .*boolq/train.jsonl; allowed:"):
        prepare_data.split("boolq", files / "tasks", 5)
    with pytest.raises(DidsError, match="--tasks: got 'poetry', allowed: bbh, boolq"):
        prepare(files, "--tasks", "poetry")
