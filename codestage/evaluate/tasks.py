"""Task definitions: YAML with lm-evaluation-harness's keys, and the items they give."""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment

from codestage.data.instruct import PLAIN, Template
from codestage.data.worlds import eval_items
from codestage.errors import UserError
from codestage.study.seeds import child

Cot = Literal["off", "supplied", "generated"]
METRICS = ("acc", "prob", "bpb")
"""Of every task: correctness; normalised probability of the right choice; bits per byte of it."""


@dataclass(frozen=True)
class Item:
    """One question with its choices and the right answer."""

    id: str
    instruction: str
    choices: tuple[str, ...]
    answer: str
    rationale: str

    @property
    def gold(self) -> int:
        return self.choices.index(self.answer)

    def prompt(self, cot: Cot, template: Template = PLAIN) -> str:
        """The text the model goes on from."""
        if cot == "supplied":
            return template.prompt(self.instruction, rationale=self.rationale)
        return template.prompt(self.instruction, cot=cot == "generated")


@dataclass(frozen=True)
class Task:
    """What is asked, how it is scored, and where it comes from."""

    name: str
    suite: str
    domain: str
    output_type: Literal["multiple_choice", "generate_until"]
    metric: str
    version: int
    source: str
    licence: str
    items: int
    max_new_tokens: int
    templates: tuple[str, str, str]
    """Jinja texts of the instruction, the choices and the answer."""
    procedural: tuple[str, int, int]
    """Skill, and the range of its depth."""

    @property
    def chance(self) -> float:
        """Accuracy of an answer that knows nothing of the item: a choice picked blindly, or, where the
        answer is generated, the commonest of all answers given to every item.
        """
        items = task_items(self, seed=0)
        if self.output_type == "generate_until":
            return Counter(item.answer for item in items).most_common(1)[0][1] / len(items)
        return sum(1 / len(item.choices) for item in items) / len(items)

    def summary(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "domain": self.domain,
            "suite": self.suite,
            "metric": self.metric,
            "chance": round(self.chance, 4),
            "items": self.items,
            "source": self.source,
        }


def all_tasks() -> list[Task]:
    """Every task of the package, by suite and name."""
    folder = resources.files("codestage.evaluate") / "tasks"
    files = sorted(f.name for f in folder.iterdir() if f.name.endswith(".yaml"))
    tasks = [_parse(yaml.safe_load((folder / f).read_text(encoding="utf-8"))) for f in files]
    return sorted(tasks, key=lambda t: (t.suite, t.domain, t.name))


def load_tasks(names: Sequence[str]) -> list[Task]:
    """The tasks of the named suites and tasks.

    Raises:
        UserError: for a name that is neither, with the nearest one that is.
    """
    tasks = all_tasks()
    known = sorted({t.suite for t in tasks} | {t.name for t in tasks})
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UserError(f"unknown suite or task {name!r}; {hint}known: {', '.join(known)}")
    return [t for t in tasks if t.suite in names or t.name in names]


def _parse(data: dict[str, Any]) -> Task:
    meta = data["metadata"]
    depth = meta["procedural"]["depth"]
    return Task(
        name=data["task"],
        suite=meta["suite"],
        domain=meta["domain"],
        output_type=data["output_type"],
        metric=data["metric_list"][0]["metric"],
        version=meta["version"],
        source=meta["source"],
        licence=meta["licence"],
        items=meta["items"],
        max_new_tokens=data.get("generation_kwargs", {}).get("max_gen_toks", 12),
        templates=(data["doc_to_text"], data["doc_to_choice"], data["doc_to_target"]),
        procedural=(meta["procedural"]["skill"], depth[0], depth[1]),
    )


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(keep_trailing_newline=True)


@cache
def task_items(task: Task, *, seed: int, n: int | None = None) -> tuple[Item, ...]:
    """The first `n` items of a task: the same for every arm and seed of a study."""
    skill, low, high = task.procedural
    wanted = min(n or task.items, task.items)
    episodes = eval_items(skill, task.items, seed=child(seed, "items"), depth=(low, high))
    items = []
    for i, episode in enumerate(episodes[:wanted]):
        doc = {
            "instruction": episode.instruction,
            "choices": list(episode.choices),
            "answer": episode.answer,
        }
        text, choices, answer = (_render(template, doc) for template in task.templates)
        items.append(
            Item(f"{task.name}-{i}", text, tuple(choices), answer, rationale=" ".join(episode.steps))
        )
    return tuple(items)


def _render(template: str, doc: dict[str, Any]) -> Any:
    """A template's text, or, where it names one field alone, that field's value."""
    field = template.strip().removeprefix("{{").removesuffix("}}").strip()
    return doc[field] if field in doc else _environment().from_string(template).render(**doc)
