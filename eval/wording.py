"""The numbers of an evaluation as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eval.copying import MIN_NOTES
from eval.evaluation import ALPHA, Evaluation, Row
from eval.gallery import Exhibit
from eval.pieces import Side
from eval.resampling import Interval
from eval.setwise import SetRow
from eval.twosample import headline

FARTHEST = 5
"""Features that a summary names."""


def number(value: float) -> str:
    """Three significant digits, whole from 1,000 on; a dash for what is undefined."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def between(ends: Interval) -> str:
    """The ends of an interval."""
    return "–" if math.isnan(ends[0]) else f"{number(ends[0])} … {number(ends[1])}"


def p_value(value: float) -> str:
    """Three decimals."""
    if math.isnan(value):
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def percent(share: float) -> str:
    """A share, 0 to 1, in percent."""
    return "–" if math.isnan(share) else f"{100 * share:.3g} %"


def side_by_side(rows: Sequence[Row]) -> list[str]:
    """One feature for several generated sides: its name, the real mean, and of each side three."""
    cells = [rows[0].column.name, number(rows[0].real.mean)]
    for row in rows:
        cells += [number(row.fake.mean), number(row.distance.value), row.verdict]
    return cells


def set_cells(row: SetRow) -> list[str]:
    """One figure of a side as a whole."""
    return [
        row.side,
        row.name,
        number(row.value),
        between(row.interval),
        between(row.band),
        p_value(row.p_corrected),
        row.direction,
    ]


def summary(evaluation: Evaluation, side: Side) -> list[str]:
    """What the numbers say of one generated side, in sentences."""
    rows = [row for row in evaluation.rows_of(side) if row.verdict != "undefined"]
    told = [row for row in rows if row.flagged]
    lines = [
        f"{side.name} ({side.num_pieces} pieces) against {evaluation.real.name} "
        f"({evaluation.real.num_pieces} pieces): {len(told)} of {len(rows)} features tell them "
        f"apart (false discovery rate {100 * ALPHA:g} %)."
    ]
    if told:
        groups = dict.fromkeys(row.column.group for row in rows)
        counts = (
            f"{group} {sum(row.column.group == group for row in told)} of "
            f"{sum(row.column.group == group for row in rows)}"
            for group in groups
        )
        lines.append(f"By group: {', '.join(counts)}.")
        farthest = sorted(told, key=lambda row: -row.times_band)[:FARTHEST]
        lines.append(
            "Farthest from real music: "
            + ", ".join(f"{row.column.name} ({_how_far(row)})" for row in farthest)
            + "."
        )
    else:
        lines.append("Nothing measured here tells them apart, which does not prove them equal.")
    if results := evaluation.two_sample.get(side.name):
        best = headline(results)
        lines.append(
            f"A classifier trained on it and on real music tells them apart with an AUC of "
            f"{best.auc:.2f} ({between(best.interval)}; real from real {between(best.band)}; "
            f"view: {best.view}; p {p_value(best.p)})."
        )
    for copying in evaluation.copying:
        if copying.side is side:
            held_out = evaluation.copying[0]
            lines.append(
                f"Copying: {percent(copying.share)} of its pieces repeat {MIN_NOTES} or more "
                f"notes in a row from the training set; of {held_out.side.name}, which is held "
                f"out, {percent(held_out.share)}."
            )
    return lines


def exhibit_lines(exhibit: Exhibit) -> list[str]:
    """How far a piece lies from real music, and in what most."""
    extremes = (
        f"{extreme.feature} {number(extreme.value)} (real {between(extreme.middle)})"
        for extreme in exhibit.extremes
    )
    return [
        f"Distance {number(exhibit.distance)}; {percent(exhibit.farther_than)} of the real pieces "
        "lie nearer.",
        f"Farthest from real music: {', '.join(extremes)}.",
    ]


def _how_far(row: Row) -> str:
    times = "real never differs" if math.isinf(row.times_band) else f"{row.times_band:.2g} × band"
    return f"{row.verdict}, {times}"
