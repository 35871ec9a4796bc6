import pytest

from rnngan.data import prepare, shards


class Inline:
    """A team of no processes: the work is done in this one."""

    def __init__(self, workers=None, *, most=None):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def results(self, work, jobs):
        for number in range(len(jobs)):
            yield work(jobs[number], {}, lambda item: None)


@pytest.fixture
def inline_team(monkeypatch):
    """`prepare` starts no processes; the class that stands for them."""
    monkeypatch.setattr(prepare, "Team", Inline)
    return Inline


@pytest.fixture
def files_read(monkeypatch):
    """Names of the files that are read in this process."""
    names = []
    read_or_reject = shards.read_or_reject

    def counted(file, *rest):
        names.append(file.name)
        return read_or_reject(file, *rest)

    monkeypatch.setattr(shards, "read_or_reject", counted)
    return names
