"""Learning curves to TensorBoard, Weights & Biases or Trackio: live while a step trains, whole when the study is done."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from codestage.engine.graph import StageWork
from codestage.engine.store import Step, Store
from codestage.errors import UserError

TRACKERS = ("tensorboard", "wandb", "trackio")
Log = Callable[[Mapping[str, float], int], None]
"""Takes values by name, and the tokens of the stage at which they stand."""


class Tracker:
    """Where curves go; one run there for each run of the study, and one for each step under way."""

    def __init__(self, kind: str, study: str, folder: Path) -> None:
        """Raises UserError if `kind` is unknown or its package is not installed."""
        if kind not in TRACKERS:
            raise UserError(f"--track {kind}: write one of {', '.join(TRACKERS)}")
        self.study, self.folder = study, folder
        openers = (self._tensorboard, self._wandb, self._trackio)
        self._open = dict(zip(TRACKERS, openers, strict=True))[kind]()
        self._logs: dict[str, Log] = {}
        self._close: list[Callable[[], None]] = []

    def hear(self, event: str, step: Step, body: Mapping[str, Any]) -> None:
        """Log what a training step tells while it runs."""
        if event == "progress" and step.kind == "train" and "loss" in body:
            self._log(f"running/{step.label}")({"loss": body["loss"]}, body["tokens"])

    def finish(self, works: Mapping[str, Sequence[StageWork]], store: Store) -> None:
        """Log every run's curves, stage by stage, and close."""
        for name, stages in works.items():
            for work in stages:
                for values, tokens in _points(work, store):
                    self._log(name)({f"{work.stage.name}/{k}": v for k, v in values.items()}, tokens)
        for close in self._close:
            close()

    def _log(self, name: str) -> Log:
        if name not in self._logs:
            self._logs[name], close = self._open(name)
            self._close.append(close)
        return self._logs[name]

    def _tensorboard(self) -> Callable[[str], tuple[Log, Callable[[], None]]]:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("TensorBoard is not installed; pip install 'codestage[track]'") from None

        def open_run(name: str) -> tuple[Log, Callable[[], None]]:
            place = self.folder / "tensorboard" / name.replace("/", "_")
            writer: Any = SummaryWriter(str(place))

            def log(values: Mapping[str, float], tokens: int) -> None:
                for tag, value in values.items():
                    writer.add_scalar(tag, value, tokens)

            return log, writer.close

        return open_run

    def _wandb(self) -> Callable[[str], tuple[Log, Callable[[], None]]]:
        try:
            import wandb
        except ImportError:
            raise UserError("Weights & Biases is not installed; pip install wandb") from None

        def open_run(name: str) -> tuple[Log, Callable[[], None]]:
            run = wandb.init(
                project=self.study,
                name=name,
                dir=str(self.folder),
                reinit="create_new",
                settings=wandb.Settings(silent=True),
            )
            return lambda values, tokens: run.log({**values, "tokens": tokens}), run.finish

        return open_run

    def _trackio(self) -> Callable[[str], tuple[Log, Callable[[], None]]]:
        try:
            import trackio
        except ImportError:
            raise UserError("Trackio is not installed; pip install trackio") from None

        def open_run(name: str) -> tuple[Log, Callable[[], None]]:
            run = trackio.init(
                self.study, name=name, embed=False, auto_log_gpu=False, auto_log_cpu=False
            )
            return lambda values, tokens: run.log(dict(values), step=tokens), run.finish

        return open_run


def _points(work: StageWork, store: Store) -> Iterator[tuple[dict[str, float], int]]:
    """(values, tokens) of every batch of a stage, from the curves of its segments."""
    for step in work.segments:
        curve = pq.read_table(store.file("train", step.hash, "curve.parquet"))
        for row in curve.to_pylist():
            values = {key: float(row[key]) for key in ("loss", "lr", "grad_norm")}
            values |= {f"validation/{source}": loss for source, loss in row["validation"] or ()}
            yield values, row["tokens"]
