"""The run directory: settings, provenance, log, and where everything else goes."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rnngan.config import RunConfig, read_toml, to_dict, to_toml
from rnngan.errors import UserError
from rnngan.files import write_atomically

STAGES = ("prepare", "pretrain", "refine")
_SETTINGS_OF_STAGE = {
    "prepare": ("seed", "data"),
    "pretrain": ("generator", "pretrain"),
    "refine": ("discriminator", "refine"),
}
_MAY_CHANGE = {("pretrain", "steps"), ("refine", "steps")}
"""Settings that a stage may be resumed with anew: it goes on for longer."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run's folder and settings.

    Attributes:
        folder: `runs/NAME`.
        config: As in its `config.toml`.
        store_folder: Its prepared corpus.
    """

    folder: Path
    config: RunConfig
    store_folder: Path

    @property
    def checkpoints(self) -> Path:
        """Models and resume states of all stages."""
        return self.folder / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Event files, one folder a stage."""
        return self.folder / "tensorboard"

    def has_begun(self, stage: str) -> bool:
        """Whether the stage has left anything here."""
        if stage == "prepare":
            return (self.store_folder / "manifest.json").exists()
        return any(self.checkpoints.glob(f"{stage}-*"))

    @staticmethod
    def open(folder: Path) -> Run:
        """A run that exists.

        Raises:
            UserError: There is none in this folder.
        """
        if not (folder / "config.toml").exists():
            raise UserError(
                f"no run in {folder} (config.toml is missing); start one with: rnngan train"
            )
        about = read_about(folder)
        return Run(
            folder=folder,
            config=read_toml(folder / "config.toml"),
            store_folder=_store_folder(folder, about),
        )

    @staticmethod
    def begin(
        folder: Path,
        config: RunConfig,
        *,
        stages: tuple[str, ...],
        store: Path | None,
        resume: bool,
    ) -> Run:
        """Open or make a run in which `stages` may start, or go on with `resume`.

        Raises:
            UserError: The folder holds something else; a stage is already there and `resume` is
                not wanted; or settings differ from those that an earlier part was made with, or do
                not go together.
        """
        check_together(config, stages)
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file, not a run; choose another --run")
        if folder.exists() and not (folder / "config.toml").exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not a run and not empty; choose another --run")
        exists = (folder / "config.toml").exists()
        about = read_about(folder) if exists else {}
        store = store or _store_folder(folder, about)
        run = Run(folder=folder, config=config, store_folder=store)
        if exists:
            earlier = Run.open(folder)
            if "store" in about and earlier.store_folder.resolve() != store.resolve():
                raise UserError(f"{folder} was made with the corpus in {earlier.store_folder}")
            _check_unchanged(earlier, config)
            done = [stage for stage in stages if stage != "prepare" and run.has_begun(stage)]
            if done and not resume:
                raise UserError(
                    f"{folder} already holds a run ({done[0]} has begun); "
                    "add --resume to go on with it, or choose another --run"
                )
        elif resume:
            raise UserError(f"no run to resume in {folder}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make run folder {folder}: {error.strerror}") from None
        write_atomically(folder / "config.toml", to_toml(config).encode())
        started = [*about.get("started", []), _started()]
        facts = {"seed": config.seed, "store": str(store.resolve()), "started": started}
        write_atomically(folder / "run.json", json.dumps(facts, indent=1).encode())
        return run


def check_together(config: RunConfig, stages: Sequence[str]) -> None:
    """See that generator, tokenizer and objective are all of tokens, or all of tuples.

    Raises:
        UserError: They are not, and one of the stages needs it.
    """
    kind, tokenizer, objective = (
        config.generator.kind, config.data.tokenizer, config.refine.objective
    )  # fmt: skip
    continuous = kind == "tuples"
    if not {"pretrain", "refine"}.isdisjoint(stages) and continuous != (tokenizer == "tuples"):
        raise UserError(
            f"the generator tuples needs data.tokenizer tuples, got {tokenizer}; "
            "add --tokenizer tuples"
            if continuous
            else f"data.tokenizer tuples makes real numbers, which the generator {kind} cannot "
            "learn; add --generator tuples, or choose another --tokenizer"
        )
    if "refine" in stages and continuous != (objective == "feature-matching"):
        raise UserError(
            f"objective {objective} needs tokens with probabilities, and the generator tuples "
            "writes real numbers; add --objective feature-matching"
            if continuous
            else f"objective feature-matching needs the generator tuples, got {kind}; add "
            "--generator tuples --tokenizer tuples, or choose another --objective"
        )


def _store_folder(folder: Path, about: Mapping[str, Any]) -> Path:
    """The run's own store travels with its folder; another one is found where it was."""
    named = Path(about["store"]) if "store" in about else folder / "store"
    return folder / "store" if (folder / "store").exists() else named


def read_about(folder: Path) -> dict[str, Any]:
    """Contents of `run.json`; empty if there is none.

    Raises:
        UserError: It is damaged.
    """
    path = folder / "run.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not (
        isinstance(about, dict)
        and isinstance(about.get("store", ""), str)
        and isinstance(about.get("started", []), list)
    ):
        raise UserError(f"cannot read {path}: it is not what a run writes there")
    return about


def _check_unchanged(earlier: Run, config: RunConfig) -> None:
    old, new = to_dict(earlier.config), to_dict(config)
    for stage, parts in _SETTINGS_OF_STAGE.items():
        if not earlier.has_begun(stage):
            continue
        for part in parts:
            names = new[part] if isinstance(new[part], dict) else {"": None}
            for name in names:
                was = old[part][name] if name else old[part]
                now = new[part][name] if name else new[part]
                if was != now and (part, name) not in _MAY_CHANGE:
                    key = f"{part}.{name}" if name else part
                    raise UserError(
                        f"{earlier.folder} already holds another run: {key} was {was!r} and is "
                        f"now {now!r}, after {stage} has begun; choose another --run"
                    )


def _started() -> dict[str, Any]:
    packages = {}
    for package in ("rnngan", "torch", "numpy", "symusic", "pretty_midi", "music21"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "packages": packages,
    }


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
