"""Changes to training pieces that leave them music: other keys, tempos, lengths, loudnesses, tags.

Of tokens a token becomes another of its kind, so that what obeys the grammar still does. Kinds that
a vocabulary lacks are left alone. Tuples can be transposed, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from rnngan.errors import UserError
from rnngan.music.tokenizers.base import Codec, Tokenizer, as_tokenizer
from rnngan.music.tokenizers.tags import untagged
from rnngan.music.tokenizers.tuples import Tuples
from rnngan.music.vocabulary import Vocabulary

_ANYWHERE = 127  # semitones that a token without pitch may be moved


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far training pieces are changed, each time anew.

    Attributes:
        transpose: Semitones at most, down or up, as far as the vocabulary reaches; the
            transpositions that fit are equally likely, and drums stay. A piece that was transposed
            loses a tag that tells its key. 0 to 127.
        tempo: All tempos are multiplied by one factor between 1 / `tempo` and `tempo`, its
            logarithm uniform, and become the nearest that have a token, by ratio. At least 1.
        duration: Likewise all note lengths, nearest by difference; onsets stay.
        velocity: Each velocity moves by up to so many tokens, down or up, as far as there are any,
            every note for itself. At least 0.
        tag_dropout: With this probability a piece loses all its tags, and else each of them for
            itself: their tokens become those of a key without a value. So a generator learns to
            write with some tags, all, or none (Ho & Salimans, "Classifier-free diffusion guidance",
            2022, algorithm 1). At least 0, below 1.

    Raises:
        UserError: A value is out of range.
    """

    transpose: int = 0
    tempo: float = 1.0
    duration: float = 1.0
    velocity: int = 0
    tag_dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.transpose <= 127:
            raise UserError(f"transpose must be 0 to 127, got {self.transpose}")
        for name in ("tempo", "duration"):
            if not 1 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must be a factor of at least 1, got {getattr(self, name)}")
        if self.velocity < 0:
            raise UserError(f"velocity must be at least 0, got {self.velocity}")
        if not 0 <= self.tag_dropout < 1:
            raise UserError(f"tag_dropout must be at least 0 and below 1, got {self.tag_dropout}")


def augmented(
    tokens: npt.NDArray[Any], codec: Codec, augmentation: Augmentation, rng: np.random.Generator
) -> npt.NDArray[Any]:
    """Tokens changed at random, as many as before.

    Args:
        tokens: A piece or an excerpt, `(time,)`; of `tuples` `(time, 4)`.
        codec: Whose tokens they are.
        augmentation: How far to go.
        rng: Source of all that is random.

    Raises:
        UserError: They are real numbers, and more than transposition is asked for.
    """
    if augmentation == Augmentation() or not len(tokens):
        return tokens
    if isinstance(codec, Tuples):
        return _transposed(tokens, codec, augmentation, rng)
    tokenizer = as_tokenizer(codec)
    tables = _TABLES.get(tokenizer)
    if tables is None:
        tables = _TABLES[tokenizer] = _Tables.of(tokenizer)
    key, tempo, duration = rng.random(3).tolist()  # all, so that none depends on the others
    becomes = tables.ids.copy()
    if augmentation.transpose:
        down = min(augmentation.transpose, int(tables.room_below.take(tokens).min()))
        up = min(augmentation.transpose, int(tables.room_above.take(tokens).min()))
        shift = int(key * (down + up + 1)) - down
        becomes += tables.pitched * shift
        if shift:
            becomes[tables.keys] = tables.untagged[tables.keys]
    if augmentation.tempo > 1:
        tables.tempo.multiply(becomes, augmentation.tempo ** (2 * tempo - 1))
    if augmentation.duration > 1:
        tables.duration.multiply(becomes, augmentation.duration ** (2 * duration - 1))
    changed = becomes.take(tokens)
    if augmentation.velocity and (ids := tables.velocity):
        struck = np.flatnonzero((changed >= ids.start) & (changed < ids.stop))
        reach = augmentation.velocity
        moved = changed[struck] + rng.integers(-reach, reach + 1, len(struck))
        changed[struck] = np.clip(moved, ids.start, ids.stop - 1)
    if augmentation.tag_dropout and (ids := tables.tags):
        tagged = np.flatnonzero((changed >= ids.start) & (changed < ids.stop))
        all_, *each = rng.random(1 + len(tagged)) < augmentation.tag_dropout
        lost = tagged[all_ | np.array(each, dtype=bool)]
        changed[lost] = tables.untagged[changed[lost]]
    return changed.astype(np.uint16)


def _transposed(
    rows: npt.NDArray[np.float32],
    codec: Tuples,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Tuples, all moved by one number of semitones that fits; they have no tags to lose."""
    if replace(augmentation, transpose=0, tag_dropout=0.0) != Augmentation():
        raise UserError(
            "tuples are real numbers, which can be transposed and nothing else; leave tempo and "
            "duration factors and velocity jitter out"
        )
    below, above = codec.room(rows)
    down, up = min(augmentation.transpose, below), min(augmentation.transpose, above)
    return codec.transposed(rows, int(rng.random() * (down + up + 1)) - down)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scale:
    """Tokens of one kind in order of their values.

    Attributes:
        ids: `(size,)`.
        values: Ascending.
        middles: What lies between a value and the next belongs to the lower up to here.
    """

    ids: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    middles: npt.NDArray[np.float64]

    @staticmethod
    def of(
        vocabulary: Vocabulary,
        kind: str,
        value_of: Callable[[str], float],
        middle: Callable[..., npt.NDArray[np.float64]],
    ) -> _Scale:
        values = np.array([value_of(text) for text in vocabulary.values(kind)], dtype=np.float64)
        order = np.argsort(values)
        values = values[order]
        return _Scale(
            ids=np.array(vocabulary.ids(kind), dtype=np.int64)[order],
            values=values,
            middles=middle(values[:-1], values[1:]),
        )

    def multiply(self, becomes: npt.NDArray[np.int64], factor: float) -> None:
        """Let each token become the one nearest to its value times `factor`."""
        becomes[self.ids] = self.ids[np.searchsorted(self.middles, self.values * factor)]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tables:
    """What `augmented` looks up of a vocabulary; arrays are `(vocab,)`.

    Attributes:
        ids: Each token itself.
        pitched: 1 for tokens that transposition moves, else 0.
        room_below, room_above: Semitones that a token can move down and up.
        tempo, duration: Tokens of those kinds.
        velocity: Ids of that kind, ascending in loudness.
        tags: Ids of tags.
        keys: Those that tell a key.
        untagged: What stands in place of each token where tags are not told.
    """

    ids: npt.NDArray[np.int64]
    pitched: npt.NDArray[np.int64]
    room_below: npt.NDArray[np.int64]
    room_above: npt.NDArray[np.int64]
    tempo: _Scale
    duration: _Scale
    velocity: range
    tags: range
    keys: npt.NDArray[np.int64]
    untagged: npt.NDArray[np.int64]

    @staticmethod
    def of(tokenizer: Tokenizer) -> _Tables:
        vocabulary = tokenizer.vocabulary
        ids = np.arange(len(vocabulary))
        pitched = np.zeros_like(ids)
        below, above = np.full_like(ids, _ANYWHERE), np.full_like(ids, _ANYWHERE)
        for kind in tokenizer.pitched_kinds:
            run = slice(vocabulary.ids(kind).start, vocabulary.ids(kind).stop)
            pitched[run] = 1
            below[run] = np.arange(len(vocabulary.ids(kind)))
            above[run] = below[run][::-1]
        return _Tables(
            ids=ids,
            pitched=pitched,
            room_below=below,
            room_above=above,
            tempo=_Scale.of(vocabulary, "Tempo", float, lambda a, b: np.sqrt(a * b)),
            duration=_Scale.of(vocabulary, "Duration", _length, lambda a, b: (a + b) / 2),
            velocity=vocabulary.ids("Velocity"),
            tags=vocabulary.ids("Tag"),
            keys=np.flatnonzero([name.startswith("Tag_key=") for name in vocabulary.names]),
            untagged=np.array(untagged(vocabulary), dtype=np.int64),
        )


def _length(text: str) -> float:
    """Ticks, or miditok's beats, as in `1.5.12`: one, and five of twelve parts of another."""
    whole, _, part = text.partition(".")
    count, _, parts = part.partition(".")
    return int(whole) + (int(count) / int(parts) if part else 0)


# A tokenizer is looked up by what it is, not by an id that another may have later.
_TABLES: WeakKeyDictionary[Tokenizer, _Tables] = WeakKeyDictionary()
