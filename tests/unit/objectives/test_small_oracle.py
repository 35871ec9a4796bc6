"""What objectives do to the exact divergence from an oracle.

The tests over seeds compare Student's t of the changes of the divergence with its one-sided
quantile for 1 in 1000: that is how often an objective without effect would be said to help.
"""

import numpy as np
import pytest
from scipy.stats import t
from small_oracle import GRAMMAR, LENGTH, MarkovOracle, played, small_generator

from rnngan.objectives.base import draw
from rnngan.objectives.continued import Likelihood
from rnngan.objectives.leave_one_out import LeaveOneOut
from rnngan.objectives.placebo import PlaceboConstant, PlaceboRandom, PlaceboShuffled

FALSE_ALARMS = 1e-3
SEEDS = range(5)


@pytest.fixture(scope="module")
def oracle():
    return MarkovOracle()


@pytest.fixture(scope="module")
def half_trained(oracle):
    return played(oracle, Likelihood, seed=99, steps=25)


def reverse_changes(oracle, objective, start):
    """Change of KL(generator ‖ oracle) in 12 steps, nats per sequence, for each seed."""
    before = oracle.divergences(start)[1]
    return [
        oracle.divergences(played(oracle, objective, seed=seed, steps=12, generator=start))[1]
        - before
        for seed in SEEDS
    ]


def falls(changes):
    """Whether the changes are below zero beyond chance."""
    statistic = np.mean(changes) / (np.std(changes, ddof=1) / np.sqrt(len(changes)))
    return statistic < t.ppf(FALSE_ALARMS, len(changes) - 1)


def test_the_list_is_the_chain(oracle):
    probs = np.exp(oracle.log_probs)
    assert probs.sum() == pytest.approx(1)
    assert -(probs * oracle.log_probs).sum() == pytest.approx(oracle.entropy())


def test_the_mean_log_ratio_of_samples_is_the_divergence(oracle):
    generator = small_generator(0)
    fakes = draw(generator, GRAMMAR, num=4000, max_length=LENGTH + 2, seed=0)
    ratios = -oracle.log_ratio(generator, fakes).double().numpy()
    error = ratios.std() / np.sqrt(len(ratios))
    # Five standard errors: 1 in a million by chance.
    assert ratios.mean() == pytest.approx(oracle.divergences(generator)[1], abs=5 * error)


def test_likelihood_drives_the_divergence_to_nothing(oracle):
    before, _ = oracle.divergences(small_generator(1))
    after, _ = oracle.divergences(played(oracle, Likelihood, seed=1, steps=200))
    assert before > 1
    assert 0 <= after < 0.1


def test_leave_one_out_with_the_true_ratio_lowers_the_reverse_divergence(oracle, half_trained):
    changes = reverse_changes(oracle, LeaveOneOut, half_trained)
    assert falls(changes)
    assert np.mean(changes) < -0.2 * oracle.divergences(half_trained)[1]


@pytest.mark.parametrize("placebo", [PlaceboRandom, PlaceboShuffled])
def test_a_placebo_does_not(oracle, half_trained, placebo):
    assert not falls(reverse_changes(oracle, placebo, half_trained))


def test_a_constant_reward_does_nothing(oracle, half_trained):
    # But for rounding, which Adam makes as much of as of a gradient.
    assert reverse_changes(oracle, PlaceboConstant, half_trained) == pytest.approx(
        [0] * len(SEEDS), abs=0.02
    )
