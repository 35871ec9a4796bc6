import hashlib
import os
import signal
import sys

import numpy as np
import pytest

from rnngan.data import reading
from rnngan.data.reading import music_files, read_folder
from rnngan.errors import UserError
from rnngan.music.midi import write_midi
from rnngan.music.piece import Piece

TUNES = "X:1\nT:One\nM:4/4\nL:1/4\nK:C\nCDEF|\n\nX:2\nT:Two\nM:4/4\nL:1/4\nK:C\nGABc|\n"


def write(folder, *names):
    """MIDI files of one note each, all different."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_midi(Piece.from_rows([(0, 24 + i, 60)]), path)


# What a file may do to its reader. These run in the workers, which import this module.

READ_FILE, SOURCES = reading._read_file, reading._sources


def dies(path, expand_repeats):
    os.kill(os.getpid(), signal.SIGKILL)


def exits(path, expand_repeats):
    os._exit(3)


def hangs(path, expand_repeats):
    while True:
        pass


def devours(path, expand_repeats):
    np.empty(reading.BYTES_PER_WORKER + 1, dtype=np.uint8)


def raises(path, expand_repeats):
    raise ZeroDivisionError("odd file")


HOSTILE = {function.__name__: function for function in (dies, exits, hangs, devours, raises)}


def hostile(path, expand_repeats):
    """Reads a file that does to its worker what its name says."""
    reading.SECONDS_PER_FILE = 0.5
    reading._sources = HOSTILE.get(path.stem, SOURCES)
    return READ_FILE(path, expand_repeats)


def test_a_folder_of_all_kinds(tmp_path):
    write(tmp_path, "b.mid", "sub/deeper/c.MIDI", "sub/a.kar")
    (tmp_path / "two.abc").write_text(TUNES)
    (tmp_path / "sub" / "one.abc").write_text(TUNES.split("\n\n")[0])
    (tmp_path / "notes.txt").write_text("no music")
    (tmp_path / "folder.mid").mkdir()
    seen = []
    sources, rejects = read_folder(tmp_path, workers=1, progress=lambda *call: seen.append(call))
    assert [source.name for source in sources] == [
        "b.mid",
        "sub/a.kar",
        "sub/deeper/c.MIDI",
        "sub/one.abc",
        "two.abc#0",
        "two.abc#1",
    ]
    assert rejects == []
    assert seen == [(i, 5) for i in range(1, 6)]
    assert [source.piece.end for source in sources] == [24, 26, 25, 96, 96, 96]
    assert [source.piece.notes["pitch"][0] for source in sources[-2:]] == [60, 67]
    for source in sources:
        content = (tmp_path / source.name.partition("#")[0]).read_bytes()
        assert source.sha256 == hashlib.sha256(content).hexdigest()


def test_repeats_are_played_out_on_demand(tmp_path):
    (tmp_path / "a.abc").write_text("X:1\nM:4/4\nL:1/4\nK:C\nCDEF:|\n")
    ends = [
        read_folder(tmp_path, expand_repeats=expand, workers=1)[0][0].piece.end
        for expand in (False, True)
    ]
    assert ends == [96, 192]


def test_refused_files_are_listed_with_their_reasons(tmp_path):
    write(tmp_path, "good.mid")
    good = (tmp_path / "good.mid").read_bytes()
    (tmp_path / "empty.mid").write_bytes(b"")
    (tmp_path / "no.midi").write_bytes(b"this is text")
    (tmp_path / "half.mid").write_bytes(good[:-3])
    (tmp_path / "silent.abc").write_text("X:1\nK:C\nz4|\n")
    (tmp_path / "broken.mxl").write_bytes(b"PK no archive")
    sources, rejects = read_folder(tmp_path, workers=2)
    assert [source.name for source in sources] == ["good.mid"]
    assert [(reject.name, reject.reason) for reject in rejects] == [
        ("broken.mxl", "unreadable"),
        ("empty.mid", "empty"),
        ("half.mid", "truncated"),
        ("no.midi", "not_midi"),
        ("silent.abc", "no_notes"),
    ]
    assert rejects[1].message == "the file is empty"
    assert not any(str(tmp_path) in reject.message for reject in rejects)


def test_hostile_files_cost_one_file_each(tmp_path, monkeypatch):
    write(tmp_path, *(f"{i}.mid" for i in range(8)), *(f"{name}.mid" for name in HOSTILE))
    monkeypatch.setattr(reading, "_read_file", hostile)
    sources, rejects = read_folder(tmp_path, workers=2)
    refused = {reject.name: reject.reason for reject in rejects}
    if not sys.platform.startswith("linux"):  # elsewhere nothing limits the memory of a process
        refused.pop("devours.mid", None)
    else:
        assert refused.pop("devours.mid") == "out_of_memory"
    assert refused == {
        "dies.mid": "crashed",
        "exits.mid": "crashed",
        "hangs.mid": "crashed",
        "raises.mid": "failed",
    }
    assert rejects[-1].message == "ZeroDivisionError: odd file"
    assert {f"{i}.mid" for i in range(8)} <= {source.name for source in sources}


def test_the_number_of_workers_changes_nothing(tmp_path):
    write(tmp_path, *(f"{i:02}.mid" for i in range(20)))
    (tmp_path / "05.mid").write_bytes(b"")
    assert read_folder(tmp_path, workers=1) == read_folder(tmp_path, workers=3)


def test_a_file_that_vanishes(tmp_path, monkeypatch):
    write(tmp_path, "a.mid")
    monkeypatch.setattr(
        reading, "music_files", lambda folder: [folder / "a.mid", folder / "gone.mid"]
    )
    sources, rejects = read_folder(tmp_path, workers=1)
    assert len(sources) == 1
    assert rejects == [("gone.mid", "unreadable", "No such file or directory")]


def test_names_that_are_no_text_are_spelt_out(tmp_path):
    write(tmp_path, "a.mid")
    try:
        (tmp_path / "a.mid").rename(tmp_path / os.fsdecode(b"caf\xe9.mid"))
    except OSError:
        pytest.skip("this file system has no such names")
    [source], _ = read_folder(tmp_path, workers=1)
    assert source.name == r"caf\xe9.mid"


def test_no_folder_and_no_music(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        music_files(tmp_path / "no")
    write(tmp_path, "a.mid")
    with pytest.raises(UserError, match="is not a folder"):
        music_files(tmp_path / "a.mid")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no music in .*: looked for \.abc, .*\.mid"):
        read_folder(tmp_path / "empty")
    with pytest.raises(UserError, match="workers must be at least 1, got 0"):
        read_folder(tmp_path, workers=0)


def test_every_file_refused(tmp_path):
    (tmp_path / "a.mid").write_bytes(b"")
    (tmp_path / "b.mid").write_bytes(b"MThd")
    with pytest.raises(UserError, match=r"every one of the 2 .* the first: a\.mid: the file is em"):
        read_folder(tmp_path, workers=1)
