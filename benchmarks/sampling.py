"""How fast music is drawn: `python benchmarks/sampling.py --out benchmarks/sampling.md`.

Two ways of doing the same work take turns, A B A B, in one process, so that whatever else the
machine does meets both; what counts is the median over the turns.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from common import machine, median_ratio, table
from numpy.typing import NDArray
from torch import Tensor

from rnngan.config import WITH_ENCODER, GeneratorConfig
from rnngan.generator.encoder import EncoderDecoder
from rnngan.generator.recurrent import RecurrentGenerator, State
from rnngan.generator.registry import generator_for
from rnngan.generator.sampling import sample, uniforms
from rnngan.generator.search import beam_search, stochastic_beam_search
from rnngan.layers import BFLOAT16_IS_FAST
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.vocabulary import END, START, Grammar

BATCH_SIZES = (1, 16, 64, 256, 1024)
BARS = {512: (9.0, 4.3, 2.8, 2.2, 2.0), 256: (4.5, 2.4, 2.0, 1.8, 1.8)}
"""Least ratio that is wanted of each batch size, by hidden size."""
BEAM_BAR = 1.3
KINDS: dict[str, dict[str, object]] = {
    "lstm": {},
    "lstm with attention of 128": {"attention": 128},
    "gru": {"kind": "gru"},
    "rnn": {"kind": "rnn"},
    "peephole-lstm": {"kind": "peephole-lstm"},
    "conv-lstm": {"kind": "conv-lstm"},
    "seq2seq": {"kind": "seq2seq"},
    "vae": {"kind": "vae"},
    "autoencoder": {"kind": "autoencoder"},
}
KIND_SIZES = (64, 1024)
WIDTH, GROUPS = 8, (1, 8, 128)
"""Of beams."""
SOURCE = 128
"""Tokens that an encoder reads."""

TOKENIZER = Events(
    EventsConfig(
        metres=("4/4", "3/4", "6/8", "2/4"),
        lowest=21,
        highest=108,
        programs=tuple(range(71)),
        velocities=tuple(range(16, 128, 16)),
        tempos=tuple(float(tempo) for tempo in range(60, 181, 5)),
    )
)


def interleaved(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds that each work took in each of `repeats` turns, after one turn to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            start = perf_counter()
            work()
            if turn:
                seconds[name].append(perf_counter() - start)
    return seconds


def endless(grammar: Grammar) -> Grammar:
    """The grammar without End, so that every piece has the same length."""
    next_state = grammar.next_state.copy()
    next_state[:, END] = -1
    return Grammar(next_state)


def fresh(**settings: object) -> RecurrentGenerator:
    """An untrained generator of two layers, without attention unless said."""
    torch.manual_seed(0)
    config = GeneratorConfig(**({"attention": 0} | settings))  # type: ignore[arg-type]
    return generator_for(config, TOKENIZER).eval()


@torch.inference_mode()
def plain_samples(generator: RecurrentGenerator, num: int, length: int) -> Tensor:
    """The usual loop: a step of `nn.LSTM`, softmax, multinomial; no grammar."""
    tokens = torch.full((num, length), START)
    state = None
    for time in range(1, length):
        hidden, state = generator.rnn(generator.embedding(tokens[:, time - 1 : time]), state)
        probs = generator.output(hidden[:, 0]).softmax(-1)
        tokens[:, time] = torch.multinomial(probs, 1).squeeze(1)
    return tokens


@torch.inference_mode()
def plain_choices(
    generator: RecurrentGenerator, grammar: Grammar, draws: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The same loop under a grammar without End, with given random numbers.

    Returns:
        Tokens `(num, length)`, and how far each one's number lies from the nearest border between
        two tokens in the distribution function, which is float64 from the logits on.
    """
    tokens = np.full(draws.shape, START)
    distances = np.ones(draws.shape)
    states, memory = grammar.next_state[0, tokens[:, 0]], None
    for time in range(1, draws.shape[1]):
        latest = torch.from_numpy(tokens[:, time - 1 : time])
        hidden, memory = generator.rnn(generator.embedding(latest), memory)
        logits = generator.output(hidden[:, 0]).double().numpy()
        scores = np.where(grammar.allowed[states], logits, -np.inf)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        heights = np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)
        number = draws[:, time : time + 1]
        tokens[:, time] = (heights <= number).sum(axis=1)
        distances[:, time] = np.abs(heights - number).min(axis=1)
        states = grammar.next_state[states, tokens[:, time]]
    return tokens, distances


def agreement(generator: RecurrentGenerator, grammar: Grammar, num: int, length: int) -> str:
    """How many pieces in float32 are those of the plain loop, token for token."""
    draws = uniforms(1, range(num), length)
    found = sample(generator, grammar, draws, precision="float32").tokens.numpy()
    expected, distances = plain_choices(generator, grammar, draws)
    differs = found != expected
    others = differs.any(axis=1).nonzero()[0]
    told = f"{num - len(others)} of {num}"
    if len(others):
        first = differs.argmax(axis=1)[others]
        told += f" (number within {distances[others, first].max():.0e} of a border)"
    return told


def against_plain(length: int, repeats: int) -> str:
    """Table of the time per token position of a batch, plain loop against `sample`."""
    grammar = endless(TOKENIZER.grammar)
    rows = []
    for hidden_size, bars in BARS.items():
        generator = fresh(hidden_size=hidden_size)
        for num, bar in zip(BATCH_SIZES, bars):
            rows.append(plain_row(generator, grammar, num, bar, length, repeats))
            print(f"sampling: {rows[-1]}", flush=True)
    header = [
        "hidden", "batch", "plain, µs", "float32, µs", "auto, µs", "plain / float32",
        "plain / auto", "bar", "tokens/s, auto", "pieces equal to the plain loop's, float32",
    ]  # fmt: skip
    return "\n".join(
        [
            "## Against a plain loop",
            "",
            f"{length} tokens, vocabulary of {len(TOKENIZER.vocabulary)}, embedding of 128, two "
            "layers, no attention; time per token position of the whole batch. Plain is `nn.LSTM` "
            "one step at a time in float32 with softmax and multinomial, without a grammar; the "
            "others are `rnngan.generator.sampling.sample` under the grammar, setting up included; "
            "auto is the default, bfloat16 where the processor computes in it (a piece alone is "
            f"always float32). Medians over {repeats} turns, the ratios too; the bar is for auto. "
            "In the last column plain and float32 get the same random numbers and grammar; pieces "
            "are equal in all tokens, or else it is said how near the first number with another "
            "outcome lies to the border between two tokens.",
            "",
            table(header, rows),
        ]
    )


def plain_row(
    generator: RecurrentGenerator, grammar: Grammar, num: int, bar: float, length: int, repeats: int
) -> list[str]:
    """One size of network and batch."""
    draws = uniforms(0, range(num), length)
    seconds = interleaved(
        {
            "plain": lambda: plain_samples(generator, num, length),
            "float32": lambda: sample(generator, grammar, draws, precision="float32"),
            "auto": lambda: sample(generator, grammar, draws),
        },
        repeats,
    )
    per_step = {name: statistics.median(t) / (length - 1) for name, t in seconds.items()}
    return [
        str(generator.config.hidden_size),
        str(num),
        *(f"{1e6 * time:,.0f}" for time in per_step.values()),
        f"{median_ratio(seconds['plain'], seconds['float32']):.1f}",
        f"{median_ratio(seconds['plain'], seconds['auto']):.1f}",
        str(bar),
        f"{num / per_step['auto']:,.0f}",
        agreement(generator, grammar, num, length),
    ]


def of_kinds(length: int, repeats: int) -> str:
    """Table of the time per token position of every kind of generator, beside that of the LSTM."""
    grammar = endless(TOKENIZER.grammar)
    generators = {name: fresh(**settings) for name, settings in KINDS.items()}
    columns = {}
    for num in KIND_SIZES:
        draws = uniforms(0, range(num), length)
        works: dict[str, Callable[[], object]] = {
            name: partial(sample, generator, grammar, draws, start=begun(generator, num))
            for name, generator in generators.items()
        }
        columns[num] = interleaved(works, repeats)
        print(f"kinds: batch {num} done", flush=True)
    rows = []
    for name, generator in generators.items():
        cells = [name, "yes" if generator.is_fast else "no"]
        for seconds in columns.values():
            per_step = statistics.median(seconds[name]) / (length - 1)
            cells += [
                f"{1e6 * per_step:,.0f}",
                f"{median_ratio(seconds[name], seconds['lstm']):.2f}",
            ]
        rows.append(cells)
    header = ["generator", "fast path"]
    for num in columns:
        header += [f"{num} pieces, µs", "/ lstm"]
    return "\n".join(
        [
            "## Every kind of generator",
            "",
            f"Two layers of {generators['lstm'].config.hidden_size}, {length} tokens; time per "
            f"token position of the whole batch, auto; medians over {repeats} turns. Those with an "
            f"encoder ({', '.join(WITH_ENCODER)}) have read {SOURCE} tokens before, and go through "
            "their own `step` in float32: beside each token stands what they were told.",
            "",
            table(header, rows),
        ]
    )


@torch.inference_mode()
def begun(generator: RecurrentGenerator, num: int) -> State | None:
    """Where pieces begin: behind what an encoder has read, or nowhere."""
    if not isinstance(generator, EncoderDecoder):
        return None
    draws = uniforms(2, range(num), SOURCE)
    read = sample(fresh(), endless(TOKENIZER.grammar), draws).tokens
    return generator.encode(read, torch.full((num,), SOURCE)).state


def of_beams(length: int, repeats: int) -> str:
    """Table of searches beside sampling as many sequences."""
    rows = []
    for hidden_size in BARS:
        for attention in (0, 128):
            generator = fresh(hidden_size=hidden_size, attention=attention)
            for groups in GROUPS:
                rows.append(beam_row(generator, groups, length, repeats))
                print(f"beams: {rows[-1]}", flush=True)
    header = [
        "hidden", "attention", "sequences", "sampling, µs", "beam search, µs", "/ sampling",
        "stochastic, µs", "/ sampling", "bar",
    ]  # fmt: skip
    return "\n".join(
        [
            "## Beam search",
            "",
            f"Groups of {WIDTH} beams, {length} tokens, auto; time per token position of all "
            "sequences. Beam search is of one group, the stochastic one of as many as there are "
            f"sequences. Medians over {repeats} turns, the ratios too.",
            "",
            table(header, rows),
        ]
    )


def beam_row(generator: RecurrentGenerator, groups: int, length: int, repeats: int) -> list[str]:
    """One generator and number of groups."""
    grammar, num = endless(TOKENIZER.grammar), groups * WIDTH
    draws = uniforms(0, range(num), length)
    works: dict[str, Callable[[], object]] = {
        "sampling": lambda: sample(generator, grammar, draws),
        "stochastic": lambda: stochastic_beam_search(
            generator, grammar, WIDTH, seed=0, groups=range(groups), max_length=length
        ),
    }
    if groups == 1:
        works["beam"] = lambda: beam_search(generator, grammar, WIDTH, max_length=length)
    seconds = interleaved(works, repeats)

    def cells(name: str) -> list[str]:
        if name not in seconds:
            return ["–", "–"]
        per_step = statistics.median(seconds[name]) / (length - 1)
        return [f"{1e6 * per_step:,.0f}", f"{median_ratio(seconds[name], seconds['sampling']):.2f}"]

    return [
        str(generator.config.hidden_size),
        str(generator.config.attention),
        str(num),
        cells("sampling")[0],
        *cells("beam"),
        *cells("stochastic"),
        str(BEAM_BAR),
    ]


def main() -> None:
    """Run all and print, or write, the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--length", type=int, default=256, help="tokens per sample")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each way")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    about = machine(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads",
        f"bfloat16 products: {'yes' if BFLOAT16_IS_FAST else 'no'}",
    )
    parts = [
        "# Sampling",
        about,
        *(part(options.length, options.repeats) for part in (against_plain, of_kinds, of_beams)),
    ]
    report = "\n\n".join(parts) + "\n"
    print(report)
    if options.out:
        options.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
