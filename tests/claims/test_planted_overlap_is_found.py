"""Claim: an evaluation item planted in training data is found, and nothing is found where none is."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from codestage.data.decontaminate import decontaminate
from codestage.data.sources import Document, Example

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]


def prose(generator, words):
    return " ".join(generator.choice(WORDS) for _ in range(words))


def corpus(generator, documents=60):
    return [Document(prose(generator, 80) + ".", str(i)) for i in range(documents)]


@given(st.integers(0, 2**32), st.integers(1, 30), st.sampled_from(["as is", "shouted", "spaced"]))
@settings(max_examples=80, deadline=None)
def test_a_planted_item_is_found_and_only_it(seed, words, disguise):
    """Positive control: in the middle of a document, in other case, punctuation and spacing."""
    generator = random.Random(seed)
    items = {f"item{i}": prose(generator, 25) for i in range(20)}
    items["planted"] = "Zed " + prose(generator, words) + " quux?"
    documents = corpus(generator)
    text = items["planted"]
    told = {"as is": text, "shouted": text.upper() + "!!", "spaced": text.replace(" ", ",\n  ")}
    where = generator.randrange(len(documents))
    documents[where] = Document(
        prose(generator, 20) + " " + told[disguise] + " " + prose(generator, 9), "x"
    )
    overlap = decontaminate(documents, items)
    assert [(d.id, ids) for d, ids in overlap.removed] == [("x", ("planted",))]
    assert overlap.kept == documents[:where] + documents[where + 1 :]
    assert overlap.by_item == {"planted": 1}


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_nothing_is_found_in_a_clean_corpus(seed):
    """Negative control: the same words, in other orders; and items that share their beginning."""
    generator = random.Random(seed)
    documents = corpus(generator)
    start = " ".join(documents[0].text.split()[:12])  # five runs of eight words in common
    items = {f"item{i}": prose(generator, 15) for i in range(20)}
    items["same beginning"] = start + " " + prose(generator, 20)
    overlap = decontaminate(documents, items)
    assert not overlap.removed
    assert overlap.kept == documents


def test_a_changed_word_does_not_hide_a_long_item():
    generator = random.Random(4)
    words = prose(generator, 60).split()
    changed = [*words[:50], "other", *words[51:]]
    assert decontaminate([Document(" ".join(changed), "x")], {"long": " ".join(words)}).removed


def test_instructions_are_searched_as_a_whole():
    example = Example("Who wrote the song of the seven small stones?", "Ada wrote it", "it is known")
    clean = Example("Who wrote the song of the nine large stones?", "Ada wrote it")
    overlap = decontaminate([example, clean], {"q": "who wrote the song of the SEVEN small stones"})
    assert [record for record, _ in overlap.removed] == [example]
    assert overlap.kept == [clean]


def test_scripts_without_spaces_and_items_of_signs_alone_are_found():
    items = {"zh": "小明有三个苹果，吃了一个还剩几个", "signs": "( [ { } ] )", "empty": ""}
    documents = [
        Document("题目：小明有三个苹果吃了一个还剩几个？答案：两个。", "zh"),
        Document("([{}])\n", "signs"),
        Document("([{}]) ]", "other signs"),
        Document("小红有五个苹果，送了两个还剩几个", "other zh"),
    ]
    overlap = decontaminate(documents, items)
    assert [(d.id, ids) for d, ids in overlap.removed] == [("zh", ("zh",)), ("signs", ("signs",))]
