"""Reading and writing of whole files. A file is written under another name, then renamed; read errors name the file."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import DidsError


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A temporary path to write to, renamed to `path` at the end. A writer that is killed leaves only a `.part`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` with a temporary file, then rename the file to `path`."""
    with beside(path) as part, open(part, "wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file, all or nothing."""
    write_atomically(path, lambda stream: stream.write(content))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, all or nothing."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON, all or nothing. Raises ValueError on NaN and infinities, which JSON does not have."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write one `.npy` without pickle, all or nothing."""
    write_atomically(path, lambda stream: np.save(stream, array, allow_pickle=False))


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises DidsError, with the file's name, if the file is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DidsError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DidsError(f"{path}: not readable as JSON ({error}); delete its folder to make it anew") from None


def read_array(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    """Memory-map one `.npy`. Raises DidsError, with the file's name, on a broken file or another shape or type."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DidsError(f"{path}: not a whole .npy file ({error}); delete it to make it anew") from None
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise DidsError(
            f"{path}: holds {array.dtype}{list(array.shape)}, expected {dtype}{list(shape)}; delete it to make it anew"
        )
    return array  # type: ignore[no-any-return]


def digest(parts: Iterable[bytes | memoryview], size: int = 8) -> str:
    """The blake2b hash of the concatenated parts, as two hex digits for each of `size` bytes.

    The hash does not depend on where the parts are cut. A caller that needs this puts a mark or a length between them.
    """
    hashed = hashlib.blake2b(digest_size=size)
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()


def fingerprint(inputs: dict[str, Any]) -> str:
    """16 hex digits that change with any value of `inputs` (JSON types only)."""
    return digest([json.dumps(inputs, sort_keys=True).encode()])


def check_same(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise DidsError for an artifact made from other inputs, with the first difference and both values."""
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            raise DidsError(
                f"{path}: made with {key} = {found.get(key)!r}, this run has {expected.get(key)!r}; "
                "allowed: a folder made from the same inputs (delete it, or choose another dids_cache_dir)"
            )
