"""Notation against tunes worked out by hand, and against music21's own reading."""

import contextlib
import io
import random
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rnngan.errors import RejectedFile, UserError
from rnngan.music import notation
from rnngan.music.abc_notation import read_tune, tunes_in
from rnngan.music.notation import piece_from_abc, piece_from_score, read_notation
from rnngan.music.piece import Metre, Tempo


def rows(piece):
    return piece.notes[["start", "end", "pitch"]].tolist()


def tune(music, *, metre="4/4", unit="1/4", key="C", fields=""):
    return f"X:1\n{fields}M:{metre}\nL:{unit}\nK:{key}\n{music}\n"


def read(music, *, expand_repeats=False, **head):
    return piece_from_abc(tune(music, **head), expand_repeats=expand_repeats)


def pitches(piece):
    return piece.notes["pitch"].tolist()


def starts(piece):
    return piece.notes["start"].tolist()


# ABC: notes


def test_quarters_fill_bars():
    piece = read("C D E F | G, A c c'")
    assert rows(piece) == [
        (0, 24, 60),
        (24, 48, 62),
        (48, 72, 64),
        (72, 96, 65),
        (96, 120, 55),
        (120, 144, 69),
        (144, 168, 72),
        (168, 192, 84),
    ]
    assert piece.metres == (Metre(0, 4, 4),)
    assert piece.tempos == (Tempo(0, 120.0),)
    assert set(piece.notes["velocity"]) == {64}


@pytest.mark.parametrize(
    ("length", "ticks"),
    [("", 12), ("2", 24), ("3", 36), ("/", 6), ("/2", 6), ("//", 3), ("3/2", 18), ("/4", 3)],
)
def test_lengths(length, ticks):
    assert rows(read(f"C{length}", unit="1/8"))[0][1] == ticks


@pytest.mark.parametrize(("metre", "ticks"), [("2/4", 6), ("3/4", 12), ("C|", 12), ("6/8", 12)])
def test_unit_follows_from_the_metre_where_it_is_not_given(metre, ticks):
    piece = piece_from_abc(f"X:1\nM:{metre}\nK:C\nC D|")
    assert rows(piece)[0] == (0, ticks, 60)


def test_rests_take_time():
    assert rows(read("C z D x | Z | E4")) == [
        (0, 24, 60),
        (48, 72, 62),
        (192, 288, 64),
    ]


def test_a_tie_joins_notes_over_the_bar_line():
    assert rows(read("C2 D2-|D2 E2|")) == [(0, 48, 60), (48, 144, 62), (144, 192, 64)]


def test_a_tie_between_two_pitches_is_a_slur():
    assert rows(read("C2-D2|")) == [(0, 48, 60), (48, 96, 62)]


def test_a_tie_carries_its_accidental_over_the_bar_line():
    assert rows(read("^F4-|F2 F2|")) == [(0, 144, 66), (144, 192, 65)]


def test_ties_inside_and_after_chords():
    whole = [(0, 192, 60), (0, 192, 64)]
    assert rows(read("[CE]4-|[CE]4|")) == whole
    assert rows(read("[C-E-]4|[CE]4|")) == whole
    assert rows(read("[C-E]4|[CE]4|")) == [(0, 192, 60), (0, 96, 64), (96, 192, 64)]


@pytest.mark.parametrize(
    ("music", "expected"),
    [
        ("(3CDE F2", [(0, 8), (8, 16), (16, 24), (24, 48)]),
        ("(3:2:3CDE F2", [(0, 8), (8, 16), (16, 24), (24, 48)]),
        ("(3C2D F2", [(0, 16), (16, 24), (24, 40)]),  # the third note is in it, too
        ("((3CDE) F2", [(0, 8), (8, 16), (16, 24), (24, 48)]),
        ("(3{f}C{f}D{f}E F2", [(0, 8), (8, 16), (16, 24), (24, 48)]),
        ("(2CD E", [(0, 18), (18, 36), (36, 48)]),
        ("(3C/D/E/ F", [(0, 4), (4, 8), (8, 12), (12, 24)]),
    ],
)
def test_tuplets(music, expected):
    assert [row[:2] for row in rows(read(music, unit="1/8"))] == expected


@pytest.mark.parametrize(
    ("music", "expected"),
    [
        ("C>D", [(0, 18), (18, 24)]),
        ("C<D", [(0, 6), (6, 24)]),
        ("C>>D", [(0, 21), (21, 24)]),
        ("C2>D2", [(0, 36), (36, 48)]),
        ("C > D", [(0, 18), (18, 24)]),
        ("(C>D) E", [(0, 18), (18, 24), (24, 36)]),
        ("C>(D E)", [(0, 18), (18, 24), (24, 36)]),
        ("(B C)>D", [(0, 12), (12, 30), (30, 36)]),
        ("C>.D", [(0, 18), (18, 24)]),
        ("vC>uD", [(0, 18), (18, 24)]),
        ('"4"C>"G7"D', [(0, 18), (18, 24)]),
        ("C>{de}D", [(0, 18), (18, 24)]),
        ("C>z D", [(0, 18), (24, 36)]),
        ("C>D>E", [(0, 18), (18, 27), (27, 33)]),
    ],
)
def test_broken_rhythm(music, expected):
    assert [row[:2] for row in rows(read(music, unit="1/8"))] == expected


def test_broken_rhythm_moves_whole_chords():
    assert rows(read("[CE]>[DF]", unit="1/8")) == [
        (0, 18, 60),
        (0, 18, 64),
        (18, 24, 62),
        (18, 24, 65),
    ]


@pytest.mark.parametrize(
    "music", ["[CEG]2 z2", "[C2E2G2] z2", "[CEG]2z2", "+C2E2G2+ z2", "[C/E/G/]4 z2"]
)
def test_chords(music):
    assert rows(read(music)) == [(0, 48, 60), (0, 48, 64), (0, 48, 67)]


@pytest.mark.parametrize(
    "music",
    [
        '"C"C "Am7"D "4"E "^rit."F',
        "{cd}C {/e}D {g}E F",
        "!trill!C ~D TE vuF",
        "(C D) (E F)",
        "C`D``E\tF",
        "C D \\\nE F % G A B",
        "C D\nw: la la\nE F",
        "C D\nN:A note\nE F",
        '"A""B"C D !f!E !>!F',
    ],
)
def test_what_does_not_sound_is_passed_over(music):
    assert rows(read(music)) == rows(read("C D E F"))


@pytest.mark.parametrize(
    ("key", "music", "expected"),
    [
        ("D", "F C c G", [66, 61, 73, 67]),
        ("Bb", "B E A", [70, 63, 69]),
        ("F#m", "F G C", [66, 68, 61]),
        ("Ador", "F C", [66, 60]),
        ("Amix", "F C G", [66, 61, 67]),
        ("E Phrygian", "F G", [65, 67]),
        ("Hp", "F C G", [66, 61, 67]),
        ("none", "F C G", [65, 60, 67]),
        ("C#", "F B E", [66, 72, 65]),
        ("D =c", "F C", [66, 60]),
        ("C", "^F F f|F", [66, 66, 78, 65]),  # to the end of the bar, in every octave
        ("D", "=F F f|F", [65, 65, 77, 66]),
        ("C", "^F [FA] =F [F_A]", [66, 66, 69, 65, 65, 68]),
        ("C", "^^C __D", [62, 60]),
        ("C", ".^F u=F ~_A T^G", [66, 65, 68, 68]),
    ],
)
def test_keys_and_accidentals(key, music, expected):
    assert pitches(read(music, key=key)) == expected


def test_the_key_changes_inside_the_tune():
    assert pitches(read("F|\nK:G\nF|[K:C]F")) == [65, 66, 65]


def test_marks_of_quoted_printable_are_not_music():
    mailed = tune("=3DF C =20\nD=\nE|").replace("\n", "\r\n")
    [repaired] = tunes_in(mailed)
    assert pitches(piece_from_abc(repaired)) == [65, 60, 62, 64]


# ABC: bars


def test_a_pickup_ends_on_the_first_bar_line():
    piece = read("C | D E F | G3 |", metre="3/4")
    assert rows(piece) == [
        (48, 72, 60),
        (72, 96, 62),
        (96, 120, 64),
        (120, 144, 65),
        (144, 216, 67),
    ]
    assert piece.bar_lines().tolist() == [0, 72, 144, 216]


@pytest.mark.parametrize(
    ("music", "expected"),
    [
        # The last bar of a section and the next one's pickup share a bar.
        ("C | D3 :|: E | F4 |", [72, 96, 168, 192]),
        # The last bar is full of sound: the pickup waits.
        ("C4 :|: E | F4 |", [0, 168, 192]),
        # It ends with a rest: the pickup goes there.
        ("C3 z :|: E | F4 |", [0, 72, 96]),
        # A short bar at the end of a section, and no pickup after it.
        ("D4 | C3 :|: E4 |", [0, 96, 192]),
        # A short bar inside a section is filled up with silence.
        ("C4 | D3 | E4 |", [0, 96, 192]),
        # Two halves of one bar fill it.
        ("C4 | D3 | E | F4 |", [0, 96, 168, 192]),
        # What is too long for one bar takes part of the next.
        ("C4 | D5 | E4 | F4 |", [0, 96, 288, 384]),
        # A double bar opens a section as a repeat sign does.
        ("C4 || E | F4 |", [0, 168, 192]),
        ("C4 |\nP:B\nE | F4 |", [0, 168, 192]),
        # A single short bar is no pickup.
        ("C3 |", [0]),
    ],
)
def test_bars_keep_to_the_bar_lines(music, expected):
    assert starts(read(music)) == expected


def test_metre_changes_stand_at_bar_lines():
    expected = (Metre(0, 4, 4), Metre(96, 3, 4), Metre(240, 6, 8))
    separate = read("C4|\nM:3/4\nD3|E3|\nM:6/8\nF3|")
    inline = read("C4|[M:3/4]D3|E3|[M:6/8]F3|")
    assert separate.metres == inline.metres == expected
    assert starts(separate) == starts(inline) == [0, 96, 168, 240]


def test_a_pickup_to_a_new_metre_stands_before_it():
    piece = read("C4 | D3 ||\nM:6/8\nE | F3 |")
    assert starts(piece) == [0, 96, 168, 192]
    assert piece.metres == (Metre(0, 4, 4), Metre(192, 6, 8))


@pytest.mark.parametrize(
    ("written", "metre"),
    [
        ("C", (4, 4)),
        ("C|", (2, 2)),
        ("3/4", (3, 4)),
        ("(2+3)/8", (5, 8)),
        ("2+3/8", (5, 8)),
        ("9/8 % slip jig", (9, 8)),
        ("0/4", (4, 4)),
        ("4/3", (4, 4)),
    ],
)
def test_metres(written, metre):
    assert read("C32|", unit="1/8", metre=written).metres[0][1:] == metre


def test_bars_that_contradict_the_metre_overrule_it():
    assert read("C4|D4|E4|F4|", metre="3/4").metres == (Metre(0, 4, 4),)
    assert read("C3|D3|E3|F3|", metre="none").metres == (Metre(0, 3, 4),)
    assert read("C2|D2|E2|F2|").metres == (Metre(0, 2, 4),)
    # Two bars are not enough to tell.
    assert read("C3|D3|").metres == (Metre(0, 4, 4),)


@pytest.mark.parametrize(
    ("written", "tempo"),
    [
        ("1/4=90", 90),
        ("1/2=60", 120),
        ('"Allegro" 3/8=80', 120),
        ("96", 96),
        ("1/4 =50", 50),
        ("3/8 1/8=60", 120),
        ('"Slow"', 120),
        ("1/4=0", 120),
        ("1/4=99999", 1000),
    ],
)
def test_tempos(written, tempo):
    assert read("C|D4|", fields=f"Q:{written}\n").tempos == (Tempo(0, tempo),)


def test_the_tempo_changes_inside_the_tune():
    piece = read("C4|[Q:1/4=60]D4|", fields="Q:1/4=90\n")
    assert piece.tempos == (Tempo(0, 90.0), Tempo(96, 60.0))


def test_voices_become_tracks():
    piece = read("V:1\nC4|D4|\nV:2\nE4|F4|\nV:1\nG4|\nV:2\nA4|")
    inline = read("[V:1]C4|D4|\n[V:2]E4|F4|\n[V:1]G4|\n[V:2]A4|")
    assert piece == inline
    assert piece.notes[["start", "pitch", "track"]].tolist() == [
        (0, 60, 0),
        (0, 64, 1),
        (96, 62, 0),
        (96, 65, 1),
        (192, 67, 0),
        (192, 69, 1),
    ]


def test_an_overlay_sounds_with_its_bar():
    assert rows(read("C4 & E2 G2 | D4")) == [
        (0, 96, 60),
        (0, 48, 64),
        (48, 96, 67),
        (96, 192, 62),
    ]


# ABC: repeats

C, D, E, F, G = 60, 62, 64, 65, 67


@pytest.mark.parametrize(
    ("music", "once", "played"),
    [
        ("C4|D4|", [C, D], [C, D]),
        ("|:C4|D4:|", [C, D], [C, D, C, D]),
        ("C4|D4:|E4|", [C, D, E], [C, D, C, D, E]),
        ("C4::D4:|", [C, D], [C, C, D, D]),
        ("C4:||:D4:|", [C, D], [C, C, D, D]),
        ("C4:|\n|:D4:|", [C, D], [C, C, D, D]),
        ("|::C4::|", [C], [C, C, C]),
        ("C4||D4:|", [C, D], [C, D, D]),  # back to the double bar
        ("|:C4||D4:|", [C, D], [C, D, C, D]),  # but rather to the sign
        ("|:C4|1D4:|2E4|]F4|", [C, E, F], [C, D, C, E, F]),
        ("|:C4|1D4:|2E4:|F4|", [C, E, F], [C, D, C, E, F]),
        ("|:C4|[1D4:|[2E4||F4:|", [C, E, F], [C, D, C, E, F, F]),
        ("|:C4 [1 D4 :| [2 E4 ||", [C, E], [C, D, C, E]),
        ("|:C4|\\\n1 D4:|2 E4||", [C, E], [C, D, C, E]),
        ("|:C4|1,2D4:|3E4|]", [C, E], [C, D, C, D, C, E]),
        ("|:C4|1D4|E4:|2F4|G4|]", [C, F, G], [C, D, E, C, F, G]),
        ("|:C4|1D4:|2E4:||:F4|1G4:|2C4|]", [C, E, F, C], [C, D, C, E, F, G, F, C]),
    ],
)
def test_repeats(music, once, played):
    assert pitches(read(music)) == once
    piece = read(music, expand_repeats=True)
    assert pitches(piece) == played
    assert starts(piece) == list(range(0, 96 * len(played), 96))
    assert "repeats" not in piece.tags


@pytest.mark.parametrize(
    "music", ["|:C4|1D4|2E4|]", "|:C4|2D4:|1E4|]", "|:C4|1D4:|3E4|]", "|:C4|2D4:|"]
)
def test_contradictory_repeats_are_not_played(music):
    piece = read(music, expand_repeats=True)
    assert piece.tags["repeats"] == "unexpanded"
    assert piece.notes.tolist() == read(music).notes.tolist()


@pytest.mark.parametrize("word", ['"D.C."', "!D.S.!", '"_D.C. al Fine"', "!dacapo!", '"^D. C."'])
def test_jumps_are_not_followed(word):
    piece = read(f"|:C4:|D4{word}|", expand_repeats=True)
    assert pitches(piece) == [C, C, D]
    assert piece.tags["repeats"] == "without_jumps"


@given(st.lists(st.lists(st.sampled_from("CDEFGABcdefgab"), min_size=1, max_size=4), max_size=4))
@settings(max_examples=30)
def test_playing_repeated_sections_doubles_each(sections):
    music = "".join("|:" + "|".join(f"{note}4" for note in notes) + ":|" for notes in sections)
    if sections:
        once = [pitches(read(f"{note}4"))[0] for notes in sections for note in notes]
        played = pitches(read(music, expand_repeats=True))
        assert pitches(read(music)) == once
        assert len(played) == 2 * len(once)
        assert sorted(played) == sorted(once * 2)


# ABC: tags and files


def test_tags():
    head = "T:The Title\nT:Its other name\nC:Trad.\nR: Slipjig \n"
    assert dict(read("C", fields=head, key="Edor").tags) == {
        "number": "1",
        "title": "The Title",
        "composer": "Trad.",
        "style": "slip jig",
        "key": "E dorian",
        "mode": "dorian",
    }


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("G", "G major"),
        ("Am", "A minor"),
        ("A Minor", "A minor"),
        ("EMin", "E minor"),
        ("F#m", "F# minor"),
        ("Bb", "Bb major"),
        ("G Mixolydian", "G mixolydian"),
        ("Glyd % two sharps in the book", "G lydian"),
        ("Aaeo", "A minor"),
        ("C ionian clef=treble", "C major"),
        ("G clef=bass", "G major"),
    ],
)
def test_key_tags(written, key):
    assert read("C", key=written).tags["key"] == key


@pytest.mark.parametrize("written", ["none", "Hp", ""])
def test_no_key_no_tag(written):
    assert not {"key", "mode"} & set(read("C", key=written).tags)


def test_one_file_holds_many_tunes(tmp_path):
    path = tmp_path / "tunes.abc"
    text = (
        "% a collection\nC:Trad.\n\n"
        "X:1\nT:First\nM:C\nL:1/4\nK:C\nC4|\n\n"
        "These are words about the next tune, which has Dance and Beat in it.\n\n"
        "X:2\nT:A heading\nK:C\n\n"
        "X:2\nT:Third\nM:C\nL:1/4\nK:D\nF4|\n"
    )
    path.write_text(text)
    first, third = read_notation(path)
    assert pitches(first) == [60]
    assert pitches(third) == [66]
    assert first.tags["composer"] == third.tags["composer"] == "Trad."


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path, encoding):
    path = tmp_path / "tune.ABC"
    path.write_bytes(tune("C", fields="T:Café\n").encode(encoding))
    assert read_notation(path)[0].tags["title"] == "Café"


MUSIC = "ABCDEFGabcdefgzxXZ|:[]()1234/<>-'^_=,{}\"!+& \n\\%yVKMLQ"


@given(st.text(MUSIC, max_size=80))
@example("|1-99999999999C:|2C")
@example("C" + "9" * 5000)
@example("C" + "/" * 5000)
@example("[M:" + "9" * 5000 + "/4]C")
@example("(" + "9" * 5000 + "C")
@example("[Q:" + "9" * 5000 + "]C")
@example("C" + "'" * 40)
@example("Z99999C")
@example("[CEG")
@example("&&C&")
@settings(max_examples=150, deadline=None)
def test_no_music_breaks_the_reader(music):
    for expand_repeats in (False, True):
        with contextlib.suppress(RejectedFile):
            piece = read(music, expand_repeats=expand_repeats)
            assert piece.notes["start"].min() >= 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_notes"),
        ("X:1\nT:No key\nM:4/4\nCDEF\n", "no_notes"),
        (tune("z4|"), "no_notes"),
        (tune("C" + "'" * 9), "pitch_range"),
        (tune("Z9999|Z9999|C"), "too_long"),
        (tune("".join(f"[V:{i}]C" for i in range(257))), "too_many_tracks"),
    ],
)
def test_what_makes_no_piece_is_refused(tmp_path, text, reason):
    path = tmp_path / "tune.abc"
    path.write_text(text)
    with pytest.raises(RejectedFile, match=r"cannot read .*tune\.abc: ") as caught:
        read_notation(path)
    assert caught.value.reason == reason


# MusicXML


@pytest.fixture(scope="module")
def m21():
    return pytest.importorskip("music21")


def musicxml(m21, score):
    return m21.musicxml.m21ToXml.GeneralObjectExporter(score).parse()


def part(m21, name, *measures, instrument=None):
    """A part in 4/4; a measure is a list of music21 objects."""
    made = m21.stream.Part(id=name)
    made.partName = name
    if instrument:
        made.insert(0, instrument)
    for number, objects in enumerate(measures):
        measure = m21.stream.Measure(number=number)
        if number == 0:
            measure.timeSignature = m21.meter.TimeSignature("4/4")
            measure.keySignature = m21.key.Key("d")
        measure.append(objects)
        if number == 0 and measure.duration.quarterLength < 4:
            measure.padAsAnacrusis()
        made.append(measure)
    return made


def saved(m21, tmp_path, *parts, title="A chorale"):
    score = m21.stream.Score()
    score.metadata = m21.metadata.Metadata(title=title, composer="Anon.")
    for each in parts:
        score.insert(0, each)
    path = tmp_path / "score.musicxml"
    path.write_bytes(musicxml(m21, score))
    return path


def test_four_parts_become_four_tracks(m21, tmp_path):
    note, rest = m21.note.Note, m21.note.Rest

    def voice(name, a, b, c):
        return part(
            m21,
            name,
            [note(a, quarterLength=1)],  # a pickup
            [note(b, quarterLength=2), rest(quarterLength=1), note(c, quarterLength=1)],
        )

    [piece] = read_notation(
        saved(
            m21,
            tmp_path,
            voice("Soprano", "A4", "D5", "C5"),
            voice("Alto", "F4", "F4", "G4"),
            voice("Tenor", "D4", "A3", "E4"),
            voice("Bass", "D3", "D3", "C3"),
        )
    )
    assert piece.track_names == ("Soprano", "Alto", "Tenor", "Bass")
    assert piece.notes[["start", "end", "pitch", "track"]].tolist() == [
        (72, 96, 69, 0),
        (72, 96, 65, 1),
        (72, 96, 62, 2),
        (72, 96, 50, 3),
        (96, 144, 74, 0),
        (96, 144, 65, 1),
        (96, 144, 57, 2),
        (96, 144, 50, 3),
        (168, 192, 72, 0),
        (168, 192, 67, 1),
        (168, 192, 64, 2),
        (168, 192, 48, 3),
    ]
    assert dict(piece.tags) == {
        "title": "A chorale",
        "composer": "Anon.",
        "key": "D minor",
        "mode": "minor",
    }


def test_ties_triplets_chords_and_what_is_left_out(m21, tmp_path):
    note, chord = m21.note.Note, m21.chord.Chord
    held = note("E4", quarterLength=2)
    held.tie = m21.tie.Tie("start")
    end = note("E4", quarterLength=1)
    end.tie = m21.tie.Tie("stop")
    third = m21.duration.Duration(1 / 3)
    triplet = [note(p, duration=third) for p in ("C4", "D4", "E4")]
    path = saved(
        m21,
        tmp_path,
        part(
            m21,
            "Piano",
            [m21.harmony.ChordSymbol("Am7"), note("F4").getGrace(), *triplet, note("G4"), held],
            [end, chord(["C4", "G4"], quarterLength=3)],
            instrument=m21.instrument.Harpsichord(),
        ),
    )
    [piece] = read_notation(path)
    assert rows(piece) == [
        (0, 8, 60),
        (8, 16, 62),
        (16, 24, 64),
        (24, 48, 67),
        (48, 120, 64),
        (120, 192, 60),
        (120, 192, 67),
    ]
    assert set(piece.notes["program"]) == {6}


def test_chord_symbols_are_no_notes_even_if_they_last(m21):
    symbol = m21.harmony.ChordSymbol("Am7", quarterLength=4)
    made = part(m21, "Flute", [m21.note.Note("C4", quarterLength=4)])
    made.getElementsByClass(m21.stream.Measure)[0].insert(0, symbol)
    score = m21.stream.Score()
    score.insert(0, made)
    assert rows(piece_from_score(score)) == [(0, 96, 60)]


def test_transposing_instruments_sound(m21, tmp_path):
    whole = m21.note.Note("D5", quarterLength=4)
    path = saved(
        m21, tmp_path, part(m21, "Clarinet", [whole], instrument=m21.instrument.Clarinet())
    )
    assert pitches(read_notation(path)[0]) == [72]


def test_tempo_and_metre_of_musicxml(m21, tmp_path):
    note, tempo = m21.note.Note, m21.tempo.MetronomeMark
    made = part(
        m21,
        "Flute",
        [tempo(number=60, referent=m21.duration.Duration(2)), note("C4")],
        [note("D4", quarterLength=4)],
        [tempo(number=90), note("E4", quarterLength=3)],
    )
    made.getElementsByClass(m21.stream.Measure)[2].timeSignature = m21.meter.TimeSignature("3/4")
    [piece] = read_notation(saved(m21, tmp_path, made))
    assert starts(piece) == [72, 96, 192]
    assert piece.tempos == (Tempo(0, 120.0), Tempo(192, 90.0))
    assert piece.metres == (Metre(0, 4, 4), Metre(192, 3, 4))


def test_a_word_is_no_tempo(m21):
    score = m21.stream.Score()
    whole = m21.note.Note("D4", quarterLength=4)
    score.insert(0, part(m21, "Flute", [m21.tempo.MetronomeMark("Allegro"), whole]))
    assert piece_from_score(score).tempos == (Tempo(0, 120.0),)


def test_repeats_of_musicxml(m21, tmp_path):
    bars = [[m21.note.Note(p, quarterLength=4)] for p in ("C4", "D4", "E4", "F4", "G4")]
    made = part(m21, "Flute", *bars)
    measures = made.getElementsByClass(m21.stream.Measure)
    measures[0].leftBarline = m21.bar.Repeat(direction="start")
    measures[1].rightBarline = m21.bar.Repeat(direction="end")
    measures[3].rightBarline = m21.bar.Repeat(direction="end", times=3)
    made.insert(0, m21.spanner.RepeatBracket(measures[1], number=1))
    made.insert(0, m21.spanner.RepeatBracket(measures[2], number=2))
    measures[3].leftBarline = m21.bar.Repeat(direction="start")
    path = saved(m21, tmp_path, made)
    assert pitches(read_notation(path)[0]) == [C, E, F, G]
    played = pitches(read_notation(path, expand_repeats=True)[0])
    assert played == [C, D, C, E, F, F, F, G]
    score = m21.converter.parseData(path.read_text(), format="musicxml")
    independent = score.expandRepeats().flatten().notes
    assert played == [n.pitch.midi for n in independent]


def test_da_capo_of_musicxml_is_not_followed(m21, tmp_path):
    made = part(m21, "Flute", [m21.note.Note("C4", quarterLength=4)])
    made.getElementsByClass(m21.stream.Measure)[0].append(m21.repeat.DaCapo())
    path = saved(m21, tmp_path, made)
    assert read_notation(path, expand_repeats=True)[0].tags["repeats"] == "without_jumps"
    assert "repeats" not in read_notation(path)[0].tags


def test_a_score_without_measures_is_read_as_it_runs(m21):
    score = m21.stream.Score()
    voice = m21.stream.Part()
    voice.append([m21.note.Note(p) for p in ("C4", "D4", "E4", "F4", "G4")])
    score.insert(0, voice)
    assert starts(piece_from_score(score)) == [0, 24, 48, 72, 96]


def test_packed_musicxml(m21, tmp_path):
    plain = saved(m21, tmp_path, part(m21, "Flute", [m21.note.Note("C4", quarterLength=4)]))
    packed = tmp_path / "score.mxl"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", "<container/>")
        archive.write(plain, "score.xml")
    assert read_notation(packed) == read_notation(plain)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.xml", b"", "unreadable"),
        ("a.xml", b"<html><body>no music</body></html>", "unreadable"),
        ("a.musicxml", b"<score-partwise><part-list></part-list>", "unreadable"),
        ("a.musicxml", bytes(range(256)), "unreadable"),
        ("a.mxl", b"PK\x03\x04 not an archive", "unreadable"),
        ("a.mxl", b"", "unreadable"),
        ("a.pdf", b"%PDF", "not_notation"),
        ("a.xml", b"<score-partwise><part-list/></score-partwise>", "no_notes"),
    ],
)
def test_what_is_not_musicxml_is_refused(m21, tmp_path, capfd, name, data, reason):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(RejectedFile, match="cannot read") as caught:
        read_notation(path)
    assert caught.value.reason == reason
    assert capfd.readouterr().err == ""


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RejectedFile, match="No such file") as caught:
        read_notation(tmp_path / "none.abc")
    assert caught.value.reason == "unreadable"


def test_large_files_and_archives_that_swell_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(notation, "MAX_BYTES", 1000)
    (tmp_path / "a.abc").write_text(tune("C4|" * 400))
    with zipfile.ZipFile(tmp_path / "a.mxl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("score.xml", " " * 100_000)
    for name in ("a.abc", "a.mxl"):
        with pytest.raises(RejectedFile) as caught:
            read_notation(tmp_path / name)
        assert caught.value.reason == "too_large"


# Bombs: what would take the reader too much time or memory


PRIMES = [n for n in range(2, 2000) if all(n % d for d in range(2, 45) if d < n)]
VOICES = "".join(f"V:{i}\nC\n" for i in range(255))
ABC_BOMBS = {
    "a note without end": ("C999999999", "too_long"),
    "silence without end": ("z99999|" * 300 + "C", "too_long"),
    "notes": ("C" * 100_001, "too_many_notes"),
    "one chord": ("[" + "C" * 100_001 + "]", "too_many_notes"),
    "text": ("C" * 300_000, "too_large"),
    "bars": (VOICES + "V:0\n" + "C/16|" * 20_001, "too_long"),
    "voices": ("".join(f"[V:{i}]" for i in range(9_000)) + "C", "too_many_tracks"),
    "denominators": ("".join(f"C/{p}" for p in PRIMES), "no_common_measure"),
    "denominators, bar by bar": ("".join(f"C/{p}|" for p in PRIMES), "no_common_measure"),
    "octaves": ("C" + "'" * 100_000, "pitch_range"),
    "open braces": ("{" * 100_000, "no_notes"),
    "open fields": ("[K:" * 30_000, "no_notes"),
    "sums": ("[M:" + "1+" * 100_000 + "/4]", "no_notes"),
}


@pytest.mark.parametrize("bomb", ABC_BOMBS)
def test_abc_bombs_are_refused(tmp_path, bomb):
    music, reason = ABC_BOMBS[bomb]
    (tmp_path / "a.abc").write_text(tune(music))
    with pytest.raises(RejectedFile) as caught:
        read_notation(tmp_path / "a.abc", expand_repeats=True)
    assert caught.value.reason == reason


def test_repeats_without_end_are_not_played():
    piece = read("CDEF|" * 999 + "CDEF" + ":" * 100_000 + "|", expand_repeats=True)
    assert len(piece.notes) == 4000
    assert piece.tags["repeats"] == "unexpanded"


def test_a_broken_rhythm_breaks_once():
    assert rows(read("C>>>>>>D")) == rows(read("C>>>D"))


def test_a_head_counts_for_every_tune(tmp_path, monkeypatch):
    monkeypatch.setattr(notation, "MAX_BYTES", 10_000)
    (tmp_path / "a.abc").write_text("%" * 900 + "\n" + tune("C") * 20)
    with pytest.raises(RejectedFile) as caught:
        read_notation(tmp_path / "a.abc")
    assert caught.value.reason == "too_large"


def test_of_tempos_at_one_place_the_last_is_kept():
    [bar] = read_tune(tune("C", fields="Q:1/4=90\n" * 9 + "Q:1/4=99\n"))
    assert bar.tempos == [(0, 99.0)]


def test_what_music21_quotes_is_fit_to_print(m21, tmp_path):
    odd = MUSICXML.replace("<beat-type>4", "<beat-type>" + "\x85x" * 5000)
    (tmp_path / "a.xml").write_text(odd, encoding="utf-8")
    with pytest.raises(RejectedFile) as caught:
        read_notation(tmp_path / "a.xml")
    message = str(caught.value).removeprefix(f"cannot read {tmp_path / 'a.xml'}: ")
    assert message.isprintable()
    assert len(message) < 400


def test_tags_are_cut():
    assert len(piece_from_abc(tune("C", fields="T:" + "x" * 9999 + "\n")).tags["title"]) == 200


LAUGHS = "".join(f"<!ENTITY e{i} '{f'&e{i - 1};' * 10}'>" for i in range(1, 10))
NOTE = (
    "<note><pitch><step>C</step><octave>4</octave></pitch>"
    "<duration>1</duration><voice>1</voice></note>"
)
MUSICXML = (
    "<score-partwise><part-list><score-part id='P'><part-name>x</part-name></score-part>"
    "</part-list><part id='P'><measure number='1'><attributes><divisions>1</divisions><time>"
    "<beats>4</beats><beat-type>4</beat-type></time></attributes>"
    f"{NOTE * 4}</measure></part></score-partwise>"
)
BEATS = "<beats>4</beats>"
MUSICXML_BOMBS = {
    "billion laughs": (f"<!DOCTYPE a [<!ENTITY e0 'ha'>{LAUGHS}]>" + MUSICXML, "entities"),
    "a file of yours": ("<!DOCTYPE a [<!ENTITY e SYSTEM '/etc/passwd'>]>" + MUSICXML, "entities"),
    "parameter entity": ("<!DOCTYPE a [<!ENTITY % e SYSTEM 'x'> %e;]>" + MUSICXML, "entities"),
    "depth": (
        MUSICXML.replace("<part-list>", "<a>" * 100 + "</a>" * 100 + "<part-list>"),
        "too_deep",
    ),
    "more depth": ("<a>" * 1_000_000, "too_deep"),
    "notes": (MUSICXML.replace(NOTE, "<note/>" * 30_000), "too_many_notes"),
    "elements": (MUSICXML.replace(NOTE, "<a/>" * 500_001), "too_large"),
    "parts": (MUSICXML.replace("<part ", "<part/>" * 256 + "<part "), "too_many_tracks"),
    "a bar without end": (MUSICXML.replace(BEATS, "<beats>99999999</beats>"), "absurd_number"),
    "a sum": (MUSICXML.replace(BEATS, f"<beats>{'1+' * 300}1</beats>"), "absurd_number"),
    "pairs": (MUSICXML.replace(BEATS, f"{BEATS}<beat-type>4</beat-type>" * 99), "absurd_number"),
    "sharps": (
        MUSICXML.replace("<time>", "<key><fifths>-99999999</fifths><mode>major</mode></key><time>"),
        "absurd_number",
    ),
    "endings": (
        MUSICXML.replace(NOTE, f"<barline><ending number='1-9999999'/></barline>{NOTE}"),
        "absurd_number",
    ),
    "a note without end": (
        MUSICXML.replace("<duration>1<", "<duration>999999999<"),
        "too_long",
    ),
    "backwards": (MUSICXML.replace("<duration>1<", "<duration>-5<", 1), "negative_time"),
    "no divisions": (MUSICXML.replace("<divisions>1<", "<divisions>0<"), "unreadable"),
}


@pytest.mark.parametrize("bomb", MUSICXML_BOMBS)
def test_musicxml_bombs_are_refused(m21, tmp_path, bomb):
    text, reason = MUSICXML_BOMBS[bomb]
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(RejectedFile) as caught:
        read_notation(tmp_path / "a.xml")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "head",
    ["", "<?xml version='1.0' encoding='UTF-8'?><!DOCTYPE score-partwise PUBLIC 'a' 'http://b'>"],
)
def test_musicxml_that_is_no_bomb_is_read(m21, tmp_path, head):
    (tmp_path / "a.xml").write_text(head + MUSICXML)
    [piece] = read_notation(tmp_path / "a.xml")
    assert starts(piece) == [0, 24, 48, 72]


def mxl(method=zipfile.ZIP_DEFLATED, num_members=1):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for i in range(num_members):
            archive.writestr(f"{i}.xml", MUSICXML if i == 0 else "")
    return bytearray(file.getvalue())


def test_packed_bombs_are_refused(m21, tmp_path):
    locked = mxl()
    locked[locked.index(b"PK\1\2") + 8] |= 1
    bombs = [
        (mxl(zipfile.ZIP_BZIP2), "unreadable"),  # 4 KiB of it may unpack to gigabytes at once
        (mxl(num_members=1001), "too_many_members"),
        (locked, "encrypted"),
    ]
    (tmp_path / "a.mxl").write_bytes(mxl(num_members=1000))
    assert len(read_notation(tmp_path / "a.mxl")) == 1
    for data, reason in bombs:
        (tmp_path / "a.mxl").write_bytes(data)
        with pytest.raises(RejectedFile) as caught:
            read_notation(tmp_path / "a.mxl")
        assert caught.value.reason == reason


def test_without_music21_abc_is_read_and_musicxml_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "music21", None)
    (tmp_path / "a.abc").write_text(tune("C4|"))
    (tmp_path / "a.xml").write_text("<score-partwise/>")
    assert len(read_notation(tmp_path / "a.abc")) == 1
    with pytest.raises(UserError, match=r'pip install "rnngan\[corpora\]"') as caught:
        read_notation(tmp_path / "a.xml")
    assert not isinstance(caught.value, RejectedFile)


def test_music21_leaves_no_files_behind(m21, tmp_path):
    path = saved(m21, tmp_path, part(m21, "Flute", [m21.note.Note("C4", quarterLength=4)]))
    settings = m21.environment.Environment()
    before = settings["directoryScratch"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    settings["directoryScratch"] = scratch
    try:
        read_notation(path)
    finally:
        settings["directoryScratch"] = before
    assert list(scratch.iterdir()) == []


# music21 as judge


def read_by_music21(m21, text):
    """Durations in quarters and pitches of the first part, as music21 has them."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        score = m21.converter.parseData(text, format="abc").stripTies()
    return [
        head.pitch.midi
        for element in score.parts[0].flatten().notes
        if not isinstance(element, m21.harmony.Harmony) and element.quarterLength
        for head in (element.notes if element.isChord else [element])
    ]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["ryansMammoth", "oneills1850", "airdsAirs"])
def test_as_many_notes_as_music21_reads(m21, folder):
    """Not the same notes: see the head of `notation`."""
    paths = sorted((Path(m21.__file__).parent / "corpus" / folder).glob("*.abc"))
    texts = [t for path in paths[:50] for t in tunes_in(path.read_text("utf-8", "replace"))]
    ours = theirs = 0
    for text in random.Random(0).sample(texts, 10):
        bars = notation.read_tune(text)
        tied = sum(note.tied for bar in bars for note in bar.notes)
        ours += sum(len(bar.notes) for bar in bars) - tied
        theirs += len(read_by_music21(m21, text))
    assert ours == pytest.approx(theirs, rel=0.005)
