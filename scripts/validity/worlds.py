"""What validity is measured on: domains and tasks of rows, first weights, and how the model is trained.

`of_keys` makes a world of the keys of a run as a YAML file has them, by the product's own planning: the rows, their
domains and the tasks' observed samples are those of a training with these keys. `mini` has the keys of the mini preset.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from llamafactory_dids.errors import refuse
from scripts.experiments import sizes
from scripts.experiments.runner import Preset

Row = Mapping[str, Any]
Rows = Sequence[Row]


@dataclass(frozen=True)
class Training:
    """AdamW with a linear warmup and decay over `max_steps`, batches of `batch_size` samples."""

    learning_rate: float = 2e-3
    max_steps: int = 200
    warmup_steps: int = 10
    batch_size: int = 32
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0


@dataclass(frozen=True)
class World:
    """D domains of training rows, T tasks of observed and of held-out rows, and the first weights of a run.

    A row has `input_ids` and `labels`. Estimates may see the observed rows, the truth is of the held-out ones.
    """

    rows_D: Mapping[str, Rows]
    observed_T: Mapping[str, Rows]
    held_out_T: Mapping[str, Rows]
    make_model: Callable[[], nn.Module]
    training: Training = Training()
    pad_id: int = 0

    @property
    def mixture_D(self) -> NDArray[np.float64]:
        """What the run draws by: half of it by size, half of it uniform, so that each domain is seen."""
        sizes_D = np.array([len(rows) for rows in self.rows_D.values()], dtype=np.float64)
        return 0.5 * sizes_D / sizes_D.sum() + 0.5 / len(sizes_D)


def mini(
    data: Path,
    folder: Path,
    seed: int,
    *,
    held_out: int = sizes.SCORED,
    size: str = "cpu",
    continued: bool = False,
    domains: Path | None = None,
    model: Path | None = None,
) -> World:
    """The mini preset's sources and tasks in a seed's order, with its model from scratch or, `continued`, its proxy.

    `held_out` says how many samples of each task's scored part the truth is of, at most the preset's. `domains` is the
    folder of a domain map (by default each source is a domain), `model` that of another model, which is trained as a
    continued one.
    """
    for key, given, file in (("--domains", domains, "domains.json"), ("--model", model, "config.json")):
        if given is not None and not (given / file).exists():
            raise refuse(key, str(given), f"a folder with {file}")
    preset = Preset(folder.resolve(), data.resolve(), size, continued or model is not None, fp32=True)
    sizes.prepare_data(preset.source, preset.data, preset.size)
    if model is None and continued:
        Preset(folder.resolve(), data.resolve(), size, fp32=True).prepare(())  # the proxy itself begins from scratch
    elif model is None:
        sizes.prepare_model(preset.data, preset.folder / "models" / str(seed), seed, preset.size)
    keys = preset.arguments("dids", seed)
    del keys["tokenized_path"]  # which has other domains' tags beside it
    keys["dids_domains"] = "source" if domains is None else str(domains.resolve())
    keys["eval_dataset"] = ",".join(f"{task}_test" for task in sizes.TASKS)
    keys["output_dir"] = str(preset.folder / "validity" / str(seed))
    return of_keys(keys | ({} if model is None else {"model_name_or_path": str(model.resolve())}), held_out)


def of_keys(keys: Mapping[str, Any], held_out: int) -> World:
    """The world of a run with these keys: a strategy that observes tasks TASK_val, with TASK_test as evaluation."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer
    from llamafactory.train import tuner
    from transformers import AutoModelForCausalLM

    from llamafactory_dids.integration.data.source import DataSource
    from llamafactory_dids.integration.plan.planning import make_plan
    from llamafactory_dids.integration.settings import settings_of

    model_args, data_args, training_args, finetuning_args, _ = tuner.get_train_args(dict(keys))
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    pipeline = (template, model_args, data_args, training_args, finetuning_args.stage)
    found = make_plan(DataSource(settings_of(data_args), get_dataset, *pipeline, **module))
    plan, rows_N = found["mixing"], _tokens(found["train_dataset"])
    observed_T = {name.removesuffix("_val"): _tokens(rows) for name, rows in plan.tasks.items()}
    return World(
        rows_D={
            name: [rows_N[i] for i in np.flatnonzero(plan.domains_N == domain)]
            for domain, name in enumerate(plan.domain_names)
        },
        observed_T=observed_T,
        held_out_T={task: _tokens(found["eval_dataset"][f"{task}_test"])[:held_out] for task in observed_T},
        make_model=lambda: AutoModelForCausalLM.from_pretrained(keys["model_name_or_path"]).float(),
        training=Training(
            learning_rate=training_args.learning_rate,
            max_steps=training_args.max_steps,
            warmup_steps=int(training_args.warmup_steps),
            batch_size=training_args.per_device_train_batch_size,
            weight_decay=training_args.weight_decay,
            max_grad_norm=training_args.max_grad_norm,
        ),
        pad_id=module["tokenizer"].pad_token_id,
    )


def _tokens(dataset: Any) -> list[Row]:
    columns = dataset.select_columns(["input_ids", "labels"])
    return [dict(row) for row in columns]
