"""The quality-diversity frontier of trained runs; `eval.frontier` measures and judges."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.frontier import (
    CONTROLS,
    FEW_HELD_OUT,
    MIN_PIECES,
    Arm,
    Curve,
    Frontier,
    Likelihood,
    Point,
    Reference,
    Setting,
    as_csv,
    as_json,
    check_pair,
    judge,
    measure,
    measure_training,
    picture,
)
from eval.report import make_folder
from rnngan.config import WITH_ENCODER
from rnngan.data.batches import MAX_HELD_OUT, Batch, held_out_batches
from rnngan.data.store import Store
from rnngan.errors import UserError
from rnngan.files import write_atomically
from rnngan.generate import generate_guided, generate_tokens, guide_for
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.generator.sampling import drawing_log_probs
from rnngan.guidance import Guide
from rnngan.music.vocabulary import Grammar
from rnngan.objectives.likelihood import target_log_probs, targets_of
from rnngan.progress import Progress, Say
from rnngan.training.checkpoint import Model, of_tokens
from rnngan.training.run import Run
from rnngan.training.seeds import seed_for
from rnngan.verdict import best_models

_SAME_MUSIC = ("tokens.npy", "offsets.npy", "splits.npy")
"""Files of a store that must be equal, for runs to be of one corpus and split."""


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A model that is swept.

    Attributes:
        name: For tables.
        digest: Of its stage and weights, and of its guide; generators of one digest are the same,
            and its random numbers follow from it, so that a point is the same whatever else is
            measured beside it.
        guide: How its discriminator chooses, if it does.
        candidates: That it chooses from.
        strength: Exponent of the density ratio by which it chooses.
    """

    name: str
    model: Model
    digest: str
    guide: Guide | None = None
    candidates: int = 0
    strength: float = 1.0


def settings_of(
    temperatures: Sequence[float], top_ks: Sequence[int] = (), top_ps: Sequence[float] = ()
) -> list[Setting]:
    """Every temperature without truncation, with each top-k, and with each top-p.

    Raises:
        UserError: Fewer than two temperatures, or a value out of range.
    """
    if len(set(temperatures)) < 2:
        raise UserError(
            "temperatures must be two or more, or there is no curve, got "
            f"{' '.join(map(str, temperatures)) or 'none'}"
        )
    for temperature in temperatures:
        if not temperature > 0:
            raise UserError(f"temperatures must be above 0, got {temperature}")
    for top_k in top_ks:
        if top_k < 1:
            raise UserError(f"top-k must be at least 1, got {top_k}")
    for top_p in top_ps:
        if not 0 < top_p < 1:
            raise UserError(f"top-p must be above 0 and below 1, got {top_p}")
    truncations = [(0, 1.0), *((k, 1.0) for k in top_ks), *((0, p) for p in top_ps)]
    settings = (Setting(t, k, p) for (k, p), t in product(truncations, sorted(temperatures)))
    return list(dict.fromkeys(settings))


def draw_frontier(
    runs: Sequence[Run],
    settings: Sequence[Setting],
    *,
    num: int,
    seed: int,
    quality: str,
    diversity: str,
    guide: Guide | None = None,
    candidates: int = 16,
    strength: float = 1.0,
    progress: Progress,
) -> Frontier:
    """Sweep the pretrained and the refined generator of each run, and judge the refined ones.

    Generators that are equal, weight for weight, are measured once.

    Args:
        runs: Of one corpus and split.
        settings: To draw at.
        num: Pieces per generator and setting.
        seed: Of the pieces and of all resampling.
        quality: Measure that the verdicts rest on, a key of `MEASURES`.
        diversity: Likewise.
        guide: Also sweep what the discriminators of the runs that are no controls choose.
        candidates: That they choose from.
        strength: Exponent of the density ratio by which they choose.
        progress: Shows how far it is.

    Raises:
        UserError: There is no run, a run has no model or one that reads before it writes, the
            runs are of different music, no discriminator serves as a guide, or an argument is out
            of range.
    """
    check_pair(quality, diversity)
    if num < MIN_PIECES:
        raise UserError(f"--num must be at least {MIN_PIECES}, got {num}")
    if seed < 0:
        raise UserError(f"--seed must not be negative, got {seed}")
    for run in runs:
        if (kind := run.config.generator.kind) in WITH_ENCODER:
            raise UserError(
                f"{run.folder}: {kind} is told something before it writes, and the frontier "
                "compares whole pieces drawn from nothing; name runs of another --generator"
            )
    store = common_store(runs)
    names = _names(runs)
    pretrained, refined = _generators(runs, names, say=progress.say)
    guided = _guided(runs, refined, guide, candidates, strength) if guide else [None] * len(runs)
    generators: dict[str, Generator] = {}
    for one in (*pretrained, *refined, *guided):
        if one is not None:
            generators.setdefault(one.digest, one)
    reference = _reference(store)
    if len(reference.held_out) < FEW_HELD_OUT:
        progress.say(f"only {len(reference.held_out)} held-out pieces: quality rests on little")
    held_out = held_out_batches(store, "test")
    num_notes = sum(len(piece.notes) for piece in reference.held_out)
    curves: dict[str, Curve] = {}
    for generator in generators.values():
        network, grammar = generator.model.generator, reference.grammar
        likelihoods: Sequence[Likelihood | None] = [None] * len(settings)
        if not generator.guide:  # whose distribution nobody can write down
            likelihoods = drawing_likelihoods(
                network, held_out, grammar, settings, num_notes=num_notes
            )
        points: list[Point] = []
        for setting, likelihood in zip(settings, likelihoods):
            point = _point(generator, setting, reference, num=num, seed=seed)
            points.append(replace(point, likelihood=likelihood))
            done = len(curves) * len(settings) + len(points)
            total = len(generators) * len(settings)
            progress.count(done, total, f"{generator.name}  {setting.label}")
        curves[generator.digest] = Curve(name=generator.name, points=tuple(points))
    arms = tuple(
        Arm(
            run=f"{name} guided" if after.guide else name,
            objective=run.config.refine.objective,
            steps=run.config.refine.steps,
            pretrained=curves[before.digest],
            refined=curves[after.digest],
        )
        for run, name, before, *afters in zip(runs, names, pretrained, refined, guided)
        for after in afters
        if after is not None
    )
    return Frontier(
        curves=tuple(curves.values()),
        arms=arms,
        real=_real_music(store, reference, num=num, seed=seed),
        quality=quality,
        diversity=diversity,
        verdicts=tuple(
            judge(arm, arms, quality=quality, diversity=diversity)
            for arm in arms
            if arm.objective not in CONTROLS
        ),
    )


def common_store(runs: Sequence[Run]) -> Store:
    """The prepared corpus of all runs.

    Raises:
        UserError: There is no run, a store is missing or damaged, or two runs differ in their
            music, its split, or its tokens.
    """
    if not runs:
        raise UserError("name at least one run")
    stores = [Store.open(run.store_folder) for run in runs]
    for run, store in zip(runs, stores):
        for what, same in (
            ("tokenizer", store.codec.to_json() == stores[0].codec.to_json()),
            ("music or split", _music(store) == _music(stores[0])),
        ):
            if not same:
                raise UserError(
                    f"{run.folder} and {runs[0].folder} cannot be compared: their prepared "
                    f"corpora differ in {what}; train them on one store, with --store"
                )
    return stores[0]


def _music(store: Store) -> list[str]:
    return [store.manifest["sha256"][name] for name in _SAME_MUSIC]


def _names(runs: Sequence[Run]) -> list[str]:
    """What to call each run: its folder, with the way to it where another is called the same."""
    folders = [run.folder.resolve() for run in runs]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"{folder} is named twice; name every run once")
    short = [folder.name for folder in folders]
    return [name if short.count(name) == 1 else str(folder) for name, folder in zip(short, folders)]


def _generators(
    runs: Sequence[Run], names: Sequence[str], *, say: Say
) -> tuple[list[Generator], list[Generator | None]]:
    """Of each run the pretrained and the refined generator."""
    pretrained: list[Generator] = []
    refined: list[Generator | None] = []

    def generator(stage: str, name: str, model: Model) -> Generator:
        return Generator(name=name, model=model, digest=_digest(stage, model.generator))

    for run, name in zip(runs, names):
        models = best_models(run, say=say)
        if "pretrained" not in models:
            raise UserError(f"{run.folder} has no pretrained generator; make one: rnngan pretrain")
        before = of_tokens(models["pretrained"])
        pretrained.append(generator("pretrained", f"{name} pretrained", before))
        label = f"{name} refined ({run.config.refine.objective})"
        after = models.get("refined")
        refined.append(generator("refined", label, of_tokens(after)) if after else None)
    return pretrained, refined


def _guided(
    runs: Sequence[Run],
    refined: Sequence[Generator | None],
    guide: Guide,
    candidates: int,
    strength: float,
) -> list[Generator | None]:
    """The refined generators with their discriminators for guides; none for controls."""

    def guided(one: Generator) -> Generator:
        judge = one.model.discriminator
        assert judge is not None  # for the guide serves
        return replace(
            one,
            name=f"{one.name} guided ({guide})",
            digest=_digest(f"{one.digest} {guide}", judge),
            guide=guide,
            candidates=candidates,
            strength=strength,
        )

    found = [
        guided(one)
        if one and run.config.refine.objective not in CONTROLS and guide_for(one.model, guide)
        else None
        for run, one in zip(runs, refined)
    ]
    if not any(found):
        raise UserError(
            f"--guide {guide}: no run has a discriminator that serves; particles need a causal "
            "head, and cooperative and the controls have none to ask"
        )
    return found


def _reference(store: Store) -> Reference:
    test = store.indices("test", limit=MAX_HELD_OUT).tolist()
    return Reference.of(
        [store.piece(i) for i in test],
        [store.piece_tokens(i) for i in test],
        [store.piece_tokens(i) for i in store.indices("train").tolist()],
        store.tokenizer.grammar,
    )


def _real_music(store: Store, reference: Reference, *, num: int, seed: int) -> Point:
    some = store.indices("train", limit=num).tolist()
    return measure_training(
        [store.piece(i) for i in some],
        [store.piece_tokens(i) for i in some],
        reference,
        rng=np.random.default_rng(seed_for(seed, "frontier real")),
    )


def _digest(what: str, network: torch.nn.Module) -> str:
    sha = hashlib.sha256(what.encode())
    for name, tensor in sorted(network.state_dict().items()):
        sha.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()


def _point(
    generator: Generator, setting: Setting, reference: Reference, *, num: int, seed: int
) -> Point:
    """Draw and measure; each point has random numbers of its own, independent of all others'."""
    purpose = f"frontier {generator.digest} {setting!r}"
    how: dict[str, Any] = {"num": num, "seed": seed_for(seed, purpose), **setting._asdict()}
    if generator.guide:
        rows = generate_guided(
            generator.model,
            guide=generator.guide,
            candidates=generator.candidates,
            strength=generator.strength,
            **how,
        ).tokens
    else:
        rows = generate_tokens(generator.model, **how)
    decode = generator.model.tokenizer.decode
    rng = np.random.default_rng(seed_for(seed, f"{purpose} resamples"))
    figures = measure([decode(row) for row in rows], rows, reference, rng=rng)
    return Point(setting=setting, num_pieces=num, figures=figures)


@torch.no_grad()
def drawing_likelihoods(
    generator: RecurrentGenerator,
    batches: Sequence[Batch],
    grammar: Grammar,
    settings: Sequence[Setting],
    *,
    num_notes: int,
) -> list[Likelihood]:
    """Likelihood of whole pieces under the distribution that each setting draws from.

    Args:
        generator: Goes through every batch once, in float32, without dropout.
        batches: The pieces.
        grammar: Of their tokens.
        settings: Ways to draw.
        num_notes: Of all the pieces.
    """
    was_training = generator.training
    generator.eval()
    nats, impossible = np.zeros(len(settings)), np.zeros(len(settings))
    num_tokens = 0
    for batch in batches:
        targets = targets_of(batch, grammar)
        log_probs = target_log_probs(generator, targets)
        num_tokens += len(targets.tokens)
        for i, setting in enumerate(settings):
            drawn = drawing_log_probs(log_probs, targets.allowed, **setting._asdict())
            chosen = drawn.gather(1, targets.tokens[:, None])
            nats[i] -= float(chosen.double().sum())
            impossible[i] += int(chosen.isneginf().sum())
    generator.train(was_training)
    bits = nats / np.log(2)
    return [
        Likelihood(
            bits_per_token=float(bits[i] / num_tokens),
            bits_per_note=float(bits[i] / num_notes),
            impossible_rate=float(impossible[i] / num_tokens),
        )
        for i in range(len(settings))
    ]


def write_frontier(frontier: Frontier, folder: Path, *, command: str, seed: int) -> list[Path]:
    """`frontier.json`, `frontier.csv` and `frontier.png` in a folder, which is made if need be.

    Raises:
        UserError: They cannot be written.
    """
    make_folder(folder)
    files = {
        "frontier.json": as_json(frontier, command=command, seed=seed).encode(),
        "frontier.csv": as_csv(frontier).encode(),
        "frontier.png": picture(frontier),
    }
    for name, data in files.items():
        write_atomically(folder / name, data)
    return [folder / name for name in files]
