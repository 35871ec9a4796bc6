"""Can a classifier that never saw them tell generated pieces from real ones?

The classifier two-sample test: fresh classifiers learn to tell held-out real pieces from generated
ones, and are judged on pieces they did not learn from. The area under the ROC curve (AUC) is the
chance that of a generated and a real piece the generated one gets the higher logit: 0.5 where
nothing can be told apart, 1 where everything can. A low AUC speaks for a generator only as far as
the classifiers are good, so several look at different views of a piece, and the largest counts:

- `features`: logistic regression on the features of `eval.features`, which takes seconds;
- `tokens`: a convolutional network on the notes as they are;
- `intervals`: the same network on what transposing leaves as it is: intervals above the bass,
  motion of the outer voices, rhythm, place in the bar.

None is related to a discriminator that generators are trained against, which are recurrent.

Pieces are split into folds, and every piece is scored by classifiers that saw none of its fold.
All windows of a piece lie in one fold, and so do pieces of one group (the same music in another
key, near-duplicates, movements of one work). Otherwise classifiers recognise pieces, and real music
can be told from real music. Only pairs of one fold are compared, since the logits of two folds come
from two classifiers.

References:
    Lopez-Paz & Oquab, "Revisiting classifier two-sample tests", ICLR 2017.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from eval import resampling
from eval.features import FEATURES, features_of
from eval.pieces import Track, silently
from eval.resampling import Counts, Interval
from rnngan.errors import UserError
from rnngan.music.piece import DRUMS, Notes, Piece

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
View = Literal["features", "tokens", "intervals"]
Table: TypeAlias = Mapping[str, Floats]
"""Each feature over some pieces: `(pieces,)` or, for histograms, `(pieces, bins)`."""

VIEWS: tuple[View, ...] = get_args(View)
FEW_PIECES = 20
"""With fewer on a side, an AUC says nothing."""
MIN_GROUPS = 4
"""With fewer on a side nothing is left to learn from and to stop by."""
BAND_RUNS = 3
"""Comparisons of real with real music behind a band; one costs as much as the test itself."""
REFITS = 199
"""Permutations for which the regression is fitted anew."""
MAX_REFIT_PIECES = 500
"""With more, only the scores are permuted."""
PERMUTATIONS = 4999
"""Permutations of scores."""
WIDENING = 1.25
"""Of the bootstrap interval: pieces are resampled with the logits they have, though other pieces
would have made other classifiers. In 100 draws of 60 against 60 pieces the interval covers an AUC
of 0.5 in 94 % and one of 0.80 in 98 %; without this, in 87 % and 93 %."""
PENALTY = 10.0
"""Weight of half the squared weights in the loss of the regression. Of 100, 10 and 1 that with the
best AUC and calibration for 128 pieces of one book of tunes against 106 of another."""

WINDOW = 128
"""Notes that a network sees at once."""
MAX_WINDOWS = 4
"""Windows of a piece, at most, so that long pieces do not count for much more."""
EMBEDDING_SIZE = 16
HIDDEN_SIZE = 64
EPOCHS = 40
PATIENCE = 5
"""Epochs without progress on the pieces set aside, after which training ends."""
STOPPING_PARTS = 6
"""Of what a network may learn from, one part in so many says when to stop."""
BATCH = 32

LONGEST_TICKS = 96
"""From here on networks cannot tell inter-onset intervals and lengths apart."""
LONGEST_BAR_TICKS = 192
WIDEST_INTERVAL = 48
WIDEST_MOTION = 24
REACH = 256
"""Onsets, at most, during which a held note counts as bass or top line; bounds the memory."""


@dataclass(frozen=True, kw_only=True)
class TwoSample:
    """What classifiers of one view say.

    Attributes:
        auc: Chance that a generated piece gets a higher logit than a real one of its fold.
        interval: Bootstrap 95 % interval, pieces (or groups) resampled with their logits, and
            widened for what the classifiers would have learnt from other pieces.
        p: Of the permutation test that no AUC above 0.5 is more than chance.
        p_method: `refitted` if the classifiers were trained anew for every permutation, which
            makes the test exact; `scores` if only the sides of the scored pieces were permuted,
            with Nadeau & Bengio's correction for classifiers that learn from the same pieces.
        band: The middle 95 % of what real music against other real music gives.
        band_auc: Its mean.
        num_real: Real pieces.
        num_fake: Generated pieces.
        calibration_error: Mean distance between the probability that the classifiers give and the
            frequency of what they predict, in ten bins of equally many pieces; chance alone gives
            about 0.1 for 200 pieces.
        logits: Of being generated, by classifiers that saw nothing of the piece's fold: real
            pieces, then generated ones.
        seconds: What it took, the band included.
    """

    view: View
    auc: float
    interval: Interval
    p: float
    p_method: Literal["refitted", "scores"]
    band: Interval
    band_auc: float
    num_real: int
    num_fake: int
    calibration_error: float
    logits: Floats
    seconds: float

    @property
    def warning(self) -> str:
        """What to know before reading the numbers; mostly nothing."""
        if min(self.num_real, self.num_fake) >= FEW_PIECES:
            return ""
        return (
            f"two_sample_auc[{self.view}]: {self.num_real} real and {self.num_fake} generated "
            f"pieces are too few to train on; below {FEW_PIECES} an AUC near 0.5 says nothing"
        )


def two_sample(
    real: Sequence[Piece],
    fake: Sequence[Piece],
    *,
    training: Sequence[Piece] = (),
    views: Sequence[View] = ("features",),
    folds: int = 5,
    features: Table | None = None,
    groups: Sequence[int] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    chance: bool = True,
    track: Track = silently,
) -> tuple[TwoSample, ...]:
    """Try to tell generated from real pieces, once per view.

    Args:
        real: Held-out real pieces.
        fake: Generated pieces.
        training: More real pieces. With them the band is that of `real` against as many of them
            as there are generated ones; without, that of halves of `real`, which is wider.
        views: What the classifiers see.
        folds: Of the cross-validation.
        features: Features of all pieces, real, generated, training in this order, if they are
            known already; for the view `features`.
        groups: For all pieces in the same order a number; pieces of one number stay in one fold.
            By default real pieces that are equal up to transposition belong together, and every
            generated piece stands alone, since a generator that repeats itself gives itself away.
        seed: Of folds, networks and resampling.
        resamples: Of the bootstrap.
        chance: Also say what chance alone would do, band and p-value; without, they are NaN and
            it takes a quarter of the time.
        track: Shows the progress.

    Raises:
        UserError: Fewer than two folds; a side with fewer groups than folds, or than four; an
            unknown view; a view that needs torch where torch is not installed.
    """
    _check_views(views)
    pool = [*real, *fake, *training]
    sides = np.repeat([0, 1, 2], [len(real), len(fake), len(training)])
    group = _transpositions(pool, sides) if groups is None else np.asarray(groups, np.int64)
    compared = sides < 2
    _check_folds(folds, _fewest_groups(sides[compared] == 1, group[compared]))
    results = []
    for view in track(views, "telling real from generated"):
        start = time.perf_counter()
        # Seeded by the view's own number: what a view says does not depend on the others asked.
        rng = np.random.default_rng((seed, VIEWS.index(view)))
        score = _scorer(view, pool, features)
        test = _comparison(
            np.flatnonzero(sides == 0), np.flatnonzero(sides == 1), group, folds, rng
        )
        (logits,) = score(test, test.fake[None], rng)
        value = auc(logits, test.fake, test.folds)
        p = math.nan
        method: Literal["refitted", "scores"] = "scores"
        by_chance = np.full(1, math.nan)
        if chance:
            p, method = _p_value(view, score, test, logits, rng)
            by_chance = _chance(score, sides, group, folds, resamples, rng)
        results.append(
            TwoSample(
                view=view,
                auc=value,
                interval=resampling.quantiles(_bootstrap(logits, test, resamples, rng)),
                p=p,
                p_method=method,
                band=resampling.quantiles(by_chance),
                band_auc=float(np.nanmean(by_chance)) if np.isfinite(by_chance).any() else math.nan,
                num_real=len(real),
                num_fake=len(fake),
                calibration_error=calibration_error(logits, test.fake),
                logits=logits,
                seconds=time.perf_counter() - start,
            )
        )
    return tuple(results)


def headline(results: Sequence[TwoSample]) -> TwoSample:
    """The view that tells most, its p-value corrected for having been chosen (Bonferroni)."""
    best = max(results, key=lambda result: result.auc)
    return replace(best, p=min(1.0, best.p * len(results)))


def auc(logits: Floats, fake: Bools, folds: Ints) -> float:
    """Share of the pairs of a generated and a real piece of one fold that are in the right order.

    Equal logits count half. NaN where no fold has a pair.
    """
    wins = pairs = 0.0
    for fold in np.unique(folds):
        ones, zeros = logits[(folds == fold) & fake], np.sort(logits[(folds == fold) & ~fake])
        below, up_to = (np.searchsorted(zeros, ones, side) for side in ("left", "right"))
        wins += float((below + up_to).sum()) / 2
        pairs += len(ones) * len(zeros)
    return wins / pairs if pairs else math.nan


def calibration_error(logits: Floats, fake: Bools) -> float:
    """Expected calibration error in ten bins of equally many pieces, 0 to 1.

    References:
        Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", 2015.
    """
    order = np.argsort(logits, kind="stable")
    probs = _sigmoid(logits[order])
    gaps = [
        abs(part.sum() - hits.sum())
        for part, hits in zip(np.array_split(probs, 10), np.array_split(fake[order], 10))
    ]
    return float(sum(gaps) / len(logits))


def assign_folds(fake: Bools, groups: Ints, folds: int, rng: np.random.Generator) -> Ints:
    """Number of the fold of each piece: `(pieces,)`.

    A group stays together. Otherwise chance decides, but every fold gets about the same share of
    each side: large groups go first, each to the fold that has least of its sides so far.
    """
    _, group = np.unique(groups, return_inverse=True)
    sides = np.stack([~fake, fake]).astype(float)
    held = np.stack([np.bincount(group, side) for side in sides], axis=1)  # (groups, 2)
    order = rng.permutation(len(held))
    order = order[np.argsort(-held[order].sum(axis=1), kind="stable")]
    filled = np.zeros((folds, 2))
    fold_of = np.empty(len(held), np.int64)
    for index in order:
        load = filled @ (held[index] > 0)
        fold_of[index] = rng.choice(np.flatnonzero(load == load.min()))
        filled[fold_of[index]] += held[index]
    return fold_of[group]


def logistic_logits(matrix: Callable[[Bools], Floats], fake: Bools, folds: Ints) -> Floats:
    """Out-of-fold logits of ridge logistic regression: `(labellings, pieces)`.

    Many labellings of the same pieces are fitted at once. The loss is the sum of the negative
    log-likelihood and `PENALTY` times half the squared weights, without the bias. This is Newton's
    method with the Hessian replaced by an upper bound of it, which is the same for all labellings
    and which principal directions make diagonal, so that a step is two matrix products and never
    overshoots.

    Args:
        matrix: Gives all pieces `(pieces, columns)`, standardised on those in its argument.
        fake: `(labellings, pieces)`.
        folds: `(pieces,)`.

    References:
        Böhning & Lindsay, "Monotonicity of quadratic-approximation algorithms", 1988.
    """
    logits = np.empty(fake.shape)
    for fold in np.unique(folds):
        held_out = folds == fold
        columns = matrix(~held_out)
        squares, directions = _principal_directions(columns[~held_out])
        columns = columns @ directions
        base, bound = columns[~held_out], squares / 4 + PENALTY
        target = fake[:, ~held_out].astype(float)
        weights = np.zeros((len(fake), len(squares)))
        bias = np.zeros((len(fake), 1))
        for _ in range(500):
            residual = target - _sigmoid(weights @ base.T + bias)
            # The columns' mean is 0 on these pieces, so that the bias has no part in their Hessian.
            step = (residual @ base - PENALTY * weights) / bound
            weights += step
            bias += 4 * residual.mean(axis=1, keepdims=True)
            if np.abs(step).max(initial=0) < 1e-4:
                break
        logits[:, held_out] = weights @ columns[held_out].T + bias
    return logits


def _principal_directions(columns: Floats) -> tuple[Floats, Floats]:
    """Squared singular values `(rank,)` and right singular vectors `(columns, rank)`.

    By way of the smaller product of the matrix with itself, ten times quicker than its SVD.
    """
    wide = columns.shape[1] > len(columns)
    product = columns @ columns.T if wide else columns.T @ columns
    squares, vectors = np.linalg.eigh(product)
    counts = squares > 1e-9 * squares.max(initial=0)
    squares, vectors = squares[counts], vectors[:, counts]
    return squares, columns.T @ vectors / np.sqrt(squares) if wide else vectors


def regression_columns(table: Table, fitted: Bools) -> Floats:
    """Features as columns `(pieces, columns)`, standardised on the pieces `fitted`.

    A column has mean 0 and, where it varies, standard deviation 1, in a histogram less by the root
    of the number of its bins, so that a histogram weighs as much as a number. What is undefined
    gets the mean, and a column says where it was. No value counts for more than 5 deviations.

    Undefined values get the mean of both sides, not of the real side: which it is makes no
    difference beside the column that tells, and so nothing here depends on the labels, and
    permutations of them can share it.
    """
    blocks = []
    for values in table.values():
        block = np.asarray(values, float).reshape(len(fitted), -1)
        missing = np.isnan(block[:, :1])
        known = fitted & ~missing[:, 0]
        mean = block[known].mean(axis=0) if known.any() else 0.0
        columns = np.hstack([np.where(missing, mean, block), missing])
        columns -= columns[fitted].mean(axis=0)
        spread = columns[fitted].std(axis=0)
        varies = spread > 1e-9
        columns = np.clip(columns[:, varies] / spread[varies], -5, 5)
        columns -= columns[fitted].mean(axis=0)
        blocks.append(columns / math.sqrt(max(1, varies.sum())))
    return np.hstack(blocks)


def token_codes(piece: Piece) -> Ints:
    """Every note as whole numbers from 1: `(notes, 5)`.

    Pitch (drums apart), instrument family, ticks since the note before, length, place in the bar.
    """
    notes = _in_order(piece.notes)
    drums = notes["program"] == DRUMS
    pitch = notes["pitch"].astype(np.int64) + 128 * drums
    return 1 + np.stack([pitch, notes["program"] // 8, *_rhythm(piece, notes)], axis=1)


def interval_codes(piece: Piece) -> Ints:
    """Every note but drums as whole numbers from 1 that do not change in another key: `(notes, 6)`.

    Semitones above the lowest note that sounds; steps of the highest and of the lowest sounding
    note since the onset before; ticks since the note before, length, place in the bar.
    """
    notes = _in_order(piece.pitched)
    pitch = notes["pitch"].astype(np.int64)
    onsets, onset = np.unique(notes["start"], return_inverse=True)
    until = np.minimum(np.searchsorted(onsets, notes["end"]), onset + REACH)
    lasts = (until - onset).astype(np.int64)
    held = np.repeat(np.arange(len(notes)), lasts)
    sounding = onset[held] + np.arange(len(held)) - (np.cumsum(lasts) - lasts)[held]
    bottom, top = np.full(len(onsets), 127), np.zeros(len(onsets), np.int64)
    np.minimum.at(bottom, sounding, pitch[held])
    np.maximum.at(top, sounding, pitch[held])
    above = np.minimum(pitch - bottom[onset], WIDEST_INTERVAL)
    steps = [
        WIDEST_MOTION + np.clip(np.diff(line, prepend=line[:1]), -WIDEST_MOTION, WIDEST_MOTION)
        for line in (top, bottom)
    ]
    return 1 + np.stack([above, *(step[onset] for step in steps), *_rhythm(piece, notes)], axis=1)


class _Comparison(NamedTuple):
    """Two sides, split into folds.

    Attributes:
        pieces: Their numbers in the pool.
        fake: Which stand on the second side.
        groups: Those that belong together.
        folds: Where each is scored.
    """

    pieces: Ints
    fake: Bools
    groups: Ints
    folds: Ints

    @property
    def units(self) -> Ints:
        """What is resampled: the parts of groups that stand on one side, numbered from 0."""
        return np.unique(self.groups * 2 + self.fake, return_inverse=True)[1]


Scorer: TypeAlias = Callable[[_Comparison, Bools, np.random.Generator], Floats]
"""Out-of-fold logits of the pieces compared, for labellings of them: `(labellings, pieces)`."""


def _check_views(views: Sequence[View]) -> None:
    for view in views:
        if view not in VIEWS:
            raise UserError(f"views: there is no view {view!r}; choose from {', '.join(VIEWS)}")
        if view != "features":
            try:
                import torch  # noqa: F401
            except ImportError as error:
                raise UserError(
                    f"views: {view} needs torch, which is not installed; `features` does without"
                ) from error


def _check_folds(folds: int, groups: int) -> None:
    if folds < 2:
        raise UserError(f"folds must be at least 2, got {folds}")
    if groups < max(folds, MIN_GROUPS):
        raise UserError(
            f"a two-sample test in {folds} folds needs at least {max(folds, MIN_GROUPS)} pieces a "
            f"side that are not the same music, got {groups}; give more pieces or fewer folds"
        )


def _fewest_groups(fake: Bools, groups: Ints) -> int:
    """Groups that the side with fewer of them has."""
    return min(len(np.unique(groups[side])) for side in (fake, ~fake))


def _transpositions(pool: Sequence[Piece], sides: Ints) -> Ints:
    from rnngan.data.duplicates import melody_key

    known: dict[Any, int] = {}
    keys = (i if side == 1 else melody_key(p) for i, (p, side) in enumerate(zip(pool, sides)))
    return np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)


def _comparison(
    first: Ints, second: Ints, groups: Ints, folds: int, rng: np.random.Generator
) -> _Comparison:
    pieces = np.concatenate([first, second])
    fake = np.arange(len(pieces)) >= len(first)
    return _Comparison(pieces, fake, groups[pieces], assign_folds(fake, groups[pieces], folds, rng))


def _chance(
    score: Scorer,
    sides: Ints,
    groups: Ints,
    folds: int,
    resamples: int,
    rng: np.random.Generator,
) -> Floats:
    """Bootstrapped AUC of real against training pieces, or of halves; NaN for too few."""
    found = []
    for _ in range(BAND_RUNS):
        first = rng.permutation(np.flatnonzero(sides == 0))
        second = rng.permutation(np.flatnonzero(sides == 2))[: np.count_nonzero(sides == 1)]
        if not len(second):
            first, second = np.array_split(first, 2)
        if min(len(np.unique(groups[side])) for side in (first, second)) < max(folds, MIN_GROUPS):
            return np.full(1, math.nan)
        test = _comparison(first, second, groups, folds, rng)
        (logits,) = score(test, test.fake[None], rng)
        found.append(_bootstrap(logits, test, resamples, rng))
    return np.concatenate(found)


def _p_value(
    view: View, score: Scorer, test: _Comparison, logits: Floats, rng: np.random.Generator
) -> tuple[float, Literal["refitted", "scores"]]:
    if view == "features" and len(test.fake) <= MAX_REFIT_PIECES:
        labels = _permuted(test, REFITS, rng)
        refitted = zip(score(test, labels, rng), labels)
        permuted = np.array([auc(row, fake, test.folds) for row, fake in refitted])
        return resampling.permutation_p(auc(logits, test.fake, test.folds), permuted), "refitted"
    return _score_p(test, logits, rng), "scores"


def _score_p(test: _Comparison, logits: Floats, rng: np.random.Generator) -> float:
    """P-value from permuting the sides of pieces that keep their logits.

    Folds share most of what their classifiers learn from, and so the AUC varies more than such
    permutations do: on real against real music, 60 pieces a side, they reject 12 % at the 5 %
    level. Their deviations from 0.5 are therefore stretched as Nadeau & Bengio's variance
    1/k + test/train asks in place of 1/k, for k folds; this rejects less than 5 %.

    References:
        Nadeau & Bengio, "Inference for the generalization error", 2003, eq. 10.
    """
    folds = len(np.unique(test.folds))
    stretch = math.sqrt(1 + folds / (folds - 1))
    labels = _permuted(test, PERMUTATIONS, rng)
    counts = np.stack([~labels, labels]).astype(np.uint8)
    permuted = 0.5 + stretch * (_resampled_auc(logits, test.folds, counts) - 0.5)
    return resampling.permutation_p(auc(logits, test.fake, test.folds), permuted)


def _permuted(test: _Comparison, count: int, rng: np.random.Generator) -> Bools:
    """The sides dealt out anew within each fold, groups as a whole: `(count, pieces)`."""
    units = test.units
    _, first = np.unique(units, return_index=True)
    labels = np.tile(test.fake[first], (count, 1))
    for fold in np.unique(test.folds):
        here = np.flatnonzero(test.folds[first] == fold)
        labels[:, here] = rng.permuted(labels[:, here], axis=1)
    return labels[:, units]


def _bootstrap(
    logits: Floats, test: _Comparison, resamples: int, rng: np.random.Generator
) -> Floats:
    """AUC of pieces drawn with replacement within each side, groups as a whole, widened."""
    units = test.units
    side = test.fake[np.unique(units, return_index=True)[1]]
    order = np.argsort(side, kind="stable")  # real units first, as `resampling` wants them
    drawn = resampling.bootstrap(rng, int((~side).sum()), int(side.sum()), resamples)
    counts = np.empty_like(drawn)
    counts[:, :, order] = drawn
    value = auc(logits, test.fake, test.folds)
    resampled = _resampled_auc(logits, test.folds, counts[:, :, units])
    return np.clip(value + WIDENING * (resampled - value), 0, 1)


def _resampled_auc(logits: Floats, folds: Ints, counts: Counts) -> Floats:
    """`auc` of each resample, pieces counted as often as `counts` says; `(resamples,)`."""
    wins, pairs = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for fold in np.unique(folds):
        here = np.flatnonzero(folds == fold)
        row, column = logits[here, None], logits[None, here]
        order = (row < column) + 0.5 * (row == column)
        real, fake = counts[:, :, here].astype(float)
        wins += np.einsum("ij,ij->i", real @ order, fake)
        pairs += real.sum(axis=1) * fake.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(wins / pairs)


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def _scorer(view: View, pool: Sequence[Piece], features: Table | None) -> Scorer:
    if view == "features":
        table = features if features is not None else _table(pool)
        return partial(_feature_logits, table)
    code = token_codes if view == "tokens" else interval_codes
    return partial(_network_logits, [code(piece) for piece in pool])


def _table(pool: Sequence[Piece]) -> Table:
    found = [features_of(piece) for piece in pool]
    return {name: np.array([values[name] for values in found], dtype=float) for name in FEATURES}


def _feature_logits(
    table: Table,
    test: _Comparison,
    labels: Bools,
    rng: np.random.Generator,  # noqa: ARG001
) -> Floats:
    compared = {name: values[test.pieces] for name, values in table.items()}
    return logistic_logits(partial(regression_columns, compared), labels, test.folds)


def _in_order(notes: Notes) -> Notes:
    """By onset and pitch, whatever the tracks."""
    return notes[np.lexsort((notes["end"], notes["pitch"], notes["start"]))]


def _rhythm(piece: Piece, notes: Notes) -> tuple[Ints, Ints, Ints]:
    """Ticks since the note before, lengths, and places in the bar."""
    start = notes["start"].astype(np.int64)
    lines = piece.bar_lines()
    place = start - lines[np.searchsorted(lines, start, side="right") - 1]
    return (
        np.minimum(np.diff(start, prepend=start[:1]), LONGEST_TICKS),
        np.minimum(notes["end"] - start, LONGEST_TICKS),
        np.minimum(place, LONGEST_BAR_TICKS),
    )


def _network_logits(
    codes: Sequence[Ints], test: _Comparison, labels: Bools, rng: np.random.Generator
) -> Floats:
    """Out-of-fold logits of a convolutional network: the mean over a piece's windows."""
    import torch

    own = [codes[i] for i in test.pieces]
    logits = np.empty(labels.shape)
    with torch.random.fork_rng(devices=[]):
        for row, fake in enumerate(labels):
            for fold in np.unique(test.folds):
                held_out = test.folds == fold
                learnt = np.flatnonzero(~held_out)
                parts = min(STOPPING_PARTS, _fewest_groups(fake[learnt], test.groups[learnt]))
                part = assign_folds(fake[learnt], test.groups[learnt], parts, rng)
                torch.manual_seed(int(rng.integers(1 << 31)))
                score = _train(own, fake, learnt[part > 0], learnt[part == 0], rng)
                logits[row, held_out] = score(np.flatnonzero(held_out))
    return logits


def _train(
    codes: Sequence[Ints],
    fake: Bools,
    train: Ints,
    stopping: Ints,
    rng: np.random.Generator,
) -> Callable[[Ints], Floats]:
    """A network fitted to some pieces, as long as its loss falls on others; it gives logits."""
    import torch
    from torch.nn import functional as F

    sizes = 1 + np.max([code.max(axis=0, initial=0) for code in codes], axis=0)
    network = _network(sizes)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)

    def score(pieces: Ints) -> Floats:
        network.eval()
        windows, owner = _windows([codes[i] for i in pieces])
        with torch.no_grad():
            parts = [
                network(torch.from_numpy(part))
                for part in np.array_split(windows, len(windows) // 256 + 1)
            ]
        found = torch.cat(parts).double().numpy()
        return np.bincount(owner, found) / np.bincount(owner)

    best, best_weights, waited = math.inf, {}, 0
    for _ in range(EPOCHS):
        network.train()
        windows, owner = _windows([codes[i] for i in train], rng)
        target = fake[train][owner].astype(np.float32)
        order = rng.permutation(len(windows))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            logits = network(torch.from_numpy(windows[batch]))
            loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(target[batch]))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        found = score(stopping)
        loss_now = float(np.logaddexp(0, np.where(fake[stopping], -found, found)).mean())
        waited += 1
        if loss_now < best:
            best, waited = loss_now, 0
            best_weights = {k: v.clone() for k, v in network.state_dict().items()}
        if waited == PATIENCE:
            break
    network.load_state_dict(best_weights)
    return score


def _windows(codes: Sequence[Ints], rng: np.random.Generator | None = None) -> tuple[Ints, Ints]:
    """Windows `(windows, WINDOW, attributes)`, 0 behind the end, and the number of their piece.

    As many as cover the piece, at most `MAX_WINDOWS`: evenly spread, or anywhere with `rng`.
    """
    counts = [min(max(1, math.ceil(len(code) / WINDOW)), MAX_WINDOWS) for code in codes]
    windows = np.zeros((sum(counts), WINDOW, codes[0].shape[1]), np.int64)
    row = 0
    for code, count in zip(codes, counts):
        last = max(0, len(code) - WINDOW)
        places = np.linspace(0, last, count) if rng is None else rng.integers(0, last + 1, count)
        for place in places.astype(int):
            part = code[place : place + WINDOW]
            windows[row, : len(part)] = part
            row += 1
    return windows, np.repeat(np.arange(len(codes)), counts)


def _network(sizes: Ints) -> torch.nn.Module:
    """Embeddings, two convolutions over 5 notes, maximum and mean over the window, a logit."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    class Network(nn.Module):
        """Codes `(windows, notes, attributes)` to logits `(windows,)`."""

        def __init__(self) -> None:
            super().__init__()
            self.first = torch.from_numpy(np.cumsum(sizes) - sizes)
            self.embedding = nn.Embedding(int(sizes.sum()), EMBEDDING_SIZE)
            # So that what was never met in training says nothing.
            nn.init.zeros_(self.embedding.weight)
            self.narrow = nn.Conv1d(EMBEDDING_SIZE * len(sizes), HIDDEN_SIZE, 5, padding=2)
            self.wide = nn.Conv1d(HIDDEN_SIZE, HIDDEN_SIZE, 5, padding=4, dilation=2)
            self.dropout = nn.Dropout(0.5)
            self.head = nn.Linear(2 * HIDDEN_SIZE, 1)

        def forward(self, codes: Tensor) -> Tensor:
            """Score windows."""
            within = (codes[:, None, :, 0] > 0).float()
            hidden = self.embedding(codes + self.first).flatten(2).transpose(1, 2)
            hidden = F.relu(self.narrow(hidden * within)) * within
            hidden = F.relu(self.wide(hidden)) * within  # at least 0, so padding is no maximum
            mean = hidden.sum(2) / within.sum(2).clamp(min=1)
            pooled = torch.cat([hidden.amax(2), mean], dim=1)
            logits: Tensor = self.head(self.dropout(pooled))
            return logits.squeeze(1)

    return Network()
