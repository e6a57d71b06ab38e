"""Questions of a study's own: a file of rows that anyone can write.

A row has `question` and `answer`; with `choices` the answer is one of them, without, the model writes it. It may
have `context`, which comes before the question, `rationale`, `aliases` (other right answers) and `id`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codestage.errors import UserError
from codestage.evaluate.converters import Doc
from codestage.evaluate.items import LETTERS
from codestage.evaluate.quantities import values
from codestage.evaluate.rows import parse, text_of
from codestage.evaluate.tasks import Task
from codestage.study.schema import OwnTaskSpec

_KEYS = {"id", "question", "context", "choices", "answer", "rationale", "aliases"}


def own_task(name: str, spec: OwnTaskSpec, folder: Path) -> Task:
    """The task that a study describes; its file is read to see what kind of questions they are.

    Raises:
        UserError: the file cannot be read, or a row is no question.
    """
    path = folder / spec.path
    docs = list(own_docs(path))
    written = "choices" not in docs[0]
    if written and spec.letters:
        raise UserError(f"{path}: letters need choices, and its questions have none; leave letters out")
    most = max((len(doc["choices"]) for doc in docs), default=0) if spec.letters else 0
    if most > len(LETTERS):
        raise UserError(
            f"{path}: a question has {most} choices, and there are {len(LETTERS)} letters; leave letters out"
        )
    if not written and spec.answer == "number":
        raise UserError(
            f"{path}: answer: number is for written answers, and its questions have choices; leave it out"
        )
    if spec.answer == "number":
        _all_numbers(docs, path)
    return Task(
        name=name,
        domain=spec.domain,
        output_type="generate_until" if written else "multiple_choice",
        metric="exact_match" if written else "acc",
        version=0,
        source="the study's own",
        licence="",
        language="",
        suites=(),
        answer="choice" if spec.letters else spec.answer,
        split="",
        items=len(docs),
        chance=None,
        max_new_tokens=spec.max_new_tokens,
        letters=spec.letters,
        rationales=all(doc["rationale"] for doc in docs),
        instruction="{{question}}",
        data={"own": str(path)},
    )


def _all_numbers(docs: list[Doc], path: Path) -> None:
    """A right answer that is not read as a number could never be given."""
    for i, doc in enumerate(docs, 1):
        for what, right in [("answer", doc["answer"]), *(("alias", alias) for alias in doc["aliases"])]:
            if not values(right):
                raise UserError(
                    f"{path}, row {i}: {what} {right!r} is not read as a number, and the task has answer: number; "
                    "write one number, or leave answer: number out"
                )


def own_docs(path: Path) -> Iterator[Doc]:
    """The questions of a file, in its order.

    Raises:
        UserError: naming the row, and what is wrong with it.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; name one of JSON lines, or a JSON list")
    try:
        rows = list(parse(text_of(path), path.name))
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    if len(rows) < 2:
        raise UserError(f"{path}: {len(rows)} questions; at least two are needed")
    kinds, names = set(), set()
    for i, row in enumerate(rows):
        where = f"{path}, row {i + 1}"
        doc = _doc(row, where)
        kinds.add("choices" in doc)
        names.add(str(i if doc["id"] in (None, "") else doc["id"]))
        if len(kinds) > 1:
            raise UserError(
                f"{where}: rows with choices and rows without stand in one file; make two tasks of them"
            )
        if len(names) <= i:
            raise UserError(
                f"{where}: id {doc.get('id')!r} stood in an earlier row; every row needs its own"
            )
        yield doc


def _aliases(told: Any, where: str) -> list[str]:
    found = [] if told is None else told
    if not isinstance(found, list) or not all(isinstance(one, str | int | float) for one in found):
        raise UserError(f"{where}: aliases {told!r}: write a list of answers that are right too")
    return [str(one) for one in found]


def _doc(row: Any, where: str) -> Doc:
    if not isinstance(row, dict):
        raise UserError(f'{where}: {row!r} is no question; write {{"question": …, "answer": …}}')
    if unknown := row.keys() - _KEYS:
        raise UserError(
            f"{where}: unknown {', '.join(sorted(unknown))}; known: {', '.join(sorted(_KEYS))}"
        )
    for key in ("question", "answer"):
        if not str(row.get(key) if row.get(key) is not None else "").strip():
            raise UserError(f"{where}: has no {key}")
    doc = {
        "question": str(row["question"]),
        "context": str(row.get("context") or ""),
        "rationale": str(row.get("rationale") or ""),
        "aliases": _aliases(row.get("aliases"), where),
        "id": row.get("id"),
        "answer": str(row["answer"]),
    }
    if row.get("choices") is None:
        return doc
    choices = row["choices"] if isinstance(row["choices"], list) else []
    texts = [str(choice) for choice in choices]
    if any(not text.strip() for text in texts):
        raise UserError(
            f"{where}: choices {row['choices']!r}: one is blank; write what it says, or leave it out"
        )
    if len(set(texts)) < max(2, len(texts)):
        raise UserError(
            f"{where}: choices {row['choices']!r}: write a list of two or more different ones"
        )
    if doc["answer"] not in texts:
        raise UserError(
            f"{where}: answer {row['answer']!r} is none of its choices; write it as it stands there"
        )
    return doc | {"choices": texts, "gold": texts.index(doc["answer"])}
