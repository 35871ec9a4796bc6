from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.data.cleaning import Cleaning, clean, merged_tracks, trimmed, without_empty_tracks
from rnngan.errors import RejectedFile, UserError
from rnngan.music.piece import DRUMS, NOTE, Metre, Piece, Tempo

SONG = Piece.from_rows(
    [
        (0, 24, 72, 90, 40, 1),
        (0, 96, 48, 60, 0, 2),
        (24, 48, 74, 90, 40, 1),
        (24, 48, 52, 60, 0, 4),
        (0, 6, 36, 99, DRUMS, 3),
        (24, 30, 38, 99, DRUMS, 6),
        (48, 96, 60, 70, 0, 5),
    ],
    track_names=("conductor", "The MELODY", "left", "kit", "right", "second melody", "more kit"),
    tags={"style": "song"},
)


def rows(piece):
    return piece.notes.tolist()


def test_by_default_a_sound_piece_stays_as_it_is_but_for_empty_tracks():
    cleaned = clean(SONG, Cleaning())
    assert cleaned.track_names == SONG.track_names[1:]
    assert [row[:5] for row in rows(cleaned)] == [row[:5] for row in rows(SONG)]
    assert sorted(set(cleaned.notes["track"].tolist())) == list(range(6))
    assert dict(cleaned.tags) == {"style": "song"}


def test_tracks_of_a_program_become_one():
    merged = merged_tracks(SONG)
    assert [(row[2], row[4], row[5]) for row in rows(merged)] == [
        (48, 0, 0),
        (72, 40, 1),
        (36, DRUMS, 2),
        (52, 0, 0),
        (74, 40, 1),
        (38, DRUMS, 2),
        (60, 0, 0),
    ]
    assert merged.track_names == ("left", "The MELODY", "kit")


def test_what_merging_makes_double_goes():
    unison = Piece.from_rows([(0, 24, 60, 64, 0, 0), (0, 48, 60, 64, 0, 1), (24, 48, 60, 64, 0, 0)])
    assert rows(clean(unison, Cleaning(merge_tracks=True))) == [
        (0, 24, 60, 64, 0, 0),
        (24, 48, 60, 64, 0, 0),
    ]
    assert len(clean(unison, Cleaning()).notes) == 3  # two tracks may play one pitch


def test_the_skyline_is_one_voice_in_one_track():
    cleaned = clean(SONG, Cleaning(melody="skyline"))
    assert rows(cleaned) == [
        (0, 24, 72, 90, 40, 0),
        (24, 48, 74, 90, 40, 0),
        (48, 96, 60, 70, 40, 0),
    ]
    assert cleaned.track_names == ("The MELODY",)


@pytest.mark.parametrize(
    ("name", "pitches"),
    [("melody", [72, 74, 60]), ("the melody", [72, 74]), ("SECOND", [60]), ("left", [48])],
)
def test_a_melody_by_the_name_of_its_track(name, pitches):
    cleaned = clean(SONG, Cleaning(melody="track", melody_track=name))
    assert cleaned.notes["pitch"].tolist() == pitches
    assert len(cleaned.track_names) == 1


def test_the_tracks_of_the_melody_are_known_before_they_are_merged():
    settings = Cleaning(melody="track", melody_track="left", merge_tracks=True)
    assert clean(SONG, settings).notes["pitch"].tolist() == [48]


@pytest.mark.parametrize("name", ["flute", "conductor", "kit"])  # none, without notes, for drums
def test_a_piece_without_that_track_is_refused(name):
    with pytest.raises(RejectedFile) as error:
        clean(SONG, Cleaning(melody="track", melody_track=name))
    assert error.value.reason == "no_melody"


@pytest.mark.parametrize("notes", [np.empty(0, NOTE), SONG.notes[SONG.notes["program"] == DRUMS]])
def test_drums_have_no_melody(notes):
    with pytest.raises(RejectedFile) as error:
        clean(replace(SONG, notes=notes), Cleaning(melody="skyline"))
    assert error.value.reason == "no_melody"


# Trimming


def test_a_trimmed_piece_begins_with_the_bar_of_its_first_note():
    piece = Piece.from_rows(
        [(432, 456, 60), (456, 504, 62)],
        metres=(Metre(0, 4, 4), Metre(192, 3, 4), Metre(480, 2, 4), Metre(528, 6, 8)),
        tempos=(Tempo(0, 90.0), Tempo(200, 100.0), Tempo(400, 110.0), Tempo(440, 120.0)),
    )
    cut = trimmed(piece)  # bars of 3/4 begin at 192, 264, 336, 408
    assert rows(cut) == [(24, 48, 60, 64, 0, 0), (48, 96, 62, 64, 0, 0)]
    assert cut.metres == (Metre(0, 3, 4), Metre(72, 2, 4))
    assert cut.tempos == (Tempo(0, 110.0), Tempo(32, 120.0))


def test_changes_at_the_cut():
    piece = Piece.from_rows(
        [(96, 192, 60)],
        metres=(Metre(0, 4, 4), Metre(96, 3, 4), Metre(192, 2, 4)),
        tempos=(Tempo(0, 90.0), Tempo(96, 100.0), Tempo(192, 110.0)),
    )
    assert trimmed(piece).metres == (Metre(0, 3, 4),)
    assert trimmed(piece).tempos == (Tempo(0, 100.0),)


def test_a_piece_without_notes_is_not_trimmed():
    assert trimmed(Piece(notes=np.empty(0, NOTE))) == Piece(notes=np.empty(0, NOTE))


@st.composite
def pieces(draw):
    note = st.tuples(
        st.integers(0, 900),
        st.integers(1, 200),
        st.integers(50, 60),
        st.integers(1, 127),
        st.sampled_from([0, 40, DRUMS]),
        st.integers(0, 5),
    )
    drawn = draw(st.lists(note, min_size=1, max_size=15))
    ticks = [0, *sorted(draw(st.sets(st.integers(1, 1100), max_size=3)))]
    metre = st.sampled_from([(4, 4), (3, 4), (6, 8), (2, 2)])
    return Piece.from_rows(
        [(start, start + size, *rest) for start, size, *rest in drawn],
        metres=tuple(Metre(tick, *draw(metre)) for tick in ticks),
        tempos=tuple(Tempo(tick, draw(st.sampled_from([60.0, 90.0, 120.0]))) for tick in ticks),
    )


@given(pieces())
@settings(max_examples=60, deadline=None)
def test_trimming_moves_music_and_changes_nothing_else(piece):
    cut = trimmed(piece)
    shift = piece.notes["start"][0] - cut.notes["start"][0]
    np.testing.assert_array_equal(piece.notes["end"], cut.notes["end"] + shift)
    np.testing.assert_array_equal(piece.notes["pitch"], cut.notes["pitch"])
    lines = piece.bar_lines()
    # A metre that began after the last note may have cut the last bar.
    np.testing.assert_array_equal(lines[lines >= shift][:-1] - shift, cut.bar_lines()[:-1])
    assert shift in lines
    assert cut.notes["start"][0] < cut.bar_lines()[1]
    seconds = piece.seconds_at(piece.notes["end"]) - piece.seconds_at(shift)
    np.testing.assert_allclose(cut.seconds_at(cut.notes["end"]), seconds)
    assert trimmed(cut) == cut


@given(pieces(), st.booleans(), st.booleans(), st.sampled_from(["off", "skyline"]))
@settings(max_examples=60, deadline=None)
def test_cleaning_what_is_clean_changes_nothing(piece, merge, trim, melody):
    cleaning = Cleaning(merge_tracks=merge, trim=trim, melody=melody)
    try:
        once = clean(piece, cleaning)
    except RejectedFile:
        assert melody == "skyline"
        assert set(piece.notes["program"].tolist()) == {DRUMS}
        return
    assert clean(once, cleaning) == once
    tracks = set(once.notes["track"].tolist())
    assert tracks == set(range(len(tracks)))
    if melody == "skyline":
        assert np.all(once.notes["end"][:-1] <= once.notes["start"][1:])
    elif merge:
        assert Counter(once.notes["program"].tolist()).keys() == set(
            piece.notes["program"].tolist()
        )
        assert len(tracks) == len(set(piece.notes["program"].tolist()))


# Filtering


def test_the_filter_sees_the_cleaned_piece():
    assert clean(SONG, Cleaning(melody="skyline", only="polyphony == 1 and drums == 0"))
    with pytest.raises(RejectedFile) as error:
        clean(SONG, Cleaning(only='style == "song" and polyphony == 1 and drums == 0'))
    assert error.value.reason == "filtered"
    assert str(error.value) == "does not meet polyphony == 1"


def test_a_filter_that_is_none_is_refused_at_once():
    with pytest.raises(UserError, match="did you mean 'polyphony'"):
        Cleaning(only="polyfony <= 4")


def test_a_track_needs_a_name():
    with pytest.raises(UserError, match="melody_track"):
        Cleaning(melody="track", melody_track="")


def test_tracks_are_numbered_without_gaps():
    piece = Piece.from_rows(
        [(0, 24, 60, 64, 0, 200), (24, 48, 60, 64, 0, 3)], track_names=("", "a")
    )
    assert rows(without_empty_tracks(piece)) == [(0, 24, 60, 64, 0, 1), (24, 48, 60, 64, 0, 0)]
    assert without_empty_tracks(piece).track_names == ("", "")


def test_one_program_for_all_but_the_drums():
    piece = Piece.from_rows([(0, 24, 60, 64, 40), (0, 24, 64, 64, 52), (0, 6, 36, 64, DRUMS)])
    programs = clean(piece, Cleaning(program=19)).notes["program"]
    assert sorted(programs.tolist()) == [19, 19, DRUMS]
    assert clean(piece, Cleaning()) == piece
