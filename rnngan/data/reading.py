"""Files of any kind to pieces."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rnngan.errors import Reject, RejectedFile, UserError
from rnngan.music.beats import Beats
from rnngan.music.midi import MAX_BYTES, parse_midi
from rnngan.music.notation import ABC_SUFFIXES, MUSICXML_SUFFIXES, read_notation
from rnngan.music.piece import Piece

MIDI_SUFFIXES = frozenset({".mid", ".midi", ".kar", ".rmi"})
MUSIC_SUFFIXES = MIDI_SUFFIXES | ABC_SUFFIXES | MUSICXML_SUFFIXES


class Source(NamedTuple):
    """A piece, where it came from, and the SHA-256 of that file."""

    name: str
    sha256: str
    piece: Piece


class MusicFile(NamedTuple):
    """A file to read, and the name under which its pieces are known."""

    name: str
    path: str


class Reading(NamedTuple):
    """How files are read.

    Attributes:
        expand_repeats: Play repeated sections of notated music twice.
        beats: What to do with a MIDI file; see `parse_midi`.
    """

    expand_repeats: bool = False
    beats: Beats = "estimate"


def find_files(folder: Path, wanted: Callable[[str], bool]) -> list[str]:
    """Paths of the wanted files below a folder, in their order.

    Links and hidden folders are not entered: a store that is being made beside the music is one.

    Raises:
        UserError: There is no such folder.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"corpus folder {folder} {what}")
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [f"{place}/{name}" for name in names if wanted(name)]
    return sorted(found)


def suffix_of(name: str) -> str:
    """What follows the last dot, with it, in small letters."""
    return "." + name.rpartition(".")[2].lower()


def name_below(root: str, path: str) -> str:
    """Path below a folder, as text that every file can hold."""
    relative = path.removeprefix(root).lstrip(os.sep)
    return os.fsencode(relative).decode("utf-8", "backslashreplace").replace(os.sep, "/")


class Contents(NamedTuple):
    """What is in a file.

    Attributes:
        data: Its beginning, at most `MAX_BYTES` and one byte more; or why it cannot be read.
        sha256: Of all of it; empty where it cannot be read.
    """

    data: bytes | RejectedFile
    sha256: str


def contents_of(path: str) -> Contents:
    """What is in a file."""
    try:
        # Without waiting: to open a pipe would be to wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return Contents(RejectedFile("not_a_file", "only plain files are read"), "")
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MAX_BYTES + 1)
            digest = hashlib.sha256(data)
            while more := file.read(1 << 20):
                digest.update(more)
            return Contents(data, digest.hexdigest())
    except OSError as error:
        return Contents(RejectedFile("unreadable", str(error.strerror)), "")


def read_file(file: MusicFile, contents: Contents, reading: Reading) -> Iterator[Source]:
    """The pieces in a file; where there are several, `#0`, `#1`, … follow its name.

    Raises:
        RejectedFile: The file is refused; its `reason` says why.
    """
    data, sha256 = contents
    if isinstance(data, RejectedFile):
        raise data
    if suffix_of(file.path) in MIDI_SUFFIXES:
        yield Source(file.name, sha256, parse_midi(data, beats=reading.beats))
        return
    pieces = read_notation(Path(file.path), expand_repeats=reading.expand_repeats)
    for i, piece in enumerate(pieces):
        name = f"{file.name}#{i}" if len(pieces) > 1 else file.name
        yield Source(name, sha256, piece)


def read_or_reject(file: MusicFile, contents: Contents, reading: Reading) -> list[Source] | Reject:
    """The pieces in a file, or why there are none: whatever a file does costs that file alone."""
    try:
        return list(read_file(file, contents, reading))
    except Exception as error:
        reject = reject_for(file.name, error)
        return reject._replace(message=reject.message.removeprefix(f"cannot read {file.path}: "))


def reject_for(name: str, error: Exception) -> Reject:
    """What an error says of the file or piece that raised it."""
    if isinstance(error, RejectedFile):
        return Reject(name, error.reason, str(error))
    if isinstance(error, MemoryError):
        return Reject(name, "out_of_memory", "it takes too much memory")
    return Reject(name, "failed", f"{type(error).__name__}: {error}")
