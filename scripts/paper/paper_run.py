"""Run the recipes of the paper preset, a step at a time: what is done is skipped, and a killed training resumes."""

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence

from llamafactory_dids.errors import DidsError

from .recipe import ROOT, Recipe, Step, write


def lines(recipe: Recipe) -> Iterator[str]:
    """The commands of a run, as one would type them."""
    yield f"# {recipe.run} on {recipe.base}, seed {recipe.seed}"
    yield from (f"#   not as in the paper: {departure}" for departure in recipe.departures)
    for step in recipe.steps:
        yield line(step)


def line(step: Step) -> str:
    """One command with its environment."""
    words = [f"{key}={value}" for key, value in (step.environment or {}).items()]
    return " ".join([*words, shlex.join(step.command)])


def is_done(step: Step) -> bool:
    """Whether a step before the scores has left its mark."""
    return step.what != "score" and (ROOT / step.done).exists()


def execute(recipes: Sequence[Recipe], say: Callable[[str], None] = print) -> None:
    """Run each step that is not done. Raises DidsError at the first that fails; the same command goes on from there."""
    for recipe in recipes:
        for step in recipe.steps:
            if not is_done(step):
                say(line(step))
                _run(step)


def _run(step: Step) -> None:
    if step.config is not None:
        write(step)
    environment = {**os.environ, **(step.environment or {})}
    code = subprocess.run(step.command, cwd=ROOT, env=environment, check=False).returncode
    if code != 0:
        raise DidsError(f"{line(step)}: ended with code {code}; the same command goes on from here")
    if step.what == "cluster":
        mark = ROOT / step.done
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
