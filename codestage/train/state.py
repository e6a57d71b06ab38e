"""What training goes on from: weights, optimizer and place, taken from checkpoints and put into them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from codestage.errors import RunError
from codestage.study.expand import StagePlan
from codestage.study.models import ModelShape
from codestage.train import checkpoint
from codestage.train.adapter import ADAPTER, BASE, fresh_adapters, merged
from codestage.train.model import ModelPool
from codestage.train.optim import EMA, Optimizers
from codestage.train.parallel import World
from codestage.train.partials import Partials, in_shards, read_shards, shapes
from codestage.train.weights import like, put_all, weights_of

CURVE = pa.schema(
    [
        ("batch", pa.int64()),
        ("tokens", pa.int64()),
        ("loss", pa.float64()),
        ("lr", pa.float64()),
        ("grad_norm", pa.float64()),
        ("source_nats", pa.map_(pa.string(), pa.float64())),
        ("source_predicted", pa.map_(pa.string(), pa.int64())),
        ("validation", pa.map_(pa.string(), pa.float64())),
    ]
)


@dataclass(frozen=True)
class Segment:
    """Batches `start` to `stop` of a stage, going on from `init` (None = fresh weights)."""

    shape: ModelShape
    stage: StagePlan
    start: int
    stop: int
    init: Path | None
    seed: int
    positions: int = 0
    """Positions that the model knows, the same in all stages; 0: as many as the stage's rows have."""


class TrainState:
    """Where a segment stands. In a world of several processes all of them call the same methods."""

    def __init__(self, segment: Segment, pool: ModelPool, world: World) -> None:
        self.segment, self.world = segment, world
        self.stage: StagePlan = segment.stage
        self.positions = segment.positions or segment.stage.seq_len
        self.batch = segment.start
        """Batches of the stage done."""
        self.tokens = 0
        """Tokens of the stage done."""
        self.at_once = self.stage.micro_batch_tokens
        """Tokens computed at once."""
        self.rows: list[dict[str, object]] = []
        """The learning curve since this process took the segment up, as in `CURVE`."""
        self.past_curve = CURVE.empty_table()
        self.losses_before: list[float] = []
        """Of the segment that this one goes on from in the same stage, where spikes are asked about."""
        self._pool = pool
        self._make_fresh()

    def _make_fresh(self) -> None:
        size, stage = self.segment.shape, self.stage
        self.weights = weights_of(
            size, self.positions, stage.adapter, self.segment.seed, self._pool, self.world
        )
        self.trained = self.weights.trained
        self.optimizers = Optimizers(self.trained, stage.optimizer, self.weights.tables)

    def begin(self, partials: Partials, report: Callable[[str], None]) -> None:
        """Go on from unfinished work, or from the segment's beginning.

        Raises:
            RunError: the checkpoint to begin from is damaged. Damaged unfinished work is reported only.
        """
        asked = self.stage.optimizer.spike is not None
        if self.segment.init is not None and self.segment.start > 0 and asked:
            self.losses_before = self.world.tell(self.world.by_first(self._read_losses))
        for folder in partials.places():
            if not self.world.tell(folder.exists()):
                continue
            try:
                if self.world.tell(in_shards(folder)):
                    self._take_shards(folder)
                else:
                    saved = self._read(folder)
                    self._take(saved)
                    self._stand_at(saved.state, saved.curve)
                return
            except RunError as error:
                report(str(error))
                self._make_fresh()
        if self.segment.init is not None:
            self._begin_from(self._read(self.segment.init))

    def _read_losses(self) -> list[float]:
        file = f"{self.segment.init}/curve.parquet"
        try:
            found: list[float] = pq.read_table(file, columns=["loss"])["loss"].to_pylist()
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise RunError(f"{file}: no readable losses ({error}); remove {self.segment.init}") from None
        return found

    def _read(self, folder: Path) -> checkpoint.Checkpoint:
        """A checkpoint that the first process reads; the others get all of it but the tensors' values."""
        found = self.world.by_first(lambda: checkpoint.load(folder))
        if self.world.size == 1:
            assert found
            return found
        bare = self.world.tell(found and checkpoint.bare(found))
        return found or bare

    def _begin_from(self, saved: checkpoint.Checkpoint) -> None:
        """Go on from another segment: weights, and the optimizer if the stage is the same."""
        if self.segment.start > 0:
            if saved.state.batch != self.segment.start:
                raise RunError(
                    f"{self.segment.init} stands at batch {saved.state.batch}, not at "
                    f"{self.segment.start}; remove it and run again"
                )
            self._take(saved)
            return
        weights = saved.weights
        if self.stage.adapter:
            # adapters begin from the weights that they stand beside: DoRA's hold their norms
            put_all(self.world, weights, self.weights.base)
            weights = {}
            if self.world.first:
                weights = fresh_adapters(
                    self.segment.shape,
                    self.positions,
                    self.stage.adapter,
                    saved.weights,
                    self.segment.seed,
                )
        put_all(self.world, weights, self.trained)
        self.optimizers.begin_mean()
        self._publish()

    def _take(self, saved: checkpoint.Checkpoint) -> None:
        """Weights and optimizer of a checkpoint of this stage."""
        tensors = dict(saved.optimizer)
        weights = saved.weights
        if self.weights.base:
            names = self.weights.base
            kept = {n: tensors.pop(f"{BASE}.{n}", saved.weights[n]) for n in names}
            put_all(self.world, kept, names)
            weights = {n: tensors.pop(f"{ADAPTER}.{n}") for n in self.trained}
        put_all(self.world, weights, self.trained)
        state = {key: like(self._weight_of(key), value.shape) for key, value in tensors.items()}
        put_all(self.world, tensors, state)
        self.optimizers.load(state)
        self._publish()

    def _take_shards(self, folder: Path) -> None:
        """Weights, optimizer and place of unfinished work that many processes wrote."""
        sizes = self.world.by_first(lambda: shapes(folder))
        sizes = self.world.tell(sizes)
        state = {
            key: like(self._weight_of(key.removeprefix("optimizer.")), torch.Size(size))
            for key, size in sizes.items()
            if key.startswith("optimizer.")
        }
        held = {key: t.detach() for key, t in self._tensors().items() if key in sizes} | state
        curve, where = read_shards(folder, held, self.world)
        self.optimizers.load({key.removeprefix("optimizer."): t for key, t in state.items()})
        self._publish()
        self._stand_at(where, curve)

    def _stand_at(self, state: checkpoint.State, curve: pa.Table) -> None:
        self.batch, self.tokens, self.past_curve = state.batch, state.tokens, curve
        self.at_once = state.micro_batch_tokens or self.at_once

    def _weight_of(self, key: str) -> Tensor:
        """The weight that a part of the optimizer's state, `kind.name`, belongs to."""
        return self.trained[key.partition(".")[2]]

    def _publish(self) -> None:
        self.weights.publish_base()
        self.weights.publish()

    def save(self, partials: Partials) -> None:
        """Save unfinished work, in the background."""
        if self.world.size == 1:
            whole = self.checkpoint()
            assert whole
            partials.save(whole)
        else:
            partials.save_shards(self._tensors(), self._curve(), self._state())

    def _tensors(self) -> dict[str, Tensor]:
        """All that training goes on from, as it lies."""
        return {
            **{f"model.{n}": w for n, w in self.trained.items()},
            **{f"base.{n}": w for n, w in self.weights.base.items()},
            **{f"optimizer.{n}": w for n, w in self.optimizers.state().items()},
        }

    def _curve(self) -> pa.Table:
        past = self.past_curve.to_pylist()  # through Python, so that the file's bytes are the same
        return pa.Table.from_pylist([*past, *self.rows], CURVE)

    def _state(self) -> checkpoint.State:
        return checkpoint.State(
            stage=self.stage.name,
            batch=self.batch,
            tokens=self.tokens,
            seed=self.segment.seed,
            micro_batch_tokens=self.at_once,
        )

    def checkpoint(self, *, ends: bool = False) -> checkpoint.Checkpoint | None:
        """Everything needed to go on from here, whole: in the first process alone.

        Where the stage `ends`, the mean of the weights takes their place, if there is one.
        """
        weights = self._whole(self.trained)
        optimizer = self._whole(self.optimizers.state())
        base = self._whole(self.weights.base)
        if not self.world.first:
            return None
        final = weights
        if ends and self.optimizers.mean:
            final = {name: optimizer[f"{EMA}.{name}"] for name in weights}
        beside = {}
        if self.stage.adapter:
            size, adapters = self.segment.shape, final
            final = merged(size, self.positions, self.stage.adapter, base, adapters)
            beside = {f"{BASE}.{n}": w for n, w in base.items() if not torch.equal(w, final[n])}
            beside |= {f"{ADAPTER}.{n}": w for n, w in weights.items()}
        return checkpoint.Checkpoint(
            weights=final,
            optimizer=optimizer | beside,
            curve=self._curve(),
            config=self.weights.config,
            state=self._state(),
        )

    def _whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of tensors, whole and on CPU; none but in the first process."""
        copies = {name: self.world.whole(tensor) for name, tensor in tensors.items()}
        return {name: copy for name, copy in copies.items() if copy is not None}
