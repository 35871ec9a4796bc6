"""What a run has reached: likelihood and music of each stage against held-out music."""

from __future__ import annotations

import shlex
import sys

from rich.console import Console

from eval.cache import cache_folder
from eval.evaluation import Evaluation, evaluate
from eval.pieces import Side
from eval.report import terminal_sets, terminal_table, write_report
from eval.wording import summary
from rnngan.config import RunConfig
from rnngan.data.batches import MAX_HELD_OUT
from rnngan.data.store import Store
from rnngan.generate import generate_output, guide_for
from rnngan.guidance import Guide
from rnngan.progress import Say
from rnngan.training.baselines import report_likelihoods, report_squared_errors
from rnngan.training.checkpoint import AnyModel, Checkpoints, TuplesModel, of_tokens
from rnngan.training.monitor import Monitor
from rnngan.training.run import Run
from rnngan.training.seeds import seed_for

STAGE_NAMES = {"pretrain": "pretrained", "refine": "refined"}


def best_models(run: Run, *, say: Say) -> dict[str, AnyModel]:
    """The best model of each stage that the run has been through, by name."""
    return {
        name: Checkpoints(run.checkpoints, stage, keep=1, say=say).read_best()
        for stage, name in STAGE_NAMES.items()
        if run.has_begun(stage)
    }


def generated_sides(models: dict[str, AnyModel], config: RunConfig) -> list[Side]:
    """The same number of pieces of every model, drawn with the same seed; the last guided, too."""
    output = config.output

    def side(name: str, model: AnyModel, guide: Guide | None = None) -> Side:
        seed = seed_for(config.seed, "evaluation")
        pieces = generate_output(model, output, num=output.num_evaluated, seed=seed, guide=guide)
        return Side(name=name, pieces=tuple(pieces))

    sides = [side(name, model) for name, model in distinct(models, config).items()]
    name, model = list(models.items())[-1]
    if guide := guide_for(model, output.guide):
        sides.append(side(f"{name} and guided", model, guide))
    return sides


def distinct(models: dict[str, AnyModel], config: RunConfig) -> dict[str, AnyModel]:
    """The models whose generators differ: refinement may leave the pretrained one alone."""
    kept = 1 if config.refine.objective == "residual" else len(models)
    return dict(list(models.items())[:kept])


def evaluate_stages(run: Run, store: Store, *, say: Say) -> Evaluation | None:
    """Measure, print, and write `likelihood.json` and `report/`; TensorBoard gets the table, too.

    Of tuples there is no likelihood, and in its place stands `squared_error.json`.

    One held-out piece allows no comparison: then there is no report, and `say` is told why.

    Raises:
        UserError: The run has no model yet, or the disk takes no more.
    """
    models = best_models(run, say=say)
    tuples = {name: model for name, model in models.items() if isinstance(model, TuplesModel)}
    if tuples:
        report_squared_errors(run, store, tuples, say=say)
    else:
        report_likelihoods(
            run,
            store,
            {name: of_tokens(model) for name, model in distinct(models, run.config).items()},
            say=say,
        )
    held_out = Side(name="held-out", pieces=tuple(store.pieces("test", limit=MAX_HELD_OUT)))
    if len(held_out.pieces) < 2:
        say(
            "no report: the one held-out piece of this small corpus allows no comparison; "
            "another run with a larger --data.test-rate, or more music, would"
        )
        return None
    sides = generated_sides(models, run.config)
    names = ", ".join(side.name for side in sides)
    say(f"comparing {len(held_out.pieces)} held-out pieces with music: {names}")
    evaluation = evaluate(
        held_out,
        sides,
        training=Side(name="training", pieces=tuple(store.pieces("train"))),
        views=("features",),
        cache=cache_folder(),
        seed=run.config.seed,
    )
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    console.print(terminal_table(evaluation))
    if evaluation.set_rows:
        console.print(terminal_sets(evaluation))
    for side in evaluation.fakes:
        console.print(*summary(evaluation, side), sep="\n", markup=False)
    write_report(evaluation, run.folder / "report", command=shlex.join(sys.argv))
    with Monitor(run.folder, "report", step=-1, say=say) as monitor:
        monitor.show_config(run.config)
        monitor.text("evaluation", markdown_table(evaluation))
        monitor.scalars(0, {f"evaluation/{k}": v for k, v in evaluation.flat().items()})
    return evaluation


def markdown_table(evaluation: Evaluation) -> str:
    """The evaluation, one line per feature and side."""
    lines = [
        "| feature | side | held-out | generated | distance | real against real | p | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in evaluation.rows:
        low, high = row.distance.band
        lines.append(
            f"| {row.column.name} | {row.side} | {row.real.mean:.4g} | {row.fake.mean:.4g} "
            f"| {row.distance.value:.4g} | {low:.4g} to {high:.4g} | {row.p_corrected:.3g} "
            f"| {row.verdict} |"
        )
    return "\n".join(lines)
