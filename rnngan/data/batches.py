"""Batches as a function of (seed, step): nothing to save, nothing to lose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from rnngan.config import WITH_ENCODER, DataConfig, GeneratorConfig
from rnngan.data.augment import Augmentation, augmented
from rnngan.data.splits import Split
from rnngan.data.store import Store
from rnngan.music.tokenizers.base import Codec, Tokenizer, as_tokenizer
from rnngan.music.tokenizers.parts import events_or_refuse, first_bars, melody_and_rest
from rnngan.music.vocabulary import CONTINUE, PAD, Tokens

MAX_HELD_OUT = 1000
"""Pieces that a validation or test looks at: of a tenth of a huge corpus it would never end."""
_POOL = 16
"""Batches at most that are drawn and sorted by length together, so that little is padding."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pieces or excerpts, padded.

    Attributes:
        tokens: `(batch, time)`, `PAD` behind the end; of `tuples` float32 `(batch, time, 4)`,
            zeros behind the end.
        lengths: `(batch,)`.
        source: What a generator is told before it writes them; None where there is nothing.
    """

    tokens: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    source: Batch | None = None

    @staticmethod
    def empty() -> Batch:
        """No pieces."""
        return Batch(tokens=np.empty((0, 0), np.int64), lengths=np.empty(0, np.int64))


Division = Callable[[Tokens], tuple[Tokens, Tokens]]
"""From the tokens of a piece or excerpt to what a generator is told of it, and what it writes."""


def division_of(config: GeneratorConfig, codec: Codec) -> Division | None:
    """How pieces are divided for a kind of generator.

    `seq2seq` is told the melody and writes the rest; `vae` and `autoencoder` are told some bars and
    write the same.

    Raises:
        UserError: The kind needs other tokens.
    """
    if config.kind not in WITH_ENCODER:
        return None
    events = events_or_refuse(codec, f"--generator {config.kind}")
    if config.kind == "seq2seq":
        return partial(melody_and_rest, tokenizer=events)

    def twice(tokens: Tokens) -> tuple[Tokens, Tokens]:
        bars = first_bars(tokens, events, config.bars)
        return bars, bars

    return twice


def augmentation_of(config: DataConfig) -> Augmentation:
    """The part of the settings that says how training pieces are changed."""
    return Augmentation(
        transpose=config.transpose,
        tempo=config.tempo_factor,
        duration=config.duration_factor,
        velocity=config.velocity_jitter,
        tag_dropout=config.tag_dropout,
    )


def padded(rows: Sequence[npt.NDArray[Any]], division: Division | None = None) -> Batch:
    """Rows of unequal length side by side; where they are divided, with their sources."""
    if division is not None:
        sources, targets = zip(*map(division, rows))
        return replace(padded(list(targets)), source=padded(list(sources)))
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    shape = (len(rows), int(lengths.max()), *rows[0].shape[1:])
    tokens = np.full(shape, PAD, dtype=np.float32 if rows[0].ndim > 1 else np.int64)
    for line, row in zip(tokens, rows):
        line[: len(row)] = row
    return Batch(tokens=tokens, lengths=lengths)


class TrainingBatches:
    """Endless shuffled batches of the training split.

    The pieces come in a stream of permutations, one per epoch; pieces of similar length are put
    into one batch. What a step holds follows from (seed, step) alone, and a rank gets its rows of
    that batch, so the order does not depend on the number of processes.

    Args:
        store: Prepared corpus.
        batch_size: Excerpts per step, over all ranks.
        max_length: Tokens of an excerpt at most.
        augmentation: How pieces are changed, each time anew.
        seed: Of everything random here.
        transpose_steps: From this step on pieces stay in their own keys; by default never.
        openings: Only beginnings of pieces, cut at `max_length`.
        division: Of what is drawn; None for generators that are told nothing.
    """

    def __init__(
        self,
        store: Store,
        *,
        batch_size: int,
        max_length: int,
        augmentation: Augmentation,
        seed: int,
        transpose_steps: int | None = None,
        openings: bool = False,
        division: Division | None = None,
    ) -> None:
        self.store = store
        self.batch_size = batch_size
        self.max_length = max_length
        self.augmentation = augmentation
        self.in_own_keys = replace(augmentation, transpose=0)
        self.seed = seed
        self.transpose_steps = transpose_steps
        self.openings = openings
        self.division = division
        self.indices = store.indices("train")
        # No more than an epoch, or sorting would bring copies of a piece together.
        self.pool_size = min(max(len(self.indices) // batch_size, 1), _POOL)
        self._order = lru_cache(maxsize=4)(self._epoch_order)
        self._pool = lru_cache(maxsize=2)(self._pool_batches)

    def batch(self, step: int, *, rank: int = 0, num_ranks: int = 1) -> Batch:
        """The batch of a step, or every `num_ranks`-th row of it, from row `rank` on.

        Raises:
            ValueError: There are more ranks than rows.
        """
        if num_ranks > self.batch_size:
            raise ValueError(f"{self.batch_size} rows are too few for {num_ranks} ranks")
        rows = self._pool(step // self.pool_size)[step % self.pool_size]
        own_keys = self.transpose_steps is not None and step >= self.transpose_steps
        augmentation = self.in_own_keys if own_keys else self.augmentation
        return padded(
            [
                self._excerpt(int(rows[row]), augmentation, [self.seed, 2, step, row])
                for row in range(rank, self.batch_size, num_ranks)
            ],
            self.division,
        )

    def _epoch_order(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(self.indices)

    def _pool_batches(self, pool: int) -> npt.NDArray[np.int64]:
        """Pieces of the batches of a pool: `(pool_size, batch_size)`."""
        count = self.pool_size * self.batch_size
        epochs, places = np.divmod(pool * count + np.arange(count), len(self.indices))
        orders = {epoch: self._order(epoch) for epoch in np.unique(epochs).tolist()}
        pieces = np.array([orders[e][p] for e, p in zip(epochs.tolist(), places.tolist())])
        lengths = np.diff(self.store.offsets)[pieces]
        batches = pieces[np.argsort(np.minimum(lengths, self.max_length), kind="stable")]
        batches = batches.reshape(self.pool_size, self.batch_size)
        random = np.random.default_rng([self.seed, 1, pool])
        return np.asarray(batches[random.permutation(self.pool_size)])

    def _excerpt(self, index: int, augmentation: Augmentation, seed: list[int]) -> npt.NDArray[Any]:
        rows, codec = self.store.piece_tokens(index), self.store.codec
        random = np.random.default_rng(seed)
        if not self.openings:
            rows = excerpt(rows, codec, self.max_length, random.random())
        return augmented(rows[: self.max_length], codec, augmentation, random)


def excerpt(
    tokens: npt.NDArray[Any], codec: Codec, max_length: int, place: float
) -> npt.NDArray[Any]:
    """At most `max_length` tokens of a piece, from a bar line on, or from anywhere without bars.

    The opening is chosen as often as any other stretch of its length; an excerpt from the middle
    begins with Continue and the tags, metre and tempo that are in force there; of `tuples` it is
    that stretch and nothing more.

    Args:
        tokens: A whole piece.
        codec: Of the tokens.
        max_length: Of the excerpt.
        place: At least 0 and below 1; where to cut.
    """
    if len(tokens) <= max_length:
        return tokens
    last = len(tokens) - max_length // 2
    opening = max_length / len(tokens)
    if codec.width:
        first = 1 + int((place - opening) / (1 - opening) * last) if place >= opening else 0
        return tokens[first : first + max_length]
    tokenizer = as_tokenizer(codec)
    if tokenizer.bar is None:
        head, later = tokens[:1].copy(), np.arange(2, last + 1)
    else:
        bars = np.flatnonzero(tokens == tokenizer.bar)
        head, later = tokens[: bars[0]].copy(), bars[(bars > bars[0]) & (bars <= last)]
    if place < opening or not len(later):
        return tokens[:max_length]
    first = int(later[int((place - opening) / (1 - opening) * len(later))])
    head[0] = CONTINUE
    for kind in ("Metre", "Tempo"):
        ids = tokenizer.vocabulary.ids(kind)
        said = tokens[:first][(tokens[:first] >= ids.start) & (tokens[:first] < ids.stop)]
        if len(said):
            head[(head >= ids.start) & (head < ids.stop)] = said[-1]
    return np.concatenate([head, tokens[first : first + max_length - len(head)]])


def held_out_batches(
    store: Store, split: Split, *, max_tokens: int = 32768, division: Division | None = None
) -> list[Batch]:
    """Pieces of a split once and whole, longest first, with at most `max_tokens` a batch.

    No more than `MAX_HELD_OUT` pieces are taken, evenly spread. Padding counts; a piece that is
    longer alone gets a batch of its own. Where pieces are divided, both halves are in their batch.
    """
    pieces = [store.piece_tokens(i) for i in store.indices(split, limit=MAX_HELD_OUT).tolist()]
    pieces.sort(key=len, reverse=True)
    cuts = [0]
    for i in range(len(pieces)):
        if (i - cuts[-1] + 1) * len(pieces[cuts[-1]]) > max_tokens and i > cuts[-1]:
            cuts.append(i)
    return [padded(pieces[a:b], division) for a, b in pairwise([*cuts, len(pieces)])]


def num_notes(batches: Iterable[Batch], tokenizer: Tokenizer) -> int:
    """Notes that the tokens of some batches tell; sources do not count."""
    return sum(
        len(tokenizer.decode(row[:length]).notes)
        for batch in batches
        for row, length in zip(batch.tokens, batch.lengths.tolist())
    )
