"""Completions of every beginning of a batch of samples, for Monte-Carlo action values.

The samples are gone through once. At every time the states of all pieces are at hand, and the
completions start from copies of them, all pieces and all completions of a time side by side.

A completion that draws the very token that comes next in its sample is a completion of the longer
beginning as well. So completion k of every beginning of a sample reads the same row of random
numbers, and where it meets the sample it *is* completion k of the next beginning: it need not be
drawn, nor judged, twice. With a trained generator that is half of them. Each is still distributed
as one drawn alone, and independent of its sample, so that every mean over k stays unbiased; what
has changed is that the estimates at neighbouring times are correlated.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnngan.generator.fast import FastStepper, Precision
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.generator.sampling import BLOCK, SHRINK, Chooser
from rnngan.music.vocabulary import END, PAD, Grammar

_ROWS = 1024
"""Completions that grow side by side; the products gain nothing from more. What grows beside their
tokens and states is the memory of an attention, `rows · 2 · (2 · time + 128) · width` floats for
completions from `time` on: with a width of 128 270 MB at time 64, 1.2 GB at 512."""


@dataclass(frozen=True, kw_only=True)
class Completions:
    """Completions of beginnings of one length that leave their samples behind it.

    Attributes:
        time: Of the last token that they share with their samples.
        pieces: The sample that each completes, `(num,)`.
        numbers: Which of its completions, `(num,)`; k of the text above.
        tokens: `(num, time)`, the beginning included, PAD behind the end.
        lengths: `(num,)`, tokens up to and with End, or all of a piece that was cut before.
    """

    time: int
    pieces: Tensor
    numbers: Tensor
    tokens: Tensor
    lengths: Tensor


def completions(
    generator: RecurrentGenerator,
    grammar: Grammar,
    tokens: Tensor,
    lengths: Tensor,
    draws: npt.NDArray[np.floating],
    *,
    precision: Precision = "auto",
) -> Iterator[Completions]:
    """Every completion, at temperature 1, of every beginning that has a next token and one before.

    Where completion k of a sample's beginning up to some time is missing from what comes, it is the
    same as that of the beginning one token longer, and of the whole sample the sample itself.

    Cost: `batch` · time generator steps for the beginnings, and for each beginning, of `left`
    tokens to `max_length`, at most `num · left` for its completions.

    Args:
        generator: Its vocabulary is the grammar's.
        grammar: Of the tokenizer.
        tokens: Samples `(batch, time)`, PAD behind the end.
        lengths: Of the samples `(batch,)`.
        draws: Random numbers in [0, 1), `(batch, num, max_length)`, not those that the samples were
            drawn with. The one in column `time` decides token `time`, as in `sample`.
        precision: Of the recurrent layers.

    Raises:
        ValueError: A sample breaks the grammar, or is longer than `max_length`.
    """
    batch, num, max_length = draws.shape
    if tokens.shape[1] > max_length:
        raise ValueError(f"samples have {tokens.shape[1]} tokens, the numbers are for {max_length}")
    states = grammar.states_before(tokens.numpy(), lengths.numpy()).T
    chooser = Chooser(grammar, torch.from_numpy(states).long().flatten())
    uniform = torch.tensor(draws.transpose(2, 0, 1) * SHRINK, dtype=torch.float32)
    with torch.inference_mode():
        walker = FastStepper(generator, batch_size=batch, precision=precision)
        runner = FastStepper(generator, batch_size=batch, precision=precision)
    for time in range(tokens.shape[1] - 1):
        with torch.inference_mode():
            logits = walker.step(tokens[:, time])
        if time == 0:  # nobody drew Start
            continue
        going = (lengths > time + 1).nonzero().squeeze(1)
        for rows in (going[:, None] * num + torch.arange(num)).flatten().split(_ROWS):
            with torch.inference_mode():
                pieces = rows // num
                first = copy.copy(chooser)
                first.select((time + 1) * batch + pieces)
                latest = first.draw(logits[pieces], uniform[time + 1].flatten()[rows, None])
                left = (latest != tokens[pieces, time + 1]).nonzero().squeeze(1)
                if not len(left):
                    continue
                rows, pieces = rows[left], pieces[left]
                first.select(left)
                runner.set_state(walker.state())
                runner.select(pieces)
                begun = torch.full((len(left), max_length), PAD)
                begun[:, : time + 1] = tokens[pieces, : time + 1]
                begun[:, time + 1] = latest[left]
                _finish(runner, first, begun, uniform.flatten(1)[:, rows], time + 2)
                is_end = begun == END
                ends = torch.where(is_end.any(1), is_end.int().argmax(1) + 1, max_length)
            yield Completions(
                time=time, pieces=pieces, numbers=rows % num, tokens=begun, lengths=ends
            )


def _finish(
    stepper: FastStepper, chooser: Chooser, tokens: Tensor, uniform: Tensor, time: int
) -> None:
    """Draw what stands from `time` on into `tokens` `(num, max_length)`.

    The stepper has yet to see the token before `time`. `uniform` is `(max_length, num)`.
    """
    rows = torch.arange(len(tokens))
    latest, ended = tokens[:, time - 1], tokens[:, time - 1] == END
    while time < tokens.shape[1]:
        # Each new batch size costs oneDNN about a millisecond of preparation.
        if 4 * int(ended.sum()) >= len(rows):
            kept = (~ended).nonzero().squeeze(1)
            rows, latest, ended = rows[kept], latest[kept], ended[kept]
            if not len(rows):
                break
            stepper.select(kept)
            chooser.select(kept)
        block = []
        for numbers in uniform[time : time + BLOCK, rows, None]:
            latest = chooser.draw(stepper.step(latest), numbers)
            block.append(latest)
        drawn = torch.stack(block, dim=1)
        tokens[rows, time : time + len(block)] = drawn
        time += len(block)
        ended |= (drawn == END).any(1)
