"""The Python API: what the commands do, for notebooks and scripts. Nothing here prints.

```python
import codestage

codestage.plan("mine.yaml")["hours"]
found = codestage.run("mine.yaml")
found.effects().to_pandas()
```

`run` starts processes of its own: a script calls it under `if __name__ == "__main__":`, a notebook anywhere.
Bad input is a `UserError`, what fails under way a `RunError`; both say what to do.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from codestage.errors import RunError, UserError
from codestage.study.load import load_study as _load_study
from codestage.study.schema import Study

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Results", "RunError", "Study", "UserError", "load_study", "mix", "plan", "results", "run"]


def load_study(path: str | Path) -> Study:
    """The study in the YAML file `path`, checked, with every default filled in.

    Raises:
        UserError: one line for each mistake, with file, line, value and what to write instead.
    """
    return _load_study(Path(path))


def plan(
    path: str | Path, *, pilot: str | Path | None = None, gpu: Literal["a100", "h100", "h200"] = "h100"
) -> dict[str, Any]:
    """What the study in `path` would cost and could detect; no data is read.

    The keys are those of `codestage plan --json`: `arms`, `runs`, `steps`, `tokens`, `flops`, `hours` and
    `memory_gb` on this machine, `minimum_detectable_effect`, `arm_names`, `warnings`, and `…_unshared` for what
    it would be without shared work. `pilot` is a finished study (its file or folder) to take variances from; `gpu`
    what hours and memory are told for beside.

    Raises:
        UserError: anything wrong with the study that can be known before its data is read.
    """
    from codestage.engine.plan import plan as make

    return make(Path(path), pilot=_folder(pilot) if pilot is not None else None, gpu=gpu)


def mix(path: str | Path, *, arm: str, stage: str, out: str | Path | None = None) -> dict[str, Any]:
    """What the batches of one stage of one arm hold, in tokens, counted from the batches.

    `{"phases": [{"tokens", "by_source"}, …], "total": {"tokens", "by_source"}}`. Data that are not prepared yet
    are prepared, in `out` (beside the study file if not given).

    Raises:
        UserError: no such arm or stage, or a source too small for its share.
    """
    from codestage.engine.mix import mix as count

    return count(Path(path), arm=arm, stage=stage, out=_folder(out or path))


def run(
    path: str | Path,
    *,
    out: str | Path | None = None,
    store: str | Path | None = None,
    workers: int | None = None,
    trust_code: bool = False,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> "Results":
    """Run the study in `path`, or go on with it: what is finished is not done again.

    Results stand in `out`, or beside the study file. `store` is a folder or address where finished steps are shared
    with other studies and machines. `workers` is the number of processes (one a core, or one a
    GPU, if not given). `trust_code` lets code of a model's own run. `on_event` is called with the state of the study as it changes: `state`, `steps` by
    state, `tokens_done`, `tokens_total`, `running`, `seconds_left`. An interrupt saves and stops.

    Raises:
        UserError: bad input, found before anything is trained.
        RunError: something failed under way, or was interrupted; what is finished stays finished.
    """
    from codestage.engine.run import run as run_study

    folder = _folder(out or path)
    shared = None if store is None else str(store)
    tell = on_event or (lambda event: None)
    run_study(Path(path), folder, workers=workers, on_event=tell, store=shared, trust_code=trust_code)
    return results(folder)


def results(folder: str | Path) -> "Results":
    """The results of a finished study, by its results folder or its study file.

    Raises:
        UserError: there are none.
    """
    place = _folder(folder)
    if not (place / "results" / "effects.json").is_file():
        raise UserError(f"{place}: no results yet; run the study first")
    return Results(place)


@dataclass(frozen=True)
class Results:
    """A finished study. Tables are PyArrow's; `.to_pandas()` makes data frames of them.

    What the columns and keys mean is said in docs/formats.md.
    """

    folder: Path
    """Where it stands: `store/`, `work/`, `results/`."""

    @property
    def report(self) -> Path:
        """The report, one HTML page that works offline."""
        return self.folder / "results" / "report.html"

    def study(self) -> dict[str, Any]:
        """What was done: arms, options, tasks with their chance, model, cost, machine, versions, data."""
        return dict(self._json("study.json"))

    def analysis(self) -> dict[str, Any]:
        """The whole of `effects.json`: arms, effects, doses, scaling, mixtures, decisions, notes."""
        return dict(self._json("effects.json"))

    def effects(self, **equal: str) -> "pa.Table":
        """A row an effect, in points (bits for `bpb`); `effects(level="overall", metric="acc")` takes those alone.

        Raises:
            UserError: for a column that there is not.
        """
        return _table(self.analysis()["effects"], equal)

    def arms(self, **equal: str) -> "pa.Table":
        """A row for the mean of each arm by stage, mode, metric, level and name; chosen as in `effects`.

        Raises:
            UserError: for a column that there is not.
        """
        return _table(self.analysis()["arms"], equal)

    def items(self, columns: Sequence[str] | None = None, **equal: str | int) -> "pa.Table":
        """A row for each run × stage × task × item × mode × metric, all columns or some.

        `items(task="coin_flip", metric="acc", seed=0)` reads those rows alone.

        Raises:
            UserError: for a column that there is not.
        """
        import pyarrow.parquet as pq

        path = self.folder / "results" / "items.parquet"
        _known([*(columns or ()), *equal], pq.read_schema(path).names)
        where = [(name, "=", value) for name, value in equal.items()]
        return pq.read_table(path, columns=list(columns) if columns else None, filters=where or None)

    def curves(self) -> "pa.Table":
        """Learning curves: arm, seed, stage, option, tokens, loss (nats a token), lr."""
        import pyarrow.parquet as pq

        return pq.read_table(self.folder / "results" / "curves.parquet")

    def rebuild(self, *, beside: str | None = None) -> "Results":
        """Make analysis and report again from the records, as `codestage report` does.

        `beside` is a CSV of published accuracies, or the name of a shipped one, that the report sets beside them.

        Raises:
            UserError: `beside` cannot be read.
        """
        from codestage.engine.results import rebuild

        rebuild(self.folder, beside=beside)
        return self

    def _json(self, name: str) -> Any:
        return json.loads((self.folder / "results" / name).read_text())


def _folder(path: str | Path) -> Path:
    """The results folder meant by `path`: itself, or the one beside a study file."""
    place = Path(path)
    return place.with_suffix("") if place.suffix in (".yaml", ".yml") else place


def _table(rows: list[dict[str, Any]], equal: dict[str, str]) -> "pa.Table":
    import pyarrow as pa

    table = pa.Table.from_pylist(rows)
    _known(equal, table.column_names)
    return table.filter(pa.array([all(r[k] == v for k, v in equal.items()) for r in rows], pa.bool_()))


def _known(asked: Sequence[str] | dict[str, str], columns: list[str]) -> None:
    if strange := [name for name in asked if name not in columns]:
        raise UserError(f"no column {strange[0]!r}; there are {', '.join(columns)}")
