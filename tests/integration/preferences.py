"""The world's examples as pairs of answers (`dpo`, `rm`) and as judged answers (`kto`)."""

import json
from pathlib import Path
from typing import Any

from tests.integration.support import SOURCES, TASKS, World, arguments

PAIR = {"ranking": True, "columns": {"prompt": "instruction", "query": "input", "chosen": "good", "rejected": "bad"}}
JUDGED = {"columns": {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "wanted"}}


def make_preferences(world: World, folder: Path) -> Path:
    """`NAME_pairs` and `NAME_judged` of each data set of the world, in a folder with its `dataset_info.json`."""
    folder.mkdir(parents=True)
    info = {}
    for name in (*SOURCES, *TASKS):
        rows = json.loads((world.data / f"{name}.json").read_text())
        others = [row["output"][::-1] + " no" for row in rows[1:] + rows[:1]]
        made = {
            "pairs": (PAIR, [{**r, "good": r["output"], "bad": bad} for r, bad in zip(rows, others, strict=True)]),
            "judged": (
                JUDGED,
                [
                    {**r, "output": bad if i % 3 == 0 else r["output"], "wanted": i % 3 != 0}
                    for i, (r, bad) in enumerate(zip(rows, others, strict=True))
                ],
            ),
        }
        for kind, (columns, content) in made.items():
            info[f"{name}_{kind}"] = {"file_name": f"{name}_{kind}.json", **columns}
            (folder / f"{name}_{kind}.json").write_text(json.dumps(content))
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def preference_arguments(world: World, data: Path, folder: Path, stage: str, **changes: Any) -> dict[str, Any]:
    """A run of a preference or reward stage of 8 steps with 4 updates; None takes a key away."""
    kind = "judged" if stage == "kto" else "pairs"
    few = {"max_steps": 8, "dids_update_samples": 8, "per_device_train_batch_size": 4, "logging_steps": 2}
    names = {"dataset": SOURCES, "dids_tasks": TASKS}
    data_keys = {key: ",".join(f"{name}_{kind}" for name in known) for key, known in names.items()}
    return arguments(
        world, folder, **{"stage": stage, "dataset_dir": str(data), "dids_task_samples": 6} | data_keys | few | changes
    )
