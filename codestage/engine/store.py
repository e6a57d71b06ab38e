"""The store: finished steps as folders named by the hash of what made them.

A step's folder comes into being in one rename on the file system that holds it, after all of it is on disk: it
is whole or not there, for every process and every machine that looks.
"""

import errno
import json
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from codestage.data.disk import file_digest, sync
from codestage.data.own_code import Code
from codestage.errors import RunError
from codestage.study.identity import digest, plain

VERSIONS = {
    "items": 3,
    "documents": 5,
    "tokenizer": 1,
    "prepare": 2,
    "model": 1,
    "train": 4,
    "evaluate": 4,
}
"""Raised by hand when a kind of step gives other results than before for the same input."""
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow", "datasets")
"""Whose versions are noted beside a step, not in its hash: they move results by rounding at most. Those that
decide what a step holds stand in its config."""


@dataclass(frozen=True)
class Step:
    """One piece of work. `config` and `inputs` are its identity; `payload` only says how to do it."""

    kind: str
    label: str
    """For people."""
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Role -> hash of the step whose result is used."""
    holds: Mapping[str, str] = field(default_factory=dict)
    """Role -> digest of what that result holds (`Store.content`), where that is known when the step is made: it
    stands in the identity for the input's hash, so that work is not done again on what came out the same."""
    payload: Any = None
    cost: float = 1.0
    """Tokens to train, or a guess of like size: for order and progress only."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Hashes in `config` -> what people call what they stand for."""
    code: Code | None = None
    """A model's own code that the user lets run for it; what it is, the model step's files say."""

    @property
    def hash(self) -> str:
        cached = self.__dict__.get("_hash")
        if cached is None:
            identity = [self.kind, VERSIONS[self.kind], self.config, stands_on(self.inputs, self.holds)]
            cached = digest(identity)
            self.__dict__["_hash"] = cached
        return str(cached)


def stands_on(inputs: Mapping[str, str], holds: Mapping[str, str]) -> dict[str, str]:
    """Role -> what of an input is part of a step's identity: what it holds where that is told, else its hash."""
    return {**inputs, **holds}


def readable(record: Mapping[str, Any]) -> bool:
    """Whether what `step.json` says of a finished step is of the form that codestage writes."""
    kinds = {
        "config": dict,
        "inputs": dict,
        "label": str,
        "version": int,
        "hash": str,
        "finished": float,
    }
    told = all(isinstance(record.get(key), kind) for key, kind in kinds.items())
    return told and isinstance(record.get("holds", {}), dict)


def content(record: Mapping[str, Any]) -> str:
    """Digest of what a finished step holds, by the checksums of its files."""
    return digest(record.get("checksums"))


class Store:
    """Finished steps under `root/store`, unfinished work under `root/work`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: set[Path] = set()

    def path(self, kind: str, hash_: str) -> Path:
        return self.root / "store" / kind / hash_

    def work(self, step: Step) -> Path:
        """Where a step works: the same folder after an interruption, so it can go on there."""
        folder = self.work_path(step)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def work_path(self, step: Step) -> Path:
        """The same, whether it is there or not."""
        return self.root / "work" / f"{step.kind}-{step.hash}"

    def has(self, step: Step) -> bool:
        return (self.path(step.kind, step.hash) / "step.json").exists()

    def read(self, kind: str, hash_: str) -> Path:
        """The folder of a finished step, its files verified once by this process.

        Raises:
            RunError: if a file is missing or not what was written.
        """
        folder = self.path(kind, hash_)
        if folder not in self._verified:
            try:
                record = json.loads((folder / "step.json").read_text())
                damaged = [n for n, c in record["checksums"].items() if file_digest(folder / n) != c]
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise RunError(
                    f"{folder}: not readable ({error}); remove it and run again: what made it is done again"
                ) from None
            if damaged:
                raise RunError(
                    f"{folder / damaged[0]}: damaged (checksum differs); remove {folder} and run again: "
                    "what made it is done again"
                )
            self._verified.add(folder)
        return folder

    def file(self, kind: str, hash_: str, name: str) -> Path:
        """One file of a finished step, where the others are not needed; raises what `read` does."""
        return self.read(kind, hash_) / name

    def record(self, step: Step) -> dict[str, Any]:
        """What `step.json` says of a finished step."""
        text = (self.path(step.kind, step.hash) / "step.json").read_text()
        result: dict[str, Any] = json.loads(text)
        return result

    def content(self, step: Step) -> str:
        """Digest of what a finished step holds; raises what `read` does."""
        return content(json.loads(self.file(step.kind, step.hash, "step.json").read_text()))

    def finished(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """What `step.json` says of every finished step, or of those of one kind; what cannot be read is left out."""
        for path in sorted((self.root / "store").glob(f"{kind or '*'}/*/step.json")):
            with suppress(OSError, ValueError):
                record = json.loads(path.read_text())
                if isinstance(record, dict) and record.get("hash") == path.parent.name:
                    yield record

    def begin(self, study: str, steps: Sequence[Step]) -> list[Step]:
        """Before `steps` of a study are done. Answers those that are finished here and are to be sent elsewhere: none,
        as for the next three, where this folder is the whole store (`codestage.engine.shared` has the other kind).
        """
        return []

    def bring(self, steps: Sequence[Step]) -> None:
        """Have here what those of `steps` that are not finished are made from."""

    def fetch(self, wanted: Iterable[tuple[str, str, str | None]]) -> None:
        """Have files (kind, hash, name; None: all) of finished steps here, at once rather than one by one."""

    def end(self) -> None:
        """All that a study wants is finished."""

    def commit(self, step: Step, result: Path, seconds: float) -> None:
        """Move a finished folder into the store in one rename; its work folder goes.

        Raises:
            RunError: disk full or no permission; nothing half-written is left in the store.
        """
        target = self.path(step.kind, step.hash)
        try:
            names = sorted(str(p.relative_to(result)) for p in result.rglob("*") if p.is_file())
            record = {
                "kind": step.kind,
                "hash": step.hash,
                "label": step.label,
                "version": VERSIONS[step.kind],
                "config": plain(step.config),
                "inputs": dict(step.inputs),
                **({"holds": dict(step.holds)} if step.holds else {}),
                "checksums": {name: file_digest(result / name) for name in names},
                **({"names": dict(step.names)} if step.names else {}),
                "libraries": libraries(),
                "seconds": round(seconds, 3),
                "finished": time.time(),
            }
            (result / "step.json").write_text(json.dumps(record, indent=1))
            for name in (*names, "step.json"):
                sync(result / name)
            for folder in (*(p for p in result.rglob("*") if p.is_dir()), result):
                sync(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            result.rename(target)
            sync(target.parent)
        except OSError as error:
            # another process finished the same step, which is as good; or a network file system did the
            # rename, lost its answer, and was asked again
            there = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)
            if error.errno not in there or not self.has(step):
                raise RunError(disk_message(target, error)) from None
        shutil.rmtree(self.root / "work" / f"{step.kind}-{step.hash}", ignore_errors=True)


def disk_message(path: Path, error: Exception) -> str:
    """What to say when a file cannot be written."""
    free = shutil.disk_usage(path.anchor or "/").free
    return (
        f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}; {free / 1e6:,.0f} MB free); make room "
        "or mend the permissions and run again: finished steps are kept"
    )


@cache
def libraries() -> dict[str, str]:
    """Versions of `LIBRARIES` here."""
    found = {}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file in one move, once its text is on disk."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RunError(disk_message(path, error)) from None
