"""The guard of refinement: what must not happen, and what is done when it does.

Adversarial training fails in known ways: it forgets the music (held-out likelihood), writes always
the same (entropy, self-BLEU), runs away from the pretrained generator (KL), learns tunes by heart
(copied n-grams), lets the discriminator win (AUC), or stops being numbers. Each has a limit. Past
one, refinement goes back to the last good checkpoint with half the learning rate, a bounded number
of times, and then stops.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eval.textual import self_bleu, tokens_of
from rnngan.config import GuardConfig
from rnngan.files import write_atomically
from rnngan.music.piece import Piece

NGRAM = 12
"""Notes in a row, by intervals and lengths, that count as copied."""
_BLEU = 4
_PRIME = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class Breach:
    """A limit that was passed.

    Attributes:
        step: Steps done when it was seen.
        figure: Its name.
        value: What it had become.
        limit: What it should have been at most, or of entropy at least.
    """

    step: int
    figure: str
    value: float
    limit: float

    def __str__(self) -> str:
        side = "below" if self.value < self.limit else "above"
        if not math.isfinite(self.value):
            return f"{self.figure} became {self.value} at step {self.step}"
        return (
            f"{self.figure} was {self.value:.4g} at step {self.step}, {side} its limit "
            f"{self.limit:.4g}"
        )


class Guard:
    """Compares the figures of a validation with those before refinement.

    Args:
        config: Limits.
        before: Figures of the pretrained generator: `val_bits_per_token`, `entropy`, `self_bleu`
            and `copied_rate`, where they are defined; what is not has no limit.
    """

    def __init__(self, config: GuardConfig, before: Mapping[str, float]) -> None:
        self.config = config

        def was(name: str) -> float:
            return before.get(name, math.nan)

        self.floor = {"entropy": was("entropy") * (1 - config.entropy_drop)}
        self.ceiling = {
            "val_bits_per_token": was("val_bits_per_token") * (1 + config.likelihood_rise),
            "kl": config.kl,
            "self_bleu": was("self_bleu") + config.self_bleu_rise,
            "copied_rate": was("copied_rate") + config.copied_rise,
            "lower_auc": config.auc,
        }

    def check(self, step: int, figures: Mapping[str, float]) -> Breach | None:
        """The first limit that the figures pass; those that are missing are not looked at.

        Args:
            step: Steps done.
            figures: Those of `before`, `kl` to the reference in nats per token, and `lower_auc`,
                the lower AUC of the discriminator at this validation and the one before.
        """
        for name, value in figures.items():
            if not math.isfinite(value):
                return Breach(step=step, figure=name, value=value, limit=math.inf)
        for name, limit in self.ceiling.items():
            if figures.get(name, -math.inf) > limit:
                return Breach(step=step, figure=name, value=figures[name], limit=limit)
        for name, limit in self.floor.items():
            if figures.get(name, math.inf) < limit:
                return Breach(step=step, figure=name, value=figures[name], limit=limit)
        return None


def write_breaches(path: Path, breaches: Sequence[Breach]) -> None:
    """Keep what happened, as JSON.

    Raises:
        UserError: The disk takes no more.
    """
    rows = [asdict(b) | {"value": b.value if math.isfinite(b.value) else None} for b in breaches]
    rows = [row | {"limit": None if row["limit"] == math.inf else row["limit"]} for row in rows]
    write_atomically(path, json.dumps(rows, indent=1).encode())


def diversity_figures(
    pieces: Sequence[Piece], training_ngrams: npt.NDArray[np.uint64]
) -> dict[str, float]:
    """`self_bleu` and `copied_rate` of some samples, 0 to 1; what is undefined is left out.

    Args:
        pieces: At least two samples.
        training_ngrams: What `ngrams_of` found in the training music.
    """
    grams = ngrams_of(pieces)
    figures = {
        "self_bleu": self_bleu([tokens_of(piece) for piece in pieces], n=_BLEU),
        "copied_rate": float(np.isin(grams, training_ngrams).mean()) if len(grams) else math.nan,
    }
    return {name: value for name, value in figures.items() if not math.isnan(value)}


def ngrams_of(pieces: Sequence[Piece]) -> npt.NDArray[np.uint64]:
    """Hashes of all runs of `NGRAM` notes, the same in every key; equal runs give equal hashes."""
    found = [_ngrams(piece) for piece in pieces]
    return np.concatenate(found) if found else np.empty(0, dtype=np.uint64)


def _ngrams(piece: Piece) -> npt.NDArray[np.uint64]:
    notes = np.sort(piece.pitched, order=["start", "pitch"])
    if len(notes) <= NGRAM:
        return np.empty(0, dtype=np.uint64)
    pitch, start = notes["pitch"].astype(np.int64), notes["start"].astype(np.int64)
    length = (notes["end"] - notes["start"]).astype(np.int64)
    steps = ((np.diff(pitch) + 128) << 32) ^ (np.diff(start) << 16) ^ length[:-1]
    symbols = _mixed(steps.astype(np.uint64))
    windows = np.lib.stride_tricks.sliding_window_view(symbols, NGRAM)
    places = _mixed(np.arange(1, NGRAM + 1, dtype=np.uint64))
    return np.asarray(_mixed(windows * (places | np.uint64(1))).sum(axis=1, dtype=np.uint64))


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread over all 64 bits (Fibonacci hashing, then the high half into the low)."""
    spread = values * _PRIME
    return np.asarray((spread ^ (spread >> np.uint64(32))) * _PRIME)
