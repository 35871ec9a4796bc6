"""What melody and frames have in common; what each writes in a step is in files of their own."""

import json
from itertools import groupby

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rnngan.music.midi import write_midi
from rnngan.music.piece import DRUMS, NOTE, Metre, Piece, Tempo
from rnngan.music.tokenizers.frames import Frames, FramesConfig
from rnngan.music.tokenizers.melody import Melody, MelodyConfig
from rnngan.music.tokenizers.summary import Summary
from rnngan.music.vocabulary import CONTINUE, END, START

EMPTY = Piece(notes=np.empty(0, NOTE))
SIZES = {"4/4": 16, "3/4": 12, "6/8": 12, "3/16": 3}
COMMON = {
    "metres": tuple(SIZES),
    "lowest": 50,
    "highest": 70,
    "program": 40,
    "velocity": 77,
    "tempo": 90.0,
    "tags": ("style=", "style=jig", "style=reel", "composer=", "composer=Bach"),
}
MELODY = Melody(MelodyConfig(**COMMON))
FRAMES = Frames(FramesConfig(**COMMON))
ROLL = Frames(FramesConfig(**COMMON, held=False))
TRIPLETS = Melody(MelodyConfig(metres=("2/4",), lowest=60, highest=60, ticks_per_step=8))
ALL = [MELODY, FRAMES, ROLL, TRIPLETS]
NAMES = ["melody", "frames", "roll", "triplets"]
HEAD = "Start Tag_style= Tag_composer= Metre_4/4"


def spelt(tokenizer, piece):
    return " ".join(tokenizer.vocabulary.names[i] for i in tokenizer.encode(piece))


def ids(tokenizer, words):
    return np.array([tokenizer.vocabulary.index[name] for name in words.split()], dtype=np.uint16)


@st.composite
def any_pieces(draw):
    """Pieces of all kinds: off the grid, overlapping, with cut bars, changes that change nothing
    or come after the end, and things that have no token."""
    note = st.tuples(
        st.integers(0, 700),
        st.integers(1, 300),
        st.integers(48, 72),
        st.integers(1, 127),
        st.sampled_from([0, 33, DRUMS]),
        st.integers(0, 2),
    )
    notes = draw(st.lists(note, max_size=12))
    metre = st.tuples(
        st.integers(1, 900), st.sampled_from([(4, 4), (3, 4), (6, 8), (5, 32), (3, 16)])
    )
    metres = dict([(0, draw(metre)[1]), *draw(st.lists(metre, max_size=4))])
    return Piece.from_rows(
        [(start, start + size, *rest) for start, size, *rest in notes],
        metres=tuple(Metre(tick, *metres[tick]) for tick in sorted(metres)),
        tempos=(Tempo(0, 66.0), Tempo(100, 70.0)),
        tags=draw(st.sampled_from([{}, {"style": "jig"}, {"style": "polka", "composer": "Bach"}])),
    )


def walk(tokenizer, random, *, first, longest=1500):
    """Random walk through the grammar, up to End, which comes one time in five where it may, or to
    `longest` tokens."""
    grammar, tokens = tokenizer.grammar, [first]
    state = int(grammar.next_state[0, first])
    while tokens[-1] != END and len(tokens) < longest:
        allowed = np.flatnonzero(grammar.allowed[state])
        if END in allowed and random.random() < 0.8:
            allowed = allowed[allowed != END]
        if len(allowed) > 2 and random.random() < 0.3:
            allowed = allowed[-2:]  # Hold and Rest, or the end of a frame, more often
        tokens.append(int(random.choice(allowed)))
        state = int(grammar.next_state[state, tokens[-1]])
    return np.array(tokens)


def with_founded_holds(tokenizer, tokens):
    """Every `Held` of a pitch that did not sound in the frame before made a `Pitch`."""
    names = tokenizer.vocabulary.names
    before, now, kept = set(), set(), []
    for token in tokens.tolist():
        kind, _, value = names[token].partition("_")
        if kind in ("Pitch", "Held"):
            now.add(value)
            if kind == "Held" and value not in before:
                token = tokenizer.vocabulary.index[f"Pitch_{value}"]
        elif kind == "Frame":
            before, now = now, set()
        kept.append(token)
    return kept


# Head and bars, worked by hand


def test_no_notes():
    for tokenizer in (MELODY, FRAMES, ROLL):
        assert spelt(tokenizer, EMPTY) == f"{HEAD} End"
        assert len(tokenizer.decode(tokenizer.encode(EMPTY), strict=True).notes) == 0


def test_tags_and_what_stands_for_all_that_is_not_told():
    piece = Piece.from_rows(
        [(0, 24, 60, 33, 5, 2)],
        tempos=(Tempo(0, 200.0),),
        tags={"composer": "Bach", "style": "polka", "title": "?"},
    )
    back = MELODY.decode(MELODY.encode(piece))
    assert spelt(MELODY, piece).startswith("Start Tag_style= Tag_composer=Bach Metre_4/4 Bar ")
    assert back.tags == {"composer": "Bach"}
    assert back.tempos == (Tempo(0, 90.0),)
    assert back.notes.tolist() == [(0, 24, 60, 77, 40, 0)]


def bars(tokenizer, tokens):
    """Metre of each bar and its number of steps."""
    found, metre = [], None
    for name in (tokenizer.vocabulary.names[i] for i in tokens):
        kind, _, value = name.partition("_")
        if kind == "Metre":
            metre = value
            if found:
                found[-1] = (metre, 0)
        elif kind == "Bar":
            found.append((metre, 0))
        elif kind == "Frame" or (tokenizer.name == "melody" and kind in ("Pitch", "Hold", "Rest")):
            found[-1] = (metre, found[-1][1] + 1)
    return found


@pytest.mark.parametrize("tokenizer", [MELODY, FRAMES])
def test_a_bar_cut_short_is_filled_up_with_silence(tokenizer):
    pickup = Piece.from_rows(
        [(0, 24, 60), (23, 48, 64), (96, 120, 65)],  # 23 is nearer to the new bar
        metres=(Metre(0, 4, 4), Metre(24, 3, 4)),
    )
    assert bars(tokenizer, tokenizer.encode(pickup)) == [("4/4", 16), ("3/4", 12), ("3/4", 12)]
    back = tokenizer.decode(tokenizer.encode(pickup))
    spans = [(0, 24, 60), (96, 120, 64), (168, 192, 65)]
    assert back.notes[["start", "end", "pitch"]].tolist() == spans
    assert back.metres == (Metre(0, 4, 4), Metre(96, 3, 4))


def test_a_note_over_the_end_of_a_bar_cut_short_is_held_through():
    piece = Piece.from_rows([(0, 36, 60)], metres=(Metre(0, 4, 4), Metre(24, 3, 4)))
    back = FRAMES.decode(FRAMES.encode(piece))
    assert back.notes[["start", "end"]].tolist() == [(0, 108)]


@pytest.mark.parametrize("tokenizer", [MELODY, FRAMES])
def test_a_metre_without_a_token_leaves_the_one_before_in_force(tokenizer):
    notes = [(0, 24, 60), (120, 144, 60), (216, 240, 60)]
    unknown = Piece.from_rows(notes, metres=(Metre(0, 5, 4), Metre(120, 4, 4)))
    assert bars(tokenizer, tokenizer.encode(unknown)) == [("4/4", 16)] * 3
    known = Piece.from_rows(
        notes, metres=(Metre(0, 3, 4), Metre(72, 5, 32), Metre(156, 3, 4), Metre(216, 6, 8))
    )
    assert bars(tokenizer, tokenizer.encode(known)) == [("3/4", 12)] * 3 + [("6/8", 12)]


def test_an_odd_metre_alone():
    piece = Piece.from_rows([(234, 246, 60)], metres=(Metre(0, 80, 32),))
    melody = Melody.fit(Summary.of([piece]))
    assert bars(melody, melody.encode(piece)) == [("80/32", 40)] * 2
    assert melody.decode(melody.encode(piece)).metres == piece.metres


@pytest.mark.parametrize(
    ("note", "span"),
    [
        ((0, 1), (0, 6)),  # no shorter than a step
        ((3, 30), (0, 30)),  # of 0 and 6 the lower
        ((4, 28), (6, 30)),
        ((10, 15), (12, 18)),  # the end would be 12, too
        ((94, 120), (96, 120)),  # nearer to the bar line
        ((90, 98), (90, 96)),  # no second bar
    ],
)
@pytest.mark.parametrize("tokenizer", [MELODY, FRAMES])
def test_notes_off_the_grid(tokenizer, note, span):
    back = tokenizer.decode(tokenizer.encode(Piece.from_rows([(*note, 60)])))
    assert back.notes[["start", "end"]].tolist() == [span]


def test_triplets_played_legato_stay_legato():
    piece = Piece.from_rows([(0, 8, 60), (8, 16, 62), (16, 24, 64)])
    back = MELODY.decode(MELODY.encode(piece))
    assert back.notes[["start", "end"]].tolist() == [(0, 6), (6, 18), (18, 24)]
    exact = Melody.fit(Summary.of([piece]), ticks_per_step=8)
    assert exact.decode(exact.encode(piece)).notes["start"].tolist() == [0, 8, 16]


@pytest.mark.parametrize("tokenizer", [MELODY, FRAMES])
def test_what_has_no_token_is_left_out(tokenizer):
    piece = Piece.from_rows(
        [(0, 24, 60), (0, 24, 49), (0, 24, 71), (48, 54, 60, 64, DRUMS), (96, 120, 48)]
    )
    back = tokenizer.decode(tokenizer.encode(piece))
    assert back.notes[["start", "end", "pitch"]].tolist() == [(0, 24, 60)]
    assert back.num_bars == 1


# Round trips


@pytest.mark.parametrize("tokenizer", ALL, ids=NAMES)
@given(piece=any_pieces())
@settings(max_examples=120)
def test_to_encode_what_was_decoded_changes_nothing(tokenizer, piece):
    tokens = tokenizer.encode(piece)
    assert tokenizer.grammar.first_error(tokens) is None
    assert tokens.dtype == np.uint16 and tokens[0] == START and tokens[-1] == END
    back = tokenizer.decode(tokens, strict=True)
    assert back.tidied() == back
    np.testing.assert_array_equal(tokenizer.encode(back), tokens)


@pytest.mark.parametrize("tokenizer", ALL, ids=NAMES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_random_walks_through_the_grammar_are_encodings(tokenizer, seed):
    tokens = walk(tokenizer, np.random.default_rng(seed), first=START)
    piece = tokenizer.decode(tokens, strict=True)
    assume(tokens[-1] == END)
    expected = with_founded_holds(tokenizer, tokens)
    assert tokenizer.encode(piece).tolist() == expected


@pytest.mark.parametrize("tokenizer", ALL, ids=NAMES)
def test_random_walks_fill_every_bar(tokenizer):
    random = np.random.default_rng(0)
    sizes = dict(zip(tokenizer.config.metres, tokenizer.bar_steps.tolist()))
    num_bars = num_notes = 0
    for first in (START, CONTINUE) * 30:
        tokens = walk(tokenizer, random, first=first)
        piece = tokenizer.decode(tokens, strict=True)
        found = bars(tokenizer, tokens)
        assert all(steps == sizes[metre] for metre, steps in found[: None if END in tokens else -1])
        changes = [metre for metre, _ in groupby(metre for metre, _ in found)]
        assert not found or [metre.name for metre in piece.metres] == changes
        num_bars += len(found)
        num_notes += len(piece.notes)
    assert num_bars > 150 and num_notes > 500  # the walks went somewhere


@pytest.mark.parametrize("tokenizer", [MELODY, FRAMES, ROLL], ids=NAMES[:3])
@given(piece=any_pieces())
@settings(max_examples=60)
def test_an_excerpt_from_any_bar_is_the_rest_of_the_piece(tokenizer, piece):
    tokens = tokenizer.encode(piece)
    piece = tokenizer.decode(tokens)
    metre_ids = tokenizer.vocabulary.ids("Metre")
    lines = piece.bar_lines()
    places = np.flatnonzero(tokens == tokenizer.bar)
    assert len(places) == piece.num_bars
    for line, place in zip(lines.tolist(), places.tolist()):
        head = tokens[: places[0]].copy()
        head[0] = CONTINUE
        told = tokens[: max(place, places[0])]
        head[-1] = told[(told >= metre_ids.start) & (told < metre_ids.stop)][-1]
        part = np.concatenate([head, tokens[place:]])
        assert tokenizer.grammar.first_error(part) is None
        found = tokenizer.decode(part, strict=True)
        notes = piece.notes[piece.notes["end" if tokenizer.name == "frames" else "start"] >= line]
        notes = notes[notes["end"] > line]
        begins = np.maximum(notes["start"], line) - line
        # In order of pitch where several go on from before.
        rows = sorted(zip(begins.tolist(), notes["pitch"].tolist(), (notes["end"] - line).tolist()))
        assert found.notes[["start", "pitch", "end"]].tolist() == rows
        assert [m[1:] for m in found.metres][:1] == [piece.metre_at(line)[1:]]


@pytest.mark.parametrize("tokenizer", [MELODY, FRAMES, ROLL], ids=NAMES[:3])
@given(piece=any_pieces(), semitones=st.integers(-12, 12))
@settings(max_examples=40)
def test_transposition_changes_pitch_tokens_alone(tokenizer, piece, semitones):
    wide = type(tokenizer).from_json({**tokenizer.to_json(), "lowest": 30, "highest": 90})
    tokens, moved = wide.encode(piece), wide.encode(piece.transposed(semitones))
    pitched = np.zeros(len(tokens), dtype=bool)
    for kind in wide.pitched_kinds:
        run = wide.vocabulary.ids(kind)
        assert wide.vocabulary.values(kind) == tuple(map(str, range(30, 91)))
        pitched |= (tokens >= run.start) & (tokens < run.stop)
    np.testing.assert_array_equal(moved.astype(int), tokens + np.where(pitched, semitones, 0))


# Any sequence


@pytest.mark.parametrize("tokenizer", ALL, ids=NAMES)
@given(data=st.data())
@settings(max_examples=80)
def test_any_ids_decode_to_a_piece_that_can_be_written(tmp_path_factory, tokenizer, data):
    token = st.integers(0, len(tokenizer.vocabulary) - 1)
    common = st.sampled_from([tokenizer.bar, len(tokenizer.vocabulary) - 1])
    tokens = np.array(data.draw(st.lists(token | common, max_size=80)), dtype=np.int64)
    piece = tokenizer.decode(tokens)
    assert piece.tidied() == piece
    again = tokenizer.encode(piece)
    np.testing.assert_array_equal(tokenizer.encode(tokenizer.decode(again, strict=True)), again)
    write_midi(piece, tmp_path_factory.getbasetemp() / "any.mid")


@pytest.mark.parametrize("tokenizer", ALL, ids=NAMES)
def test_strict_decoding_names_the_wrong_token_and_its_time(tokenizer):
    metre = tokenizer.config.metres[0]
    head = " ".join(["Start", *(f"Tag_{key}=" for key in tokenizer.tag_keys), f"Metre_{metre}"])
    tokens = ids(tokenizer, f"{head} Bar Bar")
    with pytest.raises(ValueError, match=f"Bar may not stand at time {len(tokens) - 1}"):
        tokenizer.decode(tokens, strict=True)
    assert len(tokenizer.decode(tokens).notes) == 0


def test_the_grammar_knows_head_and_bars():
    rest = " ".join(["Rest"] * 16)
    note = " ".join(["Pitch_60", *["Hold"] * 15])
    first = np.flatnonzero(MELODY.grammar.allowed[0])
    assert first.tolist() == [START, CONTINUE]
    for sound in (
        f"{HEAD} End Pad Pad",
        f"{HEAD} Bar {rest} Bar {note} Bar Metre_3/16 Hold Hold Rest End",
        f"{HEAD.replace('Start', 'Continue')} Bar Metre_3/16 Hold Hold Hold Bar",
    ):
        assert MELODY.grammar.first_error(ids(MELODY, sound)) is None
    for wrong, place in (
        ("Start Tag_composer=", 1),
        ("Start Tag_style=jig Metre_4/4", 2),
        (f"{HEAD} Bar Metre_3/4", 5),  # the head has told it
        (f"{HEAD} Bar Hold", 5),
        (f"{HEAD} Bar {rest} End", 21),  # the last bar has something in it
        (f"{HEAD} Bar {rest} Rest", 21),
        (f"{HEAD} Bar {note} Bar Metre_4/4", 22),  # no change
        (f"{HEAD} Bar {note} Pitch_60", 21),
        (f"{HEAD} Bar Rest Metre_3/4", 6),
        ("Continue Tag_style= Tag_composer= Metre_4/4 End", 4),
        (f"{HEAD} End Bar", 5),
    ):
        assert MELODY.grammar.first_error(ids(MELODY, wrong)) == place


@pytest.mark.parametrize(
    ("words", "notes"),
    [
        ("Pitch_60 Hold", []),  # no bar
        ("Bar Hold Hold Pitch_60 Hold", [(12, 24, 60)]),
        ("Bar Pitch_60 Rest Hold Hold", [(0, 6, 60)]),
        ("Metre_3/16 Bar Rest Rest Pitch_60 Hold Hold", [(12, 18, 60)]),  # two too many
        ("Metre_3/16 Bar Pitch_60 Bar Pitch_62", [(0, 6, 60), (18, 24, 62)]),  # two too few
        ("Bar Pitch_60 Hold End Hold", [(0, 12, 60)]),
        ("Bar Pitch_60 Metre_3/16 Bar Pitch_62", [(0, 6, 60), (96, 102, 62)]),  # a metre too late
        ("Bar Metre_3/4 Metre_3/16 Pitch_60 Bar Pitch_62", [(0, 6, 60), (18, 24, 62)]),
        ("Bar Pitch_60 Tag_style=jig Start Pad Continue Hold", [(0, 12, 60)]),
    ],
)
def test_nonsense_is_passed_over(words, notes):
    piece = MELODY.decode(ids(MELODY, words))
    assert piece.notes[["start", "end", "pitch"]].tolist() == notes
    assert piece.tags == {}


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
        Piece.from_rows([(0, 24, 60, 50)], metres=(Metre(0, 3, 4),), tempos=(Tempo(0, 90.0),)),
        Piece.from_rows([(0, 24, 60, 50)], metres=(Metre(0, 5, 32), Metre(60, 64, 4))),
    ]
    expected = {
        "metres": ("3/4", "4/4"),  # the most frequent first; 5/32 has no 16ths, 64/4 is no metre
        "lowest": 42,
        "highest": 78,
        "program": 0,  # of several the piano
        "velocity": 50,
        "tempo": 90.0,
        "tags": ("style=", "style=jig", "style=reel"),
    }
    summary = Summary.of(pieces)
    assert Melody.fit(summary, tags=("style",)).config == MelodyConfig(**expected)
    fine = Frames.fit(summary, tags=("style",), ticks_per_frame=3, held=False).config
    assert fine == FramesConfig(
        **{**expected, "metres": ("3/4", "4/4", "5/32")}, ticks_per_frame=3, held=False
    )


def test_fit_to_one_instrument_to_drums_and_to_nothing():
    flute = Piece.from_rows([(0, 24, 60, 64, 73), (0, 24, 36, 64, DRUMS)])
    assert Melody.fit(Summary.of([flute])).config.program == 73
    drums = Piece.from_rows([(0, 6, 36, 64, DRUMS)])
    assert spelt(Frames.fit(Summary.of([drums])), drums) == "Start Metre_4/4 End"
    assert spelt(Melody.fit(Summary.of([EMPTY])), EMPTY) == "Start Metre_4/4 End"
    for kind in (Melody, Frames):
        with pytest.raises(ValueError, match="no pieces"):
            kind.fit(Summary.empty())


def test_fit_keeps_the_grammar_small():
    names = [(numerator, 4) for numerator in range(1, 17)] * 2 + [(4, 4)]
    metres = [Metre(i * 400, *name) for i, name in enumerate(names)]
    found = Frames.fit(Summary.of([Piece.from_rows([(0, 24, 60)], metres=tuple(metres))]))
    assert found.config.metres[0] == "4/4"
    assert found.bar_steps.sum() <= 256
    assert len(found.config.metres) > 4
    long = Piece.from_rows([(0, 24, 60)], metres=(Metre(0, 64, 4), Metre(5000, 16, 4)))
    assert Melody.fit(Summary.of([long]), ticks_per_step=24).config.metres == ("16/4",)
    assert Melody.fit(Summary.of([EMPTY]), ticks_per_step=1).config.metres == ("4/4",)


@pytest.mark.parametrize("tokenizer", ALL, ids=NAMES)
def test_json_gives_the_tokenizer_back(tokenizer):
    back = type(tokenizer).from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert back.config == tokenizer.config
    assert back.vocabulary == tokenizer.vocabulary
    assert (back.dtype, back.width, back.name) == (np.dtype("u2"), 0, tokenizer.name)


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        ({"name": "events"}, "not a tokenizer of kind '(melody|frames)': 'events'"),
        ({"unknown": 1}, "damaged"),
        ({"metres": 3}, "damaged"),
        ({"metres": []}, "at least one"),
        ({"metres": ["4/4", "4/4"]}, "each once"),
        ({"metres": ["waltz"]}, "invalid literal"),
        ({"metres": ["0/4"]}, "grid can hold"),
        ({"metres": ["5/32"]}, "no whole number of steps of 6 ticks"),
        ({"lowest": 71}, "lowest <= highest"),
        ({"lowest": "a"}, "damaged"),
        ({"program": DRUMS}, "program <= 127"),
        ({"velocity": 0}, "velocity <= 127"),
        ({"tempo": float("inf")}, "positive tempo"),
        ({"tags": ["style=jig"]}, "without a value"),
    ],
)
@pytest.mark.parametrize("tokenizer", [MELODY, FRAMES])
def test_a_damaged_description(tokenizer, damage, rule):
    with pytest.raises(ValueError, match=rule):
        type(tokenizer).from_json({**tokenizer.to_json(), **damage})


@pytest.mark.parametrize("ticks", [-6, 0, 5, 36, 192])
def test_a_step_divides_a_whole_note(ticks):
    summary = Summary.of([EMPTY])
    with pytest.raises(ValueError, match=f"96 ticks of a whole note: {ticks}"):
        Melody.fit(summary, ticks_per_step=ticks)
    with pytest.raises(ValueError, match=f"96 ticks of a whole note: {ticks}"):
        Frames.fit(summary, ticks_per_frame=ticks)
