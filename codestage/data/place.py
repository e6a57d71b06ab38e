"""Where a model or tokenizer stands that exists already: a folder, a .gguf, or the hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codestage.errors import UserError
from codestage.study.schema import ModelSpec, TokenizerSpec


def in_file(path: Path) -> tuple[str, dict[str, Any]]:
    """(place, further arguments) for Transformers' `from_pretrained` of a folder or a .gguf."""
    if path.suffix == ".gguf":
        return str(path.parent), {"gguf_file": path.name}
    return str(path), {}


def place_of(spec: ModelSpec | TokenizerSpec, folder: Path) -> tuple[str, dict[str, Any]]:
    """As `in_file`, of what `spec` names; paths are relative to `folder`.

    Raises:
        UserError: there is no such folder or file.
    """
    if spec.hub:
        return spec.hub.id, {"revision": spec.hub.revision}
    path = folder / str(spec.path)
    if not path.exists():
        raise UserError(f"{spec.path}: no such folder or file; check the path")
    return in_file(path)


def files_of(spec: ModelSpec | TokenizerSpec, folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The local files that make it what it is: those of `patterns` in a folder; none of the hub's."""
    if spec.path is None:
        return []
    path = folder / spec.path
    if path.is_file():
        return [path]
    return sorted({f for pattern in patterns for f in path.glob(pattern) if f.is_file()})
