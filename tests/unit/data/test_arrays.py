"""Array files as numpy writes them, and as damage or malice leaves them."""

import io
import random
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rnngan.data import archives
from rnngan.data.arrays import load_arrays, open_array
from rnngan.music.piece import NOTE


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def later(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(2, 0))
    return file.getvalue()


def header(shape, descr="<u2", fortran_order=False):
    """The header of an `.npy` file that says so."""
    text = f"{{'descr': {descr!r}, 'fortran_order': {fortran_order}, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


@pytest.fixture
def opened(tmp_path):
    """Opens bytes as an array of tokens."""

    def run(data, dtype=np.uint16, ndim=1):
        path = tmp_path / "tokens.npy"
        path.write_bytes(data)
        return open_array(path, dtype=dtype, ndim=ndim)

    return run


@given(
    hnp.arrays(
        st.sampled_from([np.uint16, np.int64, np.float32, NOTE]),
        hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=5),
        elements=None,
        fill=st.nothing(),
    )
)
def test_what_numpy_saves_is_mapped(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("arrays") / "a.npy"
    np.save(path, array)
    mapped = open_array(path, dtype=array.dtype, ndim=array.ndim)
    assert isinstance(mapped, np.memmap)
    assert mapped.shape == array.shape
    assert mapped.tobytes() == array.tobytes()
    assert not mapped.flags.writeable


def test_the_header_made_here_is_sound(opened):
    assert opened(header((3,)) + bytes(6)).tolist() == [0, 0, 0]


SOUND = npy(np.arange(5, dtype=np.uint16))
DAMAGED = {
    "cut short": SOUND[:-1],
    "trailing byte": SOUND + b"\0",
    "empty": b"",
    "inside the magic": SOUND[:4],
    "inside the header": SOUND[:40],
    "no array": b"hello" * 50,
    "other dtype": npy(np.arange(5, dtype=np.uint32)),
    "other byte order": npy(np.arange(5, dtype=">u2")),
    "other axes": npy(np.zeros((5, 1), np.uint16)),
    "no axis": npy(np.uint16(3)),
    "object": header((5,), "|O") + bytes(40),
    "Fortran order": header((3,), fortran_order=True) + bytes(6),
    "negative": header((-3,)) + bytes(6),
    "ten terabytes": header((5 * 10**12,)) + bytes(6),
    "overflowing to 6": header((2**63 + 3,)) + bytes(6),
    "no number": header(("x",)) + bytes(6),
    "code": header("__import__('os').abort()") + bytes(6),
    "deep": header("(" * 40 + ")" * 40) + bytes(6),
    "a version whose headers may take gigabytes": later(np.arange(5, dtype=np.uint16)),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_told_in_one_sentence(opened, damage):
    with pytest.raises(ValueError, match=r"^tokens\.npy (must|has) [^\n]+$") as caught:
        opened(DAMAGED[damage])
    assert type(caught.value) is ValueError


def test_two_axes_whose_product_overflows(opened):
    with pytest.raises(ValueError, match="bytes long"):
        opened(header((2**32, 2**32)), ndim=2)
    with pytest.raises(ValueError, match="in C order"):
        opened(header((-1, -3)) + bytes(6), ndim=2)
    with pytest.raises(ValueError, match="in C order"):
        opened(npy(np.asfortranarray(np.zeros((2, 3), np.uint16))), ndim=2)


def test_no_flipped_byte_breaks_the_reader(opened):
    mutate = random.Random(0)
    for _ in range(300):
        data = bytearray(SOUND)
        data[mutate.randrange(len(data) - 10)] = mutate.randrange(256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # numpy on headers of Python 2
                assert opened(bytes(data)).shape == (5,)
        except ValueError:
            pass


def test_a_large_file_is_not_read(tmp_path):
    path = tmp_path / "tokens.npy"
    with path.open("wb") as file:
        file.write(header((10**9,)))
        file.truncate(128 + 2 * 10**9)  # a hole
    tracemalloc.start()
    tokens = open_array(path, dtype=np.uint16, ndim=1)
    assert tokens[[0, 10**9 - 1]].tolist() == [0, 0]
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_array(tmp_path / "none.npy", dtype=np.uint16, ndim=1)


# Archives of arrays


def npz(method=zipfile.ZIP_DEFLATED, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


@pytest.fixture
def loaded(tmp_path):
    """Loads the array `a` of numbers from the bytes of an archive."""

    def run(data):
        path = tmp_path / "arrays.npz"
        path.write_bytes(data)
        return load_arrays(path, {"a": np.uint16})["a"]

    return run


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_packs_is_loaded(tmp_path, save):
    arrays = {"a": np.arange(70_000, dtype=np.uint16), "b": np.empty(0, NOTE)}
    save(tmp_path / "x.npz", **arrays)
    found = load_arrays(tmp_path / "x.npz", {name: a.dtype for name, a in arrays.items()})
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


HOSTILE = {
    "ten terabytes": npz(a=header((5 * 10**12,)) + bytes(6)),
    "more than there is": npz(a=header((4,)) + bytes(6)),
    "less than there is": npz(a=header((2,)) + bytes(6)),
    "object": npz(a=header((1,), "|O") + bytes(8)),
    "two axes": npz(a=npy(np.zeros((2, 2), np.uint16))),
    "missing": npz(b=SOUND),
    "unpacks in one go": npz(zipfile.ZIP_BZIP2, a=SOUND),
    "no archive": b"hello",
    "cut short": npz(a=SOUND)[:-9],
    "checksum": npz(zipfile.ZIP_STORED, a=SOUND).replace(SOUND[-4:], b"oops", 1),
}


@pytest.mark.parametrize("damage", HOSTILE)
def test_damaged_archives_are_refused_before_memory_is_taken(loaded, damage):
    assert loaded(npz(a=SOUND)).tolist() == [0, 1, 2, 3, 4]
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        loaded(HOSTILE[damage])
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_an_archive_may_not_swell_too_far(loaded, monkeypatch):
    bomb = npz(a=npy(np.zeros(1 << 20, np.uint16)))
    assert len(loaded(bomb)) == 1 << 20
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="too many for a file this small"):
        loaded(bomb)
