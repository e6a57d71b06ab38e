"""Checkpoints: folders of open formats that are either whole or not there."""

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from codestage.data.disk import file_digest, sync
from codestage.errors import RunError

FILES = ("model.safetensors", "optimizer.safetensors", "curve.parquet", "config.json")


@dataclass(frozen=True)
class State:
    """Where a checkpoint stands."""

    stage: str
    batch: int
    """Batches of the stage done: the next one to train on."""
    tokens: int
    """Tokens of the stage done."""
    seed: int
    micro_batch_tokens: int = 0
    """Tokens computed at once; fewer than the stage says where memory did not do."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training goes on from. Tensors are float32, by parameter name."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    curve: pa.Table
    config: str
    state: State


def save(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `folder` whole or not at all; what it replaces stays until it is there.

    Killed between the two moves, the older one is left under the name `before(folder)`.

    Raises:
        RunError: if the disk is full or cannot be written; what stood there before is kept.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        save_file(checkpoint.weights, temporary / "model.safetensors", metadata={"format": "pt"})
        save_file(checkpoint.optimizer, temporary / "optimizer.safetensors")
        pq.write_table(checkpoint.curve, temporary / "curve.parquet")
        (temporary / "config.json").write_text(checkpoint.config)
        state = asdict(checkpoint.state) | {"checksums": {n: file_digest(temporary / n) for n in FILES}}
        (temporary / "state.json").write_text(json.dumps(state, indent=1))
        for name in (*FILES, "state.json"):
            sync(temporary / name)
        replace_folder(temporary, folder)
    except (OSError, SafetensorError, pa.ArrowException) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunError(not_written(folder, error)) from None


def replace_folder(written: Path, folder: Path) -> None:
    """Put a folder that is written in the place of another, which stays until then."""
    sync(written)
    if folder.exists():
        shutil.rmtree(before(folder), ignore_errors=True)
        folder.rename(before(folder))
    written.rename(folder)
    sync(folder.parent)
    shutil.rmtree(before(folder), ignore_errors=True)


def not_written(folder: Path, error: BaseException) -> str:
    """What to say where a checkpoint could not be written."""
    return (
        f"{folder}: checkpoint not written ({getattr(error, 'strerror', None) or error}); free some space or "
        "mend the permissions and run again: it goes on from the checkpoint before"
    )


def before(folder: Path) -> Path:
    """Where the checkpoint stands that `folder` is about to replace."""
    return folder.with_name(f".{folder.name}.before")


def load(folder: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        RunError: if a file is missing or its content is not what was written.
    """
    try:
        state = json.loads((folder / "state.json").read_text())
        for name, checksum in state.pop("checksums").items():
            if file_digest(folder / name) != checksum:
                raise RunError(f"{folder / name}: damaged (checksum differs); remove {folder}")
        return Checkpoint(
            weights=load_file(folder / "model.safetensors"),
            optimizer=load_file(folder / "optimizer.safetensors"),
            curve=pq.read_table(folder / "curve.parquet"),
            config=(folder / "config.json").read_text(),
            state=State(**state),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, pa.ArrowException) as error:
        raise RunError(f"{folder}: no readable checkpoint ({error}); remove it") from None


def bare(checkpoint: Checkpoint) -> Checkpoint:
    """The same without the values of its tensors: what other processes need to know of it."""

    def on_meta(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to("meta") for name, tensor in tensors.items()}

    weights, optimizer = on_meta(checkpoint.weights), on_meta(checkpoint.optimizer)
    return replace(checkpoint, weights=weights, optimizer=optimizer)
