import math
import sys
import types
import wave

import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.errors import UserError
from rnngan.music.audio import (
    DRUM_KIT,
    MAX_SECONDS,
    PEAK,
    SAMPLE_RATE,
    TAIL_SECONDS,
    render_wav,
    synthesise,
)
from rnngan.music.piece import DRUMS, Piece, Tempo

FAMILIES = range(0, 128, 8)
SECOND = 48  # ticks at 120
SOUNDFONT = b"RIFF\0\0\0\0sfbk"


def note(pitch, program=0, velocity=64, start=0, end=SECOND):
    return (start, end, pitch, velocity, program)


def fundamental(samples, rate=SAMPLE_RATE):
    """Lowest strong frequency, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples))
    return np.flatnonzero(spectrum > 0.5 * spectrum.max())[0] * rate / len(samples)


@pytest.mark.parametrize("program", FAMILIES)
def test_a4_sounds_at_440_hz_in_every_family(program):
    samples = synthesise(Piece.from_rows([note(69, program)]))[:SAMPLE_RATE]
    assert fundamental(samples) == pytest.approx(440, abs=1.5)


@given(st.integers(33, 84), st.integers(1, 12), st.sampled_from([0, 16, 40, 73]))
@settings(max_examples=20, deadline=None)
def test_transposition_multiplies_the_frequency(pitch, semitones, program):
    piece = Piece.from_rows([note(pitch, program, end=2 * SECOND)])
    low = fundamental(synthesise(piece)[: 2 * SAMPLE_RATE])
    high = fundamental(synthesise(piece.transposed(semitones))[: 2 * SAMPLE_RATE])
    assert high / low == pytest.approx(2 ** (semitones / 12), abs=0.03)


@pytest.mark.parametrize("program", FAMILIES)
def test_no_sound_outside_the_note_and_its_release(program):
    samples = synthesise(Piece.from_rows([note(60, program, start=SECOND, end=2 * SECOND)]))
    assert len(samples) == round((2 + TAIL_SECONDS) * SAMPLE_RATE)
    assert not samples[:SAMPLE_RATE].any()
    assert samples[SAMPLE_RATE : SAMPLE_RATE + 2000].any()
    assert samples[2 * SAMPLE_RATE : 2 * SAMPLE_RATE + 500].any()
    assert not samples[2 * SAMPLE_RATE + SAMPLE_RATE // 2 :].any()


@pytest.mark.parametrize("program", FAMILIES)
@pytest.mark.parametrize("end", [1, 5, SECOND])
def test_no_click_at_either_end(program, end):
    samples = synthesise(Piece.from_rows([note(36, program, end=end)]))
    # No harmonic of this low note reaches 2 kHz, a click does.
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    high = len(spectrum) * 2000 * 2 // SAMPLE_RATE
    assert spectrum[high:].sum() < 3e-4 * spectrum.sum()


def second_of(samples, second, length=1.0):
    return samples[round(second * SAMPLE_RATE) : round((second + length) * SAMPLE_RATE)]


def brightness(samples):
    """Mean frequency by energy, in bins."""
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    return np.average(np.arange(len(spectrum)), weights=spectrum)


def test_held_strings_swell_and_stay_while_a_piano_dies_away_and_dulls():
    piano, strings = (
        synthesise(Piece.from_rows([note(57, program, end=3 * SECOND)])) for program in (0, 48)
    )
    assert np.std(second_of(strings, 2)) == pytest.approx(np.std(second_of(strings, 0)), rel=0.1)
    assert np.std(second_of(piano, 2)) < 0.3 * np.std(second_of(piano, 0))
    assert brightness(second_of(strings, 2)) == pytest.approx(
        brightness(second_of(strings, 1)), rel=0.01
    )
    assert brightness(second_of(piano, 2)) < 0.9 * brightness(second_of(piano, 0))
    assert np.std(second_of(strings, 0, 0.01)) < 0.2 * np.std(second_of(strings, 0.1, 0.01))
    assert np.std(second_of(piano, 0, 0.01)) > 0.5 * np.std(second_of(piano, 0.1, 0.01))


def test_harmonics_above_half_the_sample_rate_are_left_out():
    assert not synthesise(Piece.from_rows([note(108)]), 8000).any()  # 4,186 Hz
    spectrum = np.abs(np.fft.rfft(synthesise(Piece.from_rows([note(96, 48)]), 8000))) ** 2
    frequencies = np.linspace(0, 4000, len(spectrum))
    assert spectrum[np.abs(frequencies - 2093) > 100].sum() < 0.01 * spectrum.sum()


def test_velocity_is_heard():
    loud = note(60, velocity=127)
    soft = note(60, velocity=64, start=4 * SECOND, end=5 * SECOND)
    samples = synthesise(Piece.from_rows([loud, soft]))
    first, second = (np.std(samples[s * SAMPLE_RATE : (s + 1) * SAMPLE_RATE]) for s in (0, 4))
    # 40 log10(64 / 127) dB
    assert second / first == pytest.approx((64 / 127) ** 2, rel=1e-3)


def test_tempo_is_heard():
    slow = Piece.from_rows([note(69, 48)], tempos=(Tempo(0, 30.0),))
    assert len(synthesise(slow)) == round((4 + TAIL_SECONDS) * SAMPLE_RATE)


def test_notes_add_up():
    rows = note(60, 48), note(67, 48, start=24)
    together = synthesise(Piece.from_rows(rows))
    alone = np.stack([synthesise(Piece.from_rows([row])) for row in rows], axis=1)
    _, [residue], *_ = np.linalg.lstsq(alone, together)
    assert residue < 1e-6 * np.sum(together**2)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 100), st.integers(0, 127), st.integers(1, 127), st.integers(0, DRUMS)
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=25, deadline=None)
def test_never_clips_and_never_fails(drawn):
    rows = [note(pitch, program, velocity, s, s + 12) for s, pitch, velocity, program in drawn]
    samples = synthesise(Piece.from_rows(rows), 8000)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
    loudest = np.abs(samples).max()
    assert loudest == pytest.approx(PEAK, rel=1e-5) or loudest == 0  # above Nyquist nothing sounds


@pytest.mark.parametrize("pitch", [*DRUM_KIT, 76, 0, 127])
def test_every_drum_sounds_and_dies_away(pitch):
    samples = synthesise(Piece.from_rows([note(pitch, DRUMS, end=1)]))
    assert np.std(samples[:1000]) > 0.02
    assert np.std(samples[-4000:]) < 0.01 * np.std(samples[:1000])


def test_a_kick_is_low_and_a_hat_is_high():
    def centre(pitch):
        return brightness(synthesise(Piece.from_rows([note(pitch, DRUMS)])))

    assert centre(36) < centre(45) < centre(38) < centre(42)


def test_a_piece_without_notes_is_silent():
    samples = synthesise(Piece.from_rows([]))
    assert len(samples) == round(TAIL_SECONDS * SAMPLE_RATE) and not samples.any()


def test_a_long_piece_is_faded_out_and_cut():
    piece = Piece.from_rows([note(69, 48, end=20 * SECOND), note(71, 48, start=500, end=600)])
    samples = synthesise(piece, max_seconds=2.0)
    assert len(samples) == 2 * SAMPLE_RATE
    assert np.std(samples[-1000:-500]) > 0.1
    assert abs(samples[-1]) < 1e-6
    assert len(synthesise(piece, 8000, max_seconds=1 / 8000)) == 1


@pytest.mark.parametrize("rate", [0, 7999, 192_001])
def test_sample_rates_out_of_range(rate, tmp_path):
    with pytest.raises(UserError, match="sample_rate must be 8000 to 192000"):
        render_wav(Piece.from_rows([note(60)]), tmp_path / "a.wav", sample_rate=rate)


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_max_seconds_is_positive(seconds):
    with pytest.raises(UserError, match="max_seconds must be positive"):
        synthesise(Piece.from_rows([note(60)]), max_seconds=seconds)


def test_the_file_holds_the_samples(tmp_path):
    piece = Piece.from_rows([note(60), note(40, DRUMS), note(67, 73, start=24)])
    path = tmp_path / "a.wav"
    render_wav(piece, path, sample_rate=22_050)
    with wave.open(str(path)) as file:
        assert file.getparams()[:4] == (1, 2, 22_050, round((1 + TAIL_SECONDS) * 22_050))
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    np.testing.assert_allclose(samples / 32767, synthesise(piece, 22_050), atol=1 / 32767)


def test_equal_pieces_give_equal_bytes(tmp_path):
    rows = [note(60), note(64, 40), note(38, DRUMS, start=10), note(46, DRUMS, start=20)]
    for name, table in (("a", rows), ("b", rows[::-1])):
        render_wav(Piece.from_rows(table), tmp_path / name, sample_rate=8000)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_hours_are_not_rendered(tmp_path):
    piece = Piece.from_rows([note(60, start=MAX_SECONDS * SECOND, end=MAX_SECONDS * SECOND + 1)])
    with pytest.raises(UserError, match="the piece lasts 3600 s"):
        render_wav(piece, tmp_path / "a.wav")


def test_the_soundfont_must_be_there_and_be_one(tmp_path):
    piece, missing, text = Piece.from_rows([note(60)]), tmp_path / "a.sf2", tmp_path / "b.sf2"
    text.write_text("no font")
    with pytest.raises(UserError, match=r"cannot read the SoundFont .*a\.sf2: No such file"):
        render_wav(piece, tmp_path / "a.wav", soundfont=missing)
    with pytest.raises(UserError, match=r"b\.sf2 is not a SoundFont"):
        render_wav(piece, tmp_path / "a.wav", soundfont=text)


def test_a_soundfont_needs_pyfluidsynth(tmp_path, monkeypatch):
    font = tmp_path / "a.sf2"
    font.write_bytes(SOUNDFONT)
    monkeypatch.setitem(sys.modules, "fluidsynth", None)
    with pytest.raises(UserError, match="pip install pyfluidsynth"):
        render_wav(Piece.from_rows([note(60)]), tmp_path / "a.wav", soundfont=font)


@pytest.mark.parametrize(("played", "loudest"), [([0.1, -0.2, 0.0], PEAK), ([0.0], None)])
def test_a_soundfont_is_played_by_fluidsynth(tmp_path, monkeypatch, played, loudest):
    def play(self, *, fs, synthesizer, normalize):
        assert (fs, synthesizer, normalize) == (16_000, str(font), False)
        assert [len(i.notes) for i in self.instruments] == [1]
        return np.array(played)

    font, path = tmp_path / "a.sf2", tmp_path / "a.wav"
    font.write_bytes(SOUNDFONT)
    monkeypatch.setitem(sys.modules, "fluidsynth", types.ModuleType("fluidsynth"))
    monkeypatch.setattr(pretty_midi.PrettyMIDI, "fluidsynth", play)
    piece = Piece.from_rows([note(60), note(60, end=10)])
    if loudest is None:
        with pytest.raises(UserError, match="makes no sound"):
            render_wav(piece, path, sample_rate=16_000, soundfont=font)
        return
    render_wav(piece, path, sample_rate=16_000, soundfont=font)
    samples = np.frombuffer(path.read_bytes()[44:], "<i2") / 32767
    assert samples.tolist() == pytest.approx([PEAK / 2, -PEAK, 0], abs=1e-4)
