import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.data.filters import ALIASES, MEASURES, Filter, describe_measures
from rnngan.errors import UserError
from rnngan.music.piece import DRUMS, NOTE, Metre, Piece, Tempo

FOUR_QUARTERS = [(0, 24, 60), (24, 48, 64), (48, 72, 67), (72, 96, 72)]
JIG = Piece.from_rows(
    FOUR_QUARTERS, metres=(Metre(0, 6, 8),), tags={"style": "jig", "key": "G major"}
)
BAND = Piece.from_rows(
    [
        (0, 48, 60, 64, 0, 0),
        (24, 96, 48, 64, 32, 1),
        (48, 96, 64, 64, 0, 2),
        (0, 12, 36, 64, DRUMS, 3),
        (12, 24, 38, 64, DRUMS, 3),
        (288, 300, 72, 64, 0, 0),
    ],
    tempos=(Tempo(0, 120.0), Tempo(96, 60.0)),
)
CHANGING = Piece.from_rows(FOUR_QUARTERS, metres=(Metre(0, 2, 4), Metre(48, 4, 4)))
SILENCE = Piece(notes=np.empty(0, NOTE))
BEATS = Piece.from_rows([(0, 24, 36, 64, DRUMS)])


def holds(text, piece):
    return Filter.parse(text).failing(piece) is None


# What the names mean


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metres", 1),
        ("polyphony", 2),  # the first piano note ends where the third begins; drums do not count
        ("notes", 6),
        ("tracks", 4),
        ("programs", 3),
        ("drums", 2),
        ("drum_rate", 1 / 3),
        ("bars", 4),
        ("empty_bars", 2),
        ("empty_bar_rate", 0.5),
        ("quarters", 12.5),
        ("seconds", 2 + 8.5),
        ("lowest", 48),
        ("highest", 72),
        ("tempo", round(60 * 12.5 / 10.5, 3)),
        ("density", 6 / 12.5),
    ],
)
def test_measures_of_a_band(name, value):
    assert MEASURES[name].of(BAND) == pytest.approx(value)


def test_every_measure_is_tested_and_described():
    tested = test_measures_of_a_band.pytestmark[0].args[1]
    assert {name for name, _ in tested} | {"metre"} == set(MEASURES)
    assert set(ALIASES.values()) <= set(MEASURES)
    assert [line.split()[0] for line in describe_measures().splitlines()] == list(MEASURES)


def test_leading_silence_is_no_part_of_the_density():
    piece = Piece.from_rows([(96 + 12 * i, 108 + 12 * i, 60) for i in range(8)])
    assert holds("density == 2", piece)


@pytest.mark.parametrize("tempo", [33.3, 97, 120, 145.25, 299])
@pytest.mark.parametrize("end", [1, 77, 480_000])
def test_a_steady_tempo_is_itself(tempo, end):
    piece = Piece.from_rows([(0, end, 60)], tempos=(Tempo(0, tempo),))
    assert holds(f"tempo == {tempo}", piece)


@st.composite
def pieces(draw):
    note = st.tuples(
        st.integers(0, 300), st.integers(1, 120), st.integers(50, 55), st.sampled_from([0, DRUMS])
    )
    rows = draw(st.lists(note, max_size=15))
    return Piece.from_rows([(s, s + size, pitch, 64, program) for s, size, pitch, program in rows])


@given(pieces())
@settings(max_examples=60, deadline=None)
def test_measures_agree_with_counting_tick_by_tick(piece):
    ticks = range(piece.end)
    rows = piece.notes.tolist()
    sounding = [sum(n[0] <= t < n[1] for n in rows if n[4] != DRUMS) for t in ticks]
    assert MEASURES["polyphony"].of(piece) == max(sounding, default=0)
    bars = [range(line, line + 96) for line in range(0, piece.end, 96)]
    silent = [not any(n[0] <= t < n[1] for n in rows for t in bar) for bar in bars]
    assert MEASURES["empty_bars"].of(piece) == sum(silent)
    assert MEASURES["bars"].of(piece) == len(bars)


@pytest.mark.parametrize("piece", [SILENCE, BEATS], ids=["nothing", "drums alone"])
def test_what_a_piece_does_not_have_compares_with_nothing(piece):
    assert not holds("lowest >= 0", piece)
    assert not holds("highest <= 127", piece)
    assert holds("polyphony == 0", piece)


def test_no_notes_have_no_density_and_no_share_of_drums():
    assert not holds("density >= 0", SILENCE)
    assert not holds("drum_rate >= 0", SILENCE)
    assert holds("bars == 0 and seconds == 0 and tempo == 120 and metre == 4/4", SILENCE)


# Metres


@pytest.mark.parametrize(
    ("text", "jig", "changing"),
    [
        ("metre == 6/8", True, False),
        ("meter==6/8", True, False),
        ("6/8 == metre", True, False),
        ("metre != 6/8", False, True),
        ("metre == 4/4", False, False),  # not all of it
        ("metre != 4/4", True, False),  # and not none of it
        ("not metre == 4/4", True, True),
        ("metre in (2/4, 4/4)", False, True),
        ("metre not in [2/4, 3/4]", True, False),
        ("metre == 3/4 or metre == 6/8", True, False),
        ("metres == 1", True, False),
    ],
)
def test_what_is_said_of_a_metre_must_hold_for_each(text, jig, changing):
    assert (holds(text, JIG), holds(text, CHANGING)) == (jig, changing)


def test_a_metre_after_the_end_does_not_count():
    assert holds(
        "metre == 4/4", Piece.from_rows(FOUR_QUARTERS, metres=(Metre(0, 4, 4), Metre(96, 3, 4)))
    )


# Tags


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ('style == "jig"', True),
        ("style in ('jig', 'reel')", True),
        ('style != "jig"', False),
        ('composer == ""', True),
        ('composer != "Bach"', True),
        ('"jig" == style', True),
        ('mode == "minor"', False),  # of the key that the source says
    ],
)
def test_tags(text, truth):
    assert holds(text, JIG) is truth


def test_the_mode_is_worked_out_where_the_source_is_silent():
    minor = Piece.from_rows([(0, 96, p) for p in (57, 60, 64, 69)])
    assert holds('mode == "minor" and key == "A minor"', minor)
    assert not minor.tags


# Logic


@pytest.mark.parametrize(
    ("text", "failing"),
    [
        ("", None),
        ("  ", None),
        ("notes == 4 and tracks == 1", None),
        ("notes == 4 and tracks > 1 and bars > 9", "tracks > 1"),
        ("(notes == 5 or tracks == 1) and bars>9", "bars>9"),
        ("(notes == 5 or tracks == 2) and bars == 1", "notes == 5 or tracks == 2"),
        ("not (notes == 4 and tracks == 1)", "not (notes == 4 and tracks == 1)"),
        ("2 <= notes <= 4", None),
        ("2 <= notes < 4", "2 <= notes < 4"),
        ("polyphony <= tracks", None),
        ("lowest > -1", None),
        ('title == "ä" and notes==5', 'title == "ä"'),
        ('composer != "ä" and\n notes==5', "notes==5"),
    ],
)
def test_the_first_clause_that_fails(text, failing):
    assert Filter.parse(text).failing(JIG) == failing


@given(
    st.lists(st.tuples(st.sampled_from(["notes", "bars"]), st.integers(0, 6)), min_size=3),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_logic_agrees_with_python(parts, data):
    words = []
    for name, number in parts:
        sign = data.draw(st.sampled_from(["<", "<=", "==", "!=", ">", ">="]))
        joint = data.draw(st.sampled_from([" and ", " or ", " and not ", " or not "]))
        words += [f"{name} {sign} {number}", joint]
    text = "".join(words[:-1])
    bars = JIG.num_bars
    assert holds(text, JIG) == eval(text, {"notes": 4, "bars": bars})  # noqa: S307


def test_a_filter_travels_to_another_process():
    parsed = Filter.parse('notes == 4 and style == "reel"')
    travelled = pickle.loads(pickle.dumps(parsed))  # noqa: S301
    assert travelled == parsed
    assert travelled.failing(JIG) == 'style == "reel"'


# What is no filter


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("polyfony <= 4", 1, "unknown name 'polyfony'; did you mean 'polyphony'?"),
        ("notes > 3 and polyfony <= 4", 15, "did you mean 'polyphony'"),
        ('title == "ö" and bahrs > 4', 18, "did you mean 'bars'"),
        ("mettre == 4/4", 1, "did you mean 'metre'"),
        ("style == reel", 1, 'in quotes, as in style == "reel"'),
        ("drums", 1, "expected a comparison"),
        ("polyfony", 1, "did you mean"),
        ("notes > 3 and 5", 15, "expected a comparison"),
        ("notes = 3", 7, "invalid syntax; write, for example, metre == 4/4"),
        ("notes > ", 8, "invalid syntax"),
        ("notes == 3)", 11, "unmatched"),
        ("(notes == 3", 1, "never closed"),
        ("bars == 4/4", 1, "bars is a number and cannot be compared with 4/4, a metre"),
        ("metre == 4", 1, "metre is a metre and cannot be compared with 4, a number"),
        ('tempo == "fast"', 1, "cannot be compared"),
        ("metre < 4/4", 1, "only be compared with ==, != and in"),
        ('style < "reel"', 1, "only be compared"),
        ("notes in 3", 1, "a list stands after in"),
        ("notes == (3, 4)", 1, "a list stands after in"),
        ("(3, 4) in notes", 1, "a list stands after in"),
        ("notes in (3, 4/4)", 10, "values of one kind"),
        ("notes in ()", 10, "expected"),
        ("notes in (bars, 4)", 11, "expected"),
        ("notes is 3", 1, "expected one of ==, !="),
        ("notes == True", 10, "expected"),
        ("notes == 3j", 10, "expected"),
        ("notes == 2 ** 99", 10, "expected"),
        ("notes + 1 == 3", 1, "expected"),
        ("notes.real == 3", 1, "expected"),
        ("metre == 4/0.5", 10, "expected"),
        ("metre == 4/5", 10, "4/5 is no time signature"),
        ("(lambda: notes)() == 3", 1, "expected"),
        ('__import__("os").system("true") == 0', 1, "expected"),
        ("[n for n in (1, 2)] == notes", 1, "expected"),
        ('f"{notes}" == style', 1, "expected"),
        ("\0", 1, ""),
        ("not " * 50_000 + "notes == 3", 1, ""),
        ("(" * 5_000, 1, ""),
    ],
)
def test_what_is_refused(text, place, message):
    with pytest.raises(UserError) as error:
        Filter.parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert f"at character {place}: " in str(error.value) or not message


@given(st.text(alphabet="notesbar =<>!/4()[]\"'andotri,.\n\\#", max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_filter_or_refused(text):
    try:
        assert isinstance(holds(text, BAND), bool)
    except UserError as error:
        assert "cannot read the filter" in str(error)
