import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnngan.config import DiscriminatorConfig
from rnngan.data.batches import Batch
from rnngan.discriminator.registry import DISCRIMINATORS, new_discriminator
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.objectives.classification import (
    accuracy,
    auc,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    logistic_loss,
)

KINDS = ["logistic", "hinge", "relativistic", "wasserstein"]
TUNES = Events(EventsConfig(metres=("4/4",), lowest=60, highest=70))

some_logits = st.lists(st.integers(-3, 3), min_size=1, max_size=8).map(
    lambda values: torch.tensor(values, dtype=torch.float32)
)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_at_a_tie_the_loss_is_log_2(smoothing):
    loss = logistic_loss(torch.zeros(3), torch.zeros(5), label_smoothing=smoothing)
    assert loss.item() == pytest.approx(math.log(2))


def test_logistic_loss_by_hand():
    real, fake = torch.tensor([1.0, -2.0]), torch.tensor([0.5])
    expected_real = (math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2
    expected_fake = math.log1p(math.exp(0.5))
    loss = logistic_loss(real, fake, label_smoothing=0.0)
    assert loss.item() == pytest.approx((expected_real + expected_fake) / 2)


def test_only_real_labels_are_smoothed():
    # Target 0.9: 0.9 softplus(−2) + 0.1 softplus(2).
    real = 0.9 * math.log1p(math.exp(-2)) + 0.1 * math.log1p(math.exp(2))
    fake = math.log1p(math.exp(-2))
    loss = logistic_loss(torch.tensor([2.0]), torch.tensor([-2.0]), label_smoothing=0.1)
    assert loss.item() == pytest.approx((real + fake) / 2)


def test_a_smoothed_loss_is_least_at_the_smoothed_odds():
    real = torch.tensor([math.log(9)], requires_grad=True)
    logistic_loss(real, torch.zeros(1), label_smoothing=0.1).backward()
    assert real.grad.item() == pytest.approx(0, abs=1e-7)


def test_each_side_weighs_half_however_many_there_are():
    few = logistic_loss(torch.tensor([1.0]), torch.tensor([2.0]), label_smoothing=0.0)
    many = logistic_loss(torch.ones(9), torch.tensor([2.0]), label_smoothing=0.0)
    torch.testing.assert_close(few, many)
    assert accuracy(torch.ones(9), torch.ones(1)) == 0.5


def test_accuracy_by_hand():
    real, fake = torch.tensor([1.0, 2.0, -1.0, 0.1]), torch.tensor([-1.0, 0.1])
    assert accuracy(real, fake) == pytest.approx((3 / 4 + 1 / 2) / 2)


@given(some_logits, some_logits)
def test_auc_is_the_chance_that_real_scores_higher(real, fake):
    wins = [1.0 if r > f else 0.5 if r == f else 0.0 for r in real for f in fake]
    assert auc(real, fake) == pytest.approx(sum(wins) / len(wins))
    assert auc(real, fake) + auc(fake, real) == pytest.approx(1)


def test_auc_of_the_extremes():
    low, high = torch.tensor([-2.0, -1.0]), torch.tensor([0.0, 5.0])
    assert (auc(high, low), auc(low, high), auc(low, low)) == (1.0, 0.0, 0.5)


def softplus(x):
    return math.log1p(math.exp(x))


REAL, FAKE = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("logistic", (softplus(-2) + softplus(-0.5) + softplus(-3) + softplus(0)) / 4),
        ("hinge", ((0 + 0.5) / 2 + (0 + 1) / 2) / 2),
        ("relativistic", (softplus(-5) + softplus(-2) + softplus(-3.5) + softplus(-0.5)) / 4),
        ("wasserstein", -1.5 - 1.25),
    ],
)
def test_discriminator_losses_by_hand(kind, expected):
    assert discriminator_loss(kind, REAL, FAKE).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("logistic", (softplus(3) + softplus(0)) / 2),
        ("hinge", 1.5),
        ("relativistic", (softplus(5) + softplus(2) + softplus(3.5) + softplus(0.5)) / 4),
        ("wasserstein", 1.5),
    ],
)
def test_generator_losses_by_hand(kind, expected):
    assert generator_loss(kind, REAL, FAKE).item() == pytest.approx(expected)


def test_smoothing_is_the_logistic_losss_alone():
    smoothed = discriminator_loss("logistic", REAL, FAKE, label_smoothing=0.1)
    torch.testing.assert_close(smoothed, logistic_loss(REAL, FAKE, label_smoothing=0.1))
    for kind in KINDS[1:]:
        plain = discriminator_loss(kind, REAL, FAKE)
        assert discriminator_loss(kind, REAL, FAKE, label_smoothing=0.1) == plain


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind):
    # Away from the hinge's corners.
    real = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([0.7, -2.1], dtype=torch.float64, requires_grad=True)
    for loss in (discriminator_loss, generator_loss):
        assert torch.autograd.gradcheck(partial(loss, kind), (real, fake))


@pytest.mark.parametrize("kind", KINDS)
def test_the_players_pull_at_the_fakes_in_opposite_directions(kind):
    fake = torch.tensor([0.7, -0.5], requires_grad=True)
    (down,) = torch.autograd.grad(discriminator_loss(kind, REAL, fake), fake)
    (up,) = torch.autograd.grad(generator_loss(kind, REAL, fake), fake)
    assert (down > 0).all() and (up < 0).all()


@pytest.mark.parametrize(("kind", "shifts"), [("logistic", False), ("relativistic", True)])
def test_least_loss_is_at_the_density_ratio(kind, shifts):
    """Three outcomes with known chances; relativistic logits are free to move together."""
    p, q = torch.tensor([3, 1, 4]), torch.tensor([1, 5, 2])
    logits = (p / q).log().double() + 2.5 * shifts
    logits.requires_grad_()
    loss = discriminator_loss(kind, logits.repeat_interleave(p), logits.repeat_interleave(q))
    # The logistic loss weighs both sides alike, and there are eight of each.
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-7, rtol=0)


def linear(weight, square=0.0):
    """Stands for a discriminator with the logit weight · x + square / 2 · |x|²."""

    def embedded(tokens, lengths):
        inside = torch.arange(tokens.shape[1]) < lengths[:, None]
        return (tokens * inside)[..., None].double()

    def judged(embedded, lengths):
        return (weight * embedded + square / 2 * embedded**2).sum((1, 2))

    return SimpleNamespace(embedded=embedded, judged=judged)


def rows(*tokens):
    lengths = np.array([len(row) for row in tokens])
    table = np.zeros((len(tokens), lengths.max()), dtype=np.int64)
    for line, row in zip(table, tokens):
        line[: len(row)] = row
    return Batch(tokens=table, lengths=lengths)


def test_r1_by_hand():
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty("r1", linear(weight), rows([1, 2, 3]), rows([4]))
    assert penalty.item() == pytest.approx(3 * 0.25 / 2)
    penalty.backward()
    assert weight.grad.item() == pytest.approx(3 * 0.5)
    # x itself is the gradient of |x|² / 2; the samples are not looked at.
    penalty = gradient_penalty("r1", linear(0.0, 1.0), rows([1, 2], [2]), rows([9]))
    assert penalty.item() == pytest.approx((5 / 2 + 4 / 2) / 2)


def test_interpolated_penalty_by_hand():
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    penalty = gradient_penalty("interpolated", linear(weight), rows([1, 2, 3, 4]), rows([4]))
    assert penalty.item() == pytest.approx((math.sqrt(4 * 0.25) - 1) ** 2, abs=1e-12)
    penalty = gradient_penalty("interpolated", linear(3 * weight), rows([1]), rows([4, 4, 4, 4]))
    assert penalty.item() == pytest.approx((3 - 1) ** 2)


def test_the_interpolated_place_lies_between_and_is_another_for_every_row():
    torch.manual_seed(0)
    places = []
    net = linear(1.0)
    judged = net.judged
    net.judged = lambda x, lengths: places.append((x, lengths)) or judged(x, lengths)
    gradient_penalty("interpolated", net, rows([2, 2], [2]), rows([6], [6, 6, 6]))
    ((place, lengths),) = places
    assert lengths.tolist() == [2, 3]
    one, two = ((place[:, 0, 0] - 2) / 4).tolist()
    assert 0 < one < 1 and 0 < two < 1 and one != two
    assert place[0, :, 0].tolist() == pytest.approx([2 + 4 * one, 2 * (1 - one), 0])
    assert place[1, :, 0].tolist() == pytest.approx([2 + 4 * two, 6 * two, 6 * two])


def test_interpolation_needs_pairs():
    with pytest.raises(ValueError, match="cannot pair 2 real pieces with 1"):
        gradient_penalty("interpolated", linear(1.0), rows([1], [2]), rows([1]))


@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("penalty", ["r1", "interpolated"])
@pytest.mark.parametrize("kind", list(DISCRIMINATORS))
def test_penalties_of_networks_have_true_gradients(kind, penalty, spectral_norm, monkeypatch):
    # Differences of penalties rounded to float32 would be noise.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.manual_seed(0)
    config = DiscriminatorConfig(
        kind=kind, views="both", embedding_size=4, hidden_size=5, stride=2, dropout=0.0,
        spectral_norm=spectral_norm,
    )  # fmt: skip
    net = new_discriminator(config, TUNES).double().eval()
    real, fakes = rows([1, 5, 9, 40, 80, 6], [1, 7]), rows([1, 8, 9, 12], [1, 30, 20])

    def value():
        torch.manual_seed(1)
        return gradient_penalty(penalty, net, real, fakes)

    weights = [w for name, w in net.named_parameters() if "embedding" not in name]
    gradients = torch.autograd.grad(value(), weights, allow_unused=True)
    directions = [torch.randn_like(w) for w in weights]
    pairs = zip(gradients, directions)
    slope = sum((g * d).sum() for g, d in pairs if g is not None)
    values = []
    with torch.no_grad():
        for size in (1e-6, -2e-6):
            for weight, direction in zip(weights, directions):
                weight += size * direction
            with torch.enable_grad():
                values.append(value().item())
    assert slope.item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)
    assert slope.abs() > 1e-6
