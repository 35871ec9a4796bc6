"""Make the pictures of the guide from trained runs.

    python docs/pictures.py --demo runs/demo --chorales runs/chorales --vae runs/vae

Each run is trained as the guide says, with its own named corpus; `docs/*.png` are written again.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure

from rnngan.cli import main as rnngan
from rnngan.data.store import Store
from rnngan.music.midi import read_midi, write_midi
from rnngan.music.parts import highest_part
from rnngan.music.picture import draw_piano_roll, piano_roll_png
from rnngan.music.piece import Piece
from rnngan.training.run import Run

DOCS = Path(__file__).parent
CHORALE, TUNES = 7, (9, 20)
"""Places in the test split."""


def test_piece(run: Path, place: int) -> tuple[str, Piece]:
    """Name and music of a piece of the test split."""
    store = Store.open(Run.open(run).store_folder)
    index = int(store.indices("test")[place])
    return Path(store.entry(index)["name"]).stem, store.tokenizer.decode(store.piece_tokens(index))


def harmonized_chorale(run: Path, folder: Path) -> None:
    """A chorale's own parts, and those that the model wrote to its soprano."""
    name, chorale = test_piece(run, CHORALE)
    melody = folder / f"{name}.mid"
    write_midi(Piece(notes=highest_part(chorale), metres=chorale.metres), melody)
    score = DOCS / "harmonized-chorale-score.png"
    where = ["--checkpoint", str(run), "--out", str(folder / "chorale"), "--score", str(score)]
    rnngan(["harmonize", str(melody), *where, "--num", "1", "--temperature", "0.8", "--no-wav"])
    both = [chorale, read_midi(folder / "chorale" / "000.mid")]
    pieces = [replace(piece, track_names=("Soprano", "Alto", "Tenor", "Bass")) for piece in both]
    titles = [f"{name}, Bach", f"{name}, the model"]
    piano_roll_png(pieces, titles, DOCS / "harmonized-chorale.png")


def attention(run: Path, folder: Path) -> None:
    """What the demo's generator looks back at in a piece of 16 bars."""
    picture = str(DOCS / "attention.png")
    words = ["--num", "1", "--bars", "16", "--seed", "5", "--top-p", "0.98", "--no-wav"]
    where = ["--out", str(folder / "attention"), "--attention-picture", picture]
    rnngan(["generate", str(run), *words, *where])


def interpolation(run: Path, folder: Path) -> None:
    """Eight steps from one tune of the test split to another, down the left side and the right."""
    paths, names = [], []
    for place in TUNES:
        name, tune = test_piece(run, place)
        paths.append(str(folder / f"{place}.mid"))
        names.append(name)
        write_midi(tune, Path(paths[-1]))
    where = ["--checkpoint", str(run), "--out", str(folder / "between"), "--no-wav"]
    rnngan(["interpolate", *paths, *where, "--steps", "8"])
    pieces = [read_midi(path) for path in sorted((folder / "between").glob("*.mid"))]
    titles = [f"{i + 1}" for i in range(8)]
    titles[0], titles[-1] = f"1: {names[0]}, written again", f"8: {names[1]}, written again"
    figure = Figure(figsize=(12, 8.5), dpi=100, layout="constrained")
    end = max(int(piece.bar_lines()[-1]) for piece in pieces)
    for axes, piece, title in zip(figure.subplots(4, 2).T.flat, pieces, titles):
        draw_piano_roll(axes, piece, title=title, end=end)
    figure.savefig(DOCS / "interpolation.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("demo", "chorales", "vae"):
        parser.add_argument(f"--{name}", type=Path, default=Path("runs") / name)
    runs = parser.parse_args()
    with TemporaryDirectory() as temporary:
        harmonized_chorale(runs.chorales, Path(temporary))
        attention(runs.demo, Path(temporary))
        interpolation(runs.vae, Path(temporary))
