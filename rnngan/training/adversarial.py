"""Adversarial refinement: the pretrained generator against a discriminator."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rnngan.config import RefineConfig
from rnngan.data.augment import Augmentation
from rnngan.data.batches import MAX_HELD_OUT, Batch, TrainingBatches, held_out_batches, padded
from rnngan.data.store import Store
from rnngan.discriminator.gru import GRUDiscriminator
from rnngan.generator.lstm import LSTMGenerator
from rnngan.music.vocabulary import Grammar
from rnngan.objectives.classification import accuracy, auc, logistic_loss
from rnngan.objectives.leave_one_out import (
    adapted_kl_weight,
    clipped_surrogate,
    entropy,
    kl_divergence,
)
from rnngan.objectives.likelihood import (
    Targets,
    autocast,
    held_out_likelihood,
    negative_log_likelihood,
    target_log_probs,
    targets_of,
)
from rnngan.objectives.registry import OBJECTIVES
from rnngan.progress import Progress
from rnngan.training.checkpoint import Checkpoints, Model
from rnngan.training.monitor import Monitor
from rnngan.training.pretrain import STAGE as PRETRAIN
from rnngan.training.pretrain import optimizer_of, stop_unless_finite
from rnngan.training.run import Run
from rnngan.training.samples import sample_batch, watch
from rnngan.training.seeds import reseed_torch, seed_for

STAGE = "refine"
_DISCRIMINATOR_WARMUP = 20  # updates over which its rate rises
_GATE_MEMORY = 0.8  # of the running mean of the AUC that opens and closes the gate


@dataclass(kw_only=True)
class Players:
    """The two networks, what trains them, and the frozen reference."""

    generator: LSTMGenerator
    reference: LSTMGenerator
    discriminator: GRUDiscriminator
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    kl_weight: float
    smoothed_auc: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A part of a batch of samples, with what the generator that drew it and the reference say.

    Shapes: `advantages`, `old_log_probs` `(targets,)`; `reference_log_probs` `(targets, vocab)`.
    """

    targets: Targets
    advantages: Tensor
    old_log_probs: Tensor
    reference_log_probs: Tensor


def new_players(run: Run, store: Store, pretrained: Model) -> Players:
    """The pretrained generator twice, one copy frozen, and a fresh discriminator."""
    config = run.config.refine
    reseed_torch(run.config.seed, "discriminator")
    tokenizer, judge = pretrained.tokenizer, run.config.discriminator
    judge = replace(judge, stride=judge.stride or store.tokens_per_note)
    discriminator = GRUDiscriminator(judge, len(tokenizer.vocabulary))
    generator = pretrained.generator
    reference = copy.deepcopy(generator).eval().requires_grad_(False)
    return Players(
        generator=generator,
        reference=reference,
        discriminator=discriminator,
        generator_optimizer=optimizer_of(
            generator, learning_rate=config.learning_rate, weight_decay=0.0
        ),
        discriminator_optimizer=optimizer_of(
            discriminator, learning_rate=config.discriminator_learning_rate, weight_decay=0.01
        ),
        kl_weight=config.kl_weight,
    )


def refine(run: Run, store: Store, *, progress: Progress, resume: bool = False) -> Model:
    """Refine the run's pretrained generator; the last that kept its likelihood is returned.

    Raises:
        UserError: The run has not been pretrained, a checkpoint is damaged beyond use, or the disk
            takes no more.
    """
    config, seed = run.config.refine, run.config.seed
    grammar, tokenizer = store.tokenizer.grammar, store.tokenizer
    precision = run.config.pretrain.precision

    def checkpoints_of(stage: str) -> Checkpoints:
        keep = run.config.output.keep_checkpoints
        return Checkpoints(run.checkpoints, stage, keep=keep, say=progress.say)

    players = new_players(run, store, checkpoints_of(PRETRAIN).read_best())
    checkpoints = checkpoints_of(STAGE)
    resumed = checkpoints.latest() if resume else None
    step = resumed.step if resumed else 0
    stopped = bool(resumed and resumed.state["stopped"])
    openings = TrainingBatches(
        store,
        batch_size=config.batch_size,
        max_length=config.max_length,
        augmentation=Augmentation(),
        seed=seed_for(seed, "openings"),
        openings=True,
    )
    updates = config.epochs * config.minibatches
    excerpts = TrainingBatches(
        store,
        batch_size=config.batch_size // config.minibatches,
        max_length=run.config.data.max_length,
        augmentation=Augmentation(),
        seed=seed_for(seed, "excerpts"),
    )
    validation = held_out_batches(store, "validation")
    held_out = padded(
        [
            store.piece_tokens(i)[: config.max_length]
            for i in store.indices("validation", limit=MAX_HELD_OUT).tolist()
        ]
    )
    held_out_pieces = store.pieces("validation", limit=MAX_HELD_OUT)

    def real_parts(step: int) -> list[Targets]:
        first = step * updates
        return [targets_of(excerpts.batch(first + i), grammar) for i in range(updates)]

    def validate() -> dict[str, float]:
        bits, num_tokens = held_out_likelihood(
            players.generator, validation, grammar, precision=precision
        )
        return {
            "val_bits_per_token": bits / num_tokens,
            "val_bits_per_note": bits / sum(len(piece.notes) for piece in held_out_pieces),
        }

    before = validate()["val_bits_per_token"]
    logged = step if resumed else -1
    with Monitor(run.folder, STAGE, step=logged, say=progress.say) as monitor:
        monitor.show_config(run.config)
        if resumed:
            restore(players, resumed.model, resumed.state)
            progress.say(f"going on after {step} steps of refinement")
            progress.resume(step)
        else:
            log = pretrain_discriminator(
                players, openings, held_out, config, run, store, progress=progress
            )
            figures = validate()
            monitor.scalars(0, {f"adversarial/{k}": v for k, v in (log | figures).items()})
            watch(
                monitor, players.generator, tokenizer, held_out_pieces,
                step=0, max_length=config.max_length, seed=seed,
            )  # fmt: skip
            state = _state(players, stopped=False)
            checkpoints.save(0, _model(players, store, figures), state, best=True)

        while step < config.steps and not stopped:
            started = time.monotonic()
            reseed_torch(seed, STAGE, step)
            players.generator.eval()  # dropout would set the drawing and the learning policy apart
            fakes = sample_batch(
                players.generator, tokenizer, num=config.batch_size, max_length=config.max_length,
                seed=seed_for(seed, "fakes", step),
            )  # fmt: skip
            sampled = time.monotonic()
            rewards, log = judge(players.discriminator, fakes, held_out, precision)
            parts = part_samples(
                players, fakes, OBJECTIVES[config.objective](rewards), grammar,
                num_parts=config.minibatches, precision=precision,
            )  # fmt: skip
            log |= update_generator(
                players, parts, real_parts(step), config, precision=precision, step=step
            )
            learned = time.monotonic()
            memory = _GATE_MEMORY
            players.smoothed_auc *= memory
            players.smoothed_auc += (1 - memory) * log["discriminator_auc"]
            waits = players.smoothed_auc > config.discriminator_gate
            if not waits:
                for update in range(config.discriminator_updates):
                    log |= update_discriminator(
                        players,
                        openings.batch(
                            config.discriminator_pretrain_steps
                            + step * config.discriminator_updates
                            + update
                        ),
                        fakes,
                        config,
                        precision=precision,
                        step=step,
                    )
            step += 1
            log |= {
                "discriminator_waits": float(waits),
                "generator_learning_rate": config.learning_rate,
                "discriminator_learning_rate": config.discriminator_learning_rate,
                "seconds_sampling": sampled - started,
                "seconds_generator": learned - sampled,
                "seconds_discriminator": time.monotonic() - learned,
            }
            monitor.scalars(step, {f"adversarial/{k}": v for k, v in log.items()})
            progress.update(
                step, f"AUC {log['discriminator_auc']:.2f}  KL {log['kl_to_reference']:.4f}"
            )
            if step % config.validate_every == 0 or step == config.steps:
                figures = validate()
                rise = figures["val_bits_per_token"] / before - 1
                monitor.scalars(step, {f"adversarial/{k}": v for k, v in figures.items()})
                watch(
                    monitor, players.generator, tokenizer, held_out_pieces,
                    step=step, max_length=config.max_length, seed=seed,
                )  # fmt: skip
                stopped = rise > config.likelihood_rise
                state = _state(players, stopped=stopped)
                checkpoints.save(step, _model(players, store, figures), state, best=not stopped)
                if stopped:
                    progress.say(
                        f"refinement stopped at step {step}: held-out likelihood {rise:.1%} worse "
                        f"than before, the limit is {config.likelihood_rise:.1%}; "
                        "the checkpoint before stands"
                    )
    return checkpoints.read_best()


def _model(players: Players, store: Store, metrics: dict[str, float]) -> Model:
    return Model(
        generator=players.generator,
        discriminator=players.discriminator,
        tokenizer=store.tokenizer,
        metrics=metrics,
    )


def _state(players: Players, *, stopped: bool) -> dict[str, Any]:
    return {
        "stopped": stopped,
        "generator_optimizer": players.generator_optimizer.state_dict(),
        "discriminator_optimizer": players.discriminator_optimizer.state_dict(),
        "kl_weight": players.kl_weight,
        "smoothed_auc": players.smoothed_auc,
    }


def restore(players: Players, model: Model, state: Mapping[str, Any]) -> None:
    """Put the players back where a checkpoint left them."""
    players.generator.load_state_dict(model.generator.state_dict())
    if model.discriminator is not None:
        players.discriminator.load_state_dict(model.discriminator.state_dict())
    players.generator_optimizer.load_state_dict(state["generator_optimizer"])
    players.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
    players.kl_weight = state["kl_weight"]
    players.smoothed_auc = state["smoothed_auc"]


def piece_logits(discriminator: GRUDiscriminator, batch: Batch, precision: str) -> Tensor:
    """The discriminator's verdict on each piece, `(batch,)`."""
    tokens, lengths = torch.from_numpy(batch.tokens), torch.from_numpy(batch.lengths)
    with autocast(precision):
        logits: Tensor = discriminator(tokens, lengths)
    return logits


def judge(
    discriminator: GRUDiscriminator, fakes: Batch, held_out: Batch, precision: str
) -> tuple[Tensor, dict[str, float]]:
    """Rewards of samples it has not seen, and how well it tells them from held-out pieces.

    Returns:
        Piece logits of the fakes `(batch,)`, and figures for the log.
    """
    discriminator.eval()
    with torch.no_grad():
        fake = piece_logits(discriminator, fakes, precision)
        real = piece_logits(discriminator, held_out, precision)
    return fake, {
        "discriminator_auc": auc(real, fake),
        "discriminator_accuracy": accuracy(real, fake),
        "discriminator_held_out_loss": float(logistic_loss(real, fake, label_smoothing=0.0)),
        "logit_real": float(real.mean()),
        "logit_fake": float(fake.mean()),
    }


@torch.no_grad()
def part_samples(
    players: Players,
    fakes: Batch,
    advantages: Tensor,
    grammar: Grammar,
    *,
    num_parts: int,
    precision: str,
) -> list[Drawn]:
    """The batch of samples in parts, with all that stays fixed while the generator moves."""
    parts = []
    for rows in torch.arange(len(advantages)).chunk(num_parts):
        lengths = fakes.lengths[rows.numpy()]
        tokens = fakes.tokens[rows.numpy(), : int(lengths.max())]
        targets = targets_of(Batch(tokens=tokens, lengths=lengths), grammar)
        with autocast(precision):
            old = target_log_probs(players.generator, targets)
            reference = target_log_probs(players.reference, targets)
        parts.append(
            Drawn(
                targets=targets,
                advantages=advantages[rows].repeat_interleave(torch.from_numpy(lengths) - 1),
                old_log_probs=old.gather(1, targets.tokens[:, None]).squeeze(1),
                reference_log_probs=reference,
            )
        )
    return parts


def update_generator(
    players: Players,
    parts: list[Drawn],
    real: list[Targets],
    config: RefineConfig,
    *,
    precision: str,
    step: int,
) -> dict[str, float]:
    """`epochs` passes over the samples, an update for each part; then the KL weight adapts.

    Every update mixes in the likelihood of real excerpts of its own.
    """
    sums: dict[str, float] = {}
    for epoch in range(config.epochs):
        for part, excerpt in zip(parts, real[epoch * len(parts) :]):
            with autocast(precision):
                log_probs = target_log_probs(players.generator, part.targets)
                likelihood = negative_log_likelihood(players.generator, excerpt)
            chosen = log_probs.gather(1, part.targets.tokens[:, None]).squeeze(1)
            surrogate = clipped_surrogate(
                chosen, part.old_log_probs, part.advantages, clip=config.clip
            )
            kl = kl_divergence(log_probs, part.reference_log_probs).mean()
            loss = surrogate + players.kl_weight * kl + config.likelihood_weight * likelihood
            players.generator_optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(players.generator.parameters(), config.gradient_clip)
            stop_unless_finite(STAGE, step, generator_loss=loss.item(), gradient_norm=float(norm))
            players.generator_optimizer.step()
            ratio = (chosen.detach() - part.old_log_probs).exp()
            figures = {
                "generator_loss": loss.item(),
                "surrogate": surrogate.item(),
                "kl_to_reference": kl.item(),
                "train_likelihood_nats": likelihood.item(),
                "entropy": entropy(log_probs.detach()).mean().item(),
                "clipped_rate": float(((ratio - 1).abs() > config.clip).float().mean()),
                "generator_gradient_norm": float(norm),
            }
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + value / (config.epochs * len(parts))
    players.kl_weight = adapted_kl_weight(
        players.kl_weight, sums["kl_to_reference"], config.kl_target
    )
    return sums | {"kl_weight": players.kl_weight}


def update_discriminator(
    players: Players,
    real: Batch,
    fakes: Batch,
    config: RefineConfig,
    *,
    precision: str,
    step: int,
) -> dict[str, float]:
    """One update towards telling this real batch from these fakes."""
    players.discriminator.train()
    real_logits = piece_logits(players.discriminator, real, precision)
    fake_logits = piece_logits(players.discriminator, fakes, precision)
    loss = logistic_loss(real_logits, fake_logits, label_smoothing=config.label_smoothing)
    players.discriminator_optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(players.discriminator.parameters(), config.gradient_clip)
    stop_unless_finite(STAGE, step, discriminator_loss=loss.item(), gradient_norm=float(norm))
    players.discriminator_optimizer.step()
    return {
        "discriminator_loss": loss.item(),
        "discriminator_gradient_norm": float(norm),
        "discriminator_train_accuracy": accuracy(real_logits.detach(), fake_logits.detach()),
    }


def pretrain_discriminator(
    players: Players,
    openings: TrainingBatches,
    held_out: Batch,
    config: RefineConfig,
    run: Run,
    store: Store,
    *,
    progress: Progress,
) -> dict[str, float]:
    """Train the discriminator against the pretrained generator, fresh samples in every update.

    Returns:
        Its figures on held-out pieces and unseen samples.
    """
    precision, seed = run.config.pretrain.precision, run.config.seed

    def fakes(update: int) -> Batch:
        return sample_batch(
            players.generator,
            store.tokenizer,
            num=config.batch_size,
            max_length=config.max_length,
            seed=seed_for(seed, "first fakes", update),
        )

    total = config.discriminator_pretrain_steps
    with Progress("judge", total, inside=progress) as inner:
        for update in range(total):
            reseed_torch(seed, "discriminator pretraining", update)
            for group in players.discriminator_optimizer.param_groups:
                warmth = min(1.0, (update + 1) / min(_DISCRIMINATOR_WARMUP, total))
                group["lr"] = config.discriminator_learning_rate * warmth
            log = update_discriminator(
                players, openings.batch(update), fakes(update), config, precision=precision, step=0
            )
            inner.update(update + 1, f"loss {log['discriminator_loss']:.3f}")
    _, figures = judge(players.discriminator, fakes(total), held_out, precision)
    players.smoothed_auc = figures["discriminator_auc"]
    progress.say(
        f"discriminator ready: AUC {figures['discriminator_auc']:.3f} on held-out tunes "
        "and unseen samples"
    )
    return figures
