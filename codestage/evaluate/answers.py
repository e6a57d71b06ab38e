"""Reading answers out of what models write, and comparing them with the right one.

Models of all sizes are read by the same rules: the last answer that is stated counts; if none is,
that of the first line (asked for directly) or of the last sentence (after reasoning). What a base
model goes on to ask itself, and what stands between `<think>` and `</think>`, is no answer.
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal

from codestage.data.instruct import split_response
from codestage.evaluate.labels import SAME_VERDICT, read_choice, read_verdict
from codestage.evaluate.quantities import REASON, plain, read_number, values

Kind = Literal["text", "number", "choice", "verdict"]

_LEAD_IN = re.compile(r"^.*\banswer(?:\s+is\b\s*:?|\s*[:=])\s*", re.IGNORECASE)
_EXPLAINED = re.compile(r"^(yes|no|true|false)\s*[,.;:!-]\s*\D*$", re.IGNORECASE)
_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_QUANTITY = re.compile(
    rf"^[$€£]?\s*({_NUMBER})\s*%?(?:\s+(?!or\b|and\b|plus\b|minus\b|times\b)[a-z]+){{0,3}}$"
)
_WRAPS = (("**", "**"), ("`", "`"), ('"', '"'), ("“", "”"), ("'", "'"))
_ASKED_NEXT = re.compile(
    r"\n[\s#*>]{0,12}(?:question|q|problem|exercise|instruction|human|user|问题|题目)(?![^\W\d_])\s*\d*[\s*]*[:：.]"
    r"|\n[^\n]+\?\s{0,4}\n\s{0,4}\(?A[).:]\s|<\|\w+\|>|</s>",
    re.IGNORECASE,
)
"""Where a model that was not told to stop goes on with a question of its own."""


def read_output(
    output: str, *, cot: bool, kind: Kind = "text", choices: Sequence[str] = ()
) -> tuple[str | None, str]:
    """(answer, status) of a model's text; with `cot`, the answer follows the model's reasoning.

    The status is "ok", "unparsed" or "empty". A number is returned in plain digits (`-1250.5`, `1/3`,
    `42%`), a choice as its letter, a verdict as one lower-case English word.
    """
    if not output.strip():
        return None, "empty"
    closed, said = output.rpartition("</think>")[1:]
    if not closed and re.match(r"\s*<think>", output):
        said = ""
    answer: str | None
    if kind == "text":
        part = split_response(said)[1] if cot else said
        answer = read_answer(part) if part is not None else None
        return answer, "ok" if answer is not None else "unparsed"
    text = plain(_own(said))
    if kind == "number":
        answer = read_number(text, cot=cot)
    elif kind == "choice":
        answer = read_choice(text, choices, cot=cot)
    else:
        answer = read_verdict(text, cot=cot)
    return answer, "ok" if answer is not None else "unparsed"


def same_answer(answer: str, gold: str, kind: Kind = "text") -> bool:
    """Whether an answer says what `gold` says.

    Text: beyond `normalise`, where a number is asked for, a currency sign or up to three words of
    unit may stand with it; where a verdict is, an explanation without numbers may follow the verdict.
    Numbers are equal by value, with 42% equal to 42 and to 0.42; yes is the same verdict as true.
    """
    said, right = normalise(answer), normalise(gold)
    if said == right:
        return True
    if kind == "number":
        return bool(values(answer) & values(gold))
    if kind == "choice":
        return said.strip("()[]. ") == right.strip("()[]. ")
    if kind == "verdict":
        a, b = (read_verdict(plain(text), cot=False) for text in (answer, gold))
        return a is not None and b is not None and SAME_VERDICT.get(a, a) == SAME_VERDICT.get(b, b)
    if re.fullmatch(_NUMBER, right):
        quantity = _QUANTITY.match(_tidy(answer))
        return quantity is not None and _plain_number(quantity[1]) == right
    verdict = _EXPLAINED.match(said)
    return bool(verdict and verdict[1] == right)


def normalise(text: str) -> str:
    """The form in which answers are compared.

    Case, runs of spaces, space around commas, one pair of quotes or emphasis, a leading "the" and a
    trailing period do not matter; a number is written without thousands separators, plus sign or
    trailing zeros.
    """
    text = _tidy(text)
    if re.fullmatch(_NUMBER, text):
        return _plain_number(text)
    return re.sub(r"\s*,\s*", ", ", text)


def _tidy(text: str) -> str:
    text = " ".join(text.replace("−", "-").split()).casefold().rstrip(" .!;")
    for left, right in _WRAPS:
        inner = text[len(left) : -len(right)]
        if text.startswith(left) and text.endswith(right) and inner and left not in inner:
            text = inner.strip().rstrip(".")
    return text.removeprefix("the ")


def read_answer(text: str) -> str | None:
    """The answer in what a model wrote where an answer was asked for; None if there is none.

    It stands in the first line that says anything, after "the answer is" if that is there and
    before a "because".
    """
    line = next((line for line in text.splitlines() if line.strip()), "")
    answer = REASON.sub("", _LEAD_IN.sub("", line.strip())).strip()
    return answer if normalise(answer) else None


def _own(text: str) -> str:
    """What the model says before it asks itself another question."""
    return _ASKED_NEXT.split(text, maxsplit=1)[0]


def _plain_number(text: str) -> str:
    """`+1,250.50` as `1250.5`; minus zero is zero."""
    try:
        number = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return text
    plain = f"{number:f}"
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return "0" if plain in ("-0", "") else plain
