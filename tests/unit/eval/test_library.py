"""`from eval import evaluate`."""

import subprocess
import sys

import pytest

from eval import evaluate
from eval.evaluation import Evaluation
from eval.pieces import Side
from rnngan.errors import UserError
from rnngan.music.midi import write_midi
from rnngan.music.piece import Piece

QUICK = {"resamples": 10, "permutations": 99, "metrics": ["pitch_range", "note_count"]}


def pieces(step):
    return [
        Piece.from_rows([(24 * i, 24 * i + 24, 60 + step * (i + n) % 7) for i in range(6)])
        for n in range(4)
    ]


def test_pieces_paths_and_sides(tmp_path):
    for number, piece in enumerate(pieces(1)):
        write_midi(piece, tmp_path / f"{number}.mid")
    given = (pieces(1), str(tmp_path), tmp_path, Side(name="mine", pieces=tuple(pieces(1))))
    results = [evaluate(real, pieces(2), training=pieces(3), **QUICK) for real in given]
    assert all(isinstance(result, Evaluation) for result in results)
    assert [result.real.name for result in results] == ["real", *[tmp_path.name] * 2, "mine"]
    assert len({result.rows[0].distance.value for result in results}) == 1
    assert [side.name for side in results[0].fakes] == ["generated"]
    assert len(results[0].copying) == 2
    assert "generated/pitch_range/wasserstein1" in results[0].flat()


def test_several_generated_sides():
    result = evaluate(pieces(1), pieces(2), pieces(3), **QUICK)
    assert [side.name for side in result.fakes] == ["generated 1", "generated 2"]


def test_nothing_to_compare():
    with pytest.raises(UserError, match="at least one generated side"):
        evaluate(pieces(1))


def test_the_package_itself_loads_nothing():
    code = "import eval, sys; assert not {'numpy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
