import re

from hypothesis import given, settings
from hypothesis import strategies as st

from codestage.data.decontaminate import decontaminate, normalised
from codestage.data.sources import Document

texts = st.lists(st.sampled_from(["a", "b", "c", "A,", "d."]), max_size=14).map(" ".join)


def slow(text, item, words, share):
    """Whether an item is held, from the words of the docstring, with nested loops."""
    have, want = re.findall("[abcd]", text.lower()), re.findall("[abcd]", item.lower())
    if not want:
        return False
    n = min(words, len(want))
    runs = {tuple(want[i : i + n]) for i in range(len(want) - n + 1)}
    held = [run for run in runs if any(tuple(have[i : i + n]) == run for i in range(len(have)))]
    return len(held) >= max(1, share * len(runs))


@given(st.lists(texts, max_size=6), st.lists(texts, max_size=5), st.integers(1, 5), st.floats(0.1, 1))
@settings(max_examples=200, deadline=None)
def test_it_finds_what_nested_loops_find(documents, items, words, share):
    records = [Document(text, str(i)) for i, text in enumerate(documents)]
    named = {f"i{n}": item for n, item in enumerate(items)}
    overlap = decontaminate(records, named, words=words, share=share)
    expected = [
        tuple(name for name, item in named.items() if slow(record.text, item, words, share))
        for record in records
        if record.text
    ]
    found = {record.id: ids for record, ids in overlap.removed}
    assert [found.get(r.id, ()) for r in records if r.text] == expected
    assert len(overlap.kept) + len(overlap.removed) == len(records)


def test_case_signs_and_spacing_do_not_matter():
    assert normalised("The  cat's\n42 hats, 你好_x!") == [
        "the",
        "cat",
        "s",
        "42",
        "hats",
        "你",
        "好",
        "x",
    ]
