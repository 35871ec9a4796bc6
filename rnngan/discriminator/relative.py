"""What transposing a piece leaves as it is: intervals, place in the bar, repetition.

Every token becomes a row of small integers, one per column. Pitches enter through differences
alone, so that a piece and its transpositions give the same columns; and a column at time t looks at
tokens up to t alone, so that a causal network may read it.

A generator that writes token by token loses its phrases before it loses its intervals. So the
repetition columns say of every time how long the present stretch has run parallel to an earlier
one, up to transposition, and how many bars ago that was.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rnngan.music.piece import TICKS_PER_QUARTER
from rnngan.music.tokenizers.base import Tokenizer

Integers = npt.NDArray[np.int64]

WIDEST_STEP = 24
"""Melodic intervals are cut off at so many semitones, up and down; so are sums of them."""
WIDEST_CHORD = 48
"""Distances inside a chord are cut off at so many semitones."""
WIDEST_SHIFT = 12
"""Semitones from a stretch to its repetition, up and down."""
MATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Lengths, in tokens, of the stretches that are looked for earlier in the piece."""
PLACED_FROM = 2
"""Where a stretch was before is told from this one of `MATCHES` on; shorter ones are anywhere."""
BARS_AGO = (0, 1, 2, 4, 8, 16)
"""Distances in bars with a value of their own; all others share one."""
RAREST = 6
"""A pitch class that was rarer than one note in 2 to this power is as rare as that."""
LONGEST_PLACE = 127
"""Tokens since the bar line, at most; where the vocabulary has no positions."""
CYCLE = 8
"""Bars are counted up to this, and over again."""
WINDOW = 16
"""Notes, at most, among which the ones that still sound are sought."""
_BLOCK = 1 << 16  # tokens at once: three such numbers fit into 63 bits, and the data into a cache


class RelativeView:
    """Columns of a batch of pieces.

    | column | value |
    |---|---|
    | `token` | the token, those of a pitched kind all one |
    | `interval` | of a pitched token to the one before |
    | `from_first` | of a pitched token to the first of the piece |
    | `classes` | how many pitch classes there have been |
    | `class_rarity` | of a pitch: how rare its pitch class has been, never or one note in 1, 2, 4 … |
    | `motion` | of a pitch to the last of its program and voice, where there are such tokens |
    | `above_lowest`, `below_highest` | distance to the outer pitches that sound here, of those told so far; where notes have lengths in ticks |
    | `above_bass` | of a pitch to the lowest that was struck at the onset before; likewise |
    | `place` | the latest position in this bar, or tokens since the bar line |
    | `bar` | number of the bar modulo `CYCLE` |
    | `match` | how many of the stretches of `MATCHES` tokens that end here were there before, pitches taken as intervals |
    | `match_bars`, `match_shift` | how many bars before the longest of them was last, and how many semitones lower |
    | `rhythm`, `rhythm_bars` | likewise where all pitches are one |

    0 stands for what does not apply, such as the interval of a token without pitch. Columns that
    need bars are left out for tokenizers that have none.

    Attributes:
        names: Of the columns.
        sizes: Values of each column: 0 to size − 1.
    """  # noqa: E501

    def __init__(self, tokenizer: Tokenizer) -> None:
        vocabulary, num = tokenizer.vocabulary, len(tokenizer.vocabulary)
        self._bar = tokenizer.bar
        self._pitch, kind = np.full(num, -1), np.arange(num)
        for name in tokenizer.pitched_kinds:
            self._pitch[vocabulary.ids(name)] = [int(value) for value in vocabulary.values(name)]
            kind[vocabulary.ids(name)] = vocabulary.ids(name).start
        _, self._kind = np.unique(kind, return_inverse=True)
        self._number = {
            name: _numbered(num, vocabulary.ids(name))
            for name in ("Position", "Program", "Voice", "Metre", "Duration")
        }
        self._has_positions = bool(vocabulary.ids("Position"))
        self._has_parts = bool(vocabulary.ids("Program") or vocabulary.ids("Voice"))
        self._has_lengths = tokenizer.name == "events"  # the one whose values are ticks
        self._ticks = np.zeros(num, dtype=np.int64)
        if self._has_lengths:
            for name in ("Position", "Duration"):
                self._ticks[vocabulary.ids(name)] = [int(v) for v in vocabulary.values(name)]
            metres = map(_ticks_per_bar, vocabulary.values("Metre"))
            self._ticks[vocabulary.ids("Metre")] = list(metres)

        melodic, chordal = 2 * WIDEST_STEP + 2, WIDEST_CHORD + 2
        sizes = {
            "token": int(self._kind.max()) + 1,
            "interval": melodic,
            "from_first": melodic,
            "match": len(MATCHES) + 1,
            "match_shift": 2 * WIDEST_SHIFT + 2,
            "rhythm": len(MATCHES) + 1,
            "classes": 13,
            "class_rarity": RAREST + 3,
        }
        if self._has_parts:
            sizes["motion"] = melodic
        if self._has_lengths:
            sizes |= {"above_lowest": chordal, "below_highest": chordal, "above_bass": melodic}
        if self._bar is not None:
            num_places = len(vocabulary.ids("Position")) or LONGEST_PLACE + 1
            sizes |= {"place": num_places + 1, "bar": CYCLE + 1}
            sizes |= {"match_bars": len(BARS_AGO) + 2, "rhythm_bars": len(BARS_AGO) + 2}
        self.names = tuple(sizes)
        self.sizes = tuple(sizes.values())

    def __call__(self, tokens: npt.NDArray[np.integer]) -> Integers:
        """Columns `(batch, time, columns)` of `(batch, time)`; those of padding are nonsense."""
        columns = np.empty((*tokens.shape, len(self.names)), dtype=np.int64)
        num_rows = max(_BLOCK // max(tokens.shape[1], 1), 1)
        for row in range(0, len(tokens), num_rows):
            block = slice(row, row + num_rows)
            found = self._columns(tokens[block].astype(np.int64))
            for i, name in enumerate(self.names):
                columns[block, :, i] = found[name]
        return columns

    def _columns(self, tokens: Integers) -> dict[str, Integers]:
        """Each column by name, `(rows, time)`."""
        kind, pitch = self._kind[tokens], self._pitch[tokens]
        pitched = pitch >= 0
        last = _latest(pitched)
        before = np.pad(last, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
        interval = pitch - _at(pitch, before)
        known = pitched & (before >= 0)
        first = np.take_along_axis(pitch, pitched.argmax(1)[:, None], 1)
        match, match_at = longest_matches(kind * 256 + np.where(known, interval + 128, 0))
        rhythm, rhythm_at = longest_matches(kind)
        shift = _at(pitch, last) - _at(_at(pitch, last), match_at)
        columns = {
            "token": kind,
            "interval": _signed(interval, known, WIDEST_STEP),
            "from_first": _signed(pitch - first, pitched, WIDEST_STEP),
            "match": match,
            "match_shift": _signed(
                shift, (match_at >= 0) & (_at(last, match_at) >= 0), WIDEST_SHIFT
            ),
            "rhythm": rhythm,
        }
        columns["classes"], columns["class_rarity"] = _classes(pitch, pitched)
        if self._has_parts:
            columns["motion"] = self._motion(tokens, pitch, pitched)
        if self._has_lengths:
            columns |= self._chords(tokens, pitch, pitched)
        if self._bar is not None:
            is_bar = tokens == self._bar
            bars = np.cumsum(is_bar, axis=1)
            columns["place"] = self._places(tokens, _latest(is_bar))
            columns["bar"] = np.where(bars > 0, 1 + (bars - 1) % CYCLE, 0)
            columns["match_bars"] = _bars_ago(bars, match_at)
            columns["rhythm_bars"] = _bars_ago(bars, rhythm_at)
        return columns

    def _places(self, tokens: Integers, line: Integers) -> Integers:
        """The latest position behind the bar line, or the number of tokens since then."""
        if not self._has_positions:
            since = np.arange(tokens.shape[1]) - line
            return np.where(line >= 0, 1 + np.minimum(since, LONGEST_PLACE), 0)
        position = self._number["Position"][tokens]
        at = _latest(position > 0)
        return np.where(at > line, _at(position, at), 0)

    def _motion(
        self, tokens: Integers, pitch: Integers, pitched: npt.NDArray[np.bool_]
    ) -> Integers:
        """From the last pitch of the same program and voice."""
        part = np.arange(len(tokens))[:, None]
        for kind in ("Program", "Voice"):
            number = self._number[kind]
            part = part * (len(number) + 1) + _at(number[tokens], _latest(number[tokens] > 0))
        notes = np.flatnonzero(pitched)
        _, previous = _ranked(part.ravel()[notes])
        height = pitch.ravel()[notes]
        motion = _signed(height - height[previous], previous >= 0, WIDEST_STEP)
        return _spread(motion, notes, tokens.shape)

    def _chords(
        self, tokens: Integers, pitch: Integers, pitched: npt.NDArray[np.bool_]
    ) -> dict[str, Integers]:
        """Above the lowest and below the highest that sounds, and above the bass before."""
        notes = np.flatnonzero(pitched)
        height, row = pitch.ravel()[notes], notes // tokens.shape[1]
        # Rows are laid so far apart in time that no note reaches from one into the next.
        start = self._onsets(tokens).ravel()[notes] + (row << 40)
        following = tokens.ravel()[np.minimum(notes + 1, tokens.size - 1)]
        is_length = self._number["Duration"][following] > 0
        end = start + np.where(is_length, self._ticks[following], 0)

        def notes_before(values: Integers) -> Integers:
            """Of each note the last `WINDOW` before it: `(notes, WINDOW)`."""
            whole = np.concatenate([np.full(WINDOW, -1), values])
            return np.lib.stride_tricks.sliding_window_view(whole, WINDOW)[: len(values)]

        sounds = notes_before(end) > start[:, None]
        heights = notes_before(height)
        lowest = np.minimum(height, np.where(sounds, heights, 128).min(1))
        highest = np.maximum(height, np.where(sounds, heights, -1).max(1))

        is_new = np.diff(start, prepend=-1) > 0
        chord = np.cumsum(is_new) - 1
        begins = np.flatnonzero(is_new)
        bass = np.minimum.reduceat(height, begins) if len(notes) else height
        has_before = (chord > 0) & (row[begins[chord - 1]] == row)
        columns = {
            "above_lowest": 1 + np.minimum(height - lowest, WIDEST_CHORD),
            "below_highest": 1 + np.minimum(highest - height, WIDEST_CHORD),
            "above_bass": _signed(height - bass[chord - 1], has_before, WIDEST_STEP),
        }
        return {name: _spread(column, notes, tokens.shape) for name, column in columns.items()}

    def _onsets(self, tokens: Integers) -> Integers:
        """Ticks from a bar before the piece to the latest position, `(rows, time)`."""
        ticks, number = self._ticks[tokens], self._number
        # At a bar line the latest metre is still that of the bar before. The first one adds its
        # size to all onsets alike, which no difference hears.
        size = _at(ticks, _latest(number["Metre"][tokens] > 0))
        line = np.cumsum(np.where(tokens == self._bar, size, 0), axis=1)
        return line + _at(ticks, _latest(number["Position"][tokens] > 0))


def _classes(pitch: Integers, pitched: npt.NDArray[np.bool_]) -> tuple[Integers, Integers]:
    """Distinct pitch classes so far, and the rarity of each note's among the notes before it.

    1 for a class that is new, 2 and on for one that had one note in 1, 2, 4 … of those before.
    """
    is_class = (pitch[..., None] % 12 == np.arange(12)) & pitched[..., None]
    counts = np.cumsum(is_class, axis=1)
    classes = (counts > 0).sum(axis=2)
    own = np.take_along_axis(counts, pitch[..., None] % 12, 2)[..., 0] - 1
    before = np.cumsum(pitched, axis=1) - 1
    rarity = np.floor(np.log2(np.maximum(before, 1) / np.maximum(own, 1))).astype(np.int64)
    rarity = np.where(own > 0, 2 + np.clip(rarity, 0, RAREST), 1)
    return classes, np.where(pitched, rarity, 0)


def longest_matches(symbols: Integers) -> tuple[Integers, Integers]:
    """How long each stretch has run parallel to an earlier one of its row, and where that was.

    The stretches of 2n symbols are numbered by the pairs of numbers of their halves, as suffix
    arrays are sorted (Manber & Myers 1990); equal numbers are equal stretches.

    Args:
        symbols: `(rows, time)`, at most 2^21 in all, from 0 to below 2^41 / rows.

    Returns:
        How many of the lengths in `MATCHES` have been seen before, and the time at which the
        longest such stretch last ended, −1 where it is shorter than `MATCHES[PLACED_FROM]`: both
        `(rows, time)`.
    """
    rows, time = symbols.shape
    count = np.zeros((rows, time), dtype=np.int64)
    place = np.full((rows, time), -1)
    row = np.arange(rows)[:, None]
    numbers = symbols + row * (int(symbols.max(initial=0)) + 1)
    for i, length in enumerate(MATCHES):
        if length > time:
            break
        if i:
            half = length // 2
            numbers = numbers[:, :-half] * numbers.size + numbers[:, half:]
        flat, previous = _ranked(numbers.ravel())
        numbers = flat.reshape(rows, -1)
        earlier = previous.reshape(rows, -1)
        seen = earlier >= 0
        count[:, length - 1 :] += seen
        if i >= PLACED_FROM:
            ends = earlier - row * numbers.shape[1] + length - 1
            place[:, length - 1 :] = np.where(seen, ends, place[:, length - 1 :])
    return count, place


def _ranked(keys: Integers) -> tuple[Integers, Integers]:
    """For each key its rank among the distinct keys, and where it last stood before, or −1."""
    num = len(keys)
    bits = max(num - 1, 1).bit_length()
    # Sorting numbers is several times as fast as sorting where they stand: pack both into one.
    packed = np.sort(keys << bits | np.arange(num))
    at = packed & ((1 << bits) - 1)
    values = packed >> bits
    begins = np.append(True, values[1:] != values[:-1])[:num]
    ranks, previous = np.empty(num, dtype=np.int64), np.empty(num, dtype=np.int64)
    ranks[at] = np.cumsum(begins) - 1
    previous[at] = np.where(begins, -1, np.append(-1, at[:-1])[:num])
    return ranks, previous


def _latest(which: npt.NDArray[np.bool_]) -> Integers:
    """The last time up to each at which `which` holds, −1 before the first: `(rows, time)`."""
    return np.maximum.accumulate(np.where(which, np.arange(which.shape[1]), -1), axis=1)


def _at(values: Integers, times: Integers) -> Integers:
    """Each row's values at these times, 0 for −1: `(rows, time)` both."""
    return np.where(times >= 0, np.take_along_axis(values, times, 1), 0)


def _spread(values: Integers, places: Integers, shape: tuple[int, ...]) -> Integers:
    """Values at these places of an array of zeros, counted row by row."""
    whole = np.zeros(shape, dtype=np.int64)
    whole.ravel()[places] = values
    return whole


def _signed(values: Integers, known: npt.NDArray[np.bool_], widest: int) -> Integers:
    """1 to 2 · widest + 1 for differences; 0 for what is not known."""
    return np.where(known, np.clip(values, -widest, widest) + widest + 1, 0)


def _numbered(num: int, ids: range) -> Integers:
    """1, 2, … for these ids of `num`, 0 for the others."""
    numbers = np.zeros(num, dtype=np.int64)
    numbers[ids] = 1 + np.arange(len(ids))
    return numbers


def _ticks_per_bar(metre: str) -> int:
    numerator, denominator = metre.split("/")
    return int(numerator) * 4 * TICKS_PER_QUARTER // int(denominator)


def _bars_ago(bars: Integers, times: Integers) -> Integers:
    """1 and on for the distances of `BARS_AGO` in bars, then one for all others; 0 for time −1."""
    distance = bars - _at(bars, times)
    place = np.searchsorted(BARS_AGO, distance)
    is_one = np.isin(distance, BARS_AGO)
    return np.where(times < 0, 0, 1 + np.where(is_one, place, len(BARS_AGO)))
