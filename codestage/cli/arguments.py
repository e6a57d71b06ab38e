"""What several commands take: a study, a results folder, how to answer."""

from pathlib import Path
from typing import Annotated

import typer

StudyArg = Annotated[Path, typer.Argument(metavar="STUDY", help="the study file (YAML)")]
FolderArg = Annotated[
    Path, typer.Argument(metavar="DIR", help="results folder of a study, or its study file")
]
TrustCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="let code of the model's own run: read it first")
]
StoreArg = Annotated[
    str | None,
    typer.Option(help="folder or address (s3://…) that shares finished steps; remembered"),
]
Json = Annotated[bool, typer.Option("--json", help="answer in JSON")]


def results_folder(path: Path) -> Path:
    """The results folder meant by `path`: itself, or the one beside a study file."""
    return path.with_suffix("") if path.suffix in (".yaml", ".yml") else path


def own_study(path: Path) -> list[Path]:
    """The study file meant by `path`: itself, or the one beside a results folder; none if there is none."""
    if path.suffix in (".yaml", ".yml"):
        return [path]
    # "." and ".." have a name only once resolved; a link's study may stand beside the link or what it leads to
    named = [path.resolve()] if path.name in ("", "..") else [path, path.resolve()]
    places = [place for place in named if place.name]
    beside = [place.with_name(place.name + end) for place in places for end in (".yaml", ".yml")]
    return [file for file in beside if file.exists()][:1]
