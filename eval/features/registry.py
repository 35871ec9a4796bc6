"""The table of per-piece features and how to ask it.

A feature's name carries its variant, so that two people who print the same name computed the same
thing: `groove[q=64,pairs=all]` is a variant of the base name `groove`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from rnngan.errors import UserError
from rnngan.music.piece import Piece

Value: TypeAlias = float | NDArray[np.float64]
Group = Literal["pitch", "rhythm", "harmony", "texture", "structure"]
Kind = Literal["scalar", "ordered", "categorical"]
Metric = TypeVar("Metric", bound=Callable[..., Value])


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One number or one histogram of a piece.

    Attributes:
        name: Versioned name with its variant in brackets.
        group: The table's section; also the name of the module that defines the feature.
        unit: Of the number or, for a histogram, of the quantity that its bins divide.
        kind: `scalar`; `ordered` if the bins lie on a line; `categorical` if they do not.
        bins: Labels of a histogram's bins, a matrix row by row; empty for a scalar.
        positions: Places of an ordered histogram's bins, in `unit`; empty otherwise.
        range: Least and largest value that the number, or a bin's share, can take; may be infinite.
        direction: What a larger value means, such as `busier`; `none` if it means nothing simple.
        version: Counts the changes of the definition: each makes earlier values another metric's.
        reference: Source of the definition.
        compute: Gives a float, NaN where undefined, or a histogram `(bins,)` that sums to 1, all
            NaN where undefined.
    """

    name: str
    group: Group
    unit: str
    kind: Kind
    bins: tuple[str, ...]
    positions: tuple[float, ...]
    range: tuple[float, float]
    direction: str
    version: int
    reference: str
    compute: Callable[[Piece], Value]

    @property
    def base_name(self) -> str:
        """The name without its variant."""
        return self.name.partition("[")[0]

    @property
    def key(self) -> str:
        """Name and version: what a stored value must have been computed by to be used again."""
        return f"{self.name}@{self.version}"


FEATURES: dict[str, Feature] = {}
"""Every feature by name, module by module, in the order of definition."""


def register(
    name: str,
    *,
    group: Group,
    unit: str,
    reference: str,
    bins: Sequence[str] = (),
    positions: Sequence[float] = (),
    low: float = 0.0,
    high: float = 1.0,
    direction: str = "none",
    version: int = 1,
    **options: Any,
) -> Callable[[Metric], Metric]:
    """Decorator: files a metric under `name`, computed with the keyword arguments `options`.

    The metric itself stays as it is. Variants stack on one function; the lowest is filed first.
    The range runs from `low` to `high`: that of a share, or of a bin of a histogram, unless told.
    """
    kind: Kind = "ordered" if positions else "categorical" if bins else "scalar"

    def file(metric: Metric) -> Metric:
        if name in FEATURES:
            raise ValueError(f"feature {name} is defined twice")
        FEATURES[name] = Feature(
            name=name,
            group=group,
            unit=unit,
            kind=kind,
            bins=tuple(bins),
            positions=tuple(map(float, positions)),
            range=(float(low), float(high)),
            direction=direction,
            version=version,
            reference=reference,
            compute=partial(metric, **options),
        )
        return metric

    return file


def features_of(piece: Piece, names: Iterable[str] | None = None) -> dict[str, Value]:
    """Features of a piece by name; all of them, or those in `names` as `select` returns them."""
    chosen = FEATURES if names is None else names
    return {name: FEATURES[name].compute(piece) for name in chosen}


def select(patterns: str) -> list[str]:
    """Names of the features that a comma-separated list asks for, in table order, each once.

    A pattern is a group (`pitch`), a base name that stands for all its variants (`groove`) or a
    full name (`groove[q=64,pairs=all]`).

    Raises:
        UserError: A pattern names nothing.
    """
    chosen: set[str] = set()
    for pattern in re.split(r",(?![^\[]*\])", patterns):
        found = [
            feature.name
            for feature in FEATURES.values()
            if pattern.strip() in (feature.group, feature.base_name, feature.name)
        ]
        if not found:
            raise UserError(_unknown(pattern.strip()))
        chosen.update(found)
    return [name for name in FEATURES if name in chosen]


def _unknown(pattern: str) -> str:
    """The error line for a pattern that names nothing."""
    groups = get_args(Group)
    known = [*groups, *dict.fromkeys(f.base_name for f in FEATURES.values()), *FEATURES]
    nearest = difflib.get_close_matches(pattern, known, n=1, cutoff=0.0)
    return (
        f"features: no feature or group is called {pattern!r}; did you mean {nearest[0]!r}? "
        f"Groups are {', '.join(groups)}"
    )


def normalised(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Counts as a distribution: flat, sum 1; all NaN where there is nothing to count."""
    flat = np.asarray(counts, dtype=np.float64).ravel()
    total = float(flat.sum())
    return flat / total if total > 0 else np.full(flat.size, math.nan)
