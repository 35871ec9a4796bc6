import numpy as np
import pytest

from rnngan.music.keys import estimated_key
from rnngan.music.piece import DRUMS, NOTE, Piece


def cadence(root, third):
    """I IV V I with a long tonic; `third` is 4 in major, 3 in minor (with a major V)."""
    chords = [(0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7, 12)]
    rows = [(24 * i, 24 * i + 24, 48 + root + p) for i, c in enumerate(chords) for p in c]
    return Piece.from_rows([*rows, *((96, 192, 48 + root + p) for p in (0, third, 7))])


@pytest.mark.parametrize("root", range(12))
@pytest.mark.parametrize(("third", "mode"), [(4, "major"), (3, "minor")])
def test_key_of_a_cadence(root, third, mode):
    assert estimated_key(cadence(root, third)) == (root, mode)


def test_key_agrees_with_music21():
    stream = pytest.importorskip("music21.stream")
    note = pytest.importorskip("music21.note")
    rng = np.random.default_rng(3)
    names = ("C", "C#", "D", "E-", "E", "F", "F#", "G", "G#", "A", "B-", "B")
    for _ in range(10):
        pitches = rng.choice(12, 8, p=rng.dirichlet(np.ones(12)))
        lengths = rng.integers(1, 5, 8)
        score = stream.Stream()
        for pitch, length in zip(pitches, lengths, strict=True):
            score.append(note.Note(names[pitch], quarterLength=int(length)))
        ends = np.cumsum(lengths) * 24
        starts = ends - lengths * 24
        piece = Piece.from_rows(zip(starts, ends, pitches + 60, strict=True))
        key = score.analyze("key.krumhanslkessler")
        assert estimated_key(piece) == (key.tonic.pitchClass, key.mode)


@pytest.mark.parametrize(
    "piece",
    [
        Piece(notes=np.empty(0, NOTE)),
        Piece.from_rows([(0, 24, 36, 64, DRUMS)]),
        Piece.from_rows([(24 * i, 24 * i + 24, 60 + i) for i in range(12)]),
    ],
    ids=["empty", "drums", "chromatic"],
)
def test_no_key(piece):
    assert estimated_key(piece) is None


def test_drums_change_no_key():
    piece = cadence(2, 4)
    drums = [(0, 960, 37 + p, 64, DRUMS, 1) for p in range(7)]
    assert estimated_key(Piece.from_rows([*piece.notes.tolist(), *drums])) == (2, "major")
