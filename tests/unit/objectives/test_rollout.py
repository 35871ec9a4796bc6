import copy
from dataclasses import replace

import pytest
import torch
from exact import (
    FixedJudge,
    assert_unbiased,
    every_sequence,
    exact_gradient,
    gradients,
    judged,
    sequence_probs,
    tiny_players,
    tiny_round,
)
from torch import nn

from rnngan.generator.sampling import uniforms
from rnngan.objectives import rollout
from rnngan.objectives.rollout import Rollout


def test_the_expected_gradient_is_that_of_the_expected_probability(monkeypatch):
    # Scaling by a batch's own deviation is no constant factor.
    monkeypatch.setattr(rollout, "unit_deviation", lambda advantages: advantages)
    players = tiny_players(rollouts=2)
    rewards = judged(players.discriminator, every_sequence()).sigmoid()
    exact = exact_gradient(players.generator, rewards)
    assert_unbiased(gradients(Rollout(players), batch_size=64, num_batches=64), exact)


def test_values_are_expected_probabilities_of_what_begins_alike():
    players = tiny_players(rollouts=400)
    game = tiny_round(players, batch_size=8, seed=0)
    values = Rollout(players).values(game)
    listed = every_sequence()
    probs = sequence_probs(players.generator, listed).detach()
    rewards = judged(players.discriminator, listed).sigmoid()
    tokens = torch.from_numpy(listed.tokens)
    for row, sample, length in zip(values, torch.from_numpy(game.fakes.tokens), game.fakes.lengths):
        for time in range(1, length):
            alike = (tokens[:, : time + 1] == sample[: time + 1]).all(1)
            weights = probs[alike] / probs[alike].sum()
            mean = weights @ rewards[alike]
            deviation = (weights @ (rewards[alike] - mean).square()).sqrt()
            # 4.5 deviations and rounding in bfloat16: a false alarm in 1 of 4,000 seeds.
            assert abs(row[time] - mean) <= 4.5 * deviation / 20 + 5e-3


def test_the_last_token_is_worth_the_verdict_itself():
    players = tiny_players(rollouts=2)
    game = tiny_round(players, batch_size=16, seed=0)
    values = Rollout(players).values(game)
    for row, length, logit in zip(values, game.fakes.lengths, game.logits):
        assert row[length - 1].item() == pytest.approx(logit.sigmoid().item(), abs=1e-6)
        assert (row[length:] == row[length - 1]).all()


def test_advantages_by_hand(monkeypatch):
    """Value less the mean of the others at that time, ended ones with their last value."""
    players = tiny_players()
    game = tiny_round(players, batch_size=3, seed=0)
    lengths = game.fakes.lengths
    time = lengths.max()
    values = torch.rand(3, time, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(Rollout, "values", lambda *_: values)
    found = Rollout(players).advantages(game)
    expected = torch.stack(
        [values[i] - values[[j for j in range(3) if j != i]].mean(0) for i in range(3)]
    )
    drawn = torch.zeros(3, time, dtype=torch.bool)
    for row, length in zip(drawn, lengths):
        row[1:length] = True
    deviation = expected[drawn].std(unbiased=False)
    torch.testing.assert_close(found[drawn], expected[drawn] / deviation)


def test_the_order_of_judging_does_not_matter(monkeypatch):
    players = tiny_players(rollouts=5)
    game = tiny_round(players, batch_size=6, seed=0)
    values = Rollout(players).values(game)
    monkeypatch.setattr(rollout, "_WAITING", 7)
    monkeypatch.setattr(rollout, "_JUDGED", 3)
    torch.testing.assert_close(Rollout(players).values(game), values)


def test_the_same_seed_gives_the_same_values_and_another_others():
    players = tiny_players(rollouts=2)
    game = tiny_round(players, batch_size=8, seed=0)
    values = Rollout(players).values(game)
    assert torch.equal(Rollout(players).values(game), values)
    assert not torch.equal(Rollout(players).values(replace(game, seed=1)), values)


class Blind(FixedJudge):
    """Says the same of every piece."""

    def forward(self, tokens, lengths):
        return torch.zeros(len(lengths))


def test_a_blind_judge_moves_nothing():
    players = tiny_players(Blind(), rollouts=2)
    objective = Rollout(players)
    found = gradients(objective, batch_size=16, num_batches=2)
    assert found.abs().max() < 1e-9  # rounding in the divergence from itself


def test_the_update_makes_good_sequences_likelier():
    players = tiny_players(rollouts=4)
    players.optimizer = torch.optim.SGD(players.generator.parameters(), lr=0.3)
    rewards = judged(players.discriminator, every_sequence()).sigmoid()
    before = copy.deepcopy(players.generator)

    def expected(generator: nn.Module):
        return (sequence_probs(generator, every_sequence()) @ rewards).item()

    objective = Rollout(players)
    for seed in range(8):
        objective.update(tiny_round(players, batch_size=64, seed=seed))
    assert expected(players.generator) > expected(before) + 0.02


def test_completions_do_not_read_the_numbers_that_drew_the_samples(monkeypatch):
    """Were the seed the same, a completion would else repeat its sample."""
    seen = []

    def recorded(seed, indices, length):
        seen.extend(indices)
        return uniforms(seed, indices, length)

    monkeypatch.setattr(rollout, "uniforms", recorded)
    players = tiny_players(rollouts=3)
    Rollout(players).values(tiny_round(players, batch_size=4, seed=0))
    assert len(set(seen)) == len(seen) == 12
    assert not set(seen) & set(range(4))
