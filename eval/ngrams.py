"""Counting models of token sequences: what a network must beat before it is worth its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_BLOCK = 4096  # positions whose distributions are held in memory at a time


class _Table(NamedTuple):
    """Counts after contexts of one length, n-grams sorted so that a context's stand together."""

    contexts: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    totals: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class NGramModel:
    """Interpolated Witten–Bell model.

        P(w | h) = (c(h, w) + T(h) P(w | h')) / (c(h) + T(h))

    with c the counts, T(h) the number of different tokens seen after h, h' the context without its
    oldest token, and at the bottom every token alike.

    References:
        Witten & Bell, "The zero-frequency problem", 1991; the interpolated form as in Chen &
        Goodman, "An empirical study of smoothing techniques for language modeling", 1999, eq. 17.
    """

    order: int
    vocab_size: int
    tables: tuple[_Table, ...]

    @staticmethod
    def fit(
        sequences: Sequence[npt.NDArray[np.integer]], *, order: int, vocab_size: int
    ) -> NGramModel:
        """Count all n-grams up to `order` (1 is a unigram model).

        Raises:
            ValueError: Nothing to count, an id outside the vocabulary, an order below 1, or so
                large that an n-gram has no 63-bit key.
        """
        if sum(len(sequence) > 1 for sequence in sequences) == 0:
            raise ValueError("cannot count n-grams without a sequence of two or more tokens")
        if order < 1 or order * np.log2(vocab_size + 1) >= 63:
            raise ValueError(f"order must be at least 1 and fit 63 bits, got {order}")
        if max(int(np.max(sequence, initial=0)) for sequence in sequences) >= vocab_size:
            raise ValueError(f"token ids must be below vocab_size, {vocab_size}")
        tables = []
        for length in range(order):
            keys, targets = _positions(sequences, length, vocab_size)
            grams, counts = np.unique(keys * vocab_size + targets, return_counts=True)
            contexts, first = np.unique(grams // vocab_size, return_index=True)
            tables.append(
                _Table(
                    contexts,
                    np.append(first, len(grams)),
                    grams % vocab_size,
                    counts,
                    np.add.reduceat(counts, first),
                )
            )
        return NGramModel(order=order, vocab_size=vocab_size, tables=tuple(tables))

    def bits(
        self,
        sequences: Sequence[npt.NDArray[np.integer]],
        allowed: Sequence[npt.NDArray[np.bool_]] | None = None,
    ) -> npt.NDArray[np.float64]:
        """Bits for every token but the first of each sequence, one after another: `(targets,)`.

        Args:
            sequences: Token ids.
            allowed: Per sequence `(time, vocab)`, what could stand at each place; the model's
                distribution is restricted to it, as a network's is by its grammar.
        """
        keys = [_positions(sequences, length, self.vocab_size)[0] for length in range(self.order)]
        targets = np.concatenate([np.asarray(s[1:], dtype=np.int64) for s in sequences])
        masks = np.concatenate([a[1:] for a in allowed]) if allowed is not None else None
        found = np.empty(len(targets))
        for start in range(0, len(targets), _BLOCK):
            block = slice(start, start + _BLOCK)
            probs = self._distributions([key[block] for key in keys])
            if masks is not None:
                probs *= masks[block]
                probs /= probs.sum(axis=1, keepdims=True)
            found[block] = -np.log2(probs[np.arange(len(probs)), targets[block]])
        return found

    def _distributions(self, keys: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
        probs = np.full((len(keys[0]), self.vocab_size), 1 / self.vocab_size)
        for table, key in zip(self.tables, keys):
            place = np.minimum(np.searchsorted(table.contexts, key), len(table.contexts) - 1)
            seen = np.flatnonzero(table.contexts[place] == key)
            place = place[seen]
            size = table.first[place + 1] - table.first[place]  # T(h)
            row = np.repeat(seen, size)
            within = np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)
            gram = np.repeat(table.first[place], size) + within
            probs[seen] *= size[:, None]
            probs[row, table.tokens[gram]] += table.counts[gram]
            probs[seen] /= (table.totals[place] + size)[:, None]
        return probs


def _positions(
    sequences: Sequence[npt.NDArray[np.integer]], length: int, vocab_size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Key of the `length` tokens before each token but the first, and that token itself.

    Before the beginning stand tokens of an id that does not exist, so that a context that reaches
    over it is like no other.
    """
    keys, targets = [], []
    for sequence in sequences:
        tokens = np.asarray(sequence, dtype=np.int64)
        before = np.concatenate([np.full(length, vocab_size), tokens])
        key = np.zeros(len(tokens) - 1, dtype=np.int64)
        for back in range(length, 0, -1):
            start = length + 1 - back
            key = key * (vocab_size + 1) + before[start : start + len(key)]
        keys.append(key)
        targets.append(tokens[1:])
    return np.concatenate(keys), np.concatenate(targets)
