"""Before anything is spent: presets, the schema, the tasks, plans, data."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from codestage import terminal
from codestage.cli.app import app
from codestage.cli.arguments import Json, StoreArg, StudyArg, TrustCode, results_folder
from codestage.errors import UserError


@app.command()
def init(
    preset: Annotated[str, typer.Argument(help="see `codestage presets`")] = "quickstart",
    to: Annotated[
        Path | None,
        typer.Option(help="file to write, or folder where there are several; default PRESET.yaml"),
    ] = None,
    scale: Annotated[
        str | None, typer.Option(help="smoke, laptop, gpu or paper; default the preset's smallest")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="folder of published files, for presets that read them")
    ] = None,
) -> None:
    """Write a preset study to start from: one file, or one for each of its models."""
    from codestage.study.presets import load_preset, preset_studies

    studies = preset_studies(preset, scale=scale, data=data)
    found = load_preset(preset)
    targets = _targets(list(studies), to)
    for target, text in zip(targets, studies.values(), strict=True):
        _write_study(target, text)
    if found.scales:
        at = scale or found.scales[0]
        others = ", ".join(name for name in found.scales if name != at)
        terminal.say(f"scale {at}" + (f" (others: {others})" if others else ""))
    if len(targets) == 1:
        terminal.say(f"next: codestage plan {_typed(targets[0])}; codestage run {_typed(targets[0])}")
        return
    store = targets[0].parent / f"{preset}-store"
    terminal.say("next, one after the other:")
    for target in targets:
        terminal.say(f"  codestage run {_typed(target)} --store {_typed(store)}")
    if found.compare:
        terminal.say(f"  codestage compare {' '.join(_typed(t.with_suffix('')) for t in targets)}")


def _typed(path: Path) -> str:
    """The path as a shell takes it."""
    return shlex.quote(str(path))


def _targets(names: list[str], to: Path | None) -> list[Path]:
    """Where study files of these names go, none of which is there yet."""
    if len(names) == 1:
        targets = [to / names[0] if to and to.is_dir() else to or Path(names[0])]
        if targets[0].suffix not in (".yaml", ".yml"):
            raise UserError(
                f"--to {to}: a study file ends in .yaml; its results stand in the folder named like it without that"
            )
    elif to is not None and to.suffix in (".yaml", ".yml"):
        raise UserError(f"this preset is {len(names)} study files; name a folder for them with --to")
    else:
        targets = [(to or Path()) / name for name in names]
    for target in targets:
        if target.exists():
            raise UserError(f"{target} exists already; remove it or name another file with --to")
    return targets


def _write_study(target: Path, text: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; name another with --to") from None
    terminal.say(f"wrote {target}")


@app.command()
def presets(as_json: Json = False) -> None:
    """The preset studies and their scales; --json: their names."""
    from codestage.study.presets import load_preset, preset_names

    names = preset_names()
    if as_json:
        terminal.as_json(names)
        return
    for name in names:
        found = load_preset(name)
        terminal.say(f"{name}: {found.title}")
        sizes = f"scales: {', '.join(found.scales)}" if found.scales else "one size"
        models = (
            f"; a file for each of {', '.join(m or name for m in found.models)}" if found.models else ""
        )
        terminal.say(f"  {sizes}{models}")


@app.command()
def schema() -> None:
    """The JSON Schema of the study file, for editors."""
    from codestage.study.schema_json import json_schema

    terminal.as_json(json_schema())


@app.command()
def tasks(as_json: Json = False) -> None:
    """The suites, and the evaluation tasks: domain, suite, metric, chance level, items, source."""
    from codestage.evaluate.tasks import all_tasks, suites

    keys = ["name", "domain", "suite", "metric", "chance", "items", "source"]
    rows = [task.summary() for task in all_tasks()]
    if as_json:
        terminal.as_json(rows)
        return
    for suite in suites().values():
        terminal.say(f"{suite.name}: {suite.title}\n  {suite.note}\n  {', '.join(suite.tasks)}\n")
    shown = [["–" if row[key] is None else row[key] for key in keys] for row in rows]
    terminal.table("tasks", keys, shown)


@app.command()
def plan(
    study: StudyArg,
    pilot: Annotated[Path | None, typer.Option(help="a finished study to take variances from")] = None,
    gpu: Annotated[
        Literal["a100", "h100", "h200"], typer.Option(help="GPU to tell hours and memory for")
    ] = "h100",
    trust_remote_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """What a study would cost and could detect, before anything is spent."""
    from codestage.engine.model_steps import admit_code
    from codestage.engine.plan import detectable_lines
    from codestage.engine.plan import plan as make_plan

    if trust_remote_code:
        admit_code(study)
    answer = make_plan(study, pilot=results_folder(pilot) if pilot else None, gpu=gpu)
    if as_json:
        terminal.as_json(answer)
        return
    card, asked = answer["gpu"], answer["evaluation"]
    share = card["assumed"]["share_of_peak"]
    shown = [
        ("parameters", f"{answer['parameters']:,}"),
        ("arms", f"{answer['arms']:,}"),
        ("runs (arms × seeds)", f"{answer['runs']:,}"),
        ("steps (unshared)", f"{answer['steps']:,} ({answer['steps_unshared']:,})"),
        ("tokens (unshared)", f"{answer['tokens']:,} ({answer['tokens_unshared']:,})"),
        ("FLOPs", f"{answer['flops']:.3g}"),
        ("questions (checkpoints asked)", f"{asked['questions']:,} ({asked['checkpoints']:,})"),
        ("tokens of answers, at most", f"{asked['written_tokens_at_most']:,}"),
        (
            "hours of training here (unshared)",
            f"{answer['hours']:,.2f} ({answer['hours_unshared']:,.2f})",
        ),
        ("memory here, GB", f"{answer['memory_gb']:,.2f}"),
        (
            f"{card['name']}-hours of training (unshared)",
            f"{card['hours']:,.2f} ({card['hours_unshared']:,.2f})",
        ),
        ("  assumed: share of its bf16 peak", f"{share:.0%}"),
        ("memory of one model there, GB", f"{card['memory_gb']:,.2f}"),
        (f"  {card['name']} cards to hold it", f"{card['needed_for_memory']:,}"),
    ]
    terminal.table(f"plan of {study}", ["", "value"], [list(row) for row in shown])
    terminal.say("")
    columns, rows, lines = detectable_lines(answer["minimum_detectable_effect"])
    terminal.table("minimum detectable effect (80 % power)", columns, rows)
    terminal.say(*lines)
    for warning in answer["warnings"]:
        terminal.say(f"warning: {warning}")


@app.command()
def mix(
    study: StudyArg,
    arm: Annotated[str, typer.Option(help="name of the arm, as in `codestage plan`")],
    stage: Annotated[str, typer.Option(help="name of the stage")],
    out: Annotated[Path | None, typer.Option(help="results folder to keep shards in")] = None,
    as_json: Json = False,
) -> None:
    """What the batches of one stage really hold, counted from the batches."""
    from codestage.engine.mix import mix as count

    answer = count(study, arm=arm, stage=stage, out=out or results_folder(study), warn=terminal.warn)
    if as_json:
        terminal.as_json(answer)
        return
    sources = list(answer["total"]["by_source"])
    rows = [
        [name, f"{part['tokens']:,}"] + [f"{part['by_source'].get(s, 0):,}" for s in sources]
        for name, part in [
            *((f"phase {i}", phase) for i, phase in enumerate(answer["phases"], 1)),
            ("total", answer["total"]),
        ]
    ]
    terminal.table(f"{arm}, {stage}: tokens", ["", "all", *sources], rows)


@app.command()
def data(
    study: StudyArg,
    out: Annotated[Path | None, typer.Option(help="results folder to keep shards in")] = None,
    ray: Annotated[
        str | None, typer.Option(help="address of a Ray cluster to prepare on; auto: this machine's")
    ] = None,
    store: StoreArg = None,
    as_json: Json = False,
) -> None:
    """What each source holds: documents read, removed by rule, kept, and tokens."""
    from codestage.engine.mix import inspect

    rows = inspect(study, out=out or results_folder(study), ray=ray, store=store, warn=terminal.warn)
    if as_json:
        terminal.as_json(rows)
        return
    columns = ["source", "domain", "read", "removed", "kept", "of which", "tokens", "bytes a token"]
    shown = [
        [
            row["source"],
            row["domain"],
            f"{row['read']:,}",
            ", ".join(f"{rule} {n:,}" for rule, n in row["removed"].items()) or "none",
            f"{row['kept']:,}",
            ", ".join(f"{kind} {n:,}" for kind, n in row["kinds"].items()),
            f"{row['tokens']:,}",
            f"{row['bytes_per_token']:.2f}",
        ]
        for row in rows
    ]
    terminal.table("", columns, shown)
    for row in rows:
        for task, documents in row["training"].items():
            terminal.say(f"{row['source']}: {documents:,} documents of the training split of {task}")
        for example in row["examples"][:5]:
            terminal.say(f"{row['source']}: {example['document']}: {example['rule']}: {example['why']}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine offers: cores, memory, disk, compiler, library versions."""
    from codestage.engine.doctor import examine

    answer = examine()
    if as_json:
        terminal.as_json(answer)
        return
    for name, value in answer.items():
        terminal.say(f"{name}: {value}")
