"""Claim: an evaluation item planted in training data is found, and nothing is found where none is."""

import gzip
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codestage.data.decontaminate import Index
from codestage.data.decontaminate import decontaminate as stream
from codestage.data.sources import Document, Example

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]


def decontaminate(documents, index):
    removed = []
    return list(stream(documents, index, removed.append)), removed


def prose(generator, words):
    return " ".join(generator.choice(WORDS) for _ in range(words))


def corpus(generator, documents=60):
    return [Document(str(i), prose(generator, 80) + ".") for i in range(documents)]


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
        "x", prose(generator, 20) + " " + told[disguise] + " " + prose(generator, 9)
    )
    kept, removed = decontaminate(documents, Index(items))
    assert [(o.document, o.items) for o in removed] == [("x", ("planted",))]
    assert list(kept) == documents[:where] + documents[where + 1 :]


@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_nothing_is_found_in_a_clean_corpus(seed):
    """Negative control: the same words, in other orders; and items that share their beginning."""
    generator = random.Random(seed)
    documents = corpus(generator)
    start = " ".join(documents[0].text.split()[:12])
    items = {f"item{i}": prose(generator, 15) for i in range(20)}
    items["same beginning"] = start + " " + prose(generator, 20)
    kept, removed = decontaminate(documents, Index(items))
    assert not removed
    assert list(kept) == documents


def test_a_changed_word_does_not_hide_a_long_item():
    generator = random.Random(4)
    words = prose(generator, 60).split()
    changed = " ".join([*words[:50], "other", *words[51:]])
    _, removed = decontaminate([Document("x", changed)], Index({"long": " ".join(words)}))
    assert [o.document for o in removed] == ["x"]


def test_wording_that_many_long_items_share_is_no_overlap():
    """A task's template says nothing about one of its items."""
    generator = random.Random(5)
    template = prose(generator, 30)
    items = {f"item{i}": f"{template} {prose(generator, 20)}" for i in range(4)}
    documents = [Document("template", template + " and more"), Document("item", items["item2"])]
    _, removed = decontaminate(documents, Index(items))
    assert [(o.document, o.items) for o in removed] == [("item", ("item2",))]


def test_instructions_are_searched_as_a_whole():
    example = Example(
        "a", "Who wrote the song of the seven small stones?", "Ada wrote it", "it is known"
    )
    clean = Example("b", "Who wrote the song of the nine large stones?", "Ada wrote it")
    index = Index({"q": "who wrote the song of the SEVEN small stones"})
    kept, removed = decontaminate([example, clean], index)
    assert [o.document for o in removed] == ["a"]
    assert list(kept) == [clean]


@given(st.integers(0, 2**32), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_an_item_of_forty_words_is_found_with_up_to_three_of_them_changed(seed, changes):
    generator = random.Random(seed)
    items = {f"item{i}": prose(generator, 40) for i in range(5)}
    words = items["item3"].split()
    for place in generator.sample(range(40), changes):
        words[place] = "changed"
    text = f"{prose(generator, 300)} {' '.join(words)} {prose(generator, 300)}"
    _, removed = decontaminate([Document("x", text)], Index(items))
    assert [(o.items + o.nearly) for o in removed] == [("item3",)]
    assert bool(removed[0].nearly) == bool(changes)


def test_an_items_words_scattered_over_a_long_document_are_no_overlap():
    generator = random.Random(6)
    item = prose(generator, 40).split()
    pieces = [" ".join(item[i : i + 8]) for i in range(0, 40, 4)]
    text = " ".join(f"{piece} {prose(generator, 100)}" for piece in pieces)
    _, removed = decontaminate([Document("x", text)], Index({"item": " ".join(item)}))
    assert not removed
    _, removed = decontaminate([Document("x", " ".join(pieces))], Index({"item": " ".join(item)}))
    assert [o.nearly for o in removed] == [("item",)]


def test_real_problems_with_changed_words_are_found(shared):
    """The figures of docs/benchmarks.md: of GSM8K's first 400 test problems, those of 30 words or more."""
    path = shared / "data" / "eval" / "gsm8k_test.jsonl.gz"
    if not path.exists():
        pytest.skip("gsm8k_test.jsonl.gz is not in shared/data/eval")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        asked = [json.loads(line)["question"] for line in file]
    index, generator = Index({str(i): text for i, text in enumerate(asked)}), random.Random(0)
    found = {}
    for changes in (0, 1, 2, 3):
        hits = []
        for i, text in enumerate(asked[:400]):
            words = text.split()
            if len(words) >= 30:
                for place in generator.sample(range(len(words)), changes):
                    words[place] = "changed"
                exact, nearly = index.find(f"some text before {' '.join(words)} and after it")
                hits.append(str(i) in exact + nearly)
        found[changes] = sum(hits) / len(hits)
    assert found[0] == found[1] == found[2] == 1.0
    assert 0.9 < found[3] < 1.0
    train = shared / "data" / "instruct" / "gsm8k_train.jsonl.gz"
    if train.exists():
        with gzip.open(train, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        held = [index.find(f"{row['question']} {row['answer']}") for row in rows]
        assert sum(bool(exact) for exact, _ in held) == 2
        assert sum(bool(nearly) and not exact for exact, nearly in held) == 2
