"""Maximum likelihood: the first stage, and the baseline that refinement must beat."""

from __future__ import annotations

import math
import time

from torch import nn

from rnngan.config import PretrainConfig
from rnngan.data.batches import (
    MAX_HELD_OUT,
    TrainingBatches,
    augmentation_of,
    held_out_batches,
)
from rnngan.data.store import Store
from rnngan.errors import UserError
from rnngan.generator import registry
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.objectives.likelihood import (
    autocast,
    held_out_likelihood,
    negative_log_likelihood,
    targets_of,
)
from rnngan.progress import Progress
from rnngan.training.checkpoint import Checkpoints, Model
from rnngan.training.monitor import Monitor
from rnngan.training.optimizers import optimizer_of
from rnngan.training.run import Run
from rnngan.training.samples import sample_evaluation, watch
from rnngan.training.seeds import reseed_torch, seed_for

STAGE = "pretrain"
_PLATEAU = 2  # validations without improvement before the rate is halved


def new_generator(run: Run, store: Store) -> RecurrentGenerator:
    """Untrained generator of a run."""
    reseed_torch(run.config.seed, "generator")
    return registry.new_generator(run.config.generator, len(store.tokenizer.vocabulary))


def learning_rate_at(config: PretrainConfig, step: int, halvings: int) -> float:
    """Rate of an update: warm-up from 0, then cosine to a hundredth, or a power of a half."""
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    if config.schedule == "plateau":
        return config.learning_rate * warmup * 0.5**halvings
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))
    return config.learning_rate * warmup * (0.01 + 0.99 * cosine)


def stop_unless_finite(stage: str, step: int, **figures: float) -> None:
    """Raise before numbers that are none reach a checkpoint.

    Raises:
        UserError: One of the figures is NaN or infinite.
    """
    for name, value in figures.items():
        if not math.isfinite(value):
            raise UserError(
                f"{stage} stopped at step {step}: {name} became {value}; the last checkpoint is "
                f"sound; go on from it with --resume and a smaller learning rate in another run"
            )


def pretrain(run: Run, store: Store, *, progress: Progress, resume: bool = False) -> Model:
    """Train the run's generator by maximum likelihood; the best on validation is returned.

    Raises:
        UserError: A checkpoint is damaged beyond use, or the disk takes no more.
    """
    config, data = run.config.pretrain, run.config.data
    seed, grammar = run.config.seed, store.tokenizer.grammar
    checkpoints = Checkpoints(
        run.checkpoints, STAGE, keep=run.config.output.keep_checkpoints, say=progress.say
    )
    generator = new_generator(run, store)
    optimizer = optimizer_of(
        generator, learning_rate=config.learning_rate, weight_decay=config.weight_decay
    )
    step, best_bits, waited, halvings = 0, math.inf, 0, 0
    if resume and (resumed := checkpoints.latest()):
        step = resumed.step
        generator.load_state_dict(resumed.model.generator.state_dict())
        optimizer.load_state_dict(resumed.state["optimizer"])
        best_bits = resumed.state["best_bits"]
        waited, halvings = resumed.state["waited"], resumed.state["halvings"]
        progress.say(f"going on after {step} steps of pretraining")
        progress.resume(step)

    batches = TrainingBatches(
        store,
        batch_size=config.batch_size,
        max_length=data.max_length,
        augmentation=augmentation_of(data),
        transpose_steps=round(config.transpose_rate * config.steps),
        seed=seed_for(seed, "batches"),
    )
    validation = held_out_batches(store, "validation")
    held_out_pieces = store.pieces("validation", limit=MAX_HELD_OUT)
    num_notes = sum(len(piece.notes) for piece in held_out_pieces)
    evaluation = sample_evaluation(run, store, max_length=data.max_length)

    with Monitor(run.folder, STAGE, step=step, say=progress.say) as monitor:
        monitor.show_config(run.config)
        tokens_done, clock = 0, time.monotonic()
        while step < config.steps and waited < config.patience:
            reseed_torch(seed, STAGE, step)
            rate = learning_rate_at(config, step, halvings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            targets = targets_of(batches.batch(step), grammar)
            generator.train()
            with autocast(config.precision):
                loss = negative_log_likelihood(generator, targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(generator.parameters(), config.gradient_clip)
            optimizer.step()
            stop_unless_finite(STAGE, step, loss=loss.item(), gradient_norm=float(norm))
            step += 1
            tokens_done += len(targets.tokens)

            if step % run.config.output.log_every == 0:
                elapsed = time.monotonic() - clock
                monitor.scalars(
                    step,
                    {
                        "pretrain/train_bits_per_token": loss.item() / math.log(2),
                        "pretrain/gradient_norm": float(norm),
                        "pretrain/learning_rate": rate,
                        "pretrain/tokens_per_second": tokens_done / elapsed,
                    },
                )
                tokens_done, clock = 0, time.monotonic()
            progress.update(step, f"best validation {best_bits:.3f} bits per token")

            if step % config.validate_every == 0 or step == config.steps:
                bits, num_tokens = held_out_likelihood(
                    generator, validation, grammar, precision=config.precision
                )
                figures = {
                    "val_bits_per_token": bits / num_tokens,
                    "val_bits_per_note": bits / num_notes,
                }
                monitor.scalars(step, {f"pretrain/{k}": v for k, v in figures.items()})
                watch(
                    monitor,
                    generator,
                    store.tokenizer,
                    held_out_pieces,
                    evaluation=evaluation,
                    step=step,
                    max_length=data.max_length,
                    seed=seed,
                )
                better = figures["val_bits_per_token"] < best_bits
                best_bits = min(best_bits, figures["val_bits_per_token"])
                waited = 0 if better else waited + 1
                if config.schedule == "plateau" and waited and waited % _PLATEAU == 0:
                    halvings += 1
                checkpoints.save(
                    step,
                    Model(generator=generator, tokenizer=store.tokenizer, metrics=figures),
                    {
                        "optimizer": optimizer.state_dict(),
                        "best_bits": best_bits,
                        "waited": waited,
                        "halvings": halvings,
                    },
                    best=better,
                )
                clock, tokens_done = time.monotonic(), 0
        if waited >= config.patience:
            progress.say(
                f"pretraining stopped at step {step}: no better validation in {waited} trials"
            )
    return checkpoints.read_best()
