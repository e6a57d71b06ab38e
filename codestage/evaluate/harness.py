"""lm-evaluation-harness and codestage: its tasks asked by codestage's backend, and codestage's asked by it.

The harness makes the prompts of its tasks and judges the answers; the backend, which it also knows as the
model `codestage`, only says what the model says, faster.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from codestage.errors import UserError
from codestage.evaluate.answers import read_output, same_answer
from codestage.evaluate.backend import Backend
from codestage.evaluate.items import Item
from codestage.evaluate.records import CHECKPOINT_SCHEMA
from codestage.evaluate.scoring import bits_per_byte, choice_probability
from codestage.evaluate.tasks import Task
from codestage.evaluate.trees import Tree

MOST_TOKENS = 256
"""New tokens of a written answer whose task does not say."""


@register_model("codestage")
class HarnessModel(TemplateLM):
    """The backend as the harness wants a model: `lm_eval.simple_evaluate(model=HarnessModel(backend))`."""

    def __init__(self, backend: Backend | None = None, *, pretrained: str = "", **more: Any) -> None:
        super().__init__()
        if backend is None:
            path = Path(pretrained)
            backend = Backend.load(path if path.exists() else pretrained, **more)
        self.said = backend

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], _: Any = None) -> "HarnessModel":
        known = {key: arg_dict[key] for key in ("pretrained", "precision") if key in arg_dict}
        return cls(None, **known)

    @property
    def eot_token_id(self) -> int:
        return int(self.said.ends[0])

    @property
    def prefix_token_id(self) -> int:
        return self.said.begin

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        ids = self.said.encode([string])[0]
        return ids if add_special_tokens is False else [*self.said.before, *ids]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Requests with one context are one tree, however far apart they stand."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (_, context, _) in enumerate(requests):
            groups.setdefault(tuple(context), []).append(i)
        trees = [Tree(list(c), [requests[i][2] for i in some]) for c, some in groups.items()]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for some, scores in zip(groups.values(), self.said.score(trees), strict=True):
            for i, score in zip(some, scores, strict=True):
                found[i] = (score.nats, score.greedy)
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, in the harness's windows where they are longer than the model's context."""
        trees, of = [], []
        for i, request in enumerate(requests):
            windows = get_rolling_token_windows(
                self.tok_encode(request.args[0]), self.prefix_token_id, self.said.most, 1
            )
            for window in windows:
                context, continuation = make_disjoint_window(window)
                trees.append(Tree(context, [continuation]))
                of.append(i)
        totals = [0.0] * len(requests)
        for i, scores in zip(of, self.said.score(trees), strict=True):
            totals[i] += scores[0].nats
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        groups: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(i)
        found = [""] * len(requests)
        for key, some in groups.items():
            how = json.loads(key)
            until = how.get("until") or []
            written = self.said.generate(
                [requests[i].args[0] for i in some],
                max_new_tokens=how.get("max_gen_toks") or how.get("max_new_tokens") or MOST_TOKENS,
                stop=[until] if isinstance(until, str) else until,
                temperature=how.get("temperature", 0.0) if how.get("do_sample") else 0.0,
            )
            for i, text in zip(some, written, strict=True):
                found[i] = text.text
        return found


@cache
def _manager() -> TaskManager:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager()


def task_names(name: str) -> list[str]:
    """The harness's tasks under a name: itself, or all of a group or tag; none if it is neither."""
    manager = _manager()
    if name in manager.all_subtasks:
        return [name]
    if name not in manager.all_groups and name not in manager.all_tags:
        return []
    return sorted(_loaded(name))


@cache
def _loaded(name: str) -> Mapping[str, Any]:
    """The harness's task objects, which read their data."""
    try:
        tasks = dict(_manager().load([name])["tasks"])
    except Exception as error:  # data sets, templates and code of any kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"lm-evaluation-harness cannot load its task {name!r}: {reason}") from None
    for one, task in tasks.items():
        if getattr(task, "UNSAFE_CODE", False):
            raise UserError(
                f"lm-evaluation-harness's task {one!r} runs what models write without a sandbox; codestage has "
                "humaneval and mbpp of its own, which run in one"
            )
    return tasks


def harness_items(task: Task, n: int | None) -> tuple[Item, ...]:
    """A harness task's items as far as codestage needs them: to look for them in the training data."""
    found = []
    for doc_id, some in _instances(task, n).items():
        context = some[0].args[0] if isinstance(some[0].args[0], str) else ""
        chosen = some[0].request_type == "loglikelihood" and len(some) > 1
        said = tuple(str(i.args[1]) for i in some) if chosen else ()
        target = _loaded(str(task.harness))[str(task.harness)].doc_to_target(some[0].doc)
        gold = target if isinstance(target, int) and target < len(said) else -1
        answer = said[gold] if gold >= 0 else str(target)
        found.append(Item(f"{task.name}-{doc_id}", context, said, answer.strip(), gold=gold))
    return tuple(found)


def _instances(task: Task, n: int | None) -> dict[int, list[Instance]]:
    """The harness's requests by item."""
    it = _loaded(str(task.harness))[str(task.harness)]
    it.set_fewshot_seed(seed=0)
    it.build_all_requests(limit=n, rank=0, world_size=1)
    items: dict[int, list[Instance]] = {}
    for instance in it.instances:
        items.setdefault(instance.doc_id, []).append(instance)
    return {doc_id: sorted(some, key=lambda i: i.idx) for doc_id, some in items.items()}


def harness_records(backend: Backend, task: Task, n: int | None) -> pa.Table:
    """Records of the first `n` items of a harness task, in its own prompts."""
    it = _loaded(str(task.harness))[str(task.harness)]
    items = _instances(task, n)
    by_kind: dict[str, list[Instance]] = {}
    for some in items.values():
        for instance in some:
            by_kind.setdefault(instance.request_type, []).append(instance)
    model = HarnessModel(backend)
    for kind, instances in by_kind.items():
        every = [instance for instance in instances for _ in range(instance.repeats or 1)]
        for instance, response in zip(every, getattr(model, kind)(every), strict=True):
            instance.resps.append(response)
    it.apply_filters()
    rows: list[dict[str, Any]] = []
    for doc_id, some in items.items():
        filters = list(some[0].filtered_resps)
        for which in filters:
            values = it.process_results(some[0].doc, [i.filtered_resps[which] for i in some])
            rows += _rows(task, doc_id, some, _named(values, which, filters))
        if it.OUTPUT_TYPE == "multiple_choice":
            rows += _rows(task, doc_id, some, _continuous(it, some))
    return pa.Table.from_pylist(rows, CHECKPOINT_SCHEMA)


def _named(values: Mapping[str, Any], which: str, filters: Sequence[str]) -> dict[str, Any]:
    """Metrics by name; the harness's filters, where there are several, stand behind a slash. Its
    exact match is codestage's accuracy, by the last filter, which is the most lenient by custom.
    """
    named = {name if len(filters) == 1 else f"{name}/{which}": value for name, value in values.items()}
    if which == filters[-1] and "exact_match" in values and "acc" not in values:
        named["acc"] = values["exact_match"]
    return named


def _continuous(it: Any, some: Sequence[Instance]) -> dict[str, float]:
    """The scores that move before accuracy does, where one choice is right."""
    gold = it.doc_to_text(some[0].doc) if it.multiple_input else it.doc_to_target(some[0].doc)
    if not isinstance(gold, int) or not 0 <= gold < len(some):
        return {}
    nats = [i.resps[0][0] for i in some]
    return {
        "prob": choice_probability(nats, gold),
        "bpb": bits_per_byte(nats[gold], some[gold].args[1]),
    }


def _rows(
    task: Task, doc_id: int, some: Sequence[Instance], values: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """A row a metric. What the harness only has over all items (F1, perplexity of words) is unknown here,
    but for likelihoods of whole texts, which are bits a byte.
    """
    prompt = str(some[0].args[0])
    likelihood = some[0].request_type == "loglikelihood"
    scores = [i.resps[0][0] for i in some] if likelihood else None
    output = None if likelihood else str(some[0].resps[0])
    shared = {
        "task": task.name,
        "suite": task.suite,
        "domain": task.domain,
        "item": f"{task.name}-{doc_id}",
        "cot": "off",
        "gold": None,
        "prompt_hash": hashlib.blake2b(prompt.encode(), digest_size=8).hexdigest(),
        "prompt_tokens": None,
        "output": output,
        "choice_scores": scores,
        "output_tokens": None,
        "status": "ok",
    }
    for metric, value in values.items():
        if metric == "bits_per_byte" and isinstance(value, tuple):
            metric, value = "bpb", -value[0] / value[1] / math.log(2)
        known = isinstance(value, int | float) and not isinstance(value, bool)
        number = float(value) if known or isinstance(value, bool) else None
        yield shared | {
            "metric": metric,
            "value": number,
            "status": "ok" if number is not None else "missing",
        }


def read_result(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Judge an answer to one of codestage's tasks, where the harness asks it: as codestage does."""
    text = results[0][0] if isinstance(results[0], list) else results[0]
    if doc["kind"] == "code":
        from codestage.evaluate.run import program_of, tested
        from codestage.evaluate.sandbox import Sandbox

        item = Item("", "", (), doc["answer"], code=json.loads(doc["code"]))
        return {"exact_match": float(tested(Sandbox(), [(item, program_of(item, text))])[0])}
    answer, _ = read_output(text, cot=False, kind=doc["kind"])
    golds = (doc["answer"], *doc["aliases"])
    right = answer is not None and any(same_answer(answer, gold, doc["kind"]) for gold in golds)
    return {"exact_match": float(right)}
