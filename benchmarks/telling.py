"""Does the evaluation tell what must be told, and nothing else?

    python benchmarks/telling.py --out benchmarks/telling.md

Bach's chorales against Ryan's tunes must be told apart. Random halves of the chorales must not:
what is flagged after correction is a false alarm.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
from common import machine, table

from eval.evaluation import Evaluation, evaluate
from eval.features import FEATURES
from eval.pieces import Side
from rnngan.config import DataConfig
from rnngan.data.prepare import prepare
from rnngan.music.piece import Piece
from rnngan.progress import Progress

CORPORA = ("bach-chorales", "ryans-mammoth")


def pieces_of(corpus: str, folder: Path) -> list[Piece]:
    """All pieces of a named corpus."""
    with Progress(f"prepare {corpus}", 1) as progress:
        store = prepare(
            DataConfig(corpus=corpus), folder / corpus, seed=0, report=False, workers=None,
            progress=progress,
        )  # fmt: skip
    return [store.piece(i) for i in range(len(store))]


def flagged(found: Evaluation) -> tuple[float, float]:
    """Shares of features and of figures of whole sets that differ by more than chance."""
    rows = [row.flagged for row in found.rows]
    wholes = [row.p_corrected < 0.05 for row in found.set_rows]
    return float(np.mean(rows)), float(np.mean(wholes))


def main() -> None:
    """Run all and print, or write, the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--halvings", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        bach, ryan = (pieces_of(name, scratch) for name in CORPORA)
        told = evaluate(
            Side(name="bach", pieces=tuple(bach)), [Side(name="ryan", pieces=tuple(ryan))],
            views=("features",), cache=scratch / "cache",
        )  # fmt: skip
        rng = np.random.default_rng(0)
        halves = []
        for number in range(options.halvings):
            order = rng.permutation(len(bach))
            one, other = (
                Side(name=name, pieces=tuple(bach[i] for i in part))
                for name, part in zip(("one", "other"), np.array_split(order, 2))
            )
            halves.append(flagged(evaluate(one, [other], seed=number, cache=scratch / "cache")))
            print(f"halving {number + 1}: {halves[-1][0]:.3f}, {halves[-1][1]:.3f}", flush=True)
    features, wholes = flagged(told)
    auc = told.two_sample["ryan"][0].auc
    rows = [
        [
            f"Bach's {len(bach)} chorales against Ryan's {len(ryan)} tunes",
            f"{features:.1%}", f"{wholes:.1%}",
        ],
        [
            f"random halves of the chorales, mean of {options.halvings}",
            *(f"{statistics.mean(shares):.1%}" for shares in zip(*halves)),
        ],
        ["the worst of these", *(f"{max(shares):.1%}" for shares in zip(*halves))],
    ]  # fmt: skip
    report = "\n\n".join(
        [
            "# What the evaluation tells apart",
            machine(),
            f"Share of the {len(FEATURES)} features, and of the figures of whole sets, that differ "
            "by more than chance after correction (5 %). Of halves at most 5 % should, on the "
            f"mean. AUC of the feature-based two-sample test, Bach against Ryan's: {auc:.3f}.",
            table(["sides", "features", "figures of whole sets"], rows),
        ]
    )
    print(report)
    if options.out:
        options.out.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
