import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import textual
from eval.textual import bleu, lcs_lengths, rouge_l, self_bleu, tokens_of
from rnngan.music.piece import DRUMS, Piece

sequences = st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=12), min_size=1, max_size=5)


def words(*texts):
    return [np.array([ord(letter) for letter in text]) for text in texts]


def arrays(lists):
    return [np.array(items, dtype=np.int64) for items in lists]


def slow_bleu(hypothesis, references, n):
    """BLEU of one sequence as the paper writes it, with counters."""

    def counts(sequence, size):
        return Counter(tuple(sequence[i : i + size]) for i in range(len(sequence) - size + 1))

    logs = []
    for size in range(1, n + 1):
        own = counts(hypothesis, size)
        limits = [counts(reference, size) for reference in references]
        clipped = sum(min(c, max(limit[gram] for limit in limits)) for gram, c in own.items())
        logs.append(math.log((clipped or 0.1) / sum(own.values())))
    c = len(hypothesis)
    r = min((abs(len(reference) - c), len(reference)) for reference in references)[1]
    return min(1, math.exp(1 - r / c)) * math.exp(sum(logs) / n)


def slow_lcs(a, b):
    row = [0] * (len(b) + 1)
    for x in a:
        above = row[:]
        for j, y in enumerate(b):
            row[j + 1] = above[j] + 1 if x == y else max(above[j + 1], row[j])
    return row[-1]


class TestTokens:
    def test_come_by_onset_and_from_the_bass_up(self):
        piece = Piece.from_rows([(24, 36, 60), (0, 24, 67), (0, 12, 60)])
        assert tokens_of(piece).tolist() == [12 << 7 | 60, 24 << 7 | 67, 12 << 7 | 60]

    def test_do_not_see_tracks_rests_or_drums(self):
        plain = Piece.from_rows([(0, 24, 60), (0, 24, 64), (24, 48, 62)])
        split = Piece.from_rows(
            [(0, 24, 64, 80, 5, 0), (0, 24, 60, 64, 0, 1), (90, 114, 62), (0, 6, 36, 64, DRUMS, 2)]
        )
        assert tokens_of(plain).tolist() == tokens_of(split).tolist()

    def test_of_drums_alone_there_are_none(self):
        assert not len(tokens_of(Piece.from_rows([(0, 6, 36, 64, DRUMS)])))

    def test_see_transposition(self):
        piece = Piece.from_rows([(0, 24, 60), (24, 48, 62)])
        assert not set(tokens_of(piece)) & set(tokens_of(piece.transposed(1)))


class TestBleu:
    def test_by_hand(self):
        # Unigrams a, b, d of abcd stand in abxd (3/4), of the bigrams only ab (1/3); equal lengths.
        assert bleu(words("abcd"), words("abxd"), n=2) == pytest.approx(math.sqrt(3 / 4 / 3))

    def test_matches_are_clipped_at_the_reference_that_has_most(self):
        # The paper's seven times "the": the references have it twice and once.
        assert bleu(words("ttttttt"), words("tcctxyz", "tabcdef"), n=1) == pytest.approx(2 / 7)

    def test_the_brevity_penalty_takes_the_closest_reference_and_of_two_the_shorter(self):
        assert bleu(words("abcd"), words("abcde", "abcdefgh"), n=1) == pytest.approx(
            math.exp(1 - 5 / 4)
        )
        assert bleu(words("abcd"), words("abcde", "abc"), n=1) == 1

    def test_no_match_counts_as_a_tenth(self):
        assert bleu(words("ab"), words("ba"), n=2) == pytest.approx(math.sqrt(1 * 0.1))

    def test_of_a_copy_is_1(self):
        assert bleu(words("abcde", "edcba"), words("edcba", "xyzzy", "abcde"), n=5) == 1

    def test_is_undefined_without_references_or_ngrams(self):
        assert math.isnan(bleu(words("abc"), [], n=2))
        assert math.isnan(bleu([], words("abc"), n=2))
        assert math.isnan(bleu(words("abc"), words("abc"), n=4))

    @given(sequences, sequences, st.integers(1, 5))
    @settings(max_examples=60, deadline=None)
    def test_agrees_with_counting_by_hand(self, fake, real, n):
        expected = np.mean([slow_bleu(hypothesis, real, n) for hypothesis in fake])
        assert bleu(arrays(fake), arrays(real), n=n) == pytest.approx(expected)

    @given(sequences, sequences)
    @settings(max_examples=30, deadline=None)
    def test_only_asks_which_tokens_are_equal(self, fake, real):
        renamed = [arrays([[1000 - 7 * x for x in s] for s in side]) for side in (fake, real)]
        assert bleu(*renamed, n=3) == pytest.approx(bleu(arrays(fake), arrays(real), n=3))


class TestSelfBleu:
    def test_of_repetitions_is_1_and_of_strangers_small(self):
        assert self_bleu(words("abcdef", "abcdef", "abcdef"), n=5) == 1
        assert self_bleu(words("abcdef", "ghijkl"), n=5) < 0.05

    def test_of_one_sequence_is_undefined(self):
        assert math.isnan(self_bleu(words("abcdef"), n=2))

    @given(sequences.filter(lambda s: len(s) > 1), st.integers(1, 5))
    @settings(max_examples=60, deadline=None)
    def test_no_sequence_is_its_own_reference(self, items, n):
        expected = np.mean(
            [slow_bleu(items[i], items[:i] + items[i + 1 :], n) for i in range(len(items))]
        )
        assert self_bleu(arrays(items), n=n) == pytest.approx(expected)


class TestNGrams:
    def test_references_may_be_chosen_many_times_at_once(self, monkeypatch):
        rng = np.random.default_rng(0)
        items = [rng.integers(0, 4, size=rng.integers(5, 15)) for _ in range(9)]
        references = rng.random((7, 9)) < 0.5
        references[:, 0], references[:, 1] = True, False
        monkeypatch.setattr(textual, "RESAMPLES_AT_ONCE", 3)
        found = textual.NGrams(items).bleu(references, own=False)
        assert found.shape == (5, 7, 9)
        for row, chosen in enumerate(references):
            others = [item for item, taken in zip(items, chosen) if taken]
            for i in np.flatnonzero(~chosen):
                assert found[3, row, i] == pytest.approx(slow_bleu(items[i], others, 4))

    def test_within_a_chosen_set_the_other_members_are_the_references(self):
        rng = np.random.default_rng(0)
        items = [rng.integers(0, 4, size=rng.integers(5, 15)) for _ in range(9)]
        chosen = np.array([2, 3, 5, 8])
        found = textual.NGrams(items).bleu(np.isin(np.arange(9), chosen)[None], own=True)
        assert found[2, 0, chosen].mean() == pytest.approx(
            self_bleu([items[i] for i in chosen], n=3)
        )


class TestRougeL:
    def test_by_hand(self):
        # a, c, e of abcde in axcxe; the best of two references counts.
        assert rouge_l(words("abcde"), words("axcxe")) == pytest.approx(3 / 5)
        assert rouge_l(words("abcde"), words("axcxe", "abcd")) == pytest.approx(2 * 4 / (5 + 4))
        assert rouge_l(words("abcde", "zzzzz"), words("axcxe")) == pytest.approx((3 / 5 + 0) / 2)

    def test_of_nothing_is_undefined(self):
        assert math.isnan(rouge_l(words("abc"), []))
        assert math.isnan(rouge_l([], words("abc")))
        assert math.isnan(rouge_l(words("abc"), words("")))

    @given(*[st.lists(st.lists(st.integers(0, 4), max_size=40), max_size=5)] * 2)
    @settings(max_examples=80, deadline=None)
    def test_common_subsequences_agree_with_the_table_of_prefixes(self, a, b):
        found = lcs_lengths(arrays(a), arrays(b))
        assert found.tolist() == [[slow_lcs(x, y) for y in b] for x in a]
