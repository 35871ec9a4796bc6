"""Which pieces are trained on, which decide when to stop, and which are kept for the end."""

from __future__ import annotations

import csv
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from rnngan.errors import UserError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_WORDS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_NAME_COLUMNS = ("name", "file", "filename", "path", "midi_filename")


def split_by_group(
    groups: Sequence[str], *, validation_rate: float, test_rate: float, seed: int
) -> list[Split]:
    """A split for every piece; pieces of one group stay together, and no split is empty.

    Groups are dealt out in the order of a keyed hash, so that a piece more or less in the corpus
    moves few others.

    Args:
        groups: Of each piece, its group's name.
        validation_rate: Wanted share of the pieces, above 0.
        test_rate: Likewise.
        seed: Of the hash.

    Raises:
        UserError: Too few groups for each split to get one.
    """
    sizes: dict[str, int] = defaultdict(int)
    for group in groups:
        sizes[group] += 1
    if len(sizes) < 3:
        raise UserError(
            f"the corpus is too small to split: {len(sizes)} distinct pieces, at least 3 are "
            "needed for training, validation and test (20 or more make sense)"
        )
    wanted: dict[Split, float] = {
        "test": test_rate * len(groups),
        "validation": validation_rate * len(groups),
        "train": math.inf,
    }
    # The first ones dealt should not be larger than what a split wants.
    order = sorted(
        sizes,
        key=lambda group: (
            sizes[group] > max(1, min(wanted.values())),
            hashlib.sha256(f"{seed}:{group}".encode()).digest(),
        ),
    )
    split_of: dict[str, Split] = {}
    for place, group in enumerate(order):
        if place < len(SPLITS):
            split = list(wanted)[place]  # one group each, so that none stays empty
        else:
            # The first split that the group brings nearer to what it wants.
            split = next(s for s, missing in wanted.items() if missing >= sizes[group] / 2)
        wanted[split] -= sizes[group]
        split_of[group] = split
    return [split_of[group] for group in groups]


def check_split(how: str) -> None:
    """See that a split can be had, before the work that it needs.

    Raises:
        UserError: `how` is neither `random` nor `folders` nor a CSV file as `official_split` wants.
    """
    if how not in ("random", "folders"):
        _read_split_file(Path(how))


def official_split(how: str, names: Iterable[str]) -> list[Split]:
    """The split that a corpus comes with.

    Args:
        how: `folders`, for pieces in subfolders `train`, `validation` (or `valid`, `val`, `dev`)
            and `test`, of which the outermost counts; or the path of a CSV file with a column
            `split` of these words and a column `name`, `file`, `filename`, `path` or
            `midi_filename`.
        names: Of the pieces: paths below the corpus folder; a number of the piece in its file,
            as in `tunes.abc#3`, counts only where the CSV file has it.

    Raises:
        UserError: A piece is in none of the three, or one of the three is empty.
    """
    listed = None if how == "folders" else _read_split_file(Path(how))
    found: list[Split] = []
    for name in names:
        if listed is None:
            words = (_WORDS.get(folder.lower()) for folder in name.split("/")[:-1])
            split = next((word for word in words if word), None)
            rule = "a folder above it must be named train, validation or test"
        else:
            split = listed.get(name) or listed.get(name.rpartition("#")[0])
            rule = f"{how} does not list it"
        if split is None:
            raise UserError(f"--data.split {how}: {name} is in no split; {rule}")
        found.append(split)
    if missing := [split for split in SPLITS if split not in found]:
        raise UserError(f"--data.split {how}: no piece is in {' or '.join(missing)}")
    return found


def _read_split_file(path: Path) -> dict[str, Split]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            names = [column for column in _NAME_COLUMNS if column in columns]
            if "split" not in columns or not names:
                raise UserError(
                    f"--data.split {path} needs the columns split and "
                    f"{', '.join(_NAME_COLUMNS[:-1])} or {_NAME_COLUMNS[-1]}; "
                    f"it has {', '.join(columns) or 'none'}"
                )
            found: dict[str, Split] = {}
            for row in reader:
                word = (row["split"] or "").strip().lower()
                if word not in _WORDS:
                    raise UserError(
                        f"--data.split {path}, line {reader.line_num}: split must be train, "
                        f"validation or test, got {word!r}"
                    )
                found[row[names[0]]] = _WORDS[word]
            return found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"cannot read --data.split {path}: {error}; say random, folders, or a CSV file"
        ) from None
