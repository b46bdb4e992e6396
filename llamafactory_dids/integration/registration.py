"""Every rebinding of LLaMA-Factory, with a check of each seam: all of them are applied, or none.

Ours stand in front and call the host's; with a `mix_strategy` of the host's they only pass on. What is
called without being rebound is checked too, so that a version of the host that moved it is told at once.
"""

import importlib
import inspect
import logging
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import DidsError
from . import arguments, data, errors, trainers
from .objectives import STAGES

HOST = "llamafactory"


class Seam(NamedTuple):
    """An attribute of a host module or of a class there, the parameters it must take, and what takes its place.

    Without `wrap` nothing does: it is only called.
    """

    module: str
    attribute: str
    parameters: tuple[str, ...] = ()
    wrap: Callable[[Any], Any] | None = None


SEAMS = (
    Seam("hparams.parser", "_TRAIN_ARGS", wrap=arguments.with_our_keys),
    Seam("train.tuner", "get_train_args", ("args",), arguments.checking),
    Seam(
        "data.loader",
        "_get_merged_dataset",
        ("dataset_names", "model_args", "data_args", "training_args", "stage", "return_dict"),
        data.tagging,
    ),
    Seam("data.loader", "_get_dataset_processor", ("data_args", "stage", "template", "tokenizer"), data.keeping_tags),
    *(
        Seam(
            f"train.{stage}.workflow",
            "get_dataset",
            ("template", "model_args", "data_args", "training_args", "stage"),
            data.mixing,
        )
        for stage in STAGES
    ),
    Seam("train.sft.workflow", "CustomSeq2SeqTrainer", ("finetuning_args", "processor"), trainers.mixing_trainer),
    Seam("train.pt.workflow", "CustomTrainer", ("finetuning_args", "processor"), trainers.mixing_trainer),
    Seam("train.dpo.trainer", "CustomDPOTrainer", ("finetuning_args", "processor"), trainers.mixing_trainer),
    Seam("train.kto.workflow", "CustomKTOTrainer", ("finetuning_args", "processor"), trainers.mixing_trainer),
    Seam("train.rm.workflow", "PairwiseTrainer", ("finetuning_args", "processor"), trainers.mixing_trainer),
    Seam("train.dpo.trainer", "CustomDPOTrainer.concatenated_forward", ("model", "batch")),
    Seam("train.dpo.trainer", "CustomDPOTrainer.compute_preference_loss"),
    Seam("train.dpo.trainer", "CustomDPOTrainer.compute_reference_log_probs", ("model", "batch")),
    Seam("train.kto.trainer", "CustomKTOTrainer.forward", ("model", "batch")),
    Seam("train.kto.trainer", "CustomKTOTrainer.concatenated_forward", ("model", "batch")),
    Seam("train.kto.trainer", "CustomKTOTrainer.compute_reference_log_probs", ("model", "batch")),
    Seam("train.kto.trainer", "CustomKTOTrainer.kto_loss"),
    Seam("train.rm.trainer", "PairwiseTrainer.compute_loss", ("model", "inputs", "return_outputs")),
    Seam(
        "data.loader",
        "_get_preprocessed_dataset",
        ("dataset", "data_args", "training_args", "stage", "template", "tokenizer", "processor", "is_eval"),
    ),
    *(
        Seam(
            "train.tuner",
            f"run_{stage}",
            ("model_args", "data_args", "training_args", "finetuning_args", "callbacks"),
        )
        for stage in STAGES
    ),
    Seam("data.parser", "get_dataset_list", ("dataset_names", "dataset_dir")),
    Seam("data", "get_template_and_fix_tokenizer", ("tokenizer", "data_args")),
    Seam("model", "load_model", ("tokenizer", "model_args", "finetuning_args", "is_trainable", "add_valuehead")),
    Seam("model", "load_tokenizer", ("model_args",)),
    Seam("model", "load_config", ("model_args",)),
    Seam("hparams", "read_args", ("args",)),
)

_applied = False


def missing_seams() -> list[str]:
    """What this version of LLaMA-Factory lacks, as `module.attribute(parameter)`."""
    return [problem for seam in SEAMS if (problem := _problem(seam))]


def register() -> None:
    """Apply all rebindings once. Raises DidsError, having applied none, if a seam is missing."""
    global _applied
    if _applied:
        return
    errors.install_hook()
    if missing := missing_seams():
        raise DidsError(
            f"this version of LLaMA-Factory lacks {', '.join(missing)}; allowed: llamafactory 0.9.5, or its main "
            "branch (LLAMAFACTORY_DIDS=0 runs it without this plugin)"
        )
    for seam in SEAMS:
        if seam.wrap is not None:
            module = importlib.import_module(f"{HOST}.{seam.module}")
            setattr(module, seam.attribute, seam.wrap(getattr(module, seam.attribute)))
    _route_messages()
    _applied = True


def _route_messages() -> None:
    """Ours go where the host's go, at its verbosity (terminal, file, LlamaBoard), and once, not once a rank."""
    logger = logging.getLogger("llamafactory_dids")
    logger.parent = logging.getLogger(HOST)
    if int(os.environ.get("RANK", "0")) > 0:
        logger.setLevel(logging.ERROR)


def _problem(seam: Seam) -> str | None:
    name = f"{HOST}.{seam.module}.{seam.attribute}"
    try:
        found = importlib.import_module(f"{HOST}.{seam.module}")
        for part in seam.attribute.split("."):
            found = getattr(inspect.unwrap(found), part)  # ours, once they are applied, stand in front of the host's
    except (ImportError, AttributeError):
        return name
    if not seam.parameters:
        return None
    lacking = [p for p in seam.parameters if p not in inspect.signature(found).parameters]
    return f"{name}({', '.join(lacking)})" if lacking else None
