"""Every generator, trained with the same budget of processor seconds, on two corpora.

    python benchmarks/generators.py --work FOLDER --out benchmarks/generators.md
        [--budget 150] [--corpora ryans-mammoth bach-chorales] [--generators lstm gru …] [--seeds 0]

A few updates of each are timed; from these follows how many the budget pays for, and the schedules
of learning rate and divergence are stretched over them. What counts is the time that the one thread
of this process computes, so that other jobs on the machine matter little; validation is not paid
for. What is finished is kept in FOLDER: broken off and begun again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, table
from sampling import endless

from rnngan.config import RunConfig, changed, preset
from rnngan.data.batches import Batch, division_of, held_out_batches
from rnngan.data.prepare import prepare
from rnngan.data.store import Store
from rnngan.files import write_atomically
from rnngan.generator import tuples
from rnngan.generator.recurrent import RecurrentGenerator, State
from rnngan.generator.sampling import sample, uniforms
from rnngan.generator.seq2seq import Seq2Seq
from rnngan.generator.vae import VAE, latents_from_prior
from rnngan.music.vocabulary import Grammar, Vocabulary
from rnngan.objectives.likelihood import target_log_probs, targets_of, tensors_of
from rnngan.objectives.squared_error import held_out_squared_errors
from rnngan.progress import Progress
from rnngan.training.baselines import network_likelihood
from rnngan.training.checkpoint import AnyModel, TuplesModel
from rnngan.training.continuous import SquaredErrorLesson
from rnngan.training.informed import AutoencoderLesson, MelodiesLesson
from rnngan.training.monitor import Monitor
from rnngan.training.pretrain import Lesson, LikelihoodLesson, teach
from rnngan.training.run import Run
from rnngan.training.seeds import seed_for

Figures = dict[str, Any]

CORPORA = ("ryans-mammoth", "bach-chorales")
CALIBRATION = 17
"""Updates that are timed beforehand: the first to warm up, then as many as are sorted by length
together."""
VALIDATIONS = 5
NUM, LENGTH, TURNS = 64, 512, 3
"""Pieces side by side, tokens of each, and turns, when sampling is timed."""
TAGS = {"ryans-mammoth": ("style", "mode", "density"), "bach-chorales": ("mode", "density")}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A row of the table.

    Attributes:
        changes: Settings that are not the preset's.
        tagged: Pieces begin with tags.
        slow: Why sampling does not go through `FastStepper`; empty where it does.
        notes: Numbers of the notes below the table.
    """

    changes: dict[str, dict[str, Any]]
    tagged: bool = False
    slow: str = ""
    notes: str = ""


def of_kind(kind: str, **more: Any) -> Kind:
    """A kind of generator with the preset's other settings."""
    return Kind(changes={"generator": {"kind": kind}}, **more)


KINDS = {
    "lstm": of_kind("lstm"),
    "lstm without attention": Kind(changes={"generator": {"attention": 0}}),
    "lstm with tags": Kind(changes={}, tagged=True, notes="1"),
    "gru": of_kind("gru"),
    "rnn": of_kind("rnn"),
    "peephole-lstm": of_kind("peephole-lstm"),
    "conv-lstm": of_kind("conv-lstm"),
    "seq2seq": of_kind("seq2seq", slow="looks into the melody, by time, at every step", notes="2"),
    "vae": of_kind("vae", slow="reads its latent beside every token", notes="3"),
    "autoencoder": of_kind("autoencoder", slow="likewise", notes="3"),
    "tuples": Kind(
        changes={"generator": {"kind": "tuples"}, "data": {"tokenizer": "tuples"}},
        slow="writes real numbers: no logits to draw from",
        notes="4",
    ),
}
NOTES = """1. Its tokens tell style (Ryan's Mammoth only), mode and density first; these are
predicted and count, too. In brackets the bits per note of all other tokens, given the tags.
2. It is told the melody: bits of the other three parts alone, given the melody, and notes of
those. Ryan's Mammoth has one part, which leaves nothing to write.
3. Of the first four bars of each piece, which are what it is told and writes again. The vae's are a
bound from above on the negative log-likelihood; the autoencoder's are what is lost on the way
through 32 numbers, and bound nothing.
4. Real numbers have no likelihood. In its place the squared error of the next note, mean over gap,
length, frequency and velocity; columns have standard deviation 1, so that the average note costs
about 1. Tokens per second are notes per second."""


class Timed(Lesson):
    """Counts processor seconds and rows of training, before a kind of lesson; watches nothing.

    Attributes:
        clock: Processor seconds at the beginning of each update since the last validation.
        seconds: Of all updates up to the last validation.
        num_rows: Tokens or notes of these.
        pace: Seconds per update at the end of them, the first left out.
    """

    def __init__(self, run: Run, store: Store) -> None:
        super().__init__(run, store)  # type: ignore[call-arg]
        self.clock: list[float] = []
        self.seconds, self.num_rows, self.pace = 0.0, 0, math.nan

    def loss(self, batch: Batch) -> tuple[torch.Tensor, int]:
        """See `Lesson`."""
        self.clock.append(time.process_time())
        loss, num_rows = super().loss(batch)  # type: ignore[safe-super]
        self.num_rows += num_rows
        return loss, num_rows

    def held_out(self) -> dict[str, float]:
        """See `Lesson`."""
        self.clock.append(time.process_time())
        self.seconds += self.clock[-1] - self.clock[0]
        if len(self.clock) > 2:
            self.pace = (self.clock[-1] - self.clock[1]) / (len(self.clock) - 2)
        self.clock = []
        return super().held_out()  # type: ignore[safe-super]

    def watch(self, monitor: Monitor, step: int) -> None:
        """Nothing."""


class TimedLikelihood(Timed, LikelihoodLesson):
    """Of most generators."""


class TimedMelodies(Timed, MelodiesLesson):
    """Of seq2seq."""


class TimedAutoencoder(Timed, AutoencoderLesson):
    """Of vae and autoencoder."""


class TimedSquaredError(Timed, SquaredErrorLesson):
    """Of tuples."""


LESSONS: dict[str, type[Timed]] = {
    "seq2seq": TimedMelodies,
    "vae": TimedAutoencoder,
    "autoencoder": TimedAutoencoder,
    "tuples": TimedSquaredError,
}
"""Of the kinds of generators that learn something else than the likelihood of whole pieces."""


def taught(folder: Path, config: RunConfig, store: Store, steps: int) -> tuple[Timed, AnyModel]:
    """A lesson of so many updates from a new run, and the best model of it."""
    shutil.rmtree(folder, ignore_errors=True)
    stretch = steps / config.pretrain.steps
    config = changed(
        config,
        pretrain={
            "steps": steps,
            "warmup_steps": round(stretch * config.pretrain.warmup_steps),
            "kl_warmup_steps": round(stretch * config.pretrain.kl_warmup_steps),
            "validate_every": max(-(-steps // VALIDATIONS), CALIBRATION),
        },
        output={"evaluate_samples": False, "keep_checkpoints": 1},
    )
    run = Run.begin(folder, config, stages=("pretrain",), store=store.folder, resume=False)
    lesson = LESSONS.get(config.generator.kind, TimedLikelihood)(run, store)
    with Progress(folder.name, steps) as progress:
        return lesson, teach(lesson, run, store, progress=progress)


def measured(work: Path, corpus: str, name: str, seed: int, budget: float) -> Figures:
    """All figures of a generator; from its file, if they were measured before."""
    kind, place = KINDS[name], f"{corpus}/{seed}/{name.replace(' ', '-')}"
    kept = work / f"{place}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    config = replace(changed(preset("base"), **({"data": {}} | kind.changes)), seed=seed)
    tags = TAGS[corpus] if kind.tagged else ()
    config = changed(config, data={"corpus": corpus, "tags": tags})
    of_store = "tagged" if kind.tagged else config.data.tokenizer
    store = prepare(config.data, work / corpus / of_store, seed=0, report=False, workers=1)
    trial, _ = taught(work / place, config, store, CALIBRATION)
    lesson, model = taught(work / place, config, store, max(round(budget / trial.pace), 1))
    found = {
        "budget": budget,
        "parameters": sum(weight.numel() for weight in model.generator.parameters()),
        "steps": lesson.step + 1,
        "seconds": lesson.seconds,
        "trained_per_second": lesson.num_rows / lesson.seconds,
        "sampled_per_second": sampled_per_second(model, store),
        **held_out(model, store, tagged=kind.tagged, seed=seed),
    }
    write_atomically(kept, json.dumps(found, indent=1).encode())
    return found


def held_out(model: AnyModel, store: Store, *, tagged: bool, seed: int) -> Figures:
    """What the model makes of the test pieces."""
    if isinstance(model, TuplesModel):
        errors = held_out_squared_errors(
            model.generator, held_out_batches(store, "test"),
            seed=seed_for(seed, "held-out noise"), precision="float32",
        )  # fmt: skip
        return {"squared_error": float(errors.mean())}
    found = network_likelihood("", model, store)
    figures = {"bits_per_token": found.bits_per_token, "bits_per_note": found.bits_per_note}
    if tagged:
        batches = held_out_batches(store, "test")
        bits, total = bits_of_tags(
            model.generator, batches, store.tokenizer.vocabulary, store.tokenizer.grammar
        )
        figures["bits_per_note_given_tags"] = found.bits_per_note * (1 - bits / total)
    return figures


@torch.no_grad()
def bits_of_tags(
    generator: RecurrentGenerator,
    batches: Iterable[Batch],
    vocabulary: Vocabulary,
    grammar: Grammar,
) -> tuple[float, float]:
    """Bits that a generator needs for tags, and for all tokens."""
    tags = vocabulary.ids("Tag")
    of_tags = total = 0.0
    for batch in batches:
        targets = targets_of(batch, grammar)
        chosen = target_log_probs(generator, targets).gather(1, targets.tokens[:, None]).double()
        is_tag = (targets.tokens >= tags.start) & (targets.tokens < tags.stop)
        of_tags -= float(chosen[is_tag].sum())
        total -= float(chosen.sum())
    return of_tags / math.log(2), total / math.log(2)


def sampled_per_second(model: AnyModel, store: Store) -> float:
    """Tokens, or notes, per processor second; median over turns, after one to warm up."""
    speeds = []
    for turn in range(1 + TURNS):
        started = time.process_time()
        if isinstance(model, TuplesModel):
            drawn = tuples.draw(model.generator, turn, range(NUM), max_length=LENGTH)
            num_drawn = int(drawn.lengths.sum())
        else:
            draws = uniforms(turn, range(NUM), LENGTH)
            start = begun(model.generator, store, turn)
            sample(model.generator, endless(store.tokenizer.grammar), draws, start=start)
            num_drawn = NUM * (LENGTH - 1)
        speeds.append(num_drawn / (time.process_time() - started))
    return statistics.median(speeds[1:])


@torch.inference_mode()
def begun(generator: RecurrentGenerator, store: Store, seed: int) -> State | None:
    """Where pieces begin: behind latents of the prior, or held-out melodies, or nowhere."""
    if isinstance(generator, VAE):
        return generator.begin(latents_from_prior(seed, range(NUM), generator.config.latent_size))
    if not isinstance(generator, Seq2Seq):
        return None
    division = division_of(generator.config, store.codec)
    told = held_out_batches(store, "validation", division=division)[-1].source
    assert told is not None
    rows = np.resize(np.arange(len(told.lengths)), NUM)
    return generator.encode(*(part[rows] for part in tensors_of(told))).state


def report(found: dict[str, dict[str, list[Figures]]], budget: float) -> str:
    """The table of each corpus."""
    parts = []
    for corpus, kinds in found.items():
        rows = [row_of(name, KINDS[name], seeds) for name, seeds in kinds.items()]
        header = [
            "generator", "parameters", "updates", "seconds", "tokens/s, training",
            "tokens/s, sampling", "fast path", "bits per token", "bits per note", "note",
        ]  # fmt: skip
        parts += [f"## {corpus}", "", table(header, rows), ""]
    about = machine(f"torch {torch.__version__}, {torch.get_num_threads()} thread")
    return "\n\n".join(["# Generators", about, introduction(budget), "\n".join(parts), NOTES, ""])


def row_of(name: str, kind: Kind, seeds: list[Figures]) -> list[str]:
    """Means over seeds."""
    mean = {key: statistics.mean(f[key] for f in seeds) for key in seeds[0]}
    bits = (
        [f"{mean['bits_per_token']:.3f}", f"{mean['bits_per_note']:.3f}"]
        if ("bits_per_token" in mean)
        else ["–", f"squared error {mean['squared_error']:.3f}"]
    )
    if "bits_per_note_given_tags" in mean:
        bits[1] += f" ({mean['bits_per_note_given_tags']:.3f})"
    return [
        name,
        f"{mean['parameters']:,.0f}",
        f"{mean['steps']:,.0f}",
        f"{mean['seconds']:.0f}",
        f"{mean['trained_per_second']:,.0f}",
        f"{mean['sampled_per_second']:,.0f}",
        f"no: {kind.slow}" if kind.slow else "yes",
        *bits,
        kind.notes,
    ]


def introduction(budget: float) -> str:
    """What the tables hold."""
    return f"""Each generator is trained for about {budget:g} processor seconds of one thread with
the settings of the preset `base` (two layers of 256, attention of 128 unless said, batches of 32
excerpts of up to 512 tokens, the same learning rate for all), the schedules stretched over as many
updates as that pays for. Of {VALIDATIONS} validations the best is taken; bits are of the test
pieces, under the grammar. Sampling writes {NUM} pieces of {LENGTH} tokens side by side, in
processor seconds of one thread, setting up included."""


def can_learn(corpus: str, name: str) -> bool:
    """Whether there is anything in the corpus that the generator could write."""
    return not (name == "seq2seq" and corpus == "ryans-mammoth")


def main() -> None:
    """Run what is missing, and write the tables after every generator."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps everything")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--budget", type=float, default=150.0, help="seconds of training of each")
    parser.add_argument("--corpora", nargs="+", default=CORPORA, choices=CORPORA)
    parser.add_argument("--generators", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[Figures]]] = {}
    for seed in options.seeds:
        for corpus in options.corpora:
            for name in options.generators:
                if not can_learn(corpus, name):
                    continue
                figures = measured(options.work, corpus, name, seed, options.budget)
                found.setdefault(corpus, {}).setdefault(name, []).append(figures)
                print(f"{corpus}, seed {seed}, {name}: {figures}", flush=True)
                if options.out:
                    options.out.write_text(report(found, options.budget), encoding="utf-8")
    print(report(found, options.budget))


if __name__ == "__main__":
    main()
