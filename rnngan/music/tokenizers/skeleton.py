"""The grammar of pieces whose bars are known before they are written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rnngan.music.tokenizers.events import Events
from rnngan.music.vocabulary import Grammar

_OF_POSITIONS = ("Position", "Program", "Voice", "Pitch", "Drum", "Duration", "Velocity", "Pad")


def skeleton_of(tokens: Sequence[int], tokenizer: Events) -> list[int]:
    """The tokens of a piece that say nothing of its notes: head, bars, metres, tempos, end."""
    kinds = [tokenizer.vocabulary.ids(kind) for kind in _OF_POSITIONS]
    return [token for token in tokens if not any(token in ids for ids in kinds)]


def with_skeleton(tokenizer: Events, skeleton: Sequence[int]) -> Grammar:
    """The pieces of the tokenizer's grammar that have this skeleton.

    The state counts, beside what the tokenizer's own knows, how much of the skeleton has come. Bars
    and the end wait for their notes; all else that comes next has to come at once.

    Args:
        tokenizer: Of the tokens.
        skeleton: As `skeleton_of` finds it, from Start to End.
    """
    own = tokenizer.grammar.next_state
    num_states, vocab_size = own.shape
    of_notes = np.zeros(vocab_size, dtype=bool)
    for kind in _OF_POSITIONS:
        ids = tokenizer.vocabulary.ids(kind)
        of_notes[ids.start : ids.stop] = True
    blocks = []
    for done, token in enumerate([*skeleton, None]):
        here = np.where((own >= 0) & of_notes, own + done * num_states, -1)
        if token is not None:
            if token not in (tokenizer.bar, skeleton[-1]):
                here[own[:, token] >= 0] = -1
            here[:, token] = np.where(
                own[:, token] >= 0, own[:, token] + (done + 1) * num_states, -1
            )
        blocks.append(here)
    return Grammar(np.concatenate(blocks).astype(np.int32))
