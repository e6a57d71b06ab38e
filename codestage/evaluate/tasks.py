"""Task definitions: YAML that lm-evaluation-harness reads too, grouped into suites.

A task's `metadata` holds what the harness has no word for: where the data comes from in its published
files and on the hub, its domain, licence, and how else it is scored. A suite is a harness group. A name
that is neither of ours is looked for among the harness's own tasks (`lm-eval:NAME` asks for those alone).
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from codestage.errors import UserError
from codestage.evaluate.items import Cot

COT_TOKENS = 64
"""Fewest tokens that generated reasoning with its answer may have."""
METRICS = ("acc", "prob", "bpb")
"""Of every task: correctness; normalised probability of the right choice; bits per byte of it."""
HARNESS = "lm-eval:"
AnswerKind = Literal["text", "number", "choice", "verdict", "code"]


@dataclass(frozen=True)
class Task:
    """What is asked, how it is scored, and where it comes from."""

    name: str
    domain: str
    output_type: Literal["multiple_choice", "generate_until"]
    metric: str
    version: int
    source: str
    licence: str
    language: str
    suites: tuple[str, ...]
    answer: AnswerKind
    """What an answer is, and so how it is read out of what a model writes."""
    split: str
    items: int | None
    """How many there are; None where that was never counted."""
    chance: float | None
    max_new_tokens: int
    letters: bool
    """Whether the choices may be shown with letters."""
    rationales: bool
    """Whether items bring reasoning that can be supplied."""
    channel: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Jinja texts of `label` and `evidence`, with the document's fields and `choice`."""
    instruction: str = ""
    """Jinja text of the question, with the document's fields."""
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Where documents come from: `procedural`, or `convert` with `files` and `hub`."""
    harness: str | None = None
    """The harness's own name of a task that is not codestage's."""

    @property
    def written(self) -> bool:
        return self.output_type == "generate_until"

    @property
    def suite(self) -> str:
        """The first suite that holds it."""
        return self.suites[0] if self.suites else ""

    def summary(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "domain": self.domain,
            "suite": self.suite,
            "metric": self.metric,
            "chance": self.chance,
            "items": self.items,
            "source": self.source,
            "suites": list(self.suites),
            "split": self.split,
            "licence": self.licence,
            "language": self.language,
        }


@dataclass(frozen=True)
class Suite:
    """Tasks that are asked together."""

    name: str
    title: str
    note: str
    """Where it comes from, and in what it differs from there."""
    tasks: tuple[str, ...]


def folder() -> Path:
    """Where the YAML files stand: for `lm_eval --include_path`."""
    return Path(str(resources.files("codestage.evaluate") / "tasks"))


@cache
def suites() -> dict[str, Suite]:
    """Every suite by name."""
    found = [_read(path) for path in sorted((folder() / "suites").glob("*.yaml"))]
    return {
        data["group"]: Suite(
            data["group"], data["metadata"]["title"], data["metadata"]["note"], tuple(data["task"])
        )
        for data in found
    }


@cache
def all_tasks() -> tuple[Task, ...]:
    """Every task of the package, by suite, domain and name."""
    member: dict[str, list[str]] = {}
    for suite in suites().values():
        for name in suite.tasks:
            member.setdefault(name, []).append(suite.name)
    read = [_read(path) for path in sorted(folder().glob("*/*.yaml")) if path.parent.name != "suites"]
    tasks = [_task(data, tuple(member.get(data["task"], ()))) for data in read]
    return tuple(sorted(tasks, key=_order))


def _order(task: Task) -> tuple[str, str, str]:
    """However they were named, tasks come in one order: it is part of what a study is."""
    return task.suite, task.domain, task.name


def load_tasks(names: Sequence[str]) -> list[Task]:
    """The tasks of the named suites and tasks, each once.

    Raises:
        UserError: for a name that is neither, here or in the harness, with the nearest one that is.
    """
    ours = {task.name: task for task in all_tasks()}
    found: dict[str, Task] = {}
    for name in names:
        for one in suites()[name].tasks if name in suites() else (name,):
            if one in ours:
                found[one] = ours[one]
            else:
                found |= {task.name: task for task in _harness_tasks(one, [*ours, *suites()])}
    return sorted(found.values(), key=_order)


def tasks_of(named: Iterable[tuple[str, Any]], own: Sequence[Task]) -> list[Task]:
    """The tasks behind (name, version), some of which are a study's `own`."""
    names = {task.name for task in own}
    return sorted([*load_tasks([n for n, _ in named if n not in names]), *own], key=_order)


def _harness_tasks(name: str, known: list[str]) -> Iterator[Task]:
    """The harness's task of that name, or those of its group; with the prefix where codestage has one of the name.

    Raises:
        UserError: it has none, or is not installed.
    """
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    try:
        from codestage.evaluate.harness import task_names
    except ImportError:
        raise UserError(
            f"unknown suite or task {name!r}; {hint}`codestage tasks` lists codestage's own; for those of "
            "lm-evaluation-harness: pip install 'codestage[harness]'"
        ) from None
    names = task_names(name.removeprefix(HARNESS))
    if not names:
        raise UserError(
            f"unknown suite or task {name!r}; {hint}`codestage tasks` lists codestage's own, "
            "`lm_eval ls tasks` those of lm-evaluation-harness"
        )
    for one in names:
        yield Task(
            name=HARNESS + one if one in known else one, domain="other", output_type="multiple_choice", metric="acc", version=0,
            source="lm-evaluation-harness", licence="see its page", language="", suites=(), answer="text",
            split="", items=None, chance=None, max_new_tokens=0, letters=False, rationales=False, harness=one,
        )  # fmt: skip


def modes(task: Task, cot: Sequence[Cot]) -> list[Cot]:
    """Those of `cot` in which a task can be asked."""
    return [
        mode
        for mode in cot
        if mode == "off"
        or (mode == "supplied" and task.rationales)
        or (mode == "generated" and task.answer != "code" and task.harness is None)
    ]


def longest_answer(task: Task, mode: Cot) -> int:
    """Tokens that an answer may have; 0 where the choices alone are scored."""
    if mode != "generated":
        return task.max_new_tokens if task.written else 0
    return max(task.max_new_tokens, COT_TOKENS) * (4 if task.answer == "number" else 1)


_FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # there if PyYAML was built with libyaml


class _Loader(_FAST):
    """Reads the harness's `!function` as its name."""


def _name_of(loader: Any, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


_Loader.add_constructor("!function", _name_of)


def _read(path: Path) -> dict[str, Any]:
    """One YAML file, with what it includes under it, as the harness merges them."""
    data: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    include = data.pop("include", None)
    if include is None:
        return data
    under = _read(path.parent / include)
    return under | data


def _task(data: dict[str, Any], suites: tuple[str, ...]) -> Task:
    meta = data["metadata"]
    source = meta["data"]
    return Task(
        name=data["task"],
        domain=meta["domain"],
        output_type=data["output_type"],
        metric=data["metric_list"][0]["metric"],
        version=meta["version"],
        source=meta["source"],
        licence=meta["licence"],
        language=meta.get("language", "en"),
        suites=suites,
        answer=meta["answer"],
        split=data["test_split"],
        items=meta["items"],
        chance=meta["chance"],
        max_new_tokens=data.get("generation_kwargs", {}).get("max_gen_toks", 12),
        letters=meta.get("letters", False),
        rationales=meta.get("rationales", False),
        channel=meta.get("channel", {}),
        instruction=meta.get("instruction", "{{question}}"),
        data=source,
    )
