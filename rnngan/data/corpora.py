"""Corpora that can be had by name: they lie inside the wheel of music21.

The tunes need music21 for its files alone, the chorales, in MusicXML, are read through it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from rnngan.config import nearest_name
from rnngan.data.pieces_file import load_pieces, save_pieces
from rnngan.data.reading import Progress, Reject, Source, music_files, read_folder
from rnngan.errors import UserError

READER_VERSION = 2
"""Goes up when the same file comes to be read as other notes; older caches then count no more."""
MUSIC21_RIGHTS = (
    "To the best of our knowledge, the each piece of music in the corpus is either out of "
    "copyright in the United States or is licensed for use, though there may be restrictions on "
    "commercial use. The encodings may be under copyright but have been licensed for use, though "
    "there may be restrictions on commercial use."
)
"""What music21's `corpus/license.txt` says of all its corpora, in its own words."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A corpus in music21's wheel.

    Attributes:
        title: What it is.
        folder: Where its files lie, below music21's `corpus`.
        suffix: Of the files that belong to it.
        num_parts: Parts of a piece that belongs to it; None for any number.
        num_pieces: How many pieces there are, in music21 10.5.
        source: Who printed it, and who encoded it.
        rights: What its own files say, beside `MUSIC21_RIGHTS`.
    """

    name: str
    title: str
    folder: str
    suffix: str = ".abc"
    num_parts: int | None = None
    num_pieces: int
    source: str
    rights: str


CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="ryans-mammoth",
            title="Ryan's Mammoth Collection: reels, hornpipes, jigs, strathspeys, clogs",
            folder="ryansMammoth",
            num_pieces=1059,
            source="Boston 1883; encoded by Ray Davies, John Chambers, Bob Puckette, John Walsh "
            "and others",
            rights="Names of the encoders; no licence.",
        ),
        Corpus(
            name="oneills",
            title="O'Neill's Music of Ireland: airs, jigs, reels, hornpipes, marches",
            folder="oneills1850",
            num_pieces=2009,
            source="Chicago 1903, 1,850 melodies, some in two encodings; encoded by many hands, "
            "named tune by tune",
            rights="Names of the encoders; no licence.",
        ),
        Corpus(
            name="airds",
            title="Aird's Selection of Scotch, English, Irish and Foreign Airs",
            folder="airdsAirs",
            num_pieces=1180,
            source="Glasgow, six volumes from 1778 on; encoded by Jack Campin, 2009",
            rights="Name of the encoder; no licence.",
        ),
        Corpus(
            name="bach-chorales",
            title="Bach's chorales in four parts, one track each",
            folder="bach",
            suffix=".mxl",
            num_parts=4,
            num_pieces=364,
            source="MusicXML of Margaret Greentree's edition, converted with music21",
            rights="Most files bear the line 'PDF © 2004 Margaret Greentree' (a few: 2003); "
            "no licence.",
        ),
    )
}


def read_corpus(
    name: str,
    *,
    cache: Path | None = None,
    expand_repeats: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[list[Source], list[Reject]]:
    """All pieces of a named corpus, in the order of their file names, and the files refused.

    Each piece has the tags `corpus` and `source` besides its own. What was read is kept in the
    cache, under a name that changes with the files, the reader and `expand_repeats`.

    Args:
        name: One of `CORPORA`.
        cache: Folder to keep it in; by default `$RNNGAN_CACHE`, or else `~/.cache/rnngan`.
        expand_repeats: Play repeats as written, instead of every section once.
        workers: Processes that read; as many as there are processors by default.
        progress: Told how many files are done.

    Raises:
        UserError: There is no such corpus, or music21 is not installed.
    """
    if name not in CORPORA:
        raise UserError(
            f"unknown corpus {name!r}{nearest_name(name, list(CORPORA))}; "
            f"corpora are {', '.join(CORPORA)}"
        )
    corpus = CORPORA[name]
    folder = _music21_folder() / "corpus" / corpus.folder
    digests = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in music_files(folder)
    }
    version = importlib.metadata.version("music21")
    identity = [READER_VERSION, version, expand_repeats, sorted(digests.items())]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    cached = (cache or _default_cache()) / f"{name}-{key[:16]}.npz"
    if cached.exists():
        try:
            return [
                Source(name := piece.tags["source"], digests[name.partition("#")[0]], piece)
                for piece in load_pieces(cached)
            ], []
        except UserError:
            pass  # damaged: read and written anew
    found, rejects = read_folder(
        folder, expand_repeats=expand_repeats, workers=workers, progress=progress
    )
    sources = [
        source._replace(
            piece=replace(
                source.piece,
                tags={**source.piece.tags, "corpus": name, "source": source.name},
            )
        )
        for source in found
        if source.name.partition("#")[0].endswith(corpus.suffix)
        and corpus.num_parts in (None, len(source.piece.track_names))
    ]
    if not rejects:  # otherwise the next reading shows them again
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            save_pieces(cached, [source.piece for source in sources])
        except (OSError, UserError) as error:
            warnings.warn(f"{name} is not kept for the next time: {error}", stacklevel=2)
    return sources, rejects


def _music21_folder() -> Path:
    """Where music21 lies; it is not imported.

    Raises:
        UserError: It is not installed.
    """
    spec = importlib.util.find_spec("music21")
    if spec is None or not spec.submodule_search_locations:
        raise UserError('named corpora lie in music21: pip install "rnngan[corpora]"')
    return Path(spec.submodule_search_locations[0])


def _default_cache() -> Path:
    configured = os.environ.get("RNNGAN_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "rnngan"
