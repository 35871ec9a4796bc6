"""The prepared corpus: tokens on disk, memory-mapped, with a manifest.

A store is a folder of

- `tokens.npy`: rows of all pieces end to end, uint16 ids or, for `tuples`, float32 `(notes, 4)`;
- `offsets.npy`: where each piece begins, int64 `(pieces + 1,)`;
- `splits.npy`: 0, 1 or 2 for train, validation or test, uint8 `(pieces,)`;
- `pieces.jsonl`: of each piece one line with its name, its file's SHA-256, split, group, numbers of
  notes, bars and tokens, tags, and how its ticks came about;
- `manifest.json`: tokenizer, settings, counts, versions, and the SHA-256 of the other files;
- `rejects.csv`: what was refused, and why.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from rnngan.data.arrays import open_array
from rnngan.data.splits import SPLITS, Split
from rnngan.errors import Reject, UserError
from rnngan.files import sync_folder, write_atomically
from rnngan.music.piece import Piece
from rnngan.music.tokenizers.base import Codec, Tokenizer
from rnngan.music.tokenizers.registry import codec_from_json

FORMAT = 2
_HEADER_BYTES = 128


@dataclass(frozen=True, kw_only=True)
class Store:
    """A prepared corpus, opened.

    Attributes:
        folder: Where it lies.
        codec: What its rows mean.
        tokens: All pieces end to end, memory-mapped.
        offsets: Piece `i` is `tokens[offsets[i]:offsets[i + 1]]`.
        splits: Split of each piece, its place in `SPLITS`.
        manifest: Contents of `manifest.json`.
    """

    folder: Path
    codec: Codec
    tokens: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]
    splits: npt.NDArray[np.uint8]
    manifest: dict[str, Any]

    @staticmethod
    def open(folder: Path) -> Store:
        """Open a prepared corpus.

        Raises:
            UserError: There is none in this folder, or it is damaged.
        """
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            if manifest["format"] != FORMAT:
                raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
            codec = codec_from_json(manifest["tokenizer"])
            tokens = open_array(
                folder / "tokens.npy", dtype=codec.dtype, ndim=2 if codec.width else 1
            )
            offsets = np.array(open_array(folder / "offsets.npy", dtype=np.dtype("<i8"), ndim=1))
            splits = np.array(open_array(folder / "splits.npy", dtype=np.dtype("u1"), ndim=1))
            if not (
                len(offsets) == len(splits) + 1 == manifest["num_pieces"] + 1
                and (offsets[0], offsets[-1]) == (0, len(tokens))
                and np.all(np.diff(offsets) >= 0)
                and splits.max() < len(SPLITS)
                and tokens.shape[1:] == ((codec.width,) if codec.width else ())
                and (folder / "pieces.jsonl").stat().st_size == manifest["pieces_bytes"]
            ):
                raise ValueError("its files do not fit together")
        except FileNotFoundError as error:
            raise UserError(
                f"no prepared corpus in {folder} ({Path(error.filename).name} is missing); "
                "make one with: rnngan prepare"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise _damaged(folder, f"{type(error).__name__}: {error}") from None
        return Store(
            folder=folder,
            codec=codec,
            tokens=tokens,
            offsets=offsets,
            splits=splits,
            manifest=manifest,
        )

    def __len__(self) -> int:
        return len(self.splits)

    @property
    def tokenizer(self) -> Tokenizer:
        """The codec, where its rows are tokens.

        Raises:
            UserError: They are real numbers.
        """
        if self.codec.width:
            raise UserError(
                f"{self.folder} holds {self.codec.name}, real numbers, which a generator of "
                "tokens cannot learn; prepare with another --tokenizer"
            )
        return self.codec  # type: ignore[return-value]

    @property
    def tokens_per_note(self) -> int:
        """On average, rounded down; at least 1."""
        return max(1, int(len(self.tokens) / max(self.manifest["num_notes"], 1)))

    def indices(self, split: Split, *, limit: int | None = None) -> npt.NDArray[np.int64]:
        """Numbers of the pieces of a split, ascending; no more than `limit`, evenly spread."""
        found = np.flatnonzero(self.splits == SPLITS.index(split))
        if limit is not None and limit < len(found):
            found = found[np.arange(limit) * len(found) // limit]
        return found

    def piece_tokens(self, index: int) -> npt.NDArray[Any]:
        """Rows of one piece; of tokens Start and End included."""
        return np.asarray(self.tokens[self.offsets[index] : self.offsets[index + 1]])

    @cached_property
    def _lines(self) -> npt.NDArray[np.int64]:
        """Where each line of `pieces.jsonl` begins, and where the last one ends."""
        data = np.memmap(self.folder / "pieces.jsonl", dtype=np.uint8, mode="r")
        ends = [
            np.flatnonzero(data[start : start + (1 << 24)] == ord("\n")) + start + 1
            for start in range(0, len(data), 1 << 24)
        ]
        lines = np.concatenate([[0], *ends])
        if len(lines) != len(self) + 1:
            raise _damaged(self.folder, f"{len(lines) - 1} lines in pieces.jsonl")
        return lines

    def entry(self, index: int) -> dict[str, Any]:
        """What `pieces.jsonl` says of a piece.

        Raises:
            UserError: The file is damaged.
        """
        with (self.folder / "pieces.jsonl").open("rb") as file:
            file.seek(int(self._lines[index]))
            return self._parsed(file.readline())

    def entries(self) -> Iterator[dict[str, Any]]:
        """What `pieces.jsonl` says of each piece, in order.

        Raises:
            UserError: The file is damaged.
        """
        with (self.folder / "pieces.jsonl").open("rb") as file:
            yield from map(self._parsed, file)

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise _damaged(self.folder, "a line of pieces.jsonl makes no sense")
        return found

    def piece(self, index: int) -> Piece:
        """A piece as the tokens tell it, with all tags of its entry."""
        piece = self.codec.decode(self.piece_tokens(index))
        about = self.entry(index)
        return replace(piece, tags={**piece.tags, **about["tags"], "source": about["name"]})

    def pieces(self, split: Split, *, limit: int | None = None) -> list[Piece]:
        """Pieces of a split as the tokens tell them, with all tags of their entries."""
        return [self.piece(i) for i in self.indices(split, limit=limit).tolist()]


class StoreWriter:
    """Writes a store piece by piece into a folder of its own; `finish` moves it into place.

    Used as a context manager; what was not finished is removed, and a disk that does not take it
    is a UserError.

    Args:
        folder: Where the store will be: must not exist, or be empty.
        scratch: Folder to write into, on the same disk; it will become `folder`.
        codec: Of the rows.
    """

    def __init__(self, folder: Path, scratch: Path, codec: Codec) -> None:
        self.folder, self.scratch, self.codec = folder, scratch, codec
        self.offsets = [0]
        self.splits: list[int] = []
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        self._tokens: BinaryIO = (scratch / "tokens.npy").open("wb")
        self._pieces: BinaryIO = (scratch / "pieces.jsonl").open("wb")
        self._tokens.write(self._header())

    def _header(self) -> bytes:
        """Of `tokens.npy`, always of one length, since the array's is known at the end."""
        shape = (self.offsets[-1], *([self.codec.width] if self.codec.width else []))
        descr = self.codec.dtype.newbyteorder("<").str
        text = repr({"descr": descr, "fortran_order": False, "shape": shape})
        size = _HEADER_BYTES - len(np.lib.format.magic(1, 0)) - 2
        return (
            np.lib.format.magic(1, 0)
            + size.to_bytes(2, "little")
            + text.ljust(size - 1).encode()
            + b"\n"
        )

    def __enter__(self) -> StoreWriter:
        return self

    def add(self, rows: npt.NDArray[Any], lengths: Sequence[int]) -> None:
        """Append the rows of some pieces, which are so many for each."""
        self._tokens.write(np.ascontiguousarray(rows, self.codec.dtype.newbyteorder("<")).data)
        for length in lengths:
            self.offsets.append(self.offsets[-1] + length)

    def describe(self, entry: Mapping[str, Any], split: Split) -> None:
        """Append what is known of a piece."""
        self.splits.append(SPLITS.index(split))
        line = json.dumps({**entry, "split": split}, sort_keys=True)
        self._pieces.write(line.encode() + b"\n")

    def attach(self, name: str, data: bytes) -> None:
        """Put another file beside the others."""
        write_atomically(self.scratch / name, data)

    def finish(self, about: Mapping[str, Any], rejects: Iterable[Reject]) -> Store:
        """Write the manifest, make all of it last, and move it into place.

        Args:
            about: Further entries of the manifest.
            rejects: For `rejects.csv`.

        Raises:
            UserError: The folder is not empty, or the disk does not take it.
        """
        try:
            self._tokens.seek(0)
            self._tokens.write(self._header())
            for file in (self._tokens, self._pieces):
                file.flush()
                os.fsync(file.fileno())
                file.close()
            for name, array in (
                ("offsets.npy", np.array(self.offsets, "<i8")),
                ("splits.npy", np.array(self.splits, "u1")),
            ):
                write_atomically(self.scratch / name, _npy(array))
            write_atomically(self.scratch / "rejects.csv", rejects_csv(rejects))
            manifest = {
                "format": FORMAT,
                **about,
                "tokenizer": self.codec.to_json(),
                "num_pieces": len(self.splits),
                "num_tokens": self.offsets[-1],
                "splits": {split: self.splits.count(i) for i, split in enumerate(SPLITS)},
                "pieces_bytes": (self.scratch / "pieces.jsonl").stat().st_size,
                "sha256": {path.name: _sha256(path) for path in sorted(self.scratch.iterdir())},
            }
            text = json.dumps(manifest, indent=1, sort_keys=True)
            write_atomically(self.scratch / "manifest.json", text.encode())
            self.scratch.replace(self.folder)
            sync_folder(self.folder.parent)
        except OSError as error:
            raise UserError(f"cannot write {self.folder}: {error.strerror}") from None
        return Store.open(self.folder)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._tokens, self._pieces):
            with contextlib.suppress(OSError):  # what a full disk did not take it does not take now
                file.close()
        shutil.rmtree(self.scratch, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(f"cannot write {self.folder}: {error.strerror}") from error


def _damaged(folder: Path, how: str) -> UserError:
    return UserError(
        f"the prepared corpus in {folder} is damaged ({how}); "
        "delete it and make it anew with: rnngan prepare"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def rejects_csv(rejects: Iterable[Reject]) -> bytes:
    """Contents of `rejects.csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Reject._fields)
    writer.writerows(rejects)
    return text.getvalue().encode(errors="backslashreplace")
