"""Checkpoints that a crash cannot damage, and that cannot run code.

A model is one `.safetensors` file whose metadata holds settings, tokenizer and metrics. What a
resume needs besides lies next to it in `.resume.pt`: plain types, always read with
`weights_only=True`. Both are written under a temporary name and renamed; then the pointer
`STAGE-latest` moves. A damaged checkpoint falls back to the one before.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save

from rnngan.config import DiscriminatorConfig, GeneratorConfig, from_dict, to_dict
from rnngan.discriminator.base import Discriminator
from rnngan.discriminator.registry import new_discriminator
from rnngan.discriminator.residual import Residual
from rnngan.errors import UserError
from rnngan.files import write_atomically
from rnngan.generator.recurrent import RecurrentGenerator
from rnngan.generator.registry import generator_for
from rnngan.generator.tuples import TuplesGenerator
from rnngan.music.tokenizers.base import Tokenizer, as_tokenizer
from rnngan.music.tokenizers.registry import codec_from_json
from rnngan.music.tokenizers.tuples import Tuples

FORMAT = "rnngan-1"
_METADATA = "rnngan"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A generator, the discriminator trained beside it if there is one, and what they read.

    Attributes:
        generator: Writes tokens.
        discriminator: Judges them; none before refinement.
        residual: Judges whole pieces; none before refinement has come to its end.
        tokenizer: What the tokens mean.
        metrics: Figures at the time of saving, such as `val_bits_per_token`.
    """

    generator: RecurrentGenerator
    tokenizer: Tokenizer
    discriminator: Discriminator | None = None
    residual: Residual | None = None
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TuplesModel:
    """Likewise, of notes as real numbers."""

    generator: TuplesGenerator
    tokenizer: Tuples
    discriminator: Discriminator | None = None
    metrics: Mapping[str, float]


AnyModel = Model | TuplesModel


def of_tokens(model: AnyModel) -> Model:
    """The model, where it writes tokens.

    Raises:
        UserError: It writes real numbers.
    """
    if isinstance(model, TuplesModel):
        raise UserError(
            "this model writes tuples, real numbers: there are no tokens with probabilities, which "
            "all of this needs; take a model that was trained with another --generator"
        )
    return model


def model_bytes(model: AnyModel) -> bytes:
    """The model as the contents of a `.safetensors` file; equal models give equal bytes."""
    tensors = {f"generator.{k}": v for k, v in model.generator.state_dict().items()}
    about: dict[str, Any] = {
        "format": FORMAT,
        "generator": to_dict(model.generator.config),
        "tokenizer": model.tokenizer.to_json(),
        "metrics": dict(model.metrics),
    }
    if model.discriminator is not None:
        for name, tensor in model.discriminator.state_dict().items():
            tensors[f"discriminator.{name}"] = tensor
        about["discriminator"] = to_dict(model.discriminator.config)
    if isinstance(model, Model) and (residual := model.residual):
        for name, tensor in residual.state_dict().items():
            tensors[f"residual.{name}"] = tensor
        about["residual"] = {
            "measures": residual.measures,
            "widths": residual.widths,
            "rounds": len(residual.committees),
            "hidden": residual.hidden,
            "members": residual.members,
        }
    # A tied output layer is one tensor under two names; the file format wants two.
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    about["sha256"] = _digest(about, tensors)
    # Under one key: the library writes several in an order that changes from call to call.
    data: bytes = save(tensors, {_METADATA: json.dumps(about, sort_keys=True)})
    return data


def _digest(about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of a description and its tensors; the file format has no checksum of its own."""
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()


def read_model(path: Path) -> AnyModel:
    """A model from its file, in evaluation mode.

    Raises:
        UserError: No such file, not one of ours, or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read model {path}: {error.strerror}") from None
    return parse_model(data, path)


def parse_model(data: bytes, path: Path) -> AnyModel:
    """A model from the bytes of its file; `path` is for messages."""
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = dict(json.loads(header.get("__metadata__", {}).get(_METADATA, "{}")))
    except (safetensors.SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{path} is not a model of rnngan, or is damaged ({error}); "
            "choose another checkpoint of the run"
        ) from None
    if about.get("format") != FORMAT:
        raise UserError(
            f"{path} is no model that this version reads: its format is "
            f"{about.get('format', 'not said')}, wanted {FORMAT}"
        )
    try:
        if about.pop("sha256") != _digest(about, tensors):
            raise ValueError("its checksum is wrong")
        codec = codec_from_json(about["tokenizer"])
        # Models that were written before there was attention do not mention it, and have none.
        settings = {"attention": 0, **about["generator"]}
        kind = from_dict(GeneratorConfig, settings)
        model: AnyModel
        if isinstance(codec, Tuples):
            model = TuplesModel(generator=TuplesGenerator(kind), tokenizer=codec, metrics={})
        else:
            tokenizer = as_tokenizer(codec)
            model = Model(generator=generator_for(kind, tokenizer), tokenizer=tokenizer, metrics={})
        model.generator.load_state_dict(_named("generator.", tensors))
        model.generator.eval()
        discriminator = None
        if "discriminator" in about:
            config = from_dict(DiscriminatorConfig, about["discriminator"])
            discriminator = new_discriminator(config, codec)
            discriminator.load_state_dict(_named("discriminator.", tensors))
            discriminator.eval()
        if isinstance(model, Model) and "residual" in about:
            residual = Residual(**about["residual"])
            residual.load_state_dict(_named("residual.", tensors))
            model = replace(model, residual=residual.eval().requires_grad_(False))
    except Exception as error:  # a description may hold anything
        raise UserError(f"model {path} is damaged: {_reason(error)}") from None
    return replace(model, discriminator=discriminator, metrics=about.get("metrics", {}))


def _named(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _reason(error: Exception) -> str:
    """What an exception says, in a line."""
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """A checkpoint to go on from: its step, model, and what `Checkpoints.save` was given."""

    step: int
    model: AnyModel
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one stage of a run.

    Args:
        folder: The run's `checkpoints/`.
        stage: `pretrain` or `refine`; begins the names of the files.
        keep: How many of the last to keep; the best is kept besides.
        say: Told about damaged checkpoints that are passed over.
    """

    def __init__(self, folder: Path, stage: str, *, keep: int, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.stage = stage
        self.keep = keep
        self.say = say

    @property
    def best(self) -> Path:
        """The best model so far, or where it will be."""
        return self.folder / f"{self.stage}-best.safetensors"

    @property
    def pointer(self) -> Path:
        """Names the last checkpoint that was written whole."""
        return self.folder / f"{self.stage}-latest"

    def steps(self) -> list[int]:
        """Steps of the checkpoints that lie here, ascending."""
        names = (path.name for path in self.folder.glob(f"{self.stage}-*"))
        found = (re.fullmatch(rf"{self.stage}-(\d+)\.resume\.pt", name) for name in names)
        return sorted(int(match[1]) for match in found if match)

    def _paths(self, step: int) -> tuple[Path, Path]:
        name = f"{self.stage}-{step:07d}"
        return self.folder / f"{name}.safetensors", self.folder / f"{name}.resume.pt"

    def save(self, step: int, model: AnyModel, state: Mapping[str, Any], *, best: bool) -> None:
        """Write a checkpoint, move the pointer, and drop what is too old.

        Args:
            step: Updates done.
            model: Goes into the `.safetensors` file.
            state: Tensors and plain types; whatever else a resume needs.
            best: Keep the model as the best, too.

        Raises:
            UserError: The disk does not take it; what was there before stays whole.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        model_path, state_path = self._paths(step)
        data = model_bytes(model)
        buffer = io.BytesIO()
        torch.save({"model_sha256": hashlib.sha256(data).hexdigest(), **state}, buffer)
        write_atomically(model_path, data)
        write_atomically(state_path, buffer.getvalue())
        if best:
            write_atomically(self.best, data)
        write_atomically(self.pointer, f"{step}\n".encode())
        for old in [s for s in self.steps() if s <= step][: -self.keep]:
            for path in self._paths(old):
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".tmp-*"):  # of a process that was killed while it wrote
            path.unlink(missing_ok=True)

    def replace_best(self, model: AnyModel) -> None:
        """Put another model in the place of the best.

        Raises:
            UserError: The disk does not take it.
        """
        write_atomically(self.best, model_bytes(model))

    def latest(self) -> Resumed | None:
        """The last sound checkpoint; None if there never was one.

        Raises:
            UserError: There are checkpoints, and all are damaged.
        """
        steps = self.steps()
        try:
            pointed = int(self.pointer.read_text())
        except (OSError, ValueError):
            pointed = max(steps, default=0)
        # What lies behind the pointer was written, but not to the end.
        steps = [step for step in steps if step <= pointed] or steps
        for step in reversed(steps):
            try:
                return self._read(step)
            except UserError as error:
                self.say(f"{error}; going back to the checkpoint before")
        if steps:
            raise UserError(f"all {self.stage} checkpoints in {self.folder} are damaged")
        return None

    def read_best(self) -> AnyModel:
        """The best model.

        Raises:
            UserError: The stage has not got so far, or the file is damaged.
        """
        if not self.best.exists():
            raise UserError(
                f"no {self.stage} model in {self.folder} yet; run that stage first: "
                f"rnngan {self.stage}"
            )
        return read_model(self.best)

    def _read(self, step: int) -> Resumed:
        model_path, state_path = self._paths(step)
        try:
            data = model_path.read_bytes()
            packed = state_path.read_bytes()
            # torch writes a checksum beside every tensor and does not look at it again.
            if wrong := zipfile.ZipFile(io.BytesIO(packed)).testzip():
                raise ValueError(f"the checksum of {wrong} is wrong")
            state = torch.load(io.BytesIO(packed), map_location="cpu", weights_only=True)
            if state.pop("model_sha256") != hashlib.sha256(data).hexdigest():
                raise ValueError("model and resume state are of different times")
        except OSError as error:
            raise UserError(f"cannot read checkpoint {state_path}: {error.strerror}") from None
        except Exception as error:  # unpickling promises no particular exceptions
            raise UserError(
                f"checkpoint {state_path} is damaged or foreign: {_reason(error)}"
            ) from None
        return Resumed(step=step, model=parse_model(data, model_path), state=state)
