"""One side of a comparison: a folder, a zip file or a list of music, a prepared corpus, a run."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol, TypeVar

from rnngan.errors import Reject, RejectedFile, UserError
from rnngan.music.midi import MAX_BYTES, parse_midi, read_midi
from rnngan.music.piece import Piece

SUFFIXES = frozenset({".mid", ".midi", ".kar"})
MAX_ARCHIVE_BYTES = 1 << 30
"""Unpacked music that is read from one zip file."""
MAX_LIST_BYTES = 16 << 20

Item = TypeVar("Item")
Split = Literal["train", "validation", "test"]


class Track(Protocol):
    """Passes items on and shows how far it is, as `rich.progress.track` does."""

    def __call__(self, items: Sequence[Item], label: str) -> Iterable[Item]:
        """The items, one by one."""


def silently(items: Sequence[Item], label: str) -> Iterable[Item]:  # noqa: ARG001
    """`Track` that shows nothing."""
    return items


@dataclass(frozen=True, kw_only=True)
class Side:
    """One set of pieces that is compared with another.

    Attributes:
        name: For tables and pictures.
        pieces: Each with its file in the tag `source`, where it came from one.
        path: Where they came from; empty for pieces made in memory.
        rejects: Files that were refused.
    """

    name: str
    pieces: tuple[Piece, ...]
    path: str = ""
    rejects: tuple[Reject, ...] = ()

    @cached_property
    def piece_hashes(self) -> tuple[str, ...]:
        """SHA-256 of the notes, metres and tempos of each piece."""
        return tuple(
            hashlib.sha256(
                piece.notes.tobytes() + repr((piece.metres, piece.tempos)).encode()
            ).hexdigest()
            for piece in self.pieces
        )

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of what the pieces say, whatever their order, file names and packing."""
        return hashlib.sha256("".join(sorted(self.piece_hashes)).encode()).hexdigest()

    @property
    def num_distinct(self) -> int:
        """Pieces that differ in at least one note, metre or tempo."""
        return len(set(self.piece_hashes))

    def title(self, index: int) -> str:
        """How to call a piece: its file, or its number from 1."""
        return self.pieces[index].tags.get("source", f"{self.name}, piece {index + 1}")


def is_run(path: Path) -> bool:
    """Whether a folder is that of a training run."""
    return (path / "run.json").is_file() and (path / "config.toml").is_file()


def corpus_of(path: Path) -> Path | None:
    """Folder of the prepared corpus that a path stands for: itself, a run's, or none.

    Raises:
        UserError: A run that does not say where its corpus is.
    """
    if (path / "manifest.json").is_file() and (path / "tokens.npy").is_file():
        return path
    if not is_run(path):
        return None
    try:
        store = Path(json.loads((path / "run.json").read_text(encoding="utf-8"))["store"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path / 'run.json'} does not say where the run's corpus is") from error
    return path / store if not store.exists() and (path / store).exists() else store


def load_side(
    path: Path,
    *,
    limit: int | None = None,
    split: Split = "test",
    track: Track = silently,
) -> Side:
    """The pieces that a path stands for.

    Args:
        path: A folder of MIDI files (searched with its subfolders), a zip file of them, a text
            file with one path a line (from the text file's own folder), a prepared corpus, or a
            run, which stands for its corpus.
        limit: At most so many files, evenly spread over their order by name.
        split: Part of a prepared corpus.
        track: Shows the progress.

    Raises:
        UserError: There is nothing there, no music in it, all of it was refused, or fewer than
            two pieces are left.
    """
    if limit is not None and limit < 2:
        raise UserError(f"limit must be at least 2 pieces, got {limit}")
    if not (path.is_dir() or path.is_file()):
        what = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise UserError(
            f"{path} {what}; give a folder or zip file of MIDI files, a list of files, "
            "a prepared corpus or a run"
        )
    name = printable(path.resolve().name or str(path))
    corpus = corpus_of(path)
    if corpus is not None:
        from rnngan.data.store import Store

        pieces = _spread(Store.open(corpus).pieces(split), limit)
        _check_enough(len(pieces), f"the {split} split of {corpus}")
        return Side(name=name, pieces=tuple(pieces), path=printable(str(path)))

    pieces, rejects = [], []
    with ExitStack() as opened:
        files = _files(path, opened)
        if not files:
            raise UserError(f"no music in {path}: no file ends in {', '.join(sorted(SUFFIXES))}")
        for file, read in track(_spread(files, limit), f"reading {name}"):
            try:
                pieces.append(read({"source": printable(file)}))
            except RejectedFile as error:
                rejects.append(Reject(printable(file), error.reason, printable(str(error))))
    if not pieces:
        reasons = Counter(reject.reason for reject in rejects).most_common()
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons)
        raise UserError(f"all {len(rejects)} files in {path} were refused: {counts}")
    _check_enough(len(pieces), str(path))
    return Side(name=name, pieces=tuple(pieces), path=printable(str(path)), rejects=tuple(rejects))


def printable(name: str) -> str:
    """A file name without what no terminal or UTF-8 file should get."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


Files = list[tuple[str, Callable[[dict[str, str]], Piece]]]
"""Name of each file, and what reads it, given the piece's tags."""


def _files(path: Path, opened: ExitStack) -> Files:
    """The music at a path; what has to stay open for reading goes on the stack."""
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        return [(p.relative_to(path).as_posix(), partial(_read, p)) for p in found]
    if path.suffix.lower() in SUFFIXES:
        return [(path.name, partial(_read, path))]
    if zipfile.is_zipfile(path):
        return _archive(path, opened)
    return _list(path)


def _read(path: Path, tags: dict[str, str]) -> Piece:
    """A file as it is: a metric must not depend on a guess at where its beats are."""
    return read_midi(path, tags, beats="file")


def _archive(path: Path, opened: ExitStack) -> Files:
    """Music in a zip file, in the order of the names.

    Raises:
        UserError: It is damaged, or unpacks to more than `MAX_ARCHIVE_BYTES`.
    """
    try:
        archive = opened.enter_context(zipfile.ZipFile(path))
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UserError(f"{path} is a damaged zip file: {error}") from error
    members = [
        member
        for member in sorted(archive.infolist(), key=lambda member: member.filename)
        if PurePosixPath(member.filename).suffix.lower() in SUFFIXES and not member.is_dir()
    ]
    size = sum(min(member.file_size, MAX_BYTES) for member in members)
    if size > MAX_ARCHIVE_BYTES:
        raise UserError(
            f"{path} unpacks to {size >> 20} MiB of music, more than {MAX_ARCHIVE_BYTES >> 20}; "
            "unpack it and give the folder"
        )
    return [(member.filename, partial(_read_member, archive, member)) for member in members]


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, tags: dict[str, str]) -> Piece:
    """A piece in a zip file, parsed in memory: nothing is unpacked to the disk."""
    inside = PurePosixPath(member.filename.replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts or ":" in inside.parts[0]:
        raise RejectedFile("unsafe_name", f"{member.filename} leads out of the zip file")
    try:
        with archive.open(member) as file:
            data = file.read(MAX_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise RejectedFile("damaged", f"{member.filename} cannot be unpacked: {error}") from error
    except (RuntimeError, NotImplementedError) as error:  # so zipfile reports a password
        raise RejectedFile("encrypted", f"{member.filename} cannot be unpacked: {error}") from error
    return parse_midi(data, tags, beats="file")


def _list(path: Path) -> Files:
    """Music named in a text file, one path a line.

    Raises:
        UserError: It is no text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LIST_BYTES)
        lines = data.decode("utf-8").splitlines()
        if any("\0" in line for line in lines):
            raise ValueError("it holds zero bytes")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is neither a folder, nor a zip file, nor a text file with one path a line"
        ) from error
    named = [line.strip() for line in lines if line.strip()]
    return [(line, partial(_read, path.parent / line)) for line in named]


def _spread(items: Sequence[Item], limit: int | None) -> Sequence[Item]:
    """At most `limit` items, evenly spread: the first names of a folder are often one style."""
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def _check_enough(count: int, what: str) -> None:
    if count < 2:
        raise UserError(
            f"{what} gives {count} {'piece' if count == 1 else 'pieces'}; a comparison needs at "
            "least 2, and 20 or more to tell anything"
        )
