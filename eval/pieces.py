"""One side of a comparison, wherever its music lies.

A side is a folder, a zip or tar archive, a file or a list of files, a prepared corpus, a run, or
the statistics of a side whose music is elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from eval.statistics import SUFFIX, Statistics, printable
from rnngan.errors import Reject, UserError
from rnngan.music.piece import Piece

if TYPE_CHECKING:
    from rnngan.data.reading import MusicFile
    from rnngan.data.workers import Lost, Mark

MAX_LIST_BYTES = 16 << 20
PIECES_PER_JOB = 256
"""Of a prepared corpus, which each job opens anew."""
SECONDS_PER_ITEM = 60
"""Processor time for a file; a large score takes music21 half of that."""

Item = TypeVar("Item")
Result = TypeVar("Result")
AnyJob = TypeVar("AnyJob", bound="Countable")
Split = Literal["train", "validation", "test"]


class Track(Protocol):
    """Passes items on and shows how far it is, as `rich.progress.track` does."""

    def __call__(self, items: Sequence[Item], label: str) -> Iterable[Item]:
        """The items, one by one."""


def silently(items: Sequence[Item], label: str) -> Iterable[Item]:  # noqa: ARG001
    """`Track` that shows nothing."""
    return items


def piece_hash(piece: Piece) -> str:
    """SHA-256 of the notes, metres and tempos: of all that features depend on."""
    told = piece.notes.tobytes() + repr((piece.metres, piece.tempos)).encode()
    return hashlib.sha256(told).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Side:
    """One set of pieces that is compared with another.

    Attributes:
        name: For tables and pictures.
        pieces: Those that are in memory: all, or some of a large side, or none of a side that is
            here as statistics alone. Each has its file in the tag `source`, if it came from one.
        path: Where they came from; empty for pieces made in memory.
        rejects: Files that were refused.
        statistics: What was measured of all pieces; None if nothing was yet.
        kept: Numbers of `pieces` among all, ascending; None if they are all.
    """

    name: str
    pieces: tuple[Piece, ...] = ()
    path: str = ""
    rejects: tuple[Reject, ...] = ()
    statistics: Statistics | None = None
    kept: tuple[int, ...] | None = None

    @cached_property
    def music(self) -> dict[int, Piece]:
        """The pieces in memory by their numbers among all, ascending."""
        return dict(zip(range(len(self.pieces)) if self.kept is None else self.kept, self.pieces))

    @property
    def num_pieces(self) -> int:
        """Pieces, in memory or not."""
        return len(self.statistics.titles) if self.statistics else len(self.pieces)

    @cached_property
    def piece_hashes(self) -> tuple[str, ...]:
        """`piece_hash` of each piece, in memory or not."""
        if self.statistics:
            return self.statistics.piece_hashes
        return tuple(map(piece_hash, self.pieces))

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
        if self.statistics:
            return self.statistics.titles[index]
        return self.pieces[index].tags.get("source", f"{self.name}, piece {index + 1}")

    def drawn(self, most: int, seed: int) -> NDArray[np.int64]:
        """Numbers of all pieces, or of `most` of them drawn at random, ascending.

        Pieces in memory come first. Otherwise what is drawn depends on the pieces and the seed
        alone, neither on their order nor on their files, and a larger draw holds a smaller one.
        """
        if self.num_pieces <= most:
            return np.arange(self.num_pieces)
        elsewhere = np.ones(self.num_pieces, np.bool_)
        elsewhere[list(self.music)] = False
        draw = Draw(seed)
        places = np.array([draw.place(piece) for piece in self.piece_hashes])
        return np.sort(np.lexsort((places, elsewhere))[:most])

    def thinned(self, most: int, seed: int) -> Side:
        """The same with the music of `most` pieces at most; see `drawn`.

        The side must have been measured, as it says nothing of the others otherwise.
        """
        if len(self.pieces) <= most:
            return self
        kept = self.drawn(most, seed).tolist()
        return replace(self, kept=tuple(kept), pieces=tuple(self.music[i] for i in kept))

    def need_pieces(self, what: str) -> tuple[Piece, ...]:
        """The pieces in memory.

        Args:
            what: What they are needed for.

        Raises:
            UserError: Only their statistics are here.
        """
        if not self.pieces:
            raise UserError(
                f"{what} is not available from statistics: {self.name} is here without its music; "
                "give the music itself"
            )
        return self.pieces


class Draw:
    """A random order of pieces, which are told apart by their hashes.

    Args:
        seed: Of the order.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._seen = Counter[str]()

    def place(self, digest: str) -> int:
        """The next piece's place in the order, a large number; each of equal pieces has its own."""
        told = f"{self._seed} {digest} {self._seen[digest]}"
        self._seen[digest] += 1
        return int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "big") >> 1


def is_run(path: Path) -> bool:
    """Whether a folder is that of a training run."""
    return (path / "run.json").is_file() and (path / "config.toml").is_file()


def corpus_of(path: Path) -> Path | None:
    """Folder of the prepared corpus that a path stands for: itself, a run's, or none.

    A run's own corpus is found in its folder, even when that was moved; another one where it was.

    Raises:
        UserError: A run that does not say where its corpus is.
    """
    if (path / "manifest.json").is_file() and (path / "tokens.npy").is_file():
        return path
    if not is_run(path):
        return None
    if (path / "store").exists():
        return path / "store"
    try:
        return Path(json.loads((path / "run.json").read_text(encoding="utf-8"))["store"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path / 'run.json'} does not say where the run's corpus is") from error


class Job(NamedTuple):
    """Pieces to read in one go: from files, or by their numbers out of a prepared corpus."""

    files: tuple[MusicFile, ...] = ()
    corpus: Path | None = None
    indices: tuple[int, ...] = ()

    @property
    def num_items(self) -> int:
        """Files, or pieces of the corpus."""
        return len(self.files) + len(self.indices)


class Found(NamedTuple):
    """What there is to read at a path.

    Attributes:
        name: For the side.
        jobs: The music.
        rejects: What was refused already.
    """

    name: str
    jobs: list[Job]
    rejects: tuple[Reject, ...] = ()


@contextmanager
def find(path: Path, *, split: Split = "test", limit: int | None = None) -> Iterator[Found]:
    """The music at a path, as `eval.cache.load_side` takes it; archives lie unpacked meanwhile.

    Raises:
        UserError: There is nothing there, or no music in it.
    """
    if not (path.is_dir() or path.is_file()):
        what = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise UserError(
            f"{path} {what}; give a folder, archive or list of music files, "
            "a prepared corpus, a run, or statistics"
        )
    name = printable(path.resolve().name or str(path))
    with ExitStack() as stack:
        corpus = corpus_of(path)
        if corpus is not None:
            yield _in_corpus(name, corpus, split, limit)
            return
        files, rejects = _files(path, stack)
        files = spread(files, limit)
        yield Found(name, _file_jobs(files), tuple(rejects))


def _in_corpus(name: str, corpus: Path, split: Split, limit: int | None) -> Found:
    from rnngan.data.store import Store

    indices = Store.open(corpus).indices(split, limit=limit).tolist()
    check_enough(len(indices), f"the {split} split of {corpus}")
    jobs = [
        Job(corpus=corpus, indices=tuple(indices[i : i + PIECES_PER_JOB]))
        for i in range(0, len(indices), PIECES_PER_JOB)
    ]
    return Found(name, jobs)


def _files(path: Path, stack: ExitStack) -> tuple[Sequence[MusicFile], Sequence[Reject]]:
    """Music files at a path, and what was refused; what archives hold is unpacked for a while."""
    from rnngan.config import DataConfig
    from rnngan.data.archives import is_archive
    from rnngan.data.finding import find_corpus, unpacked
    from rnngan.data.reading import MUSIC_SUFFIXES, MusicFile, suffix_of

    if path.is_file() and suffix_of(path.name) in MUSIC_SUFFIXES:
        return [MusicFile(path.name, str(path))], []
    if path.is_file() and not is_archive(path):
        return [MusicFile(line, str(path.parent / line)) for line in _lines(path)], []
    # Absolute, since the name of a corpus that we know stands for that corpus otherwise.
    found = find_corpus(DataConfig(corpus=str(path.absolute())))
    if found.archives:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="rnngan-"))
        found = unpacked(found, Path(scratch))
    return [file for shard in found.shards for file in found.music_files(shard)], found.rejects


def _lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty.

    Raises:
        UserError: It is no text, or no list of music.
    """
    from rnngan.data.reading import MUSIC_SUFFIXES, suffix_of

    try:
        with path.open("rb") as file:
            text = file.read(MAX_LIST_BYTES + 1).decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds zero bytes")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is neither a folder, nor an archive, nor a music file, nor a text file with "
            "one path a line"
        ) from error
    if len(text.encode()) > MAX_LIST_BYTES:
        raise UserError(f"{path} is longer than {MAX_LIST_BYTES >> 20} MiB; give the folder")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not any(suffix_of(line) in MUSIC_SUFFIXES for line in lines):
        raise UserError(f"no music in {path}: no line ends in {', '.join(sorted(MUSIC_SUFFIXES))}")
    return lines


def _file_jobs(files: Sequence[MusicFile]) -> list[Job]:
    from rnngan.data.finding import in_shards

    jobs, start = [], 0
    for shard in in_shards([file.path for file in files]):
        jobs.append(Job(files=tuple(files[start : start + len(shard)])))
        start += len(shard)
    return jobs


def outcomes_of(job: Job, lost: Lost, mark: Mark) -> Iterator[list[Piece] | Reject]:
    """The pieces of each file of a job, or why there are none; in a worker process."""
    from rnngan.data.reading import Reading, contents_of, read_or_reject, reject_for

    # Not a guess at where the beats are: a metric must not depend on that.
    reading = Reading(beats="file")
    for i, file in enumerate(job.files):
        if i in lost:
            yield Reject(printable(file.name), lost[i], "the reader crashed or took too long")
            continue
        mark(i)
        found = read_or_reject(file, contents_of(file.path), reading)
        if isinstance(found, Reject):
            yield Reject(printable(found.name), found.reason, printable(found.message))
        else:
            yield [
                one.piece.tagged({**one.piece.tags, "source": printable(one.name)}) for one in found
            ]
    if job.corpus is not None:
        from rnngan.data.store import Store

        store = Store.open(job.corpus)
        for i, index in enumerate(job.indices):
            title = f"{job.corpus.name}, piece {index}"
            if i in lost:
                yield Reject(title, lost[i], "the decoder crashed or took too long")
                continue
            mark(i)
            try:
                yield [store.piece(index)]
            except UserError as error:
                yield reject_for(title, error)


class Countable(Protocol):
    """A job of `in_workers`."""

    @property
    def num_items(self) -> int:
        """Steps of its progress."""


def in_workers(
    work: Callable[[AnyJob, Lost, Mark], Result],
    jobs: Sequence[AnyJob],
    *,
    workers: int | None,
    track: Track,
    label: str,
) -> Iterator[Result]:
    """Results of jobs in their order, from worker processes; of a single job from this one.

    Args:
        work: See `rnngan.data.workers.Team.results`.
        jobs: Likewise.
        workers: Processes; as many as there are processors by default.
        track: Shows the progress, item by item.
        label: What to call it there.
    """
    told = iter(track(range(sum(job.num_items for job in jobs)), label))
    with ExitStack() as stack:
        if len(jobs) <= 1:  # to start processes takes longer
            results = (work(job, {}, lambda item: None) for job in jobs)  # noqa: ARG005
        else:
            from rnngan.data.workers import Team

            team = stack.enter_context(Team(workers, most=len(jobs), seconds=SECONDS_PER_ITEM))
            results = team.results(work, jobs)  # type: ignore[assignment]
        for job, result in zip(jobs, results):
            for _ in range(job.num_items):
                next(told, None)
            yield result
    next(told, None)  # so that it sees its end


def is_statistics(path: Path) -> bool:
    """Whether a path is that of saved statistics."""
    return path.suffix == SUFFIX and path.is_file()


def spread(items: Sequence[Item], limit: int | None) -> Sequence[Item]:
    """At most `limit` items, evenly spread: the first names of a folder are often one style."""
    if limit is None or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def check_limit(limit: int | None) -> None:
    """Refuse a limit that leaves nothing to compare.

    Raises:
        UserError: It is below 2.
    """
    if limit is not None and limit < 2:
        raise UserError(f"limit must be at least 2 pieces, got {limit}")


def check_left(count: int, rejects: Sequence[Reject], path: Path) -> None:
    """Refuse a side of which too little could be read.

    Raises:
        UserError: Fewer than two pieces are left; it counts the reasons.
    """
    if not count and rejects:
        reasons = Counter(reject.reason for reject in rejects).most_common()
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons)
        first = ": ".join(filter(None, rejects[0][::2]))
        what = f"all {len(rejects)} files" if len(rejects) > 1 else "the only file"
        raise UserError(f"{what} in {path} were refused: {counts}; the first: {first}")
    refused = f" ({len(rejects)} files were refused)" if rejects else ""
    check_enough(count, f"{path}{refused}")


def check_enough(count: int, what: str) -> None:
    """Refuse fewer than two pieces.

    Raises:
        UserError: There are fewer.
    """
    if count < 2:
        raise UserError(
            f"{what} gives {count} {'piece' if count == 1 else 'pieces'}; a comparison needs at "
            "least 2, and 20 or more to tell anything"
        )
