"""One data set, as the host loads and aligns it, or an error in one line."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
from llamafactory.data.parser import get_dataset_list

from ...errors import DidsError
from ..errors import one_line


def read(
    host: Callable[..., Any],
    key: str,
    name: str,
    model_args: Any,
    data_args: Any,
    training_args: Any,
    stage: str,
    *,
    aligned: bool = True,
) -> Any:
    """The aligned examples of one data set. `host` loads a list of data sets; `key` is the YAML key that names this
    one.

    Raises DidsError if it cannot be loaded, is empty, or holds something other than texts.
    """
    try:
        dataset = host([name], model_args, data_args, training_args, stage, True)[name]
    except KeyError as error:  # raised by the host's converters
        raise _without(key, name, str(error.args[0]), data_args) from error
    except Exception as error:  # the host and `datasets` raise many kinds for a broken file
        raise DidsError(
            f"{key}: {name!r} cannot be read ({_why(error)}); allowed: a dataset with at least one example, "
            "in the format that dataset_info.json gives"
        ) from error
    if len(dataset) == 0:
        raise DidsError(f"{key}: {name!r} has no examples, allowed: at least one")
    if not aligned:
        return dataset
    for part in ("prompt",) if key == "eval_dataset" else ("prompt", "response"):  # evaluation may go without answers
        _check_texts(key, name, part, dataset.features.arrow_schema.field(f"_{part}").type, stage)
    return dataset


def _why(error: BaseException) -> str:
    """What is at the bottom of it: `datasets` says of most files that an error occurred, and has the error as cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error)


def _without(key: str, name: str, missing: str, data_args: Any) -> DidsError:
    (attributes,) = get_dataset_list([name], data_args.dataset_dir)
    what = "field" if missing in (attributes.role_tag, attributes.content_tag) else "column"
    return DidsError(
        f"{key}: {name!r} has no {what} {missing!r}; allowed: a dataset with the columns and tags that "
        "dataset_info.json gives it"
    )


def _check_texts(key: str, name: str, part: str, kind: pa.DataType, stage: str) -> None:
    """Raise DidsError if no example has a prompt (or a response, if the stage learns one), or they are not texts."""
    messages = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if pa.types.is_null(messages):
        if part == "prompt" or stage != "pt":
            raise DidsError(
                f"{key}: {name!r} has no example with a {part}; allowed: the formatting, columns and tags of "
                "dataset_info.json that fit its file"
            )
        return
    content = messages.field("content").type
    if not (pa.types.is_string(content) or pa.types.is_large_string(content)):
        raise DidsError(f"{key}: {name!r} has {part}s of type {content}; allowed: texts")
