"""Conditions on figures, by which a command fails: `--fail-if "two_sample_auc>0.7"`."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from typing import NamedTuple

from rnngan.errors import UserError, nearest_name

_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_FORM = re.compile(r"\s*(.*?[^\s<>=])\s*(>=|<=|==|>|<)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")


class Condition(NamedTuple):
    """A figure against a number.

    Attributes:
        name: Of the figure: whole as in `Evaluation.flat`, or a part of it between slashes, with
            or without its variant in brackets. It stands for every figure that it names.
        relation: One of `>= <= == > <`.
        bound: The number.
    """

    name: str
    relation: str
    bound: float

    @staticmethod
    def parse(text: str) -> Condition:
        """The condition that a text describes.

        Raises:
            UserError: It is none.
        """
        found = _FORM.fullmatch(text)
        try:
            if found:
                return Condition(found[1], found[2], float(found[3]))
        except ValueError:
            pass
        raise UserError(
            f"--fail-if wants a figure, one of {' '.join(_COMPARE)} and a number, as in "
            f"two_sample_auc>0.7; got {text!r}"
        )

    def met_by(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The figures that it names for which it holds.

        Raises:
            UserError: It names none.
        """
        named = {name: value for name, value in figures.items() if self._names(name)}
        if not named:
            parts = {part for name in figures for part in _parts(name)}
            raise UserError(
                f"--fail-if: no figure is called {self.name!r}{nearest_name(self.name, parts)}; "
                "metrics.json lists them under figures"
            )
        compare = _COMPARE[self.relation]
        return {name: value for name, value in named.items() if compare(value, self.bound)}

    def _names(self, figure: str) -> bool:
        return self.name == figure or self.name in _parts(figure)


def _parts(figure: str) -> set[str]:
    """What stands between the slashes, with and without brackets."""
    parts = re.split(r"/(?![^\[]*\])", figure)
    return {*parts, *(part.partition("[")[0] for part in parts)}
