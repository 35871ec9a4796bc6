"""How fast the networks are on this machine: `python benchmarks/training.py --out training.md`.

Two ways of doing the same work take turns, A B A B, in one process, so that whatever else the
machine does meets both; what counts is the median over the turns.
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from common import machine, median_ratio, table
from torch import nn
from torch.nn import functional as F

from rnngan.config import GeneratorConfig, preset
from rnngan.data.batches import Batch, TrainingBatches, augmentation_of, held_out_batches
from rnngan.data.prepare import prepare
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.generator.registry import new_generator
from rnngan.generator.sampling import sample, uniforms
from rnngan.layers import BFLOAT16_IS_FAST
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.vocabulary import END, PAD, START, Grammar
from rnngan.objectives.likelihood import (
    autocast,
    held_out_likelihood,
    negative_log_likelihood,
    targets_of,
)
from rnngan.training.pretrain import learning_rate_at, optimizer_of

HIDDEN_SIZES = (256, 512)
BATCH_SIZES = (1, 16, 64, 256, 1024)


def torch_machine() -> str:
    """What the numbers were measured on."""
    return machine(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads",
        f"bfloat16 products: {'yes' if BFLOAT16_IS_FAST else 'no'}",
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


def plain_samples(generator: RecurrentGenerator, num: int, length: int) -> torch.Tensor:
    """The usual loop: a step of `nn.LSTM`, softmax, multinomial; no grammar."""
    tokens = torch.full((num, length), START)
    state = None
    with torch.inference_mode():
        for position in range(1, length):
            logits, state = generator.step(tokens[:, position - 1], state)
            tokens[:, position] = torch.multinomial(logits.softmax(-1), 1).squeeze(1)
    return tokens


def endless(grammar: Grammar) -> Grammar:
    """The grammar without End, so that every piece has the same length."""
    next_state = grammar.next_state.copy()
    next_state[:, END] = -1
    return Grammar(next_state)


def sampling(length: int, repeats: int) -> str:
    """Table of the time per token position of a batch, plain loop against `sample`."""
    tokenizer = Events(
        EventsConfig(
            metres=("4/4", "3/4", "6/8", "2/4"),
            lowest=28,
            highest=100,
            velocities=tuple(range(16, 128, 16)),
            tempos=tuple(float(tempo) for tempo in range(60, 181, 10)),
        )
    )
    grammar = endless(tokenizer.grammar)
    vocab_size = len(tokenizer.vocabulary)
    rows = []
    for hidden_size in HIDDEN_SIZES:
        torch.manual_seed(0)
        config = GeneratorConfig(hidden_size=hidden_size, embedding_size=128, num_layers=2)
        generator = new_generator(config, vocab_size).eval()
        for num in BATCH_SIZES:
            rows.append(sampling_row(generator, grammar, num, length, repeats))
            print(f"sampling: hidden {hidden_size}, batch {num} done", flush=True)
    header = [
        "hidden",
        "batch",
        "plain, µs",
        "float32, µs",
        "auto, µs",
        "plain / float32",
        "plain / auto",
        "tokens/s, auto",
    ]
    return "\n".join(
        [
            "## Sampling",
            "",
            f"{length} tokens, vocabulary of {vocab_size}, embedding of 128, two layers; time per "
            "token position of the whole batch. Plain is `nn.LSTM` one step at a time in float32 "
            "with softmax and multinomial, without a grammar; the others are "
            "`rnngan.generator.sampling.sample` under the grammar, setting up included. Medians "
            f"over {repeats} turns, the ratios too.",
            "",
            table(header, rows),
        ]
    )


def sampling_row(
    generator: RecurrentGenerator, grammar: Grammar, num: int, length: int, repeats: int
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
        f"{num / per_step['auto']:,.0f}",
    ]


class PlainModel(nn.Module):
    """A first attempt: embedding, `nn.LSTM`, linear layer, torch's own initial weights."""

    def __init__(self, config: GeneratorConfig, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.embedding_size)
        self.rnn = nn.LSTM(
            config.embedding_size,
            config.hidden_size,
            config.num_layers,
            batch_first=True,
            dropout=config.layer_dropout,
        )
        self.output = nn.Linear(config.hidden_size, vocab_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the next token."""
        return self.output(self.rnn(self.embedding(tokens))[0])


def plain_loss(model: PlainModel, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy, nats; the padding is computed, and then ignored."""
    tokens = torch.from_numpy(batch.tokens)
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD)


@torch.no_grad()
def plain_bits(model: PlainModel, batches: list[Batch]) -> float:
    """Held-out bits per token."""
    model.eval()
    nats = sum(float(plain_loss(model, b)) * int((b.lengths - 1).sum()) for b in batches)
    model.train()
    return nats / sum(int((b.lengths - 1).sum()) for b in batches) / math.log(2)


def pretraining(batch_size: int, steps: int, every: int) -> str:
    """Table of a pretraining step against the plain loop, with held-out likelihood."""
    config = preset("base")
    with tempfile.TemporaryDirectory() as folder:
        store = prepare(config.data, Path(folder) / "store", seed=0)
        batches = TrainingBatches(
            store,
            batch_size=batch_size,
            max_length=config.data.max_length,
            augmentation=augmentation_of(config.data),
            seed=0,
        )
        validation = held_out_batches(store, "validation")
        grammar, vocab_size = store.tokenizer.grammar, len(store.tokenizer.vocabulary)
        torch.manual_seed(0)
        plain = PlainModel(config.generator, vocab_size)
        ours = new_generator(config.generator, vocab_size)
        adam = torch.optim.Adam(plain.parameters())
        adamw = optimizer_of(
            ours,
            learning_rate=config.pretrain.learning_rate,
            weight_decay=config.pretrain.weight_decay,
        )
        schedule = dataclasses.replace(config.pretrain, steps=steps)

        def plain_step(step: int) -> None:
            loss = plain_loss(plain, batches.batch(step))
            adam.zero_grad()
            loss.backward()
            adam.step()

        def our_step(step: int) -> None:
            for group in adamw.param_groups:
                group["lr"] = learning_rate_at(schedule, step, 0)
            with autocast("auto"):
                loss = negative_log_likelihood(ours, targets_of(batches.batch(step), grammar))
            adamw.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(ours.parameters(), schedule.gradient_clip)
            adamw.step()

        seconds: dict[str, list[float]] = {"plain": [], "ours": []}
        bits: dict[str, dict[int, float]] = {"plain": {}, "ours": {}}
        num_tokens = []
        for step in range(steps):
            num_tokens.append(int((batches.batch(step).lengths - 1).sum()))
            for name, work in (("plain", plain_step), ("ours", our_step)):
                start = time.perf_counter()
                work(step)
                seconds[name].append(time.perf_counter() - start)
            if (step + 1) % every == 0:
                bits["plain"][step + 1] = plain_bits(plain, validation)
                total, count = held_out_likelihood(ours, validation, grammar, precision="float32")
                bits["ours"][step + 1] = total / count
                print(f"pretraining: {step + 1} of {steps} steps", flush=True)

    speed = {k: sum(num_tokens) / sum(v) for k, v in seconds.items()}
    ratio = median_ratio(seconds["plain"], seconds["ours"])
    # Steps of the plain loop in the time that ours took for all of its own.
    clock = list(itertools.accumulate(seconds["plain"]))
    in_time = max(1, bisect.bisect(clock, sum(seconds["ours"])))
    reached = [step for step in bits["plain"] if step <= in_time]
    equal_time = f"{bits['plain'][reached[-1]]:.3f} (step {reached[-1]})" if reached else "–"
    rows = [
        ["plain", f"{speed['plain']:,.0f}", f"{bits['plain'][steps]:.3f}", equal_time],
        [
            "ours",
            f"{speed['ours']:,.0f}",
            f"{bits['ours'][steps]:.3f}",
            f"{bits['ours'][steps]:.3f}",
        ],
    ]
    return "\n".join(
        [
            f"## Pretraining, batches of {batch_size}",
            "",
            f"{steps} steps on Ryan's Mammoth Collection, the same batches of "
            f"{batch_size} excerpts for both, step about. Plain is an embedding, "
            "`nn.LSTM`, a linear layer and `torch.optim.Adam` with its defaults in float32. Ratio "
            f"of tokens per second, ours / plain: **{speed['ours'] / speed['plain']:.2f}**; median "
            f"ratio of the seconds per step: {ratio:.2f}.",
            "",
            table(
                [
                    "",
                    "tokens/s",
                    f"validation bits per token after {steps} steps",
                    f"after the {sum(seconds['ours']):.0f} s that ours took",
                ],
                rows,
            ),
        ]
    )


def main() -> None:
    """Run all and print, or write, the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--length", type=int, default=256, help="tokens per sample")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each way")
    parser.add_argument("--steps", type=int, default=300, help="pretraining steps")
    parser.add_argument("--every", type=int, default=25, help="steps between validations")
    arguments = parser.parse_args()
    parts = [
        "# Speed",
        torch_machine(),
        pretraining(32, arguments.steps, arguments.every),
        pretraining(64, arguments.steps // 3, arguments.every),
        sampling(arguments.length, arguments.repeats),
    ]
    report = "\n\n".join(parts) + "\n"
    print(report)
    if arguments.out:
        arguments.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
