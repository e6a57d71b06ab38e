"""Tasks: what is asked, how it is asked and how it is scored, one YAML file each in `tasks/`.

The keys are those of lm-evaluation-harness; what it has no word for stands under `metadata`:

    version, suite, domain, source, licence
    items        how many items an evaluation asks unless told otherwise
    chance       accuracy of the best guesser who reads no question
    cot          modes of chain of thought that make sense: "off", supplied, generated
    rationale    template of the reasoning, needed for `supplied`
    reasoning_tokens   longest reasoning with answer that is generated
    procedural   {skill, depth: [least, most]}: items made by codestage.data.worlds
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from codestage.errors import UserError
from codestage.evaluate.scoring import CHOICE_METRICS, METRICS

FOLDER = Path(__file__).parent / "tasks"
DOMAINS = ("symbolic", "logical", "arithmetic", "analogical", "code")
OUTPUT_TYPES = ("multiple_choice", "generate_until")
COT = ("off", "supplied", "generated")
DEFAULT_REASONING_TOKENS = 64

_REQUIRED = ("task", "output_type", "doc_to_text", "doc_to_target", "metric_list", "metadata")
_OPTIONAL = ("doc_to_choice", "generation_kwargs")
_META_REQUIRED = (
    "version",
    "suite",
    "domain",
    "source",
    "licence",
    "items",
    "chance",
    "cot",
    "procedural",
)
_META_OPTIONAL = ("rationale", "reasoning_tokens")
_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


@dataclass(frozen=True)
class Task:
    """One task, as its file says it; templates are over the fields of a document."""

    name: str
    suite: str
    domain: str
    source: str
    licence: str
    version: str
    output_type: str
    metrics: tuple[str, ...]
    """The first is the task's main one."""
    chance: float
    """Of the main metric, in [0, 1]."""
    n_items: int
    cot: tuple[str, ...]
    text: str
    target: str
    choices: str | tuple[str, ...] | None
    """A field of the document that holds a list, or the same choices for every item."""
    rationale: str | None
    until: tuple[str, ...]
    max_new_tokens: int
    reasoning_tokens: int
    skill: str
    depth: tuple[int, int]
    """Least and most, both included."""

    def summary(self) -> dict[str, Any]:
        """What a list of tasks shows."""
        return {
            "name": self.name,
            "domain": self.domain,
            "suite": self.suite,
            "metric": self.metrics[0],
            "chance": self.chance,
            "items": self.n_items,
            "source": self.source,
        }


def render(template: str, document: Mapping[str, Any]) -> str:
    """A Jinja2 template over a document's fields, in a sandbox: no template reaches the program."""
    return _compiled(template).render(document)


@cache
def _compiled(template: str) -> Any:
    return _ENVIRONMENT.from_string(template)


@cache
def all_tasks() -> tuple[Task, ...]:
    """Every task of the package, by suite and name."""
    tasks = [read_task(path) for path in sorted(FOLDER.glob("*.yaml"))]
    return tuple(sorted(tasks, key=lambda task: (task.suite, task.name)))


def load_tasks(names: Iterable[str]) -> list[Task]:
    """Tasks by name or by suite, each once, in the order asked for.

    Raises UserError for a name that is neither, with the nearest names.
    """
    tasks = all_tasks()
    suites = dict.fromkeys(task.suite for task in tasks)
    chosen: dict[str, Task] = {}
    for name in names:
        found = [task for task in tasks if name in (task.name, task.suite)]
        if not found:
            known = [*suites, *(task.name for task in tasks)]
            near = difflib.get_close_matches(str(name), known, n=3) or list(suites)
            raise UserError(
                f"no task or suite is called {name!r}; did you mean {' or '.join(near)}? "
                "`codestage tasks` lists them all"
            )
        chosen.update((task.name, task) for task in found)
    return list(chosen.values())


def read_task(path: Path) -> Task:
    """One task file, checked. Raises UserError that names the file, the key and the mend."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not a readable YAML file ({error})") from error
    _check_keys(path, "the file", content, _REQUIRED, _OPTIONAL)
    meta = content["metadata"]
    _check_keys(path, "metadata", meta, _META_REQUIRED, _META_OPTIONAL)
    procedural = meta["procedural"]
    _check_keys(path, "metadata.procedural", procedural, ("skill", "depth"), ())
    limits = content.get("generation_kwargs", {})
    _check_keys(path, "generation_kwargs", limits, (), ("until", "max_gen_toks"))
    depth = procedural["depth"]
    choices = content.get("doc_to_choice")
    task = Task(
        name=content["task"],
        suite=meta["suite"],
        domain=meta["domain"],
        source=meta["source"],
        licence=meta["licence"],
        version=str(meta["version"]),
        output_type=content["output_type"],
        metrics=tuple(str(entry["metric"]) for entry in content["metric_list"]),
        chance=float(meta["chance"]),
        n_items=meta["items"],
        cot=tuple(meta["cot"]),
        text=content["doc_to_text"],
        target=content["doc_to_target"],
        choices=tuple(choices) if isinstance(choices, list) else choices,
        rationale=meta.get("rationale"),
        until=tuple(limits.get("until", ())),
        max_new_tokens=limits.get("max_gen_toks", 0),
        reasoning_tokens=meta.get("reasoning_tokens", DEFAULT_REASONING_TOKENS),
        skill=procedural["skill"],
        depth=(depth[0], depth[-1]) if isinstance(depth, list) and depth else (0, 0),
    )
    _check(path, task)
    return task


def _check_keys(
    path: Path, where: str, found: Any, required: Sequence[str], optional: Sequence[str]
) -> None:
    if not isinstance(found, dict):
        raise UserError(f"{path}: {where} must be keys with values, not {found!r}")
    known = [*required, *optional]
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise UserError(f"{path}: {where} has the unknown key {key!r}; {hint}")
    for key in required:
        if key not in found:
            raise UserError(f"{path}: {where} lacks {key!r}; add it")


def _check(path: Path, task: Task) -> None:
    """What must hold between the fields of a task."""
    multiple_choice = task.output_type == "multiple_choice"
    main = "acc" if multiple_choice else "exact_match"
    problems = [
        (task.domain not in DOMAINS, f"domain {task.domain!r}: use one of {', '.join(DOMAINS)}"),
        (
            task.output_type not in OUTPUT_TYPES,
            f"output_type {task.output_type!r}: use one of {', '.join(OUTPUT_TYPES)}",
        ),
        (
            not set(task.metrics) <= set(METRICS),
            f"metric_list {list(task.metrics)}: known are {', '.join(METRICS)}",
        ),
        (
            task.metrics[:1] != (main,),
            f"the first metric of a {task.output_type} task must be {main}",
        ),
        (
            multiple_choice and "exact_match" in task.metrics,
            "exact_match needs a generated answer; take it out or use generate_until",
        ),
        (
            task.choices is None and bool(set(CHOICE_METRICS) & set(task.metrics)),
            f"{', '.join(CHOICE_METRICS)} need choices; add doc_to_choice",
        ),
        (
            not set(task.cot) <= set(COT) or not task.cot,
            f"cot {list(task.cot)}: use some of {', '.join(COT)}, with off in quotes",
        ),
        (
            "supplied" in task.cot and not task.rationale,
            "cot: supplied needs metadata.rationale; add it",
        ),
        (
            not multiple_choice and task.max_new_tokens < 1,
            "generate_until needs generation_kwargs.max_gen_toks of at least 1",
        ),
        (not 0 <= task.chance < 1, f"chance {task.chance}: must be at least 0 and below 1"),
        (
            not isinstance(task.n_items, int) or task.n_items < 1,
            f"items {task.n_items!r}: must be a whole number of at least 1",
        ),
    ]
    for wrong, mend in problems:
        if wrong:
            raise UserError(f"{path}: {mend}")
    for template in (task.text, task.target, task.rationale or ""):
        try:
            _compiled(template)
        except TemplateError as error:
            raise UserError(f"{path}: template {template!r} cannot be read: {error}") from error
