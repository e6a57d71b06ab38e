"""What no study needs any more of a store that several share: shown first, deleted when asked.

Kept: what every study that ran with this store wanted when it last ran, which is written down there
(`studies/*.json`), what `codestage.engine.gc` keeps of the folder that asks, and all that these stand on.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codestage.engine.gc import needs
from codestage.engine.progress import only_one
from codestage.engine.remote import ATTEMPT, Remote, begun
from codestage.engine.shared import SharedStore, open_store
from codestage.engine.store import VERSIONS
from codestage.errors import RunError, UserError

UPLOAD_SECONDS = 24 * 3600.0
"""After which files that no record names are of nobody who still sends the rest."""


@dataclass
class _Lies:
    """What lies there of one step: paths from the root -> bytes."""

    record: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, dict[str, int]] = field(default_factory=dict)


def collect_remote(
    folder: Path, studies: Sequence[Path], *, keep: Sequence[Path] = (), delete: bool = False
) -> dict[str, Any]:
    """What could go from the remote store of `folder`, and with `delete` its deletion.

    `studies` and `keep` are as in `gc.collect`, and so is the answer; its `folder` is the store's address, its `work`
    what was sent in part more than a day ago.

    Raises:
        UserError: the folder has no remote store; a study cannot be read; with `delete`, a run is going on there.
        RunError: what is needed cannot be told; the store refuses.
    """
    store = open_store(folder)
    if not isinstance(store, SharedStore):
        raise UserError(f"{folder}: has no remote store; --remote is for one that was run with --store")
    if not delete:
        return _plan(store, [*studies, *keep])[0]
    with only_one(folder):
        answer, paths = _plan(store, [*studies, *keep])
        store.remote.remove(paths)
    return answer | {"deleted": True}


def _plan(store: SharedStore, studies: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """The answer of `collect_remote`, and the paths that would go, records before what they name."""
    store.meet()
    remote = store.remote
    lies = _lies(remote.sizes())
    held = {str(r["hash"]): r for kind in VERSIONS for r in remote.records(kind)}
    wants, told = _wanted_by_all(remote)
    needed, notes = needs(store, studies, held)
    needed |= wants
    steps: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    kept, bytes_kept = 0, 0
    records: list[str] = []
    files: list[str] = []
    for (kind, hash_), step in sorted(lies.items()):
        record = held.get(hash_, {})
        whole = step.record | step.attempts.get(str(record.get("attempt")), {})
        if step.record and hash_ in needed:
            kept, bytes_kept = kept + 1, bytes_kept + sum(whole.values())
            if not record:
                place = remote.place(kind, f"{hash_}.json")
                raise RunError(
                    f"{place}: not readable, so what it stands on cannot be told; try again, or remove it"
                )
        elif step.record:
            label = str(record.get("label", "not readable"))
            steps.append({"kind": kind, "hash": hash_, "label": label, "bytes": sum(whole.values())})
            records += step.record
            files += step.attempts.get(str(record.get("attempt")), {})
        for attempt, paths in _left_over(step, record):
            parts.append({"name": f"{kind}/{hash_}/{attempt}", "bytes": sum(paths.values())})
            files += paths
    answer = {
        "folder": remote.url,
        "deleted": False,
        "steps": steps,
        "work": parts,
        "bytes": sum(int(one["bytes"]) for one in (*steps, *parts)),
        "kept": {"steps": kept, "bytes": bytes_kept},
        "notes": [*notes, *told],
    }
    return answer, [*records, *files]


def _lies(sizes: dict[str, int]) -> dict[tuple[str, str], _Lies]:
    """What lies there, by kind and hash."""
    found: dict[tuple[str, str], _Lies] = {}
    for path, size in sizes.items():
        kind, _, rest = path.partition("/")
        name, _, inside = rest.partition("/")
        if kind not in VERSIONS:
            continue
        step = found.setdefault((kind, name.removesuffix(".json")), _Lies())
        if not inside:
            step.record[path] = size
        else:
            step.attempts.setdefault(inside.partition("/")[0], {})[path] = size
    return found


def _left_over(step: _Lies, record: dict[str, Any]) -> Iterator[tuple[str, dict[str, int]]]:
    """Attempts that no record names and nobody is still sending."""
    if step.record and not record:
        return  # it names one of them, and cannot be read
    for attempt, paths in step.attempts.items():
        named = attempt == record.get("attempt") or not ATTEMPT.fullmatch(attempt)
        if not named and time.time() - begun(attempt) > UPLOAD_SECONDS:
            yield attempt, paths


def _wanted_by_all(remote: Remote) -> tuple[set[str], list[str]]:
    """Hashes of steps that studies wanted when they last ran, and a line about each."""
    wants: set[str] = set()
    lines = []
    for name in remote.names("studies"):
        told = remote.read("studies", name)
        place = remote.place("studies", name)
        try:
            assert told is not None
            steps = {str(hash_) for hashes in told["steps"].values() for hash_ in hashes}
            day = time.strftime("%Y-%m-%d", time.gmtime(float(told["written"])))
        except (AssertionError, KeyError, TypeError, ValueError, AttributeError):
            raise RunError(
                f"{place}: not readable, so what that study wants cannot be told; remove it if no study needs this store "
                "that has not run since"
            ) from None
        wants |= steps
        lines.append(
            f"kept for {told.get('study')} in {told.get('folder')}, which ran on {day}: {len(steps):,} steps; "
            f"remove {place} to give it up"
        )
    return wants, lines
