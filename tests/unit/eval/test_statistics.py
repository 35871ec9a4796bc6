import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval import statistics
from eval.cache import load_side, measured
from eval.features import FEATURES, features_of, select
from eval.statistics import load_statistics, save_statistics
from rnngan.errors import Reject, UserError

NAMES = select("pitch,note_density")
NAN_METRIC = next(name for name in NAMES if FEATURES[name].kind == "scalar")


@pytest.fixture
def saved(tunes, tmp_path):
    """Statistics of three tunes."""
    path = tmp_path / "tunes.npz"
    save(path, measured(tunes[:3], NAMES))
    return path


def save(path, table, **about):
    options = {
        "titles": ["a.mid", "b.mid", "c.mid"],
        "piece_hashes": ["aa", "bb", "cc"],
        "rejects": [Reject("x.mid", "empty", "it is")],
    }
    save_statistics(path, "tunes", table, **(options | about))


def edited(path, change):
    """Rewrite a file with its JSON changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    head = members["about.npy"][:128]
    about = json.loads(members["about.npy"][128:])
    change(about)
    array = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(path, about=array, rows=np.frombuffer(members["rows.npy"][len(head) :], np.uint8))


def test_columns_are_what_the_features_are(tunes):
    table = measured(tunes[:3], NAMES)
    assert list(table) == NAMES
    for name in NAMES:
        values = [features_of(tune, [name])[name] for tune in tunes[:3]]
        assert table[name].dtype == np.float64
        np.testing.assert_allclose(table[name], values, rtol=1e-6)


def test_what_is_saved_is_loaded(saved, tunes):
    name, found, rejects = load_statistics(saved)
    table = measured(tunes[:3], NAMES)
    assert name == "tunes"
    assert (found.titles, found.piece_hashes) == (("a.mid", "b.mid", "c.mid"), ("aa", "bb", "cc"))
    assert rejects == (Reject("x.mid", "empty", "it is"),)
    assert list(found.table) == NAMES
    assert all(np.array_equal(found.table[n], table[n], equal_nan=True) for n in NAMES)
    assert {"rnngan", "numpy", "symusic"} <= set(found.versions)


def test_the_same_side_gives_the_same_bytes(saved, tunes):
    before = saved.read_bytes()
    save(saved, measured(tunes[:3], NAMES))
    assert saved.read_bytes() == before


def test_undefined_stays_undefined(saved, tunes):
    table = {name: measured(tunes[:3], NAMES)[name] for name in NAMES}
    table[NAN_METRIC][1] = np.nan
    save(saved, table)
    assert np.isnan(load_statistics(saved)[1].table[NAN_METRIC]).tolist() == [False, True, False]


def test_other_columns_are_not_saved(saved, tunes):
    save(saved, {**measured(tunes[:3], NAMES), "longest_copied_run": np.zeros(3)})
    assert list(load_statistics(saved)[1].table) == NAMES


def test_statistics_are_a_side(saved, tmp_path):
    side = load_side(saved, [])
    assert (side.name, side.num_pieces, side.title(2)) == ("tunes", 3, "c.mid")
    assert side.rejects[0].reason == "empty"
    with pytest.raises(UserError, match="limit cannot pick"):
        load_side(saved, [], limit=2)


def test_a_side_of_the_disk_and_its_statistics_agree(store, tmp_path):
    side = load_side(store.folder, NAMES, split="train")
    save_statistics(
        tmp_path / "x.npz",
        side.name,
        side.statistics.table,
        titles=side.statistics.titles,
        piece_hashes=side.piece_hashes,
    )
    again = load_side(tmp_path / "x.npz", [])
    assert again.content_hash == side.content_hash
    assert [again.title(i) for i in range(again.num_pieces)] == list(side.statistics.titles)


def test_a_metric_that_is_not_there_is_named(saved):
    table = load_statistics(saved)[1].table
    table.check(NAMES, "x.npz")
    with pytest.raises(UserError, match=r"x.npz lacks polyphony.*; save the statistics anew"):
        table.check([*NAMES, *select("polyphony")], "x.npz")


def test_another_version_of_a_metric_is_not_the_same_metric(saved, monkeypatch):
    changed = replace(FEATURES[NAN_METRIC], version=FEATURES[NAN_METRIC].version + 1)
    monkeypatch.setitem(statistics.FEATURES, NAN_METRIC, changed)
    table = load_statistics(saved)[1].table
    assert NAN_METRIC not in table
    assert len(table) == len(NAMES) - 1
    with pytest.raises(UserError, match=r"measured as .*@1, now .*@2"):
        table.check(NAMES, "x.npz")


def test_names_that_no_terminal_should_get_are_made_harmless(saved):
    edited(saved, lambda about: about.update(name="\x1b[31mred"))
    assert load_statistics(saved)[0] == "?[31mred"


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.update(format=2),
        lambda about: about.pop("titles"),
        lambda about: about["titles"].pop(),
        lambda about: about["titles"].__setitem__(0, 7),
        lambda about: about["features"].append(about["features"][0]),
        lambda about: about["features"].pop(),
        lambda about: about["features"][0].__setitem__(2, -1),
        lambda about: about["features"][0].__setitem__(2, 10**12),
        lambda about: about["features"][0].__setitem__(0, ""),
        lambda about: about.update(features=3),
        lambda about: about.update(versions=[]),
        lambda about: about.update(rejects=[["one"]]),
    ],
)
def test_what_does_not_fit_together_is_refused(saved, change):
    edited(saved, lambda _: None)
    load_statistics(saved)
    edited(saved, change)
    with pytest.raises(UserError, match=r"^[^\n]+ holds no sound statistics of a side [^\n]+$"):
        load_statistics(saved)


@settings(max_examples=40)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), cut=st.booleans())
def test_damage_is_an_error_or_none_at_all(tmp_path_factory, tunes, place, bits, cut):
    path = tmp_path_factory.mktemp("damage") / "x.npz"
    table = measured(tunes[:3], NAMES)
    save(path, table)
    data = bytearray(path.read_bytes())
    at = int(place * len(data))
    data[at] ^= bits
    path.write_bytes(data[:at] if cut else data)
    try:
        found = load_statistics(path)[1].table
    except UserError:
        return
    assert all(np.array_equal(found[name], table[name], equal_nan=True) for name in found)


def test_objects_are_not_read(saved):
    np.savez(saved, about=np.array([{}], object), rows=np.zeros(1, np.uint8))
    with pytest.raises(UserError, match="no sound statistics"):
        load_statistics(saved)


def test_other_archives_are_refused(saved, tmp_path):
    np.savez(saved, notes=np.zeros(3))
    with pytest.raises(UserError, match="no sound statistics"):
        load_side(saved, [])
    with pytest.raises(UserError, match="cannot read"):
        load_statistics(tmp_path / "missing.npz")


def test_statistics_go_to_files_that_say_so(tunes, tmp_path):
    with pytest.raises(UserError, match=r"ends in .npz"):
        save(tmp_path / "x.zip", measured(tunes[:3], NAMES))
