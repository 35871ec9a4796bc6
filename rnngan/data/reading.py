"""Files of any kind to pieces, in worker processes that a bad file may kill."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from rnngan.errors import RejectedFile, UserError
from rnngan.music.midi import read_midi
from rnngan.music.notation import ABC_SUFFIXES, MUSICXML_SUFFIXES, read_notation
from rnngan.music.piece import Piece

MIDI_SUFFIXES = frozenset({".mid", ".midi", ".kar"})

SECONDS_PER_FILE = 30
"""A file that takes longer ends its worker; sound files take milliseconds."""
BYTES_PER_WORKER = 4 << 30
"""Memory that a worker may take for a file; one that asks for more is refused."""

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


Found = list[Source | Reject]


def music_files(folder: Path) -> list[Path]:
    """Files below a folder whose suffix says music, in the order of their names.

    Raises:
        UserError: There is no such folder, or no music in it.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"corpus folder {folder} {what}")
    known = MIDI_SUFFIXES | ABC_SUFFIXES | MUSICXML_SUFFIXES
    found = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in known and not path.is_dir()
    )
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

    A name is the path below the folder; where a file holds several pieces, `#0`, `#1`, … follow.

    Args:
        folder: Searched with its subfolders.
        expand_repeats: Play repeats of notated music.
        workers: Processes; as many as there are processors by default.
        progress: Told how many files are done.

    Raises:
        UserError: No such folder, no music in it, every file was refused, or no workers.
    """
    if workers is not None and workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    paths = music_files(folder)
    found: dict[Path, Found] = {}
    for path, results in _in_workers(paths, expand_repeats, workers or os.cpu_count() or 1):
        found[path] = results
        if progress:
            progress(len(found), len(paths))
    sources: list[Source] = []
    rejects: list[Reject] = []
    for path in paths:
        # A name that is no text, from another system, is spelt out: it must go into files.
        relative = path.relative_to(folder).as_posix()
        name = os.fsencode(relative).decode("utf-8", "backslashreplace")
        for result in found[path]:
            if isinstance(result, Reject):
                rejects.append(result._replace(name=name))
            else:
                sources.append(result._replace(name=name + result.name))
    if not sources:
        raise UserError(
            f"every one of the {len(rejects)} music files in {folder} was refused; "
            f"the first: {rejects[0].name}: {rejects[0].message}"
        )
    return sources, rejects


def _in_workers(
    paths: Sequence[Path], expand_repeats: bool, workers: int
) -> Iterator[tuple[Path, Found]]:
    """Each file and what is in it, in the order of getting done.

    A worker that dies takes the whole pool along. No more files are handed out than there are
    workers, so that few are under suspicion then; these are read again, each alone.
    """
    waiting = deque(paths)
    workers = min(workers, len(paths))
    while waiting:
        in_hand: dict[Future[Found], Path] = {}
        with _pool(workers) as pool:
            try:
                while waiting or in_hand:
                    while waiting and len(in_hand) < workers:
                        future = pool.submit(_read_file, waiting[0], expand_repeats)
                        in_hand[future] = waiting.popleft()
                    for future in wait(in_hand, return_when=FIRST_COMPLETED).done:
                        results = future.result()
                        yield in_hand.pop(future), results
            except BrokenProcessPool:
                pass
        for path in in_hand.values():
            yield path, _read_alone(path, expand_repeats)


def _read_alone(path: Path, expand_repeats: bool) -> Found:
    """One file in a process of its own, so that its crash is known to be its own."""
    with _pool(1) as pool:
        try:
            return pool.submit(_read_file, path, expand_repeats).result()
        except BrokenProcessPool:
            message = f"the reader crashed, or took over {SECONDS_PER_FILE} s or too much memory"
            return [Reject("", "crashed", message)]


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)


def _begin_worker() -> None:
    """Leave interrupts to the parent, and limit memory where the system can: on Linux."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    # What is mapped by now, mostly buffers of numpy's threads, grows with the processors.
    limit = pages * resource.getpagesize() + BYTES_PER_WORKER
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _read_file(path: Path, expand_repeats: bool) -> Found:
    """The pieces in a file, named by what is to follow its name, or why there are none."""
    # Without a handler the alarm kills the process, even inside a parser written in C.
    has_alarm = hasattr(signal, "setitimer")
    if has_alarm:
        signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_FILE)
    try:
        return list(_sources(path, expand_repeats))
    except RejectedFile as error:
        return [Reject("", error.reason, str(error).removeprefix(f"cannot read {path}: "))]
    except MemoryError:
        return [Reject("", "out_of_memory", "reading it took too much memory")]
    except Exception as error:  # whatever a file does to its reader costs that file alone
        return [Reject("", "failed", f"{type(error).__name__}: {error}")]
    finally:
        if has_alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _sources(path: Path, expand_repeats: bool) -> Iterator[Source]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RejectedFile("unreadable", str(error.strerror)) from None
    if path.suffix.lower() in MIDI_SUFFIXES:
        yield Source("", digest, read_midi(path))
        return
    pieces = read_notation(path, expand_repeats=expand_repeats)
    for i, piece in enumerate(pieces):
        yield Source(f"#{i}" if len(pieces) > 1 else "", digest, piece)
