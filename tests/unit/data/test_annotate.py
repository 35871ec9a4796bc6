import numpy as np
import pytest

from rnngan.data.annotate import DERIVED_TAGS, annotated, notes_per_quarter
from rnngan.music.piece import DRUMS, NOTE, Piece


def chord(root, third, tags=None):
    return Piece.from_rows([(0, 96, root + p) for p in (0, third, 7, 12)], tags=tags or {})


def run(ticks, count=16, program=0):
    """Notes one after another, `ticks` long, after a bar of silence."""
    return Piece.from_rows(
        [(96 + ticks * i, 96 + ticks * (i + 1), 60, 64, program) for i in range(count)]
    )


@pytest.mark.parametrize(
    ("root", "third", "key"),
    [(60, 4, "C major"), (58, 4, "Bb major"), (57, 3, "A minor"), (61, 3, "C# minor")],
)
def test_key_and_mode_of_a_chord(root, third, key):
    tags = annotated(chord(root, third), DERIVED_TAGS).tags
    assert (tags["key"], tags["mode"]) == (key, key.split()[1])


def test_only_what_is_asked_for():
    assert dict(annotated(chord(60, 4), ("mode", "style")).tags) == {"mode": "major"}
    assert annotated(chord(60, 4), ()).tags == {}


def test_what_the_source_says_stands():
    said = {"key": "D dorian", "density": "thin", "style": "reel"}
    tags = annotated(chord(60, 4, said), DERIVED_TAGS).tags
    assert tags == {**said, "mode": "dorian"}


@pytest.mark.parametrize(
    ("ticks", "word"),
    [(24, "sparse"), (17, "sparse"), (16, "medium"), (12, "medium"), (8, "dense"), (6, "dense")],
)
@pytest.mark.parametrize("program", [0, DRUMS])
def test_density(ticks, word, program):
    piece = run(ticks, program=program)
    assert notes_per_quarter(piece) == pytest.approx(24 / ticks)
    assert annotated(piece, ("density",)).tags == {"density": word}


def test_what_cannot_be_worked_out_is_left_out():
    assert annotated(Piece(notes=np.empty(0, NOTE)), DERIVED_TAGS).tags == {}
    assert annotated(run(24, program=DRUMS), DERIVED_TAGS).tags == {"density": "sparse"}
