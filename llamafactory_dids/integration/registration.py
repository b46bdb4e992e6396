"""Every rebinding of LLaMA-Factory, with a check of each seam. Either all of a group are applied, or none.

Our functions wrap the host's and call them; with a `mix_strategy` of the host's they only pass on. Functions of the
host that are called without a rebinding are checked too, so that a version that moved one is refused at once.
"""

import functools
import importlib
import inspect
import logging
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import DidsError
from . import errors
from .arguments import keys
from .data import loading, processor
from .host.objectives import STAGES
from .plan import planning, trainers
from .webui import page

HOST = "llamafactory"


class Seam(NamedTuple):
    """An attribute of a host module or its class, the parameters it must take, and the wrapper that replaces it.

    Without `wrap`, the attribute is only called.
    """

    module: str
    attribute: str
    parameters: tuple[str, ...] = ()
    wrap: Callable[[Any], Any] | None = None


SEAMS = (
    Seam("hparams.parser", "_TRAIN_ARGS", wrap=keys.with_our_keys),
    Seam("train.tuner", "get_train_args", ("args",), keys.checking),
    Seam(
        "data.loader",
        "_get_merged_dataset",
        ("dataset_names", "model_args", "data_args", "training_args", "stage", "return_dict"),
        loading.tagging,
    ),
    Seam("data.loader", "align_dataset", ("dataset", "dataset_attr", "data_args", "training_args"), loading.aligning),
    Seam(
        "data.loader",
        "_get_dataset_processor",
        ("data_args", "stage", "template", "tokenizer"),
        processor.keeping_tags,
    ),
    Seam(
        "data.loader",
        "_get_preprocessed_dataset",
        ("dataset", "data_args", "training_args", "stage", "template", "tokenizer", "processor", "is_eval"),
        loading.tokenising,
    ),
    *(
        Seam(
            f"train.{stage}.workflow",
            "get_dataset",
            ("template", "model_args", "data_args", "training_args", "stage"),
            planning.mixing,
        )
        for stage in STAGES
    ),
    *(
        Seam(module, trainer, ("finetuning_args", "processor"), trainers.mixing_trainer)
        for module, trainer in (
            ("train.pt.workflow", "CustomTrainer"),
            ("train.sft.workflow", "CustomSeq2SeqTrainer"),
            ("train.dpo.trainer", "CustomDPOTrainer"),  # the workflow imports it when it runs
            ("train.kto.workflow", "CustomKTOTrainer"),
            ("train.rm.workflow", "PairwiseTrainer"),
        )
    ),
    Seam("train.dpo.trainer", "CustomDPOTrainer.concatenated_forward", ("model", "batch")),
    Seam("train.dpo.trainer", "CustomDPOTrainer.compute_preference_loss"),
    Seam("train.dpo.trainer", "CustomDPOTrainer.compute_reference_log_probs", ("model", "batch")),
    Seam("train.kto.trainer", "CustomKTOTrainer.forward", ("model", "batch")),
    Seam("train.kto.trainer", "CustomKTOTrainer.concatenated_forward", ("model", "batch")),
    Seam("train.kto.trainer", "CustomKTOTrainer.compute_reference_log_probs", ("model", "batch")),
    Seam("train.kto.trainer", "CustomKTOTrainer.kto_loss"),
    Seam("train.rm.trainer", "PairwiseTrainer.compute_loss", ("model", "inputs", "return_outputs")),
    *(
        Seam(
            "train.tuner",
            f"run_{stage}",
            ("model_args", "data_args", "training_args", "finetuning_args", "callbacks"),
            trainers.reporting,
        )
        for stage in STAGES
    ),
    Seam("extras.misc", "has_tokenized_data", ("path",)),
    Seam("data.parser", "get_dataset_list", ("dataset_names", "dataset_dir")),
    Seam("data", "get_template_and_fix_tokenizer", ("tokenizer", "data_args")),
    Seam("model", "load_model", ("tokenizer", "model_args", "finetuning_args", "is_trainable", "add_valuehead")),
    Seam("model", "load_tokenizer", ("model_args",)),
    Seam("model", "load_config", ("model_args",)),
    Seam("hparams", "read_args", ("args",)),
    Seam("hparams.model_args", "QuantizationArguments"),
)

PAGE_SEAMS = (
    Seam("webui.interface", "create_train_tab", ("engine",), page.with_section),
    Seam("webui.engine", "LOCALES", wrap=page.with_our_texts),
    Seam("webui.runner", "Runner._initialize", ("self", "data", "do_train", "from_preview"), page.refusing),
    Seam("webui.runner", "Runner._parse_train_args", ("self", "data"), page.with_our_keys),
    Seam("webui.runner", "Runner._preview", ("self", "data", "do_train"), page.explaining),
    Seam("webui.runner", "Runner.run_train", ("self", "data")),
    Seam("webui.runner", "Runner.monitor", ("self",), page.one_line_failures),
    Seam("webui.runner", "get_trainer_info", ("lang", "output_path", "do_train"), page.with_domain_progress),
    Seam("webui.common", "_clean_cmd", ("args",), page.keeping_switches),
    Seam("webui.runner", "gen_cmd", ("args",), page.quoting),
    Seam("webui.common", "get_save_dir"),
    Seam("webui.control", "list_datasets", ("dataset_dir", "training_stage")),
    Seam("webui.manager", "Manager.get_base_elems", ("self",)),
    Seam("webui.manager", "Manager.get_elem_by_id", ("self", "elem_id")),
)

_applied: set[tuple[Seam, ...]] = set()


def missing_seams(seams: tuple[Seam, ...] = SEAMS + PAGE_SEAMS) -> list[str]:
    """The seams that this version of LLaMA-Factory lacks, as `module.attribute(parameter)`."""
    return [problem for seam in seams if (problem := _problem(seam))]


def register() -> None:
    """Apply the rebindings of training once. Raises DidsError, and applies none, if a seam is missing."""
    errors.install_hook()
    _apply(SEAMS)
    _route_messages()


def register_page() -> None:
    """Apply the rebindings of the web page once. Raises DidsError, and applies none, if a seam is missing."""
    errors.install_hook()
    _apply(PAGE_SEAMS)


def _apply(seams: tuple[Seam, ...]) -> None:
    if seams in _applied:
        return
    if missing := missing_seams(seams):
        raise DidsError(
            f"this version of LLaMA-Factory lacks {', '.join(missing)}; allowed: llamafactory 0.9.5, or its main "
            "branch (LLAMAFACTORY_DIDS=0 runs it without this plugin)"
        )
    for seam in seams:
        if seam.wrap is not None:
            owner, name = _place(seam)
            setattr(owner, name, seam.wrap(getattr(owner, name)))
    _applied.add(seams)


def _place(seam: Seam) -> tuple[Any, str]:
    """The module or class that has the attribute, and the attribute's own name."""
    *owners, name = seam.attribute.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(f"{HOST}.{seam.module}")), name


def _route_messages() -> None:
    """Send our messages where the host's go (terminal, file, LlamaBoard), at its verbosity, from the first rank."""
    logger = logging.getLogger("llamafactory_dids")
    logger.parent = logging.getLogger(HOST)
    if os.environ.get("RANK", "0") != "0":
        logger.setLevel(logging.ERROR)


def _problem(seam: Seam) -> str | None:
    name = f"{HOST}.{seam.module}.{seam.attribute}"
    try:
        found = importlib.import_module(f"{HOST}.{seam.module}")
        for part in seam.attribute.split("."):
            found = getattr(inspect.unwrap(found), part)  # our wrapper may already be in place
    except (ImportError, AttributeError):
        return name
    if not seam.parameters:
        return None
    lacking = [p for p in seam.parameters if p not in inspect.signature(found).parameters]
    return f"{name}({', '.join(lacking)})" if lacking else None
