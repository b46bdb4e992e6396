"""What a case is given beside keys and data: models, maps, caches and environments that are not as they should be.

Each function changes the place of its case, and gives back changes to the keys where there are any.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from llamafactory_dids.artifacts.domain_map import DomainMap, load_map, save_map
from llamafactory_dids.integration.data.tags import example_key
from tests.integration.support import Run, World, arguments, train, write_dataset


@dataclass(frozen=True)
class Place:
    """Where a case runs: its folder and data, what it may take from, and what it may patch."""

    folder: Path
    data: Path
    world: World
    finished: Run
    monkeypatch: pytest.MonkeyPatch

    def take(self, source: Path, name: str) -> Path:
        """A copy that may be broken."""
        return Path(shutil.copytree(source, self.folder / name, dirs_exist_ok=True))


Keys = dict[str, Any] | None
BY_MAP = {"dids_domains": "$folder/map", "dids_num_domains": None, "dids_min_domain_size": None}


def edit(path: Path, change: Any = dict) -> None:
    """Change what a JSON file holds, as a person would, who takes its checksums away."""
    content = json.loads(path.read_text())
    content = change(content) or content
    kept = {key: value for key, value in content.items() if key not in ("digest", "domains.parquet")}
    path.write_text(json.dumps(kept))


def spoilt(
    place: Place,
    take: str,
    delete: str | None = None,
    write: dict[str, str] | None = None,
    cut: dict[str, int] | None = None,
) -> None:
    """Take a model, map, cache or checkpoint for the case, and change its files; each is named by a pattern."""
    folder = TAKEN[take](place)
    for path in folder.glob(delete) if delete else ():
        path.unlink()
    for pattern, text in (write or {}).items():
        for path in folder.glob(pattern):
            path.write_text(text)
    for pattern, length in (cut or {}).items():
        for path in folder.glob(pattern):
            path.write_bytes(path.read_bytes()[:length])


# --- models ---------------------------------------------------------------------------------------------------


def model(place: Place) -> Path:
    return place.take(place.world.model, "model")


def model_of_unknown_kind(place: Place) -> Keys:
    edit(model(place) / "config.json", lambda c: c | {"model_type": "llamma", "architectures": ["Llamma"]})


def model_without_blocks(place: Place) -> Keys:
    edit(model(place) / "config.json", lambda c: c | {"num_hidden_layers": 0, "layer_types": []})


def model_without_padding(place: Place) -> Keys:
    edit(model(place) / "tokenizer_config.json", lambda c: {k: v for k, v in c.items() if k != "pad_token"})


def model_of_broken_numbers(place: Place) -> Keys:
    spoil(place, float("nan"))


def model_of_infinite_numbers(place: Place) -> Keys:
    spoil(place, float("inf"))


def spoil(place: Place, value: float) -> None:
    path = model(place) / "model.safetensors"
    tensors = load_file(path)
    for name in tensors:
        if "layers.2" in name:
            tensors[name].fill_(value)
    save_file(tensors, path, {"format": "pt"})


def adapter_that_is_none(place: Place) -> Keys:
    (place.folder / "adapter").mkdir()


# --- domain maps: the case's own is the one that it uses ------------------------------------------------------------


def own_map(place: Place) -> Path:
    return place.take(place.finished.dids, "map")


def map_of_a_later_schema(place: Place) -> Keys:
    edit(own_map(place) / "domains.json", lambda c: c | {"schema": 99})


def map_of_unknown_domain(place: Place) -> Keys:
    edit(own_map(place) / "domains.json", lambda c: c["domains"].pop() and None)


def map_of_one_name_twice(place: Place) -> Keys:
    edit(own_map(place) / "domains.json", lambda c: c["domains"].append(c["domains"][0]))


def map_without_keys(place: Place) -> Keys:
    path = own_map(place) / "domains.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["sample_key"]), path)
    edit(path.with_suffix(".json"))


def map_of_numbers_for_keys(place: Place) -> Keys:
    path = own_map(place) / "domains.parquet"
    table = pq.read_table(path)
    at = table.column_names.index("sample_key")
    pq.write_table(table.set_column(at, "sample_key", [list(range(len(table)))]), path)
    edit(path.with_suffix(".json"))


def map_of_fewer_samples(place: Place) -> Keys:
    path = own_map(place) / "domains.parquet"
    pq.write_table(pq.read_table(path).slice(0, 200), path)
    edit(path.with_suffix(".json"))


def map_that_was_changed(place: Place) -> Keys:
    path = own_map(place) / "domains.parquet"
    pq.write_table(pq.read_table(path).slice(0, 200), path)


def map_of_other_data(place: Place) -> Keys:
    made = load_map(own_map(place))
    save_map(
        DomainMap(made.names, [f"{i:032x}" for i in range(270)], made.sources_N, made.domains_N, {}, {}),
        place.folder / "map",
    )


def map_with_a_domain_of_one(place: Place) -> Keys:
    made = load_map(own_map(place))
    domains_N = made.domains_N.copy()
    domains_N[domains_N == 0] = 1
    domains_N[0] = 0
    save_map(DomainMap(made.names, made.keys_N, made.sources_N, domains_N, {}, {}), place.folder / "map")


def turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def map_of_10000_domains(place: Place) -> Keys:
    rows = [{"instruction": f"Say {i}.", "input": "", "output": str(i)} for i in range(10_000)]
    write_dataset(place.data, "many", rows)
    names = tuple(f"many/{i}" for i in range(len(rows)))
    keys = [
        example_key({"_prompt": [turn("user", row["instruction"])], "_response": [turn("assistant", row["output"])]})
        for row in rows
    ]
    save_map(DomainMap(names, keys, ["many"] * len(rows), np.arange(len(rows)), {}, {}), place.folder / "map")
    return {"dataset": "many"}


# --- the cache ----------------------------------------------------------------------------------------------------


def cache(place: Place) -> Path:
    return place.take(place.finished.folder.parent / "cache", "cache")


def features(place: Place) -> Path:
    """The gradient stores of a cache whose map is lost."""
    folder = cache(place)
    shutil.rmtree(folder / "domains")
    return folder / "gradients"


def cache_of_other_shapes(place: Place) -> Keys:
    for store in features(place).iterdir():
        np.save(store / "part-00000.npy", np.zeros((270, 32), dtype=np.float16))


def cache_of_other_stages(place: Place) -> Keys:
    for store in features(place).iterdir():
        edit(store / "manifest.json", lambda c: c["inputs"].update(stage="pt"))


def cache_of_another_map(place: Place) -> Keys:
    for path in cache(place).glob("domains/*/domains.json"):
        edit(path, lambda c: c["inputs"].update(dids_num_domains=5))


def cache_that_is_a_file(place: Place) -> Keys:
    (place.folder / "cache").write_text("")


# --- checkpoints, logs, saved tokens --------------------------------------------------------------------------------


def checkpoint(place: Place) -> Path:
    """Of a run of four steps."""
    small = {"dataset": "sums", "dids_tasks": "task_sums", "dids_domains": "source", "dids_num_domains": None}
    train(arguments(place.world, place.folder, **small, max_steps=4, save_strategy="steps", save_steps=4))
    return place.folder / "out" / "checkpoint-4"


def checkpoint_of_broken_probabilities(place: Place) -> Keys:
    path = checkpoint(place) / "dids_state.safetensors"
    tensors = load_file(path)
    tensors["mixer_probabilities_D"].fill_(float("nan"))
    save_file(tensors, path)
    edit(path.with_suffix(".json"), lambda c: c["files"].update({path.name: path.stat().st_size}))


def log_of(place: Place, *lines: str) -> Keys:
    (place.folder / "mixture.jsonl").write_text("\n".join(lines))
    return {"dids_probs": "$folder/mixture.jsonl"}


def log_that_is_empty(place: Place) -> Keys:
    return log_of(place, "")


def log_of_garbage(place: Place) -> Keys:
    return log_of(place, "{", "{}")


def log_of_broken_numbers(place: Place) -> Keys:
    line = json.loads((place.finished.dids / "mixture.jsonl").read_text().splitlines()[0])
    del line["digest"]
    line["probabilities"] = dict.fromkeys(line["probabilities"], float("nan"))
    return log_of(place, json.dumps(line), "")


def tokens_of_others(place: Place) -> Keys:
    from datasets import Dataset

    Dataset.from_dict({"input_ids": [[1, 2]], "labels": [[1, 2]]}).save_to_disk(str(place.folder / "tokens" / "train"))
    (place.folder / "tokens" / "dataset_dict.json").write_text('{"splits": ["train"]}')


# --- the machine ----------------------------------------------------------------------------------------------------


def without_faiss(place: Place) -> Keys:
    place.monkeypatch.setitem(sys.modules, "faiss", None)


def no_network(place: Place) -> Keys:
    place.monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def a_full_disk(place: Place) -> Keys:
    from llamafactory_dids.artifacts import files

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    place.monkeypatch.setattr(files.os, "fsync", no_space)


def a_full_disk_while_training(place: Place) -> Keys:
    from llamafactory_dids.artifacts import mixture_log

    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    place.monkeypatch.setattr(mixture_log, "open", no_space, raising=False)


def an_output_that_is_a_file(place: Place) -> Keys:
    (place.folder / "out").write_text("")


# --- dataset_info.json ------------------------------------------------------------------------------------------------


def dataset_info_entry_that_is_a_list(place: Place) -> Keys:
    edit(place.data / "dataset_info.json", lambda c: c | {"sums": ["sums.json"]})


def dataset_info_of_numbers(place: Place) -> Keys:
    edit(place.data / "dataset_info.json", lambda c: c | {"sums": 3})


def cache_without_features_of_one_dataset(place: Place) -> Keys:
    for path in (store / "written-00000.npy" for store in features(place).iterdir()):
        written_N = np.load(path)
        if len(written_N) == 270:  # and not the tasks' store
            written_N[210:] = False
            np.save(path, written_N)


TAKEN = {
    "model": model,
    "map": own_map,
    "cache": cache,
    "features": features,
    "checkpoint": checkpoint,
    "data": lambda place: place.data,
}
