import io

import numpy as np
import pytest
import torch

from rnngan.data.batches import Batch, padded
from rnngan.objectives.replay import Replay


def samples(step, num=8):
    """Rows that tell where they come from: step, row, and as many more as the row's number."""
    return padded([np.array([step, row] + row * [7], dtype=np.uint16) for row in range(num)])


def steps_of(batch):
    return batch.tokens[:, 0].tolist()


def kept(replay):
    return [int(row[0]) for row in replay.state()["tokens"].split(replay.state()["lengths"])]


def same(a: Batch, b: Batch):
    return np.array_equal(a.tokens, b.tokens) and np.array_equal(a.lengths, b.lengths)


def test_the_first_batch_stays_as_it_is():
    replay = Replay(rate=1.0, seed=0)
    assert same(replay.mixed(samples(0), 0), samples(0))
    assert len(replay) == 8


@pytest.mark.parametrize(("rate", "num"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_a_share_comes_from_earlier_batches(rate, num):
    replay = Replay(rate=rate, seed=0)
    for step in range(1, 5):
        mixed = replay.mixed(samples(step), step)
        old = [s for s in steps_of(mixed) if s != step]
        assert len(old) == (num if step > 1 else 0)
        assert all(s < step for s in old)
        rows = [tuple(row[:length]) for row, length in zip(mixed.tokens, mixed.lengths)]
        assert len(set(rows)) == 8  # no one twice
        for row, length in zip(mixed.tokens, mixed.lengths):
            assert length == row[1] + 2 and (row[length:] == 0).all()
        new = [(place, row) for place, row in enumerate(mixed.tokens) if row[0] == step]
        assert all(row[1] == place for place, row in new)


def test_it_follows_from_seed_and_step():
    def run(seed):
        replay = Replay(rate=0.5, seed=seed, capacity=20)
        return [replay.mixed(samples(step), step).tokens.tolist() for step in range(9)]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_a_resumed_buffer_goes_on_exactly():
    whole = Replay(rate=0.5, seed=3, capacity=20)
    for step in range(6):
        whole.mixed(samples(step), step)
    file = io.BytesIO()
    torch.save(whole.state(), file)
    file.seek(0)
    other = Replay(rate=0.5, seed=3, capacity=20)
    other.restore(torch.load(file, weights_only=True))
    for step in range(6, 12):
        assert same(whole.mixed(samples(step), step), other.mixed(samples(step), step))


def test_an_empty_buffer_is_saved_and_restored():
    replay = Replay(rate=0.5, seed=0)
    replay.restore(Replay(rate=0.5, seed=0).state())
    assert len(replay) == 0
    assert same(replay.mixed(samples(0), 0), samples(0))


def test_it_holds_no_more_than_its_capacity():
    replay = Replay(rate=0.5, seed=0, capacity=10)
    for step in range(5):
        replay.mixed(samples(step), step)
    assert len(replay) == 10


def test_up_to_ten_times_its_capacity_all_are_equally_likely():
    """The mean step of 100 out of 800 rows of 100 steps: 49.5 with a deviation of 2.7. Five of
    them are a false alarm in a million."""
    replay = Replay(rate=0.0, seed=5, capacity=100)
    for step in range(100):
        replay.mixed(samples(step), step)
    assert np.mean(kept(replay)) == pytest.approx(49.5, abs=5 * 2.7)


def test_later_on_it_forgets():
    """A row enters with chance 1/10 and lives for capacity / (chance · batch) = 25 steps on
    average, of 400: the mean age of 20 rows is 25 with a deviation of 25 / √20 = 5.6."""
    replay = Replay(rate=0.0, seed=6, capacity=20)
    for step in range(400):
        replay.mixed(samples(step), step)
    assert np.mean(kept(replay)) == pytest.approx(399 - 25, abs=5 * 5.6)


def test_tuples_are_kept_as_they_are():
    def tuples(step):
        return padded([np.full((2 + i, 4), step + i / 8, dtype=np.float32) for i in range(8)])

    whole = Replay(rate=0.5, seed=3)
    whole.mixed(tuples(0), 0)
    buffer = io.BytesIO()
    torch.save(whole.state(), buffer)
    buffer.seek(0)
    resumed = Replay(rate=0.5, seed=3)
    resumed.restore(torch.load(buffer, weights_only=True))
    mixed = whole.mixed(tuples(1), 1)
    assert same(mixed, resumed.mixed(tuples(1), 1))
    assert mixed.tokens.dtype == np.float32
    known = {
        row[:n].tobytes()
        for batch in (tuples(0), tuples(1))
        for row, n in zip(batch.tokens, batch.lengths)
    }
    old = [row for row in mixed.tokens if row[0, 0] < 1]
    assert len(old) == 4
    assert {row[:n].tobytes() for row, n in zip(mixed.tokens, mixed.lengths)} <= known
