"""What `benchmarks/frames.py` calls the likelihood of a frame, on keyboards of four pitches."""

import dataclasses
import importlib
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

ALL_FRAMES = np.array(list(itertools.product([False, True], repeat=4)))


@pytest.fixture(scope="module")
def frames():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield importlib.import_module("frames")


@pytest.fixture
def spelling(frames):
    return frames.Spelling(num_pitches=4, shift=2)


@pytest.fixture
def networks(frames, spelling):
    return [new_network(frames, spelling, seed) for seed in range(3)]


@pytest.fixture
def network(networks):
    return networks[0]


def new_network(frames, spelling, seed):
    """Untrained, with opinions."""
    torch.manual_seed(seed)
    recipe = frames.Recipe(hidden_size=8, attention=8)
    network = recipe.network(spelling).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return network


@pytest.fixture
def roll():
    return np.random.default_rng(0).random((12, 4)) < 0.5


def nats_of(frames, spelling, mixture, rolls):
    pieces = [frames.piece_of(roll, spelling) for roll in rolls]
    (found,) = frames.frame_nats([mixture], pieces)
    return found


@pytest.mark.parametrize("num", [1, 3])
@pytest.mark.parametrize("past", [0, 1, 7])
def test_all_frames_together_have_probability_one(frames, spelling, networks, roll, num, past):
    rolls = [np.concatenate([roll[:past], frame[None]]) for frame in ALL_FRAMES]
    found = nats_of(frames, spelling, networks[:num], rolls)
    probabilities = np.exp([-nats[-1] for nats in found])
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert probabilities.std() > 0.01


def test_uniform_logits(frames, spelling, network):
    for layer in (network.output, network.moves):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    roll = np.array([[0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]], bool)
    (found,) = nats_of(frames, spelling, [network], [roll])
    # Of four pitches and the end; then of those below and the end; below the lowest all is certain.
    by_hand = [math.log(5), math.log(5 * 3), math.log(5 * 4 * 3 * 2), math.log(5)]
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)


def test_a_frame_knows_nothing_of_later_ones(frames, spelling, network, roll):
    changed = roll.copy()
    changed[7:] = ~changed[7:]
    before, after = nats_of(frames, spelling, [network], [roll, changed])
    np.testing.assert_allclose(before[:7], after[:7], rtol=1e-5)
    assert not np.isclose(before[7], after[7])


def test_pieces_beside_each_other_and_windows_change_nothing(frames, spelling, network, roll):
    together = nats_of(frames, spelling, [network], [roll, roll[:3], roll[3:]])
    for nats, alone in zip(together, [roll, roll[:3], roll[3:]]):
        np.testing.assert_allclose(
            nats, nats_of(frames, spelling, [network], [alone])[0], rtol=1e-5
        )
    batch = frames.batch_of([frames.piece_of(roll, spelling)], [0], spelling)
    with torch.no_grad():
        ((_, whole),) = frames.log_probs(network, batch)
        parts = torch.cat([part for _, part in frames.log_probs(network, batch, 5)], 1)
    torch.testing.assert_close(whole, parts)


def test_a_mixture_is_the_mean_of_each_tokens_probabilities(frames, spelling, networks):
    """Of frames of one token, that is the mean of the frames' probabilities."""
    silence = np.zeros((4, 4), bool)
    each = [nats_of(frames, spelling, [network], [silence])[0] for network in networks]
    mixed = nats_of(frames, spelling, networks, [silence])[0]
    np.testing.assert_allclose(np.exp(-mixed), np.exp(-np.array(each)).mean(0), rtol=1e-5)


def test_another_key_is_the_piece_moved(frames, spelling, roll):
    wide = frames.Spelling(num_pitches=6, shift=2)
    low, high = np.pad(roll, ((0, 0), (0, 2))), np.pad(roll, ((0, 0), (1, 1)))
    moved = frames.batch_of([frames.piece_of(low, wide)], [1], wide)
    plain = frames.batch_of([frames.piece_of(high, wide)], [0], wide)
    for field in dataclasses.fields(frames.Batch):
        one, other = (getattr(batch, field.name) for batch in (moved, plain))
        if field.name not in ("keys", "last", "beside"):
            torch.testing.assert_close(one, other, msg=field.name)


def test_spelling_by_hand(frames, spelling):
    roll = np.array([[1, 0, 1, 0], [0, 1, 0, 0]], bool)
    piece = frames.piece_of(roll, spelling)
    end, middle = 8, 4
    assert piece.tokens.tolist() == [end, 4, 2, end, 3, end]
    assert piece.frames.tolist() == [0, 0, 0, 1, 1]
    assert piece.places.tolist() == [0, 1, 2, 0, 1]
    assert piece.last.tolist() == [middle, 4, 2, 4, 3]
    assert piece.beside.tolist() == [middle, 4, 2, 4, 2]


def test_likenesses_by_hand(frames):
    melody = np.array([0, 1, 2, 0, 1, 3, 0, 1])
    follows, lengths = frames.likenesses(np.eye(4, dtype=bool)[melody])
    # What came before frame 5, 0 1, was there before frame 2; before frame 7, 0 follows 2 and 3.
    assert follows.tolist() == [-1, -1, -1, -1, 1, 2, -1, 4]
    assert lengths.tolist() == [0, 0, 0, 0, 1, 2, 0, 1]


def test_leaked_pieces_are_those_that_are_equal(frames, roll):
    longer = np.concatenate([roll, roll[:1]])
    assert frames.leaked([roll[:5], roll], [longer, roll, roll[:4], ~roll]) == [1]


def test_two_means(frames):
    nats = [np.array([1.0, 3.0, 2.0]), np.array([6.0])]
    assert frames.pooled(nats) == 3
    assert frames.by_piece(nats) == 4
