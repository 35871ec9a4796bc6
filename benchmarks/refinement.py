"""Does adversarial refinement make better music than likelihood? Every arm, every seed.

    python benchmarks/refinement.py --work FOLDER --out benchmarks/refinement.md
        [--corpora ryans-mammoth bach-chorales] [--seeds 0 1 2] [--arms …] [--data FOLDER]

For each corpus and seed a generator is pretrained; every arm begins from that one. Arms are

- `T=…`: the pretrained generator at a temperature;
- an objective or control: the generator refined with it, at temperature 1 and p = 0.98;
- `T=…,p=…`: likewise from the likeliest tokens of this probability in sum alone;
- `guide=GUIDE,T=…,p=…,K=…`: the pretrained generator, guided by a discriminator that was trained
  against it and chooses from K candidates;
- `OBJECTIVE+guide=…`: the refined one, guided by its own discriminator;
- `placebo+guide=…`: the pretrained one, and each candidate is chosen for what the discriminator,
  or the residual, thinks of another.

Each is judged on held-out test pieces by fresh classifiers of three views, none of the kind of a
training discriminator, with folds by piece; the largest AUC is the headline. What is finished is
kept in FOLDER: broken off and begun again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, shared_data, table
from numpy.typing import NDArray
from scipy import stats

from eval import distances, setwise, textual
from eval.copying import copied_share, longest_runs
from eval.features import FEATURES, features_of
from eval.twosample import VIEWS, two_sample
from rnngan.config import OutputConfig, RunConfig, changed, preset
from rnngan.data.batches import MAX_HELD_OUT, held_out_batches
from rnngan.data.prepare import prepare
from rnngan.files import write_atomically
from rnngan.generate import generate_guided, generate_tokens
from rnngan.music.piece import Piece
from rnngan.music.vocabulary import Tokens
from rnngan.objectives.likelihood import held_out_likelihood
from rnngan.progress import Progress
from rnngan.training.adversarial import refine
from rnngan.training.checkpoint import Checkpoints, Model
from rnngan.training.pretrain import pretrain
from rnngan.training.run import Run

Floats = NDArray[np.float64]
Figures = dict[str, Any]

CORPORA = ("ryans-mammoth", "bach-chorales", "nottingham")
"""The last is a folder of the data that is not part of the project."""
NUM = 128
"""Pieces of every arm."""
TOP_P = OutputConfig().top_p
STRENGTH = {"chains": 1.0, "particles": 2.0, "resample": 2.0, "reject": 2.0}
"""Exponent of the density ratio. Few candidates fall short of it, chains do not."""
ARMS = (
    "T=0.8", "T=0.9", "T=1.0", "T=1.1", "T=1.0,p=0.98", "likelihood", "placebo-constant",
    "placebo-random", "placebo-shuffled", "placebo+guide=particles,T=1.0,p=0.98,K=16",
    "leave-one-out", "dense", "importance", "distilled", "cooperative",
    "rollout", "gumbel", "guide=resample,T=1.0,p=0.98,K=16",
    "guide=reject,T=1.0,p=0.98,K=16", "guide=particles,T=1.0,p=0.98,K=16",
    "guide=particles,T=1.0,p=0.98,K=32", "leave-one-out+guide=particles,T=1.0,p=0.98,K=16",
    "placebo+guide=chains,T=1.0,p=0.98,K=60", "guide=chains,T=1.0,p=0.98,K=60",
    "leave-one-out+guide=chains,T=1.0,p=0.98,K=60",
)  # fmt: skip
SETUP: dict[str, dict[str, Any]] = {"pretrain": {"steps": 1000}}
"""A longer pretraining than that of the demo, which has to be done in ten minutes."""
RESIDUAL = {
    "discriminator_pretrain_steps": 100,
    "residual_rounds": 5, "residual_chains": 128, "residual_steps": 60,
}  # fmt: skip
"""Likewise a longer training of the discriminator, and more chains, than in the demo."""
BASELINE = ("T=0.8", "T=0.9", "T=1.0", "T=1.1")
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "critic": {"refine": {"steps": 0} | RESIDUAL, "discriminator": {"causal_head": True}},
    "dense": {"refine": {"objective": "dense"}, "discriminator": {"causal_head": True}},
    "distilled": {"refine": {"objective": "importance", "offline": True}},
    "gumbel": {
        "refine": {"objective": "gumbel", "discriminator_loss": "relativistic"},
        "discriminator": {"views": "tokens"},
    },
    "rollout": {"refine": {"objective": "rollout", "batch_size": 16, "rollouts": 4}},
}
"""What an arm changes, where that is more than the name of the objective."""


class Trial:
    """One corpus and seed: its pretrained generator, and the arms that begin there.

    Args:
        folder: For everything of this corpus.
        corpus: Its name, or the folder of its files.
        seed: Of the run.
        changes: Settings that are not those of the preset.
    """

    def __init__(
        self, folder: Path, corpus: str, seed: int, changes: dict[str, dict[str, Any]]
    ) -> None:
        self.folder, self.seed = folder / f"{seed}", seed
        config = changed(preset("base"), **({"data": {}} | changes))
        self.config = replace(config, seed=seed, data=replace(config.data, corpus=corpus))
        with Progress("prepare", 1) as progress:
            # One split for all seeds, so that they differ in training alone.
            self.store = prepare(
                self.config.data, folder / "store", seed=0, report=False, workers=None,
                progress=progress,
            )  # fmt: skip
        self.real = list(self.store.pieces("test", limit=MAX_HELD_OUT))

    def run(self, arm: str, config: RunConfig) -> Run:
        """The run of an arm, begun or gone on with."""
        folder = self.folder / arm
        return Run.begin(
            folder, config, stages=("pretrain", "refine"), store=self.store.folder,
            resume=(folder / "config.toml").exists(),
        )  # fmt: skip

    def pretrained(self) -> Path:
        """The generator that all arms begin with, trained now if need be."""
        run = self.run("pretrained", self.config)
        best = Checkpoints(run.checkpoints, "pretrain", keep=1, say=print).best
        if not (run.folder / "seconds.json").exists():
            with timed(run), Progress("pretrain", run.config.pretrain.steps) as progress:
                pretrain(run, self.store, progress=progress, resume=True)
        return best

    def refined(self, arm: str) -> Model:
        """The model of an arm of refinement, trained now if need be."""
        parts = SETTINGS.get(arm, {"refine": {"objective": arm} | RESIDUAL})
        run = self.run(arm, changed(self.config, **parts))
        best = self.pretrained()
        if not (run.checkpoints / best.name).exists():
            run.checkpoints.mkdir(exist_ok=True)
            shutil.copy(best, run.checkpoints / best.name)
        if not (run.folder / "seconds.json").exists():
            with timed(run), Progress(arm, max(run.config.refine.steps, 1)) as progress:
                refine(run, self.store, progress=progress, resume=True)
        return Checkpoints(run.checkpoints, "refine", keep=1, say=print).read_best()

    def drawn(self, arm: str) -> tuple[list[Tokens], Figures]:
        """Token rows of an arm, and how they came about."""
        stage, how = parsed(arm)
        if stage == "pretrained":
            path, folder = self.pretrained(), self.folder / "pretrained"
            model = Checkpoints(path.parent, "pretrain", keep=1, say=print).read_best()
        else:
            model, folder = self.refined(stage), self.folder / stage
        bits, num_tokens = held_out_likelihood(
            model.generator, held_out_batches(self.store, "test"), model.tokenizer.grammar,
            precision="float32",
        )  # fmt: skip
        told: Figures = {
            "bits_per_token": bits / num_tokens,
            "seconds_training": json.loads((folder / "seconds.json").read_text()),
        }
        started, how = time.monotonic(), how | {"num": NUM, "seed": 1000 + self.seed}
        if "guide" in how:
            if arm.startswith("placebo"):
                mix_up(model, how["guide"])
            found = generate_guided(model, strength=STRENGTH[how["guide"]], **how)
            rows = found.tokens
            told["effective"] = statistics.median(found.effective)
        else:
            rows = generate_tokens(model, **how)
        return rows, told | {"seconds_decoding": time.monotonic() - started}

    def measure(self, arm: str) -> Figures:
        """All figures of an arm; from its file, if they were measured before."""
        path = self.folder / "figures" / f"{arm}.json"
        if path.exists():
            return dict(json.loads(path.read_text()))
        rows, found = self.drawn(arm)
        fakes = [self.store.tokenizer.decode(row) for row in rows]
        started = time.monotonic()
        found |= compared(self.real, fakes, seed=self.seed)
        training = list(self.store.pieces("train", limit=5000))
        found["copied"] = copied_share(longest_runs(fakes, training))
        found["seconds_judging"] = time.monotonic() - started
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(found, indent=1).encode())
        return found


def mix_up(model: Model, guide: str) -> None:
    """Let the one that guides give every candidate the verdict on the one before it."""
    judge, residual = model.discriminator, model.residual
    assert judge is not None
    if guide == "chains":
        assert residual is not None
        residual.register_forward_hook(lambda _, __, energies: energies.roll(1, 0))
        return
    judge.register_forward_hook(lambda _, __, logits: logits.roll(1, 0))
    assert judge.causal_head is not None
    judge.causal_head.register_forward_hook(lambda _, __, potentials: potentials.roll(1, 0))


def parsed(arm: str) -> tuple[str, dict[str, Any]]:
    """The stage whose generator an arm draws from, and how it draws."""
    stage, guided, spec = arm.partition("guide=")
    if not guided and not arm.startswith("T="):
        return arm, {"top_p": TOP_P}
    guide, *parts = spec.split(",") if guided else ("", *arm.split(","))
    values = dict(part.split("=") for part in parts)
    how: dict[str, Any] = {
        "temperature": float(values["T"]), "top_p": float(values.get("p", 1.0)),
    }  # fmt: skip
    if not guided:
        return "pretrained", how
    return stage.removesuffix("+").replace("placebo", "") or "critic", how | {
        "guide": guide, "candidates": int(values["K"]),
    }  # fmt: skip


@contextmanager
def timed(run: Run) -> Iterator[None]:
    """Keep how long a stage took; of one that was broken off, the last part alone."""
    started = time.monotonic()
    yield
    write_atomically(run.folder / "seconds.json", f"{time.monotonic() - started:.1f}".encode())


def compared(real: Sequence[Piece], fakes: Sequence[Piece], *, seed: int) -> Figures:
    """AUC of fresh classifiers by view, Fréchet distance, and diversity."""
    found: Figures = {}
    for result in two_sample(real, fakes, views=VIEWS, seed=seed, resamples=500, chance=False):
        found[f"auc_{result.view}"] = result.auc
        found[f"interval_{result.view}"] = list(result.interval)
    found["auc"] = max(found[f"auc_{view}"] for view in VIEWS)
    measured = [features_of(piece) for piece in (*real, *fakes)]
    columns = {name: np.array([values[name] for values in measured], float) for name in FEATURES}
    is_real = np.arange(len(measured)) < len(real)
    vectors = setwise.feature_matrix(columns, scale_by=is_real).rows
    found["frechet"] = distances.frechet(vectors[is_real], vectors[~is_real])
    lines = [textual.tokens_of(piece) for piece in fakes]
    found["self_bleu"] = textual.self_bleu(lines, n=4)
    found["real_self_bleu"] = textual.self_bleu([textual.tokens_of(p) for p in real], n=4)
    grams = [tuple(line[i : i + 4].tolist()) for line in lines for i in range(len(line) - 3)]
    found["distinct"] = len(set(grams)) / max(len(grams), 1)
    return found


def report(found: dict[str, dict[int, dict[str, Figures]]]) -> str:
    """Tables of all arms, and the gain over the best temperature with its interval."""
    parts = []
    for corpus, seeds in found.items():
        arms = [arm for arm in ARMS if any(arm in figures for figures in seeds.values())]
        rows = []
        for arm in arms:
            here = [(seed, figures[arm]) for seed, figures in seeds.items() if arm in figures]
            cells = [arm, " ".join(str(seed) for seed, _ in here)]
            for name in ("auc", *(f"auc_{view}" for view in VIEWS)):
                cells.append(" ".join(f"{f[name]:.3f}" for _, f in here))
            for name, digits in (
                ("frechet", 2), ("self_bleu", 3), ("distinct", 3), ("bits_per_token", 3),
                ("copied", 3), ("effective", 1), ("seconds_training", 0), ("seconds_decoding", 0),
            ):  # fmt: skip
                values = [f[name] for _, f in here if name in f]
                cells.append(f"{statistics.mean(values):.{digits}f}" if values else "")
            cells.append(gain(arm, seeds))
            rows.append(cells)
        header = [
            "arm", "seeds", "largest AUC", *(f"AUC, {view}" for view in VIEWS), "Fréchet",
            "self-BLEU", "distinct-4", "bits/token", "copied", "effective", "training, s",
            "decoding, s", "excess AUC / that of the best temperature",
        ]  # fmt: skip
        parts += [f"## {corpus}", "", table(header, rows), ""]
    return "\n".join(parts)


def gain(arm: str, seeds: dict[int, dict[str, Figures]]) -> str:
    """Excess of the largest AUC over 0.5, over that of the seed's best temperature.

    Every seed, and from three on the mean with its 95 % interval over seeds (Student's t).
    """
    ratios = []
    for figures in seeds.values():
        best = min((figures[t]["auc"] for t in BASELINE if t in figures), default=math.nan)
        if arm in figures and best > 0.5:
            ratios.append((figures[arm]["auc"] - 0.5) / (best - 0.5))
    told = " ".join(f"{ratio:.2f}" for ratio in ratios)
    if len(ratios) < 3:
        return told
    half = stats.t.ppf(0.975, len(ratios) - 1) * statistics.stdev(ratios) / math.sqrt(len(ratios))
    mean = statistics.mean(ratios)
    return f"{told} ({mean:.2f}, {mean - half:.2f} to {mean + half:.2f})"


def main() -> None:
    """Run what is missing, and write the table after every arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps everything")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--data", type=Path, help="folder that holds nottingham")
    parser.add_argument("--corpora", nargs="+", default=CORPORA[:2], choices=CORPORA)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=ARMS)
    options = parser.parse_args()
    data = shared_data(options.data) if "nottingham" in options.corpora else None
    found: dict[str, dict[int, dict[str, Figures]]] = {}
    for seed in options.seeds:
        for name in options.corpora:
            corpus = str(data / name) if data and name == "nottingham" else name
            trial = Trial(options.work / name, corpus, seed, SETUP)
            for arm in options.arms:
                figures = trial.measure(arm)
                found.setdefault(name, {}).setdefault(seed, {})[arm] = figures
                told = ", ".join(f"{view} {figures[f'auc_{view}']:.3f}" for view in VIEWS)
                print(f"{name}, seed {seed}, {arm}: {told}", flush=True)
                text = f"# Refinement\n\n{machine(f'torch {torch.__version__}')}\n\n"
                text += INTRODUCTION + "\n\n" + report(found)
                if options.out:
                    options.out.write_text(text, encoding="utf-8")
    print(report(found))


INTRODUCTION = f"""AUC of fresh classifiers that tell {NUM} pieces of an arm from the held-out test
pieces, folds by piece, 0.5 is perfect; figures of every seed in the order of the seeds, all others
are means over seeds. In the last column each seed's excess of the largest AUC over 0.5, divided by
that of its best temperature: 1 is no gain, and the bar is 0.5; then the mean with its 95 % interval
over seeds. The seeds share the held-out pieces, whose noise (about 0.03 of an AUC) is not in it."""


if __name__ == "__main__":
    main()
