"""A store that several studies and machines share: a folder or a bucket, behind fsspec.

Buckets have no rename, so nothing here rests on one. A step's files lie under `KIND/HASH/ATTEMPT/`;
`KIND/HASH.json`, written last, is what its `step.json` says and names the attempt. So a step is there whole or
not at all; two processes that finish the same step each have an attempt of their own, and who reads sees one of
the two, whole. That the records stand beside each other lets one listing answer for a thousand steps.
"""

import errno
import json
import re
import secrets
import time
from calendar import timegm
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from codestage.data.disk import sync
from codestage.engine.store import disk_message, write_atomically
from codestage.errors import RunError, UserError

PATIENCE = 300.0
"""Seconds that a store may refuse to be read or written before a run gives up."""
PAUSES = (2.0, 30.0)
"""Seconds between the first two tries, and the most between any two."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
RECORD = re.compile(r"[0-9a-f]{32}\.json")
ATTEMPT = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
MARK, FORMAT = "codestage.json", 1
"""A file that says that a place is a store, so that one that is not mounted is not taken for an empty one."""
T = TypeVar("T")


class Refused(RunError):
    """A remote store could not be read or written, for now perhaps. `told` says so without advice."""

    def __init__(self, told: str) -> None:
        super().__init__(
            f"{told}; what is finished is kept in the results folder: when the store answers again, the same "
            "command goes on from there"
        )
        self.told = told


@dataclass(frozen=True)
class Patience:
    """How often a store that refuses is asked again: after 2, 4, 8, 16, 30, 30 … seconds."""

    give_up: Callable[[float], bool] = lambda seconds: True
    """Asked with the seconds that it will have refused at the next try. The default asks once."""
    warn: Callable[[str], None] = lambda text: None
    wait: Callable[[float], Any] = time.sleep

    def keep_asking(self, action: Callable[[], T]) -> T:
        """The answer of `action`, tried again while it is `Refused`."""
        began, (pause, longest) = time.monotonic(), PAUSES
        while True:
            try:
                return action()
            except Refused as error:
                if self.give_up(time.monotonic() + pause - began):
                    raise
                self.warn(f"{error.told}; tried again in {pause:.0f} s")
            self.wait(pause)
            pause = min(longest, 2 * pause)


def patient(warn: Callable[[str], None]) -> Patience:
    """Asks for as long as a run waits for a store; each refusal is told to `warn`."""
    return Patience(lambda seconds: seconds > PATIENCE, warn)


class Remote:
    """Finished steps at `url`. Every method may raise `Refused`, once its patience has ended."""

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        """Raises UserError: there is no such kind of store, or its package is missing."""
        self.url = url
        self._patience = patience or Patience()
        self._fs, self._root = _file_system(url)
        self._is_local = self._fs.protocol == ("file", "local")

    def with_patience(self, patience: Patience) -> "Remote":
        """The same store, asked with other patience."""
        other = copy(self)
        other._patience = patience
        return other

    def place(self, *parts: str) -> str:
        """The address of something in it."""
        return "/".join((self.url.rstrip("/"), *parts))

    def found(self) -> None:
        """Make a store there, if there is none yet.

        Raises:
            UserError: it cannot be written.
        """
        path, once = self._path(f"probe-{secrets.token_hex(8)}"), self.with_patience(Patience())
        try:
            self._put_at_once(path, "{}")
            self._fs.rm_file(path)
            if once.read(MARK) is None:
                once.write(MARK, held={"format": FORMAT})
        except Exception as error:  # each kind of store raises what it likes
            raise UserError(
                f"{self.url}: cannot be used as a store: {_reason(error)}; see that the bucket or folder is there and "
                "that you may read, write and delete in it"
            ) from None

    def meet(self) -> None:
        """See that the store is there.

        Raises:
            UserError: it is not, or it is of another form.
        """
        mark = self.read(MARK)
        if mark is None:
            raise UserError(
                f"{self.url}: no store is there any more ({MARK} is missing); see that it is mounted, and that you may "
                "read it"
            )
        if mark.get("format") != FORMAT:
            raise UserError(
                f"{self.url}: a store of form {mark.get('format')}, which needs another codestage"
            )

    def hashes(self, kind: str) -> set[str]:
        """Hashes of the finished steps of a kind, by one listing."""
        return {name.removesuffix(".json") for name in self.names(kind)}

    def record(self, kind: str, hash_: str) -> dict[str, Any] | None:
        """What is said of a finished step; None: there is none, or not yet.

        Raises:
            RunError: what is there is no record of that step.
        """
        text = self._read(self._path(kind, f"{hash_}.json"))
        return None if text is None else self._parsed(kind, hash_, text)

    def records(self, kind: str) -> Iterator[dict[str, Any]]:
        """The records of all finished steps of a kind; what cannot be read is left out."""
        places = {self._path(kind, f"{hash_}.json"): hash_ for hash_ in sorted(self.hashes(kind))}
        for path, text in self._read_all(list(places)).items():
            with suppress(RunError):
                yield self._parsed(kind, places[path], text)

    def get(self, record: Mapping[str, Any], name: str, to: Path) -> None:
        """Bring one file of a step to `to`.

        Raises:
            FileNotFoundError: it is not there.
            RunError: no room here.
        """
        parts = (record["kind"], record["hash"], record["attempt"], name)
        path = self._path(*parts)

        def bring() -> None:
            try:
                self._fs.get_file(path, str(to))
            except FileNotFoundError:
                raise FileNotFoundError(self.place(*parts)) from None
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise RunError(disk_message(to, error)) from None
                raise

        self._ask(f"{path} cannot be read", bring)

    def put(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Write the files of the finished step in `folder`, and its record after them."""
        kind, hash_ = record["kind"], record["hash"]
        attempt = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
        for name in record["checksums"]:
            self._put_file(folder / name, self._path(kind, hash_, attempt, name))
        text = json.dumps(dict(record) | {"attempt": attempt}, indent=1)
        self._put_text(self._path(kind, f"{hash_}.json"), text)

    def names(self, folder: str) -> list[str]:
        """Of the small JSON files in a folder."""
        return sorted(name for name in self._listed(folder) if RECORD.fullmatch(name))

    def read(self, *name: str) -> dict[str, Any] | None:
        """A small JSON file that is no step; None: not there or not readable."""
        return _dictionary(self._read(self._path(*name)) or b"")

    def write(self, *name: str, held: Mapping[str, Any]) -> None:
        """Replace a small JSON file that is no step."""
        self._put_text(self._path(*name), json.dumps(held))

    def sizes(self) -> dict[str, int]:
        """Bytes of every file, by its path from the root."""
        inside, found = len(self._root) + 1, {}
        with suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            found = self._ask("cannot be listed", lambda: dict(self._fs.find(self._root, detail=True)))
        return {path[inside:]: int(told.get("size") or 0) for path, told in found.items()}

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files by their paths from the root, in this order; those not there are passed over."""
        for path in paths:
            with suppress(FileNotFoundError):
                self._ask(f"{path} cannot be removed", partial(self._fs.rm_file, self._path(path)))

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    def _ask(self, what: str, action: Callable[[], T], *, writes: bool = False) -> T:
        """The answer of `action`. That something is not there to read is an answer; whatever else is raised is a
        refusal.
        """

        def once() -> T:
            try:
                return action()
            except Exception as error:  # each kind of store raises what it likes
                if not writes and isinstance(error, FileNotFoundError | RunError):
                    raise
                told = what.removeprefix(f"{self._root}/")
                raise Refused(f"{self.url}: {told}: {_reason(error)}") from None

        return self._patience.keep_asking(once)

    def _parsed(self, kind: str, hash_: str, text: bytes) -> dict[str, Any]:
        record = _dictionary(text)
        if record and (record.get("kind"), record.get("hash")) == (kind, hash_) and _sound(record):
            return record
        place = self.place(kind, f"{hash_}.json")
        raise RunError(f"{place}: not readable; remove it and run again: what made it is done again")

    def _put_file(self, file: Path, path: str) -> None:
        def put() -> None:
            self._fs.put_file(str(file), path)
            if self._is_local:
                sync(Path(path))
                sync(Path(path).parent)

        self._ask(f"{path} cannot be written", put, writes=True)

    def _put_text(self, path: str, text: str) -> None:
        self._ask(f"{path} cannot be written", lambda: self._put_at_once(path, text), writes=True)

    def _put_at_once(self, path: str, text: str) -> None:
        """A small file, whole or not at all: by a rename in a folder, by one request elsewhere."""
        if self._is_local:
            write_atomically(Path(path), text)
        else:
            self._fs.pipe_file(path, text.encode())

    def _read(self, path: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return self._ask(f"{path} cannot be read", lambda: bytes(self._fs.cat_file(path)))
        return None

    def _read_all(self, paths: list[str]) -> dict[str, bytes]:
        if not paths:
            return {}
        return self._ask("records cannot be read", lambda: dict(self._fs.cat(paths, on_error="omit")))

    def _listed(self, folder: str) -> list[str]:
        """Names of what lies in a folder."""
        path = self._path(folder)
        with suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            found = self._ask(f"{path} cannot be listed", lambda: list(self._fs.ls(path, detail=False)))
            return [str(one).rstrip("/").rpartition("/")[2] for one in found]
        return []


def begun(attempt: str) -> float:
    """When an attempt was begun, by the clock of who made it; seconds since 1970."""
    return float(timegm(time.strptime(attempt[:16], "%Y%m%dT%H%M%SZ")))


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path in it."""
    import fsspec

    protocol = url.partition("://")[0] if "://" in url else "file"
    options = {"auto_mkdir": True} if protocol in ("file", "local") else {}
    try:
        fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        what = f"pip install 'codestage[{extra}]'" if extra else str(error)
        raise UserError(f"{url}: the package for {protocol}:// is not installed; {what}") from None
    except Exception as error:  # each kind of store raises what it likes
        raise UserError(f"{url}: no store can be there: {_reason(error)}") from None
    return fs, str(root).rstrip("/")


def _reason(error: BaseException) -> str:
    told = error.told if isinstance(error, Refused) else str(error)
    return told.strip() or type(error).__name__


def _dictionary(text: bytes) -> dict[str, Any] | None:
    try:
        held = json.loads(text)
    except ValueError:
        return None
    return held if isinstance(held, dict) else None


def _sound(record: Mapping[str, Any]) -> bool:
    """Whether a record, which anyone may have written, names files that lie in its step's folder."""
    attempt, files, inputs = record.get("attempt"), record.get("checksums"), record.get("inputs")
    if not isinstance(attempt, str) or not ATTEMPT.fullmatch(attempt):
        return False
    if not all(isinstance(told, dict) for told in (files, inputs, record.get("holds", {}))):
        return False
    assert isinstance(files, dict)
    return all(
        isinstance(checksum, str) and name and not path.is_absolute() and ".." not in path.parts
        for name, checksum in files.items()
        for path in (PurePosixPath(name),)
    )
