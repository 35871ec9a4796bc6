import csv
import hashlib
import io
import json
import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.data import store as store_module
from rnngan.data.reading import Reject, Source
from rnngan.data.store import SPLITS, Store, melody_key, split_by_group, write_store
from rnngan.errors import UserError
from rnngan.music.piece import DRUMS, NOTE, Metre, Piece, Tempo


def melody(i):
    """A tune that is no other's transposition: its second interval is `i`."""
    return Piece.from_rows(
        [(0, 24, 60), (24, 48, 62 + i), (48, 96, 60)], tags={"style": ("jig", "reel")[i % 2]}
    )


def sources(count):
    return [
        Source(f"{i}.mid", hashlib.sha256(bytes([i])).hexdigest(), melody(i)) for i in range(count)
    ]


def written(folder, count=10, rejects=(), **settings):
    defaults = {
        "tags": ("style",),
        "validation_rate": 0.2,
        "test_rate": 0.2,
        "seed": 0,
        "margin": 6,
        "about": {"corpus": "tunes"},
    }
    return write_store(folder, sources(count), rejects, **(defaults | settings))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Writing and reading


def test_a_store_holds_the_tokens_of_every_piece(tmp_path):
    store = written(tmp_path / "store")
    assert sorted(contents(tmp_path / "store")) == [
        "manifest.json",
        "offsets.npy",
        "rejects.csv",
        "tokens.npy",
    ]
    assert store.manifest["corpus"] == "tunes"
    for i, source in enumerate(sources(10)):
        tokens = store.piece_tokens(i)
        np.testing.assert_array_equal(tokens, store.tokenizer.encode(source.piece))
        assert store.manifest["pieces"][i] == {
            "name": source.name,
            "sha256": source.sha256,
            "split": store.manifest["pieces"][i]["split"],
            "notes": 3,
            "tokens": len(tokens),
            "tags": dict(source.piece.tags),
        }


def test_the_splits_share_out_the_pieces(tmp_path):
    store = written(tmp_path / "store")
    indices = [store.indices(split) for split in SPLITS]
    assert [len(part) for part in indices] == [6, 2, 2]
    assert sorted(np.concatenate(indices).tolist()) == list(range(10))
    originals = sources(10)
    for split, part in zip(SPLITS, indices):
        for piece, i in zip(store.pieces(split), part.tolist(), strict=True):
            tags = {**originals[i].piece.tags, "source": originals[i].name}
            assert piece == replace(originals[i].piece, tags=tags)


def test_the_same_sources_give_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        written(tmp_path / folder, rejects=[Reject("x", "empty", "the file is empty")])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_rejects_are_listed(tmp_path):
    rejects = [
        Reject("a,b.mid", "empty", 'it is "empty"'),
        Reject("two\nlines.mid", "crashed", "ö"),
        Reject("caf\udce9.mid", "failed", "a name that is no text"),
    ]
    written(tmp_path / "store", rejects=rejects)
    text = (tmp_path / "store" / "rejects.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["name", "reason", "message"]
    assert rows[1:3] == [list(reject) for reject in rejects[:2]]
    assert rows[3][0] == r"caf\udce9.mid"


def test_a_store_can_lie_in_a_new_or_empty_folder(tmp_path, monkeypatch):
    written(tmp_path / "new" / "deeper" / "store")
    (tmp_path / "empty").mkdir()
    written(tmp_path / "empty")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    store = written(tmp_path / "here" / ".." / "there")
    assert len(store.tokens) == len(Store.open(tmp_path / "there").tokens)


def test_nothing_is_written_over(tmp_path):
    written(tmp_path / "store", count=10)
    before = contents(tmp_path / "store")
    with pytest.raises(UserError, match=r"cannot write .*store: Directory not empty"):
        written(tmp_path / "store", count=11)
    assert contents(tmp_path / "store") == before
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(UserError, match="cannot write"):
        written(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "store"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("the disk is full")])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, error):
    write = store_module.write_atomically

    def failing(path, data):
        if path.name == "manifest.json":
            raise error
        write(path, data)

    monkeypatch.setattr(store_module, "write_atomically", failing)
    with pytest.raises(type(error) if isinstance(error, UserError) else error):
        written(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_attempt_left_is_no_obstacle(tmp_path):
    (tmp_path / ".store.part").mkdir()
    (tmp_path / ".store.part" / "tokens.npy").write_bytes(b"half")
    written(tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_too_small_a_corpus(tmp_path):
    with pytest.raises(UserError, match="too small to split: 2 distinct pieces"):
        written(tmp_path / "store", count=2)
    assert list(tmp_path.iterdir()) == []


# Damage


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


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
    np.save(path, np.load(path).astype(np.uint64))


def folded(path):
    np.save(path, np.load(path)[None])


def shifted(path):
    np.save(path, np.load(path) + 1)


def reversed_(path):
    np.save(path, np.load(path)[::-1])


@pytest.mark.parametrize("damage", [cut, emptied, pickled, of_objects, archived, widened, folded])
@pytest.mark.parametrize("name", ["tokens.npy", "offsets.npy"])
def test_damaged_arrays(tmp_path, name, damage):
    written(tmp_path / "store")
    damage(tmp_path / "store" / name)
    with pytest.raises(UserError, match=r"the prepared corpus in .*store is damaged"):
        Store.open(tmp_path / "store")


@pytest.mark.parametrize("damage", [shifted, reversed_])
def test_offsets_of_another_corpus(tmp_path, damage):
    written(tmp_path / "store")
    damage(tmp_path / "store" / "offsets.npy")
    with pytest.raises(UserError, match="do not fit together"):
        Store.open(tmp_path / "store")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: [],
        lambda m: "store",
        lambda m: m | {"format": 2},
        lambda m: m | {"tokenizer": "events"},
        lambda m: m | {"tokenizer": m["tokenizer"] | {"metres": []}},
        lambda m: m | {"pieces": m["pieces"][1:]},
        lambda m: m | {"pieces": []},
        lambda m: m | {"pieces": 10},
        lambda m: m | {"pieces": [{**p, "split": "dev"} for p in m["pieces"]]},
        lambda m: m | {"pieces": [{"name": p["name"]} for p in m["pieces"]]},
        lambda m: {k: v for k, v in m.items() if k != "tokenizer"},
    ],
)
def test_damaged_manifests(tmp_path, change):
    written(tmp_path / "store")
    path = tmp_path / "store" / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=r"damaged.*rnngan prepare"):
        Store.open(tmp_path / "store")
    cut(path)
    with pytest.raises(UserError, match="damaged"):
        Store.open(tmp_path / "store")


@pytest.mark.parametrize("name", ["tokens.npy", "offsets.npy", "manifest.json"])
def test_a_file_that_is_missing(tmp_path, name):
    written(tmp_path / "store")
    (tmp_path / "store" / name).unlink()
    with pytest.raises(UserError, match=rf"no prepared corpus in .* \({name} is missing\)"):
        Store.open(tmp_path / "store")


def test_no_folder_or_no_store_in_it(tmp_path):
    with pytest.raises(UserError, match="make one with: rnngan prepare"):
        Store.open(tmp_path / "no")
    with pytest.raises(UserError, match="make one with: rnngan prepare"):
        Store.open(tmp_path)


def test_a_pickle_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, ("raise SystemExit('run')",))

    written(tmp_path / "store")
    array = np.array([Trap()], dtype=object)
    np.save(tmp_path / "store" / "tokens.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match="damaged"):
        Store.open(tmp_path / "store")


# Splits


@given(
    sizes=st.lists(st.integers(1, 30), min_size=3, max_size=40),
    rates=st.tuples(st.floats(0.01, 0.45), st.floats(0.01, 0.45)),
    seed=st.integers(0, 5),
)
@settings(max_examples=200, deadline=None)
def test_splits_keep_groups_together_and_are_never_empty(sizes, rates, seed):
    groups = [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]
    found = split_by_group(groups, validation_rate=rates[0], test_rate=rates[1], seed=seed)
    assert len(found) == len(groups)
    assert len(set(zip(groups, found))) == len(sizes)
    counts = Counter(found)
    assert set(counts) == set(SPLITS)
    for split, rate in (("validation", rates[0]), ("test", rates[1])):
        # Too much by half of a group, or because a split needs one at all.
        assert counts[split] <= max(rate * len(groups) + max(sizes) / 2, max(sizes))


@given(
    count=st.integers(20, 200),
    rates=st.tuples(st.floats(0.05, 0.4), st.floats(0.05, 0.4)),
    seed=st.integers(0, 100),
)
@settings(max_examples=100, deadline=None)
def test_distinct_pieces_meet_the_rates(count, rates, seed):
    found = split_by_group(
        [str(i) for i in range(count)], validation_rate=rates[0], test_rate=rates[1], seed=seed
    )
    counts = Counter(found)
    assert abs(counts["validation"] - rates[0] * count) <= 0.5 + 1e-9
    assert abs(counts["test"] - rates[1] * count) <= 0.5 + 1e-9


def test_a_large_group_is_trained_on():
    # Half of the corpus is one piece in many keys.
    groups = ["same"] * 50 + [str(i) for i in range(50)]
    for seed in range(50):
        found = split_by_group(groups, validation_rate=0.1, test_rate=0.1, seed=seed)
        assert found[0] == "train"
        assert Counter(found) == {"train": 80, "validation": 10, "test": 10}


def test_another_piece_moves_few_others():
    groups = [str(i) for i in range(300)]
    moved = 0
    for i in range(100):
        before = split_by_group(groups, validation_rate=0.1, test_rate=0.1, seed=1)
        after = split_by_group([*groups, f"+{i}"], validation_rate=0.1, test_rate=0.1, seed=1)
        differences = sum(a != b for a, b in zip(before, after))
        assert differences <= 5  # one at each border between runs that are dealt alike
        moved += differences
    assert 0 < moved < 200  # most new pieces come behind all borders, in training


def test_the_split_follows_from_the_pieces_and_the_seed_alone():
    groups = [str(i) for i in range(100)]
    rates = {"validation_rate": 0.1, "test_rate": 0.1}
    split = dict(zip(groups, split_by_group(groups, **rates, seed=0)))
    assert dict(zip(groups[::-1], split_by_group(groups[::-1], **rates, seed=0))) == split
    assert dict(zip(groups, split_by_group(groups, **rates, seed=1))) != split


def test_two_pieces_in_many_keys_cannot_be_split():
    with pytest.raises(UserError, match="2 distinct pieces"):
        split_by_group(["a"] * 20 + ["b"] * 20, validation_rate=0.1, test_rate=0.1, seed=0)


# Pieces that are the same in another key


@st.composite
def tunes(draw):
    note = st.tuples(
        st.integers(0, 300),
        st.integers(1, 96),
        st.integers(30, 90),
        st.just(64),
        st.sampled_from([0, DRUMS]),
    )
    notes = draw(st.lists(note, min_size=1, max_size=12, unique=True))
    return Piece.from_rows([(start, start + size, *rest) for start, size, *rest in notes])


@given(tunes(), st.integers(-30, 30), st.integers(0, 500))
@settings(max_examples=150, deadline=None)
def test_the_key_of_a_melody_ignores_transposition_and_silence_before(piece, semitones, silence):
    moved = piece.transposed(semitones)
    notes = moved.notes.copy()
    for field in ("start", "end"):
        notes[field] += silence
    assert melody_key(replace(moved, notes=notes)) == melody_key(piece)


def test_the_key_of_a_melody_ignores_how_it_is_played():
    rows = [(0, 24, 60, 64, 0, 0), (0, 24, 64, 64, 0, 1), (24, 48, 62, 64, 0, 0)]
    other = [(0, 24, 60, 90, 40, 1), (0, 24, 64, 30, 5, 0), (24, 48, 62, 64, 0, 0)]
    changed = Piece.from_rows(
        other, tempos=(Tempo(0, 60.0),), metres=(Metre(0, 3, 4),), tags={"title": "b"}
    )
    assert melody_key(Piece.from_rows(rows)) == melody_key(changed)


@pytest.mark.parametrize(
    "other",
    [
        [(0, 24, 60), (24, 48, 63), (24, 30, 36, 64, DRUMS)],  # an interval
        [(0, 24, 60), (24, 47, 62), (24, 30, 36, 64, DRUMS)],  # a length
        [(0, 24, 60), (25, 48, 62), (24, 30, 36, 64, DRUMS)],  # an onset
        [(0, 24, 60), (24, 48, 62), (24, 30, 38, 64, DRUMS)],  # another drum
        [(0, 24, 60), (24, 48, 62), (24, 30, 36)],  # no drum
        [(0, 24, 60), (24, 48, 62)],
        [],
    ],
)
def test_the_key_of_a_melody_tells_others_apart(other):
    piece = Piece.from_rows([(0, 24, 60), (24, 48, 62), (24, 30, 36, 64, DRUMS)])
    changed = Piece.from_rows(other) if other else Piece(notes=np.empty(0, NOTE))
    assert melody_key(piece) != melody_key(changed)


def test_pieces_alike_but_for_the_key_stay_on_one_side(tmp_path):
    copies = [
        Source(f"{source.name}+{shift}", source.sha256, source.piece.transposed(shift))
        for source in sources(12)
        for shift in (0, 3)
    ]
    store = write_store(
        tmp_path / "store", copies, [], tags=(), validation_rate=0.2, test_rate=0.2, seed=0,
        margin=6, about={},
    )  # fmt: skip
    splits = [piece["split"] for piece in store.manifest["pieces"]]
    assert splits[::2] == splits[1::2]
