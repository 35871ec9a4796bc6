"""Compare generated music with real music, from the command line.

python -m eval REAL FAKE [FAKE2 ...] --out DIR
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from rnngan.errors import UserError, nearest_name

if TYPE_CHECKING:
    from rich.table import Table

    from eval.pieces import Side, Track
    from eval.twosample import View

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 5.0
"""Progress where there is no terminal."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m eval --help")


class _ListMetrics(argparse.Action):
    """Prints the features and leaves, as `--help` does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from eval.features import FEATURES

        width = max(map(len, FEATURES))
        for feature in FEATURES.values():
            print(f"{feature.name:{width}}  {feature.group:9}  {feature.unit}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m eval",
        description="Compare generated music with real music, feature by feature: distances with "
        "intervals, real against real, permutation tests, copying, pictures.",
        epilog="A side is a folder or zip file of MIDI files, a text file with one path a line, a "
        "prepared corpus (its test split), or a run (its corpus as REAL, its samples as FAKE).",
    )
    parser.add_argument("real", metavar="REAL", type=Path, help="real music, best held out")
    parser.add_argument("fakes", metavar="FAKE", type=Path, nargs="+", help="generated music")
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument(
        "--training",
        type=Path,
        help="music the generator learnt from, to measure copying; the train split of REAL if "
        "that is a corpus or a run",
    )
    parser.add_argument("--metrics", help="groups or features, such as pitch,rhythm; default: all")
    parser.add_argument("--list-metrics", action=_ListMetrics, nargs=0, help="list them and leave")
    parser.add_argument(
        "--views",
        default="features",
        help="what classifiers see that tell generated from real: features, tokens, intervals, or "
        "none (default: features; the others train networks)",
    )
    parser.add_argument("--no-controls", action="store_true", help="leave out spoilt real music")
    parser.add_argument("--compat", help="what muspy, mgeval, musdr or crnngan would print, too")
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        help='exit with 1 if a figure says so: "two_sample_auc>0.7"; may be given several times',
    )
    parser.add_argument(
        "--save-stats", type=Path, help="keep the real side's features in this .npz file, for REAL"
    )
    parser.add_argument("--no-cache", action="store_true", help="measure everything anew")
    parser.add_argument("--workers", type=int, help="processes; default: one a processor")
    parser.add_argument("--limit", type=int, help="at most so many pieces of each side")
    parser.add_argument("--seed", type=int, default=0, help="of all resampling (default: 0)")
    parser.add_argument(
        "--resamples", type=int, default=1000, help="of bootstrap and band (default: 1000)"
    )
    parser.add_argument(
        "--permutations", type=int, default=5000, help="of the test (default: 5000)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 if all went well, 1 for --fail-if, 2 on bad input, 130 if interrupted."""
    try:
        arguments = _parser().parse_args(argv)
        return _run(arguments, sys.argv[1:] if argv is None else argv)
    except (UserError, OSError) as error:
        print(f"eval: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("eval: interrupted", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    from rich.console import Console

    from eval.cache import cache_folder, load_side
    from eval.conditions import Condition
    from eval.evaluation import TRAINING_PIECES, evaluate
    from eval.features import FEATURES, select
    from eval.pieces import corpus_of
    from eval.report import make_folder, terminal_sets, terminal_table, write_report
    from eval.statistics import save_statistics
    from eval.wording import summary

    if arguments.seed < 0:
        raise UserError(f"seed must not be negative, got {arguments.seed}")
    metrics = select(arguments.metrics) if arguments.metrics is not None else None
    views = _views(arguments.views)
    conditions = [Condition.parse(text) for text in arguments.fail_if]
    make_folder(arguments.out)
    progress = Console(stderr=True)
    track = _bar(progress) if progress.is_terminal else _lines

    cache = None if arguments.no_cache else cache_folder()
    load = partial(
        load_side,
        names=list(FEATURES) if metrics is None else metrics,
        seed=arguments.seed,
        cache=cache,
        workers=arguments.workers,
        track=track,
    )
    real = load(arguments.real, limit=arguments.limit)
    training_path = arguments.training or corpus_of(arguments.real)
    training = load(training_path, split="train", keep=TRAINING_PIECES) if training_path else None
    fakes = [load(_samples(path), limit=arguments.limit) for path in arguments.fakes]
    sides = _named_apart([real, *fakes])
    evaluation = evaluate(
        sides[0],
        sides[1:],
        training=training,
        metrics=metrics,
        views=views if metrics is None else (),
        controls=bool(sides[0].pieces) and not arguments.no_controls,
        cache=cache,
        workers=arguments.workers,
        seed=arguments.seed,
        resamples=arguments.resamples,
        permutations=arguments.permutations,
        track=track,
    )
    written = write_report(evaluation, arguments.out, command=shlex.join(["eval", *argv]))
    if arguments.save_stats:
        measured = evaluation.real.statistics
        assert measured
        save_statistics(
            arguments.save_stats,
            sides[0].name,
            measured.table,
            titles=measured.titles,
            piece_hashes=measured.piece_hashes,
            rejects=sides[0].rejects,
        )
        written.append(arguments.save_stats)

    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    console.print(terminal_table(evaluation))
    if evaluation.set_rows:
        console.print(terminal_sets(evaluation))
    if arguments.compat:
        for side in sides[1:]:
            console.print(_compat_table(arguments.compat, sides[0], side))
    for warning in evaluation.warnings:
        console.print(f"Note: {warning}.", markup=False)
    for side in evaluation.fakes:
        console.print(*summary(evaluation, side), sep="\n", markup=False)
    names = ", ".join(path.name for path in written)
    console.print(f"Wrote to {arguments.out}: {names}", markup=False, soft_wrap=True)
    figures = evaluation.flat()
    failed = {name: v for condition in conditions for name, v in condition.met_by(figures).items()}
    for name, value in failed.items():
        print(f"eval: --fail-if: {name} is {value:.4g}", file=sys.stderr)
    return 1 if failed else 0


def _compat_table(tool: str, real: Side, fake: Side) -> Table:
    """What an older tool prints, beside ours."""
    from rich import box
    from rich.table import Table

    from eval.compat import compare
    from eval.wording import number

    title = f"what {tool} prints of {real.name} (real) and {fake.name} (fake)"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for head in ("metric", "of", tool, "undefined", "ours", "", "why they differ"):
        table.add_column(head, overflow="fold")
    for row in compare(tool, real.need_pieces("--compat"), fake.need_pieces("--compat")):
        table.add_row(
            row.metric,
            row.of,
            number(row.theirs),
            str(row.undefined),
            row.ours_name.replace("[", r"\["),
            number(row.ours),
            row.difference,
        )
    return table


def _views(text: str) -> tuple[View, ...]:
    """Views by name.

    Raises:
        UserError: There is no such view.
    """
    from eval.twosample import VIEWS

    if text == "none":
        return ()
    for name in text.split(","):
        if name not in VIEWS:
            raise UserError(
                f"--views: there is no view {name!r}{nearest_name(name, VIEWS)}; choose from "
                f"{', '.join(VIEWS)}, with commas between, or none"
            )
    return tuple(view for view in VIEWS if view in text.split(","))


def _samples(path: Path) -> Path:
    """What a generated side's path stands for: of a run, its samples."""
    from eval.pieces import is_run

    if not is_run(path):
        return path
    if not (path / "samples").is_dir():
        raise UserError(f"the run {path} has no samples yet; make some with: rnngan generate")
    return path / "samples"


def _named_apart(sides: Sequence[Side]) -> list[Side]:
    """Sides whose names differ: by their parent folders, or by numbers."""
    from dataclasses import replace

    names = [side.name for side in sides]
    if len(set(names)) < len(names):
        names = ["/".join(Path(side.path).resolve().parts[-2:]) for side in sides]
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[i] = f"{name} ({seen[name]})"
    return [replace(side, name=name) for side, name in zip(sides, names)]


def _bar(console: object) -> Track:
    from rich.console import Console
    from rich.progress import track

    assert isinstance(console, Console)

    def show(items: Sequence[Item], label: str) -> Iterable[Item]:
        return track(items, label, console=console, transient=True)

    return show


def _lines(items: Sequence[Item], label: str) -> Iterator[Item]:
    """A line at the beginning and every few seconds."""
    print(f"{label}: {len(items)}", file=sys.stderr)
    last = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - last > SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{label}: {done} of {len(items)}", file=sys.stderr)
        yield item


if __name__ == "__main__":
    # The matrix products are small: threads would only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.exit(main())
