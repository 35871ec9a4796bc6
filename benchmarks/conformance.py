"""Hand-worked truth, what we compute, what other tools print: the tables of `docs/conformance.md`.

    python benchmarks/conformance.py --out docs/conformance.md

The truths are those of `tests/unit/eval/conformance.py`. Fails if ours are not the same. MusPy's
numbers are computed if it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from common import table

from eval import compat, distances
from eval.compat import TOOLS as OLD_TOOLS
from eval.features import FEATURES
from rnngan.music.midi import read_midi

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit" / "eval"))
from conformance import EXPECTED, PIECES, TOOLS, Recorded

EXACT = 1e-9
COMPAT = {
    ("MusPy 0.5.0", "polyphony_rate[k=2]"): ("muspy", "polyphony_rate", ""),
    ("MusPy 0.5.0", "groove[q=64,pairs=all]"): ("muspy", "groove_consistency", ""),
    ("MusPy 0.5.0", "empty_bar_rate"): ("muspy", "empty_measure_rate", ""),
    ("MusPy 0.5.0", "empty_beat_rate"): ("muspy", "empty_beat_rate", ""),
    ("MusPy 0.5.0", "polyphony"): ("muspy", "polyphony", ""),
    ("MusPy 0.5.0", "pitch_range"): ("muspy", "pitch_range", ""),
    ("C-RNN-GAN", "scale_consistency"): ("crnngan", "scale_score", ""),
    ("mgeval", "inter_onset_interval_mean[beats]"): ("mgeval", "avg_IOI", " s"),
    ("mgeval", "note_length_histogram"): ("mgeval", "note_length_hist[signature in track 1]", ""),
}
"""Tool, metric and unit under which `--compat` has a number that is recorded as wrong."""


def number(value: float | None) -> str:
    """Four digits; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value + 0.0:.4g}"  # no -0


def same(value: object, other: object) -> bool:
    """Whether two numbers or histograms agree to the last digits, NaN with NaN."""
    return bool(np.allclose(value, other, rtol=0, atol=EXACT, equal_nan=True))


def spread(name: str, value: float | dict[str, float]) -> object:
    """A truth as the feature gives it: bins that are not named are 0."""
    if not isinstance(value, dict):
        return value
    return np.array([value.get(label, 0.0) for label in FEATURES[name].bins])


def shown(value: float | dict[str, float] | None) -> str:
    """A truth or a recorded value in a cell."""
    if isinstance(value, dict):
        return ", ".join(f"{label} {number(share)}" for label, share in value.items())
    return number(value)


def scalars() -> str:
    """Truths and our values of the numbers, piece by piece."""
    rows = []
    for name, truths in EXPECTED.items():
        if FEATURES[name].kind == "scalar":
            values = [FEATURES[name].compute(piece) for piece in PIECES.values()]
            cells = [
                number(truth) if same(value, truth) else f"{number(truth)}, ours {number(value)}"
                for value, truth in zip(values, truths)
            ]
            rows.append([f"`{name}`", *cells])
    return table(["metric", *PIECES], rows)


def histograms() -> str:
    """How many of the pieces have the bins that they should have."""
    rows = []
    for name, truths in EXPECTED.items():
        if FEATURES[name].kind != "scalar":
            agree = [
                same(FEATURES[name].compute(piece), spread(name, truth))
                for piece, truth in zip(PIECES.values(), truths)
            ]
            bins = len(FEATURES[name].bins)
            rows.append([f"`{name}`", str(bins), f"{sum(agree)} of {len(agree)}"])
    return table(["metric", "bins", "pieces right"], rows)


def muspy_numbers() -> str:
    """MusPy's metrics on the same pieces, truths beside those that differ."""
    import muspy
    from test_compat import muspy_says

    rows = []
    agreed = "the same in every cell"
    for name, near in OLD_TOOLS["muspy"].metrics.items():
        cells = []
        for piece, truth in zip(PIECES.values(), EXPECTED[near.name]):
            value = muspy_says(muspy, name, piece)
            if not same(value, OLD_TOOLS["muspy"].measure(piece)[name]):
                agreed = "OTHER NUMBERS"
            right = same(value, truth)
            cells.append(number(value) if right else f"**{number(value)}** ({number(truth)})")
        rows.append([f"`{name}`", f"`{near.name}`", *cells, near.difference])
    return "\n".join(
        [
            "## MusPy 0.5.0",
            "",
            "As it is installed, on the same pieces at 24 ticks per quarter; bold where it differs "
            "from the truth by our definition, which follows in brackets. A dash is NaN or an "
            f"error. `--compat muspy` gives {agreed}.",
            "",
            table(["MusPy", "ours", *PIECES, "why they differ"], rows),
        ]
    )


def compat_value(case: Recorded) -> str:
    """What `--compat` gives for a number that is recorded as wrong; nothing where it has none."""
    if (case.tool, case.feature) not in COMPAT:
        return ""
    tool, metric, unit = COMPAT[case.tool, case.feature]
    value = OLD_TOOLS[tool].measure(case.piece)[metric]
    if isinstance(value, float):
        return number(value) + unit
    bins = zip(FEATURES[case.feature].bins, value.tolist())
    return shown({label: share for label, share in bins if share})


def recorded() -> str:
    """What other tools were seen to print for a piece."""
    rows = [
        [
            case.tool,
            f"`{case.feature}`",
            case.music,
            shown(case.truth),
            "the same" if same(ours, spread(case.feature, case.truth)) else number(float(ours)),
            "an error" if case.says is None else shown(case.says),
            compat_value(case),
            case.why,
        ]
        for case in TOOLS
        for ours in [FEATURES[case.feature].compute(case.piece)]
    ]
    header = ["tool", "metric", "music", "truth", "ours", "it says", "`--compat`", "why"]
    return table(header, rows)


def sets() -> str:
    """What other tools were seen to print for sets of numbers."""
    x = np.random.default_rng(1).normal(size=100)
    rows = [
        [
            *("mgeval", "overlapping area of a sample and itself", "1"),
            *(number(distances.overlapping_area(x, x)), "0.983"),
            *(number(compat.mgeval_overlap_area(x, x)), "loses the tails beyond the sample"),
        ]
    ]
    for words, y in (("100 to the right", x + 100), ("50 times as wide", 50 * x)):
        rows.append(
            [
                *("mgeval", f"Kullback-Leibler divergence of a sample from itself {words}"),
                *("above 0", f"{number(distances.kl_divergence(x, y))} bits", "0"),
                *(number(round(compat.mgeval_kl_dist(x, y), 9)), "each on its own range"),
            ]
        )
    lengths = np.array([0, 8]) / 8, np.array([1, 8]) / 9  # 16ths, quarters
    overlap = float(distances.histogram_overlap(*lengths))
    rows.append(
        [
            *("smg-metrics 5.4.3", "overlap of 8 quarters and the same plus one 16th", "8/9"),
            *(number(overlap), "0.11", "", "each side has bins of its own"),
        ]
    )
    points = np.random.default_rng(0).normal(size=(50, 3))
    rows.append(
        [
            *("prdc 0.2", "coverage of a set by itself", "1"),
            *(number(distances.manifold(points, points).coverage), "0", "", "`<` for `≤`"),
        ]
    )
    drawn = np.random.default_rng(0).normal(size=(2, 30, 768))
    rows.append(
        [
            *("FID and its kin", "Fréchet distance of two draws of one Gaussian, 768-D, n = 30"),
            *("0", number(distances.frechet(*drawn)), "1341", ""),
            "the estimator's bias, which our reports print beside it",
        ]
    )
    return table(["tool", "metric", "truth", "ours", "it says", "`--compat`", "why"], rows)


def chorale() -> str:
    """The groove of one chorale, for which every tool has another number."""
    import music21

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "bwv66.6.mid"
        music21.corpus.parse("bwv66.6").write("midi", path)
        piece = read_midi(path, beats="file")
    groove = {pairs: FEATURES[f"groove[q=64,pairs={pairs}]"] for pairs in ("all", "adjacent")}
    muspy, musdr = (OLD_TOOLS[tool].measure for tool in ("muspy", "musdr"))
    at_24 = float(muspy(piece)["groove_consistency"])
    rows = [
        ["MusPy 0.5.0, 10,080 ticks", "0.9999", "", "one step a tick"],
        ["MusPy 0.5.0, 24 ticks", "0.9757", number(at_24), "one step a tick"],
        ["MusDr", "0.9731", number(float(musdr(piece)["GS"])), "all pairs of bars, 64 steps"],
        ["smg-metrics 5.4.3", "0.9608", "", "the same, the bars laid from the pickup"],
    ]
    values = ", ".join(
        f"`{feature.name}` {number(float(feature.compute(piece)))}" for feature in groove.values()
    )
    return "\n".join(
        [
            "## One chorale, four tools",
            "",
            f"The groove of BWV 66.6 as music21 writes it. Ours: {values}.",
            "",
            table(["tool", "it says", "`--compat`", "what it counts"], rows),
        ]
    )


def wrong() -> list[str]:
    """Features and pieces where ours is not the truth."""
    return [
        f"{name} of {music}"
        for name, truths in EXPECTED.items()
        for (music, piece), truth in zip(PIECES.items(), truths)
        if not same(FEATURES[name].compute(piece), spread(name, truth))
    ]


def report() -> str:
    """The whole page."""
    parts = [
        "# Conformance",
        "Made by `python benchmarks/conformance.py --out docs/conformance.md`; do not edit. The "
        "truths were worked out by hand, with the reckoning beside them, in "
        "`tests/unit/eval/conformance.py`, where a test holds every feature to them.",
        "## Numbers",
        f"The truth for each of {len(PIECES)} small pieces, and ours beside it where it is not the "
        "same. A dash is NaN: undefined.",
        scalars(),
        "## Histograms",
        "In how many of the pieces every bin has its hand-worked share.",
        histograms(),
    ]
    if importlib.util.find_spec("muspy"):
        parts.append(muspy_numbers())
    parts += [
        "## Recorded of other tools",
        "Seen by running them. `--compat` is what `python -m eval --compat` gives, where it knows "
        "the tool.",
        recorded(),
        sets(),
    ]
    if importlib.util.find_spec("music21"):
        parts.append(chorale())
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Print or write the page; fail if ours are wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    page = report()
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")
    else:
        print(page)
    if found := wrong():
        sys.exit(f"not the truth: {', '.join(found)}")


if __name__ == "__main__":
    main()
