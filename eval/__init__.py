"""Evaluation of generated music against real music, whoever made it; no torch for the features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from eval.evaluation import Evaluation
    from eval.pieces import Side
    from rnngan.music.piece import Piece

    Music: TypeAlias = Side | str | Path | Sequence[Piece]
    """A side, the path of one, or pieces."""


MEASURING = {"seed", "cache", "workers", "track"}
"""Options that also matter where sides are read."""


def evaluate(
    real: Music, *fakes: Music, training: Music | None = None, **options: Any
) -> Evaluation:
    """Compare generated music with real music.

        result = evaluate("real", "generated")
        result.rows, result.set_rows, result.flat()

    Args:
        real: Real music, best held out.
        fakes: Generated music, one side each.
        training: What the generator learnt from, to measure copying.
        options: See `eval.evaluation.evaluate`.

    Raises:
        UserError: As there, and as `eval.cache.load_side`.
    """
    from eval.evaluation import TRAINING_PIECES
    from eval.evaluation import evaluate as compare
    from eval.features import FEATURES

    measuring = {key: options[key] for key in MEASURING & options.keys()}
    measuring["names"] = options.get("metrics") or list(FEATURES)

    def side(music: Music, name: str, **where: Any) -> Side:
        return _side(music, name, **measuring, **where)

    sides = [side(music, name) for music, name in zip(fakes, _names(len(fakes)))]
    learnt = None
    if training is not None:
        learnt = side(training, "training", split="train", keep=TRAINING_PIECES)
    return compare(side(real, "real"), sides, training=learnt, **options)


def _names(count: int) -> list[str]:
    return ["generated"] if count == 1 else [f"generated {i + 1}" for i in range(count)]


def _side(music: Music, name: str, **where: Any) -> Side:
    from eval.cache import load_side
    from eval.pieces import Side

    if isinstance(music, Side):
        return music
    if isinstance(music, str | Path):
        return load_side(Path(music), **where)
    return Side(name=name, pieces=tuple(music))
