"""Drawing token sequences from a generator, under its tokenizer's grammar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnngan.errors import UserError
from rnngan.generator.fast import FastStepper, Precision
from rnngan.generator.lstm import LSTMGenerator
from rnngan.music.vocabulary import END, PAD, START, Grammar

_COLDEST = 1e-6
"""Below this temperature the likeliest token is certain, and logits would overflow."""
_SHRINK = 1 - 2**-20
"""Keeps a random number next to 1 below the end of a rounded distribution function, where it would
fall to a token of no probability. Probabilities change by 1e-6 at most, as by rounding itself."""
_BLOCK = 16
"""Tokens drawn before anyone looks which pieces have ended."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Token sequences.

    Attributes:
        tokens: `(num, time)`, long; the prefix included, PAD behind the end. `time` is the longest
            length.
        lengths: `(num,)`, long; tokens up to and with End, or all of a piece that was cut before.
    """

    tokens: Tensor
    lengths: Tensor


def uniforms(seed: int, indices: Sequence[int], length: int) -> npt.NDArray[np.float32]:
    """Random numbers in [0, 1) for each piece: `(num, length)`.

    A piece's numbers follow from the seed and its index alone: they do not depend on which others
    are drawn beside it, and a greater length only adds to them.

    Raises:
        UserError: The seed or an index is negative or beyond 64 bits.

    References:
        Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011 (Philox).
    """
    table = np.empty((len(indices), length), dtype=np.float32)
    for row, index in zip(table, indices):
        if not (0 <= seed < 2**64 and 0 <= index < 2**64):
            raise UserError(f"seed and index must be 0 to 2^64 - 1, got {seed} and {index}")
        key = np.array([seed, index], dtype=np.uint64)
        np.random.Generator(np.random.Philox(key=key)).random(out=row, dtype=np.float32)
    return table


def sample(
    generator: LSTMGenerator,
    grammar: Grammar,
    draws: npt.NDArray[np.floating],
    *,
    temperature: float = 1.0,
    prefix: Sequence[int] = (START,),
    bar: int | None = None,
    num_bars: int | None = None,
    precision: Precision = "auto",
) -> Samples:
    """Pieces drawn token by token from the softmax of the logits that the grammar allows.

    The same call gives the same tokens on the same machine. In float32 a piece depends on its own
    row of `draws` alone: the pieces drawn beside it, and with them the order of summation in the
    products, can change it only where a random number lies within rounding, about 1e-6, of the
    border between two tokens. In bfloat16 that margin is about 1e-3.

    Dropout is off, in whatever mode the generator is.

    Args:
        generator: Its vocabulary is the grammar's.
        grammar: Of the tokenizer; no token is ever drawn that it does not allow. Behind End it
            allows PAD alone.
        draws: Random numbers in [0, 1), `(num, max_length)`; that of column `time` decides token
            `time`. A piece that has not ended after `max_length` tokens is cut there.
        temperature: Divides the logits; below 1e-6 it counts as 1e-6, the likeliest token always.
        prefix: Tokens that every piece begins with.
        bar: Id of the token that opens a bar; `num_bars` needs it.
        num_bars: Bars that every piece has, those of the prefix included: until so many are open
            it cannot end, and then no other opens. A piece that is cut may have fewer.
        precision: Of the recurrent layers.

    Raises:
        UserError: An argument is out of range, the prefix has no continuation, or the generator's
            logits are not finite.
    """
    num, max_length = draws.shape
    if not temperature > 0:
        raise UserError(f"temperature must be above 0, got {temperature}")
    state, num_open = _after_prefix(grammar, prefix, bar)
    if len(prefix) >= max_length:
        raise UserError(f"max_length must exceed the prefix's {len(prefix)}, got {max_length}")
    if num_bars is not None:
        if bar is None:
            raise UserError("num_bars needs a tokenizer that has bars")
        if num_bars < max(num_open, 1):
            raise UserError(
                f"num_bars must be at least 1 and the prefix's {num_open}, got {num_bars}"
            )

    device = generator.output.weight.device
    numbers = torch.tensor(draws.T[..., None] * _SHRINK, dtype=torch.float32, device=device)
    # Made outside of inference mode, so that the samples may be trained on.
    tokens = torch.full((num, max_length), PAD, device=device)
    tokens[:, : len(prefix)] = torch.tensor(prefix, device=device)
    with torch.inference_mode():
        stepper = FastStepper(generator, batch_size=num, precision=precision)
        for time in range(len(prefix) - 1):
            stepper.step(tokens[:, time])
        rows = torch.arange(num, device=device)
        chooser = _Chooser(grammar, torch.full_like(rows, state), bar, num_bars, num_open)
        latest = tokens[:, len(prefix) - 1]
        ended = torch.zeros_like(rows, dtype=torch.bool)
        time = len(prefix)
        while len(rows) and time < max_length:
            block = []
            for number in numbers[time : time + _BLOCK].index_select(1, rows):
                logits = stepper.step(latest)
                if temperature != 1:
                    logits.div_(max(temperature, _COLDEST))
                latest = chooser.draw(logits, number)
                block.append(latest)
            if not logits.isfinite().all():
                raise UserError("the generator's logits are not finite: its weights are damaged")
            drawn = torch.stack(block, dim=1)
            tokens[rows, time : time + len(block)] = drawn
            time += len(block)
            ended |= (drawn == END).any(1)
            # Each new batch size costs oneDNN about a millisecond of preparation.
            if 4 * int(ended.sum()) >= len(rows):
                kept = (~ended).nonzero().squeeze(1)
                rows, latest, ended = rows[kept], latest[kept], ended[kept]
                stepper.select(kept)
                chooser.select(kept)

    is_end = tokens == END
    lengths = torch.where(is_end.any(1), is_end.int().argmax(1) + 1, max_length)
    return Samples(tokens=tokens[:, : int(lengths.max())], lengths=lengths)


def _after_prefix(grammar: Grammar, prefix: Sequence[int], bar: int | None) -> tuple[int, int]:
    """State of the grammar behind the prefix, and the bars opened in it."""
    if not prefix:
        raise UserError("prefix must have at least one token, such as Start")
    wrong = grammar.first_error(np.array(prefix))
    if wrong is not None:
        raise UserError(f"prefix must obey the grammar, but not so token {wrong}: {prefix[wrong]}")
    if END in prefix:
        raise UserError("prefix must not contain End: nothing can follow it")
    state = 0
    for token in prefix:
        state = int(grammar.next_state[state, token])
    return state, sum(token == bar for token in prefix)


class _Chooser:
    """Draws by inverting the distribution function, and follows the grammar's state.

    A device that sums in parallel can round the distribution function upwards at a token that has
    no share. So the token found is looked up in a table of the next allowed one (the last, if there
    is none after it): what comes out is allowed whatever the arithmetic did.

    With `num_bars` every state has two rows in the tables: as it is before the last bar is open,
    without End, and then once more without Bar.
    """

    def __init__(
        self,
        grammar: Grammar,
        state: Tensor,
        bar: int | None,
        num_bars: int | None,
        num_open: int,
    ) -> None:
        allowed = grammar.allowed
        self._num_states, self._vocab_size = allowed.shape
        if num_bars is not None:
            allowed = np.concatenate([_without(allowed, END), _without(allowed, bar)])
        device = state.device
        forbidden = torch.from_numpy(~allowed).to(device)
        self._mask = torch.zeros(allowed.shape, device=device).masked_fill_(forbidden, -torch.inf)
        self._next_allowed = torch.from_numpy(_next_allowed(allowed).ravel()).to(device)
        self._next_state = torch.from_numpy(grammar.next_state.ravel()).to(device)
        self._bar, self._num_bars = bar, num_bars
        self._state = state
        self._num_open = torch.full_like(state, num_open)

    def draw(self, logits: Tensor, numbers: Tensor) -> Tensor:
        """Tokens `(batch,)` from logits `(batch, vocab)` and numbers in [0, 1), `(batch, 1)`."""
        row = self._state
        if self._num_bars is not None:
            row = row + self._num_states * (self._num_open >= self._num_bars)
        cdf = self._mask.index_select(0, row).add_(logits).softmax(-1).cumsum(-1)
        found = torch.searchsorted(cdf, numbers, right=True).squeeze(1)
        slot = torch.add(row, found, alpha=len(self._mask))
        token = self._next_allowed.index_select(0, slot)
        move = torch.add(token, self._state, alpha=self._vocab_size)
        self._state = self._next_state.index_select(0, move)
        if self._num_bars is not None:
            self._num_open += token == self._bar
        return token

    def select(self, rows: Tensor) -> None:
        """Go on with these pieces, by index."""
        self._state = self._state[rows]
        self._num_open = self._num_open[rows]


def _without(allowed: npt.NDArray[np.bool_], token: int | None) -> npt.NDArray[np.bool_]:
    """The table with a token forbidden, except where nothing else may come."""
    fewer = allowed.copy()
    fewer[:, token] = False
    return np.where(fewer.any(axis=1, keepdims=True), fewer, allowed)


def _next_allowed(allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """First allowed token from each on, the last one where none is: `(vocab + 1, states)`."""
    num_states, vocab_size = allowed.shape
    table = np.empty((vocab_size + 1, num_states), dtype=np.int64)
    table[-1] = vocab_size - 1 - allowed[:, ::-1].argmax(axis=1)
    for token in reversed(range(vocab_size)):
        table[token] = np.where(allowed[:, token], token, table[token + 1])
    return table
