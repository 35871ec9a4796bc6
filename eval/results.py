"""What comparisons found, kept on disk: the same question about the same music is answered at once.

A file holds one answer, under the SHA-256 of all that it depends on: the music, the numbers that
steer the comparison, and the programs themselves, so that no answer outlives the code that gave it.
A damaged file is passed over. The folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

import rnngan
from eval.pieces import Side
from rnngan.errors import UserError
from rnngan.files import write_atomically

MAX_FILES = 512
"""Beyond these the oldest go."""

Found = TypeVar("Found")


class Results:
    """Answers that were given before.

    Args:
        folder: Made when there is something to write. None to keep nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def of(
        self, kind: type[Found], question: Sequence[object], answer: Callable[[], Sequence[Found]]
    ) -> list[Found]:
        """The answer to a question, found now or before.

        Args:
            kind: Dataclass or named tuple, made of numbers, texts, tuples and float arrays.
            question: All that the answer depends on beside the programs, each with a `repr` that
                says it whole: numbers, texts, digests.
            answer: Finds it.
        """
        if self.folder is None:
            return list(answer())
        text = repr((_programs(), kind.__name__, *question))
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json.z"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, zlib.error):
            known = json.loads(zlib.decompress(path.read_bytes()))
            path.touch()
            return [_typed(kind, one) for one in known]
        found = list(answer())
        with contextlib.suppress(OSError, UserError):  # what cannot be kept is no error
            self.folder.mkdir(parents=True, exist_ok=True)
            data = zlib.compress(json.dumps(_plain(found)).encode(), 1)
            write_atomically(path, data, lasting=False)
            by_age = sorted(self.folder.glob("*.json.z"), key=lambda file: file.stat().st_mtime)
            for old in by_age[:-MAX_FILES]:
                old.unlink(missing_ok=True)
        return found


def digest_of(side: Side | None) -> str:
    """SHA-256 of a measured side: its music in order, its features, and what is in memory of it."""
    if side is None:
        return ""
    assert side.statistics
    table = side.statistics.table
    parts = side.piece_hashes, len(side.pieces), side.kept, table.rows.dtype.descr, table.stale
    text = repr(parts)
    digest = hashlib.sha256(text.encode())
    digest.update(np.ascontiguousarray(table.rows).tobytes())
    return digest.hexdigest()


@cache
def _programs() -> str:
    """SHA-256 of the sources that give the answers, with the versions of what they rest on."""
    digest = hashlib.sha256(rnngan.__version__.encode())
    for package in (Path(__file__).parent, Path(rnngan.__file__).parent / "music"):
        for path in sorted(package.rglob("*.py")):
            digest.update(path.read_bytes())
    for name in ("numpy", "scipy", "torch"):
        with contextlib.suppress(PackageNotFoundError):
            digest.update(f"{name} {version(name)}".encode())
    return digest.hexdigest()


_hints = cache(get_type_hints)


def _plain(value: Any) -> Any:
    """The same in what JSON knows; floats keep every bit."""
    if is_dataclass(value):
        return [_plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value


def _typed(kind: Any, value: Any) -> Any:
    """The inverse of `_plain`, for a value of this type."""
    if get_origin(kind) is np.ndarray:
        return np.array(value, dtype=float)
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        return tuple(_typed(one, part) for one, part in zip(kinds, value, strict=True))
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        hints = _hints(kind)
        names = [f.name for f in fields(kind)] if is_dataclass(kind) else kind._fields
        parts = zip(names, value, strict=True)
        return kind(**{name: _typed(hints[name], part) for name, part in parts})
    return value
