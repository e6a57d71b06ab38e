"""Cleaning: each rule takes what it names, says so, and leaves the rest; order and memory."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codestage.data.clean import Ledger, clean, poor
from codestage.data.duplicates import near_duplicates, shingles
from codestage.data.shuffle import shuffled
from codestage.data.sources import Document, Example
from codestage.study.schema import SourceSpec

PROSE = "The cat sat on the mat, and then it went out to look for the dog that had been there."
CODE = "import os\n\n\ndef f(x):\n    return os.getcwd() + x\n\n\nprint(f('a'))\n"


def cleaned(items, **rules):
    more = {key: rules.pop(key) for key in ("transform", "format") if key in rules}
    spec = SourceSpec.model_validate({"domain": "text", "path": "x", "clean": rules} | more)
    ledger = Ledger()
    return [item.id for item in clean(items, spec, ledger)], ledger


def test_each_rule_takes_what_it_names_and_says_why():
    documents = [
        Document("short", "tiny"),
        Document("long", PROSE * 50),
        Document("signs", "#### " * 40),
        Document("german", "Die Katze saß auf der Matte und ging dann hinaus, um den Hund zu suchen."),
        Document("code", CODE),
        Document("gpl", PROSE, {"license": "GPL-3.0"}),
        Document("good", PROSE, {"license": "MIT"}),
    ]
    kept, ledger = cleaned(
        documents,
        min_characters=10,
        max_characters=2000,
        quality=True,
        kinds=["text"],
        languages=["en"],
        licences=["MIT", "unknown"],
    )
    assert kept == ["good"]
    assert ledger.read == 7
    assert ledger.removed == {"length": 2, "licence": 1, "kind": 1, "quality": 1, "language": 1}
    told = {e["document"]: (e["rule"], e["why"]) for e in ledger.examples}
    assert told["short"] == ("length", "4 characters")
    assert told["gpl"] == ("licence", "GPL-3.0")
    assert told["german"] == ("language", "de")
    assert told["code"] == ("kind", "code")


def test_texts_without_a_word_are_left_out_and_counted_without_any_rule():
    spec = SourceSpec.model_validate({"domain": "text", "path": "x", "format": "instruct"})
    ledger = Ledger()
    rows = [Example("none", " ", "\n"), Example("half", "What?", ""), Example("one", "What?", "That.")]
    assert [item.id for item in clean(rows, spec, ledger)] == ["half", "one"]
    assert (ledger.read, ledger.removed) == (3, {"empty": 1})


def test_poor_texts_are_told_by_what_is_wrong():
    assert poor(PROSE) is None
    assert poor(CODE) is None
    assert "repeat" in poor("the same line again\n" * 20)
    assert "letters" in poor("1 2 3 4 5 6 7 8 9 " * 10)
    assert "a line of" in poor("abc def " * 3000)


def test_programs_are_perturbed_and_counted():
    documents = [Document("a", CODE), Document("b", "def (:\n  '")]
    kept, ledger = cleaned(documents, transform=["rename-variables", "remove-comments"])
    assert kept == ["a"]
    assert ledger.removed == {"transform": 1}
    assert ledger.transformed == {"changed": 1, "python": 1}


def test_subjects_of_instructions():
    items = [
        Example("c", "Write a Python function that reverses a list.", "```python\ndef f(x): ...\n```"),
        Example("m", "What is the sum of 3 and 4 times 2?", "3 + 8 = 11"),
        Example("o", "Who wrote Faust?", "Goethe wrote it."),
    ]
    assert cleaned(items, subjects=["coding"], format="instruct")[0] == ["c"]
    assert cleaned(items, subjects=["math", "other"], format="instruct")[0] == ["m", "o"]


@given(st.lists(st.text(max_size=5), max_size=40), st.randoms())
@settings(deadline=None, max_examples=50)
def test_the_order_is_by_content_and_not_by_arrival(tmp_path_factory, texts, rng):
    folder = tmp_path_factory.mktemp("s")
    documents = [Document(str(i), text) for i, text in enumerate(texts)]
    mixed = rng.sample(documents, len(documents))
    one = [d.text for d in shuffled(documents, "k", folder)]
    assert one == [d.text for d in shuffled(mixed, "k", folder)]
    assert sorted(one) == sorted(texts)
    assert not list(folder.iterdir())
    doubles = []
    unique = [
        d.text for d in shuffled(documents, "k", folder, lambda d, kept: doubles.append((d, kept)))
    ]
    assert sorted(unique) == sorted(set(texts))
    assert all(d.text == kept.text for d, kept in doubles)
    assert len(doubles) == len(texts) - len(unique)


def test_keys_give_other_orders(tmp_path):
    documents = [Document(str(i), str(i)) for i in range(50)]
    one, other = ([d.id for d in shuffled(documents, key, tmp_path)] for key in "ab")
    assert one != other != [d.id for d in documents]


def words(rng, n):
    return [
        f"{a}{b}" for a, b in zip(rng.choices("bdfgklmn", k=n), rng.choices("aeiou", k=n), strict=True)
    ]


def exact_jaccard(a, b):
    a, b = set(shingles(a)), set(shingles(b))
    return len(a & b) / len(a | b)


def test_planted_near_duplicates_are_found_and_nothing_else(tmp_path):
    """200 documents; 60 copies with a few words changed, at all degrees of likeness."""
    rng = random.Random(0)
    texts = [" ".join(words(rng, 150)) for _ in range(200)]
    copies = []
    for i in range(60):
        changed = texts[i].split()
        for _ in range(i // 6):
            changed[rng.randrange(len(changed))] = "zzz"
        copies.append(" ".join(changed))
    like = near_duplicates([*texts, *copies], 0.7, tmp_path)
    assert (like[:200] == -1).all()
    for i in range(60):
        truth = exact_jaccard(texts[i], copies[i])
        if truth > 0.82:
            assert like[200 + i] == i, truth
        elif truth < 0.55:
            assert like[200 + i] == -1, truth
    assert not list(tmp_path.iterdir())


def test_of_many_alike_the_first_is_kept(tmp_path):
    text = " ".join(words(random.Random(1), 80))
    like = near_duplicates(
        [text, "other words here", text + " end", text, text + " stop"], 0.8, tmp_path
    )
    assert like.tolist() == [-1, -1, 0, 0, 0]
    assert near_duplicates([], 0.8, tmp_path).tolist() == []
    assert near_duplicates(["", "a", ""], 0.9, tmp_path).dtype == np.int64


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_documents_at_the_threshold_hardly_ever_escape_the_bands(threshold):
    from codestage.data.duplicates import PERMUTATIONS, _bands

    bands = _bands(threshold)
    rows = bands[0].stop - bands[0].start
    assert rows * len(bands) == PERMUTATIONS
    assert (1 - threshold**rows) ** len(bands) < 0.01
