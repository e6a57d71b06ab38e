"""From what a model says to scores: pure functions.

An answer that is wrong, cannot be found (status "unparsed") or was never begun (status "empty") all
count 0; the status keeps them apart.
"""

import math
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from codestage.data.instruct import split_response

_LEAD_IN = re.compile(r"^.*\banswer(?:\s+is\b\s*:?|\s*[:=])\s*", re.IGNORECASE)
_REASON = re.compile(r",?\s+(?:because|since)\b.*$", re.IGNORECASE)
_VERDICT = re.compile(r"^(yes|no|true|false)\s*[,.;:!-]\s*\D*$", re.IGNORECASE)
_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_QUANTITY = re.compile(
    rf"^[$€£]?\s*({_NUMBER})\s*%?(?:\s+(?!or\b|and\b|plus\b|minus\b|times\b)[a-z]+){{0,3}}$"
)
_WRAPS = (("**", "**"), ("`", "`"), ('"', '"'), ("“", "”"), ("'", "'"))


def choice_accuracy(nats: Sequence[float], gold: int) -> float:
    """1 if the right choice has the highest log-likelihood; shared out among equals."""
    best = max(nats)
    winners = [i for i, value in enumerate(nats) if value == best]
    return 1 / len(winners) if gold in winners else 0.0


def choice_probability(nats: Sequence[float], gold: int) -> float:
    """Probability of the right choice among the choices."""
    top = max(nats)
    weights = [math.exp(value - top) for value in nats]
    return weights[gold] / sum(weights)


def bits_per_byte(nats: float, text: str) -> float:
    """Bits that the model needs for each UTF-8 byte of `text`; lower is better."""
    return -nats / math.log(2) / max(1, len(text.encode()))


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
    answer = _REASON.sub("", _LEAD_IN.sub("", line.strip())).strip()
    return answer if normalise(answer) else None


def same_answer(answer: str, gold: str) -> bool:
    """Whether an answer says what `gold` says.

    Beyond `normalise`: where a number is asked for, a currency sign or up to three words of unit
    may stand with it; where a verdict is, an explanation without numbers may follow the verdict.
    """
    said, right = normalise(answer), normalise(gold)
    if said == right:
        return True
    if re.fullmatch(_NUMBER, right):
        quantity = _QUANTITY.match(_tidy(answer))
        return quantity is not None and _plain_number(quantity[1]) == right
    verdict = _VERDICT.match(said)
    return bool(verdict and verdict[1] == right)


def read_output(output: str, *, cot: bool) -> tuple[str | None, str]:
    """(answer, status) of a model's text; with `cot`, the answer follows the model's reasoning."""
    if not output.strip():
        return None, "empty"
    part = split_response(output)[1] if cot else output
    answer = read_answer(part) if part is not None else None
    return answer, "ok" if answer is not None else "unparsed"


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
