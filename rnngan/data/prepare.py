"""A corpus, named or a folder, to a store on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rnngan import __version__
from rnngan.config import DataConfig, nearest_name
from rnngan.data.corpora import CORPORA, read_corpus
from rnngan.data.reading import Progress, Reject, Source, read_folder
from rnngan.data.store import Store, write_store
from rnngan.errors import UserError
from rnngan.music.piece import Piece

_STORED_SETTINGS = ("expand_repeats", "tags", "validation_rate", "test_rate")
"""Settings that change the store; the others act when batches are drawn."""
_MARGIN = 6


def prepare(
    config: DataConfig,
    folder: Path,
    *,
    seed: int,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Store:
    """The store of a corpus, made if it is not there yet.

    Args:
        config: Which corpus, and how to read and split it.
        folder: The store's: new, empty, or one that holds this very corpus, which is opened.
        seed: Of the split.
        workers: Processes that read; as many as there are processors by default.
        progress: Told how many files are done.

    Raises:
        UserError: No such corpus, nothing in it to read, too little to split, or the folder holds
            something else.
    """
    sources, rejects = read_sources(config, workers=workers, progress=progress)
    settings = {name: value for name, value in asdict(config).items() if name in _STORED_SETTINGS}
    pieces = [(source.name, _content(source.piece, config.tags)) for source in sources]
    identity = [settings, seed, _MARGIN, pieces]
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    if (folder / "manifest.json").exists():
        store = Store.open(folder)
        if store.manifest.get("fingerprint") != fingerprint:
            raise UserError(
                f"{folder} already holds another prepared corpus "
                f"({store.manifest.get('corpus')}); choose another folder, or delete it"
            )
        return store
    return write_store(
        folder,
        sources,
        rejects,
        tags=config.tags,
        validation_rate=config.validation_rate,
        test_rate=config.test_rate,
        seed=seed,
        margin=_MARGIN,
        about={
            "corpus": config.corpus,
            "fingerprint": fingerprint,
            "settings": settings,
            "num_rejects": len(rejects),
            "versions": {"rnngan": __version__} | _versions("symusic", "music21", "pretty_midi"),
        },
    )


def open_prepared(config: DataConfig, folder: Path) -> Store:
    """A store that is there already, if it is what the settings ask for.

    Raises:
        UserError: There is none, or it was prepared with other settings.
    """
    store = Store.open(folder)
    made = {"corpus": store.manifest.get("corpus"), **store.manifest.get("settings", {})}
    for name, was in made.items():
        now = json.loads(json.dumps(getattr(config, name, None)))  # a list for a tuple
        if was != now:
            raise UserError(
                f"{folder} was prepared with data.{name} {was!r}, and the run has {now!r}; "
                "choose another --store, or say the same"
            )
    return store


def _content(piece: Piece, tags: tuple[str, ...]) -> str:
    """Hash of all that becomes tokens."""
    about = repr((piece.metres, piece.tempos, [piece.tags.get(tag) for tag in tags]))
    return hashlib.sha256(piece.notes.tobytes() + about.encode()).hexdigest()


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_sources(
    config: DataConfig, *, workers: int | None = None, progress: Progress | None = None
) -> tuple[list[Source], list[Reject]]:
    """All pieces of a corpus, and what was refused.

    Raises:
        UserError: As `prepare`.
    """
    repeats = config.expand_repeats
    if config.corpus in CORPORA:
        return read_corpus(
            config.corpus, expand_repeats=repeats, workers=workers, progress=progress
        )
    folder = Path(config.corpus)
    if folder.exists() or folder.name != config.corpus:
        return read_folder(folder, expand_repeats=repeats, workers=workers, progress=progress)
    raise UserError(
        f"unknown corpus {config.corpus!r}{nearest_name(config.corpus, list(CORPORA))}; "
        f"named corpora are {', '.join(CORPORA)}; anything else must be an existing folder"
    )
