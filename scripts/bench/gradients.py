"""The gradient stage against a plain forward pass over the same batches, and its projection against others'.

    python scripts/bench/gradients.py                         # a 35M Llama, 8 x 256 tokens a batch
    python scripts/bench/gradients.py --model qwen --lengths ../shared/data     # on a GPU: the shape of Qwen2.5-0.5B
    python scripts/bench/gradients.py --projectors            # against TRAK's and dattri's, where they are installed

The stage is what `llamafactory-dids cluster` runs: `fill_store`, from tokenised samples to part files. The floor is
its forward and backward pass alone, with each sample's gradient made and thrown away.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llamafactory_dids.artifacts.gradient_store import open_store
from llamafactory_dids.core.projection import Projection
from llamafactory_dids.stages.batching import pad_collate, to_device
from llamafactory_dids.stages.filling import fill_store
from llamafactory_dids.stages.gradients import GradientFeatures, SampleProjector, Samples
from llamafactory_dids.stages.layers import track_layers
from llamafactory_dids.stages.losses import LanguageModelling
from llamafactory_dids.stages.per_sample import sample_gradients
from scripts.bench import timing

MODELS = {
    "llama": LlamaConfig(
        vocab_size=8000,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=10,
        num_attention_heads=8,
        tie_word_embeddings=True,
    ),
    "qwen": Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
}
CHARACTERS_PER_TOKEN = 4  # of a tokenizer with 150k entries, on English text
MAX_TOKENS = 2048
DIM = 1024


class Stage:
    """The gradient stage over samples of random tokens, and what it is measured against."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(0)
        config = MODELS[arguments.model]
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        if arguments.liger:
            _use_liger(arguments.model)
        self.model = AutoModelForCausalLM.from_config(config).to(self.device, dtype).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)  # as the proxy's are
        self.tracked = track_layers(self.model, 0.1)
        lengths, labelled = _lengths(arguments)
        rows = [_row(length, part, config.vocab_size) for length, part in zip(lengths, labelled, strict=True)]
        self.samples = Samples(rows, lengths, pad_collate(0))
        self.tokens = sum(lengths)
        self.batches: list[Any] = []
        self.features = GradientFeatures(
            self.samples, SampleProjector(self.model, self.tracked, LanguageModelling(), 0.1, DIM, 0)
        )

    def collect(self) -> None:
        """Note the batches that the stage makes, as the plain forward pass is to take them."""
        project = self.features.projector.project

        def noting(batch: Any) -> Any:
            self.batches.append({k: v for k, v in to_device(batch, self.device).items() if k != "labels"})
            return project(batch)

        self.features.projector.project = noting  # type: ignore[method-assign]
        self.run()
        self.features.projector.project = project  # type: ignore[method-assign]

    def run(self) -> None:
        """The whole stage, as users run it."""
        with tempfile.TemporaryDirectory() as folder:
            fill_store(open_store(Path(folder), {}, len(self.samples.rows), DIM), self.features)

    @torch.no_grad()
    def forward(self) -> None:
        """A plain forward pass over the same batches."""
        for batch in self.batches:
            self.model(**batch, use_cache=False)

    def floor(self) -> None:
        """The stage's forward and backward passes, without selection, projection and files."""
        for places in self.features.passes.batches(self.samples.lengths):
            batch = self.samples.collate([dict(self.samples.rows[i]) for i in places])
            _, _, pairs, _ = self.features.projector.engine.run(to_device(batch, self.device))
            for x, y in pairs:
                sample_gradients(x, y)


def _use_liger(model: str) -> None:
    """The kernels of liger-kernel, as `enable_liger_kernel` gives them to the proxy."""
    from liger_kernel import transformers

    apply = {"llama": transformers.apply_liger_kernel_to_llama, "qwen": transformers.apply_liger_kernel_to_qwen2}
    apply[model]()


def _row(length: int, labelled: int, vocab_size: int) -> dict[str, list[int]]:
    ids = torch.randint(1, vocab_size, (length,)).tolist()
    return {"input_ids": ids, "labels": [-100] * (length - labelled) + ids[length - labelled :]}


def _lengths(arguments: argparse.Namespace) -> tuple[list[int], list[int]]:
    """Tokens of each sample, and how many of them are labelled: 256, all of them, or as in the data."""
    if arguments.lengths is None:
        return [256] * arguments.samples, [256] * arguments.samples
    info = json.loads((arguments.lengths / "dataset_info.json").read_text(encoding="utf-8"))
    rows: list[tuple[int, int]] = []
    for entry in info.values():
        path = arguments.lengths / entry["file_name"]
        if path.suffix != ".parquet" or not path.exists():
            continue
        for row in pq.read_table(path, columns=["instruction", "input", "output"]).slice(0, 2000).to_pylist():
            prompt, answer = len(row["instruction"]) + len(row["input"] or ""), len(row["output"])
            total = min(MAX_TOKENS, (prompt + answer) // CHARACTERS_PER_TOKEN + 2)
            rows.append((total, max(1, min(total - 1, answer // CHARACTERS_PER_TOKEN + 1))))
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: arguments.samples].tolist()
    return [rows[i][0] for i in chosen], [rows[i][1] for i in chosen]


def stage(arguments: argparse.Namespace) -> dict[str, Any]:
    """The stage, its floor and a plain forward pass, in turns."""
    measured = Stage(arguments)
    if arguments.batch:
        measured.features.passes.max_samples = arguments.batch
    measured.collect()
    seconds = timing.in_turns(
        {"forward": measured.forward, "stage": measured.run, "floor": measured.floor}, arguments.rounds, arguments.clock
    )
    rows = timing.ratios(seconds, "forward")
    return {
        "against a plain forward pass": rows,
        "tokens a second": measured.tokens / rows["stage"]["seconds"],
        "share of the floor": rows["floor"]["seconds"] / rows["stage"]["seconds"],
        "samples": len(measured.samples.rows),
        "batches": len(measured.batches),
        "tokens": measured.tokens,
    }


def projectors(arguments: argparse.Namespace) -> dict[str, Any]:
    """8 gradients of 3.1M entries to 1,024 dims, by ours and by those of other packages that are installed."""
    gradients_NP = torch.randn(8, 3_100_000, device="cuda" if torch.cuda.is_available() else "cpu")
    ours = Projection(gradients_NP.shape[1], DIM, seed=0)
    candidates: dict[str, Callable[[], Any]] = {"ours": lambda: ours.project(gradients_NP)}
    candidates |= _index_add(gradients_NP) | _trak(gradients_NP) | _dattri(gradients_NP)
    return {"against ours": timing.ratios(timing.in_turns(candidates, arguments.rounds, arguments.clock), "ours")}


def _index_add(gradients_NP: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """The same kind of projection in one call, with buckets and signs that are there already."""
    device = gradients_NP.device
    buckets_P = torch.randint(DIM, (gradients_NP.shape[1],), device=device)
    signs_P = torch.randint(2, (gradients_NP.shape[1],), device=device).mul(2).sub(1).float()
    zeros_NK = torch.zeros(len(gradients_NP), DIM, device=device)
    return {"a plain index_add": lambda: zeros_NK.index_add(1, buckets_P, gradients_NP * signs_P)}


def _trak(gradients_NP: torch.Tensor) -> dict[str, Callable[[], Any]]:
    try:
        from trak.projectors import BasicProjector, ProjectionType
    except ImportError:
        print("trak is not installed (`pip install traker`), so it is left out", file=sys.stderr)
        return {}
    projector = BasicProjector(
        grad_dim=gradients_NP.shape[1],
        proj_dim=DIM,
        seed=0,
        proj_type=ProjectionType.rademacher,
        device=gradients_NP.device,
        block_size=1,
        dtype=torch.float32,
    )
    return {"trak": lambda: projector.project(gradients_NP, model_id=0)}


def _dattri(gradients_NP: torch.Tensor) -> dict[str, Callable[[], Any]]:
    if not torch.cuda.is_available():
        print("dattri has its sparse projection (sjlt) for CUDA only, so it is left out", file=sys.stderr)
        return {}
    try:
        from dattri.func.projection import random_project
    except ImportError:
        print("dattri is not installed (`pip install dattri sjlt`), so it is left out", file=sys.stderr)
        return {}
    project = random_project(
        gradients_NP, len(gradients_NP), proj_dim=DIM, proj_max_batch_size=8, device="cuda", proj_type="sjlt"
    )
    return {"dattri": lambda: project(gradients_NP)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the gradient stage.")
    timing.add_arguments(parser, rounds=5)
    parser.add_argument("--model", choices=sorted(MODELS), default="llama")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8, help="samples a batch; 0: as many as the stage chooses")
    parser.add_argument("--lengths", type=Path, help="a folder of data sets whose texts give the samples' lengths")
    parser.add_argument("--liger", action="store_true", help="with the kernels of liger-kernel, on a GPU")
    parser.add_argument("--projectors", action="store_true", help="compare projections instead of the stage")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = projectors(arguments) if arguments.projectors else stage(arguments)
    title = "projectors" if arguments.projectors else f"gradient stage, {arguments.model}"
    timing.report(title, {**result, "machine": timing.machine(arguments)}, arguments.json)


if __name__ == "__main__":
    main()
