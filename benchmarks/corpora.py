"""Every corpus and folder at hand through `rnngan prepare --report`: what comes out, what is lost.

python benchmarks/corpora.py --data FOLDER --out benchmarks/corpora.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine, shared_data, table

from rnngan.data.corpora import CORPORA

_PREPARE = [sys.executable, "-m", "rnngan", "prepare", "--max-reject-rate", "1"]


def prepared(corpus: str, folder: Path, environment: dict[str, str], *options: str) -> float:
    """Prepare a corpus with a process of its own; the seconds that it took."""
    start = time.perf_counter()
    done = subprocess.run(
        [*_PREPARE, "--corpus", corpus, "--store", str(folder), *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{corpus}: {done.stderr}")
    return time.perf_counter() - start


def lines_of(name: str, corpus: str, scratch: Path) -> list[list[str]]:
    """Lines of both tables for a corpus: one for each tokenizer."""
    environment = os.environ | {"RNNGAN_CACHE": str(scratch / "cache")}
    first = prepared(corpus, scratch / name / "first", environment)
    again = prepared(corpus, scratch / name / "again", environment)
    lines = []
    for tokenizer in ("events", "melody", "frames", "tuples"):
        store = scratch / name / tokenizer
        prepared(corpus, store, environment, "--report", "--tokenizer", tokenizer)
        report = json.loads((store / "report.json").read_text(encoding="utf-8"))
        refused = ", ".join(f"{n} {reason}" for reason, n in report["rejects"].items())
        about = [
            name,
            f"{report['files']:,}",
            f"{report['pieces']:,}",
            refused or "–",
            f"{report['notes']:,}",
            f"{report['duplicates']['pieces_in_them']}",
            f"{report['reading_onset_error_quarters']['mean']:.4f}",
            f"{first:.1f}",
            f"{again:.1f}",
        ]
        loss = report["tokens_lose"]
        size = report.get("vocabulary", {"size": "–", "used": "–"})
        lines.append(
            [
                *about,
                tokenizer,
                f"{report['tokens']:,}",
                f"{report['tokens_per_bar']:.1f}",
                f"{report['tokens_per_note']:.2f}",
                f"{size['used']} of {size['size']}",
                f"{loss['notes_dropped_rate']:.2%}",
                f"{loss['onset_error_quarters']['mean']:.4f}",
            ]
        )
        print(f"{name}: {tokenizer} done", flush=True)
    return lines


def main() -> None:
    """Prepare all and print, or write, the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with folders of music")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    corpora = {name: name for name in CORPORA}
    if data := shared_data(arguments.data):
        for name in ("nottingham", "pop909", "broken_midi"):
            if (data / name).is_dir():
                corpora[name] = str(data / name)
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            line
            for name, corpus in corpora.items()
            for line in lines_of(name, corpus, Path(folder))
        ]
    report = "\n".join(
        [
            "# Every corpus, prepared",
            "",
            machine(),
            "",
            "Onset errors are means in quarters: of reading against the source's own times, and of "
            "tokens against what was read. Seconds are those of the whole command with an empty "
            "cache, and again into another store: named corpora lie in the cache by then, folders "
            "are read anew.",
            "",
            table(
                [
                    "corpus",
                    "files",
                    "pieces",
                    "refused",
                    "notes",
                    "pieces with a near-duplicate",
                    "onset error of reading",
                    "seconds",
                    "again",
                ],
                [line[:9] for line in lines if line[9] == "events"],
            ),
            "",
            table(
                [
                    "corpus",
                    "tokenizer",
                    "tokens",
                    "per bar",
                    "per note",
                    "vocabulary used",
                    "notes dropped",
                    "onset error of tokens",
                ],
                [[line[0], *line[9:]] for line in lines],
            ),
            "",
        ]
    )
    print(report)
    if arguments.out:
        arguments.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
