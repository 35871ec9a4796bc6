"""Arrays from files that may be damaged or made to do damage: no pickle, nothing on trust."""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt


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
