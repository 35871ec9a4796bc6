from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.data.augment import Augmentation, augmented
from rnngan.discriminator.relative import (
    BARS_AGO,
    CYCLE,
    LONGEST_PLACE,
    MATCHES,
    PLACED_FROM,
    RelativeView,
    _classes,
    longest_matches,
)
from rnngan.music.piece import DRUMS, Metre, Piece
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.tokenizers.frames import Frames, FramesConfig
from rnngan.music.tokenizers.melody import Melody, MelodyConfig
from rnngan.music.vocabulary import Vocabulary

TUNES = Events(EventsConfig(metres=("4/4", "3/4"), lowest=40, highest=90))
CHORALES = Events(EventsConfig(metres=("4/4",), lowest=40, highest=90, voices=4))
BAND = Events(
    EventsConfig(metres=("4/4",), lowest=40, highest=90, programs=(0, 33, DRUMS), voices=2)
)
MELODY = Melody(MelodyConfig(metres=("4/4", "3/4"), lowest=40, highest=90))
FRAMES = Frames(FramesConfig(metres=("4/4",), lowest=40, highest=90))
TOKENIZERS = [TUNES, CHORALES, BAND, MELODY, FRAMES]


def columns(tokenizer, tokens):
    view = RelativeView(tokenizer)
    (rows,) = view(np.asarray(tokens)[None])
    return {name: rows[:, i].tolist() for i, name in enumerate(view.names)}


def at_kind(tokenizer, tokens, kind, column):
    ids = tokenizer.vocabulary.ids(kind)
    return [value for token, value in zip(tokens.tolist(), column) if token in ids]


def random_walk(tokenizer, seed, length):
    """What the grammar allows, with few distinct choices, so that much comes again."""
    random = np.random.default_rng(seed)
    state, tokens = 0, []
    for _ in range(length):
        allowed = np.flatnonzero(tokenizer.grammar.allowed[state])
        tokens.append(int(random.choice(allowed[:: max(len(allowed) // 3, 1)])))
        state = int(tokenizer.grammar.next_state[state, tokens[-1]])
    return np.array(tokens)


def tune(pitches, *, length=24, metre=None):
    rows = [(length * i, length * (i + 1), pitch, 80) for i, pitch in enumerate(pitches)]
    return Piece.from_rows(rows, metres=(metre or Metre(0, 4, 4),))


def test_melodic_columns_by_hand():
    tokens = TUNES.encode(tune([60, 62, 59, 90]))
    found = columns(TUNES, tokens)
    assert at_kind(TUNES, tokens, "Pitch", found["interval"]) == [0, 27, 22, 49]  # 25 is a unison
    assert at_kind(TUNES, tokens, "Pitch", found["from_first"]) == [25, 27, 24, 49]
    assert set(at_kind(TUNES, tokens, "Duration", found["interval"])) == {0}
    assert len(set(at_kind(TUNES, tokens, "Pitch", found["token"]))) == 1
    assert "motion" not in found


def test_place_and_bar_by_hand():
    tokens = TUNES.encode(tune([60] * 8, metre=Metre(0, 3, 4)))
    found = columns(TUNES, tokens)
    ids = TUNES.vocabulary.index
    places = [1 + ids[f"Position_{tick}"] - ids["Position_0"] for tick in (0, 24, 48)]
    assert at_kind(TUNES, tokens, "Pitch", found["place"]) == (3 * places)[:8]
    assert at_kind(TUNES, tokens, "Pitch", found["bar"]) == [1, 1, 1, 2, 2, 2, 3, 3]
    assert at_kind(TUNES, tokens, "Bar", found["place"]) == [0, 0, 0]
    assert found["bar"][:2] == found["place"][:2] == [0, 0]  # Start and metre
    many = columns(TUNES, TUNES.encode(tune([60] * 12, length=96)))["bar"]
    assert many[-1] == 12 - CYCLE


def test_places_of_a_melody_are_its_steps():
    tokens = MELODY.encode(tune([60, 62], length=12))
    found = columns(MELODY, tokens)
    names = [MELODY.vocabulary.names[token] for token in tokens]
    bar = names.index("Bar")
    assert found["place"][: bar + 1] == [0] * bar + [1]
    assert found["place"][bar + 1 : bar + 17] == list(range(2, 18))
    assert columns(MELODY, np.full(300, MELODY.bar + 1))["place"] == [0] * 300
    long = columns(MELODY, np.append(MELODY.bar, np.full(300, MELODY.bar + 1)))["place"]
    assert max(long) == long[-1] == LONGEST_PLACE + 1


def test_chord_columns_by_hand():
    piece = Piece.from_rows(
        [
            (0, 48, 60, 80),
            (0, 24, 64, 80),
            (0, 24, 67, 80),
            (24, 48, 65, 80),  # 60 still sounds, 64 and 67 have ended
            (48, 72, 55, 80),  # nothing sounds
            (48, 72, 62, 80),
        ]
    )
    tokens = TUNES.encode(piece)
    found = columns(TUNES, tokens)
    pitches = TUNES.vocabulary.ids("Pitch")
    assert [int(t) - pitches.start + 40 for t in tokens if t in pitches] == [60, 64, 67, 65, 55, 62]
    assert at_kind(TUNES, tokens, "Pitch", found["above_lowest"]) == [1, 5, 8, 6, 1, 8]
    # Told from the lowest up: the first of a chord cannot know what is to come above it.
    assert at_kind(TUNES, tokens, "Pitch", found["below_highest"]) == [1, 1, 1, 1, 1, 1]
    assert at_kind(TUNES, tokens, "Pitch", found["above_bass"]) == [0, 0, 0, 30, 15, 22]
    voices = Piece.from_rows([(0, 24, 70, 80), (0, 24, 50, 80, 0, 1)])
    tokens = CHORALES.encode(voices)
    found = columns(CHORALES, tokens)
    assert at_kind(CHORALES, tokens, "Pitch", found["below_highest"]) == [1, 21]
    assert at_kind(CHORALES, tokens, "Pitch", found["above_lowest"]) == [1, 1]


def test_a_note_sounds_over_the_bar_line_of_a_changing_metre():
    piece = Piece.from_rows(
        [(0, 192, 50, 80), (144, 168, 60, 80), (168, 192, 62, 80), (192, 216, 64, 80)],
        metres=(Metre(0, 4, 4), Metre(96, 3, 4)),
    )
    tokens = TUNES.encode(piece)
    found = columns(TUNES, tokens)
    assert at_kind(TUNES, tokens, "Pitch", found["above_lowest"]) == [1, 11, 13, 1]


def test_motion_is_that_of_each_voice():
    rows = [(0, 24, 70, 80), (0, 24, 50, 80, 0, 1), (24, 48, 72, 80), (24, 48, 49, 80, 0, 1)]
    tokens = CHORALES.encode(Piece.from_rows(rows))
    found = columns(CHORALES, tokens)
    assert at_kind(CHORALES, tokens, "Pitch", found["motion"]) == [0, 0, 27, 24]
    rows = [(0, 24, 70, 80), (0, 24, 50, 80, 33, 1), (24, 48, 72, 80), (24, 48, 49, 80, 33, 1)]
    tokens = BAND.encode(Piece.from_rows(rows))
    assert at_kind(BAND, tokens, "Pitch", columns(BAND, tokens)["motion"]) == [0, 0, 27, 24]


def test_a_transposed_repetition_is_found_with_its_distance():
    phrase = [60, 64, 62, 67]
    bars = [phrase, [50, 51, 50, 51], [pitch + 5 for pitch in phrase]]
    tokens = TUNES.encode(tune([pitch for bar in bars for pitch in bar]))
    found = columns(TUNES, tokens)
    # Four notes of three tokens; the first interval differs, so that 11 tokens run parallel.
    last = at_kind(TUNES, tokens, "Duration", list(range(len(tokens))))[-1]
    assert found["match"][last] == MATCHES.index(8) + 1
    assert found["match_shift"][last] == 13 + 5
    assert found["match_bars"][last] == 1 + BARS_AGO.index(2)
    assert found["rhythm"][last] == MATCHES.index(16) + 1
    assert found["rhythm_bars"][last] == 1 + BARS_AGO.index(1)


@pytest.mark.parametrize(("bars", "bucket"), [(1, 2), (3, 7), (4, 4), (5, 7), (16, 6), (17, 7)])
def test_distances_in_bars_have_buckets(bars, bucket):
    phrase = [60, 64, 62, 67]
    # No rest between is like another, nor like the phrase.
    between = [[60 + i, 61 + 2 * i, 60 - i, 61 + i] for i in range(1, bars)]
    tokens = TUNES.encode(tune([p for bar in [phrase, *between, phrase] for p in bar]))
    found = columns(TUNES, tokens)
    last = at_kind(TUNES, tokens, "Duration", list(range(len(tokens))))[-1]
    assert found["match"][last] >= MATCHES.index(8) + 1
    assert found["match_bars"][last] == bucket
    assert found["match_shift"][last] == 13


def slow_matches(row):
    """Every pair of places, compared symbol by symbol."""
    counts, places = [], []
    for end in range(len(row)):
        count, place = 0, -1
        for i, length in enumerate(MATCHES):
            stretch = row[end - length + 1 : end + 1]
            earlier = [
                e
                for e in range(length - 1, end)
                if length <= end + 1 and row[e - length + 1 : e + 1] == stretch
            ]
            count += bool(earlier)
            if earlier and i >= PLACED_FROM:
                place = earlier[-1]
        counts.append(count)
        places.append(place)
    return counts, places


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 2), min_size=25, max_size=25), min_size=1, max_size=3),
    st.integers(1, 25),
)
def test_matches_are_those_of_a_slow_search(rows, time):
    rows = [row[:time] for row in rows]
    counts, places = longest_matches(np.array(rows))
    for row, count, place in zip(rows, counts.tolist(), places.tolist()):
        assert (count, place) == slow_matches(row)


def test_long_matches_are_those_of_a_slow_search():
    random = np.random.default_rng(0)
    row = random.integers(0, 3, 90).tolist()
    row += [5, *row[10:80], 6, *row[:75]]
    (counts,), (places,) = longest_matches(np.array([row]))
    assert counts.max() == len(MATCHES)
    assert (counts.tolist(), places.tolist()) == slow_matches(row)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda t: t.name)
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 60))
def test_a_column_looks_at_nothing_behind(tokenizer, seed, cut):
    view = RelativeView(tokenizer)
    whole = random_walk(tokenizer, seed, 60)
    random = np.random.default_rng(seed)
    nonsense = random.integers(0, len(tokenizer.vocabulary), 60)  # against the grammar, even
    for row in (whole, nonsense):
        other = np.append(row[:cut], random.permutation(nonsense)[cut:])
        assert np.array_equal(view(other[None])[:, :cut], view(row[None])[:, :cut])
        assert np.array_equal(view(row[None, :cut]), view(row[None])[:, :cut])


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda t: t.name)
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_transposition_changes_nothing(tokenizer, seed):
    view = RelativeView(tokenizer)
    tokens = random_walk(tokenizer, seed, 80)
    moved = augmented(
        tokens.astype(np.uint16),
        tokenizer,
        Augmentation(transpose=30),
        np.random.default_rng(seed),
    )
    assert np.array_equal(view(tokens[None]), view(moved[None]))


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda t: t.name)
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_rows_do_not_know_of_each_other_and_values_are_in_range(tokenizer, seed):
    view = RelativeView(tokenizer)
    rows = np.stack([random_walk(tokenizer, seed + i, 50) for i in range(4)])
    rows[2] = rows[0]
    together = view(rows)
    assert np.array_equal(together, np.concatenate([view(row[None]) for row in rows]))
    assert together.min() >= 0
    assert (together.max(axis=(0, 1)) < view.sizes).all()


def test_long_batches_are_done_in_blocks(monkeypatch):
    view = RelativeView(TUNES)
    rows = np.stack([random_walk(TUNES, i, 30) for i in range(7)])
    whole = view(rows)
    monkeypatch.setattr("rnngan.discriminator.relative._BLOCK", 64)
    assert np.array_equal(view(rows), whole)


def test_without_bars_there_are_fewer_columns():
    names = ("Pad", "Start", "Continue", "End", "NoteOn_60", "NoteOn_61", "TimeShift_1")
    bare = SimpleNamespace(
        name="miditok", vocabulary=Vocabulary(names), bar=None, pitched_kinds=("NoteOn",)
    )
    found = columns(bare, [1, 4, 6, 5, 6, 4])
    assert found["interval"] == [0, 0, 0, 26, 0, 24]
    assert found["from_first"] == [0, 25, 0, 26, 0, 25]
    assert not {"bar", "place", "match_bars", "motion", "above_lowest"} & set(found)


def test_a_batch_without_notes():
    for tokenizer in TOKENIZERS:
        assert RelativeView(tokenizer)(np.zeros((2, 3), np.int64)).max() >= 0


def test_pitch_classes_and_their_rarity_by_hand():
    pitch = np.array([[60, 0, 72, 62, 60, 61, 62]])
    pitched = np.array([[True, False, True, True, True, True, True]])
    classes, rarity = _classes(pitch, pitched)
    assert classes.tolist() == [[1, 1, 1, 2, 2, 3, 3]]
    # New; -; 1 of 1; new; 2 of 3; new; 1 of 5.
    assert rarity.tolist() == [[1, 0, 2, 1, 2, 1, 4]]
