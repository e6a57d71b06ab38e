"""Finding evaluation items in training data, word for word or nearly, in one pass over the documents."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from codestage.data.sources import Item

T = TypeVar("T", bound=Item)
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Chinese characters."""
WORDS = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
SIGN = re.compile(f"[{UNSPACED}]")
SHORT, GRAM, PROBE = 40, 13, 8
"""Items of up to 40 words are looked for whole, by their first 8 words; longer ones by 13 in a row, the
length that Brown et al. 2020 (GPT-3, appendix C) used. Two signs of a script without spaces count as a word."""
SHINGLE, NEAR, FEWEST, SHARED = 5, 0.55, 16, 3
"""Nearly: more than half of an item's runs of 5 words, so that three changed words in forty do not hide it.
Runs that more than 3 items share count for nothing, and an item needs 16 of its own."""


def normalise(text: str) -> list[str]:
    """Lower-case words and numbers, and each sign of a script without spaces by itself; punctuation and spacing
    do not hide an overlap.
    """
    return WORDS.findall(text.lower())


@dataclass(frozen=True)
class Overlap:
    """A document that holds evaluation items, word for word or nearly."""

    document: str
    items: tuple[str, ...]
    nearly: tuple[str, ...]


class Index:
    """Items by their words.

    A document holds an item of up to `SHORT` words if all of them stand in it in a row. It holds a
    longer item if any `GRAM` of its words in a row stand in it that no other item has (wording that
    a task's template gives to many items says nothing about one of them); where an item has none of its own,
    if all of its words do.
    """

    def __init__(self, items: Mapping[str, str]) -> None:
        self._probes: dict[tuple[str, ...], list[tuple[str, tuple[str, ...]]]] = {}
        grams: dict[tuple[str, ...], list[str]] = {}
        split = {name: tuple(normalise(text)) for name, text in items.items()}
        for name, words in split.items():
            if not words:
                continue
            signs = 2 if sum(map(bool, map(SIGN.match, words))) > len(words) / 2 else 1
            if len(words) <= signs * SHORT:
                self._probes.setdefault(words[:PROBE], []).append((name, words))
            else:
                for gram in set(_runs(words, signs * GRAM)):
                    grams.setdefault(gram, []).append(name)
        without_own = {name for names in grams.values() for name in names}
        for gram, names in grams.items():
            if len(names) == 1:
                self._probes.setdefault(gram, []).append((names[0], gram))
                without_own.discard(names[0])
        for name, words in split.items():  # in their order: a ledger lists them in that of the probes
            if name in without_own:
                self._probes.setdefault(words[:PROBE], []).append((name, words))
        self._lengths = sorted({len(probe) for probe in self._probes})
        self._near = _Shingles(split)

    def find(self, text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the items that `text` holds: (word for word, nearly)."""
        words = tuple(normalise(text))
        found: dict[str, None] = {}
        for length in self._lengths:
            for i in range(len(words) - length + 1):
                for name, whole in self._probes.get(words[i : i + length], ()):
                    if words[i : i + len(whole)] == whole:
                        found[name] = None
        return tuple(found), tuple(name for name in self._near.find(words) if name not in found)


class _Shingles:
    """Items by their runs of `SHINGLE` words, without those that many items share."""

    def __init__(self, items: Mapping[str, tuple[str, ...]]) -> None:
        names: dict[tuple[str, ...], list[str]] = {}
        for name, words in items.items():
            for run in set(_runs(words, SHINGLE)):
                names.setdefault(run, []).append(name)
        own = {run: found for run, found in names.items() if len(found) <= SHARED}
        count: dict[str, int] = {}
        for found in own.values():
            for name in found:
                count[name] = count.get(name, 0) + 1
        self._needed = {name: math.ceil(NEAR * n) for name, n in count.items() if n >= FEWEST}
        self._reach = {name: 2 * len(items[name]) for name in self._needed}
        self._items = {run: kept for run, found in own.items() if (kept := self._long_enough(found))}

    def _long_enough(self, names: list[str]) -> list[str]:
        return [name for name in names if name in self._needed]

    def find(self, words: tuple[str, ...]) -> Iterator[str]:
        """Items of which enough runs stand within twice the item's length."""
        hits: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        for i, run in enumerate(_runs(words, SHINGLE)):
            for name in self._items.get(run, ()):
                hits.setdefault(name, []).append((i, run))
        for name, found in hits.items():
            if len(found) >= self._needed[name] and self._stand_near(name, found):
                yield name

    def _stand_near(self, name: str, found: list[tuple[int, tuple[str, ...]]]) -> bool:
        """Whether enough of `found`, places of an item's runs in order, are different runs within its reach."""
        needed, reach = self._needed[name], self._reach[name]
        inside: dict[tuple[str, ...], int] = {}
        first = 0
        for place, run in found:
            inside[run] = inside.get(run, 0) + 1
            while place - found[first][0] > reach:
                gone = found[first][1]
                inside[gone] -= 1
                if not inside[gone]:
                    del inside[gone]
                first += 1
            if len(inside) >= needed:
                return True
        return False


def _runs(words: tuple[str, ...], length: int) -> Iterator[tuple[str, ...]]:
    return (words[i : i + length] for i in range(len(words) - length + 1))


def decontaminate(
    documents: Iterable[T], index: Index, removed: Callable[[Overlap], None]
) -> Iterator[T]:
    """The documents that hold no evaluation item, one at a time; `removed` is told of the others."""
    for document in documents:
        items, nearly = index.find(document.content.replace("\x1f", " "))
        if items or nearly:
            removed(Overlap(document.id, items, nearly))
        else:
            yield document
