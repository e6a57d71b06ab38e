"""Near overlaps: runs of an item's words that stand together, however often they stand elsewhere."""

import itertools
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


def test_items_that_have_no_words_of_their_own_are_found_whole():
    """A task that asks the same facts in other orders has items of which every thirteen words are another's too."""
    parts = [" ".join(f"p{i}x{k}" for k in range(20)) for i in range(4)]
    items = {
        "".join(map(str, order)): " ".join(parts[i] for i in order)
        for order in itertools.permutations(range(4))
    }
    items |= {"twin": items["0123"]}
    index = Index(items)
    for name, text in items.items():
        exact, _ = index.find(f"some words before {text} and after")
        assert name in exact
    assert index.find(items["0123"])[0] == ("0123", "twin"), (
        "in the order of the items, in every process"
    )
    assert index.find(" ".join(parts[i] for i in (0, 2))) == ((), ())


TOLD = "小明有三个苹果他给了小红一个又买了两个现在他一共有几个苹果"
LONG = "".join(chr(0x4E00 + 7 * i) for i in range(120))


@pytest.mark.parametrize("item", [TOLD, LONG], ids=["short", "long"])
def test_scripts_without_spaces_are_searched_sign_by_sign(item):
    index = Index({"a": item})
    assert index.find(f"题{item}解答如下") == (("a",), ())
    assert index.find(f"题{item[:5]}、{item[5:]}解") == (("a",), ())
    assert index.find(item[: len(item) // 5]) == ((), ())


def test_a_long_item_of_signs_is_found_by_a_passage_of_it_and_nearly():
    index = Index({"a": LONG})
    assert index.find(f"前文{LONG[40:70]}后文")[0] == ("a",)
    changed = "".join("变" if i % 12 == 5 else sign for i, sign in enumerate(LONG))
    assert index.find(changed) == ((), ("a",))
