"""A small world of data and models, and short ways to train in it, for the integration tests."""

import functools
import gc
import io
import json
import logging
import os
import random
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from llamafactory_dids.artifacts.mixture_log import MixtureLog
from llamafactory_dids.errors import DidsError
from scripts.quickstart.build_model import train_tokenizer
from tests.helpers import PATIENCE

SOURCES = {"sums": 120, "pairs": 90, "noise": 60}
TASKS = {"task_sums": 20, "task_pairs": 16}
BY_SOURCE = {"dids_domains": "source", "dids_num_domains": None, "dids_min_domain_size": None}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
PAIRS = {"cat": "kitten", "dog": "puppy", "cow": "calf", "hen": "chick", "pig": "piglet", "fox": "cub"}


@dataclass(frozen=True)
class World:
    """A folder of data sets and the folders of two models: the trained one, and a proxy with another tokenizer."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def proxy(self) -> Path:
        return self.folder / "proxy"


def make_world(folder: Path) -> World:
    world = World(folder)
    for seed, (name, size) in enumerate((SOURCES | TASKS).items()):
        write_dataset(world.data, name, examples(name, size, seed))
    build_model(world.model, world.data, vocab_size=400, layers=3)
    build_model(world.proxy, world.data, vocab_size=300, layers=2)
    return world


def examples(kind: str, count: int, seed: int) -> list[dict[str, str]]:
    """Alpaca examples, numbered from 1000 x seed; those of a task are like those of the source of its name."""
    rng = random.Random(seed)
    return [_example(kind, 1000 * seed + i, rng) for i in range(count)]


def _example(kind: str, number: int, rng: random.Random) -> dict[str, str]:
    if kind.endswith("sums"):
        a, b = rng.randrange(50), rng.randrange(50)
        return {"instruction": f"Case {number}: add {a} and {b}.", "input": "", "output": str(a + b)}
    if kind.endswith("pairs"):
        word = rng.choice(sorted(PAIRS))
        return {"instruction": f"Case {number}: the young one?", "input": word, "output": f"{PAIRS[word]} of a {word}"}
    words = ["".join(rng.choices("abcdefgh", k=4)) for _ in range(rng.randrange(3, 9))]
    return {"instruction": f"Case {number}: answer {words[0]}.", "input": "", "output": " ".join(words[1:])}


def write_dataset(folder: Path, name: str, rows: list[dict[str, str]]) -> None:
    """Write the rows and enter them into `dataset_info.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(rows))
    info = folder / "dataset_info.json"
    known = json.loads(info.read_text()) if info.exists() else {}
    info.write_text(json.dumps(known | {name: {"file_name": f"{name}.json"}}))


def build_model(folder: Path, data: Path, *, vocab_size: int, layers: int) -> None:
    """A tokenizer trained on the data and a tiny Llama with random weights."""
    texts = (path.read_text() for path in sorted(data.glob("*.json")))
    fast = train_tokenizer(texts, vocab_size, VERY_LARGE_INTEGER)
    fast.save_pretrained(folder)
    torch.manual_seed(vocab_size)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def arguments(world: World, folder: Path, **changes: Any) -> dict[str, Any]:
    """A run of 24 steps with 6 updates over 6 domains below `folder`; None takes a key away."""
    values = {
        "model_name_or_path": str(world.model),
        "cache_dir": str(world.folder / "hub"),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset_dir": str(world.data),
        "dataset": ",".join(SOURCES),
        "template": "default",
        "cutoff_len": 64,
        "mix_strategy": "dids",
        "dids_tasks": ",".join(TASKS),
        "dids_task_samples": 12,
        "dids_num_domains": 6,
        "dids_min_domain_size": 5,
        "dids_projection_dim": 64,
        "dids_update_samples": 32,
        "dids_cache_dir": str(folder / "cache"),
        "output_dir": str(folder / "out"),
        "overwrite_output_dir": True,
        "use_cpu": True,
        "per_device_train_batch_size": 8,
        "max_steps": 24,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 4,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 3,
    }
    return {key: value for key, value in (values | changes).items() if value is not None}


@dataclass(frozen=True)
class Run:
    """A training that has ended (or broken off): its folder and, where it came so far, its trainer."""

    folder: Path
    trainer: Any

    @property
    def dids(self) -> Path:
        return self.folder / "dids"

    @property
    def lines(self) -> list[dict[str, Any]]:
        return read_lines(self.dids / "mixture.jsonl")

    @property
    def probabilities(self) -> list[dict[str, float]]:
        return [line["probabilities"] for line in self.lines]

    def weights(self) -> dict[str, torch.Tensor]:
        """The trained model's, copied."""
        return {name: tensor.clone() for name, tensor in self.trainer.model.state_dict().items()}


def same_domains(ran: Run) -> dict[str, Any]:
    """Changes to arguments that take the domains from a run's map."""
    return {"dids_domains": str(ran.dids), "dids_num_domains": None, "dids_min_domain_size": None}


def drawn_rows(ran: Run) -> list[int]:
    """The rows that a finished run was to be trained on, in order."""
    ran.trainer.mixture.sampler.set_epoch(0)
    return list(ran.trainer.mixture.sampler)


def without_mixture(values: dict[str, Any]) -> dict[str, Any]:
    """The same arguments, with the host's own mixing."""
    return {key: value for key, value in values.items() if not key.startswith("dids_")} | {"mix_strategy": "concat"}


def timeless(ran: Any) -> list[dict[str, Any]]:
    """The log of a run, but for the clock."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in ran.lines]


def assert_same_weights(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def read_lines(path: Path) -> list[dict[str, Any]]:
    return MixtureLog(path).read()


def tuner() -> Any:
    """The host's tuner, with the plugin on."""
    import llamafactory_dids_activate

    llamafactory_dids_activate.activate()
    from llamafactory.train import tuner

    return tuner


def train(values: dict[str, Any], callbacks: Any = (), *, pictures: bool = False) -> Run:
    """Train in this process, through the host's entry, which notes a run's precision in the environment of the next.

    Drawing `pictures` takes a good part of so small a run: without them each is a dot.
    """
    host = tuner()
    with captured_trainers() as seen, mock.patch.dict(os.environ), nullcontext() if pictures else _dots():
        host.run_exp(dict(values), list(callbacks))
    if gc.isenabled():  # `outlived_by_trainer` looks at what is left uncollected
        _freeze()
    return Run(Path(values["output_dir"]), seen[-1])


def _dots() -> Any:
    from llamafactory_dids.report import html, pictures

    dot = io.BytesIO()
    Image.new("1", (1, 1)).save(dot, "PNG")
    picture = pictures.Picture(dot.getvalue(), b"<svg/>")
    return mock.patch.object(html, "render", lambda run: dict.fromkeys(pictures.FIGURES, picture))


@functools.cache
def _freeze() -> None:
    """Once: what the modules hold by now is looked at no more when a run collects its garbage."""
    gc.collect()
    gc.freeze()


def outlived_by_trainer(values: dict[str, Any]) -> bool:
    """Whether a run's trainer is there after it until the garbage collector finds it."""
    gc.collect()
    gc.disable()
    try:
        return weakref.ref(train(values).trainer)() is not None
    finally:
        gc.enable()


def module_of(values: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The dataset module that the host's workflow would get, and its tokenizer."""
    host = tuner()
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer
    from llamafactory.train.sft import workflow

    model_args, data_args, training_args, finetuning_args, _ = host.get_train_args(values)
    tokenizer_module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(tokenizer_module["tokenizer"], data_args)
    module = workflow.get_dataset(
        template, model_args, data_args, training_args, stage=finetuning_args.stage, **tokenizer_module
    )
    return module, tokenizer_module["tokenizer"]


def refusal(values: dict[str, Any]) -> str:
    """The one line that a run is refused with."""
    with pytest.raises(DidsError) as caught:
        train(values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextmanager
def captured_trainers() -> Iterator[list[Any]]:
    """The trainers that train within, as the mixin sees them."""
    from llamafactory_dids.training.trainer import MixingTrainerMixin

    original, seen = MixingTrainerMixin.train, []

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(self)
        return original(self, *args, **kwargs)

    with mock.patch.object(MixingTrainerMixin, "train", spy):
        yield seen


@contextmanager
def our_log() -> Iterator[list[str]]:
    """What the plugin logs within, message by message."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler, logger = Keep(), logging.getLogger("llamafactory_dids")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def write_yaml(path: Path, values: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return path


def environment(**changes: str) -> dict[str, str]:
    """Of a subprocess: this environment's commands first, one thread, nothing said about the plugin."""
    base = {key: value for key, value in os.environ.items() if not key.startswith("LLAMAFACTORY_DIDS")}
    path = os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", "")])
    return {**base, "PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **changes}


def start(command: list[str], folder: Path | None = None, **changes: str) -> "subprocess.Popen[str]":
    """Start a command in `folder`, with changes to its environment; `finish` collects it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment(**changes), cwd=folder, text=True, **pipes)


def finish(process: "subprocess.Popen[str]", timeout: int = 150) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; a process that takes too long is killed and fails the test."""
    try:
        stdout, stderr = process.communicate(timeout=timeout * PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, stdout, stderr


def finish_well(process: "subprocess.Popen[str]", timeout: int = 240) -> str:
    """The stdout of a command that must succeed."""
    code, stdout, stderr = finish(process, timeout)
    assert code == 0, stderr[-3000:]
    return stdout


@contextmanager
def watched_windows() -> Iterator[list[dict[str, Any]]]:
    """What the in-run impact within came to, window by window: directions (T, P), means and covariances."""
    from llamafactory_dids.training.in_run import InRunImpact

    original, seen = InRunImpact.close_window, []

    def spy(self: Any) -> Any:
        found = original(self)
        seen.append({"directions_TP": self.directions_TP.clone(), **found._asdict()})
        return found

    with mock.patch.object(InRunImpact, "close_window", spy):
        yield seen
