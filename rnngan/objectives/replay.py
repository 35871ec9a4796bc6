"""Older samples for the discriminator, so that it does not forget what the generator once did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rnngan.data.batches import Batch, padded

_RECENCY = 0.1


class Replay:
    """A buffer of samples that puts older ones in the place of some new ones.

    A new sample enters a full buffer with the chance max(capacity / seen, 1/10), in the place of
    any: the buffer holds all that was ever drawn equally likely (reservoir sampling) until ten
    times its capacity has been seen, and from then on forgets exponentially. What it does follows
    from its state, the seed and the step.

    References:
        Shrivastava et al., "Learning from simulated and unsupervised images through adversarial
        training", 2017, section 2.3; Vitter, "Random sampling with a reservoir", 1985.

    Args:
        rate: Share of a batch that is replaced, 0 to 1.
        seed: Of everything random here.
        capacity: Samples kept.
    """

    def __init__(self, *, rate: float, seed: int, capacity: int = 1024) -> None:
        self.rate = rate
        self.seed = seed
        self.capacity = capacity
        self._rows: list[npt.NDArray[Any]] = []
        self._seen = 0

    def __len__(self) -> int:
        return len(self._rows)

    def mixed(self, fakes: Batch, step: int) -> Batch:
        """These samples with `rate` of them replaced by older ones; then all of them are seen.

        As many older ones as there are, no one twice, and none of this batch.
        """
        random = np.random.default_rng([self.seed, step])
        kind = np.uint16 if fakes.tokens.ndim == 2 else np.float32
        new = [row[:length].astype(kind) for row, length in zip(fakes.tokens, fakes.lengths)]
        mixed = list(new)
        num = min(round(self.rate * len(new)), len(self._rows))
        places = random.permutation(len(new))[:num].tolist()
        for place, old in zip(places, random.permutation(len(self._rows)).tolist()):
            mixed[place] = self._rows[old]
        self._see(new, random)
        return padded(mixed)

    def _see(self, rows: list[npt.NDArray[Any]], random: np.random.Generator) -> None:
        for row in rows:
            self._seen += 1
            if len(self._rows) < self.capacity:
                self._rows.append(row)
            elif random.random() < max(self.capacity / self._seen, _RECENCY):
                self._rows[int(random.integers(self.capacity))] = row

    def state(self) -> dict[str, Any]:
        """Tensors and plain types from which `restore` goes on exactly."""
        rows = np.concatenate(self._rows) if self._rows else np.empty(0, np.uint16)
        return {
            "tokens": torch.from_numpy(rows.astype(np.int32) if rows.ndim == 1 else rows),
            "lengths": [len(row) for row in self._rows],
            "seen": self._seen,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        tokens = state["tokens"].numpy()
        tokens = tokens.astype(np.uint16) if tokens.ndim == 1 else tokens
        ends = np.cumsum(state["lengths"])
        self._rows = np.split(tokens, ends[:-1]) if len(ends) else []
        self._seen = state["seen"]
