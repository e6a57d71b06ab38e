"""Unfinished work of a segment: saved while training goes on, found again after a kill.

One process writes a checkpoint like any other; many write shards with `torch.distributed.checkpoint`, which
any number of processes reads back.
"""

import json
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from codestage.data.disk import sync
from codestage.errors import RunError
from codestage.train import checkpoint
from codestage.train.checkpoint import Checkpoint, State, before
from codestage.train.parallel import World
from codestage.train.shard_reader import INDEX, ShardReader


class Partials:
    """The newest state of unfinished work, in `folder`; what it replaces stays until it is there."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self._writer = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    @property
    def writing(self) -> bool:
        """Whether what was begun is not on disk yet."""
        return self._pending is not None and not self._pending.done()

    def save(self, whole: Checkpoint) -> None:
        """Write the state of one process in the background; its tensors must be copies."""
        self.wait()
        self._pending = self._writer.submit(checkpoint.save, whole, self.folder)

    def save_shards(self, tensors: dict[str, Tensor], curve: pa.Table, state: State) -> None:
        """Write the state of many processes in the background; each writes what it holds."""
        self.wait()
        temporary = self.folder.with_name(f".{self.folder.name}.shards")
        self.world.by_first(lambda: _begin(temporary, curve, state))
        held = {name: tensor.detach() for name, tensor in tensors.items()}
        written = dcp.async_save(
            held, checkpoint_id=temporary, process_group=self.world.background, no_dist=False
        )
        assert isinstance(written, Future)
        self._pending = self._writer.submit(self._finish, written, temporary)

    def _finish(self, written: "Future[object]", temporary: Path) -> None:
        try:
            written.result()
            if self.world.first:
                checkpoint.replace_folder(temporary, self.folder)
        except (CheckpointException, OSError) as error:
            raise RunError(checkpoint.not_written(self.folder, error)) from None

    def wait(self) -> None:
        """Until what was begun is on disk.

        Raises:
            RunError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def places(self) -> list[Path]:
        """Where unfinished work may stand, the newest first."""
        return [self.folder, before(self.folder)]


def _begin(folder: Path, curve: pa.Table, state: State) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        pq.write_table(curve, folder / "curve.parquet")
        (folder / "state.json").write_text(json.dumps(asdict(state)))
        sync(folder / "curve.parquet")
        sync(folder / "state.json")
    except OSError as error:
        raise RunError(checkpoint.not_written(folder, error)) from None


def in_shards(folder: Path) -> bool:
    """Whether `folder` holds shards, whole."""
    return (folder / INDEX).exists()


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in shards."""
    held = ShardReader(folder).read_metadata().state_dict_metadata
    return {n: tuple(m.size) for n, m in held.items() if isinstance(m, TensorStorageMetadata)}


def read_shards(folder: Path, targets: dict[str, Tensor], world: World) -> tuple[pa.Table, State]:
    """Fill `targets`, laid out for this world, from shards that any world wrote; (curve, state).

    Raises:
        RunError: the shards cannot be read.
    """
    shapes(folder)  # the index by itself: torch tells what is wrong with it in a page of text
    try:
        dcp.load(targets, storage_reader=ShardReader(folder), no_dist=world.size == 1)
        curve = pq.read_table(folder / "curve.parquet")
        return curve, State(**json.loads((folder / "state.json").read_text()))
    except (Exception, CheckpointException) as error:  # damaged files make its readers raise anything
        raise RunError(f"{folder}: no readable checkpoint ({error}); remove it") from None
