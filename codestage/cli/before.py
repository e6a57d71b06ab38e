"""Before anything is spent: presets, the schema, the tasks, plans, data."""

from pathlib import Path
from typing import Annotated

import typer

from codestage import terminal
from codestage.cli.app import app
from codestage.cli.arguments import Json, StudyArg, results_folder
from codestage.errors import UserError


@app.command()
def init(
    preset: Annotated[str, typer.Argument(help="see `codestage presets`")] = "quickstart",
    to: Annotated[Path | None, typer.Option(help="file to write; default PRESET.yaml")] = None,
) -> None:
    """Write a preset study file to start from."""
    from codestage.study.presets import preset_text

    text = preset_text(preset)
    target = to or Path(f"{preset}.yaml")
    if target.exists():
        raise UserError(f"{target} exists already; remove it or name another file with --to")
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; name another with --to") from None
    terminal.say(f"wrote {target}\nnext: codestage plan {target}; codestage run {target}")


@app.command()
def presets(as_json: Json = False) -> None:
    """Names of the preset studies."""
    from codestage.study.presets import preset_names

    names = preset_names()
    terminal.as_json(names) if as_json else terminal.say("\n".join(names))


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
    as_json: Json = False,
) -> None:
    """What a study would cost and could detect, before anything is spent."""
    from codestage.engine.plan import detectable_lines
    from codestage.engine.plan import plan as make_plan

    answer = make_plan(study, pilot=results_folder(pilot) if pilot else None)
    if as_json:
        terminal.as_json(answer)
        return
    shown = [
        ("arms", f"{answer['arms']:,}"),
        ("runs (arms × seeds)", f"{answer['runs']:,}"),
        ("steps (unshared)", f"{answer['steps']:,} ({answer['steps_unshared']:,})"),
        ("tokens (unshared)", f"{answer['tokens']:,} ({answer['tokens_unshared']:,})"),
        ("FLOPs", f"{answer['flops']:.3g}"),
        ("hours here (unshared)", f"{answer['hours']:.2f} ({answer['hours_unshared']:.2f})"),
        ("memory, GB", f"{answer['memory_gb']:.2f}"),
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

    answer = count(study, arm=arm, stage=stage, out=out or results_folder(study))
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
    as_json: Json = False,
) -> None:
    """What each source holds: documents read, removed by rule, kept, and tokens."""
    from codestage.engine.mix import inspect

    rows = inspect(study, out=out or results_folder(study), ray=ray)
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
