"""What is measured of a side, without its music: in memory a table, on disk a file to pass on."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.features import FEATURES
from rnngan import __version__
from rnngan.errors import Reject, UserError
from rnngan.files import write_atomically

SUFFIX = ".npz"
FORMAT = 1
MAX_BINS = 100_000

Floats = NDArray[np.float64]
Rows = NDArray[Any]
"""Structured array `(pieces,)` with a field for each feature, see `row_dtype`."""


def row_dtype(bins: Mapping[str, int]) -> np.dtype[Any]:
    """Layout of a row: float64 for numbers; float32 for histograms, which take the most room.

    Args:
        bins: Of each feature by name; 0 for a number.
    """
    return np.dtype([(name, "<f4", (n,)) if n else (name, "<f8") for name, n in bins.items()])


def bins_of(names: Iterable[str]) -> dict[str, int]:
    """Number of bins of each feature; 0 for a number."""
    return {name: len(FEATURES[name].bins) for name in names}


class FeatureTable(Mapping[str, Floats]):
    """Each feature over the pieces of a side: `(pieces,)` or, for histograms, `(pieces, bins)`.

    A column is widened to float64 when it is asked for, so that 100,000 pieces stay small.

    Args:
        rows: A row for each piece.
        stale: Columns of another version of a metric, each with the key of that version.
        others: Columns that are no registered features, `(pieces,)` each.
    """

    def __init__(
        self,
        rows: Rows,
        stale: Mapping[str, str] | None = None,
        others: Mapping[str, Floats] | None = None,
    ) -> None:
        self.rows = rows
        self.stale = dict(stale or {})
        self.others = dict(others or {})

    def __getitem__(self, name: str) -> Floats:
        if name in self.others:
            return self.others[name]
        return np.ascontiguousarray(self.rows[self._known(name)], dtype=np.float64)

    def __iter__(self) -> Iterator[str]:
        known = (name for name in self.rows.dtype.names or () if name not in self.stale)
        return chain(known, self.others)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def of(self, numbers: NDArray[np.int64]) -> FeatureTable:
        """The same of some pieces, by their numbers in ascending order."""
        if len(numbers) == len(self.rows):
            return self
        others = {name: values[numbers] for name, values in self.others.items()}
        return FeatureTable(self.rows[numbers], self.stale, others)

    def _known(self, name: str) -> str:
        if name in self.stale or name not in (self.rows.dtype.names or ()):
            raise KeyError(name)
        return name

    def check(self, names: Iterable[str], what: str) -> None:
        """See that all of some features are there.

        Raises:
            UserError: Some are not, or were measured by another version of their definition.
        """
        missing = [name for name in names if name not in self]
        if not missing:
            return
        why = [
            f"{name} (measured as {self.stale[name]}, now {FEATURES[name].key})"
            if name in self.stale
            else name
            for name in missing[:3]
        ]
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(
            f"{what} lacks {', '.join(why)}{more}; save the statistics anew, or choose other "
            "--metrics"
        )


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """A side without its music.

    Attributes:
        table: Features of each piece.
        titles: What each piece is called.
        piece_hashes: See `eval.pieces.piece_hash`.
        versions: Of the programs that measured; empty for these ones.
    """

    table: FeatureTable
    titles: tuple[str, ...]
    piece_hashes: tuple[str, ...]
    versions: Mapping[str, str] = field(default_factory=dict)


def save_statistics(
    path: Path,
    name: str,
    table: Mapping[str, Floats],
    *,
    titles: Sequence[str],
    piece_hashes: Sequence[str],
    rejects: Sequence[Reject] = (),
) -> None:
    """Write what is measured of a side to one file, without its music.

    It is an `.npz` file of two arrays of bytes: `about`, in JSON, and `rows`, the table piece by
    piece. The same side gives the same bytes.

    Args:
        path: Ends in `.npz`.
        name: Of the side.
        table: Registered features; other columns, as those on copying, are not saved.
        titles: See `Statistics`.
        piece_hashes: Likewise.
        rejects: Files that were refused.

    Raises:
        UserError: The file has another ending or cannot be written.
    """
    if path.suffix != SUFFIX:
        raise UserError(f"statistics go to a file that ends in {SUFFIX}, got {path}")
    bins = bins_of(feature for feature in table if feature in FEATURES)
    rows = _rows_of(table, row_dtype(bins), len(titles))
    about = {
        "format": FORMAT,
        "name": name,
        "features": [[feature, FEATURES[feature].key, n] for feature, n in bins.items()],
        "titles": list(titles),
        "piece_hashes": list(piece_hashes),
        "rejects": list(rejects),
        "versions": {"rnngan": __version__} | {p: version(p) for p in ("numpy", "symusic")},
    }
    file = io.BytesIO()
    np.savez_compressed(
        file,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        rows=rows.view(np.uint8) if bins else np.zeros(0, np.uint8),
    )
    write_atomically(path, file.getvalue())


def _rows_of(table: Mapping[str, Floats], dtype: np.dtype[Any], num_pieces: int) -> Rows:
    """A table as rows; as they are, where they are so already: there may be a gigabyte."""
    if isinstance(table, FeatureTable) and table.rows.dtype == dtype:
        return table.rows
    rows = np.zeros(num_pieces, dtype)
    for feature in dtype.names or ():
        rows[feature] = table[feature]
    return rows


def load_statistics(path: Path) -> tuple[str, Statistics, tuple[Reject, ...]]:
    """Name, statistics and refused files of a side that `save_statistics` wrote.

    Nothing in the file is believed before it is checked, and no pickle is read.

    Raises:
        UserError: The file is missing, damaged, of another format, or no such file.
    """
    from rnngan.data.arrays import load_arrays

    try:
        arrays = load_arrays(path, {"about": np.uint8, "rows": np.uint8})
        about = json.loads(arrays["about"].tobytes())
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}, this version reads {FORMAT}")
        keys = {name: key for name, key, _ in _features(about["features"])}
        bins = {name: n for name, _, n in _features(about["features"])}
        titles, hashes = _strings(about["titles"]), _strings(about["piece_hashes"])
        dtype = row_dtype(bins)
        size = dtype.itemsize * len(titles)
        if not len(titles) == len(hashes) > 0 or arrays["rows"].nbytes != size:
            raise ValueError("its parts do not fit together")
        rejects = tuple(Reject(*_strings(row, 3)) for row in about["rejects"])
        versions = dict(zip(_strings([*about["versions"]]), _strings(about["versions"].values())))
        name = _strings([about["name"]])[0]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} holds no sound statistics of a side ({error}); save them anew with: "
            "python -m eval --save-stats"
        ) from error
    stale = {
        name: key
        for name, key in keys.items()
        if name in FEATURES and (key, bins[name]) != (FEATURES[name].key, len(FEATURES[name].bins))
    }
    table = FeatureTable(
        arrays["rows"].view(dtype) if bins else np.zeros(len(titles), dtype), stale
    )
    statistics = Statistics(table=table, titles=titles, piece_hashes=hashes, versions=versions)
    return name, statistics, rejects


def _features(found: Any) -> list[tuple[str, str, int]]:
    """Names, keys and numbers of bins as they stand in a file.

    Raises:
        ValueError: They make no sense.
    """
    rows = [(name, key, n) for name, key, n in found]
    names = _strings(name for name, _, _ in rows)
    _strings(key for _, key, _ in rows)
    if len(set(names)) < len(rows) or not all(names):
        raise ValueError("features need names that differ")
    if not all(type(n) is int and 0 <= n <= MAX_BINS for _, _, n in rows):
        raise ValueError("a feature has an absurd number of bins")
    return rows


def _strings(found: Iterable[Any], count: int | None = None) -> tuple[str, ...]:
    """Text out of a file, made harmless for terminals.

    Raises:
        ValueError: Something else, or not `count` of them.
    """
    strings = tuple(found)
    if not all(isinstance(one, str) for one in strings) or count not in (None, len(strings)):
        raise ValueError("text is missing")
    return tuple(printable(one) for one in strings)


def printable(name: str) -> str:
    """A name without what no terminal or UTF-8 file should get."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)
