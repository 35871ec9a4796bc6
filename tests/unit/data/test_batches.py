from collections import Counter

import numpy as np
import pytest
from scipy import stats

from rnngan.config import DataConfig
from rnngan.data import batches as module
from rnngan.data.augment import Augmentation
from rnngan.data.batches import TrainingBatches, augmentation_of, excerpt, held_out_batches, padded
from rnngan.data.prepare import prepare_pieces
from rnngan.data.reading import Source
from rnngan.music.piece import DRUMS, Metre, Piece, Tempo
from rnngan.music.vocabulary import CONTINUE, END, PAD, START

MAX_LENGTH = 100


def piece(i, num_bars):
    """Random notes and drums; metre and tempo change every few bars."""
    random = np.random.default_rng(i)
    lines = [0]
    metres, tempos = [], []
    for bar in range(num_bars):
        if bar % 5 == 0:
            metres.append(Metre(lines[-1], 3 + bar // 5 % 2, 4))
        if bar % 3 == 0:
            tempos.append(Tempo(lines[-1], 60.0 + 10 * (bar // 3 % 4)))
        lines.append(lines[-1] + metres[-1].ticks_per_bar)
    rows = []
    for line in lines[:-1]:
        places = np.sort(random.choice(6, size=3, replace=False)) * 12
        rows += [(line + p, line + p + 12, int(random.integers(55, 75)), 64, 0) for p in places]
        rows.append((line, line + 6, int(random.integers(35, 50)), 64, DRUMS))
    return Piece.from_rows(rows, metres=tuple(metres), tempos=tuple(tempos), tags={"style": "jig"})


def make_store(folder, pieces):
    return prepare_pieces(
        [Source(f"{i}.mid", "0" * 64, p) for i, p in enumerate(pieces)],
        DataConfig(tags=("style",), validation_rate=0.15, test_rate=0.15),
        folder,
        seed=0,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Sixty pieces of 2 to 21 bars, 40 to 400 tokens."""
    pieces = [piece(i, 2 + i % 20) for i in range(60)]
    return make_store(tmp_path_factory.mktemp("corpus") / "store", pieces)


@pytest.fixture
def batches(store):
    def make(**changes):
        defaults = {
            "batch_size": 6,
            "max_length": MAX_LENGTH,
            "augmentation": Augmentation(transpose=5),
            "seed": 7,
        }
        return TrainingBatches(store, **(defaults | changes))

    return make


@pytest.fixture(scope="module")
def long(store):
    """Tokens of the longest piece."""
    return max((store.piece_tokens(i) for i in range(60)), key=len)


def rows(batch):
    return [row[:length].tolist() for row, length in zip(batch.tokens, batch.lengths)]


# Batches


def test_padding_stands_behind_alone():
    batch = padded([np.array([1, 5, 6, 3], dtype=np.uint16), np.array([1, 3], dtype=np.uint16)])
    assert batch.tokens.tolist() == [[1, 5, 6, 3], [1, 3, PAD, PAD]]
    assert batch.lengths.tolist() == [4, 2]
    assert batch.tokens.dtype == batch.lengths.dtype == np.int64


def test_a_batch_follows_from_seed_and_step(batches):
    steps = [0, 40, 3, 17, 40, 0]
    first, second = batches(), batches()
    later = {step: rows(second.batch(step)) for step in sorted(steps, reverse=True)}
    for step in steps:
        assert rows(first.batch(step)) == later[step]
    assert len({str(content) for content in later.values()}) == 4
    assert rows(batches(seed=8).batch(0)) != later[0]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 6])
def test_ranks_share_out_the_batch(batches, num_ranks):
    for step in range(5):
        whole = rows(batches().batch(step))
        parts = [
            rows(batches().batch(step, rank=rank, num_ranks=num_ranks)) for rank in range(num_ranks)
        ]
        assert [parts[i % num_ranks][i // num_ranks] for i in range(6)] == whole
        assert sum(map(len, parts)) == 6


def test_more_ranks_than_rows(batches):
    with pytest.raises(ValueError, match="6 rows are too few for 7 ranks"):
        batches().batch(0, rank=0, num_ranks=7)


def test_rows_are_sound_and_short_enough(store, batches):
    grammar = store.tokenizer.grammar
    starts = Counter()
    for step in range(40):
        batch = batches().batch(step)
        assert batch.tokens.shape == (6, batch.lengths.max())
        for row, length in zip(batch.tokens, batch.lengths):
            assert 0 < length <= MAX_LENGTH
            assert PAD not in row[:length] and set(row[length:]) <= {PAD}
            assert grammar.first_error(row[:length]) is None
            starts[row[0]] += 1
    assert set(starts) == {START, CONTINUE}


def test_openings_are_beginnings(store, batches):
    beginnings = {
        tuple(store.piece_tokens(int(i))[:MAX_LENGTH].tolist()) for i in store.indices("train")
    }
    source = batches(openings=True, augmentation=Augmentation())
    for step in range(20):
        assert {tuple(row) for row in rows(source.batch(step))} <= beginnings


@pytest.mark.parametrize("batch_size", [1, 6, 7, 42, 100])
def test_every_piece_comes_once_per_epoch(store, batch_size):
    indices = store.indices("train")
    number = {tuple(store.piece_tokens(int(i)).tolist()): int(i) for i in indices}
    source = TrainingBatches(
        store, batch_size=batch_size, max_length=10_000, augmentation=Augmentation(), seed=1
    )
    seen = Counter()
    for step in range(300 // batch_size + 16):
        found = [number[tuple(row)] for row in rows(source.batch(step))]
        assert max(Counter(found).values()) <= -(-batch_size // len(indices)) + 1
        seen.update(found)
        if (step + 1) % source.pool_size == 0:  # batches are drawn in pools
            counts = [seen[int(i)] for i in indices]
            assert max(counts) - min(counts) <= 1
            assert sum(counts) == (step + 1) * batch_size


def test_similar_lengths_come_together(store, batches):
    # Less padding than rows drawn blindly; both figures are shares of all tokens.
    source = batches(max_length=10_000, batch_size=4)
    found = [source.batch(step) for step in range(50)]
    padding = 1 - sum(b.lengths.sum() for b in found) / sum(b.tokens.size for b in found)
    lengths = np.diff(store.offsets)[store.indices("train")]
    blind = np.random.default_rng(0).choice(lengths, size=(500, 4))
    assert padding < 0.5 * (1 - blind.sum() / (4 * blind.max(axis=1).sum()))


def test_the_test_pieces_are_never_trained_on(store):
    held_out = {
        tuple(store.piece_tokens(int(i)).tolist())
        for split in ("validation", "test")
        for i in store.indices(split)
    }
    source = TrainingBatches(
        store, batch_size=8, max_length=10_000, augmentation=Augmentation(), seed=2
    )
    assert held_out.isdisjoint(tuple(row) for step in range(20) for row in rows(source.batch(step)))


# Excerpts


def test_short_pieces_stay_whole(store):
    tokens = store.piece_tokens(0)
    for place in (0.0, 0.5, 0.999):
        np.testing.assert_array_equal(excerpt(tokens, store.tokenizer, len(tokens), place), tokens)


def begins(whole, line, part):
    """Whether the notes of `whole` from the tick `line` on begin with those of `part`."""
    notes = whole.notes[whole.notes["start"] >= line].copy()
    notes["start"] -= line
    fields = ["start", "pitch", "program"]
    return notes[fields][: len(part.notes)].tolist() == part.notes[fields].tolist()


def test_an_excerpt_is_the_piece_from_a_bar_line_on(store, long):
    whole = store.tokenizer.decode(long)
    lines = whole.bar_lines().tolist()
    seen = set()
    for place in np.linspace(0, 1, 200, endpoint=False):
        tokens = excerpt(long, store.tokenizer, MAX_LENGTH, place)
        assert len(tokens) <= MAX_LENGTH
        part = store.tokenizer.decode(tokens, strict=True)
        assert part.tags == whole.tags
        if tokens[0] == START:
            np.testing.assert_array_equal(tokens, long[:MAX_LENGTH])
            continue
        bar = next(bar for bar, line in enumerate(lines) if begins(whole, line, part))
        seen.add(bar)
        line = lines[bar]
        assert part.metres[0][1:] == whole.metre_at(line)[1:]
        tempo = [t for t in whole.tempos if t.tick <= line][-1]
        assert part.tempos[0].quarters_per_minute == tempo.quarters_per_minute
    # From the second bar on, as long as half an excerpt is left.
    assert min(seen) == 1 and len(seen) == max(seen)
    size = len(long[np.flatnonzero(long == store.tokenizer.bar)[max(seen)] :])
    assert MAX_LENGTH / 2 <= size < MAX_LENGTH


def test_the_opening_is_as_frequent_as_any_stretch_of_its_length(store, long):
    places = (np.arange(10_000) + 0.5) / 10_000
    share = np.mean(
        [excerpt(long, store.tokenizer, MAX_LENGTH, place)[0] == START for place in places]
    )
    assert share == pytest.approx(MAX_LENGTH / len(long), abs=1e-3)


def test_the_other_bars_are_chosen_alike(store, long):
    places = (np.arange(10_000) + 0.5) / 10_000
    middle = Counter(
        excerpt(long, store.tokenizer, MAX_LENGTH, place).tobytes()
        for place in places[places >= MAX_LENGTH / len(long)]
    )
    assert max(middle.values()) - min(middle.values()) <= 1


def test_openings_in_training(store, batches):
    lengths = np.diff(store.offsets)
    source = batches(batch_size=1, augmentation=Augmentation())
    num_openings, chances = 0, []
    for step in range(1500):
        [index] = source._pool(step // source.pool_size)[step % source.pool_size]
        if lengths[index] > MAX_LENGTH:
            chances.append(MAX_LENGTH / lengths[index])
            num_openings += source.batch(step).tokens[0, 0] == START
    # A sum of Bernoulli draws; nearly normal. One seed in a million fails this.
    mean, variance = sum(chances), sum(p * (1 - p) for p in chances)
    assert abs(num_openings - mean) < stats.norm.isf(0.5e-6) * variance**0.5


def test_a_piece_in_one_endless_bar_is_cut_at_the_front(store):
    names = store.tokenizer.vocabulary.index
    head = ["Start", "Tag_style=", "Metre_3/4", "Tempo_60.0", "Bar"]
    body = np.full(300, names["Pitch_60"])
    tokens = np.array([*(names[name] for name in head), *body, END], dtype=np.uint16)
    for place in (0.0, 0.9):
        np.testing.assert_array_equal(excerpt(tokens, store.tokenizer, 50, place), tokens[:50])


def test_without_bars_an_excerpt_begins_anywhere(store, long):
    class Barless:
        bar, width = None, 0
        vocabulary = store.tokenizer.vocabulary

    found = [excerpt(long, Barless, MAX_LENGTH, place) for place in np.linspace(0, 0.999, 500)]
    assert {len(tokens) for tokens in found} <= set(range(MAX_LENGTH // 2, MAX_LENGTH + 1))
    later = [tokens[1:].tolist() for tokens in found if tokens[0] == CONTINUE]
    whole = long.tolist()
    assert all(
        any(whole[i : i + len(part)] == part for i in range(1, len(whole))) for part in later
    )
    assert len({str(part) for part in later}) > 200


# Augmentation


def test_pieces_are_augmented_each_time_anew(store, batches):
    changes = Augmentation(transpose=5, tempo=1.5)
    plain, changed = batches(augmentation=Augmentation()), batches(augmentation=changes)
    ids = store.tokenizer.vocabulary.ids("Pitch")
    moves = Counter()
    for step in range(30):
        for before, after in zip(rows(plain.batch(step)), rows(changed.batch(step))):
            moves[next(b - a for a, b in zip(before, after) if ids.start <= a < ids.stop)] += 1
            assert store.tokenizer.grammar.first_error(np.array(after)) is None
    assert set(moves) == set(range(-5, 6))
    assert rows(batches(augmentation=changes).batch(3)) == rows(changed.batch(3))


def test_in_the_end_pieces_stay_in_their_own_keys(batches):
    own = batches(augmentation=Augmentation())
    source = batches(augmentation=Augmentation(transpose=5), transpose_steps=10)
    assert rows(source.batch(9)) != rows(own.batch(9))
    assert rows(source.batch(10)) == rows(own.batch(10))


def test_settings_of_augmentation():
    config = DataConfig(
        transpose=3, tempo_factor=1.2, duration_factor=1.1, velocity_jitter=2, tag_dropout=0.3
    )
    assert augmentation_of(config) == Augmentation(
        transpose=3, tempo=1.2, duration=1.1, velocity=2, tag_dropout=0.3
    )


# Held-out pieces


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("max_tokens", [1, 500, 1500, 10**9])
def test_held_out_batches_hold_every_piece_once_and_whole(store, split, max_tokens):
    found = held_out_batches(store, split, max_tokens=max_tokens)
    wanted = [store.piece_tokens(int(i)).tolist() for i in store.indices(split)]
    assert sorted(row for batch in found for row in rows(batch)) == sorted(wanted)
    for batch in found:
        assert batch.tokens.size <= max_tokens or len(batch.tokens) == 1
    lengths = [length for batch in found for length in batch.lengths.tolist()]
    assert lengths == sorted(lengths, reverse=True)


def test_of_a_huge_split_some_pieces_are_enough(store, monkeypatch):
    monkeypatch.setattr(module, "MAX_HELD_OUT", 5)
    train = store.indices("train").tolist()
    found = [row for batch in held_out_batches(store, "train") for row in rows(batch)]
    wanted = [store.piece_tokens(train[i * len(train) // 5]).tolist() for i in range(5)]
    assert sorted(found) == sorted(wanted)


# Tuples


@pytest.fixture(scope="module")
def tuples_store(tmp_path_factory):
    pieces = [piece(i, 2 + i % 20) for i in range(60)]
    return prepare_pieces(
        [Source(f"{i}.mid", "0" * 64, p) for i, p in enumerate(pieces)],
        DataConfig(tokenizer="tuples", validation_rate=0.15, test_rate=0.15),
        tmp_path_factory.mktemp("tuples") / "store",
        seed=0,
    )


def test_rows_of_tuples_are_batched_as_they_are(tuples_store):
    (batch,) = held_out_batches(tuples_store, "test")
    assert batch.tokens.dtype == np.float32 and batch.tokens.shape[2] == 4
    found = sorted(row[:length].tobytes() for row, length in zip(batch.tokens, batch.lengths))
    pieces = [tuples_store.piece_tokens(i) for i in tuples_store.indices("test")]
    assert found == sorted(rows.tobytes() for rows in pieces)
    assert all((row[n:] == 0).all() for row, n in zip(batch.tokens, batch.lengths))


def test_excerpts_of_tuples_are_stretches_of_pieces_each_as_often(tuples_store):
    """Places of 2000 excerpts of a piece of 60 notes, in thirds; chi-squared, p above 1e-6."""
    tuples = max((tuples_store.piece_tokens(i) for i in range(60)), key=len)
    assert len(tuples) == 63
    counts = Counter()
    for place in np.random.default_rng(0).random(2000):
        found = excerpt(tuples, tuples_store.codec, 20, place)
        starts = [i for i in range(63) if np.array_equal(tuples[i : i + len(found)], found)]
        assert len(starts) == 1 and 10 <= len(found) <= 20
        counts[starts[0]] += 1
    assert set(counts) == {*range(54)}
    assert abs(counts.pop(0) / 2000 - 20 / 63) < 5 * (0.22 / 2000) ** 0.5
    assert stats.chisquare([counts[i] for i in range(1, 54)]).pvalue > 1e-6


def test_training_batches_of_tuples_are_transposed_and_nothing_else(tuples_store):
    made = TrainingBatches(
        tuples_store,
        batch_size=6,
        max_length=500,
        augmentation=Augmentation(transpose=5, tag_dropout=0.1),
        seed=7,
    )
    pieces = [tuples_store.piece_tokens(i) for i in tuples_store.indices("train")]
    steps = set()
    for step in range(10):
        batch = made.batch(step)
        np.testing.assert_array_equal(batch.tokens, made.batch(step).tokens)
        for row, length in zip(batch.tokens, batch.lengths):
            kept = row[:length, [0, 1, 3]]
            (rows,) = (rows for rows in pieces if np.array_equal(rows[:, [0, 1, 3]], kept))
            moved = (row[:length, 2] - rows[:, 2]) * tuples_store.codec.config.std[2]
            np.testing.assert_allclose(moved, round(float(moved[0])), atol=1e-4)
            steps.add(round(float(moved[0])))
    assert steps == {*range(-5, 6)}
