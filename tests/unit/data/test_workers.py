"""Worker processes: order, and what becomes of items that kill them."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rnngan.data.workers import Team
from rnngan.errors import UserError

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits are set on Linux only")


def double(job, lost, mark):
    """Later jobs are quicker, so that they overtake."""
    time.sleep(0.02 if job % 7 == 0 else 0)
    return job * 2, os.getpid()


def do_items(job, lost, mark):
    """A job is a list of what its items do; the result says which were done, and what was lost."""
    done = []
    for i, item in enumerate(job):
        if i in lost:
            continue
        mark(i)
        if item == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif item == "segfault":
            ctypes.string_at(0)
        elif item == "hang":
            while True:
                pass
        elif item == "hog":
            try:
                np.ones(1 << 32, np.uint8)
            except MemoryError:
                done.append("refused")
                continue
        elif item.startswith("once "):
            path = Path(item.removeprefix("once "))
            if not path.exists():
                path.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        elif item == "bug":
            raise ZeroDivisionError("of ours")
        elif item == "user error":
            raise UserError("the disk is full")
        done.append(item)
    return done, dict(lost)


def test_results_come_in_the_order_of_the_jobs():
    with Team(3) as team:
        results = list(team.results(double, range(40)))
        assert [result for result, _ in results] == [2 * i for i in range(40)]
        assert len({pid for _, pid in results}) == 3
        # The same processes do further work.
        again = list(team.results(double, range(5)))
        assert {pid for _, pid in again} <= {pid for _, pid in results}


def test_no_jobs_need_no_workers():
    with Team(2, most=0) as team:
        assert list(team.results(double, [])) == []


@pytest.mark.parametrize("death", ["kill", "segfault"])
def test_a_death_costs_the_item_alone(death):
    jobs = [["a", "b"], ["c", death, "d", death], ["e"]]
    with Team(2, seconds=5) as team:
        assert list(team.results(do_items, jobs)) == [
            (["a", "b"], {}),
            (["c", "d"], {1: "crashed", 3: "crashed"}),
            (["e"], {}),
        ]


def test_an_item_that_does_not_end_is_stopped():
    with Team(1, seconds=0.3) as team:
        assert list(team.results(do_items, [["a", "hang", "b"], ["c"]])) == [
            (["a", "b"], {1: "timeout"}),
            (["c"], {}),
        ]


def test_a_death_that_does_not_come_again_costs_nothing(tmp_path):
    jobs = [["a", f"once {tmp_path / 'mark'}", "b"]]
    with Team(1) as team:
        [(done, lost)] = team.results(do_items, jobs)
    assert len(done) == 3 and lost == {}


@linux
def test_memory_is_limited():
    with Team(1, memory_bytes=1 << 30) as team:
        assert list(team.results(do_items, [["hog", "a"]])) == [(["refused", "a"], {})]


def test_errors_of_a_job_reach_the_parent():
    with Team(1) as team, pytest.raises(UserError, match="the disk is full"):
        list(team.results(do_items, [["user error"]]))
    with Team(1) as team, pytest.raises(RuntimeError, match=r"(?s)do_items.*of ours"):
        list(team.results(do_items, [["bug"]]))


def test_workers_are_gone_afterwards():
    with Team(2) as team:
        pids = {pid for _, pid in team.results(double, range(20))}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_at_least_one_worker():
    with pytest.raises(UserError, match="workers must be at least 1, got 0"):
        Team(0)
