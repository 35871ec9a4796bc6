import json
import math
import os

os.environ["MPLBACKEND"] = "Agg"

import numpy as np
import pytest
import torch
from hypothesis import settings

from rnngan.config import DataConfig, preset
from rnngan.data.prepare import prepare_pieces
from rnngan.data.reading import Source
from rnngan.music.piece import Metre, Piece
from rnngan.progress import Progress
from rnngan.training import adversarial, pretrain
from rnngan.training.run import Run

torch.set_num_threads(1)
settings.register_profile("no deadline", deadline=None)  # a loaded machine is no error
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the cache of the person who runs it."""
    monkeypatch.setenv("RNNGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def little_tune(number, num_bars=4):
    """Eighths and quarters on a scale, no two numbers alike, every third tune in 6/8."""
    random = np.random.default_rng(number)
    metre = Metre(0, 6, 8) if number % 3 == 2 else Metre(0, 4, 4)
    rows, tick, place = [], 0, int(random.integers(5))
    while tick < num_bars * metre.ticks_per_bar:
        length = int(random.choice([12, 24]))
        place = int(np.clip(place + random.integers(-2, 3), 0, 9))
        rows.append((tick, tick + length, 60 + [0, 2, 4, 5, 7, 9, 11, 12, 14, 16][place], 80))
        tick += length
    return Piece.from_rows(rows, metres=(metre,))


@pytest.fixture(scope="session")
def tunes():
    return [little_tune(i) for i in range(12)]


@pytest.fixture(scope="session")
def store(tunes, tmp_path_factory):
    """Twelve tunes, prepared; read only."""
    return prepare_pieces(
        [Source(f"{i:02}.mid", f"{i:064x}", tune) for i, tune in enumerate(tunes)],
        DataConfig(corpus="tunes", validation_rate=0.2, test_rate=0.2),
        tmp_path_factory.mktemp("corpus") / "store",
        seed=0,
    )


@pytest.fixture
def new_run(store, tmp_path):
    """Makes runs on that store."""

    def make(name="run", config=None, resume=False):
        return Run.begin(
            tmp_path / name,
            config or preset("tiny"),
            stages=("pretrain", "refine"),
            store=store.folder,
            resume=resume,
        )

    return make


@pytest.fixture(scope="session")
def pretrained_once(store, tmp_path_factory):
    """Makes folders of runs that have been pretrained; read only."""

    def make(config):
        folder = tmp_path_factory.mktemp("pretrained") / "run"
        run = Run.begin(folder, config, stages=(), store=store.folder, resume=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pretrain, "watch", lambda *_, **__: None)
            pretrain.pretrain(run, store, progress=Progress("test", 1, every_seconds=math.inf))
        return run.folder

    return make


class Quiet(Progress):
    """Says nothing aloud; interrupts the job, as Ctrl-C would, at a given step."""

    def __init__(self, interrupt_at=None):
        super().__init__("test", 1)
        self.interrupt_at = interrupt_at
        self.said = []

    def update(self, done, note=""):
        if done == self.interrupt_at:
            raise KeyboardInterrupt

    def say(self, line):
        self.said.append(line)


@pytest.fixture
def progress_of():
    return Quiet


@pytest.fixture
def unwatched(monkeypatch):
    """No pictures and sounds while training: they take most of the time and change nothing."""
    for stage in (pretrain, adversarial):
        monkeypatch.setattr(stage, "watch", lambda *_, **__: None)


def log_of(run, stage):
    """What a stage logged: a dictionary per line, its stage left out."""
    lines = map(json.loads, (run.folder / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line.pop("stage") == stage]


@pytest.fixture
def read_log():
    return log_of
