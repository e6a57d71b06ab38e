"""Near overlaps: runs of an item's words that stand together, however often they stand elsewhere."""

import math
import random

import pytest

from codestage.data.decontaminate import NEAR, Index

ITEM = [f"w{i}" for i in range(44)]
CHANGED = ["x" if i in (10, 21, 32) else word for i, word in enumerate(ITEM)]
"""Changed so that no 13 words in a row are left, and 25 of the 40 runs of five are."""


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_phrase_said_again_far_away_hides_no_near_overlap(before):
    far = [f"z{i}" for i in range(200)]
    text = [*ITEM[33:], *far, *CHANGED] if before else [*CHANGED, *far, *ITEM[33:]]
    index = Index({"a": " ".join(ITEM)})
    assert index.find(" ".join(text)) == ((), ("a",))
    assert index.find(" ".join([*far, *ITEM[33:]] * 9)) == ((), ())


def test_near_overlaps_are_those_of_looking_at_every_window():
    """Against every stretch of twice the item's length, in documents that say the item's phrases over and over."""
    generator = random.Random(1)
    index, found = Index({"a": " ".join(ITEM)}), []
    runs = {tuple(ITEM[i : i + 5]) for i in range(40)}
    for _ in range(300):
        words: list[str] = []
        while len(words) < 250:
            at = generator.randrange(36)
            words += ITEM[at : at + generator.randint(5, 9)] + ["z"] * generator.randint(1, 12)
        stands = [tuple(words[i : i + 5]) for i in range(len(words) - 4)]
        most = max(len(runs.intersection(stands[i : i + 89])) for i in range(len(stands)))
        found.append(index.find(" ".join(words)) == ((), ("a",)))
        assert found[-1] == (most >= math.ceil(NEAR * 40))
    assert 0.05 < sum(found) / len(found) < 0.95
