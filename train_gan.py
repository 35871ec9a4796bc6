"""One run, readable from top to bottom: corpus, likelihood, adversary, music, verdict.

    python train_gan.py train --corpus ryans-mammoth
    python train_gan.py prepare|pretrain|refine --run runs/NAME [--resume]

`rnngan train` runs this very code; the command line itself lies in `rnngan/cli.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rnngan.config import WITH_ENCODER, DataConfig, RunConfig
from rnngan.data.prepare import open_prepared, prepare
from rnngan.data.report import describe_store
from rnngan.data.store import Store
from rnngan.errors import UserError
from rnngan.progress import Progress, say
from rnngan.training.run import STAGES, Run


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done, where.

    Attributes:
        folder: The run's.
        config: All settings.
        stages: Of `prepare`, `pretrain`, `refine`, `report`, in this order.
        store: A prepared corpus outside the run's folder.
        resume: Go on with what is there.
        workers: Processes that read files.
        measure_loss: Measure what music loses on its way into tokens.
    """

    folder: Path
    config: RunConfig
    stages: tuple[str, ...] = (*STAGES, "report")
    store: Path | None = None
    resume: bool = False
    workers: int | None = None
    measure_loss: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Keep the wall time of a stage."""
        started = time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - started


def main(plan: Plan) -> Run:
    """Do what the plan says and return the run.

    Raises:
        UserError: See each stage.
    """
    stages = possible_stages(plan)
    run = Run.begin(plan.folder, plan.config, stages=stages, store=plan.store, resume=plan.resume)
    with plan.timed("prepare"):
        store = open_store(run, plan)
    if "pretrain" in stages:
        with plan.timed("pretrain"):
            train_likelihood(run, store, resume=plan.resume)
    if "refine" in stages:
        with plan.timed("refine"):
            train_adversarial(run, store, resume=plan.resume)
    if "report" in stages:
        with plan.timed("generate"):
            write_samples(run)
        with plan.timed("evaluate"):
            evaluate_run(run, store)
    return run


def possible_stages(plan: Plan) -> tuple[str, ...]:
    """Those of the plan that its kind of generator can go through.

    Objectives draw whole pieces from nothing, and a generator with an encoder begins from what that
    has read.

    Raises:
        UserError: Refinement was all that was wanted.
    """
    kind = plan.config.generator.kind
    if kind not in WITH_ENCODER or "refine" not in plan.stages:
        return plan.stages
    if plan.stages == ("refine",):
        raise UserError(
            f"{kind} is told something before it writes, and refinement draws pieces from nothing; "
            "refine another --generator"
        )
    left_out = ("refine",) if kind != "seq2seq" else ("refine", "report")
    say(f"{kind} is trained by likelihood alone; left out: {', '.join(left_out)}")
    return tuple(stage for stage in plan.stages if stage not in left_out)


def open_store(run: Run, plan: Plan) -> Store:
    """The run's prepared corpus, prepared now if that is wanted or needed."""
    if "prepare" not in plan.stages or run.has_begun("prepare"):
        return open_prepared(run.config.data, run.store_folder)
    return prepare_store(
        run.config.data,
        run.store_folder,
        seed=run.config.seed,
        workers=plan.workers,
        measure_loss=plan.measure_loss,
    )


def prepare_store(
    config: DataConfig, folder: Path, *, seed: int, workers: int | None, measure_loss: bool
) -> Store:
    """Prepare a corpus, and say what came of it."""
    with Progress("prepare", 1) as progress:
        store = prepare(
            config, folder, seed=seed, report=measure_loss, workers=workers, progress=progress
        )
        progress.say(describe_store(store))
    return store


def train_likelihood(run: Run, store: Store, *, resume: bool) -> None:
    """Pretrain the generator by maximum likelihood."""
    if run.config.generator.kind == "tuples":
        from rnngan.training.continuous import pretrain
    else:
        from rnngan.training.pretrain import pretrain

    with Progress("pretrain", run.config.pretrain.steps) as progress:
        pretrain(run, store, progress=progress, resume=resume)


def train_adversarial(run: Run, store: Store, *, resume: bool) -> None:
    """Refine the pretrained generator against the discriminator."""
    if run.config.generator.kind == "tuples":
        from rnngan.training.continuous import refine
    else:
        from rnngan.training.adversarial import refine

    with Progress("refine", run.config.refine.steps) as progress:
        refine(run, store, progress=progress, resume=resume)


def write_samples(run: Run) -> None:
    """MIDI and sound of the run's last stage, guided by its discriminator if it has one."""
    from rnngan.generate import find_model, generate_output, guide_for, write_music

    output, model = run.config.output, find_model(run.folder)
    guide = guide_for(model, output.guide)
    pieces = generate_output(
        model, output, num=output.num_samples, seed=run.config.seed, guide=guide
    )
    write_music(pieces, run.folder / "samples")


def evaluate_run(run: Run, store: Store) -> None:
    """Compare the likelihood and the music of each stage with held-out music."""
    from rnngan.verdict import evaluate_stages

    evaluate_stages(run, store, say=say)


if __name__ == "__main__":
    import sys

    from rnngan.cli import main as command_line

    sys.exit(command_line())
