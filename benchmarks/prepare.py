"""Speed and memory of `prepare`: against pretty_midi, and from 1,000 to 100,000 files.

    python benchmarks/prepare.py --data FOLDER --out benchmarks/prepare.md

FOLDER holds `nottingham` and `pop909`. Every ratio is to a loop of pretty_midi over the same files
in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import machine, read_notes, shared_data, table

from rnngan.config import DataConfig, preset
from rnngan.data.finding import FILES_PER_SHARD
from rnngan.data.prepare import prepare
from rnngan.data.reading import find_files
from rnngan.data.splits import SPLITS
from rnngan.data.store import Store, StoreWriter
from rnngan.data.workers import Team
from rnngan.music.midi import read_midi
from rnngan.music.piece import DRUMS, TICKS_PER_QUARTER, Piece

_FOLDERS = ("nottingham", "pop909")


def seconds_of(work: Callable[[], object]) -> float:
    """Wall time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read_all(read: Callable[[str], object], paths: list[str]) -> None:
    """One file after the other, none kept."""
    for path in paths:
        read(path)


def prepare_anew(folder: Path) -> None:
    """Prepare a corpus, and throw the store away."""
    with tempfile.TemporaryDirectory() as scratch:
        prepare(DataConfig(corpus=str(folder)), Path(scratch) / "store", seed=0)


def reading_row(folder: Path, repeats: int) -> list[str]:
    """Line of the table for a folder."""
    import pretty_midi

    files = find_files(folder, lambda name: name.endswith(".mid"))
    shards = [files[i : i + FILES_PER_SHARD] for i in range(0, len(files), FILES_PER_SHARD)]
    slow = seconds_of(lambda: read_all(pretty_midi.PrettyMIDI, files))
    times: dict[str, list[float]] = {"one": [], "team": [], "whole": []}
    for _ in range(repeats):
        times["one"].append(seconds_of(lambda: read_all(lambda path: read_midi(Path(path)), files)))
        with Team() as team:
            list(team.results(read_notes, [[], [], [], []]))  # all awake
            times["team"].append(seconds_of(lambda: list(team.results(read_notes, shards))))
        times["whole"].append(seconds_of(lambda: prepare_anew(folder)))
    row = [folder.name, f"{len(files):,}", f"{slow:.2f}"]
    for taken in times.values():
        row += [f"{np.median(taken):.3f}", f"{slow / np.median(taken):.1f}"]
    print(f"reading: {folder.name} done", flush=True)
    return row


def against_pretty_midi(data: Path, repeats: int) -> str:
    """Reading, and preparing, against a loop of pretty_midi."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "both"
        for name in _FOLDERS:
            shutil.copytree(data / name, corpus / name)
        folders = [*(corpus / name for name in _FOLDERS), corpus]
        rows = [reading_row(folder, repeats) for folder in folders]
    columns = ["one process, s", "times", "workers, s", "times", "prepared, s", "times"]
    return "\n".join(
        [
            "## Against pretty_midi",
            "",
            "Seconds for all files of a folder, and how many times faster than the loop "
            "`pretty_midi.PrettyMIDI(path)` in one process. One process: `read_midi` in a loop. "
            "Workers: the same in as many worker processes as there are processors, once these "
            "run. Prepared: `prepare`, from the start of the workers to the store on disk: read, "
            "cleaned, grouped by near-duplicates, split, tokenized, written and synced. Medians "
            f"over {repeats} turns.",
            "",
            table(["folder", "files", "pretty_midi, s", *columns], rows),
        ]
    )


def made_up(piece: Piece, random: np.random.Generator) -> Piece:
    """Four-bar parts of a piece in another order and key, two of five pitches changed.

    As long and as dense as the piece, and no near-duplicate of it.
    """
    lines = piece.bar_lines()[::4]
    part = np.searchsorted(lines, piece.notes["start"], side="right") - 1
    order = random.permutation(len(lines))
    place = np.argsort(order)
    size = 16 * TICKS_PER_QUARTER
    notes = piece.notes.copy()
    inside = notes["start"] - lines[part]
    length = notes["end"] - notes["start"]
    notes["start"] = place[part] * size + np.minimum(inside, size - 1)
    notes["end"] = notes["start"] + length
    pitched = notes["program"] != DRUMS
    pitch = notes["pitch"][pitched].astype(int)
    changed = random.random(len(pitch)) < 0.4
    pitch = np.clip(pitch + changed * random.integers(-2, 3, len(pitch)), 0, 127)
    shift = random.integers(-min(5, pitch.min(initial=127)), min(6, 128 - pitch.max(initial=0)))
    notes["pitch"][pitched] = pitch + shift
    return Piece(notes=notes, tempos=piece.tempos[:1], track_names=piece.track_names)


def write_many(data: Path, folder: Path, count: int) -> int:
    """So many files from real pieces, a thousand to a folder; their size in bytes."""
    import symusic

    pieces = [
        read_midi(Path(path))
        for name in _FOLDERS
        for path in find_files(data / name, lambda n: n.endswith(".mid"))[::4]
    ]
    size = 0
    for number in range(count):
        piece = made_up(pieces[number % len(pieces)], np.random.default_rng(number))
        score = symusic.Score(TICKS_PER_QUARTER)
        for track in np.unique(piece.notes["track"]).tolist():
            notes = piece.notes[piece.notes["track"] == track]
            program = int(notes["program"][0])
            part = symusic.Track(program=program % DRUMS, is_drum=program == DRUMS)
            part.notes = symusic.Note.from_numpy(
                notes["start"].astype(np.int32),
                (notes["end"] - notes["start"]).astype(np.int32),
                notes["pitch"].astype(np.int8),
                notes["velocity"].astype(np.int8),
            )
            score.tracks.append(part)
        score.tempos.append(symusic.Tempo(0, qpm=piece.tempos[0].quarters_per_minute))
        path = folder / f"{number // 1000:03}" / f"{number:06}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        data_bytes = score.dumps_midi()
        path.write_bytes(data_bytes)
        size += len(data_bytes)
    return size


_MEASURED = """
import json, resource, sys, time
from pathlib import Path
from rnngan.config import DataConfig
from rnngan.data.prepare import prepare

def peak():  # unlike ru_maxrss without that of the process which started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

start = time.perf_counter()
store = prepare(DataConfig(corpus=sys.argv[1]), Path(sys.argv[2]), seed=0)
seconds = time.perf_counter() - start
workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([seconds, len(store), len(store.tokens), peak(), workers]))
"""


def many_files(data: Path, counts: list[int]) -> str:
    """Files per second and memory as the corpus grows."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "measured.py"
        script.write_text(_MEASURED)
        for count in counts:
            corpus = Path(scratch) / f"corpus-{count}"
            size = write_many(data, corpus, count)
            store = Path(scratch) / f"store-{count}"
            command = [sys.executable, str(script), str(corpus), str(store)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, pieces, tokens, parent, worker = json.loads(done.stdout)
            rows.append(
                [
                    *(f"{number:,}" for number in (count, size >> 20, pieces, tokens)),
                    f"{seconds:.1f}",
                    f"{count / seconds:.0f}",
                    *(f"{kibibytes >> 10}" for kibibytes in (parent, worker)),
                ]
            )
            shutil.rmtree(corpus)
            shutil.rmtree(store)
            print(f"many files: {count} done", flush=True)
    return "\n".join(
        [
            "## From few files to many",
            "",
            "Made from Nottingham and POP909: parts of four bars in another order and key, two of "
            "five pitches changed, so that no two are near-duplicates. Peak resident memory of the "
            "parent, and of the largest worker, in MiB.",
            "",
            table(
                ["files", "MiB", "pieces", "tokens", "s", "files/s", "parent, MiB", "worker, MiB"],
                rows,
            ),
        ]
    )


_BATCHES = """
import json, sys, time
from pathlib import Path
from rnngan.config import preset
from rnngan.data.batches import TrainingBatches, augmentation_of
from rnngan.data.store import Store

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

data = preset("base").data
before = memory("RssAnon")
store = Store.open(Path(sys.argv[1]))
batches = TrainingBatches(
    store, batch_size=32, max_length=data.max_length, augmentation=augmentation_of(data), seed=0
)
batches.batch(0)
first = memory("RssAnon") - before
start = time.perf_counter()
tokens = sum(int(batches.batch(step).lengths.sum()) for step in range(1, 1001))
seconds = time.perf_counter() - start
print(json.dumps([len(store.tokens), tokens / seconds, first, memory("RssAnon") - before]))
"""


def grown(store: Store, folder: Path, num_tokens: int) -> Store:
    """A store of at least so many tokens: the pieces of another, over and over."""
    lengths = np.diff(store.offsets).tolist()
    with StoreWriter(folder, folder.with_name("growing"), store.codec) as writer:
        while writer.offsets[-1] < num_tokens:
            writer.add(np.asarray(store.tokens), lengths)
            for split in store.splits.tolist():
                writer.describe({}, SPLITS[split])
        return writer.finish({}, [])


def likelihood_tokens_per_second(store: Store, steps: int) -> float:
    """Tokens that pretraining with the demo's settings consumes."""
    import torch

    from rnngan.data.batches import TrainingBatches, augmentation_of
    from rnngan.generator.registry import new_generator
    from rnngan.objectives.likelihood import autocast, negative_log_likelihood, targets_of
    from rnngan.training.pretrain import optimizer_of

    config = preset("base")
    torch.manual_seed(0)
    generator = new_generator(config.generator, len(store.tokenizer.vocabulary))
    optimizer = optimizer_of(generator, learning_rate=1e-3, weight_decay=0.01)
    batches = TrainingBatches(
        store,
        batch_size=config.pretrain.batch_size,
        max_length=config.data.max_length,
        augmentation=augmentation_of(config.data),
        seed=0,
    )
    ready = [batches.batch(step) for step in range(steps + 2)]
    for step, batch in enumerate(ready):
        if step == 2:
            start = time.perf_counter()
        with autocast("auto"):
            loss = negative_log_likelihood(generator, targets_of(batch, store.tokenizer.grammar))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return sum(int(b.lengths.sum()) for b in ready[2:]) / (time.perf_counter() - start)


def huge_store(data: Path, num_tokens: list[int], steps: int) -> str:
    """Speed and memory of training batches as the store grows."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        config = DataConfig(corpus=str(data / "pop909"))
        store = prepare(config, Path(scratch) / "pop909", seed=0)
        consumed = likelihood_tokens_per_second(store, steps)
        script = Path(scratch) / "batches.py"
        script.write_text(_BATCHES)
        for count in num_tokens:
            folder = Path(scratch) / "huge"
            pieces = len(grown(store, folder, count))
            command = [sys.executable, str(script), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            tokens, speed, first, last = json.loads(done.stdout)
            rows.append(
                [
                    *(f"{number:,.0f}" for number in (tokens, pieces, speed, speed / consumed)),
                    *(f"{kibibytes >> 10}" for kibibytes in (first, last)),
                ]
            )
            shutil.rmtree(folder)
            print(f"huge store: {tokens} tokens done", flush=True)
    return "\n".join(
        [
            "## Training batches from a huge store",
            "",
            "The pieces of POP909 over and over, all written out. Batches of the demo: 32 excerpts "
            "of at most 512 tokens, transposed. Tokens per second in one process, over 1,000 "
            "batches, and how many times faster that is than a likelihood step of the demo "
            f"consumes them ({consumed:,.0f} per second on all processors, {steps} steps on "
            "POP909). Memory of the process beyond what it had before it opened the store, without "
            "the pages of the file, which the system takes back when it needs them: after the "
            "first batch and after the last.",
            "",
            table(
                ["tokens", "pieces", "tokens/s", "times", "first batch, MiB", "1,000th, MiB"],
                rows,
            ),
        ]
    )


def main() -> None:
    """Run all and print, or write, the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with nottingham and pop909")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each way")
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--tokens", type=int, nargs="+", default=[10**7, 10**9])
    parser.add_argument("--steps", type=int, default=20, help="likelihood steps")
    arguments = parser.parse_args()
    data = shared_data(arguments.data)
    if data is None:
        sys.exit(1)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    parts = [
        "# Preparing a corpus",
        machine(),
        against_pretty_midi(data, arguments.repeats),
        many_files(data, arguments.files),
        huge_store(data, arguments.tokens, arguments.steps),
    ]
    report = "\n\n".join(parts) + "\n"
    print(report)
    if arguments.out:
        arguments.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
