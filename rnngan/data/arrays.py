"""Arrays from files that may be damaged or made to do damage: no pickle, nothing on trust."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from rnngan.data.archives import max_unpacked_bytes

_CHUNK = 1 << 20


def open_array(path: Path, *, dtype: npt.DTypeLike, ndim: int) -> npt.NDArray[Any]:
    """Map an `.npy` file into memory, read-only; nothing of it is read but the header.

    Args:
        path: As `np.save` writes it.
        dtype: The only one accepted, byte order included.
        ndim: Number of axes.

    Raises:
        ValueError: The header is damaged, of another dtype or number of axes, in Fortran order, or
            does not account for every byte of the file.
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        shape = _read_header(file, path.name, np.dtype(dtype), ndim)
        offset = file.tell()
    expected = offset + math.prod(shape) * np.dtype(dtype).itemsize
    if size != expected:
        raise ValueError(f"{path.name} must be {expected} bytes long by its header, it is {size}")
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)


def load_arrays(path: Path, dtypes: Mapping[str, npt.DTypeLike]) -> dict[str, npt.NDArray[Any]]:
    """Arrays of one axis from an `.npz` file.

    Memory is taken as bytes come out, not as headers promise, and no more than
    `max_unpacked_bytes` of the file's size.

    Args:
        path: As `np.savez` and `np.savez_compressed` write it.
        dtypes: Of the arrays wanted, by name.

    Raises:
        ValueError: An array is missing, damaged, of another dtype or shape, or swells too far.
        OSError: The file cannot be read.
    """
    room = max_unpacked_bytes(path.stat().st_size)
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name, dtype in dtypes.items():
                arrays[name] = _load(archive, name, np.dtype(dtype), room)
                room -= arrays[name].nbytes
    except (OSError, ValueError):
        raise
    except Exception as error:  # zipfile lets through what zlib and struct raise
        raise ValueError(f"no sound archive of arrays ({error})") from error
    return arrays


def _load(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], room: int) -> npt.NDArray[Any]:
    """One array of an `.npz` file of at most `room` bytes."""
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"array {name!r} must be stored or deflated")
    with archive.open(member) as file:
        size = math.prod(_read_header(file, name, dtype, 1)) * dtype.itemsize
        if size > room:
            raise ValueError(f"array {name!r} claims {size} bytes, too many for a file this small")
        data = bytearray()  # a single read would hold all of it twice
        while chunk := file.read(min(_CHUNK, size + 1 - len(data))):
            data += chunk
    if len(data) != size:
        raise ValueError(f"array {name!r} must be {size} bytes long by its header, and is not")
    return np.frombuffer(data, dtype)


def _read_header(file: IO[bytes], name: str, dtype: np.dtype[Any], ndim: int) -> tuple[int, ...]:
    """The shape in the header of an `.npy` file; the file is then at the first byte of data.

    Raises:
        ValueError: As `open_array`.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):  # of later ones numpy reads headers of up to 4 GiB
            raise ValueError(f"version {version}")
        shape, fortran_order, found = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # numpy promises no particular exceptions
        raise ValueError(f"{name} has no sound .npy header ({error})") from error
    if found != dtype or fortran_order or len(shape) != ndim or min(shape, default=0) < 0:
        raise ValueError(
            f"{name} must hold {dtype} on {ndim} axes in C order, got {found} of shape {shape}"
        )
    return tuple(map(int, shape))
