import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from rnngan import guidance
from rnngan.config import DiscriminatorConfig
from rnngan.errors import UserError
from rnngan.generator import sampling
from rnngan.guidance import ParticleFilter, guided, normalised
from rnngan.music.vocabulary import END, PAD, START
from rnngan.objectives.importance import systematic_resample
from rnngan.training.checkpoint import Model

sys.path.append(str(Path(__file__).parent / "objectives"))
from exact import (
    GRAMMAR,
    MAX_LENGTH,
    FixedJudge,
    every_sequence,
    judged,
    sequence_probs,
    tiny_generator,
)

LISTED = every_sequence()
PROBS = sequence_probs(tiny_generator(), LISTED).detach().double().numpy()
PROBS /= PROBS.sum()
RATIOS = 0.5 * judged(FixedJudge(), LISTED).double().numpy()
TARGET = normalised(np.log(PROBS) + RATIOS)
NAMES = {
    tuple(row[:n].tolist()): i for i, (row, n) in enumerate(zip(LISTED.tokens, LISTED.lengths))
}


class Oracle(FixedJudge):
    """Knows the density ratio of every sequence, and of every beginning."""

    config = DiscriminatorConfig(causal_head=True, max_length=MAX_LENGTH)

    def log_ratio(self, logits):
        return 0.5 * logits

    def potentials(self, tokens, lengths):
        rows = [tuple(row.tolist()) for row in tokens]
        return torch.tensor(
            [[self.beginning(row[: t + 1]) for t in range(len(row))] for row in rows]
        )

    def beginning(self, tokens):
        """log p_target(beginning) / p(beginning)."""
        fits = [
            all(row[i] == token for i, token in enumerate(tokens) if i < n)
            for row, n in zip(LISTED.tokens.tolist(), LISTED.lengths.tolist())
        ]
        return float(np.log(TARGET[fits].sum() / PROBS[fits].sum()))


class Tokens:
    """A tokenizer of which guidance needs the grammar alone."""

    grammar = GRAMMAR
    bar = None


def model(**config):
    judge = Oracle()
    judge.config = dataclasses.replace(Oracle.config, **config)
    return Model(generator=tiny_generator(), tokenizer=Tokens(), discriminator=judge, metrics={})


def draw(guide, num, candidates=16, seed=0, **options):
    return guided(
        options.pop("model", model()), num=num, seed=seed, guide=guide, candidates=candidates,
        max_tokens=MAX_LENGTH, **options,
    )  # fmt: skip


def counts(found):
    numbers = [NAMES[tuple(row.tolist())] for row in found.tokens]
    return np.bincount(numbers, minlength=len(TARGET))


def p_value(found, expected):
    """Chi-square, sequences that are rarely expected taken together."""
    seen, hoped = counts(found), expected * len(found.tokens)
    rare = hoped < 5
    seen = np.append(seen[~rare], seen[rare].sum())
    hoped = np.append(hoped[~rare], hoped[rare].sum())
    return stats.chisquare(seen, hoped).pvalue


def test_the_target_is_not_what_the_generator_draws():
    assert np.abs(TARGET - PROBS).sum() > 0.3


@pytest.mark.parametrize(
    ("guide", "candidates", "num"), [("resample", 128, 500), ("reject", 16, 800)]
)
def test_what_is_chosen_has_the_density_of_real_music(guide, candidates, num):
    """False alarm in 1 of 10,000; that nothing was done is always noticed."""
    found = draw(guide, num, candidates)
    assert p_value(found, TARGET) > 1e-4
    assert p_value(found, PROBS) < 1e-4


class KnownRatios:
    """In place of a residual: two rounds, of which the last alone knows the density ratio."""

    committees = (0, 1)

    def eval(self):
        return self

    def __call__(self, measured, rounds):
        known = torch.from_numpy(RATIOS)[measured[:, 0].long()]
        return known if rounds == 2 else torch.zeros(len(measured))


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_chains_come_to_the_density_of_real_music(strength, monkeypatch):
    """False alarm in 1 of 10,000; that nothing was done, or that much more, is always noticed."""

    def numbers(*_):
        return lambda rows: np.array([[float(NAMES[tuple(row.tolist())])] for row in rows])

    monkeypatch.setattr(guidance, "measure_of", numbers)
    monkeypatch.setattr(guidance, "_ROWS", 256)
    judged_as_a_whole = dataclasses.replace(model(), residual=KnownRatios())
    found = draw("chains", 800, 120, model=judged_as_a_whole, strength=strength)
    target = {s: normalised(np.log(PROBS) + s * RATIOS) for s in (0.0, 0.5, 1.0)}
    assert p_value(found, target.pop(strength)) > 1e-4
    assert all(p_value(found, other) < 1e-4 for other in target.values())
    assert 0.05 < found.accepted_rate < 0.95
    assert found.num_drawn == 800 * 121
    assert found.in_words(120).startswith("accepted ")
    fewer = draw("chains", 5, 120, model=judged_as_a_whole, strength=strength)
    assert [row.tolist() for row in fewer.tokens] == [row.tolist() for row in found.tokens[:5]]


def aimed_at_by_particles(strength):
    """Where many particles go that are drawn anew after every token, by enumeration.

    Those that grow keep their number, whatever the ratio says of them; those that have just ended
    are weighed by what the ratio has become since.
    """
    rows = [tuple(row[:n].tolist()) for row, n in zip(LISTED.tokens, LISTED.lengths)]
    oracle = Oracle()

    def prob(beginning):
        return sum(p for row, p in zip(rows, PROBS) if row[: len(beginning)] == beginning)

    aimed = np.zeros(len(rows))
    growing, ended, mass = {(START,): 1.0}, set(rows), 1.0
    while growing:
        longer = {}
        for beginning, share in growing.items():
            for token in range(len(GRAMMAR.allowed[0])):
                one = (*beginning, token)
                if prob(one):
                    gain = oracle.beginning(one) - oracle.beginning(beginning)
                    longer[one] = share * prob(one) / prob(beginning), np.exp(strength * gain)
        for one in ended & set(longer):
            share, weight = longer.pop(one)
            aimed[rows.index(one)] = mass * share * weight
        mass *= sum(share for share, _ in longer.values())
        total = sum(share * weight for share, weight in longer.values())
        growing = {one: share * weight / total for one, (share, weight) in longer.items()}
    return aimed / aimed.sum()


@pytest.mark.parametrize("strength", [1.0, 2.0])
def test_particles_that_know_all_beginnings_go_where_they_should(strength, monkeypatch):
    """False alarm in 1 of 10,000; after every token those that grow are drawn anew."""
    monkeypatch.setattr(sampling, "BLOCK", 1)
    monkeypatch.setattr(guidance, "_RESAMPLE_BELOW", 2.0)
    found = draw("particles", 1000, 64, strength=strength)
    assert p_value(found, aimed_at_by_particles(strength)) > 1e-4
    assert p_value(found, PROBS) < 1e-4


def test_a_strength_is_an_exponent():
    """False alarm in 1 of 10,000."""
    found = draw("resample", 500, 128, strength=2.0)
    assert p_value(found, normalised(np.log(PROBS) + 2 * RATIOS)) > 1e-4
    assert p_value(found, TARGET) < 1e-4


@pytest.mark.parametrize("guide", ["resample", "reject", "particles"])
def test_a_piece_depends_on_seed_and_number_alone(guide):
    more, fewer = draw(guide, 40, 8), draw(guide, 7, 8)
    for one, two in zip(more.tokens, fewer.tokens):
        assert one.tolist() == two.tolist()
    assert more.effective[:7] == pytest.approx(fewer.effective)
    other = draw(guide, 40, 8, seed=1)
    assert [t.tolist() for t in other.tokens] != [t.tolist() for t in more.tokens]


def test_the_number_of_effective_candidates_is_that_of_the_weights():
    found = draw("resample", 30, 64)
    assert all(1 <= number <= 64 for number in found.effective)
    assert found.num_drawn == 30 * 64
    weights = np.exp(RATIOS)
    expected = 64 * (PROBS @ weights) ** 2 / (PROBS @ weights**2)
    assert np.mean(found.effective) == pytest.approx(expected, rel=0.15)
    assert expected < 55


def test_rejection_tells_how_much_it_accepted():
    found = draw("reject", 100, 16)
    assert 0 < found.accepted_rate < 1
    assert found.num_drawn > 100


def test_normalised_weights_of_steep_logarithms():
    assert normalised(np.array([1000.0, 1000 + np.log(3)])).tolist() == pytest.approx([0.25, 0.75])
    assert normalised(np.array([-2000.0, 0.0])).tolist() == [0, 1]


def systematic(weights, number):
    return systematic_resample(torch.from_numpy(weights), len(weights), place=number)


def test_systematic_resampling_by_hand():
    weights = np.array([0.5, 0.25, 0.25, 0.0])
    assert systematic(weights, 0.0).tolist() == [0, 0, 1, 2]
    assert systematic(weights, 0.9).tolist() == [0, 0, 1, 2]
    assert systematic(np.array([0.6, 0.4]), 0.1).tolist() == [0, 0]
    assert systematic(np.array([0.6, 0.4]), 0.3).tolist() == [0, 1]


def test_a_particle_filter_leaves_groups_of_much_choice_alone():
    class Flat:
        config = DiscriminatorConfig(causal_head=True, max_length=9)

        def potentials(self, tokens, lengths):
            values = torch.zeros(tokens.shape)
            values[4, -1] = 50.0  # one candidate of the second group
            return values

    particles = ParticleFilter(Flat(), np.full((2, 3), 0.5), 4, strength=0.5)
    tokens = torch.full((8, 3), START)
    ancestors = particles(tokens, torch.full((8,), 3))
    assert ancestors.tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert particles.counted.tolist() == [[0] * 4, [25] * 4]


def test_candidates_that_have_ended_neither_give_way_nor_are_copied():
    class Falling:
        config = DiscriminatorConfig(causal_head=True, max_length=9)

        def potentials(self, tokens, lengths):
            return torch.tensor([9.0, -9.0, 5.0, -5.0, -5.0])[:, None].expand(tokens.shape)

    tokens = torch.full((5, 3), START)
    tokens[:2, 1:] = torch.tensor([END, PAD])
    particles = ParticleFilter(Falling(), np.full((1, 3), 0.5), 5, strength=1.0)
    assert particles(tokens, torch.tensor([2, 2, 3, 3, 3])).tolist() == [0, 1, 2, 2, 2]
    assert particles.counted.tolist() == [[0, 0, 5, 5, 5]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 1}, "guide-candidates must be 2 to 256, got 1"),
        ({"strength": 0.0}, "guide-strength must be above 0, got 0.0"),
        ({"candidates": 257}, "guide-candidates must be 2 to 256, got 257"),
        (
            {"model": dataclasses.replace(model(), discriminator=None)},
            "needs a model with a discriminator",
        ),
        ({"model": model(causal_head=False)}, "needs a discriminator with a causal head"),
        ({"guide": "chains"}, "'chains' needs a model with a residual"),
    ],
)
def test_what_cannot_be_done_is_said(options, message):
    with pytest.raises(UserError, match=message):
        draw(**({"guide": "particles", "num": 2, "candidates": 4} | options))
