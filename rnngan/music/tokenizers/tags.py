"""How a piece with given tags begins: style, mode, metre, or what else a corpus was tagged with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rnngan.errors import UserError, nearest_name
from rnngan.music.tokenizers.base import Tokenizer
from rnngan.music.vocabulary import START, Vocabulary

METRE = "metre"
"""Named like a tag, but told by the Metre token that ends the head."""
_MOST_NAMED = 24  # values that a message lists


def parse_tags(words: Sequence[str]) -> dict[str, str]:
    """Values by key from words such as `style=reel`.

    Raises:
        UserError: A word is not of that form, or a key comes twice.
    """
    tags: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise UserError(f"--tag must be KEY=VALUE, such as style=reel, got {word!r}")
        if key in tags:
            raise UserError(f"--tag {key} is given twice: {tags[key]!r} and {value!r}")
        tags[key] = value
    return tags


def known_tags(vocabulary: Vocabulary) -> dict[str, tuple[str, ...]]:
    """Keys that a piece can be asked to have, each with its values."""
    known: dict[str, tuple[str, ...]] = {}
    for tag in vocabulary.values("Tag"):
        key, _, value = tag.partition("=")
        known[key] = (*known.get(key, ()), *([value] if value else ()))
    if METRE not in known and (metres := vocabulary.values("Metre")):
        known[METRE] = metres
    return known


def tagged_prefix(tokenizer: Tokenizer, tags: Mapping[str, str]) -> tuple[int, ...]:
    """Start and a head that tells these tags, and of the others that they are not told.

    Without tags it is Start alone, so that a generator chooses all of them itself. The metre, too,
    is the generator's choice where it is not asked for.

    Args:
        tokenizer: Of the tokens.
        tags: Values by key, as in `known_tags`.

    Raises:
        UserError: There is no such tag, or it has no such value.
    """
    vocabulary, grammar = tokenizer.vocabulary, tokenizer.grammar
    known = known_tags(vocabulary)
    for key, value in tags.items():
        _check_known(key, value, known)
    prefix = [START]
    if not tags:
        return tuple(prefix)
    state = int(grammar.next_state[0, START])
    while True:
        names = [vocabulary.names[i] for i in np.flatnonzero(grammar.allowed[state])]
        if names[0].startswith("Tag_"):
            key = names[0].removeprefix("Tag_").partition("=")[0]
            name = f"Tag_{key}={tags.get(key, '')}"
        elif names[0].startswith("Metre_") and METRE in tags.keys() - _keys(vocabulary):
            name = f"Metre_{tags[METRE]}"
        else:
            return tuple(prefix)
        prefix.append(vocabulary.index[name])
        state = int(grammar.next_state[state, prefix[-1]])
        if name.startswith("Metre_"):
            return tuple(prefix)


def untagged(vocabulary: Vocabulary) -> tuple[int, ...]:
    """What stands in place of each token where tags are not told, `(vocab,)`.

    That is of a tag the one with its key and no value, of others the token itself.
    """
    bare = (name.partition("=")[0] + "=" for name in vocabulary.names)
    return tuple(vocabulary.index.get(name, token) for token, name in enumerate(bare))


def _keys(vocabulary: Vocabulary) -> set[str]:
    return {tag.partition("=")[0] for tag in vocabulary.values("Tag")}


def _check_known(key: str, value: str, known: Mapping[str, Sequence[str]]) -> None:
    if not known:
        raise UserError(
            f"--tag {key}={value}: this model knows no tags; prepare a corpus with --data.tags"
        )
    if key not in known:
        raise UserError(
            f"--tag {key}={value}: this model knows no tag {key!r}"
            f"{nearest_name(key, known)}; it knows {_listed(list(known))}"
        )
    if value not in known[key]:
        raise UserError(
            f"--tag {key}={value}: no piece of the corpus had this {key}"
            f"{nearest_name(value, known[key])}; there are {_listed(known[key])}"
        )


def _listed(names: Sequence[str]) -> str:
    """With commas, the first ones of many."""
    more = [f"{len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
    return ", ".join([*names[:_MOST_NAMED], *more])
