"""The report as one self-contained HTML page."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from eval.copying import MIN_NOTES
from eval.evaluation import ALPHA, Evaluation, Row
from eval.gallery import RANKING, Exhibit, Gallery, Kind, sound, sound_seconds
from eval.pictures import piano_roll
from eval.pieces import Side
from eval.wording import (
    between,
    exhibit_lines,
    number,
    p_value,
    percent,
    set_cells,
    side_by_side,
    summary,
)

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 76rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums; }
th, td { padding: .18rem .6rem; text-align: right; white-space: nowrap; }
th { border-bottom: 1.5px solid #777; vertical-align: bottom; }
td:first-child, th:first-child { text-align: left; }
tbody tr:hover { background: #f5f5f5; }
tr.group td { font-weight: 600; padding-top: .8rem; border-bottom: 1px solid #ddd; }
tr.flagged td { color: #a32100; }
.scroll { overflow-x: auto; }
.warning { border-left: 4px solid #d9902f; background: #fdf6ea; padding: .4rem .8rem;
  margin: .4rem 0; }
img { max-width: 100%; }
code { font-family: ui-monospace, monospace; font-size: 12px; overflow-wrap: anywhere; }
.faint { color: #666; }
figure { margin: 1rem 0 1.8rem; }
figure p { margin: .2rem 0; }
audio { display: block; width: 24rem; max-width: 100%; height: 2.2rem; }
"""

HOW_TO_READ = (
    "Distance: Wasserstein-1 in the feature's unit for numbers and ordered histograms, "
    "Jensen-Shannon divergence in bits for categories. Of histograms, the mean over the pieces is "
    "compared; for ordered ones the columns real and fake show its mean position.",
    "95 % interval: where the true distance lies; bootstrap over the pieces of both sides, "
    "corrected for the upward bias of distances between samples.",
    "Real vs real: the middle 95 % of the same distance between real sets: ",
    "p corr.: permutation test, corrected over the whole table (Benjamini and Hochberg). Red: "
    f"below {ALPHA:g}. “No difference seen” is not “equal”; “too few” means that so few pieces "
    "could not have shown one.",
    "OA and KL: overlapping area and Kullback-Leibler divergence (bits) of two densities, the "
    "distances within the real side and those between the sides (Yang and Lerch, 2018).",
    "n: pieces in which the feature is defined.",
)


PICTURES = {
    "distributions": (
        "Numbers over the pieces",
        "Histograms and kernel densities (Gaussian, bandwidth by Scott's rule) of all sides on one "
        "grid, without the outermost percent at either end. Numbers of few values: the share of "
        "the pieces at each.",
    ),
    "histograms": ("Histograms", "Means over the pieces."),
    "transitions": ("Transitions", "Means over the pieces."),
    "self_similarity": (
        "Self-similarity",
        "Dark where two beats of a piece sound alike (cosine of their pitch classes); a dark line "
        "beside the diagonal is a passage that comes back. Fitness, 0 to 1: how well the "
        "clearest repeat of 3 seconds or more explains the piece.",
    ),
}


def as_html(
    evaluation: Evaluation, gallery: Gallery, images: dict[str, bytes], record: dict[str, Any]
) -> str:
    """One self-contained page: summary, tables, pictures, pieces, copying, provenance."""
    title = f"{', '.join(side.name for side in evaluation.fakes)} against {evaluation.real.name}"
    parts = [
        "<!doctype html>",
        f'<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{STYLE}</style>",
        f"<h1>{escape(title)}</h1>",
        *(
            f"<p>{'<br>'.join(escape(line) for line in summary(evaluation, side))}</p>"
            for side in evaluation.fakes
        ),
        *(f'<p class="warning">{escape(warning)}.</p>' for warning in evaluation.warnings),
        _image("How far each feature lies from real music", images["summary"]),
    ]
    if len(evaluation.fakes) > 1:
        parts += ["<h2>Side by side</h2>", _html_side_by_side(evaluation)]
    for side in evaluation.fakes:
        parts.append(f"<h2>{escape(side.name)}, feature by feature</h2>")
        parts.append(_html_rows(evaluation.rows_of(side)))
    if evaluation.set_rows or evaluation.two_sample:
        parts.append(_html_sets(evaluation))
    parts.append('<h2>How to read the table</h2><ul class="faint">')
    for line in HOW_TO_READ:
        text = line + evaluation.band + "." if line.endswith(": ") else line
        parts.append(f"<li>{escape(text)}</li>")
    parts.append("</ul>")
    for name, (heading, told) in PICTURES.items():
        if name in images:
            parts.append(f'<h2>{heading}</h2><p class="faint">{escape(told)}</p>')
            parts.append(_image(heading, images[name]))
    if gallery:
        parts.append(_html_gallery(gallery))
    if record["copying"]:
        parts.append(_html_copying(record["copying"]))
    if evaluation.controls:
        parts.append(_html_controls(evaluation))
    parts.append(_html_provenance(record))
    return "\n".join(parts) + "\n</html>\n"


def _image(text: str, data: bytes) -> str:
    encoded = base64.b64encode(data).decode()
    return f'<p><img alt="{escape(text)}" src="data:image/png;base64,{encoded}"></p>'


def _html_table(heads: Sequence[str], body: Sequence[str]) -> str:
    cells = "".join(f"<th>{escape(head)}</th>" for head in heads)
    rows = "\n".join(body)
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _html_line(cells: Sequence[str], kind: str = "") -> str:
    return f'<tr class="{kind}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _html_rows(rows: Sequence[Row]) -> str:
    heads = ["feature", "n", "real", "fake", "distance", "95 % interval", "real vs real"]
    heads += ["unit", "p corr.", "verdict", "OA", "real vs real", "KL", "real vs real"]
    body: list[str] = []
    group = ""
    for row in rows:
        if row.column.group != group:
            group = row.column.group
            body.append(f'<tr class="group"><td colspan="{len(heads)}">{group}</td></tr>')
        cells = [
            row.column.name,
            f"{row.real.count}, {row.fake.count}",
            number(row.real.mean),
            number(row.fake.mean),
            number(row.distance.value),
            between(row.distance.interval),
            between(row.distance.band),
            row.column.measure_unit,
            p_value(row.p_corrected),
            row.verdict,
            number(row.overlapping_area.value),
            between(row.overlapping_area.band),
            number(row.kl_divergence.value),
            between(row.kl_divergence.band),
        ]
        body.append(_html_line(cells, "flagged" if row.flagged else ""))
    return _html_table(heads, body)


def _html_side_by_side(evaluation: Evaluation) -> str:
    heads = ["feature", "real"]
    for side in evaluation.fakes:
        heads += [side.name, "distance", "verdict"]
    by_feature = zip(*(evaluation.rows_of(side) for side in evaluation.fakes), strict=True)
    return _html_table(heads, [_html_line(side_by_side(rows)) for rows in by_feature])


def _html_sets(evaluation: Evaluation) -> str:
    """The sides as wholes: figures on feature vectors and tokens, and classifiers."""
    heads = ["side", "figure", "value", "95 % interval", "real vs real", "p corr.", "better", "n"]
    body = [
        _html_line(
            [*set_cells(row), f"{row.n_real}, {row.n_fake}"],
            "flagged" if row.p_corrected < ALPHA else "",
        )
        for row in evaluation.set_rows
    ]
    body += [
        _html_line(
            [
                name,
                f"two_sample_auc[view={result.view}]",
                f"{result.auc:.3f}",
                between(result.interval),
                between(result.band),
                f"{p_value(result.p)} (not corrected)",
                "0.5",
                f"{result.num_real}, {result.num_fake}",
            ],
            "flagged" if result.p < ALPHA else "",
        )
        for name, results in evaluation.two_sample.items()
        for result in results
    ]
    notes = dict.fromkeys(row.note for row in evaluation.set_rows if row.note)
    told = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<h2>As wholes</h2>{_html_table(heads, body)}<ul class="faint">{told}</ul>'


def _html_controls(evaluation: Evaluation) -> str:
    """How the features react to real music that was spoilt on purpose."""
    names = list(evaluation.controls)
    body = []
    for rows in zip(*evaluation.controls.values(), strict=True):
        cells = [
            number(row.times_band) + ("" if row.flagged or math.isnan(row.p) else " ·")
            for row in rows
        ]
        body.append(_html_line([rows[0].column.name, *cells]))
    return (
        "<h2>What the features react to</h2><p>Real music against itself after one thing was "
        "changed: the distance in units of the upper end of its band, above 1 where the feature "
        "reacts by more than chance; a point behind it where the permutation test sees nothing.</p>"
        + _html_table(["feature", *names], body)
    )


def _html_gallery(gallery: Gallery) -> str:
    """Piano roll and sound of the pieces that were chosen of each side."""
    with_music = [selection for selection in gallery if selection.side.pieces]
    seconds = sound_seconds(sum(len(e) for s in with_music for e in s.exhibits.values()))
    parts = [
        "<h2>Pieces to look at and to listen to</h2>",
        f'<p class="faint">{escape(RANKING)} In brackets: the real side\'s middle 95 %. The sound '
        f"is that of the first {number(seconds)} s, up to the dotted line.</p>",
    ]
    for selection in gallery:
        side = selection.side
        real = " (real)" if selection is gallery[0] else ""
        parts.append(f"<h3>{escape(side.name)}{real}</h3>")
        if not side.pieces:
            parts.append(
                '<p class="faint">It is here as statistics, without its music: nothing to look '
                "at or to listen to.</p>"
            )
        parts += [
            _html_exhibit(side, kind, exhibit, seconds)
            for kind, exhibits in selection.exhibits.items()
            for exhibit in exhibits
        ]
    return "\n".join(parts)


def _html_exhibit(side: Side, kind: Kind, exhibit: Exhibit, seconds: float) -> str:
    title = escape(exhibit.title)
    lines = "<br>".join(map(escape, exhibit_lines(exhibit)))
    caption = f'<b>{kind}: {title}</b><br><span class="faint">{lines}</span>'
    music = ""
    if side.pieces:
        piece = side.music[exhibit.index]
        encoded = base64.b64encode(sound(piece, seconds)).decode()
        music = (
            _image(f"Piano roll of {exhibit.title}", piano_roll(piece, seconds=seconds))
            + f'<audio controls src="data:audio/wav;base64,{encoded}"></audio>'
        )
    return f"<figure><figcaption>{caption}</figcaption>{music}</figure>"


def _html_copying(parts: list[dict[str, Any]]) -> str:
    shares = [
        f"<li>{escape(part['side'])}: {percent(_or_nan(part['share']))} of the pieces with "
        f"{MIN_NOTES} notes or more ({percent(_or_nan(part['interval_95'][0]))} … "
        f"{percent(_or_nan(part['interval_95'][1]))})</li>"
        for part in parts
    ]
    body = [
        _html_line(
            [
                part["side"],
                worst["piece"],
                f"{worst['notes']} of {worst['line_notes']}",
                "–".join(map(str, worst["bars"])),
                worst["training_piece"],
                "–".join(map(str, worst["training_bars"])),
                worst["nearest_training_piece"] or "–",
                number(_or_nan(worst["nearest_distance"])),
            ]
        )
        for part in parts
        for worst in part["worst"]
    ]
    heads = ["side", "piece", "notes in a row", "bars", "training piece", "bars there"]
    heads += ["nearest training piece", "edit distance / length"]
    return (
        f"<h2>Copying from the training set</h2><p>Share of pieces with {MIN_NOTES} or more notes "
        "in a row as in a training piece: the same intervals and times between onsets in the top "
        "line, in any key. Held-out real music shows how much of that is common stock.</p>"
        f"<ul>{''.join(shares)}</ul>{_html_table(heads, body)}"
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _html_provenance(record: dict[str, Any]) -> str:
    sides = [
        record["real"],
        *record["fakes"],
        *([record["training"]] if record["training"] else []),
    ]
    body = [
        _html_line(
            [
                side["name"],
                side["path"] or "–",
                str(side["pieces"]),
                str(side["distinct_pieces"]),
                str(len(side["rejects"])),
                side["content_hash"],
            ]
        )
        for side in sides
    ]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    table = _html_table(["side", "path", "pieces", "distinct", "refused", "content hash"], body)
    command = (
        f"<p>Command: <code>{escape(record['command'])}</code></p>" if record["command"] else ""
    )
    return (
        f"<h2>Provenance</h2>{table}{command}<p>Seed {record['seed']}, {record['resamples']} "
        f"resamples, {record['permutations']} permutations. {escape(versions)}.</p>"
    )
