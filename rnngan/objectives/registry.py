"""The adversarial objectives and their controls by name."""

from __future__ import annotations

from rnngan.objectives.base import Objective
from rnngan.objectives.continued import Likelihood
from rnngan.objectives.cooperative import Cooperative
from rnngan.objectives.dense import Dense
from rnngan.objectives.gumbel import Gumbel
from rnngan.objectives.importance import Importance
from rnngan.objectives.leave_one_out import LeaveOneOut
from rnngan.objectives.placebo import PlaceboConstant, PlaceboRandom, PlaceboShuffled
from rnngan.objectives.residual import Residual
from rnngan.objectives.rollout import Rollout

OBJECTIVES: dict[str, type[Objective]] = {
    "cooperative": Cooperative,
    "dense": Dense,
    "gumbel": Gumbel,
    "importance": Importance,
    "leave-one-out": LeaveOneOut,
    "likelihood": Likelihood,
    "placebo-constant": PlaceboConstant,
    "placebo-random": PlaceboRandom,
    "placebo-shuffled": PlaceboShuffled,
    "residual": Residual,
    "rollout": Rollout,
}
"""Names as in `RefineConfig.objective`."""
