"""Musical features of one piece, by the field's names; definition and source in each docstring.

Shared conventions: a note fills the half-open span `start <= tick < end`. Drums are left out
unless a feature is about drums, but they do prolong the piece. Bars are those of
`Piece.bar_lines`; a beat is a quarter note, as in MusPy and Pypianoroll, counted anew from each
change of metre. A mean, share or distribution over nothing is NaN and never 0.
"""

from eval.features import harmony, pitch, rhythm, structure, texture
from eval.features.registry import FEATURES, Feature, features_of, select

__all__ = [
    "FEATURES",
    "Feature",
    "features_of",
    "harmony",
    "pitch",
    "rhythm",
    "select",
    "structure",
    "texture",
]
