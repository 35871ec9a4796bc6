"""The log of a stage: a line of JSON and points in TensorBoard."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from rnngan.config import RunConfig, to_toml
from rnngan.errors import UserError
from rnngan.files import write_atomically
from rnngan.music.audio import synthesise
from rnngan.music.picture import piano_roll_image
from rnngan.music.piece import Piece
from rnngan.progress import Say

_SAMPLE_RATE = 22050
_AUDIO_SECONDS = 30.0


class Monitor:
    """Writes what a stage reports to `log.jsonl` and to `tensorboard/STAGE`.

    The log is part of the run: if it cannot be written, the stage stops with its last checkpoint
    whole. TensorBoard is a window: if that breaks, the stage goes on without it and says so.

    Args:
        folder: The run's.
        stage: `pretrain` or `refine`.
        step: Last step of the checkpoint that the stage goes on from; what was logged later is
            dropped, so that no point appears twice.
        say: Told when TensorBoard's files cannot be written.
    """

    def __init__(self, folder: Path, stage: str, *, step: int, say: Say) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "log.jsonl"
        self.stage = stage
        self.say = say
        self._drop_after(step)
        self._writer: Any = None
        self._guarded(
            lambda: setattr(
                self,
                "_writer",
                SummaryWriter(str(folder / "tensorboard" / stage), purge_step=step + 1),
            )
        )

    def __enter__(self) -> Monitor:
        self._usual_hook, threading.excepthook = threading.excepthook, self._thread_failed
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._guarded(self._writer.close)
        threading.excepthook = self._usual_hook

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """TensorBoard writes in a thread of its own; what stops it there surfaces at a later write.

        Without this the thread's traceback would be printed as well.
        """
        if not isinstance(failure.exc_value, OSError):
            self._usual_hook(failure)

    def _drop_after(self, step: int) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                later = entry["stage"] == self.stage and entry["step"] > step
            except (ValueError, KeyError, TypeError):  # what a crash left of a line
                continue
            if not later:
                kept.append(line + "\n")
        write_atomically(self.path, "".join(kept).encode())

    def _guarded(self, write: Callable[[], object]) -> None:
        try:
            write()
        except Exception as error:
            reason = str(error) or type(error).__name__
            self.say(f"TensorBoard cannot be written any more, going on without it: {reason}")
            self._writer = None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log figures under `stage/name` keys such as `pretrain/val_bits_per_token`.

        Raises:
            UserError: The log cannot be written.
        """
        plain = {k: v if math.isfinite(v) else None for k, v in values.items()}
        line = json.dumps({"stage": self.stage, "step": step, **plain})
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from None
        for name, value in values.items():
            self._add("add_scalar", name, value, step)

    def show_config(self, config: RunConfig) -> None:
        """Show the settings as text."""
        indented = to_toml(config).replace("\n", "\n    ")
        self.text("config", f"    {indented}")

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Show a text, Markdown allowed."""
        self._add("add_text", name, text, step)

    def histogram(self, name: str, values: npt.NDArray[Any], step: int) -> None:
        """Show how values are distributed."""
        if len(values):
            self._add("add_histogram", name, values, step)

    def image(self, name: str, image: npt.NDArray[np.uint8], step: int) -> None:
        """Show a picture, `(height, width, 3)`."""
        self._add("add_image", name, image, step, dataformats="HWC")

    def pieces(self, pieces: Sequence[Piece], step: int) -> None:
        """Show pieces as `piano_roll/NUMBER` and `sound/NUMBER`."""
        for i, piece in enumerate(pieces):
            if len(piece.notes) and self._writer is not None:
                self._guarded(partial(self._show, i, piece, step))

    def _show(self, number: int, piece: Piece, step: int) -> None:
        # Of two kinds of data under one name TensorBoard's pages show neither.
        self.image(f"piano_roll/{number}", piano_roll_image(piece), step)
        sound = synthesise(piece, _SAMPLE_RATE, max_seconds=_AUDIO_SECONDS)
        self._add("add_audio", f"sound/{number}", sound[None, :], step, sample_rate=_SAMPLE_RATE)

    def _add(self, method: str, *arguments: Any, **options: Any) -> None:
        if self._writer is not None:
            self._guarded(lambda: getattr(self._writer, method)(*arguments, **options))
