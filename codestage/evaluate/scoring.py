"""From log-likelihoods to scores: pure functions."""

import math
import re
from collections import Counter
from collections.abc import Sequence

_UNIT = re.compile(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+")


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


def overlap_f1(answer: str, gold: str) -> float:
    """F1 of the units that two answers share, in any order: words, and single Chinese characters.

    As SQuAD has it for words (Rajpurkar et al. 2016, arXiv 1606.05250); case and punctuation do not count.
    """
    said, right = (Counter(_UNIT.findall(text.casefold())) for text in (answer, gold))
    common = sum((said & right).values())
    return 2 * common / (said.total() + right.total()) if common else 0.0
