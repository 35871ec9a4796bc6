"""What is in a prepared corpus, what its preparation cost, and what the named corpora are: text.

Everything is plain, aligned, and at most `WIDTH` columns wide.
"""

from __future__ import annotations

import heapq
import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rnngan.data.corpora import CORPORA, MUSIC21_RIGHTS, Corpus
from rnngan.data.splits import SPLITS
from rnngan.data.store import Store
from rnngan.errors import UserError, nearest_name
from rnngan.music.audio import render_wav
from rnngan.music.midi import write_midi
from rnngan.music.picture import note_name, piano_roll_png
from rnngan.music.piece import DRUMS, TICKS_PER_QUARTER, Piece
from rnngan.music.tokenizers.base import Tokenizer
from rnngan.music.tokenizers.tuples import COLUMNS, Tuples

WIDTH = 100
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_LABEL = 12
_TIED = "\N{NO-BREAK SPACE}"
_MOST_LISTED, _MOST_VALUES = 5, 20
_CHUNK = 1 << 20
"""Rows that are looked at together, more only where a single piece has more."""
_METRES, _PROGRAMS = ("Metre", "TimeSig"), ("Program",)
"""What tokenizers call the kinds of token of which the pieces that have them are counted."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
    """Figures of a prepared corpus.

    Attributes:
        sizes: Tokens (or rows), bars and notes of each piece, `(pieces, 3)`.
        splits: Split of each piece, its place in `SPLITS`, `(pieces,)`.
        token_counts: How often each token occurs, `(vocab,)`; empty where rows are no tokens.
        metres: Pieces with each metre; empty where the tokenizer has no token for it.
        programs: Pieces with each program, likewise.
        tags: Pieces with each value, by key.
        groups: Pieces of each group of near-duplicates, at least two, the largest group first.
    """

    sizes: Counts
    splits: npt.NDArray[np.uint8]
    token_counts: Counts
    metres: Counter[str]
    programs: Counter[str]
    tags: Mapping[str, Counter[str]]
    groups: Sequence[Counts]

    @staticmethod
    def of(store: Store) -> Statistics:
        """Of a store, of which a little at a time is in memory."""
        sizes = np.zeros((len(store), 3), np.int64)
        sizes[:, 0] = np.diff(store.offsets)
        group = np.zeros(len(store), np.int64)
        tags: dict[str, Counter[str]] = {}
        for i, entry in enumerate(store.entries()):
            sizes[i, 1:] = entry["bars"], entry["notes"]
            group[i] = entry["group"]
            for key, value in entry["tags"].items():
                tags.setdefault(key, Counter())[value] += 1
        token_counts, pieces_with = _count_tokens(store)

        def named(kinds: Iterable[str]) -> Counter[str]:
            return Counter(
                {
                    name.partition("_")[2]: count
                    for name, count in pieces_with.items()
                    if name.partition("_")[0] in kinds
                }
            )

        return Statistics(
            sizes=sizes,
            splits=store.splits,
            token_counts=token_counts,
            metres=named(_METRES),
            programs=named(_PROGRAMS),
            tags=dict(sorted(tags.items())),
            groups=_members(group),
        )


def _count_tokens(store: Store) -> tuple[Counts, dict[str, int]]:
    """How often each token occurs; and of metres and programs, by name, in how many pieces."""
    if store.codec.width:
        return np.zeros(0, np.int64), {}
    vocabulary = store.tokenizer.vocabulary
    counts = np.zeros(len(vocabulary), np.int64)
    runs = [ids for kind in _METRES + _PROGRAMS if (ids := vocabulary.ids(kind))]
    with_it = np.zeros(len(vocabulary), np.int64)
    starts = np.arange(0, len(store.tokens), _CHUNK)
    borders = np.unique(np.append(np.searchsorted(store.offsets, starts), len(store)))
    for first, last in zip(borders[:-1].tolist(), borders[1:].tolist()):
        offsets = store.offsets[first : last + 1]
        tokens = np.asarray(store.tokens[offsets[0] : offsets[-1]])
        counts += np.bincount(tokens, minlength=len(vocabulary))
        for ids in runs:
            places = np.flatnonzero((tokens >= ids.start) & (tokens < ids.stop))
            piece = np.searchsorted(offsets, places + offsets[0], side="right") - 1
            seen = np.zeros((last - first, len(ids)), np.bool_)
            seen[piece, tokens[places] - ids.start] = True
            with_it[ids.start : ids.stop] += seen.sum(axis=0)
    return counts, {vocabulary.names[i]: int(with_it[i]) for ids in runs for i in ids}


def _members(group: Counts) -> list[Counts]:
    """Pieces of each group of several, largest group first, of equals the earliest."""
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    several = [part for part in parts if len(part) > 1]
    return sorted(several, key=lambda part: (-len(part), int(part[0])))


def statistics_text(store: Store) -> str:
    """Tokenizer, sizes, metres, programs, tags, rejects, near-duplicates, the largest pieces."""
    found, about = Statistics.of(store), store.manifest
    rows = "rows" if store.codec.width else "tokens"
    lines = [
        f"{_plain(about['corpus'])}: {_counted(len(store), 'piece')} of "
        f"{_counted(about['num_files'], 'file')}, in {store.folder}",
        "",
        *_labelled("tokenizer", _tokenizer_text(store, found)),
        "",
        *_table(
            ("", *SPLITS, "all"),
            [
                (name, *(f"{n:,}" for n in (*per_split, sum(per_split))))
                for name, per_split in _sums_by_split(found, rows)
            ],
            texts=("",),
        ),
        "",
        *_table(
            ("per piece", "least", "5 %", "25 %", "median", "75 %", "95 %", "most"),
            [
                (name, *(f"{n:,}" for n in values))
                for name, values in zip(
                    (rows, "bars", "notes"),
                    np.quantile(found.sizes, QUANTILES, axis=0, method="inverted_cdf").T.tolist(),
                )
            ],
            texts=("per piece",),
        ),
        "",
        "pieces with each",
        *_labelled("metre", _metres_text(store, found), indent=2, most_lines=2),
        *_labelled("program", _programs_text(store, found), indent=2, most_lines=4),
        *_labelled("beats", _counts_text(about["beats"]), indent=2),
    ]
    for key, values in found.tags.items():
        number = f"{len(values):,} values:  " if len(values) > _MOST_VALUES else ""
        text = number + _counts_text(values, most=_MOST_VALUES)
        lines += _labelled(_plain(key, _LABEL - 3), text, indent=2, most_lines=2)
    lines.append("")
    lines += _labelled("rejects", _counts_text(about["rejects"]) or "none")
    lines += _labelled("duplicates", _groups_text(found))
    for group in found.groups[:_MOST_LISTED]:
        names = (f"{i} {_plain(store.entry(i)['name'], 30)}" for i in group[:_MOST_VALUES].tolist())
        lines += _labelled("", _listed(names), most_lines=1)
    largest = np.argsort(-found.sizes[:, 0], kind="stable")[:_MOST_LISTED].tolist()
    lines += [
        "",
        "largest pieces",
        *_table(
            ("number", rows, "bars", "notes", "name"),
            [
                (str(i), *(f"{n:,}" for n in found.sizes[i].tolist()), store.entry(i)["name"])
                for i in largest
            ],
            texts=("name",),
        ),
    ]
    return "\n".join(lines)


def _tokenizer_text(store: Store, found: Statistics) -> str:
    if not len(found.token_counts):
        return f"{store.codec.name}, real numbers: {', '.join(COLUMNS)}"
    used = _counted(int((found.token_counts > 0).sum()), "token")
    return f"{store.codec.name}, a vocabulary of {len(found.token_counts):,}; {used} occur"


def _sums_by_split(found: Statistics, rows: str) -> list[tuple[str, list[int]]]:
    inside = [found.splits == i for i in range(len(SPLITS))]
    columns = ((rows, 0), ("bars", 1), ("notes", 2))
    return [
        ("pieces", [int(some.sum()) for some in inside]),
        *((name, [int(found.sizes[some, i].sum()) for some in inside]) for name, i in columns),
    ]


def _metres_text(store: Store, found: Statistics) -> str:
    if found.metres:
        return _counts_text(found.metres)
    return f"not told; decoded as {store.piece(0).metres[0].name}"


def _programs_text(store: Store, found: Statistics) -> str:
    if found.programs:
        return _counts_text({_program_name(int(p)): n for p, n in found.programs.items()})
    notes = store.piece(0).notes
    return f"all {_program_name(int(notes['program'][0]))}" if len(notes) else "all the same"


def _program_name(program: int) -> str:
    if not 0 <= program < DRUMS:
        return "Drums"
    import pretty_midi

    return f"{pretty_midi.program_to_instrument_name(program)}"


def _groups_text(found: Statistics) -> str:
    if not found.groups:
        return "no two pieces are near-duplicates"
    apart = sum(len(np.unique(found.splits[group])) > 1 for group in found.groups)
    return (
        f"{_counted(len(found.groups), 'group')} of near-duplicates, "
        f"{sum(map(len, found.groups)):,} pieces; "
        f"{apart or 'none'} with pieces in more than one split"
    )


def find_piece(store: Store, wanted: str) -> int:
    """Number of the piece that a person means.

    Args:
        store: Where it is.
        wanted: The name or title of a piece; or its number, counted from 0; or a part of the name
            or title of a single one, in capitals or small letters.

    Raises:
        UserError: There is no such piece, or there are several.
    """
    part = wanted.casefold()
    names, exact, partly = [], [], []
    for i, entry in enumerate(store.entries()):
        called = [entry["name"], entry["tags"].get("title", entry["name"])]
        names.append(entry["name"])
        if wanted in called:
            exact.append(i)
        elif any(part in name.casefold() for name in called):
            partly.append(i)
    if not exact and re.fullmatch(r"0|[1-9][0-9]{0,17}", wanted) and int(wanted) < len(store):
        return int(wanted)
    found = exact or partly
    if len(found) == 1:
        return found[0]
    if not wanted or not found:
        near = nearest_name(wanted, _alike_names(part, names))
        rule = f"; give a number from 0 to {len(store) - 1}, a name, or a part of a name"
        raise UserError(f"no piece {wanted!r} in {store.folder}{near or rule}")
    some = ", ".join(f"{i} {_plain(names[i], 40)}" for i in found[:_MOST_LISTED])
    more = ", …" if len(found) > _MOST_LISTED else ""
    raise UserError(f"{wanted!r} means any of {len(found):,} pieces: {some}{more}; give the number")


def _alike_names(part: str, names: Sequence[str]) -> list[str]:
    """The few that share most runs of three letters, since to compare all in full takes long."""
    runs = {part[i : i + 3] for i in range(max(len(part) - 2, 1))}
    return heapq.nlargest(50, names, lambda name: sum(run in name.casefold() for run in runs))


def piece_text(store: Store, index: int, *, bars: int) -> str:
    """What is known of a piece, and its tokens by name, a bar on each line; or its rows.

    Args:
        store: Where it is.
        index: Its number.
        bars: So many are shown.

    Raises:
        UserError: `bars` is below 1.
    """
    if bars < 1:
        raise UserError(f"--bars must be at least 1, got {bars}")
    entry, piece = store.entry(index), store.piece(index)
    rows = store.piece_tokens(index)
    kind = "rows" if store.codec.width else "tokens"
    mean, largest = entry["onset_error_quarters"]
    seconds = float(piece.seconds_at(piece.end))
    lines = [
        f"piece {index} of {store.folder}",
        "",
        *_labelled("name", _plain(entry["name"])),
        *_labelled("sha256", _plain(entry["sha256"])),
        *_labelled("split", entry["split"]),
        *_labelled(
            "size",
            ", ".join(_counted(entry[name], name[:-1]) for name in ("bars", "notes"))
            + f", {entry['tokens']:,} {kind}, {seconds:.1f} s",
        ),
        *_labelled("metres", _changes_text(m.name for m in piece.metres)),
        *_labelled(
            "tempo",
            _changes_text(f"{t.quarters_per_minute:g}" for t in piece.tempos)
            + " quarters a minute",
        ),
        *_labelled("programs", _notes_by_program(piece) or "no notes", most_lines=4),
        *_labelled("beats", f"{entry['beats']}; onsets {_error_text(mean, largest)}"),
    ]
    for i, (key, value) in enumerate(sorted(entry["tags"].items())):
        lines += _labelled("" if i else "tags", f"{_plain(key, 14)}: {_plain(value)}")
    lines += _labelled("duplicates", _group_text(store, index, entry["group"]), most_lines=2)
    lines.append("")
    if isinstance(store.codec, Tuples):
        lines += _rows_text(store.codec, rows, piece, bars)
    else:
        lines += _bars_text(store.tokenizer, rows, bars)
    return "\n".join(lines)


def _changes_text(values: Iterable[str]) -> str:
    values = list(values)
    some = ", ".join(values[:8])
    return f"{some}, … ({len(values)} in all)" if len(values) > 8 else some


def _notes_by_program(piece: Piece) -> str:
    programs, counts = np.unique(piece.notes["program"], return_counts=True)
    return _counts_text(
        Counter({_program_name(p): n for p, n in zip(programs.tolist(), counts.tolist())})
    )


def _group_text(store: Store, index: int, group: int) -> str:
    others = [
        f"{i} {_plain(entry['name'], 30)}"
        for i, entry in enumerate(store.entries())
        if entry["group"] == group and i != index
    ]
    return _listed(others) or "none"


def _bars_text(tokenizer: Tokenizer, tokens: Counts, most: int) -> list[str]:
    """The head, then a bar on each line, with its number."""
    names = [_plain(tokenizer.vocabulary.names[i], WIDTH - _LABEL) for i in tokens.tolist()]
    begins = [] if tokenizer.bar is None else np.flatnonzero(tokens == tokenizer.bar).tolist()
    parts = [names[i:j] for i, j in zip([0, *begins], [*begins, len(names)])]
    lines = []
    for number, part in enumerate(parts[: most + 1]):
        lines += textwrap.wrap(
            " ".join(name.replace(" ", _TIED) for name in part),
            WIDTH,
            initial_indent=f"{number or '':>5}  ",
            subsequent_indent=" " * 9,
            break_on_hyphens=False,
        )
    lines = [line.replace(_TIED, " ") for line in lines]
    return [*lines, *_left_out(len(parts) - 1 - most)]


def _rows_text(codec: Tuples, rows: npt.NDArray[Any], piece: Piece, most: int) -> list[str]:
    """A row on each line, in the units that people use."""
    values = rows * np.array(codec.config.std) + np.array(codec.config.mean)
    values = np.round(values, 6) + 0.0  # no -0.000
    onsets = np.cumsum(np.rint(values[:, 0] * TICKS_PER_QUARTER))
    bar_lines = piece.bar_lines()
    bar = np.searchsorted(bar_lines, onsets, side="right")
    shown = bar <= most
    table = [
        (
            str(number) if new else "",
            f"{gap:.3f}",
            f"{length:.3f}",
            f"{frequency:.2f}",
            note_name(min(max(round(frequency), 0), 127)),
            f"{127 * velocity:.1f}",
        )
        for number, new, (gap, length, frequency, velocity) in zip(
            bar[shown].tolist(),
            np.diff(bar[shown], prepend=0) > 0,
            values[shown].tolist(),
        )
    ]
    titles = ("bar", "gap", "length", "frequency", "note", "velocity")
    units = ("", "quarters", "quarters", "semitones", "", "of 127")
    return [*_table(titles, [units, *table], texts=()), *_left_out(len(bar_lines) - 1 - most)]


def _left_out(bars: int) -> list[str]:
    return [f"… {_counted(bars, 'more bar')}, shown with a larger --bars"] if bars > 0 else []


def write_piece(store: Store, index: int, folder: Path, *, wav: bool) -> list[Path]:
    """Piano roll, MIDI and sound of a piece as its tokens tell it; the paths written.

    Raises:
        UserError: The folder cannot be written, or the piece is too long for a file.
    """
    piece = store.piece(index)
    file, _, number = Path(piece.tags["source"]).name.partition("#")
    name = f"{index} {Path(file).stem} {number}"
    stem = re.sub(r"[^\w.-]+", "-", name)[:60].rstrip("-.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make folder {folder}: {error.strerror}") from None
    written = [folder / f"{stem}.png", folder / f"{stem}.mid"]
    piano_roll_png([piece], [piece.tags.get("title", name)], written[0])
    write_midi(piece, written[1])
    if wav:
        written.append(folder / f"{stem}.wav")
        render_wav(piece, written[2])
    return written


def report_text(folder: Path) -> str:
    """The `report.json` of a prepared corpus.

    Raises:
        UserError: There is none, or it is damaged.
    """
    path = folder / "report.json"
    try:
        return _report_text(folder, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(
            f"no report in {folder}; reports are made while preparing: "
            "prepare with --report into a new folder"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"the report {path} is damaged ({type(error).__name__}: {error}); "
            "prepare with --report into a new folder"
        ) from None


def _report_text(folder: Path, report: Mapping[str, Any]) -> str:
    reading, alike = report["reading_onset_error_quarters"], report["duplicates"]
    lines = [
        f"report on {folder}",
        "",
        *_labelled(
            "pieces",
            f"{report['pieces']:,} of {_counted(report['files'], 'file')}: "
            + ", ".join(f"{report['splits'][split]:,} {split}" for split in SPLITS),
        ),
        *_labelled("rejects", _counts_text(report["rejects"]) or "none"),
        *_labelled("filters", _counts_text(report["filtered"]) or "none left out"),
        *_labelled(
            "duplicates",
            f"{_counted(alike['groups'], 'group')} of near-duplicates, "
            f"{alike['pieces_in_them']:,} pieces, {alike['largest']:,} in the largest; "
            f"{alike['groups_on_several_sides'] or 'none'} with pieces in more than one split"
            if alike["groups"]
            else "no two pieces are near-duplicates",
        ),
        "",
        *_labelled("notes", f"{report['notes']:,} in {_counted(report['bars'], 'bar')}"),
        *_labelled("beats", _counts_text(report["beats"])),
        *_labelled("reading", f"onsets {_error_text(reading['mean'], reading['largest'])}"),
    ]
    if "tokens_lose" in report:
        lose = report["tokens_lose"]
        error = lose["onset_error_quarters"]
        lines += _labelled("encoding", f"onsets {_error_text(error['mean'], error['largest'])}")
        lines += _labelled(
            "",
            f"{_counted(lose['notes_dropped'], 'note')} dropped "
            f"({_percent(lose['notes_dropped_rate'])})",
        )
    rows = "tokens" if "vocabulary" in report else "rows"
    lines += [
        "",
        *_labelled(
            rows,
            f"{report['tokens']:,}: {report['tokens_per_bar']:.2f} a bar, "
            f"{report['tokens_per_note']:.2f} a note",
        ),
    ]
    if "vocabulary" in report:
        lines += _vocabulary_text(report["vocabulary"])
    return "\n".join(lines)


def _vocabulary_text(vocabulary: Mapping[str, Any]) -> list[str]:
    """Size and use, and of each kind how many there are and how often they occur."""
    size, used, counts = vocabulary["size"], vocabulary["used"], vocabulary["counts"]
    total = max(sum(counts.values()), 1)
    kinds: dict[str, Counter[str]] = {}
    for name, count in counts.items():
        kinds.setdefault(name.split("_", 1)[0], Counter())[name] = count
    unused = Counter(name.split("_", 1)[0] for name in vocabulary["never_used"])
    table = []
    for kind, of_kind in sorted(kinds.items(), key=lambda item: (-item[1].total(), item[0])):
        commonest, _ = of_kind.most_common(1)[0]
        share = _percent(of_kind.total() / total)
        known = len(of_kind) + unused[kind]
        table.append((kind, f"{of_kind.total():,}", share, f"{len(of_kind)} of {known}", commonest))
    return [
        *_labelled("vocabulary", f"{size:,}, of which {used:,} occur ({_percent(used / size)})"),
        "",
        *_table(
            ("kind", "tokens", "share", "occur", "commonest"), table, texts=("kind", "commonest")
        ),
    ]


def corpora_text() -> str:
    """The named corpora, a few lines each."""
    blocks = [
        "\n".join(
            [
                f"{name}: {_counted(corpus.num_pieces, 'piece')}",
                *_labelled("title", corpus.title, indent=2),
                *_labelled("metres", _counts_text(corpus.metres, most=6), indent=2),
                *_labelled("keys", _counts_text(corpus.keys, most=6), indent=2),
                *_labelled("source", corpus.source, indent=2),
                *_labelled("rights", corpus.rights, indent=2),
            ]
        )
        for name, corpus in CORPORA.items()
    ]
    end = [*_music21_rights(), "", "all of one: rnngan corpora NAME"]
    return "\n\n".join([*blocks, "\n".join(end)])


def corpus_text(name: str) -> str:
    """A named corpus in full.

    Raises:
        UserError: There is none of that name.
    """
    if name not in CORPORA:
        raise UserError(
            f"unknown corpus {name!r}{nearest_name(name, list(CORPORA))}; "
            f"corpora are {', '.join(CORPORA)}"
        )
    corpus: Corpus = CORPORA[name]
    keyless = corpus.num_pieces - sum(corpus.keys.values())
    lines = [
        f"{name}: {_counted(corpus.num_pieces, 'piece')}",
        "",
        *_labelled("title", corpus.title),
        *_labelled("metres", _counts_text(corpus.metres)),
        *_labelled(
            "keys",
            _counts_text(corpus.keys) + ("  " + _listed([f"without {keyless}"]) if keyless else ""),
        ),
        *_labelled("source", corpus.source),
        *_labelled("files", f"corpus/{corpus.folder}/*{corpus.suffix} in the package music21"),
        *_labelled("rights", corpus.rights),
        "",
        *_music21_rights(),
        "",
        f"to prepare it: rnngan prepare --corpus {name}",
    ]
    return "\n".join(lines)


def _music21_rights() -> list[str]:
    return [
        "music21 says of all its corpora:",
        *textwrap.wrap(f'"{MUSIC21_RIGHTS}"', WIDTH, initial_indent="  ", subsequent_indent="  "),
    ]


def _labelled(
    label: str, text: str, *, indent: int = 0, most_lines: int | None = None
) -> list[str]:
    """A label and a text beside it, which is broken where the line is full."""
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{' ' * indent}{label:<{_LABEL - indent}}",
        subsequent_indent=" " * _LABEL,
        break_on_hyphens=False,
        max_lines=most_lines,
        placeholder="  …",
    )
    return [line.replace(_TIED, " ") for line in lines]


def _table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, texts: Sequence[str]
) -> list[str]:
    """Columns as wide as they must be, those titled as in `texts` to the left."""
    rows = [titles, *([_plain(cell, WIDTH - 40) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            cell.ljust(width) if title in texts else cell.rjust(width)
            for cell, width, title in zip(row, widths, titles)
        ).rstrip()
        for row in rows
    ]


def _counts_text(counts: Mapping[str, int], *, most: int | None = None) -> str:
    """`reel 312  jig 80`: the commonest first; with `most` no more than that."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    items = [f"{_plain(name, 60)} {count:,}" for name, count in ranked if count]
    return _listed(items if most is None or len(items) <= most else [*items[:most], "…"])


def _listed(items: Iterable[str]) -> str:
    """Items two spaces apart, for `_labelled`, which keeps each of them on one line."""
    return "  ".join(item.replace(" ", _TIED) for item in items)


def _error_text(mean: float, largest: float) -> str:
    """What became of onsets; a 16th is a quarter of a quarter."""
    if not largest:
        return "exact"
    average = f"{mean:.4f}" if mean >= 0.0001 else "less than 0.0001"
    return (
        f"off by {average} quarters on average ({_percent(4 * mean)} of a 16th), "
        f"{largest:.4f} at most ({_percent(4 * largest)})"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _plain(text: str, room: int = WIDTH) -> str:
    """Text for a terminal: no control characters, and no longer than `room`."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= room else f"{text[: room - 1]}…"
