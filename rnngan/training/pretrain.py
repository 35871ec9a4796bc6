"""Maximum likelihood: the first stage, and the baseline that refinement must beat."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from rnngan.config import WITH_ENCODER, PretrainConfig
from rnngan.data.batches import (
    MAX_HELD_OUT,
    Batch,
    Division,
    TrainingBatches,
    augmentation_of,
    division_of,
    held_out_batches,
    num_notes,
)
from rnngan.data.store import Store
from rnngan.errors import UserError
from rnngan.generator import registry
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.music.piece import Piece
from rnngan.objectives.likelihood import (
    autocast,
    held_out_likelihood,
    negative_log_likelihood,
    targets_of,
)
from rnngan.progress import Progress
from rnngan.training.checkpoint import AnyModel, Checkpoints, Model
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
    return registry.generator_for(run.config.generator, store.tokenizer)


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


class Lesson(ABC):
    """What pretraining teaches a generator, and how it is examined.

    Attributes:
        deciding: The held-out figure that is to fall.
        unit: Of that figure, in words.
        rows: What a piece is made of: tokens or notes.
        generator: Learns.
        division: How pieces are divided for it; None where it is told nothing.
        step: Updates that are done.
    """

    deciding: ClassVar[str]
    unit: ClassVar[str]
    rows: ClassVar[str]
    generator: nn.Module
    division: Division | None = None
    step: int = 0

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        """What is to be made small, a scalar with a gradient, and the rows that it is a mean of."""

    @abstractmethod
    def figure_of(self, loss: float) -> dict[str, float]:
        """The loss as the log tells it."""

    @abstractmethod
    def held_out(self) -> dict[str, float]:
        """Figures on validation pieces, the deciding one among them."""

    @abstractmethod
    def watch(self, monitor: Monitor, step: int) -> None:
        """Log what the generator writes."""

    @abstractmethod
    def model(self, metrics: Mapping[str, float]) -> AnyModel:
        """The generator as it is, to be kept."""


class LikelihoodLesson(Lesson):
    """Maximum likelihood of tokens."""

    deciding, unit, rows = "val_bits_per_token", "bits per token", "tokens"

    def __init__(self, run: Run, store: Store) -> None:
        self.generator: RecurrentGenerator = new_generator(run, store)
        self._run, self._tokenizer = run, store.tokenizer
        self._precision = run.config.pretrain.precision
        self._max_length = run.config.data.max_length
        self.division = division_of(run.config.generator, store.codec)
        self._validation = held_out_batches(store, "validation", division=self.division)
        self._pieces = store.pieces("validation", limit=MAX_HELD_OUT)
        self._num_notes = num_notes(self._validation, store.tokenizer)
        if not self._num_notes:
            raise UserError(
                f"--generator {run.config.generator.kind} finds nothing to write: the validation "
                "pieces of this corpus have a melody alone; take one whose pieces have several "
                "parts, such as bach-chorales"
            )
        self._evaluation = sample_evaluation(run, store, max_length=self._max_length)

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Nats per token."""
        targets = targets_of(batch, self._tokenizer.grammar)
        with autocast(self._precision):
            loss = negative_log_likelihood(self.generator, targets)
        return loss, len(targets.tokens)

    def figure_of(self, loss: float) -> dict[str, float]:
        """In bits."""
        return {"train_bits_per_token": loss / math.log(2)}

    def held_out(self) -> dict[str, float]:
        """Likelihood per token and per note."""
        bits, num_tokens = held_out_likelihood(
            self.generator, self._validation, self._tokenizer.grammar, precision=self._precision
        )
        return {
            "val_bits_per_token": bits / num_tokens,
            "val_bits_per_note": bits / self._num_notes,
        }

    def watch(self, monitor: Monitor, step: int) -> None:
        """See `rnngan.training.samples.watch`."""
        watch(
            monitor,
            self.generator,
            self._tokenizer,
            self._pieces,
            evaluation=self._evaluation,
            step=step,
            max_length=self._max_length,
            seed=self._run.config.seed,
            drawn=self.drawn(),
        )

    def drawn(self) -> list[Piece] | None:
        """What the generator writes when it is told what it has to be; None if that is nothing."""
        return None

    def model(self, metrics: Mapping[str, float]) -> Model:
        """See `Lesson`."""
        return Model(generator=self.generator, tokenizer=self._tokenizer, metrics=metrics)


def pretrain(run: Run, store: Store, *, progress: Progress, resume: bool = False) -> AnyModel:
    """Train the run's generator by maximum likelihood; the best on validation is returned.

    Raises:
        UserError: A checkpoint is damaged beyond use, or the disk takes no more.
    """
    return teach(lesson_of(run, store), run, store, progress=progress, resume=resume)


def lesson_of(run: Run, store: Store) -> Lesson:
    """What the run's kind of generator is taught."""
    from rnngan.training.informed import AutoencoderLesson, MelodiesLesson

    kind = run.config.generator.kind
    if kind in WITH_ENCODER:
        return (MelodiesLesson if kind == "seq2seq" else AutoencoderLesson)(run, store)
    return LikelihoodLesson(run, store)


def teach(
    lesson: Lesson, run: Run, store: Store, *, progress: Progress, resume: bool = False
) -> AnyModel:
    """Train the lesson's generator on a run's batches; the best on validation is returned.

    Raises:
        UserError: A checkpoint is damaged beyond use, or the disk takes no more.
    """
    config, data, seed = run.config.pretrain, run.config.data, run.config.seed
    checkpoints = Checkpoints(
        run.checkpoints, STAGE, keep=run.config.output.keep_checkpoints, say=progress.say
    )
    generator = lesson.generator
    optimizer = optimizer_of(
        generator, learning_rate=config.learning_rate, weight_decay=config.weight_decay
    )
    step, best, waited, halvings = 0, math.inf, 0, 0
    if resume and (resumed := checkpoints.latest()):
        step = resumed.step
        generator.load_state_dict(resumed.model.generator.state_dict())
        optimizer.load_state_dict(resumed.state["optimizer"])
        best = resumed.state["best"]
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
        division=lesson.division,
    )

    with Monitor(run.folder, STAGE, step=step, say=progress.say) as monitor:
        monitor.show_config(run.config)
        rows_done, clock = 0, time.monotonic()
        while step < config.steps and waited < config.patience:
            reseed_torch(seed, STAGE, step)
            rate = learning_rate_at(config, step, halvings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            generator.train()
            lesson.step = step
            loss, num_rows = lesson.loss(batches.batch(step))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(generator.parameters(), config.gradient_clip)
            optimizer.step()
            stop_unless_finite(STAGE, step, loss=loss.item(), gradient_norm=float(norm))
            step += 1
            rows_done += num_rows

            if step % run.config.output.log_every == 0:
                elapsed = time.monotonic() - clock
                figures = lesson.figure_of(loss.item()) | {
                    "gradient_norm": float(norm),
                    "learning_rate": rate,
                    f"{lesson.rows}_per_second": rows_done / elapsed,
                }
                monitor.scalars(step, {f"pretrain/{k}": v for k, v in figures.items()})
                rows_done, clock = 0, time.monotonic()
            progress.update(step, f"best validation {best:.3f} {lesson.unit}")

            if step % config.validate_every == 0 or step == config.steps:
                figures = lesson.held_out()
                monitor.scalars(step, {f"pretrain/{k}": v for k, v in figures.items()})
                lesson.watch(monitor, step)
                better = figures[lesson.deciding] < best
                best = min(best, figures[lesson.deciding])
                waited = 0 if better else waited + 1
                if config.schedule == "plateau" and waited and waited % _PLATEAU == 0:
                    halvings += 1
                checkpoints.save(
                    step,
                    lesson.model(figures),
                    {
                        "optimizer": optimizer.state_dict(),
                        "best": best,
                        "waited": waited,
                        "halvings": halvings,
                    },
                    best=better,
                )
                clock, rows_done = time.monotonic(), 0
        if waited >= config.patience:
            progress.say(
                f"pretraining stopped at step {step}: no better validation in {waited} trials"
            )
    return checkpoints.read_best()
