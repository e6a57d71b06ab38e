"""Find evaluation items in training documents, before anything is tokenised.

An item counts as found in a document if the document holds a large part of the item's runs of
words, or the whole of an item too short for such runs. Case, punctuation and spacing do not matter.
The share of 8-word runs follows Chowdhery et al., "PaLM", 2022, section 8: 70 per cent.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

# Scripts that put no space between words count each character as a word.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


class HasText(Protocol):
    """A document or an example."""

    @property
    def text(self) -> str: ...


Record = TypeVar("Record", bound=HasText)


@dataclass(frozen=True)
class Overlap(Generic[Record]):
    """Training records without evaluation items, and those that hold some."""

    kept: list[Record]
    removed: list[tuple[Record, tuple[str, ...]]]
    """Each with the ids of the items found in it, in the order of the items."""

    @property
    def by_item(self) -> dict[str, int]:
        """How many records held each item that was found."""
        return dict(Counter(item for _, items in self.removed for item in items))


def decontaminate(
    records: Iterable[Record], items: Mapping[str, str], *, words: int = 8, share: float = 0.7
) -> Overlap[Record]:
    """Part the records (documents or examples) by whether they hold any of `items` (id -> text).

    An item of more than `words` words is found where at least `share` of its distinct runs of
    `words` words occur in one record; a shorter one where it occurs whole; one without a word (only
    signs) where a record is equal to it but for spacing. Linear in all the text.
    """
    finder = _Finder(items, words, share)
    found = Overlap[Record]([], [])
    for record in records:
        hits = finder.items_in(record.text)
        if hits:
            found.removed.append((record, hits))
        else:
            found.kept.append(record)
    return found


def normalised(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def _runs(words: Sequence[str], length: int) -> list[str]:
    return [" ".join(words[i : i + length]) for i in range(len(words) - length + 1)]


class _Finder:
    """The items' runs of words, by length, for looking up those of a record."""

    def __init__(self, items: Mapping[str, str], words: int, share: float) -> None:
        self._ids = list(items)
        self._needed: list[float] = []  # distinct runs that must be found, for each item
        self._runs: dict[int, dict[str, list[int]]] = {}  # length -> run -> items with it
        self._signs: dict[str, list[int]] = {}
        for number, text in enumerate(items.values()):
            spoken = normalised(text)
            length = min(words, len(spoken))
            runs = set(_runs(spoken, length)) if spoken else set()
            self._needed.append(max(1.0, share * len(runs)))
            for run in runs:
                self._runs.setdefault(length, {}).setdefault(run, []).append(number)
            if not spoken:
                self._signs.setdefault("".join(text.split()), []).append(number)
        self._known = {word for runs in self._runs.values() for run in runs for word in run.split()}

    def items_in(self, text: str) -> tuple[str, ...]:
        spoken = normalised(text)
        if not spoken:
            return tuple(self._ids[n] for n in self._signs.get("".join(text.split()), ()))
        stretches = list(self._stretches(spoken))
        hits: Counter[int] = Counter()
        for length, runs in self._runs.items():
            present = {run for stretch in stretches for run in _runs(stretch, length)}
            for run in present & runs.keys():
                hits.update(runs[run])
        return tuple(self._ids[n] for n in sorted(hits) if hits[n] >= self._needed[n])

    def _stretches(self, spoken: list[str]) -> Iterator[list[str]]:
        """Longest stretches of words that occur in items: no run with another word can match."""
        start = 0
        for at, word in enumerate([*spoken, ""]):
            if word not in self._known:
                if at > start:
                    yield spoken[start:at]
                start = at + 1
