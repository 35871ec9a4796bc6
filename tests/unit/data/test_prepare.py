"""From a corpus of any kind to a store: what is in it, and that nothing else is."""

import csv
import fcntl
import functools
import gzip
import importlib.util
import io
import json
import os
import shutil
import signal
import sys
import tarfile
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from rnngan.config import DataConfig
from rnngan.data import finding, reading, shards, workers
from rnngan.data import prepare as module
from rnngan.data.duplicates import Signatures
from rnngan.data.prepare import open_prepared, prepare, prepare_pieces, read_sources
from rnngan.data.reading import Source, contents_of
from rnngan.data.report import describe_store
from rnngan.data.splits import SPLITS
from rnngan.data.store import Store
from rnngan.errors import Reject, UserError
from rnngan.music.midi import write_midi
from rnngan.music.piece import DRUMS, Metre, Piece
from rnngan.music.tokenizers.events import Events
from rnngan.progress import Progress

TUNE = "X:1\nT:Tune {}\nR:jig\nM:4/4\nL:1/4\nK:C\nC{}C2|\n"
SECOND = "DEFGABcdefgab"  # no two of these tunes are equal in any key


@pytest.fixture
def inline(monkeypatch, inline_team, files_read):
    """Shards of three files, done in this process; names of the files that were read."""
    monkeypatch.setattr(finding, "FILES_PER_SHARD", 3)
    return files_read


@pytest.fixture
def music(tmp_path):
    """Ten tunes."""
    folder = tmp_path / "music"
    folder.mkdir()
    for i, note in enumerate(SECOND[:10]):
        (folder / f"{i}.abc").write_text(TUNE.format(i, note))
    return folder


def settings(corpus, **changes):
    return DataConfig(corpus=str(corpus), **{"validation_rate": 0.2, "test_rate": 0.2, **changes})


def names_of(store):
    return [entry["name"] for entry in store.entries()]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stamps(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def report_of(store):
    return json.loads((store.folder / "report.json").read_text())


# A folder


def test_a_folder_becomes_a_store(tmp_path, music, inline):
    write_midi(
        Piece.from_rows([(0, 24, 72), (24, 96, 61)], track_names=("flute",)), music / "b.mid"
    )
    (music / "sub").mkdir()
    (music / "sub" / "two.abc").write_text(
        TUNE.format("x", "^F").replace("K:C", "K:D") + "\n" + TUNE.format("y", "^C")
    )
    (music / "bad.mid").write_bytes(b"")
    (music / "readme.txt").write_text("no music")
    store = prepare(settings(music), tmp_path / "store", seed=3)
    numbered = [f"{i}.abc" for i in range(10)]
    assert names_of(store) == [*numbered, "b.mid", "sub/two.abc#0", "sub/two.abc#1"]
    assert store.entry(10) == {
        "name": "b.mid",
        "sha256": contents_of(str(music / "b.mid")).sha256,
        "split": store.entry(10)["split"],
        "group": 10,
        "notes": 2,
        "bars": 1,
        "tokens": len(store.piece_tokens(10)),
        "tags": {"corpus": "music"},
        "beats": "file",
        "onset_error_quarters": [0.0, 0.0],
    }
    assert store.entry(11)["tags"]["folder"] == "sub"
    piece = store.piece(10)
    assert piece.notes["pitch"].tolist() == [72, 61] and piece.tags["source"] == "b.mid"
    rows = list(csv.reader((store.folder / "rejects.csv").read_text().splitlines()))
    assert rows[1:] == [["bad.mid", "empty", "the file is empty"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["music", "store"]


def test_the_manifest_says_where_all_of_it_comes_from(tmp_path, music, inline):
    (music / "bad.mid").write_bytes(b"")
    (music / "worse.mid").write_bytes(b"MThd")
    manifest = prepare(settings(music), tmp_path / "store", seed=3).manifest
    expected = {
        "corpus": str(music),
        "seed": 3,
        "num_files": 12,
        "num_pieces": 10,
        "num_notes": 30,
        "splits": {"train": 6, "validation": 2, "test": 2},
        "rejects": {"empty": 1, "truncated": 1},
        "beats": {"notated": 10},
        "reader": shards.READER_VERSION,
    }
    assert {key: manifest[key] for key in expected} == expected
    assert {"rnngan", "symusic", "numpy"} <= set(manifest["versions"])
    assert manifest["settings"]["corpus"] == str(music)
    assert "transpose" not in manifest["settings"]


def test_a_store_in_one_line(tmp_path, music, inline):
    (music / "bad.mid").write_bytes(b"")
    (music / "worse.mid").write_bytes(b"MThd")
    store = prepare(settings(music, only="highest < 77"), tmp_path / "store", seed=0)
    assert describe_store(store) == (
        "prepared 9 pieces of 12 files (2 test, 5 train, 2 validation), "
        f"27 notes, {len(store.tokens)} events; "
        f"refused: 1 empty, 1 filtered, 1 truncated: {tmp_path / 'store'}"
    )


def test_the_vocabulary_has_room_for_transposition(tmp_path, music, inline):
    store = prepare(settings(music), tmp_path / "store", seed=0)
    config = store.tokenizer.config
    assert (config.lowest, config.highest) == (60 - 6, 77 + 6)


def test_progress_is_told(tmp_path, music, inline):
    calls = []

    class Told(Progress):
        def count(self, done, total, note=""):
            calls.append((done, total, note))

        def say(self, line):
            pass

    (music / "x.mid").write_bytes(b"")
    prepare(settings(music), tmp_path / "store", seed=0, progress=Told("test", 1))
    assert calls == [
        (3, 11, ""),
        (6, 11, ""),
        (9, 11, ""),
        (11, 11, "refused: 1 empty"),
    ]


def test_pieces_alike_but_for_the_key_stay_on_one_side(tmp_path, inline):
    folder = tmp_path / "music"
    folder.mkdir()
    for i in range(12):
        piece = Piece.from_rows([(0, 24, 60), (24, 48, 62 + i), (48, 96, 60)])
        for shift in (0, 3):
            write_midi(piece.transposed(shift), folder / f"{i:02}+{shift}.mid")
    store = prepare(settings(folder), tmp_path / "store", seed=0, report=True)
    splits = [entry["split"] for entry in store.entries()]
    assert splits[::2] == splits[1::2] and set(splits) == set(SPLITS)
    groups = [entry["group"] for entry in store.entries()]
    assert groups[::2] == groups[1::2] and len(set(groups)) == 12
    assert report_of(store)["duplicates"] == {
        "groups": 12,
        "pieces_in_them": 24,
        "largest": 2,
        "groups_on_several_sides": 0,
    }


def test_names_that_are_no_text_are_spelt_out(tmp_path, music, inline):
    try:
        (music / "0.abc").rename(music / b"caf\xe9.abc".decode("utf-8", "surrogateescape"))
    except OSError:
        pytest.skip("this file system has no such names")
    assert r"caf\xe9.abc" in names_of(prepare(settings(music), tmp_path / "store", seed=0))


def test_the_number_of_workers_changes_nothing(tmp_path, music, monkeypatch):
    monkeypatch.setattr(finding, "FILES_PER_SHARD", 2)
    (music / "05.mid").write_bytes(b"")
    with zipfile.ZipFile(music / "more.zip", "w") as archive:
        archive.writestr("k.abc", TUNE.format("k", SECOND[10]))
    stores = [
        prepare(settings(music), tmp_path / f"{count}", seed=0, report=True, workers=count)
        for count in (1, 2, 3)
    ]
    assert len(stores[0]) == 11
    assert contents(stores[0].folder) == contents(stores[1].folder) == contents(stores[2].folder)


# What a file may do to its reader. These run in workers, which import this module.


def hostile_read(file, sha256, reading):
    kind = file.name.removesuffix(".mid")
    if kind == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "exits":
        os._exit(3)
    elif kind == "hangs":
        while True:
            pass
    elif kind == "devours":
        np.empty(workers.BYTES_PER_WORKER + 1, dtype=np.uint8)
    elif kind == "raises":
        raise ZeroDivisionError("odd file")
    yield from READ_FILE(file, sha256, reading)


def hostile_clean(piece, cleaning):
    if piece.tags["source"] == "odd piece.mid":
        os.kill(os.getpid(), signal.SIGKILL)
    return CLEAN(piece, cleaning)


READ_FILE, CLEAN = reading.read_file, shards.clean
KINDS = ["devours", "dies", "exits", "hangs", "odd piece", "raises"]


def hostile_shard(job, lost, mark):
    """Reads files that do to their reader what their names say."""
    reading.read_file, shards.clean = hostile_read, hostile_clean
    return shards.read_shard(job, lost, mark)


@pytest.mark.skipif(sys.platform != "linux", reason="limits are set on Linux only")
def test_hostile_files_cost_one_file_each(tmp_path, music, monkeypatch):
    for i, kind in enumerate(KINDS):
        rows = [(0, 24, 60), (24, 48, 80 + i), (48, 96, 60)]
        write_midi(Piece.from_rows(rows), music / f"{kind}.mid")
    monkeypatch.setattr(module, "read_shard", hostile_shard)
    monkeypatch.setattr(module, "Team", functools.partial(workers.Team, seconds=0.5))
    monkeypatch.setattr(finding, "FILES_PER_SHARD", 9)
    store = prepare(settings(music), tmp_path / "store", seed=0, workers=1)
    assert names_of(store) == [f"{i}.abc" for i in range(10)]
    rows = list(csv.reader((store.folder / "rejects.csv").read_text().splitlines()))
    assert sorted(row[:2] for row in rows[1:]) == [
        ["devours.mid", "out_of_memory"],
        ["dies.mid", "crashed"],
        ["exits.mid", "crashed"],
        ["hangs.mid", "timeout"],
        ["odd piece.mid", "crashed"],
        ["raises.mid", "failed"],
    ]
    assert ["raises.mid", "failed", "ZeroDivisionError: odd file"] in rows


def test_a_shard_is_no_more_than_fits_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "FILES_PER_SHARD", 3)
    monkeypatch.setattr(finding, "BYTES_PER_SHARD", 100)
    sizes = {"a": 40, "b": 60, "c": 1, "d": 0, "e": 99, "f": 1, "g": 500, "h": 1, "i": 1, "j": 1}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(bytes(size))
    names = [*sizes, "gone"]
    shards = finding.in_shards([f"{tmp_path}/{name}" for name in names])
    assert ["".join(path[-1] for path in shard) for shard in shards] == [
        "ab",
        "cde",
        "f",
        "g",
        "hij",
        "e",
    ]
    assert finding.in_shards([]) == []


def test_at_least_one_worker(tmp_path, music):
    with pytest.raises(UserError, match="workers must be at least 1, got 0"):
        prepare(settings(music), tmp_path / "store", seed=0, workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["music"]


# Archives


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


def tarred(path, files):
    file = io.BytesIO()
    with tarfile.TarFile(fileobj=file, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    path.write_bytes(gzip.compress(file.getvalue()) if path.suffix == ".gz" else file.getvalue())


PACKERS = {"a.b.zip": zipped, "a.b.tar": tarred, "a.b.tar.gz": tarred}
FILES = {f"sub/{i}.abc": TUNE.format(i, note) for i, note in enumerate(SECOND)}


@pytest.mark.parametrize("name", PACKERS)
def test_archives_among_the_files(tmp_path, music, inline, name):
    PACKERS[name](
        music / name, {"sub/x.abc": TUNE.format("x", SECOND[10]), "../y.abc": "evil", "z.mid": ""}
    )
    store = prepare(settings(music), tmp_path / "store", seed=0)
    assert names_of(store) == [*(f"{i}.abc" for i in range(10)), f"{name}/sub/x.abc"]
    assert store.entry(10)["tags"]["folder"] == name
    assert store.manifest["num_files"] == 13
    rows = list(csv.reader((store.folder / "rejects.csv").read_text().splitlines()))
    assert [row[:2] for row in rows[1:]] == [
        [f"{name}/../y.abc", "unsafe_name"],
        [f"{name}/z.mid", "empty"],
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["music", "store"]


@pytest.mark.parametrize("name", PACKERS)
def test_an_archive_as_the_corpus_is_like_a_folder(tmp_path, monkeypatch, inline, name):
    PACKERS[name](tmp_path / name, FILES)
    monkeypatch.chdir(tmp_path)
    store = prepare(settings(name), tmp_path / "store", seed=0)
    assert names_of(store) == sorted(FILES)
    assert {entry["tags"]["corpus"] for entry in store.entries()} == {"a.b"}
    assert {entry["tags"]["folder"] for entry in store.entries()} == {"sub"}


def test_a_damaged_archive_costs_itself(tmp_path, music, inline):
    (music / "sub").mkdir()
    (music / "sub" / "broken.zip").write_bytes(b"PK\3\4 and no more")
    (music / "no.tar").write_bytes(b"not at all")
    zipped(music / "text.zip", {"readme.txt": "no music"})
    store = prepare(settings(music), tmp_path / "store", seed=0)
    rows = list(csv.reader((store.folder / "rejects.csv").read_text().splitlines()))
    assert [row[:2] for row in rows[1:]] == [
        ["no.tar", "not_an_archive"],
        ["sub/broken.zip", "damaged"],
    ]
    assert str(tmp_path) not in rows[1][2]
    assert len(store) == 10 and store.manifest["num_files"] == 12


def test_the_same_archive_twice_gives_all_pieces_twice(tmp_path, music, inline):
    for name in ("a.zip", "b.zip"):
        zipped(music / name, {"x.abc": TUNE.format("x", SECOND[10])})
    store = prepare(settings(music), tmp_path / "store", seed=0)
    assert names_of(store)[10:] == ["a.zip/x.abc", "b.zip/x.abc"]
    assert store.entry(10)["group"] == store.entry(11)["group"]


@pytest.mark.parametrize("place", ["relative", "absolute"])
def test_the_store_may_lie_in_the_folder_of_the_music(music, monkeypatch, inline, place):
    zipped(music / "a.zip", {"x.abc": TUNE.format("x", SECOND[10])})
    monkeypatch.chdir(music)
    config = settings("." if place == "relative" else music)
    finish = module.fit_codec
    monkeypatch.setattr(module, "fit_codec", lambda *_, **__: {}[0])
    with pytest.raises(KeyError):
        prepare(config, music / "store", seed=0)
    assert list((music / ".store.part" / "unpacked").rglob("*.abc"))  # and is not found here
    monkeypatch.setattr(module, "fit_codec", finish)
    store = prepare(config, music / "store", seed=0)
    assert names_of(store) == [*(f"{i}.abc" for i in range(10)), "a.zip/x.abc"]
    assert prepare(config, music / "store", seed=0).manifest == store.manifest


# Cleaning


def test_cleaning_and_filters_count_what_they_leave_out(tmp_path, inline):
    folder = tmp_path / "music"
    folder.mkdir()
    for i in range(6):
        rows = [(96, 120, 60), (120, 144, 62 + i), (144, 192, 60)]
        piece = Piece.from_rows(rows, track_names=("the Melody",))
        write_midi(piece, folder / f"{i}.mid")
    write_midi(Piece.from_rows(rows, track_names=("bass",)), folder / "bass.mid")
    write_midi(Piece.from_rows([(0, 24, 60)], track_names=("melody",)), folder / "short.mid")
    waltz = Piece.from_rows(rows, metres=(Metre(0, 3, 4),), track_names=("melody",))
    write_midi(waltz, folder / "waltz.mid")
    (folder / "bad.mid").write_bytes(b"")
    store = prepare(
        settings(folder, melody="track", trim=True, only="meter==4/4 and notes >= 3"),
        tmp_path / "store",
        seed=0,
        report=True,
    )
    assert names_of(store) == [f"{i}.mid" for i in range(6)]
    assert store.piece(0).notes["start"].tolist() == [0, 24, 48]  # trimmed
    report = report_of(store)
    assert (report["files"], report["pieces"]) == (10, 6)
    assert report["rejects"] == {"empty": 1, "no_melody": 1}
    assert report["filtered"] == {"does not meet notes >= 3": 1, "does not meet meter==4/4": 1}
    assert store.manifest["rejects"] == {"empty": 1, "no_melody": 1, "filtered": 2}


def test_a_filter_that_is_none_is_refused_before_anything_is_read(tmp_path, music, inline):
    with pytest.raises(UserError, match="cannot read the filter"):
        prepare(settings(music, only="bars >"), tmp_path / "store", seed=0)
    assert inline == []


def test_tracks_are_merged_on_demand(tmp_path, music, inline):
    rows = [(0, 24, 60, 64, 0, 0), (0, 24, 64, 64, 0, 1), (0, 24, 36, 64, DRUMS, 2)]
    write_midi(Piece.from_rows(rows), music / "x.mid")
    for merge, tracks in ((False, [0, 1, 2]), (True, [0, 0, 1])):
        config = settings(music, merge_tracks=merge)
        store = prepare(config, tmp_path / f"{merge}", seed=0)
        piece = store.piece(10)
        assert sorted(piece.notes["track"].tolist()) == tracks
        np.testing.assert_array_equal(np.sort(piece.notes["pitch"]), [36, 60, 64])


# Too much damage


@pytest.mark.parametrize(("rate", "fails"), [(0.5, False), (0.49, True), (0.0, True), (1.0, False)])
def test_too_much_damage_stops_it(tmp_path, music, inline, rate, fails):
    for i in range(10):
        (music / f"bad{i}.mid").write_bytes(b"" if i else b"MThd")
    config = settings(music, max_reject_rate=rate, only="highest < 77")  # one tune less: no damage
    if not fails:
        assert len(prepare(config, tmp_path / "store", seed=0)) == 9
        assert not (tmp_path / "store-rejects.csv").exists()
        return
    message = rf"50\.0% of the 20 files .*--max-reject-rate {rate:g}: 9 empty, 1 trunc.*store-rejec"
    with pytest.raises(UserError, match=message):
        prepare(config, tmp_path / "store", seed=0)
    rows = list(csv.reader((tmp_path / "store-rejects.csv").read_text().splitlines()))
    assert Counter(row[1] for row in rows) == Counter(
        {"reason": 1, "empty": 9, "truncated": 1, "filtered": 1}
    )
    assert not (tmp_path / "store").exists()
    # Whoever says that it is not too much need not wait again.
    assert len(inline) == 20
    assert len(prepare(replace(config, max_reject_rate=1.0), tmp_path / "store", seed=0)) == 9
    assert len(inline) == 20
    assert not (tmp_path / ".store.part").exists()


def test_every_file_refused(tmp_path, inline):
    folder = tmp_path / "music"
    folder.mkdir()
    (folder / "a.mid").write_bytes(b"")
    (folder / "b.mid").write_bytes(b"MThd")
    message = (
        r"nothing is left of the 2 files .*: 1 empty, 1 truncated; the first: a\.mid: the file"
    )
    with pytest.raises(UserError, match=message):
        prepare(settings(folder, max_reject_rate=1.0), tmp_path / "store", seed=0)
    with pytest.raises(UserError, match=r"1 not_an_archive; the first: no\.zip: "):
        (tmp_path / "no.zip").write_bytes(b"nothing")
        prepare(settings(tmp_path / "no.zip"), tmp_path / "store", seed=0)


def test_every_piece_filtered(tmp_path, music, inline):
    with pytest.raises(UserError, match=r"nothing is left of the 10 files .*: 10 filtered; .*meet"):
        prepare(settings(music, only="bars > 8"), tmp_path / "store", seed=0)


def test_too_small_a_corpus(tmp_path, inline):
    folder = tmp_path / "music"
    folder.mkdir()
    for i in range(2):
        (folder / f"{i}.abc").write_text(TUNE.format(i, SECOND[i]))
    with pytest.raises(UserError, match="too small to split: 2 distinct pieces"):
        prepare(settings(folder), tmp_path / "store", seed=0)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bach-choral", "unknown corpus .*; did you mean 'bach-chorales'.*ryans-mammoth.*anything"),
        ("./bach-chorales", "corpus folder bach-chorales does not exist"),
        ("no/such", "corpus folder no/such does not exist"),
        ("../no", "does not exist"),
        ("file.mid", "file.mid is not a folder, nor a zip or tar file"),
        ("empty", r"no music in empty: looked for \.abc, .*\.mid, .*, and zip and tar files"),
        ("text.zip", r"no music in text\.zip: looked for"),
        ("texts", r"no music in texts/a\.zip, texts/b\.zip: looked for"),
    ],
)
def test_no_such_corpus(tmp_path, monkeypatch, inline, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.mid").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    for place in ("text.zip", "texts/a.zip", "texts/b.zip"):
        zipped(tmp_path / place, {"readme.txt": "no music"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        read_sources(DataConfig(corpus=name))
    with pytest.raises(UserError, match=message):
        prepare(DataConfig(corpus=name), tmp_path / "store", seed=0)
    assert sorted(tmp_path.rglob("*")) == before


# Tokens


TOKENIZERS = [
    "events",
    "melody",
    "frames",
    "tuples",
    pytest.param(
        "miditok",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("miditok") is None, reason="an extra that is not installed"
        ),
    ),
]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_tokenizer_can_fill_a_store(tmp_path, music, inline, name):
    store = prepare(settings(music, tokenizer=name), tmp_path / "store", seed=0, report=True)
    assert store.codec.name == name and len(store) == 10
    sources, _ = read_sources(settings(music))
    for i, source in enumerate(sources):
        rows = store.codec.encode(source.piece)
        np.testing.assert_array_equal(store.piece_tokens(i), rows)
        assert store.entry(i)["tokens"] == len(rows)
        assert store.piece(i).notes["pitch"].tolist() == source.piece.notes["pitch"].tolist()
    assert report_of(store)["tokens_lose"]["notes_dropped"] == 0
    assert ("vocabulary" in report_of(store)) is (name != "tuples")
    assert Store.open(store.folder).codec.to_json() == store.codec.to_json()


@pytest.mark.parametrize(
    ("tokenizer", "changes", "told"),
    [
        ("events", {"velocity_bins": 1}, {"velocities": (64,)}),
        ("melody", {"ticks_per_step": 12}, {"ticks_per_step": 12}),
        ("frames", {"ticks_per_step": 12, "held": False}, {"ticks_per_frame": 12, "held": False}),
    ],
)
def test_settings_reach_the_tokenizer(tmp_path, music, inline, tokenizer, changes, told):
    store = prepare(settings(music, tokenizer=tokenizer, **changes), tmp_path / "store", seed=0)
    assert {name: getattr(store.codec.config, name) for name in told} == told


def test_tags_are_told_and_some_are_worked_out(tmp_path, music, inline):
    (music / "reels").mkdir()
    (music / "reels" / "x.abc").write_text(TUNE.format("x", "^F").replace("jig", "reel"))
    config = settings(music, tags=("style", "folder", "density", "mode", "corpus"))
    store = prepare(config, tmp_path / "store", seed=0)
    tags = ("style=jig", "style=reel", "folder=reels", "density=sparse", "mode=major")
    assert {*tags, "corpus=music"} <= set(store.tokenizer.vocabulary.values("Tag"))
    # 3 notes in 4 quarters; of no folder, which the tokens tell by an empty value.
    assert store.piece(0).tags["density"] == "sparse" and "folder" not in store.entry(0)["tags"]
    decoded = store.codec.decode(store.piece_tokens(10)).tags
    assert dict(decoded) == {
        "style": "reel",
        "folder": "reels",
        "density": "sparse",
        "mode": "major",
        "corpus": "music",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": "tuples", "tags": ("style",)}, "tuples have no place for tags"),
    ],
)
def test_what_a_tokenizer_cannot_do_is_told(tmp_path, music, inline, changes, message):
    with pytest.raises(UserError, match=message):
        prepare(settings(music, **changes), tmp_path / "store", seed=0)
    assert not (tmp_path / "store").exists()


# The report


def test_the_report_by_hand(tmp_path, inline):
    folder = tmp_path / "music"
    folder.mkdir()
    for i, note in enumerate("DEF"):
        (folder / f"{i}.abc").write_text(TUNE.format(i, note))
    # A triplet at ticks 0, 8, 16, which steps of 6 move to 0, 6, 18; in all 5 notes, 2 bars.
    (folder / "3.abc").write_text("X:1\nM:4/4\nL:1/4\nK:C\n(3C/D/E/ C2 D|z3C|\n")
    # The first tune in another key.
    (folder / "4.abc").write_text(TUNE.format(4, "D").replace("C", "G").replace("D", "A"))
    (folder / "5.mid").write_bytes(b"")
    config = settings(folder, tokenizer="melody")
    report = report_of(prepare(config, tmp_path / "store", seed=0, report=True))
    tokens = 5 * 3 + 6 * (1 + 16)  # Start, Metre, End; a bar line and 16 steps for each bar
    counts = report.pop("vocabulary")
    assert report == {
        "files": 6,
        "pieces": 5,
        "notes": 18,
        "bars": 6,
        "tokens": tokens,
        "tokens_per_bar": round(tokens / 6, 3),
        "tokens_per_note": round(tokens / 18, 3),
        "splits": {"train": 3, "validation": 1, "test": 1},
        "rejects": {"empty": 1},
        "filtered": {},
        "beats": {"notated": 5},
        "reading_onset_error_quarters": {"mean": 0.0, "largest": 0.0},
        "duplicates": {
            "groups": 1,
            "pieces_in_them": 2,
            "largest": 2,
            "groups_on_several_sides": 0,
        },
        "tokens_lose": {
            "notes_dropped": 0,
            "notes_dropped_rate": 0.0,
            "onset_error_quarters": {
                "mean": round((2 + 2) / 24 / 18, 6),
                "largest": round(2 / 24, 6),
            },
        },
    }
    assert sum(counts["counts"].values()) == tokens
    assert counts["counts"]["Bar"] == 6 and counts["counts"]["Rest"] == 12
    assert counts["used"] == len(counts["counts"])
    assert counts["size"] == counts["used"] + len(counts["never_used"])


def test_what_the_grid_took_is_reported(tmp_path, inline):
    folder = tmp_path / "music"
    folder.mkdir()
    for i in range(4):
        # At 480 ticks per quarter 20 are one of ours: onsets at 0, 10 or 5 beside the grid.
        late = 10 if i == 3 else 5
        events = bytes([0, 0x90, 60, 64, 0x83, 0x60, 0x80, 60, 0])
        events += bytes([late, 0x90, 64 + i, 64, 0x83, 0x60, 0x80, 64 + i, 0])
        track = events + b"\0\xff\x2f\0"
        data = b"MThd\0\0\0\6\0\0\0\1\1\xe0MTrk" + len(track).to_bytes(4, "big") + track
        (folder / f"{i}.mid").write_bytes(data)
    report = report_of(prepare(settings(folder), tmp_path / "store", seed=0, report=True))
    assert report["beats"] == {"file": 4}
    assert report["reading_onset_error_quarters"] == {
        "mean": pytest.approx((3 * 5 + 10) / 480 / 8, abs=1e-6),
        "largest": pytest.approx(10 / 480, abs=1e-6),
    }


def test_without_it_there_is_no_report(tmp_path, music, inline):
    store = prepare(settings(music), tmp_path / "store", seed=0)
    assert not (store.folder / "report.json").exists()


# Official splits


def test_the_split_that_a_corpus_comes_with(tmp_path, music, inline):
    for i, split in enumerate(["train"] * 6 + ["valid"] * 3 + ["test"]):
        (music / split).mkdir(exist_ok=True)
        (music / f"{i}.abc").rename(music / split / f"{i}.abc")
    # The same tune on two sides stays there, and is told.
    shutil.copy(music / "train" / "0.abc", music / "test" / "0.abc")
    store = prepare(settings(music, split="folders"), tmp_path / "store", seed=0, report=True)
    assert store.manifest["splits"] == {"train": 6, "validation": 3, "test": 2}
    for entry in store.entries():
        assert entry["name"].startswith(entry["split"][:4])
    assert report_of(store)["duplicates"]["groups_on_several_sides"] == 1


def test_a_list_of_the_split(tmp_path, music, inline):
    words = ["train"] * 6 + ["validation"] * 3 + ["test"]
    rows = [f"{i}.abc,{word}" for i, word in enumerate(words)]
    listed = tmp_path / "split.csv"
    listed.write_text("\n".join(["name,split", *rows]))
    config = settings(music, split=str(listed))
    store = prepare(config, tmp_path / "store", seed=0)
    assert [entry["split"] for entry in store.entries()] == words
    listed.write_text("\n".join(["name,split", *rows[:-2], "8.abc,test", "9.abc,test"]))
    with pytest.raises(UserError, match="already holds another prepared corpus"):
        prepare(config, tmp_path / "store", seed=0)
    listed.write_text("name,split\n0.abc,train\n")
    with pytest.raises(UserError, match=r"1\.abc is in no split"):
        prepare(config, tmp_path / "other", seed=0)


# Opening again


def test_a_store_of_this_corpus_is_opened_again_without_reading(
    tmp_path, music, inline, monkeypatch
):
    zipped(music / "a.zip", {"x.abc": TUNE.format("x", SECOND[10])})
    prepare(settings(music), tmp_path / "store", seed=0)
    before = stamps(tmp_path / "store")
    monkeypatch.setattr(module, "Team", None)  # would raise, as would this
    monkeypatch.setattr(finding, "unpack", None)
    # These settings act when batches are drawn, or say when to give up.
    later = settings(music, transpose=0, max_length=64, tempo_factor=1.1, max_reject_rate=0.1)
    assert len(prepare(later, tmp_path / "store", seed=0)) == 11
    assert stamps(tmp_path / "store") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["music", "store"]


OTHERS = {
    "seed": {},
    "rate": {"validation_rate": 0.1},
    "tags": {"tags": ("style",)},
    "repeats": {"expand_repeats": True},
    "tokenizer": {"tokenizer": "melody"},
    "filter": {"only": "bars >= 1"},
    "beats": {"beats": "file"},
}


@pytest.mark.parametrize("other", [*OTHERS, "content", "name", "more", "fewer", "zip", "reader"])
def test_a_store_of_another_corpus_is_left_alone(tmp_path, music, inline, monkeypatch, other):
    zipped(music / "a.zip", {"x.abc": TUNE.format("x", SECOND[10])})
    prepare(settings(music), tmp_path / "store", seed=0)
    before = stamps(tmp_path / "store")
    if other == "content":
        (music / "0.abc").write_text(TUNE.format(0, SECOND[11]))
    elif other == "name":
        (music / "0.abc").rename(music / "zero.abc")
    elif other == "more":
        (music / "more.mid").write_bytes(b"")
    elif other == "fewer":
        (music / "0.abc").unlink()
    elif other == "zip":
        zipped(music / "a.zip", {"x.abc": TUNE.format("x", SECOND[11])})
    elif other == "reader":
        monkeypatch.setattr(module, "READER_VERSION", shards.READER_VERSION + 1)
    config = settings(music, **OTHERS.get(other, {}))
    with pytest.raises(
        UserError, match=r"store already holds another prepared corpus \(/.*music\)"
    ):
        prepare(config, tmp_path / "store", seed=int(other == "seed"))
    assert stamps(tmp_path / "store") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["music", "store"]


def test_a_folder_with_something_else_in_it(tmp_path, music, inline):
    (tmp_path / "store").mkdir()
    assert len(prepare(settings(music), tmp_path / "store", seed=0)) == 10  # an empty one will do
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("mine")
    del inline[:]
    for name in ("mine", "file"):
        with pytest.raises(UserError, match=rf"{name} is not empty and holds no prepared corpus"):
            prepare(settings(music), tmp_path / name, seed=0)
    assert inline == []  # that was told before all the work
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_damaged_store_says_so(tmp_path, music, inline):
    prepare(settings(music), tmp_path / "store", seed=0)
    (tmp_path / "store" / "tokens.npy").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        prepare(settings(music), tmp_path / "store", seed=0)
    assert not (tmp_path / "store" / "tokens.npy").read_bytes()


def test_a_prepared_store_must_be_what_the_settings_ask_for(tmp_path, music, inline):
    config = settings(music, tags=("style",))
    prepare(config, tmp_path / "store", seed=0)
    later = replace(config, transpose=0, max_length=64, max_reject_rate=0.1)
    assert len(open_prepared(later, tmp_path / "store").indices("test")) == 2
    for other, message in (
        (replace(config, corpus="airds"), "data.corpus '/.*/music', and the run has 'airds'"),
        (replace(config, tags=()), r"data.tags \['style'\], and the run has \[\]"),
        (replace(config, test_rate=0.1), "data.test_rate 0.2, and the run has 0.1"),
    ):
        with pytest.raises(UserError, match=message):
            open_prepared(other, tmp_path / "store")
    with pytest.raises(UserError, match="no prepared corpus"):
        open_prepared(config, tmp_path / "no")


# Going on, and keeping apart


@pytest.fixture
def broken_off(monkeypatch, inline_team):
    """Prepares until so many shards are done, and is interrupted."""

    def run(done, *arguments, **options):
        class BrokenOff(inline_team):
            def results(self, work, jobs):
                nonlocal done
                for result in super().results(work, jobs):
                    yield result
                    done -= 1
                    if not done:
                        raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module, "Team", BrokenOff)
            with pytest.raises(KeyboardInterrupt):
                prepare(*arguments, **options)

    return run


@pytest.mark.parametrize("done", range(1, 10))
def test_what_was_done_is_not_done_again(tmp_path, music, inline, broken_off, done):
    zipped(music / "a.zip", {"x.abc": TUNE.format("x", SECOND[10])})
    (music / "bad.mid").write_bytes(b"")
    whole = prepare(settings(music), tmp_path / "whole", seed=0)  # 5 shards, twice
    assert len(inline) == 12
    broken_off(done, settings(music), tmp_path / "store", seed=0)
    assert (tmp_path / ".store.part").exists() and not (tmp_path / "store").exists()
    prepare(settings(music), tmp_path / "store", seed=0)
    assert len(inline) == 24 and inline[:12] == inline[12:]
    assert contents(tmp_path / "store") == contents(whole.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["music", "store", "whole"]


def test_other_settings_do_not_go_on_with_what_was_read(tmp_path, music, inline, broken_off):
    broken_off(4, settings(music), tmp_path / "store", seed=0)
    music.rename(tmp_path / "tunes")
    config = settings(tmp_path / "tunes", only="highest < 77")
    store = prepare(config, tmp_path / "store", seed=0)
    assert len(store) == 9 and {entry["tags"]["corpus"] for entry in store.entries()} == {"tunes"}
    other = prepare(config, tmp_path / "whole", seed=0)
    assert contents(store.folder) == contents(other.folder)


def test_what_is_left_beside_a_finished_store_is_removed(tmp_path, music, inline):
    prepare(settings(music), tmp_path / "store", seed=0)
    (tmp_path / ".store.part" / "read").mkdir(parents=True)
    (tmp_path / ".store.part" / "read" / "000000").write_text("{}")
    assert len(prepare(settings(music), tmp_path / "store", seed=0)) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["music", "store"]


def test_two_processes_keep_apart(tmp_path, music, inline):
    (tmp_path / ".store.part").mkdir()
    with (tmp_path / ".store.part" / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"another process is preparing .*store; wait for it"):
            prepare(settings(music), tmp_path / "store", seed=0)
        assert inline == []
        assert (tmp_path / ".store.part" / "lock").exists()
    assert len(prepare(settings(music), tmp_path / "store", seed=0)) == 10


def test_a_lock_that_its_owner_removed_keeps_nobody_out(tmp_path, music, inline, monkeypatch):
    flock = fcntl.flock

    def too_late(lock, how):
        """Between opening and locking the other process finishes and cleans up."""
        shutil.rmtree(tmp_path / ".store.part")
        flock(lock, how)

    monkeypatch.setattr(module.fcntl, "flock", too_late)
    with pytest.raises(UserError, match="another process is preparing"):
        prepare(settings(music), tmp_path / "store", seed=0)


def test_a_place_that_cannot_be_written(tmp_path, music, inline):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot write .*\.store\.part: Not a directory"):
        prepare(settings(music), tmp_path / "file" / "store", seed=0)


# Pieces in memory


def melody(i):
    return Piece.from_rows([(0, 24, 60), (24, 48, 62 + i), (48, 96, 60)], tags={"style": "jig"})


SOURCES = [Source(f"{i}.mid", f"{i:064}", melody(i)) for i in range(10)]
TUNES = DataConfig(corpus="tunes", validation_rate=0.2, test_rate=0.2)


def test_pieces_in_memory_become_a_store(tmp_path):
    rejects = [Reject("x.mid", "empty", "the file is empty")]
    config = replace(TUNES, tags=("style",), only="highest < 71")
    store = prepare_pieces(SOURCES, config, tmp_path / "store", seed=1, rejects=rejects)
    assert names_of(store) == [f"{i}.mid" for i in range(9)]
    assert store.manifest["corpus"] == "tunes" and store.manifest["num_files"] == 11
    assert store.manifest["rejects"] == {"empty": 1, "filtered": 1}
    for i in range(9):
        assert store.piece(i) == replace(melody(i), tags={"style": "jig", "source": f"{i}.mid"})
        assert store.entry(i)["sha256"] == f"{i:064}"
    assert isinstance(open_prepared(config, tmp_path / "store").codec, Events)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_the_same_pieces_give_the_same_store(tmp_path):
    stores = [prepare_pieces(SOURCES, TUNES, tmp_path / name, seed=1) for name in "ab"]
    assert contents(stores[0].folder) == contents(stores[1].folder)
    other = prepare_pieces(SOURCES, TUNES, tmp_path / "c", seed=2)
    assert other.manifest["fingerprint"] != stores[0].manifest["fingerprint"]


def test_too_few_pieces_leave_nothing(tmp_path):
    with pytest.raises(UserError, match="too small to split: 2 distinct pieces"):
        prepare_pieces(SOURCES[:2], TUNES, tmp_path / "store", seed=0)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        prepare_pieces(SOURCES, TUNES, tmp_path / "store", seed=0)


def test_a_corpus_in_memory(music, inline):
    (music / "bad.mid").write_bytes(b"")
    zipped(music / "a.zip", {"x.abc": TUNE.format("x", "^F")})
    sources, rejects = read_sources(settings(music, only="highest < 77"))
    assert [source.name for source in sources] == [*(f"{i}.abc" for i in range(9)), "a.zip/x.abc"]
    assert sorted(reject[:2] for reject in rejects) == [("9.abc", "filtered"), ("bad.mid", "empty")]
    assert sources[0].piece.notes["pitch"].tolist() == [60, 62, 60]
    assert sources[0].piece.tags["corpus"] == "music"
    assert sources[0].sha256 == contents_of(str(music / "0.abc")).sha256


# Signatures on disk


def test_signatures_come_back_as_they_were(tmp_path):
    short = melody(0)
    long = Piece.from_rows([(i * 6, i * 6 + 6, 60 + i * i % 31) for i in range(300)])
    expected = [module.signature(piece) for piece in (short, long, long.transposed(2), short)]
    assert not expected[0].sketch and expected[1].sketch
    with Signatures(tmp_path / "signatures") as signatures:
        assert list(signatures) == []
        signatures.extend(expected[:1])
        assert list(signatures) == expected[:1]
        signatures.extend(expected[1:])
        assert list(signatures) == expected and len(signatures) == 4
        assert signatures[2] == expected[2]
        with pytest.raises(IndexError):
            _ = signatures[4]
