"""What the data of a study hold: each source after cleaning, and one stage's batches, counted.

Both prepare the data in the results folder if they are not there yet.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codestage.data.batches import Batches
from codestage.engine.data_steps import DataSteps, data_steps, shards
from codestage.engine.graph import StageWork
from codestage.engine.local import run_steps
from codestage.engine.progress import only_one
from codestage.engine.remote import patient
from codestage.engine.run import plan_training
from codestage.engine.sending import Sender
from codestage.engine.shared import open_store
from codestage.engine.store import Step, Store
from codestage.errors import UserError
from codestage.study.expand import expand
from codestage.study.load import load_study
from codestage.study.schema import Study

Warn = Callable[[str], None]


def _no_one(text: str) -> None:
    """Hears warnings that nobody asked for."""


def mix(study_path: Path, *, arm: str, stage: str, out: Path, warn: Warn = _no_one) -> dict[str, Any]:
    """`{phases: [{tokens, by_source}], total: {tokens, by_source}}` of the first seed's run."""
    study = load_study(study_path)
    arms = [a.name for a in expand(study)]
    if arm not in arms:
        raise UserError(f"no arm {arm!r}; the arms are {', '.join(arms)}")
    if stage not in study.stages:
        raise UserError(f"no stage {stage!r}; the stages are {', '.join(study.stages)}")
    store = open_store(out, patience=patient(warn))
    data = _prepare(study, study_path, store, Sender(store, warn))
    works = plan_training(study, study_path, data, store)
    work = next(
        w
        for stages in works.values()
        for w in stages
        if w.run.arm.name == arm and w.stage.name == stage and w.run.seed == study.seeds[0]
    )
    return count(
        work,
        Batches(
            work.plan,
            shards(data, store, work.stage.seq_len, study.validation),
            rows_per_batch=work.stage.batch_tokens // work.stage.seq_len,
        ),
    )


def inspect(
    study_path: Path,
    *,
    out: Path,
    ray: str | None = None,
    store: str | None = None,
    warn: Warn = _no_one,
) -> list[dict[str, Any]]:
    """A row a source: what was read, removed by which rule, kept, and what it makes in tokens.

    `ray` is the address of a cluster to prepare on what is not there yet, `store` that of a store to take it from
    and to send it to; `warn` is told when that store has to be asked again.
    """
    study = load_study(study_path)
    steps = open_store(out, store, patient(warn))
    data = _prepare(study, study_path, steps, Sender(steps, warn), ray)
    rows = []
    for name, step in data.documents.items():
        ledger = json.loads(steps.file("documents", step.hash, "ledger.json").read_text())
        made = {
            length: json.loads(steps.file("prepare", prepared.hash, "meta.json").read_text())
            for (source, length), prepared in data.prepared.items()
            if source == name
        }
        meta = next(iter(made.values()))
        rows.append(
            {
                "source": name,
                "domain": study.sources[name].domain,
                **ledger,
                "tokens": meta["tokens"],
                "bytes_per_token": meta["bytes"] / max(1, meta["tokens"] + meta["tokens_left_over"]),
                "rows": {length: m["rows"] for length, m in made.items()},
                "dropped_too_long": meta["dropped_too_long"],
            }
        )
    return rows


def _prepare(
    study: Study, study_path: Path, store: Store, sender: Sender, ray: str | None = None
) -> DataSteps:
    data = data_steps(study, study_path)
    with only_one(store.root):
        try:
            sender.put(*store.begin(study.name, data.all()))
            store.bring(data.all())
            _do(data.all(), store, sender, ray)
            sender.finish(lambda: None)
        finally:
            sender.abandon()
    return data


def _do(steps: Sequence[Step], store: Store, sender: Sender, ray: str | None) -> None:
    """Do the steps that are not finished, and hand them to the sender."""

    def hear(event: str, step: Step, body: object) -> None:
        if event == "done":
            sender.put(step)

    if ray is None:
        run_steps(steps, store, workers=1, listener=hear)
        return
    from codestage.engine.on_ray import OnRay
    from codestage.engine.work import Workshop

    shop = Workshop(store, lambda: False, lambda body: None, compiled=False, spread=OnRay(ray))
    for step in steps:
        if not store.has(step):
            shop.do(step)
            sender.put(step)


def count(work: StageWork, batches: Batches) -> dict[str, Any]:
    """Tokens by source and phase, read off the batches; rows tell which phase they stand in."""
    edges = np.cumsum([0, *work.plan.phase_rows()])
    phases = [dict.fromkeys(batches.names, 0) for _ in work.stage.phases]
    for i in range(batches.n_batches):
        batch = batches[i]
        held = (batch.documents >= 0).sum(axis=1)
        for row, source in enumerate(batch.sources):
            if source >= 0:
                index = i * batches.rows_per_batch + row
                phase = int(np.searchsorted(edges, work.plan.place(index), side="right")) - 1
                phases[phase][batches.names[source]] += int(held[row])
    total = {name: sum(p[name] for p in phases) for name in batches.names}
    return {"phases": [_told(p) for p in phases], "total": _told(total)}


def _told(by_source: Mapping[str, int]) -> dict[str, Any]:
    return {"tokens": sum(by_source.values()), "by_source": dict(by_source)}
