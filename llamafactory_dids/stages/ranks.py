"""The few things that processes of one run tell each other; all are no-ops in a single process."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world() -> tuple[int, int]:
    """(rank, number of ranks)."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def shared_out(items: Sequence[T]) -> Iterator[tuple[T, bool]]:
    """This rank's items, and whether each counts: a rank that has none left does the last one again, for nothing.

    So all ranks take as many passes through a model whose parameters they gather together (ZeRO-3, FSDP).
    """
    rank, num_ranks = world()
    for first in range(0, len(items), num_ranks):
        yield items[min(first + rank, len(items) - 1)], first + rank < len(items)


def sum_over_ranks(*tensors: Tensor) -> None:
    """Add up each tensor over the ranks, in place."""
    if world()[1] > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def decided_by_first(value: T) -> T:
    """The first rank's value, on every rank: what must not differ by a last bit, or by what a rank saw when."""
    if world()[1] == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def wait_for_all() -> None:
    """Return when every rank has come here."""
    if world()[1] > 1:
        device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
        dist.all_reduce(torch.zeros(1, device=device))


def end_process_group() -> None:
    """End the process group, as the host does after a training; gloo's threads may abort a Python that shuts down."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def all_failures(error: BaseException | None) -> list[str]:
    """The error messages of all ranks, so that none waits for one that has failed."""
    message = "" if error is None else str(error)
    if world()[1] == 1:
        return [message] if message else []
    messages: list[str] = [""] * world()[1]
    dist.all_gather_object(messages, message)
    return [text for text in messages if text]
