"""Overlap of note sequences, as machine translation and summarising measure it: BLEU, ROUGE-L.

A piece is read as a sequence of tokens, see `tokens_of`. All three scores run from 0 to 1.

Where other tools return something else: scores of this family are often computed against a random
sample of the references, which lowers them without a word; here all of them count, or the metric's
name says how many. Transposition is not removed, so a piece in another key shares little.

References:
    Papineni et al., "BLEU", ACL 2002; Lin, "ROUGE", 2004; Zhu et al., "Texygen", SIGIR 2018
    (self-BLEU); Yu et al., "SeqGAN", AAAI 2017 (BLEU-2 to BLEU-5 of generated sequences).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnngan.music.piece import Piece

ORDERS = (2, 3, 4, 5)
"""BLEU-n combines the n-grams of 1 to n tokens."""
NO_MATCH = 0.1
"""Counted instead of no match at all (Chen and Cherry, 2014, smoothing 1)."""
RESAMPLES_AT_ONCE = 32
"""Bounds the memory, and keeps the working set in the processor's cache."""

Ints = NDArray[np.int64]
Shorts = NDArray[np.int32]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def tokens_of(piece: Piece) -> Ints:
    """One token per pitched note, its pitch and its length in ticks: `(notes,)`.

    Notes come by onset; of those that begin together the lowest comes first, the shorter of two on
    one pitch. So polyphony and tracks become one line, which does not depend on how the notes are
    split into tracks, nor on rests, metre, tempo and velocity. Drums are left out.
    """
    notes = piece.pitched
    notes = notes[np.lexsort((notes["end"], notes["pitch"], notes["start"]))]
    length = (notes["end"] - notes["start"]).astype(np.int64)
    return np.asarray(length << 7 | notes["pitch"])


def bleu(fake: Sequence[Ints], real: Sequence[Ints], *, n: int) -> float:
    """Mean over the fake sequences of BLEU-n with all real ones as references, 0 to 1.

        BP · exp(mean over m = 1..n of log p_m)

    p_m is the share of the sequence's m-grams that match, each at most as often as it stands in
    the one reference that has it most often; no match counts as 0.1 of one. BP is
    min(1, exp(1 - r / c)) for a sequence of c tokens whose closest reference, the shorter of two,
    has r. NaN without references, or if a fake sequence has fewer than n tokens.

    References:
        Papineni et al., "BLEU", ACL 2002, sec. 2.3; averaged over sequences as in SeqGAN.
    """
    is_real = np.arange(len(real) + len(fake)) < len(real)
    scores = NGrams([*real, *fake], longest=n).bleu(is_real[None], own=False)
    return _mean(scores[-1, 0, len(real) :])


def self_bleu(sequences: Sequence[Ints], *, n: int) -> float:
    """Mean of BLEU-n of each sequence with all others of its set as references, 0 to 1.

    High where a set repeats itself. NaN for fewer than two sequences, or one with fewer than n
    tokens.

    References:
        Zhu et al., "Texygen", SIGIR 2018.
    """
    everyone = np.ones((1, len(sequences)), bool)
    return _mean(NGrams(sequences, longest=n).bleu(everyone, own=True)[-1, 0])


def rouge_l(fake: Sequence[Ints], real: Sequence[Ints]) -> float:
    """Mean over the fake sequences of the best ROUGE-L F1 with any real one, 0 to 1.

    F1 is twice the longest common subsequence over the sum of both lengths. Of several references
    the best counts, as Lin has it. NaN without fake or real sequences, or where one is empty.

    References:
        Lin, "ROUGE", 2004, sec. 2.1 (several references) and 3.1, eq. 2-4 with β = 1.
    """
    if not len(real) or min(map(len, [*fake, *real])) == 0:
        return float("nan")
    return _mean(rouge_l_pairs(fake, real).max(axis=1))


class NGrams:
    """Which n-grams stand in which sequence, to compare any of the sequences with any others.

    The j-th occurrence of an n-gram in a sequence is a symbol of its own. Clipped matches are then
    the symbols that a sequence shares with the union of its references: two sparse products give
    them for many choices of references at once.
    """

    def __init__(self, sequences: Sequence[Ints], *, longest: int = max(ORDERS)) -> None:
        self.lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        tokens = np.concatenate([np.empty(0, np.int64), *sequences])
        # Short whole numbers: of thousands of long pieces each of these takes much memory.
        owner = np.repeat(np.arange(len(sequences), dtype=np.int32), self.lengths)
        words = np.unique(tokens, return_inverse=True)[1].astype(np.int32)
        self.tables = []
        grams = words.astype(np.int64)
        for size in range(1, longest + 1):
            if size > 1:
                grams = grams[:-1] * (len(tokens) + 1) + words[size - 1 :]
            order = np.argsort(grams, kind="stable")  # and so by sequence within an n-gram
            order = order.astype(np.int32)
            numbers = np.cumsum(_begins(grams[order]), dtype=np.int32) - 1
            grams[order] = numbers
            inside = (owner[: len(grams)] == owner[size - 1 :])[order]
            self.tables.append(_occurrences(numbers[inside], owner[order][inside], len(sequences)))

    def bleu(self, references: Mask, *, own: bool) -> Floats:
        """BLEU-n of every sequence, for n from 1 to the longest: `(n, resamples, sequences)`.

        Args:
            references: `(resamples, sequences)`, which sequences are references.
            own: The sequences scored stand among the references and are not their own; what comes
                out for the others has no meaning. Without it, those that stand there have none.
        """
        parts = [np.empty((len(self.tables), 0, len(self.lengths)))]
        for start in range(0, len(references), RESAMPLES_AT_ONCE):
            parts.append(self._bleu(references[start : start + RESAMPLES_AT_ONCE], own))
        return np.concatenate(parts, axis=1)

    def _bleu(self, references: Mask, own: bool) -> Floats:
        brevity = self._log_brevity(references, own)
        chosen = np.ascontiguousarray(references.T.astype(np.float32))
        logs = []
        for size, table in enumerate(self.tables, 1):
            shared = (table @ chosen >= (2 if own else 1)).astype(np.float32)
            matches = np.maximum((table.T @ shared).T.astype(float), NO_MATCH)
            total = np.where(self.lengths >= size, self.lengths - size + 1, np.nan)
            logs.append(np.log(matches / total))
        sizes = np.arange(1, len(logs) + 1)[:, None, None]
        return np.asarray(np.exp(brevity + np.cumsum(logs, axis=0) / sizes))

    def _log_brevity(self, references: Mask, own: bool) -> Floats:
        """Logarithm of the brevity penalty; NaN without a reference."""
        order = np.argsort(self.lengths, kind="stable")
        ordered = self.lengths[order].astype(float)
        found = np.empty(references.shape)
        for row, chosen in enumerate(references):
            known = np.concatenate([[-np.inf], ordered[chosen[order]], [np.inf, np.inf]])
            place = np.searchsorted(known[1:-2], self.lengths)
            below, above = known[place], known[place + (2 if own else 1)]
            closest = np.where(self.lengths - below <= above - self.lengths, below, above)
            closest[~np.isfinite(closest)] = np.nan
            found[row] = np.minimum(1 - closest / np.maximum(self.lengths, 1), 0)
        return found


def _occurrences(grams: Shorts, owner: Shorts, num_sequences: int) -> Any:
    """Sparse 0-1 table `(symbols, sequences)` of n-grams sorted by kind and then by sequence.

    What stands in a single sequence can match nothing and is left out.
    """
    from scipy.sparse import csr_array

    index = np.arange(len(grams), dtype=np.int32)
    kind = np.maximum.accumulate(np.where(_begins(grams), index, 0))
    again = ~_begins(grams) & ~_begins(owner)
    number = index - np.maximum.accumulate(np.where(again, 0, index))
    symbols = kind + number
    common = np.bincount(symbols, minlength=len(grams)) >= 2
    kept = common[symbols]
    rows = (np.cumsum(common, dtype=np.int32) - 1)[symbols[kept]]
    return csr_array(
        (np.ones(len(rows), np.float32), (rows, owner[kept])),
        shape=(int(common.sum()), num_sequences),
    )


def _begins(values: Ints | Shorts) -> Mask:
    """Where a run of equal values begins: `(len(values),)`."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def rouge_l_pairs(a: Sequence[Ints], b: Sequence[Ints]) -> Floats:
    """ROUGE-L F1 of every sequence of a with every one of b, none empty: `(len(a), len(b))`."""
    sizes = [np.array([len(sequence) for sequence in side], dtype=float) for side in (a, b)]
    return np.asarray(2 * lcs_lengths(a, b) / np.add.outer(*sizes))


def lcs_lengths(a: Sequence[Ints], b: Sequence[Ints]) -> Ints:
    """Length of the longest common subsequence of each pair: `(len(a), len(b))`.

    All of b lies in one long integer, a field of bits per sequence, so that one token of a is
    matched against all of them by five operations. Behind each field stands a bit that takes the
    carry and is cleared.

    References:
        Crochemore et al., "A fast and practical bit-vector algorithm for the longest common
        subsequence problem", 2001; Hyyrö, "Bit-parallel LCS-length computation revisited", 2004.
    """
    sizes = np.array([len(sequence) for sequence in b], dtype=np.int64)
    starts = np.cumsum(sizes + 1) - (sizes + 1)
    num_bits = int((sizes + 1).sum())
    places = np.delete(np.arange(num_bits), starts + sizes)
    tokens = np.concatenate([np.empty(0, np.int64), *b])

    def packed(ones: Ints) -> int:
        bits = np.zeros(num_bits, np.uint8)
        bits[ones] = 1
        return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")

    fields = packed(places)
    order = np.argsort(tokens, kind="stable")
    words, first = np.unique(tokens[order], return_index=True)
    wanted = set(np.concatenate([np.empty(0, np.int64), *a]).tolist())
    where = {
        word: packed(places[part])
        for word, part in zip(words.tolist(), np.split(order, first[1:]))
        if word in wanted
    }
    lengths = np.zeros((len(a), len(b)), np.int64)
    for row, sequence in enumerate(a):
        open_bits = fields
        for word in sequence.tolist():
            if word in where:
                matched = open_bits & where[word]
                open_bits = ((open_bits + matched) | (open_bits - matched)) & fields
        left = open_bits.to_bytes(num_bits // 8 + 1, "little")
        bits = np.unpackbits(np.frombuffer(left, np.uint8), bitorder="little", count=num_bits)
        if len(b):
            lengths[row] = sizes - np.add.reduceat(bits, starts, dtype=np.int64)
    return lengths


def _mean(scores: Floats) -> float:
    return float(scores.mean()) if len(scores) else float("nan")
