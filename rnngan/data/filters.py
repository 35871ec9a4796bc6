"""The language of `prepare --only "metre == 4/4 and polyphony <= 4"`.

Comparisons (`==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`, also chained, as in
`2 <= tracks <= 5`) joined by `and`, `or`, `not` and parentheses. Names are those of `MEASURES`, and
what is compared with a text in quotes is a tag: `style == "reel"`, `composer in ("Bach", "Biber")`;
a tag that a piece lacks is the empty text, but key and mode are worked out from its notes.

The text is parsed as a Python expression and never run: what is not named here is refused.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from rnngan.data.annotate import annotated, notes_per_quarter
from rnngan.errors import UserError, nearest_name
from rnngan.music.piece import DRUMS, TICKS_PER_QUARTER, Piece

Kind = Literal["number", "metre", "text"]
Test = Callable[[Piece], bool]


class Measure(NamedTuple):
    """What a name in a filter stands for.

    Attributes:
        of: Its value for a piece: a number, or the names of the metres.
        unit: Of the value.
        meaning: Half a sentence.
    """

    of: Callable[[Piece], Any]
    unit: str
    meaning: str


def _metres(piece: Piece) -> frozenset[str]:
    """Names of the metres in force before the last note ends."""
    in_force = [metre for metre in piece.metres if metre.tick < piece.end]
    return frozenset(metre.name for metre in in_force or piece.metres[:1])


def _polyphony(piece: Piece) -> int:
    """A note that ends where another begins does not sound together with it."""
    notes = piece.pitched
    ended = np.searchsorted(np.sort(notes["end"]), notes["start"], side="right")
    return int((np.arange(1, len(notes) + 1) - ended).max(initial=0))


def _drums(piece: Piece) -> int:
    return int(np.count_nonzero(piece.notes["program"] == DRUMS))


def _drum_rate(piece: Piece) -> float:
    return _drums(piece) / (len(piece.notes) or math.nan)


def _empty_bars(piece: Piece) -> int:
    """A note that ends on a bar line does not sound in the next bar."""
    lines, notes = piece.bar_lines(), piece.notes
    first = np.searchsorted(lines, notes["start"], side="right") - 1
    after = np.searchsorted(lines, notes["end"], side="left")
    size = len(lines)
    change = np.bincount(first, minlength=size) - np.bincount(after, minlength=size)
    return int(np.count_nonzero(change.cumsum()[:-1] == 0))


def _empty_bar_rate(piece: Piece) -> float:
    return _empty_bars(piece) / (piece.num_bars or math.nan)


def _quarters(piece: Piece) -> float:
    return piece.end / TICKS_PER_QUARTER


def _seconds(piece: Piece) -> float:
    return float(piece.seconds_at(piece.end))


def _tempo(piece: Piece) -> float:
    """Rounded to 0.001, which makes a whole tempo whole."""
    if not piece.end:
        return piece.tempos[0].quarters_per_minute
    return round(60 * _quarters(piece) / _seconds(piece), 3)


def _lowest(piece: Piece) -> float:
    pitches = piece.pitched["pitch"]
    return float(pitches.min()) if len(pitches) else math.nan


def _highest(piece: Piece) -> float:
    pitches = piece.pitched["pitch"]
    return float(pitches.max()) if len(pitches) else math.nan


def _tag(piece: Piece, name: str) -> str:
    """Worked out from the notes where that can be done and the source says nothing."""
    return annotated(piece, (name,)).tags.get(name, "")


MEASURES: dict[str, Measure] = {
    "metre": Measure(_metres, "such as 6/8", "time signature; what is said must hold for each one"),
    "metres": Measure(lambda p: len(_metres(p)), "metres", "different time signatures"),
    "polyphony": Measure(_polyphony, "notes", "most that sound at once, drums left out"),
    "notes": Measure(lambda p: len(p.notes), "notes", "all, drums among them"),
    "tracks": Measure(lambda p: len(np.unique(p.notes["track"])), "tracks", "those with notes"),
    "programs": Measure(
        lambda p: len(np.unique(p.notes["program"])), "programs", "different ones; drums are one"
    ),
    "drums": Measure(_drums, "notes", "those of the drum kit"),
    "drum_rate": Measure(_drum_rate, "0 to 1", "share of the notes that the drum kit plays"),
    "bars": Measure(lambda p: p.num_bars, "bars", "up to the end of the last note"),
    "empty_bars": Measure(_empty_bars, "bars", "those in which nothing sounds"),
    "empty_bar_rate": Measure(_empty_bar_rate, "0 to 1", "share of the bars that are empty"),
    "quarters": Measure(_quarters, "quarters", "length up to the end of the last note"),
    "seconds": Measure(_seconds, "seconds", "length up to the end of the last note"),
    "lowest": Measure(_lowest, "MIDI pitch", "lowest note, drums left out; middle C is 60"),
    "highest": Measure(_highest, "MIDI pitch", "highest note, drums left out"),
    "tempo": Measure(_tempo, "quarters per minute", "mean over the piece"),
    "density": Measure(
        notes_per_quarter, "notes per quarter", "from the first note on, drums among them"
    ),
}
"""What a filter can compare. No comparison but `!=` holds for a value that a piece does not have,
such as the lowest note of one for drums alone."""
ALIASES = {"meter": "metre", "meters": "metres"}

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, options: value in options,
    ast.NotIn: lambda value, options: value not in options,
}


class _Operand(NamedTuple):
    """One side of a comparison.

    Attributes:
        kind: Only operands of one kind are compared.
        values: What has to compare well for a piece, each of them: several where metres change.
        literal: It stands there as a number, metre or text.
        options: It is a list, what `in` wants on its right.
    """

    kind: Kind
    values: Callable[[Piece], Iterable[Any]]
    literal: bool = False
    options: bool = False


class _Clause(NamedTuple):
    text: str
    holds: Test


@dataclass(frozen=True)
class Filter:
    """A condition on pieces, made by `Filter.parse`; the empty text holds for every piece.

    Attributes:
        text: As it was written.
    """

    text: str
    _clauses: tuple[_Clause, ...] = field(repr=False, compare=False)

    @staticmethod
    def parse(text: str) -> Filter:
        """The filter that a text describes.

        Raises:
            UserError: It is no filter; the message says at which character.
        """
        return _Parser(text).filter()

    def failing(self, piece: Piece) -> str | None:
        """The first of the parts joined by `and` that does not hold; None when all do."""
        return next((clause.text for clause in self._clauses if not clause.holds(piece)), None)

    def __reduce__(self) -> tuple[Callable[[str], Filter], tuple[str]]:
        return Filter.parse, (self.text,)  # functions made while parsing cannot be pickled


def describe_measures() -> str:
    """The names that a filter can use, a line each with unit and meaning."""
    return "\n".join(
        f"{name:<15} {measure.unit:<20} {measure.meaning}" for name, measure in MEASURES.items()
    )


class _Parser:
    """From Python's syntax tree to tests; columns in that tree count bytes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.code = " ".join(text.splitlines()).strip()

    def filter(self) -> Filter:
        if not self.code:
            return Filter(self.text, ())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python warns of `2if` and "\d"
                tree = ast.parse(self.code, mode="eval").body
            joined = isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And)
            nodes = tree.values if isinstance(tree, ast.BoolOp) and joined else [tree]
            return Filter(self.text, tuple(_Clause(self.source(n), self.test(n)) for n in nodes))
        except SyntaxError as error:
            problem = f"{error.msg}; write, for example, metre == 4/4 and polyphony <= 4"
            raise self.error(problem, error.offset or len(self.code) + 1) from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise self.error(f"it cannot be read ({error})", 1) from None

    def test(self, node: ast.expr) -> Test:
        match node:
            case ast.BoolOp(op=ast.And()):
                tests = [self.test(value) for value in node.values]
                return lambda piece: all(test(piece) for test in tests)
            case ast.BoolOp():
                tests = [self.test(value) for value in node.values]
                return lambda piece: any(test(piece) for test in tests)
            case ast.UnaryOp(op=ast.Not()):
                inner = self.test(node.operand)
                return lambda piece: not inner(piece)
            case ast.Compare():
                return self.comparison(node)
            case ast.Name(id=name) if name not in MEASURES and name not in ALIASES:
                raise self.unknown(node)
        raise self.error(f"expected a comparison such as bars >= 8, got {self.source(node)}", node)

    def comparison(self, node: ast.Compare) -> Test:
        nodes = [node.left, *node.comparators]
        operands = [self.operand(side) for side in nodes]
        steps = []
        for i, op in enumerate(node.ops):
            if type(op) not in _COMPARE:
                raise self.error("expected one of ==, !=, <, <=, >, >=, in, not in", nodes[i])
            self.check(nodes[i], operands[i], op, nodes[i + 1], operands[i + 1])
            steps.append((operands[i].values, _COMPARE[type(op)], operands[i + 1].values))
        return lambda piece: all(
            compare(a, b)
            for left, compare, right in steps
            for a in left(piece)
            for b in right(piece)
        )

    def check(
        self, left_node: ast.expr, left: _Operand, op: ast.cmpop, right_node: ast.expr,
        right: _Operand,
    ) -> None:  # fmt: skip
        """Refuse what cannot be compared in this way."""
        for node, side, other in ((left_node, left, right), (right_node, right, left)):
            is_tag = isinstance(node, ast.Name) and side.kind == "text"
            if (
                isinstance(node, ast.Name)
                and is_tag
                and not (other.kind == "text" and other.literal)
            ):
                raise self.unknown(node)
        if left.kind != right.kind:
            raise self.error(
                f"{self.source(left_node)} is a {left.kind} and cannot be compared with "
                f"{self.source(right_node)}, a {right.kind}",
                left_node,
            )
        if left.options or right.options is not isinstance(op, ast.In | ast.NotIn):
            raise self.error("a list stands after in: metre in (2/4, 4/4)", left_node)
        if left.kind != "number" and not isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn):
            raise self.error(f"a {left.kind} can only be compared with ==, != and in", left_node)

    def operand(self, node: ast.expr) -> _Operand:
        match node:
            case ast.Name(id=name):
                name = ALIASES.get(name, name)
                if name == "metre":
                    return _Operand("metre", _metres)
                if name in MEASURES:
                    measure = MEASURES[name].of
                    return _Operand("number", lambda piece: (measure(piece),))
                return _Operand("text", lambda piece: (_tag(piece, name),))
            case ast.Tuple(elts=nodes) | ast.List(elts=nodes) if nodes:
                kinds, values = zip(*map(self.literal, nodes))
                if len(set(kinds)) > 1:
                    raise self.error("a list holds values of one kind", node)
                return _Operand(kinds[0], lambda _: (values,), literal=True, options=True)
            case _:
                kind, value = self.literal(node)
                return _Operand(kind, lambda _: (value,), literal=True)

    def literal(self, node: ast.expr) -> tuple[Kind, Any]:
        match node:
            case ast.Constant(value=str(text)):
                return "text", text
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return "number", number
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return "number", -number
            case ast.BinOp(
                left=ast.Constant(value=int(beats)), op=ast.Div(), right=ast.Constant(value=int(of))
            ):
                if beats < 1 or of not in (1, 2, 4, 8, 16, 32):
                    raise self.error(f"{beats}/{of} is no time signature", node)
                return "metre", f"{beats}/{of}"
        raise self.error(
            f"expected a name, a number, a metre or a text, got {self.source(node)}", node
        )

    def source(self, node: ast.expr) -> str:
        return ast.get_source_segment(self.code, node) or self.code

    def unknown(self, node: ast.Name) -> UserError:
        known = [*MEASURES, *ALIASES]
        return self.error(
            f"unknown name {node.id!r}{nearest_name(node.id, known)}; a tag is compared with a "
            'text in quotes, as in style == "reel"',
            node,
        )

    def error(self, problem: str, where: ast.expr | int) -> UserError:
        """With the place, counted in characters from 1."""
        if not isinstance(where, int):
            where = len(self.code.encode()[: where.col_offset].decode()) + 1
        return UserError(f"cannot read the filter {self.code!r} at character {where}: {problem}")
