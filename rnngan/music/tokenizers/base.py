"""The interface that every tokenizer has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from rnngan.music.piece import Piece
from rnngan.music.vocabulary import Grammar, Tokens, Vocabulary


class Codec(Protocol):
    """Between pieces and the arrays that a network learns.

    Attributes:
        name: In settings and files.
        dtype: Of the encoded rows.
        width: Numbers in a row; 0 where a row is one number.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def dtype(self) -> np.dtype[Any]: ...  # noqa: D102

    @property
    def width(self) -> int: ...  # noqa: D102

    def encode(self, piece: Piece) -> npt.NDArray[Any]:
        """Rows of a piece: `(time,)`, or `(time, width)`."""

    def decode(self, rows: npt.NDArray[Any], *, strict: bool = False) -> Piece:
        """The piece that the rows tell.

        Without `strict` whatever rows of the right shape give a valid piece: what makes no sense
        where it stands is passed over.

        Raises:
            ValueError: `strict`, and `encode` could not have written them.
        """

    def to_json(self) -> dict[str, Any]:
        """Plain data from which `from_json` makes it again; `name` says of which kind."""


class Tokenizer(Codec, Protocol):
    """A codec whose rows are ids in a vocabulary.

    Attributes:
        vocabulary: Names and ids; it begins with the four frame tokens.
        grammar: Automaton of the sequences that `encode` writes.
        bar: Id of the token that opens a bar; None where there is none.
        pitched_kinds: Kinds of token whose values are semitones, ascending without gaps: those
            that transposition moves.
    """

    @property
    def vocabulary(self) -> Vocabulary: ...  # noqa: D102

    @property
    def grammar(self) -> Grammar: ...  # noqa: D102

    @property
    def bar(self) -> int | None: ...  # noqa: D102

    @property
    def pitched_kinds(self) -> tuple[str, ...]: ...  # noqa: D102

    def encode(self, piece: Piece) -> Tokens:
        """Tokens of a piece, Start and End included: `(time,)`."""


def as_tokenizer(codec: Codec) -> Tokenizer:
    """The codec, where its rows are tokens.

    Raises:
        ValueError: They are real numbers.
    """
    if codec.width:
        raise ValueError(f"{codec.name} makes real numbers, not tokens")
    return cast(Tokenizer, codec)


def settings_of(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What `to_json` wrote, lists made tuples, without the name.

    Raises:
        ValueError: It describes another codec or none.
    """
    try:
        fields = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
    except AttributeError:
        raise ValueError(f"damaged tokenizer description: {data!r}") from None
    if (found := fields.pop("name", None)) != name:
        raise ValueError(f"not a tokenizer of kind {name!r}: {found!r}")
    return fields


def check_tags(tags: Collection[str]) -> None:
    """See that every key of the tag tokens, `key=value`, also has one without a value.

    Raises:
        ValueError: One has not.
    """
    for tag in tags:
        if tag.split("=", 1)[0] + "=" not in tags:
            raise ValueError(f"tag {tag!r} needs one of its key without a value beside it")


def keys_of(tags: Iterable[str]) -> tuple[str, ...]:
    """Keys of tag tokens, each once."""
    return tuple(dict.fromkeys(tag.split("=", 1)[0] for tag in tags))


def check_tokens(tokenizer: Tokenizer, tokens: npt.NDArray[np.integer]) -> None:
    """See that the grammar allows a sequence.

    Raises:
        ValueError: It does not.
    """
    if (wrong := tokenizer.grammar.first_error(tokens)) is not None:
        name = tokenizer.vocabulary.names[int(tokens[wrong])]
        raise ValueError(f"{name} may not stand at time {wrong}")
