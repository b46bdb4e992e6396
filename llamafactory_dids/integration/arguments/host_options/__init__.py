"""Every option of LLaMA-Factory, in one table for each argument class: left alone, handled, or refused.

Refusals are checked before any data or model is loaded. `docs/ways.md` shows the tables. A test goes through the host's
classes, and fails on an option that no table has.
"""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from llamafactory.hparams import (
    DataArguments,
    FinetuningArguments,
    GeneratingArguments,
    ModelArguments,
    TrainingArguments,
)

from ....errors import DidsError
from ...settings import Settings
from .data import DATA
from .entries import Refused, Run, Table
from .finetuning import FINETUNING
from .generating import GENERATING
from .model import MODEL
from .training import TRAINING

logger = logging.getLogger(__name__)

TABLES: dict[type, Table] = {
    ModelArguments: MODEL,
    DataArguments: DATA,
    TrainingArguments: TRAINING,
    FinetuningArguments: FINETUNING,
    GeneratingArguments: GENERATING,
}


def names_of(table: Table) -> set[str]:
    """The names of the options in a table."""
    return {name for entry in table for name in entry.names.split()}


def unknown_options(tables: Mapping[type, Table]) -> list[str]:
    """Options of the installed LLaMA-Factory that no table has, in its order."""
    return [
        field.name
        for kind, table in tables.items()
        for field in dataclasses.fields(kind)
        if field.name not in names_of(table)
    ]


def refused(table: Table) -> list[Refused]:
    return [entry for entry in table if isinstance(entry, Refused)]


def check_host_options(
    settings: Settings, model_args: Any, data_args: Any, training_args: Any, finetuning_args: Any
) -> None:
    """Raise DidsError for a host option that no mixture works with. Warn of a given option that no table has."""
    if unknown := [name for name in unknown_options(TABLES) if name in settings.arguments]:
        logger.warning("%s: not known to this plugin, so no mixture was tried with it", ", ".join(unknown))
    run = Run(settings, model_args, data_args, training_args, finetuning_args)
    for arguments, table in (
        (finetuning_args, FINETUNING),  # the stage comes first: other refusals use it
        (training_args, TRAINING),
        (data_args, DATA),
        (model_args, MODEL),
    ):
        for entry in refused(table):
            if not hasattr(arguments, entry.name):  # another version may lack it
                continue
            value = getattr(arguments, entry.name)
            if entry.when(value, run):
                where = entry.where.format(strategy=settings.strategy, stage=finetuning_args.stage)
                shown = entry.shown(value, run)
                raise DidsError(f"{entry.name}: got {shown!r}, allowed with {where}: {entry.allowed}")
