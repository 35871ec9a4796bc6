import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.music.piece import (
    DRUMS,
    MAX_QUARTERS,
    NOTE,
    TICKS_PER_QUARTER,
    Metre,
    Piece,
    Tempo,
    Timing,
    nearest_ticks,
    regular_metres,
    regular_tempos,
)

EMPTY = Piece(notes=np.empty(0, NOTE))


def rows(piece):
    return piece.notes.tolist()


@st.composite
def pieces(draw):
    """Pieces with several tracks, programs, metres and tempos, all before the last note's end."""
    note = st.tuples(
        st.integers(0, 2000),
        st.integers(1, 300),
        st.integers(0, 127),
        st.integers(1, 127),
        st.sampled_from([0, 5, 40, 127, DRUMS]),
        st.integers(0, 3),
    )
    notes = draw(st.lists(note, min_size=1, max_size=30))
    table = [(start, start + size, *rest) for start, size, *rest in notes]
    end = max(row[1] for row in table)
    ticks = st.sets(st.integers(1, max(1, end - 1)), max_size=4).map(sorted)
    metre = st.tuples(st.integers(1, 15), st.sampled_from([1, 2, 4, 8, 16, 32]))
    qpm = st.integers(20_000, 240_000).map(lambda milli: milli / 1000)
    return Piece.from_rows(
        table,
        metres=regular_metres((t, *draw(metre)) for t in [0, *draw(ticks)]),
        tempos=regular_tempos((t, draw(qpm)) for t in [0, *draw(ticks)]),
    )


def test_notes_are_sorted_and_read_only():
    piece = Piece.from_rows([(24, 48, 60), (0, 24, 67), (0, 12, 64), (0, 24, 64)])
    assert piece.notes["start"].tolist() == [0, 0, 0, 24]
    assert piece.notes["pitch"].tolist() == [64, 64, 67, 60]
    assert piece.notes["end"].tolist() == [12, 24, 24, 48]
    with pytest.raises(ValueError, match="read-only"):
        piece.notes["pitch"] = 0


def test_of_notes_that_begin_together_on_a_pitch_the_shorter_comes_first():
    piece = Piece.from_rows([(0, 24, 60), (0, 12, 60), (0, 18, 60)])
    assert piece.notes["end"].tolist() == [12, 18, 24]


def test_short_rows_get_the_defaults():
    assert rows(Piece.from_rows([(0, 6, 60)])) == [(0, 6, 60, 64, 0, 0)]
    assert rows(Piece.from_rows([(0, 6, 60, 90, DRUMS)])) == [(0, 6, 60, 90, DRUMS, 0)]


def test_the_order_of_rows_does_not_matter():
    table = [(0, 24, 60), (0, 24, 64), (24, 48, 60)]
    assert Piece.from_rows(table) == Piece.from_rows(table[::-1])
    assert Piece.from_rows(table) != Piece.from_rows(table[:2])
    assert Piece.from_rows(table) != Piece.from_rows(table, tags={"style": "jig"})


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        ([(10, 10, 60)], "0 <= start < end"),
        ([(10, 9, 60)], "0 <= start < end"),
        ([(-1, 9, 60)], "0 <= start < end"),
        ([(0, 9, 128)], "pitch <= 127"),
        ([(0, 9, 60, 64, 129)], "program <= 128"),
        ([(0, 9, 60, 0)], "velocity"),
        ([(0, 9, 60, 128)], "velocity"),
    ],
)
def test_impossible_notes_are_refused(table, rule):
    with pytest.raises(ValueError, match=rule):
        Piece.from_rows(table)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"metres": ()}, "metres must rise from tick 0"),
        ({"metres": (Metre(1, 4, 4),)}, "metres must rise from tick 0"),
        ({"metres": (Metre(0, 4, 4), Metre(0, 3, 4))}, "metres must rise from tick 0"),
        ({"tempos": (Tempo(0, 90), Tempo(50, 80), Tempo(40, 70))}, "tempos must rise from tick 0"),
        ({"metres": (Metre(0, 0, 4),)}, "0/4"),
        ({"metres": (Metre(0, 3, 64),)}, "3/64"),
        ({"metres": (Metre(0, 4, 3),)}, "4/3"),
        ({"tempos": (Tempo(0, 0.0),)}, "tempo must be positive"),
        ({"tempos": (Tempo(0, float("inf")),)}, "tempo must be positive"),
        ({"tempos": (Tempo(0, float("nan")),)}, "tempo must be positive"),
    ],
)
def test_impossible_metres_and_tempos_are_refused(fields, rule):
    with pytest.raises(ValueError, match=rule):
        Piece.from_rows([(0, 24, 60)], **fields)


@pytest.mark.parametrize(
    ("end", "metres", "lines"),
    [
        (96, [(0, 4, 4)], [0, 96]),  # a note that ends on the bar line opens no bar
        (97, [(0, 4, 4)], [0, 96, 192]),
        (1, [(0, 6, 8)], [0, 72]),
        (200, [(0, 4, 4), (96, 3, 4)], [0, 96, 168, 240]),
        (200, [(0, 4, 4), (120, 3, 4)], [0, 96, 120, 192, 264]),  # the second bar is cut
        (100, [(0, 4, 4), (120, 3, 4)], [0, 96, 120]),  # cut after the last note
        (100, [(0, 4, 4), (500, 3, 4)], [0, 96, 192]),  # a change that nothing sounds in
        (96, [(0, 4, 4), (96, 3, 4)], [0, 96]),
        (30, [(0, 4, 4), (10, 1, 32), (13, 2, 4)], [0, 10, 13, 61]),
    ],
)
def test_bar_lines(end, metres, lines):
    piece = Piece.from_rows([(0, end, 60)], metres=tuple(Metre(*m) for m in metres))
    assert piece.bar_lines().tolist() == lines
    assert piece.num_bars == len(lines) - 1


def test_nothing_has_no_bars():
    assert EMPTY.end == 0
    assert EMPTY.bar_lines().tolist() == [0]
    assert EMPTY.num_bars == 0
    assert EMPTY.tidied() == EMPTY == EMPTY.transposed(40)
    assert EMPTY.to_pretty_midi().instruments == []


@given(pieces())
@settings(max_examples=50, deadline=None)
def test_bars_cover_what_sounds_and_begin_where_metres_do(piece):
    lines = piece.bar_lines()
    sizes = np.diff(lines)
    assert lines[0] == 0 and lines[-2] < piece.end <= lines[-1]
    assert np.all(sizes > 0)
    assert {m.tick for m in piece.metres if m.tick < piece.end} <= set(lines.tolist())
    assert all(
        size <= piece.metre_at(line).ticks_per_bar
        for line, size in zip(lines.tolist(), sizes.tolist())
    )


def test_metre_at_looks_back():
    piece = Piece.from_rows([(0, 200, 60)], metres=(Metre(0, 4, 4), Metre(96, 6, 8)))
    assert [piece.metre_at(tick).name for tick in (0, 95, 96, 1000)] == ["4/4", "4/4", "6/8", "6/8"]
    assert [Metre(0, *m).ticks_per_bar for m in ((4, 4), (6, 8), (2, 2), (5, 16))] == [
        96,
        72,
        96,
        30,
    ]


def test_seconds_through_tempo_changes():
    # A quarter lasts 1 s at 60, then 0.5 s at 120, then 2 s at 30.
    piece = Piece.from_rows(
        [(0, 24, 60)], tempos=(Tempo(0, 60.0), Tempo(48, 120.0), Tempo(96, 30.0))
    )
    assert piece.seconds_at([0, 24, 48, 60, 96, 108]).tolist() == pytest.approx(
        [0, 1, 2, 2.25, 3, 4]
    )
    assert float(piece.seconds_at(120)) == pytest.approx(5)


@given(pieces())
@settings(max_examples=25, deadline=None)
def test_seconds_agree_with_pretty_midi(piece):
    midi = piece.to_pretty_midi()
    ticks = [t.tick for t in piece.tempos] + piece.notes["start"].tolist()
    theirs = [midi.tick_to_time(tick * midi.resolution // TICKS_PER_QUARTER) for tick in ticks]
    # A file holds a quarter's length in whole microseconds.
    np.testing.assert_allclose(theirs, piece.seconds_at(ticks), rtol=3e-6)


def test_transposition_spares_the_drums():
    piece = Piece.from_rows([(0, 24, 60), (0, 24, 38, 64, DRUMS)])
    moved = piece.transposed(-5)
    assert sorted(moved.notes["pitch"].tolist()) == [38, 55]
    assert moved.transposed(5) == piece
    assert moved.pitched["pitch"].tolist() == [55]


@pytest.mark.parametrize("semitones", [-61, 68])
def test_transposition_stays_in_range(semitones):
    piece = Piece.from_rows([(0, 24, 60)])
    with pytest.raises(ValueError, match="leaves the MIDI range"):
        piece.transposed(semitones)


@pytest.mark.parametrize(
    ("table", "tidy"),
    [
        ([(0, 24, 60), (0, 48, 60)], [(0, 48, 60)]),  # the longest of twins
        ([(0, 48, 60), (24, 36, 60)], [(0, 24, 60), (24, 36, 60)]),  # struck again
        ([(0, 24, 60), (24, 48, 60)], [(0, 24, 60), (24, 48, 60)]),
        ([(0, 48, 60), (0, 48, 61)], [(0, 48, 60), (0, 48, 61)]),
        (  # two programs are two voices
            [(0, 48, 60, 64, 0), (24, 36, 60, 64, 1)],
            [(0, 48, 60, 64, 0), (24, 36, 60, 64, 1)],
        ),
        (  # and so are two tracks
            [(0, 48, 60, 64, 0, 0), (0, 24, 60, 64, 0, 1), (12, 36, 60, 64, 0, 1)],
            [(0, 48, 60, 64, 0, 0), (0, 12, 60, 64, 0, 1), (12, 36, 60, 64, 0, 1)],
        ),
        (  # but the drum kit is one
            [(0, 6, 36, 64, DRUMS, 0), (0, 12, 36, 90, DRUMS, 1)],
            [(0, 12, 36, 90, DRUMS, 1)],
        ),
        ([(0, 24, 60, 64), (0, 24, 60, 90)], [(0, 24, 60, 64)]),  # the first of equals
    ],
)
def test_tidied(table, tidy):
    assert Piece.from_rows(table).tidied() == Piece.from_rows(tidy)


@given(pieces())
@settings(max_examples=50, deadline=None)
def test_a_tidy_piece_has_one_note_at_a_time_per_pitch_program_and_track(piece):
    tidy = piece.tidied()
    sounding = {}
    for start, end, pitch, _, program, track in rows(tidy):  # in order of start
        voice = (pitch, program, -1 if program == DRUMS else track)
        assert sounding.get(voice, 0) <= start
        sounding[voice] = end
    assert tidy.tidied() == tidy
    key = ["start", "pitch", "program"]
    assert set(tidy.notes[key].tolist()) == set(piece.notes[key].tolist())
    assert tidy.end <= piece.end


@given(pieces())
@settings(max_examples=50, deadline=None)
def test_pretty_midi_gives_the_piece_back(piece):
    back = Piece.from_pretty_midi(piece.to_pretty_midi(), tags=piece.tags)
    fields = ["start", "end", "pitch", "velocity", "program"]
    assert sorted(back.notes[fields].tolist()) == sorted(piece.notes[fields].tolist())
    assert back.metres == piece.metres
    assert back.tempos == piece.tempos


def test_pretty_midi_sees_the_instruments():
    piece = Piece.from_rows(
        [(0, 24, 60, 64, 40, 0), (0, 24, 38, 64, DRUMS, 1), (24, 48, 62, 64, 41, 0)],
        tempos=(Tempo(0, 60.0),),
        track_names=("Viola", "Kit"),
    )
    midi = piece.to_pretty_midi()
    assert [(i.program, i.is_drum, i.name) for i in midi.instruments] == [
        (40, False, "Viola"),
        (41, False, "Viola"),
        (0, True, "Kit"),
    ]
    assert midi.get_end_time() == pytest.approx(2.0)


def test_pretty_midi_times_go_to_the_nearest_tick():
    midi = pretty_midi.PrettyMIDI(initial_tempo=60, resolution=480)
    instrument = pretty_midi.Instrument(0)
    instrument.notes = [
        pretty_midi.Note(64, 60, 0.95 / 24, 2.04 / 24),
        pretty_midi.Note(64, 62, 1.0, 1.001),  # shorter than a tick
    ]
    midi.instruments.append(instrument)
    assert rows(Piece.from_pretty_midi(midi)) == [(1, 2, 60, 64, 0, 0), (24, 25, 62, 64, 0, 0)]


def test_a_piece_too_long_for_pretty_midi_is_refused():
    end = MAX_QUARTERS * TICKS_PER_QUARTER
    assert Piece.from_rows([(end - 1, end, 60)]).to_pretty_midi().get_end_time() == pytest.approx(
        1e4
    )
    with pytest.raises(ValueError, match="at most 20000 quarters"):
        Piece.from_rows([(end, end + 1, 60)]).to_pretty_midi()


def test_ticks_go_to_the_nearest_and_halves_up_wherever_they_stand():
    ticks = np.array([0, 9, 10, 11, 29, 30, 50]) * TICKS_PER_QUARTER / 480
    assert nearest_ticks(ticks).tolist() == [0, 0, 1, 1, 1, 2, 3]
    assert nearest_ticks([-0.5, 0.5, 1.5, 2.5]).tolist() == [0, 1, 2, 3]
    assert nearest_ticks(7.4) == 7


@given(st.integers(0, 10**7), st.integers(1, 32767), st.integers(0, 1000))
def test_a_shift_by_quarters_moves_nothing_within_the_quarter(tick, division, quarters):
    ticks = np.array([tick, tick + quarters * division])
    here, there = nearest_ticks(ticks * TICKS_PER_QUARTER / division)
    assert there - here == quarters * TICKS_PER_QUARTER


def test_timing_says_how_far_onsets_moved():
    places = np.array([0.0, 1.5, 2.25, 100.0])
    assert Timing.measured("file", places, nearest_ticks(places)) == ("file", 0.007812, 0.020833)
    assert Timing.measured("fixed", places[:0], places[:0]) == ("fixed", 0.0, 0.0)


def test_timing_goes_with_the_piece_but_is_not_what_it_is():
    timing = Timing("estimated", 0.01, 0.02)
    piece = Piece.from_rows([(0, 24, 60)], timing=timing)
    assert piece.transposed(2).timing == piece.tidied().timing == timing
    assert piece == Piece.from_rows([(0, 24, 60)])
    assert EMPTY.timing == Timing("notated", 0.0, 0.0)


def test_pretty_midi_times_between_ticks_are_measured():
    midi = pretty_midi.PrettyMIDI(resolution=480)  # 120 to the minute: a tick of ours is 1/48 s
    piano = pretty_midi.Instrument(0)
    piano.notes = [pretty_midi.Note(64, 60, 0.0, 0.5), pretty_midi.Note(64, 62, 0.25 / 48, 0.5)]
    midi.instruments = [piano]
    assert Piece.from_pretty_midi(midi).timing == Timing("file", 0.005208, 0.010417)


def test_regular_metres():
    assert regular_metres([]) == (Metre(0, 4, 4),)
    assert regular_metres([(96, 3, 4)]) == (Metre(0, 4, 4), Metre(96, 3, 4))
    changes = [(96, 3, 4), (0, 6, 8), (0, 2, 2), (200, 3, 4), (300, 0, 4), (300, 3, 64)]
    assert regular_metres(changes) == (Metre(0, 2, 2), Metre(96, 3, 4))


def test_regular_tempos():
    assert regular_tempos([]) == (Tempo(0, 120.0),)
    assert regular_tempos([(96, 90.0), (0, 100.0), (0, 80.0), (150, 90.0)]) == (
        Tempo(0, 80.0),
        Tempo(96, 90.0),
    )
