"""Build the data of the paper preset: a data set a source, and of each task an observed part that is not scored.

    python scripts/paper/prepare_data.py allenai/tulu-3-sft-mixture --output data/tulu3 \\
        --finance Josephgflowers/Finance-Instruct-500k
    python scripts/paper/prepare_data.py teknium/OpenHermes-2.5 --output data/openhermes
    python scripts/paper/prepare_data.py my/*.parquet --output data/mine --task-files my/tasks     # no network

In the output folder: the sources (as scripts/split_sources.py makes them), TASK_val with 200 observed samples,
TASK_test with what is scored, all in dataset_info.json; `sources.json` with the names of the sources; `scored.json`
with the documents that scripts/paper/score.py leaves of tasks that have one part only; `contamination.json`, written
last: how many training rows of each source share 13 words in a row with a scored question, and how many are left. They
are left out, unless --keep-overlapping.
"""

import argparse
import heapq
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llamafactory_dids.errors import DidsError  # noqa: E402
from scripts import split_sources  # noqa: E402
from scripts.experiments import irrelevant  # noqa: E402
from scripts.paper import task_sources  # noqa: E402
from scripts.paper.contamination import Questions, Report  # noqa: E402
from scripts.paper.task_sources import SOURCES, Sample  # noqa: E402

OBSERVED = 200  # section 5.4
FINANCE = "finance"
IRRELEVANT = (0.1, 0.2, 0.25)  # of all training samples, the points of Figure 2b
NAMES = {"instruction": ("instruction", "user"), "input": ("input",), "output": ("output", "assistant")}
COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}


def main() -> None:
    given = parser().parse_args()
    try:
        for line in prepare(given):
            print(line, flush=True)
    except DidsError as error:
        raise SystemExit(f"error: {error}") from None


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("input", nargs="+", help="a hub name, or .parquet, .json, .jsonl files")
    found.add_argument("--output", type=Path, required=True)
    found.add_argument("--column", default="source", help="where a row says what it comes from")
    found.add_argument("--split", default="train")
    found.add_argument("--tasks", default=",".join(SOURCES), help="comma-separated")
    found.add_argument("--task-files", type=Path, help="a folder with TASK/PART files instead of the hub")
    found.add_argument("--observed", type=int, default=OBSERVED, help="samples of each task")
    found.add_argument(
        "--responses", type=Path, help="a .jsonl of prompt and response for ifeval, which has no answers"
    )
    found.add_argument("--finance", nargs="*", default=[], help="irrelevant data: a hub name, or files (section 5.5.2)")
    found.add_argument("--keep-overlapping", action="store_true", help="only report what shares words with a question")
    return found


def prepare(given: argparse.Namespace) -> Iterator[str]:
    """Make all of it; lines that say what there is."""
    tasks = given.tasks.split(",")
    if unknown := [task for task in tasks if task not in SOURCES]:
        raise DidsError(f"--tasks: got {unknown[0]!r}, allowed: {', '.join(SOURCES)}")
    given.output.mkdir(parents=True, exist_ok=True)
    questions: dict[str, list[str]] = {}
    scored: dict[str, list[int]] = {}
    for task in tasks:
        parts = split(task, given.task_files, given.observed, responses(given.responses) if task == "ifeval" else None)
        if not parts.observed:
            yield f"{task}: no sample that can be observed, so it is left out (ifeval needs --responses)"
            continue
        write_rows(given.output, f"{task}_val", [sample.columns() for sample in parts.observed])
        write_rows(given.output, f"{task}_test", [sample.columns() for sample in parts.scored])
        questions[task] = [sample.question for sample in parts.scored]
        scored |= parts.numbers
        counts = f"{len(parts.observed)} observed, {len(parts.scored)} scored"
        yield f"{task}: {counts}, {parts.dropped} too near to a scored one"
    (given.output / "scored.json").write_text(json.dumps(scored) + "\n", encoding="utf-8")
    yield from _sources(given, Questions(questions))


def _sources(given: argparse.Namespace, questions: Questions) -> Iterator[str]:
    report = Report()
    rows = split_sources.read(given.input, given.split)
    finance = split_sources.read(given.finance, "train") if given.finance else None  # a wrong name is told first
    kept = without_overlap(rows, given.column, questions, report, keep=given.keep_overlapping)
    counts = split_sources.split(kept, given.output, given.column)
    if not counts:
        raise DidsError(f"{given.input[0]}: no conversations, allowed: rows with `messages` or `conversations`")
    if finance is not None:
        if FINANCE in counts:
            allowed = f"sources of other names, as the irrelevant data is called {FINANCE}"
            raise DidsError(f"--finance: got a source {FINANCE!r} in {given.input[0]}, allowed: {allowed}")
        write_rows(given.output, FINANCE, _finance(finance, questions, report, given.keep_overlapping))
    (given.output / "sources.json").write_text(json.dumps(list(counts)) + "\n", encoding="utf-8")
    left = report.left(removed=not given.keep_overlapping)
    found = report.as_dict() | {"removed": not given.keep_overlapping, "left": left}
    found |= {"questions_too_short": questions.short}
    (given.output / "contamination.json").write_text(
        json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    for name, number in report.rows.items():
        yield f"{name}: {number} rows, {report.overlapping[name]} share 13 words with a scored question"
    for share in IRRELEVANT if finance is not None else ():
        try:
            irrelevant.write(given.output, [FINANCE], list(counts), share)
        except DidsError as error:
            yield f"--finance: {error}"
    yield f"\ndataset_dir: {given.output}\ndataset: {','.join(counts)}"


# --- tasks ----------------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """A task's observed and scored samples; `numbers` of the scored ones by the harness's names, where it matters."""

    observed: Sequence[Sample]
    scored: Sequence[Sample]
    numbers: dict[str, list[int]]
    dropped: int


def split(task: str, local: Path | None, count: int, answers: Mapping[str, str] | None = None) -> Parts:
    """`count` samples to observe, those with the smallest hashes.

    None of them is a scored one or shares 13 words with one; of a task of one part, whose samples are alike in wording,
    what is not observed is scored, and a prompt is in one of both alone. `answers`, by prompt, are for samples that
    have none.
    """
    source = SOURCES[task]
    known = [(config, n, _answered(one, answers)) for config, n, one in task_sources.read(task, source.observed, local)]
    usable = [entry for entry in known if entry[2].output]
    if source.by_hash:
        chosen = heapq.nsmallest(min(count, len(usable) // 2), usable, key=lambda entry: task_sources.rank(entry[2]))
        taken = {sample.instruction for _, _, sample in chosen}
        left = [entry for entry in known if entry[2].instruction not in taken]
        numbers: dict[str, list[int]] = {}
        for config, number, _ in left:
            numbers.setdefault(source.names.format(config=config), []).append(number)
        return Parts([sample for _, _, sample in chosen], [sample for _, _, sample in left], numbers, 0)
    scored = [sample for _, _, sample in task_sources.read(task, source.scored, local)]
    questions, prompts = Questions({task: [s.question for s in scored]}), {s.instruction for s in scored}
    ranked = sorted((sample for _, _, sample in usable), key=task_sources.rank)
    observed: list[Sample] = []
    dropped = 0
    for sample in ranked:
        if len(observed) == count:
            break
        if sample.instruction in prompts or questions.task_of(sample.question) is not None:
            dropped += 1
        else:
            observed.append(sample)
    return Parts(observed, scored, {}, dropped)


def _answered(sample: Sample, answers: Mapping[str, str] | None) -> Sample:
    if sample.output or not answers or sample.instruction not in answers:
        return sample
    return Sample(sample.instruction, answers[sample.instruction], sample.question)


def responses(path: Path | None) -> dict[str, str]:
    """Responses by prompt."""
    if path is None:
        return {}
    with open(path, encoding="utf-8") as stream:
        return {row["prompt"]: row["response"] for row in map(json.loads, stream)}


def write_rows(folder: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """A data set in our columns, and its entry."""
    with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path = folder / "dataset_info.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known[name] = {"file_name": f"{name}.jsonl", "columns": COLUMNS}
    path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


# --- training rows --------------------------------------------------------------------------------------------


def without_overlap(
    rows: Iterable[Mapping[str, Any]], column: str, questions: Questions, report: Report, *, keep: bool
) -> Iterator[Mapping[str, Any]]:
    """The rows that share no run of words with a question, or all of them; either way they are counted."""
    for row in rows:
        for source, messages in split_sources.conversations([row], column):
            text = "\n".join(message["content"] for message in messages)
            task = questions.task_of(text)
            report.add(source, task, text[:200])
            if task is None or keep:
                yield row


def _finance(
    rows: Iterable[Mapping[str, Any]], questions: Questions, report: Report, keep: bool
) -> Iterator[Mapping[str, Any]]:
    """The rows that have an answer, in our columns. Raises DidsError where none has."""
    for row in rows:
        found = {key: next((row[name] for name in names if row.get(name)), "") for key, names in NAMES.items()}
        if not found["output"]:
            continue
        text = "\n".join(found.values())
        task = questions.task_of(text)
        report.add(FINANCE, task, text[:200])
        if task is None or keep:
            yield found
    if not report.rows[FINANCE]:
        allowed = "rows with `instruction` and `output`, or `user` and `assistant`"
        raise DidsError(f"--finance: no answers, allowed: {allowed}")


if __name__ == "__main__":
    main()
