"""Files of music made a little wrong, each by its kind and number; and what reads them."""

from __future__ import annotations

import io
import json
import multiprocessing
import random
import re
import struct
import time
import traceback
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from rnngan.errors import RejectedFile
from rnngan.music.midi import parse_midi, read_midi
from rnngan.music.notation import read_notation
from rnngan.music.piece import DRUMS, Metre, Piece, Tempo
from rnngan.music.tokenizers.events import Events
from rnngan.music.tokenizers.summary import Summary

SECONDS_PER_FILE = 10
BYTES_PER_PROCESS = 1 << 30

# Seeds


def event(delta: int, *data: int) -> bytes:
    """A MIDI event after `delta` ticks."""
    digits = [delta & 127]
    while delta := delta >> 7:
        digits.append(delta & 127 | 128)
    return bytes(digits[::-1]) + bytes(data)


END = event(0, 0xFF, 0x2F, 0)


def midi_file(*tracks: bytes, division: int = 480, form: int = 1, num_tracks: int = -1) -> bytes:
    """A MIDI file of raw tracks, without end-of-track events; the header can be made to lie."""
    announced = len(tracks) if num_tracks < 0 else num_tracks
    chunks = [b"MTrk" + struct.pack(">I", len(track) + 4) + track + END for track in tracks]
    return b"MThd" + struct.pack(">IHHH", 6, form, announced, division) + b"".join(chunks)


def _written(piece: Piece) -> bytes:
    file = io.BytesIO()
    piece.tidied().to_pretty_midi().write(file)
    return file.getvalue()


def _midi_seeds() -> list[bytes]:
    scale = [(24 * i, 24 * i + 20, 60 + i, 80) for i in range(12)]
    band = [(12 * i, 12 * i + 12, 40 + i, 90, 33 * (i % 3), i % 3) for i in range(15)]
    drums = [(24 * i, 24 * i + 6, 36 + 2 * (i % 2), 100, DRUMS, 3) for i in range(8)]
    raw = (
        event(0, 0xFF, 0x03, 4)
        + b"Horn"
        + event(0, 0xFF, 0x58, 4, 6, 3, 24, 8)
        + event(0, 0xFF, 0x51, 3, 7, 0xA1, 0x20)
        + event(0, 0xC0, 60)
        + event(0, 0xB0, 7, 100)
        + event(0, 0xF0, 3, 1, 2, 0xF7)
        + b"".join(event(0, 0x90, 60 + i, 80) + event(240, 60 + i, 0) for i in range(8))
        + event(0, 0xE0, 0, 64)
        + event(10, 0x90, 70, 1)
        + event(999, 0x80, 70, 0)
    )
    return [
        _written(Piece.from_rows(scale)),
        _written(
            Piece.from_rows(
                band + drums,
                metres=(Metre(0, 3, 4), Metre(72, 6, 8)),
                tempos=(Tempo(0, 90.0), Tempo(48, 132.5)),
                track_names=("piano", "bass", "größer", "drums"),
            )
        ),
        midi_file(raw, form=0),
        midi_file(event(0, 0xFF, 0x51, 3, 9, 0x27, 0xC0), raw, raw, division=96, form=2),
    ]


_ABC_SEEDS = [
    b"""%abc-2.1
X:1
T:The Test
C:Nobody
R:jig
M:6/8
L:1/8
Q:3/8=120
K:D mix ^c
|:A|"D"d2f {g}(3fed AFA|B>cd !f!e3-|1 e2d [FA]3:|2 e2d d2||
[K:Gm][M:2/4] _B2 =B2|z4|^c/d/c// d3/2|Z2|d4|]
""",
    b"""%%abc-charset utf-8
O:Somewhere

X:7
T:Two voices
M:C|
L:1/4
K:F#m
V:1
F G A B|c>d e<f|[Q:1/4=90]F4:|
V:2
F,2 C,2|A,,4 &C4|F,,4:|
w:la la la

X:8
T:Another
M:3+2/8
K:none
[V:1]CDEFG|(5:4:5ABcde|[V:2]C5|C5|
""",
]


def _musicxml(parts: int, measures: int) -> bytes:
    """A score by hand, with what scores have."""
    names = "".join(
        f'<score-part id="P{p}"><part-name>Part {p}</part-name><midi-instrument id="I{p}">'
        f"<midi-program>{10 * p + 1}</midi-program></midi-instrument></score-part>"
        for p in range(parts)
    )

    def note(step: str, octave: int, duration: int, extra: str = "") -> str:
        tie = '<tie type="start"/>' if extra == "tie" else ""
        return (
            f"<note>{'<chord/>' * (extra == 'chord')}<pitch><step>{step}</step>"
            f"<alter>{int(extra == 'alter')}</alter><octave>{octave}</octave></pitch>"
            f"<duration>{duration}</duration>{tie}"
            "<voice>1</voice><type>quarter</type><dot/></note>\n"
        )

    attributes = (
        "<attributes><divisions>4</divisions><key><fifths>2</fifths><mode>major</mode></key>"
        "<time><beats>3</beats><beat-type>4</beat-type></time><clef><sign>G</sign><line>2</line>"
        "</clef><transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose>"
        "</attributes>\n"
        "<direction><direction-type><metronome><beat-unit>quarter</beat-unit><per-minute>96"
        '</per-minute></metronome></direction-type><sound tempo="96"/></direction>\n'
    )
    bar = (
        note("C", 4, 4, "tie")
        + note("E", 4, 4, "chord")
        + note("C", 4, 4)
        + "<backup><duration>4</duration></backup>\n"
        + note("G", 3, 4, "alter")
        + "<note><rest/><duration>4</duration></note>\n"
    )
    end = (
        '<barline location="right"><ending number="1, 2" type="stop"/>'
        '<repeat direction="backward" times="2"/></barline>\n'
    )
    body = "".join(
        f'<part id="P{p}">'
        + "".join(
            f'<measure number="{m + 1}">\n{attributes * (m == 0)}{bar}{end * (m == 1)}</measure>\n'
            for m in range(measures)
        )
        + "</part>"
        for p in range(parts)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<score-partwise version="3.1"><work><work-title>'
        f"Test</work-title></work><part-list>{names}</part-list>\n{body}</score-partwise>"
    ).encode()


def packed(score: bytes) -> bytes:
    """A score as `.mxl`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (("META-INF/container.xml", b"<container/>"), ("score.xml", score)):
            archive.writestr(zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0)), data)
    return file.getvalue()


@cache
def seeds(kind: str) -> list[bytes]:
    """Valid files of a kind: `mid`, `abc`, `musicxml` or `mxl`."""
    if kind == "mid":
        return _midi_seeds()
    if kind == "abc":
        return _ABC_SEEDS
    scores = [_musicxml(1, 2), _musicxml(2, 3)]
    return scores if kind == "musicxml" else [packed(score) for score in scores]


# Mutations: each takes a file, a source of chance, and another file of the kind


def _span(data: bytes, chance: random.Random, longest: int = 200) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.randrange(1, longest))


def flip_bits(data: bytes, chance: random.Random, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def insert_bytes(data: bytes, chance: random.Random, other: bytes) -> bytes:
    place, _ = _span(data, chance)
    new = chance.choice([chance.randbytes(4), b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
    return data[:place] + new + data[place:]


def delete_bytes(data: bytes, chance: random.Random, other: bytes) -> bytes:
    start, end = _span(data, chance, chance.choice([3, 200]))
    return data[:start] + data[end:]


def repeat_bytes(data: bytes, chance: random.Random, other: bytes) -> bytes:
    start, end = _span(data, chance)
    return data[:end] + data[start:end] * chance.choice([1, 2, 50]) + data[end:]


def truncate(data: bytes, chance: random.Random, other: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def splice(data: bytes, chance: random.Random, other: bytes) -> bytes:
    return data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]


def swap_chunks(data: bytes, chance: random.Random, other: bytes) -> bytes:
    marks = [0, *sorted(chance.sample(range(len(data) + 1), min(3, len(data)))), len(data)]
    tracks = [found.start() for found in re.finditer(rb"MTrk|<part |<measure |X:|PK", data)]
    if len(tracks) > 1 and chance.random() < 0.8:
        marks = [0, *tracks, len(data)]
    chunks = [data[a:b] for a, b in pairwise(marks)]
    i, j = chance.choices(range(len(chunks)), k=2)
    chunks[i], chunks[j] = chunks[j], chunks[i]
    return b"".join(chunks)


def edit_length(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """Another number in a field of 4 bytes: of a chunk where there is one."""
    fields = [
        found.end() for found in re.finditer(rb"MThd|MTrk|PK\x01\x02.{16}|PK\x03\x04.{14}", data)
    ]
    place = chance.choice(fields or [0]) + chance.choice([0, 0, 0, 4, 6, 8])
    extreme = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, chance.randrange(1 << 32), len(data)]
    return data[:place] + struct.pack(">I", chance.choice(extreme)) + data[place + 4 :]


_NUMBERS = [b"0", b"1", b"-1", b"3", b"7", b"64", b"127", b"999", b"65536", b"99999999", b"1e9"]
_NUMBERS += [b"0.1", b"1/0", b"9" * 40, b"9" * 5000, b"nan", b"inf", "½".encode(), b""]


def edit_numbers(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """Other numbers in a text; in other files whatever bytes look like digits."""
    return re.sub(
        rb"\d+",
        lambda found: chance.choice(_NUMBERS) if chance.random() < 0.05 else found[0],
        data,
    )


_TOKEN = re.compile(rb"<(\w+)[^>]*>[^<]*</\1>|<[^>]*>|\S+|.", re.DOTALL)


def _token(data: bytes, chance: random.Random) -> tuple[int, int]:
    return chance.choice([found.span() for found in _TOKEN.finditer(data)] or [(0, len(data))])


def repeat_token(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """A word or a tag many times."""
    start, end = _token(data, chance)
    times = chance.choice([1, 1, 1, 1, 10, 10, 300])
    return data[:end] + data[start:end] * times + data[end:]


def delete_token(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """Without a word or a tag."""
    start, end = _token(data, chance)
    return data[:start] + data[end:]


def borrow_token(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """A word or a tag of another file before or instead of one of this."""
    start, end = _token(data, chance)
    other_start, other_end = _token(other, chance)
    return data[: chance.choice([start, end])] + other[other_start:other_end] + data[end:]


def edit_tree(data: bytes, chance: random.Random, other: bytes) -> bytes:
    """XML with elements repeated, left out, taken from elsewhere, or in another order."""
    try:
        root, donor = ElementTree.fromstring(data), ElementTree.fromstring(other)
    except (ElementTree.ParseError, LookupError, ValueError):  # the latter of its encoding
        return data
    parent = chance.choice([element for element in root.iter() if len(element)] or [root])
    place = chance.randrange(len(parent) + 1)
    children = list(parent)
    child = chance.choice(children or [root])
    action = chance.randrange(4)
    if action == 0 and children:
        parent.remove(child)
    elif action == 1:
        parent[:] = children[:place] + [child] * chance.choice([1, 1, 9, 99]) + children[place:]
    elif action == 2:
        parent.insert(place, chance.choice(list(donor.iter())))
    else:
        chance.shuffle(children)
        parent[:] = children
    return ElementTree.tostring(root, "utf-8")


BLIND = (flip_bits, insert_bytes, delete_bytes, repeat_bytes, truncate, splice, swap_chunks)
IN_TEXT = (edit_numbers, repeat_token, delete_token, borrow_token)
MUTATIONS = {
    "mid": (*BLIND, edit_length, edit_length),
    "abc": (*BLIND, *IN_TEXT, *IN_TEXT),
    # Blindly changed XML hardly ever is XML.
    "musicxml": (*IN_TEXT, *BLIND, *(edit_numbers, edit_tree, edit_tree) * 8),
    "mxl": (*BLIND, edit_length),
}


def mend_lengths(data: bytes) -> bytes:
    """A MIDI file whose chunks are as long as they say, so that the parser sees what is in them."""
    head, *tracks = re.split(rb"MTrk(?:.{4})?", data, flags=re.DOTALL)
    return head + b"".join(b"MTrk" + struct.pack(">I", len(track)) + track for track in tracks)


def mutant(kind: str, number: int) -> bytes:
    """A file of a kind with one to four things wrong."""
    chance = random.Random(f"{kind} {number}")
    if kind == "mxl" and chance.random() < 0.5:
        return packed(mutant("musicxml", number))
    data = chance.choice(seeds(kind))
    for _ in range(chance.choice([1, 1, 2, 4])):
        if data:
            data = chance.choice(MUTATIONS[kind])(data, chance, chance.choice(seeds(kind)))
    return mend_lengths(data) if kind == "mid" and chance.random() < 0.6 else data


# What is done with a file


def outcome(path: Path, *, use: bool = True) -> str:
    """`read`, or the reason of the refusal; whatever else is raised is a bug."""
    try:
        if path.suffix == ".mid":
            pieces = [read_midi(path)]
        else:
            pieces = read_notation(path) + read_notation(path, expand_repeats=True)
    except RejectedFile as error:
        assert re.fullmatch("[a-z_]+", error.reason)
        assert str(error).isprintable()
        assert len(str(error)) < 1000
        return error.reason
    assert pieces
    if use:
        for piece in {id(p): p for p in pieces}.values():
            _use(piece)
    return "read"


def _use(piece: Piece) -> None:
    """What the program does with a piece once it is read."""
    json.dumps([dict(piece.tags), piece.track_names], ensure_ascii=False).encode()
    tidy = piece.tidied()
    assert len(tidy.notes)
    codec = Events.fit(Summary.of([tidy]))
    decoded = codec.decode(codec.encode(tidy), strict=True)
    # A strike on the next one's tick may be lost to the grid, but never all.
    assert len(decoded.notes)
    again = parse_midi(_written(piece), beats="file")
    columns = ["start", "end", "pitch"]
    assert np.array_equal(np.sort(again.notes[columns]), np.sort(tidy.notes[columns]))


class Result(NamedTuple):
    """What became of one file: its `outcome`, or the text of an exception that is a bug.

    Seconds are of the processor: on a loaded machine others last long.
    """

    name: str
    outcome: str
    is_bug: bool
    seconds: float
    peak_bytes: int


def _peak_bytes() -> int:
    """Most memory that this process held; 0 where the system does not say."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) << 10 if found else 0


def _limit_memory() -> None:
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    limit = pages * resource.getpagesize() + BYTES_PER_PROCESS
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _serve(pipe: Connection, folder: Path, mutants: Sequence[tuple[str, int]], use: bool) -> None:
    """Read mutants, or the files of the folder where there are none."""
    _limit_memory()
    names: Iterator[str] = iter(sorted(path.name for path in folder.iterdir()))
    if mutants:
        names = _write_mutants(folder, mutants)
    for name in names:
        pipe.send(name)
        start = time.process_time()
        try:
            text, is_bug = outcome(folder / name, use=use), False
        except Exception:
            text, is_bug = traceback.format_exc(), True
        seconds = time.process_time() - start
        pipe.send(Result(name, text, is_bug, seconds, _peak_bytes()))
    pipe.send(None)


def _write_mutants(folder: Path, mutants: Sequence[tuple[str, int]]) -> Iterator[str]:
    """One file at a time."""
    for kind, number in mutants:
        name = f"{number}.{kind}"
        (folder / name).write_bytes(mutant(kind, number))
        yield name
        (folder / name).unlink()


def read_in_child(
    folder: Path, mutants: Sequence[tuple[str, int]] = (), *, use: bool = True
) -> list[Result]:
    """What becomes of files in a process of limited memory.

    Args:
        folder: Of the files; where mutants are written otherwise.
        mutants: Kinds and numbers.
        use: Whether to do with the pieces what the program does with them.

    Raises:
        AssertionError: A file took too long, or killed the process; its name is told.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_serve, args=(theirs, folder, mutants, use), daemon=True)
    child.start()
    theirs.close()
    results: list[Result] = []
    name = "the start"
    try:
        while True:
            assert ours.poll(6 * SECONDS_PER_FILE), f"{name} hangs"
            message = ours.recv()
            if message is None:
                return results
            if isinstance(message, str):
                name = message
            else:
                results.append(message)
    except EOFError:
        child.join()
        raise AssertionError(f"{name} killed its process: exit code {child.exitcode}") from None
    finally:
        child.kill()
        child.join()
        ours.close()
