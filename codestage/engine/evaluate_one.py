"""Evaluating one model by itself: a checkpoint, an exported folder, a downloaded one, a .gguf, a hub id."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from scipy import stats

from codestage.data.instruct import PLAIN, Chat
from codestage.data.own_code import admit, own_code
from codestage.data.place import in_file
from codestage.engine.asked import questions
from codestage.engine.store import disk_message
from codestage.errors import RunError, UserError
from codestage.evaluate.backend import Backend, Precision
from codestage.evaluate.documents import published_files, task_items
from codestage.evaluate.items import Cot, chance
from codestage.evaluate.records import kept
from codestage.evaluate.run import Evaluation
from codestage.evaluate.sandbox import Mode, Sandbox
from codestage.evaluate.tasks import Task, load_tasks, modes
from codestage.study.identity import digest, plain


@dataclass(frozen=True)
class Asked:
    """What a model is asked, and how."""

    suites: Sequence[str]
    cot: Sequence[str] = ("off",)
    items: int | None = None
    data: Path | None = None
    """Folder with the tasks' published files."""
    samples: int = 0
    sandbox: Mode = "bubblewrap"
    precision: Precision = "float32"
    chat_template: bool = False
    """Whether the model is asked in its tokenizer's chat template."""
    trust_code: bool = False
    """Whether code of the model's own may run."""
    own: Path | None = None
    """YAML file that names files of questions beside it: what a study says under `evaluate: tasks`."""


def evaluate_model(
    model: Path | str,
    asked: Asked,
    *,
    out: Path | None,
    on_part: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> list[dict[str, Any]]:
    """A row a task and mode: accuracy with its interval, chance, other scores; items go to `out`.

    With `out`, what is done is kept beside it until all is done: the same call after an interruption goes
    on there. `on_part` is told the part begun, how many are done, and of how many.

    Raises:
        UserError: unknown suite or mode, no data, no questions, or no model.
        RunError: `out` cannot be written.
    """
    if wrong := [mode for mode in asked.cot if mode not in get_args(Cot)]:
        raise UserError(f"chain of thought {wrong[0]!r}: write one of {', '.join(get_args(Cot))}")
    cot: list[Cot] = [mode for mode in get_args(Cot) if mode in asked.cot]
    own = questions(asked.own, asked.suites) if asked.own else []
    tasks = [*load_tasks(asked.suites), *own]
    items = {task: task_items(task, n=asked.items, data=asked.data) for task in tasks}
    place, more = in_file(model) if isinstance(model, Path) else (model, {})
    if asked.trust_code and (code := own_code(place, more)):
        admit(code)
    template = Chat(model) if asked.chat_template else PLAIN
    evaluation = Evaluation(
        Backend.load(model, precision=asked.precision, marked=template.marked),
        template=template,
        samples=asked.samples,
        sandbox=lambda: Sandbox(asked.sandbox),
    )
    parts = list(evaluation.parts(items, cot))
    folder = None if out is None else _parts_folder(out, model, asked, tasks)
    tables = []
    try:
        for done, (name, make) in enumerate(parts):
            on_part(name, done, len(parts))
            tables.append(make() if folder is None else kept(folder, name, make))
        if not tables:
            raise UserError(f"none of these tasks is asked with chain of thought {', '.join(cot)}")
        table = pa.concat_tables(tables)
        if out is not None and folder is not None:
            pq.write_table(table, out)
            shutil.rmtree(folder.parent)
    except OSError as error:
        raise RunError(disk_message(out or Path(), error)) from None
    on_part("", len(parts), len(parts))
    return [
        _summary(table, task, mode, chance(items[task], written=task.written))
        for task in tasks
        for mode in modes(task, cot)
    ]


def _parts_folder(out: Path, model: Path | str, asked: Asked, tasks: Sequence[Task]) -> Path:
    """Where the parts of this very evaluation are kept: another model, data or question has its own."""
    path = Path(model)
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    data = [f for t in tasks for f in (published_files(t, asked.data) if asked.data else ())]
    state, published = (
        [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in some] for some in (files, data)
    )
    how = [list(asked.cot), asked.items, str(asked.data), asked.samples, asked.precision]
    how += [asked.chat_template]
    identity = [str(model), state, how, [[t.name, t.version] for t in tasks], published]
    if own := [t for t in tasks if "own" in t.data]:
        identity.append([[plain(t), Path(t.data["own"]).read_bytes().hex()] for t in own])
    folder = out.with_name(f"{out.name}.parts") / digest(identity)
    try:
        folder.parent.mkdir(exist_ok=True)
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(disk_message(out, error)) from None
    return folder


def _summary(table: pa.Table, task: Task, mode: str, guess: float | None) -> dict[str, Any]:
    rows = table.filter((pa.compute.field("task") == task.name) & (pa.compute.field("cot") == mode))
    values: dict[str, list[float]] = {}
    for metric, value in zip(rows["metric"].to_pylist(), rows["value"].to_pylist(), strict=True):
        if value is not None:
            values.setdefault(metric, []).append(value)
    right = values.get("acc", [])
    low, high = _wilson(sum(right), len(right))
    means = {metric: sum(some) / len(some) for metric, some in values.items()}
    return {
        "task": task.name,
        "domain": task.domain,
        "cot": mode,
        "accuracy": means.get("acc"),
        "low": low,
        "high": high,
        "chance": guess,
        "bits_per_byte": means.get("bpb"),
        "items": len(right),
        "metrics": means,
        "cut": len(rows.filter(pa.compute.field("status") == "cut")["item"].unique()),
    }


def _wilson(right: float, n: int) -> tuple[float | None, float | None]:
    """The 95 % interval of a share (Wilson 1927)."""
    if not n:
        return None, None
    z = float(stats.norm.ppf(0.975))
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return middle - half, middle + half
