import errno
import json
import os
import pickle
import resource
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from rnngan.config import DiscriminatorConfig, GeneratorConfig
from rnngan.discriminator.registry import new_discriminator
from rnngan.discriminator.residual import Residual
from rnngan.errors import UserError
from rnngan.generator.registry import new_generator
from rnngan.music.tokenizers.events import Events, EventsConfig
from rnngan.training import checkpoint
from rnngan.training.checkpoint import Checkpoints, Model, model_bytes, parse_model, read_model

TOKENIZER = Events(EventsConfig(metres=("4/4", "6/8"), lowest=60, highest=64))
VOCAB = len(TOKENIZER.vocabulary)


def model(seed=0, *, discriminator=False, tied=False, metrics=None):
    torch.manual_seed(seed)
    config = GeneratorConfig(embedding_size=4, hidden_size=5, tied=tied)
    judge = DiscriminatorConfig(embedding_size=3, hidden_size=4, stride=2)
    return Model(
        generator=new_generator(config, VOCAB).eval(),
        discriminator=new_discriminator(judge, TOKENIZER).eval() if discriminator else None,
        tokenizer=TOKENIZER,
        metrics=metrics or {"val_bits_per_token": 1.5},
    )


def with_residual(seed=0):
    residual = Residual(("a@1", "b@1"), (1, 3), rounds=2, hidden=4, members=2)
    residual.standardise_by(torch.randn(9, 4))
    residual.committees[0].scale.fill_(0.5)
    return replace(model(seed, discriminator=True), residual=residual.eval())


def test_a_residual_comes_back_and_says_the_same(tmp_path):
    before = with_residual()
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_bytes(before))
    after = read_model(path)
    rows = torch.randn(5, 4)
    assert torch.equal(after.residual(rows), before.residual(rows))
    assert after.residual.measures == ("a@1", "b@1")
    assert not after.residual.training
    assert model_bytes(after) == model_bytes(before)
    assert model_bytes(replace(before, residual=None)) == model_bytes(model(discriminator=True))


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def said():
    return []


@pytest.fixture
def checkpoints(tmp_path, said):
    return Checkpoints(tmp_path / "checkpoints", "pretrain", keep=3, say=said.append)


def save(checkpoints, *steps, best=False):
    for step in steps:
        checkpoints.save(step, model(step), {"optimizer": {"at": step}}, best=best)


def names(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def same_weights(one, two):
    one, two = one.state_dict(), two.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


# Models


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_comes_back_as_it_was(tmp_path, tied):
    before = model(discriminator=True, tied=tied, metrics={"a": 0.1, "b": 1e-300})
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_bytes(before))
    after = read_model(path)
    tokens, lengths = torch.randint(0, VOCAB, (3, 7)), torch.tensor([7, 2, 5])
    assert torch.equal(after.generator(tokens)[0], before.generator(tokens)[0])
    assert torch.equal(after.discriminator(tokens, lengths), before.discriminator(tokens, lengths))
    assert after.generator.config == before.generator.config
    assert after.discriminator.config == before.discriminator.config
    assert after.tokenizer.vocabulary == TOKENIZER.vocabulary
    assert after.metrics == {"a": 0.1, "b": 1e-300}


def test_a_model_comes_back_in_evaluation_mode():
    before = model(discriminator=True)
    before.generator.train()
    after = parse_model(model_bytes(before), "x")
    assert not after.generator.training and not after.discriminator.training


def test_a_tied_output_layer_stays_tied():
    after = parse_model(model_bytes(model(tied=True)), "x").generator
    assert after.output.weight is after.embedding.weight


def test_equal_models_give_equal_bytes_in_every_process(tmp_path):
    data = model_bytes(model(discriminator=True))
    assert {model_bytes(model(discriminator=True)) for _ in range(20)} == {data}
    assert model_bytes(parse_model(data, "x")) == data
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    program = (
        "import sys, pathlib; from rnngan.training.checkpoint import model_bytes, read_model;"
        "sys.stdout.buffer.write(model_bytes(read_model(pathlib.Path(sys.argv[1]))))"
    )
    other = subprocess.run([sys.executable, "-c", program, path], capture_output=True, check=True)
    assert other.stdout == data


def test_other_software_can_read_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_bytes(model()))
    with safetensors.safe_open(path, "numpy") as file:
        about = json.loads(file.metadata()["rnngan"])
        weight = file.get_tensor("generator.embedding.weight")
    assert about["generator"]["hidden_size"] == 5
    assert about["metrics"] == {"val_bits_per_token": 1.5}
    np.testing.assert_array_equal(weight, model().generator.embedding.weight.detach().numpy())


def test_a_model_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match=r"cannot read model .*: No such file or directory"):
        read_model(tmp_path / "none.safetensors")


def refusal(data, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_model(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_a_model_cut_anywhere_is_refused(tmp_path):
    data = model_bytes(model())
    for length in [0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1]:
        assert "is not a model of rnngan, or is damaged" in refusal(data[:length], tmp_path)


def test_a_model_with_any_bit_flipped_is_refused(tmp_path):
    data = model_bytes(model())
    random = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    for place in [*random.integers(0, header, 300), *random.integers(header, len(data), 100)]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(random.integers(8))
        refusal(bytes(damaged), tmp_path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"rnngan": "[1]"}, {"rnngan": "{}"}])
def test_safetensors_of_other_software_are_refused(tmp_path, metadata):
    data = safetensors.torch.save({"weight": torch.zeros(2)}, metadata)
    assert "model" in refusal(data, tmp_path)


def test_a_later_format_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", "rnngan-99")
    data = model_bytes(model())
    monkeypatch.undo()
    assert "its format is rnngan-99, wanted rnngan-1" in refusal(data, tmp_path)


def test_a_pickle_named_safetensors_is_refused_and_not_run(tmp_path):
    trap = tmp_path / "trap"
    refusal(pickle.dumps(Evil(trap)), tmp_path)
    torch.save(Evil(trap), tmp_path / "bad.pt")
    refusal((tmp_path / "bad.pt").read_bytes(), tmp_path)
    assert not trap.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda about, tensors: about["generator"].update(hidden_size=6),
        lambda about, tensors: about["generator"].update(hiden_size=5),
        lambda about, tensors: about["generator"].update(hidden_size=-1),
        lambda about, tensors: about["tokenizer"].update(metres=["4/0"]),
        lambda about, tensors: about["tokenizer"].update(highest=70),
        lambda about, tensors: about.update(tokenizer=[1, 2]),
        lambda about, tensors: about.update(generator=None),
        lambda about, tensors: about.pop("tokenizer"),
        lambda about, tensors: about.update(discriminator={"hidden_size": 4}),
        lambda about, tensors: tensors.pop("generator.output.bias"),
        lambda about, tensors: tensors.update({"generator.output.bias": torch.zeros(3)}),
        lambda about, tensors: tensors.update({"generator.extra": torch.zeros(3)}),
    ],
)
def test_a_model_that_does_not_fit_its_description_is_refused(tmp_path, change):
    tensors = safetensors.torch.load(model_bytes(model()))
    header = model_bytes(model())[8:]
    about = json.JSONDecoder().raw_decode(header.decode(errors="replace"))[0]["__metadata__"]
    about = json.loads(about["rnngan"])
    del about["sha256"]
    change(about, tensors)
    about["sha256"] = checkpoint._digest(about, tensors)  # whoever made it, meant it
    data = safetensors.torch.save(tensors, {"rnngan": json.dumps(about)})
    assert "is damaged: " in refusal(data, tmp_path)


# Checkpoints


def test_the_last_checkpoint_comes_back_whole(checkpoints):
    state = {"optimizer": {"step": torch.tensor(3.0)}, "best_bits": 1.25, "names": ["a"]}
    saved = model(discriminator=True)
    checkpoints.save(7, saved, state, best=False)
    resumed = checkpoints.latest()
    assert (resumed.step, resumed.state) == (7, state)
    assert same_weights(resumed.model.generator, saved.generator)
    assert same_weights(resumed.model.discriminator, saved.discriminator)


def test_no_checkpoint_at_all(checkpoints):
    assert checkpoints.latest() is None and checkpoints.steps() == []
    with pytest.raises(UserError, match=r"no pretrain model in .*: rnngan pretrain"):
        checkpoints.read_best()


def test_the_last_few_and_the_best_are_kept(checkpoints):
    save(checkpoints, 2, best=True)
    save(checkpoints, 4, 6, 8, 10)
    assert names(checkpoints) == [
        "pretrain-0000006.resume.pt",
        "pretrain-0000006.safetensors",
        "pretrain-0000008.resume.pt",
        "pretrain-0000008.safetensors",
        "pretrain-0000010.resume.pt",
        "pretrain-0000010.safetensors",
        "pretrain-best.safetensors",
        "pretrain-latest",
    ]
    assert checkpoints.pointer.read_text() == "10\n"
    assert same_weights(checkpoints.read_best().generator, model(2).generator)


def test_what_a_killed_process_left_half_written_goes_with_the_next_checkpoint(checkpoints):
    save(checkpoints, 1)
    (checkpoints.folder / ".tmp-0123456789abcdef").write_bytes(b"half a mod")
    save(checkpoints, 2)
    assert not [name for name in names(checkpoints) if "tmp" in name]


def test_stages_do_not_touch_each_other(checkpoints, said):
    save(checkpoints, 1, best=True)
    other = Checkpoints(checkpoints.folder, "refine", keep=1, say=said.append)
    save(other, 1, 2, 3, best=True)
    assert (checkpoints.steps(), other.steps()) == ([1], [3])
    assert same_weights(checkpoints.read_best().generator, model(1).generator)
    assert (checkpoints.latest().step, other.latest().step) == (1, 3)


def test_files_of_other_names_are_passed_over(checkpoints, said):
    save(checkpoints, 1)
    for name in ("pretrain-0000002 (copy).resume.pt", "pretrain-x.resume.pt", ".tmp-12.resume.pt"):
        (checkpoints.folder / name).write_bytes(b"?")
    assert checkpoints.latest().step == 1 and said == []


def test_steps_beyond_seven_digits_still_count_upwards(checkpoints):
    save(checkpoints, 9_999_999, 10_000_000)
    assert checkpoints.steps() == [9_999_999, 10_000_000]
    assert checkpoints.latest().step == 10_000_000


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 4
    path.write_bytes(bytes(data))


def tensor_place(path):
    """A byte in the middle of a tensor's values."""
    return path.read_bytes().index(torch.full((64,), 0.7).numpy().tobytes()) + 100


@pytest.mark.parametrize(
    "damage",
    [
        lambda model, state: model.write_bytes(b""),
        lambda model, state: model.write_bytes(model.read_bytes()[:-1]),
        lambda model, state: flip(model, -5),
        lambda model, state: model.unlink(),
        lambda model, state: model.write_bytes(model_bytes(globals()["model"](99))),
        lambda model, state: state.write_bytes(b""),
        lambda model, state: state.write_bytes(b"not a checkpoint"),
        lambda model, state: state.write_bytes(state.read_bytes()[:-20]),
        lambda model, state: flip(state, tensor_place(state)),
        lambda model, state: torch.save([1, 2], state),
        lambda model, state: torch.save({"optimizer": {}}, state),
        lambda model, state: torch.save({"x": 1}, state, _use_new_zipfile_serialization=False),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(checkpoints, said, damage):
    for step in (4, 8):
        checkpoints.save(step, model(step), {"moments": torch.full((64,), 0.7)}, best=False)
    damage(*checkpoints._paths(8))
    resumed = checkpoints.latest()
    assert resumed.step == 4
    assert same_weights(resumed.model.generator, model(4).generator)
    assert len(said) == 1 and "\n" not in said[0]
    assert "pretrain-0000008" in said[0] and said[0].endswith("going back to the checkpoint before")


def test_after_falling_back_the_run_goes_on_over_the_damage(checkpoints, said):
    save(checkpoints, 2, 4, 6)
    flip(checkpoints._paths(6)[0], 50)
    assert checkpoints.latest().step == 4
    save(checkpoints, 6)
    assert checkpoints.latest().step == 6 and len(said) == 1
    save(checkpoints, 8)
    assert checkpoints.steps() == [4, 6, 8]


def test_when_all_are_damaged_the_user_hears_of_it(checkpoints, said):
    save(checkpoints, 1, 2)
    for step in (1, 2):
        checkpoints._paths(step)[1].write_bytes(b"")
    with pytest.raises(UserError, match=r"all pretrain checkpoints in .* are damaged"):
        checkpoints.latest()
    assert len(said) == 2


@pytest.mark.parametrize("protocol", ["zip", "legacy", "plain"])
def test_a_malicious_resume_state_is_not_run(checkpoints, said, tmp_path, protocol):
    save(checkpoints, 1, 2)
    trap, state = tmp_path / "trap", checkpoints._paths(2)[1]
    if protocol == "plain":
        state.write_bytes(pickle.dumps({"optimizer": Evil(trap)}))
    else:
        torch.save(
            {"optimizer": Evil(trap)}, state, _use_new_zipfile_serialization=protocol == "zip"
        )
    assert checkpoints.latest().step == 1
    assert not trap.exists() and "damaged or foreign" in said[0]


@pytest.mark.parametrize("pointer", ["1\n", "", "nonsense", "\udcff", "99\n", "0\n", None])
def test_a_pointer_that_lies_does_no_harm(checkpoints, said, pointer):
    save(checkpoints, 1, 2)
    if pointer is None:
        checkpoints.pointer.unlink()
    else:
        checkpoints.pointer.write_bytes(pointer.encode(errors="surrogateescape"))
    # Behind the pointer lies what was not written to the end; a pointer to nothing is not believed.
    assert checkpoints.latest().step == (1 if pointer == "1\n" else 2)
    assert said == []


@contextmanager
def crash_after(monkeypatch, writes, error):
    """The process dies, or the disk is full, after so many files of a checkpoint."""
    done = []
    write = checkpoint.write_atomically

    def failing(path, data):
        if len(done) == writes:
            raise error
        done.append(path)
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", failing)
        yield


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("writes", range(4))
def test_a_crash_between_files_leaves_a_sound_checkpoint(
    checkpoints, said, monkeypatch, writes, best
):
    save(checkpoints, 2, 4, best=True)
    with crash_after(monkeypatch, writes, KeyboardInterrupt()):
        if writes < 3 + best:
            with pytest.raises(KeyboardInterrupt):
                save(checkpoints, 6, best=best)
        else:
            save(checkpoints, 6, best=best)
    whole = writes >= 3 + best
    assert checkpoints.latest().step == (6 if whole else 4) and said == []
    checkpoints.read_best()
    save(checkpoints, 6, best=best)  # the stage does that step once more
    assert checkpoints.latest().step == 6


def test_what_an_interrupted_save_left_ahead_does_not_push_out_the_last(
    checkpoints, said, monkeypatch
):
    checkpoints.keep = 1
    save(checkpoints, 2)
    with crash_after(monkeypatch, 2, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        save(checkpoints, 6)
    assert checkpoints.steps() == [2, 6]
    save(checkpoints, 4)
    assert checkpoints.latest().step == 4 and said == []


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_last_checkpoint_whole(checkpoints, said, monkeypatch, failing):
    save(checkpoints, 2, best=True)
    before = {path: path.read_bytes() for path in checkpoints.folder.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(UserError, match="No space left on device"):
            save(checkpoints, 4, best=True)
    assert {path: path.read_bytes() for path in checkpoints.folder.iterdir()} == before
    assert checkpoints.latest().step == 2


@contextmanager
def no_file_beyond(size):
    """Files cannot grow beyond `size` bytes: the kernel's own refusal, whole writes or not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 100, "model", "state"])
def test_a_write_that_the_kernel_cuts_off_leaves_the_last_checkpoint_whole(checkpoints, said, room):
    save(checkpoints, 2, best=True)
    sizes = [path.stat().st_size for path in checkpoints._paths(2)]
    assert sizes[1] < sizes[0]  # so that the model is what does not fit
    limit = {"model": sizes[0] - 1, "state": sizes[1] + 10}.get(room, room)
    with no_file_beyond(limit), pytest.raises(UserError, match=r"cannot write .*\.safetensors"):
        save(checkpoints, 4, best=True)
    assert not [name for name in names(checkpoints) if "tmp" in name or "4" in name]
    assert checkpoints.latest().step == 2
    assert same_weights(checkpoints.read_best().generator, model(2).generator)
