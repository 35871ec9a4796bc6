"""Drawing token sequences from a generator, under its tokenizer's grammar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnngan.errors import UserError
from rnngan.generator.contrast import ContrastedStepper
from rnngan.generator.fast import Precision
from rnngan.generator.plain import Stepper, stepper_of, without_dropout
from rnngan.generator.recurrent import RecurrentGenerator, State
from rnngan.layers import grammar_log_softmax
from rnngan.music.vocabulary import END, PAD, START, Grammar

_COLDEST = 1e-6
"""Below this temperature the likeliest token is certain, and logits would overflow."""
SHRINK = 1 - 2**-20
"""Keeps a random number next to 1 below the end of a rounded distribution function, where it would
fall to a token of no probability. Probabilities change by 1e-6 at most, as by rounding itself."""
MAX_TOKENS = 1024
"""A piece without a set number of bars ends here at the latest."""
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


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How the next token is chosen among those that the grammar allows.

    In this order: logits of recent tokens are penalised, n-grams that came before are forbidden,
    the temperature divides, and the softmax is truncated. What would leave no token is passed over.

    Attributes:
        temperature: Divides the logits, above 0; below 1e-6 it counts as 1e-6, the likeliest token
            always.
        top_k: Only so many likeliest tokens, see `truncated`; 0 for all.
        top_p: Only the nucleus of this probability, likewise; 1 for all.
        min_bars: Until so many bars are open a piece does not end.
        max_bars: When so many are open no other opens; None for no bound. Bars of a prefix count.
        no_repeat_ngram: No n-gram of so many tokens comes twice, see `ends_repeated_ngram`; 0 for
            no such rule, else at least 2.
        repetition_penalty: Above 1 a token of the last `repetition_window` becomes less likely, see
            `penalised`; 1 for none.
        repetition_window: Tokens.
        tag_weight: How much more tags count than the generator learnt, see `ContrastedStepper`; 0
            for not at all, and never below.
        untagged: Of each token of the vocabulary the one that stands there where its tag is not
            told, see `rnngan.music.tokenizers.tags.untagged`; a weight needs it.

    Raises:
        UserError: A value is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_bars: int = 0
    max_bars: int | None = None
    no_repeat_ngram: int = 0
    repetition_penalty: float = 1.0
    repetition_window: int = 64
    tag_weight: float = 0.0
    untagged: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature must be above 0, got {self.temperature}")
        if self.top_k < 0:
            raise UserError(f"top_k must be at least 1, or 0 for all tokens, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise UserError(
                f"top_p must be above 0 and at most 1, which is all tokens, got {self.top_p}"
            )
        if self.min_bars < 0:
            raise UserError(f"min_bars must be at least 0, got {self.min_bars}")
        if self.max_bars is not None and self.max_bars < max(self.min_bars, 1):
            raise UserError(
                f"max_bars must be at least 1 and min_bars, {self.min_bars}, got {self.max_bars}"
            )
        if self.no_repeat_ngram < 0 or self.no_repeat_ngram == 1:
            raise UserError(
                f"no_repeat_ngram must be at least 2, or 0 for none, got {self.no_repeat_ngram}"
            )
        if not 0 < self.repetition_penalty < float("inf"):
            raise UserError(
                f"repetition_penalty must be above 0, and 1 is none, got {self.repetition_penalty}"
            )
        if self.repetition_window < 1:
            raise UserError(f"repetition_window must be at least 1, got {self.repetition_window}")
        if not 0 <= self.tag_weight < float("inf"):
            raise UserError(f"tag_weight must be at least 0, got {self.tag_weight}")
        if self.tag_weight and not self.untagged:
            raise ValueError("a tag_weight needs to know what is untagged")

    @property
    def truncates(self) -> bool:
        """Whether tokens are left out for being unlikely."""
        return self.top_k > 0 or self.top_p < 1

    @property
    def remembers(self) -> bool:
        """Whether the choice depends on the tokens before beyond what the generator knows."""
        return self.no_repeat_ngram > 0 or self.repetition_penalty != 1


AS_THE_MODEL = Decoding()
"""The model's own distribution under the grammar."""

Regroup = Callable[[Tensor, Tensor], Tensor | None]
"""From the tokens so far `(num, time)` and their lengths `(num,)`, those of ended pieces shorter,
to the piece `(num,)` that each becomes a copy of; None leaves all as they are."""


def uniforms(seed: int, indices: Sequence[int], length: int) -> npt.NDArray[np.float32]:
    """Random numbers in [0, 1) for each piece: `(num, length)`.

    A piece's numbers follow from the seed and its index alone: they do not depend on which others
    are drawn beside it, and a greater length only adds to them.

    Raises:
        UserError: The seed or an index is negative or beyond 64 bits.
    """
    table = np.empty((len(indices), length), dtype=np.float32)
    for row, index in zip(table, indices):
        stream(seed, index).random(out=row, dtype=np.float32)
    return table


def stream(seed: int, index: int) -> np.random.Generator:
    """Random numbers that follow from a seed and an index.

    Raises:
        UserError: One of them is negative or beyond 64 bits.

    References:
        Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011 (Philox).
    """
    if not (0 <= seed < 2**64 and 0 <= index < 2**64):
        raise UserError(f"seed and index must be 0 to 2^64 - 1, got {seed} and {index}")
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))


def sample(
    generator: RecurrentGenerator,
    grammar: Grammar,
    draws: npt.NDArray[np.floating],
    decoding: Decoding = AS_THE_MODEL,
    *,
    prefix: Sequence[int] = (START,),
    bar: int | None = None,
    precision: Precision = "auto",
    regroup: Regroup | None = None,
    start: State | None = None,
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
            `time`. A piece that has not ended after `max_length` tokens is cut there, and may have
            fewer bars than it should.
        decoding: How tokens are chosen.
        prefix: Tokens that every piece begins with.
        bar: Id of the token that opens a bar; bounds on the number of bars need it.
        precision: Of the recurrent layers.
        regroup: Asked every few tokens, about a bar of a tune, which pieces go on.
        start: Of each piece the state before its first token; by default that of nothing known.

    Raises:
        UserError: An argument is out of range, the prefix has no continuation, or the generator's
            logits are not finite.
    """
    num, max_length = draws.shape
    device = generator.output.weight.device
    numbers = torch.tensor(draws.T[..., None] * SHRINK, dtype=torch.float32, device=device)
    # Made outside of inference mode, so that the samples may be trained on.
    tokens = torch.full((num, max_length), PAD, device=device)
    with torch.inference_mode():
        stepper, chooser = begin(
            generator, grammar, decoding, num=num, max_length=max_length, prefix=prefix, bar=bar,
            precision=precision, start=start,
        )  # fmt: skip
        tokens[:, : len(prefix)] = torch.tensor(prefix, device=device)
        latest = tokens[:, len(prefix) - 1]
        rows = torch.arange(num, device=device)
        ended = torch.zeros_like(rows, dtype=torch.bool)
        time = len(prefix)
        while len(rows) and time < max_length:
            block = []
            for number in numbers[time : time + BLOCK].index_select(1, rows):
                logits = stepper.step(latest)
                latest = chooser.draw(logits, number)
                block.append(latest)
            check_finite(logits)
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
            ancestors = regroup(tokens[:, :time], lengths_of(tokens[:, :time])) if regroup else None
            if ancestors is not None:
                place = torch.zeros_like(tokens[:, 0])
                place[rows] = torch.arange(len(rows), device=device)
                tokens[:, :time] = tokens[ancestors, :time]
                rows = (~(tokens[:, :time] == END).any(1)).nonzero().squeeze(1)
                kept = place[ancestors[rows]]
                latest, ended = latest[kept], torch.zeros_like(rows, dtype=torch.bool)
                stepper.select(kept)
                chooser.select(kept)

    lengths = lengths_of(tokens)
    return Samples(tokens=tokens[:, : int(lengths.max())], lengths=lengths)


def begin(
    generator: RecurrentGenerator,
    grammar: Grammar,
    decoding: Decoding,
    *,
    num: int,
    max_length: int,
    prefix: Sequence[int],
    bar: int | None,
    precision: Precision,
    start: State | None = None,
) -> tuple[Stepper | ContrastedStepper, Chooser]:
    """What steps, and what chooses, for `num` pieces that have all of the prefix behind them.

    The stepper has yet to see the prefix's last token. Under `torch.inference_mode()`, as the
    stepper wants it.

    Raises:
        UserError: The prefix is empty, breaks the grammar, has ended, leaves no room within
            `max_length`, or has more bars than there may be; or bars are bounded where there are
            none.
    """
    state = _state_after(grammar, prefix)
    if len(prefix) >= max_length:
        raise UserError(f"max_length must exceed the prefix's {len(prefix)}, got {max_length}")
    num_open = sum(token == bar for token in prefix)
    if (decoding.min_bars or decoding.max_bars) and bar is None:
        raise UserError("a number of bars needs a tokenizer that has bars")
    if decoding.max_bars is not None and decoding.max_bars < num_open:
        raise UserError(
            f"max_bars must be at least the prefix's {num_open}, got {decoding.max_bars}"
        )
    device = generator.output.weight.device
    stepper: Stepper | ContrastedStepper
    stepper = told = _behind(generator, prefix, num, precision, start)
    if decoding.tag_weight:
        bare = [decoding.untagged[token] for token in prefix]
        stepper = ContrastedStepper(
            told,
            _behind(generator, bare, num, precision, start),
            weight=decoding.tag_weight,
            untagged=torch.tensor(decoding.untagged, device=device),
        )
    chooser = Chooser(
        grammar,
        torch.full((num,), state, device=device),
        decoding,
        bar=bar,
        num_open=num_open,
        history=torch.tensor(prefix, device=device).expand(num, -1),
    )
    return stepper, chooser


def _behind(
    generator: RecurrentGenerator,
    prefix: Sequence[int],
    num: int,
    precision: Precision,
    start: State | None,
) -> Stepper:
    """A stepper of `num` pieces that has yet to see the prefix's last token."""
    told = torch.tensor([prefix[:-1]], dtype=torch.long, device=generator.output.weight.device)
    if start is None and len(prefix) == 1:
        return stepper_of(generator, batch_size=num, precision=precision)
    if start is None:
        stepper = stepper_of(generator, batch_size=1, precision=precision)
        stepper.set_state(_state_behind(generator, told, None))
        stepper.select(torch.zeros(num, dtype=torch.long, device=told.device))
        return stepper
    stepper = stepper_of(generator, batch_size=num, precision=precision)
    stepper.set_state(
        _state_behind(generator, told.expand(num, -1), start) if len(prefix) > 1 else start
    )
    return stepper


def _state_behind(generator: RecurrentGenerator, tokens: Tensor, start: State | None) -> State:
    """The generator's state after tokens `(batch, time)`, found in one pass without dropout."""
    with without_dropout(generator):
        _, state = generator.hidden(tokens, start)
    return state


def check_finite(logits: Tensor) -> None:
    """See that a generator gives numbers.

    Raises:
        UserError: It does not.
    """
    if not logits.isfinite().all():
        raise UserError("the generator's logits are not finite: its weights are damaged")


def lengths_of(tokens: Tensor) -> Tensor:
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


def ends_repeated_ngram(history: Tensor, size: int, vocab_size: int) -> Tensor:
    """Tokens that would make the last `size` tokens an n-gram that came before.

    Args:
        history: `(batch, time)`.
        size: Tokens of an n-gram, at least 2.
        vocab_size: Number of tokens.

    Returns:
        Boolean, `(batch, vocab)`.

    References:
        Paulus, Xiong & Socher, "A deep reinforced model for abstractive summarization", 2018,
        section 2.5, there for trigrams of words.
    """
    found = torch.zeros(len(history), vocab_size + 1, dtype=torch.bool, device=history.device)
    if history.shape[1] >= size:
        ngrams = history.unfold(1, size, 1)
        alike = (ngrams[..., :-1] == history[:, None, 1 - size :]).all(-1)
        found.scatter_(1, torch.where(alike, ngrams[..., -1], vocab_size), True)
    return found[:, :-1]


def penalised(logits: Tensor, recent: Tensor, penalty: float) -> Tensor:
    """Logits `(batch, vocab)` in which tokens of `recent` `(batch, time)` are made less likely.

    Logits above 0 are divided by the penalty, others multiplied by it: divided, as the paper has
    it, a logit below 0 would rise.

    References:
        Keskar et al., "CTRL: a conditional transformer language model for controllable generation",
        2019, section 4.1.
    """
    of_recent = logits.gather(1, recent)
    return logits.scatter(
        1, recent, torch.where(of_recent > 0, of_recent / penalty, of_recent * penalty)
    )


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
        temperature: As in `Decoding`, likewise `top_k` and `top_p`.
        top_k: Tokens.
        top_p: Probability.

    Raises:
        UserError: A setting is out of range.
    """
    decoding = Decoding(temperature=temperature, top_k=top_k, top_p=top_p)
    log_probs = grammar_log_softmax(logits / max(temperature, _COLDEST), allowed)
    if decoding.truncates:
        return truncated(log_probs.exp(), top_k=top_k, top_p=top_p).log()
    return log_probs


def _state_after(grammar: Grammar, prefix: Sequence[int]) -> int:
    """State of the grammar behind the prefix."""
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
    return state


class Chooser:
    """Says how likely each token is to be drawn, draws, and follows the grammar's state.

    It draws by inverting the distribution function. A device that sums in parallel can round that
    upwards at a token that has no share. So the token found is looked up in a table of the next
    allowed one (the last, if there is none after it): what comes out is allowed whatever the
    arithmetic did.

    With bounds on the bars every state has three rows in the tables: first without End, while there
    are too few bars; then as it is; then without Bar, when there are enough.

    Args:
        grammar: Of the tokenizer.
        state: Of the grammar, of each piece, `(batch,)`.
        decoding: How tokens are chosen.
        bar: Id of the token that opens a bar.
        num_open: Bars that are open by now.
        history: Tokens by now `(batch, time)`; where `decoding` remembers, it is needed.
    """

    def __init__(
        self,
        grammar: Grammar,
        state: Tensor,
        decoding: Decoding = AS_THE_MODEL,
        *,
        bar: int | None = None,
        num_open: int = 0,
        history: Tensor | None = None,
    ) -> None:
        allowed = grammar.allowed
        self._num_states, self._vocab_size = allowed.shape
        self._bounded = bool(decoding.min_bars or decoding.max_bars)
        if self._bounded:
            allowed = np.concatenate([_without(allowed, END), allowed, _without(allowed, bar)])
        device = state.device
        forbidden = torch.from_numpy(~allowed).to(device)
        self._mask = torch.zeros(allowed.shape, device=device).masked_fill_(forbidden, -torch.inf)
        self._next_allowed = torch.from_numpy(_next_allowed(allowed).ravel()).to(device)
        self._next_state = torch.from_numpy(grammar.next_state.ravel()).to(device)
        self._bar, self._decoding = bar, decoding
        self._max_bars = float("inf") if decoding.max_bars is None else decoding.max_bars
        self._state = state
        self._num_open = torch.full_like(state, num_open)
        self._history = history

    def draw(self, logits: Tensor, numbers: Tensor) -> Tensor:
        """Tokens `(batch,)` by logits `(batch, vocab)` and numbers in [0, 1), `(batch, 1)`.

        The logits may be changed.
        """
        row = self._row()
        scores = self._scores(logits, row)
        probs = scores.softmax(-1)
        decoding = self._decoding
        if decoding.truncates or decoding.remembers:
            if decoding.truncates:
                probs = truncated(probs, top_k=decoding.top_k, top_p=decoding.top_p)
            # The table of allowed tokens does not know those that were cut off just now.
            heights = probs.cumsum(-1)
            token = ((heights > numbers * heights[:, -1:]) & (probs > 0)).int().argmax(-1)
        else:
            found = torch.searchsorted(probs.cumsum(-1), numbers, right=True).squeeze(1)
            slot = torch.add(row, found, alpha=len(self._mask))
            token = self._next_allowed.index_select(0, slot)
        self.follow(token)
        return token

    def log_probs(self, logits: Tensor) -> Tensor:
        """Log-probabilities with which `draw` draws each token, `(batch, vocab)`.

        The logits may be changed.
        """
        scores = self._scores(logits, self._row())
        decoding = self._decoding
        if decoding.truncates:
            return truncated(scores.softmax(-1), top_k=decoding.top_k, top_p=decoding.top_p).log()
        return scores.log_softmax(-1)

    def follow(self, token: Tensor) -> None:
        """Go on behind these tokens `(batch,)`."""
        move = torch.add(token, self._state, alpha=self._vocab_size)
        self._state = self._next_state.index_select(0, move)
        if self._bounded:
            self._num_open += token == self._bar
        if self._decoding.remembers and self._history is not None:
            self._history = torch.cat([self._history, token[:, None]], dim=1)

    def select(self, rows: Tensor) -> None:
        """Go on with these pieces, by index."""
        self._state = self._state[rows]
        self._num_open = self._num_open[rows]
        if self._decoding.remembers and self._history is not None:
            self._history = self._history[rows]

    def _row(self) -> Tensor:
        """Of each piece, in the tables."""
        if not self._bounded:
            return self._state
        enough = (self._num_open >= self._decoding.min_bars).long()
        enough += self._num_open >= self._max_bars
        return torch.add(self._state, enough, alpha=self._num_states)

    def _scores(self, logits: Tensor, row: Tensor) -> Tensor:
        """Logits of the tokens that may come, as the softmax takes them; −inf for all others."""
        decoding, history = self._decoding, self._history
        if decoding.repetition_penalty != 1 and history is not None:
            recent = history[:, -decoding.repetition_window :]
            logits = penalised(logits, recent, decoding.repetition_penalty)
        if decoding.temperature != 1:
            logits.div_(max(decoding.temperature, _COLDEST))
        scores: Tensor = self._mask.index_select(0, row).add_(logits)
        if decoding.no_repeat_ngram and history is not None:
            repeats = ends_repeated_ngram(history, decoding.no_repeat_ngram, self._vocab_size)
            without = scores.masked_fill(repeats, -torch.inf)
            none_left = (without == -torch.inf).all(-1, keepdim=True)
            scores = torch.where(none_left, scores, without)
        return scores


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
