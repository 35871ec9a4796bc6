"""Random numbers as a function of (seed, purpose, step), so that a resume needs no state."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def seed_for(seed: int, purpose: str, step: int = 0) -> int:
    """A seed of 63 bits; other purposes and steps get unrelated ones."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), step])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def reseed_torch(seed: int, purpose: str, step: int = 0) -> None:
    """Set torch's own generator, which dropout and initialisation draw from."""
    torch.manual_seed(seed_for(seed, purpose, step))
