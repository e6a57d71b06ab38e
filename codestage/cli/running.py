"""While a study runs: run, status, why, gc."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from codestage import terminal
from codestage.cli.app import app
from codestage.cli.arguments import (
    FolderArg,
    Json,
    StoreArg,
    StudyArg,
    TrustCode,
    own_study,
    results_folder,
)
from codestage.errors import UserError

NONE: list[Path] = []


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
        typer.Option(help="of many processes: those that hold one copy of the model; default all"),
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
    processes: Annotated[
        int | None, typer.Option(help="with --ray: those that train a model together; default 1")
    ] = None,
    store: StoreArg = None,
    notify: Annotated[
        str | None, typer.Option(help="a notice at the end: desktop, or an address that gets JSON")
    ] = None,
    trust_remote_code: TrustCode = False,
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
            until=limits, ray=ray, processes=processes, trust_code=trust_remote_code, store=store,
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
    for text in answer["warnings"]:
        terminal.say(f"warning: {text}")


@app.command()
def why(
    study: StudyArg,
    step: Annotated[
        str, typer.Argument(help="beginning of a hash, or part of a label; default all that will run")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="results folder; default beside STUDY")] = None,
    trust_remote_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Why a step will run again: which of its inputs changed, down to the first cause."""
    from codestage.engine.model_steps import admit_code
    from codestage.engine.why import answer_lines
    from codestage.engine.why import why as explain

    if trust_remote_code:
        admit_code(study)
    answer = explain(study, out or results_folder(study), step)
    terminal.as_json(answer) if as_json else terminal.say(*answer_lines(answer))


@app.command()
def gc(
    folder: FolderArg,
    keep: Annotated[
        list[Path], typer.Option(help="another study that uses the folder; may be given again")
    ] = NONE,
    cached: Annotated[
        bool, typer.Option("--cached", help="also what the store of `run --store` has")
    ] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="look in the store of `run --store`, not in the folder")
    ] = False,
    delete: Annotated[bool, typer.Option("--delete", help="delete it; default: only show")] = False,
    trust_remote_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """What is in a results folder that no study needs any more, and with --delete its deletion."""
    from codestage.engine.gc import answer_lines, collect
    from codestage.engine.gc_remote import collect_remote
    from codestage.engine.model_steps import admit_code

    place, studies = results_folder(folder), own_study(folder)
    for study in (*studies, *keep) if trust_remote_code else ():
        admit_code(study)
    if remote and cached:
        raise UserError("--remote is about the store, --cached about the folder: one at a time")
    if remote:
        answer = collect_remote(place, studies, keep=keep, delete=delete)
    else:
        answer = collect(place, studies, keep=keep, cached=cached, delete=delete)
    terminal.as_json(answer) if as_json else terminal.say(*answer_lines(answer))
