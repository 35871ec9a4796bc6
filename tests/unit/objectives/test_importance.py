import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from exact import (
    GRAMMAR,
    MAX_LENGTH,
    FixedJudge,
    assert_unbiased,
    every_sequence,
    exact_gradient,
    gradients,
    judged,
    sequence_probs,
    tiny_generator,
    tiny_players,
    tiny_round,
)
from hypothesis import given
from hypothesis import strategies as st

from rnngan.layers import LockedDropout
from rnngan.objectives import base, importance
from rnngan.objectives.importance import (
    Importance,
    effective_sample_size,
    rows_of,
    systematic_resample,
)

weights_of = (
    st.lists(st.integers(0, 50), min_size=1, max_size=12)
    .filter(any)
    .map(lambda counts: torch.tensor(counts, dtype=torch.float64) / sum(counts))
)


class CalibratedJudge(FixedJudge):
    """Too sure of itself by a factor of 4, and off by a constant that weights cannot show."""

    def log_ratio(self, logits):
        return 0.25 * logits + 0.7


def density_ratios(players):
    """Of every sequence, scaled so that the generator's mean is 1."""
    judge = players.discriminator
    ratios = judge.log_ratio(judged(judge, every_sequence())).exp()
    return ratios / (sequence_probs(players.reference, every_sequence()).detach() @ ratios)


def test_advantages_by_hand():
    objective = Importance(tiny_players(CalibratedJudge()))
    game = tiny_round(objective.players, batch_size=3, seed=0)
    logits = 4 * torch.tensor([1.0, 2.0, 5.0]).log()  # ratios 1 : 2 : 5
    found = objective.advantages(replace(game, logits=logits))
    assert found.tolist() == pytest.approx([3 / 8 - 1, 6 / 8 - 1, 15 / 8 - 1])


def test_where_the_discriminator_sees_no_difference_there_is_no_advantage():
    objective = Importance(tiny_players(CalibratedJudge()))
    game = tiny_round(objective.players, batch_size=8, seed=0)
    found = objective.advantages(replace(game, logits=torch.full((8,), -3.0)))
    assert found.tolist() == pytest.approx([0.0] * 8, abs=1e-6)


def test_it_follows_the_likelihood_of_weighted_samples():
    """Batches of 1,024, where self-normalisation's bias of 1 in the sample size is far below."""
    players = tiny_players(CalibratedJudge())
    exact = exact_gradient(players.generator, density_ratios(players))
    found = gradients(Importance(players), batch_size=1024, num_batches=64)
    assert_unbiased(found, exact)


def test_with_the_best_discriminator_it_follows_the_likelihood_of_real_music():
    players = tiny_players(CalibratedJudge())
    real = copy.deepcopy(players.generator)
    with torch.no_grad():
        real.output.bias += torch.linspace(-0.7, 0.7, len(real.output.bias))
    shares = sequence_probs(real, every_sequence()).detach()
    log_likelihood = shares @ sequence_probs(players.generator, every_sequence()).log()
    exact = torch.cat(
        [
            g.flatten()
            for g in torch.autograd.grad(log_likelihood, [*players.generator.parameters()])
        ]
    )
    best = (shares / sequence_probs(players.generator, every_sequence()).detach()).log()
    listed = every_sequence()
    number = {
        tuple(row[:n]): i for i, (row, n) in enumerate(zip(listed.tokens.tolist(), listed.lengths))
    }

    class BestJudge(torch.nn.Module):
        def forward(self, tokens, lengths):
            rows = zip(tokens.tolist(), lengths.tolist())
            return best[torch.tensor([number[tuple(row[:n])] for row, n in rows])]

        def log_ratio(self, logits):
            return logits

    players = replace(players, discriminator=BestJudge())
    found = gradients(Importance(players), batch_size=1024, num_batches=64)
    assert_unbiased(found, exact)


def offline_players(**config):
    """The reference is another generator, and dropout, which offline learning has, is off."""
    players = tiny_players(CalibratedJudge(), offline=True, **config)
    for module in players.generator.modules():
        if isinstance(module, LockedDropout):
            module.rate = 0.0
    return replace(players, reference=tiny_generator(seed=3).requires_grad_(False))


@pytest.fixture
def short(monkeypatch):
    """Candidates as short as those that can be listed."""

    def draw(*args, **options):
        return base.draw(*args, **(options | {"max_length": MAX_LENGTH}))

    monkeypatch.setattr(importance, "draw", draw)


@pytest.mark.usefixtures("short")
def test_offline_it_follows_the_likelihood_of_the_reweighted_reference():
    players = offline_players(batch_size=256, candidates=4)
    objective = Importance(players)
    assert objective.from_reference
    listed = every_sequence()
    target = sequence_probs(players.reference, listed).detach() * density_ratios(players)
    nats = -(target @ sequence_probs(players.generator, listed).log())
    per_token = nats / (target @ torch.from_numpy(listed.lengths - 1).float())
    weights = [*players.generator.parameters()]
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(per_token, weights)])
    found = []
    for seed in range(64):
        objective.update(tiny_round(players, batch_size=2, seed=seed))
        found.append(torch.cat([weight.grad.flatten() for weight in weights]))
    assert_unbiased(torch.stack(found), exact)


@pytest.mark.usefixtures("short")
def test_offline_mixes_in_the_likelihood_of_excerpts_and_learns_with_dropout():
    players = offline_players(batch_size=8, minibatches=2, epochs=2, likelihood_weight=0.5)
    objective, modes = Importance(players), []
    game = tiny_round(players, batch_size=8, seed=0)
    players.generator.output.register_forward_pre_hook(
        lambda network, _: modes.append(players.generator.training)
    )
    log = objective.update(replace(game, real=game.real * 4))
    expected = log["resampled_nats"] + 0.5 * log["train_likelihood_nats"]
    assert log["generator_loss"] == pytest.approx(expected)
    assert modes == [True] * 8 and not players.generator.training
    assert 1 <= log["effective_sample_size"] <= 8 * 8
    assert 0 < log["distinct_rate"] <= 1


def test_online_the_effective_sample_size_is_in_the_log():
    players = tiny_players(CalibratedJudge())
    game = tiny_round(players, batch_size=32, seed=0)
    log = Importance(players).update(game)
    weights = (0.25 * game.logits).softmax(0)
    assert log["effective_sample_size"] == pytest.approx(1 / weights.square().sum().item())
    assert log["kl_to_reference"] == pytest.approx(0, abs=1e-6)


def test_it_goes_on_from_its_state():
    first = Importance(tiny_players(CalibratedJudge(), kl_weight=0.1))
    first.update(tiny_round(first.players, batch_size=32, seed=0))
    second = Importance(tiny_players(CalibratedJudge(), kl_weight=0.1))
    second.restore(first.state())
    assert second.state() == first.state() == {"kl_weight": 0.05}


@pytest.mark.parametrize(
    ("weights", "size"),
    [([0.25] * 4, 4.0), ([1.0, 0.0, 0.0], 1.0), ([0.5, 0.25, 0.25], 1 / 0.375)],
)
def test_effective_sample_size_by_hand(weights, size):
    assert effective_sample_size(torch.tensor(weights)).item() == pytest.approx(size)
    together = effective_sample_size(torch.tensor([weights, weights]))
    assert together.tolist() == pytest.approx([size, size])


@pytest.mark.parametrize(
    ("place", "rows"), [(0.2, [0, 0, 1, 2]), (0.7, [0, 0, 1, 2]), (0.99, [0, 0, 2, 2])]
)
def test_systematic_resampling_by_hand(place, rows):
    # Ends 0.5, 0.7, 1; needles a quarter apart from a quarter of `place`.
    found = systematic_resample(torch.tensor([0.5, 0.2, 0.3]), 4, place=place)
    assert found.tolist() == rows


def test_what_weighs_nothing_is_never_taken():
    found = systematic_resample(torch.tensor([0.0, 1.0, 0.0]), 3, place=0.0)
    assert found.tolist() == [1, 1, 1]


@given(weights_of, st.integers(1, 20), st.floats(0, 1, exclude_max=True))
def test_a_row_comes_out_as_often_as_its_weight_says(weights, num, place):
    found = systematic_resample(weights, num, place=place)
    counts = np.bincount(found.numpy(), minlength=len(weights))
    assert len(found) == num and len(counts) == len(weights)
    assert (abs(counts - num * weights.numpy()) < 1 + 1e-6).all()
    assert (counts[weights.numpy() == 0] == 0).all()


@given(weights_of, st.integers(1, 8))
def test_expected_counts_are_exact(weights, num):
    """A mean over evenly spread places is the integral up to their spacing."""
    places = (np.arange(200) + 0.5) / 200
    rows = np.concatenate([systematic_resample(weights, num, place=p).numpy() for p in places])
    counts = np.bincount(rows, minlength=len(weights)) / len(places)
    np.testing.assert_allclose(counts, num * weights.numpy(), atol=0.02)


def test_rows_keep_their_order_and_lose_what_is_only_padding():
    batch = every_sequence()
    rows = torch.tensor([7, 0, 7])
    found = rows_of(batch, rows)
    assert found.lengths.tolist() == batch.lengths[[7, 0, 7]].tolist()
    assert found.tokens.shape[1] == max(found.lengths)
    assert (found.tokens == batch.tokens[[7, 0, 7], : found.tokens.shape[1]]).all()
    assert GRAMMAR.states_before(found.tokens, found.lengths).shape == found.tokens.shape
