"""What every benchmark needs."""

from __future__ import annotations

import os
import platform
import statistics
from datetime import date
from pathlib import Path

from rnngan.data.workers import Lost, Mark
from rnngan.music.midi import read_midi


def machine(*more: str) -> str:
    """What the numbers were measured on, as a Markdown list."""
    lines = [
        f"processor: {processor()}, {os.cpu_count()} of it",
        f"Python {platform.python_version()}",
        *more,
        f"date: {date.today().isoformat()}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def processor() -> str:
    """Model of the processor, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Median over the turns of how many times faster the second was."""
    return statistics.median(a / b for a, b in zip(slow, fast))


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [header, ["---:"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def shared_data(given: Path | None) -> Path | None:
    """Folder of the data that is not part of the project; None, and a word about it, without."""
    named = given or (Path(os.environ["RNNGAN_DATA"]) if "RNNGAN_DATA" in os.environ else None)
    if named is None or not named.is_dir():
        print(
            f"no data at {named}: name the folder that holds nottingham, pop909 and so on with "
            "--data or RNNGAN_DATA; those parts are left out"
        )
        return None
    return named


def read_notes(paths: list[str], lost: Lost, mark: Mark) -> int:  # noqa: ARG001
    """Notes in some MIDI files; work for a team, and so in a module of its own."""
    return sum(len(read_midi(Path(path)).notes) for path in paths)
