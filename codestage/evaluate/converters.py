"""Public data sets in the formats they are published in, as plain documents.

Each converter takes the rows of a file (or of the hub's edition) and yields documents with the fields
`question`, and as the data set has them `context`, `choices`, `gold` (place of the right choice), `answer`,
`aliases`, `rationale`, `code`, and whatever a channel template of the task names. Rows that cannot be
asked (several right choices, no agreed label, a picture) are left out; how many a task keeps is in its
YAML and held by a test.
"""

import ast
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from codestage.evaluate.quantities import is_number

Doc = dict[str, Any]
Converter = Callable[[Iterable[Any]], Iterator[Doc]]
_LETTER = re.compile(r"^\s*[（(]?\s*([A-Za-zＡ-Ｚ])\s*(?:[)）.．、:：]+)\s*")


def _unlettered(option: str) -> str:
    """`(B)Blue`, `B. blue` → the choice's own text."""
    return _LETTER.sub("", option).strip()


def logiqa_text(texts: Iterable[str]) -> Iterator[Doc]:
    """LogiQA's text files: a blank line, the right letter, context, question, and four choices."""
    for text in texts:
        lines = text.replace("\r", "").split("\n")
        while lines and not lines[-1].strip():
            lines.pop()
        for start in range(0, len(lines) - 7, 8):
            _, letter, context, question, *options = lines[start : start + 8]
            yield {
                "context": re.sub(r"^\s*\d+\s*[.．、]\s*", "", context).strip(),
                "question": re.sub(r"^\s*\d+\s*[.．、]\s*", "", question).strip(),
                "choices": [_unlettered(option) for option in options],
                "gold": "abcd".index(letter.strip().lower()),
            }


def agieval(rows: Iterable[Doc]) -> Iterator[Doc]:
    """AGIEval v1: `passage`, `question`, `options` with letters, `label`; one right choice."""
    for row in rows:
        label = row["label"] or ""
        letters = label if isinstance(label, list) else re.findall("[A-Z]", str(label))
        known = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(row["options"] or ())])
        if len(letters) != 1 or letters[0] not in known:
            continue
        yield {
            "context": (row["passage"] or "").strip(),
            "question": row["question"].strip(),
            "choices": [_unlettered(option) for option in row["options"]],
            "gold": known.index(letters[0]),
            "rationale": ((row.get("other") or {}).get("solution") or "").strip(),
        }


def agieval_hub(rows: Iterable[Doc]) -> Iterator[Doc]:
    """The hub's edition of AGIEval: `query` with question and choices in one text, `choices`, `gold`."""
    for row in rows:
        if len(row["gold"]) == 1 and row["gold"][0] in range(len(row["choices"])):
            query = re.sub(r"\s*(?:Answer Choices:|选项[:：]).*$", "", row["query"], flags=re.DOTALL)
            yield {
                "question": re.sub(r"^\s*(?:Q:|问题[:：])\s*", "", query).strip(),
                "choices": [_unlettered(choice) for choice in row["choices"]],
                "gold": row["gold"][0],
            }


def ceval(rows: Iterable[Doc]) -> Iterator[Doc]:
    for row in rows:
        yield {
            "question": row["question"].strip(),
            "choices": [row[letter].strip() for letter in "ABCD"],
            "gold": "ABCD".index(row["answer"]),
            "rationale": (row.get("explanation") or "").strip(),
        }


def scienceqa(rows: Iterable[Doc]) -> Iterator[Doc]:
    """ScienceQA without the questions that show a picture."""
    for row in rows:
        if row.get("image") is None:
            yield {
                "context": (row.get("hint") or "").strip(),
                "lecture": (row.get("lecture") or "").strip(),
                "question": row["question"].strip(),
                "choices": list(row["choices"]),
                "gold": int(row["answer"]),
                "rationale": " ".join(f"{row.get('lecture') or ''} {row.get('solution') or ''}".split()),
            }


def ekar(rows: Iterable[Doc]) -> Iterator[Doc]:
    """E-KAR: a pair or triple of words, and four more of which one is related in the same way."""
    for row in rows:
        if row.get("answerKey"):
            labels = list(row["choices"]["label"])
            yield {
                "question": row["question"].strip(),
                "choices": [text.strip() for text in row["choices"]["text"]],
                "gold": labels.index(row["answerKey"]),
                "rationale": " ".join(row.get("explanation") or []),
            }


def cosqa(rows: Iterable[Doc]) -> Iterator[Doc]:
    """CosQA: a web query and a function; whether the function answers it."""
    for row in rows:
        yield {
            "id": row.get("idx"),
            "question": row["doc"].strip(),
            "body": row["code"],
            "choices": ["correct", "wrong"],
            "gold": 0 if int(row["label"]) == 1 else 1,
        }


def c3(rows: Iterable[Any]) -> Iterator[Doc]:
    """C³: [lines of a dialogue or text, questions, id]; the hub's rows hold one question each."""
    for row in rows:
        if isinstance(row, dict):
            lines, questions = row["context"], [row]
        else:
            lines, questions = row[0], row[1]
        for question in questions:
            yield {
                "context": "\n".join(lines),
                "question": question["question"].strip(),
                "choices": list(question["choice"]),
                "gold": list(question["choice"]).index(question["answer"]),
            }


def nli(rows: Iterable[Doc]) -> Iterator[Doc]:
    """OCNLI and CMNLI: whether the second sentence follows; pairs without an agreed label are left out.

    CLUE's hub edition numbers the labels: neutral 0, entailment 1, contradiction 2.
    """
    names = ("entailment", "neutral", "contradiction")
    numbered = {0: "neutral", 1: "entailment", 2: "contradiction"}
    for row in rows:
        label = numbered.get(row["label"], row["label"])
        if label in names:
            yield {
                "premise": row["sentence1"].strip(),
                "hypothesis": row["sentence2"].strip(),
                "question": row["sentence2"].strip(),
                "choices": ["Yes", "Maybe", "No"],
                "gold": names.index(label),
            }


def dureader(rows: Iterable[Doc]) -> Iterator[Doc]:
    """DuReader-robust: the answer is a stretch of the document; several may be right."""
    for row in rows:
        answers = list(dict.fromkeys(row["answers"]["text"]))
        if answers:
            yield {
                "context": row["context"].strip(),
                "question": row["question"].strip(),
                "answer": answers[0],
                "aliases": answers[1:],
            }


def commonsense_qa(rows: Iterable[Doc]) -> Iterator[Doc]:
    for row in rows:
        nested = isinstance(row["question"], dict)  # the published file; the hub's rows are flat
        question = row["question"]["stem"] if nested else row["question"]
        listed = row["question"]["choices"] if nested else None
        texts = [c["text"] for c in listed] if listed else list(row["choices"]["text"])
        labels = [c["label"] for c in listed] if listed else list(row["choices"]["label"])
        yield {
            "id": row["id"],
            "question": question,
            "choices": texts,
            "gold": labels.index(row["answerKey"]),
        }


def folio(rows: Iterable[Doc]) -> Iterator[Doc]:
    names = ("True", "False", "Uncertain")
    for row in rows:
        premises = row["premises"]
        told = premises if isinstance(premises, str) else " ".join(p.strip() for p in premises)
        yield {
            "context": told,
            "question": "Based on the above information, is the following statement true, false, or "
            f"uncertain? {row['conclusion'].strip()}",
            "choices": list(names),
            "gold": names.index({"Unknown": "Uncertain"}.get(row["label"], row["label"])),
        }


def logic_lm(rows: Iterable[Doc]) -> Iterator[Doc]:
    """ProofWriter and ProntoQA as Logic-LM published them."""
    for row in rows:
        yield {
            "id": row["id"],
            "context": row["context"].strip(),
            "question": row["question"].strip(),
            "choices": [_unlettered(option) for option in row["options"]],
            "gold": "ABC".index(row["answer"]),
            "rationale": " ".join(row.get("explanation") or []),
        }


def bbh(files: Iterable[Doc]) -> Iterator[Doc]:
    """BIG-Bench Hard: `input` and `target`; its lists of options become choices."""
    for row in files:
        for example in row.get("examples", [row]):
            question, _, listed = example["input"].partition("\nOptions:\n")
            options = [line.strip() for line in listed.splitlines() if line.strip()]
            target = example["target"].strip()
            if not options:
                yield {"question": question.strip(), "answer": target}
                continue
            lettered = [_LETTER.match(option) for option in options]
            if all(lettered):
                labels = [f"({m[1]})" for m in lettered if m]
                choices = [_unlettered(option) for option in options]
            else:
                choices = labels = [option.removeprefix("- ") for option in options]
            if target in labels and len(labels) > 1:  # a few published items are broken
                yield {
                    "question": question.strip(),
                    "choices": choices,
                    "gold": labels.index(target),
                }


def bbh_binary(files: Iterable[Doc]) -> Iterator[Doc]:
    """BIG-Bench Hard tasks whose answers are two words that no list of options names."""
    docs = list(bbh(files))
    answers = sorted({doc["answer"] for doc in docs})
    for doc in docs:
        yield {
            "question": doc["question"],
            "choices": answers,
            "gold": answers.index(doc["answer"]),
        }


def gsm8k(rows: Iterable[Doc]) -> Iterator[Doc]:
    """GSM8K: the answer after `####`, the reasoning before it without calculator notes."""
    for row in rows:
        steps, _, answer = row["answer"].partition("####")
        yield {
            "question": row["question"].strip(),
            "answer": answer.strip().replace(",", ""),
            "rationale": " ".join(re.sub(r"<<.*?>>", "", steps).split()),
        }


def svamp(rows: Iterable[Doc]) -> Iterator[Doc]:
    for row in rows:
        body = row["Body"].strip()
        body = body if body.endswith((".", "?", "!")) else f"{body}."
        yield {
            "id": row["ID"],
            "question": f"{body} {row['Question'].strip()}",
            "answer": _plain(float(row["Answer"])),
        }


def asdiv(texts: Iterable[Any]) -> Iterator[Doc]:
    """ASDiv's XML, or the hub's rows; problems whose answer is one number."""
    for text in texts:
        rows = [text] if isinstance(text, dict) else _asdiv_xml(text)
        for row in rows:
            found = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*(?:\(.*\))?", row["answer"].strip())
            if found:
                yield {
                    "id": row.get("id"),
                    "question": f"{row['body'].strip()} {row['question'].strip()}",
                    "answer": _plain(float(found[1])),
                }


def _asdiv_xml(text: str) -> Iterator[Doc]:
    for problem in ElementTree.fromstring(text).iter("Problem"):
        yield {"id": problem.attrib["ID"]} | {
            key.lower(): problem.findtext(key) or "" for key in ("Body", "Question", "Answer")
        }


def multiarith(rows: Iterable[Doc]) -> Iterator[Doc]:
    """MultiArith and AddSub: the published file, or the hub's rows."""
    for row in rows:
        published = "lSolutions" in row
        answer = row["lSolutions"][0] if published else row["final_ans"]
        question = row["sQuestion"] if published else row["question"]
        yield {"question": " ".join(question.split()), "answer": _plain(float(answer))}


def examples(files: Iterable[Doc]) -> Iterator[Doc]:
    """`question` and `answer`, in a list under `examples` or by themselves."""
    for row in files:
        for example in row.get("examples", [row]):
            yield {"question": example["question"].strip(), "answer": example["answer"].strip()}


def coin_flip(files: Iterable[Doc]) -> Iterator[Doc]:
    for doc in examples(files):
        yield {"question": doc["question"], "choices": ["yes", "no"]} | {
            "gold": ["yes", "no"].index(doc["answer"].lower())
        }


def _names(files: Iterable[Doc]) -> Iterator[list[str]]:
    for doc in examples(files):
        found = re.search(r'"([^"]+)"', doc["question"])
        if found:
            yield found[1].split()


def first_letters(files: Iterable[Doc]) -> Iterator[Doc]:
    """The names of the last-letter task, asked for their first letters."""
    for names in _names(files):
        yield {
            "question": f'Take the first letters of each words in "{" ".join(names)}" and '
            "concatenate them.",
            "answer": "".join(name[0] for name in names).lower(),
        }


def reversed_list(files: Iterable[Doc]) -> Iterator[Doc]:
    """The names of the last-letter task, to be written in the other order."""
    for names in _names(files):
        yield {
            "question": f'Reverse the order of the words in "{", ".join(names)}".',
            "answer": ", ".join(reversed(names)),
        }


def clutrr(rows: Iterable[Doc]) -> Iterator[Doc]:
    for row in rows:
        first, second = ast.literal_eval(str(row["query"]))
        yield {
            "id": row.get("id"),
            "context": re.sub(r"[\[\]]", "", row["story"]).strip(),
            "question": f"How is {second} related to {first}? Answer with one word.",
            "answer": row["target_text"],
        }


def babi(rows: Iterable[Doc]) -> Iterator[Doc]:
    """bAbI in the edition the harness reads: `passage`, `question`, `answer`, `task`."""
    for row in rows:
        yield {
            "context": row["passage"].strip(),
            "question": row["question"].strip(),
            "answer": row["answer"].strip(),
            "task": int(row["task"]),
        }


def babi_deduction(rows: Iterable[Doc]) -> Iterator[Doc]:
    """bAbI task 15."""
    yield from (doc for doc in babi(rows) if doc["task"] == 15)


def babi_induction(rows: Iterable[Doc]) -> Iterator[Doc]:
    """bAbI task 16."""
    yield from (doc for doc in babi(rows) if doc["task"] == 16)


def mbpp(rows: Iterable[Doc]) -> Iterator[Doc]:
    """MBPP's test split: problems 11 to 510, with the first test shown as the published prompt does."""
    for row in rows:
        if 11 <= int(row["task_id"]) <= 510:
            tests = list(row["test_list"])
            yield {
                "id": str(row["task_id"]),
                "question": f"{row.get('text') or row['prompt']}\nYour code should pass this test: {tests[0]}",
                "plain": row.get("text") or row["prompt"],
                "answer": row["code"].replace("\r", "").strip(),
                "code": {
                    "test_list": tests,
                    "test_setup_code": row.get("test_setup_code")
                    or "\n".join(row.get("test_imports", [])),
                },
            }


def humaneval(rows: Iterable[Doc]) -> Iterator[Doc]:
    for row in rows:
        yield {
            "id": row["task_id"],
            "question": f"Complete this Python function:\n{row['prompt']}",
            "answer": row["canonical_solution"],
            "code": {key: row[key] for key in ("prompt", "test", "entry_point")},
        }


def math_boxed(rows: Iterable[Doc]) -> Iterator[Doc]:
    """MATH: the answer stands in the solution's last \\boxed{}; problems whose answer is one number."""
    for row in rows:
        answer = _boxed(row["solution"])
        if answer is not None and is_number(answer):
            yield {
                "question": row["problem"].strip(),
                "answer": answer,
                "rationale": " ".join(row["solution"].split()),
            }


def _boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for i in range(begin, len(text)):
        if text[i] == "}" and depth == 0:
            return text[begin:i]
        depth += {"{": 1, "}": -1}.get(text[i], 0)
    return None


def _plain(number: float) -> str:
    return f"{number:.10g}"


CONVERTERS: dict[str, Converter] = {
    f.__name__: f
    for f in (
        agieval, agieval_hub, asdiv, babi_deduction, babi_induction, bbh, bbh_binary, c3, ceval, clutrr,
        coin_flip, commonsense_qa, cosqa, dureader, ekar, examples, first_letters, folio, gsm8k, humaneval,
        logic_lm, logiqa_text, math_boxed, mbpp, multiarith, nli, reversed_list, scienceqa, svamp,
    )
}  # fmt: skip
