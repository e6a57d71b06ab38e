"""The training loop: one segment of one stage, from a checkpoint to the next."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed

from codestage.data.batches import IGNORE, Batch, Batches, Validation
from codestage.errors import RunError
from codestage.study.expand import StagePlan
from codestage.study.lr import lr_at
from codestage.study.models import ModelShape
from codestage.train import checkpoint
from codestage.train.adapter import ADAPTER, BASE, add_adapters, fresh_adapters, merged, plain_name
from codestage.train.model import ModelPool, build_model
from codestage.train.optim import Optimizers, tables_of


class Interrupted(Exception):
    """Asked to stop: the work done so far is saved."""


@dataclass(frozen=True)
class Runtime:
    """How to run; changes no result."""

    checkpoint_seconds: float = 30.0
    should_stop: Callable[[], bool] = lambda: False
    report: Callable[[str], None] = lambda message: None
    """Told of things passed over, such as a damaged partial checkpoint."""


@dataclass(frozen=True)
class StepLog:
    """Where training stands after a step."""

    batch: int
    tokens: int
    loss: float
    """Nats per predicted token."""
    tokens_per_second: float


@dataclass(frozen=True)
class Segment:
    """Batches `start` to `stop` of a stage, going on from `init` (None = fresh weights)."""

    shape: ModelShape
    stage: StagePlan
    start: int
    stop: int
    init: Path | None
    seed: int


SPIKE_BATCHES = 50
"""Batches whose mean loss a spike is measured against."""
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


def train_segment(
    segment: Segment,
    batches: Batches,
    *,
    out: Path,
    pool: ModelPool,
    runtime: Runtime,
    on_step: Callable[[StepLog], None] = lambda log: None,
    validation: Validation | None = None,
) -> None:
    """Train a segment and leave its checkpoint in `out`; `out/partial` holds unfinished work.

    Called again after a kill it goes on from the partial checkpoint and ends with the same bits.

    Raises:
        RunError: loss or gradient not finite, out of memory, checkpoint unwritable or damaged.
        Interrupted: `runtime.should_stop()` said so; the work is saved.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    trainer = _Trainer(segment, batches, pool, validation)
    partial = out / "partial"
    saved = checkpoint.newest([partial, checkpoint.before(partial)], runtime.report)
    if saved is not None:
        trainer.restore(saved)
    elif segment.init is not None:
        trainer.begin_from(checkpoint.load(segment.init))
    last_save, began, counted = time.monotonic(), time.monotonic(), 0
    while trainer.batch < segment.stop:
        log = trainer.step()
        counted += log.tokens - trainer.tokens_of_previous
        speed = counted / max(1e-9, time.monotonic() - began)
        on_step(StepLog(log.batch, log.tokens, log.loss, speed))
        if runtime.should_stop():
            checkpoint.save(trainer.checkpoint(), partial)
            raise Interrupted
        if time.monotonic() - last_save > runtime.checkpoint_seconds:
            checkpoint.save(trainer.checkpoint(), partial)
            last_save = time.monotonic()
    checkpoint.save(trainer.checkpoint(), out / "checkpoint")


class _Trainer:
    """Weights, optimizer and position of one segment."""

    def __init__(
        self, segment: Segment, batches: Batches, pool: ModelPool, validation: Validation | None
    ) -> None:
        self.segment, self.batches, self.validation = segment, batches, validation
        self.stage = segment.stage
        self.batch = segment.start
        self.tokens_of_previous = batches.tokens_before(segment.start)
        self.rows: list[dict[str, object]] = []
        self.past_curve = CURVE.empty_table()
        spec, seed = self.stage.adapter, segment.seed
        change = partial(add_adapters, spec=spec, seed=seed) if spec else lambda model: None
        self.model, self.forward = pool.get(segment.shape, self.stage.seq_len, spec, change)
        fresh = build_model(segment.shape, self.stage.seq_len, seed)
        self.config = fresh.config.to_json_string()
        self.base = {n: p.detach().clone() for n, p in fresh.named_parameters()} if spec else {}
        change(fresh)
        self.master = {n: p.detach().clone() for n, p in fresh.named_parameters() if p.requires_grad}
        self.optimizers = Optimizers(self.master, self.stage.optimizer, tables_of(fresh))
        self._publish_base()
        self._publish()

    def _publish(self) -> None:
        """Copy the float32 weights into the model that computes, in its precision."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self.master:
                    parameter.copy_(self.master[name])

    def _publish_base(self) -> None:
        """Copy what adapters leave as it is; once is enough."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if self.base and name not in self.master:
                    parameter.copy_(self.base[plain_name(name)])

    def begin_from(self, saved: checkpoint.Checkpoint) -> None:
        """Go on from another segment: weights, and the optimizer if the stage is the same."""
        if self.segment.start > 0:
            if saved.state.batch != self.segment.start:
                raise RunError(
                    f"{self.segment.init} stands at batch {saved.state.batch}, not at "
                    f"{self.segment.start}; remove it and run again"
                )
            self._take(saved)
            return
        spec = self.stage.adapter
        weights = saved.weights
        if spec:  # adapters begin from the weights that they stand beside: DoRA's hold their norms
            self.base = weights
            weights = fresh_adapters(
                self.segment.shape, self.stage.seq_len, spec, weights, self.segment.seed
            )
        with torch.no_grad():
            for name, weight in self.master.items():
                weight.copy_(weights[name])
        self.optimizers.begin_mean()
        self._publish_base()
        self._publish()

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Go on with this very segment after an interruption."""
        self._take(saved)
        self.batch, self.past_curve = saved.state.batch, saved.curve
        self.tokens_of_previous = saved.state.tokens

    def _take(self, saved: checkpoint.Checkpoint) -> None:
        """Weights and optimizer of a checkpoint of this stage."""
        tensors = dict(saved.optimizer)
        weights = saved.weights
        if self.base:
            kept = {n: tensors.pop(f"{BASE}.{n}") for n in self.base if f"{BASE}.{n}" in tensors}
            self.base = {n: kept.get(n, saved.weights[n]) for n in self.base}
            weights = {n: tensors.pop(f"{ADAPTER}.{n}") for n in self.master}
        with torch.no_grad():
            for name, weight in self.master.items():
                weight.copy_(weights[name])
        self.optimizers.load(tensors)
        self._publish_base()
        self._publish()

    def step(self) -> StepLog:
        """One optimiser step on the next batch."""
        batch = self.batches[self.batch]
        done = self.tokens_of_previous = self.batches.tokens_before(self.batch)
        rate = lr_at(self.stage.lr, self.stage.optimizer.lr, done, self.batches.total_tokens)
        predicted = max(1, int((batch.labels != IGNORE).sum()))
        loss, row_nats = self._backward(batch, predicted)
        norm = float(torch.nn.utils.clip_grad_norm_(self.master.values(), self.stage.optimizer.clip))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise RunError(self._diverged(loss, norm, rate))
        if self._spikes(loss):
            raise RunError("the loss spikes: " + self._diverged(loss, norm, rate))
        self.optimizers.step(rate)
        self._publish()
        self.batch += 1
        tokens = self.batches.tokens_before(self.batch)
        self.rows.append(
            {
                "batch": self.batch,
                "tokens": tokens,
                "loss": loss,
                "lr": rate,
                "grad_norm": norm,
                **self._by_source(batch, row_nats),
                "validation": self._validate(done, tokens),
            }
        )
        return StepLog(self.batch, tokens, loss, 0.0)

    def _backward(self, batch: Batch, predicted: int) -> tuple[float, Tensor]:
        """Gradients of the mean loss into the float32 weights; (loss, nats a row)."""
        rows = self.stage.micro_batch_tokens // self.stage.seq_len
        nats, row_nats = 0.0, []
        for weight in self.master.values():
            weight.grad = None
        for first in range(0, len(batch.tokens), rows):
            part, by_row = self._part(batch, slice(first, first + rows), predicted)
            nats += part
            row_nats.append(by_row)
        return nats / predicted, torch.cat(row_nats)

    def _part(self, batch: Batch, rows: slice, predicted: int) -> tuple[float, Tensor]:
        """Add the gradients of some rows; (nats, nats a row)."""
        try:
            nats, row_nats = self.forward(*_tensors(batch, rows))
            (nats / predicted).backward()
        except BackendCompilerFailed as error:
            said = [line for line in str(error.inner_exception).splitlines() if line.strip()]
            raise RunError(
                f"the C++ compiler that torch.compile uses failed ({said[-1] if said else error}); "
                "see that it works and that its temporary folder has room, then run again"
            ) from None
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise RunError(
                f"stage {self.stage.name!r}, batch {self.batch}: out of memory ({error}); set "
                f"micro_batch_tokens below {self.stage.micro_batch_tokens} (it changes no data), or lower "
                f"seq_len ({self.stage.seq_len})"
            ) from None
        for name, parameter in self.model.named_parameters():
            if name not in self.master:
                continue
            assert parameter.grad is not None
            gradient, weight = parameter.grad.to(torch.float32), self.master[name]
            weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
            parameter.grad = None
        return nats.item(), row_nats

    def _by_source(self, batch: Batch, row_nats: Tensor) -> dict[str, object]:
        nats, predicted = {}, {}
        values = row_nats.double().numpy()
        counts = (batch.labels != IGNORE).sum(axis=1)
        for s, name in enumerate(self.batches.names):
            mine = batch.sources == s
            if mine.any():
                nats[name] = float(values[mine].sum())
                predicted[name] = int(counts[mine].sum())
        return {"source_nats": list(nats.items()), "source_predicted": list(predicted.items())}

    @torch.no_grad()
    def _validate(self, before: int, after: int) -> list[tuple[str, float]] | None:
        """Nats a predicted token of what each source holds out, where the stage's progress asks for it."""
        if self.validation is None:
            return None
        times, total = self.validation.times, self.batches.total_tokens
        if after * times // total == before * times // total:
            return None
        found = []
        for name, batches in self.validation.batches.items():
            nats, predicted = 0.0, 0
            for number in range(batches.n_batches):
                batch = batches[number]
                nats += float(self.forward(*_tensors(batch, slice(None)))[0])
                predicted += int((batch.labels != IGNORE).sum())
            found.append((name, nats / max(1, predicted)))
        return found

    def _spikes(self, loss: float) -> bool:
        """Whether the loss is far above that of the last batches, if the stage asks to be told."""
        limit = self.stage.optimizer.spike
        if limit is None:
            return False
        before = [float(str(row["loss"])) for row in self.rows[-SPIKE_BATCHES:]]
        missing = SPIKE_BATCHES - len(before)
        before += self.past_curve["loss"].to_pylist()[-missing:] if missing else []
        return len(before) == SPIKE_BATCHES and loss > sum(before) / SPIKE_BATCHES + limit

    def _diverged(self, loss: float, norm: float, rate: float) -> str:
        mix = ", ".join(self.batches.names)
        return (
            f"stage {self.stage.name!r} ({self.stage.option}), batch {self.batch}, "
            f"{self.tokens_of_previous:,} tokens, sources {mix}: loss {loss}, gradient norm {norm} at "
            f"learning rate {rate:g}. Lower the stage's optimizer.lr or clip; the last good checkpoint "
            "is kept"
        )

    def checkpoint(self) -> checkpoint.Checkpoint:
        """Everything needed to go on from here."""
        ends = self.batch == self.batches.n_batches  # where the mean takes the weights' place
        weights = self.optimizers.mean if ends and self.optimizers.mean else self.master
        weights, beside = self._whole(weights)
        past = self.past_curve.to_pylist()  # through Python, so that the file's bytes are the same
        curve = pa.Table.from_pylist([*past, *self.rows], CURVE)
        return checkpoint.Checkpoint(
            weights={name: weight.detach().clone() for name, weight in weights.items()},
            optimizer=self.optimizers.state() | beside,
            curve=curve,
            config=self.config,
            state=checkpoint.State(
                stage=self.stage.name,
                batch=self.batch,
                tokens=self.batches.tokens_before(self.batch),
                seed=self.segment.seed,
            ),
        )

    def _whole(self, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(the whole model's weights, what is needed beside them to go on): with adapters, the adapters
        and the weights that they were merged into.
        """
        if self.stage.adapter is None:
            return weights, {}
        whole = merged(self.segment.shape, self.stage.seq_len, self.stage.adapter, self.base, weights)
        changed = {f"{BASE}.{n}": w for n, w in self.base.items() if not torch.equal(w, whole[n])}
        held = {f"{ADAPTER}.{n}": w.detach().clone() for n, w in self.master.items()}
        return whole, changed | held


def _tensors(batch: Batch, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, documents, positions and labels of some rows, as the forward pass takes them."""
    return (
        torch.from_numpy(batch.tokens[rows]).long(),
        torch.from_numpy(batch.documents[rows]),
        torch.from_numpy(batch.positions[rows]).long(),
        torch.from_numpy(batch.labels[rows]).long(),
    )
