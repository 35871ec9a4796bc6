"""Files of any kind to pieces, one at a time."""

import hashlib
import os

import pytest

from rnngan.data import reading as module
from rnngan.data.reading import (
    MusicFile,
    Reading,
    Source,
    contents_of,
    find_files,
    name_below,
    read_file,
    read_or_reject,
    reject_for,
    suffix_of,
)
from rnngan.errors import Reject, RejectedFile, UserError
from rnngan.music.midi import write_midi
from rnngan.music.piece import Piece

TUNES = "X:1\nT:One\nM:4/4\nL:1/4\nK:C\nCDEF|\n\nX:2\nT:Two\nM:4/4\nL:1/4\nK:C\nGABc|\n"
SCORE = (
    '<score-partwise><part-list><score-part id="P1"><part-name>Flute</part-name></score-part>'
    '</part-list><part id="P1"><measure number="1"><attributes><divisions>1</divisions>'
    "</attributes><note><pitch><step>C</step><octave>4</octave></pitch><duration>4</duration>"
    "</note></measure></part></score-partwise>"
)


@pytest.fixture
def read(tmp_path):
    """Reads a file of the folder: its sources, or why there are none."""

    def run(name, **settings):
        path = str(tmp_path / name)
        return read_or_reject(MusicFile(name, path), contents_of(path), Reading(**settings))

    return run


def write(folder, *names):
    """MIDI files of one note each, all different."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_midi(Piece.from_rows([(0, 24 + i, 60)]), path)


# Finding


def test_files_below_a_folder_come_in_their_order(tmp_path):
    names = ["b.mid", "sub/deeper/c.MIDI", "sub/a.kar", "a.mid", "sub.mid", ".dot.mid"]
    write(tmp_path, *names)
    (tmp_path / "notes.txt").write_text("no music")
    (tmp_path / "folder.mid").mkdir()
    found = find_files(tmp_path, lambda name: suffix_of(name) in module.MUSIC_SUFFIXES)
    assert found == [f"{tmp_path}/{name}" for name in sorted(names)]
    assert find_files(tmp_path, lambda name: name.startswith("c")) == [
        f"{tmp_path}/sub/deeper/c.MIDI"
    ]


def test_links_and_hidden_folders_are_not_entered(tmp_path):
    write(tmp_path, "music/a.mid", "music/.store.part/b.mid", "music/sub/.git/c.mid", "d/e.mid")
    (tmp_path / "music" / "link").symlink_to(tmp_path / "d")
    (tmp_path / "music" / "round").symlink_to(tmp_path)
    assert find_files(tmp_path / "music", lambda _: True) == [f"{tmp_path}/music/a.mid"]
    [hidden] = find_files(tmp_path / "music" / ".store.part", lambda _: True)
    assert hidden.endswith("b.mid")  # unless it is asked for


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match=r"corpus folder .*/no does not exist"):
        find_files(tmp_path / "no", lambda _: True)
    write(tmp_path, "a.mid")
    with pytest.raises(UserError, match=r"corpus folder .*/a\.mid is not a folder"):
        find_files(tmp_path / "a.mid", lambda _: True)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.mid", ".mid"), ("A.b.MID", ".mid"), ("x/y.MusicXML", ".musicxml"), (".abc", ".abc")],
)
def test_suffixes(name, suffix):
    assert suffix_of(name) == suffix


def test_names_are_paths_below_the_folder():
    assert name_below("/music/", "/music/sub/a.mid") == "sub/a.mid"
    assert name_below("/music", "/music/sub/a.mid") == "sub/a.mid"
    assert name_below("./", "./a.mid") == "a.mid"


def test_names_that_are_no_text_are_spelt_out():
    assert name_below("/x/", os.fsdecode(b"/x/caf\xe9/\xff.mid")) == r"caf\xe9/\xff.mid"
    assert name_below("/x/", "/x/café ♩.mid") == "café ♩.mid"


def test_hashes_are_those_of_the_contents(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert contents_of(str(tmp_path / "a")).sha256 == hashlib.sha256(b"abc" * 1000).hexdigest()
    assert contents_of(str(tmp_path / "no")).sha256 == contents_of(str(tmp_path)).sha256 == ""


# Reading


def test_all_kinds_of_files(tmp_path, read):
    write(tmp_path, "a.mid", "b.MIDI", "c.kar", "d.rmi")
    (tmp_path / "tune.abc").write_text(TUNES.split("\n\n")[0])
    (tmp_path / "score.musicxml").write_text(SCORE)
    ends = {}
    for path in tmp_path.iterdir():
        [(name, sha256, piece)] = read(path.name)
        assert (name, sha256) == (path.name, hashlib.sha256(path.read_bytes()).hexdigest())
        ends[name] = piece.end
    assert ends == {
        "a.mid": 24,
        "b.MIDI": 25,
        "c.kar": 26,
        "d.rmi": 27,
        "tune.abc": 96,
        "score.musicxml": 96,
    }


def test_pieces_of_one_file_are_numbered(tmp_path, read):
    (tmp_path / "two.abc").write_text(TUNES)
    found = read("two.abc")
    assert [(name, piece.tags["title"]) for name, _, piece in found] == [
        ("two.abc#0", "One"),
        ("two.abc#1", "Two"),
    ]
    assert [piece.notes["pitch"][0] for _, _, piece in found] == [60, 67]
    assert found[0].sha256 == found[1].sha256 == contents_of(str(tmp_path / "two.abc")).sha256


def test_repeats_are_played_out_on_demand(tmp_path, read):
    (tmp_path / "a.abc").write_text("X:1\nM:4/4\nL:1/4\nK:C\nCDEF:|\n")
    ends = [read("a.abc", expand_repeats=expand)[0].piece.end for expand in (False, True)]
    assert ends == [96, 192]


def test_what_is_done_about_beats_reaches_the_reader(tmp_path, read, monkeypatch):
    write(tmp_path, "a.mid")
    asked = []
    monkeypatch.setattr(module, "parse_midi", lambda data, beats: asked.append(beats))
    for beats in ("estimate", "fixed", "file"):
        read("a.mid", beats=beats)
    assert asked == ["estimate", "fixed", "file"]
    assert Reading().beats == "estimate"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("broken.mxl", b"PK no archive", "unreadable"),
        ("empty.mid", b"", "empty"),
        ("half.mid", None, "truncated"),
        ("no.midi", b"this is text", "not_midi"),
        ("silent.abc", b"X:1\nK:C\nz4|\n", "no_notes"),
        ("gone.mid", "", "unreadable"),
        ("gone.abc", "", "unreadable"),
    ],
)
def test_files_are_refused_with_a_reason(tmp_path, read, name, content, reason):
    if content is None:
        write(tmp_path, "good.mid")
        content = (tmp_path / "good.mid").read_bytes()[:-3]
    if content != "":
        (tmp_path / name).write_bytes(content)
    found = read(name)
    assert (found.name, found.reason) == (name, reason)
    assert found.message and str(tmp_path) not in found.message and "\n" not in found.message
    path = str(tmp_path / name)
    with pytest.raises(RejectedFile) as caught:
        list(read_file(MusicFile(name, path), contents_of(path), Reading()))
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["pipe.mid", "pipe.abc", "folder.mid"])
def test_only_files_are_opened(tmp_path, read, name):
    if name.startswith("pipe"):
        os.mkfifo(tmp_path / name)  # whoever opens it waits for ever
    else:
        (tmp_path / name).mkdir()
    assert contents_of(str(tmp_path / name)).sha256 == ""
    assert read(name)[:2] == (name, "not_a_file")


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (RejectedFile("truncated", "it ends inside a track"), "truncated", "it ends inside a tr"),
        (MemoryError(), "out_of_memory", "it takes too much memory"),
        (ZeroDivisionError("odd file"), "failed", "ZeroDivisionError: odd file"),
        (RecursionError("too deep"), "failed", "RecursionError: too deep"),
    ],
)
def test_whatever_a_file_does_costs_that_file_alone(
    tmp_path, read, monkeypatch, error, reason, message
):
    def fails(data, beats):
        raise error

    write(tmp_path, "a.mid")
    monkeypatch.setattr(module, "parse_midi", fails)
    found = read("a.mid")
    assert isinstance(found, Reject) and found == reject_for("a.mid", error)
    assert found[:2] == ("a.mid", reason) and found.message.startswith(message)


def test_an_interrupt_is_no_property_of_a_file(tmp_path, read, monkeypatch):
    def interrupted(data, beats):
        raise KeyboardInterrupt

    write(tmp_path, "a.mid")
    monkeypatch.setattr(module, "parse_midi", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read("a.mid")


def test_a_source_is_a_name_a_hash_and_a_piece(tmp_path):
    write(tmp_path, "a.mid")
    contents = contents_of(str(tmp_path / "a.mid"))
    [source] = read_file(MusicFile("x", str(tmp_path / "a.mid")), contents, Reading())
    assert isinstance(source, Source)
    assert source[:2] == ("x", contents.sha256) and source.piece.end == 24
