"""Shards of a corpus: read once, cleaned, encoded; nothing is taken for what it is not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rnngan.data import shards as module
from rnngan.data.cleaning import Cleaning
from rnngan.data.duplicates import signature
from rnngan.data.loss import measure_loss
from rnngan.data.reading import MusicFile, Reading, Source, contents_of
from rnngan.data.shards import (
    EncodeJob,
    ReadJob,
    Shard,
    clean_shard,
    contents_digest,
    encode_pieces,
    encode_shard,
    load_shard,
    read_shard,
    save_shard,
)
from rnngan.errors import Reject, UserError
from rnngan.music.midi import write_midi
from rnngan.music.piece import Piece, Timing
from rnngan.music.tokenizers.registry import fit_codec
from rnngan.music.tokenizers.summary import Summary

TUNES = "X:1\nT:One\nM:4/4\nL:1/4\nK:C\nCDEF|\n\nX:2\nT:Two\nM:4/4\nL:1/4\nK:C\nGABc|\n"


def melody(i):
    return Piece.from_rows([(0, 24, 60), (24, 48, 62 + i), (48, 96, 60)], tags={"title": str(i)})


SHARD = Shard(
    [
        Source("a/0.mid", "0" * 64, melody(0)),
        Source("tunes.abc#1", "1" * 64, replace(melody(1), timing=Timing("file", 0.1, 0.25))),
    ],
    [Reject("bad.mid", "empty", "the file is empty")],
)


@pytest.fixture
def job(tmp_path):
    """Three files, one of them no music; the same is written below `cached` and `clean`."""
    folder = tmp_path / "music"
    for name in ("jigs/b.mid", "a.mid"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_midi(melody(3), path)
    (folder / "tunes.abc").write_text(TUNES)
    (folder / "bad.mid").write_bytes(b"")
    names = ["a.mid", "bad.mid", "jigs/b.mid", "tunes.abc"]
    return ReadJob(
        files=tuple(MusicFile(name, str(folder / name)) for name in names),
        reading=Reading(),
        cleaning=Cleaning(),
        tags=(),
        common_tags={"corpus": "music"},
        num_parts=None,
        path=tmp_path / "clean",
        cache=None,
    )


@pytest.fixture
def read():
    """Carries out a job; the answer, and which of its items were marked."""

    def run(job, lost=None):
        marked = []
        return read_shard(job, lost or {}, marked.append), [i for i in marked if i >= 0]

    return run


# On disk


def test_a_shard_comes_back_as_it_was(tmp_path):
    save_shard(tmp_path / "000", "key", SHARD)
    for key in (None, "key"):
        found = load_shard(tmp_path / "000", key)
        assert found == SHARD
        assert [s.piece.timing for s in found.sources] == [s.piece.timing for s in SHARD.sources]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000"]


def test_an_empty_shard(tmp_path):
    save_shard(tmp_path / "000", "key", Shard([], []))
    assert load_shard(tmp_path / "000") == Shard([], [])


def test_another_shard_does_not_count(tmp_path):
    save_shard(tmp_path / "000", "key", SHARD)
    assert load_shard(tmp_path / "000", "another") is None
    assert load_shard(tmp_path / "001") is None


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "zeros", "other"])
def test_a_damaged_shard_does_not_count(tmp_path, damage):
    save_shard(tmp_path / "000", "key", SHARD)
    path = tmp_path / "000"
    data = path.read_bytes()
    half, size = len(data) // 2, len(data)
    path.unlink()
    if damage != "gone":
        path.write_bytes(
            {
                "empty": b"",
                "cut": data[:half],
                "zeros": data[:half] + bytes(size - half),
                "other": b"[]",
            }[damage]
        )
    assert load_shard(tmp_path / "000", "key") is None


# Reading


def test_pieces_are_read_tagged_and_counted(job, read):
    found, _ = read(job)
    shard = load_shard(job.path)
    assert [source.name for source in shard.sources] == [
        "a.mid",
        "jigs/b.mid",
        "tunes.abc#0",
        "tunes.abc#1",
    ]
    pieces = [source.piece for source in shard.sources]
    assert [dict(piece.tags) for piece in pieces[:2]] == [
        {"corpus": "music", "source": "a.mid"},
        {"corpus": "music", "source": "jigs/b.mid", "folder": "jigs"},
    ]
    assert pieces[3].tags["title"] == "Two" and "folder" not in pieces[3].tags
    assert found.rejects == shard.rejects == [Reject("bad.mid", "empty", "the file is empty")]
    assert found.num_pieces == found.summary.num_pieces == 4
    assert found.signatures == [signature(piece) for piece in pieces]
    assert found.digest == contents_digest(
        [(f.name, contents_of(f.path).sha256) for f in job.files]
    )


def test_derived_tags_are_worked_out_where_they_are_wanted(job, read):
    read(job._replace(tags=("density", "mode")))
    for source in load_shard(job.path).sources:
        assert {"density", "mode"} <= source.piece.tags.keys()


def test_what_was_read_is_not_read_again(job, read, files_read):
    first, _ = read(job)
    assert len(files_read) == 4
    stamp = job.path.stat().st_mtime_ns
    again, marked = read(job)
    assert len(files_read) == 4 and marked == []
    assert job.path.stat().st_mtime_ns == stamp
    assert again._replace(summary=None) == first._replace(summary=None)
    np.testing.assert_array_equal(again.summary.pitches, first.summary.pitches)


def test_where_files_lie_does_not_matter(job, read, files_read, tmp_path):
    read(job)
    (tmp_path / "music").rename(tmp_path / "moved")
    moved = tuple(MusicFile(f.name, f.path.replace("music", "moved")) for f in job.files)
    read(job._replace(files=moved))
    assert len(files_read) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"reading": Reading(expand_repeats=True)},
        {"reading": Reading(beats="file")},
        {"cleaning": Cleaning(trim=True)},
        {"cleaning": Cleaning(only="bars >= 1")},
        {"tags": ("mode",)},
        {"common_tags": {"corpus": "other"}},
        {"num_parts": 1},
    ],
)
def test_other_settings_are_another_shard(job, read, files_read, changes):
    read(job)
    read(job._replace(**changes))
    assert len(files_read) == 8


@pytest.mark.parametrize("change", ["content", "name", "fewer", "version"])
def test_other_files_are_another_shard(job, read, files_read, monkeypatch, change):
    read(job)
    files = list(job.files)
    if change == "content":
        write_midi(melody(5), Path(files[0].path))
    elif change == "name":
        files[0] = files[0]._replace(name="z.mid")
    elif change == "fewer":
        del files[0]
    else:
        monkeypatch.setattr(module, "READER_VERSION", module.READER_VERSION + 1)
    read(job._replace(files=tuple(files)))
    assert len(files_read) == 4 + len(files)


def test_a_damaged_shard_is_read_again(job, read, files_read):
    read(job)
    data = job.path.read_bytes()
    job.path.write_bytes(data[:-9])
    read(job)
    assert len(files_read) == 8
    assert job.path.read_bytes() == data


# The cache of what was read


def test_the_cache_serves_all_ways_of_cleaning(job, read, files_read, tmp_path):
    job = job._replace(cache=tmp_path / "cached")
    read(job)
    found, _ = read(job._replace(path=tmp_path / "2", cleaning=Cleaning(only="notes < 4")))
    assert len(files_read) == 4
    assert [reject.reason for reject in found.rejects] == ["empty", "filtered", "filtered"]
    raw = load_shard(job.cache)
    assert len(raw.sources) == 4 and "corpus" not in raw.sources[0].piece.tags


@pytest.mark.parametrize("change", ["reading", "content", "version", "damage"])
def test_the_cache_knows_what_it_holds(job, read, files_read, tmp_path, monkeypatch, change):
    job = job._replace(cache=tmp_path / "cached")
    read(job)
    if change == "reading":
        job = job._replace(reading=Reading(expand_repeats=True))
    elif change == "content":
        (tmp_path / "music" / "bad.mid").write_bytes(b"MThd")
    elif change == "version":
        monkeypatch.setattr(module, "READER_VERSION", module.READER_VERSION + 1)
    else:
        job.cache.write_text("{}")
    read(job._replace(path=tmp_path / "2"))
    assert len(files_read) == 8


def test_a_cache_that_cannot_be_written_is_no_error(job, read, tmp_path):
    (tmp_path / "cached").mkdir()
    found, _ = read(job._replace(cache=tmp_path / "cached"))
    assert found.num_pieces == 4


def test_a_disk_that_is_full_is_one(job, read, tmp_path):
    job.path.mkdir()
    with pytest.raises(UserError, match=r"cannot write .*clean"):
        read(job)


# What kills workers


def test_every_file_and_piece_is_marked_before_its_turn(job, read):
    _, marked = read(job)
    assert marked == [0, 1, 2, 3, *(4 + i for i in range(4))]


def test_lost_files_are_left_out_and_named(job, read, files_read, tmp_path):
    job = job._replace(cache=tmp_path / "cached")
    found, marked = read(job, lost={0: "crashed", 3: "timeout"})
    assert files_read == ["bad.mid", "jigs/b.mid"]
    assert marked == [1, 2, 4]
    assert [reject[:2] for reject in found.rejects] == [
        ("a.mid", "crashed"),
        ("bad.mid", "empty"),
        ("tunes.abc", "timeout"),
    ]
    assert found.num_pieces == 1
    # It may have been the machine's fault: next time all of it is tried again.
    assert load_shard(job.cache) is None


def test_lost_pieces_are_left_out_and_named(job, read):
    found, marked = read(job, lost={5: "timeout", 7: "crashed"})
    assert marked == [0, 1, 2, 3, 4, 6]
    assert [reject[:2] for reject in found.rejects] == [
        ("bad.mid", "empty"),
        ("jigs/b.mid", "timeout"),
        ("tunes.abc#1", "crashed"),
    ]
    assert [source.name for source in load_shard(job.path).sources] == ["a.mid", "tunes.abc#0"]


@pytest.mark.parametrize(
    ("error", "reason"), [(MemoryError(), "out_of_memory"), (ValueError("odd"), "failed")]
)
def test_a_piece_that_cannot_be_cleaned_costs_itself(monkeypatch, error, reason):
    clean = module.clean

    def picky(piece, cleaning):
        if piece.tags["source"] == "a/0.mid":
            raise error
        return clean(piece, cleaning)

    monkeypatch.setattr(module, "clean", picky)
    shard = clean_shard(SHARD, cleaning=Cleaning(), tags=(), common_tags={}, num_parts=None)
    assert [source.name for source in shard.sources] == ["tunes.abc#1"]
    assert [reject[:2] for reject in shard.rejects] == [("bad.mid", "empty"), ("a/0.mid", reason)]


# Cleaning


def test_filtered_pieces_are_rejects_with_the_clause_that_they_fail():
    cleaning = Cleaning(only="bars >= 1 and highest >= 63")
    shard = clean_shard(SHARD, cleaning=cleaning, tags=(), common_tags={}, num_parts=None)
    assert [source.name for source in shard.sources] == ["tunes.abc#1"]
    assert shard.rejects[1] == Reject("a/0.mid", "filtered", "does not meet highest >= 63")


def test_pieces_with_another_number_of_parts_are_filtered_out():
    sources = [
        source._replace(piece=replace(source.piece, track_names=("a",) * i))
        for i, source in enumerate(SHARD.sources)
    ]
    raw = Shard(sources, [])
    shard = clean_shard(raw, cleaning=Cleaning(), tags=(), common_tags={}, num_parts=1)
    assert [source.name for source in shard.sources] == ["tunes.abc#1"]
    assert shard.rejects == [Reject("a/0.mid", "filtered", "does not meet parts == 1")]


def test_what_the_source_says_stands_above_the_folder_and_below_the_corpus():
    tags = {"folder": "mine", "corpus": "mine", "source": "mine", "style": "jig"}
    raw = Shard([SHARD.sources[0]._replace(piece=replace(melody(0), tags=tags))], [])
    shard = clean_shard(
        raw, cleaning=Cleaning(), tags=(), common_tags={"corpus": "ours"}, num_parts=None
    )
    assert dict(shard.sources[0].piece.tags) == {
        "folder": "mine",
        "corpus": "ours",
        "source": "a/0.mid",
        "style": "jig",
    }


# Encoding


@pytest.mark.parametrize("name", ["events", "melody", "frames", "tuples"])
def test_rows_of_all_pieces_end_to_end(name):
    codec = fit_codec(name, Summary.of(source.piece for source in SHARD.sources))
    encoded = encode_pieces(SHARD, codec, report=False)
    parts = [codec.encode(source.piece) for source in SHARD.sources]
    np.testing.assert_array_equal(encoded.rows, np.concatenate(parts))
    assert encoded.rows.dtype == codec.dtype
    assert encoded.lengths == [len(part) for part in parts]
    assert encoded.losses == []
    empty = encode_pieces(Shard([], []), codec, report=True)
    assert empty.rows.shape == ((0, codec.width) if codec.width else (0,))
    assert empty.rows.dtype == codec.dtype


def test_entries_tell_all_that_is_known():
    codec = fit_codec("events", Summary.of(source.piece for source in SHARD.sources))
    encoded = encode_pieces(SHARD, codec, report=False)
    assert encoded.entries[1] == {
        "name": "tunes.abc#1",
        "sha256": "1" * 64,
        "notes": 3,
        "bars": 1,
        "tokens": encoded.lengths[1],
        "tags": {"title": "1"},
        "beats": "file",
        "onset_error_quarters": [0.1, 0.25],
    }
    assert json.loads(json.dumps(encoded.entries)) == encoded.entries


def test_losses_are_measured_on_demand():
    codec = fit_codec("melody", Summary.of([melody(0)]), ticks_per_step=48)
    encoded = encode_pieces(SHARD, codec, report=True)
    assert encoded.losses == [
        measure_loss(source.piece, codec.decode(codec.encode(source.piece)))
        for source in SHARD.sources
    ]
    assert all(loss.notes == 3 for loss in encoded.losses)


def test_an_encoding_job_takes_the_shard_from_the_disk(tmp_path):
    codec = fit_codec("events", Summary.of(source.piece for source in SHARD.sources))
    job = EncodeJob(tmp_path / "000", json.dumps(codec.to_json()), False)
    with pytest.raises(UserError, match="000 is gone: another process"):
        encode_shard(job, {}, lambda i: None)
    save_shard(tmp_path / "000", "key", SHARD)
    marked = []
    encoded = encode_shard(job, {}, marked.append)
    assert marked == [0, 1]
    np.testing.assert_array_equal(encoded.rows, encode_pieces(SHARD, codec, report=False).rows)
    with pytest.raises(UserError, match=r"making tokens of tunes.abc#1 ended .*\(timeout\)"):
        encode_shard(job, {1: "timeout"}, marked.append)
