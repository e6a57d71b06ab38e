"""Finding evaluation items in training data, by word n-grams, in one pass over the documents."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from codestage.data.sources import Item

T = TypeVar("T", bound=Item)
WORDS = re.compile(r"\w+")
SHORT, GRAM, PROBE = 40, 13, 8
"""Items of up to 40 words are looked for whole, by their first 8 words; longer ones by 13 in a row, the
length that Brown et al. 2020 (GPT-3, appendix C) used."""


def normalise(text: str) -> list[str]:
    """Lower-case words and numbers; punctuation and spacing do not hide an overlap."""
    return WORDS.findall(text.lower())


@dataclass(frozen=True)
class Overlap:
    """A document that holds an evaluation item."""

    document: str
    items: tuple[str, ...]


@dataclass
class Findings:
    """What was looked at and what was taken out."""

    documents: int = 0
    removed: list[Overlap] = field(default_factory=list)


class Index:
    """Evaluation items by their words.

    A document holds an item of up to `SHORT` words if all of them stand in it in a row. It holds a
    longer item if any `GRAM` of its words in a row stand in it that no other item has (wording that
    a task's template gives to many items says nothing about one of them).
    """

    def __init__(self, items: Mapping[str, str]) -> None:
        self._probes: dict[tuple[str, ...], list[tuple[str, tuple[str, ...]]]] = {}
        grams: dict[tuple[str, ...], list[str]] = {}
        for name, text in items.items():
            words = tuple(normalise(text))
            if not words:
                continue
            if len(words) <= SHORT:
                self._probes.setdefault(words[:PROBE], []).append((name, words))
            else:
                for gram in {words[i : i + GRAM] for i in range(len(words) - GRAM + 1)}:
                    grams.setdefault(gram, []).append(name)
        for gram, names in grams.items():
            if len(names) == 1:
                self._probes.setdefault(gram, []).append((names[0], gram))
        self._lengths = sorted({len(probe) for probe in self._probes})

    def find(self, text: str) -> tuple[str, ...]:
        """Names of the items that `text` holds."""
        words = tuple(normalise(text))
        found: dict[str, None] = {}
        for length in self._lengths:
            for i in range(len(words) - length + 1):
                for name, whole in self._probes.get(words[i : i + length], ()):
                    if words[i : i + len(whole)] == whole:
                        found[name] = None
        return tuple(found)


def decontaminate(documents: Iterable[T], index: Index, findings: Findings) -> Iterator[T]:
    """The documents that hold no evaluation item, one at a time; `findings` takes what was removed."""
    for document in documents:
        findings.documents += 1
        if found := index.find(document.content.replace("\x1f", " ")):
            findings.removed.append(Overlap(document.id, found))
        else:
            yield document
