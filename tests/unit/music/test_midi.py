import io
import random
import struct
from itertools import accumulate

import mido
import numpy as np
import pretty_midi
import pytest
import symusic
from hypothesis import given, settings
from hypothesis import strategies as st

from rnngan.errors import RejectedFile, UserError
from rnngan.music import midi
from rnngan.music.midi import check_midi, parse_midi, read_midi, write_midi
from rnngan.music.piece import (
    DRUMS,
    MAX_QUARTERS,
    Metre,
    Piece,
    Tempo,
    Timing,
    regular_metres,
    regular_tempos,
)

END = b"\x00\xff\x2f\x00"


def varint(number):
    out = [number & 0x7F]
    while number := number >> 7:
        out.append(number & 0x7F | 0x80)
    return bytes(reversed(out))


def on(delta, pitch, velocity=64, channel=0):
    return varint(delta) + bytes([0x90 | channel, pitch, velocity])


def off(delta, pitch, channel=0):
    return varint(delta) + bytes([0x80 | channel, pitch, 0])


def program(number, channel=0):
    return bytes([0, 0xC0 | channel, number])


def tempo(delta, microseconds):
    return varint(delta) + b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


def metre(delta, numerator, power):
    return varint(delta) + bytes([0xFF, 0x58, 4, numerator, power, 24, 8])


def header(tracks=1, division=480, size=6, kind=1):
    return b"MThd" + struct.pack(">IHHH", size, kind, tracks, division)


def chunk(events, kind=b"MTrk"):
    return kind + struct.pack(">I", len(events)) + events


def file(*tracks, **fields):
    return header(**{"tracks": len(tracks)} | fields) + b"".join(map(chunk, tracks))


QUARTER = on(0, 60) + off(480, 60) + END
BOMB = file(on(9_900_000, 60) + off(1, 60) + END)  # 37 bytes


EVERY_PROGRAM = b"".join(
    program(p, channel) + on(0, 60, 64, channel) + off(1, 60, channel)
    for p in range(128)
    for channel in range(3)
)


def notes(piece):
    return piece.notes[["start", "end", "pitch", "velocity", "program"]].tolist()


def test_one_quarter():
    piece = parse_midi(file(QUARTER), tags={"style": "jig"})
    assert piece == Piece.from_rows([(0, 24, 60)], tags={"style": "jig"})


def test_programs_channels_and_tracks_are_told_apart():
    piece = parse_midi(
        file(
            b"\0\xff\x03\x01A" + program(40) + on(0, 60) + off(240, 60) + END,
            program(5) + on(0, 64) + on(0, 38, 90, 9) + off(480, 64) + off(0, 38, 9) + END,
            b"\0\xff\x03\x07empty.." + END,
        )
    )
    assert notes(piece) == [(0, 12, 60, 64, 40), (0, 24, 64, 64, 5), (0, 24, 38, 90, DRUMS)]
    assert piece.notes["track"].tolist() == [0, 1, 2]
    assert piece.track_names == ("A", "", "")


def test_onsets_and_ends_go_to_the_nearest_tick():
    events = on(9, 60) + off(1, 60) + on(0, 62) + off(0, 62) + on(18, 64) + off(23, 64) + END
    # At 480 to the quarter a tick of ours is 20; the first two notes are shorter than one.
    assert notes(parse_midi(file(events))) == [
        (0, 1, 60, 64, 0),
        (1, 2, 62, 64, 0),
        (1, 3, 64, 64, 0),
    ]


def test_metre_and_tempo_changes_on_any_track():
    first = metre(0, 3, 2) + tempo(0, 1_000_000) + tempo(480, 810_810) + END
    second = on(0, 60) + off(960, 60) + END
    third = metre(480, 6, 3) + metre(480, 2, 2) + tempo(0, 500_000) + END  # when all is over
    piece = parse_midi(file(first, second, third))
    assert piece.metres == (Metre(0, 3, 4), Metre(24, 6, 8))
    assert piece.tempos == (Tempo(0, 60.0), Tempo(24, 74.0))


@pytest.mark.parametrize(
    ("microseconds", "expected"),
    [(0, 120.0), (1, 1000.0), (59_999, 1000.0), (60_000, 1000.0), (2**24 - 1, 5.0)],
)
def test_impossible_tempos_are_left_out_and_extreme_ones_go_to_the_bound(microseconds, expected):
    piece = parse_midi(file(tempo(0, microseconds) + QUARTER))
    assert piece.tempos == (Tempo(0, expected),)


@pytest.mark.parametrize("power", [6, 8, 255])
def test_a_metre_that_no_grid_holds_is_left_out(power):
    assert parse_midi(file(metre(0, 3, power) + QUARTER)).metres == (Metre(0, 4, 4),)


def test_metre_and_tempo_after_the_clock_has_run_over_are_left_out():
    late = b"\xff\xff\xff\x7f\xb0\1\1" * 9 + metre(0, 6, 3) + tempo(0, 1_000_000) + END
    piece = parse_midi(file(QUARTER, late))
    assert (piece.metres, piece.tempos) == ((Metre(0, 4, 4),), (Tempo(0, 120.0),))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"X:1\nT:The Butterfly\nM:9/8\n", "not_midi"),
        (b"MThd\0\0\0\x06\0\1", "truncated"),
        (header(size=0xFFFFFFFF) + chunk(QUARTER), "bad_header"),
        (header(size=8) + b"\0\0" + chunk(QUARTER), "bad_header"),
        (file(QUARTER, division=0), "zero_ticks_per_quarter"),
        (file(QUARTER, division=0xE728), "frame_timing"),
        (file(QUARTER, tracks=65_535), "too_many_tracks"),
        (file(*[END] * 257), "too_many_tracks"),
        (file(*[END] * 256), "no_notes"),
        (file(EVERY_PROGRAM), "too_many_tracks"),
        (file(), "no_tracks"),
        (file(QUARTER, tracks=0), "no_tracks"),
        (header() + chunk(b"\0" * 8, b"MTrx"), "no_tracks"),
        (file(QUARTER)[:-1], "truncated"),
        (header() + b"MTrk\xff\xff\xff\xff" + QUARTER, "truncated"),
        (header(tracks=2) + chunk(QUARTER) + b"??\xff\xff\xff\xff\xff\xff\xff", "truncated"),
        (file(END), "no_notes"),
        (file(on(0, 60) + on(480, 62) + END), "no_notes"),  # nothing ever ends
        (file(b"\0\xf4\0"), "unreadable"),
        (file(b"\0\x3c\x40"), "unreadable"),  # running status with none before
        (file(b"\xff" * 40), "unreadable"),
        (file(b"\0\xff\x03\xff\xff\xff\x7fname"), "unreadable"),
        (BOMB, "too_long"),
        (file(b"\xff\xff\xff\x7f\xb0\1\1" * 9 + QUARTER), "too_long"),  # 2**31 ticks and more
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reasons(data, reason):
    with pytest.raises(RejectedFile) as caught:
        parse_midi(data)
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        file(QUARTER[:-4]),  # no end of track
        file(QUARTER, tracks=3),
        file(QUARTER) + b"\0" * 40,
        file(QUARTER) + b"end",
        file(QUARTER, tracks=1) + chunk(QUARTER),  # a track that the header does not count
        header() + chunk(b"anything", b"XFIH") + chunk(QUARTER),
        b"RIFF\x32\0\0\0RMIDdata\x26\0\0\0" + file(QUARTER),
        b"\0" * 128 + file(QUARTER),
        file(b"\0\xff\x59\x02\x08\xff" + QUARTER),  # a key of 8 sharps
        file(b"\0\xff\x03\x02\xff\xfe" + QUARTER),  # a name in no encoding
        file(b"\0\xf0\x02\x7d\xf7" + QUARTER),
        file(QUARTER, kind=2),
        file(QUARTER, kind=0),
        file(on(0, 62) + QUARTER),  # a note that never ends
    ],
    ids=lambda _: "",
)
def test_what_is_odd_but_readable(data):
    check_midi(data[max(data.find(b"MThd"), 0) :])
    assert notes(parse_midi(data)) == [(0, 24, 60, 64, 0)]


def test_data_bytes_above_127_are_clamped():
    events = b"\0\x90\x3c\xff" + b"\0\xb0\x07\x80" + off(480, 60) + END
    assert notes(parse_midi(file(events))) == [(0, 24, 60, 127, 0)]
    with pytest.raises(RuntimeError):  # the parser by itself gives up
        symusic.Score.from_midi(file(events))
    theirs = pretty_midi.PrettyMIDI(
        mido_object=mido.MidiFile(file=io.BytesIO(file(events)), clip=True)
    )
    assert Piece.from_pretty_midi(theirs) == parse_midi(file(events))


def test_notes_of_one_pitch_end_in_the_order_they_began():
    events = on(0, 60) + on(240, 60) + off(240, 60) + off(240, 60) + END
    assert notes(parse_midi(file(events))) == [(0, 24, 60, 64, 0), (12, 36, 60, 64, 0)]


def test_no_more_notes_than_the_cap(monkeypatch):
    monkeypatch.setattr(midi, "MAX_NOTES", 2)
    pair = on(0, 60) + off(1, 60)
    assert len(parse_midi(file(pair * 2)).notes) == 2
    with pytest.raises(RejectedFile) as caught:
        parse_midi(file(pair * 3))
    assert caught.value.reason == "too_many_notes"


def test_a_long_file_is_refused_by_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(midi, "MAX_BYTES", 1000)
    path = tmp_path / "long.mid"
    path.write_bytes(file(QUARTER) + bytes(1000))
    with pytest.raises(RejectedFile) as caught:
        read_midi(path)
    assert caught.value.reason == "too_large"


def test_the_message_names_the_file(tmp_path):
    path = tmp_path / "song.mid"
    path.write_text("[Verse 1]")
    with pytest.raises(RejectedFile, match=r"song\.mid: a MIDI file begins with MThd"):
        read_midi(path)


@pytest.mark.parametrize("name", ["missing.mid", "."])
def test_what_cannot_be_opened(tmp_path, name):
    with pytest.raises(RejectedFile, match="cannot read") as caught:
        read_midi(tmp_path / name)
    assert caught.value.reason == "unreadable"


@st.composite
def ensembles(draw):
    """Pieces of up to 40 tracks with any program, changing metre and tempo."""
    note = st.tuples(
        st.integers(0, 600),
        st.integers(1, 200),
        st.sampled_from([0, 59, 60, 61, 127]),
        st.integers(1, 127),
        st.sampled_from([0, DRUMS]) | st.integers(1, 127),
    )
    drawn = draw(st.lists(note, min_size=1, max_size=40))
    one_track_each = draw(st.booleans())
    table = [
        (start, start + size, *rest, track if one_track_each else 0)
        for track, (start, size, *rest) in enumerate(drawn)
    ]
    end = max(row[1] for row in table)
    ticks = [0, *sorted(draw(st.sets(st.integers(1, max(1, end - 1)), max_size=4)))]
    metres = st.sampled_from([(4, 4), (3, 4), (6, 8), (7, 16), (2, 2), (64, 32)])
    tempos = st.integers(5_000, 240_000)
    return Piece.from_rows(
        table,
        metres=regular_metres((tick, *draw(metres)) for tick in ticks),
        tempos=regular_tempos((tick, draw(tempos) / 1000) for tick in ticks),
        track_names=draw(st.lists(st.text(max_size=8), max_size=3).map(tuple)),
    )


def by_mido(path):
    """Notes by pairing the events of each track oneself, in 480ths of a quarter."""
    found = []
    for track in mido.MidiFile(path).tracks:
        tick, playing, sounding = 0, {}, {}
        for event in track:
            tick += event.time
            if event.type == "program_change":
                playing[event.channel] = event.program
            elif event.type == "note_on" and event.velocity > 0:
                sounding[event.channel, event.note] = (tick, event.velocity)
            elif event.type == "note_on":
                start, velocity = sounding.pop((event.channel, event.note))
                number = DRUMS if event.channel == 9 else playing[event.channel]
                found.append((start / 20, tick / 20, event.note, velocity, number))
        assert not sounding
    return sorted(found)


@given(piece=ensembles())
@settings(max_examples=60, deadline=None)
def test_what_is_written_every_reader_reads(piece, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "piece.mid"
    write_midi(piece, path)
    expected = sorted(notes(piece.tidied()))
    ours = read_midi(path)
    assert sorted(notes(ours)) == expected
    assert sorted(notes(Piece.from_pretty_midi(pretty_midi.PrettyMIDI(str(path))))) == expected
    assert by_mido(path) == expected
    end = piece.tidied().end
    assert ours.metres == tuple(m for m in piece.metres if m.tick < end)
    assert ours.tempos == tuple(t for t in piece.tempos if t.tick < end)


def test_tempos_are_written_to_the_nearest_microsecond(tmp_path):
    path = tmp_path / "piece.mid"
    tempos = tuple(Tempo(i, 5.0 + i) for i in range(996))
    write_midi(Piece.from_rows([(0, 1000, 60)], tempos=tempos), path)
    written = [e.tempo for e in mido.MidiFile(path).tracks[0] if e.type == "set_tempo"]
    assert written == [round(60e6 / t.quarters_per_minute) for t in tempos]


def test_a_note_struck_again_ends_there_in_the_file(tmp_path):
    path = tmp_path / "piece.mid"
    write_midi(Piece.from_rows([(0, 48, 60), (24, 36, 60), (24, 30, 60)]), path)
    assert read_midi(path) == Piece.from_rows([(0, 24, 60), (24, 36, 60)])


def test_unisons_of_two_tracks_are_written_apart(tmp_path):
    path = tmp_path / "piece.mid"
    piece = Piece.from_rows([(0, 48, 60), (24, 36, 60, 64, 0, 1), (24, 72, 60, 64, 0, 2)])
    write_midi(piece, path)
    assert read_midi(path) == piece


def test_equal_pieces_give_equal_bytes(tmp_path):
    table = [(0, 24, 60), (0, 24, 64, 90, 40, 1), (24, 48, 38, 100, DRUMS, 2)]
    for name, rows in (("a", table), ("b", table[::-1])):
        write_midi(Piece.from_rows(rows, track_names=("Läufe",)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_midi(tmp_path / "a").track_names[0] == "Läufe"


def test_a_piece_without_notes_is_written_but_holds_nothing(tmp_path):
    path = tmp_path / "rest.mid"
    write_midi(Piece.from_rows([]), path)
    with pytest.raises(RejectedFile) as caught:
        read_midi(path)
    assert caught.value.reason == "no_notes"


def test_the_longest_piece_is_read_back_by_both(tmp_path):
    end = MAX_QUARTERS * 24
    path = tmp_path / "long.mid"
    piece = Piece.from_rows([(0, 24, 60), (end - 1, end, 60)], tempos=(Tempo(0, 77.777),))
    write_midi(piece, path)
    assert read_midi(path) == Piece.from_pretty_midi(pretty_midi.PrettyMIDI(str(path))) == piece


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tempos": (Tempo(0, 3.0),)}, "0..16777215"),
        ({"metres": (Metre(0, 300, 4),)}, "0..255"),
        ({"tempos": (Tempo(0, 120.0), Tempo(MAX_QUARTERS * 24 + 24, 60.0))}, "at most 20000"),
    ],
)
def test_what_midi_cannot_hold(tmp_path, fields, message):
    path = tmp_path / "odd.mid"
    with pytest.raises(UserError, match=rf"cannot write .*odd\.mid.*{message}"):
        write_midi(Piece.from_rows([(0, 24, 60)], **fields), path)
    assert list(tmp_path.iterdir()) == []


def test_the_distance_of_onsets_from_the_grid_is_measured():
    # At 480 to the quarter a tick of ours is 20: the onsets lie 0, 1/2 and 1/4 of it off.
    piece = parse_midi(file(on(0, 60) + on(10, 62) + on(15, 64) + off(99, 60) + off(0, 62) + END))
    assert piece.timing == Timing("file", 0.010417, 0.020833)  # the third never ends
    piece = parse_midi(file(on(0, 60) + off(10, 60) + on(15, 64) + off(99, 64) + END))
    assert piece.timing == Timing("file", 0.005208, 0.010417)


def performance(num_notes=200, last=50, later=400_000):
    """A file of single notes that begin anywhere, at 90 and from tick 9,600 on at 150."""
    rng = random.Random(0)
    gaps = [rng.randrange(60, 400) for _ in range(num_notes)]
    events = on(gaps[0], 60)
    for gap in gaps[1:]:
        events += off(gap - 20, 60) + on(20, 60)
    changes = metre(0, 3, 2) + tempo(0, 666_667) + tempo(9_600, later) + metre(1_000, 2, 2) + END
    return file(changes, events + off(last, 60) + END), list(accumulate(gaps))


def seconds_in_file(tick):
    return min(tick, 9_600) / 480 * 0.666667 + max(tick - 9_600, 0) / 480 * 0.4


def test_a_performance_on_a_fixed_grid():
    data, ticks = performance()
    piece = parse_midi(data, beats="fixed")
    expected = [round(48 * seconds_in_file(tick)) for tick in ticks]
    assert piece.notes["start"].tolist() == expected
    assert piece.tempos == (Tempo(0, 120.0),)
    beat = round(2 * seconds_in_file(10_600))
    assert piece.metres == (Metre(0, 3, 4), Metre(24 * beat, 2, 4))
    errors = [abs(48 * seconds_in_file(t) - e) / 24 for t, e in zip(ticks, expected)]
    assert piece.timing.grid == "fixed"
    assert piece.timing.mean_error_quarters == pytest.approx(sum(errors) / 200, abs=1e-6)
    assert piece.timing.max_error_quarters == pytest.approx(max(errors), abs=1e-6)


def test_a_performance_on_estimated_beats():
    data, ticks = performance()
    piece = parse_midi(data)
    assert piece.timing.grid == "estimated"
    assert 0 < piece.timing.mean_error_quarters < piece.timing.max_error_quarters <= 1 / 48 + 1e-6
    assert 0 <= piece.notes["start"][0] < 24
    assert [metre.name for metre in piece.metres] == ["3/4", "2/4"]
    assert {change.tick % 24 for change in piece.tempos + piece.metres} == {0}
    # Played back, every note sounds where it did, but for half a tick and the silence before.
    heard = piece.seconds_at(piece.notes["start"])
    lag = heard - np.array([seconds_in_file(tick) for tick in ticks])
    slowest = min(change.quarters_per_minute for change in piece.tempos)
    assert lag.max() - lag.min() <= 2 * 60 / slowest / 48 + 0.002


def test_a_performance_whose_file_is_trusted():
    data, ticks = performance()
    piece = parse_midi(data, beats="file")
    assert piece.timing.grid == "file"
    assert piece.notes["start"].tolist() == [(tick + 10) // 20 for tick in ticks]
    assert piece.tempos == (Tempo(0, 90.0), Tempo(480, 150.0))


@pytest.mark.parametrize("beats", ["estimate", "fixed"])
def test_files_with_beats_and_short_files_are_read_by_their_beats(beats):
    short, _ = performance(num_notes=40)
    assert parse_midi(short, beats=beats).timing.grid == "file"
    metred = file(b"".join(on(0, 60) + off(160, 60) for _ in range(99)) + END)
    assert parse_midi(metred, beats=beats) == parse_midi(metred, beats="file")


@pytest.mark.parametrize("beats", ["estimate", "fixed"])
def test_a_performance_of_hours_is_refused(beats):
    endless, _ = performance(last=480 * 900, later=2**24 - 1)  # 900 quarters at 5 to the minute
    with pytest.raises(RejectedFile, match="10000 seconds") as caught:
        parse_midi(endless, beats=beats)
    assert caught.value.reason == "too_long"
    assert parse_midi(endless, beats="file").timing.grid == "file"


def test_both_readers_measure_the_same_timing(tmp_path):
    data, _ = performance()
    (tmp_path / "a.mid").write_bytes(data)
    theirs = Piece.from_pretty_midi(pretty_midi.PrettyMIDI(str(tmp_path / "a.mid")))
    assert theirs == (ours := parse_midi(data, beats="file"))
    assert theirs.timing == ours.timing


def test_mutants_are_read_or_refused(tmp_path):
    path = tmp_path / "piece.mid"
    table = [(6 * i, 6 * i + 9, 50 + i % 20, 64, i % 3, i % 3) for i in range(60)]
    write_midi(Piece.from_rows(table, metres=(Metre(0, 3, 4),)), path)
    original = path.read_bytes()
    dice = random.Random(7)
    refused = set()
    for _ in range(200):
        mutant = bytearray(original)
        for _ in range(dice.choice([1, 2, 8])):
            at = dice.randrange(len(mutant))
            match dice.randrange(4):
                case 0:
                    mutant[at] = dice.randrange(256)
                case 1:
                    del mutant[at : at + dice.randrange(1, 9)]
                case 2:
                    mutant[at:at] = dice.randbytes(4)
                case _:
                    mutant[at : at + 4] = b"\xff\xff\xff\xff"
        try:
            piece = parse_midi(bytes(mutant))
        except RejectedFile as error:
            refused.add(error.reason)
        else:
            assert len(piece.notes) > 0
    assert {"truncated", "unreadable"} <= refused
