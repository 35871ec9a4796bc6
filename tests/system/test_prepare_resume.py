"""`rnngan prepare`, killed whenever and as whatever: the store is that of an undisturbed run."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")

PROGRAM = """
import signal, sys
# Whoever runs the tests in the background of a shell passes on that interrupts are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from rnngan.cli import main
sys.exit(main())
"""
SLOWLY = """
import time
from rnngan.data.duplicates import Signatures
extend = Signatures.extend
def slow_extend(self, signatures):
    time.sleep(0.5)  # for each shard, so that whoever watches gets his turn on a busy machine
    extend(self, signatures)
Signatures.extend = slow_extend
"""


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """Two hundred tunes of thirty notes, some in an archive, and some damaged files."""
    folder = tmp_path_factory.mktemp("corpus") / "music"
    folder.mkdir()
    draw = random.Random(0)
    tunes = {}
    for i in range(200):
        bars = ("".join(draw.choices("CDEFGABcdefg", k=8)) for _ in range(4))
        tunes[f"{i:03}.abc"] = f"X:1\nT:Tune {i}\nM:4/4\nL:1/8\nK:C\n{'|'.join(bars)}|\n"
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        for name, text in tunes.items():
            if name < "150":
                (folder / name).write_text(text)
            else:
                archive.writestr(name, text)
    for i in range(5):
        (folder / f"{i}-bad.mid").write_bytes(b"MThd")
    return folder


class Preparation:
    """A process that prepares a store, in a process group of its own."""

    def __init__(self, music, store, *options, slowly=False, **popen):
        self.store = store
        self.scratch = store.with_name(f".{store.name}.part")
        words = ["prepare", "--corpus", music, "--store", store, "--workers", "2", *options]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SLOWLY * slowly + PROGRAM, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **popen,
        )

    def shards(self):
        """Shards that were read so far, with the times when they were written."""
        found = {}
        for path in (self.scratch / "read").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError):  # the end of the work removes it
                found[path.name] = path.stat().st_mtime_ns
        return found

    def wait_for(self, event):
        """Waits until something is so; whether that came before the end."""
        while not event():
            if self.process.poll() is not None:
                return False
            time.sleep(0.002)
        return True

    def moments(self):
        """Things that happen one after another, to be waited for."""
        before = len(self.shards())
        return {
            "begun": self.scratch.exists,
            "reading": lambda: len(self.shards()) > before or self.moments()["writing"](),
            "writing": (self.scratch / "store").exists,
        }

    def workers(self):
        """Process ids of the workers."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [
            int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()
        ]

    def kill(self, whole_group):
        """Kill −9; without the group, the workers are left to themselves."""
        (os.killpg if whole_group else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def finish_with(self, shards):
        """Likewise, and makes sure that these shards are not read again."""
        while self.process.poll() is None:
            now = self.shards()
            assert all(now.get(name, stamp) == stamp for name, stamp in shards.items())
            time.sleep(0.005)
        return self.finish()

    def finish(self):
        """Exit code, and what was said on stderr."""
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def undisturbed(music, tmp_path_factory):
    """The store of a run that nobody disturbed."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    code, errors = Preparation(music, store).finish()
    assert code == 0, errors
    assert [path.name for path in store.parent.iterdir()] == ["store"]
    return contents(store)


def check(folder, undisturbed):
    """The store is as it should be, and nothing lies beside it."""
    assert [path.name for path in folder.iterdir()] == ["store"]
    assert contents(folder / "store") == undisturbed


def kill_and_go_on(music, folder, undisturbed, draw, whole_group):
    """Kill three attempts, one after another, then let one come to its end.

    Returns:
        How many attempts found shards that an earlier one had read.
    """
    num_resumed = 0
    for moment in draw.sample(["begun", "reading", "writing"], 3):
        run = Preparation(music, folder / "store")
        before = run.shards()
        num_resumed += bool(before)
        run.wait_for(run.moments()[moment])
        time.sleep(draw.uniform(0, {"begun": 0.6, "reading": 0.05, "writing": 0.3}[moment]))
        run.kill(whole_group)
        if run.store.exists():  # too late
            break
        after = run.shards()
        assert {name: after[name] for name in before} == before
    run = Preparation(music, folder / "store")
    before = run.shards()
    num_resumed += bool(before)
    code, errors = run.finish_with(before)
    assert code == 0, errors
    check(folder, undisturbed)
    return num_resumed


@pytest.mark.parametrize("whole_group", [False, True], ids=["parent", "group"])
def test_killed_and_gone_on_with(music, undisturbed, tmp_path, whole_group):
    draw = random.Random(whole_group)
    kill_and_go_on(music, tmp_path, undisturbed, draw, whole_group)


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [False, True], ids=["parent", "group"])
def test_killed_often_and_gone_on_with(music, undisturbed, tmp_path, whole_group):
    draw = random.Random(10 + whole_group)
    num_resumed = 0
    for i in range(5):
        (tmp_path / f"{i}").mkdir()
        num_resumed += kill_and_go_on(music, tmp_path / f"{i}", undisturbed, draw, whole_group)
    assert num_resumed > 0


def test_an_interrupt_keeps_what_was_read(music, undisturbed, tmp_path):
    run = Preparation(music, tmp_path / "store", slowly=True)
    assert run.wait_for(run.shards)
    os.killpg(run.process.pid, signal.SIGINT)  # what a terminal does
    code, errors = run.finish()
    assert code == 130 and "Traceback" not in errors
    assert "interrupted" in errors.splitlines()[-1]
    before = run.shards()
    assert before
    assert Preparation(music, tmp_path / "store").finish_with(before)[0] == 0
    check(tmp_path, undisturbed)


def test_a_worker_that_is_killed_costs_nothing(music, undisturbed, tmp_path):
    run = Preparation(music, tmp_path / "store", slowly=True)
    assert run.wait_for(run.shards)
    os.kill(run.workers()[0], signal.SIGKILL)
    code, errors = run.finish()
    assert code == 0, errors
    check(tmp_path, undisturbed)


def test_workers_end_with_their_parent(music, tmp_path):
    def is_running(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    run = Preparation(music, tmp_path / "store", slowly=True)
    assert run.wait_for(run.shards)
    workers = run.workers()
    assert len(workers) == 2
    run.kill(whole_group=False)
    until = time.monotonic() + 20
    while any(map(is_running, workers)):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_two_at_once(music, undisturbed, tmp_path):
    runs = [Preparation(music, tmp_path / "store") for _ in range(2)]
    results = sorted(run.finish() for run in runs)
    assert [code for code, _ in results] in ([0, 0], [0, 2])
    for code, errors in results:
        assert "Traceback" not in errors
        if code:
            assert "another process is preparing" in errors
    check(tmp_path, undisturbed)


def test_a_full_disk_stops_it_until_there_is_room(music, undisturbed, tmp_path):
    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    code, errors = Preparation(music, tmp_path / "store", preexec_fn=little_room).finish()
    assert code == 2 and "Traceback" not in errors
    [line] = [line for line in errors.splitlines() if "error" in line]
    assert "File too large" in line
    assert not (tmp_path / "store").exists()
    assert Preparation(music, tmp_path / "store").finish()[0] == 0
    check(tmp_path, undisturbed)


# Bad input: one line, exit code 2


def refused(*arguments):
    """The line that a preparation which must fail ends with."""
    code, errors = Preparation(*arguments).finish()
    lines = [line for line in errors.splitlines() if not line.lstrip().startswith("prepare ")]
    assert code == 2 and len(lines) == 1, errors
    return lines[0]


def test_too_much_damage(music, tmp_path):
    line = refused(music, tmp_path / "store", "--max-reject-rate", "0.02")
    assert line.startswith("rnngan: error: 2.4% of the 205 files of ")
    assert "more than --max-reject-rate 0.02: 5 truncated; all are listed in" in line
    rows = (tmp_path / "store-rejects.csv").read_text().splitlines()
    assert len(rows) == 6 and rows[1].startswith("0-bad.mid,truncated,")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ("no/such", "corpus folder no/such does not exist"),
        ("ryan-mammoth", "unknown corpus 'ryan-mammoth'; did you mean 'ryans-mammoth'?"),
        (".", "no music in .: looked for"),
    ],
)
def test_no_such_corpus(tmp_path, monkeypatch, corpus, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(corpus, tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_no_torch_where_files_are_read():
    program = "import sys, rnngan.data.shards, train_gan; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
