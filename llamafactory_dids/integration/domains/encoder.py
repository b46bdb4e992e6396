"""The sentence encoder (`dids_semantic_model`): its identity, and its loading."""

import importlib.util
import os
from pathlib import Path
from typing import Any

from llamafactory.extras.misc import try_download_model_from_other_hub

from ...artifacts.files import digest
from ...errors import DidsError, refuse
from ..errors import one_line
from ..host.sharding import whole_models
from ..settings import Settings, with_changes
from .proxy import marks_of

CONTENT = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin")  # files of a model's folder, subfolders included
MARKS = ("modules.json", "config.json")  # files of a sentence-transformers model; of any other model


def check_encoder(settings: Settings, model_args: Any) -> None:
    """Raise DidsError unless the library is installed and the encoder exists."""
    if importlib.util.find_spec("sentence_transformers") is None:
        raise DidsError(
            "dids_cluster_features: got 'semantic', which needs sentence-transformers; allowed: gradient, or semantic "
            "after `pip install sentence-transformers`"
        )
    identity(settings, model_args)


def identity(settings: Settings, model_args: Any) -> dict[str, Any]:
    """The identity of an encoder: a hub name and commit, or a digest of a folder's files.

    Raises DidsError if the encoder does not exist.
    """
    name = _name(settings, model_args)
    folder = Path(name)
    if not folder.is_dir():
        return {"name": name, "commit": _commit(name, model_args)}
    if not any((folder / mark).is_file() for mark in MARKS):
        raise refuse("dids_semantic_model", name, f"a model's folder, which has {' or '.join(MARKS)}, or a hub name")
    files = sorted({path for pattern in CONTENT for path in folder.rglob(pattern)})
    content = digest(part for path in files for part in (str(path.relative_to(folder)).encode(), *marks_of(path)))
    return {"name": folder.resolve().name, "digest": content}


@whole_models()
def load(settings: Settings, model_args: Any, device: str) -> Any:
    """The encoder on `device`. Raises DidsError if it cannot be loaded."""
    from sentence_transformers import SentenceTransformer

    name = _name(settings, model_args)
    try:
        return SentenceTransformer(
            name,
            device=device,
            cache_folder=_cache(model_args),
            revision=None if Path(name).is_dir() else _commit(name, model_args),
            token=model_args.hf_hub_token,
            trust_remote_code=model_args.trust_remote_code,
        )
    except (OSError, ValueError, KeyError) as error:
        raise refuse("dids_semantic_model", name, f"a sentence-transformers model ({one_line(error)})") from None


def _name(settings: Settings, model_args: Any) -> str:
    """The folder or hub name. If the host takes models from another hub, the folder of the download."""
    wanted = with_changes(model_args, model_name_or_path=settings.config.dids_semantic_model, model_revision="main")
    return str(try_download_model_from_other_hub(wanted))


def _cache(model_args: Any) -> str | None:
    return model_args.cache_dir or os.environ.get("SENTENCE_TRANSFORMERS_HOME")  # the library's own default


def _commit(name: str, model_args: Any) -> str | None:
    from transformers.utils.hub import cached_file, extract_commit_hash

    where = {"cache_dir": _cache(model_args), "token": model_args.hf_hub_token}
    own, any_models = MARKS
    try:
        path = cached_file(name, own, _raise_exceptions_for_missing_entries=False, **where)
        return extract_commit_hash(path or cached_file(name, any_models, **where), None)
    except (OSError, ValueError) as error:
        raise refuse("dids_semantic_model", name, f"a model's folder or hub name ({one_line(error)})") from None
