"""Melody and accompaniment: as tokens, as pieces, and the bars that both share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.errors import UserError
from rnngan.music.parts import accompanied, highest_part, melody_line
from rnngan.music.piece import DRUMS, Metre, Piece
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.tokenizers.melody import Melody, MelodyConfig
from rnngan.music.tokenizers.parts import events_or_refuse, melody_and_rest
from rnngan.music.tokenizers.skeleton import skeleton_of, with_skeleton
from rnngan.music.vocabulary import END, PAD, START

DUO = Events(EventsConfig(metres=("4/4", "3/4"), lowest=40, highest=80, voices=3))
BAND = Events(
    EventsConfig(
        metres=("4/4",), lowest=40, highest=80, programs=(0, 32, DRUMS), velocities=(60, 90),
        voices=2, tempos=(90.0, 120.0), tags=("mode=", "mode=minor"),
    )
)  # fmt: skip
PLAIN = Events(EventsConfig(metres=("4/4", "3/4"), lowest=40, highest=80))


def named(tokens, tokenizer):
    return " ".join(tokenizer.vocabulary.names[token] for token in tokens)


def test_the_highest_voice_is_told_and_the_others_are_written():
    piece = Piece.from_rows(
        [
            *((0, 24, 72, 64, 0, 0), (24, 96, 74, 64, 0, 0)),
            *((0, 48, 50, 64, 0, 1), (48, 96, 45, 64, 0, 1)),
        ]
    )  # fmt: skip
    source, target = melody_and_rest(DUO.encode(piece), DUO)
    assert named(source, DUO) == (
        "Start Metre_4/4 Bar Position_0 Pitch_72 Duration_24 Position_24 Pitch_74 Duration_72 End"
    )
    assert named(target, DUO) == (
        "Start Metre_4/4 Bar Position_0 Voice_1 Pitch_50 Duration_48 "
        "Position_48 Voice_1 Pitch_45 Duration_48 End"
    )


def test_the_mean_decides_and_not_the_order():
    piece = Piece.from_rows([(0, 24, 60, 64, 0, 0), (0, 24, 50, 64, 0, 1), (24, 48, 71, 64, 0, 1)])
    source, _ = melody_and_rest(DUO.encode(piece), DUO)
    assert "Pitch_71" in named(source, DUO) and "Pitch_60" not in named(source, DUO)  # 60.5 > 60
    assert highest_part(piece)["pitch"].tolist() == [50, 71]
    equal = Piece.from_rows([(0, 24, 60, 64, 0, 0), (0, 24, 60, 64, 0, 1)])
    assert highest_part(equal)["track"].tolist() == [0]


def test_programs_velocities_drums_tags_and_tempo():
    piece = Piece.from_rows(
        [(0, 24, 70, 90, 32, 0), (0, 24, 50, 60, 0, 1), (0, 6, 42, 90, DRUMS, 2)],
        tags={"mode": "minor"},
    )
    source, target = melody_and_rest(BAND.encode(piece), BAND)
    head = "Start Tag_mode=minor Metre_4/4 Tempo_120.0 Bar Position_0"
    assert named(source, BAND) == f"{head} Pitch_70 Duration_24 End"
    assert named(target, BAND) == (
        f"{head} Program_0 Voice_0 Pitch_50 Duration_24 Velocity_60 "
        "Program_128 Drum_42 Velocity_90 End"
    )


def test_drums_are_no_melody():
    piece = Piece.from_rows([(0, 6, 42, 90, DRUMS, 0)])
    source, target = melody_and_rest(BAND.encode(piece), BAND)
    assert "Pitch" not in named(source, BAND) and "Position" not in named(source, BAND)
    np.testing.assert_array_equal(target, BAND.encode(piece))
    assert not len(highest_part(piece))


parts = st.lists(
    st.tuples(
        st.integers(0, 30), st.integers(1, 12), st.integers(40, 80), st.integers(0, 2)
    ),
    max_size=30,
)  # fmt: skip


@given(parts, st.integers(0, 60))
@settings(max_examples=60)
def test_every_note_goes_to_one_side_and_the_target_obeys_the_grammar(rows, cut):
    piece = Piece.from_rows([(12 * s, 12 * s + 6 * d, p, 64, 0, t) for s, d, p, t in rows])
    tokens = DUO.encode(piece)
    source, target = melody_and_rest(tokens, DUO)
    pitch = np.isin(tokens, DUO.vocabulary.ids("Pitch")).sum()
    in_halves = [np.isin(half, DUO.vocabulary.ids("Pitch")).sum() for half in (source, target)]
    assert sum(in_halves) == pitch
    assert DUO.grammar.first_error(target) is None
    assert skeleton_of(source.tolist(), DUO) == skeleton_of(target.tolist(), DUO)
    # An excerpt may be cut anywhere behind its head.
    piece_of = tokens[: 3 + cut]
    _, begun = melody_and_rest(piece_of, DUO)
    assert DUO.grammar.first_error(begun) is None


def test_transposing_and_dividing_commute():
    piece = Piece.from_rows([(0, 24, 70, 64, 0, 0), (0, 48, 50, 64, 0, 1)])
    halves = melody_and_rest(DUO.encode(piece.transposed(3)), DUO)
    pitches = DUO.vocabulary.ids("Pitch")
    for half, before in zip(halves, melody_and_rest(DUO.encode(piece), DUO)):
        np.testing.assert_array_equal(half, before + 3 * np.isin(before, pitches))


def test_other_tokens_are_refused():
    line = Melody(MelodyConfig(metres=("4/4",), lowest=48, highest=84))
    with pytest.raises(UserError, match="seq2seq needs a corpus prepared with --tokenizer events"):
        events_or_refuse(line, "seq2seq")
    assert events_or_refuse(DUO, "seq2seq") is DUO


# Skeletons


def walk(grammar, seed):
    """A random sequence that the grammar allows, to its end."""
    random, state, tokens = np.random.default_rng(seed), 0, []
    while (token := int(random.choice(np.flatnonzero(grammar.allowed[state])))) != PAD:
        tokens.append(token)
        state = int(grammar.next_state[state, token])
        assert len(tokens) < 1000
    return tokens


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("metres", [((0, 4, 4),), ((0, 4, 4), (96, 3, 4), (240, 4, 4))])
def test_whatever_is_written_has_the_bars_and_metres_of_the_melody(metres, seed):
    melody = Piece.from_rows(
        [(0, 24, 70), (96, 120, 71), (250, 270, 72)], metres=tuple(Metre(*m) for m in metres)
    )
    skeleton = skeleton_of(PLAIN.encode(melody).tolist(), PLAIN)
    grammar = with_skeleton(PLAIN, skeleton)
    tokens = walk(grammar, seed)
    assert PLAIN.grammar.first_error(np.array(tokens)) is None
    assert skeleton_of(tokens, PLAIN) == skeleton
    assert tokens[0] == START and tokens[-1] == END
    assert PLAIN.decode(np.array(tokens)).metres == melody.metres


def test_a_skeleton_allows_what_has_it_and_nothing_else():
    one = PLAIN.encode(Piece.from_rows([(0, 24, 70), (96, 120, 71)]))
    other = PLAIN.encode(Piece.from_rows([(12, 24, 60), (12, 36, 64), (180, 192, 71)]))
    longer = PLAIN.encode(Piece.from_rows([(0, 24, 70), (200, 220, 71)]))
    grammar = with_skeleton(PLAIN, skeleton_of(one.tolist(), PLAIN))
    assert grammar.first_error(one) is None and grammar.first_error(other) is None
    assert named([longer[grammar.first_error(longer)]], PLAIN) == "Bar"
    in_three = PLAIN.encode(Piece.from_rows([(0, 24, 70)], metres=(Metre(0, 3, 4),)))
    assert named([in_three[grammar.first_error(in_three)]], PLAIN) == "Metre_3/4"


# Pieces


def test_a_melody_of_one_voice_stays_as_it_is():
    rows = [(0, 24, 70, 90, 5, 3), (26, 48, 72, 80, 5, 3)]
    line, left_out = melody_line(Piece.from_rows([*rows, (0, 48, 40, 70, 5, 1)]))
    assert left_out == 0
    assert [tuple(row) for row in line.tolist()] == rows


def test_of_a_part_in_several_voices_the_top_line_is_the_melody():
    piece = Piece.from_rows([(0, 24, 70), (0, 24, 60), (24, 48, 71), (24, 48, 62), (48, 96, 65)])
    line, left_out = melody_line(piece)
    assert line["pitch"].tolist() == [70, 71, 65] and left_out == 2


def test_both_sound_together_bar_by_bar():
    """The first bar of the melody is cut after a quarter: what sounds later there is cut off."""
    melody = Piece.from_rows(
        [(0, 24, 70, 90, 5, 2), (24, 96, 72, 80, 5, 2)], metres=(Metre(0, 4, 4), Metre(24, 3, 4))
    )
    others = Piece.from_rows(
        [(0, 96, 50, 64, 0, 0), (24, 48, 53, 64, 0, 0), (96, 168, 52, 64, 0, 1), (120, 400, 45)],
        metres=(Metre(0, 4, 4), Metre(96, 3, 4)),
    )
    both = accompanied(melody, others)
    assert both.metres == melody.metres
    assert [tuple(row) for row in both.notes.tolist()] == [
        (0, 24, 70, 90, 5, 0),
        (0, 24, 50, 64, 0, 1),
        (24, 96, 72, 80, 5, 0),
        (24, 96, 52, 64, 0, 2),
        (48, 96, 45, 64, 0, 1),
    ]


def test_nothing_to_accompany_is_accompanied_by_nothing():
    silence = Piece.from_rows([])
    assert not len(accompanied(silence, Piece.from_rows([(0, 24, 60)])).notes)
    melody = Piece.from_rows([(0, 24, 60)])
    assert accompanied(melody, silence) == melody
