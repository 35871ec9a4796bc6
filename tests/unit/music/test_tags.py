import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.errors import UserError
from rnngan.music.piece import Metre, Piece
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.music.tokenizers.frames import Frames
from rnngan.music.tokenizers.melody import Melody
from rnngan.music.tokenizers.summary import Summary
from rnngan.music.tokenizers.tags import known_tags, parse_tags, tagged_prefix, untagged
from rnngan.music.vocabulary import START

TAGS = ("style=", "style=jig", "style=reel", "mode=", "mode=major", "mode=minor")
TUNES = Events(EventsConfig(metres=("4/4", "6/8"), lowest=50, highest=70, tags=TAGS))
PLAIN = Events(EventsConfig(metres=("4/4",), lowest=50, highest=70))


def named(tokenizer, tokens):
    return [tokenizer.vocabulary.names[token] for token in tokens]


def pieces():
    return [
        Piece.from_rows([(0, 24, 60)], tags={"style": style}, metres=(metre,))
        for style, metre in (("reel", Metre(0, 4, 4)), ("jig", Metre(0, 6, 8)))
    ]


def test_a_head_tells_what_was_asked_for_and_of_the_rest_that_it_is_not_told():
    assert named(TUNES, tagged_prefix(TUNES, {"mode": "minor"})) == [
        "Start", "Tag_style=", "Tag_mode=minor",
    ]  # fmt: skip
    assert named(TUNES, tagged_prefix(TUNES, {"metre": "6/8", "style": "jig"})) == [
        "Start", "Tag_style=jig", "Tag_mode=", "Metre_6/8",
    ]  # fmt: skip


@pytest.mark.parametrize("tokenizer", [TUNES, PLAIN])
def test_without_tags_a_generator_chooses_them_all(tokenizer):
    assert tagged_prefix(tokenizer, {}) == (START,)


@pytest.mark.parametrize("codec", [Events, Melody, Frames])
def test_every_tokenizer_can_be_asked(codec):
    tokenizer = codec.fit(Summary.of(pieces()), tags=("style",))
    for piece in pieces():
        asked = {"style": piece.tags["style"], "metre": piece.metres[0].name}
        prefix = tagged_prefix(tokenizer, asked)
        assert prefix == tuple(tokenizer.encode(piece)[: len(prefix)])
        assert len(prefix) == 3


@settings(max_examples=50)
@given(
    tags=st.fixed_dictionaries(
        {},
        optional={
            "style": st.sampled_from(["jig", "reel"]),
            "mode": st.sampled_from(["major", "minor"]),
            "metre": st.sampled_from(["4/4", "6/8"]),
        },
    )
)
def test_heads_obey_the_grammar_and_without_tags_they_are_as_long(tags):
    prefix = tagged_prefix(TUNES, tags)
    bare = [untagged(TUNES.vocabulary)[token] for token in prefix]
    for tokens in (prefix, bare):
        assert TUNES.grammar.first_error(np.array(tokens)) is None
    assert len(bare) == len(prefix)
    told = set(named(TUNES, prefix)) - set(named(TUNES, bare))
    assert told == {f"Tag_{k}={v}" for k, v in tags.items() if k != "metre"}


def test_a_tag_called_metre_goes_before_the_metre():
    tokenizer = Events(
        EventsConfig(metres=("4/4",), lowest=50, highest=70, tags=("metre=", "metre=free"))
    )
    assert known_tags(tokenizer.vocabulary) == {"metre": ("free",)}
    assert named(tokenizer, tagged_prefix(tokenizer, {"metre": "free"})) == [
        "Start", "Tag_metre=free",
    ]  # fmt: skip


def test_what_is_known():
    assert known_tags(TUNES.vocabulary) == {
        "style": ("jig", "reel"), "mode": ("major", "minor"), "metre": ("4/4", "6/8"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (
            {"styl": "reel"},
            "--tag styl=reel: this model knows no tag 'styl'; did you mean 'style'?; "
            "it knows style, mode, metre",
        ),
        (
            {"style": "reels"},
            "--tag style=reels: no piece of the corpus had this style; did you mean 'reel'?; "
            "there are jig, reel",
        ),
        ({"style": ""}, "--tag style=: no piece of the corpus had this style; there are jig, reel"),
        (
            {"metre": "5/4"},
            "--tag metre=5/4: no piece of the corpus had this metre; did you mean '4/4'?; "
            "there are 4/4, 6/8",
        ),
    ],
)
def test_an_unknown_tag_is_one_clear_line(tags, message):
    with pytest.raises(UserError) as error:
        tagged_prefix(TUNES, tags)
    assert str(error.value) == message


def test_of_many_values_the_first_are_named():
    tags = ("title=", *(f"title=tune {i:02}" for i in range(30)))
    tokenizer = Events(EventsConfig(metres=("4/4",), lowest=50, highest=70, tags=tags))
    with pytest.raises(UserError, match=r"there are tune 00, .*, tune 23, 6 more$"):
        tagged_prefix(tokenizer, {"title": "?"})


def test_words_become_tags():
    words = ["style=reel", "title=a=b", "composer=J. S. Bach"]
    assert parse_tags(words) == {"style": "reel", "title": "a=b", "composer": "J. S. Bach"}


@pytest.mark.parametrize("word", ["reel", "style=", "=reel", ""])
def test_words_of_another_form_are_refused(word):
    with pytest.raises(UserError, match="--tag must be KEY=VALUE, such as style=reel, got"):
        parse_tags([word])


def test_a_key_is_given_once():
    with pytest.raises(UserError, match="--tag style is given twice: 'reel' and 'jig'"):
        parse_tags(["style=reel", "style=jig"])
