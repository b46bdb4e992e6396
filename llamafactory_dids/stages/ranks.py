"""The few messages between the processes of a run. All are no-ops in a single process.

Sums go through the process group, on a device that its backend takes. Words, and waiting, go through the group's store:
they need no device, and wait as long as it takes, while a collective gives up after the group's timeout. If a process
dies, the others do not wait: torchrun ends them, or the store's connection breaks.
"""

import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..core import devices
from ..errors import DidsError

T = TypeVar("T")

_LONGEST_PAUSE = 0.5  # seconds between two looks into the store
_LATE = 120.0  # seconds to wait for a file that another machine wrote
_turns = itertools.count()  # the same on all ranks


def world() -> tuple[int, int]:
    """(rank, number of ranks)."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def share_of(items: Sequence[T]) -> tuple[T, bool]:
    """This rank's item of at most as many items as ranks, and whether it counts.

    A rank without an item repeats the last one, and its result does not count. All ranks thus make the same number of
    passes through a model whose parameters they gather together (ZeRO-3, FSDP).
    """
    rank = world()[0]
    return items[min(rank, len(items) - 1)], rank < len(items)


# --- sums ------------------------------------------------------------------------------------------------------


def sum_over_ranks(*tensors: Tensor) -> None:
    """Add up each tensor over the ranks, in place, on any device."""
    if world()[1] > 1:
        for tensor in tensors:
            _sum(tensor)


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank."""
    if world()[1] == 1:
        return flag
    count = torch.tensor([float(flag)])
    _sum(count)
    return bool(count.item() > 0)


def _sum(tensor: Tensor) -> None:
    device = _taken_by_group(tensor.device)
    if device == tensor.device:
        dist.all_reduce(tensor)
    elif tensor.dtype == torch.float64 and devices.exact(device) != device:
        # The device has no float64, so two numbers hold half the digits each.
        large = tensor.float()
        small = (tensor - large).float()
        tensor.copy_(_summed(large, device).to(tensor) + _summed(small, device).to(tensor))
    else:
        tensor.copy_(_summed(tensor, device))


def _summed(tensor: Tensor, device: torch.device) -> Tensor:
    moved = tensor.to(device)
    dist.all_reduce(moved)
    return moved.to(tensor.device)


def _taken_by_group(device: torch.device) -> torch.device:
    """The device itself if the group has a backend for its kind; else the accelerator, which then has a backend."""
    kinds = {part.partition(":")[0] for part in dist.get_backend_config().split(",")}
    return device if device.type in kinds else devices.here()


# --- words, and waiting ------------------------------------------------------------------------------------------


def wait_for_all() -> None:
    """Return when every rank has called this, however long it takes."""
    _words("")


def all_failures(error: BaseException | None) -> list[str]:
    """The error messages of all ranks, so that no rank waits for one that has failed."""
    message = "" if error is None else str(error) or type(error).__name__
    return [text for text in _words(message) if text]


def decided_by_first(decide: Callable[[], T]) -> T:
    """The result of `decide` on the first rank, given to all ranks. It must be of JSON's types.

    The ranks must not decide by themselves: the state may change meanwhile, as in a cache that several runs share.
    """
    if world()[1] == 1:
        return decide()
    found: list[str] = []
    done_by_first(lambda: found.append(json.dumps(decide())))
    return json.loads(_words("".join(found))[0])  # type: ignore[no-any-return]


def done_by_first(work: Callable[[], Any]) -> None:
    """Do the work on the first rank while the others wait. Raises DidsError on every rank if it fails."""
    failure: BaseException | None = None
    if world()[0] == 0:
        try:
            work()
        except Exception as error:
            failure = error
    if messages := all_failures(failure):
        raise failure or DidsError(messages[0])


def wait_to_see(path: Path) -> Path:
    """Wait for a file that the first rank saw. On a folder shared by machines, another machine may see it later."""
    until = time.monotonic() + _LATE
    while world()[0] > 0 and not path.exists() and time.monotonic() < until:
        time.sleep(_LONGEST_PAUSE)
    return path


def _words(mine: str) -> list[str]:
    """The word of each rank, in order, after all ranks have given theirs."""
    rank, num_ranks = world()
    if num_ranks == 1:
        return [mine]
    store = dist.PrefixStore(f"llamafactory_dids/{next(_turns)}", dist.distributed_c10d._get_default_store())
    store.set(str(rank), mine)
    keys, pause = [str(other) for other in range(num_ranks)], 0.001
    while not store.check(keys):
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return [store.get(key).decode() for key in keys]


def end_process_group() -> None:
    """End the process group, as the host does after a training. gloo's threads may abort a Python that shuts down."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
