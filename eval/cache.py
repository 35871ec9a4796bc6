"""Features of many pieces, each measured once: in worker processes, and kept on disk.

The cache is a folder of 256 files that only grow. A record holds what was measured of one piece,
under the SHA-256 of its notes, metres and tempos, each value under the key of its metric. So one
edited file is one piece to measure again, and a new metric is that metric alone. Records carry a
checksum: what is damaged, or was cut short by a full disk, is passed over and measured again.
Several processes may read and write at once; at worst a piece is measured twice. The folder may be
deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from eval.features import FEATURES, features_of
from eval.pieces import (
    Draw,
    Job,
    Side,
    Split,
    Track,
    check_enough,
    check_left,
    check_limit,
    find,
    in_workers,
    is_statistics,
    outcomes_of,
    piece_hash,
    silently,
    spread,
)
from eval.statistics import (
    FeatureTable,
    Rows,
    Statistics,
    bins_of,
    load_statistics,
    printable,
    row_dtype,
)
from rnngan.errors import Reject, UserError
from rnngan.music.piece import Piece

if TYPE_CHECKING:
    from rnngan.data.workers import Lost, Mark

PIECES_PER_JOB = 128
"""Fewer are measured sooner than a process starts."""
WHOLE_PIECES = 2_000
"""Pieces of a side, at most, whose music stays in memory: what figures of whole sets, classifiers,
copying, pictures and sound need. A laptop has no room for that of a hundred thousand."""

_MAGIC = b"\x93rf1"
_HEAD = struct.Struct("<4sII")
"""Magic, length of the body and its CRC-32; the body is the piece's hash and the packed values."""
_HASH_BYTES = 32
_ENTRY = np.dtype([("metric", "<u8"), ("size", "<u4")])


def cache_folder() -> Path:
    """`features` in `$RNNGAN_CACHE`, or else in `~/.cache/rnngan`."""
    configured = os.environ.get("RNNGAN_CACHE")
    return (Path(configured) if configured else Path.home() / ".cache" / "rnngan") / "features"


class FeatureCache:
    """Measured values of pieces, for the features of one table.

    Args:
        folder: See `cache_folder`; made when there is something to write. None to keep nothing.
        names: Features, the columns of the table.
    """

    def __init__(self, folder: Path | None, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = tuple(names)
        self.dtype = row_dtype(bins_of(names))
        fields: Mapping[str, Any] = self.dtype.fields or {}
        entries = [(_metric_id(name), fields[name][0].itemsize) for name in self.names]
        self._entries = dict(zip(self.names, entries))
        self._places = {entry: fields[name][1] for entry, name in zip(entries, self.names)}
        self._head = np.array(entries, _ENTRY).tobytes()
        self._files: dict[str, _File] = {}

    def fill(self, row: Rows, digest: str) -> list[str]:
        """Fill in a row as far as its values are known.

        Args:
            row: Of `dtype`, shape `(1,)`.
            digest: `piece_hash` of its piece.

        Returns:
            Names of the features that are not known.
        """
        missing = {self._entries[name]: name for name in self.names}
        values = row.view(np.uint8)
        for payload in self._payloads(digest):
            count = int.from_bytes(payload[:4], "little")
            place = 4 + count * _ENTRY.itemsize
            if payload[4:place] == self._head:  # as usual: all of them, in this order
                values[:] = np.frombuffer(payload, np.uint8, offset=place)
                return []
            for entry in np.frombuffer(payload, _ENTRY, count, 4).tolist():
                if missing.pop(entry, None):
                    at, size = self._places[entry], entry[1]
                    values[at : at + size] = np.frombuffer(payload, np.uint8, size, place)
                place += entry[1]
        return list(missing.values())

    def add(self, found: Sequence[tuple[str, Rows, Sequence[str]]]) -> None:
        """Keep what was measured. A cache that cannot be written is no error.

        Args:
            found: Of each piece its hash, its row `(1,)`, and the features that were measured.
        """
        if self.folder is None:
            return
        records: dict[str, list[bytes]] = {}
        for digest, row, names in found:
            entries = np.array([self._entries[name] for name in names], _ENTRY).tobytes()
            values = b"".join(row[name].tobytes() for name in names)
            payload = len(names).to_bytes(4, "little") + entries + values
            body = bytes.fromhex(digest) + zlib.compress(payload, 1)
            record = _HEAD.pack(_MAGIC, len(body), zlib.crc32(body)) + body
            records.setdefault(digest[:2], []).append(record)
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            for prefix, parts in records.items():
                # One write to the end of the file: those of several processes do not mix.
                with (self.folder / prefix).open("ab", buffering=0) as file:
                    file.write(b"".join(parts))

    def _payloads(self, digest: str) -> list[bytes]:
        """Unpacked records of a piece, the newest first."""
        if self.folder is None:
            return []
        path, key = self.folder / digest[:2], bytes.fromhex(digest)
        try:
            size = path.stat().st_size
            known = self._files.get(path.name)
            if known is None or size < known.size:  # in the latter case somebody deleted it
                known = self._files[path.name] = _File()
            if size > known.size:
                known.read_on(path)
            bodies = []
            if key in known.places:
                with path.open("rb") as file:
                    for start, length in reversed(known.places[key]):
                        file.seek(start)
                        bodies.append(file.read(length))
            return [zlib.decompress(body[len(key) :]) for body in bodies if body.startswith(key)]
        except (OSError, zlib.error):
            return []


class _File:
    """Where in a file of the cache the records of each piece stand."""

    def __init__(self) -> None:
        self.size = 0
        self.places: dict[bytes, list[tuple[int, int]]] = {}

    def read_on(self, path: Path) -> None:
        """Take in what came to the end of the file since the last time."""
        with path.open("rb") as file:
            file.seek(self.size)
            data = file.read()
        start = data.find(_MAGIC)
        while 0 <= start <= len(data) - _HEAD.size:
            _, length, checksum = _HEAD.unpack_from(data, start)
            begin = start + _HEAD.size
            body = memoryview(data)[begin : begin + length]
            if len(body) == length > _HASH_BYTES and zlib.crc32(body) == checksum:
                place = self.size + begin, length
                self.places.setdefault(bytes(body[:_HASH_BYTES]), []).append(place)
                start = data.find(_MAGIC, begin + length)
            else:
                start = data.find(_MAGIC, start + 1)
        self.size += len(data)


def _metric_id(name: str) -> int:
    """Number of a metric's definition and shape."""
    text = f"{FEATURES[name].key} {len(FEATURES[name].bins)}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def measured(
    pieces: Sequence[Piece],
    names: Sequence[str],
    *,
    cache: Path | None = None,
    workers: int | None = None,
    track: Track = silently,
    label: str = "measuring",
) -> FeatureTable:
    """Features of pieces in memory.

    Args:
        pieces: What to measure.
        names: Features, as `eval.features.select` returns them.
        cache: See `cache_folder`; None for none.
        workers: Processes that measure; as many as there are processors by default.
        track: Shows the progress.
        label: What to call it there.

    Raises:
        UserError: A piece makes its measurement crash or take minutes.
    """
    known = FeatureCache(cache, names)
    rows = np.zeros(len(pieces), known.dtype)
    digests = [piece_hash(piece) for piece in pieces]
    missing = [i for i, digest in enumerate(digests) if known.fill(rows[i : i + 1], digest)]
    first = {digests[i]: i for i in reversed(missing)}  # of equal pieces one is measured
    todo = sorted(first.values())
    jobs = [
        MeasureJob(tuple(names), cache, pieces=tuple(pieces[i] for i in todo[a:b]))
        for a, b in pairwise([*range(0, len(todo), PIECES_PER_JOB), len(todo)])
    ]
    start = 0
    for job in in_workers(_measure, jobs, workers=workers, track=track, label=label):
        for reject in job.rejects:
            raise UserError(f"{reject.name} cannot be measured ({reject.reason}); leave it out")
        rows[todo[start : start + len(job.rows)]] = job.rows
        start += len(job.rows)
    rows[missing] = rows[[first[digests[i]] for i in missing]]
    return FeatureTable(rows)


def load_side(
    path: Path,
    names: Sequence[str],
    *,
    limit: int | None = None,
    split: Split = "test",
    keep: int = WHOLE_PIECES,
    seed: int = 0,
    cache: Path | None = None,
    workers: int | None = None,
    track: Track = silently,
) -> Side:
    """The side that a path stands for, measured while it is read, however many pieces there are.

    Args:
        path: A folder of music (searched with its subfolders and the archives in them), a zip or
            tar archive of it, a MIDI, ABC or MusicXML file, a text file with one path a line (from
            the text file's own folder), a prepared corpus, a run, which stands for its corpus, or
            statistics (`.npz`).
        names: Features, as `eval.features.select` returns them; of statistics all are there.
        limit: At most so many pieces, evenly spread over their order by name.
        split: Part of a prepared corpus.
        keep: The music of at most so many pieces stays in memory, see `Side.drawn`.
        seed: Of that draw.
        cache: See `cache_folder`; None for none.
        workers: Processes that read and measure; as many as there are processors by default.
        track: Shows the progress.

    Raises:
        UserError: There is nothing there, no music in it, all of it was refused, or fewer than
            two pieces are left.
    """
    check_limit(limit)
    if is_statistics(path):
        return _side_of_statistics(path, limit)
    values, titles, digests = bytearray(), list[str](), list[str]()
    draw, nearest = Draw(seed), list[tuple[int, int, Piece]]()
    with find(path, split=split, limit=limit) as found:
        rejects = list(found.rejects)
        jobs = [MeasureJob(tuple(names), cache, source=job) for job in found.jobs]
        label = f"reading {found.name}"
        for job in in_workers(_measure, jobs, workers=workers, track=track, label=label):
            for number, (digest, piece) in enumerate(zip(job.digests, job.pieces), len(digests)):
                # A heap of the lowest places: its first entry is the next to go.
                entry = -draw.place(digest), -number, piece
                (heapq.heappush if len(nearest) < keep else heapq.heappushpop)(nearest, entry)
            values += job.rows.tobytes()
            titles += [
                title or f"{found.name}, piece {number}"
                for number, title in enumerate(job.titles, len(titles) + 1)
            ]
            digests += job.digests
            rejects += job.rejects
    check_left(len(titles), rejects, path)
    dtype = row_dtype(bins_of(names))
    rows = np.frombuffer(values, dtype) if names else np.zeros(len(titles), dtype)
    chosen = spread(range(len(titles)), limit)
    music = {-number: piece for _, number, piece in nearest}
    kept = [i for i, number in enumerate(chosen) if number in music]
    return Side(
        name=found.name,
        pieces=tuple(music[chosen[i]] for i in kept),
        path=printable(str(path)),
        rejects=tuple(rejects),
        statistics=Statistics(
            table=FeatureTable(rows if len(chosen) == len(rows) else rows[list(chosen)]),
            titles=tuple(titles[i] for i in chosen),
            piece_hashes=tuple(digests[i] for i in chosen),
        ),
        kept=tuple(kept),
    )


def _side_of_statistics(path: Path, limit: int | None) -> Side:
    if limit is not None:
        raise UserError(f"limit cannot pick pieces out of statistics, as {path} holds")
    name, statistics, rejects = load_statistics(path)
    side = Side(name=name, path=printable(str(path)), rejects=rejects, statistics=statistics)
    check_enough(side.num_pieces, str(path))
    return side


def measured_side(
    side: Side,
    names: Sequence[str],
    *,
    keep: int = WHOLE_PIECES,
    seed: int = 0,
    cache: Path | None = None,
    workers: int | None = None,
    track: Track = silently,
) -> Side:
    """A side with its statistics, and the music of no more pieces than must stay in memory.

    Args:
        side: Measured already, or in memory.
        names: Features, as `eval.features.select` returns them.
        keep: See `load_side`, as for the others.
        seed: Likewise.
        cache: Likewise.
        workers: Likewise.
        track: Likewise.

    Raises:
        UserError: Its statistics lack a feature, or a piece cannot be measured.
    """
    if side.statistics:
        side.statistics.table.check(names, f"what is known of {side.name}")
    else:
        table = measured(
            side.pieces,
            names,
            cache=cache,
            workers=workers,
            track=track,
            label=f"measuring {side.name}",
        )
        titles = tuple(side.title(i) for i in range(len(side.pieces)))
        statistics = Statistics(table=table, titles=titles, piece_hashes=side.piece_hashes)
        side = replace(side, statistics=statistics)
    return side.thinned(keep, seed)


class MeasureJob(NamedTuple):
    """Measure some pieces: these, or those that are read from somewhere."""

    names: tuple[str, ...]
    cache: Path | None
    pieces: tuple[Piece, ...] = ()
    source: Job | None = None

    @property
    def num_items(self) -> int:
        """Pieces in hand, or files."""
        return self.source.num_items if self.source else len(self.pieces)


class Measured(NamedTuple):
    """What a job found: of each piece the row, itself, its title and hash; and what was refused.

    Pieces that came with the job do not come back; a title is empty where nothing told it.
    """

    rows: Rows
    pieces: list[Piece]
    titles: list[str]
    digests: list[str]
    rejects: list[Reject]


def _measure(job: MeasureJob, lost: Lost, mark: Mark) -> Measured:
    """Carry out a `MeasureJob`; see `rnngan.data.workers.Team.results`."""
    cache = _opened(job.cache, job.names)
    rows = [np.zeros(0, cache.dtype)]
    found = Measured(rows[0], [], [], [], [])
    new: list[tuple[str, Rows, list[str]]] = []
    items = outcomes_of(job.source, lost, mark) if job.source else ([one] for one in job.pieces)
    for i, item in enumerate(items):
        if isinstance(item, Reject):
            found.rejects.append(item)
            continue
        for piece in item:
            title = piece.tags.get("source", "")
            if i in lost:
                found.rejects.append(
                    Reject(
                        title or f"piece {i + 1}", lost[i], "its features crashed or took too long"
                    )
                )
                continue
            mark(i)  # each of the tunes of a file has its own time
            digest = piece_hash(piece)
            row = np.zeros(1, cache.dtype)
            missing = cache.fill(row, digest)
            if missing:
                for name, value in features_of(piece, missing).items():
                    row[name] = value
                new.append((digest, row, missing))
            rows.append(row)
            if job.source:
                found.pieces.append(piece)
            found.titles.append(title)
            found.digests.append(digest)
    cache.add(new)
    return found._replace(rows=np.concatenate(rows))


@lru_cache(maxsize=1)
def _opened(folder: Path | None, names: tuple[str, ...]) -> FeatureCache:
    """One for all jobs of a worker, which need not look through its files anew."""
    return FeatureCache(folder, names)
