"""Which pieces go where: dealt out at random, or as the corpus says."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.data.splits import SPLITS, official_split, split_by_group
from rnngan.errors import UserError

# Dealt out at random


@given(
    sizes=st.lists(st.integers(1, 30), min_size=3, max_size=40),
    rates=st.tuples(st.floats(0.01, 0.45), st.floats(0.01, 0.45)),
    seed=st.integers(0, 5),
)
@settings(max_examples=100)
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
@settings(max_examples=50)
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


# As the corpus says


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("valid", "validation"),
        ("VAL", "validation"),
        ("dev", "validation"),
        ("validation", "validation"),
        ("test", "test"),
        ("testing", "test"),
    ],
)
def test_folders_say_the_split(folder, split):
    names = ["train/a.mid", "dev/deep/b.mid", "test/c.mid", f"{folder}/sub/d.mid"]
    assert official_split("folders", names) == ["train", "validation", "test", split]


def test_the_first_folder_that_says_something_counts():
    names = ["music.zip/set/train/test/a.mid", "b/valid/c.mid", "b/test/test.mid"]
    assert official_split("folders", names) == ["train", "validation", "test"]


@pytest.mark.parametrize("name", ["a.mid", "other/a.mid", "test", "trains/a.mid", "x/test.mid"])
def test_every_piece_needs_a_folder_that_says_it(name):
    names = ["train/a.mid", "valid/a.mid", "test/a.mid", name]
    with pytest.raises(UserError, match=rf"split folders: {name} is in no split; a folder above"):
        official_split("folders", names)


def test_no_part_may_be_empty():
    with pytest.raises(UserError, match="split folders: no piece is in validation or test"):
        official_split("folders", ["train/a.mid", "train/b.mid"])


@pytest.fixture
def csv_split(tmp_path):
    """What a CSV file says of names."""

    def split(text, names, encoding="utf-8"):
        path = tmp_path / "split.csv"
        path.write_bytes(text.encode(encoding))
        return official_split(str(path), names)

    return split


@pytest.mark.parametrize("column", ["name", "file", "filename", "path", "midi_filename"])
def test_a_list_says_the_split(csv_split, column):
    text = f"year,split,{column}\n2004,train,b.mid\n2006,TEST,sub/a.mid\n2008, dev ,c.mid\n"
    names = ["sub/a.mid", "b.mid", "c.mid"]
    assert csv_split(text, names) == ["test", "train", "validation"]
    assert csv_split(text, names, encoding="utf-8-sig") == ["test", "train", "validation"]


def test_lists_may_hold_quotes_commas_and_files_that_are_not_there(csv_split):
    text = 'split,name\r\ntrain,"a, ""b"".mid"\r\nvalidation,ö.mid\r\ntest,c.mid\r\ntest,no.mid\r\n'
    names = ['a, "b".mid', "ö.mid", "c.mid"]
    assert csv_split(text, names) == ["train", "validation", "test"]


def test_pieces_of_one_file_go_where_it_goes_unless_they_are_listed(csv_split):
    text = "name,split\nF# tunes.abc,train\nF# tunes.abc#1,validation\nb.abc,test\n"
    names = ["F# tunes.abc#0", "F# tunes.abc#1", "b.abc#0", "b.abc#12"]
    assert csv_split(text, names) == ["train", "validation", "test", "test"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name,part\na.mid,train\n",
            r"needs the columns split and name, file, .* or midi_filename",
        ),
        ("title,split\na.mid,train\n", "it has title, split$"),
        ("", "it has none$"),
        ("name,split\na.mid,train\nb.mid,holdout\n", "line 3: split must be train, .*'holdout'"),
        ("name,split\na.mid\n", "line 2: split must be .* got ''"),
        ("name,split\na.mid,train\n", "b.mid is in no split; .*split.csv does not list it"),
        ("name,split\na.mid,train\nb.mid,train\nc.mid,test\n", "no piece is in validation$"),
        ('name,split\n"a.mid' + "x" * 140_000, r"cannot read --data\.split .*field"),
    ],
)
def test_lists_that_will_not_do(csv_split, text, message):
    with pytest.raises(UserError, match=message) as caught:
        csv_split(text, ["a.mid", "b.mid", "c.mid"])
    assert "\n" not in str(caught.value)


def test_lists_that_are_no_text(tmp_path):
    for data in (b"name,split\n\xff\xfe,train\n", b"\x00" * 9):
        (tmp_path / "a.csv").write_bytes(data)
        with pytest.raises(UserError, match=r"--data\.split"):
            official_split(str(tmp_path / "a.csv"), ["a.mid"])


@pytest.mark.parametrize("how", ["foldres", "no/such.csv", ".", ""])
def test_what_is_neither_names_the_choices(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="say random, folders, or a CSV file"):
        official_split(how, ["a.mid"])
