import base64
import io
import re
import wave
from html.parser import HTMLParser

import numpy as np
import pytest

from eval.evaluation import evaluate
from eval.features import features_of, select
from eval.gallery import choose
from eval.page import as_html
from eval.pictures import pictures
from eval.pieces import Side
from eval.report import as_json
from eval.statistics import FeatureTable, Statistics, bins_of, row_dtype
from eval.wording import number
from rnngan.music.piece import Piece

VOID = {"img", "meta", "br"}
STRANGE = '<script src="http://x.org/a.js">$&'


class Page(HTMLParser):
    """A page whose every element is closed in order; what is in it."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def tune(number):
    pitches = [60 + (number * i * i) % 11 for i in range(24)]
    rows = [(12 * i, 12 * i + 12, p) for i, p in enumerate(pitches)]
    return Piece.from_rows(rows, tags={"source": f"{STRANGE}{number}.mid"})


def side(name, start, count=6):
    return Side(name=name, pieces=tuple(tune(start + i) for i in range(count)))


def page_of(*sides, metrics="pitch_range,pitch_entropy,pitch_class_transitions[50ms]"):
    evaluation = evaluate(
        sides[0], sides[1:], metrics=select(metrics), resamples=10, permutations=19, workers=1
    )
    gallery = choose(evaluation)
    record = as_json(evaluation, gallery)
    return as_html(evaluation, gallery, pictures(evaluation, gallery), record), gallery


@pytest.fixture(scope="module")
def written():
    return page_of(side("real", 1), side(f"gan {STRANGE}", 20), side("other", 40))


@pytest.fixture(scope="module")
def page(written):
    return Page(written[0])


def test_nothing_is_loaded_from_anywhere(written, page):
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.elements:
        assert not {"href", "srcset", "action", "style"} & set(attributes), tag
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:")
    (style,) = re.findall("<style>(.*?)</style>", written[0], re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style


def test_structure(page):
    assert page.elements[0] == ("html", {"lang": "en"})
    assert len(page.all("h1")) == len(page.all("title")) == 1
    assert all(image["alt"] for image in page.all("img"))
    said = " ".join(page.words)
    for heading in ("Numbers over the pieces", "Self-similarity", "Pieces to look at"):
        assert heading in said


def test_every_row_of_a_table_is_as_wide_as_its_head(written):
    for table in re.findall("<table>(.*?)</table>", written[0], re.DOTALL):
        head, *rows = re.findall("<tr.*?</tr>", table, re.DOTALL)
        for row in rows:
            spans = sum(int(span) - 1 for span in re.findall('colspan="([0-9]+)"', row))
            assert row.count("<td") + spans == head.count("<th")


def test_each_piece_has_a_name_a_roll_a_sound_and_what_is_odd_about_it(written, page):
    shown = [e for s in written[1] for exhibits in s.exhibits.values() for e in exhibits]
    sounds = [audio["src"] for audio in page.all("audio")]
    rolls = [i for i in page.all("img") if i["alt"].startswith("Piano roll of <script")]
    assert len(shown) == len(sounds) == len(rolls) == len(page.all("figure"))
    assert all("controls" in audio for audio in page.all("audio"))
    for source in sounds:
        head, data = source.split(",")
        assert head == "data:audio/wav;base64"
        with wave.open(io.BytesIO(base64.b64decode(data, validate=True))) as file:
            assert file.getnframes() == 7 * file.getframerate()  # 6 s and a tail
            assert any(file.readframes(file.getnframes()))
    for selection in written[1]:
        for kind, exhibits in selection.exhibits.items():
            assert all(f"{kind}: {exhibit.title}" in page.words for exhibit in exhibits)
    extreme = shown[-1].extremes[0]
    low, high = map(number, extreme.middle)
    told = f"{extreme.feature} {number(extreme.value)} (real {low} … {high})"
    assert any(told in words for words in page.words)


def test_names_are_text(page):
    assert any(f"gan {STRANGE}" in words for words in page.words)


def test_of_statistics_there_are_names_but_nothing_to_see_and_hear():
    real = side("real", 1)
    names = ["pitch_range", "pitch_entropy"]
    rows = [tuple(features_of(piece, names).values()) for piece in real.pieces]
    table = FeatureTable(np.array(rows, row_dtype(bins_of(names))))
    kept = Side(
        name="kept",
        statistics=Statistics(
            table=table,
            titles=tuple(real.title(i) for i in range(6)),
            piece_hashes=real.piece_hashes,
        ),
    )
    text, gallery = page_of(kept, side("gan", 20), metrics=",".join(names))
    page = Page(text)
    assert sum("here as statistics" in words for words in page.words) == 1
    assert len(page.all("figure")) - len(page.all("audio")) == len(
        [e for exhibits in gallery[0].exhibits.values() for e in exhibits]
    )
    assert any(real.title(0)[:10] in words for words in page.words)
    assert "Self-similarity" in page.words
    text, _ = page_of(side("gan", 20), kept, metrics=",".join(names))
    assert "Self-similarity" not in Page(text).words


def test_without_numbers_there_are_no_pieces_to_show():
    text, gallery = page_of(side("real", 1), side("gan", 20), metrics="pitch_histogram")
    assert gallery == ()
    assert not Page(text).all("audio")
