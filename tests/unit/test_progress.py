import io
import sys

import pytest

from rnngan import progress
from rnngan.progress import Progress, clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still until it is set."""
    seconds = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (59.4, "0:59"),
        (59.6, "1:00"),  # rounded before it is divided
        (245, "4:05"),
        (3599.6, "1:00:00"),
        (3845, "1:04:05"),
        (100_000, "27:46:40"),
    ],
)
def test_clock(seconds, shown):
    assert clock(seconds) == shown


def test_lines_without_a_terminal(capsys, now):
    with Progress("pretrain", 100, every_seconds=10.0) as job:
        for done, at in ((1, 101), (10, 110), (11, 111), (50, 150), (100, 200)):
            now[0] = at
            job.update(done, note=f"loss {done}")
    out, err = capsys.readouterr()
    assert out == ""
    # At 10 s ten of a hundred are done, so ninety seconds are left.
    assert err.splitlines() == [
        " pretrain 10/100  0:10  eta 1:30  loss 10",
        " pretrain 50/100  0:50  eta 0:50  loss 50",
        " pretrain 100/100  1:40  loss 100",
    ]


def test_the_last_step_is_always_shown(capsys, now):
    with Progress("read", 2) as job:
        job.update(1)
        job.update(2)
    assert capsys.readouterr().err == "     read 2/2  0:00\n"


def test_a_resumed_job_goes_by_its_own_pace(capsys, now):
    with Progress("refine", 100, every_seconds=0.0) as job:
        now[0] += 1000
        job.resume(80)
        now[0] += 10
        job.update(90)
        now[0] += 10
        job.update(80)  # nothing done yet is no division by zero
    assert [line.split("eta ")[1] for line in capsys.readouterr().err.splitlines()] == [
        "0:10",
        "6:40",
    ]


def test_a_job_that_learns_its_size_on_the_way(capsys, now):
    with Progress("prepare", 1, every_seconds=0.0) as job:
        now[0] += 5
        job.count(50, 200)
        job.say("half of it is jigs")
    assert capsys.readouterr().err.splitlines() == [
        "  prepare 50/200  0:05  eta 0:15",
        "half of it is jigs",
    ]


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("prepare", 1) as job:
        job.count(7, 20)
        job.say("[reel] is no markup")
        job.update(19, note="[loss] 0.5")
        job.update(20)  # the note stays
    shown = terminal.getvalue()
    assert "[reel] is no markup\n" in shown
    assert "20/20" in shown and "[loss] 0.5" in shown.split("20/20")[-1]


def test_an_error_passes_through_and_ends_the_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(KeyError), Progress("prepare", 1):
        raise KeyError
    assert terminal.getvalue().endswith("\x1b[?25h")  # the cursor is shown again
