"""Which ways to train were tested: `docs/ways.md`, made of `docs/results/ways.json`, which the tests fill.

    python scripts/ways.py run [pytest arguments]   run the cells (all, or what -k names) and keep their outcomes
    python scripts/ways.py table                    write the page anew

A cell is a stage, a finetuning type and a way to spread a run over processes. An outcome stays until its cell is run
anew; a cell that was skipped, for a package that is not there, or failed, has none.
"""

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from itertools import groupby, product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "ways.json"
PAGE = ROOT / "docs" / "ways.md"
CELLS_TEST = "tests/integration/test_ways.py"
PROPERTY = "way"

STAGES = ("sft", "pt", "dpo", "kto", "rm", "ppo")
TYPES = ("full", "freeze", "lora", "dora", "rslora", "pissa", "qlora")
PARALLELISMS = ("one process", "DDP", "ZeRO-2", "ZeRO-3", "FSDP2", "Ray")
CELLS = tuple(product(STAGES, TYPES, PARALLELISMS))

Cell = tuple[str, ...]

HEAD = """# Ways to train

Each cell is a run of `mix_strategy: dids` through LLaMA-Factory's own entry: a tiny Llama, five steps, two updates of
the mixture. It counts as tested if both updates moved the mixture, and all processes have the same one. DDP, ZeRO and
FSDP2 are two processes, Ray is one worker. Without a GPU, accelerate and LLaMA-Factory have to be told that processes
on the CPU will do for FSDP2 and Ray: `tests/integration/ways_driver.py` does, and changes nothing else. What was run on
a GPU would say `tested on GPU`: no cell was. NPU, XPU and MPS are untested
([Devices](guide-cluster.md#devices)).

`dora`, `rslora` and `pissa` are `finetuning_type: lora` with `use_dora`, `use_rslora` and `pissa_init`; `qlora` is
`lora` with `quantization_bit: 4`. That the mixture is the same however a run is spread is tested apart, by
`tests/integration/test_parallel.py`. FSDP 1 is refused with `fsdp: got 'version 1'`.

`rm` is run with `use_reentrant_gc: false`: under DDP with reentrant checkpointing, LLaMA-Factory's own reward training
of a full model fails, without this plugin too ("Expected to mark a variable ready only once").

`python scripts/ways.py run` makes the results anew (it needs deepspeed, `ray[default]` and bitsandbytes), and
`python scripts/ways.py table` this page.
"""

MEDIA = """
## Pictures, videos and sounds

`tests/integration/test_media.py` trains a tiny Qwen2-VL with random weights on pictures and short videos made on the
spot: transformers 5.6, one process, on the CPU. Other models with a processor go the same way, through LLaMA-Factory's
own collator, and were not run; nor were sounds, of which the keys alone are tested.

| stage | what | outcome |
| --- | --- | --- |
| `sft` | `cluster`, `source` or a map; pictures as paths or in the data set | tested on CPU |
| `sft` | rows with pictures and rows of text in one run | tested on CPU |
| `sft` | videos as lists of pictures, `cluster` | tested on CPU |
| `sft` | the vision tower frozen or trained; it is not tracked | tested on CPU |
| `sft` | `packing` with a map | tested on CPU |
| `sft` | `streaming` with a map, pictures as paths | tested on CPU |
| `sft` | `streaming` with a map, JPEG that the data set holds | refused with: dids_domains: the map lacks a picture |
| `dpo`, `rm` | `cluster` | tested on CPU |
| `kto` | a model that is told where tokens stand (Qwen2-VL) | refused with: stage: got 'kto' |
| `pt` | `cluster`; trains on the texts alone, as without this plugin | tested on CPU |
| any | `dids_proxy_model` without a processor | refused with: dids_proxy_model: got … |
"""

OPTIONS = """
## Options of LLaMA-Factory

Each of its options is left alone by a mixture, handled, or refused in one line before any data or model is loaded.
These tables are those that the checks read (`integration/arguments/host_options/`): of LLaMA-Factory 0.9.5 and its main
branch, with what transformers 4.55 to 5.8 adds to the training's. `llamafactory-dids doctor` names the options of an
installed version that they lack. An option that is refused for some values is handled for the others.
"""

FOOT = """
## Going on after a break

`tests/integration/test_resume.py` kills runs before, at and after an update, with 0 and 2 loader workers and on 1 and 2
ranks, and resumes them with another `save_steps`: the order of the samples, the log and the weights are bit for bit
those of a run that was not killed (fp32 on the CPU). A checkpoint that was cut off is passed over, one of another
set-up is refused with both values, and another number of ranks keeps the order.

Nothing is loaded on the way back. After 1M samples of 72 domains and 25 updates the sampler finds its place in 0.05
CPU seconds (0.10 with `dids_max_repeats: 1`), and the host's loader skips its batches in 0.26 (0.39); 32 samples were
loaded, the batch to go on with and the one after it. One thread of an AMD EPYC:

```bash
python scripts/bench/resume.py --threads 1 --clock cpu
```

## Versions

LLaMA-Factory 0.9.5 admits transformers 4.55.0 to 5.6.0; its main branch takes up to 5.8.0, and not 5.6.0. Development
is on 0.9.5 with 5.6.0. The whole suite, web page and packaging with it, on an AMD EPYC, 2026-12-01, unit
and integration tests one after the other:

- main (ff6d4d12 of 2026-08-18) with transformers 5.8.0 (and trl 0.24), at 4dfb9b9: 3,287 of 3,288
  unit and 974 of 975 integration tests pass. The other two were tests that asked too much (how many windows tell more
  than noise in a tiny run; a number of updates that a preset had at that commit). They pass at 7e5f3b8.
- 0.9.5 with transformers 4.55.0 (and trl 0.22), at b241b86: 3,279 of 3,280 unit and all 975 integration tests pass.
  The other one was a fault: a SmolLM2 that transformers 5 had converted could not be read by 4.55. It can since
  a3da309.

deepspeed, ray, bitsandbytes and lm-evaluation-harness were in neither, so that 7 integration tests were skipped. Four
of liger's kernels are skipped on 4.55: that liger-kernel wants transformers 5. The cells above were run on neither
version. FSDP2 on the CPU wants `FSDP_VERSION=2` in the environment of 4.55: it does not read the version of the file.

All cells above were run again at 9b9e488, with the same outcomes as before. Those of Ray need `ray[default]`: plain
`ray` has no dashboard for its API server to answer from, they fail (`ServerUnavailable`).

`CONTRIBUTING.md` has the commands that make the environments and run all of it.
"""


def read(path: Path = RESULTS) -> dict[Cell, str]:
    """The outcome of each cell that has one."""
    if not path.exists():
        return {}
    return {tuple(key.split(" / ")): outcome for key, outcome in json.loads(path.read_text(encoding="utf-8")).items()}


def write(outcomes: dict[Cell, str], path: Path = RESULTS) -> None:
    ordered = {" / ".join(cell): outcomes[cell] for cell in CELLS if cell in outcomes}
    path.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def outcomes_of(report: Path) -> dict[Cell, str]:
    """The cells that a report of pytest (JUnit's XML) has; one whose test did not pass has none."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        if any(case.find(kind) is not None for kind in ("failure", "error", "skipped")):
            continue
        for entry in case.iter("property"):
            if entry.get("name") == PROPERTY:
                *cell, outcome = json.loads(entry.get("value", ""))
                found[tuple(cell)] = outcome
    return found


def page(outcomes: dict[Cell, str]) -> str:
    """The page. Raises ValueError for a cell without an outcome."""
    if missing := [cell for cell in CELLS if cell not in outcomes]:
        raise ValueError(f"{len(missing)} cells have no outcome, the first: {' / '.join(missing[0])}")
    rows = [("stage", "finetuning type", *PARALLELISMS), ("---",) * (2 + len(PARALLELISMS))]
    for stage in STAGES:
        by_type = {kind: tuple(outcomes[stage, kind, name] for name in PARALLELISMS) for kind in TYPES}
        for cells, kinds in groupby(TYPES, by_type.__getitem__):
            rows.append((f"`{stage}`", ", ".join(f"`{kind}`" for kind in kinds), *cells))
    return HEAD + "\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n" + MEDIA + options() + FOOT


def options() -> str:
    """A table of each of the host's argument classes: what is refused, what is handled, what is left alone."""
    from llamafactory_dids.integration.arguments.host_options import TABLES

    text = OPTIONS
    for kind, table in TABLES.items():
        rows = [("option", f"of `{kind.__name__}`"), ("---", "---")]
        rows += [(", ".join(f"`{name}`" for name in entry.names.split()), entry.words()) for entry in table]
        text += "\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
    return text


def run(arguments: list[str]) -> int:
    """Run the cells and keep the outcomes of those that passed; the status is that of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = [f"--junitxml={report}", f"--basetemp={folder}/runs", "-q", *arguments]
        command = [sys.executable, "-m", "pytest", CELLS_TEST, *options]
        status = subprocess.run(command, cwd=ROOT, env={**os.environ, "DIDS_ALL_WAYS": "1"}).returncode
        if report.exists():
            write(read() | outcomes_of(report))
    return status


def main() -> int:
    wanted = sys.argv[1:2]
    if wanted == ["run"]:
        return run(sys.argv[2:])
    if wanted == ["table"]:
        PAGE.write_text(page(read()), encoding="utf-8")
        return 0
    raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.exit(main())
