"""For torchrun: trains YAML files one after the other, as the host does. Beside each it leaves, as `<name>.rank<n>`,
what the rank's sampler and model came to (`.json`), and the windows of its in-run impact (`.pt`).

torchrun --nproc-per-node 2 tests/integration/rank_driver.py RUN.yaml...
"""

import gc
import hashlib
import json
import os
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import yaml
from torch import distributed

from tests.integration.support import captured_trainers, tuner, watched_windows


def main() -> None:
    host = tuner()
    with mock.patch.object(distributed, "destroy_process_group"):  # the host does after each run
        for path in map(Path, sys.argv[1:]):
            with captured_trainers() as seen, watched_windows() as windows:
                host.run_exp(yaml.safe_load(path.read_text()))
            place = path.with_suffix(f".rank{os.environ['RANK']}")
            torch.save(windows, f"{place}.pt")
            Path(f"{place}.json").write_text(json.dumps(found_in(seen[-1])))
    distributed.destroy_process_group()


def found_in(trainer):
    sampler, digest = trainer.mixture.sampler, hashlib.blake2b()
    for _, tensor in sorted(trainer.model.state_dict().items()):
        digest.update(tensor.numpy().tobytes())
    history = [[start, p.tolist()] for start, p in sampler.history]
    return {"history": history, "drawn": sampler.drawn().tolist(), "weights": digest.hexdigest()}


if __name__ == "__main__":
    main()
    gc.collect()  # ends gloo's threads: one that lets go of a tensor while Python shuts down aborts the process
