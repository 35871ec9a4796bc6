import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnngan.objectives.classification import accuracy, auc, logistic_loss

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
