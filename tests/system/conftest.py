import pytest

from rnngan.cli import main
from rnngan.music.midi import write_midi


@pytest.fixture(scope="session")
def midi_folder(tunes, tmp_path_factory):
    """Twelve tunes as MIDI files; read only."""
    folder = tmp_path_factory.mktemp("music") / "tunes"
    folder.mkdir()
    for i, tune in enumerate(tunes):
        write_midi(tune, folder / f"{i:02}.mid")
    return folder


@pytest.fixture(scope="session")
def settings(midi_folder):
    """Options of a training that takes seconds."""
    return [
        *("--corpus", str(midi_folder), "--preset", "tiny"),
        *("--data.test-rate", "0.2", "--workers", "1", "--threads", "1"),
    ]


@pytest.fixture(scope="session")
def trained(settings, tmp_path_factory):
    """A run that was trained in one go; read only."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    assert main(["train", *settings, "--run", str(folder)]) == 0
    return folder
