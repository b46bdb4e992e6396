"""Reproduce a table or figure of the paper: run what is not done, and write it with the paper's values beside ours.

    python scripts/experiments/reproduce.py --list
    python scripts/experiments/reproduce.py --table 1 --preset mini --seeds 5 --jobs 2
    python scripts/experiments/reproduce.py --figure 2a --preset mini_continued --render   # from the results there
    python scripts/experiments/reproduce.py --table 2/8 --preset paper --dry-run           # every command, checked

`mini` is a small Llama from scratch on a CPU (runner.py), `mini_continued` the same from the proxy's weights,
`mini_continued_fp32` that for a CPU without bf16 of its own, `mini_3m`, `mini_3m_continued` and `mini_gpu` larger ones,
`paper` Llama-3.1-8B and Mistral-7B on 8 GPUs.
May be broken off at any time: a run that has ended is not made again. Writes docs/results/tables/PRESET/table_01.md,
of a figure a picture too.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llamafactory_dids.errors import DidsError  # noqa: E402
from scripts.experiments import definition, figures, results, runs, tables  # noqa: E402
from scripts.experiments.definition import MINI, PRESETS, Definition  # noqa: E402
from scripts.experiments.results import Table  # noqa: E402
from scripts.paper.recipe import FOLDER as PAPER_RUNS  # noqa: E402

TABLES = results.FOLDER / "tables"
SEEDS = {**dict.fromkeys(MINI, 5), "paper": 1}  # the paper's runs are single ones


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    what = found.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", help="1, 2/8, 3/12, 5, 6, 7, 9, 10, 11, 13, 14; budget")
    what.add_argument("--figure", help="2a, 2b, 3a, 3b")
    what.add_argument("--all", action="store_true", help="every table and figure")
    what.add_argument("--list", action="store_true", help="each table and figure, and how many of its runs are done")
    found.add_argument("--preset", choices=PRESETS, default="mini")
    found.add_argument("--seeds", type=int, help="seeds 1 to this (5; paper: 1)")
    found.add_argument("--jobs", type=int, default=2, help="runs side by side, in the mini presets")
    found.add_argument("--dry-run", action="store_true", help="say and check what would be run; run nothing")
    found.add_argument("--render", action="store_true", help="only write the tables, from the results that are there")
    return found


def main() -> None:
    given = parser().parse_args()
    try:
        if given.list:
            show_all(given.seeds)
            return
        definitions = _asked_for(given)
        seeds = range(1, (given.seeds or SEEDS[given.preset]) + 1)
        if given.dry_run:
            raise SystemExit(dry_run(definitions, given.preset, seeds))
        if not given.render:
            execute(definitions, given.preset, seeds, given.jobs)
        for one in definitions:
            print(write(one, given.preset, seeds))
    except DidsError as error:
        raise SystemExit(f"error: {error}") from None


def _asked_for(given: argparse.Namespace) -> list[Definition]:
    if given.all:
        return [one for one in definition.load_all().values() if one.kind != "data"]
    kind = "table" if given.table is not None else "figure"
    return definition.find(kind, given.table or given.figure)


def table_of(one: Definition, preset: str, seeds: Sequence[int]) -> Table:
    """A definition with the results of a preset. The mini presets have the runs that runs.yaml names, and no others."""
    return Table(one, preset, seeds, list(runs.load()) if preset in MINI else None)


def show_all(seeds: int | None) -> None:
    """`--list`: the state of `mini`, of `paper`, and of each other preset that has a run of the table."""
    for one in definition.load_all().values():
        if one.kind == "data":
            continue
        states = []
        for preset in PRESETS:
            table = table_of(one, preset, range(1, (seeds or SEEDS[preset]) + 1))
            needed, done = len(table.wanted) * len(table.seeds), table.done()
            if done or preset in ("mini", "paper"):
                states.append(f"{preset} {done:3} of {needed:3}" if needed else f"{preset} none")
        print(f"{one.heading:13} {one.title}\n{'':13} {'   '.join(states)}")


def write(one: Definition, preset: str, seeds: Sequence[int]) -> str:
    """Write a table's files; where they are."""
    table = table_of(one, preset, seeds)
    if one.kind == "weights":
        table.folders = {run: _folder_of(run, one.base, preset) for run in one.runs}
    path = TABLES / preset / f"{one.name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tables.page(table), encoding="utf-8")
    if one.kind == "figure":
        path.with_suffix(".png").write_bytes(figures.draw_table(table))
    return str(path.relative_to(ROOT))


# --- running ---------------------------------------------------------------------------------------------------


def execute(definitions: Sequence[Definition], preset: str, seeds: Sequence[int], jobs: int) -> None:
    """Make the runs that are not done."""
    if preset in MINI:
        from scripts.experiments import runner

        runner.execute(_mini_names(definitions, preset, seeds), seeds, jobs, **MINI[preset])
        return
    from scripts.paper import dry_run, recipe

    recipes = recipes_of(definitions, seeds)
    if gone := dry_run.missing(recipes):
        raise DidsError(
            f"--preset: got 'paper', for which this machine lacks {'; '.join(gone)}; "
            f"allowed: {', '.join(MINI)}, or --dry-run"
        )
    recipe.execute(recipes)


def _mini_names(definitions: Sequence[Definition], preset: str, seeds: Sequence[int]) -> list[str]:
    return list(dict.fromkeys(run for one in definitions for run, _ in table_of(one, preset, seeds).wanted))


def recipes_of(definitions: Sequence[Definition], seeds: Sequence[int]) -> list[Any]:
    """The runs of the paper preset that are not done, each with the tasks that all of the tables want of it."""
    from scripts.paper.recipe import Preset

    wanted: dict[tuple[str, str, int], dict[str, None]] = {}
    for one in definitions:
        table = table_of(one, "paper", seeds)
        for run, base in table.wanted:
            tasks = table.needed(run, base)
            for seed in table.left(run, base):
                wanted.setdefault((run, base, seed), {}).update(dict.fromkeys(tasks))
    preset = Preset(runs.load())
    return [preset.recipe(run, base, seed, list(tasks)) for (run, base, seed), tasks in wanted.items()]


def _folder_of(run: str, base: str, preset: str) -> Path:
    """What the first seed's run left."""
    if preset not in MINI:
        return ROOT / PAPER_RUNS / base / run / "1"
    from scripts.experiments import runner

    folder = runner.folder_of(definition.size_of(preset))
    return runner.Preset(folder, runner.DATA, **MINI[preset]).output(run, 1)


def dry_run(definitions: Sequence[Definition], preset: str, seeds: Sequence[int]) -> int:
    """Print what would be run, and check it; 1 if something is wrong."""
    if preset in MINI:
        for one in definitions:
            table = table_of(one, preset, seeds)
            for run, base in table.wanted:
                print(f"{one.heading}: {run}: seeds to run: {', '.join(map(str, table.left(run, base))) or 'none'}")
        return 0
    from scripts.paper import dry_run, recipe

    recipes = recipes_of(definitions, seeds)
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        stand_ins = dry_run.StandIns(Path(folder))
        for made in recipes:
            print("\n".join(recipe.lines(made)))
            problems += dry_run.problems(made, stand_ins)
    for gone in dry_run.missing(recipes):
        print(f"missing here: {gone}")
    for problem in problems:
        print(f"wrong: {problem}")
    steps = sum(len(made.steps) for made in recipes)
    print(json.dumps({"runs": len(recipes), "commands": steps, "wrong": len(problems)}))
    return 1 if problems else 0


if __name__ == "__main__":
    main()
