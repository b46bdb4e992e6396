"""A checkpoint of the mixture: the set-up that it belongs to, and what each rank writes and reads."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..artifacts.files import digest
from ..artifacts.run_state import load_share, load_tensors, load_values, save_share, save_state
from ..errors import DidsError
from ..stages import ranks
from .plan import MixingPlan

# Keys that are no mixer's option, and change a mixer's signals or their times. The map shows how domains were made.
WHILE_TRAINING = (
    *("update_samples", "max_repeats", "task_samples", "probs", "schedule"),
    *("domain_gradients", "fresh_samples", "gradient_layers", "tracked_entries"),
)

SHARE = "share_"

Tensors = dict[str, Tensor]


def identity(plan: MixingPlan, samples_per_step: int) -> dict[str, Any]:
    """The settings that must be equal for a run to resume exactly, as plain values for messages."""
    found = {
        "strategy": plan.strategy,
        "tasks": list(plan.tasks),
        "domains": list(plan.domain_names),
        "num_samples": len(plan.domains_N),
        "samples_per_step": samples_per_step,
        "seed": plan.seed,
        "shuffled": plan.shuffled,
        "streamed": plan.streamed,
        "share_of": plan.units().get("share_of"),
        "domain_map": plan.domain_map.digest(),
        "rows": _digest(plan.domains_N.tobytes()),
        **{f"dids_{key}": getattr(plan.config, f"dids_{key}") for key in WHILE_TRAINING},
        **{f"option {name}": value for name, value in getattr(plan.mixer, "options", {}).items()},
        "start": _digest(*(array.tobytes() for array in plan.mixer.init())),
    }
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]


def check_identity(folder: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise DidsError for a checkpoint of another set-up, with both values of the first difference."""
    for key in {**expected, **found.get("identity", {})}:
        before, now = found.get("identity", {}).get(key), expected.get(key)
        if before != now:
            raise DidsError(
                f"{folder}: was saved with {key} = {before!r}, this run has {now!r}; "
                "allowed: the same set-up, or another output_dir"
            )


def _digest(*parts: bytes) -> str:
    return digest(len(part).to_bytes(8, "little") + part for part in parts)


@dataclass(frozen=True)
class Loaded:
    """A checkpoint's values, the tensors that are the same on all ranks, and the shares that this rank takes over."""

    values: dict[str, Any]
    common: Tensors
    shares: list[Tensors]


def save(folder: Path, values: dict[str, Any], common: Tensors, share: Tensors) -> None:
    """Write the mixture of a checkpoint. Every rank must call it, with the same `values` and `common`.

    Each rank's share is stored apart: a sum over the ranks would round differently from the sum at the update.
    """
    rank, num_ranks = ranks.world()
    if rank > 0:
        save_share(folder, rank, share)
    ranks.wait_for_all()
    if rank == 0:
        own = {f"{SHARE}{name}": tensor for name, tensor in share.items()}
        save_state(folder, {**values, "num_ranks": num_ranks}, common | own)


def load(folder: Path, expected: dict[str, Any]) -> Loaded:
    """Read a checkpoint for this rank. A rank gets its own share; for another number of ranks, shares are dealt out.

    Raises DidsError if the checkpoint is incomplete, or its identity is not `expected`.
    """
    values = load_values(folder)
    check_identity(folder, values, expected)
    rank, num_ranks = ranks.world()
    tensors = load_tensors(folder)
    mine = range(rank, int(values["num_ranks"]), num_ranks)
    first = {name.removeprefix(SHARE): tensor for name, tensor in tensors.items() if name.startswith(SHARE)}
    common = {name: tensor for name, tensor in tensors.items() if not name.startswith(SHARE)}
    return Loaded(values, common, [load_share(folder, other) if other else first for other in mine])
