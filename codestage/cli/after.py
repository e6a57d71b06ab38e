"""What came out: report, view, compare, export, eval, audit."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

from codestage import terminal
from codestage.cli.app import app
from codestage.cli.arguments import FolderArg, Json, TrustCode, results_folder

QUICKSTART, OFF = ["quickstart"], ["off"]


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
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="suite or task; may be given again; default quickstart where there is no --tasks"
        ),
    ] = None,
    own: Annotated[
        Path | None,
        typer.Option(
            "--tasks", help="YAML file of your own questions: what a study has under evaluate: tasks"
        ),
    ] = None,
    cot: Annotated[list[str], typer.Option(help="off, supplied, generated; may be given again")] = OFF,
    items: Annotated[int | None, typer.Option(min=1, help="items a task; default all")] = None,
    data: Annotated[Path | None, typer.Option(help="folder with the tasks' published files")] = None,
    samples: Annotated[int, typer.Option(min=0, help="answers drawn beside the greedy one")] = 0,
    sandbox: Annotated[
        Literal["bubblewrap", "unconfined"], typer.Option(help="what runs written programs")
    ] = "bubblewrap",
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option()] = "float32",
    chat: Annotated[bool, typer.Option("--chat-template", help="ask in the model's own")] = False,
    trust_remote_code: TrustCode = False,
    out: Annotated[Path | None, typer.Option(help="Parquet file for the item records")] = None,
    as_json: Json = False,
) -> None:
    """Scores of one model by itself, with intervals over items; with --out it goes on where it was stopped."""
    from codestage.engine.display import PartsBar
    from codestage.engine.evaluate_one import Asked, evaluate_model

    suites = suite or ([] if own else QUICKSTART)
    asked = Asked(suites, cot, items, data, samples, sandbox, precision, chat, trust_remote_code, own)
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
