"""A results folder whose finished steps also lie in a remote store: `store/` here is a cache in front of it.

Only the process of a command speaks to the remote store: it brings what steps are made from before they are handed out,
and sends what is finished while others are worked on. Workers, on whatever machine, see the results folder alone.
"""

import errno
import fcntl
import json
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from codestage.data.disk import file_digest, sync
from codestage.engine.remote import Patience, Remote
from codestage.engine.store import VERSIONS, Step, Store, disk_message, write_atomically
from codestage.errors import RunError, UserError
from codestage.study.identity import digest

AT_ONCE = 8
"""Steps that are brought at once."""
DOWNLOAD = "download-"
"""Begins the name, in `work/`, of a folder with files of a step that is not here whole."""
NOTE = "store.json"
"""In the results folder: the address of its remote store, and a name for the folder there."""


def open_store(folder: Path, url: str | None = None, patience: Patience | None = None) -> Store:
    """The store of a results folder, with the remote one that it has or, by `url`, is to have from now on.

    Raises:
        UserError: it has another one already; nothing can be kept at `url`.
    """
    note = _note(folder)
    if url is not None:
        url = _address(url)
        if note and note["url"] != url:
            raise UserError(
                f"--store {url}: the finished steps of {folder} are in {note['url']}, and those that are only there "
                f"would be done again; copy them over, remove {folder / NOTE} and run again with --store"
            )
    elif note is None:
        return Store(folder)
    else:
        url = note["url"]
    remote = Remote(url, patience)
    if note is None:
        remote.found()
        note = {"url": url, "id": secrets.token_hex(16)}
        write_atomically(folder / NOTE, json.dumps(note, indent=1))
    return SharedStore(folder, remote, note["id"])


def _note(folder: Path) -> dict[str, str] | None:
    path = folder / NOTE
    try:
        note = json.loads(path.read_text())
        return {"url": str(note["url"]), "id": str(note["id"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not readable ({error}); remove it and run again with --store"
        ) from None


def _address(url: str) -> str:
    """One way to write the same place: folders by their whole path, no slash at the end."""
    if "::" in url:
        raise UserError(f"--store {url}: chained addresses (::) cannot be a store; name the last part")
    for scheme in ("file://", "local://"):
        url = url.removeprefix(scheme)
    return url.rstrip("/") if "://" in url else str(Path(url).expanduser().resolve())


class SharedStore(Store):
    """A store whose steps are here, there, or both. What is only there is brought when it is read."""

    def __init__(self, root: Path, remote: Remote, id_: str) -> None:
        super().__init__(root)
        self.remote, self.id = remote, id_
        self._there: dict[str, set[str]] = {}
        self._met = False
        self._study = ""
        self._wanted_before: dict[str, list[str]] = {}
        self._wants: dict[str, list[str]] = {}

    def is_here(self, kind: str, hash_: str) -> bool:
        return (self.path(kind, hash_) / "step.json").exists()

    def meet(self) -> None:
        """See once that the remote store is there; UserError if not."""
        if not self._met:
            self.remote.meet()
            self._met = True

    def is_there(self, kind: str, hash_: str) -> bool:
        """By the listing of the last `begin`, and what was sent since."""
        if kind not in self._there:
            self.meet()
            self._there[kind] = self.remote.hashes(kind)
        return hash_ in self._there[kind]

    def has(self, step: Step) -> bool:
        return super().has(step) or self.is_there(step.kind, step.hash)

    def read(self, kind: str, hash_: str) -> Path:
        if not self.is_here(kind, hash_) and self.is_there(kind, hash_):
            self.fetch([(kind, hash_, None)])
        return super().read(kind, hash_)

    def file(self, kind: str, hash_: str, name: str) -> Path:
        if self.is_here(kind, hash_) or not self.is_there(kind, hash_):
            return super().file(kind, hash_, name)
        self.fetch([(kind, hash_, name)])
        return self._part(kind, hash_) / name

    def record(self, step: Step) -> dict[str, Any]:
        if self.is_here(step.kind, step.hash):
            return super().record(step)
        held: dict[str, Any] = json.loads(self.file(step.kind, step.hash, "step.json").read_text())
        return held

    def finished(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        here = set()
        for record in super().finished(kind):
            here.add(record["hash"])
            yield record
        self.meet()
        for one in [kind] if kind else VERSIONS:
            yield from (r for r in self.remote.records(one) if r["hash"] not in here)

    def begin(self, study: str, steps: Sequence[Step]) -> list[Step]:
        self.meet()
        if not self._wants:  # wants of its last run are protected until this one has told all of its own
            self._study = study
            before = (self.remote.read("studies", self._name()) or {}).get("steps")
            self._wanted_before = before if isinstance(before, dict) else {}
        for step in steps:
            self._wants.setdefault(step.kind, []).append(step.hash)
        self._tell(self._wanted_before, self._wants)
        self._there.clear()
        return [s for s in steps if self.is_here(s.kind, s.hash) and not self.is_there(s.kind, s.hash)]

    def end(self) -> None:
        self._tell(self._wants)

    def _tell(self, *wants: Mapping[str, Sequence[str]]) -> None:
        """Let other studies know what this one wants, for the sake of `gc`."""
        steps = {k: sorted({h for want in wants for h in want.get(k, ())}) for k in VERSIONS}
        told = {"study": self._study, "folder": str(self.root.resolve()), "written": time.time()}
        self.remote.write("studies", self._name(), held=told | {"steps": steps})

    def _name(self) -> str:
        return f"{digest([self.id, self._study])}.json"

    def bring(self, steps: Sequence[Step]) -> None:
        waiting = {step.hash: step for step in steps if not self.has(step)}
        inputs = {h for step in waiting.values() for h in step.inputs.values()} - waiting.keys()
        found = [(kind, h, None) for h in sorted(inputs) for kind in VERSIONS if self.is_there(kind, h)]
        self.fetch(found)

    def fetch(self, wanted: Iterable[tuple[str, str, str | None]]) -> None:
        steps: dict[tuple[str, str], set[str | None]] = {}
        for kind, hash_, name in wanted:
            at_hand = self.is_here(kind, hash_) or self._has_part(kind, hash_, name)
            if not at_hand and self.is_there(kind, hash_):
                steps.setdefault((kind, hash_), set()).add(name)
        if not steps:
            return
        with self._alone(), ThreadPoolExecutor(AT_ONCE) as pool:
            under_way = [pool.submit(self._fetch, *step, names) for step, names in steps.items()]
            try:
                for one in under_way:
                    one.result()
            finally:  # after an error, or Ctrl-C, what has not begun is left
                pool.shutdown(wait=False, cancel_futures=True)

    def send(self, step: Step, remote: Remote) -> None:
        """Have a finished step in the remote store, by a `remote` with the patience of who sends.

        Raises:
            RunError: it is damaged here; the remote store refuses.
        """
        if remote.record(step.kind, step.hash) is None:
            folder = Store.read(self, step.kind, step.hash)
            remote.put(folder, json.loads((folder / "step.json").read_text()))
        if step.kind in self._there:
            self._there[step.kind].add(step.hash)

    def _part(self, kind: str, hash_: str) -> Path:
        """Where files of a step lie that was not brought whole."""
        return self.root / "work" / f"{DOWNLOAD}{kind}-{hash_}"

    def _has_part(self, kind: str, hash_: str, name: str | None) -> bool:
        part = self._part(kind, hash_)
        if name is None or not (part / name).is_file():
            return False
        if name == "step.json" or part / name in self._verified:
            return True
        with suppress(OSError, ValueError, KeyError):
            if _is_whole(part / name, json.loads((part / "step.json").read_text()), name):
                self._verified.add(part / name)
                return True
        return False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Processes that bring steps into this folder take turns."""
        path = self.root / "work" / "download.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise RunError(disk_message(path, error)) from None

    def _fetch(self, kind: str, hash_: str, names: set[str | None]) -> None:
        """Bring files of a step; None among `names`: all of them, and the step is finished here then."""
        if self.is_here(kind, hash_):
            return
        place = self.remote.place(kind, hash_)
        for last in (False, True):
            record = self.remote.record(kind, hash_)
            if record is None:
                raise RunError(f"{place}.json: is there no more; run again: what made it is done again")
            try:
                part = self._complete(record, record["checksums"] if None in names else names)
            except (
                FileNotFoundError
            ) as error:  # another attempt took its place meanwhile, or it is damaged
                if last:
                    raise RunError(_damaged(str(error), "not there", place)) from None
                continue
            if None in names:
                self._finish(part, record)
            return

    def _complete(self, record: dict[str, Any], names: Iterable[str | None]) -> Path:
        """Bring those files that are not there whole; an interrupted download goes on."""
        part = self._part(record["kind"], record["hash"])
        place = self.remote.place(record["kind"], record["hash"])
        try:
            write_atomically(part / "step.json", json.dumps(record, indent=1))
            for name in (str(n) for n in names if n != "step.json"):
                to = part / name
                to.parent.mkdir(parents=True, exist_ok=True)
                if to.is_file() and _is_whole(to, record, name):
                    continue
                self.remote.get(record, name, to)
                if not _is_whole(to, record, name):
                    file = f"{place}/{record['attempt']}/{name}"
                    raise RunError(_damaged(file, "checksum differs", place))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RunError(disk_message(part, error)) from None
        return part

    def _finish(self, part: Path, record: dict[str, Any]) -> None:
        target = self.path(record["kind"], record["hash"])
        try:
            for path in [p for p in part.rglob("*") if p.is_file()]:
                if str(path.relative_to(part)) not in (*record["checksums"], "step.json"):
                    path.unlink()
            for path in [*part.rglob("*"), part]:
                sync(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            part.rename(target)
            sync(target.parent)
        except OSError as error:
            there = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)
            if not there or not self.is_here(record["kind"], record["hash"]):
                raise RunError(disk_message(target, error)) from None
            shutil.rmtree(part, ignore_errors=True)
        self._verified.add(target)


def _is_whole(path: Path, record: dict[str, Any], name: str) -> bool:
    return file_digest(path) == record["checksums"].get(name)


def _damaged(what: str, how: str, place: str) -> str:
    return f"{what}: damaged ({how}); remove {place}.json and run again: what made it is done again"
