import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.ngrams import NGramModel


class Naive:
    """The definition, word by word: counts in dictionaries, one probability at a time."""

    def __init__(self, sequences, order, vocab_size):
        self.order, self.vocab_size = order, vocab_size
        self.counts = defaultdict(Counter)
        for sequence in sequences:
            for i in range(1, len(sequence)):
                for length in range(order):
                    self.counts[self.context(sequence, i, length)][sequence[i]] += 1

    @staticmethod
    def context(sequence, i, length):
        return tuple(sequence[j] if j >= 0 else "before" for j in range(i - length, i))

    def prob(self, token, context):
        """P(token | context), the context without its oldest token, and so on down to 1/vocab."""
        shorter = self.prob(token, context[1:]) if context else 1 / self.vocab_size
        seen = self.counts.get(context)
        if not seen:
            return shorter
        return (seen[token] + len(seen) * shorter) / (seen.total() + len(seen))

    def distribution(self, sequence, i):
        context = self.context(sequence, i, self.order - 1)
        return [self.prob(token, context) for token in range(self.vocab_size)]


def as_arrays(sequences):
    return [np.array(sequence, dtype=np.uint16) for sequence in sequences]


corpora = st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=12), min_size=1, max_size=5)


def test_a_bigram_model_by_hand():
    # After 0 always 1; after 1 once 0 and once 2; of the four targets 1, 0, 1, 2 two are 1.
    model = NGramModel.fit(as_arrays([[0, 1, 0, 1, 2]]), order=2, vocab_size=4)
    unigram = {token: (count + 3 / 4) / (4 + 3) for token, count in enumerate([1, 2, 1, 0])}
    after_0 = {token: ((token == 1) * 2 + unigram[token]) / (2 + 1) for token in range(4)}
    after_1 = {token: ((token in (0, 2)) + 2 * unigram[token]) / (2 + 2) for token in range(4)}
    assert sum(after_0.values()) == pytest.approx(1) and sum(after_1.values()) == pytest.approx(1)
    bits = model.bits(as_arrays([[0, 1, 2, 3], [1, 1]]))
    expected = [after_0[1], after_1[2], unigram[3], after_1[1]]  # nothing was seen after 2
    np.testing.assert_allclose(bits, [-math.log2(p) for p in expected])


def test_a_unigram_model_by_hand():
    model = NGramModel.fit(as_arrays([[3, 0, 0], [3, 1]]), order=1, vocab_size=4)
    # Targets 0, 0, 1: two kinds in three, so 2/5 of the mass is spread over all four tokens.
    np.testing.assert_allclose(
        2 ** -model.bits(as_arrays([[3, 0, 1, 2]])), [2.5 / 5, 1.5 / 5, 0.5 / 5]
    )


def test_a_beginning_is_a_context_of_its_own():
    model = NGramModel.fit(as_arrays([[0, 1, 2], [0, 1, 2], [2, 0, 1, 1]]), order=3, vocab_size=3)
    # 0 1 stands twice at a beginning, with 2 after it, and once later, with 1 after it; the context
    # of the first target is a single token.
    naive = Naive([[0, 1, 2], [0, 1, 2], [2, 0, 1, 1]], 3, 3)
    assert naive.counts["before", 0] == {1: 2}
    np.testing.assert_allclose(
        2 ** -model.bits(as_arrays([[0, 1]])), [naive.distribution([0, 1], 1)[1]]
    )


@given(corpora, corpora, st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_it_agrees_with_the_definition(training, test, order):
    model = NGramModel.fit(as_arrays(training), order=order, vocab_size=5)
    naive = Naive(training, order, 5)
    expected = [
        -math.log2(naive.distribution(sequence, i)[sequence[i]])
        for sequence in test
        for i in range(1, len(sequence))
    ]
    np.testing.assert_allclose(model.bits(as_arrays(test)), expected)


@given(corpora, corpora, st.integers(1, 4), st.data())
@settings(max_examples=100, deadline=None)
def test_a_mask_restricts_the_distribution(training, test, order, data):
    model = NGramModel.fit(as_arrays(training), order=order, vocab_size=5)
    naive = Naive(training, order, 5)
    allowed, expected = [], []
    for sequence in test:
        mask = np.array(
            [data.draw(st.lists(st.booleans(), min_size=5, max_size=5)) for _ in sequence]
        )
        mask[np.arange(len(sequence)), sequence] = True
        allowed.append(mask)
        for i in range(1, len(sequence)):
            probs = np.array(naive.distribution(sequence, i)) * mask[i]
            expected.append(-math.log2(probs[sequence[i]] / probs.sum()))
    np.testing.assert_allclose(model.bits(as_arrays(test), allowed), expected, atol=1e-12)


@given(corpora, st.lists(st.integers(0, 4), max_size=6), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_the_probabilities_after_a_context_add_up_to_one(training, context, order):
    model = NGramModel.fit(as_arrays(training), order=order, vocab_size=5)
    sequences = as_arrays([[0, *context, token] for token in range(5)])
    last = model.bits(sequences).reshape(5, -1)[:, -1]
    assert np.sum(2.0**-last) == pytest.approx(1)
    allowed = np.zeros((len(context) + 2, 5), dtype=bool)
    allowed[:, :] = True
    allowed[-1, 2:] = False  # 0 and 1 alone may come last
    masked = model.bits(sequences[:2], [allowed, allowed]).reshape(2, -1)[:, -1]
    assert np.sum(2.0**-masked) == pytest.approx(1)


def test_what_only_one_token_may_follow_costs_nothing():
    model = NGramModel.fit(as_arrays([[0, 1, 2]]), order=2, vocab_size=3)
    only = np.eye(3, dtype=bool)[[0, 2, 1]]
    np.testing.assert_allclose(model.bits(as_arrays([[0, 2, 1]]), [only]), [0, 0], atol=1e-12)


def test_long_sequences_are_done_in_blocks():
    random = np.random.default_rng(0)
    sequences = [random.integers(0, 7, size=size).astype(np.uint16) for size in (5000, 4097, 2)]
    model = NGramModel.fit(sequences, order=3, vocab_size=7)
    together = model.bits(sequences)
    assert len(together) == 4999 + 4096 + 1
    np.testing.assert_allclose(together, np.concatenate([model.bits([s]) for s in sequences]))


def test_longer_contexts_help_on_what_they_were_fitted_to():
    random = np.random.default_rng(1)
    steps = random.integers(1, 3, size=2000)
    sequences = [np.cumsum(steps).astype(np.int64) % 8]  # the next token is one of two
    mean = [
        NGramModel.fit(sequences, order=order, vocab_size=8).bits(sequences).mean()
        for order in (1, 2)
    ]
    assert mean[0] == pytest.approx(3, abs=0.02)
    assert mean[1] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("sequences", "order", "vocab_size", "rule"),
    [
        ([], 2, 4, "without a sequence of two or more"),
        ([[1], [2]], 2, 4, "without a sequence of two or more"),
        ([[1, 2]], 0, 4, "order must be at least 1"),
        ([[1, 2]], 28, 4, "fit 63 bits, got 28"),
        ([[1, 4]], 2, 4, "below vocab_size, 4"),
    ],
)
def test_what_cannot_be_counted(sequences, order, vocab_size, rule):
    with pytest.raises(ValueError, match=rule):
        NGramModel.fit(as_arrays(sequences), order=order, vocab_size=vocab_size)


def test_the_largest_order_that_fits():
    sequences = as_arrays([[3] * 40, [0, 1, 2, 3] * 5])
    model = NGramModel.fit(sequences, order=27, vocab_size=4)
    naive = Naive([s.tolist() for s in sequences], 27, 4)
    expected = [-math.log2(naive.distribution([3] * 40, i)[3]) for i in range(1, 40)]
    np.testing.assert_allclose(model.bits(sequences[:1]), expected)
