"""Quality against diversity of generators, swept over the ways to draw from them.

A generator that is drawn from at a lower temperature writes safer music and less varied music, so a
figure of quality alone says nothing: what counts is the quality at equal diversity. Each generator
is therefore measured at several settings, which make a curve, and two generators are compared where
their curves have the same diversity.

Every figure rests on equally many pieces, comes with resamples of the generated pieces (the
held-out music is taken as it is), and so has a bootstrap 95 % interval. A comparison is one number,
the gap: the quality of one curve less that of the other at the same diversity, interpolated there,
as the mean over the settings of the first. Its interval comes from resampling the pieces of all
points at once. A generator against itself should come out ahead in 2.5 % of comparisons; in 870 of
30 sweeps of a trained network (64 pieces, 6 temperatures) it did in 0.3 % with `bleu` at matched
`self-bleu`, and in 4.8 % with the worst pair, `lm-score` at matched `recall`.

What is found holds for these generators, not for the method that made them: another seed of the
training makes others.

References:
    Caccia et al., "Language GANs falling short", ICLR 2020; Alihosseini et al., "Jointly measuring
    diversity and quality in text generation models", 2019.
"""

from __future__ import annotations

import csv
import io
import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval import resampling, setwise, textual
from eval.features import features_of
from eval.ngrams import NGramModel
from eval.resampling import Interval
from rnngan.errors import UserError, nearest_name
from rnngan.music.piece import Piece
from rnngan.music.vocabulary import Grammar, Tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table as TextTable

Floats = NDArray[np.float64]

RESAMPLES = 500
MIN_PIECES = 10
"""With fewer generated pieces, there is no telling how much they repeat each other."""
FEW_HELD_OUT = 20
"""With fewer, quality is measured against little."""
NGRAM_ORDER = 5
PLACEBOS = ("placebo-constant", "placebo-random", "placebo-shuffled")
CONTROLS = ("likelihood", *PLACEBOS)
"""Refinement without an adversary, or with one that says nothing of the music."""


class Measure(NamedTuple):
    """A figure of a set of generated pieces.

    Attributes:
        name: Versioned name.
        kind: What it stands for; a `check` for neither alone, and without resamples.
        sign: 1 where more of it is better music, or more varied music; -1 where less is.
        range: Lowest and highest value.
    """

    name: str
    kind: Literal["quality", "diversity", "check"]
    sign: int
    range: tuple[float, float]


_SHARE, _BITS = (0.0, 1.0), (0.0, math.inf)
MEASURES = {
    "bleu": Measure("bleu[n=4]", "quality", 1, _SHARE),
    "precision": Measure(f"precision[vector=1,k={setwise.NEIGHBOURS}]", "quality", 1, _SHARE),
    "lm-score": Measure(f"lm_score[n={NGRAM_ORDER}]", "quality", -1, _BITS),
    "self-bleu": Measure("self_bleu[n=4]", "diversity", -1, _SHARE),
    "recall": Measure(f"recall[vector=1,k={setwise.NEIGHBOURS}]", "diversity", 1, _SHARE),
    "reverse-lm-score": Measure(f"reverse_lm_score[n={NGRAM_ORDER}]", "check", -1, _BITS),
}
"""By the name that a person types:

- `bleu`, `self-bleu`: the 4-grams of notes that a piece shares with held-out music, and with the
  rest of its own set (`eval.textual`);
- `precision`, `recall`: shares of pieces near to held-out ones, and of held-out ones near to them,
  by feature vector (`eval.setwise`);
- `lm-score`: bits per token of the pieces under a 5-gram model of the training music; and
  `reverse-lm-score`: of held-out music under a 5-gram model of the pieces, which suffers from poor
  quality as from poor diversity.
"""


class Setting(NamedTuple):
    """A way to draw from a generator; see `rnngan.generator.sampling.sample`."""

    temperature: float
    top_k: int = 0
    top_p: float = 1.0

    @property
    def truncation(self) -> str:
        """Which tokens are cut off, in words; empty for none."""
        parts = [f"top-k {self.top_k}"] if self.top_k else []
        parts += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        return " ".join(parts)

    @property
    def label(self) -> str:
        """All of it in words."""
        return f"T {self.temperature:g} {self.truncation}".strip()


class Likelihood(NamedTuple):
    """Of held-out music under the distribution that is drawn from.

    Attributes:
        bits_per_token: Infinite where a held-out token is never drawn.
        bits_per_note: The same bits, over the notes.
        impossible_rate: Share of the held-out tokens that are never drawn, 0 to 1.
    """

    bits_per_token: float
    bits_per_note: float
    impossible_rate: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """One generator at one setting; or real music, which has neither setting nor likelihood.

    Attributes:
        figures: By the names of `MEASURES`: the figure, then its resamples, whose mean it is, if
            it has any: `(1 + resamples,)`. NaN where pieces are too few or too short.
    """

    setting: Setting | None
    num_pieces: int
    figures: dict[str, Floats]
    likelihood: Likelihood | None = None

    def value(self, name: str) -> float:
        """The figure."""
        return float(self.figures[name][0])

    def interval(self, name: str) -> Interval:
        """Its 95 % interval, within the range of the measure; NaN without resamples."""
        low, high = resampling.quantiles(self.figures[name][1:])
        floor, ceiling = MEASURES[name].range
        return max(low, floor), min(high, ceiling)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One generator at all settings."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A refined generator and the one that it began from.

    Attributes:
        run: Name of the run.
        objective: Of its refinement.
        steps: Likewise.
        pretrained: Where it began; arms that began alike share one curve.
    """

    run: str
    objective: str
    steps: int
    pretrained: Curve
    refined: Curve


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How far one curve lies above another at the same diversity.

    Attributes:
        value: In the unit of the quality, above 0 where the first is better.
        interval: Its 95 % interval.
        num_matched: Settings of the first whose diversity the other has, too.
    """

    value: float
    interval: Interval
    num_matched: int

    @property
    def ahead(self) -> bool:
        """Whether the first curve is better by more than chance."""
        return self.interval[0] > 0

    @property
    def behind(self) -> bool:
        """Whether it is worse by more than chance."""
        return self.interval[1] < 0

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:+.3f} ({low:+.3f} to {high:+.3f})"


Outcome = Literal[
    "beats likelihood", "nothing can be claimed", "no difference", "loses", "not comparable"
]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What may be said of one arm.

    Attributes:
        sentence: For people.
        gap: To the pretrained generator.
        control_gap: To the equal-budget control.
        placebo_gaps: Of each placebo to the pretrained generator, by objective.
        missing: Controls that were not given.
    """

    run: str
    outcome: Outcome
    sentence: str
    gap: Gap | None
    control_gap: Gap | None
    placebo_gaps: dict[str, Gap | None]
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """All that was measured.

    Attributes:
        curves: Each generator once.
        real: As many pieces of the training music, see `measure_training`.
        quality: Measure that the verdicts rest on, and likewise `diversity`.
    """

    curves: tuple[Curve, ...]
    arms: tuple[Arm, ...]
    real: Point
    quality: str
    diversity: str
    verdicts: tuple[Verdict, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdicts, or why there is none."""
        if not self.verdicts:
            return ("No adversarially refined generator is among these runs: nothing to judge.",)
        return tuple(verdict.sentence for verdict in self.verdicts)


# --- Measuring


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What every set is measured against.

    Attributes:
        held_out: Real music that no generator has seen.
        held_out_tokens: The same as tokens.
        table: Its features, see `eval.setwise`.
        ngrams: 5-gram model of the training music.
        grammar: Of the tokens.
    """

    held_out: Sequence[Piece]
    held_out_tokens: Sequence[Tokens]
    table: setwise.Table
    ngrams: NGramModel
    grammar: Grammar

    @staticmethod
    def of(
        held_out: Sequence[Piece],
        held_out_tokens: Sequence[Tokens],
        training_tokens: Sequence[Tokens],
        grammar: Grammar,
    ) -> Reference:
        """Measure the held-out music and count the training music."""
        return Reference(
            held_out=held_out,
            held_out_tokens=held_out_tokens,
            table=_features(held_out),
            ngrams=_ngram_model(training_tokens, grammar),
            grammar=grammar,
        )


def measure(
    pieces: Sequence[Piece],
    tokens: Sequence[Tokens],
    reference: Reference,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[str, Floats]:
    """All of `MEASURES` of a set of pieces, as `Point.figures`.

    One choice of pieces makes a resample of all figures, so that any two may be set against each
    other. A piece that is drawn twice counts twice, but is not its own reference; what resampling
    adds to a figure on average for that reason is taken off again.

    Args:
        pieces: At least `MIN_PIECES`.
        tokens: The same as tokens, Start included.
        reference: What to measure against.
        rng: Of the resamples.
        resamples: Of each figure but the last.
    """
    num_real, num = len(reference.held_out), len(pieces)
    everything = np.arange(num_real + num)
    chosen = rng.multinomial(num, np.full(num, 1 / num), size=resamples)
    generated = np.concatenate([np.ones((1, num), int), chosen])
    counts = np.zeros((2, 1 + resamples, num_real + num), np.uint8)
    counts[0, :, :num_real] = 1
    counts[1, :, num_real:] = generated

    sequences = [textual.tokens_of(piece) for piece in [*reference.held_out, *pieces]]
    lengths = np.array([len(sequence) for sequence in sequences])
    long = np.flatnonzero(lengths >= setwise.MIN_TOKENS)
    draw = setwise.Draw(long, counts[:, :, long])
    with np.errstate(invalid="ignore"):
        bleus = setwise.bleus(textual.NGrams(sequences), draw, rng)
    place = textual.ORDERS.index(4)

    own = _features(pieces)
    table = {name: np.concatenate([values, own[name]]) for name, values in reference.table.items()}
    vectors = setwise.feature_matrix(table, scale_by=everything < num_real).rows
    manifold = setwise.manifolds(vectors, setwise.Draw(everything, counts), rng)

    bits = reference.ngrams.bits(tokens, _allowed(tokens, reference.grammar))
    targets = np.array([len(row) - 1 for row in tokens])
    per_piece = np.add.reduceat(bits, np.cumsum(targets) - targets)
    reverse = _ngram_model(tokens, reference.grammar).bits(
        reference.held_out_tokens, _allowed(reference.held_out_tokens, reference.grammar)
    )
    figures = {
        "bleu": bleus[place],
        "precision": manifold[0],
        "lm-score": generated @ per_piece / (generated @ targets),
        "self-bleu": bleus[len(textual.ORDERS) + place],
        "recall": manifold[1],
        "reverse-lm-score": np.array([reverse.mean()]),
    }
    return {name: _centred(values) for name, values in figures.items()}


def measure_training(
    pieces: Sequence[Piece],
    tokens: Sequence[Tokens],
    reference: Reference,
    *,
    rng: np.random.Generator,
) -> Point:
    """Real music in place of generated music: where a perfect generator would lie.

    Its `lm-score` is that of the held-out music, since the n-gram model has counted the other.

    Args:
        pieces: Of the training music, as many as are generated.
        tokens: The same as tokens.
        reference: What to measure against.
        rng: Of the resamples.
    """
    figures = measure(pieces, tokens, reference, rng=rng)
    held_out = reference.held_out_tokens
    bits = reference.ngrams.bits(held_out, _allowed(held_out, reference.grammar))
    figures["lm-score"] = np.array([bits.mean()])
    return Point(setting=None, num_pieces=len(pieces), figures=figures)


def _features(pieces: Sequence[Piece]) -> setwise.Table:
    found = [features_of(piece) for piece in pieces]
    return {name: np.array([f[name] for f in found], dtype=float) for name in setwise.VECTOR}


def _ngram_model(tokens: Sequence[Tokens], grammar: Grammar) -> NGramModel:
    return NGramModel.fit(tokens, order=NGRAM_ORDER, vocab_size=grammar.allowed.shape[1])


def _allowed(tokens: Sequence[Tokens], grammar: Grammar) -> list[NDArray[np.bool_]]:
    return [
        grammar.allowed[grammar.states_before(row[None], np.array([len(row)]))[0]] for row in tokens
    ]


def _centred(figure: Floats) -> Floats:
    """Resamples moved so that the figure is their mean."""
    value, resampled = figure[:1], figure[1:]
    if np.isnan(resampled).all():
        return np.asarray(figure, dtype=float)
    return np.concatenate([value, resampled + value - np.nanmean(resampled)])


# --- Judging


def matched_gap(curve: Curve, baseline: Curve, *, quality: str, diversity: str) -> Gap | None:
    """How far a curve lies above another at the diversity of each of its points, on average.

    The quality of the baseline is interpolated between its points on either side. Points drawn
    with different truncation are different curves: like is compared with like. Points whose
    diversity the baseline does not reach are left out; None if that leaves none.
    """
    gaps = []
    for truncation in dict.fromkeys(_truncation(point) for point in curve.points):
        ours, theirs = (
            _figures([p for p in one.points if _truncation(p) == truncation], quality, diversity)
            for one in (curve, baseline)
        )
        if not theirs.size or not ours.size:
            continue
        reached = theirs[1, :, 0]
        matched = (ours[1, :, 0] >= reached.min()) & (ours[1, :, 0] <= reached.max())
        gaps.append(ours[0, matched] - _interpolated(ours[1, matched], theirs))
    if not sum(map(len, gaps)):
        return None
    matched_gaps = np.concatenate(gaps)
    mean = _centred(matched_gaps.mean(axis=0))
    return Gap(
        value=float(mean[0]),
        interval=resampling.quantiles(mean[1:]),
        num_matched=len(matched_gaps),
    )


def _truncation(point: Point) -> str:
    return point.setting.truncation if point.setting else ""


def _figures(points: Sequence[Point], quality: str, diversity: str) -> Floats:
    """Quality and diversity, more of either being better: `(2, points, 1 + resamples)`.

    Points that have none are left out.
    """
    known = [p for p in points if math.isfinite(p.value(quality) + p.value(diversity))]
    return np.array(
        [
            [MEASURES[name].sign * point.figures[name] for point in known]
            for name in (quality, diversity)
        ]
    )


def _interpolated(diversity: Floats, baseline: Floats) -> Floats:
    """Quality of the baseline at some diversities, resample by resample.

    Shapes: diversity and result `(matched, 1 + resamples)`, baseline `(2, points, 1 + resamples)`.
    """
    order = np.argsort(baseline[1], axis=0)
    quality, reached = (np.take_along_axis(part, order, axis=0) for part in baseline)
    found = np.empty_like(diversity)
    for column in range(diversity.shape[1]):
        found[:, column] = np.interp(diversity[:, column], reached[:, column], quality[:, column])
    return found


def check_pair(quality: str, diversity: str) -> None:
    """Refuse measures that do not exist or stand for something else.

    Raises:
        UserError: As said.
    """
    for kind, name in (("quality", quality), ("diversity", diversity)):
        names = [key for key, one in MEASURES.items() if one.kind == kind]
        if name not in names:
            raise UserError(
                f"{kind} must be one of {', '.join(names)}, got {name!r}{nearest_name(name, names)}"
            )


def judge(arm: Arm, arms: Sequence[Arm], *, quality: str, diversity: str) -> Verdict:
    """What may be said of an adversarially refined generator.

    It beats likelihood if, at matched diversity, it is better than the generator it began from by
    more than chance, better likewise than the equal-budget control (as many further steps of
    likelihood), and if none of the three placebos is better than where it began. Controls count
    that began from the same generator and took at least as many steps; if one was not given,
    nothing can be claimed.

    Args:
        arm: The refined generator.
        arms: All arms that were measured.
        quality: Measure.
        diversity: Measure.
    """

    def gap_to(refined: Curve, baseline: Curve) -> Gap | None:
        return matched_gap(refined, baseline, quality=quality, diversity=diversity)

    controls: dict[str, Arm] = {}
    for other in arms:
        if other.pretrained is arm.pretrained and other.steps >= arm.steps:
            controls.setdefault(other.objective, other)
    missing = tuple(name for name in CONTROLS if name not in controls)
    gap = gap_to(arm.refined, arm.pretrained)
    control = controls.get("likelihood")
    control_gap = gap_to(arm.refined, control.refined) if control else None
    placebo_gaps = {
        name: gap_to(controls[name].refined, arm.pretrained)
        for name in PLACEBOS
        if name in controls
    }
    outcome, reason = _outcome(gap, control_gap, placebo_gaps, missing, arm.steps)
    what = f"{MEASURES[quality].name} at matched {MEASURES[diversity].name}"
    by = f", {gap} in {what}" if gap else ""
    lead = {
        "beats likelihood": f"refinement beats likelihood{by}",
        "nothing can be claimed": f"refinement is ahead of likelihood{by}",
        "no difference": f"no difference from likelihood is seen, {gap} in {what}",
        "loses": f"refinement loses to likelihood{by}",
        "not comparable": "refinement and likelihood cannot be compared",
    }[outcome]
    return Verdict(
        run=arm.run,
        outcome=outcome,
        sentence=f"{arm.run} ({arm.objective}): {lead}{reason}.",
        gap=gap,
        control_gap=control_gap,
        placebo_gaps=placebo_gaps,
        missing=missing,
    )


def _outcome(
    gap: Gap | None,
    control_gap: Gap | None,
    placebo_gaps: dict[str, Gap | None],
    missing: tuple[str, ...],
    steps: int,
) -> tuple[Outcome, str]:
    """The outcome, and the rest of its sentence."""
    if gap is None:
        return "not comparable", (
            ": at no setting does it have a diversity that likelihood reaches; widen --temperatures"
        )
    if gap.behind:
        return "loses", ""
    if not gap.ahead:
        return "no difference", ""
    if missing:
        return "nothing can be claimed", (
            f", but nothing can be claimed: of the controls from the same pretrained generator "
            f"with at least {steps} steps, {_listed(missing)} {_is(missing)} missing"
        )
    if control_gap is None:
        return "nothing can be claimed", (
            ", but nothing can be claimed: the equal-budget control has no matched diversity"
        )
    if not control_gap.ahead:
        return "nothing can be claimed", (
            f", but nothing can be claimed: not of the equal-budget control, {control_gap}"
        )
    unknown = [name for name, found in placebo_gaps.items() if found is None]
    if unknown:
        return "nothing can be claimed", (
            f", but nothing can be claimed: {_listed(unknown)} {_is(unknown)} at no matched "
            "diversity"
        )
    winners = [f"{name}, {gap}," for name, gap in placebo_gaps.items() if gap and gap.ahead]
    if winners:
        return "nothing can be claimed", (
            f", but nothing can be claimed: so {_is(winners)} {_listed(winners)}"
        )
    return "beats likelihood", (
        f", and is ahead of the equal-budget control, {control_gap}; the placebos show no gain"
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


# --- Showing


def terminal_table(frontier: Frontier) -> TextTable:
    """A line for each generator, and one below it for each setting."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "bits/token", "bits/note", *MEASURES):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    table.add_row("real music", "", "", *_cells(frontier.real))
    for curve in frontier.curves:
        table.add_row(curve.name, style="bold")
        for point in curve.points:
            setting = point.setting.label if point.setting else ""
            table.add_row(f"  {setting}", *_bits(point.likelihood), *_cells(point))
    return table


def _cells(point: Point) -> list[str]:
    cells = []
    for name in MEASURES:
        low, high = point.interval(name)
        around = "" if math.isnan(low) else f" ±{(high - low) / 2:.3f}"
        cells.append(f"{point.value(name):.3f}{around}")
    return cells


def _bits(likelihood: Likelihood | None) -> tuple[str, str]:
    if likelihood is None:
        return "", ""
    if likelihood.impossible_rate:
        return "infinite", f"{likelihood.impossible_rate:.2%} undrawable"
    return f"{likelihood.bits_per_token:.4f}", f"{likelihood.bits_per_note:.4f}"


def as_json(frontier: Frontier, **about: Any) -> str:
    """All figures; `about` goes first. What is not finite is null."""
    data = {
        **about,
        "quality": MEASURES[frontier.quality].name,
        "diversity": MEASURES[frontier.diversity].name,
        "verdicts": [asdict(verdict) for verdict in frontier.verdicts],
        "arms": [
            {
                "run": arm.run,
                "objective": arm.objective,
                "steps": arm.steps,
                "pretrained": arm.pretrained.name,
                "refined": arm.refined.name,
            }
            for arm in frontier.arms
        ],
        "real_music": _point_json(frontier.real),
        "curves": {
            curve.name: [_point_json(point) for point in curve.points] for curve in frontier.curves
        },
    }
    return json.dumps(_finite(data), indent=1)


def _point_json(point: Point) -> dict[str, Any]:
    return {
        **(point.setting._asdict() if point.setting else {}),
        "num_pieces": point.num_pieces,
        **(point.likelihood._asdict() if point.likelihood else {}),
        **{
            one.name: {"value": point.value(name), "interval": point.interval(name)}
            for name, one in MEASURES.items()
        },
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_csv(frontier: Frontier) -> str:
    """One line for each point, with the ends of the intervals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{one.name}{end}" for one in MEASURES.values() for end in ("", " low", " high")]
    writer.writerow(
        ["generator", *Setting._fields, "num_pieces", *Likelihood._fields, *columns],
    )
    named = [("real music", frontier.real)]
    named += [(curve.name, point) for curve in frontier.curves for point in curve.points]
    for name, point in named:
        numbers = [number for m in MEASURES for number in (point.value(m), *point.interval(m))]
        setting: Sequence[Any] = point.setting or [""] * len(Setting._fields)
        bits: Sequence[Any] = point.likelihood or [""] * len(Likelihood._fields)
        writer.writerow([name, *setting, point.num_pieces, *bits, *numbers])
    return text.getvalue()


def picture(frontier: Frontier) -> bytes:
    """Quality against diversity as a PNG file: better is up, more varied is right."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from eval.pictures import FAINT, FAKES, INK, STYLE

    with rc_context(STYLE):
        figure = Figure(figsize=(8, 6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for i, curve in enumerate(frontier.curves):
            _draw(axes, curve, frontier, FAKES[i % len(FAKES)])
        x, y = frontier.real.value(frontier.diversity), frontier.real.value(frontier.quality)
        axes.plot(x, y, "*", color=INK, markersize=13, label="real music", zorder=3)
        quality, diversity = MEASURES[frontier.quality], MEASURES[frontier.diversity]
        axes.set_xlabel(f"{diversity.name}    more varied →")
        axes.set_ylabel(f"{quality.name}    better →")
        if diversity.sign < 0:
            axes.invert_xaxis()
        if quality.sign < 0:
            axes.invert_yaxis()
        axes.grid(color=FAINT, alpha=0.25, lw=0.5)
        axes.legend(loc="best")
        axes.set_title("\n".join(textwrap.fill(line, 120) for line in frontier.sentences))
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=130, metadata={"Software": None})
    return file.getvalue()


def _draw(axes: Axes, curve: Curve, frontier: Frontier, colour: str) -> None:
    """A line for each truncation, crosses of intervals, labels of the settings."""
    styles = ("-", "--", ":", "-.")
    truncations = dict.fromkeys(_truncation(point) for point in curve.points)
    for i, truncation in enumerate(truncations):
        points = [p for p in curve.points if _truncation(p) == truncation]
        x, y = (
            np.array([p.value(name) for p in points])
            for name in (frontier.diversity, frontier.quality)
        )
        reaches = [
            np.abs(np.array([p.interval(name) for p in points]).T - values)
            for name, values in ((frontier.diversity, x), (frontier.quality, y))
        ]
        label = f"{curve.name} {truncation}".strip()
        style = styles[i % len(styles)]
        axes.plot(x, y, style, color=colour, marker="o", markersize=3.5, lw=1.2, label=label)
        axes.errorbar(
            x, y, xerr=reaches[0], yerr=reaches[1], fmt="none", ecolor=colour, alpha=0.35, lw=0.8
        )
        for point, at_x, at_y in zip(points, x, y):
            if point.setting and np.isfinite(at_x + at_y):
                axes.annotate(
                    f"{point.setting.temperature:g}",
                    (at_x, at_y),
                    xytext=(4, -10 if i else 4),
                    textcoords="offset points",
                    color=colour,
                    fontsize=7,
                )
