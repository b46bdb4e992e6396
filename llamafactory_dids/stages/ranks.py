"""The few things that processes of one run tell each other; all are no-ops in a single process."""

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """(rank, number of ranks)."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def sum_over_ranks(*tensors: Tensor) -> None:
    """Add up each tensor over the ranks, in place."""
    if world()[1] > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def wait_for_all() -> None:
    """Return when every rank has come here."""
    if world()[1] > 1:
        device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
        dist.all_reduce(torch.zeros(1, device=device))


def all_failures(error: BaseException | None) -> list[str]:
    """The error messages of all ranks, so that none waits for one that has failed."""
    message = "" if error is None else str(error)
    if world()[1] == 1:
        return [message] if message else []
    messages: list[str] = [""] * world()[1]
    dist.all_gather_object(messages, message)
    return [text for text in messages if text]
