"""For torchrun: trains one YAML file as the host does, and leaves what each rank's sampler, model and running gradients
came to.

torchrun --nproc-per-node 2 tests/integration/rank_driver.py run.yaml FOLDER
"""

import hashlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from tests.integration.support import captured_trainers, tuner, watched_windows


def count_as_devices() -> None:
    """Let accelerate shard models over processes on the CPU, which it does over devices only."""
    from accelerate.state import DistributedType, PartialState

    init = PartialState.__init__

    def as_devices(self, *args, **kwargs):
        init(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU and type(self) is PartialState:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = as_devices


def main() -> None:
    folder = Path(sys.argv.pop())
    host = tuner()
    if os.environ.get("COUNT_AS_DEVICES") == "1":
        count_as_devices()
    with captured_trainers() as seen, watched_windows() as windows:
        host.run_exp()
    sampler = seen[-1].mixture.sampler
    digest = hashlib.blake2b()
    for _, tensor in sorted(seen[-1].model.state_dict().items()):
        mine = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # FSDP's are shards
        digest.update(mine.numpy().tobytes())
    found = {
        "history": [[start, p.tolist()] for start, p in sampler.history],
        "drawn": sampler.drawn().tolist(),
        "weights": digest.hexdigest(),
    }
    torch.save(windows, folder / f"windows{os.environ['RANK']}.pt")
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
