"""What goes wrong because of the input, as opposed to because of a bug."""

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
