"""For torchrun: trains, one after another in one process group, the runs of FOLDER/jobs.json, some broken off.

torchrun --nproc-per-node 2 tests/integration/resume_driver.py FOLDER
"""

import gc
import json
import os
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch.distributed as dist

from tests.integration.support import timeless, tuner
from tests.integration.traced import Break, traced


def main() -> None:
    folder, found = Path(sys.argv.pop()), {}
    tuner()
    with mock.patch.object(dist, "destroy_process_group"):  # the host does after each run
        for job in json.loads((folder / "jobs.json").read_text()):
            trace = traced(job["values"], *([Break(job["kill_at"])] if "kill_at" in job else []))
            dist.barrier()
            found[job["name"]] = {"seen": trace.seen, "lines": timeless(trace), "weights": trace.digest()}
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
    gc.collect()  # ends gloo's threads: one that lets go of a tensor while Python shuts down aborts the process
