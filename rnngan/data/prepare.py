"""A corpus, named or one's own, to a store on disk.

Two passes over shards of files in worker processes: read and clean, then, with a tokenizer fitted
to everything, encode. Of a piece the parent holds its path and a few numbers, about a kilobyte, so
that a hundred thousand files take a hundred megabytes more than a thousand. Shards lie in
`.NAME.part` beside the store until it is whole; whoever breaks off and begins again finds them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rnngan import __version__
from rnngan.config import DataConfig
from rnngan.data.cleaning import Cleaning
from rnngan.data.duplicates import Signatures, groups, signature
from rnngan.data.finding import FoundFiles, find_corpus, unpacked
from rnngan.data.reading import (
    Reading,
    Source,
    contents_of,
)
from rnngan.data.report import ReportBuilder
from rnngan.data.shards import (
    READER_VERSION,
    EncodedShard,
    EncodeJob,
    ReadJob,
    Shard,
    clean_shard,
    contents_digest,
    encode_pieces,
    encode_shard,
    load_shard,
    read_shard,
)
from rnngan.data.splits import Split, check_split, official_split, split_by_group
from rnngan.data.store import Store, StoreWriter, rejects_csv
from rnngan.data.workers import Team
from rnngan.errors import Reject, UserError
from rnngan.files import write_atomically
from rnngan.music.tokenizers.base import Codec
from rnngan.music.tokenizers.registry import fit_codec
from rnngan.music.tokenizers.summary import Summary
from rnngan.progress import Progress

try:
    import fcntl
except ImportError:  # not on Windows: there nothing keeps two processes apart
    fcntl = None  # type: ignore[assignment]

_NOT_STORED = (
    *("transpose", "tempo_factor", "duration_factor", "velocity_jitter", "max_length"),
    *("tag_dropout", "max_reject_rate"),
)
"""Settings that act when batches are drawn, or say when to give up; all others change the store."""
_MARGIN = 6
"""Semitones of room for transposition in the vocabulary."""
NOT_DAMAGE = ("filtered", "no_melody")
"""Reasons by which a sound piece is left out."""


def prepare(
    config: DataConfig,
    folder: Path,
    *,
    seed: int,
    report: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Store:
    """The store of a corpus, made if it is not there yet.

    Args:
        config: Which corpus, and how to read, clean, tokenize and split it.
        folder: The store's: new, empty, or one that holds this very corpus, which is opened.
        seed: Of the split.
        report: Measure what the tokens lose, too; it stands in the store's `report.json`.
        workers: Processes that read; as many as there are processors by default.
        progress: Shows how many files are done, and what was refused.

    Raises:
        UserError: No such corpus, nothing in it to read, too much of it damaged, too little to
            split, or the folder holds something else.
    """
    folder = folder.resolve()
    with _scratch_of(folder) as scratch:
        files = find_corpus(config)
        if (folder / "manifest.json").exists():
            store = Store.open(folder)
            if store.manifest.get("fingerprint") != _fingerprint(config, seed, files):
                raise UserError(
                    f"{folder} already holds another prepared corpus "
                    f"({store.manifest.get('corpus')}); choose another folder, or delete it"
                )
            return store
        _check_empty(folder)
        check_split(config.split)
        files = unpacked(files, scratch)
        with (
            Signatures(scratch / "signatures") as signatures,
            Team(workers, most=len(files.shards)) as team,
        ):
            corpus = _read(config, files, scratch, team, signatures, progress)
            _check_rejects(config, corpus, folder)

            def encoded(codec: Codec) -> Iterator[EncodedShard]:
                text = json.dumps(codec.to_json())
                jobs = [EncodeJob(path, text, report) for path in corpus.paths]
                told = Progress("tokens", len(jobs), inside=progress) if progress else None
                for done, shard in enumerate(team.results(encode_shard, jobs), 1):
                    yield shard
                    if told:
                        told.update(done)

            return _write(
                config,
                folder,
                scratch / "store",
                seed=seed,
                corpus=corpus,
                encoded=encoded,
                fingerprint=_fingerprint(config, seed, files, corpus.digests),
                report=report,
            )


def prepare_pieces(
    sources: Sequence[Source],
    config: DataConfig,
    folder: Path,
    *,
    seed: int,
    rejects: Sequence[Reject] = (),
) -> Store:
    """The store of pieces that are in memory already.

    Args:
        sources: At least three distinct pieces.
        config: How to clean, tokenize and split them; `corpus` is but a name here.
        folder: The store's: new or empty.
        seed: Of the split.
        rejects: For `rejects.csv`.

    Raises:
        UserError: Too few pieces, or the folder cannot be written.
    """
    folder = folder.resolve()
    shard = clean_shard(
        Shard(list(sources), list(rejects)),
        cleaning=cleaning_of(config),
        tags=config.tags,
        common_tags={},
        num_parts=None,
    )
    _check_empty(folder)
    with (
        _scratch_of(folder) as scratch,
        Signatures(scratch / "signatures") as signatures,
    ):
        pieces = [source.piece for source in shard.sources]
        signatures.extend([signature(piece) for piece in pieces])
        corpus = _Corpus(
            num_files=len(sources) + len(rejects),
            num_pieces=len(pieces),
            summary=Summary.of(pieces),
            signatures=signatures,
            rejects=shard.rejects,
            names=lambda: (source.name for source in shard.sources),
        )
        digest = contents_digest([(source.name, source.sha256) for source in sources])
        return _write(
            config,
            folder,
            scratch / "store",
            seed=seed,
            corpus=corpus,
            encoded=lambda codec: iter([encode_pieces(shard, codec, report=False)]),
            fingerprint=_hash([_stored_settings(config), seed, digest]),
            report=False,
        )


def _check_empty(folder: Path) -> None:
    """Find out before all the work whether its result can stand there.

    Raises:
        UserError: It cannot.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(
            f"{folder} is not empty and holds no prepared corpus; choose another folder"
        )


def open_prepared(config: DataConfig, folder: Path) -> Store:
    """A store that is there already, if it is what the settings ask for.

    Raises:
        UserError: There is none, or it was prepared with other settings.
    """
    store = Store.open(folder)
    for name, was in store.manifest.get("settings", {}).items():
        now = json.loads(json.dumps(getattr(config, name, None)))  # a list for a tuple
        if was != now:
            raise UserError(
                f"{folder} was prepared with data.{name} {was!r}, and the run has {now!r}; "
                "choose another --store, or say the same"
            )
    return store


def read_sources(
    config: DataConfig, *, workers: int | None = None, progress: Progress | None = None
) -> tuple[list[Source], list[Reject]]:
    """All pieces of a corpus, cleaned, in memory; and what was refused.

    Raises:
        UserError: No such corpus, or nothing in it to read.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        files = unpacked(find_corpus(config), scratch)
        with (
            Signatures(scratch / "signatures") as signatures,
            Team(workers, most=len(files.shards)) as team,
        ):
            corpus = _read(config, files, scratch, team, signatures, progress)
        shards = [shard for path in corpus.paths if (shard := load_shard(path))]
        return [source for shard in shards for source in shard.sources], corpus.rejects


@dataclass(frozen=True, kw_only=True)
class _Corpus:
    """What is known of a corpus when all of it was read.

    Attributes:
        paths: Paths of its shards.
        digests: SHA-256 of the contents of each shard.
        names: Gives the names of all pieces.
    """

    num_files: int
    num_pieces: int
    summary: Summary
    signatures: Signatures
    rejects: list[Reject]
    names: Callable[[], Iterable[str]]
    paths: tuple[Path, ...] = ()
    digests: tuple[str, ...] = ()


def _read(
    config: DataConfig,
    files: FoundFiles,
    scratch: Path,
    team: Team,
    signatures: Signatures,
    progress: Progress | None,
) -> _Corpus:
    """First pass."""
    place = scratch / "read"
    place.mkdir(parents=True, exist_ok=True)
    if files.cache:
        try:
            files.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            warnings.warn(f"what is read is not kept: {error}", stacklevel=2)
            files = replace(files, cache=None)
    paths = tuple(place / f"{number:06}" for number in range(len(files.shards)))
    jobs = _Jobs(config, files, paths)
    summary = Summary.empty()
    rejects: list[Reject] = []
    digests: list[str] = []
    num_done, reasons = 0, Counter(reject.reason for reject in files.rejects)
    for shard, found in zip(files.shards, team.results(read_shard, jobs)):
        digests.append(found.digest)
        summary += found.summary
        signatures.extend(found.signatures)
        rejects += found.rejects
        reasons.update(reject.reason for reject in found.rejects)
        num_done += len(shard)
        if progress:
            refused = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(4))
            progress.count(num_done, files.num_files, f"refused: {refused}" if refused else "")
    return _Corpus(
        num_files=files.num_files + len(files.rejects),
        num_pieces=summary.num_pieces,
        summary=summary,
        signatures=signatures,
        rejects=[*files.rejects, *rejects],
        names=lambda: (
            source.name for path in paths for source in (load_shard(path) or Shard([], [])).sources
        ),
        paths=paths,
        digests=tuple(digests),
    )


class _Jobs(Sequence[ReadJob]):
    """The jobs of the first pass, made when they are asked for: a hundred thousand take room."""

    def __init__(self, config: DataConfig, files: FoundFiles, paths: tuple[Path, ...]) -> None:
        self.files, self.paths = files, paths
        self.pattern = ReadJob(
            files=(),
            reading=Reading(expand_repeats=config.expand_repeats, beats=config.beats),
            cleaning=replace(cleaning_of(config), program=files.program),
            tags=config.tags,
            common_tags=files.common_tags,
            num_parts=files.num_parts,
            path=Path(),
            cache=None,
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: Any) -> Any:
        path, files = self.paths[number], self.files
        return self.pattern._replace(
            files=files.music_files(files.shards[number]),
            path=path,
            cache=files.cache / path.name if files.cache else None,
        )


def cleaning_of(config: DataConfig) -> Cleaning:
    """The part of the settings that says how pieces are cleaned."""
    return Cleaning(
        merge_tracks=config.merge_tracks,
        melody=config.melody,
        melody_track=config.melody_track,
        trim=config.trim,
        only=config.only,
    )


def _check_rejects(config: DataConfig, corpus: _Corpus, folder: Path) -> None:
    """Stop where too much is damaged, or nothing is left.

    Raises:
        UserError: So it is; the list of rejects lies beside the store's folder.
    """
    damaged = [reject for reject in corpus.rejects if reject.reason not in NOT_DAMAGE]
    rate = len(damaged) / max(corpus.num_files, 1)
    listed = folder.with_name(f"{folder.name}-rejects.csv")
    if corpus.num_pieces and rate <= config.max_reject_rate:
        listed.unlink(missing_ok=True)  # of an earlier attempt
        return
    reasons = Counter(reject.reason for reject in corpus.rejects).most_common()
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons)
    write_atomically(listed, rejects_csv(corpus.rejects))
    if not corpus.num_pieces:
        first = f"; the first: {': '.join(corpus.rejects[0][::2])}" if corpus.rejects else ""
        raise UserError(
            f"nothing is left of the {corpus.num_files} files of {config.corpus}: "
            f"{counts or 'they hold no pieces of it'}{first}; all are listed in {listed}"
        )
    raise UserError(
        f"{rate:.1%} of the {corpus.num_files} files of {config.corpus} cannot be read, more than "
        f"--max-reject-rate {config.max_reject_rate:g}: {counts}; all are listed in {listed}"
    )


def _write(
    config: DataConfig,
    folder: Path,
    scratch: Path,
    *,
    seed: int,
    corpus: _Corpus,
    encoded: Callable[[Codec], Iterator[EncodedShard]],
    fingerprint: str,
    report: bool,
) -> Store:
    """Group, split, fit the tokenizer; then the second pass."""
    group = groups(corpus.signatures)
    splits = _splits(config, seed, corpus, group)
    try:
        codec = fit_codec(config.tokenizer, corpus.summary, **_codec_options(config))
    except ValueError as error:
        raise UserError(f"cannot make {config.tokenizer} of this corpus: {error}") from None
    with StoreWriter(folder, scratch, codec) as writer:
        told = ReportBuilder(codec)
        number = 0
        for shard in encoded(codec):
            writer.add(shard.rows, shard.lengths)
            for entry in shard.entries:
                writer.describe({**entry, "group": int(group[number])}, splits[number])
                number += 1
            told.add(shard)
        summary = told.finish(corpus.num_files, corpus.rejects, group, splits)
        if report:
            writer.attach("report.json", json.dumps(summary, indent=1, sort_keys=True).encode())
        return writer.finish(
            {
                "corpus": config.corpus,
                "fingerprint": fingerprint,
                "settings": _stored_settings(config),
                "seed": seed,
                "num_files": corpus.num_files,
                "num_notes": corpus.summary.num_notes,
                "rejects": dict(Counter(r.reason for r in corpus.rejects).most_common()),
                "beats": summary["beats"],
                "reader": READER_VERSION,
                "versions": {"rnngan": __version__}
                | _versions("symusic", "music21", "pretty_midi", "numpy"),
            },
            corpus.rejects,
        )


def _splits(
    config: DataConfig, seed: int, corpus: _Corpus, group: npt.NDArray[np.int64]
) -> list[Split]:
    if config.split != "random":
        return official_split(config.split, corpus.names())
    # Named by what is in them, so that pieces which come or go move few others.
    return split_by_group(
        [corpus.signatures[number].exact.hex() for number in group.tolist()],
        validation_rate=config.validation_rate,
        test_rate=config.test_rate,
        seed=seed,
    )


def _codec_options(config: DataConfig) -> dict[str, Any]:
    """What the settings say to the `fit` of their codec."""
    options: dict[str, dict[str, Any]] = {
        "events": {"velocity_bins": config.velocity_bins},
        "melody": {"ticks_per_step": config.ticks_per_step},
        "frames": {"ticks_per_frame": config.ticks_per_step, "held": config.held},
        "tuples": {},
        "miditok": {"kind": config.miditok},
    }
    return {"tags": config.tags, "margin": _MARGIN, **options[config.tokenizer]}


def _stored_settings(config: DataConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name not in _NOT_STORED}


def _fingerprint(
    config: DataConfig, seed: int, files: FoundFiles, digests: Sequence[str] | None = None
) -> str:
    """Of everything that the store follows from, except for versions.

    Args:
        config: Of the store.
        seed: Of the split.
        files: Of the corpus.
        digests: Of the shards; by default files are hashed now.
    """
    plain = [
        contents_digest(
            [(file.name, contents_of(file.path).sha256) for file in files.music_files(shard)]
        )
        for shard in (files.shards[: files.num_plain] if digests is None else [])
    ]
    return _hash(
        [
            _stored_settings(config),
            seed,
            READER_VERSION,
            list(digests[: files.num_plain]) if digests is not None else plain,
            [(archive.name, archive.sha256) for archive in files.archives],
            "" if config.split in ("random", "folders") else contents_of(config.split).sha256,
        ]
    )


def _hash(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@contextlib.contextmanager
def _scratch_of(folder: Path) -> Iterator[Path]:
    """`.NAME.part` beside a folder, for one process at a time; removed when all went well.

    What was read by then stays otherwise, for the next attempt.

    Raises:
        UserError: It cannot be made, or another process has it.
    """
    scratch = folder.with_name(f".{folder.name}.part")
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        lock = (scratch / "lock").open("wb")
    except OSError as error:
        raise UserError(f"cannot write {scratch}: {error.strerror}") from None
    with lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(lock.fileno()), Path(lock.name).stat()):
                    raise FileNotFoundError  # removed between our opening and locking it
            except OSError:
                raise UserError(f"another process is preparing {folder}; wait for it") from None
        try:
            yield scratch
        except BaseException:
            if not (scratch / "read").exists():  # nothing there that is worth keeping
                shutil.rmtree(scratch, ignore_errors=True)
            raise
        shutil.rmtree(scratch, ignore_errors=True)
