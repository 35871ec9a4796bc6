"""Hand-worked values of every feature on small pieces, and what must not change them.

`EXPECTED` has a row for each feature with a value for each of `PIECES`, in their order: a number,
the bins of a histogram that are not 0, or NaN where the feature is undefined. `TOOLS` holds what
other tools are recorded to print instead, or what follows from the mistake that they are recorded
to make. All of it comes from pencil and paper, none from the code under test.
"""

import math
from typing import Literal, NamedTuple

from rnngan.music.piece import DRUMS, Metre, Piece, Tempo

Value = float | dict[str, float]

NAN = math.nan
LOG3 = math.log2(3)
LOG7 = math.log2(7)


def in_a_row(*pitches, length=24, track=0):
    """Notes of one length one after the other; None is a rest."""
    return [
        (length * i, length * i + length, pitch, 64, 0, track)
        for i, pitch in enumerate(pitches)
        if pitch is not None
    ]


C3, G3, C4, D4, E4, F4, G4, A4, B4, C5, E5 = 48, 55, 60, 62, 64, 65, 67, 69, 71, 72, 76
BAR_OF_C, SILENT_BAR = [C4] * 4, [None] * 4

PIECES = {
    # 8 beats, 8 s: C D E F | C D E F
    "two identical bars": Piece.from_rows(
        in_a_row(C4, D4, E4, F4, C4, D4, E4, F4), tempos=(Tempo(0, 60),)
    ),
    "a held dyad": Piece.from_rows([(0, 96, C4), (0, 96, E4)]),
    # 28 quarters on C; 32 beats, 16 s; beats 13 to 16 are silent
    "one silent bar of eight": Piece.from_rows(in_a_row(*BAR_OF_C * 3, *SILENT_BAR, *BAR_OF_C * 4)),
    # on the eighths, on a 16th between them, a tick late, on the eighths; the second beat ends it
    "drums alone": Piece.from_rows([(t, t + 6, 36, 64, DRUMS) for t in (0, 6, 13, 24)]),
    "no notes": Piece.from_rows([]),
    "one note": Piece.from_rows(in_a_row(C4)),
    # C D E on every beat
    "a triplet bar": Piece.from_rows(in_a_row(*[C4, D4, E4] * 4, length=8)),
    # 4/4 C D E F | 3/4 G A B; 7 beats, 3.5 s
    "a metre change": Piece.from_rows(
        in_a_row(C4, D4, E4, F4, G4, A4, B4), metres=(Metre(0, 4, 4), Metre(96, 3, 4))
    ),
    # quarter G | half C (half as loud), quarter E | dotted half G; 7 beats, 3.5 s
    "a pickup bar": Piece.from_rows(
        [(0, 24, G4, 64), (24, 72, C5, 32), (72, 96, E5, 64), (96, 168, G4, 64)],
        metres=(Metre(0, 1, 4), Metre(24, 3, 4)),
    ),
    # C C over G C: a fifth, then an octave
    "two tracks": Piece.from_rows(in_a_row(C4, C4) + in_a_row(G3, C3, track=1)),
    "a swung bar": Piece.from_rows(
        [row for t in (0, 24, 48, 72) for row in [(t, t + 16, C4), (t + 16, t + 24, C4)]]
    ),
}


def bins(*names, share=None):
    """Bins of equal share; 1 over their number unless told."""
    return dict.fromkeys(names, 1 / len(names) if share is None else share)


SCALE_CDEFGAB = bins("C->D", "D->E", "E->F", "F->G", "G->A", "A->B")
ONE_C = {"C": 1}
ONE_C4 = {"C4": 1}
C_TO_C = {"C->C": 1}
TWO_BARS_ROWS = bins("C->D", "D->E", "E->F", "F->C")
TWO_BARS_PAIRS = {"C->D": 2 / 7, "D->E": 2 / 7, "E->F": 2 / 7, "F->C": 1 / 7}
TRIPLET_ROWS = bins("C->D", "D->E", "E->C")
TRIPLET_PAIRS = {"C->D": 4 / 11, "D->E": 4 / 11, "E->C": 3 / 11}
PICKUP_PAIRS = bins("G->C", "C->E", "E->G")
TRACK_PAIRS = bins("C->C", "G->C")
QUARTERS, WHOLES, TRIPLETS = {"quarter": 1}, {"whole": 1}, {"eighth triplet": 1}
SWUNG = bins("quarter triplet", "eighth triplet")
PICKUP_LENGTHS = {"quarter": 1 / 2, "half": 1 / 4, "dotted half": 1 / 4}
QUARTER_PAIRS = {"quarter->quarter": 1}
WHOLE_PAIRS = {"whole->whole": 1}
TRIPLET_LENGTH_PAIRS = {"eighth triplet->eighth triplet": 1}
# C three quarters of the time, G one: 3/4 log2 4/3 + 1/4 log2 4
C_OVER_G = 2 - 0.75 * LOG3
# 27 intervals: 26 of a beat, one of 5 beats over the silent bar
SILENT_BEATS = {"1": 26 / 27, "4": 1 / 27}
SILENT_SECONDS = {"0.5": 26 / 27, "2.5": 1 / 27}
# On the circles of fifths, minor thirds and major thirds a fifth spans 30°, 90° and 120°.
FIFTH = math.sqrt((2 * math.sin(math.radians(15))) ** 2 + 2 + 0.75)

# fmt: off
EXPECTED: dict[str, tuple[Value, ...]] = {
    # in the order of PIECES:
    #   two bars, dyad, silent bar, drums, nothing, one note,
    #   triplets, metre change, pickup, two tracks, swing
    "pitch_count": (4, 2, 1, 0, 0, 1, 3, 7, 3, 3, 1),
    "pitch_class_count": (4, 2, 1, 0, 0, 1, 3, 7, 3, 2, 1),
    # seven bars of one and a silent one; 4 and 3; 1, 2 and 1
    "pitch_class_count[bar]": (4, 2, 7 / 8, 0, NAN, 1, 3, 7 / 2, 4 / 3, 2, 1),
    "pitch_range": (5, 4, 0, NAN, NAN, 0, 4, 11, 9, 12, 0),
    # the pickup: shares 1/2, 1/4, 1/4
    "pitch_entropy": (2, 1, 0, NAN, NAN, 0, LOG3, LOG7, 1.5, 1.5, 0),
    "pitch_histogram[count]": (
        bins("C4", "D4", "E4", "F4"), bins("C4", "E4"), ONE_C4, NAN, NAN, ONE_C4,
        bins("C4", "D4", "E4"), bins("C4", "D4", "E4", "F4", "G4", "A4", "B4"),
        {"G4": 1 / 2, "C5": 1 / 4, "E5": 1 / 4}, {"C4": 1 / 2, "G3": 1 / 4, "C3": 1 / 4}, ONE_C4,
    ),
    # the pickup: 4, 2 and 1 of 7 quarters
    "pitch_histogram[duration]": (
        bins("C4", "D4", "E4", "F4"), bins("C4", "E4"), ONE_C4, NAN, NAN, ONE_C4,
        bins("C4", "D4", "E4"), bins("C4", "D4", "E4", "F4", "G4", "A4", "B4"),
        {"G4": 4 / 7, "C5": 2 / 7, "E5": 1 / 7}, {"C4": 1 / 2, "G3": 1 / 4, "C3": 1 / 4}, ONE_C4,
    ),
    # the pickup: the half note counts half, so 4, 1 and 1 of 6
    "pitch_histogram[duration*velocity]": (
        bins("C4", "D4", "E4", "F4"), bins("C4", "E4"), ONE_C4, NAN, NAN, ONE_C4,
        bins("C4", "D4", "E4"), bins("C4", "D4", "E4", "F4", "G4", "A4", "B4"),
        {"G4": 4 / 6, "C5": 1 / 6, "E5": 1 / 6}, {"C4": 1 / 2, "G3": 1 / 4, "C3": 1 / 4}, ONE_C4,
    ),
    "pitch_class_histogram[count]": (
        bins("C", "D", "E", "F"), bins("C", "E"), ONE_C, NAN, NAN, ONE_C, bins("C", "D", "E"),
        bins("C", "D", "E", "F", "G", "A", "B"), {"G": 1 / 2, "C": 1 / 4, "E": 1 / 4},
        {"C": 3 / 4, "G": 1 / 4}, ONE_C,
    ),
    "pitch_class_histogram[duration]": (
        bins("C", "D", "E", "F"), bins("C", "E"), ONE_C, NAN, NAN, ONE_C, bins("C", "D", "E"),
        bins("C", "D", "E", "F", "G", "A", "B"), {"G": 4 / 7, "C": 2 / 7, "E": 1 / 7},
        {"C": 3 / 4, "G": 1 / 4}, ONE_C,
    ),
    "pitch_class_histogram[duration*velocity]": (
        bins("C", "D", "E", "F"), bins("C", "E"), ONE_C, NAN, NAN, ONE_C, bins("C", "D", "E"),
        bins("C", "D", "E", "F", "G", "A", "B"), {"G": 4 / 6, "C": 1 / 6, "E": 1 / 6},
        {"C": 3 / 4, "G": 1 / 4}, ONE_C,
    ),
    "pitch_class_entropy": (2, 1, 0, NAN, NAN, 0, LOG3, LOG7, 1.5, C_OVER_G, 0),
    # four and three classes; 0, 1 and 0 bits
    "pitch_class_entropy[1]": (2, 1, 0, NAN, NAN, 0, LOG3, (2 + LOG3) / 2, 1 / 3, C_OVER_G, 0),
    # all but the silent bar are shorter than the window, which is then the piece
    "pitch_class_entropy[4]": (2, 1, 0, NAN, NAN, 0, LOG3, LOG7, 1.5, C_OVER_G, 0),
    # the dyad and its end touch nothing; all other notes meet
    "pitch_class_transitions[50ms]": (
        TWO_BARS_PAIRS, NAN, C_TO_C, NAN, NAN, NAN, TRIPLET_PAIRS, SCALE_CDEFGAB, PICKUP_PAIRS,
        TRACK_PAIRS, C_TO_C,
    ),
    "pitch_class_transitions[50ms,row]": (
        TWO_BARS_ROWS, NAN, C_TO_C, NAN, NAN, NAN, TRIPLET_ROWS, SCALE_CDEFGAB, PICKUP_PAIRS,
        TRACK_PAIRS, C_TO_C,
    ),
    # of notes that begin together the lower comes first
    "pitch_class_transitions[successive]": (
        TWO_BARS_PAIRS, {"C->E": 1}, C_TO_C, NAN, NAN, NAN, TRIPLET_PAIRS, SCALE_CDEFGAB,
        PICKUP_PAIRS, TRACK_PAIRS, C_TO_C,
    ),
    "pitch_class_transitions[successive,row]": (
        TWO_BARS_ROWS, {"C->E": 1}, C_TO_C, NAN, NAN, NAN, TRIPLET_ROWS, SCALE_CDEFGAB,
        PICKUP_PAIRS, TRACK_PAIRS, C_TO_C,
    ),
    # (2+2+1+5+2+2+1)/7; no melody in a dyad; (8×2 + 3×4)/11; 11/6; (5+4+9)/3; (0+7)/2
    "pitch_interval_mean": (
        15 / 7, NAN, 0, NAN, NAN, NAN, 28 / 11, 11 / 6, 6, 3.5, 0
    ),
    "interval_histogram": (
        {"+2": 4 / 7, "+1": 2 / 7, "-5": 1 / 7}, NAN, {"+0": 1}, NAN, NAN, NAN,
        {"+2": 8 / 11, "-4": 3 / 11}, {"+2": 5 / 6, "+1": 1 / 6}, bins("+5", "+4", "-9"),
        bins("+0", "-7"), {"+0": 1},
    ),
    "note_count": (8, 2, 28, 0, 0, 1, 12, 7, 4, 4, 8),
    "note_density[bar]": (4, 2, 28 / 8, 0, NAN, 1, 12, 7 / 2, 4 / 3, 4, 8),
    "note_density[beat]": (1, 1 / 2, 28 / 32, 0, NAN, 1, 3, 1, 4 / 7, 2, 2),
    "note_density[second]": (1, 1, 28 / 16, 0, NAN, 2, 6, 2, 8 / 7, 4, 4),
    # from the first onset to the last: 31 beats, 27 intervals; 4 beats, 3; 88 ticks, 7
    "inter_onset_interval_mean[beats]": (
        1, NAN, 31 / 27, NAN, NAN, NAN, 1 / 3, 1, 4 / 3, 1, 11 / 21
    ),
    "inter_onset_interval_mean[seconds]": (
        1, NAN, 31 / 54, NAN, NAN, NAN, 1 / 6, 1 / 2, 2 / 3, 1 / 2, 11 / 42
    ),
    # notes that begin together: 0 for the dyad; 0, 1, 0 beats for the tracks
    "inter_onset_interval_mean[beats,raw]": (
        1, 0, 31 / 27, NAN, NAN, NAN, 1 / 3, 1, 4 / 3, 1 / 3, 11 / 21
    ),
    "inter_onset_interval_mean[seconds,raw]": (
        1, 0, 31 / 54, NAN, NAN, NAN, 1 / 6, 1 / 2, 2 / 3, 1 / 6, 11 / 42
    ),
    "inter_onset_interval_histogram[beats]": (
        {"1": 1}, NAN, SILENT_BEATS, NAN, NAN, NAN, {"0.333": 1}, {"1": 1},
        {"1": 2 / 3, "2": 1 / 3}, {"1": 1}, {"0.667": 4 / 7, "0.333": 3 / 7},
    ),
    # 167 ms lies nearest to 0.15 s, 333 ms to 0.35 s
    "inter_onset_interval_histogram[seconds]": (
        {"1": 1}, NAN, SILENT_SECONDS, NAN, NAN, NAN, {"0.15": 1}, {"0.5": 1},
        {"0.5": 2 / 3, "1": 1 / 3}, {"0.5": 1}, {"0.35": 4 / 7, "0.15": 3 / 7},
    ),
    "inter_onset_interval_histogram[beats,raw]": (
        {"1": 1}, {"0": 1}, SILENT_BEATS, NAN, NAN, NAN, {"0.333": 1}, {"1": 1},
        {"1": 2 / 3, "2": 1 / 3}, {"0": 2 / 3, "1": 1 / 3}, {"0.667": 4 / 7, "0.333": 3 / 7},
    ),
    "inter_onset_interval_histogram[seconds,raw]": (
        {"1": 1}, {"0": 1}, SILENT_SECONDS, NAN, NAN, NAN, {"0.15": 1}, {"0.5": 1},
        {"0.5": 2 / 3, "1": 1 / 3}, {"0": 2 / 3, "0.5": 1 / 3}, {"0.35": 4 / 7, "0.15": 3 / 7},
    ),
    "note_length_histogram": (
        QUARTERS, WHOLES, QUARTERS, NAN, NAN, QUARTERS, TRIPLETS, QUARTERS, PICKUP_LENGTHS,
        QUARTERS, SWUNG,
    ),
    # in 3/4 a quarter is a third of the bar, a half note two thirds (nearest to 3/4), a dotted
    # half all of it; the pickup fills its bar
    "note_length_histogram[bar]": (
        QUARTERS, WHOLES, QUARTERS, NAN, NAN, QUARTERS, TRIPLETS,
        {"quarter": 4 / 7, "half triplet": 3 / 7},
        {"whole": 1 / 2, "dotted half": 1 / 4, "half triplet": 1 / 4}, QUARTERS, SWUNG,
    ),
    "note_length_histogram[24]": (
        QUARTERS, WHOLES, {"quarter": 28 / 29, "whole rest": 1 / 29}, NAN, NAN, QUARTERS, TRIPLETS,
        QUARTERS, PICKUP_LENGTHS, QUARTERS, SWUNG,
    ),
    "note_length_transitions": (
        QUARTER_PAIRS, WHOLE_PAIRS, QUARTER_PAIRS, NAN, NAN, NAN, TRIPLET_LENGTH_PAIRS,
        QUARTER_PAIRS, bins("quarter->half", "half->quarter", "quarter->dotted half"),
        QUARTER_PAIRS,
        {"quarter triplet->eighth triplet": 4 / 7, "eighth triplet->quarter triplet": 3 / 7},
    ),
    # the pickup: two rows, quarters going two ways
    "note_length_transitions[row]": (
        QUARTER_PAIRS, WHOLE_PAIRS, QUARTER_PAIRS, NAN, NAN, NAN, TRIPLET_LENGTH_PAIRS,
        QUARTER_PAIRS,
        {"quarter->half": 1 / 4, "quarter->dotted half": 1 / 4, "half->quarter": 1 / 2},
        QUARTER_PAIRS,
        bins("quarter triplet->eighth triplet", "eighth triplet->quarter triplet"),
    ),
    "qualified_note_rate": (1, 1, 1, NAN, NAN, 1, 1, 1, 1, 1, 1),
    # silent bar: 7 of 28 pairs differ in 4 steps; metre change: steps 0 16 32 48 against 0 21 42;
    # pickup: step 42 has an onset in one bar of three
    "groove[q=64,pairs=all]": (
        1, NAN, 1 - 1 / 64, NAN, NAN, NAN, NAN, 1 - 5 / 64, 1 - 2 / 3 / 64, NAN, NAN
    ),
    # silent bar: 2 of 7 pairs
    "groove[q=64,pairs=adjacent]": (
        1, NAN, 1 - 8 / 7 / 64, NAN, NAN, NAN, NAN, 1 - 5 / 64, 1 - 1 / 64, NAN, NAN
    ),
    # weights 1, 1, 0.1, 1
    "drum_pattern_rate": (NAN, NAN, NAN, 3.1 / 4, NAN, NAN, NAN, NAN, NAN, NAN, NAN),
    # weights 1, 0, 0.1, 1
    "drum_pattern_rate[8]": (NAN, NAN, NAN, 2.1 / 4, NAN, NAN, NAN, NAN, NAN, NAN, NAN),
    # the third and fourth beats before the silent bar both lead to its bar line
    "syncopation": (0, 0, 2 / 28, NAN, NAN, 0, 0, 0, 0, 0, 0),
    "swing_ratio": (NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, 2),
    # everything here is in C major
    "scale_consistency": (1, 1, 1, NAN, NAN, 1, 1, 1, 1, 1, 1),
    "scale_consistency[harmonic]": (1, 1, 1, NAN, NAN, 1, 1, 1, 1, 1, 1),
    "pitch_in_scale_rate[estimated]": (1, 1, 1, NAN, NAN, 1, 1, 1, 1, 1, 1),
    "out_of_key_rate": (0, 0, 0, NAN, NAN, 0, 0, 0, 0, 0, 0),
    "out_of_key_rate[harmonic]": (0, 0, 0, NAN, NAN, 0, 0, 0, 0, 0, 0),
    # a fifth in one beat, nothing in the other
    "tonal_distance": (NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, FIFTH / 2, NAN),
    # chords C D E F C D E F: 4 of 6 trigrams; C D E F G A B: 5 of 5; G C E G: 2 of 2;
    # C major all through the others: in the triplets C and E outweigh any other triad, and G C
    # under C C is C major twice
    "chord_irregularity": (4 / 6, NAN, NAN, NAN, NAN, NAN, NAN, 1, 1, NAN, NAN),
    "polyphony": (1, 2, 1, NAN, NAN, 1, 1, 1, 1, 2, 1),
    "polyphony_rate[k=2]": (0, 1, 0, NAN, NAN, 0, 0, 0, 0, 1, 0),
    "empty_beat_rate": (0, 0, 4 / 32, 1, NAN, 0, 0, 0, 0, 0, 0),
    "empty_bar_rate": (0, 0, 1 / 8, 1, NAN, 0, 0, 0, 0, 0, 0),
    # two bars abcdabcd; silent bar 28 times a: g = 29 − n n-grams, of which
    # (g − n)(g − n + 1) / 2 pairs do not overlap; triplets abcabcabcabc; swing 8 times a
    "repetition[n=2]": (3, 0, 325, 0, 0, 0, 6 + 6 + 3, 0, 0, 0, 15),
    "repetition[n=3]": (2, 0, 276, 0, 0, 0, 6 + 3 + 3, 0, 0, 0, 6),
    "repetition[n=4]": (1, 0, 231, 0, 0, 0, 3, 0, 0, 0, 1),
    "repetition[n=5]": (0, 0, 190, 0, 0, 0, 2, 0, 0, 0, 0),
    "repetition[n=6]": (0, 0, 153, 0, 0, 0, 1, 0, 0, 0, 0),
    "repetition[n=7]": (0, 0, 120, 0, 0, 0, 0, 0, 0, 0, 0),
    "repetition[n=8]": (0, 0, 91, 0, 0, 0, 0, 0, 0, 0, 0),
    "repetition[n=9]": (0, 0, 66, 0, 0, 0, 0, 0, 0, 0, 0),
    "distinct[n=2]": (4 / 7, 1, 1 / 27, NAN, NAN, NAN, 3 / 11, 1, 1, 1, 1 / 7),
    "distinct[n=3]": (4 / 6, NAN, 1 / 26, NAN, NAN, NAN, 3 / 10, 1, 1, NAN, 1 / 6),
    "distinct[n=4]": (4 / 5, NAN, 1 / 25, NAN, NAN, NAN, 3 / 9, 1, 1, NAN, 1 / 5),
    "distinct[n=5]": (1, NAN, 1 / 24, NAN, NAN, NAN, 3 / 8, 1, NAN, NAN, 1 / 4),
    "distinct[n=6]": (1, NAN, 1 / 23, NAN, NAN, NAN, 3 / 7, 1, NAN, NAN, 1 / 3),
    "distinct[n=7]": (1, NAN, 1 / 22, NAN, NAN, NAN, 3 / 6, 1, NAN, NAN, 1 / 2),
    "distinct[n=8]": (1, NAN, 1 / 21, NAN, NAN, NAN, 3 / 5, NAN, NAN, NAN, 1),
    "distinct[n=9]": (NAN, NAN, 1 / 20, NAN, NAN, NAN, 3 / 4, NAN, NAN, NAN, NAN),
    # two bars: the 4 s bar comes twice: (8 − 4) / 8 close, (8 − 4) / 8 covered.
    # silent bar: 3 s (6 beats) fit twice into the 12 beats before it and twice into the 16 after:
    # (24 − 6) / 24 close, (24 − 6) / 32 covered, so 9/14. Metre change and pickup: 3 s are longer
    # than half the piece
    "structure[3-8 s]": (1 / 2, NAN, 9 / 14, NAN, NAN, NAN, NAN, 0, 0, NAN, NAN),
    # silent bar: 16 beats, the last 16 on themselves (16) and on the first (12, less 2 for each
    # of 4 silent ones): (20 − 16) / 32 close, (32 − 16) / 32 covered
    "structure[8-15 s]": (0, NAN, 1 / 5, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN),
    "structure[15+ s]": (NAN, NAN, 0, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN),
}
# fmt: on


class Recorded(NamedTuple):
    """What another tool was seen to print for a feature of a piece.

    Attributes:
        truth: The right value.
        says: The tool's; None where it raises.
        why: What it does instead.
    """

    tool: str
    feature: str
    music: str
    piece: Piece
    truth: Value
    says: Value | None
    why: str


MUSPY, PYPIANOROLL, CRNNGAN, MGEVAL = "MusPy 0.5.0", "Pypianoroll 1.0.4", "C-RNN-GAN", "mgeval"

MUSPY_POLYPHONY_RATE_OF_A_DYAD = 0.0
MUSPY_GROOVE_OF_EQUAL_BARS = 0.979
MUSPY_EMPTY_BARS_OF_EIGHT = 0.0
MUSPY_RANGE_OF_DRUMS = -127.0
PYPIANOROLL_CLASSES_OF_OCTAVES = 4.0
PYPIANOROLL_EMPTY_BEATS = 7 / 8
CRNNGAN_D_MAJOR = 0.857
MGEVAL_IOI_OF_TRIADS = 0.2
MGEVAL_IOI_WITH_DRUMS = 0.5
MGEVAL_LENGTH_OF_QUARTERS = {"half": 1.0}
GROOVES_OF_BWV_66_6 = {
    "MusPy 0.5.0 at 10080 ticks": 0.9999,
    "MusPy 0.5.0 at 24 ticks": 0.9757,
    "MusDr": 0.9731,
    "smg-metrics 5.4.3": 0.9608,
}
"""Of one chorale. The last two are right, each for its own idea of the first bar: MusDr's begins
with the upbeat, smg's has it at its end."""


def _on_piece(tool, feature, music, says, why):
    """A record on one of `PIECES`."""
    truth = EXPECTED[feature][[*PIECES].index(music)]
    return Recorded(tool, feature, music, PIECES[music], truth, says, why)


# fmt: off
TOOLS = [
    _on_piece(
        MUSPY, "polyphony_rate[k=2]", "a held dyad", MUSPY_POLYPHONY_RATE_OF_A_DYAD,
        "asks for more than two pitches",
    ),
    _on_piece(
        MUSPY, "groove[q=64,pairs=all]", "two identical bars", MUSPY_GROOVE_OF_EQUAL_BARS,
        "two identical bars are less than 1",
    ),
    _on_piece(
        MUSPY, "empty_bar_rate", "one silent bar of eight", MUSPY_EMPTY_BARS_OF_EIGHT,
        "a note that ends on a bar line fills the next bar",
    ),
    _on_piece(
        MUSPY, "pitch_range", "drums alone", MUSPY_RANGE_OF_DRUMS, "subtracts limits never reached",
    ),
    _on_piece(MUSPY, "polyphony", "no notes", None, "raises without notes"),
    Recorded(
        PYPIANOROLL, "pitch_class_count", "three octaves",
        Piece.from_rows(in_a_row(60, 72, 84)),
        1, PYPIANOROLL_CLASSES_OF_OCTAVES, "takes octaves for other pitch classes",
    ),
    _on_piece(
        PYPIANOROLL, "empty_beat_rate", "one silent bar of eight", PYPIANOROLL_EMPTY_BEATS,
        "gives the share of beats that are not empty",
    ),
    _on_piece(PYPIANOROLL, "qualified_note_rate", "one note", None, "raises"),
    _on_piece(PYPIANOROLL, "tonal_distance", "two tracks", None, "raises"),
    Recorded(
        CRNNGAN, "scale_consistency", "an exact D major scale",
        Piece.from_rows(in_a_row(62, 64, 66, 67, 69, 71, 73)),
        1, CRNNGAN_D_MAJOR, "does not fold the octaves",
    ),
    Recorded(
        MGEVAL, "inter_onset_interval_mean[beats]", "two triads a beat apart",
        Piece.from_rows([(t, t + 24, p) for t in (0, 24) for p in (60, 64, 67)]),
        1, MGEVAL_IOI_OF_TRIADS, "notes that begin together are 0 apart",
    ),
    Recorded(
        MGEVAL, "inter_onset_interval_mean[beats]", "two quarters and a drum between them",
        Piece.from_rows([*in_a_row(60, 60), (12, 18, 36, 64, DRUMS)]),
        1, MGEVAL_IOI_WITH_DRUMS, "counts the drums",
    ),
    Recorded(
        MGEVAL, "note_length_histogram", "quarters in 2/4",
        Piece.from_rows(in_a_row(60, 60, 60), metres=(Metre(0, 2, 4),)),
        {"quarter": 1}, MGEVAL_LENGTH_OF_QUARTERS, "misses the metre where track 1 holds it",
    ),
]
# fmt: on


class Keeps(NamedTuple):
    """What a feature does when the music changes in a way that should not matter; see `KEEPS`.

    Attributes:
        transposition: `same`; `same, if the key is clear` (of keys that fit equally well the first
            in the alphabet is taken); `moved` along by so many bins; `moved both ways` in a 12 × 12
            matrix.
        tempo: Whether the tempo has no say.
        tracks: Whether it is no matter which track plays which note.
    """

    transposition: Literal["same", "same, if the key is clear", "moved", "moved both ways"] = "same"
    tempo: bool = True
    tracks: bool = True


ALWAYS = Keeps()
IN_A_TRACK = Keeps(tracks=False)
IN_SECONDS = Keeps(tempo=False)

KEEPS = {
    "pitch_count": ALWAYS,
    "pitch_class_count": ALWAYS,
    "pitch_range": ALWAYS,
    "pitch_entropy": ALWAYS,
    "pitch_histogram": Keeps(transposition="moved"),
    "pitch_class_histogram": Keeps(transposition="moved"),
    "pitch_class_entropy": ALWAYS,
    "pitch_class_transitions[50ms]": Keeps("moved both ways", tempo=False, tracks=False),
    "pitch_class_transitions[50ms,row]": Keeps("moved both ways", tempo=False, tracks=False),
    "pitch_class_transitions[successive]": Keeps("moved both ways", tracks=False),
    "pitch_class_transitions[successive,row]": Keeps("moved both ways", tracks=False),
    "pitch_interval_mean": IN_A_TRACK,
    "interval_histogram": IN_A_TRACK,
    "note_count": ALWAYS,
    "note_density": ALWAYS,
    "note_density[second]": IN_SECONDS,
    "inter_onset_interval_mean[beats]": ALWAYS,
    "inter_onset_interval_mean[beats,raw]": ALWAYS,
    "inter_onset_interval_mean[seconds]": IN_SECONDS,
    "inter_onset_interval_mean[seconds,raw]": IN_SECONDS,
    "inter_onset_interval_histogram[beats]": ALWAYS,
    "inter_onset_interval_histogram[beats,raw]": ALWAYS,
    "inter_onset_interval_histogram[seconds]": IN_SECONDS,
    "inter_onset_interval_histogram[seconds,raw]": IN_SECONDS,
    "note_length_histogram": ALWAYS,
    "note_length_histogram[24]": IN_A_TRACK,
    "note_length_transitions": IN_A_TRACK,
    "qualified_note_rate": ALWAYS,
    "groove": ALWAYS,
    "drum_pattern_rate": ALWAYS,
    "syncopation": ALWAYS,
    "swing_ratio": ALWAYS,
    "scale_consistency": ALWAYS,
    "pitch_in_scale_rate[estimated]": Keeps("same, if the key is clear"),
    "out_of_key_rate": Keeps("same, if the key is clear"),
    "tonal_distance": IN_A_TRACK,
    "chord_irregularity": ALWAYS,
    "polyphony": ALWAYS,
    "polyphony_rate": ALWAYS,
    "empty_beat_rate": ALWAYS,
    "empty_bar_rate": ALWAYS,
    "repetition": IN_A_TRACK,
    "distinct": IN_A_TRACK,
    "structure": IN_SECONDS,
}
"""By full name, or by base name for all other variants. The order of the notes is never a matter,
nor are drums, but for how long the piece is and for features about them."""


def keeps(name: str) -> Keeps:
    """What a feature keeps. Raises `KeyError` for one that does not say."""
    return KEEPS[name] if name in KEEPS else KEEPS[name.partition("[")[0]]
