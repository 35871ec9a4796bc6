"""What became of a corpus on its way into a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rnngan.data.shards import EncodedShard
from rnngan.data.splits import SPLITS, Split
from rnngan.data.store import Store
from rnngan.errors import Reject
from rnngan.music.tokenizers.base import Codec


class ReportBuilder:
    """Adds up shards.

    Args:
        codec: Of their rows.
    """

    def __init__(self, codec: Codec) -> None:
        vocabulary = getattr(codec, "vocabulary", None)
        self._names = vocabulary.names if vocabulary else ()
        self._use = np.zeros(len(self._names), np.int64)
        self._counts: Counter[str] = Counter()
        self._beats: Counter[str] = Counter()
        self._grid_error = [0.0, 0.0]
        self._loss = [0, 0, 0.0, 0.0]
        self._measured = False

    def add(self, shard: EncodedShard) -> None:
        """Take in one."""
        if self._names:
            self._use += np.bincount(shard.rows, minlength=len(self._names))
        for entry in shard.entries:
            self._counts.update({name: entry[name] for name in ("notes", "bars", "tokens")})
            self._counts["pieces"] += 1
            self._beats[entry["beats"]] += 1
            mean, largest = entry["onset_error_quarters"]
            self._grid_error[0] += mean * entry["notes"]
            self._grid_error[1] = max(self._grid_error[1], largest)
        for loss in shard.losses:
            self._measured = True
            for i, value in enumerate(loss[:3]):
                self._loss[i] += value
            self._loss[3] = max(self._loss[3], loss.largest_error)

    def finish(
        self,
        num_files: int,
        rejects: Sequence[Reject],
        groups: npt.NDArray[np.int64],
        splits: Sequence[Split],
    ) -> dict[str, Any]:
        """The report, plain data.

        Args:
            num_files: Files that were looked at.
            rejects: Files and pieces left out.
            groups: Of each piece, the number of its group of duplicates.
            splits: Of each piece.
        """
        notes, bars, tokens = (max(self._counts[n], 1) for n in ("notes", "bars", "tokens"))
        sizes = np.bincount(groups) if len(groups) else np.zeros(0, np.int64)
        side = np.array([SPLITS.index(split) for split in splits], dtype=np.int64)
        groups_of_sides = np.unique(groups * len(SPLITS) + side) // len(SPLITS)
        report: dict[str, Any] = {
            "files": num_files,
            "pieces": self._counts["pieces"],
            "notes": self._counts["notes"],
            "bars": self._counts["bars"],
            "tokens": self._counts["tokens"],
            "tokens_per_bar": round(tokens / bars, 3),
            "tokens_per_note": round(tokens / notes, 3),
            "splits": {split: splits.count(split) for split in SPLITS},
            "rejects": dict(Counter(r.reason for r in rejects if r.reason != "filtered")),
            "filtered": dict(Counter(r.message for r in rejects if r.reason == "filtered")),
            "beats": dict(self._beats),
            "reading_onset_error_quarters": {
                "mean": round(self._grid_error[0] / notes, 6),
                "largest": self._grid_error[1],
            },
            "duplicates": {
                "groups": int((sizes > 1).sum()),
                "pieces_in_them": int(sizes[sizes > 1].sum()),
                "largest": int(sizes.max(initial=0)),
                "groups_on_several_sides": int(
                    (np.bincount(groups_of_sides) > 1).sum() if len(groups) else 0
                ),
            },
        }
        if self._names:
            report["vocabulary"] = {
                "size": len(self._names),
                "used": int((self._use > 0).sum()),
                "never_used": [n for n, count in zip(self._names, self._use) if not count],
                "counts": {n: int(count) for n, count in zip(self._names, self._use) if count},
            }
        if self._measured:
            before, kept, errors, largest = self._loss
            report["tokens_lose"] = {
                "notes_dropped": before - kept,
                "notes_dropped_rate": round((before - kept) / max(before, 1), 6),
                "onset_error_quarters": {
                    "mean": round(errors / max(kept, 1), 6),
                    "largest": round(largest, 6),
                },
            }
        return report


def describe_store(store: Store) -> str:
    """One line about a store."""
    about = store.manifest
    splits = ", ".join(f"{count} {split}" for split, count in about["splits"].items())
    refused = ", ".join(f"{count} {reason}" for reason, count in about["rejects"].items())
    return (
        f"prepared {len(store)} pieces of {about['num_files']} files ({splits}), "
        f"{about['num_notes']} notes, {about['num_tokens']} {store.codec.name}; "
        f"refused: {refused or 'none'}: {store.folder}"
    )
