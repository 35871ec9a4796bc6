"""The adversarial objectives by name.

An objective turns what the discriminator says of a batch of samples into advantages, one per
sample; `rnngan.training.adversarial` does the rest. Those that need more than that widen this
interface when they come.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rnngan.objectives.leave_one_out import leave_one_out_advantages, unit_deviation


def _leave_one_out(rewards: Tensor) -> Tensor:
    return unit_deviation(leave_one_out_advantages(rewards))


OBJECTIVES: dict[str, Callable[[Tensor], Tensor]] = {"leave-one-out": _leave_one_out}
"""From piece logits `(batch,)` to advantages `(batch,)`; names as in `RefineConfig.objective`."""
