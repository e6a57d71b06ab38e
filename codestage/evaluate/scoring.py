"""From what a model says to scores: pure functions."""

import math
import re
from collections.abc import Sequence

NUMBER = re.compile(r"-?\d+(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?")
LEAD = re.compile(r"^.*?\b(?:the (?:final )?answer is|answer:)\s*:?\s*", re.IGNORECASE | re.DOTALL)


def normalise(text: str) -> str:
    """Lower case, single spaces, no quotes or final stop: what must agree for two answers to be one."""
    return " ".join(text.lower().split()).strip(" .,;:!\"'`")


def extract(output: str, *, number: bool) -> str | None:
    """The answer in a model's output; None if there is none.

    The first line that says something, after "the answer is" if that stands in it; for numbers the
    first number there, without thousands separators.
    """
    lines = [line for line in LEAD.sub("", output).splitlines() if line.strip()]
    if not lines:
        return None
    if not number:
        return normalise(lines[0]) or None
    found = NUMBER.search(lines[0])
    if not found:
        return None
    text = found.group().replace(",", "")
    value = float(text)
    return str(int(value)) if value.is_integer() else repr(value)


def exact_match(output: str, answer: str) -> tuple[bool, bool]:
    """(right, an answer could be read): numbers compare as numbers, words after `normalise`."""
    number = NUMBER.fullmatch(answer) is not None
    found = extract(output, number=number)
    wanted = extract(answer, number=number)
    return found is not None and found == wanted, found is not None


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
