import math

import numpy as np
import pytest
import torch
from exact import (
    GRAMMAR,
    MAX_LENGTH,
    assert_unbiased,
    every_sequence,
    exact_gradient,
    gradients,
    judged,
    sequence_probs,
    tiny_generator,
    tiny_players,
)

from rnngan.music.vocabulary import END
from rnngan.objectives import leave_one_out
from rnngan.objectives.leave_one_out import LeaveOneOut
from rnngan.objectives.placebo import PlaceboShuffled


@pytest.fixture
def unscaled(monkeypatch):
    """Scaling by a batch's own deviation is no constant factor; it has tests of its own."""
    monkeypatch.setattr(leave_one_out, "unit_deviation", lambda advantages: advantages)


def test_every_sequence_is_listed_once():
    listed = every_sequence()
    rows = {tuple(row[:n]) for row, n in zip(listed.tokens.tolist(), listed.lengths)}
    assert len(rows) == len(listed.lengths)
    for row in rows:
        assert GRAMMAR.first_error(np.array(row)) is None
        assert row[-1] == END
        assert 3 <= len(row) <= MAX_LENGTH
    total = sequence_probs(tiny_generator(), listed).sum().item()
    assert total == pytest.approx(1, abs=1e-6)


def test_the_exact_gradient_is_the_slope_of_the_expected_reward():
    generator = tiny_generator()
    rewards = judged(tiny_players().discriminator, every_sequence())
    exact = exact_gradient(generator, rewards)

    def value(shift):
        with torch.no_grad():
            for weight, part in zip(
                generator.parameters(),
                exact.split([w.numel() for w in generator.parameters()]),
            ):
                weight += shift * part.view_as(weight)
            return (sequence_probs(generator, every_sequence()).double() @ rewards.double()).item()

    slope = (value(0.01) - value(-0.02)) / 0.02
    assert slope == pytest.approx(exact.square().sum().item(), rel=1e-2)


@pytest.mark.usefixtures("unscaled")
def test_leave_one_out_follows_the_gradient_of_the_expected_logit():
    players = tiny_players()
    exact = exact_gradient(players.generator, judged(players.discriminator, every_sequence()))
    assert_unbiased(gradients(LeaveOneOut(players), batch_size=64, num_batches=64), exact)


@pytest.mark.usefixtures("unscaled")
def test_shuffled_verdicts_have_no_gradient():
    players = tiny_players()
    exact = exact_gradient(players.generator, judged(players.discriminator, every_sequence()))
    found = gradients(PlaceboShuffled(players), batch_size=64, num_batches=64)
    slopes = found @ exact / exact.square().sum()
    # Beyond 5 standard errors a sound placebo comes once in 200,000 seeds.
    assert abs(slopes.mean()) < 5 * slopes.std() / math.sqrt(len(slopes))
    with pytest.raises(AssertionError):
        assert_unbiased(found, exact)
