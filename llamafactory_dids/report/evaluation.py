"""The host's results of a run: its evaluations on held-out data, and the amount of training.

LLaMA-Factory leaves `all_results.json` and `trainer_state.json` in the folder above the run's `dids/`.
"""

from typing import Any, NamedTuple

from ..artifacts.files import read_json
from ..config import split_list
from ..errors import DidsError
from .run import Run

SPEED = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


class Budget(NamedTuple):
    """The amount that a run was trained on. `tokens` counts the tokens with a loss. None if it is unknown."""

    samples: int | None
    tokens: int | None


def held_out(run: Run) -> dict[str, float]:
    """The losses of the host's own evaluation after the training, by data set; empty without an evaluation."""
    return {name: found["loss"] for name, found in evaluations(run).items() if "loss" in found}


def evaluations(run: Run) -> dict[str, dict[str, float]]:
    """Each held-out data set's measures after the training: `loss`, and others that the host was told to compute."""
    results = {
        key.removeprefix("eval_"): float(value)
        for key, value in _read(run, "all_results.json").items()
        if key.startswith("eval_") and isinstance(value, int | float)
    }
    names = [key.removesuffix("loss").removesuffix("_") for key in results if key == "loss" or key.endswith("_loss")]
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for key, value in results.items():
        owner = max((name for name in names if name and key.startswith(f"{name}_")), key=len, default="")
        measure = key.removeprefix(f"{owner}_")
        if owner in found and measure not in SPEED:
            found[owner][measure] = value
    return {name or _only_set(run): measures for name, measures in found.items()}


def curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    """(samples, loss) of each held-out data set at each evaluation during and after the training."""
    per_step, found = samples_per_step(run), {}
    history = _read(run, "trainer_state.json").get("log_history", []) if per_step is not None else []
    for entry in history:
        for key, value in entry.items():
            if entry.get("step") and key.startswith("eval_") and key.endswith("_loss"):
                name = key.removeprefix("eval_").removesuffix("loss").removesuffix("_") or _only_set(run)
                found.setdefault(name, []).append((int(entry["step"] * per_step), float(value)))
    end = budget(run).samples
    if end is not None:
        for name, loss in held_out(run).items():
            points = found.setdefault(name, [])
            if not points or points[-1][0] < end:
                points.append((end, loss))
    return found


def budget(run: Run) -> Budget:
    """The run's budget, by the trainer's own count of steps."""
    steps, per_step, last = _read(run, "trainer_state.json").get("global_step"), samples_per_step(run), run.lines[-1]
    samples = int(last["samples_seen"]) if last.get("closing") else None
    if samples is None and steps is not None and per_step is not None:
        samples = round(steps * per_step)
    if samples is None and last["samples_seen"]:
        samples = int(last["samples_seen"])  # the run was broken off, and no more is known
    tokens = last.get("domain_tokens")
    whole = tokens and int(last["samples_seen"]) == samples
    return Budget(samples, sum(tokens.values()) if whole else None)


def samples_per_step(run: Run) -> float | None:
    """Training samples of a step, by the log, or else by the run's settings; None if neither tells."""
    for line in reversed(run.lines):
        if line.get("step"):
            return float(line["samples_seen"] / line["step"])
    batch, state = run.config.get("per_device_train_batch_size"), _read(run, "trainer_state.json")
    batch = batch or state.get("train_batch_size")
    processes = run.about.get("processes", 1)
    return float(batch * run.config.get("gradient_accumulation_steps", 1) * processes) if batch else None


def _only_set(run: Run) -> str:
    """The name for plain `eval_loss`: the one held-out data set, or `held_out` for all together."""
    names = split_list(run.config.get("eval_dataset"))
    return names[0] if len(names) == 1 else "held_out"


def _read(run: Run, name: str) -> dict[str, Any]:
    path = run.folder.resolve().parent / name
    try:
        return read_json(path) if path.exists() else {}
    except DidsError:
        return {}  # the host may be writing it
