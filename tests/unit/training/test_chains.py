import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rnngan.generator.sampling import Decoding
from rnngan.music.vocabulary import START
from rnngan.training.chains import Chains
from rnngan.training.checkpoint import Model

sys.path.append(str(Path(__file__).parents[1] / "objectives"))
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
NAMES = {
    tuple(row[:n].tolist()): i for i, (row, n) in enumerate(zip(LISTED.tokens, LISTED.lengths))
}
PROBS = sequence_probs(tiny_generator(), LISTED).detach().double().numpy()
PROBS /= PROBS.sum()
ENERGIES = 0.5 * judged(FixedJudge(), LISTED).double().numpy()
NUM = 800


class Tokens:
    """A tokenizer of which chains need the grammar alone."""

    grammar = GRAMMAR
    bar = None


MODEL = Model(generator=tiny_generator(), tokenizer=Tokens(), metrics={})


def numbers_of(rows):
    return np.array([[NAMES[tuple(row.tolist())]] for row in rows], dtype=float)


def energy(measured):
    return ENERGIES[measured[:, 0].astype(int)]


def chains(pieces=range(NUM), seed=0, **options):
    return Chains(MODEL, numbers_of, pieces=pieces, seed=seed, max_tokens=MAX_LENGTH, **options)


def p_value(found, expected):
    """Chi-square, sequences that are rarely expected taken together."""
    seen = np.bincount(found.measured[:, 0].astype(int), minlength=len(expected))
    hoped = expected * len(found.rows)
    rare = hoped < 5
    return stats.chisquare(
        np.append(seen[~rare], seen[rare].sum()), np.append(hoped[~rare], hoped[rare].sum())
    ).pvalue


def tilted(strength=1.0):
    weights = PROBS * np.exp(strength * ENERGIES)
    return weights / weights.sum()


def test_they_begin_as_the_generator_writes():
    """False alarm in 1 of 10,000, as in the tests below."""
    assert p_value(chains(), PROBS) > 1e-4
    assert p_value(chains(), tilted()) < 1e-4


@pytest.mark.parametrize("seed", [0, 1])
def test_they_come_to_the_tilted_distribution_and_stay_there(seed):
    found = chains(seed=seed)
    for step in range(90):
        found.move(energy)
        if step in (59, 89):
            assert p_value(found, tilted()) > 1e-4
            assert p_value(found, PROBS) < 1e-4


def test_without_an_energy_they_stay_where_they_are_in_distribution():
    """The place of the cut is one of more in a long piece than in a short one, which must count."""
    found = chains()
    moved = [found.move(lambda measured: np.zeros(len(measured))) for _ in range(30)]
    assert 0.5 < np.mean(moved) < 1  # a longer piece is not always taken
    assert p_value(found, PROBS) > 1e-4


def test_what_is_measured_is_what_is_written():
    found = chains(range(40))
    for _ in range(5):
        found.move(energy)
        assert np.array_equal(found.measured, numbers_of(found.rows))


def test_a_chain_depends_on_the_seed_and_its_number_alone():
    def walked(pieces, seed=3):
        found = chains(pieces, seed)
        for _ in range(8):
            found.move(energy)
        return [row.tolist() for row in found.rows]

    together = walked(range(6))
    assert walked([4]) == [together[4]]
    assert walked([5, 1]) == [together[5], together[1]]
    assert walked(range(6), seed=4) != together


def test_a_candidate_keeps_the_beginning():
    """From each chain's piece the next one shares at least its first token behind Start."""
    found = chains(range(200))
    shared, lengths = [], []
    for _ in range(6):
        before = [row.tolist() for row in found.rows]
        found.move(lambda measured: np.zeros(len(measured)))
        for old, new in zip(before, found.rows):
            if old != new.tolist():
                same = [a == b for a, b in zip(old, new.tolist())]
                shared.append(same.index(False) if False in same else len(same))
                lengths.append(len(old))
    assert min(shared) >= 1
    assert np.mean(np.array(shared) > 1) > 0.3  # many keep more than Start


def test_a_prefix_stays():
    prefix = tuple(LISTED.tokens[int(LISTED.lengths.argmax())][:2].tolist())
    found = chains(range(50), prefix=prefix)
    for _ in range(10):
        found.move(energy)
    assert all(tuple(row[:2].tolist()) == prefix for row in found.rows)


def test_decoding_holds_for_every_candidate():
    greedy = chains(range(5), decoding=Decoding(top_k=1))
    first = [row.tolist() for row in greedy.rows]
    for _ in range(3):
        greedy.move(energy)
    assert [row.tolist() for row in greedy.rows] == first
    assert all(row[0] == START for row in first)
