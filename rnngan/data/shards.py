"""The two passes over a corpus, a few files at a time, as jobs for worker processes.

The first reads and cleans a shard of files and leaves its pieces on disk; the second makes tokens
of them, when the tokenizer has been fitted to all. A shard that is on disk is not read again, so
that work which is broken off goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rnngan.data.annotate import annotated
from rnngan.data.cleaning import Cleaning, clean
from rnngan.data.duplicates import Signature, signature
from rnngan.data.loss import Loss, measure_loss
from rnngan.data.pieces_file import load_pieces, save_pieces
from rnngan.data.reading import (
    Contents,
    MusicFile,
    Reading,
    Source,
    contents_of,
    read_or_reject,
    reject_for,
)
from rnngan.data.workers import Lost, Mark
from rnngan.errors import Reject, UserError
from rnngan.music.tokenizers.base import Codec
from rnngan.music.tokenizers.registry import codec_from_json
from rnngan.music.tokenizers.summary import Summary

READER_VERSION = 3
"""Goes up when the same file comes to be read as other notes; older shards then count no more."""
_NO_ITEM = -1
"""What is marked before work for the shard as a whole: if that kills workers, it is our fault."""


class Shard(NamedTuple):
    """Pieces of a few files, in the order of their names, and what was refused."""

    sources: list[Source]
    rejects: list[Reject]


class ReadJob(NamedTuple):
    """Read a shard and clean it.

    Attributes:
        files: What to read.
        reading: How.
        cleaning: What becomes of the pieces.
        tags: Keys that the tokens will tell: those that have to be worked out are.
        common_tags: What every piece of the corpus is tagged with.
        num_parts: Pieces with another number of tracks do not belong to the corpus.
        path: Of the cleaned shard.
        cache: Path of the shard as read, which is kept; None for nowhere.
    """

    files: tuple[MusicFile, ...]
    reading: Reading
    cleaning: Cleaning
    tags: tuple[str, ...]
    common_tags: Mapping[str, str]
    num_parts: int | None
    path: Path
    cache: Path | None


class ReadShard(NamedTuple):
    """What the parent has to know of a shard that was read.

    Attributes:
        digest: SHA-256 of names and contents of the files.
        rejects: Files and pieces that were refused.
    """

    digest: str
    num_pieces: int
    summary: Summary
    signatures: list[Signature]
    rejects: list[Reject]


def read_shard(job: ReadJob, lost: Lost, mark: Mark) -> ReadShard:
    """Carry out a `ReadJob`; see `in_workers`."""
    contents = [contents_of(file.path) for file in job.files]
    digest = contents_digest((file.name, one.sha256) for file, one in zip(job.files, contents))
    # Not the paths: an archive is unpacked wherever there is room.
    wanted = (asdict(job.cleaning), job.tags, dict(job.common_tags), job.num_parts)
    settings = repr((READER_VERSION, job.reading, *wanted))
    key = hashlib.sha256(f"{digest}{settings}".encode()).hexdigest()
    shard = load_shard(job.path, key)
    if shard is None:
        raw = _raw_shard(job, digest, contents, lost, mark)
        # Items of the job are its files, then the pieces in them.
        first = len(job.files)
        shard = clean_shard(
            raw,
            cleaning=job.cleaning,
            tags=job.tags,
            common_tags=job.common_tags,
            num_parts=job.num_parts,
            lost={i - first: reason for i, reason in lost.items() if i >= first},
            mark=lambda i: mark(first + i),
        )
        mark(_NO_ITEM)
        save_shard(job.path, key, shard)
    pieces = [source.piece for source in shard.sources]
    signatures = []
    for piece in pieces:
        mark(_NO_ITEM)
        signatures.append(signature(piece))
    return ReadShard(
        digest=digest,
        num_pieces=len(pieces),
        summary=Summary.of(pieces),
        signatures=signatures,
        rejects=shard.rejects,
    )


def contents_digest(files: Any) -> str:
    """SHA-256 of (name, SHA-256) pairs."""
    return hashlib.sha256(json.dumps(list(files)).encode()).hexdigest()


def _raw_shard(
    job: ReadJob, digest: str, contents: list[Contents], lost: Lost, mark: Mark
) -> Shard:
    """The shard as read: from the cache, or now."""
    key = hashlib.sha256(repr((READER_VERSION, job.reading, digest)).encode()).hexdigest()
    if job.cache and (cached := load_shard(job.cache, key)):
        return cached
    shard = Shard([], [])
    for i, (file, one) in enumerate(zip(job.files, contents)):
        if i in lost:
            shard.rejects.append(Reject(file.name, lost[i], _LOST[lost[i]]))
            continue
        mark(i)
        found = read_or_reject(file, one, job.reading)
        if isinstance(found, Reject):
            shard.rejects.append(found)
        else:
            shard.sources.extend(found)
    if job.cache and not lost:  # a crash may have been the machine's fault: try again next time
        with contextlib.suppress(UserError):  # a cache that cannot be written is no error
            save_shard(job.cache, key, shard)
    return shard


_LOST = {
    "crashed": "the reader crashed on it, twice",
    "timeout": "the reader did not come to an end",
}


def clean_shard(
    raw: Shard,
    *,
    cleaning: Cleaning,
    tags: tuple[str, ...],
    common_tags: Mapping[str, str],
    num_parts: int | None,
    lost: Lost | None = None,
    mark: Mark | None = None,
) -> Shard:
    """A shard as `ReadJob` wants it, from one as read.

    Args:
        raw: As read.
        cleaning: See `ReadJob`, as for the next three.
        tags: Likewise.
        common_tags: Likewise.
        num_parts: Likewise.
        lost: Numbers of pieces that killed a worker.
        mark: Called with the number of each piece before its turn.
    """
    shard = Shard([], list(raw.rejects))
    for i, source in enumerate(raw.sources):
        if lost and i in lost:
            shard.rejects.append(Reject(source.name, lost[i], _LOST[lost[i]]))
            continue
        if mark:
            mark(i)
        piece = source.piece
        if num_parts not in (None, len(piece.track_names)):
            message = f"does not meet parts == {num_parts}"
            shard.rejects.append(Reject(source.name, "filtered", message))
            continue
        folder, slash, _ = source.name.partition("/")
        known = {"folder": folder} if slash else {}
        piece = piece.tagged({**known, **piece.tags, **common_tags, "source": source.name})
        try:
            shard.sources.append(source._replace(piece=annotated(clean(piece, cleaning), tags)))
        except Exception as error:  # whatever a piece does costs that piece alone
            shard.rejects.append(reject_for(source.name, error))
    return shard


class EncodeJob(NamedTuple):
    """Make tokens of a shard.

    Attributes:
        path: As of its `ReadJob`.
        codec: What `to_json` gave, as text.
        report: Measure what the tokens lose, too.
    """

    path: Path
    codec: str
    report: bool


class EncodedShard(NamedTuple):
    """Rows of all pieces of a shard, end to end; their lengths; and what is known of each piece."""

    rows: npt.NDArray[Any]
    lengths: list[int]
    entries: list[dict[str, Any]]
    losses: list[Loss]


def encode_shard(job: EncodeJob, lost: Lost, mark: Mark) -> EncodedShard:
    """Carry out an `EncodeJob`; see `in_workers`."""
    shard = load_shard(job.path)
    for i, reason in lost.items():
        name = shard.sources[i].name if shard else job.path
        raise UserError(f"making tokens of {name} ended its process ({reason}); leave it out")
    if shard is None:
        raise UserError(f"{job.path} is gone: another process works in the same folder")
    return encode_pieces(shard, _codec(job.codec), report=job.report, mark=mark)


@lru_cache(maxsize=1)
def _codec(text: str) -> Codec:
    return codec_from_json(json.loads(text))


def encode_pieces(
    shard: Shard, codec: Codec, *, report: bool, mark: Mark | None = None
) -> EncodedShard:
    """Rows of all pieces of a shard.

    Args:
        shard: Its pieces.
        codec: Makes the rows.
        report: Measure what is lost.
        mark: Called with the number of each piece before its turn.
    """
    encoded, losses = [], []
    for i, source in enumerate(shard.sources):
        if mark:
            mark(i)
        encoded.append(codec.encode(source.piece))
        if report:
            losses.append(measure_loss(source.piece, codec.decode(encoded[-1])))
    shape = (0, codec.width) if codec.width else (0,)
    return EncodedShard(
        rows=np.concatenate([np.empty(shape, codec.dtype), *encoded]),
        lengths=[len(rows) for rows in encoded],
        entries=[
            {**_entry(source), "tokens": len(rows)} for source, rows in zip(shard.sources, encoded)
        ],
        losses=losses,
    )


def _entry(source: Source) -> dict[str, Any]:
    """What the store tells of a piece, beside what its split and tokens are."""
    piece = source.piece
    timing = piece.timing
    return {
        "name": source.name,
        "sha256": source.sha256,
        "notes": len(piece.notes),
        "bars": piece.num_bars,
        "tags": {key: value for key, value in piece.tags.items() if key != "source"},
        "beats": timing.grid,
        "onset_error_quarters": [
            round(timing.mean_error_quarters, 6),
            round(timing.max_error_quarters, 6),
        ],
    }


def save_shard(path: Path, key: str, shard: Shard) -> None:
    """Write a shard.

    Raises:
        UserError: The disk does not take it.
    """
    about = [key, [source[:2] for source in shard.sources], shard.rejects]
    save_pieces(path, [source.piece for source in shard.sources], about)


def load_shard(path: Path, key: str | None = None) -> Shard | None:
    """The shard that `save_shard` wrote; None where there is none, or it is another or damaged."""
    try:
        pieces, (found, sources, rejects) = load_pieces(path)
        if key not in (None, found):
            return None
        return Shard(
            [
                Source(name, sha256, piece)
                for (name, sha256), piece in zip(sources, pieces, strict=True)
            ],
            [Reject(*reject) for reject in rejects],
        )
    except (UserError, ValueError, TypeError):
        return None
