"""The training loop: one segment of one stage, from a checkpoint to the next."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed
from torch.distributed.tensor import DTensor

from codestage.data.batches import IGNORE, Batch, Batches, Validation
from codestage.errors import RunError, UserError
from codestage.study.lr import lr_at
from codestage.train import checkpoint
from codestage.train.attention import seen_in
from codestage.train.model import ModelPool
from codestage.train.parallel import World
from codestage.train.partials import Partials
from codestage.train.state import Segment, TrainState


class Interrupted(Exception):
    """Asked to stop: the work done so far is saved."""


@dataclass(frozen=True)
class Runtime:
    """How to run; changes no result beyond rounding."""

    checkpoint_seconds: float = 30.0
    should_stop: Callable[[], bool] = lambda: False
    report: Callable[[str], None] = lambda message: None
    """Told of things passed over, such as a damaged partial checkpoint."""
    world: World = field(default_factory=lambda: World(torch.device("cpu")))


@dataclass(frozen=True)
class StepLog:
    """Where training stands after a step."""

    batch: int
    tokens: int
    loss: float
    """Nats per predicted token."""
    tokens_per_second: float


PAUSE = 20
"""Times as long as a save halts training it goes on before the next: saves take a twentieth of it at most."""
SPIKE_BATCHES = 50
"""Batches whose mean loss a spike is measured against."""


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

    Called again after a kill it goes on from the partial checkpoint and ends with the same bits. In a
    world of several processes all of them call it, and the first one writes.

    Raises:
        RunError: loss or gradient not finite, out of memory, checkpoint unwritable or damaged.
        Interrupted: `runtime.should_stop()` said so; the work is saved.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        _train(segment, batches, out, pool, runtime, on_step, validation)
    except (RuntimeError, MemoryError) as error:
        if not _is_lack_of_memory(error):
            raise
        raise RunError(
            f"stage {segment.stage.name!r}: out of memory outside a micro-batch ({_first_line(error)}): the weights with their "
            "gradients and the optimizer's state do not fit beside what else is there; take fewer --workers, a smaller "
            "model or an adapter, or part the model over more processes by torchrun; finished checkpoints are kept"
        ) from None


def _train(
    segment: Segment,
    batches: Batches,
    out: Path,
    pool: ModelPool,
    runtime: Runtime,
    on_step: Callable[[StepLog], None],
    validation: Validation | None,
) -> None:
    """`train_segment`, but for what is said where memory does not do."""
    world = runtime.world
    if batches.rows_per_batch % world.size:
        raise UserError(
            f"stage {segment.stage.name!r}: batches of {batches.rows_per_batch} rows (batch_tokens / seq_len) "
            f"cannot be parted evenly among {world.size} processes; start as many as divide it"
        )
    state = TrainState(segment, pool, world)
    partials = Partials(out / "partial", world)
    state.begin(partials, runtime.report)
    trainer = _Trainer(state, batches, validation, runtime.report)
    began, begin_tokens = time.monotonic(), state.tokens
    last_save, pause, first = began, runtime.checkpoint_seconds, True
    while state.batch < segment.stop:
        late = time.monotonic() - last_save > pause and not partials.writing
        loss = trainer.step(stop=runtime.should_stop(), save=late)
        speed = (state.tokens - begin_tokens) / max(1e-9, time.monotonic() - began)
        on_step(StepLog(state.batch, state.tokens, loss, speed))
        if first:  # it compiled, which says nothing of the others
            began, begin_tokens, first = time.monotonic(), state.tokens, False
        if trainer.asked_to_stop or trainer.asked_to_save:
            asked = time.monotonic()
            state.save(partials)
            last_save = time.monotonic()
            pause = max(runtime.checkpoint_seconds, PAUSE * (last_save - asked))
        if trainer.asked_to_stop:
            partials.wait()
            raise Interrupted
    partials.wait()
    finished = state.checkpoint(ends=state.batch == batches.n_batches)

    def write() -> None:
        assert finished
        checkpoint.save(finished, out / "checkpoint")

    world.by_first(write)


class _Trainer:
    """Steps of one segment, from batches to a changed state."""

    def __init__(
        self,
        state: TrainState,
        batches: Batches,
        validation: Validation | None,
        report: Callable[[str], None],
    ) -> None:
        self.state, self.batches, self.validation = state, batches, validation
        self.stage, self.world, self.report = state.stage, state.world, report
        self.weights = state.weights
        state.tokens = batches.tokens_before(state.batch)
        self.asked_to_stop = self.asked_to_save = False

    def step(self, *, stop: bool = False, save: bool = False) -> float:
        """One optimiser step on the next batch; its loss. `stop` and `save` are asked of all processes."""
        state = self.state
        batch = self.batches.part(state.batch, self.world.rank, self.world.size)
        done = state.tokens
        rate = lr_at(self.stage.lr, self.stage.optimizer.lr, done, self.batches.total_tokens)
        mine = torch.tensor([int((batch.labels != IGNORE).sum())])
        predicted = max(1, int(self.world.sum(mine)))
        row_nats = self._backward(batch, predicted)
        clipped = torch.nn.utils.clip_grad_norm_(state.trained.values(), self.stage.optimizer.clip)
        norm = float(clipped.full_tensor() if isinstance(clipped, DTensor) else clipped)
        loss, by_source = self._count(batch, row_nats, stop=stop, save=save and self.world.first)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise RunError(self._diverged(loss, norm, rate))
        if self._spikes(loss):
            raise RunError("the loss spikes: " + self._diverged(loss, norm, rate))
        state.optimizers.step(rate)
        self.weights.publish()
        state.batch += 1
        state.tokens = self.batches.tokens_before(state.batch)
        state.rows.append(
            {
                "batch": state.batch,
                "tokens": state.tokens,
                "loss": loss,
                "lr": rate,
                "grad_norm": norm,
                **by_source,
                "validation": self._validate(done, state.tokens),
            }
        )
        return loss

    def _backward(self, batch: Batch, predicted: int) -> Tensor:
        """Gradients of the mean loss into the float32 weights; nats a row."""
        while True:
            rows = max(1, self.state.at_once // self.stage.seq_len)
            self.weights.clear()
            found = []
            for first in range(0, len(batch.tokens), rows):
                try:
                    found.append(self._part(batch, slice(first, first + rows), predicted))
                except (RuntimeError, MemoryError) as error:
                    if not _is_lack_of_memory(error):
                        raise
                    said = _first_line(error)
                    break
            else:
                return torch.cat(found).cpu()
            self._lower_at_once(said)

    def _part(self, batch: Batch, rows: slice, predicted: int) -> Tensor:
        """Add the gradients of some rows; nats a row."""
        try:
            nats, row_nats = self.weights.forward(*self._inputs(batch, rows))
            # FSDP takes the mean over processes; meant is their sum
            (nats * (self.world.size / predicted)).backward()
        except BackendCompilerFailed as error:
            said = [line for line in str(error.inner_exception).splitlines() if line.strip()]
            raise RunError(
                f"the C++ compiler that torch.compile uses failed ({said[-1] if said else error}); "
                "see that it works and that its temporary folder has room, then run again; or give the model "
                "compile: false, or precision: float32 (NeoX in bf16 cannot be compiled for processors by torch 2.13)"
            ) from None
        self.weights.collect()
        return row_nats.detach()

    def _lower_at_once(self, said: str) -> None:
        """Halve what is computed at once, if the stage wishes so and this process is alone."""
        state, length = self.state, self.stage.seq_len
        where = f"stage {self.stage.name!r}, batch {state.batch}: out of memory"
        if self.stage.lower_micro_batch and self.world.size == 1 and state.at_once > length:
            state.at_once = state.at_once // length // 2 * length
            self.report(f"{where}; going on with micro_batch_tokens {state.at_once}")
            return
        raise RunError(
            f"{where} ({said}); set micro_batch_tokens below {state.at_once} (it changes no data), or lower "
            f"seq_len ({length}), or set recompute: true for the model"
        )

    def _inputs(self, batch: Batch, rows: slice) -> tuple[object, ...]:
        """Tokens, what they may look at, positions and labels of some rows, as the forward pass takes them."""
        tokens, documents, positions, labels = (
            torch.from_numpy(array[rows]).to(self.world.device)
            for array in (batch.tokens, batch.documents, batch.positions, batch.labels)
        )
        seen = seen_in(documents, self.weights.reach)
        return tokens.long(), seen, positions.long(), labels.long()

    def _count(
        self, batch: Batch, row_nats: Tensor, *, stop: bool, save: bool
    ) -> tuple[float, dict[str, object]]:
        """(loss of the whole batch, nats and predictions of each source); hears who asks for what."""
        names = self.batches.names
        nats, predicted = np.zeros(len(names)), np.zeros(len(names))
        values, counts = row_nats.double().numpy(), (batch.labels != IGNORE).sum(axis=1)
        real = batch.sources >= 0
        np.add.at(nats, batch.sources[real], values[real])
        np.add.at(predicted, batch.sources[real], counts[real])
        rows = np.bincount(batch.sources[real], minlength=len(names))
        local = np.concatenate([nats, predicted, rows, [float(stop), float(save)]])
        heard = self.world.sum(torch.from_numpy(local)).numpy()
        nats, predicted, rows = heard[:-2].reshape(3, -1)
        self.asked_to_stop, self.asked_to_save = bool(heard[-2]), bool(heard[-1])
        there = [s for s in range(len(names)) if rows[s]]
        return float(nats.sum()) / max(1.0, predicted.sum()), {
            "source_nats": [(names[s], float(nats[s])) for s in there],
            "source_predicted": [(names[s], int(predicted[s])) for s in there],
        }

    @torch.no_grad()
    def _validate(self, before: int, after: int) -> list[tuple[str, float]] | None:
        """Nats a predicted token of what each source holds out, where the stage's progress asks for it."""
        if self.validation is None:
            return None
        times, total = self.validation.times, self.batches.total_tokens
        if after * times // total == before * times // total:
            return None
        found = []
        share = self.batches.rows_per_batch // self.world.size
        rows = max(1, min(self.state.at_once // self.stage.seq_len, share))
        for name, batches in self.validation.batches.items():
            sums = torch.zeros(2, dtype=torch.float64)
            for turn in range(-(-batches.n_batches // self.world.size)):
                number = turn * self.world.size + self.world.rank
                batch = batches[min(number, batches.n_batches - 1)]
                nats = sum(
                    float(self.weights.forward(*self._inputs(batch, slice(first, first + rows)))[0])
                    for first in range(0, len(batch.tokens), rows)
                )
                if number < batches.n_batches:  # all processes compute as often
                    sums += torch.tensor([nats, float((batch.labels != IGNORE).sum())])
            nats_of_all, predicted = self.world.sum(sums).tolist()
            found.append((name, nats_of_all / max(1.0, predicted)))
        return found

    def _spikes(self, loss: float) -> bool:
        """Whether the loss is far above that of the last batches, if the stage asks to be told."""
        limit = self.stage.optimizer.spike
        if limit is None:
            return False
        before = [float(str(row["loss"])) for row in self.state.rows[-SPIKE_BATCHES:]]
        if len(before) < SPIKE_BATCHES:
            past = self.state.past_curve["loss"].to_pylist()
            before = [*self.state.losses_before, *past, *before][-SPIKE_BATCHES:]
        return len(before) == SPIKE_BATCHES and loss > sum(before) / SPIKE_BATCHES + limit

    def _diverged(self, loss: float, norm: float, rate: float) -> str:
        mix = ", ".join(self.batches.names)
        return (
            f"stage {self.stage.name!r} ({self.stage.option}), batch {self.state.batch}, "
            f"{self.state.tokens:,} tokens, sources {mix}: loss {loss}, gradient norm {norm} at "
            f"learning rate {rate:g}. Lower the stage's optimizer.lr or clip; the last good checkpoint "
            "is kept"
        )


def _is_lack_of_memory(error: Exception) -> bool:
    """Also where an allocator, Triton, cuBLAS or NCCL raise a plain RuntimeError."""
    said = str(error)
    plain = any(sign in said for sign in ("CPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED"))
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or plain


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
