"""Drawing token sequences from a generator, under its tokenizer's grammar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnngan.errors import UserError
from rnngan.generator.fast import FastStepper, Precision
from rnngan.generator.lstm import LSTMGenerator
from rnngan.layers import grammar_log_softmax
from rnngan.music.vocabulary import END, PAD, START, Grammar

_COLDEST = 1e-6
"""Below this temperature the likeliest token is certain, and logits would overflow."""
SHRINK = 1 - 2**-20
"""Keeps a random number next to 1 below the end of a rounded distribution function, where it would
fall to a token of no probability. Probabilities change by 1e-6 at most, as by rounding itself."""
BLOCK = 16
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


Regroup = Callable[[Tensor, Tensor], Tensor | None]
"""From the tokens so far `(num, time)` and their lengths `(num,)`, those of ended pieces shorter,
to the piece `(num,)` that each becomes a copy of; None leaves all as they are."""


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
    top_k: int = 0,
    top_p: float = 1.0,
    prefix: Sequence[int] = (START,),
    bar: int | None = None,
    num_bars: int | None = None,
    precision: Precision = "auto",
    regroup: Regroup | None = None,
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
        top_k: Draw from so many likeliest tokens alone, see `truncated`; 0 draws from all.
        top_p: Draw from the nucleus of this probability alone, likewise; 1 draws from all.
        prefix: Tokens that every piece begins with.
        bar: Id of the token that opens a bar; `num_bars` needs it.
        num_bars: Bars that every piece has, those of the prefix included: until so many are open
            it cannot end, and then no other opens. A piece that is cut may have fewer.
        precision: Of the recurrent layers.
        regroup: Asked every few tokens, about a bar of a tune, which pieces go on.

    Raises:
        UserError: An argument is out of range, the prefix has no continuation, or the generator's
            logits are not finite.
    """
    num, max_length = draws.shape
    _check(temperature, top_k, top_p)
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
    numbers = torch.tensor(draws.T[..., None] * SHRINK, dtype=torch.float32, device=device)
    # Made outside of inference mode, so that the samples may be trained on.
    tokens = torch.full((num, max_length), PAD, device=device)
    tokens[:, : len(prefix)] = torch.tensor(prefix, device=device)
    with torch.inference_mode():
        stepper = FastStepper(generator, batch_size=num, precision=precision)
        for time in range(len(prefix) - 1):
            stepper.step(tokens[:, time])
        rows = torch.arange(num, device=device)
        states = torch.full_like(rows, state)
        chooser = Chooser(grammar, states, bar, num_bars, num_open, top_k, top_p)
        latest = tokens[:, len(prefix) - 1]
        ended = torch.zeros_like(rows, dtype=torch.bool)
        time = len(prefix)
        while len(rows) and time < max_length:
            block = []
            for number in numbers[time : time + BLOCK].index_select(1, rows):
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
            ancestors = regroup(tokens[:, :time], _lengths(tokens[:, :time])) if regroup else None
            if ancestors is not None:
                place = torch.zeros_like(tokens[:, 0])
                place[rows] = torch.arange(len(rows), device=device)
                tokens[:, :time] = tokens[ancestors, :time]
                rows = (~(tokens[:, :time] == END).any(1)).nonzero().squeeze(1)
                kept = place[ancestors[rows]]
                latest, ended = latest[kept], torch.zeros_like(rows, dtype=torch.bool)
                stepper.select(kept)
                chooser.select(kept)

    lengths = _lengths(tokens)
    return Samples(tokens=tokens[:, : int(lengths.max())], lengths=lengths)


def _lengths(tokens: Tensor) -> Tensor:
    """Tokens up to and with End, or all: `(num,)` from `(num, time)`."""
    is_end = tokens == END
    return torch.where(is_end.any(1), is_end.int().argmax(1) + 1, tokens.shape[1])


def truncated(probs: Tensor, *, top_k: int, top_p: float) -> Tensor:
    """The likeliest tokens alone, with a sum of 1 again: `(..., vocab)` as given.

    First the `top_k` likeliest are kept (0 keeps all), and of these then the nucleus: the fewest
    likeliest that have at least the share `top_p` of what the first step kept (1 keeps all). Of
    tokens as likely as each other the lower id comes first.

    References:
        Fan, Lewis & Dauphin, "Hierarchical neural story generation", 2018 (top-k); Holtzman et
        al., "The curious case of neural text degeneration", 2020, eq. 2-3 (nucleus).
    """
    ranked, order = probs.sort(dim=-1, descending=True, stable=True)
    if top_k:
        rank = torch.arange(ranked.shape[-1], device=probs.device)
        ranked = ranked.masked_fill(rank >= top_k, 0)
    if top_p < 1:
        before = ranked.cumsum(-1) - ranked
        ranked = ranked.masked_fill(before >= top_p * ranked.sum(-1, keepdim=True), 0)
    return torch.zeros_like(probs).scatter(-1, order, ranked / ranked.sum(-1, keepdim=True))


def drawing_log_probs(
    logits: Tensor,
    allowed: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Tensor:
    """Log-probabilities with which `sample` draws each token: `(..., vocab)`, −inf if never.

    Args:
        logits: `(..., vocab)`.
        allowed: Boolean, the same shape; at least one token per row.
        temperature: As in `sample`, likewise `top_k` and `top_p`.
        top_k: Tokens.
        top_p: Probability.

    Raises:
        UserError: A setting is out of range.
    """
    _check(temperature, top_k, top_p)
    log_probs = grammar_log_softmax(logits / max(temperature, _COLDEST), allowed)
    if top_k or top_p < 1:
        return truncated(log_probs.exp(), top_k=top_k, top_p=top_p).log()
    return log_probs


def _check(temperature: float, top_k: int, top_p: float) -> None:
    if not temperature > 0:
        raise UserError(f"temperature must be above 0, got {temperature}")
    if top_k < 0:
        raise UserError(f"top_k must be at least 1, or 0 for all tokens, got {top_k}")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p must be above 0 and at most 1, which is all tokens, got {top_p}")


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


class Chooser:
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
        top_k: int,
        top_p: float,
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
        self._top_k, self._top_p = top_k, top_p
        self._state = state
        self._num_open = torch.full_like(state, num_open)

    def draw(self, logits: Tensor, numbers: Tensor) -> Tensor:
        """Tokens `(batch,)` from logits `(batch, vocab)` and numbers in [0, 1), `(batch, 1)`."""
        row = self._state
        if self._num_bars is not None:
            row = row + self._num_states * (self._num_open >= self._num_bars)
        probs = self._mask.index_select(0, row).add_(logits).softmax(-1)
        if self._top_k or self._top_p < 1:
            probs = truncated(probs, top_k=self._top_k, top_p=self._top_p)
            # The table of allowed tokens does not know those that were cut off just now.
            found = ((probs.cumsum(-1) > numbers) & (probs > 0)).int().argmax(-1)
        else:
            found = torch.searchsorted(probs.cumsum(-1), numbers, right=True).squeeze(1)
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
