"""Whether a file's beats are of use, and beats for a performance whose file has none.

`keeps_to_beats` looks at where in the quarter the onsets fall; `estimate_beats` follows the pulse
of the onsets themselves: beat tracking by dynamic programming after Ellis, "Beat tracking by
dynamic programming", J. New Music Research 36(1), 2007. Two things differ from the paper. Onsets
are the file's own instead of found in sound, and the tempo is a path over time instead of one
number, so that it follows rubato.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

Beats = Literal["file", "estimate", "fixed"]
"""What to do with a performance: trust its file, find its beats, or lay a fixed grid."""

MIN_COHERENCE = 0.3
"""With less in every subdivision, onsets have nothing to do with the beats. Of POP909's 909 files
two have less, of Nottingham's 1,034 none, of synthetic performances with rubato 98 %."""
MIN_ONSETS = 64
"""With fewer, chance alone often gives more coherence than `MIN_COHERENCE`."""
_SUBDIVISIONS = np.array([1, 2, 3, 4, 6, 8, 12, 24])
_PHASES = 240  # a multiple of every subdivision
_ANGLES = 2 * np.pi * np.outer(np.arange(_PHASES), _SUBDIVISIONS) / _PHASES
_WAVES = np.hstack([np.cos(_ANGLES), np.sin(_ANGLES)])

FRAMES_PER_SECOND = 100
MIN_PERIOD_SECONDS, MAX_PERIOD_SECONDS = 0.3, 1.2
"""Beats are looked for between 50 and 200 per minute."""
PREFERRED_PERIOD_SECONDS = 0.5
PRIOR_OCTAVES = 1.0
"""Standard deviation of the log-Gaussian prior on the period."""
PERIODS_PER_OCTAVE = 24
PERIOD_MULTIPLES = ((0.5, 0.25), (1, 1.0), (2, 0.5))
"""Multiples of a beat's period at which onsets come back too, and how much that counts for it."""
WINDOW_SECONDS, HOP_SECONDS = 8.0, 2.0
"""Span that a tempo is measured over, and how often."""
SPREAD_SECONDS = 0.02
"""Standard deviation of what counts as one onset: a chord is never struck all at once."""
TEMPO_STIFFNESS = 40.0
"""Cost of a change of tempo from window to window, per squared octave."""
BEAT_STIFFNESS = 60.0
"""Cost of an interval off the tempo, per squared logarithm of their ratio (Ellis's alpha)."""


def keeps_to_beats(onsets: Ints, ticks_per_quarter: int) -> bool:
    """Whether onsets, in a file's ticks, fall on the quarters or some division of them.

    The measure is the coherence (mean resultant length) of the distinct onsets' phases in 1 to 24
    parts of the quarter: 1 where all fall on the parts, about `1 / sqrt(onsets)` where they fall
    anywhere. A constant offset from the beats does no harm. Below `MIN_ONSETS` the file is trusted.
    """
    # np.unique, np.fft and the like take several times as long, and this looks at every file read.
    onsets = np.sort(onsets, kind="stable")
    onsets = np.concatenate([onsets[:1], onsets[1:][onsets[1:] != onsets[:-1]]])
    if len(onsets) < MIN_ONSETS:
        return True
    phases = np.bincount(onsets * _PHASES // ticks_per_quarter % _PHASES, minlength=_PHASES)
    cosines, sines = (phases @ _WAVES).reshape(2, -1)
    return bool(np.hypot(cosines, sines).max() >= MIN_COHERENCE * len(onsets))


def estimate_beats(onset_seconds: npt.ArrayLike, weights: npt.ArrayLike) -> Floats:
    """Times of the beats in seconds, rising, at least two, from about the first onset to the last.

    Args:
        onset_seconds: Onset of each note, `(notes,)`, in any order.
        weights: How much each note counts, `(notes,)`, positive.

    Raises:
        ValueError: There is no onset.
    """
    onsets = np.asarray(onset_seconds, dtype=np.float64)
    if not len(onsets):
        raise ValueError("beats need at least one onset, got none")
    first = float(onsets.min())
    strength = _onset_strength(onsets - first, np.asarray(weights, dtype=np.float64))
    periods = _periods(strength)
    frames = _beat_frames(strength, periods).astype(np.float64)
    if len(frames) < 2:
        frames = frames[0] + np.array([0.0, periods[-1]])
    return first + frames / FRAMES_PER_SECOND


def _onset_strength(seconds: Floats, weights: Floats) -> Floats:
    """Strength per frame, `(frames,)`, of root mean square 1; the first onset is at frame 0.

    The root lets a chord of four count twice a single note, not four times.
    """
    frames = np.rint(seconds * FRAMES_PER_SECOND).astype(np.int64)
    reach = round(3 * SPREAD_SECONDS * FRAMES_PER_SECOND)
    offsets = np.arange(-reach, reach + 1) / FRAMES_PER_SECOND
    kernel = np.exp(-0.5 * (offsets / SPREAD_SECONDS) ** 2)
    struck = np.bincount(frames, weights)
    strength: Floats = np.sqrt(np.convolve(struck, kernel)[reach:-reach])
    strength /= np.sqrt(np.mean(strength**2))
    return strength


def _periods(strength: Floats) -> Floats:
    """Frames per beat at each frame, `(frames,)`: the best path through autocorrelations."""
    size = round(WINDOW_SECONDS * FRAMES_PER_SECOND)
    hop = round(HOP_SECONDS * FRAMES_PER_SECOND)
    padded = np.pad(strength - strength.mean(), (size // 2, size // 2 + hop))
    windows = sliding_window_view(padded, size)[::hop] * np.hanning(size)
    spectra = np.abs(np.fft.rfft(windows, 2 * size)) ** 2
    correlations = np.fft.irfft(spectra)[:, :size]

    octaves = np.arange(
        np.log2(MIN_PERIOD_SECONDS), np.log2(MAX_PERIOD_SECONDS), 1 / PERIODS_PER_OCTAVE
    )
    periods = FRAMES_PER_SECOND * 2**octaves
    salience = np.zeros((len(windows), len(periods)))
    for multiple, share in PERIOD_MULTIPLES:
        salience += share * correlations[:, np.rint(multiple * periods).astype(np.int64)]
    prior = ((octaves - np.log2(PREFERRED_PERIOD_SECONDS)) / PRIOR_OCTAVES) ** 2 / 2
    salience = np.maximum(salience, 0) * np.exp(-prior)
    salience /= salience.mean() + np.finfo(np.float64).tiny  # 0 where nothing comes twice
    path = _best_path(salience, TEMPO_STIFFNESS * np.subtract.outer(octaves, octaves) ** 2)
    at: Floats = np.interp(np.arange(len(strength)), np.arange(len(path)) * hop, periods[path])
    return at


def _best_path(gains: Floats, costs: Floats) -> Ints:
    """States `(times,)` with the greatest gains `(times, states)` less `costs[to, from]`."""
    total = gains[0]
    origins = np.empty(gains.shape, np.int64)
    for time in range(1, len(gains)):
        reached = total - costs
        origins[time] = reached.argmax(axis=1)
        total = reached.max(axis=1) + gains[time]
    path = np.empty(len(gains), np.int64)
    path[-1] = total.argmax()
    for time in range(len(gains) - 1, 0, -1):
        path[time - 1] = origins[time, path[time]]
    return path


def _beat_frames(strength: Floats, periods: Floats) -> Ints:
    """Frames of the beats that maximise Ellis's objective (his equation 1).

    A beat comes at least `near` frames after the one before it, so the scores of as many frames
    depend on known scores alone and are computed at once.
    """
    near = int(0.6 * periods.min())
    far = int(1.7 * periods.max()) + 1
    log_lags = np.log(np.arange(far, near - 1, -1))
    num_frames = len(strength)
    strength = np.append(strength, np.zeros(near))
    score = np.zeros(far + len(strength))  # `far` frames of nothing: any beat may be the first
    before = np.empty(len(strength), np.int64)
    reachable = sliding_window_view(score, len(log_lags))
    for start in range(0, num_frames, near):
        block = slice(start, start + near)
        cost = BEAT_STIFFNESS * (log_lags - np.log(periods[start])) ** 2
        candidates = reachable[block] - cost
        before[block] = np.arange(start, start + near) - far + candidates.argmax(axis=1)
        score[far + start : far + start + near] = strength[block] + candidates.max(axis=1)
    tail = max(0, num_frames - int(periods[-1]))
    frame = tail + int(score[far + tail : far + num_frames].argmax())
    beats = []
    while frame >= 0:
        beats.append(frame)
        frame = int(before[frame])
    return np.array(beats[::-1])
