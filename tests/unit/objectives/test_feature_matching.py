import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rnngan.config import GeneratorConfig, RefineConfig
from rnngan.data.batches import Batch
from rnngan.generator.tuples import TuplesGenerator, draw
from rnngan.layers import length_mask
from rnngan.objectives.base import Round
from rnngan.objectives.feature_matching import (
    FeatureMatching,
    TuplesPlayers,
    feature_distance,
    waiting,
)

CONFIG = RefineConfig(
    objective="feature-matching", batch_size=4, max_length=16, epochs=1, gradient_clip=1e9
)


# Freezing


@pytest.mark.parametrize(
    ("discriminator_loss", "generator_loss", "expected"),
    [
        (0.5, 0.5, (False, False)),
        (0.69, 1.0, (True, False)),  # the discriminator is too strong
        (0.71, 1.0, (False, False)),
        (1.0, 0.69, (False, True)),  # the generator is
        (1.0, 0.71, (False, False)),
        (0.0, 0.0, (False, False)),
        (math.log(2), math.log(2), (False, False)),  # nobody knows anything
    ],
)
def test_who_is_below_70_percent_of_the_other_waits(discriminator_loss, generator_loss, expected):
    assert waiting(discriminator_loss, generator_loss, 0.7) == expected
    assert waiting(discriminator_loss, generator_loss, 0.0) == (False, False)


# The loss


def test_the_distance_of_means_by_hand():
    real = torch.tensor([[1.0, 2.0], [3.0, 6.0]])  # mean (2, 4)
    fakes = torch.tensor([[0.0, 1.0], [0.0, 2.0], [3.0, 0.0]])  # mean (1, 1)
    assert feature_distance(real, fakes).item() == pytest.approx(1 + 9)
    assert feature_distance(real, real.flip(0)).item() == 0


class Judge(nn.Module):
    """Means over the notes of tanh of some sums of columns, and a logit from them; float64."""

    def __init__(self, bias):
        super().__init__()
        self.first, self.last = nn.Linear(4, 3).double(), nn.Linear(3, 1).double()
        self.last.weight.data.zero_()
        self.last.bias.data.fill_(bias)

    def features(self, notes, lengths):
        inside = length_mask(lengths, notes.shape[1])[..., None]
        return (self.first(notes.double()).tanh() * inside).sum(1) / lengths[:, None]

    def forward(self, notes, lengths):
        return self.last(self.features(notes, lengths)).squeeze(1)


def new_players(bias=0.0, config=CONFIG, learning_rate=1.0):
    torch.manual_seed(0)
    generator = TuplesGenerator(GeneratorConfig(kind="tuples", hidden_size=3)).double().eval()
    generator.set_lengths(np.array([3, 5]))
    return TuplesPlayers(
        generator=generator,
        discriminator=Judge(bias),
        optimizer=torch.optim.SGD(generator.parameters(), learning_rate),
        config=config,
        precision="float32",
    )


def game_of(players, logits=0.0, num=4):
    random = np.random.default_rng(0)
    real = Batch(
        tokens=random.normal(size=(num, 6, 4)).astype(np.float32), lengths=np.arange(3, 3 + num)
    )
    real.tokens[length_mask(torch.from_numpy(real.lengths), 6).logical_not().numpy()] = 0
    fakes = draw(players.generator, 1, range(num), max_length=16)
    return Round(
        step=0, seed=5, fakes=fakes, logits=torch.full((num,), logits), real=(), openings=real
    )


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_an_update_goes_down_the_exact_gradient():
    """Against central differences of the loss, written out again, in float64."""
    players = new_players()
    game = game_of(players)
    generator, judge = players.generator, players.discriminator
    with torch.no_grad():
        openings = torch.from_numpy(game.openings.tokens)
        real = judge.features(openings, torch.tensor([3, 4, 5, 6]))

    @torch.no_grad()
    def loss():
        batch = draw(generator, game.seed, range(4), max_length=16)
        fakes = judge.features(torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths))
        return sum((float(real[:, k].mean()) - float(fakes[:, k].mean())) ** 2 for k in range(3))

    before = weights(generator)
    expected, step = {}, 1e-5
    for name, parameter in generator.named_parameters():
        gradient = torch.zeros_like(parameter)
        for place in range(parameter.numel()):
            flat = parameter.data.view(-1)
            values = []
            for sign in (1, -1):
                flat[place] += sign * step
                values.append(loss())
                flat[place] -= sign * step
            gradient.view(-1)[place] = (values[0] - values[1]) / (2 * step)
        expected[name] = gradient
    log = FeatureMatching(players).update(game)
    assert log["generator_waits"] == 0
    for name, gradient in expected.items():
        moved = before[name] - generator.state_dict()[name]
        torch.testing.assert_close(moved, gradient, rtol=1e-4, atol=1e-7)
    norm = math.sqrt(sum(float(g.square().sum()) for g in expected.values()))
    assert log["generator_gradient_norm"] == pytest.approx(norm, rel=1e-4) and norm > 1e-3


def test_the_discriminator_gets_no_gradient():
    players = new_players()
    FeatureMatching(players).update(game_of(players))
    assert all(p.grad is None and p.requires_grad for p in players.discriminator.parameters())


@pytest.mark.parametrize(
    ("real", "fake", "below", "expected"),
    [
        # At logits 2 and −2 each costs the discriminator 0.1269, and a fake the generator 2.1269.
        (2.0, -2.0, 0.7, (1, 0)),
        (2.0, -2.0, 0.05, (0, 0)),
        (-2.0, 2.0, 0.7, (0, 1)),
        (0.0, 0.0, 0.7, (0, 0)),
    ],
)
def test_who_waits_is_not_moved(real, fake, below, expected):
    players = new_players(bias=real, config=replace(CONFIG, freeze_below=below))
    objective = FeatureMatching(players)
    before = weights(players.generator)
    log = objective.update(game_of(players, logits=fake))
    assert (objective.discriminator_waits, log["generator_waits"]) == expected
    after = weights(players.generator)
    moved = any(not torch.equal(before[name], after[name]) for name in before)
    assert moved == (not expected[1])
    softplus = math.log1p(math.exp(-fake))
    assert log["generator_cross_entropy"] == pytest.approx(softplus)
    assert log["discriminator_cross_entropy"] == pytest.approx(
        (math.log1p(math.exp(-real)) + math.log1p(math.exp(fake))) / 2
    )


def test_every_epoch_has_samples_of_its_own(monkeypatch):
    import rnngan.objectives.feature_matching as module

    drawn, noise_of = [], module.noise_of

    def drawing(generator, seed, indices, **how):
        drawn.append((seed, tuple(indices)))
        return noise_of(generator, seed, indices, **how)

    monkeypatch.setattr(module, "noise_of", drawing)
    players = new_players(config=replace(CONFIG, epochs=2))
    FeatureMatching(players).update(game_of(players))
    assert drawn == [(5, (0, 1, 2, 3)), (5, (4, 5, 6, 7))]


def test_the_samples_come_to_look_like_the_music():
    """A judge that stands still: the distance falls to a small part of what it was."""
    players = new_players(learning_rate=0.3)
    objective, game = FeatureMatching(players), game_of(players)
    losses = [objective.update(replace(game, seed=seed))["generator_loss"] for seed in range(60)]
    assert np.mean(losses[-5:]) < 0.2 * np.mean(losses[:5])
