import io
import math

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy, gaussian_kde, norm

from eval import compat
from eval.compat import (
    TOOLS,
    compare,
    crnngan,
    mgeval,
    mgeval_kl_dist,
    mgeval_overlap_area,
    musdr,
    muspy,
)
from eval.distances import kl_divergence, overlapping_area
from eval.features import FEATURES
from rnngan.errors import UserError
from rnngan.music.midi import read_midi
from rnngan.music.piece import DRUMS, Metre, Piece, Tempo

NO_NOTES = Piece.from_rows([])
ONE_NOTE = Piece.from_rows([(0, 24, 60)])
DYAD = Piece.from_rows([(0, 96, 60), (0, 96, 64)])
TWO_BARS = Piece.from_rows([(t, t + 24, 60) for t in range(0, 192, 24)])
SILENT_BAR = Piece.from_rows([(96 * bar, 96 * bar + 96, 60) for bar in (0, 1, 2, 4, 5, 6, 7)])
DRUMS_ALONE = Piece.from_rows([(t, t + 6, 36, 100, DRUMS) for t in (0, 6, 24, 32, 48)])
TRIPLETS = Piece.from_rows([(t, t + 8, 60 + t // 8) for t in range(0, 96, 8)])
TWO_METRES = Piece.from_rows(
    [(t, t + 24, 60) for t in range(0, 240, 24)], metres=(Metre(0, 3, 4), Metre(144, 4, 4))
)
PICKUP = Piece.from_rows([(72, 96, 67), (96, 192, 72), (192, 288, 64)])
D_MAJOR = Piece.from_rows(
    [(24 * i, 24 * i + 24, pitch) for i, pitch in enumerate((62, 64, 66, 67, 69, 71, 73))]
)
HAND_WORKED = {
    "no notes": NO_NOTES,
    "one note": ONE_NOTE,
    "dyad": DYAD,
    "two bars": TWO_BARS,
    "silent bar": SILENT_BAR,
    "drums alone": DRUMS_ALONE,
    "triplets": TRIPLETS,
    "two metres": TWO_METRES,
    "pickup": PICKUP,
    "D major": D_MAJOR,
}


def random_piece(seed, *, drums=True):
    """A few tracks of scale notes on a grid of 32nds or triplets, chords and rests among them."""
    rng = np.random.default_rng(seed)
    rows = []
    for track in range(rng.integers(1, 5)):
        program = DRUMS if drums and rng.random() < 0.25 else int(rng.integers(0, 128))
        step = int(rng.choice([3, 8]))
        scale = np.array([0, 2, 4, 5, 7, 9, 11]) + rng.integers(0, 12)
        for _ in range(rng.integers(1, 80)):
            start = step * int(rng.integers(0, 8 * 96 // step))
            length = step * int(rng.integers(1, 17))
            pitch = int(rng.choice(scale) + 12 * rng.integers(3, 7))
            rows.append((start, start + length, pitch, int(rng.integers(1, 128)), program, track))
    metre = Metre(0, *[(4, 4), (3, 4), (6, 8), (2, 2)][rng.integers(0, 4)])
    # None at which so many steps last 50 ms: whether they touch would be a matter of rounding.
    tempo = Tempo(0, [60.0, 100.0, 120.0, 144.0][rng.integers(0, 4)])
    return Piece.from_rows(rows, metres=(metre,), tempos=(tempo,)).tidied()


# MusPy


def as_muspy(muspy_module, piece):
    tracks = {}
    for start, end, pitch, velocity, program, track in piece.notes.tolist():
        drums = program == DRUMS
        instrument = tracks.setdefault(
            (track, program),
            muspy_module.Track(program=0 if drums else program, is_drum=drums),
        )
        instrument.notes.append(muspy_module.Note(start, pitch, end - start, velocity))
    return muspy_module.Music(resolution=24, tracks=list(tracks.values()))


MUSPY_ARGUMENTS = {
    "pitch_in_scale_rate": lambda piece: {"root": 0, "mode": "major"},
    "drum_in_pattern_rate": lambda piece: {"meter": "duple"},
    "empty_measure_rate": lambda piece: {"measure_resolution": piece.metres[0].ticks_per_bar},
    "groove_consistency": lambda piece: {"measure_resolution": piece.metres[0].ticks_per_bar},
}


def muspy_says(muspy_module, name, piece):
    """A metric of the installed MusPy; NaN where it raises."""
    arguments = MUSPY_ARGUMENTS.get(name, lambda piece: {})(piece)
    try:
        return float(getattr(muspy_module, name)(as_muspy(muspy_module, piece), **arguments))
    except ValueError:  # the maximum of nothing
        assert not len(piece.notes)
        return math.nan


def assert_as_muspy_says(piece):
    module = pytest.importorskip("muspy")
    ours = muspy(piece)
    assert len(ours) == 14
    for name, value in ours.items():
        theirs = muspy_says(module, name, piece)
        assert value == pytest.approx(theirs, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("name", HAND_WORKED)
def test_muspy_on_hand_worked_pieces(name):
    assert_as_muspy_says(HAND_WORKED[name])


@pytest.mark.parametrize("seed", range(40))
def test_muspy_on_random_pieces(seed):
    assert_as_muspy_says(random_piece(seed))


def test_where_muspy_is_wrong():
    assert muspy(DYAD)["polyphony_rate"] == 0
    assert muspy(TWO_BARS)["groove_consistency"] == pytest.approx(1 - 4 / 192)  # 0.979
    assert muspy(SILENT_BAR)["empty_measure_rate"] == 0
    assert muspy(DRUMS_ALONE)["pitch_range"] == -127


def test_muspy_without_tracks_errs_where_it_looks_for_the_end():
    values = muspy(NO_NOTES)
    assert values["n_pitches_used"] == values["pitch_range"] == 0
    for name in ("empty_beat_rate", "empty_measure_rate", "polyphony", "groove_consistency"):
        assert math.isnan(values[name])


# mgeval


def as_pretty_midi(piece):
    """As mgeval reads it, from a file."""
    file = io.BytesIO()
    piece.to_pretty_midi().write(file)
    file.seek(0)
    return pretty_midi.PrettyMIDI(file)


@pytest.mark.parametrize("seed", range(20))
def test_what_mgeval_asks_of_pretty_midi(seed):
    piece = random_piece(seed, drums=seed % 4 == 0)
    midi, ours = as_pretty_midi(piece), mgeval(piece)
    frames = midi.instruments[0].get_piano_roll(fs=100).sum(axis=1)
    used = np.flatnonzero(frames)
    assert ours["total_used_pitch"] == len(used)
    assert ours["pitch_range"] == pytest.approx(
        np.ptp(used) if len(used) else math.nan, nan_ok=True
    )
    assert ours["avg_IOI"] == pytest.approx(np.diff(midi.get_onsets()).mean(), abs=1e-6)
    assert np.array_equal(
        ours["pitch_class_transition_matrix"], midi.get_pitch_class_transition_matrix().ravel()
    )
    if len(used):
        classes = np.bincount(np.arange(128) % 12, frames)
        # pretty_midi loses a frame here and there to the last bit of a float
        assert ours["total_pitch_class_histogram"] == pytest.approx(
            classes / classes.sum(), abs=0.01
        )


def first_track(piece, *, signature_among_notes):
    """Absolute ticks and messages of the track of notes that mgeval reads, at 480 a quarter."""
    file = io.BytesIO()
    piece.to_pretty_midi().write(file)
    file.seek(0)
    tracks = mido.MidiFile(file=file).tracks
    messages = list(tracks[1])
    events, tick = [], 0
    for message in messages:
        tick += message.time
        events.append((tick, message))
    if signature_among_notes:
        tick, signatures = 0, []
        for message in tracks[0]:
            tick += message.time
            if message.type == "time_signature":
                signatures.append((tick, message))
        events = sorted(signatures + events, key=lambda event: event[0])
    return events


def lengths_by_messages(events):
    """mgeval's classes of the lengths of notes, from MIDI messages one by one."""
    bar, found = 4 * 480, []
    for i, (tick, message) in enumerate(events):
        if message.type == "time_signature":
            power = int(math.log2(message.denominator))
            bar = power * 480 * 4 / message.denominator  # mgeval: data[1] for the numerator
        if message.type == "note_on" and message.velocity:
            off = next(
                when
                for when, later in events[i:]
                if later.type in ("note_on", "note_off")
                and later.note == message.note
                and (later.type == "note_off" or not later.velocity)
            )
            sizes = bar / 96 * np.array([96, 48, 24, 12, 6, 72, 36, 18, 9, 32, 16, 8])
            found.append(int(np.abs(sizes - (off - tick)).argmin()))
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("among_notes", [False, True])
def test_mgeval_note_lengths(seed, among_notes):
    piece = random_piece(seed)
    lengths = lengths_by_messages(first_track(piece, signature_among_notes=among_notes))
    counts = np.bincount(lengths, minlength=12)
    name = "note_length_hist" + "[signature in track 1]" * among_notes
    assert mgeval(piece)[name] == pytest.approx(counts / counts.sum())


def test_mgeval_by_hand():
    chord = Piece.from_rows([(0, 24, 60), (0, 24, 64), (24, 48, 67), (24, 48, 36, 64, DRUMS, 1)])
    values = mgeval(chord)
    assert values["avg_pitch_shift"] == (4 + 3) / 2
    assert values["avg_IOI"] == 0.5 / 3  # with the drum, and 0 within the chord
    assert values["total_used_note"] == 3
    assert values["note_length_hist"][2] == 1
    assert values["note_length_hist[signature in track 1]"][1] == 1  # quarters filed as halves
    assert values["note_length_transition_matrix"][2 * 12 + 2] == 2


def test_mgeval_transitions_touch_within_50_ms_and_short_notes_follow_themselves():
    rows = [(0, 22, 60), (24, 25, 62), (48, 72, 64)]
    for tempo, pairs in ((106.0, {(0, 2), (2, 2)}), (94.0, {(2, 2)})):  # gaps of 47 and 53 ms
        piece = Piece.from_rows(rows, tempos=(Tempo(0, tempo),))
        matrix = mgeval(piece)["pitch_class_transition_matrix"].reshape(12, 12)
        assert {(int(a), int(b)) for a, b in np.argwhere(matrix)} == pairs
        assert matrix.sum() == len(pairs)


def test_mgeval_without_what_it_needs():
    assert math.isnan(mgeval(NO_NOTES)["total_used_pitch"])
    assert mgeval(DRUMS_ALONE)["total_used_pitch"] == 0
    assert math.isnan(mgeval(DRUMS_ALONE)["pitch_range"])


def test_mgeval_does_not_see_shift_and_scale():
    x = np.random.default_rng(0).normal(size=200)
    assert mgeval_kl_dist(x, x + 100) == pytest.approx(0, abs=1e-9)
    assert mgeval_kl_dist(x, 50 * x) == pytest.approx(0, abs=1e-9)
    assert kl_divergence(x, x + 100) > 10


def test_mgeval_overlap_loses_the_tails():
    x = np.random.default_rng(1).normal(size=100)
    width = x.std(ddof=1) * len(x) ** -0.2
    inside = norm.cdf((x.max() - x) / width) - norm.cdf((x.min() - x) / width)
    assert mgeval_overlap_area(x, x) == pytest.approx(inside.mean(), abs=1e-6)
    assert mgeval_overlap_area(x, x) == pytest.approx(0.983, abs=0.004)
    assert overlapping_area(x, x) == pytest.approx(1)


def test_mgeval_densities_are_scipys():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=50), rng.poisson(3, size=60).astype(float)
    points = np.linspace(-5, 5, 11)
    assert [compat.kernel_density(b)(x) for x in points] == pytest.approx(gaussian_kde(b)(points))
    densities = [gaussian_kde(s)(np.linspace(s.min(), s.max(), 1000)) for s in (a, b)]
    assert mgeval_kl_dist(a, b) == pytest.approx(entropy(*densities))


def test_mgeval_pairs_stand_twice():
    within, between = compat.mgeval_distances(np.array([0.0, 1.0, 3.0]), np.array([5.0, 6.0]))
    assert sorted(within) == [1, 1, 2, 2, 3, 3]
    assert between.tolist() == [5, 6, 4, 5, 2, 3]


def test_mgeval_has_nothing_to_say_without_spread():
    assert math.isnan(mgeval_overlap_area([2, 2, 2], [1, 2, 3]))
    assert math.isnan(mgeval_kl_dist([2, 2, 2], [1, 2, 3]))


# MusDr


def test_musdr_groove_of_a_chorale(tmp_path):
    """Of the MIDI file that music21 writes, where the pickup fills the first quarter of bar 1."""
    music21 = pytest.importorskip("music21")
    path = tmp_path / "bwv66.6.mid"
    music21.corpus.parse("bwv66.6").write("midi", path)
    piece = read_midi(path, {}, beats="file")
    assert musdr(piece)["GS"] == pytest.approx(0.9731, abs=5e-5)
    assert muspy(piece)["groove_consistency"] == pytest.approx(0.9757, abs=5e-5)


def test_musdr_by_hand():
    values = musdr(TWO_BARS)
    assert values["GS"] == 1
    assert values["H (1 bar)"] == values["H (4 bars)"] == 0
    rows = [(0, 24, 60), (48, 72, 62), (96, 120, 60), (192, 384, 60)]
    values = musdr(Piece.from_rows(rows))  # the fourth bar begins no note, and is not there
    assert values["GS"] == pytest.approx(1 - (1 + 1 + 0) / 3 / 64)
    assert values["H (1 bar)"] == pytest.approx(1 / 3)
    assert values["H (4 bars)"] == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))


def test_musdr_leaves_the_last_trigram_out():
    rows = [(24 * i, 24 * i + 24, pitch) for i, pitch in enumerate([60, 62, 64, 65] * 2)]
    assert musdr(Piece.from_rows(rows))["CPI"] == 4 / 5  # CDE DEF EFC FCD CDE, and not DEF
    assert musdr(Piece.from_rows(rows[:3]))["CPI"] == 1


# C-RNN-GAN


def test_crnngan_forgets_the_octave():
    assert crnngan(D_MAJOR)["scale_score"] == pytest.approx(6 / 7)  # 0.857
    assert crnngan(D_MAJOR.transposed(-2))["scale_score"] == 1


def polyphony_by_events(onsets):
    """C-RNN-GAN's count, event by event."""
    single = chords = sounding = last = 0
    for onset in sorted(onsets):
        if onset == last:
            sounding += 1
        else:
            single += sounding == 1
            chords += sounding > 1
            sounding = 1
        last = onset
        single += sounding == 1
        chords += sounding > 1
    return chords / (chords + single) if chords else 0.0


def repetitions_by_pairs(tones, size):
    if size not in range(2, min(len(tones) // 2, 10)):
        return 0
    return sum(
        tones[i : i + size] == tones[j : j + size]
        for i in range(len(tones) - 2 * size)
        for j in range(i + size, len(tones) - size)
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(60, 63)), min_size=1, max_size=30))
def test_crnngan_counts(notes):
    piece = Piece.from_rows((t, t + 1, pitch) for t, pitch in notes)
    values = crnngan(piece)
    tones = piece.notes["pitch"].tolist()
    for size in range(2, 10):
        assert values[f"repetitions_{size}"] == repetitions_by_pairs(tones, size)
    assert values["polyphony_score"] == polyphony_by_events(piece.notes["start"].tolist())


def test_crnngan_by_hand():
    values = crnngan(Piece.from_rows([(0, 24, 57, 30), (24, 48, 69, 90)]))
    assert (values["freq_min"], values["freq_max"], values["freq_span"]) == (220, 440, 220)
    assert (values["tone_span"], values["tones_unique"], values["num_tones"]) == (12, 2, 2)
    assert (values["intensity_min"], values["intensity_max"], values["intensity_span"]) == (
        30,
        90,
        60,
    )


# All of them


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", HAND_WORKED)
def test_every_tool_measures_every_piece_by_the_names_of_its_table(tool, name):
    assert list(TOOLS[tool].measure(HAND_WORKED[name])) == list(TOOLS[tool].metrics)


@pytest.mark.parametrize("tool", TOOLS)
def test_numbers_called_the_same_are_the_same(tool):
    for metric, near in TOOLS[tool].metrics.items():
        assert near.difference
        assert near.name in FEATURES or near.difference.startswith("no such feature")
        if near.difference == compat.SAME:
            for piece in HAND_WORKED.values():
                assert TOOLS[tool].measure(piece)[metric] == pytest.approx(
                    FEATURES[near.name].compute(piece), nan_ok=True
                )


def test_compare_gives_both_sides_and_ours():
    rows = {(row.metric, row.of): row for row in compare("muspy", [DYAD, NO_NOTES], [TWO_BARS] * 2)}
    assert len(rows) == 28
    real = rows["polyphony_rate", "real"]
    assert (real.theirs, real.ours, real.undefined) == (0, 1, 1)
    assert real.ours_name == "polyphony_rate[k=2]"
    groove = rows["groove_consistency", "fake"]
    assert (groove.theirs, groove.ours) == (pytest.approx(0.979, abs=5e-4), 1)


def test_compare_gives_mgeval_set_against_set():
    real = [random_piece(seed) for seed in range(8)]
    rows = compare("mgeval", real, [piece.transposed(3) for piece in real[:6]] + [NO_NOTES])
    sets = {row.metric: row for row in rows if row.of == "real, fake"}
    assert len(sets) == 2 * len(compat.MGEVAL)
    overlap = sets["total_used_note: overlap area"]
    assert overlap.undefined == 1
    assert overlap.ours_name == "overlapping_area of note_count"
    assert 0 < overlap.theirs < 1
    assert 0 < overlap.ours < 1


def test_mgeval_set_metrics_look_at_a_hundred_pieces_a_side(monkeypatch):
    monkeypatch.setattr(compat, "AT_MOST", 3)
    pieces = [random_piece(seed, drums=False) for seed in range(9)]
    few = [pieces[0], pieces[3], pieces[6]]
    one, other = (
        [row.theirs for row in compare("mgeval", side, side) if row.of == "real, fake"]
        for side in (pieces, few)
    )
    assert one == pytest.approx(other, nan_ok=True)


def test_compare_refuses_a_tool_that_it_does_not_know():
    with pytest.raises(UserError, match=r"muspi.*did you mean 'muspy'\?"):
        compare("muspi", [DYAD], [DYAD])
