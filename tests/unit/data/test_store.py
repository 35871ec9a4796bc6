"""What is written is what is read, or nothing is; damage is refused, whatever it is."""

import csv
import hashlib
import io
import json
import pickle
import resource
import shutil
from dataclasses import replace

import numpy as np
import pytest

from rnngan.data import store as store_module
from rnngan.data.splits import SPLITS
from rnngan.data.store import FORMAT, Store, StoreWriter, rejects_csv
from rnngan.errors import Reject, UserError
from rnngan.music.piece import Piece
from rnngan.music.tokenizers.registry import fit_codec
from rnngan.music.tokenizers.summary import Summary

FILES = ["manifest.json", "offsets.npy", "pieces.jsonl", "rejects.csv", "splits.npy", "tokens.npy"]
ARRAYS = [name for name in FILES if name.endswith(".npy")]


def melody(i):
    return Piece.from_rows(
        [(0, 24, 60), (24, 48, 62 + i), (48, 96, 60)], tags={"style": ("jig", "reel")[i % 2]}
    )


PIECES = [melody(i) for i in range(10)]
WHERE = ["train", "test", "train", "validation"] * 2 + ["train", "train"]
CODECS = {name: fit_codec(name, Summary.of(PIECES)) for name in ("events", "melody", "tuples")}


def entry(i):
    tags = {**PIECES[i].tags, "title": f"Nº {i}\n"}
    return {"name": f"{i}.mid", "sha256": hashlib.sha256(bytes([i])).hexdigest(), "tags": tags}


def written(folder, rejects=(), codec="events", about=None, attached=()):
    with StoreWriter(folder, folder.with_name(".part"), CODECS[codec]) as writer:
        for i in range(0, 10, 4):  # shard by shard
            rows = [CODECS[codec].encode(piece) for piece in PIECES[i : i + 4]]
            writer.add(np.concatenate(rows), [len(part) for part in rows])
            for number in range(i, min(i + 4, 10)):
                writer.describe(entry(number), WHERE[number])
        for name, data in attached:
            writer.attach(name, data)
        return writer.finish(about or {"corpus": "tunes"}, rejects)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return written(tmp_path_factory.mktemp("original") / "store")


@pytest.fixture
def store(original, tmp_path):
    """A store to be damaged at will."""
    shutil.copytree(original.folder, tmp_path / "store")
    return Store.open(tmp_path / "store")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Writing and reading


def test_a_store_holds_the_rows_of_every_piece(store):
    assert sorted(contents(store.folder)) == FILES
    assert len(store) == 10 and len(store.tokens) == store.offsets[-1]
    for i, piece in enumerate(PIECES):
        np.testing.assert_array_equal(store.piece_tokens(i), store.codec.encode(piece))
        assert store.entry(i) == {**entry(i), "split": WHERE[i]}
    assert list(store.entries()) == [store.entry(i) for i in range(10)]
    assert store.tokens.dtype == np.uint16 and not store.tokens.flags.writeable


def test_rows_may_be_real_numbers(tmp_path):
    store = written(tmp_path / "store", codec="tuples")
    assert store.tokens.dtype == np.float32 and store.tokens.shape == (30, 4)
    for i, piece in enumerate(PIECES):
        np.testing.assert_array_equal(store.piece_tokens(i), store.codec.encode(piece))
    assert store.piece(3).notes["pitch"].tolist() == [60, 65, 60]
    with pytest.raises(UserError, match=r"store holds tuples, real numbers, .*--tokenizer"):
        _ = store.tokenizer


def test_the_arrays_are_such_as_numpy_reads(store):
    for name, array in (
        ("tokens.npy", store.tokens),
        ("offsets.npy", store.offsets),
        ("splits.npy", store.splits),
    ):
        np.testing.assert_array_equal(np.load(store.folder / name), array)


def test_splits_share_out_the_pieces(store):
    assert [store.indices(split).tolist() for split in SPLITS] == [
        [i for i in range(10) if WHERE[i] == split] for split in SPLITS
    ]
    assert store.manifest["splits"] == {"train": 6, "validation": 2, "test": 2}


@pytest.mark.parametrize(
    ("limit", "indices"),
    [
        (None, [0, 2, 4, 6, 8, 9]),
        (100, [0, 2, 4, 6, 8, 9]),
        (6, [0, 2, 4, 6, 8, 9]),
        (5, [0, 2, 4, 6, 8]),
        (4, [0, 2, 6, 8]),
        (3, [0, 4, 8]),
        (2, [0, 6]),
        (1, [0]),
        (0, []),
    ],
)
def test_some_pieces_are_evenly_spread(store, limit, indices):
    assert store.indices("train", limit=limit).tolist() == indices
    assert store.pieces("train", limit=limit) == [store.piece(i) for i in indices]


def test_pieces_come_back_with_all_their_tags(store):
    for i, piece in enumerate(PIECES):
        tags = {**piece.tags, "title": f"Nº {i}\n", "source": f"{i}.mid"}
        assert store.piece(i) == replace(piece, tags=tags)


def test_the_manifest_accounts_for_every_file(tmp_path):
    about = {"corpus": "tunes", "seed": 3}
    store = written(tmp_path / "store", about=about, attached=[("report.json", b"{}")])
    assert about.items() <= store.manifest.items()
    assert store.manifest["format"] == FORMAT
    assert store.manifest["tokenizer"] == json.loads(json.dumps(store.codec.to_json()))
    assert (store.manifest["num_pieces"], store.manifest["num_tokens"]) == (10, store.offsets[-1])
    files = contents(tmp_path / "store")
    del files["manifest.json"]
    assert files["report.json"] == b"{}"
    assert store.manifest["sha256"] == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items()
    }


def test_the_same_pieces_give_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        written(tmp_path / folder, rejects=[Reject("x", "empty", "the file is empty")])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_rejects_are_listed(tmp_path):
    rejects = [
        Reject("a,b.mid", "empty", 'it is "empty"'),
        Reject("two\nlines.mid", "crashed", "ö"),
        Reject("caf\udce9.mid", "failed", "a name that is no text"),
    ]
    store = written(tmp_path / "store", rejects=rejects)
    data = (store.folder / "rejects.csv").read_bytes()
    assert data == rejects_csv(rejects)
    rows = list(csv.reader(io.StringIO(data.decode())))
    assert rows[0] == ["name", "reason", "message"]
    assert rows[1:3] == [list(reject) for reject in rejects[:2]]
    assert rows[3][0] == r"caf\udce9.mid"


def test_a_store_can_lie_in_a_new_or_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    written(tmp_path / "empty")
    assert len(Store.open(tmp_path / "empty")) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_nothing_is_written_over(tmp_path, store):
    before = contents(store.folder)
    with pytest.raises(UserError, match=r"cannot write .*store: Directory not empty"):
        written(store.folder)
    assert contents(store.folder) == before
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(UserError, match="cannot write"):
        written(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "store"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("the disk is full")])
@pytest.mark.parametrize("name", ["splits.npy", "manifest.json"])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, error, name):
    write = store_module.write_atomically

    def failing(path, data):
        if path.name == name:
            raise error
        write(path, data)

    monkeypatch.setattr(store_module, "write_atomically", failing)
    with pytest.raises(type(error) if isinstance(error, UserError) else error):
        written(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_finished_is_removed(tmp_path):
    with StoreWriter(tmp_path / "store", tmp_path / "part", CODECS["events"]) as writer:
        writer.add(np.zeros(3, np.uint16), [3])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*store: No space left on device"):
        written(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_on_the_way(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = StoreWriter(tmp_path / "store", tmp_path / "part", CODECS["events"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*store: File too large"), writer:
            for _ in range(9):
                writer.add(np.zeros(5000, np.uint16), [5000])
                writer.describe({"name": "x" * 5000}, "train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_attempt_left_is_no_obstacle(tmp_path):
    (tmp_path / ".part").mkdir()
    (tmp_path / ".part" / "tokens.npy").write_bytes(b"half")
    (tmp_path / ".part" / "other").write_bytes(b"rest")
    written(tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert sorted(contents(tmp_path / "store")) == FILES


# Damage


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def lengthened(path):
    path.write_bytes(path.read_bytes() + b"\n")


def emptied(path):
    path.write_bytes(b"")


def pickled(path):
    path.write_bytes(pickle.dumps(np.load(path)))


def of_objects(path):
    np.save(path, np.array([1, "a"], dtype=object), allow_pickle=True)


def archived(path):
    array = np.load(path)
    with path.open("wb") as file:
        np.savez(file, array)


def widened(path):
    np.save(path, np.load(path).astype(np.complex128))


def big_endian(path):
    array = np.load(path)
    np.save(path, array.astype(array.dtype.newbyteorder(">") if array.itemsize > 1 else ">i2"))


def folded(path):
    np.save(path, np.load(path)[None])


def boastful(path):
    """Its header promises 2**50 rows."""
    data = path.read_bytes()
    start = data.index(b"'shape'")
    end = data.index(b"\n")
    lie = b"'shape': (1125899906842624,), }"
    path.write_bytes(data[:start] + lie.ljust(end - start) + data[end:])


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        cut, lengthened, emptied, pickled, of_objects, archived, widened, big_endian, folded,
        boastful, a_folder,
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ARRAYS)
def test_damaged_arrays(store, name, damage):
    damage(store.folder / name)
    with pytest.raises(UserError, match=r"the prepared corpus in .*store is damaged") as caught:
        Store.open(store.folder)
    assert "\n" not in str(caught.value)


def shifted(array):
    return array + 1


def backwards(array):
    return array[::-1]


def shorter(array):
    return array[:-1]


def out_of_order(array):
    return array[[0, 2, 1, *range(3, len(array))]]


def a_fourth_split(array):
    return np.where(np.arange(len(array)) == 4, len(SPLITS), array).astype(array.dtype)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("offsets.npy", shifted),
        ("offsets.npy", backwards),
        ("offsets.npy", shorter),
        ("offsets.npy", out_of_order),
        ("splits.npy", shorter),
        ("splits.npy", a_fourth_split),
        ("tokens.npy", shorter),
    ],
)
def test_arrays_of_another_corpus(store, name, change):
    np.save(store.folder / name, change(np.load(store.folder / name)))
    with pytest.raises(UserError, match="do not fit together"):
        Store.open(store.folder)


def test_rows_of_another_width(tmp_path):
    store = written(tmp_path / "store", codec="tuples")
    np.save(store.folder / "tokens.npy", np.zeros((30, 5), np.float32))
    with pytest.raises(UserError, match="do not fit together"):
        Store.open(store.folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: [],
        lambda m: "store",
        lambda m: m | {"format": 1},
        lambda m: m | {"tokenizer": "events"},
        lambda m: m | {"tokenizer": {"name": ["events"]}},
        lambda m: m | {"tokenizer": m["tokenizer"] | {"metres": []}},
        lambda m: m | {"tokenizer": m["tokenizer"] | {"name": "remi"}},
        lambda m: m | {"tokenizer": CODECS["tuples"].to_json()},
        lambda m: m | {"num_pieces": 9},
        lambda m: m | {"num_pieces": "ten"},
        lambda m: m | {"pieces_bytes": m["pieces_bytes"] + 1},
        *(
            lambda m, missing=missing: {k: v for k, v in m.items() if k != missing}
            for missing in ("format", "tokenizer", "num_pieces", "pieces_bytes")
        ),
    ],
)
def test_damaged_manifests(store, change):
    path = store.folder / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=r"damaged.*rnngan prepare"):
        Store.open(store.folder)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_manifests_that_are_no_json(store, data):
    (store.folder / "manifest.json").write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        Store.open(store.folder)


def test_a_store_of_another_version_says_so(store):
    path = store.folder / "manifest.json"
    path.write_text(json.dumps(store.manifest | {"format": FORMAT + 1}))
    with pytest.raises(UserError, match=rf"format {FORMAT + 1}, this version reads {FORMAT}"):
        Store.open(store.folder)


@pytest.mark.parametrize("damage", [cut, lengthened, emptied])
def test_a_list_of_pieces_of_another_length(store, damage):
    damage(store.folder / "pieces.jsonl")
    with pytest.raises(UserError, match="do not fit together"):
        Store.open(store.folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"name": "4.mid"', b'["name", "4.mid"'),
        (b'"4.mid"', b'"4.m\xffd"'),
        (b'{"name": "4.mid", ', b"4                 \n"[:18]),
    ],
)
def test_a_line_about_a_piece_that_makes_no_sense(store, old, new):
    path = store.folder / "pieces.jsonl"
    data = path.read_bytes()
    assert data.count(old) == 1 and len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    store = Store.open(store.folder)
    for look in (lambda: store.entry(4), lambda: store.piece(4), lambda: list(store.entries())):
        with pytest.raises(UserError, match=r"damaged \(.*pieces.jsonl.*rnngan prepare"):
            look()


def test_fewer_lines_than_pieces(store):
    path = store.folder / "pieces.jsonl"
    path.write_bytes(path.read_bytes().replace(b"}\n{", b"}  "))
    with pytest.raises(UserError, match=r"damaged \(1 lines in pieces\.jsonl\)"):
        Store.open(store.folder).entry(0)


@pytest.mark.parametrize("name", [name for name in FILES if name != "rejects.csv"])
def test_a_file_that_is_missing(store, name):
    (store.folder / name).unlink()
    with pytest.raises(UserError, match=rf"no prepared corpus in .* \({name} is missing\)"):
        Store.open(store.folder)


def test_no_folder_or_no_store_in_it(tmp_path):
    for folder in (tmp_path / "no", tmp_path):
        with pytest.raises(UserError, match="make one with: rnngan prepare"):
            Store.open(folder)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_pickle_is_never_run(store, name):
    class Trap:
        def __reduce__(self):
            return (exec, ("raise SystemExit('run')",))

    array = np.array([Trap()], dtype=object)
    np.save(store.folder / name, array, allow_pickle=True)
    with pytest.raises(UserError, match="damaged"):
        Store.open(store.folder)
