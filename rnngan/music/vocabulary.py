"""Tokens, their ids, and the grammar that says which may come next.

The grammar is a finite automaton rather than a table of kinds: its states know the metre and the
position in the bar, so that a mask read from it keeps positions rising and inside the bar. The
sampler, the likelihood and the tests all read the same two arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rnngan.errors import UserError

Tokens = npt.NDArray[np.uint16]
"""Token ids, shape `(time,)`."""

PAD, START, CONTINUE, END = 0, 1, 2, 3
"""Ids that every vocabulary begins with: filling, the beginning of a piece, the beginning of an
excerpt from its middle, and the end of the piece."""
FRAME_TOKENS = ("Pad", "Start", "Continue", "End")
MAX_TOKENS = 1 << 16


@dataclass(frozen=True)
class Vocabulary:
    """Every token by name, `Kind` or `Kind_value`; the id of a token is its place.

    Raises:
        ValueError: It does not begin with the four frame tokens, names one twice, or the tokens of
            a kind do not stand together.
        UserError: It has more tokens than 16 bits can number.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.names[: len(FRAME_TOKENS)] != FRAME_TOKENS:
            raise ValueError(f"a vocabulary begins with {FRAME_TOKENS}, got {self.names[:4]}")
        if len(set(self.names)) != len(self.names):
            raise ValueError("a vocabulary names each token once")
        if sum(len(ids) for ids in self.ranges.values()) != len(self.names):
            raise ValueError("tokens of one kind must stand together")
        if len(self.names) > MAX_TOKENS:
            raise UserError(
                f"a vocabulary has at most {MAX_TOKENS} tokens, got {len(self.names)}; "
                "choose tags with fewer values"
            )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def ranges(self) -> dict[str, range]:
        """Ids of each kind, in one run."""
        first: dict[str, int] = {}
        count: dict[str, int] = {}
        for i, name in enumerate(self.names):
            kind = name.split("_", 1)[0]
            first.setdefault(kind, i)
            count[kind] = i - first[kind] + 1
        return {kind: range(first[kind], first[kind] + count[kind]) for kind in first}

    def ids(self, kind: str) -> range:
        """Ids of a kind; empty where the vocabulary has none."""
        return self.ranges.get(kind, range(0))

    def values(self, kind: str) -> tuple[str, ...]:
        """What stands after the underscore, in the order of the ids."""
        return tuple(self.names[i].split("_", 1)[1] for i in self.ids(kind))

    @cached_property
    def index(self) -> dict[str, int]:
        """Id of each name."""
        return {name: i for i, name in enumerate(self.names)}


@dataclass(frozen=True)
class Grammar:
    """Deterministic automaton over tokens; state 0 stands before the first token.

    Attributes:
        next_state: `(states, vocab)`; −1 where the token may not come.
    """

    next_state: npt.NDArray[np.int32]

    @cached_property
    def allowed(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come in each state: `(states, vocab)`; never none."""
        return self.next_state >= 0

    def states_before(
        self, tokens: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.int32]:
        """State in which each token was chosen, `(batch, time)`.

        Args:
            tokens: `(batch, time)`.
            lengths: `(batch,)`; what stands behind is not looked at, and leaves the state alone.

        Raises:
            ValueError: A token may not come where it stands.
        """
        states = np.empty(tokens.shape, dtype=np.int32)
        state = np.zeros(len(tokens), dtype=np.int32)
        for time in range(tokens.shape[1]):
            states[:, time] = state
            state = np.where(time < lengths, self.next_state[state, tokens[:, time]], state)
            if state.min(initial=0) < 0:
                row = int(np.argmin(state))
                raise ValueError(
                    f"token {tokens[row, time]} may not stand at time {time} of row {row}"
                )
        return states

    def first_error(self, tokens: npt.NDArray[np.integer]) -> int | None:
        """Time of the first token that may not stand where it does; None for a sound beginning."""
        state = 0
        for time, token in enumerate(tokens.tolist()):
            state = int(self.next_state[state, token])
            if state < 0:
                return time
        return None


State = tuple[Any, ...]


def build_grammar(
    begin: State, moves: Callable[[State], Iterable[tuple[range, State]]], vocab_size: int
) -> Grammar:
    """Automaton of all states that can be reached from `begin`, which gets number 0.

    Args:
        begin: State before the first token.
        moves: For a state the ids that may come, in runs, each with the state they lead to.
        vocab_size: Number of tokens.
    """
    numbers = {begin: 0}
    reached = [begin]
    rows = []
    for state in reached:  # grows while it is walked
        row = np.full(vocab_size, -1, dtype=np.int32)
        for ids, target in moves(state):
            if target not in numbers:
                numbers[target] = len(reached)
                reached.append(target)
            row[ids.start : ids.stop] = numbers[target]
        rows.append(row)
    return Grammar(np.stack(rows))
