"""Thousands of damaged files, and some made to do damage: each is read or refused, quickly."""

import ctypes
import itertools
import os
import struct
import sys
from collections import Counter
from pathlib import Path

import pytest
from fuzzing import (
    BYTES_PER_PROCESS,
    END,
    SECONDS_PER_FILE,
    event,
    midi_file,
    mutant,
    read_in_child,
)

from rnngan.data.workers import Team

QUICK = {"mid": 330, "abc": 130, "musicxml": 30, "mxl": 10}
MANY = {"mid": 6500, "abc": 2500, "musicxml": 800, "mxl": 300}


def assert_sound(results):
    """Neither bugs, nor hours, nor gigabytes."""
    bugs = [f"{result.name}:\n{result.outcome}" for result in results if result.is_bug]
    assert not bugs, "\n".join([f"{len(bugs)} bugs", *bugs[:5]])
    slowest = max(results, key=lambda result: result.seconds)
    assert slowest.seconds < SECONDS_PER_FILE, slowest.name
    largest = max(results, key=lambda result: result.peak_bytes)
    assert largest.peak_bytes < BYTES_PER_PROCESS, largest.name


def assert_mutants_are_sound(folder, numbers):
    mutants = [(kind, number) for kind, size in numbers.items() for number in range(size)]
    results = read_in_child(folder, mutants)
    assert len(results) == len(mutants)
    assert_sound(results)
    for kind in numbers:
        outcomes = Counter(r.outcome for r in results if r.name.endswith(f".{kind}"))
        print(kind, dict(outcomes.most_common()))  # noqa: T201
        assert outcomes["read"]
        assert len(outcomes) > 1  # or the mutants would be too tame


def test_500_mutants(tmp_path):
    assert_mutants_are_sound(tmp_path, QUICK)


@pytest.mark.slow
def test_10_000_mutants(tmp_path):
    assert_mutants_are_sound(tmp_path, MANY)


def test_mutants_are_the_same_every_time():
    assert [mutant(kind, 5) for kind in QUICK] == [mutant(kind, 5) for kind in QUICK]
    assert len({mutant("mid", number) for number in range(100)}) > 90


# Files made by hand to do damage, each with what has to become of it

NOTE = event(0, 0x90, 60, 80) + event(480, 0x80, 60, 0)
FAR_NOTE = midi_file(event(9_900_000, 0x90, 60, 80) + event(9, 0x80, 60, 0), form=0)
NOTATED = """<score-partwise><part-list><score-part id='P'/></part-list><part id='P'>
<measure number='1'><attributes><divisions>1</divisions><time><beats>{}</beats><beat-type>4
</beat-type></time></attributes>{}</measure></part></score-partwise>"""
PITCHED = "<note><pitch><step>C</step><octave>4</octave></pitch><duration>1</duration></note>"
TUNE = "X:1\nM:4/4\nL:1/8\nK:C\n"


def bombs():
    """Contents by name, and what has to become of them."""
    tempos = 500_000 * b"".join(event(1, 0xFF, 0x51, 3, 7, 0xA1, low) for low in (32, 64))
    metres = 300_000 * b"".join(event(1, 0xFF, 0x58, 4, beats, 2, 24, 8) for beats in (3, 4, 5))
    return {
        "37-bytes.mid": (FAR_NOTE, "too_long"),
        "million-notes.mid": (
            midi_file(event(0, 0x90, 60, 80) + event(1, 60, 0) + 1_000_000 * b"\0\x3c\x50\1\x3c\0"),
            "too_many_notes",
        ),
        "notes-at-once.mid": (
            midi_file(event(0, 0x90, 60, 80) + 999_000 * b"\0\x3c\x50" + 999_000 * b"\0\x3c\0"),
            "read",
        ),
        "tempos.mid": (midi_file(tempos + NOTE), "read"),
        "tempos-before-a-long-note.mid": (midi_file(event(0, 0x90, 60, 9) + tempos + NOTE), "read"),
        "metres.mid": (midi_file(event(0, 0x90, 60, 9) + metres + NOTE), "read"),
        "header.mid": (b"MThd\xff\xff\xff\xff" + midi_file(NOTE)[8:], "bad_header"),
        "track-length.mid": (
            midi_file(NOTE)[:18] + b"\xff\xff\xff\xff" + midi_file(NOTE)[22:],
            "truncated",
        ),
        "zero-tempo.mid": (midi_file(event(0, 0xFF, 0x51, 3, 0, 0, 0) + NOTE), "read"),
        "zero-ppq.mid": (midi_file(NOTE, division=0), "zero_ticks_per_quarter"),
        "one-ppq.mid": (midi_file(event(0x0FFFFFFF, 0x90, 60, 80) + NOTE, division=1), "too_long"),
        "tracks.mid": (midi_file(*[NOTE] * 300, num_tracks=65_535), "too_many_tracks"),
        "empty-tracks.mid": (
            midi_file(NOTE, num_tracks=65_535) + 65_534 * (b"MTrk" + struct.pack(">I", 4) + END),
            "too_many_tracks",
        ),
        "no-note-offs.mid": (
            midi_file(b"".join(event(9, 0x90, p, 80) for p in range(128))),
            "no_notes",
        ),
        "endless-clock.mid": (
            midi_file(event(0x0FFFFFFF, 0xB0, 7, 1) * 20 + NOTE),
            "too_long",
        ),
        "zeros.mid": (bytes(1 << 20), "not_midi"),
        "notes.abc": (TUNE + "C" * 110_000, "too_many_notes"),
        "chord.abc": (TUNE + "[" + "C" * 110_000 + "]", "too_many_notes"),
        "numbers.abc": (TUNE + "".join(f"C/{n}" for n in range(9001, 9999)), "no_common_measure"),
        "braces.abc": (TUNE + "{" * 290_000, "no_notes"),
        "long.abc": (TUNE + "C999999999", "too_long"),
        "beats.musicxml": (NOTATED.format(10**8, PITCHED), "absurd_number"),
        "notes.musicxml": (NOTATED.format(4, "<note/>" * 200_000), "too_many_notes"),
        "elements.musicxml": (NOTATED.format(4, "<a/>" * 100_000 + PITCHED), "read"),
        "laughs.musicxml": (
            "<!DOCTYPE a [<!ENTITY a 'ha'>"
            + "".join(f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefgh", "bcdefghi"))
            + "]>"
            + NOTATED.format(4, PITCHED + "<words>&i;</words>"),
            "entities",
        ),
    }


def test_bombs(tmp_path):
    files = bombs()
    for name, (data, _) in files.items():
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    results = read_in_child(tmp_path, use=False)
    assert_sound(results)
    assert {r.name: r.outcome for r in results} == {name: want for name, (_, want) in files.items()}


def test_the_smallest_bomb_has_37_bytes():
    assert len(FAR_NOTE) == 37


# Real files that broke other readers


@pytest.mark.skipif("RNNGAN_DATA" not in os.environ, reason="needs the files themselves")
def test_files_that_broke_other_readers():
    folder = Path(os.environ["RNNGAN_DATA"]) / "broken_midi"
    results = read_in_child(folder)
    assert results
    assert_sound(results)
    for result in results:
        print(f"{result.name:50} {result.outcome}")  # noqa: T201


# What a file may do to the process that reads it


def hang_in_c():
    sum(itertools.repeat(0))


def devour():
    held = [bytearray(1 << 24) for _ in range(100)]
    raise AssertionError(f"{len(held)} times 16 MiB are too many")


def crash():
    ctypes.string_at(0)


def leave():
    os._exit(0)


DEEDS = {"nothing": int, "hang": hang_in_c, "devour": devour, "crash": crash, "leave": leave}


def suffer(deeds, lost, mark):
    """Goes through a job whose items do harm."""
    found = []
    for item, deed in enumerate(deeds):
        if item not in lost:
            mark(item)
            try:
                DEEDS[deed]()
            except MemoryError:
                found.append((deed, "out_of_memory"))
                continue
        found.append((deed, lost.get(item, "done")))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="memory can be limited on Linux alone")
def test_a_deed_costs_one_item():
    jobs = [["nothing", deed, "nothing"] for deed in DEEDS]
    with Team(1, seconds=0.3, memory_bytes=256 << 20) as team:
        results = list(team.results(suffer, jobs))
    ends = {"hang": "timeout", "devour": "out_of_memory", "crash": "crashed", "leave": "crashed"}
    assert results == [
        [("nothing", "done"), (deed, ends.get(deed, "done")), ("nothing", "done")] for deed in DEEDS
    ]
