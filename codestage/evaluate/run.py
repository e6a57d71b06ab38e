"""Evaluating one model: every task, mode and item, as records."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, cast

import pyarrow as pa

from codestage.data.instruct import PLAIN, Template
from codestage.evaluate.answers import read_output, same_answer
from codestage.evaluate.backend import Backend
from codestage.evaluate.code import (
    bleu,
    completed_function,
    humaneval_program,
    is_python,
    mbpp_program,
    pass_at_k,
    run_tests,
    written_program,
)
from codestage.evaluate.items import LETTERS, Cot, Item, permuted
from codestage.evaluate.records import CHECKPOINT_SCHEMA, named_parts
from codestage.evaluate.sandbox import Sandbox
from codestage.evaluate.scoring import bits_per_byte, choice_accuracy, choice_probability, overlap_f1
from codestage.evaluate.speak import Scored, Written
from codestage.evaluate.tasks import Task, longest_answer, modes

NEXT_QUESTION = ("\nQuestion:",)
TEMPERATURE = 0.8
"""Of samples; the answers without samples are greedy."""
AMONG = (1, 2, 5, 10, 20, 50, 100)
"""The k of pass@k, as far as there are samples."""
Row = dict[str, Any]


class Speaker(Protocol):
    """What an evaluation needs of a model; `Backend` is one, the self-tests have others."""

    def loglikelihoods(self, requests: Sequence[tuple[str, Sequence[str]]]) -> list[list[Scored]]: ...

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Written]: ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...


class Evaluation:
    """How a model is asked: its template, what runs its programs, how many samples it writes."""

    def __init__(
        self,
        model: Speaker,
        *,
        template: Template = PLAIN,
        samples: int = 0,
        sandbox: Callable[[], Sandbox] = Sandbox,
    ) -> None:
        """`samples` beside the greedy answer, for self-consistency and pass@k."""
        self.model, self.template, self.samples, self._sandbox = model, template, samples, sandbox

    def parts(
        self, tasks: Mapping[Task, Sequence[Item]], cot: Sequence[Cot]
    ) -> Iterator[tuple[str, Callable[[], pa.Table]]]:
        """(name, what makes its records), for every task, mode and thousand items: whoever has a part
        already need not make it again. Records: `records.CHECKPOINT_SCHEMA`.

        Likelihood scores are taken in the modes `off` and `supplied`; answers are written where the task
        asks for it and, for every task, in the mode `generated`. A task without rationales is not asked
        with one supplied, and one for programs not for reasoning first.
        """
        for task, items in tasks.items():
            for mode in modes(task, cot):
                for name, some in named_parts(task, mode, items):
                    yield name, partial(self._part, task, mode, some)

    def _part(self, task: Task, mode: Cot, items: Sequence[Item]) -> pa.Table:
        if task.harness:
            from codestage.evaluate.harness import harness_records

            return harness_records(cast(Backend, self.model), task, len(items))
        rows: list[Row] = []
        if mode != "generated":
            rows += self._likelihoods(task, mode, items)
        if task.written or mode == "generated":
            written = self._programs if task.answer == "code" else self._answers
            rows += written(task, mode, items)
        return pa.Table.from_pylist(rows, CHECKPOINT_SCHEMA)

    def _likelihoods(self, task: Task, mode: Cot, items: Sequence[Item]) -> list[Row]:
        rows = self._cloze(task, mode, items)
        if items[0].lettered:
            rows += self._letters(task, mode, items)
        if items[0].channel and mode == "off":
            rows += self._channel(task, items)
        return rows

    def _cloze(self, task: Task, mode: Cot, items: Sequence[Item]) -> list[Row]:
        """What the choices, or the right answer, are worth as they stand."""
        prompts = [item.prompt(mode, self.template) for item in items]
        texts = [
            [item.response(choice, self.template) for choice in item.choices or (item.answer,)]
            for item in items
        ]
        scored = self.model.loglikelihoods(list(zip(prompts, texts, strict=True)))
        rows = []
        for item, shared, scores, said in zip(
            items, self._shared(task, mode, items, prompts), scored, texts, strict=True
        ):
            gold = max(item.gold, 0)
            nats = [s.nats for s in scores]
            values = {"bpb": bits_per_byte(nats[gold], said[gold])}
            if item.choices:
                values["prob"] = choice_probability(nats, gold)
            if item.choices and not task.written:
                by_character = [n / len(c) for n, c in zip(nats, item.choices, strict=True)]
                by_token = [s.nats / max(1, s.tokens) for s in scores]
                values |= {
                    "acc": choice_accuracy(nats, gold),
                    "acc_norm": choice_accuracy(by_character, gold),
                    "acc_token": choice_accuracy(by_token, gold),
                }
            best = item.choices[_best(nats)] if item.choices else None
            rows += _rows(shared, values, output=best, scores=scores)
        return rows

    def _letters(self, task: Task, mode: Cot, items: Sequence[Item]) -> list[Row]:
        """The choices shown with letters, the letter asked for; and again in another order."""
        moved = [permuted(item, seed=0) for item in items]
        both = [*items, *moved]
        prompts = [item.prompt(mode, self.template, letters=True) for item in both]
        letters = [[self.template.response(LETTERS[i]) for i in range(len(m.choices))] for m in both]
        scored = self.model.loglikelihoods(list(zip(prompts, letters, strict=True)))
        rows = []
        shared = self._shared(task, mode, items, prompts[: len(items)])
        pairs = zip(scored[: len(items)], scored[len(items) :], strict=True)
        for item, other, one, (first, second) in zip(items, moved, shared, pairs, strict=True):
            nats = [s.nats for s in first]
            said = item.choices[_best(nats)]
            again = other.choices[_best([s.nats for s in second])]
            values = {
                "letter_acc": choice_accuracy(nats, item.gold),
                "letter_prob": choice_probability(nats, item.gold),
                "letter_same": float(said == again),
            }
            rows += _rows(one, values, output=LETTERS[_best(nats)], scores=first)
        return rows

    def _channel(self, task: Task, items: Sequence[Item]) -> list[Row]:
        """The evidence's likelihood under each label, all its tokens counted (Ma et al. 2024, Table 1)."""
        pairs = [pair for item in items for pair in item.channel]
        flat = iter(self.model.loglikelihoods([(label, [evidence]) for label, evidence in pairs]))
        prompts = ["\n".join(f"{label}{evidence}" for label, evidence in item.channel) for item in items]
        rows = []
        for item, shared in zip(items, self._shared(task, "off", items, prompts), strict=True):
            scores = [next(flat)[0] for _ in item.channel]
            by_token = [s.nats / max(1, s.tokens) for s in scores]
            values = {
                "channel_acc": choice_accuracy(by_token, item.gold),
                "channel_prob": choice_probability([s.nats for s in scores], item.gold),
            }
            rows += _rows(shared, values, output=item.choices[_best(by_token)], scores=scores)
        return rows

    def _answers(self, task: Task, mode: Cot, items: Sequence[Item]) -> list[Row]:
        """`acc` and `format`; an answer that cannot be read is wrong, and its status says why."""
        letters = mode == "generated" and items[0].lettered
        prompts = [item.prompt(mode, self.template, letters=letters) for item in items]
        limit = {"max_new_tokens": longest_answer(task, mode)}
        outputs = self.model.generate(prompts, **limit, stop=NEXT_QUESTION)
        several = self._samples(prompts, **limit)
        rows = []
        for i, (item, shared) in enumerate(
            zip(items, self._shared(task, mode, items, prompts), strict=True)
        ):
            read = _Reader(task, item, mode, letters)
            values, status = read.values(outputs[i].text)
            rows += _rows(shared, values, written=outputs[i], status=status)
            answers = []
            for k, output in enumerate(several[i]):
                answers.append(read.answer(output.text)[0])
                right = {"sample_acc": float(read.right(answers[-1]))}
                rows += _rows(shared | {"sample": k}, right, written=output)
            if answers:
                voted = majority(answers)
                rows += _rows(shared, {"sc_acc": float(read.right(voted))}, output=voted)
        return rows

    def _programs(self, task: Task, mode: Cot, items: Sequence[Item]) -> list[Row]:
        """`acc` by running the tests, `bleu` against the published solution, `format`: it is Python."""
        prompts = [item.prompt(mode, self.template) for item in items]
        limit = {"max_new_tokens": task.max_new_tokens}
        outputs = self.model.generate(prompts, **limit, stop=NEXT_QUESTION)
        several = self._samples(prompts, **limit)
        answers = [(item, program_of(item, o.text)) for item, o in zip(items, outputs, strict=True)]
        more = [
            (item, program_of(item, o.text))
            for item, some in zip(items, several, strict=True)
            for o in some
        ]
        passed = iter(tested(self._sandbox(), [*answers, *more]))
        first = [next(passed) for _ in answers]
        rows = []
        for i, shared in enumerate(self._shared(task, mode, items, prompts)):
            values = {
                "acc": float(first[i]),
                "bleu": bleu(_own(items[i], answers[i][1]), items[i].answer) / 100,
                "format": float(bool(outputs[i].text.strip()) and is_python(answers[i][1])),
            }
            status = "ok" if outputs[i].text.strip() else "empty"
            rows += _rows(shared, values, written=outputs[i], status=status)
            right = [next(passed) for _ in several[i]]
            for k, output in enumerate(several[i]):
                rows += _rows(shared | {"sample": k}, {"sample_acc": float(right[k])}, written=output)
            among = {f"pass@{k}": pass_at_k(len(right), sum(right), k) for k in AMONG if k <= len(right)}
            rows += _rows(shared, among)
        return rows

    def _samples(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[list[Written]]:
        """For each prompt `self.samples` answers drawn at `TEMPERATURE`."""
        repeated = [prompt for prompt in prompts for _ in range(self.samples)]
        drawn = iter(
            self.model.generate(
                repeated, max_new_tokens=max_new_tokens, stop=NEXT_QUESTION, temperature=TEMPERATURE
            )
            if repeated
            else ()
        )
        return [[next(drawn) for _ in range(self.samples)] for _ in prompts]

    def _shared(
        self, task: Task, mode: Cot, items: Sequence[Item], prompts: Sequence[str]
    ) -> Iterator[Row]:
        """What all rows of an item have in common."""
        before = len(getattr(self.model, "before", ()))  # what a model puts before every prompt
        lengths = [before + len(ids) for ids in self.model.encode(prompts)]
        for item, prompt, length in zip(items, prompts, lengths, strict=True):
            yield {
                "task": task.name,
                "suite": task.suite,
                "domain": task.domain,
                "item": item.id,
                "cot": mode,
                "gold": item.answer,
                "prompt_hash": hashlib.blake2b(prompt.encode(), digest_size=8).hexdigest(),
                "prompt_tokens": length,
            }


class _Reader:
    """Reads and judges what a model wrote for one item."""

    def __init__(self, task: Task, item: Item, mode: Cot, letters: bool) -> None:
        self.item, self.cot, self.kind = item, mode == "generated", task.answer
        self.letters = letters
        if self.kind == "choice" and not letters:
            self.kind = "text"
        self.f1 = task.answer == "text" and bool(item.aliases)

    def answer(self, text: str) -> tuple[str | None, str]:
        assert self.kind != "code"
        choices = self.item.choices if self.letters else ()
        return read_output(text, cot=self.cot, kind=self.kind, choices=choices)

    def right(self, answer: str | None) -> bool:
        assert self.kind != "code"
        golds = (LETTERS[self.item.gold],) if self.letters else (self.item.answer, *self.item.aliases)
        return answer is not None and any(same_answer(answer, gold, self.kind) for gold in golds)

    def values(self, text: str) -> tuple[dict[str, float], str]:
        answer, status = self.answer(text)
        values = {"acc": float(self.right(answer)), "format": float(answer is not None)}
        if self.f1:
            golds = (self.item.answer, *self.item.aliases)
            values["f1"] = max(overlap_f1(answer or "", gold) for gold in golds)
        return values, status


def program_of(item: Item, output: str) -> str:
    """The program that a model's answer to `item` is."""
    if "prompt" in item.code:
        return completed_function(item.code["prompt"], output)
    return written_program(output.lstrip(" "))  # the template's own space before an answer


def _own(item: Item, program: str) -> str:
    """What the model wrote of a program that was begun for it."""
    return program.removeprefix(str(item.code.get("prompt", "")))


def tested(sandbox: Sandbox, answers: Sequence[tuple[Item, str]]) -> list[bool]:
    """Whether each program passes the tests of its item."""
    if not answers:
        return []
    build = humaneval_program if "entry_point" in answers[0][0].code else mbpp_program
    return run_tests(sandbox, build, [(item.code, program) for item, program in answers])


def majority(answers: Sequence[str | None]) -> str | None:
    """The answer most often given, the first of equals; None where none could be read (Wang et al. 2022,
    self-consistency).
    """
    counts = Counter(" ".join(a.casefold().split()) for a in answers if a is not None)
    if not counts:
        return None
    best = counts.most_common(1)[0][0]
    return next(a for a in answers if a is not None and " ".join(a.casefold().split()) == best)


def _best(nats: Sequence[float]) -> int:
    return max(range(len(nats)), key=nats.__getitem__)


def _rows(
    shared: Row,
    values: Mapping[str, float],
    *,
    output: str | None = None,
    scores: Sequence[Scored] | None = None,
    written: Written | None = None,
    status: str = "ok",
) -> list[Row]:
    cut = written.cut if written else any(s.cut for s in scores or ())
    common = shared | {
        "output": written.text if written else output,
        "choice_scores": [s.nats for s in scores] if scores else None,
        "output_tokens": written.tokens if written else 0,
        "seconds": written.seconds if written else sum(s.seconds for s in scores or ()),
        "status": "cut" if cut and status == "ok" else status,
    }
    return [common | {"metric": metric, "value": value} for metric, value in values.items()]
