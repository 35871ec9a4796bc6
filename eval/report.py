"""An evaluation as a table on the terminal, JSON, CSV, pictures, and one page that holds it all."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from eval.copying import MIN_NOTES
from eval.evaluation import Copying, Evaluation, Figure, Row, Summary
from eval.gallery import RANKING, Exhibit, Gallery, choose
from eval.page import as_html
from eval.pictures import PICTURES, pictures
from eval.pieces import Side
from eval.setwise import SetRow
from eval.twosample import TwoSample
from eval.wording import between, number, p_value, set_cells, side_by_side
from rnngan.errors import UserError
from rnngan.files import write_atomically

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = 1
"""Version of `metrics.json`."""
WORST_COPIES = 5
WIDTHS = {"distance": 8, "95 % interval": 17, "real vs real": 12, "verdict": 18}
"""Of the terminal's columns, at least; the names of features fold."""


def write_report(evaluation: Evaluation, folder: Path, *, command: str = "") -> list[Path]:
    """Write `metrics.json`, `metrics.csv`, `report.html` and pictures; equal input, equal bytes.

    Pictures that an earlier report left in the folder and that this one lacks are removed.

    Args:
        evaluation: What to tell.
        folder: Made if missing.
        command: The command line, for the record.

    Returns:
        The files written.

    Raises:
        UserError: A file cannot be written.
    """
    make_folder(folder)
    gallery = choose(evaluation)
    images = pictures(evaluation, gallery)
    record = as_json(evaluation, gallery, command=command)
    files = {
        "metrics.json": json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False).encode(),
        "metrics.csv": as_csv(evaluation).encode(),
        **{f"{name}.png": image for name, image in images.items()},
        "report.html": as_html(evaluation, gallery, images, record).encode(),
    }
    for name in PICTURES:
        if name not in images:
            (folder / f"{name}.png").unlink(missing_ok=True)
    for name, data in files.items():
        write_atomically(folder / name, data)
    return [folder / name for name in files]


def make_folder(folder: Path) -> None:
    """Make a folder for the report, if it is not there.

    Raises:
        UserError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another") from error


def terminal_table(evaluation: Evaluation) -> Table:
    """The rows for `rich` to print: all about one generated side, or several side by side."""
    from rich import box
    from rich.markup import escape as plain
    from rich.table import Table

    names = ", ".join(side.name for side in evaluation.fakes)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=plain(f"{names} against {evaluation.real.name}"),
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    table.add_column("feature", overflow="fold")
    alone = len(evaluation.fakes) == 1
    if alone:
        heads = ["real", "fake", "distance", "95 % interval", "real vs real", "p corr.", "verdict"]
    else:
        heads = ["real"]
        for side in evaluation.fakes:
            heads += [plain(side.name), "distance", "verdict"]
    for head in heads:
        justify: Literal["left", "right"] = "left" if head == "verdict" else "right"
        table.add_column(head, justify=justify, no_wrap=True, min_width=WIDTHS.get(head, 6))
    group = ""
    for rows in zip(*(evaluation.rows_of(side) for side in evaluation.fakes), strict=True):
        if rows[0].column.group != group:
            group = rows[0].column.group
            table.add_section()
            table.add_row(f"[bold]{group}[/bold]")
        cells = _cells(rows[0]) if alone else side_by_side(rows)
        flagged = {row.verdict for row in rows if row.flagged}
        table.add_row(
            *(
                f"[red]{cell}[/red]" if cell.split(" (")[0] in flagged else plain(cell)
                for cell in cells
            )
        )
    return table


def terminal_sets(evaluation: Evaluation) -> Table:
    """The sides as wholes, for `rich` to print."""
    from rich import box
    from rich.markup import escape as plain
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="as wholes", title_justify="left", pad_edge=False)
    for head in ("side", "figure", "value", "95 % interval", "real vs real", "p corr.", "better"):
        table.add_column(head, justify="left" if head in ("side", "figure", "better") else "right")
    for row in evaluation.set_rows:
        table.add_row(*map(plain, set_cells(row)))
    return table


def _cells(row: Row) -> list[str]:
    """One row of the table for a single side; of the band, the upper end."""
    band = row.distance.band[1]
    return [
        row.column.name,
        number(row.real.mean),
        number(row.fake.mean),
        number(row.distance.value),
        between(row.distance.interval),
        "–" if math.isnan(band) else f"≤ {number(band)}",
        p_value(row.p_corrected),
        row.verdict + _missing(row),
    ]


def _missing(row: Row) -> str:
    """How many pieces of each side lack the feature, if any."""
    if not (row.real.undefined or row.fake.undefined):
        return ""
    return f" (n={row.real.count},{row.fake.count})"


def as_json(evaluation: Evaluation, gallery: Gallery, *, command: str = "") -> dict[str, Any]:
    """The whole evaluation as JSON can hold it; what is undefined or infinite is null."""
    record: dict[str, Any] = {
        "format": FORMAT,
        "command": command,
        "versions": _versions(),
        "seed": evaluation.seed,
        "resamples": evaluation.resamples,
        "permutations": evaluation.permutations,
        "real": _side_json(evaluation.real),
        "fakes": [_side_json(side) for side in evaluation.fakes],
        "training": _side_json(evaluation.training) if evaluation.training else None,
        "real_against_real": evaluation.band,
        "warnings": list(evaluation.warnings),
        "features_told_apart": {
            side.name: sum(row.flagged for row in evaluation.rows_of(side))
            for side in evaluation.fakes
        },
        "rows": [_row_json(row) for row in evaluation.rows],
        "sets": [_set_json(row) for row in evaluation.set_rows],
        "two_sample": [
            _two_sample_json(name, result)
            for name, results in evaluation.two_sample.items()
            for result in results
        ],
        "controls": {
            name: {
                row.column.name: {"times_band": row.times_band, "p_corrected": row.p_corrected}
                for row in rows
            }
            for name, rows in evaluation.controls.items()
        },
        "figures": evaluation.flat(),
        "gallery": {
            "ranking": RANKING,
            "sides": {
                selection.side.name: {
                    kind: [_exhibit_json(exhibit) for exhibit in exhibits]
                    for kind, exhibits in selection.exhibits.items()
                }
                for selection in gallery
            },
        },
        "copying": [_copying_json(part, evaluation) for part in evaluation.copying],
    }
    strict: dict[str, Any] = _without_nan(record)
    return strict


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("rnngan", "numpy", "symusic"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a checkout that is not installed
            versions[package] = "unknown"
    return versions


def _side_json(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "path": side.path,
        "pieces": side.num_pieces,
        "distinct_pieces": side.num_distinct,
        "content_hash": side.content_hash,
        "rejects": [reject._asdict() for reject in side.rejects],
    }


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "side": row.side,
        "feature": row.column.name,
        "group": row.column.group,
        "unit": row.column.unit,
        "kind": row.column.kind,
        "real": _summary_json(row.real),
        "fake": _summary_json(row.fake),
        "measure": row.column.measure,
        "measure_unit": row.column.measure_unit,
        "distance": _figure_json(row.distance),
        "standardised": row.standardised,
        "p": row.p,
        "p_corrected": row.p_corrected,
        "verdict": row.verdict,
        "overlapping_area": _figure_json(row.overlapping_area),
        "kl_divergence_bits": _figure_json(row.kl_divergence),
        "histogram_overlap": row.histogram_overlap,
        "bins": list(row.column.bins),
    }


def _set_json(row: SetRow) -> dict[str, Any]:
    return {
        "side": row.side,
        "metric": row.name,
        "unit": row.unit,
        "direction": row.direction,
        "n_real": row.n_real,
        "n_fake": row.n_fake,
        "value": row.value,
        "interval_95": list(row.interval),
        "real_against_real_95": list(row.band),
        "p": row.p,
        "permutations": row.permutations,
        "p_corrected": row.p_corrected,
        "note": row.note,
    }


def _two_sample_json(side: str, result: TwoSample) -> dict[str, Any]:
    return {
        "side": side,
        "view": result.view,
        "auc": result.auc,
        "interval_95": list(result.interval),
        "real_against_real_95": list(result.band),
        "p": result.p,
        "p_method": result.p_method,
        "n_real": result.num_real,
        "n_fake": result.num_fake,
        "calibration_error": result.calibration_error,
    }


def _summary_json(part: Summary) -> dict[str, Any]:
    return {
        "pieces": part.count,
        "undefined": part.undefined,
        "mean": part.mean,
        "median": part.median,
        "deviation": part.deviation,
        "histogram": part.histogram.tolist(),
    }


def _figure_json(figure: Figure) -> dict[str, Any]:
    return {
        "value": figure.value,
        "interval_95": list(figure.interval),
        "real_against_real_95": list(figure.band),
    }


def _exhibit_json(exhibit: Exhibit) -> dict[str, Any]:
    return {
        "index": exhibit.index,
        "piece": exhibit.title,
        "distance": exhibit.distance,
        "farther_than_real_share": exhibit.farther_than,
        "extremes": [
            {
                "feature": extreme.feature,
                "value": extreme.value,
                "real_middle_95": list(extreme.middle),
                "distance": extreme.distance,
            }
            for extreme in exhibit.extremes
        ],
    }


def _copying_json(part: Copying, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "side": part.side.name,
        "min_notes": MIN_NOTES,
        "share": part.share,
        "interval_95": list(part.interval),
        "nearest_distance_median": float(
            np.nanmedian([found.distance for found in part.nearest] or [math.nan])
        ),
        "worst": list(_worst_copies(part, evaluation)),
    }


def _worst_copies(part: Copying, evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    training = evaluation.training
    for index in part.worst(WORST_COPIES) if training else []:
        run, nearest = part.runs[index], part.nearest[index]
        yield {
            "piece": part.side.title(list(part.side.music)[index]),
            "notes": run.num_notes,
            "line_notes": run.line_notes,
            "bars": list(run.bars),
            "training_piece": training.title(run.training_index) if training else "",
            "training_bars": list(run.training_bars),
            "nearest_training_piece": training.title(nearest.training_index)
            if training and nearest.training_index >= 0
            else "",
            "nearest_distance": nearest.distance,
        }


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_csv(evaluation: Evaluation) -> str:
    """One line per feature and generated side; what is undefined stays empty."""
    text = io.StringIO()
    lines = [_csv_line(row) for row in evaluation.rows]
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _csv_line(row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {
        "side": row.side,
        "feature": row.column.name,
        "group": row.column.group,
        "unit": row.column.unit,
        "verdict": row.verdict,
        "measure": row.column.measure,
        "measure_unit": row.column.measure_unit,
    }
    figures = {
        "distance": row.distance,
        "overlapping_area": row.overlapping_area,
        "kl_divergence_bits": row.kl_divergence,
    }
    for name, figure in figures.items():
        line |= {
            name: figure.value,
            f"{name}_low": figure.interval[0],
            f"{name}_high": figure.interval[1],
            f"{name}_band_low": figure.band[0],
            f"{name}_band_high": figure.band[1],
        }
    line |= {
        "standardised": row.standardised,
        "p": row.p,
        "p_corrected": row.p_corrected,
        "histogram_overlap": row.histogram_overlap,
    }
    for name, part in (("real", row.real), ("fake", row.fake)):
        line |= {
            f"{name}_pieces": part.count,
            f"{name}_undefined": part.undefined,
            f"{name}_mean": part.mean,
            f"{name}_median": part.median,
            f"{name}_deviation": part.deviation,
        }
    return {key: "" if value is None else value for key, value in _without_nan(line).items()}
