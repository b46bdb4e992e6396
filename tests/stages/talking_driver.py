"""One of two processes of a gloo group whose timeout is short: talks to the other, and says what came of it as JSON.

python tests/stages/talking_driver.py RANK FOLDER
"""

import json
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist

from llamafactory_dids.core import devices
from llamafactory_dids.errors import DidsError
from llamafactory_dids.stages import ranks
from tests.stages.pretended import NPU, OnNpu, Pretending

TIMEOUT = 3.0
rank, folder = int(sys.argv[1]), Path(sys.argv[2])


def late_cache():
    """Another run makes the file after the first rank looked, and before the second one does."""
    made = folder / "made"
    if rank == 1:
        time.sleep(1)
        made.touch()
    return ranks.decided_by_first(made.exists)


def late_sight():
    """A file that this machine sees later than the first rank's."""
    path = folder / f"seen by {rank}"
    threading.Timer(1.0 * rank, path.touch).start()
    if rank == 0:
        time.sleep(0.2)
    assert ranks.decided_by_first(path.exists)
    return ranks.wait_to_see(path).exists()


def long_work():
    done = folder / "done"
    ranks.done_by_first(lambda: (time.sleep(TIMEOUT + 1), done.touch()))
    return done.exists()


def failing_work():
    def fail():
        raise DidsError("made up: got 1, allowed: 2")

    try:
        ranks.done_by_first(fail)
    except DidsError as error:
        return str(error)


def sums_without_cpu():
    """As under NCCL or HCCL: the group has a backend for the accelerator alone, which has no float64."""
    by_gloo = dist.all_reduce

    def all_reduce(tensor):
        if not isinstance(tensor, OnNpu):
            raise RuntimeError("No backend type associated with device type cpu")
        by_gloo(tensor.held)

    dist.all_reduce, dist.get_backend_config, devices.here = all_reduce, lambda: "npu:hccl", lambda: NPU
    third = torch.tensor([1 / 3 + rank], dtype=torch.float64)
    counts, there = torch.tensor([rank + 1, 5]), OnNpu(torch.tensor([1.5 + rank]))
    with Pretending():
        ranks.sum_over_ranks(third, counts, there)
        return [third.item() - 5 / 3, counts.tolist(), there.held.tolist(), ranks.any_rank(rank == 1)]


if __name__ == "__main__":
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=TIMEOUT))
    scenes = (late_cache, late_sight, long_work, failing_work, sums_without_cpu)
    print(json.dumps({scene.__name__: scene() for scene in scenes}))
    ranks.wait_for_all()
