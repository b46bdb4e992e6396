"""Trains YAML files one after the other, in this process or as one of torchrun's, or hands them to Ray.

python tests/integration/ways_driver.py RUN.yaml...

Beside each file, `<name>.rank<n>.json` says how it went: the probabilities at each update, or the error.
"""

import gc
import json
import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import yaml
from torch import distributed

from tests.integration.support import captured_trainers, tuner


def main() -> None:
    host = tuner()
    rank = os.environ.get("RANK", "0")
    with ExitStack() as stack:
        if os.environ.get("COUNT_AS_DEVICES") == "1":
            stack.enter_context(ranks_counted_as_devices())
        if os.environ.get("USE_RAY") == "1":
            stack.enter_context(one_cluster_for_all(host))
        # the host ends its process group with a run, and the next run goes on with it
        stack.enter_context(mock.patch.object(distributed, "destroy_process_group"))
        for path in map(Path, sys.argv[1:]):
            path.with_suffix(f".rank{rank}.json").write_text(json.dumps(train(host, path)))
            gc.collect()


def train(host, path):
    """How the run of a YAML file went in this process."""
    try:
        with captured_trainers() as seen:
            host.run_exp(yaml.safe_load(path.read_text()))
    except Exception as error:
        error = getattr(error, "cause", None) or error  # Ray wraps those of its workers
        return {"error": f"{type(error).__name__}: {error}"}
    return {"history": [[start, p.tolist()] for start, p in seen[-1].mixture.sampler.history] if seen else None}


def ranks_counted_as_devices():
    """Lets accelerate shard models over processes on the CPU, which it does over devices only."""
    from accelerate.state import DistributedType, PartialState

    init = PartialState.__init__

    def counted(self, *args, **kwargs):
        init(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU and type(self) is PartialState:
            self.distributed_type = DistributedType.MULTI_GPU

    return mock.patch.object(PartialState, "__init__", counted)


@contextmanager
def one_cluster_for_all(host):
    """Lets the runs share a cluster of Ray's, and ask it for as much as a worker needs.

    Without a GPU the host asks for ten CPUs for each CPU that there is, which no machine has.
    """
    import ray

    ask, asked = host.get_placement_group, []

    def ask_for_one(_devices):
        while asked:  # of the run before, whose worker is gone
            ray.util.remove_placement_group(asked.pop())
        group, bundle = ask(1)
        asked.append(group)
        return group, bundle

    with mock.patch.object(host, "get_placement_group", ask_for_one), mock.patch.object(ray, "shutdown"):
        yield
    ray.shutdown()


if __name__ == "__main__":
    main()
