"""Adversarial refinement: the pretrained generator against a discriminator."""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from rnngan.data.augment import Augmentation
from rnngan.data.batches import MAX_HELD_OUT, Batch, TrainingBatches, held_out_batches, padded
from rnngan.data.store import Store
from rnngan.discriminator.base import Discriminator
from rnngan.discriminator.registry import new_discriminator
from rnngan.errors import UserError
from rnngan.generator.sampling import MAX_TOKENS, Decoding
from rnngan.objectives.base import (
    AnyObjective,
    AnyPlayers,
    Diverged,
    Objective,
    Players,
    Round,
    draw,
    need_finite,
)
from rnngan.objectives.likelihood import (
    Targets,
    autocast,
    held_out_likelihood,
    target_log_probs,
    targets_of,
)
from rnngan.objectives.policy_gradient import entropy, kl_divergence
from rnngan.objectives.registry import OBJECTIVES
from rnngan.progress import Progress
from rnngan.training.checkpoint import AnyModel, Checkpoints, Model, of_tokens
from rnngan.training.critic import Critic
from rnngan.training.guard import (
    Breach,
    Guard,
    diversity_figures,
    ngrams_of,
    write_breaches,
)
from rnngan.training.monitor import Monitor
from rnngan.training.optimizers import optimizer_of
from rnngan.training.pretrain import STAGE as PRETRAIN
from rnngan.training.residual import fit_residual
from rnngan.training.run import Run
from rnngan.training.samples import sample_evaluation, watch
from rnngan.training.seeds import reseed_torch, seed_for

STAGE = "refine"
GUARDED_SAMPLES = 64
"""That the guard looks at."""
_MOST_KNOWN = 5000
"""Training pieces, at most, in which copied n-grams are looked for."""
_MOST_REAL = 2000
"""Training pieces, at most, that the residual learns from."""


def refine(run: Run, store: Store, *, progress: Progress, resume: bool = False) -> AnyModel:
    """Refine the run's pretrained generator; the last that passed the guard is returned.

    Raises:
        UserError: The run has not been pretrained, a checkpoint is damaged beyond use, the
            objective does not suit the networks, or the disk takes no more.
    """

    def begin(pretrained: AnyModel, checkpoints: Checkpoints) -> Refinement:
        return Refinement(run, store, of_tokens(pretrained), checkpoints, progress=progress)

    return played(begin, run, progress=progress, resume=resume)


def played(
    begin: Callable[[AnyModel, Checkpoints], AnyRefinement],
    run: Run,
    *,
    progress: Progress,
    resume: bool,
) -> AnyModel:
    """Play a run's refinement to its end; the last model that passed the guard.

    Args:
        begin: Makes the refinement from the pretrained model and where its own are kept.
        run: Whose.
        progress: Shows it.
        resume: Go on from the last checkpoint.

    Raises:
        UserError: See `refine`.
    """
    keep = run.config.output.keep_checkpoints

    def checkpoints_of(stage: str) -> Checkpoints:
        return Checkpoints(run.checkpoints, stage, keep=keep, say=progress.say)

    pretrained, checkpoints = checkpoints_of(PRETRAIN).read_best(), checkpoints_of(STAGE)
    refinement = begin(pretrained, checkpoints)
    resumed = checkpoints.latest() if resume else None
    with Monitor(run.folder, STAGE, step=resumed.step if resumed else -1, say=progress.say) as log:
        log.show_config(run.config)
        if resumed:
            refinement.restore(resumed.model, resumed.state)
            progress.say(f"going on after {refinement.step} steps of refinement")
            progress.resume(refinement.step)
        else:
            refinement.begin(log)
        while refinement.step < refinement.num_steps and not refinement.stopped:
            refinement.play(log)
        refinement.conclude(log)
    return checkpoints.read_best()


class AnyRefinement(ABC):
    """One refinement: the players, the objective, the critic and the guard, and where they are.

    Args:
        run: Whose settings and folder.
        store: Prepared corpus.
        pretrained: Where to begin.
        checkpoints: Where good states are kept.
        objective: Moves the generator.
        progress: Shows it.
    """

    players: AnyPlayers
    objective: AnyObjective

    def __init__(
        self,
        run: Run,
        store: Store,
        pretrained: AnyModel,
        checkpoints: Checkpoints,
        objective: AnyObjective,
        *,
        progress: Progress,
    ) -> None:
        self.run, self.store, self.pretrained = run, store, pretrained
        self.config, self.seed = run.config.refine, run.config.seed
        self.checkpoints, self.progress = checkpoints, progress
        self.players, self.objective = objective.players, objective
        self.critic = Critic(
            self.players.discriminator,
            store.codec,
            self.config,
            precision=self.players.precision,
            seed=self.seed,
        )
        self.music = Music(store, run)
        self.evaluation = sample_evaluation(run, store, max_length=self.config.max_length)
        self.step, self.stopped = 0, False
        self.breaches: list[Breach] = []
        self.last_auc = 0.5
        self.guard = Guard(run.config.guard, self.validate())

    def begin(self, monitor: Monitor) -> None:
        """Train the discriminator, and keep the first checkpoint."""
        log: dict[str, float] = {}
        if self.objective.plays:
            try:
                log = self.critic.pretrain(
                    self.music.openings.batch,
                    lambda update: self.draw("first fakes", update),
                    self.music.held_out,
                    progress=self.progress,
                )
            except Diverged as error:
                raise UserError(
                    f"refinement stopped before its first step: {error}; choose a smaller "
                    "refine.discriminator_learning_rate, or another discriminator_loss"
                ) from None
            self.progress.say(
                f"discriminator ready: AUC {log['discriminator_auc']:.3f} on held-out pieces "
                "and unseen samples"
            )
            self.last_auc = log["discriminator_auc"]
        figures = self.validate()
        self.show(monitor, log | figures)
        self.save(figures)

    @abstractmethod
    def draw(self, purpose: str, step: int) -> Batch:
        """As many fresh samples of whom the objective plays with as a step needs."""

    @abstractmethod
    def excerpts(self, step: int) -> Sequence[Targets]:
        """Real excerpts of a step, one per update, where the objective has a use for them."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """How well the generator knows held-out music, and what a fixed-seed set is like."""

    @abstractmethod
    def watch(self, monitor: Monitor) -> None:
        """Log what the generator writes."""

    def conclude(self, monitor: Monitor) -> None:  # noqa: B027  # most have nothing to add
        """Add to the best model what needs the generator as it is at the end."""

    def play(self, monitor: Monitor) -> None:
        """One step: sample, judge, move the generator, train the discriminator, look around."""
        step, log = self.step, {}
        try:
            log = self.move(step)
        except Diverged as error:
            self.step += 1
            self.go_back(
                monitor,
                Breach(step=self.step, figure=error.figure, value=error.value, limit=math.inf),
            )
            return
        self.step += 1
        monitor.scalars(self.step, {f"adversarial/{k}": v for k, v in log.items()})
        self.progress.update(
            self.step,
            "  ".join(
                f"{label} {log[name]:.3f}"
                for label, name in (("AUC", "discriminator_auc"), ("KL", "kl_to_reference"))
                if name in log
            ),
        )
        if self.step % self.config.validate_every == 0 or self.step == self.num_steps:
            self.look(monitor)

    def move(self, step: int) -> dict[str, float]:
        """The networks' part of a step; figures for the log.

        Raises:
            Diverged: A loss, a gradient, or the discriminator's verdict is NaN or infinite.
        """
        config, started = self.config, time.monotonic()
        reseed_torch(self.seed, STAGE, step)
        self.players.generator.eval()  # with dropout, who draws and who learns would differ
        log: dict[str, float] = {}
        fakes, logits, openings = Batch.empty(), torch.empty(0), Batch.empty()
        if self.objective.plays or self.objective.samples:
            fakes = self.draw("fakes", step)
        sampled = time.monotonic()
        if self.objective.plays:
            logits, log = self.critic.judge(fakes, self.music.held_out)
            need_finite(**log)
        if self.objective.openings:
            openings = self.music.other_openings.batch(step)
        judged = time.monotonic()
        log |= self.objective.update(
            Round(
                step=step,
                seed=seed_for(self.seed, "objective", step),
                fakes=fakes,
                logits=logits,
                real=self.excerpts(step),
                openings=openings,
            )
        )
        learned = time.monotonic()
        if self.objective.plays:
            self.critic.remember_auc(log["discriminator_auc"])
            waits = (
                self.objective.discriminator_waits if self.objective.freezes else self.critic.waits
            )
            if not waits:
                seen = self.critic.replay.mixed(fakes, step)
                first = config.discriminator_pretrain_steps + step * config.discriminator_updates
                for update in range(first, first + config.discriminator_updates):
                    log |= self.critic.learn(self.music.openings.batch(update), seen, update)
            log["discriminator_waits"] = float(waits)
        seconds = {
            "sampling": sampled - started,
            "discriminator": judged - sampled + time.monotonic() - learned,
            "generator": learned - judged,
        }
        total = sum(seconds.values())
        log |= {f"seconds_{name}": value for name, value in seconds.items()}
        log |= {f"share_{name}": value / total for name, value in seconds.items()}
        return log | {"generator_learning_rate": self.learning_rate}

    @property
    def num_steps(self) -> int:
        """Steps until the end."""
        return self.config.steps if self.objective.moves else 0

    @property
    def learning_rate(self) -> float:
        """The generator's, halved for every time that refinement went back."""
        return float(self.config.learning_rate * 0.5 ** len(self.breaches))

    def look(self, monitor: Monitor) -> None:
        """Validate, and keep the state or go back to the last that was good."""
        figures = self.validate()
        log: dict[str, float] = {}
        if self.objective.plays:
            unseen = self.draw("unseen", self.step)
            self.critic.calibrate(unseen, self.music.held_out)
            _, log = self.critic.judge(self.draw("judged", self.step), self.music.held_out)
        auc = log.get("discriminator_auc", 0.5)
        if not self.objective.freezes:
            figures["lower_auc"] = min(auc, self.last_auc)
        self.last_auc = auc
        self.show(monitor, log | figures)
        breach = self.guard.check(self.step, figures)
        if breach:
            self.go_back(monitor, breach)
        else:
            self.save(figures)

    def go_back(self, monitor: Monitor, breach: Breach) -> None:
        """To the last good checkpoint, with half the learning rate; the last time, to stay there.

        The count of steps goes on, so that other random numbers are drawn.
        """
        good = self.checkpoints.latest()
        assert good is not None  # written by `begin`
        step, breaches = self.step, [*self.breaches, breach]
        self.restore(good.model, good.state)
        self.step, self.breaches = step, breaches
        self.stopped = len(breaches) > self.run.config.guard.retries
        self.set_learning_rate()
        write_breaches(self.run.folder / "guard.json", breaches)
        told = f"the guard: {breach}; back to the checkpoint of step {good.step}"
        told += (
            f", where refinement stops: it went back {len(breaches) - 1} times before"
            if self.stopped
            else f", going on with a learning rate of {self.learning_rate:.3g}"
        )
        self.progress.say(told)
        monitor.text("guard", told, step)
        self.save(good.model.metrics)

    def set_learning_rate(self) -> None:
        """Let the generator's optimiser know it."""
        for group in self.players.optimizer.param_groups:
            group["lr"] = self.learning_rate

    def show(self, monitor: Monitor, figures: Mapping[str, float]) -> None:
        """Figures, and music of the generator."""
        monitor.scalars(self.step, {f"adversarial/{k}": v for k, v in figures.items()})
        self.watch(monitor)

    def save(self, metrics: Mapping[str, float]) -> None:
        """Keep this state as a checkpoint, and as the best."""
        players = self.players
        model = replace(  # whose generator is the one that plays
            self.pretrained,
            discriminator=players.discriminator if self.objective.plays else None,
            metrics=dict(metrics),
        )
        state = {
            "step": self.step,
            "stopped": self.stopped,
            "breaches": [asdict(breach) for breach in self.breaches],
            "last_auc": self.last_auc,
            "generator_optimizer": players.optimizer.state_dict(),
            "objective": self.objective.state(),
            "critic": self.critic.state(),
        }
        self.checkpoints.save(self.step, model, state, best=True)

    def restore(self, model: AnyModel, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.players.generator.load_state_dict(model.generator.state_dict())
        if model.discriminator is not None:
            self.players.discriminator.load_state_dict(model.discriminator.state_dict())
        self.players.optimizer.load_state_dict(state["generator_optimizer"])
        self.objective.restore(state["objective"])
        self.critic.restore(state["critic"])
        self.step, self.stopped = state["step"], state["stopped"]
        self.breaches = [Breach(**breach) for breach in state["breaches"]]
        self.last_auc = state["last_auc"]
        self.set_learning_rate()


class Refinement(AnyRefinement):
    """A refinement of a generator of tokens, by any of `OBJECTIVES`."""

    players: Players
    objective: Objective

    def __init__(
        self,
        run: Run,
        store: Store,
        pretrained: Model,
        checkpoints: Checkpoints,
        *,
        progress: Progress,
    ) -> None:
        objective = OBJECTIVES[run.config.refine.objective](new_players(run, store, pretrained))
        super().__init__(run, store, pretrained, checkpoints, objective, progress=progress)

    def draw(self, purpose: str, step: int) -> Batch:
        """At temperature 1, of the generator or the reference."""
        players = self.players
        generator = players.reference if self.objective.from_reference else players.generator
        return draw(
            generator,
            players.grammar,
            num=self.config.batch_size,
            max_length=self.config.max_length,
            seed=seed_for(self.seed, purpose, step),
        )

    def conclude(self, monitor: Monitor) -> None:
        """Fit the residual of the best model, if it has none yet.

        Broken off, it begins anew, and comes to the same.
        """
        model, config = of_tokens(self.checkpoints.read_best()), self.config
        if model.residual or not model.discriminator or not config.residual_rounds:
            return
        output = self.run.config.output
        real = self.store.indices("train", limit=_MOST_REAL).tolist()
        residual, figures = fit_residual(
            model,
            [self.store.piece_tokens(i) for i in real],
            rounds=config.residual_rounds,
            chains=config.residual_chains,
            steps=config.residual_steps,
            max_tokens=MAX_TOKENS,
            decoding=Decoding(temperature=output.temperature, top_p=output.top_p),
            seed=self.seed,
            progress=self.progress,
        )
        for number, found in enumerate(figures):
            monitor.scalars(number, {f"residual/{name}": value for name, value in found.items()})
        self.progress.say(
            "chains ready: AUC of their pieces before each round "
            + ", ".join(f"{found['auc']:.3f}" for found in figures)
        )
        self.checkpoints.replace_best(replace(model, residual=residual))

    def excerpts(self, step: int) -> list[Targets]:
        """For the likelihood that is mixed into the updates."""
        return self.music.excerpts_of(step)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Likelihood of held-out music, and what a fixed-seed set of samples is like."""
        players, music = self.players, self.music
        players.generator.eval()
        bits, num_tokens = held_out_likelihood(
            players.generator, music.validation, players.grammar, precision=players.precision
        )
        batch = draw(
            players.generator,
            players.grammar,
            num=GUARDED_SAMPLES,
            max_length=self.config.max_length,
            seed=seed_for(self.seed, "guard"),
        )
        targets = targets_of(batch, players.grammar)
        with autocast(players.precision):
            log_probs = target_log_probs(players.generator, targets)
            reference = target_log_probs(players.reference, targets)
        pieces = [self.store.tokenizer.decode(row) for row in batch.tokens]
        return {
            "val_bits_per_token": bits / num_tokens,
            "val_bits_per_note": bits / music.num_notes,
            "entropy": float(entropy(log_probs).mean()),
            "kl": float(kl_divergence(log_probs, reference).mean()),
        } | diversity_figures(pieces, music.known)

    def watch(self, monitor: Monitor) -> None:
        """See `rnngan.training.samples.watch`."""
        watch(
            monitor, self.players.generator, self.store.tokenizer, self.music.held_out_pieces,
            evaluation=self.evaluation, step=self.step, max_length=self.config.max_length,
            seed=self.seed,
        )  # fmt: skip


class Music:
    """The real music of a refinement.

    Attributes:
        openings: Beginnings of training pieces, for the discriminator.
        other_openings: The same in another order, for objectives.
        held_out: Beginnings of validation pieces, to judge it by.
        validation: The same pieces whole, for the likelihood.
        held_out_pieces: The same as music.
        num_notes: In them.
        known: Hashed n-grams of the training pieces.
    """

    def __init__(self, store: Store, run: Run) -> None:
        config, seed = run.config.refine, run.config.seed
        # The generator has learnt to leave tags out now and then; so do real pieces.
        untagged = Augmentation(tag_dropout=run.config.data.tag_dropout)
        self.openings, self.other_openings = (
            TrainingBatches(
                store,
                batch_size=config.batch_size,
                max_length=config.max_length,
                augmentation=untagged,
                seed=seed_for(seed, purpose),
                openings=True,
            )
            for purpose in ("openings", "other openings")
        )
        self._updates = config.epochs * config.minibatches
        self._excerpts = TrainingBatches(
            store,
            batch_size=config.batch_size // config.minibatches,
            max_length=run.config.data.max_length,
            augmentation=untagged,
            seed=seed_for(seed, "excerpts"),
        )
        self._store = store
        self.validation = held_out_batches(store, "validation")
        self.held_out = padded(
            [
                store.piece_tokens(i)[: config.max_length]
                for i in store.indices("validation", limit=MAX_HELD_OUT).tolist()
            ]
        )
        self.held_out_pieces = store.pieces("validation", limit=MAX_HELD_OUT)
        self.num_notes = sum(len(piece.notes) for piece in self.held_out_pieces)
        self.known = np.unique(ngrams_of(store.pieces("train", limit=_MOST_KNOWN)))

    def excerpts_of(self, step: int) -> list[Targets]:
        """Real excerpts of a step, one batch per update."""
        first = step * self._updates
        return [
            targets_of(self._excerpts.batch(first + i), self._store.tokenizer.grammar)
            for i in range(self._updates)
        ]


def new_players(run: Run, store: Store, pretrained: Model) -> Players:
    """The pretrained generator twice, one copy frozen, and a fresh discriminator."""
    config, generator = run.config.refine, pretrained.generator
    return Players(
        generator=generator,
        reference=copy.deepcopy(generator).eval().requires_grad_(False),
        discriminator=discriminator_of(run, store),
        optimizer=optimizer_of(generator, learning_rate=config.learning_rate, weight_decay=0.0),
        grammar=pretrained.tokenizer.grammar,
        config=config,
        precision=run.config.pretrain.precision,
    )


def discriminator_of(run: Run, store: Store) -> Discriminator:
    """A fresh discriminator of a run."""
    judge = run.config.discriminator
    reseed_torch(run.config.seed, "discriminator")
    return new_discriminator(
        replace(
            judge,
            stride=judge.stride or store.tokens_per_note,
            max_length=judge.max_length or run.config.refine.max_length,
        ),
        store.codec,
    )
