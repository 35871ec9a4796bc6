from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import cache as module
from eval.cache import (
    FeatureCache,
    MeasureJob,
    cache_folder,
    load_side,
    measured,
    measured_side,
)
from eval.features import FEATURES, features_of, select
from eval.pieces import Side, piece_hash
from rnngan.errors import UserError
from rnngan.music.midi import write_midi
from rnngan.music.piece import Metre, Piece, Tempo

NAMES = select("pitch,note_density")


@pytest.fixture
def computed(monkeypatch):
    """Which features of how many pieces were computed, in this process."""
    calls = []

    def counted(piece, names):
        calls.append(tuple(names))
        return features_of(piece, names)

    monkeypatch.setattr(module, "features_of", counted)
    return calls


def equal(a, b):
    return list(a) == list(b) and all(np.array_equal(a[n], b[n], equal_nan=True) for n in a)


def filled(cache, digest):
    row = np.zeros(1, cache.dtype)
    return cache.fill(row, digest), row


def test_what_was_measured_is_not_measured_again(tunes, tmp_path, computed):
    cold = measured(tunes, NAMES, cache=tmp_path)
    assert computed == [tuple(NAMES)] * len(tunes)
    warm = measured(tunes, NAMES, cache=tmp_path)
    assert len(computed) == len(tunes)
    assert equal(cold, warm)
    assert equal(cold, measured(tunes, NAMES))


def test_an_edited_piece_is_the_only_one_to_measure_again(tunes, tmp_path, computed):
    measured(tunes, NAMES, cache=tmp_path)
    computed.clear()
    pieces = [*tunes[:3], tunes[3].transposed(1), *tunes[4:]]
    table = measured(pieces, NAMES, cache=tmp_path)
    assert len(computed) == 1
    assert equal(table, measured(pieces, NAMES))


def test_a_new_metric_is_all_there_is_to_measure(tunes, tmp_path, computed):
    measured(tunes, NAMES[2:], cache=tmp_path)
    computed.clear()
    table = measured(tunes, NAMES, cache=tmp_path)
    assert computed == [tuple(NAMES[:2])] * len(tunes)
    assert equal(table, measured(tunes, NAMES))
    computed.clear()
    few = measured(tunes, NAMES[1:4], cache=tmp_path)  # out of two records, in another order
    assert not computed
    assert equal(few, measured(tunes, NAMES[1:4]))


def test_a_new_version_of_a_metric_is_a_new_metric(tunes, tmp_path, monkeypatch):
    measured(tunes, NAMES, cache=tmp_path)
    assert filled(FeatureCache(tmp_path, NAMES), piece_hash(tunes[0]))[0] == []
    name = NAMES[3]
    monkeypatch.setitem(module.FEATURES, name, replace(FEATURES[name], version=99))
    assert filled(FeatureCache(tmp_path, NAMES), piece_hash(tunes[0]))[0] == [name]


def test_equal_pieces_are_measured_once(tunes, computed):
    table = measured([tunes[0], tunes[1], tunes[0].tagged({"source": "copy"})], NAMES)
    assert len(computed) == 2
    assert equal(table, measured([tunes[0], tunes[1], tunes[0]], NAMES))


def test_the_hash_sees_notes_metres_and_tempos_alone(tunes):
    piece = tunes[0]
    others = [
        piece.transposed(1),
        replace(piece, metres=(Metre(0, 3, 4),)),
        replace(piece, tempos=(Tempo(0, 60.0),)),
    ]
    assert len({piece_hash(one) for one in [piece, *others]}) == 4
    assert piece_hash(piece.tagged({"source": "elsewhere"})) == piece_hash(piece)


def test_no_pieces_and_no_metrics(tunes, tmp_path):
    assert measured([], NAMES, cache=tmp_path)[NAMES[0]].shape == (0,)
    assert list(measured(tunes, [], cache=tmp_path)) == []


@settings(max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), cut=st.booleans())
def test_damage_costs_a_measurement_and_nothing_else(tmp_path_factory, place, bits, cut):
    folder = tmp_path_factory.mktemp("cache")
    cache = FeatureCache(folder, NAMES)
    digests = ["ab" + f"{i:062x}" for i in range(5)]  # all in one file
    rows = []
    for i, digest in enumerate(digests):
        row = np.full(1, 0, cache.dtype)
        row[NAMES[0]] = i
        rows.append(row)
        cache.add([(digest, row, NAMES)])
    (path,) = folder.iterdir()
    data = bytearray(path.read_bytes())
    at = int(place * len(data))
    data[at] ^= bits
    path.write_bytes(data[:at] if cut else data)

    for reader in (FeatureCache(folder, NAMES), cache):
        found = [filled(reader, digest) for digest in digests]
        assert cut or sum(bool(missing) for missing, _ in found) <= 1
        assert all(missing in ([], NAMES) for missing, _ in found)
        assert all(np.array_equal(row, one) for row, (gone, one) in zip(rows, found) if not gone)

    cache.add([(digest, row, NAMES) for digest, row in zip(digests, rows)])
    for reader in (FeatureCache(folder, NAMES), cache):
        assert not any(filled(reader, digest)[0] for digest in digests)


def test_several_write_and_read_at_once(tmp_path):
    def use(number):
        cache = FeatureCache(tmp_path, NAMES)
        row = np.zeros(1, cache.dtype)
        row[NAMES[0]] = number
        for i in range(50):
            cache.add([(f"{i % 2:02x}{number:02x}{i:060x}", row, NAMES)])
        return number

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(use, range(8)))
    cache = FeatureCache(tmp_path, NAMES)
    for number in numbers:
        for i in range(50):
            missing, row = filled(cache, f"{i % 2:02x}{number:02x}{i:060x}")
            assert not missing
            assert row[NAMES[0]][0] == number


def test_what_others_add_is_seen(tmp_path):
    ours, theirs = FeatureCache(tmp_path, NAMES), FeatureCache(tmp_path, NAMES)
    row = np.ones(1, ours.dtype)
    for digest in ("ab" * 32, "ab" + "cd" * 31):
        assert filled(ours, digest)[0] == NAMES
        theirs.add([(digest, row, NAMES)])
        assert filled(ours, digest)[0] == []
    for path in tmp_path.iterdir():
        path.unlink()
    assert filled(ours, "ab" * 32)[0] == NAMES
    theirs.add([(digest, row, NAMES)])
    assert filled(ours, digest)[0] == []


def test_a_cache_that_cannot_be_written_is_no_error(tunes, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert equal(measured(tunes, NAMES, cache=tmp_path / "file"), measured(tunes, NAMES))


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("RNNGAN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "features"
    monkeypatch.setenv("RNNGAN_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "rnngan" / "features"


def test_worker_processes_measure_the_same(tunes, tmp_path, monkeypatch, computed):
    monkeypatch.setattr(module, "PIECES_PER_JOB", 3)
    table = measured(tunes, NAMES, cache=tmp_path, workers=2)
    assert not computed
    assert equal(table, measured(tunes, NAMES, cache=tmp_path, workers=2))
    assert equal(table, measured(tunes, NAMES))


def test_a_piece_that_cannot_be_measured_is_named(tunes, monkeypatch):
    measure = module._measure
    monkeypatch.setattr(module, "_measure", lambda job, _, mark: measure(job, {1: "timeout"}, mark))
    pieces = [tune.tagged({"source": f"{i}.mid"}) for i, tune in enumerate(tunes)]
    with pytest.raises(UserError, match=r"1.mid cannot be measured \(timeout\); leave it out"):
        measured(pieces, NAMES)


class TestStreaming:
    @pytest.fixture
    def folder(self, tunes, tmp_path):
        folder = tmp_path / "music"
        folder.mkdir()
        for i, tune in enumerate(tunes):
            write_midi(tune, folder / f"{i:02}.mid")
        (folder / "broken.mid").write_bytes(b"MThd")
        return folder

    def test_it_gives_what_reading_and_measuring_give(self, folder, tmp_path):
        side = load_side(folder, [])
        stream = load_side(folder, NAMES, cache=tmp_path / "cache")
        assert equal(stream.statistics.table, measured(side.pieces, NAMES))
        assert (stream.name, stream.path, stream.rejects) == (side.name, side.path, side.rejects)
        assert stream.piece_hashes == side.piece_hashes
        assert stream.num_pieces == side.num_pieces == 12
        assert [stream.title(i) for i in range(12)] == [side.title(i) for i in range(12)]
        assert stream.pieces == side.pieces

    def test_in_worker_processes_too(self, folder, tmp_path, monkeypatch):
        alone = load_side(folder, NAMES)
        monkeypatch.setattr("rnngan.data.finding.FILES_PER_SHARD", 3)
        for _ in range(2):  # cold and warm
            side = load_side(folder, NAMES, cache=tmp_path / "cache", workers=2)
            assert equal(side.statistics.table, alone.statistics.table)
            assert side.piece_hashes == alone.piece_hashes

    @pytest.mark.parametrize("seed", [0, 1])
    def test_of_a_large_side_some_music_stays(self, folder, seed, monkeypatch):
        every = load_side(folder, NAMES)
        some = load_side(folder, NAMES, keep=5, seed=seed)
        assert list(some.music) == every.drawn(5, seed).tolist()
        assert all(some.music[i] == every.pieces[i] for i in some.kept)
        assert equal(some.statistics.table, every.statistics.table)
        assert some.piece_hashes == every.piece_hashes
        monkeypatch.setattr("rnngan.data.finding.FILES_PER_SHARD", 2)
        assert load_side(folder, NAMES, keep=5, seed=seed, workers=2).music == some.music

    def test_sides_in_memory_are_measured_and_thinned_alike(self, folder):
        side = load_side(folder, NAMES)
        given = measured_side(Side(name="given", pieces=side.pieces), NAMES, keep=5, seed=3)
        assert given.music == load_side(folder, NAMES, keep=5, seed=3).music
        assert equal(given.statistics.table, side.statistics.table)
        assert given.statistics.titles == side.statistics.titles

    def test_titles_of_pieces_that_have_none(self, store):
        every = load_side(store.folder, [], split="train")
        assert len({every.title(i) for i in range(every.num_pieces)}) == every.num_pieces

    def test_edited_files_alone_are_measured_again(self, folder, tmp_path, computed):
        load_side(folder, NAMES, cache=tmp_path / "cache")
        computed.clear()
        write_midi(Piece.from_rows([(0, 24, 60)]), folder / "03.mid")
        load_side(folder, NAMES, cache=tmp_path / "cache")
        assert len(computed) == 1

    @pytest.mark.parametrize("limit", [2, 5, 100])
    def test_a_limit_chooses_as_it_does_for_reading(self, folder, limit):
        (folder / "broken.mid").unlink()
        every = load_side(folder, [])
        side = load_side(folder, NAMES, limit=limit)
        chosen = [i * 12 // min(limit, 12) for i in range(min(limit, 12))]
        assert list(side.piece_hashes) == [every.piece_hashes[i] for i in chosen]
        assert list(side.pieces) == [every.pieces[i] for i in chosen]

    def test_a_prepared_corpus(self, store):
        side = load_side(store.folder, NAMES, split="train")
        assert equal(side.statistics.table, measured(store.pieces("train"), NAMES))

    def test_a_file_that_kills_its_worker_is_refused(self, folder):
        from eval.pieces import find

        with find(folder) as found:
            job = MeasureJob(tuple(NAMES), None, source=found.jobs[0])
            result = module._measure(job, {1: "crashed"}, lambda _: None)
        assert [reject[:2] for reject in result.rejects] == [
            ("01.mid", "crashed"),
            ("broken.mid", "truncated"),
        ]
        assert result.titles[:2] == ["00.mid", "02.mid"]

    def test_nothing_to_measure(self, tmp_path):
        (tmp_path / "x.mid").write_bytes(b"MThd")
        (tmp_path / "y.mid").write_bytes(b"")
        with pytest.raises(UserError, match=r"all 2 files in .* were refused"):
            load_side(tmp_path, NAMES)
        with pytest.raises(UserError, match="limit must be at least 2"):
            load_side(tmp_path, NAMES, limit=1)
