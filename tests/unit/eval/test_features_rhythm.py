import itertools
import math

import numpy as np
import pytest
from conformance import GROOVES_OF_BWV_66_6
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.features import FEATURES
from eval.features.rhythm import (
    NOTE_LENGTHS,
    drum_pattern_rate,
    groove,
    inter_onset_interval_histogram,
    inter_onset_interval_mean,
    inter_onset_intervals,
    metrical_levels,
    note_count,
    note_density,
    note_length_histogram,
    note_length_transitions,
    qualified_note_rate,
    swing_ratio,
    syncopation,
)
from rnngan.music.piece import DRUMS, Metre, Piece, Tempo

LENGTH_NAMES = list(NOTE_LENGTHS)


def onsets(*ticks, length=1, program=0, **fields):
    return Piece.from_rows([(t, t + length, 60, 64, program) for t in ticks], **fields)


def run(*lengths, **fields):
    """Notes one after the other; a negative length is a rest."""
    rows, tick = [], 0
    for length in lengths:
        if length > 0:
            rows.append((tick, tick + length, 60))
        tick += abs(length)
    return Piece.from_rows(rows, **fields)


def test_density():
    piece = run(*[24] * 6, tempos=(Tempo(0, 60),))  # six quarters: a bar and a half, six seconds
    assert note_count(piece) == 6
    assert note_density(piece, per="bar") == 3
    assert note_density(piece, per="beat") == 1
    assert note_density(piece, per="second") == 1
    assert note_density(run(*[24] * 6, tempos=(Tempo(0, 120),)), per="second") == 2


def test_inter_onset_intervals():
    piece = onsets(0, 24, 24, 60, tempos=(Tempo(0, 60), Tempo(24, 120)))
    assert inter_onset_intervals(piece, clock="beats").tolist() == [1, 1.5]
    assert inter_onset_intervals(piece, clock="seconds").tolist() == [1, 0.75]
    assert inter_onset_interval_mean(piece, clock="beats") == 1.25
    assert math.isnan(inter_onset_interval_mean(onsets(24, 24), clock="beats"))


@pytest.mark.parametrize("ticks", [pytest.param((0, 0, 0, 24, 24, 24), id="mgeval says 0.2")])
def test_notes_that_begin_together_are_one_onset(ticks):
    assert inter_onset_interval_mean(onsets(*ticks), clock="beats") == 1
    assert inter_onset_interval_mean(onsets(*ticks), clock="beats", raw=True) == 0.2


@pytest.mark.parametrize("drum", [pytest.param((12, 13, 36, 64, DRUMS), id="mgeval says 0.5")])
def test_drums_are_no_onsets(drum):
    piece = Piece.from_rows([(0, 24, 60), (24, 48, 60), drum])
    assert inter_onset_interval_mean(piece, clock="beats") == 1
    assert inter_onset_interval_mean(piece, clock="beats", raw=True) == 1


def test_inter_onset_interval_bins():
    def bins(name, piece):
        feature = FEATURES[f"inter_onset_interval_histogram[{name}]"]
        shares = feature.compute(piece)
        return {feature.positions[i]: shares[i] for i in np.flatnonzero(shares)}

    piece = onsets(0, 0, 8, 32, 32 + 240)  # together, a triplet eighth, a quarter, ten beats
    assert bins("beats", piece) == {1 / 3: 1 / 3, 1: 1 / 3, 4: 1 / 3}
    assert bins("beats,raw", piece) == {0: 1 / 4, 1 / 3: 1 / 4, 1: 1 / 4, 4: 1 / 4}
    # at 120 a triplet eighth is 167 ms, a quarter 500
    assert bins("seconds", piece) == {0.15: 1 / 3, 0.5: 1 / 3, 4: 1 / 3}
    assert bins("seconds,raw", piece)[0] == 1 / 4
    assert len(inter_onset_interval_histogram(piece, clock="beats")) == 97


def shares(piece, **options):
    """Classes of note length that occur, with their shares."""
    names = LENGTH_NAMES + [f"{name} rest" for name in LENGTH_NAMES]
    histogram = note_length_histogram(piece, **options)
    return {names[i]: float(histogram[i]) for i in np.flatnonzero(histogram)}


def test_note_length_classes_have_their_order():
    assert [
        *("whole", "half", "quarter", "eighth", "16th"),
        *("dotted half", "dotted quarter", "dotted eighth", "dotted 16th"),
        *("half triplet", "quarter triplet", "eighth triplet"),
    ] == LENGTH_NAMES


@pytest.mark.parametrize(("name", "ticks"), NOTE_LENGTHS.items())
def test_every_class_is_its_own_nearest(name, ticks):
    assert shares(run(ticks)) == {name: 1}


@pytest.mark.parametrize(
    ("ticks", "name"),
    [
        (1, "16th"),
        (7, "16th"),  # halfway to the triplet eighth: the plain class
        (10, "dotted 16th"),
        (14, "eighth"),  # halfway to the triplet quarter
        (17, "dotted eighth"),  # halfway to the triplet quarter: the dotted class
        (60, "half"),  # halfway to the dotted half
        (85, "whole"),
        (400, "whole"),
    ],
)
def test_other_lengths_go_to_the_nearest_class(ticks, name):
    assert shares(run(ticks)) == {name: 1}


def test_a_triplet_bar():
    piece = run(*[8] * 6, *[16] * 3)
    assert shares(piece) == {"eighth triplet": 2 / 3, "quarter triplet": 1 / 3}


@pytest.mark.parametrize("time_signature_at", [pytest.param(0, id="mgeval can say half")])
def test_quarters_are_quarters(time_signature_at):
    assert shares(run(24, 24, 24, metres=(Metre(time_signature_at, 2, 4),))) == {"quarter": 1}


def test_length_relative_to_the_bar():
    quarters = (24,) * 4
    assert shares(run(*quarters), relative_to="bar") == {"quarter": 1}
    assert shares(run(*quarters, metres=(Metre(0, 2, 4),)), relative_to="bar") == {"half": 1}
    assert shares(run(*quarters, metres=(Metre(0, 3, 4),)), relative_to="bar") == {
        "half triplet": 1
    }
    changing = run(*[24] * 6, metres=(Metre(0, 4, 4), Metre(96, 2, 4)))
    assert shares(changing, relative_to="bar") == {"quarter": 4 / 6, "half": 2 / 6}


def test_rests():
    # the silence of 2 ticks is articulation, that of 3 a rest
    piece = run(24, -24, 22, -2, 21, -3, 24)
    assert shares(piece, rests=True) == {
        "quarter": 4 / 6,
        "quarter rest": 1 / 6,
        "16th rest": 1 / 6,
    }
    assert len(note_length_histogram(piece, rests=True)) == 24


def test_rests_lie_between_the_notes_of_one_track():
    upper = [(0, 24, 72, 64, 0, 0), (72, 96, 72, 64, 0, 0)]
    lower = [(24, 72, 48, 64, 0, 1)]
    assert shares(Piece.from_rows(upper + lower), rests=True)["half rest"] == 1 / 4
    later = [(0, 24, 72, 64, 0, 0), (48, 72, 72, 64, 0, 1)]
    assert shares(Piece.from_rows(later), rests=True) == {"quarter": 1}
    # a chord is silent when its last note has ended; nothing rests before the first note
    chord = [(24, 48, 60), (24, 72, 64), (96, 120, 60)]
    assert shares(Piece.from_rows(chord), rests=True)["quarter rest"] == 1 / 4


@pytest.mark.parametrize("tool", [pytest.param("smg-metrics", id="smg-metrics 5.4.3 says 0.11")])
def test_one_16th_more_changes_little(tool):
    a, b = note_length_histogram(run(*[24] * 8)), note_length_histogram(run(*[24] * 8, 6))
    assert np.minimum(a, b).sum() == pytest.approx(8 / 9)


def test_note_length_transitions():
    counts = note_length_transitions(run(24, 12, 12, 24, 12), normalise="none").reshape(12, 12)
    quarter, eighth = 2, 3
    assert counts[quarter, eighth] == 2
    assert counts[eighth, eighth] == counts[eighth, quarter] == 1
    assert counts.sum() == 4
    labels = FEATURES["note_length_transitions"].bins
    assert labels[12 * quarter + eighth] == "quarter->eighth"


def test_note_length_transitions_stay_in_a_track():
    piece = Piece.from_rows([(0, 24, 60, 64, 0, 0), (24, 48, 60, 64, 0, 1)])
    assert np.isnan(note_length_transitions(piece)).all()


def test_qualified_notes_last_a_32nd():
    assert qualified_note_rate(run(1, 2, 3, 24)) == 0.5


@pytest.mark.parametrize("bars", [pytest.param(2, id="MusPy 0.5.0 says 0.979"), 3, 8])
@pytest.mark.parametrize("pairs", ["all", "adjacent"])
def test_equal_bars_have_groove_1(bars, pairs):
    piece = onsets(*(96 * bar + t for bar in range(bars) for t in (0, 24, 36)))
    assert groove(piece, steps_per_bar=64, pairs=pairs) == 1


def test_groove_by_hand():
    # onsets of bars: {0, 24} {0} {0, 48, 72}; pairs differ in 1, 4 − 1 and 2 of 64 steps
    piece = onsets(0, 24, 96, 192, 240, 264)
    assert groove(piece, steps_per_bar=64, pairs="all") == pytest.approx(1 - (1 + 3 + 2) / 3 / 64)
    assert groove(piece, steps_per_bar=64, pairs="adjacent") == pytest.approx(1 - 1.5 / 64)
    assert groove(piece, steps_per_bar=16, pairs="adjacent") == pytest.approx(1 - 1.5 / 16)


def test_groove_needs_two_bars():
    assert math.isnan(groove(onsets(0, 24, 95), steps_per_bar=64, pairs="all"))
    assert not math.isnan(groove(onsets(0, 24, 96), steps_per_bar=64, pairs="all"))


def test_groove_counts_silent_bars():
    piece = onsets(0, 96 * 2)
    assert groove(piece, steps_per_bar=64, pairs="adjacent") == pytest.approx(1 - 1 / 64)


def test_groove_scales_bars_of_several_metres():
    # half a bar is the same step in 4/4, 2/4 and 3/4
    metres = (Metre(0, 4, 4), Metre(96, 2, 4), Metre(144, 3, 4))
    piece = onsets(0, 48, 96, 96 + 24, 144, 144 + 36, metres=metres)
    assert groove(piece, steps_per_bar=64, pairs="all") == 1


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=20),
    st.sampled_from([(Metre(0, 4, 4),), (Metre(0, 3, 4), Metre(100, 7, 8))]),
)
def test_groove_agrees_with_a_slow_loop(ticks, metres):
    piece = onsets(*ticks, metres=metres)
    lines = piece.bar_lines().tolist()
    patterns = []
    for start, end in itertools.pairwise(lines):
        steps = {64 * (t - start) // (end - start) for t in ticks if start <= t < end}
        patterns.append([step in steps for step in range(64)])

    def alike(a, b):
        return 1 - sum(x != y for x, y in zip(a, b, strict=True)) / 64

    for pairs, chosen in (
        ("all", itertools.combinations(patterns, 2)),
        ("adjacent", itertools.pairwise(patterns)),
    ):
        values = [alike(a, b) for a, b in chosen]
        value = groove(piece, steps_per_bar=64, pairs=pairs)
        assert value == pytest.approx(np.mean(values)) if values else math.isnan(value)


@pytest.mark.parametrize(("shift", "tool"), [(0, "MusDr"), (72, "smg-metrics 5.4.3")])
def test_groove_of_a_chorale_agrees_with_other_tools(shift, tool):
    corpus = pytest.importorskip("music21.corpus")
    rows = [
        (round(24 * note.offset) + shift, round(24 * (note.offset + note.quarterLength)) + shift,
         note.pitch.midi)
        for part in corpus.parse("bwv66.6").parts
        for note in part.flatten().notes
    ]  # fmt: skip
    value = groove(Piece.from_rows(rows), steps_per_bar=64, pairs="all")
    assert value == pytest.approx(GROOVES_OF_BWV_66_6[tool], abs=5e-5)


@pytest.mark.parametrize(
    ("ticks", "rate"),
    [
        ((0, 12, 24, 90), 1),
        ((1, 5, 7), 0.1),
        ((2, 3, 4), 0),
        ((0, 6, 8, 11), (1 + 1 + 0 + 0.1) / 4),
    ],
)
def test_drum_pattern_rate(ticks, rate):
    assert drum_pattern_rate(onsets(*ticks, program=DRUMS)) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("ticks", "rate"), [((0, 12, 36), 1), ((6, 18), 0), ((0, 6, 11, 13), (1 + 0 + 0.1 + 0.1) / 4)]
)
def test_drum_pattern_rate_on_eighths(ticks, rate):
    piece = onsets(*ticks, program=DRUMS)
    assert drum_pattern_rate(piece, steps_per_whole=8) == pytest.approx(rate)


def test_drum_pattern_rate_counts_from_the_bar_line():
    metres = (Metre(0, 1, 32), Metre(3, 4, 4))
    assert drum_pattern_rate(onsets(3, 9, 15, program=DRUMS, metres=metres)) == 1


def test_pitched_notes_are_no_drums():
    assert math.isnan(drum_pattern_rate(onsets(0, 6)))


@pytest.mark.parametrize(
    ("metre", "levels"),
    [
        ("4/4", [96, 48, 24, 12, 6]),
        ("2/2", [96, 48, 24, 12, 6]),
        ("3/4", [72, 24, 12, 6]),
        ("2/4", [48, 24, 12, 6]),
        ("6/8", [72, 36, 12, 6]),
        ("12/8", [144, 72, 36, 12, 6]),
        ("3/8", [36, 12, 6]),
        ("5/4", [120, 24, 12, 6]),
        ("7/8", [84, 12, 6]),
        ("9/16", [54, 18, 6]),
        ("3/32", [9]),
    ],
)
def test_metrical_levels(metre, levels):
    numerator, denominator = map(int, metre.split("/"))
    assert metrical_levels(Metre(0, numerator, denominator)) == levels


def test_a_bar_shorter_than_a_16th_is_one_level():
    piece = Piece.from_rows([(0, 3, 60), (4, 6, 60)], metres=(Metre(0, 1, 32),))
    assert metrical_levels(piece.metres[0]) == [3]
    assert syncopation(piece) == 0


@pytest.mark.parametrize(
    ("ticks", "rate"),
    [
        ((0, 24, 48, 72, 96), 0),  # quarters
        ((0, 12, 24, 36, 48, 60, 72, 84, 96), 0),  # eighths
        ((0, 48, 96, 144, 192), 0),  # halves
        ((0, 36, 72, 96), 1 / 4),  # tresillo: the eighth before the middle of the bar is held over
        ((0, 24, 72, 96), 1 / 4),  # a half on the second beat
        ((0, 12, 36, 60, 84, 108), 4 / 6),  # off-beat eighths; after the last the piece ends
        ((90, 192), 1 / 2),  # a 16th before the missing bar line
        ((90,), 0),  # nothing is missing after the end
        ((0, 8, 16, 24), 0),  # triplets lie off the grid: two onsets count
        ((0, 8, 16, 90, 192), 1 / 3),
    ],
)
def test_syncopation(ticks, rate):
    assert syncopation(onsets(*ticks)) == pytest.approx(rate)


@pytest.mark.parametrize(("length", "rate"), [(24, 0), (25, 1 / 2)])
def test_syncopation_of_the_last_note_needs_a_strong_position(length, rate):
    piece = Piece.from_rows([(0, 24, 60), (24, 24 + length, 60)])
    assert syncopation(piece) == rate


def test_syncopation_follows_the_metre():
    # in 6/8 a note on the second eighth leads to the fourth, in 3/4 to the second beat
    ticks = (0, 12, 36, 72)
    assert syncopation(onsets(*ticks, metres=(Metre(0, 6, 8),))) == 0
    assert syncopation(onsets(*ticks, metres=(Metre(0, 3, 4),))) == pytest.approx(2 / 4)
    # a bar cut short is followed by a strong position all the same
    cut = (Metre(0, 4, 4), Metre(36, 4, 4))
    assert syncopation(onsets(0, 24, 36, metres=cut)) == 0
    assert syncopation(onsets(0, 24, 48, metres=cut)) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("off_beat", "ratio"), [(12, 1), (16, 2), (18, 3), (8, 0.5), (6, 1 / 3), (4, None), (20, None)]
)
def test_swing_ratio(off_beat, ratio):
    piece = onsets(*(24 * beat + t for beat in range(4) for t in (0, off_beat)), 96)
    value = swing_ratio(piece)
    assert math.isnan(value) if ratio is None else value == pytest.approx(ratio)


def test_swing_ratio_looks_at_pairs_of_eighths_only():
    # a triplet, a pair of 16ths and an eighth, a quarter: no pair; then three pairs, median 2
    ticks = (0, 8, 16, 24, 30, 36, 48, 72, 84, 96, 112, 120, 136, 144)
    assert swing_ratio(onsets(*ticks)) == 2
    assert math.isnan(swing_ratio(onsets(12, 24, 36)))  # from off-beat to off-beat


@pytest.mark.parametrize("piece", [run(24)], ids=["one note"])
def test_one_note(piece):
    assert note_count(piece) == note_density(piece, per="bar") == note_density(piece, per="beat")
    assert math.isnan(inter_onset_interval_mean(piece, clock="beats"))
    assert np.isnan(note_length_transitions(piece)).all()
    assert shares(piece, rests=True) == {"quarter": 1}
    assert syncopation(piece) == 0
    assert math.isnan(swing_ratio(piece))
