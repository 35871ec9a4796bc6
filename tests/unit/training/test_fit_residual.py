import dataclasses

import numpy as np
import pytest
import torch

from eval.features import FEATURES, features_of
from rnngan.discriminator.residual import Committee
from rnngan.errors import UserError
from rnngan.generator.registry import generator_for
from rnngan.training.adversarial import discriminator_of
from rnngan.training.checkpoint import Model
from rnngan.training.residual import (
    energy_of,
    fit_committee,
    measure_of,
    new_residual,
    rounds_in_steps,
)


def normal(count, *, shift=0.0, seed=0, columns=4):
    rows = torch.randn(count, columns, generator=torch.Generator().manual_seed(seed))
    rows[:, 0] += shift
    return rows


def fitted(real, fake, seed=0):
    torch.manual_seed(seed)
    return fit_committee(Committee(real.shape[1], 16, 5), real, fake)


def test_a_committee_learns_the_logarithm_of_the_density_ratio():
    """Between normal distributions of unit variance that lie 1.5 apart it is 1.5 (x - 0.75)."""
    committee, found = fitted(normal(1500, shift=1.5), normal(1500, seed=1))
    assert found == pytest.approx(0.856, abs=0.03)  # Φ(1.5 / √2)
    probes = normal(400, seed=2, shift=0.75)
    truth = 1.5 * (probes[:, 0] - 0.75)
    with torch.no_grad():
        found_ratio = committee(probes)
    assert np.corrcoef(truth, found_ratio)[0, 1] > 0.95
    assert np.polyfit(truth, found_ratio, 1)[0] == pytest.approx(1, abs=0.25)


def test_a_committee_that_finds_nothing_counts_for_little():
    """The mean over 20 trials is 0.055, and would have to double; learnt by heart it is above 1."""
    energies = []
    for seed in range(20):
        real, fake = normal(150, seed=2 * seed), normal(150, seed=2 * seed + 1)
        committee, found = fitted(real, fake, seed)
        with torch.no_grad():
            energies.append(float(committee(normal(200, seed=99)).abs().mean()))
        assert 0.3 < found < 0.7
    assert np.mean(energies) < 0.11


def test_unequal_sides_weigh_the_same():
    """The AUC is that of the same distributions, and the energy that of even odds."""
    committee, _ = fitted(normal(1600, shift=1.0), normal(200, seed=1))
    with torch.no_grad():
        middle = committee(torch.tensor([[0.5, 0.0, 0.0, 0.0]]))
    assert float(middle.abs()) < 0.5  # log 8 = 2.1 if counts mattered


def test_members_do_not_judge_what_they_learnt_from():
    """With more columns than pieces anything can be learnt by heart."""
    real, fake = normal(40, columns=200), normal(40, columns=200, seed=1)
    _, found = fitted(real, fake)
    assert 0.25 < found < 0.75


def test_the_way_of_a_chain():
    assert rounds_in_steps(5, 60) == [1] * 20 + [2] * 10 + [3] * 10 + [4] * 10 + [5] * 10
    assert rounds_in_steps(1, 3) == [1, 1, 1]
    assert rounds_in_steps(3, 4) == [1, 1, 2, 3]
    for rounds in range(1, 7):
        for steps in range(rounds + 1, 80):
            way = rounds_in_steps(rounds, steps)
            assert sorted(way) == way
            assert len(way) == steps
            assert set(way) == set(range(1, rounds + 1))


def test_a_strength_multiplies():
    residual = new_residual()
    residual.committees.append(residual.new_committee())
    rows = np.random.default_rng(0).normal(size=(5, sum(residual.widths)))
    one = energy_of(residual, rounds=1)(rows)
    assert np.ptp(one) > 0
    np.testing.assert_allclose(energy_of(residual, rounds=1, strength=2.5)(rows), 2.5 * one)


class TestMeasures:
    @pytest.fixture
    def model(self, store, new_run):
        run = new_run()
        return Model(
            generator=generator_for(run.config.generator, store.tokenizer),
            tokenizer=store.tokenizer,
            discriminator=discriminator_of(run, store),
            metrics={},
        )

    def test_they_are_the_features_and_the_discriminators_logit(self, store, model):
        rows = [store.piece_tokens(i) for i in range(5)]
        residual = new_residual()
        found = measure_of(model, residual)(rows)
        assert found.shape == (5, sum(residual.widths))
        first = features_of(store.tokenizer.decode(rows[0]))
        place = 0
        for name, width in zip(FEATURES, residual.widths):
            np.testing.assert_array_equal(
                found[0, place : place + width], np.atleast_1d(first[name]), err_msg=name
            )
            place += width
        assert place == found.shape[1] - 1
        assert np.ptp(found[:, -1]) > 0
        alone = measure_of(model, residual)(rows[:1])
        np.testing.assert_allclose(found[:1], alone, rtol=1e-2, equal_nan=True)

    def test_of_other_versions_there_are_none(self, model):
        residual = new_residual()
        residual.measures = ("pitch_range@0", *residual.measures[1:])
        with pytest.raises(UserError, match="other versions of the features"):
            measure_of(model, residual)

    def test_a_model_without_a_discriminator_has_none(self, model):
        bare = dataclasses.replace(model, discriminator=None)
        with pytest.raises(UserError, match="needs a model with a discriminator"):
            measure_of(bare, new_residual())
