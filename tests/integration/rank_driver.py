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


def main() -> None:
    folder = Path(sys.argv.pop())
    host = tuner()
    with captured_trainers() as seen, watched_windows() as windows:
        host.run_exp()
    sampler = seen[-1].mixture.sampler
    digest = hashlib.blake2b()
    for _, tensor in sorted(seen[-1].model.state_dict().items()):
        digest.update(tensor.numpy().tobytes())
    found = {
        "history": [[start, p.tolist()] for start, p in sampler.history],
        "drawn": sampler.drawn().tolist(),
        "weights": digest.hexdigest(),
    }
    torch.save(windows, folder / f"windows{os.environ['RANK']}.pt")
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
