"""Cleaning a source: rules that each say what they removed, and why."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from codestage.data.answers_in_code import holds_program, perturb_answer
from codestage.data.classify import classifier, subject_of
from codestage.data.decontaminate import Overlap
from codestage.data.perturb import compiles, perturb
from codestage.data.sources import Document, Example, Item
from codestage.study.schema_sources import CleanSpec, SourceSpec

EXAMPLES = 20
"""Removed documents that the ledger names for each rule."""
Rule = Callable[[Item], str | None]
"""Why a document goes, or None where it stays."""


@dataclass
class Ledger:
    """What was read, what was removed by which rule, and some of it by name."""

    read: int = 0
    kept: int = 0
    characters: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    """Kept documents by what they are: code, code-text, markup, math, text."""
    contaminated: dict[str, int] = field(default_factory=dict)
    """Evaluation item -> documents that held it, word for word or nearly; all were removed."""
    training: dict[str, int] = field(default_factory=dict)
    """Task -> kept documents that hold an example of its training split, word for word or nearly."""
    transformed: dict[str, int] = field(default_factory=dict)
    """Of a perturbed source: documents changed, and those that are still of their language, by its name."""

    overlaps: list[Overlap] = field(default_factory=list)
    """Every removed document that held an evaluation item."""

    def add(self, part: "Ledger") -> None:
        """Take in what happened to a part of the source that comes after what is known."""
        self.read += part.read
        before = dict(self.removed)
        for mine, theirs in (
            (self.removed, part.removed),
            (self.contaminated, part.contaminated),
            (self.transformed, part.transformed),
        ):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        for example in part.examples:
            rule = example["rule"]
            before[rule] = before.get(rule, 0) + 1
            if before[rule] <= EXAMPLES:
                self.examples.append(example)
        self.overlaps += part.overlaps

    def remove(self, rule: str, document: str, why: str) -> None:
        """Count a removal, and keep the first of each rule by name."""
        self.removed[rule] = self.removed.get(rule, 0) + 1
        if self.removed[rule] <= EXAMPLES:
            self.examples.append({"document": document, "rule": rule, "why": why})

    def overlap(self, found: Overlap) -> None:
        """Count and list the removal of a document that holds evaluation items."""
        self.overlaps.append(found)
        rule = "evaluation item" if found.items else "near evaluation item"
        items = found.items + found.nearly
        self.remove(rule, found.document, ", ".join(items[:5]))
        for item in items:
            self.contaminated[item] = self.contaminated.get(item, 0) + 1

    def keep(self, item: Item, kind: str) -> None:
        self.kept += 1
        self.characters += len(item.content)
        self.kinds[kind] = self.kinds.get(kind, 0) + 1


def clean(items: Iterable[Item], spec: SourceSpec, ledger: Ledger) -> Iterator[Item]:
    """The items that hold anything and that every rule lets through, perturbed where the source says so."""
    rules: dict[str, Rule] = {}
    if spec.where:
        rules["where"] = lambda item: _where(item, spec.where or {})
    rules["empty"] = lambda item: None if item.content.strip() else "nothing but white space"
    rules |= _rules(spec.clean) if spec.clean else {}
    for item in items:
        ledger.read += 1
        for name, rule in rules.items():
            if why := rule(item):
                ledger.remove(name, item.id, why)
                break
        else:
            changed = _transform(item, spec, ledger)
            if changed is not None:
                yield changed


def _rules(spec: CleanSpec) -> dict[str, Rule]:
    """The rules that a source asks for, cheapest first."""
    rules: dict[str, Rule] = {}
    if spec.min_characters or spec.max_characters:
        rules["length"] = lambda item: _length(item, spec)
    if spec.licences:
        rules["licence"] = lambda item: _among(item, "license", spec.licences or ())
    if spec.kinds:
        kind = classifier(spec.classifier)
        rules["kind"] = lambda item: _not_in(kind(item.content), spec.kinds or ())
    if spec.subjects:
        rules["subject"] = lambda item: _subject(item, spec.subjects or ())
    if spec.quality:
        rules["quality"] = lambda item: poor(item.content)
    if spec.languages:
        rules["language"] = lambda item: _language(item, spec.languages or ())
    return rules


def _length(item: Item, spec: CleanSpec) -> str | None:
    size = len(item.content)
    if spec.min_characters and size < spec.min_characters:
        return f"{size} characters"
    return f"{size:,} characters" if spec.max_characters and size > spec.max_characters else None


def _where(item: Item, wanted: Mapping[str, tuple[str, ...]]) -> str | None:
    """What a row's columns hold other than is wanted."""
    held = (
        f"{column} {item.meta[column]}" for column in wanted if item.meta[column] not in wanted[column]
    )
    return ", ".join(held) or None


def _among(item: Item, key: str, allowed: tuple[str, ...]) -> str | None:
    """Unknown is not allowed: a licence that nobody stated is none."""
    return _not_in(item.meta.get(key, "unknown"), allowed)


def _not_in(value: str, allowed: tuple[str, ...]) -> str | None:
    return None if value in allowed else value


def _subject(item: Item, allowed: tuple[str, ...]) -> str | None:
    assert isinstance(item, Example)
    return _not_in(subject_of(item.prompt, item.response), allowed)


def _language(item: Item, allowed: tuple[str, ...]) -> str | None:
    import py3langid

    return _not_in(str(py3langid.classify(item.content[:4000])[0]), allowed)


def poor(text: str) -> str | None:
    """Why a text is poor. Three tenths of repeated lines are the limit of Rae et al. 2021 (Gopher,
    appendix A); the other limits are ours, wide enough for code.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "empty"
    if max(map(len, lines)) > 10_000:
        return f"a line of {max(map(len, lines)):,} characters"
    letters = sum(c.isalpha() for c in text)
    if letters < 0.25 * len(text):
        return f"{letters / len(text):.0%} letters"
    repeated = 1 - len(set(lines)) / len(lines)
    if len(lines) >= 10 and repeated > 0.3:
        return f"{repeated:.0%} of its lines repeat"
    return None


def _transform(item: Item, spec: SourceSpec, ledger: Ledger) -> Item | None:
    """The perturbed document; None, and counted, where it is not of the language."""
    if not spec.transform:
        return item
    language = spec.programs_in
    changed = _perturbed(item, spec.transform, language)
    if changed is None:
        ledger.remove("transform", item.id, f"no program in {language} that can be read")
        return None
    if isinstance(changed, Document):
        still = compiles(changed.text, language)
    else:
        still = holds_program(changed.response, language)
    for what, holds in (("changed", changed != item), (language, still)):
        ledger.transformed[what] = ledger.transformed.get(what, 0) + holds
    return changed


def _perturbed(item: Item, names: tuple[str, ...], language: str) -> Item | None:
    """A program, or the programs in an instruction's answers; None where there are none."""
    if isinstance(item, Document):
        text: str | None = item.text
        for name in names:
            text = perturb(name, text, 0, language) if text is not None else None
        return None if text is None else replace(item, text=text)
    answers = [(asked, perturb_answer(names, answer, language)) for asked, answer in item.exchanges]
    told = [(asked, answer) for asked, answer in answers if answer is not None]
    if len(told) < len(answers):
        return None
    return replace(item, response=told[0][1], more=tuple(told[1:]))
