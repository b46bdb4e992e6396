"""Whole-file reads and writes: written beside, then renamed; read errors name the file."""

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
    """A path to write to, which becomes `path` at the end: a killed writer leaves only a `.part`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` with a file beside `path`, then rename it."""
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
    """Write JSON, all or nothing; NaN and infinities are not JSON and raise ValueError."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write one `.npy`, all or nothing, never pickled."""
    write_atomically(path, lambda stream: np.save(stream, array, allow_pickle=False))


def read_json(path: Path) -> Any:
    """Read JSON; raises DidsError with the file's name where it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DidsError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DidsError(f"{path}: not readable as JSON ({error}); delete its folder to make it anew") from None


def read_array(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    """Memory-map one `.npy` and check its shape and type; raises DidsError with the file's name."""
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
    """Two hex digits for each of `size` bytes: the blake2b hash of the parts, one after the other.

    It does not tell where a part ends, so a caller whose parts could be cut otherwise puts a mark or a length between.
    """
    hashed = hashlib.blake2b(digest_size=size)
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()


def fingerprint(inputs: dict[str, Any]) -> str:
    """16 hex digits that change with any value of `inputs` (JSON types only)."""
    return digest([json.dumps(inputs, sort_keys=True).encode()])


def check_same(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Refuse an artifact made from other inputs; the first difference is shown with both values."""
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            raise DidsError(
                f"{path}: made with {key} = {found.get(key)!r}, this run has {expected.get(key)!r}; "
                "allowed: a folder made from the same inputs (delete it, or choose another dids_cache_dir)"
            )
