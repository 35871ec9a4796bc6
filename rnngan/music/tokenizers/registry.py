"""All codecs by name; one is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from rnngan.music.tokenizers.base import Codec
from rnngan.music.tokenizers.summary import Summary

CODECS = {
    "events": "Events",
    "melody": "Melody",
    "frames": "Frames",
    "tuples": "Tuples",
    "miditok": "MidiTok",
}
"""Name of each, which is its module's, and of its class."""


def _class_of(name: str) -> Any:
    return getattr(import_module(f"rnngan.music.tokenizers.{name}"), CODECS[name])


def fit_codec(name: str, summary: Summary, **options: Any) -> Codec:
    """The codec of that name, fitted to a corpus; options are those of its `fit`."""
    codec: Codec = _class_of(name).fit(summary, **options)
    return codec


def codec_from_json(data: Mapping[str, Any]) -> Codec:
    """The codec that `to_json` wrote down.

    Raises:
        ValueError: The data describes none.
    """
    name = data.get("name") if isinstance(data, Mapping) else None
    if name not in CODECS:
        raise ValueError(f"unknown tokenizer {name!r}; there are {', '.join(CODECS)}")
    codec: Codec = _class_of(name).from_json(data)
    return codec
