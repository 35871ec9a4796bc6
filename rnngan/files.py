"""Files that are either written whole or not at all."""

import os
import secrets
from pathlib import Path

from rnngan.errors import UserError


def write_atomically(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Write `data` to `path`; a crash leaves either the old file or the new one.

    The bytes go to a temporary file in the same folder, reach the disk, and take the name in one
    step. A symbolic link stays a link.

    Args:
        path: The file.
        data: All that is to be in it.
        lasting: Wait until the disk has it. Scratch files that are checked when read do without:
            a power cut may leave them damaged.

    Raises:
        UserError: The folder is missing, the disk is full, or the path cannot be written.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise UserError(f"cannot write {path}: it is not a regular file; choose another name")
    temporary = target.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                if lasting:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if lasting:
            sync_folder(target.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; check that the folder exists, "
            "may be written to, and has room"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    if os.name != "posix":  # elsewhere folders cannot be opened, and renames need no sync
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
