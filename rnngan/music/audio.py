"""Sound of a piece: a small additive synthesiser, or FluidSynth with a SoundFont."""

from __future__ import annotations

import io
import math
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rnngan.errors import UserError
from rnngan.files import write_atomically
from rnngan.music.piece import DRUMS, Piece

Samples = npt.NDArray[np.float32]
"""Sound pressure within −1 to 1, shape `(samples,)`."""

SAMPLE_RATE = 44_100
PEAK = 10 ** (-1 / 20)
"""Loudest sample: 1 dB below full scale, so that no player's resampling clips."""
TAIL_SECONDS = 1.0
"""What follows the end of the last note, for it to die away."""
MAX_SECONDS = 3600
"""Longest piece that is rendered to a file; its samples take 0.6 GB of memory."""
MAX_NOTE_SECONDS = 60.0
"""A note sounds no longer, which bounds the memory that one tone takes."""


@dataclass(frozen=True, kw_only=True)
class Timbre:
    """Sound of a family of pitched instruments.

    Attributes:
        harmonics: Amplitudes of the fundamental, the octave, the twelfth, and so on.
        attack_seconds: From silence to full sound.
        release_seconds: From the end of the note to silence.
        decay: Rate in 1/s at which the sound of A4 dies away while it is held.
        dulling: Rate in 1/s by which every harmonic dies sooner than the one below.
    """

    harmonics: tuple[float, ...]
    attack_seconds: float
    release_seconds: float
    decay: float = 0.0
    dulling: float = 0.0


PIANO = Timbre(
    harmonics=(1, 0.6, 0.35, 0.25, 0.12, 0.08, 0.04, 0.03),
    attack_seconds=0.004,
    release_seconds=0.12,
    decay=1.1,
    dulling=0.5,
)
BELL = Timbre(
    harmonics=(1, 0.05, 0.02, 0.4, 0, 0.02, 0, 0.1),
    attack_seconds=0.002,
    release_seconds=0.3,
    decay=2.0,
    dulling=1.0,
)
ORGAN = Timbre(
    harmonics=(1, 0.8, 0.4, 0.5, 0, 0.25, 0, 0.2), attack_seconds=0.02, release_seconds=0.08
)
GUITAR = Timbre(
    harmonics=(1, 0.7, 0.5, 0.2, 0.25, 0.15, 0.1, 0.05),
    attack_seconds=0.003,
    release_seconds=0.1,
    decay=1.8,
    dulling=0.9,
)
BASS = Timbre(
    harmonics=(1, 0.6, 0.25, 0.1, 0.05),
    attack_seconds=0.006,
    release_seconds=0.08,
    decay=1.2,
    dulling=1.2,
)
STRINGS = Timbre(
    harmonics=(1, 0.55, 0.4, 0.28, 0.2, 0.14, 0.1, 0.07, 0.05),
    attack_seconds=0.07,
    release_seconds=0.18,
)
BRASS = Timbre(
    harmonics=(1, 0.9, 0.75, 0.5, 0.35, 0.22, 0.14, 0.08),
    attack_seconds=0.035,
    release_seconds=0.09,
)
REED = Timbre(
    harmonics=(1, 0.15, 0.6, 0.12, 0.35, 0.08, 0.15), attack_seconds=0.03, release_seconds=0.08
)
FLUTE = Timbre(harmonics=(1, 0.22, 0.06, 0.02), attack_seconds=0.045, release_seconds=0.1)

TIMBRES = (
    *(PIANO, BELL, ORGAN, GUITAR, BASS, STRINGS, STRINGS, BRASS),
    *(REED, FLUTE, REED, STRINGS, FLUTE, GUITAR, BELL, FLUTE),
)
"""By General MIDI's sixteen families of eight programs each."""


@dataclass(frozen=True, kw_only=True)
class Drum:
    """Sound of a drum: a falling tone and a burst of noise, each dying away.

    Attributes:
        frequency: Where the tone comes to rest, in Hz.
        tone_seconds: In which the tone falls to 1/e; 0 for no tone.
        noise_seconds: In which the noise falls to 1/e; 0 for no noise.
        bright: Whether the noise is without its low part.
    """

    frequency: float = 200.0
    tone_seconds: float = 0.0
    noise_seconds: float = 0.0
    bright: bool = False


KICK = Drum(frequency=50, tone_seconds=0.11)
SNARE = Drum(frequency=185, tone_seconds=0.04, noise_seconds=0.06)
CLOSED_HAT = Drum(noise_seconds=0.018, bright=True)
OPEN_HAT = Drum(noise_seconds=0.12, bright=True)
CYMBAL = Drum(noise_seconds=0.18, bright=True)
OTHER_DRUM = Drum(frequency=420, tone_seconds=0.03, noise_seconds=0.02)
DRUM_KIT = (
    dict.fromkeys((35, 36), KICK)
    | dict.fromkeys((37, 38, 39, 40), SNARE)
    | dict.fromkeys((42, 44), CLOSED_HAT)
    | {46: OPEN_HAT}
    | dict.fromkeys((49, 51, 52, 53, 55, 57, 59), CYMBAL)
    | {
        pitch: Drum(frequency=80.0 + 15 * i, tone_seconds=0.12, noise_seconds=0.01)
        for i, pitch in enumerate((41, 43, 45, 47, 48, 50))
    }
)
"""General MIDI's drums by pitch; all others sound like `OTHER_DRUM`."""


def render_wav(
    piece: Piece, path: Path, *, sample_rate: int = SAMPLE_RATE, soundfont: Path | None = None
) -> None:
    """Write the sound of a piece as a mono 16-bit WAV file; equal pieces give equal bytes.

    With `soundfont` FluidSynth plays it, without it `synthesise`.

    Raises:
        UserError: The piece lasts longer than `MAX_SECONDS`, the SoundFont is missing or broken,
            pyfluidsynth is not installed, the sample rate is out of range, or the file cannot be
            written.
    """
    seconds = float(piece.seconds_at(piece.end))
    if seconds > MAX_SECONDS:
        raise UserError(
            f"cannot render {path}: the piece lasts {seconds:.0f} s, at most {MAX_SECONDS} s "
            "are rendered; cut it or raise its tempo"
        )
    if soundfont is None:
        samples = synthesise(piece, sample_rate)
    else:
        samples = _play_soundfont(piece, sample_rate, soundfont)
    write_atomically(path, wav_bytes(samples, sample_rate))


def wav_bytes(samples: Samples, sample_rate: int) -> bytes:
    """Samples from -1 to 1 as a mono 16-bit WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(sample_rate)
        wav.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def synthesise(
    piece: Piece, sample_rate: int = SAMPLE_RATE, *, max_seconds: float = MAX_SECONDS
) -> Samples:
    """Sound of a piece, up to `TAIL_SECONDS` after its end or `max_seconds` in all.

    Harmonics are added up per note: Σ_k a_k e^(−(d + (k−1) c) t √(f/440)) sin 2πkft. The loudest
    sample is `PEAK`; a piece without notes is silent. A note fills its half-open span and then its
    release.

    Args:
        piece: What to play.
        sample_rate: Samples per second, 8,000 to 192,000.
        max_seconds: Where the sound is faded out and cut.

    Raises:
        UserError: `sample_rate` or `max_seconds` is out of range.
    """
    _check_sample_rate(sample_rate)
    if not max_seconds * sample_rate >= 1:  # also for NaN
        raise UserError(f"max_seconds must be positive, got {max_seconds}")
    starts = np.rint(piece.seconds_at(piece.notes["start"]) * sample_rate).astype(np.int64)
    ends = np.rint(piece.seconds_at(piece.notes["end"]) * sample_rate).astype(np.int64)
    sizes = np.minimum(ends - starts, round(MAX_NOTE_SECONDS * sample_rate))
    # General MIDI level 2 asks for 40 log10(velocity / 127) dB.
    gains = (piece.notes["velocity"] / np.float32(127)) ** 2
    seconds = min(float(piece.seconds_at(piece.end)) + TAIL_SECONDS, max_seconds)
    samples = np.zeros(round(seconds * sample_rate), np.float32)

    # Notes of one pitch and family are cut from one tone, whose beginning they share.
    families = piece.notes["program"].astype(np.int64) // 8  # the drums come out as family 16
    voices = families * 128 + piece.notes["pitch"]
    order = np.argsort(voices, kind="stable")
    borders = np.flatnonzero(np.diff(voices[order])) + 1
    for group in np.split(order, borders) if len(order) else []:
        family, pitch = divmod(int(voices[group[0]]), 128)
        if family == DRUMS // 8:
            tone = _drum_sound(pitch, sample_rate)
            sizes[group] = len(tone)  # a drum sounds as long as it likes
            release = np.ones(0, np.float32)
        else:
            timbre = TIMBRES[family]
            release = _fade_out(timbre.release_seconds, sample_rate)
            longest = int(sizes[group].max()) + len(release)
            tone = _tone(pitch, timbre, longest, sample_rate)
        for start, size, gain in zip(
            starts[group].tolist(), sizes[group].tolist(), gains[group].tolist()
        ):
            sound = tone[: size + len(release)] * np.float32(gain)
            sound[size:] *= release
            room = samples[start : start + len(sound)]
            room += sound[: len(room)]

    ending = _fade_out(0.01, sample_rate)[-len(samples) :]
    samples[len(samples) - len(ending) :] *= ending
    return _normalised(samples)


def _check_sample_rate(sample_rate: int) -> None:
    if not 8_000 <= sample_rate <= 192_000:
        raise UserError(f"sample_rate must be 8000 to 192000 samples per second, got {sample_rate}")


def _normalised(samples: Samples) -> Samples:
    """The same with its loudest sample at `PEAK`; silence stays silence."""
    loudest = float(np.abs(samples).max(initial=0.0))
    return samples * np.float32(PEAK / loudest) if loudest else samples


def _fade_out(seconds: float, sample_rate: int) -> Samples:
    """Factors from 1 to 0 along half a cosine, which has no corner to click."""
    size = max(2, round(seconds * sample_rate))
    return (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, size))).astype(np.float32)


def _tone(pitch: int, timbre: Timbre, size: int, sample_rate: int) -> Samples:
    """A held note's first `size` samples, of energy independent of the timbre's brightness."""
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    audible = timbre.harmonics[: math.ceil(sample_rate / 2 / frequency) - 1]  # below Nyquist
    if not audible:
        return np.zeros(size, np.float32)
    seconds = np.arange(size) / sample_rate
    angle = (2 * np.pi * (frequency * seconds % 1)).astype(np.float32)
    turning = np.empty(size, np.complex64)
    turning.real, turning.imag = np.cos(angle), np.sin(angle)
    pace = math.sqrt(frequency / 440)  # high strings die away sooner
    # Harmonic k is the k-th power of the turning phase, so the sum is a polynomial (Horner).
    step = turning
    if timbre.dulling:
        step = turning * np.exp(-timbre.dulling * pace * seconds).astype(np.float32)
    total = np.full(size, audible[-1], np.complex64)
    for amplitude in reversed(audible[:-1]):
        total *= step
        total += np.float32(amplitude)
    total *= turning
    tone = total.imag / np.float32(math.hypot(*timbre.harmonics))
    if timbre.decay:
        tone *= np.exp(-timbre.decay * pace * seconds).astype(np.float32)
    attack = _fade_out(timbre.attack_seconds, sample_rate)[::-1][:size]
    tone[: len(attack)] *= attack
    return tone


def _drum_sound(pitch: int, sample_rate: int) -> Samples:
    """One stroke of the drum that General MIDI has at a pitch, until it has died away."""
    drum = DRUM_KIT.get(pitch, OTHER_DRUM)
    size = round(7 * max(drum.tone_seconds, drum.noise_seconds) * sample_rate)  # e^-7 is -60 dB
    seconds = np.arange(size) / sample_rate
    sound = np.zeros(size)
    if drum.tone_seconds:
        fall = 0.03  # s in which the skin relaxes from three times its frequency
        turns = drum.frequency * (seconds + 2 * fall * (1 - np.exp(-seconds / fall)))
        sound += np.sin(2 * np.pi * turns) * np.exp(-seconds / drum.tone_seconds)
    if drum.noise_seconds:
        # The noise is part of the instrument: the same in every stroke and every render.
        noise = np.random.default_rng(pitch).uniform(-1, 1, size + 1)
        noise = np.diff(noise) / 2 if drum.bright else noise[1:]
        sound += 0.7 * noise * np.exp(-seconds / drum.noise_seconds)
    ending = _fade_out(0.01, sample_rate)
    sound[-len(ending) :] *= ending
    return sound.astype(np.float32)


def _play_soundfont(piece: Piece, sample_rate: int, soundfont: Path) -> Samples:
    """Sound of a piece by FluidSynth."""
    _check_sample_rate(sample_rate)
    try:
        with soundfont.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise UserError(f"cannot read the SoundFont {soundfont}: {error.strerror}") from error
    if head[:4] != b"RIFF" or head[8:] != b"sfbk":
        raise UserError(f"{soundfont} is not a SoundFont (.sf2)")
    try:
        import fluidsynth  # noqa: F401  # pretty_midi needs it and says less when it is missing
    except ImportError as error:
        raise UserError(
            "a SoundFont needs FluidSynth and pyfluidsynth: install the system's fluidsynth "
            "package and `pip install pyfluidsynth`, or render without a SoundFont"
        ) from error
    midi = piece.tidied().to_pretty_midi()
    samples = midi.fluidsynth(fs=sample_rate, synthesizer=str(soundfont), normalize=False)
    if len(piece.notes) and not samples.any():
        raise UserError(f"FluidSynth makes no sound with {soundfont}; the file may be damaged")
    return _normalised(samples.astype(np.float32))
