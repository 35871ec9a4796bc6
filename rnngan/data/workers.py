"""Jobs in processes of their own, which a bad file may kill.

The pools of the standard library hang or break for good when a worker dies. Here the death of a
worker costs the one item that it had in hand: the worker marks each item before it touches it, in
memory that the parent can read afterwards.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from ctypes import c_int
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from rnngan.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")

SECONDS_PER_ITEM = 10
"""Processor time for an item. Sound files take milliseconds."""
WALL_SECONDS_PER_ITEM = 120
"""For an item that waits rather than computes, as on a network drive that does not answer."""
BYTES_PER_WORKER = 900 << 20
"""So that with what Python and its libraries take no process goes beyond a gigabyte."""
_THREADS = "OPENBLAS_NUM_THREADS"
_AHEAD = 4
"""Jobs per worker that may be done before their turn: what is held in memory."""

Lost = Mapping[int, str]
"""Items of a job that killed a worker, each with `crashed` or `timeout`."""
Mark = Callable[[int], None]
"""Says that this item of the job is next."""


class Team:
    """Processes that do jobs; a context manager.

    Args:
        workers: How many; as many as there are processors by default.
        most: No more than that, where so many have nothing to do.
        seconds: Processor time that an item may take.
        memory_bytes: What an item may take, beyond what a worker has mapped when it starts.

    Raises:
        UserError: `workers` is below 1.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        most: int | None = None,
        seconds: float = SECONDS_PER_ITEM,
        memory_bytes: int = BYTES_PER_WORKER,
    ) -> None:
        if workers is not None and workers < 1:
            raise UserError(f"workers must be at least 1, got {workers}")
        count = workers or os.cpu_count() or 1
        count = count if most is None else min(count, most)
        self._workers = [_Worker((seconds, memory_bytes)) for _ in range(count)]

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.stop()

    def results(
        self, work: Callable[[Job, Lost, Mark], Result], jobs: Sequence[Job]
    ) -> Iterator[Result]:
        """Results of the jobs, in their order.

        An item that kills its worker is tried once more, unless it ran out of time; after that
        the job is done again without it.

        Args:
            work: Function of a module, called with a job, the items of it to leave out, and the
                function to call before each item.
            jobs: Must pickle, as must the results.

        Raises:
            UserError: A job raised it, or workers end before they begin.
            RuntimeError: A job raised anything else.
        """
        done: dict[int, Any] = {}
        handed_out = 0
        for turn in range(len(jobs)):
            while turn not in done:
                limit = min(turn + _AHEAD * len(self._workers), len(jobs))
                for worker in self._workers:
                    if worker.number is None and handed_out < limit:
                        worker.begin(handed_out, (work, jobs[handed_out]))
                        handed_out += 1
                busy = {
                    worker.pipe: worker for worker in self._workers if worker.number is not None
                }
                for pipe in wait(list(busy)):
                    worker = busy[pipe]  # type: ignore[index]
                    if worker.has_answer():
                        number, result = worker.answer()
                        done[number] = result
            yield done.pop(turn)


class _Worker:
    """A process, the job it has in hand, and what it lost of it."""

    def __init__(self, limits: tuple[float, int]) -> None:
        self.limits = limits
        self.number: int | None = None
        self.job: Any = None
        self.lost: dict[int, str] = {}
        self.suspect: int | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.current = context.RawValue(c_int, -1)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, self.current, *self.limits), daemon=True
        )
        with _surroundings():
            self.process.start()
        theirs.close()

    def begin(self, number: int, job: Any) -> None:
        self.number, self.job, self.lost, self.suspect = number, job, {}, None
        self._send()

    def _send(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died meanwhile: `has_answer` will see that
            self.pipe.send((*self.job, self.lost))

    def has_answer(self) -> bool:
        """Whether the answer has come; otherwise the worker died, and another tries again."""
        try:
            self.problem, self.result = self.pipe.recv()
        except (EOFError, ConnectionError):
            self._bury()
            self._start()
            self._send()
            return False
        return True

    def answer(self) -> tuple[int, Any]:
        """Number of the job, and its result.

        Raises:
            UserError: The job raised it.
            RuntimeError: The job raised anything else.
        """
        number, self.number = self.number, None
        assert number is not None
        if self.problem is not None:
            kind, text = self.problem
            raise UserError(text) if kind == "user" else RuntimeError(f"a worker failed:\n{text}")
        return number, self.result

    def _bury(self) -> None:
        """Find out which item killed the worker."""
        self.process.join()
        self.pipe.close()
        item, code = self.current.value, self.process.exitcode
        timed_out = code in (-getattr(signal, "SIGPROF", 0), -getattr(signal, "SIGALRM", 0))
        if timed_out or self.suspect == item:
            if item < 0:
                raise UserError(
                    f"worker processes end by themselves, with exit code {code}; is there memory "
                    "for them? try --workers 1"
                )
            self.lost[item] = "timeout" if timed_out else "crashed"
        self.suspect = item

    def stop(self) -> None:
        self.process.kill()  # between jobs it has nothing to lose, and in a job nobody waits for it
        self.process.join()
        self.pipe.close()


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """What processes that start now find: no main module, and one thread for numpy.

    Spawned ones import the main module otherwise, which takes its time, and which a script of
    someone who calls us may not be written for. Each has a processor to itself at best.
    """
    main, threads = sys.modules["__main__"], os.environ.get(_THREADS)
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ[_THREADS] = "1"
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if threads is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = threads


def _serve(pipe: Connection, current: Any, seconds: float, memory_bytes: int) -> None:
    """Do jobs until the parent says no more, or is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    _limit_memory(memory_bytes)

    def mark(item: int) -> None:
        current.value = item
        _set_timers(seconds, WALL_SECONDS_PER_ITEM)

    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return
        answer: tuple[Any, Any]
        try:
            work, job, lost = message
            answer = (None, work(job, lost, mark))
        except UserError as error:
            answer = (("user", str(error)), None)
        except Exception:
            answer = (("bug", traceback.format_exc()), None)
        finally:
            _set_timers(0, 0)
        current.value = -1
        try:
            pipe.send(answer)
        except OSError:
            return


def _set_timers(processor_seconds: float, wall_seconds: float) -> None:
    """Without a handler these kill the process, even inside a parser written in C."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, processor_seconds)
        signal.setitimer(signal.ITIMER_REAL, wall_seconds)


def _limit_memory(memory_bytes: int) -> None:
    """Refuse to map more than so much, where the system can: on Linux."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    # What is mapped by now, mostly buffers of numpy's threads, grows with the processors.
    limit = pages * resource.getpagesize() + memory_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
