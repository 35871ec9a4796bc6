import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.data.augment import Augmentation, augmented
from rnngan.errors import UserError
from rnngan.music.piece import DRUMS, Piece, Tempo
from rnngan.music.tokenizers.events import DURATIONS, Events, EventsConfig
from rnngan.music.tokenizers.frames import Frames
from rnngan.music.tokenizers.melody import Melody
from rnngan.music.tokenizers.summary import Summary
from rnngan.music.tokenizers.tuples import Tuples
from rnngan.music.vocabulary import END

TAGGED = Events(
    EventsConfig(
        metres=("4/4",),
        tags=("style=", "style=jig", "style=reel", "key=", "key=C major", "mode=", "mode=major"),
        lowest=50,
        highest=70,
    )
)
TUNE = TAGGED.encode(
    Piece.from_rows([(0, 24, 60)], tags={"style": "reel", "key": "C major", "mode": "major"})
)
BAND = Events(
    EventsConfig(
        metres=("4/4", "3/4"),
        lowest=50,
        highest=70,
        programs=(0, 33, DRUMS),
        velocities=(20, 40, 60, 80, 100),
        tempos=(60.0, 90.0, 120.0, 180.0),
        voices=2,
    )
)
PIECE = Piece.from_rows(
    [(0, 24, 60, 60), (0, 24, 64, 60, 33, 1), (24, 30, 38, 60, DRUMS, 2), (96, 192, 62, 60)],
    tempos=(Tempo(0, 90.0), Tempo(96, 120.0)),
)
TOKENS = BAND.encode(PIECE)
PIECE_ON_TRACKS = BAND.decode(TOKENS)


def numbers(tokenizer, tokens, kind):
    ids = tokenizer.vocabulary.ids(kind)
    values = tokenizer.vocabulary.values(kind)
    return [float(values[i - ids.start]) for i in tokens.tolist() if i in ids]


def changed(seed=0, tokens=TOKENS, tokenizer=BAND, **options):
    return augmented(tokens, tokenizer, Augmentation(**options), np.random.default_rng(seed))


def kinds(tokenizer, tokens):
    return [tokenizer.vocabulary.names[i].split("_")[0] for i in tokens.tolist()]


@st.composite
def vocabularies(draw):
    def some(values, most):
        return tuple(sorted(draw(st.sets(st.sampled_from(values), min_size=1, max_size=most))))

    lowest = draw(st.integers(0, 127))
    return Events(
        EventsConfig(
            metres=some(("4/4", "6/8", "5/32"), 2),
            lowest=lowest,
            highest=draw(st.integers(lowest, 127)),
            programs=some((0, 33, 77, DRUMS), 3),
            velocities=some(range(1, 128), 5),
            tempos=some((31.5, 60.0, 61.0, 120.0, 240.0), 4),
            voices=draw(st.integers(1, 3)),
        )
    )


def random_walk(tokenizer, seed, length):
    random = np.random.default_rng(seed)
    state, tokens = 0, []
    for _ in range(length):
        allowed = np.flatnonzero(tokenizer.grammar.allowed[state])
        allowed = allowed[allowed != END] if len(allowed) > 1 else allowed
        tokens.append(int(random.choice(allowed)))
        state = int(tokenizer.grammar.next_state[state, tokens[-1]])
    return np.array(tokens, dtype=np.uint16)


@given(
    vocabularies(),
    st.builds(
        Augmentation,
        transpose=st.integers(0, 127),
        tempo=st.floats(1, 4),
        duration=st.floats(1, 4),
        velocity=st.integers(0, 9),
    ),
    st.integers(0, 9),
)
@settings(max_examples=60)
def test_what_obeys_the_grammar_still_does(tokenizer, augmentation, seed):
    tokens = random_walk(tokenizer, seed, 100)
    before = tokens.copy()
    after = augmented(tokens, tokenizer, augmentation, np.random.default_rng(seed))
    np.testing.assert_array_equal(tokens, before)  # the store's own memory
    assert after.dtype == np.uint16
    assert tokenizer.grammar.first_error(after) is None
    assert kinds(tokenizer, after) == kinds(tokenizer, tokens)
    again = augmented(tokens, tokenizer, augmentation, np.random.default_rng(seed))
    np.testing.assert_array_equal(after, again)
    moves = np.subtract(
        numbers(tokenizer, after, "Pitch"), numbers(tokenizer, tokens, "Pitch")
    ).tolist()
    assert len(set(moves)) <= 1 and all(abs(m) <= augmentation.transpose for m in moves)
    fixed = ("Drum", "Position", "Program", "Voice", "Metre", "Bar", "Start", "Continue")
    ids = [i for kind in fixed for i in tokenizer.vocabulary.ids(kind)]
    np.testing.assert_array_equal(after[np.isin(tokens, ids)], tokens[np.isin(tokens, ids)])


def test_nothing_asked_changes_nothing():
    assert changed() is TOKENS
    none = TOKENS[:0]
    assert changed(tokens=none, transpose=5) is none


def test_all_transpositions_that_fit_are_equally_likely():
    # 50 to 70 leaves 6 semitones above 64 and 10 below 60, of which 8 are asked for.
    found = Counter()
    for seed in range(3000):
        after = changed(seed, transpose=8)
        move = numbers(BAND, after, "Pitch")[0] - 60
        assert BAND.decode(after, strict=True) == PIECE_ON_TRACKS.transposed(int(move))
        found[int(move)] += 1
    assert sorted(found) == list(range(-8, 7))
    assert all(abs(count - 200) < 60 for count in found.values())  # 4 standard deviations


def test_pitches_at_both_ends_cannot_move():
    piece = Piece.from_rows([(0, 24, 50, 60), (0, 24, 70, 60)])
    tokens = BAND.encode(piece)
    np.testing.assert_array_equal(changed(tokens=tokens, transpose=12), tokens)


@pytest.mark.parametrize("seed", range(20))
def test_tempos_move_together_to_the_nearest_by_ratio(seed):
    factor = 2.0 ** (2 * np.random.default_rng(seed).random(3)[1] - 1)
    after = changed(seed, tempo=2.0)
    expected = [
        min(BAND.config.tempos, key=lambda tempo: abs(math.log(tempo / (said * factor))))
        for said in (90.0, 120.0)
    ]
    assert numbers(BAND, after, "Tempo") == expected
    assert set(np.flatnonzero(after != TOKENS)) <= set(
        np.flatnonzero(np.isin(TOKENS, BAND.vocabulary.ids("Tempo")))
    )


@pytest.mark.parametrize("seed", range(20))
def test_lengths_move_together_to_the_nearest(seed):
    factor = 2.0 ** (2 * np.random.default_rng(seed).random(3)[2] - 1)
    after = changed(seed, duration=2.0)
    expected = [min(DURATIONS, key=lambda d: abs(d - said * factor)) for said in (24, 24, 96)]
    assert numbers(BAND, after, "Duration") == expected
    assert len(BAND.decode(after, strict=True).notes) == 4


def test_factors_are_as_often_above_one_as_below():
    factors = [numbers(BAND, changed(s, duration=3.0), "Duration")[2] / 96 for s in range(400)]
    assert abs(sum(f > 1 for f in factors) - sum(f < 1 for f in factors)) < 80
    assert min(factors) < 0.4 and max(factors) > 2.5


def test_velocities_move_each_for_itself():
    found = {tuple(numbers(BAND, changed(s, velocity=1), "Velocity")) for s in range(1500)}
    assert len(found) == 3**4
    assert set(sum(found, ())) == {40, 60, 80}
    far = {v for s in range(99) for v in numbers(BAND, changed(s, velocity=9), "Velocity")}
    assert far == {20, 40, 60, 80, 100}


def test_what_one_change_draws_does_not_depend_on_the_others():
    alone = numbers(BAND, changed(7, transpose=8), "Pitch")
    together = changed(7, transpose=8, tempo=2.0, duration=2.0, velocity=3)
    assert numbers(BAND, together, "Pitch") == alone


@pytest.mark.parametrize("kind", [Melody, Frames])
def test_steps_are_transposed_in_all_their_kinds(kind):
    tune = Piece.from_rows([(0, 24, 60, 80), (24, 48, 64, 80)])
    tokenizer = kind.fit(Summary.of([tune]), margin=4)
    tokens = tokenizer.encode(tune)
    found = set()
    for seed in range(100):
        after = changed(seed, tokens, tokenizer, transpose=6, tempo=2.0, duration=2.0, velocity=2)
        pitch = int(numbers(tokenizer, after, "Pitch")[0])
        np.testing.assert_array_equal(after, tokenizer.encode(tune.transposed(pitch - 60)))
        found.add(pitch)
    assert found == set(range(56, 65))


@pytest.mark.parametrize("kind", ["REMI", "MIDILike"])
def test_miditok_is_changed_too(kind):
    pytest.importorskip("miditok")
    from rnngan.music.tokenizers.miditok import MidiTok

    tokenizer = MidiTok.fit(Summary.of([PIECE]), kind=kind, margin=4)
    tokens = tokenizer.encode(PIECE)
    pitched = tokenizer.pitched_kinds[0]
    for seed in range(10):
        after = changed(seed, tokens, tokenizer, transpose=3)
        move = numbers(tokenizer, after, pitched)[0] - numbers(tokenizer, tokens, pitched)[0]
        np.testing.assert_array_equal(after, tokenizer.encode(PIECE.transposed(int(move))))
    after = changed(3, tokens, tokenizer, transpose=3, tempo=2.0, duration=2.0)
    assert tokenizer.grammar.first_error(after) is None
    assert numbers(tokenizer, after, "Tempo") != numbers(tokenizer, tokens, "Tempo")
    if kind == "REMI":
        factor = 2.0 ** (2 * np.random.default_rng(3).random(3)[2] - 1)
        grid = tokenizer.decode(after).notes
        lengths = (grid["end"] - grid["start"])[[0, 1, 3]]
        # The grid is a 12th of a quarter up to four of them, half a quarter beyond.
        assert np.all(np.abs(lengths - np.array([24, 24, 96]) * factor) <= [1, 1, 6])


TUPLES = Tuples.fit(Summary.of([PIECE]), margin=2)


def test_tuples_are_transposed_as_far_as_they_fit():
    rows = TUPLES.encode(PIECE)
    assert TUPLES.room(rows) == (2, 2)
    found = set()
    for seed in range(60):
        moved = changed(tokens=rows, tokenizer=TUPLES, seed=seed, transpose=5, tag_dropout=0.1)
        np.testing.assert_array_equal(moved[:, [0, 1, 3]], rows[:, [0, 1, 3]])
        piece = TUPLES.decode(moved, strict=True)
        steps = piece.notes["pitch"].astype(int) - TUPLES.decode(rows).notes["pitch"]
        assert len(set(steps)) == 1
        found.add(int(steps[0]))
        assert piece == TUPLES.decode(rows).transposed(int(steps[0]))
    assert found == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("option", [{"tempo": 1.1}, {"duration": 1.1}, {"velocity": 1}])
def test_nothing_else_is_done_to_tuples(option):
    with pytest.raises(UserError, match="tuples are real numbers, which can be transposed and"):
        changed(tokens=TUPLES.encode(PIECE), tokenizer=TUPLES, **option)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"transpose": -1}, "transpose must be 0 to 127, got -1"),
        ({"tempo": 0.5}, "tempo must be a factor of at least 1, got 0.5"),
        ({"duration": math.nan}, "duration must be a factor"),
        ({"velocity": -1}, "velocity must be at least 0, got -1"),
    ],
)
def test_impossible_augmentations(options, rule):
    with pytest.raises(UserError, match=rule):
        Augmentation(**options)


# Tags


def tags_of(tokens):
    return dict(TAGGED.decode(tokens).tags)


def test_tags_are_left_out_as_often_as_said_all_together_or_each_for_itself():
    """Of 4,000 pieces; beyond 5 standard deviations once in 10^6 seeds."""
    rate, num = 0.3, 4000
    random = np.random.default_rng(0)
    left = [
        tags_of(augmented(TUNE, TAGGED, Augmentation(tag_dropout=rate), random)) for _ in range(num)
    ]
    none = rate + (1 - rate) * rate**3
    for key, share in (("style", rate + (1 - rate) * rate), ("mode", rate + (1 - rate) * rate)):
        lost = sum(key not in tags for tags in left) / num
        assert abs(lost - share) < 5 * math.sqrt(share * (1 - share) / num)
    lost = sum(not tags for tags in left) / num
    assert abs(lost - none) < 5 * math.sqrt(none * (1 - none) / num)


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), rate=st.floats(0.01, 0.99))
def test_what_is_lost_is_a_value_and_nothing_else(seed, rate):
    tokens = changed(seed, TUNE, TAGGED, tag_dropout=rate)
    assert TAGGED.grammar.first_error(tokens) is None
    assert tags_of(tokens).items() <= tags_of(TUNE).items()
    assert len(tokens) == len(TUNE) and (tokens[4:] == TUNE[4:]).all()


def test_without_dropout_tags_stay():
    assert all(
        tags_of(changed(seed, TUNE, TAGGED, velocity=1)) == tags_of(TUNE) for seed in range(9)
    )


def test_where_there_are_no_tags_dropout_does_nothing():
    assert (changed(0, tag_dropout=0.9) == TOKENS).all()


def test_a_piece_that_was_transposed_no_longer_tells_its_key():
    found = {}
    for seed in range(40):
        tokens = changed(seed, TUNE, TAGGED, transpose=2)
        shift = int(TAGGED.decode(tokens).notes["pitch"][0]) - 60
        found[shift] = tags_of(tokens)
    told = {"style": "reel", "mode": "major"}
    assert found == {s: told | ({"key": "C major"} if s == 0 else {}) for s in range(-2, 3)}


@pytest.mark.parametrize("rate", [-0.1, 1.0, math.nan])
def test_a_rate_is_at_least_0_and_below_1(rate):
    with pytest.raises(UserError, match="tag_dropout must be at least 0 and below 1"):
        Augmentation(tag_dropout=rate)
