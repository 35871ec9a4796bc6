"""What a person sees while waiting: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

Say = Callable[[str], None]
"""Prints one line for the person at the keyboard, above the progress bar if there is one."""


def clock(seconds: float) -> str:
    """`4:05`, or `1:04:05` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Progress of one job, with the time it will still take.

    Args:
        name: Of the job.
        total: Steps of the whole job.
        every_seconds: From one line to the next where there is no terminal.
        inside: The job that this one is a part of; it is shown below that one.
    """

    def __init__(
        self,
        name: str,
        total: int,
        *,
        every_seconds: float = 15.0,
        inside: Progress | None = None,
    ) -> None:
        self.name = name
        self.total = total
        self.first = 0
        self.every_seconds = every_seconds
        self.started = self.spoke = time.monotonic()
        self._is_part = inside is not None
        self._bar: Any = inside._bar if inside else None
        if inside is None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description:>9}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(elapsed_when_finished=True),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(stderr=True),
            )
        if self._bar:
            self._task = self._bar.add_task(name, total=total, note="")

    def __enter__(self) -> Progress:
        if self._bar and not self._is_part:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar and not self._is_part:
            self._bar.stop()

    def resume(self, done: int) -> None:
        """Start from `done` steps that an earlier attempt has done."""
        self.first = done
        self.started = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` steps are done."""
        if self._bar:
            self._bar.update(self._task, completed=done, **({"note": note} if note else {}))
            return
        now = time.monotonic()
        if now - self.spoke < self.every_seconds and done < self.total:
            return
        self.spoke = now
        pace = (now - self.started) / max(done - self.first, 1)
        left = "" if done >= self.total else f"  eta {clock(pace * (self.total - done))}"
        line = f"{self.name:>9} {done}/{self.total}  {clock(now - self.started)}{left}  {note}"
        self.say(line.rstrip())

    def count(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` are done, for jobs that learn their size on the way."""
        self.total = total
        if self._bar:
            self._bar.update(self._task, total=total)
        self.update(done, note)

    def say(self, line: str) -> None:
        """One line above the bar."""
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            say(line)


def say(line: str) -> None:
    """`Say` where no bar is shown."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
