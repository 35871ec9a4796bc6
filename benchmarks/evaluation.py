"""Speed and memory of `eval`: features against MusPy's metrics, whole reports, many pieces.

    python benchmarks/evaluation.py --data FOLDER --out benchmarks/evaluation.md

FOLDER holds `nottingham` and `pop909`. The first part needs music21 and muspy 0.5.0.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from common import machine, median_ratio, shared_data, table
from prepare import write_many

from eval.features import FEATURES, features_of
from rnngan.data.corpora import corpus_files
from rnngan.data.reading import find_files
from rnngan.music.midi import read_midi

FILES_PER_JOB = 16
MUSIC21_CORPORA = {"ryans-mammoth": None, "bach-chorales": 4}
"""And how many parts a piece has there."""


def features_in(paths: list[str]) -> int:
    """Read files and compute all features of each; how many files."""
    for path in paths:
        features_of(read_midi(Path(path), beats="file"))
    return len(paths)


def muspy_metrics_in(paths: list[str]) -> int:
    """Read files with MusPy and compute its 14 metrics of each; how many files."""
    import muspy

    for path in paths:
        music = muspy.read_midi(path)
        metre = music.time_signatures[0] if music.time_signatures else None
        quarters = 4 * metre.numerator / metre.denominator if metre else 4
        bar = round(quarters * music.resolution)
        muspy.n_pitches_used(music)
        muspy.n_pitch_classes_used(music)
        muspy.pitch_range(music)
        muspy.empty_beat_rate(music)
        muspy.empty_measure_rate(music, bar)
        muspy.polyphony(music)
        muspy.polyphony_rate(music)
        muspy.pitch_in_scale_rate(music, 0, "major")
        muspy.scale_consistency(music)
        muspy.drum_in_pattern_rate(music, "duple")
        muspy.drum_pattern_consistency(music)
        muspy.pitch_entropy(music)
        muspy.pitch_class_entropy(music)
        muspy.groove_consistency(music, bar)
    return len(paths)


def spread(paths: list[str], count: int) -> list[str]:
    """At most so many of the files, evenly spread over their order."""
    few = min(count, len(paths))
    return [paths[i * len(paths) // few] for i in range(few)]


def written_by_music21(name: str, folder: Path, count: int) -> list[str]:
    """MIDI files of a named corpus as music21 writes them, 10,080 ticks to a quarter.

    Pieces that it cannot write are left out.
    """
    import music21

    folder.mkdir()
    written: list[str] = []
    parts = MUSIC21_CORPORA[name]
    for path in spread(corpus_files(name).paths, 2 * count):
        score = music21.converter.parse(path, forceSource=True)
        if parts is None or len(score.parts) == parts:
            with contextlib.suppress(music21.exceptions21.Music21Exception):
                written.append(str(score.write("midi", folder / f"{len(written):05}.mid")))
    return spread(written, count)


def written_by_pretty_midi(paths: list[str], folder: Path) -> list[str]:
    """The same pieces on the grid of rnngan, 480 ticks to a quarter."""
    folder.mkdir()
    written = []
    for path in paths:
        written.append(str(folder / Path(path).name))
        read_midi(Path(path), beats="file").to_pretty_midi().write(written[-1])
    return written


def resolution_of(path: str) -> int:
    """Ticks per quarter of a MIDI file."""
    return int.from_bytes(Path(path).read_bytes()[12:14], "big")


def against_muspy(data: Path | None, count: int, repeats: int) -> str:
    """Milliseconds per file, reading included, and how many times fewer than MusPy takes."""
    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        corpora = {
            name: written_by_music21(name, scratch / name, count) for name in MUSIC21_CORPORA
        }
        corpora |= {
            f"{name}, at 480": written_by_pretty_midi(paths, scratch / f"{name}-480")
            for name, paths in corpora.items()
        }
        for name in ("nottingham", "pop909") if data else ():
            corpora[name] = spread(find_files(data / name, lambda n: n.endswith(".mid")), count)
        workers = os.cpu_count() or 1
        # Of the processes that exist here, none may be in the middle of a library's work.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(pool.map(features_in, [corpora["ryans-mammoth"][:1]] * workers))  # all awake
            for name, paths in corpora.items():
                rows.append(muspy_row(name, paths, repeats, pool))
                print(f"against MusPy: {name} done", flush=True)
    return "\n".join(
        [
            "## Against MusPy",
            "",
            f"Milliseconds per file to read it and compute all {len(FEATURES)} features, in one "
            f"process and in {workers} worker processes, and how many times that is faster than "
            "MusPy 0.5.0, which reads the same file and computes its 14 metrics at the file's own "
            f"resolution in one process. Medians over {repeats} turns, MusPy and we in turn. "
            "Ryan's and Bach's pieces as music21 writes them, and the same at 480 ticks per "
            "quarter; the others as they are distributed.",
            "",
            table(
                [
                    *("files of", "files", "ticks", "MusPy, ms"),
                    *("one process, ms", "times", "workers, ms", "times"),
                ],
                rows,
            ),
        ]
    )


def muspy_row(name: str, paths: list[str], repeats: int, pool: ProcessPoolExecutor) -> list[str]:
    """Line of the table for some files."""
    jobs = [paths[i : i + FILES_PER_JOB] for i in range(0, len(paths), FILES_PER_JOB)]
    ways = {
        "muspy": lambda: muspy_metrics_in(paths),
        "one": lambda: features_in(paths),
        "workers": lambda: sum(pool.map(features_in, jobs)),
    }
    features_in(paths[:1])
    muspy_metrics_in(paths[:1])
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, work in ways.items():
            start = time.perf_counter()
            work()
            taken[way].append((time.perf_counter() - start) / len(paths) * 1000)
    row = [name, str(len(paths)), str(resolution_of(paths[0]))]
    row.append(f"{statistics.median(taken['muspy']):.1f}")
    for way in ("one", "workers"):
        times = median_ratio(taken["muspy"], taken[way])
        row += [f"{statistics.median(taken[way]):.2f}", f"{times:.0f}"]
    return row


_MEASURED = """
import json, resource, sys, time
from pathlib import Path

def peak():  # unlike ru_maxrss without that of the process which started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

start = time.perf_counter()
from eval.__main__ import main
code = main(sys.argv[2:])
seconds = time.perf_counter() - start
workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
Path(sys.argv[1]).write_text(json.dumps([code, seconds, peak(), workers]))
"""


def evaluated(
    real: Path, fake: Path, scratch: Path, cache: Path, options: list[str]
) -> tuple[float, int, int]:
    """`python -m eval` in a process: seconds, and peak memory of it and of a worker in KiB."""
    script, result = scratch / "measured.py", scratch / "result.json"
    script.write_text(_MEASURED)
    arguments = [str(real), str(fake), "--out", str(scratch / "report"), *options]
    environment = os.environ | {
        "RNNGAN_CACHE": str(cache),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, str(script), str(result), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not result.exists():
        raise SystemExit(done.stderr)
    code, seconds, memory, worker = json.loads(result.read_text())
    if code:
        raise SystemExit(done.stderr)
    return seconds, memory, worker


NONE = "none"
COLD = "cold"
FEATURES_KNOWN = "features of all pieces known, comparisons new"
WARM = "warm: the same comparison once more"


def whole_reports(data: Path, count: int, repeats: int, options: list[str]) -> str:
    """Seconds of a report on so many pieces a side, from a cold cache and from a warm one."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        real, fake = two_sides(data, scratch, count, count)
        taken: dict[str, list[float]] = {way: [] for way in (NONE, COLD, FEATURES_KNOWN, WARM)}
        for turn in range(repeats):
            cache = scratch / f"cache-{turn}"
            for way in taken:
                more = ["--no-cache"] if way == NONE else []
                if way == FEATURES_KNOWN:
                    shutil.rmtree(cache / "features" / "results")
                seconds, memory, worker = evaluated(real, fake, scratch, cache, [*options, *more])
                taken[way].append(seconds)
            print(f"whole reports: turn {turn + 1} done", flush=True)
        for way, seconds in taken.items():
            rows.append([way, f"{statistics.median(seconds):.1f}"])
    return "\n".join(
        [
            f"## {count:,} pieces against {count:,}",
            "",
            f"Seconds of `python -m eval REAL FAKE --out DIR{''.join(' ' + o for o in options)}`, "
            "imports included, on pieces made of Nottingham and POP909 (see `prepare.md`). "
            f"Medians over {repeats} turns. Peak resident memory of the last run {memory >> 10} "
            f"MiB, of its largest worker {worker >> 10} MiB.",
            "",
            table(["cache", "s"], rows),
        ]
    )


def two_sides(data: Path, scratch: Path, num_real: int, num_fake: int) -> tuple[Path, Path]:
    """Folders of pieces made of real ones, no two of them alike."""
    write_many(data, scratch / "made", num_real + num_fake)
    files = sorted((scratch / "made").rglob("*.mid"))
    for name, side in (("real", files[:num_real]), ("fake", files[num_real:])):
        for i, path in enumerate(side):
            place = scratch / name / f"{i // 1000:03}" / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
    return scratch / "real", scratch / "fake"


def many_pieces(data: Path, counts: list[int], options: list[str]) -> str:
    """Time and memory as the real side grows."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch_name:
            scratch = Path(scratch_name)
            real, fake = two_sides(data, scratch, count, 1000)
            more = [*options, "--no-cache"]
            seconds, memory, worker = evaluated(real, fake, scratch, scratch / "cache", more)
        rows.append([f"{count:,}", f"{seconds:.1f}", f"{memory >> 10}", f"{worker >> 10}"])
        print(f"many pieces: {count} done", flush=True)
    return "\n".join(
        [
            "## From few pieces to many",
            "",
            "The same with so many real pieces against 1,000, without a cache. Peak resident "
            "memory of the parent, and of the largest worker, in MiB.",
            "",
            table(["real pieces", "s", "parent, MiB", "worker, MiB"], rows),
        ]
    )


def main() -> None:
    """Run all and print, or write, the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with nottingham and pop909")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each way")
    parser.add_argument("--files", type=int, default=50, help="of each corpus, against MusPy")
    parser.add_argument("--pieces", type=int, default=1000, help="a side of the whole report")
    parser.add_argument("--many", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument(
        "--options", default="", help="of python -m eval, such as leave the trained classifier out"
    )
    arguments = parser.parse_args()
    data = shared_data(arguments.data)
    options = shlex.split(arguments.options)
    parts = ["# Evaluation", machine()]
    if importlib.util.find_spec("muspy") and importlib.util.find_spec("music21"):
        parts.append(against_muspy(data, arguments.files, arguments.repeats))
    else:
        print("no muspy or no music21: the comparison with MusPy is left out")
    if data:
        if arguments.pieces:
            parts.append(whole_reports(data, arguments.pieces, arguments.repeats, options))
        if arguments.many:
            parts.append(many_pieces(data, arguments.many, options))
    report = "\n\n".join(parts) + "\n"
    print(report)
    if arguments.out:
        arguments.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
