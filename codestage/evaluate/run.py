"""From a checkpoint to item records."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from codestage.data import instruct
from codestage.data.shards import END_OF_TEXT
from codestage.data.tokenizer import Tokenizer
from codestage.errors import UserError
from codestage.evaluate import records
from codestage.evaluate.answers import Answer, Ask, rows
from codestage.evaluate.backend import Backend, Generation, Runtime
from codestage.evaluate.items import items
from codestage.evaluate.tasks import COT, Task

# After an answer that follows reasoning, a model that goes on would begin the next question.
NEXT_QUESTION = "\n" + instruct.QUESTION.rstrip()


def evaluate_checkpoint(
    checkpoint: Path,
    tokenizer: Tokenizer,
    tasks: Sequence[Task],
    *,
    cot: Sequence[str],
    seed: int,
    n_items: int | None = None,
    runtime: Runtime | None = None,
    on_item: Callable[[int, int], None] | None = None,
) -> pa.Table:
    """Ask a checkpoint every item of every task and return `records.SCHEMA`, a row a metric.

    Args:
        checkpoint: folder in the Transformers format.
        tokenizer: the one the checkpoint was trained with.
        cot: modes of chain of thought; a task is asked in those of them that it knows.
        seed: the study's evaluation seed, the same for all its arms and seeds.
        n_items: items a task, in place of the task's own number.
        on_item: told (items answered so far, items in all) as batches come back.

    The engine's columns (run, arm, seed, stage, tokens) are null. Raises UserError for a mode
    that does not exist, a folder without a model, or an item longer than the model's positions.
    """
    asks = make_asks(tasks, cot=cot, seed=seed, n_items=n_items)
    backend = Backend.load(checkpoint, tokenizer, runtime)
    answers = collect(backend, asks, on_item=on_item)
    return records.table(
        row for ask, answer in zip(asks, answers, strict=True) for row in rows(ask, answer)
    )


def make_asks(
    tasks: Sequence[Task], *, cot: Iterable[str], seed: int, n_items: int | None = None
) -> list[Ask]:
    """Every item of every task in every mode asked for that the task knows."""
    modes = list(cot)
    for mode in modes:
        if mode not in COT:
            raise UserError(f"chain of thought {mode!r}: use some of {', '.join(COT)}")
    return [
        Ask(task, item, mode)
        for task in tasks
        for item in items(task, seed, n_items)
        for mode in COT  # innermost: the modes of an item share its question, computed once
        if mode in modes and mode in task.cot
    ]


def collect(
    backend: Backend,
    asks: Sequence[Ask],
    *,
    on_item: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Put the questions to the model: first what it must write, then what it must rate."""
    encode = _Encoder(backend.tokenizer, asks)
    report = on_item or (lambda done, total: None)
    written, write_seconds = _write(backend, asks, encode)
    report(0, len(asks))
    answers: list[Answer] = []
    for start in range(0, len(asks), 512):  # large enough to sort by length, small enough to report
        part = asks[start : start + 512]
        begun = time.perf_counter()
        rated = _rate(backend, part, written[start : start + 512], encode)
        share = (time.perf_counter() - begun) / len(part)
        for k, (ask, (choice_nats, gold_nats)) in enumerate(zip(part, rated, strict=True), start):
            text = written[k]
            answers.append(
                Answer(
                    choice_nats=choice_nats,
                    gold_nats=gold_nats,
                    output=None if text is None else text.text,
                    output_tokens=None if text is None else len(text.ids),
                    prompt_tokens=len(encode.prompt(ask.item.prompt(ask.cot))),
                    seconds=share + (0.0 if text is None else write_seconds[k]),
                )
            )
        report(len(answers), len(asks))
    return answers


class _Encoder:
    """Token ids of texts, each text encoded once and most of them in one call."""

    def __init__(self, tokenizer: Tokenizer, asks: Sequence[Ask]) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}
        texts = [ask.item.prompt(ask.cot) for ask in asks]
        texts += [instruct.response(c) for ask in asks for c in ask.item.choices]
        unique = list(dict.fromkeys(texts))
        self.known = dict(zip(unique, tokenizer.encode_batch(unique), strict=True))

    def text(self, text: str) -> list[int]:
        """The text alone, as it continues a prompt: it begins with the space that is a cut."""
        if text not in self.known:
            self.known[text] = self.tokenizer.encode(text)
        return self.known[text]

    def prompt(self, text: str) -> list[int]:
        """As a document starts: after the end-of-text token."""
        return [END_OF_TEXT, *self.text(text)]


def _write(
    backend: Backend, asks: Sequence[Ask], encode: _Encoder
) -> tuple[list[Generation | None], list[float]]:
    """What the model writes for each ask that wants text, and each one's seconds."""
    groups: dict[tuple[int, tuple[str, ...]], list[int]] = defaultdict(list)
    for k, ask in enumerate(asks):
        if ask.generates:
            task = ask.task
            reasons = ask.cot == "generated"
            limit = task.reasoning_tokens if reasons else task.max_new_tokens
            groups[limit, (NEXT_QUESTION,) if reasons else task.until].append(k)
    written: list[Generation | None] = [None] * len(asks)
    seconds = [0.0] * len(asks)
    for (limit, stop), members in groups.items():
        begun = time.perf_counter()
        prompts = [encode.prompt(asks[k].item.prompt(asks[k].cot)) for k in members]
        texts = backend.generate(prompts, max_new_tokens=limit, stop=stop)
        share = (time.perf_counter() - begun) / len(members)
        for k, text in zip(members, texts, strict=True):
            written[k] = text
            seconds[k] = share
    return written, seconds


def _rate(
    backend: Backend,
    asks: Sequence[Ask],
    written: Sequence[Generation | None],
    encode: _Encoder,
) -> list[tuple[tuple[float, ...] | None, float | None]]:
    """(log-likelihoods of the choices, of the right answer) for each ask, in nats.

    Both are None where the model's own reasoning came to no answer: there is no place to ask.
    """
    requests: list[tuple[list[int], list[int]]] = []
    spans: list[range | None] = []
    for ask, text in zip(asks, written, strict=True):
        prompt = ask.item.prompt(ask.cot)
        if ask.cot == "generated":
            assert text is not None
            reasoning, answer = instruct.split_response(text.text)
            if answer is None:
                spans.append(None)
                continue
            prompt = ask.item.prompt(ask.cot, reasoning or "")
        context = encode.prompt(prompt)
        options = ask.item.choices or (ask.item.answer,)
        spans.append(range(len(requests), len(requests) + len(options)))
        requests += [(context, encode.text(instruct.response(option))) for option in options]
    nats = [likelihood.nats for likelihood in backend.loglikelihoods(requests)]
    found: list[tuple[tuple[float, ...] | None, float | None]] = []
    for ask, span in zip(asks, spans, strict=True):
        if span is None:
            found.append((None, None))
            continue
        scores = tuple(nats[i] for i in span)
        gold = ask.item.gold
        found.append((scores, scores[gold]) if gold is not None else (None, scores[0]))
    return found
