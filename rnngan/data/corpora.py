"""Corpora that can be had by name: they lie inside the wheel of music21.

The tunes need music21 for its files alone, the chorales, in MusicXML, are read through it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rnngan.data.reading import find_files
from rnngan.errors import UserError, nearest_name

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
        program: What all parts are played with, whatever some files say; None for what they say.
        num_pieces: How many pieces there are, in music21 10.5.
        metres: Pieces that begin in each metre.
        keys: Pieces in each key, as the files name it; a few name none.
        source: Who printed it, and who encoded it.
        rights: What its own files say, beside `MUSIC21_RIGHTS`.
    """

    name: str
    title: str
    folder: str
    suffix: str = ".abc"
    num_parts: int | None = None
    program: int | None = None
    num_pieces: int
    metres: Mapping[str, int]
    keys: Mapping[str, int]
    source: str
    rights: str


def _counts(text: str) -> dict[str, int]:
    """From `G major 3, D major 2`."""
    items = (item.rpartition(" ") for item in text.split(", "))
    return {name: int(count) for name, _, count in items}


CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="ryans-mammoth",
            title="Ryan's Mammoth Collection: reels, hornpipes, jigs, strathspeys, clogs",
            folder="ryansMammoth",
            num_pieces=1059,
            metres=_counts("2/4 462, 2/2 301, 6/8 200, 4/4 54, 9/8 41, 12/8 1"),
            keys=_counts(
                "G major 295, D major 265, A major 157, Bb major 94, F major 65, C major 47, "
                "A minor 24, E minor 18, G minor 14, A dorian 13, D mixolydian 10, E dorian 10, "
                "E major 10, A mixolydian 8, Eb major 6, B minor 5, D minor 5, G lydian 4, "
                "E mixolydian 2, G mixolydian 2, B dorian 1, B phrygian 1, C dorian 1, "
                "D lydian 1, G dorian 1"
            ),
            source="Boston 1883; encoded by Ray Davies, John Chambers, Bob Puckette, John Walsh "
            "and others",
            rights="Names of the encoders; no licence.",
        ),
        Corpus(
            name="oneills",
            title="O'Neill's Music of Ireland: airs, jigs, reels, hornpipes, marches",
            folder="oneills1850",
            num_pieces=2009,
            metres=_counts(
                "6/8 662, 2/2 561, 4/4 243, 2/4 224, 3/4 217, 9/8 87, 3/8 8, 1/4 2, 12/8 2, "
                "1/2 1, 5/4 1, 6/4 1"
            ),
            keys=_counts(
                "G major 752, D major 546, A major 222, E minor 87, G minor 86, A minor 85, "
                "C major 63, D minor 44, F major 38, Bb major 20, D mixolydian 14, "
                "A mixolydian 11, B minor 8, A dorian 6, C minor 4, G mixolydian 4, D dorian 3, "
                "G dorian 3, B major 2, B phrygian 2, E dorian 2, A phrygian 1, D lydian 1, "
                "D phrygian 1, Eb major 1, F mixolydian 1, F# minor 1, G lydian 1"
            ),
            source="Chicago 1903, 1,850 melodies, some in two encodings; encoded by many hands, "
            "named tune by tune",
            rights="Names of the encoders; no licence.",
        ),
        Corpus(
            name="airds",
            title="Aird's Selection of Scotch, English, Irish and Foreign Airs",
            folder="airdsAirs",
            num_pieces=1180,
            metres=_counts(
                "4/4 378, 6/8 338, 2/4 241, 2/2 128, 3/4 50, 9/8 28, 3/8 9, 6/4 4, 12/8 3, 3/2 1"
            ),
            keys=_counts(
                "D major 455, G major 453, E minor 59, A mixolydian 38, A dorian 33, A minor 33, "
                "C major 25, B minor 22, A major 12, D mixolydian 10, E dorian 9, F major 9, "
                "D minor 5, G dorian 4, G minor 3, Bb major 2, D dorian 2, G lydian 2, "
                "G mixolydian 2"
            ),
            source="Glasgow, six volumes from 1778 on; encoded by Jack Campin, 2009",
            rights="Name of the encoder; no licence.",
        ),
        Corpus(
            name="bach-chorales",
            title="Bach's chorales in four parts, one track each",
            folder="bach",
            suffix=".mxl",
            num_parts=4,
            program=0,
            num_pieces=364,
            metres=_counts("4/4 328, 3/4 35, 3/2 1"),
            keys=_counts(
                "A minor 55, G major 36, A major 31, D minor 31, G minor 31, D major 27, "
                "B minor 26, Bb major 25, C major 25, E minor 25, F major 22, Eb major 11, "
                "E major 8, F# minor 6, C minor 3, Ab major 1, F minor 1"
            ),
            source="MusicXML of Margaret Greentree's edition, converted with music21",
            rights="Most files bear the line 'PDF © 2004 Margaret Greentree' (a few: 2003); "
            "no licence.",
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class CorpusFiles:
    """Where the files of a named corpus are, and where its readings are kept.

    Attributes:
        folder: Below which they lie.
        paths: In their order.
        cache: Folder for what was read, so that nothing is read twice.
    """

    corpus: Corpus
    folder: Path
    paths: list[str]
    cache: Path


def corpus_files(name: str) -> CorpusFiles:
    """The files of a named corpus.

    The cache is `$RNNGAN_CACHE`, or else `~/.cache/rnngan`.

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
    configured = os.environ.get("RNNGAN_CACHE")
    cache = Path(configured) if configured else Path.home() / ".cache" / "rnngan"
    return CorpusFiles(
        corpus=corpus,
        folder=folder,
        paths=find_files(folder, lambda name: name.endswith(corpus.suffix)),
        cache=cache / name,
    )


def _music21_folder() -> Path:
    """Where music21 lies; it is not imported.

    Raises:
        UserError: It is not installed.
    """
    spec = importlib.util.find_spec("music21")
    if spec is None or not spec.submodule_search_locations:
        raise UserError('named corpora lie in music21: pip install "rnngan[corpora]"')
    return Path(spec.submodule_search_locations[0])
