from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.data.duplicates import (
    MAX_NOTES,
    MIN_NOTES,
    NEAR,
    SKETCH_SIZE,
    Signature,
    common_notes,
    groups,
    melody_key,
    near,
    signature,
)
from rnngan.music.piece import DRUMS, NOTE, Metre, Piece, Tempo

SCALE = (0, 2, 4, 5, 7, 9, 11, 12, 14, 16, 17, 19)


def pitches_of_a_tune(rng, num_notes=60):
    """Phrases on a scale, in small steps, as AABA."""
    place, phrases = int(rng.integers(4, 8)), []
    for _ in range(2):
        phrase = []
        for _ in range(num_notes // 4):
            place = int(np.clip(place + rng.choice([-3, -2, -1, -1, 0, 1, 1, 2, 4]), 0, 11))
            phrase.append(60 + SCALE[place])
        phrases.append(phrase)
    a, b = phrases
    return a + a + b + a


def piece_of(pitches, lengths=(12,)):
    ends = np.cumsum([lengths[i % len(lengths)] for i in range(len(pitches))])
    starts = ends - [lengths[i % len(lengths)] for i in range(len(pitches))]
    return Piece.from_rows(list(zip(starts.tolist(), ends.tolist(), pitches)))


def edited(pitches, rng, rate=0.05):
    """So many of the notes changed, left out, or ornamented by a note after them."""
    pitches = list(pitches)
    for i in sorted(rng.choice(len(pitches), round(rate * len(pitches)), replace=False))[::-1]:
        match rng.integers(3):
            case 0:
                pitches[i] += int(rng.choice([-4, -2, -1, 1, 2, 3]))
            case 1:
                del pitches[i]
            case 2:
                pitches.insert(i, pitches[i] + int(rng.choice([-2, 2])))
    return pitches


def group_sets(found):
    return {frozenset(np.flatnonzero(found == name).tolist()) for name in set(found.tolist())}


def longest_common(one, other):
    """The textbook's table."""
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1, j + 1] = (
                table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
            )
    return int(table[-1, -1])


def near_by_brute_force(one, other):
    needed = NEAR * max(len(one), len(other))
    return any(
        longest_common([p + shift for p in one], list(other)) >= needed
        for shift in range(min(other) - max(one), max(other) - min(one) + 1)
    )


# The measure

few = st.lists(st.integers(60, 64), min_size=1, max_size=14).map(bytes)


@given(few, few, st.integers(-3, 3))
@settings(max_examples=100, deadline=None)
def test_common_notes_are_those_of_the_textbook(one, other, shift):
    assert common_notes(one, other, shift) == longest_common([p + shift for p in one], list(other))


@given(few, few, st.integers(0, 40), st.data())
@settings(max_examples=100, deadline=None)
def test_near_means_nine_notes_in_ten_in_some_key(one, other, shift, data):
    if data.draw(st.booleans()):  # often really near
        place = data.draw(st.integers(0, len(one) - 1))
        other = one[:place] + data.draw(st.sampled_from([b"", b"\x3c", b"\x3d"])) + one[place + 1 :]
        other = other or one
    moved = bytes(pitch + shift for pitch in other)
    expected = near_by_brute_force(one, other)
    assert near(one, moved) == near(moved, one) == expected


@pytest.mark.parametrize(("changes", "expected"), [(0, True), (2, True), (3, False)])
def test_one_note_in_ten_may_differ(changes, expected):
    tune = bytes(pitches_of_a_tune(np.random.default_rng(0), num_notes=20))
    other = bytearray(pitch + 7 for pitch in tune)
    for i in range(changes):
        other[3 + 6 * i] = 100 + i
    assert near(tune, bytes(other)) is expected


# Groups


def test_planted_duplicates_are_found():
    """100 of 100 of each kind on this seed; of kinds that share 95 % of the notes 98 % must be."""
    rng = np.random.default_rng(1)
    tunes = [pitches_of_a_tune(rng) for _ in range(100)]
    kinds = {
        "transposed": lambda tune: piece_of(tune).transposed(int(rng.integers(-6, 7))),
        "edited": lambda tune: piece_of(edited(tune, rng)),
        "edited and transposed": lambda tune: piece_of(edited(tune, rng)).transposed(-5),
        "pickup": lambda tune: piece_of([67, 69, *tune]),
        "metre and rhythm": lambda tune: replace(
            piece_of(tune, (18, 6)), metres=(Metre(0, 6, 8),), tempos=(Tempo(0, 90.0),)
        ),
        "accompanied": lambda tune: Piece.from_rows(
            [
                *piece_of(tune).notes.tolist(),
                *((96 * i, 96 * i + 96, 48, 64, 32, 1) for i in range(8)),
                *((24 * i, 24 * i + 6, 36, 64, DRUMS, 2) for i in range(30)),
            ]
        ),
    }
    originals = [signature(piece_of(tune)) for tune in tunes]
    for kind, make in kinds.items():
        found = groups([*originals, *(signature(make(tune)) for tune in tunes)])
        assert np.mean(found[:100] == found[100:]) >= 0.98, kind
        assert len(set(found[:100].tolist())) == 100, kind  # different tunes stay apart


def test_groups_are_those_of_comparing_all_pairs():
    """On 200 tunes in families with one note in 20 changed from one to the next."""
    rng = np.random.default_rng(2)
    tunes = []
    for _ in range(50):
        tunes.append(pitches_of_a_tune(rng, num_notes=40))
        for _ in range(3):
            tunes.append(edited(tunes[-1], rng))
    signatures = [signature(piece_of(tune)) for tune in tunes]
    linked = np.eye(200, dtype=bool)
    for i in range(200):
        for j in range(i):
            linked[i, j] = linked[j, i] = near(bytes(tunes[i]), bytes(tunes[j]))
    for _ in range(8):  # paths of up to 256 links
        linked = linked @ linked
    expected = {frozenset(np.flatnonzero(row).tolist()) for row in linked}
    assert group_sets(groups(signatures)) == expected
    assert 1 < max(map(len, expected)) < 9


def test_groups_do_not_depend_on_the_order():
    rng = np.random.default_rng(3)
    tunes = [pitches_of_a_tune(rng, num_notes=24) for _ in range(20)]
    tunes += [edited(tune, rng, 0.04) for tune in tunes for _ in range(2)]
    signatures = [signature(piece_of(tune)) for tune in [*tunes, *tunes[:5]]]
    names = [signatures[i].exact for i in groups(signatures)]
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(signatures)).tolist()
        shuffled = [signatures[i] for i in order]
        found = groups(shuffled)
        assert [shuffled[i].exact for i in found] == [names[i] for i in order]
        np.testing.assert_array_equal(found[found], found)


def test_a_group_is_closed():
    """Each of a chain is near the next; the ends are not near each other."""
    rng = np.random.default_rng(4)
    chain = [pitches_of_a_tune(rng, num_notes=40)]
    for i in range(6):
        chain.append([*chain[-1][: 6 * i], 90 + i, 95 + i, *chain[-1][6 * i + 2 :]])
    assert not near(bytes(chain[0]), bytes(chain[-1]))
    assert len(group_sets(groups([signature(piece_of(tune)) for tune in chain]))) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([60, 62, 64, 65, 67, 65, 64], [60, 62, 64, 65, 67, 65, 64, 62]),  # short
        ([60] * 50, [60] * 49),  # one pitch
        ([60, 62] * 25, [60, 62] * 24),  # two
    ],
)
def test_what_says_too_little_is_compared_as_a_whole(one, other):
    a, b = (signature(piece_of(pitches)) for pitches in (one, other))
    assert a.melody == a.sketch == b""
    assert groups([a, b]).tolist() == [0, 1]
    assert groups([a, a]).tolist() == [0, 0]


def test_drums_alone_are_compared_as_a_whole():
    def beat(pitch):
        return Piece.from_rows([(24 * i, 24 * i + 6, pitch + i % 5, 64, DRUMS) for i in range(32)])

    one, same, other = signature(beat(36)), signature(beat(36)), signature(beat(40))
    assert one.melody == b""
    found = groups([one, same, other])
    assert found[0] == found[1] != found[2]


def test_what_very_many_share_is_no_burden():
    """Each tune begins with one of two fanfares; buckets of hundreds, and no tune like another."""
    rng = np.random.default_rng(5)
    fanfares = [pitches_of_a_tune(rng, num_notes=12) for _ in range(2)]
    tunes = [fanfares[i % 2] + pitches_of_a_tune(rng, num_notes=40) for i in range(600)]
    copies = [edited(tune, rng, 0.04) for tune in tunes[:50]]
    found = groups([signature(piece_of(tune)) for tune in [*tunes, *copies]])
    assert np.mean(found[:50] == found[600:]) >= 0.98
    assert len(group_sets(found[:600])) == 600


def test_no_pieces_and_no_melodies():
    assert groups([]).tolist() == []
    empty = signature(Piece(notes=np.empty(0, NOTE)))
    assert groups([empty, empty]).tolist() == [0, 0]


def test_a_signature_is_small():
    rng = np.random.default_rng(6)
    tune = piece_of(rng.integers(40, 90, 5000).tolist())
    found = signature(tune)
    assert isinstance(found, Signature)
    assert len(found.melody) == MAX_NOTES
    assert len(found.sketch) == 4 * SKETCH_SIZE
    assert len(found.exact) == 16
    assert signature(tune.transposed(5)).sketch == found.sketch
    assert (
        len(signature(piece_of([60, 62, 64, 65, 67, 69, 71, 72][:MIN_NOTES])).sketch) == 12
    )  # three runs


# Pieces that are the same in another key


@st.composite
def pieces(draw):
    note = st.tuples(
        st.integers(0, 300),
        st.integers(1, 96),
        st.integers(30, 90),
        st.just(64),
        st.sampled_from([0, DRUMS]),
    )
    notes = draw(st.lists(note, min_size=1, max_size=12, unique=True))
    return Piece.from_rows([(start, start + size, *rest) for start, size, *rest in notes])


@given(pieces(), st.integers(-30, 30), st.integers(0, 500))
@settings(max_examples=150, deadline=None)
def test_the_key_of_a_melody_ignores_transposition_and_silence_before(piece, semitones, silence):
    moved = piece.transposed(semitones)
    notes = moved.notes.copy()
    for field in ("start", "end"):
        notes[field] += silence
    assert melody_key(replace(moved, notes=notes)) == melody_key(piece)


def test_the_key_of_a_melody_ignores_how_it_is_played():
    rows = [(0, 24, 60, 64, 0, 0), (0, 24, 64, 64, 0, 1), (24, 48, 62, 64, 0, 0)]
    other = [(0, 24, 60, 90, 40, 1), (0, 24, 64, 30, 5, 0), (24, 48, 62, 64, 0, 0)]
    changed = Piece.from_rows(
        [*other, (0, 24, 60, 10, 7, 2)],  # a doubled note is one
        tempos=(Tempo(0, 60.0),),
        metres=(Metre(0, 3, 4),),
        tags={"title": "b"},
    )
    assert melody_key(Piece.from_rows(rows)) == melody_key(changed)


@pytest.mark.parametrize(
    "other",
    [
        [(0, 24, 60), (24, 48, 63), (24, 30, 36, 64, DRUMS)],  # an interval
        [(0, 24, 60), (24, 47, 62), (24, 30, 36, 64, DRUMS)],  # a length
        [(0, 24, 60), (25, 48, 62), (24, 30, 36, 64, DRUMS)],  # an onset
        [(0, 24, 60), (24, 48, 62), (24, 30, 38, 64, DRUMS)],  # another drum
        [(0, 24, 60), (24, 48, 62), (24, 30, 36)],  # no drum
        [(0, 24, 60), (24, 48, 62)],
        [],
    ],
)
def test_the_key_of_a_melody_tells_others_apart(other):
    piece = Piece.from_rows([(0, 24, 60), (24, 48, 62), (24, 30, 36, 64, DRUMS)])
    changed = Piece.from_rows(other) if other else Piece(notes=np.empty(0, NOTE))
    assert melody_key(piece) != melody_key(changed)
