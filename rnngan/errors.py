"""What goes wrong because of the input, as opposed to because of a bug."""

import difflib
from collections.abc import Iterable
from typing import NamedTuple


class UserError(Exception):
    """One clear line for the person at the keyboard; commands print it and exit with 2."""


class RejectedFile(UserError):
    """A music file that is refused.

    Attributes:
        reason: Code that `rejects.csv` lists, such as `truncated` or `too_many_notes`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Reject(NamedTuple):
    """A file that was refused: its name, a reason code, and a sentence."""

    name: str
    reason: str
    message: str


def nearest_name(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing where no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
