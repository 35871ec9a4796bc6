"""Fitting the residual: what a trained generator still gets wrong about whole pieces.

In rounds. Chains write what the generator, tilted by all committees so far, would write; a new
committee learns to tell that from real pieces; from then on it counts, too. A committee's logits
are scaled by how far they hold on pieces that each member has not learnt from, so one that finds
nothing counts for nothing. It sees what `eval` measures of a piece, and the logarithm of the
density ratio that the discriminator of tokens gives it: several views at once, since guidance by
one mends that view alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from eval.features import FEATURES, features_of
from rnngan.data.batches import padded
from rnngan.discriminator.residual import Committee, Residual
from rnngan.errors import UserError
from rnngan.generator.sampling import Decoding
from rnngan.music.vocabulary import Tokens
from rnngan.objectives.base import piece_logits
from rnngan.objectives.calibration import fit_calibration
from rnngan.objectives.classification import auc
from rnngan.progress import Progress
from rnngan.training.chains import Chains, Energy, Measure
from rnngan.training.checkpoint import Model
from rnngan.training.seeds import reseed_torch, seed_for

Floats = npt.NDArray[np.float64]

_LOGIT = "discriminator's logit"
_MOST_LOGIT = 12.0
"""Beyond these odds the discriminator has nothing to say that could be checked."""
_JUDGED = 64
"""Pieces that the discriminator judges at once."""
_PLAIN = 4
"""Plain samples of the first round for each chain."""
_EPOCHS, _PATIENCE = 200, 12
_BATCH = 128
_RATE, _DECAY = 3e-3, 1e-2


def new_residual() -> Residual:
    """One without committees, for what `measure_of` measures."""
    measures = [*(feature.key for feature in FEATURES.values()), _LOGIT]
    widths = [*(max(len(feature.bins), 1) for feature in FEATURES.values()), 1]
    return Residual(measures, widths)


def measure_of(model: Model, residual: Residual) -> Measure:
    """What a residual looks at, in pieces of this model.

    Raises:
        UserError: The model has no discriminator, or the residual was fitted to other measures.
    """
    discriminator = model.discriminator
    if discriminator is None:
        raise UserError("a residual needs a model with a discriminator, and this one has none")
    if residual.measures != new_residual().measures:
        raise UserError(
            "this model's residual was fitted to other versions of the features; refine it anew"
        )

    most = discriminator.config.max_length

    def measure(rows: Sequence[Tokens]) -> Floats:
        found = [features_of(model.tokenizer.decode(row)) for row in rows]
        logits: list[float] = []
        for first in range(0, len(rows), _JUDGED):
            batch = padded([row[:most] for row in rows[first : first + _JUDGED]])
            with torch.inference_mode():
                discriminator.eval()
                verdict = discriminator.log_ratio(piece_logits(discriminator, batch, "auto"))
            logits += verdict.clamp(-_MOST_LOGIT, _MOST_LOGIT).tolist()
        columns = [
            np.array([values[name] for values in found], dtype=float).reshape(len(rows), -1)
            for name in FEATURES
        ]
        return np.hstack([*columns, np.array(logits)[:, None]])

    return measure


def energy_of(residual: Residual, *, rounds: int, strength: float = 1.0) -> Energy:
    """Energies of measured pieces by so many committees, times a strength."""

    def energy(measured: Floats) -> Floats:
        with torch.inference_mode():
            residual.eval()
            found = residual(torch.from_numpy(measured).float(), rounds)
        return np.asarray(strength * found.double().numpy())

    return energy


def rounds_in_steps(rounds: int, steps: int) -> list[int]:
    """Committees that count in each of so many steps of a chain: 1 at first, all at the end.

    The first round, which begins far from where it should be, gets twice as many steps as each
    other. Chains take the same way in fitting and in generating, so that what comes out is what the
    committees saw.
    """
    return [min(max(step * (rounds + 1) // steps, 1), rounds) for step in range(steps)]


def fit_residual(
    model: Model,
    real: Sequence[Tokens],
    *,
    rounds: int,
    chains: int,
    steps: int,
    max_tokens: int,
    decoding: Decoding,
    seed: int,
    progress: Progress,
) -> tuple[Residual, list[dict[str, float]]]:
    """A residual for a model's pieces, and how well each round told them from real ones.

    Args:
        model: With a discriminator.
        real: Training pieces.
        rounds: Committees; the first learns from plain samples.
        chains: Pieces that later ones learn from.
        steps: Of the chains, in all rounds together; see `rounds_in_steps`.
        max_tokens: Where a piece is cut.
        decoding: Of the generator; the residual is for pieces that are drawn so.
        seed: Of everything random.
        progress: Shows it.

    Returns:
        The residual, and figures of each round: `auc`, on pieces that a committee's members had
        not learnt from, its `scale`, and the share of candidates that chains `moved` to after it.

    Raises:
        UserError: The model has no discriminator.
    """
    residual = new_residual()
    measure = measure_of(model, residual)
    moving = Chains(
        model, measure, pieces=range(chains), seed=seed_for(seed, "residual chains"),
        max_tokens=max_tokens, decoding=decoding,
    )  # fmt: skip
    plain = Chains(
        model, measure, pieces=range(chains, _PLAIN * chains),
        seed=seed_for(seed, "residual chains"), max_tokens=max_tokens, decoding=decoding,
    )  # fmt: skip
    real_rows = torch.from_numpy(measure(real)).float()
    fakes = torch.from_numpy(np.vstack([moving.measured, plain.measured])).float()
    residual.standardise_by(torch.cat([real_rows, fakes]))
    figures: list[dict[str, float]] = []
    way = rounds_in_steps(rounds, steps)
    with Progress("chains", steps, inside=progress) as inner:
        done = 0
        for number in range(rounds):
            if number:
                fakes = torch.from_numpy(moving.measured).float()
            reseed_torch(seed, "residual", number)
            committee, found = fit_committee(
                residual.new_committee(), residual.inputs(real_rows), residual.inputs(fakes)
            )
            residual.committees.append(committee)
            energy = energy_of(residual, rounds=number + 1)
            moved = [moving.move(energy) for _ in range(way.count(number + 1))]
            done += len(moved)
            share = sum(moved) / max(len(moved), 1)
            inner.update(done, f"round {number + 1}  AUC {found:.3f}  moved {share:.0%}")
            figures.append({"auc": found, "scale": float(committee.scale), "moved": share})
    return residual.eval(), figures


def fit_committee(committee: Committee, real: Tensor, fake: Tensor) -> tuple[Committee, float]:
    """Train a new committee to tell real from fake, and scale it to what it is worth.

    Each member leaves out a part of the pieces of its own, and stops when it tells those no
    better. The scale is fitted to the logits of the members on the parts that they left out.

    Args:
        committee: To be trained; torch's own random numbers say how.
        real: Inputs of real pieces `(real, columns)`.
        fake: Of generated ones, likewise.

    Returns:
        It, and the AUC on pieces left out.
    """
    inputs = torch.cat([real, fake])
    target = torch.cat([torch.ones(len(real)), torch.zeros(len(fake))])
    share = torch.where(target > 0, 0.5 / len(real), 0.5 / len(fake)) * len(inputs)
    members = len(committee.inner)
    left_out = torch.empty(len(inputs), dtype=torch.long)
    left_out[torch.randperm(len(inputs))] = torch.arange(len(inputs)) % members
    outside = left_out == torch.arange(members)[:, None]  # (members, pieces)
    optimizer = torch.optim.AdamW(committee.parameters(), lr=_RATE, weight_decay=_DECAY)

    def losses(logits: Tensor, pieces: Tensor) -> Tensor:
        expected = target[pieces].expand_as(logits)
        cost = nn.functional.binary_cross_entropy_with_logits(logits, expected, reduction="none")
        return cost * share[pieces]

    everyone = torch.arange(len(inputs))
    best = copy.deepcopy(committee.state_dict())
    best_loss = torch.full((members,), torch.inf)
    waited = torch.zeros(members)
    for _ in range(_EPOCHS):
        committee.train()
        for pieces in torch.split(torch.randperm(len(inputs)), _BATCH):
            cost = losses(committee.logits(inputs[pieces]), pieces) * ~outside[:, pieces]
            optimizer.zero_grad()
            (cost.sum() / len(pieces)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        committee.eval()
        with torch.no_grad():
            cost = losses(committee.logits(inputs), everyone) * outside
        found = cost.sum(1) / outside.sum(1)
        better = (found < best_loss) & (waited < _PATIENCE)
        best_loss = torch.where(better, found, best_loss)
        waited = torch.where(better, 0, waited + 1)
        for name, value in committee.named_parameters():
            best[name][better] = value.detach()[better]
        if bool((waited >= _PATIENCE).all()):
            break
    committee.load_state_dict(best)
    with torch.no_grad():
        logits = committee.logits(inputs)[left_out, everyone]
    real_logits, fake_logits = logits[: len(real)], logits[len(real) :]
    committee.scale.fill_(max(fit_calibration(real_logits, fake_logits).scale, 0.0))
    return committee.requires_grad_(False), auc(real_logits, fake_logits)
