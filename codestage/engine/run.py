"""Running a study: data, training, evaluation, records, report; only what is not there yet."""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from codestage.data.mixture import check_supply
from codestage.data.own_code import Code
from codestage.data.shards import Shard
from codestage.engine.asked import evaluation_tasks, modes_after
from codestage.engine.data_steps import DataSteps, data_steps, shards
from codestage.engine.earlier import take_over
from codestage.engine.graph import StageWork, Supply, training_steps
from codestage.engine.local import Stopped, gpus, load_ahead, run_steps
from codestage.engine.model_steps import admit_code, model_shape, model_step
from codestage.engine.progress import EVALUATION_TOKENS, Progress, only_one
from codestage.engine.ray_arms import ALL_PLACES, check_gangs, wait_out
from codestage.engine.ray_arms import run_steps as on_cluster
from codestage.engine.remote import patient
from codestage.engine.results import code_options, rebuild, write_records
from codestage.engine.sending import Sender
from codestage.engine.shared import open_store
from codestage.engine.store import Step, Store
from codestage.engine.together import Team, launched
from codestage.engine.tracking import Tracker
from codestage.engine.until import More, Until, check, forget, settle
from codestage.engine.versions import Versions
from codestage.errors import RunError, UserError
from codestage.study.expand import expand, runs
from codestage.study.load import line_of, load_study
from codestage.study.match import Measure, match
from codestage.study.models import memory_bytes
from codestage.study.schema import Study

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")
OnEvent = Callable[[dict[str, Any]], None]


def run(
    study_path: Path,
    folder: Path,
    *,
    workers: int | None,
    on_event: OnEvent,
    track: str | None = None,
    shard: int | None = None,
    until: Until | None = None,
    ray: str | None = None,
    processes: int | None = None,
    trust_code: bool = False,
    store: str | None = None,
) -> Any:
    """Run the study of `study_path` in `folder`, or go on with it; returns the report's files.

    `track` names where learning curves go beside the records: tensorboard, wandb or trackio. With `until`
    seeds are added where a contrast is still open (`codestage.engine.until`). Started by
    torchrun, the first process does this and all train; the others return None. `shard` of them hold one
    copy of the model. With `ray`, the address of a cluster or "auto", every step is done there, each train
    step by `processes` together (one, if not given). `trust_code` lets code of the model's own run.
    `store` is the address of a store that finished steps are sent to and taken from; the folder keeps it.

    Raises:
        UserError: bad input, found before anything is trained.
        RunError: something failed under way; what is finished stays finished.
    """
    if ray is not None:
        places, size = ALL_PLACES if workers is None else workers, processes or 1
        check_gangs(study_path, processes, shard, places)
        there = partial(on_cluster, address=ray, processes=size, shard=shard)
        study, to = study_path.resolve(), folder.resolve()  # nodes work elsewhere
        return _run(study, to, places, on_event, track, until, there, trust_code, store)
    if processes is not None:
        raise UserError(f"--processes is for --ray; without it: torchrun --nproc-per-node {processes}")
    if not launched():
        if shard is not None:
            raise UserError(
                f"--shard {shard}: start many processes with torchrun, or --ray and --processes"
            )
        return _run(study_path, folder, workers, on_event, track, until, run_steps, trust_code, store)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_cache_folder()))
    team = Team(folder, shard)
    if not team.world.first:
        return team.follow()
    try:
        do = team.run_steps
        return _run(study_path, folder, workers, on_event, track, until, do, trust_code, store)
    finally:
        team.dismiss()


def _run(
    study_path: Path,
    folder: Path,
    workers: int | None,
    on_event: OnEvent,
    track: str | None,
    until: Until | None,
    do: Callable[..., None],
    trust_code: bool,
    remote: str | None,
) -> Any:
    study = load_study(study_path)
    code = admit_code(study_path) if trust_code else None
    if until:
        check(until, study, study_path, code_options(study))
    if any(task.answer == "code" for task in evaluation_tasks(study, study_path)):
        _check_sandbox(study, study_path)
    cores = len(psutil.Process().cpu_affinity() or [1])
    workers = len(gpus()) or cores if workers is None else workers
    if workers < 1:
        raise UserError(f"--workers {workers}: at least one is needed")
    if do is run_steps and not gpus():
        _check_memory(study, study_path, workers)
    _make_folder(folder)
    tracker = Tracker(track, study.name, folder) if track else None
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_cache_folder()))
    with only_one(folder):
        wait_out(folder)
        progress = Progress(folder, study.name)

        def warn(text: str) -> None:
            progress.warnings.append(text)
            _announce(progress, "running", on_event)

        store = open_store(folder, remote, patient(warn))
        sender = Sender(store, progress.warnings.append)
        doing = partial(_with_code, do, code, store=store, workers=workers)
        if do is run_steps and not gpus() and not (folder / "results" / "study.json").exists():
            load_ahead()
        try:
            works = _do_steps(
                study, study_path, store, doing, progress, on_event, tracker, until, sender
            )
            _, files = rebuild(folder)
            if tracker:
                tracker.finish(works, store)
            sender.finish(partial(_announce, progress, "running", on_event))
            store.end()
        except (Stopped, KeyboardInterrupt):  # the latter while steps are brought or sent
            _announce(progress, "stopped", on_event)
            raise RunError(
                f"stopped; everything is saved, `codestage run {study_path}` goes on from here"
            ) from None
        except BaseException:
            _announce(progress, "failed", on_event)
            raise
        finally:
            sender.abandon()
        _announce(progress, "done", on_event)
    return files


def _with_code(do: Callable[..., None], code: Code | None, steps: Sequence[Step], **how: Any) -> None:
    """Do the steps, those that compute the model with its own code where the user lets it run."""
    if code:
        own = ("model", "train", "evaluate")
        steps = [replace(s, code=code) if s.kind in own else s for s in steps]
    do(steps, **how)


def _check_sandbox(study: Study, study_path: Path) -> None:
    """What models write can be run as the study asks: known before anything is trained."""
    from codestage.evaluate.sandbox import Sandbox

    try:
        Sandbox(study.evaluate.sandbox)
    except UserError as error:
        line = line_of(study_path, ("evaluate", "suites"))
        raise UserError(f"{study_path}:{line}: {error}") from None


def _do_steps(
    study: Study,
    study_path: Path,
    store: Store,
    doing: Callable[..., None],
    progress: Progress,
    on_event: OnEvent,
    tracker: Tracker | None,
    until: Until | None,
    sender: Sender,
) -> dict[str, list[StageWork]]:
    """Data, training, evaluation, records."""

    def listener(event: str, step: Step, body: dict[str, Any]) -> None:
        progress.hear(event, step, body)
        if tracker:
            tracker.hear(event, step, body)
        on_event(progress.snapshot("running"))
        if event == "done":
            sender.put(step)
        # Last: a full disk refuses it and nothing else.
        progress.write("running", force=event in ("started", "done"))

    versions = Versions()

    def do(steps: Sequence[Step]) -> None:
        sender.put(*store.begin(study.name, steps))
        finished = [s for s in steps if store.has(s)]
        progress.expect(steps, {s.hash for s in finished})
        if warning := versions.warning(finished, store):
            progress.warnings.append(warning)
        _announce(progress, "running", on_event)
        store.bring(steps)
        doing(steps, listener=listener)

    data = data_steps(study, study_path)
    model = model_step(study, study_path, model_shape(study, study_path))
    progress.more = True
    do([*data.all(), *([model] if model else [])])
    lay_out = partial(plan_training, study, study_path, data, store)

    def finish(works: dict[str, list[StageWork]]) -> dict[str, Step]:
        segments = {s.hash: s for stages in works.values() for w in stages for s in w.segments}
        evaluations = evaluation_steps(study, works, data, store)
        progress.more = False
        take_over(evaluations.values(), store)
        do([*segments.values(), *evaluations.values()])
        facts = _facts(study, store, data, progress.seconds)
        all_runs = [stages[0].run for stages in works.values()]
        size = model_shape(study, study_path)
        write_records(study, all_runs, works, evaluations, store, facts, size)
        return evaluations

    if until:
        return settle(until, study, store.root, lay_out, finish)[0]
    works = lay_out()
    finish(works)
    forget(store.root)
    return works


def plan_training(
    study: Study, study_path: Path, data: DataSteps, store: Store, more: More | None = None
) -> dict[str, list[StageWork]]:
    """Lay out every run on the prepared data and share what can be shared; `more` are seeds of arms by name.

    Raises:
        UserError: if a source is too small for an arm's share.
    """
    lengths = {stage.seq_len for stage in study.stages.values()}
    supply, measures = {}, {}
    for length in lengths:
        held = shards(data, store, length, study.validation)
        measures[length] = {n: _measure(shard) for n, shard in held.items()}
        steps = {n: s for (n, size), s in data.prepared.items() if size == length}
        supply[length] = Supply(
            rows={n: shard.counts for n, shard in held.items()},
            hashes={n: step.hash for n, step in steps.items()},
            contents={n: store.content(step) for n, step in steps.items()},
            validation=study.validation,
        )
    size = model_shape(study, study_path)
    all_runs = [match(study, run, measures, size) for run in runs(study, more)]
    model = model_step(study, study_path, size)
    works = training_steps(all_runs, supply, size, max(lengths), model)
    epochs = {name: source.epochs for name, source in study.sources.items()}
    for stages in works.values():
        for work in stages:
            try:
                check_supply(work.layout.used, supply[work.stage.seq_len].rows, epochs)
            except UserError as error:
                line = line_of(study_path, ("stages", work.stage.name, "tokens"))
                arm, stage = work.run.arm.name, work.stage.name
                text = f"{study_path}:{line}: arm {arm!r}, stage {stage!r}: {error}"
                raise UserError(text) from None
    return works


def _measure(shard: Shard) -> Measure:
    meta = shard.meta
    return Measure(meta["tokens"], meta["documents"], meta["rows"] * shard.seq_len, meta["attended"])


def evaluation_steps(
    study: Study, works: Mapping[str, list[StageWork]], data: DataSteps, store: Store
) -> dict[str, Step]:
    """Checkpoint hash -> its evaluation: once for each checkpoint at the end of a stage."""
    tasks, own = data.items.config["tasks"], data.items.payload.own
    # not what the items hold: how a task is judged stands beside them, in their step's identity
    holds = {"tokenizer": store.content(data.tokenizer)}
    steps: dict[str, Step] = {}
    for stages in works.values():
        for work in stages:
            chat = study.tokenizer.chat_template and work.stage.kind == "tune"
            cot = modes_after(study, last=work is stages[-1])
            end = work.segments[-1]
            steps[end.hash] = Step(
                "evaluate",
                f"{work.run.name} after {work.stage.name}",
                {"tasks": tasks, "cot": cot, "library": data.tokenizer.config["library"]}
                | ({"samples": study.evaluate.samples} if study.evaluate.samples else {})
                | ({"chat_template": True} if chat else {}),
                {"checkpoint": end.hash, "tokenizer": data.tokenizer.hash, "items": data.items.hash},
                holds,
                payload=(study.evaluate.sandbox, own),
                cost=EVALUATION_TOKENS,
            )
    return steps


def _announce(progress: Progress, state: str, on_event: OnEvent) -> None:
    if state != "running":
        progress.running.clear()
    progress.write(state, force=True)
    on_event(progress.snapshot(state))


def _check_memory(study: Study, path: Path, workers: int) -> None:
    size = model_shape(study, path)
    need = workers * max(
        memory_bytes(size, s.micro_batch_tokens, s.seq_len, adapter=s.adapter is not None)
        for s in expand(study)[0].stages
    )
    free = psutil.virtual_memory().available
    if need > free:
        raise UserError(
            f"{path}:{line_of(path, ('model',))}: {workers} workers need about {need / 1e9:.1f} GB of "
            f"memory, {free / 1e9:.1f} GB are free; run with fewer --workers, or lower the model's size "
            "or micro_batch_tokens"
        )


def _make_folder(folder: Path) -> None:
    try:
        (folder / "work").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made ({error.strerror}); name another folder with --out"
        ) from None


def _cache_folder() -> Path:
    """Where compiled graphs are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "codestage" / "compiled"


def _facts(study: Study, store: Store, data: DataSteps, seconds: float) -> dict[str, Any]:
    """What the report tells of the machine, the versions and the data."""
    ledgers = {}
    for name, step in data.documents.items():
        ledger = json.loads(store.file("documents", step.hash, "ledger.json").read_text())
        ledgers[name] = {key: ledger[key] for key in ("read", "kept", "removed", "kinds", "training")}
    return {
        "data": ledgers,
        "machine": {
            "processor": _processor(),
            "cores": len(psutil.Process().cpu_affinity() or []),
            "memory": f"{psutil.virtual_memory().total / 1e9:.1f} GB",
            "system": platform.system(),
        },
        "versions": {
            "codestage": metadata.version("codestage"),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in LIBRARIES},
        },
        "seconds": round(seconds, 1),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
