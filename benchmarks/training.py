"""How fast a generator is trained: `python benchmarks/training.py --out benchmarks/training.md`.

Two ways of doing the same work take turns, A B A B, in one process, so that whatever else the
machine does meets both; what counts is the median over the turns. `sampling.py` has drawing.
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import itertools
import math
import tempfile
import time
from pathlib import Path

import torch
from common import machine, median_ratio, table
from torch import nn
from torch.nn import functional as F

from rnngan.config import GeneratorConfig, preset
from rnngan.data.batches import Batch, TrainingBatches, augmentation_of, held_out_batches
from rnngan.data.prepare import prepare
from rnngan.generator.registry import new_generator
from rnngan.layers import BFLOAT16_IS_FAST
from rnngan.music.vocabulary import PAD
from rnngan.objectives.likelihood import (
    autocast,
    held_out_likelihood,
    negative_log_likelihood,
    targets_of,
)
from rnngan.training.pretrain import learning_rate_at, optimizer_of


def torch_machine() -> str:
    """What the numbers were measured on."""
    return machine(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads",
        f"bfloat16 products: {'yes' if BFLOAT16_IS_FAST else 'no'}",
    )


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
    parser.add_argument("--steps", type=int, default=300, help="pretraining steps")
    parser.add_argument("--every", type=int, default=25, help="steps between validations")
    arguments = parser.parse_args()
    parts = [
        "# Training",
        torch_machine(),
        pretraining(32, arguments.steps, arguments.every),
        pretraining(64, arguments.steps // 3, arguments.every),
    ]
    report = "\n\n".join(parts) + "\n"
    print(report)
    if arguments.out:
        arguments.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
