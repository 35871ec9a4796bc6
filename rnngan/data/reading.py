"""Files of any kind to pieces, in worker processes that a bad file may kill."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from rnngan.errors import RejectedFile, UserError
from rnngan.music.piece import Piece

MIDI_SUFFIXES = frozenset({".mid", ".midi", ".kar"})
NOTATION_SUFFIXES = frozenset({".abc", ".xml", ".musicxml", ".mxl"})

SECONDS_PER_FILE = 30
"""A file that takes longer ends its worker; sound files take milliseconds."""
BYTES_PER_WORKER = 4 << 30
"""Address space of a worker; a file that asks for more is refused."""

Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


class Source(NamedTuple):
    """A piece, where it came from, and the SHA-256 of that file."""

    name: str
    sha256: str
    piece: Piece


class Reject(NamedTuple):
    """A file that was refused: its name, a reason code, and a sentence."""

    name: str
    reason: str
    message: str


def music_files(folder: Path) -> list[Path]:
    """Files below a folder whose suffix says music, in the order of their names.

    Raises:
        UserError: There is no such folder, or no music in it.
    """
    if not folder.is_dir():
        raise UserError(f"corpus folder {folder} does not exist")
    known = MIDI_SUFFIXES | NOTATION_SUFFIXES
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in known)
    if not found:
        raise UserError(f"no music in {folder}: looked for {', '.join(sorted(known))}")
    return found


def read_folder(
    folder: Path,
    *,
    expand_repeats: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[list[Source], list[Reject]]:
    """All pieces below a folder, in the order of their names, and the files refused.

    Args:
        folder: Searched with its subfolders.
        expand_repeats: Play repeats of notated music.
        workers: Processes; as many as there are processors by default.
        progress: Told how many files are done.

    Raises:
        UserError: No such folder, no music in it, or every file was refused.
    """
    paths = music_files(folder)
    shards = [paths[i : i + 32] for i in range(0, len(paths), 32)]
    results: list[Source | Reject] = []
    for shard, found in zip(shards, _in_workers(shards, expand_repeats, workers)):
        results += found
        if progress:
            progress(paths.index(shard[-1]) + 1, len(paths))
    named = [
        result._replace(name=str(Path(result.name).relative_to(folder).as_posix()))
        for result in results
    ]
    sources = [result for result in named if isinstance(result, Source)]
    rejects = [result for result in named if isinstance(result, Reject)]
    if not sources:
        raise UserError(
            f"every one of the {len(rejects)} music files in {folder} was refused; "
            f"the first: {rejects[0].name}: {rejects[0].message}"
        )
    return sources, rejects


def _in_workers(
    shards: Sequence[Sequence[Path]], expand_repeats: bool, workers: int | None
) -> list[list[Source | Reject]]:
    """Shards read side by side; those that a dying worker took along, again file by file."""
    results: list[list[Source | Reject] | None] = [None] * len(shards)
    context = multiprocessing.get_context("spawn")
    count = min(workers or os.cpu_count() or 1, len(shards))
    with ProcessPoolExecutor(count, mp_context=context, initializer=_limit_worker) as pool:
        futures = [pool.submit(_read_shard, shard, expand_repeats) for shard in shards]
        for i, future in enumerate(futures):
            try:
                results[i] = future.result()
            except BrokenProcessPool:
                continue
    return [
        found
        if found is not None
        else [r for path in shard for r in _read_alone(path, expand_repeats)]
        for shard, found in zip(shards, results)
    ]


def _read_alone(path: Path, expand_repeats: bool) -> list[Source | Reject]:
    """One file in a process of its own, so that its crash is known to be its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_limit_worker) as pool:
        try:
            return pool.submit(_read_shard, [path], expand_repeats).result()
        except BrokenProcessPool:
            message = f"the reader crashed, or took over {SECONDS_PER_FILE} s or too much memory"
            return [Reject(str(path), "crashed", message)]


def _limit_worker() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (BYTES_PER_WORKER, BYTES_PER_WORKER))


def _read_shard(paths: Sequence[Path], expand_repeats: bool) -> list[Source | Reject]:
    results: list[Source | Reject] = []
    for path in paths:
        # Without a handler the alarm kills the process, even inside a parser written in C.
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_FILE)
        try:
            results += _read_file(path, expand_repeats)
        except RejectedFile as error:
            results.append(Reject(str(path), error.reason, str(error)))
        except MemoryError:
            results.append(Reject(str(path), "out_of_memory", "reading it took too much memory"))
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
    return results


def _read_file(path: Path, expand_repeats: bool) -> list[Source]:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise RejectedFile("unreadable", f"cannot read {path.name}: {error.strerror}") from None
    if path.suffix.lower() in MIDI_SUFFIXES:
        from rnngan.music.midi import read_midi

        return [Source(str(path), digest, read_midi(path))]
    from rnngan.music.notation import read_notation

    pieces = read_notation(path, expand_repeats=expand_repeats)
    names = [str(path)] if len(pieces) == 1 else [f"{path}#{i}" for i in range(len(pieces))]
    return [Source(name, digest, piece) for name, piece in zip(names, pieces)]
