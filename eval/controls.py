"""Real music spoilt in known ways, so that a reader sees how each metric reacts.

A control changes one thing and leaves the rest of a piece alone: metres, tempos, tags, velocities,
and the drums, except where their onsets move too. `EXPECTED` says which features then stay as they
are, `REACTING` which must not.

Notes of a control may coincide or overlap on one pitch, which a MIDI file cannot hold: measure the
pieces as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eval.features import FEATURES
from rnngan.music.piece import DRUMS, TICKS_PER_QUARTER, Piece

Control: TypeAlias = Callable[[Piece, np.random.Generator], Piece]

WIDEST_SEMITONES = 6
JITTER_SECONDS = 0.03


def identity(piece: Piece, rng: np.random.Generator) -> Piece:  # noqa: ARG001
    """The piece as it is: nothing may react."""
    return piece


def transposed(piece: Piece, rng: np.random.Generator) -> Piece:
    """All but the drums moved by one interval of 1 to 6 semitones, up or down.

    As far as MIDI pitches allow; where they allow none, the piece as it is. What counts absolute
    pitches reacts, and nothing else: neither rhythm nor intervals, harmony and texture.
    """
    pitches = piece.pitched["pitch"]
    if not len(pitches):
        return piece
    lowest, highest = int(pitches.min()), int(pitches.max())
    intervals = [
        interval
        for interval in range(-WIDEST_SEMITONES, WIDEST_SEMITONES + 1)
        if interval and lowest + interval >= 0 and highest + interval <= 127
    ]
    return piece.transposed(int(rng.choice(intervals))) if intervals else piece


def shuffled_notes(piece: Piece, rng: np.random.Generator) -> Piece:
    """Pitches dealt out anew among all notes but the drums.

    Melody, harmony and repetition react; neither rhythm nor what counts the pitches of the notes.
    """
    return _with_pitches(piece, rng.permutation(piece.pitched["pitch"]))


def random_pitches(piece: Piece, rng: np.random.Generator) -> Piece:
    """Pitches drawn evenly from the lowest to the highest of the piece, for all but the drums.

    All that looks at pitches reacts; rhythm does not.
    """
    pitches = piece.pitched["pitch"]
    if not len(pitches):
        return piece
    lowest, highest = int(pitches.min()), int(pitches.max())
    return _with_pitches(piece, rng.integers(lowest, highest, len(pitches), endpoint=True))


def jittered_onsets(piece: Piece, rng: np.random.Generator) -> Piece:
    """Each note, of the drums too, moved by itself and put on the tick grid; none before tick 0.

    By a normal deviate of 30 ms at the tempo of its onset, at slow tempos of one tick. Lengths
    stay. All that looks at onsets reacts; neither pitches nor lengths as such.
    """
    notes = piece.notes.copy()
    changes = np.array([tempo.tick for tempo in piece.tempos])
    paces = np.array([tempo.quarters_per_minute for tempo in piece.tempos]) * TICKS_PER_QUARTER / 60
    pace = paces[np.searchsorted(changes, notes["start"], side="right") - 1]
    moves = np.rint(rng.normal(0, np.maximum(JITTER_SECONDS * pace, 1))).astype(np.int64)
    lengths = notes["end"] - notes["start"]
    notes["start"] = np.maximum(notes["start"] + moves, 0)
    notes["end"] = notes["start"] + lengths
    return replace(piece, notes=notes)


CONTROLS: dict[str, Control] = {
    control.__name__: control
    for control in (identity, transposed, shuffled_notes, random_pitches, jittered_onsets)
}
"""Every control by name, the mildest first."""

_RHYTHM = frozenset(
    {
        "drum_pattern_rate",
        "empty_bar_rate",
        "empty_beat_rate",
        "groove",
        "inter_onset_interval_histogram",
        "inter_onset_interval_mean",
        "note_count",
        "note_density",
        "note_length_histogram",
        "qualified_note_rate",
        "swing_ratio",
        "syncopation",
    }
)

EXPECTED: dict[str, frozenset[str]] = {
    "identity": frozenset(feature.base_name for feature in FEATURES.values()),
    "transposed": _RHYTHM
    | {
        "distinct",
        "interval_histogram",
        "note_length_transitions",
        "pitch_class_count",
        "pitch_class_entropy",
        "pitch_count",
        "pitch_entropy",
        "pitch_interval_mean",
        "pitch_range",
        "polyphony",
        "polyphony_rate",
        "repetition",
        "scale_consistency",
        "tonal_distance",
    },
    "shuffled_notes": _RHYTHM
    | {
        "pitch_class_histogram[count]",
        "pitch_count",
        "pitch_entropy",
        "pitch_histogram[count]",
        "pitch_range",
        "scale_consistency",
    },
    "random_pitches": _RHYTHM,
    "jittered_onsets": frozenset(
        {
            "note_count",
            "pitch_class_histogram",
            "pitch_count",
            "pitch_entropy",
            "pitch_histogram",
            "pitch_range",
            "qualified_note_rate",
            "scale_consistency",
        }
    ),
}
"""Features that each control leaves as they are in any piece: base names, or one variant."""

REACTING: dict[str, frozenset[str]] = {
    "identity": frozenset(),
    "transposed": frozenset({"pitch_class_histogram", "pitch_histogram"}),
    "shuffled_notes": frozenset({"distinct", "pitch_class_entropy[1]", "pitch_class_transitions"}),
    "random_pitches": frozenset(
        {
            "distinct",
            "out_of_key_rate",
            "pitch_class_histogram",
            "pitch_class_transitions",
            "pitch_entropy",
            "pitch_histogram",
            "scale_consistency",
        }
    ),
    "jittered_onsets": frozenset({"groove", "inter_onset_interval_histogram", "syncopation"}),
}
"""Features that each control changes in nearly every piece of some length; names likewise."""


def controls_of(pieces: Iterable[Piece], seed: int) -> dict[str, tuple[Piece, ...]]:
    """Every control of every piece, by the names and in the order of `CONTROLS`."""
    pieces = tuple(pieces)
    found = {}
    for number, (name, control) in enumerate(CONTROLS.items()):
        rng = np.random.default_rng((seed, number))
        found[name] = tuple(control(piece, rng) for piece in pieces)
    return found


def _with_pitches(piece: Piece, pitches: NDArray[Any]) -> Piece:
    """The piece with other pitches, in the order of `Piece.pitched`."""
    notes = piece.notes.copy()
    notes["pitch"][notes["program"] != DRUMS] = pitches
    return replace(piece, notes=notes)
