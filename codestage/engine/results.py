"""From the store to the records that analysis and report read: `results/`."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codestage.data.batches import Batches
from codestage.engine.data_work import frozen_items
from codestage.engine.graph import StageWork, arms_of
from codestage.engine.store import Step, Store, disk_message, write_atomically
from codestage.engine.work import segment_batches
from codestage.errors import RunError, UserError
from codestage.evaluate.items import chance
from codestage.evaluate.records import CHECKPOINT_SCHEMA, SCHEMA
from codestage.evaluate.tasks import METRICS, modes, tasks_of
from codestage.study.expand import Arm, Run, is_code
from codestage.study.models import ModelShape, parameters, train_flops_per_token
from codestage.study.schedule import shares
from codestage.study.schema import Study

CURVE_POINTS = 60
"""Points kept of each learning curve."""
ROW_GROUP = 1_000_000
WINDOWS = 24
"""Parts of a stage in which what it drew is told."""
VALIDATION = pa.schema(
    [
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("stage", pa.string()),
        ("tokens", pa.int64()),
        ("source", pa.string()),
        ("domain", pa.string()),
        ("loss", pa.float64()),
    ]
)


def write_records(
    study: Study,
    runs: Sequence[Run],
    works: Mapping[str, list[StageWork]],
    evaluations: Mapping[str, Step],
    store: Store,
    facts: Mapping[str, Any],
    shape: ModelShape,
) -> Path:
    """Write items.parquet, curves.parquet, runs.json and study.json; returns their folder."""
    out = store.root / "results"
    segments = {s.hash for stages in works.values() for w in stages for s in w.segments}
    curves = [("train", hash_, "curve.parquet") for hash_ in segments]
    store.fetch([*curves, *(("evaluate", step.hash, None) for step in evaluations.values())])
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_items(out / "items.parquet", works, evaluations, store)
        pq.write_table(_curves(works, store), out / "curves.parquet")
        if study.validation:
            pq.write_table(_validation(works, study, store), out / "validation.parquet")
        else:
            (out / "validation.parquet").unlink(missing_ok=True)
    except OSError as error:
        raise RunError(disk_message(out, error)) from None
    entries = _runs(study, works, store, shape)
    write_atomically(out / "runs.json", json.dumps(entries, indent=1))
    whole = _study(study, runs, works, store, shape) | dict(facts)
    whole["tasks"] = _told_tasks(study, evaluations, store)
    whole["tokenizer"] = next((step.inputs["tokenizer"] for step in evaluations.values()), None)
    write_atomically(out / "study.json", json.dumps(whole, indent=1))
    return out


def _write_items(
    path: Path,
    works: Mapping[str, list[StageWork]],
    evaluations: Mapping[str, Step],
    store: Store,
) -> None:
    """The records of every run, stage by stage; shared checkpoints' records once for each run.

    Written in groups of about a million rows, so that memory does not grow with the study.
    """
    waiting: list[pa.Table] = []
    unfinished = path.with_suffix(".unfinished")
    with pq.ParquetWriter(unfinished, SCHEMA) as writer:
        for table in _items(works, evaluations, store):
            waiting.append(table)
            if sum(map(len, waiting)) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    unfinished.replace(path)  # who reads it meanwhile sees the old records or the new ones, whole


def _items(
    works: Mapping[str, list[StageWork]], evaluations: Mapping[str, Step], store: Store
) -> Iterator[pa.Table]:
    """A table for each run and stage that was evaluated."""
    for name, stages in works.items():
        tokens = 0
        for work in stages:
            tokens += work.stage.tokens
            step = evaluations.get(work.segments[-1].hash)
            if step is None:
                continue
            table = pq.read_table(store.read("evaluate", step.hash) / "items.parquet")
            table = table.cast(CHECKPOINT_SCHEMA)
            who: dict[str, Any] = {
                "run": name,
                "arm": work.run.arm.name,
                "seed": work.run.seed,
                "stage": work.stage.name,
                "tokens": tokens,
            }
            for column, value in who.items():
                field = SCHEMA.field(column)
                table = table.append_column(field, pa.repeat(pa.scalar(value, field.type), len(table)))
            yield table.select(SCHEMA.names)


def _curves(works: Mapping[str, list[StageWork]], store: Store) -> pa.Table:
    """Learning curves of every run, averaged over stretches of batches."""
    rows: list[dict[str, Any]] = []
    for stages in works.values():
        for work in stages:
            parts = [pq.read_table(store.file("train", s.hash, "curve.parquet")) for s in work.segments]
            curve = pa.concat_tables(parts).select(["tokens", "loss", "lr"]).to_pylist()
            width = max(1, -(-len(curve) // CURVE_POINTS))
            for i in range(0, len(curve), width):
                piece = curve[i : i + width]
                rows.append(
                    {
                        "arm": work.run.arm.name,
                        "seed": work.run.seed,
                        "stage": work.stage.name,
                        "option": work.stage.option,
                        "tokens": piece[-1]["tokens"],
                        "loss": sum(p["loss"] for p in piece) / len(piece),
                        "lr": piece[-1]["lr"],
                    }
                )
    return pa.Table.from_pylist(rows)


def _validation(works: Mapping[str, list[StageWork]], study: Study, store: Store) -> pa.Table:
    """A row for each run, stage, source and measurement of its held-out loss."""
    rows = []
    for stages in works.values():
        for work in stages:
            for step in work.segments:
                curve = pq.read_table(store.file("train", step.hash, "curve.parquet"))
                for point in curve.select(["tokens", "validation"]).to_pylist():
                    for source, loss in point["validation"] or ():
                        rows.append(
                            {
                                "arm": work.run.arm.name,
                                "seed": work.run.seed,
                                "stage": work.stage.name,
                                "tokens": point["tokens"],
                                "source": source,
                                "domain": study.sources[source].domain,
                                "loss": loss,
                            }
                        )
    return pa.Table.from_pylist(rows, VALIDATION)


def _runs(
    study: Study, works: Mapping[str, list[StageWork]], store: Store, shape: ModelShape
) -> list[dict[str, Any]]:
    """What each run was to do and what its batches held."""
    counted: dict[tuple[str, ...], dict[str, list[int]]] = {}
    entries = []
    for name, stages in works.items():
        arm = stages[0].run.arm
        told = []
        for work in stages:
            key = tuple(s.hash for s in work.segments)
            if key not in counted:
                counted[key] = _drawn(segment_batches(work.segments[-1], store))
            planned = dict.fromkeys(work.plan.names, 0)
            for phase in work.stage.phases:
                for source, tokens in phase.by_source.items():
                    if tokens:
                        planned[source] += tokens
            seconds = sum(store.record(s)["seconds"] for s in work.segments)
            flops = work.stage.tokens * train_flops_per_token(shape, work.stage.seq_len)
            told.append(
                {
                    "name": work.stage.name,
                    "kind": work.stage.kind,
                    "option": work.stage.option,
                    "tokens_planned": planned,
                    "tokens_realised": {name: sum(parts) for name, parts in counted[key].items()},
                    "drawn": counted[key],
                    "epochs": {n: round(e, 4) for n, e in work.plan.epochs().items()},
                    "seconds": round(seconds, 1),
                    "flops": flops,
                    "steps": [s.hash for s in work.segments],
                }
            )
        entries.append(
            {
                "run": name,
                "arm": arm.name,
                "seed": stages[0].run.seed,
                "role": arm.role,
                "control": arm.control,
                "against": arm.against,
                "factors": dict(arm.factors),
                "stages": told,
            }
        )
    return entries


def _drawn(batches: Batches) -> dict[str, list[int]]:
    """Tokens of each source in up to `WINDOWS` stretches of a stage, counted from the batches."""
    n = min(WINDOWS, batches.n_batches)
    cuts = [batches.n_batches * i // n for i in range(n + 1)]
    parts = [batches.by_source(a, b) for a, b in pairwise(cuts)]
    return {name: [part[name] for part in parts] for name in batches.names}


def _study(
    study: Study,
    runs: Sequence[Run],
    works: Mapping[str, list[StageWork]],
    store: Store,
    shape: ModelShape,
) -> dict[str, Any]:
    """The resolved study, for the analysis and the method section."""
    segments = {s.hash: s for stages in works.values() for w in stages for s in w.segments}
    unshared = sum(w.stage.tokens for stages in works.values() for w in stages)
    return {
        "name": study.name,
        "seeds": [*study.seeds, *sorted({run.seed for run in runs} - set(study.seeds))],
        "stages": list(study.stages),
        "options": {name: list(stage.options) for name, stage in study.stages.items()},
        "arms": [_told_arm(arm) for arm in arms_of(runs)],
        "domains": {name: source.domain for name, source in study.sources.items()},
        "code_options": code_options(study),
        **_told_orders(study),
        "model": {
            "family": shape.family,
            "hidden_size": shape.hidden_size,
            "layers": shape.layers,
            "heads": shape.heads,
            "parameters": parameters(shape, positions=max(s.seq_len for s in study.stages.values())),
            "parameters_without_embeddings": parameters(shape, embeddings=False),
            "precision": shape.precision,
            "vocab_size": shape.vocab_size,
            "pretrained": _pretrained(study),
        },
        "chat_template": study.tokenizer.chat_template,
        "training": {
            name: {
                "kind": s.kind,
                "tokens": s.tokens,
                "seq_len": s.seq_len,
                "batch_tokens": s.batch_tokens,
                "optimizer": s.optimizer.model_dump(),
                "lr": s.lr.model_dump(),
            }
            for name, s in study.stages.items()
        },
        "cost": {
            "tokens_trained": round(sum(s.cost for s in segments.values())),
            "tokens_unshared": unshared,
            "flops": flops(works, shape),
            "train_seconds": round(sum(store.record(s)["seconds"] for s in segments.values()), 1),
        },
        "written": time.strftime("%Y-%m-%d"),
    }


def flops(works: Mapping[str, list[StageWork]], shape: ModelShape) -> float:
    """Of all training, what is shared once; each stage by its own rows."""
    trained = {
        s.hash: (s, w.stage.seq_len) for stages in works.values() for w in stages for s in w.segments
    }
    return sum(s.cost * train_flops_per_token(shape, length) for s, length in trained.values())


def _pretrained(study: Study) -> str | None:
    """What training began with, as people call it: a report tells nobody where a file lies."""
    if study.model.path:
        return Path(study.model.path).name
    return study.model.hub.id if study.model.hub else None


def _told_orders(study: Study) -> dict[str, Any]:
    """Of every option of every stage: whether its mixture changes on the way, and the shares it holds in all."""
    pieces = {
        name: {o: spec.pieces(s.lr) for o, spec in s.options.items()} for name, s in study.stages.items()
    }
    return {
        "schedules": {
            name: {o: "phases" if len(p) > 1 else "mix" for o, p in options.items()}
            for name, options in pieces.items()
        },
        "totals": {
            name: {o: {n: str(x) for n, x in shares(p).items()} for o, p in options.items()}
            for name, options in pieces.items()
        },
    }


def _told_arm(arm: Arm) -> dict[str, Any]:
    return {
        "name": arm.name,
        "role": arm.role,
        "control": arm.control,
        "against": arm.against,
        "factors": dict(arm.factors),
        "tokens": {s.name: s.tokens for s in arm.stages},
    }


def _told_tasks(study: Study, evaluations: Mapping[str, Step], store: Store) -> list[dict[str, Any]]:
    """What was asked, by the items that were frozen for it."""
    tasks = next(([*tasks_of(s.config["tasks"], s.payload[1])] for s in evaluations.values()), [])
    hashes = {step.inputs["items"] for step in evaluations.values()}
    frozen = frozen_items(store.read("items", hashes.pop()), tasks) if hashes else {}
    return [
        {
            "name": task.name,
            "suite": task.suite,
            "domain": task.domain,
            "metric": "acc",
            "metrics": list(METRICS),
            "output_type": task.output_type,
            "chance": chance(items, written=task.written),
            "items": len(items),
            "cot": modes(task, study.evaluate.cot),
            "source": task.source,
        }
        for task, items in frozen.items()
    ]


def code_options(study: Study) -> dict[str, list[str]]:
    """Options of each stage that draw on a domain that its first option does not."""
    return {
        name: [
            option
            for option, spec in stage.options.items()
            if any(is_code(study, stage, s) for m in spec.mixes for s, share in m.items() if share)
        ]
        for name, stage in study.stages.items()
    }


def rebuild(folder: Path, *, beside: str | None = None) -> tuple[dict[str, Any], Any]:
    """Effects and report from the records in `folder`; no other part of the store is read.

    `beside`: a file or the name of a shipped table of published numbers, to set beside the study's own.

    Raises:
        UserError: if there are no records yet, or `beside` cannot be read.
    """
    from codestage.analyse.audit import audit
    from codestage.analyse.run import analyse
    from codestage.report.page import write_report

    results = folder / "results"
    if not (results / "items.parquet").exists():
        raise UserError(f"{folder}: no results yet; `codestage run STUDY` makes them")
    published = audit(beside) if beside else None
    effects = analyse(folder)
    write_atomically(results / "effects.json", json.dumps(effects, indent=1, allow_nan=False))
    return effects, write_report(folder, results, beside=published)
