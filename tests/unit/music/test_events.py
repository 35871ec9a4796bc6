import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.errors import UserError
from rnngan.music.midi import write_midi
from rnngan.music.piece import DRUMS, NOTE, Metre, Piece, Tempo
from rnngan.music.tokenizers.events import DURATIONS, Events, EventsConfig
from rnngan.music.tokenizers.summary import Summary
from rnngan.music.vocabulary import CONTINUE, END, PAD, START, Vocabulary

EMPTY = Piece(notes=np.empty(0, NOTE))
SIZES = {"4/4": 96, "3/4": 72, "6/8": 72, "5/32": 15}
BAND = Events(
    EventsConfig(
        metres=tuple(SIZES),
        lowest=50,
        highest=70,
        programs=(0, 33, DRUMS),
        velocities=(40, 64, 90),
        tempos=(60.0, 90.5, 120.0),
        tags=("style=", "style=jig", "style=reel", "composer=", "composer=Bach"),
    )
)
TUNE = Events(EventsConfig(metres=("4/4", "3/4"), lowest=50, highest=70, tempos=(96.0,)))
BANDS = Events(replace(BAND.config, voices=3))
CHOIR = Events(replace(TUNE.config, voices=4))


def spelt(events, piece):
    return " ".join(events.vocabulary.names[i] for i in events.encode(piece))


def ids(events, words):
    return np.array([events.vocabulary.index[name] for name in words.split()])


def decoded(events, words):
    return events.decode(ids(events, words))


def parts(piece):
    """How many tracks each program has; the kit counts as one."""
    kit = piece.notes["program"] == DRUMS
    tracks = np.where(kit, 0, piece.notes["track"]).tolist()
    return Counter(program for program, _ in set(zip(piece.notes["program"].tolist(), tracks)))


@st.composite
def any_pieces(draw):
    """Pieces of all kinds: off the grid, overlapping, with cut bars, changes that change nothing
    or come after the end, and things that have no token."""
    note = st.tuples(
        st.integers(0, 700),
        st.integers(1, 500),
        st.integers(48, 72),
        st.integers(1, 127),
        st.sampled_from([0, 33, 40, DRUMS]),
        st.integers(0, 2),
    )
    notes = draw(st.lists(note, max_size=12))
    metre = st.tuples(
        st.integers(1, 900), st.sampled_from([(4, 4), (3, 4), (6, 8), (5, 32), (7, 8)])
    )
    tempo = st.tuples(st.integers(1, 900), st.sampled_from([30.0, 60.0, 91.0, 119.0, 240.0]))
    metres = dict([(0, draw(metre)[1]), *draw(st.lists(metre, max_size=4))])
    tempos = dict([(0, draw(tempo)[1]), *draw(st.lists(tempo, max_size=4))])
    return Piece.from_rows(
        [(start, start + size, *rest) for start, size, *rest in notes],
        metres=tuple(Metre(tick, *metres[tick]) for tick in sorted(metres)),
        tempos=tuple(Tempo(tick, tempos[tick]) for tick in sorted(tempos)),
        tags=draw(st.sampled_from([{}, {"style": "jig"}, {"style": "polka", "composer": "Bach"}])),
    )


@st.composite
def pieces_on_the_grid(draw, voices=1):
    """Pieces that `BAND` has tokens for, or, with 3 voices, `BANDS`: full bars, changes on bar
    lines, one note at a time per pitch and track, a track per program and voice."""
    names = draw(st.lists(st.sampled_from(list(SIZES)), min_size=1, max_size=5))
    lines = np.cumsum([0, *(SIZES[name] for name in names)]).tolist()
    rows, busy = [], {}
    for line, name in zip(lines, names):
        grid = [t for t in range(SIZES[name]) if t % 3 == 0 or t % 4 == 0]
        for place in sorted(draw(st.lists(st.sampled_from(grid), min_size=1, max_size=4))):
            program = draw(st.sampled_from([0, 33, DRUMS]))
            pitch = draw(st.integers(0, 127) if program == DRUMS else st.integers(50, 70))
            size = 6 if program == DRUMS else draw(st.sampled_from(DURATIONS.tolist()))
            voice = 0 if program == DRUMS else draw(st.integers(0, voices - 1))
            if busy.get((program, voice, pitch), 0) <= line + place:
                velocity = draw(st.sampled_from([40, 64, 90]))
                rows.append((line + place, line + place + size, pitch, velocity, program, voice))
                busy[program, voice, pitch] = line + place + size
    # What nothing sounds in is not part of a piece.
    end = max(row[1] for row in rows)
    parts = sorted({row[4:] for row in rows})
    tempos = [draw(st.sampled_from([60.0, 90.5, 120.0])) for _ in names]
    changes = [i for i, line in enumerate(lines[:-1]) if line < end]
    return Piece.from_rows(
        [(*row[:5], parts.index(row[4:])) for row in rows],
        metres=tuple(
            Metre(lines[i], *map(int, names[i].split("/")))
            for i in changes
            if i == 0 or names[i] != names[i - 1]
        ),
        tempos=tuple(
            Tempo(lines[i], tempos[i]) for i in changes if i == 0 or tempos[i] != tempos[i - 1]
        ),
        tags=draw(st.sampled_from([{}, {"style": "jig"}, {"style": "reel", "composer": "Bach"}])),
    )


# Worked by hand


def test_a_melody_of_two_bars():
    melody = Piece.from_rows([(0, 24, 60), (24, 48, 62), (96, 192, 64)])
    events = Events.fit(Summary.of([melody]))
    assert spelt(events, melody) == (
        "Start Metre_4/4 "
        "Bar Position_0 Pitch_60 Duration_24 Position_24 Pitch_62 Duration_24 "
        "Bar Position_0 Pitch_64 Duration_96 End"
    )
    assert events.decode(events.encode(melody)) == melody


def test_a_band_with_everything():
    piece = Piece.from_rows(
        [
            (0, 48, 60, 64, 33, 2),  # a bass under a chord
            (0, 24, 64, 90, 0, 0),
            (0, 24, 60, 40, 0, 0),
            (0, 6, 36, 90, DRUMS, 1),
            (24, 30, 38, 40, DRUMS, 1),
            (192, 204, 67, 64, 0, 0),  # after an empty bar, in the new metre
        ],
        metres=(Metre(0, 4, 4), Metre(192, 3, 4)),
        tempos=(Tempo(0, 120.0), Tempo(96, 60.0), Tempo(192, 90.5)),
        tags={"composer": "Bach", "style": "polka", "title": "?"},
    )
    assert spelt(BAND, piece) == (
        "Start Tag_style= Tag_composer=Bach Metre_4/4 Tempo_120.0 "
        "Bar Position_0 Program_0 Pitch_60 Duration_24 Velocity_40 "
        "Program_0 Pitch_64 Duration_24 Velocity_90 "
        "Program_33 Pitch_60 Duration_48 Velocity_64 "
        "Program_128 Drum_36 Velocity_90 "
        "Position_24 Program_128 Drum_38 Velocity_40 "
        "Bar Tempo_60.0 "
        "Bar Metre_3/4 Tempo_90.5 Position_0 Program_0 Pitch_67 Duration_12 Velocity_64 End"
    )
    back = BAND.decode(BAND.encode(piece))
    assert (back.metres, back.tempos) == (piece.metres, piece.tempos)
    assert back.tags == {"composer": "Bach"}
    fields = ["start", "end", "pitch", "velocity", "program"]
    assert sorted(back.notes[fields].tolist()) == sorted(piece.notes[fields].tolist())
    # Tracks by program: 0, 33, drums.
    assert dict(zip(back.notes["program"].tolist(), back.notes["track"].tolist())) == {
        0: 0,
        33: 1,
        DRUMS: 2,
    }


def test_no_notes():
    assert spelt(TUNE, EMPTY) == "Start Metre_4/4 Bar End"
    assert len(TUNE.decode(TUNE.encode(EMPTY)).notes) == 0


@pytest.mark.parametrize(
    ("note", "words"),
    [
        ((1, 24), "Bar Position_0 Pitch_60 Duration_24"),
        ((5, 30), "Bar Position_4 Pitch_60 Duration_24"),  # of 4 and 6 the lower
        ((94, 120), "Bar Position_93 Pitch_60 Duration_27 Bar"),  # that lasts into a second bar
        ((95, 120), "Bar Bar Position_0 Pitch_60 Duration_24"),  # nearer to the bar line
        ((0, 1), "Bar Position_0 Pitch_60 Duration_3"),
        ((0, 95), "Bar Position_0 Pitch_60 Duration_96"),
        ((0, 97), "Bar Position_0 Pitch_60 Duration_96"),  # and no second bar
        ((0, 2000), "Bar Position_0 Pitch_60 Duration_384 Bar Bar Bar"),  # 16 quarters at most
    ],
)
def test_notes_off_the_grid(note, words):
    assert spelt(TUNE, Piece.from_rows([(*note, 60)])) == f"Start Metre_4/4 {words} End"


def test_a_note_struck_again_ends_there():
    piece = Piece.from_rows([(0, 48, 60), (23, 48, 60)])  # 23 goes to 24
    words = "Bar Position_0 Pitch_60 Duration_24 Position_24 Pitch_60 Duration_24"
    assert spelt(TUNE, piece) == f"Start Metre_4/4 {words} End"


def test_two_tracks_of_a_program_are_one_voice_a_pitch():
    piece = Piece.from_rows([(0, 24, 60, 64, 0, 0), (0, 48, 60, 64, 0, 1), (0, 24, 64, 64, 0, 1)])
    back = TUNE.decode(TUNE.encode(piece))
    assert back.notes[["start", "end", "pitch"]].tolist() == [(0, 48, 60), (0, 24, 64)]


def test_voices_that_meet_stay_apart():
    chorale = Piece.from_rows(
        [
            (0, 24, 64, 64, 0, 7),  # the bass and the tenor in unison, and above them two more
            (0, 48, 64, 64, 0, 5),
            (0, 24, 69, 64, 0, 3),
            (0, 24, 60, 64, 0, 2),  # the soprano, under the others
            (24, 48, 69, 64, 0, 3),
        ]
    )
    tokens = (
        "Start Metre_4/4 Bar Position_0 "
        "Voice_0 Pitch_60 Duration_24 Voice_1 Pitch_69 Duration_24 "
        "Voice_2 Pitch_64 Duration_48 Voice_3 Pitch_64 Duration_24 "
        "Position_24 Voice_1 Pitch_69 Duration_24 End"
    )
    assert spelt(CHOIR, chorale) == tokens
    back = CHOIR.decode(CHOIR.encode(chorale), strict=True)
    fields = ["start", "end", "pitch"]
    for track, source in enumerate((2, 3, 5, 7)):
        ours, theirs = back.notes["track"] == track, chorale.notes["track"] == source
        assert back.notes[ours][fields].tolist() == chorale.notes[theirs][fields].tolist()
    assert Events.fit(Summary.of([chorale])).config.voices == 4


def test_tracks_beyond_the_last_voice_share_it():
    piece = Piece.from_rows(
        [(0, 24, 60 + track, 64, 0, track) for track in range(6)]
        + [(0, 48, 64, 64, 0, 5), (0, 24, 60, 64, 40, 6)]  # 64 is on track 4 too
    )
    back = CHOIR.decode(CHOIR.encode(piece), strict=True)
    assert back.notes[["end", "pitch", "track"]].tolist() == [
        (24, 60, 0), (24, 61, 1), (24, 62, 2), (24, 63, 3), (48, 64, 3), (24, 65, 3),
    ]  # fmt: skip


def test_every_program_has_its_own_voices_and_the_kit_has_none():
    piece = Piece.from_rows(
        [
            (0, 24, 60, 64, 33, 0),
            (0, 24, 60, 64, 33, 2),
            (0, 24, 60, 64, 0, 1),
            (0, 6, 36, 64, DRUMS, 3),
            (0, 6, 38, 64, DRUMS, 4),
        ]
    )
    assert spelt(BANDS, piece).split("Position_0 ")[1] == (
        "Program_0 Voice_0 Pitch_60 Duration_24 Velocity_64 "
        "Program_33 Voice_0 Pitch_60 Duration_24 Velocity_64 "
        "Program_33 Voice_1 Pitch_60 Duration_24 Velocity_64 "
        "Program_128 Drum_36 Velocity_64 Program_128 Drum_38 Velocity_64 End"
    )


def test_what_has_no_token_is_left_out():
    piece = Piece.from_rows(
        [(0, 24, 60), (0, 24, 49), (0, 24, 71), (24, 48, 60, 64, 5), (48, 54, 60, 64, DRUMS)]
    )
    assert spelt(TUNE, piece) == "Start Metre_4/4 Bar Position_0 Pitch_60 Duration_24 End"


def test_a_metre_without_a_token_leaves_the_one_before_in_force():
    notes = [(0, 24, 60), (120, 144, 60), (216, 240, 60)]
    unknown = Piece.from_rows(notes, metres=(Metre(0, 5, 4), Metre(120, 4, 4)))
    assert spelt(TUNE, unknown) == (
        "Start Metre_4/4 Bar Position_0 Pitch_60 Duration_24 "
        "Bar Position_24 Pitch_60 Duration_24 Bar Position_24 Pitch_60 Duration_24 End"
    )
    known = Piece.from_rows(notes, metres=(Metre(0, 3, 4), Metre(72, 7, 8), Metre(156, 3, 4)))
    assert spelt(TUNE, known) == (
        "Start Metre_3/4 Bar Position_0 Pitch_60 Duration_24 "
        "Bar Position_48 Pitch_60 Duration_24 Bar Bar Position_0 Pitch_60 Duration_24 End"
    )


def test_a_bar_cut_short_is_filled_up_with_silence():
    pickup = Piece.from_rows(
        [(0, 24, 60), (23, 48, 64), (96, 120, 65)],  # 23 is nearer to the new bar
        metres=(Metre(0, 4, 4), Metre(24, 3, 4)),
        tempos=(Tempo(0, 96.0), Tempo(96, 60.0)),
    )
    events = Events.fit(Summary.of([pickup]))
    assert spelt(events, pickup) == (
        "Start Metre_4/4 Tempo_96.0 Bar Position_0 Pitch_60 Duration_24 "
        "Bar Metre_3/4 Position_0 Pitch_64 Duration_24 "
        "Bar Tempo_60.0 Position_0 Pitch_65 Duration_24 End"
    )
    back = events.decode(events.encode(pickup))
    assert back.notes["start"].tolist() == [0, 96, 168]
    assert back.metres == (Metre(0, 4, 4), Metre(96, 3, 4))
    assert back.tempos == (Tempo(0, 96.0), Tempo(168, 60.0))


def test_a_tempo_counts_from_the_beginning_of_its_bar_and_the_last_one_stands():
    piece = Piece.from_rows(
        [(0, 384, 60)],
        tempos=(Tempo(0, 60.0), Tempo(50, 120.0), Tempo(100, 90.5), Tempo(150, 119.0)),
    )
    bars = "Bar Position_0 Program_0 Pitch_60 Duration_384 Velocity_64 Bar Bar Bar"
    head = "Start Tag_style= Tag_composer= Metre_4/4 Tempo_120.0"  # 119 is nearest to 120
    assert spelt(BAND, piece) == f"{head} {bars} End"


def test_the_one_tempo_program_and_velocity_of_a_corpus_come_back():
    piece = Piece.from_rows([(0, 24, 60, 33, 71)], tempos=(Tempo(0, 83.33333333),))
    events = Events.fit(Summary.of([piece]))
    kinds = set(events.vocabulary.ranges)
    assert kinds.isdisjoint({"Tempo", "Program", "Velocity", "Drum", "Tag"})
    assert events.decode(events.encode(piece)) == piece


def test_tempos_are_told_exactly():
    tempos = (Tempo(0, 83.333331), Tempo(96, 83.333332))  # alike in six digits
    piece = Piece.from_rows([(0, 192, 60)], tempos=tempos)
    events = Events.fit(Summary.of([piece]))
    assert events.decode(events.encode(piece)) == piece


def test_drum_tokens_beyond_255():
    # Their ids leave the byte that a pitch is kept in.
    wide = Events(replace(BAND.config, lowest=0, highest=127))
    assert wide.vocabulary.index["Drum_127"] > 255
    piece = Piece.from_rows([(0, 6, 127, 64, DRUMS)], tempos=(Tempo(0, 60.0),))
    assert wide.decode(wide.encode(piece), strict=True) == piece


# Round trips


@given(
    st.tuples(st.just(BAND), pieces_on_the_grid())
    | st.tuples(st.just(BANDS), pieces_on_the_grid(voices=3))
)
@settings(max_examples=200, deadline=None)
def test_a_piece_on_the_grid_comes_back(case):
    events, piece = case
    assert piece.tidied() == piece
    assert events.decode(events.encode(piece), strict=True) == piece


@given(any_pieces(), st.sampled_from([BAND, TUNE, BANDS, CHOIR]))
@settings(max_examples=300, deadline=None)
def test_to_encode_what_was_decoded_changes_nothing(piece, events):
    tokens = events.encode(piece)
    assert events.grammar.first_error(tokens) is None
    assert tokens.dtype == np.uint16 and tokens[0] == START and tokens[-1] == END
    again = events.encode(events.decode(tokens, strict=True))
    np.testing.assert_array_equal(tokens, again)


@given(st.lists(any_pieces(), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_a_fitted_tokenizer_knows_its_corpus(pieces):
    events = Events.fit(Summary.of(pieces), tags=("style",), margin=0, velocity_bins=127)
    for piece in pieces:
        back = events.decode(events.encode(piece), strict=True)
        # Nothing is left out, and a velocity or tag only where two notes become one.
        assert set(back.notes["program"].tolist()) == set(piece.notes["program"].tolist())
        assert set(back.notes["pitch"].tolist()) == set(piece.notes["pitch"].tolist())
        assert set(back.notes["velocity"].tolist()) <= set(piece.notes["velocity"].tolist())
        assert back.tags.get("style") == piece.tags.get("style")
        assert {m.name for m in back.metres} <= {m.name for m in piece.metres}
        assert parts(back) == parts(piece)


@given(pieces_on_the_grid(), st.integers(-12, 12))
@settings(max_examples=60, deadline=None)
def test_transposition_changes_pitch_tokens_alone(piece, semitones):
    wide = Events(replace(BAND.config, lowest=38, highest=82))
    tokens, moved = wide.encode(piece), wide.encode(piece.transposed(semitones))
    ids = wide.vocabulary.ids("Pitch")
    pitched = (tokens >= ids.start) & (tokens < ids.stop)
    np.testing.assert_array_equal(moved.astype(int), tokens + np.where(pitched, semitones, 0))


# Any sequence


@given(st.data(), st.sampled_from([BAND, TUNE, BANDS, CHOIR]))
@settings(max_examples=60, deadline=None)
def test_any_ids_decode_to_a_piece_that_can_be_written(tmp_path_factory, data, events):
    tokens = data.draw(st.lists(st.integers(0, len(events.vocabulary) - 1), max_size=80))
    piece = events.decode(np.array(tokens, dtype=np.int64))
    assert piece.tidied() == piece
    write_midi(piece, tmp_path_factory.getbasetemp() / "any.mid")


@pytest.mark.parametrize(
    ("words", "notes"),
    [
        ("Pitch_60 Duration_24", []),  # no bar, no position
        ("Bar Pitch_60 Duration_24", []),  # no position
        ("Bar Position_0 Duration_24", []),  # no pitch
        ("Bar Position_0 Pitch_60 Position_3 Duration_24", []),  # its pitch stood elsewhere
        ("Bar Position_0 Pitch_60 Bar Duration_24", []),
        ("Metre_3/4 Bar Position_93 Pitch_60 Duration_24", [(71, 95, 60)]),  # kept inside the bar
        ("Bar Position_0 Pitch_60 Duration_24 End Pitch_61 Duration_24", [(0, 24, 60)]),
        ("Bar Position_0 Metre_3/4 Pitch_60 Duration_24", [(0, 24, 60)]),  # a metre too late
    ],
)
def test_nonsense_is_passed_over(words, notes):
    piece = decoded(TUNE, words)
    assert piece.notes[["start", "end", "pitch"]].tolist() == notes


def test_an_excerpt_decodes_from_its_own_first_bar():
    piece = decoded(TUNE, "Continue Metre_3/4 Bar Position_0 Pitch_60 Duration_24 Bar")
    assert piece.notes[["start", "end"]].tolist() == [(0, 24)]
    assert piece.metres == (Metre(0, 3, 4),)


def test_strict_decoding_names_the_wrong_token():
    tokens = ids(TUNE, "Start Metre_4/4 Bar Pitch_60")
    with pytest.raises(ValueError, match="Pitch_60 may not stand at time 3"):
        TUNE.decode(tokens, strict=True)
    assert len(TUNE.decode(tokens).notes) == 0


@pytest.mark.parametrize("events", [BAND, TUNE, CHOIR], ids=["band", "tune", "choir"])
def test_random_walks_through_the_grammar(events):
    random = np.random.default_rng(0)
    grammar, names = events.grammar, events.vocabulary.names
    num_notes = 0
    for walk in range(60):
        state, tokens = 0, []
        for _ in range(250):
            allowed = np.flatnonzero(grammar.allowed[state])
            # End comes soon among few choices, so half of the walks are kept from it.
            if walk % 2 and len(allowed) > 1:
                allowed = allowed[allowed != END]
            tokens.append(int(random.choice(allowed)))
            state = int(grammar.next_state[state, tokens[-1]])
        piece = events.decode(np.array(tokens), strict=True)
        num_notes += len(piece.notes)
        sizes = [metre.ticks_per_bar for metre in events.metres]
        size, places = 0, []
        for token in tokens:
            kind, _, value = names[token].partition("_")
            if kind == "Metre":
                size = sizes[events.config.metres.index(value)]
            elif kind == "Bar":
                places = []
            elif kind == "Position":
                places.append(int(value))
                assert places[-1] < size and all(a < b for a, b in pairwise(places))
        if END in tokens:
            assert set(tokens[tokens.index(END) + 1 :]) <= {PAD}
    assert num_notes > 500  # the walks went somewhere


def test_the_grammar_begins_with_start_or_continue_and_knows_the_tags():
    first = np.flatnonzero(BAND.grammar.allowed[0])
    assert first.tolist() == [START, CONTINUE]
    words = "Start Tag_style=jig Tag_composer= Metre_4/4 Tempo_60.0 Bar"
    assert BAND.grammar.first_error(ids(BAND, words)) is None
    for wrong, place in (
        ("Start Tag_composer= Tag_style=jig", 1),
        ("Start Tag_style=jig Metre_4/4", 2),
        ("Start Tag_style=jig Tag_composer= Metre_4/4 Bar", 4),
        (f"{words} Position_0 Program_128 Pitch_60", 8),
        (f"{words} Position_0 Program_0 Drum_60", 8),
        (f"{words} Metre_5/32 Position_15", 7),  # outside the bar
        (f"{words} Position_0 End", 7),  # a position with nothing on it
    ):
        assert BAND.grammar.first_error(ids(BAND, wrong)) == place


@pytest.mark.parametrize(
    ("note", "place"),
    [
        ("Program_0 Voice_2 Pitch_60", None),
        ("Program_0 Pitch_60", 8),
        ("Voice_0 Pitch_60", 7),
        ("Program_128 Voice_0", 8),
        ("Program_128 Drum_36", None),
    ],
)
def test_the_grammar_asks_every_pitched_note_for_its_voice(note, place):
    words = f"Start Tag_style=jig Tag_composer= Metre_4/4 Tempo_60.0 Bar Position_0 {note}"
    assert BANDS.grammar.first_error(ids(BANDS, words)) == place


# The tokenizer itself


def test_fit_finds_what_the_corpus_needs():
    pieces = [
        Piece.from_rows([(0, 24, 60, 50), (0, 24, 72, 70)], tags={"style": "reel"}),
        Piece.from_rows(
            [(0, 24, 48, 50, 40), (0, 24, 36, 50, DRUMS)],
            metres=(Metre(0, 3, 4),),
            tempos=(Tempo(0, 90.0),),
            tags={"style": "jig"},
        ),
        Piece.from_rows([(0, 24, 60, 50)], metres=(Metre(0, 3, 4),)),
    ]
    config = Events.fit(Summary.of(pieces), tags=("style",)).config
    assert config == EventsConfig(
        metres=("3/4", "4/4"),  # the most frequent first
        lowest=42,
        highest=78,
        programs=(0, 40, DRUMS),
        velocities=(50, 70),
        tempos=(90.0, 120.0),
        tags=("style=", "style=jig", "style=reel"),
    )


def test_fit_keeps_the_vocabulary_small():
    pieces = [
        Piece.from_rows(
            [(0, 24, pitch, pitch) for pitch in range(1, 128)],
            tempos=(Tempo(0, 40.0 + tempo),),
            metres=(Metre(0, 64, 4),),
        )
        for tempo in range(30)
    ]
    config = Events.fit(Summary.of(pieces)).config
    assert len(config.velocities) == 8 and len(config.tempos) == 13
    assert (config.lowest, config.highest) == (0, 127)
    assert config.metres == ("4/4",)  # a bar of 64 quarters gets no token
    assert Events.fit(Summary.of(pieces), velocity_bins=1).config.velocities == (64,)  # the median


@given(
    st.lists(st.integers(1, 127) | st.sampled_from([60, 64, 90]), min_size=1, max_size=60),
    st.integers(1, 12),
)
def test_the_velocities_are_quantiles_of_the_corpus(velocities, bins):
    piece = Piece.from_rows([(i, i + 1, 60, v) for i, v in enumerate(velocities)])
    middles = (np.arange(bins) + 0.5) / bins
    quantiles = np.quantile(velocities, middles, method="nearest")
    expected = velocities if len(set(velocities)) <= bins else quantiles
    config = Events.fit(Summary.of([piece]), velocity_bins=bins).config
    assert config.velocities == tuple(np.unique(expected).tolist())


def test_fit_caps_the_voices():
    choir = Piece.from_rows([(0, 24, 60, 64, 0, track) for track in range(40)])
    assert Events.fit(Summary.of([choir])).config.voices == 16
    assert Events.fit(Summary.of([EMPTY])).config.voices == 1


def test_fit_to_drums_alone_and_to_nothing():
    drums = Piece.from_rows([(0, 6, 36, 64, DRUMS)])
    events = Events.fit(Summary.of([drums]))
    assert spelt(events, drums) == "Start Metre_4/4 Bar Position_0 Program_128 Drum_36 End"
    assert events.decode(events.encode(drums)) == drums
    assert spelt(Events.fit(Summary.of([EMPTY])), EMPTY) == "Start Metre_4/4 Bar End"
    with pytest.raises(ValueError, match="no pieces"):
        Events.fit(Summary.empty())


def test_too_many_tags_for_16_bits():
    # A piece per title would do it; the vocabulary itself is what refuses.
    tags = ("title=", *(f"title={i}" for i in range(70_000)))
    with pytest.raises(UserError, match="fewer values"):
        Events(EventsConfig(metres=("4/4",), lowest=60, highest=60, tags=tags))


@pytest.mark.parametrize("events", [BAND, TUNE, CHOIR])
def test_json_gives_the_tokenizer_back(events):
    back = Events.from_json(json.loads(json.dumps(events.to_json())))
    assert back.config == events.config
    assert back.vocabulary == events.vocabulary == Vocabulary(events.vocabulary.names)


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        ({"name": "frames"}, "not a tokenizer of kind 'events': 'frames'"),
        ({"unknown": 1}, "damaged"),
        ({"metres": 3}, "damaged"),
        ({"metres": []}, "at least one value"),
        ({"metres": ["waltz"]}, "invalid literal"),
        ({"lowest": 71}, "lowest <= highest"),
        ({"lowest": "a"}, "damaged"),
        ({"programs": [33, 0]}, "programs must ascend"),
        ({"velocities": [40, 40]}, "velocities must ascend"),
        ({"tags": ["style=jig"]}, "without a value"),
        ({"programs": [0, 129]}, "programs must be 0 to 128"),
        ({"velocities": [0, 40]}, "velocities must be 1 to 127"),
        ({"voices": 0}, "voices must be 1 to 256, got 0"),
    ],
)
def test_a_damaged_description(damage, rule):
    with pytest.raises(ValueError, match=rule):
        Events.from_json({**BAND.to_json(), **damage})


@pytest.mark.parametrize("data", [[], {}, "events", None, {"name": "events"}])
def test_no_description(data):
    with pytest.raises(ValueError, match=r"not a tokenizer of kind|damaged"):
        Events.from_json(data)


def test_durations_are_the_note_values_of_scores():
    quarter = 24
    values = [4 * quarter // n for n in (1, 2, 4, 8, 16, 32)]
    dotted = [value * 3 // 2 for value in values[:-1]]
    triplets = [value * 2 // 3 for value in values[:-1]]
    assert set(values) | set(dotted) | set(triplets) <= set(DURATIONS.tolist())
    assert DURATIONS[0] == 3 and DURATIONS[-1] == 16 * quarter
    assert np.all(np.diff(DURATIONS) > 0)
