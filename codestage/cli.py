"""The commands. Each is thin: it calls one part and shows what comes back.

Exit status: 0 done, 1 failed under way, 2 bad input. Parts are imported inside the commands, so
that `codestage --help` answers at once.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

from codestage import terminal
from codestage.errors import RunError, UserError

app = typer.Typer(
    help="At which training stage, in what dose and order does code data help a model reason?",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

StudyArg = Annotated[Path, typer.Argument(metavar="STUDY", help="the study file (YAML)")]
FolderArg = Annotated[
    Path, typer.Argument(metavar="DIR", help="results folder of a study, or its study file")
]
QUICKSTART, OFF = ["quickstart"], ["off"]
NONE: list[Path] = []
Json = Annotated[bool, typer.Option("--json", help="answer in JSON")]


def results_folder(path: Path) -> Path:
    """The results folder meant by `path`: itself, or the one beside a study file."""
    return path.with_suffix("") if path.suffix in (".yaml", ".yml") else path


def own_study(path: Path) -> list[Path]:
    """The study file meant by `path`: itself, or the one beside a results folder; none if there is none."""
    if path.suffix in (".yaml", ".yml"):
        return [path]
    beside = [path.with_name(path.name + suffix) for suffix in (".yaml", ".yml")]
    return [file for file in beside if file.exists()][:1]


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
def run(
    study: StudyArg,
    out: Annotated[Path | None, typer.Option(help="results folder; default beside STUDY")] = None,
    workers: Annotated[int | None, typer.Option(help="processes; default one a core")] = None,
    track: Annotated[
        str | None,
        typer.Option(help="learning curves to tensorboard (in the results folder), wandb or trackio"),
    ] = None,
    shard: Annotated[
        int | None,
        typer.Option(help="with torchrun: processes that hold one copy of the model; default all"),
    ] = None,
    until: Annotated[
        Literal["resolved"] | None, typer.Option(help="add seeds where a contrast is still open")
    ] = None,
    max_seeds: Annotated[
        int | None, typer.Option(help="with --until: most of an arm; default 12")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="with --until: tokens to train, as 50M")] = None,
    ray: Annotated[
        str | None, typer.Option(help="address of a Ray cluster to run on; auto: this machine's")
    ] = None,
    notify: Annotated[
        str | None, typer.Option(help="a notice at the end: desktop, or an address that gets JSON")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="progress as JSON lines")] = False,
) -> None:
    """Run a study, or go on with it: whatever is finished already is not done again."""
    from codestage.engine.display import Display
    from codestage.engine.notice import noticed
    from codestage.engine.run import run as run_study
    from codestage.engine.until import asked

    folder, limits = out or results_folder(study), asked(until, max_seeds, budget)
    with noticed(notify, folder, terminal.warn), Display(as_json=as_json) as display:
        files = run_study(
            study, folder, workers=workers, on_event=display.event, track=track, shard=shard,
            until=limits, ray=ray,
        )  # fmt: skip
    if files is None:
        return  # one of torchrun's processes that only helped to train
    terminal.as_json({"report": str(files.html)}) if as_json else terminal.say(f"report: {files.html}")


@app.command()
def status(folder: FolderArg, as_json: Json = False) -> None:
    """How far a study is: works while it runs and afterwards."""
    from codestage.engine.progress import status as read_status

    answer = read_status(results_folder(folder))
    if as_json:
        terminal.as_json(answer)
        return
    steps = answer["steps"]
    terminal.say(f"{answer['study']}: {answer['state']}")
    terminal.say("steps: " + ", ".join(f"{count} {name}" for name, count in steps.items()))
    terminal.say(f"tokens: {answer['tokens_done']:,} of {answer['tokens_total']:,}")
    if answer["seconds_left"] is not None:
        from codestage.engine.display import left_text

        terminal.say(f"time left: {left_text(answer)}")
    for step in answer["running"]:
        terminal.say("running: " + ", ".join(f"{k} {v}" for k, v in step.items()))


@app.command()
def why(
    study: StudyArg,
    step: Annotated[
        str, typer.Argument(help="beginning of a hash, or part of a label; default all that will run")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="results folder; default beside STUDY")] = None,
    as_json: Json = False,
) -> None:
    """Why a step will run again: which of its inputs changed, down to the first cause."""
    from codestage.engine.why import answer_lines
    from codestage.engine.why import why as explain

    answer = explain(study, out or results_folder(study), step)
    terminal.as_json(answer) if as_json else terminal.say(*answer_lines(answer))


@app.command()
def gc(
    folder: FolderArg,
    keep: Annotated[
        list[Path], typer.Option(help="another study that uses the folder; may be given again")
    ] = NONE,
    delete: Annotated[bool, typer.Option("--delete", help="delete it; default: only show")] = False,
    as_json: Json = False,
) -> None:
    """What is in a results folder that no study needs any more, and with --delete its deletion."""
    from codestage.engine.gc import answer_lines, collect

    answer = collect(results_folder(folder), own_study(folder), keep=keep, delete=delete)
    terminal.as_json(answer) if as_json else terminal.say(*answer_lines(answer))


@app.command()
def report(
    folder: FolderArg,
    beside: Annotated[str | None, typer.Option(help="published numbers: a CSV, or ma2024")] = None,
    as_json: Json = False,
) -> None:
    """Make the report again from the records, and show the effects."""
    from codestage.engine.results import rebuild

    effects, files = rebuild(results_folder(folder), beside=beside)
    if as_json:
        terminal.as_json(effects)
        return
    terminal.effects(effects)
    terminal.say(f"report: {files.html}")


@app.command()
def view(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR…", help="results folders, or study files; several compare"),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 0,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-browser", help="open the page in a browser here")
    ] = False,
) -> None:
    """Look at studies in a browser, also while they run: a page for this machine alone."""
    from codestage.engine.progress import status as read_status
    from codestage.report.viewer.serve import serve

    def ready(address: str, port: int) -> None:
        terminal.say(
            f"{address}\nCtrl-C ends it. From another machine, first ssh -N -L {port}:127.0.0.1:{port} THIS-ONE"
        )

    with suppress(KeyboardInterrupt):
        places = [results_folder(folder) for folder in folders]
        serve(places, read_status, port=port, ready=ready, open_browser=open_browser)


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR DIR …", help="folders or study files")],
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("comparison"),
    as_json: Json = False,
) -> None:
    """Do studies of one design agree that differ in model family or size?"""
    from codestage.report.comparison import write_comparison

    found, files = write_comparison([results_folder(f) for f in folders], out)
    terminal.as_json(found) if as_json else terminal.say(*files.answer, f"page: {files.html}")


@app.command("eval")
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="a model's folder, a .gguf, or a hub id")
    ],
    suite: Annotated[list[str], typer.Option(help="suite or task; may be given again")] = QUICKSTART,
    cot: Annotated[list[str], typer.Option(help="off, supplied, generated; may be given again")] = OFF,
    items: Annotated[int | None, typer.Option(min=1, help="items a task; default all")] = None,
    data: Annotated[Path | None, typer.Option(help="folder with the tasks' published files")] = None,
    samples: Annotated[int, typer.Option(min=0, help="answers drawn beside the greedy one")] = 0,
    sandbox: Annotated[
        Literal["bubblewrap", "unconfined"], typer.Option(help="what runs written programs")
    ] = "bubblewrap",
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option()] = "float32",
    chat: Annotated[bool, typer.Option("--chat-template", help="ask in the model's own")] = False,
    out: Annotated[Path | None, typer.Option(help="Parquet file for the item records")] = None,
    as_json: Json = False,
) -> None:
    """Scores of one model by itself, with intervals over items; with --out it goes on where it was stopped."""
    from codestage.engine.display import PartsBar
    from codestage.engine.evaluate_one import Asked, evaluate_model

    asked = Asked(suite, cot, items, data, samples, sandbox, precision, chat)
    with PartsBar() as bar:
        place = Path(model) if Path(model).exists() or model.count("/") != 1 else model
        rows = evaluate_model(place, asked, out=out, on_part=bar.show)
    if as_json:
        terminal.as_json(rows)
        return
    columns = ["task", "cot", "accuracy", "95 %", "chance", "bits a byte", "items"]
    terminal.table(f"{model}, per cent", columns, [terminal.model_scores(row) for row in rows])
    for row in rows:
        if also := {m: v for m, v in row["metrics"].items() if m not in ("acc", "prob", "bpb")}:
            told = ", ".join(f"{metric} {100 * value:.1f}" for metric, value in also.items())
            terminal.say(f"{row['task']}, {row['cot']}: {told}")
        if row["cut"]:
            terminal.say(
                f"{row['task']}, {row['cot']}: {row['cut']} items were cut to fit the model's context"
            )


@app.command()
def export(
    folder: FolderArg,
    run_name: Annotated[str, typer.Option("--run", help="the run, such as text+code/uniform#0")],
    to: Annotated[Path, typer.Option(help="folder to write")],
    stage: Annotated[str | None, typer.Option(help="after this stage; default the last")] = None,
) -> None:
    """A trained run as a Hugging Face folder with a model card."""
    from codestage.engine.export import export as write

    terminal.say(f"wrote {write(results_folder(folder), run=run_name, stage=stage, to=to)}")


@app.command()
def audit(
    table: Annotated[str, typer.Argument(metavar="CSV", help="accuracies, or a shipped table: ma2024")],
    as_json: Json = False,
) -> None:
    """What published numbers can bear: which differences exceed sampling error."""
    from codestage.analyse.audit import audit as audit_table
    from codestage.analyse.audit import sentences, table_rows

    answer = audit_table(table)
    if as_json:
        terminal.as_json(answer)
        return
    terminal.table(f"audit of {table}", *table_rows(answer))
    terminal.say(*sentences(answer))


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


def main() -> None:
    """Entry point: turns the two errors meant for people into one message and an exit status."""
    try:
        app()
    except UserError as error:
        terminal.say(f"error: {error}", error=True)
        sys.exit(2)
    except RunError as error:
        terminal.say(f"failed: {error}", error=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
