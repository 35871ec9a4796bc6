"""Tunes in ABC notation, as its standard 2.1 (abcnotation.com, 2011) has them.

What sounds is read: notes, chords, rests, ties, tuplets, broken rhythm, key, metre, tempo, repeats,
voices. The rest is passed over: grace notes, chord symbols and fingerings in quotes, ornaments,
slurs, words. An accidental lasts to the end of its bar, in every octave; a tie carries it over the
bar line.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from fractions import Fraction

from rnngan.errors import RejectedFile
from rnngan.music.bars import Bar, WrittenNote, check_measure, is_metre, together
from rnngan.music.midi import MAX_TRACKS

MAX_LETTERS = 300_000
"""In one tune; songs take hundreds. Each letter may be a note, of half a kilobyte."""
MAX_VALUE = 200
"""Letters of a field that are read."""
# Counts of digits are bounded: Python refuses to read numbers of thousands of digits.
_LENGTH = r"\d{0,5}/{0,5}\d{0,5}"
_NOTE = (
    r"(?P<accidental>\^\^?|__?|=)?(?P<letter>[A-Ga-gxzXZ])(?P<octave>[,']*)"
    rf"(?P<length>{_LENGTH})"
)
_CHORD_NOTE = re.compile(_NOTE + "(?P<tie>-)?")
_TOKEN = re.compile(
    rf"""
      \[(?P<field>[A-Za-z]):(?P<value>[^\]]{{0,1000}})\]
    | (?P<bar>(?:\[(?=\|)|[|:\]])+)(?:\s*\[(?=\d))?(?P<after_bar>\d[\d,-]*)?
    | (?:^|\[)(?P<ending>\d[\d,-]*)
    | \((?P<tuplet>[1-9]\d?)(?::(?P<time>\d{{0,2}}))?(?::(?P<count>\d{{0,2}}))?
    | (?P<broken><{{1,3}}|>{{1,3}})
    | (?P<tie>-)
    | (?P<overlay>&)
    | \[(?P<chord>[^|\[\]]*)\](?P<chord_length>{_LENGTH})
    | {_NOTE}""",
    re.VERBOSE,
)
_FIELD = re.compile(r"([A-Zmrsw+]):(?![|:\]])(.*)")
# Spans are bounded where many of them could overlap: else time grows with the square of the line.
_SILENT = re.compile(r'"[^"]*"|![^!\s|]*!|\{[^}]{0,1000}\}|y\d*')
_PROSE = re.compile("[h-tw]{2}")
_OLD_CHORD = re.compile(r"\+([\^_=A-Ga-g,'\d/]{2,})\+")

_SEMITONES = dict(zip("CDEFGAB", (0, 2, 4, 5, 7, 9, 11)))
_ALTERATIONS = {"^": 1, "^^": 2, "_": -1, "__": -2, "=": 0}
_SHARPS = "FCGDAEB"
_MODES = {  # and how many sharps fewer than major
    "": ("major", 0),
    "maj": ("major", 0),
    "ion": ("major", 0),
    "lyd": ("lydian", -1),
    "mix": ("mixolydian", 1),
    "dor": ("dorian", 2),
    "m": ("minor", 3),
    "min": ("minor", 3),
    "aeo": ("minor", 3),
    "phr": ("phrygian", 4),
    "loc": ("locrian", 5),
}


def tunes_in(text: str) -> Iterator[str]:
    """The tunes of an ABC file, one text each, under what the file's head says for all of them."""
    # Tunes that once were mailed bear the marks of quoted-printable; in ABC they mean nothing.
    text = re.sub(r"=20|=\r?\n", "", text).replace("=3D", "=")
    head, *tunes = re.split(r"(?m)^(?=X:)", text)
    for tune in tunes or [""]:
        yield head + tune


def tags_of(tune: str) -> dict[str, str]:
    """`number`, `title`, `composer`, `style`, `key`, `mode`: those that the tune's head has."""
    tags: dict[str, str] = {}
    names = {"X": "number", "T": "title", "C": "composer", "R": "style"}
    for field in filter(None, map(_FIELD.match, _lines(tune))):
        value = " ".join(field[2].split())[:MAX_VALUE]
        if field[1] == "K":
            tags |= _key(value)[1]
            break
        if field[1] in names and value:
            tags.setdefault(names[field[1]], value)
    if "style" in tags:
        tags["style"] = tags["style"].lower().replace("slipjig", "slip jig")
    return tags


def read_tune(tune: str) -> list[Bar]:
    """Bars of one tune, all voices together; none where the field `K:` is missing.

    Raises:
        RejectedFile: `too_large` (past `MAX_LETTERS`), `too_many_tracks`, `too_long`, or
            `no_common_measure`.
    """
    if len(tune) > MAX_LETTERS:
        raise RejectedFile("too_large", f"at most {MAX_LETTERS} letters a tune, got {len(tune)}")
    reader = _Tune()
    for line in _lines(tune):
        field = _FIELD.match(line)
        if field:
            reader.change(field[1], field[2].strip())
        else:
            reader.read(line)
    voices = [voice.finished() for voice in reader.voices.values()]
    return together([bars for bars in voices if bars])


def _lines(tune: str) -> list[str]:
    """Lines without comments."""
    return [line.partition("%")[0].strip() for line in tune.splitlines()]


class _Tune:
    """A tune as it is being read: its head, then lines of music in one voice or another."""

    def __init__(self) -> None:
        self.head = _Voice()
        self.voices: dict[str, _Voice] = {}
        self.voice: _Voice | None = None  # until the head ends with its `K:`

    def change(self, field: str, value: str) -> None:
        """Take in a field such as `M:6/8`."""
        value = value[:MAX_VALUE]
        if self.voice is None:
            self.head.change(field, value)
            if field == "K":
                self.switch("")
        elif field == "V":
            self.switch(value.partition(" ")[0])
        else:
            self.voice.change(field, value)

    def switch(self, name: str) -> None:
        """Go on in a voice; a new one begins with what the head says."""
        if name not in self.voices:
            if len(self.voices) > MAX_TRACKS:  # one of them may be empty: the one without a name
                raise RejectedFile("too_many_tracks", f"at most {MAX_TRACKS} voices are read")
            self.voices[name] = copy.deepcopy(self.head)
        self.voice = self.voices[name]

    def read(self, line: str) -> None:
        """Take in a line of music."""
        line = _SILENT.sub("", line)
        if _PROSE.search(line):  # free text between tunes
            return
        for token in _TOKEN.finditer(_OLD_CHORD.sub(r"[\1]", line)):
            if token["field"]:
                self.change(token["field"], token["value"].strip())
            elif self.voice is not None:
                self.voice.read(token)


class _Voice:
    """One voice as it is being read; times are in quarters from the beginning of the bar."""

    def __init__(self) -> None:
        self.unit: Fraction | None = None  # of note lengths, in whole notes
        self.metre: tuple[int, int] | None = None
        self.key: dict[str, int] = {}  # semitones up by letter
        self.bars: list[Bar] = []
        self.in_repeat = False
        self.tuplet, self.in_tuplet = Fraction(1), 0  # factor, and for how many more notes
        self.broken = Fraction(1)  # factor for the next note
        # Sounding pitch by written pitch, of the last note or chord, and of what is tied over.
        self.sounding: dict[int, int] = {}
        self.tied: dict[int, int] = {}
        self.start_bar(Bar())

    def start_bar(self, bar: Bar) -> None:
        """Begin `bar`, forgetting what ends at a bar line."""
        self.bar = bar
        self.accidentals: dict[str, int] = {}
        self.time = self.last = Fraction(0)  # of the next note, and of the one before it
        self.num_before = 0  # notes of the bar before the last note or chord

    def end_bar(self) -> None:
        """Close the bar, unless there is nothing in it."""
        if self.time:
            self.bar.length = max(self.bar.length, self.time)
            self.bar.metre = self.metre
            self.bars.append(self.bar)
            self.start_bar(Bar())
        self.accidentals.clear()

    def finished(self) -> list[Bar]:
        """All bars, the last with or without a bar line."""
        self.end_bar()
        return self.bars

    def change(self, field: str, value: str) -> None:
        """Take in a field that changes how notes are read."""
        if field == "M":
            self.end_bar()
            self.metre = _metre(value)
        elif field == "L":
            self.unit = _unit(value) or self.unit
        elif field == "K":
            self.key = _key(value)[0]
            if self.unit is None:  # ABC 2.1, 3.1.7
                short = self.metre is not None and Fraction(*self.metre) < Fraction(3, 4)
                self.unit = Fraction(1, 16 if short else 8)
        elif field == "Q":
            tempo = _tempo(value)
            if tempo:
                if self.bar.tempos and self.bar.tempos[-1][0] == self.time:
                    self.bar.tempos.pop()  # the last stands
                self.bar.tempos.append((self.time, tempo))
        elif field == "P" and self.bars and not self.time:
            self.bars[-1].ends_section = True

    def read(self, token: re.Match[str]) -> None:
        """Take in one token of music."""
        if token["bar"]:
            self.bar_line(token["bar"])
        ending = token["after_bar"] or token["ending"]
        if ending:
            self.end_bar()
            self.bar.endings = _numbers(ending)
        elif token["tuplet"]:
            self.start_tuplet(token)
        elif token["broken"]:
            self.break_rhythm(token["broken"])
        elif token["tie"]:
            notes = self.bar.notes
            notes[self.num_before :] = [n._replace(tied=True) for n in notes[self.num_before :]]
            self.tied = self.sounding
        elif token["overlay"]:
            self.bar.length = max(self.bar.length, self.time)
            self.time = self.last = Fraction(0)
            self.num_before = len(self.bar.notes)
        elif token["chord"]:
            heads = list(_CHORD_NOTE.finditer(token["chord"]))
            if heads:
                length = _length(token["chord_length"]) * _length(heads[0]["length"])
                self.sound(heads, length)
        elif token["letter"]:
            self.sound([token], _length(token["length"]))

    def bar_line(self, sign: str) -> None:
        """Take in a bar line such as `|`, `:|`, `::` or `|]`."""
        if not sign.strip("]"):
            return
        if sign == ":":  # its other half stands on another line
            ends, starts = bool(self.time), not self.time
        else:
            ends, starts = sign.startswith(":"), sign.endswith(":")
        double = len(sign.replace(":", "")) > 1
        self.end_bar()
        if self.bars and (ends or starts or double):
            self.bars[-1].ends_section = True
        if self.bars and ends:
            colons = len(sign) - len(sign.lstrip(":"))
            self.bars[-1].plays = 2 if starts else 1 + colons
        # A repeat without a beginning goes back to the double bar before it (ABC 2.1, 4.8).
        if starts or (double and not ends and not self.in_repeat):
            self.bar.starts_repeat = True
        self.in_repeat = starts or (self.in_repeat and not ends)

    def start_tuplet(self, token: re.Match[str]) -> None:
        """`(p:q:r`: the next r notes take q/p of their time (ABC 2.1, 4.13)."""
        p = int(token["tuplet"])
        compound = self.metre is not None and self.metre[0] % 3 == 0 and self.metre[0] > 3
        usual = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}.get(p, 3 if compound else 2)
        self.tuplet = Fraction(int(token["time"] or 0) or usual, p)
        self.in_tuplet = int(token["count"] or 0) or p

    def break_rhythm(self, sign: str) -> None:
        """`a>b`: the first takes half of the second's time, in `a>>b` three quarters of it."""
        if self.time == self.last or self.broken != 1:
            return
        short = Fraction(1, 2 ** len(sign))
        factor, self.broken = (2 - short, short) if sign[0] == ">" else (short, 2 - short)
        notes = self.bar.notes
        notes[self.num_before :] = [
            note._replace(duration=note.duration * factor) for note in notes[self.num_before :]
        ]
        self.time = self.last + (self.time - self.last) * factor

    def sound(self, heads: list[re.Match[str]], length: Fraction) -> None:
        """Add a note, a chord or a rest of `length` units."""
        unit = self.unit or Fraction(1, 8)
        if heads[0]["letter"] in "XZ" and self.metre:  # rests for whole bars
            unit = Fraction(*self.metre)
        duration = 4 * unit * length * self.broken
        if self.in_tuplet:
            duration *= self.tuplet
            self.in_tuplet -= 1
        self.broken = Fraction(1)
        self.last, self.num_before = self.time, len(self.bar.notes)
        self.time += duration
        check_measure(self.time)
        tied, self.tied, self.sounding = self.tied, {}, {}
        for head in heads:
            letter = head["letter"]
            if letter in "xzXZ" or not duration:
                continue
            octave = head["octave"].count("'") - head["octave"].count(",")
            written = (72 if letter.islower() else 60) + 12 * octave + _SEMITONES[letter.upper()]
            pitch = written + self.alteration(head)
            if not head["accidental"]:
                pitch = tied.get(written, pitch)
            self.sounding[written] = pitch
            if head["tie"]:
                self.tied[written] = pitch
            self.bar.notes.append(WrittenNote(self.last, duration, pitch, tied=bool(head["tie"])))

    def alteration(self, head: re.Match[str]) -> int:
        """Semitones up, by its accidental, by one earlier in the bar, or by the key."""
        letter = head["letter"].upper()
        if head["accidental"]:
            self.accidentals[letter] = _ALTERATIONS[head["accidental"]]
        return self.accidentals.get(letter, self.key.get(letter, 0))


def _length(text: str) -> Fraction:
    """Length of a note in units: `3`, `3/2`, `/4`, `//`."""
    numerator, slash, rest = text.partition("/")
    divisor = int(rest.strip("/") or 0) or 2 ** len(slash + rest)
    return Fraction(int(numerator or 1), divisor)


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers of an ending: `1`, `1,3`, `1-3`."""
    numbers: list[int] = []
    for part in re.findall(r"\d{1,3}(?:-\d{1,3})?", text):
        first, _, last = part.partition("-")
        numbers += range(int(first), min(int(last or first), int(first) + 9) + 1)
    return tuple(numbers)


def _metre(value: str) -> tuple[int, int] | None:
    """Numerator and denominator of `M:`, where there are any that a grid can hold."""
    if value.startswith("C"):
        return (2, 2) if value.startswith("C|") else (4, 4)
    match = re.search(r"(\d{1,3}(?:\s*\+\s*\d{1,3})*)\s*\)?\s*/\s*(\d{1,3})", value)
    if match is None:
        return None
    metre = sum(int(part) for part in match[1].split("+")), int(match[2])
    return metre if is_metre(*metre) else None


def _unit(value: str) -> Fraction | None:
    """Note length of `L:1/8`, in whole notes."""
    match = re.match(r"(\d{1,3})(?:\s*/\s*(\d{1,3}))?", value)
    if match is None or not int(match[1]) or not int(match[2] or 1):
        return None
    return Fraction(int(match[1]), int(match[2] or 1))


def _tempo(value: str) -> float | None:
    """Quarters per minute of `Q:1/2=60`, `Q:"Allegro" 3/8=90`, or `Q:120` (quarters)."""
    beat, _, number = re.sub(r'"[^"]*"', "", value).rpartition("=")
    match = re.search(r"\d{1,5}(?:\.\d{1,5})?", number)
    if match is None:
        return None
    lengths = [Fraction(int(a), int(b)) for a, b in re.findall(r"(\d{1,3})/([1-9]\d{0,2})", beat)]
    return float(match[0]) * float(4 * sum(lengths) if lengths else 1)


def _key(value: str) -> tuple[dict[str, int], dict[str, str]]:
    """Semitones up by letter, and the tags `key` and `mode`, of `K:F#m` or `K:D mix ^c`."""
    altered: dict[str, int] = {}
    tags: dict[str, str] = {}
    match = re.match(r"([A-G])([#b]?)\s*([A-Za-z]*)", value)
    if value.startswith("Hp"):  # the Highland bagpipe
        altered = {"F": 1, "C": 1}
    elif match:
        letter, sign, word = match[1], match[2], match[3].lower()
        mode, fewer = _MODES.get(word if word == "m" else word[:3], _MODES[""])
        sharps = _SHARPS.index(letter) - 1 + {"#": 7, "b": -7, "": 0}[sign] - fewer
        order, step = (_SHARPS, 1) if sharps > 0 else (_SHARPS[::-1], -1)
        for i in range(abs(sharps)):
            altered[order[i % 7]] = altered.get(order[i % 7], 0) + step
        tags = {"key": f"{letter}{sign} {mode}", "mode": mode}
    for accidental, letter in re.findall(r"(?<!\S)(\^\^?|__?|=)([A-Ga-g])\b", value):
        altered[letter.upper()] = _ALTERATIONS[accidental]
    return altered, tags
