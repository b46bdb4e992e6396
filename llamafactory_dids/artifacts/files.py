"""Reading and writing of whole files. A file is written under another name, then renamed; read errors name the file.

What is written carries a checksum, and is refused where it is no longer what was written. Files without one (of earlier
versions, or made by hand) are taken as they are.
"""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError

from ..errors import DidsError

DIGEST = "digest"  # the key of a checksum
CHECKSUM = 4  # bytes


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises DidsError, with the file's name, where it cannot be written; its folder is made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise DidsError(
            f"{path}: cannot be written ({why}); allowed: a folder that can be written to, with room"
        ) from error


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A temporary path to write to, renamed to `path` at the end. A writer that is killed leaves only a `.part`.

    Raises DidsError, with the file's name, where it cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with writing(path):
            yield part
            os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink()


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` with a temporary file, then rename the file to `path`."""
    with beside(path) as part, open(part, "wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file, all or nothing."""
    write_atomically(path, lambda stream: stream.write(content))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, all or nothing."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON, all or nothing. Raises ValueError on NaN and infinities, which JSON does not have."""
    write_text(path, json.dumps(sealed(value), ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def write_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write one `.npy` without pickle, all or nothing. Its checksum comes behind its end, where readers do not look."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    content.write(zlib.crc32(content.getbuffer()).to_bytes(CHECKSUM, "little"))
    write_bytes(path, content.getbuffer())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises DidsError, with the file's name, if it is missing, broken or changed."""
    try:
        return unsealed(path, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DidsError(f"{path}: no such file") from None
    except DidsError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DidsError(f"{path}: not readable as JSON ({error}); delete its folder to make it anew") from None


def read_array(path: Path, shape: tuple[int, ...], dtype: str, check: bool = True) -> np.ndarray[Any, Any]:
    """Memory-map one `.npy`. Raises DidsError, with the file's name, on a broken file or another shape or type.

    `check` reads all of it, for its checksum.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        if check:
            _check_sum(path, array.offset + array.nbytes)
    except Exception as error:  # numpy's parser of headers raises errors of many kinds
        raise DidsError(f"{path}: not a whole .npy file ({error}); delete it to make it anew") from None
    if array.shape != shape or array.dtype != np.dtype(dtype) or not array.flags.c_contiguous:
        raise DidsError(
            f"{path}: holds {array.dtype}{list(array.shape)}, expected {dtype}{list(shape)}; delete it to make it anew"
        )
    return array


def _check_sum(path: Path, length: int) -> None:
    with open(path, "rb") as stream:
        found, kept = zlib.crc32(stream.read(length)), stream.read(CHECKSUM + 1)
    if kept and kept != found.to_bytes(CHECKSUM, "little"):
        raise ValueError("its checksum is another")


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """An object of JSON with the digest of what a reader gets."""
    return {**value, DIGEST: fingerprint(json.loads(json.dumps(value)))}


def unsealed(path: Path, value: Any) -> dict[str, Any]:
    """What was given to `sealed`, as JSON has it. Raises DidsError, with the file's name, where that was changed."""
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} and no object")
    json.dumps(value, ensure_ascii=False).encode()  # not every string of JSON's is one of UTF-8
    kept = value.pop(DIGEST, None)
    if kept is not None and kept != fingerprint(value):
        raise DidsError(f"{path}: changed since it was written; allowed: as it was, or, if edited, without {DIGEST!r}")
    return value


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
