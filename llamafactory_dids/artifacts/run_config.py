"""`config.yaml`: all arguments of a run, in a form that runs again."""

from pathlib import Path
from typing import Any

import yaml

from .files import write_text


def save_config(path: Path, arguments: dict[str, Any], notes: dict[str, Any]) -> None:
    """Write the arguments as YAML for `llamafactory-cli train`, with the notes as comments above."""
    header = ["# llamafactory-cli train config.yaml repeats this run.", *(f"# {k}: {v}" for k, v in notes.items())]
    body = yaml.safe_dump(arguments, allow_unicode=True, sort_keys=False, width=1000)
    write_text(path, "\n".join(header) + "\n" + body)
