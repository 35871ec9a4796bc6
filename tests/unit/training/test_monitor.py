import json
import math
import threading
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rnngan.config import preset
from rnngan.errors import UserError
from rnngan.training.monitor import Monitor


@pytest.fixture
def said():
    return []


@pytest.fixture
def monitor_of(tmp_path, said):
    def open_monitor(step=-1, stage="pretrain"):
        return Monitor(tmp_path, stage, step=step, say=said.append)

    return open_monitor


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def events(folder, stage="pretrain"):
    found = EventAccumulator(str(folder / "tensorboard" / stage), {"scalars": 0, "images": 0})
    return found.Reload()


def points(folder, name, stage="pretrain"):
    return [(event.step, event.value) for event in events(folder, stage).Scalars(name)]


def test_a_line_of_json_per_step(monitor_of, tmp_path):
    with monitor_of() as monitor:
        monitor.scalars(1, {"pretrain/loss": 0.1 + 0.2})
        monitor.scalars(2, {"pretrain/loss": 0.25, "pretrain/rate": 1e-5})
    assert log(tmp_path) == [
        {"stage": "pretrain", "step": 1, "pretrain/loss": 0.1 + 0.2},
        {"stage": "pretrain", "step": 2, "pretrain/loss": 0.25, "pretrain/rate": 1e-5},
    ]


def test_what_is_not_finite_is_null_as_json_has_no_word_for_it(monitor_of, tmp_path):
    with monitor_of() as monitor:
        monitor.scalars(1, {"a": math.nan, "b": math.inf, "c": 1.0})
    assert log(tmp_path) == [{"stage": "pretrain", "step": 1, "a": None, "b": None, "c": 1.0}]


def test_a_line_is_there_as_soon_as_it_is_written(monitor_of, tmp_path):
    with monitor_of() as monitor:
        monitor.scalars(1, {"a": 1.0})
        assert len(log(tmp_path)) == 1


def test_tensorboard_can_read_everything(monitor_of, tmp_path, tunes):
    with monitor_of() as monitor:
        monitor.show_config(preset("tiny"))
        monitor.scalars(1, {"pretrain/val_bits_per_token": 1.5})
        monitor.scalars(2, {"pretrain/val_bits_per_token": 1.25})
        monitor.histogram("pitch/real", np.array([60.0, 62, 62]), 2)
        monitor.histogram("pitch/generated", np.array([]), 2)
        monitor.pieces(tunes[:2], 2)
    found = events(tmp_path)
    tags = found.Tags()
    assert tags["scalars"] == ["pretrain/val_bits_per_token"]
    assert points(tmp_path, "pretrain/val_bits_per_token") == [(1, 1.5), (2, 1.25)]
    assert tags["histograms"] == ["pitch/real"]
    assert tags["images"] == ["piano_roll/0", "piano_roll/1"]
    assert tags["audio"] == ["sound/0", "sound/1"]
    assert found.Images("piano_roll/0")[0].step == 2
    assert found.Audio("sound/1")[0].sample_rate == 22050
    (text,) = found.Tensors("config/text_summary")
    assert b"hidden_size = 24" in text.tensor_proto.string_val[0]


def test_a_piece_without_notes_shows_nothing(monitor_of, tmp_path, tunes):
    from dataclasses import replace

    with monitor_of() as monitor:
        monitor.pieces([replace(tunes[0], notes=tunes[0].notes[:0])], 1)
    assert events(tmp_path).Tags()["images"] == []


def write_steps(monitor, steps, value):
    for step in steps:
        monitor.scalars(step, {"pretrain/loss": value})


def test_after_a_resume_no_point_is_doubled(monitor_of, tmp_path):
    with monitor_of() as monitor:
        write_steps(monitor, range(1, 8), 1.0)
    with monitor_of(step=4) as monitor:
        write_steps(monitor, range(5, 10), 2.0)
    expected = [(step, 1.0 if step <= 4 else 2.0) for step in range(1, 10)]
    assert [(line["step"], line["pretrain/loss"]) for line in log(tmp_path)] == expected
    assert points(tmp_path, "pretrain/loss") == expected


def test_a_stage_begun_anew_keeps_nothing_of_the_first_attempt(monitor_of, tmp_path):
    for value in (1.0, 2.0):
        with monitor_of(step=-1) as monitor:
            write_steps(monitor, range(3), value)
    assert [(line["step"], line["pretrain/loss"]) for line in log(tmp_path)] == [
        (step, 2.0) for step in range(3)
    ]
    assert points(tmp_path, "pretrain/loss") == [(step, 2.0) for step in range(3)]


def test_a_resumed_stage_leaves_the_log_of_others_alone(monitor_of, tmp_path):
    with monitor_of() as monitor:
        write_steps(monitor, [1, 2, 3], 1.0)
    with monitor_of(stage="refine") as monitor:
        monitor.scalars(9, {"adversarial/kl": 0.5})
    with monitor_of(step=1):
        pass
    assert [(line["stage"], line["step"]) for line in log(tmp_path)] == [
        ("pretrain", 1),
        ("refine", 9),
    ]
    assert points(tmp_path, "adversarial/kl", "refine") == [(9, 0.5)]


def test_what_a_crash_left_of_a_line_is_dropped(monitor_of, tmp_path):
    with monitor_of() as monitor:
        write_steps(monitor, [1, 2], 1.0)
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text() + '{"stage": "pretrain", "st')
    with monitor_of(step=2) as monitor:
        write_steps(monitor, [3], 1.0)
    assert [line["step"] for line in log(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("line", ["[1]", "12", "null", '{"step": 1}', '{"stage": "pretrain"}'])
def test_lines_that_are_none_of_ours_do_not_stop_a_resume(monitor_of, tmp_path, line):
    (tmp_path / "log.jsonl").write_text(line + "\n")
    with monitor_of(step=2) as monitor:
        write_steps(monitor, [3], 1.0)
    assert [line["step"] for line in log(tmp_path)] == [3]


def test_a_log_that_cannot_be_written_stops_the_stage(monitor_of, tmp_path):
    with monitor_of() as monitor:
        (tmp_path / "log.jsonl").mkdir()
        with pytest.raises(UserError, match=r"cannot write .*log\.jsonl: Is a directory"):
            monitor.scalars(1, {"a": 1.0})


@pytest.mark.parametrize("method", ["add_scalar", "add_histogram", "add_image", "close"])
def test_a_broken_tensorboard_does_not_stop_the_stage(
    monitor_of, tmp_path, said, tunes, monkeypatch, method
):
    from torch.utils.tensorboard import SummaryWriter

    def broken(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, method, broken)
    with monitor_of() as monitor:
        for step in (1, 2):
            monitor.scalars(step, {"pretrain/loss": 1.0})
            monitor.histogram("pitch", np.ones(3), step)
            monitor.pieces(tunes[:1], step)
    assert len(log(tmp_path)) == 2
    assert len(said) == 1
    assert said[0].startswith("TensorBoard cannot be written any more, going on without it")


def test_a_tensorboard_that_cannot_even_begin_does_not_stop_the_stage(monitor_of, tmp_path, said):
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    with monitor_of() as monitor:
        monitor.scalars(1, {"a": 1.0})
        monitor.text("config", "text")
    assert len(log(tmp_path)) == 1 and len(said) == 1


def test_a_picture_that_cannot_be_drawn_does_not_stop_the_stage(
    monitor_of, tmp_path, said, tunes, monkeypatch
):
    from rnngan.training import monitor as module

    def broken(_):
        raise MemoryError

    monkeypatch.setattr(module, "piano_roll_image", broken)
    with monitor_of() as monitor:
        monitor.pieces(tunes[:1], 1)
        monitor.scalars(1, {"a": 1.0})
    assert len(log(tmp_path)) == 1 and len(said) == 1


def test_a_disk_that_fills_up_under_tensorboard_is_one_line(
    monitor_of, tmp_path, said, monkeypatch, capsys
):
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(*_):
        raise OSError(28, "No space left on device")

    hook = threading.excepthook
    with monitor_of() as monitor:
        monitor.scalars(1, {"a": 1.0})
        monkeypatch.setattr(RecordWriter, "write", full)
        for step in range(2, 30):
            monitor.scalars(step, {"a": 1.0})
            time.sleep(0.001)  # lets the writing thread have its turn
    assert len(log(tmp_path)) == 29
    assert len(said) == 1 and "No space left on device" in said[0]
    assert capsys.readouterr() == ("", "")
    assert threading.excepthook is hook
