"""The small world's programs in languages without a frame around them: JavaScript, TypeScript, PHP."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from codestage.data.worlds.writer import Entry, Kind, Writer


def one_word(first: str, second: str) -> str:
    """Two strings, as they are written, as one with a space between."""
    return f"{first[:-1]} {second[1:]}"


class JavaScript(Writer):
    """Statements alone; a key of two words is one string with a space between."""

    title = "JavaScript"

    def declare(self, name: str, kind: Kind, value: str) -> str:
        return self._bind(name, kind, value)

    def declare_list(self, name: str, items: list[str]) -> list[str]:
        return [self._bind(name, "list", f"[{', '.join(items)}]")]

    def declare_map(self, name: str, kind: Kind, entries: Sequence[Entry]) -> list[str]:
        told = ", ".join(f"{key[1:-1]}: {value}" for key, value in entries)
        return [self._bind(name, kind, f"{{ {told} }}")]

    def declare_pairs(self, name: str, entries: Sequence[Entry]) -> list[str]:
        told = ", ".join(f"{one_word(a, b)}: {value}" for a, b, value in entries)
        return [self._bind(name, "pairs", f"{{ {told} }}")]

    def _bind(self, name: str, kind: Kind, value: str) -> str:
        word = "let" if name in self.rebound else "const"
        of = f": {self.names[kind]}" if kind in self.names else ""
        return f"{word} {name}{of} = {value};"

    def last(self, name: str) -> str:
        return f"{name}[{name}.length - 1]"

    def look_up(self, name: str, key: str) -> str:
        return f"{name}.{key[1:-1]}"

    def look_up_pair(self, name: str, first: str, second: str) -> str:
        if first.startswith('"'):
            return f"{name}[{one_word(first, second)}]"
        return f"{name}[`${{{first}}} ${{{second}}}`]"

    def put(self, name: str, key: str, value: str) -> str:
        return f"{name}.{key[1:-1]} = {value};"

    def reverse(self, name: str) -> list[str]:
        return [f"{name}.reverse();"]

    def rotate(self, name: str) -> list[str]:
        return [f"{name}.push({name}.shift());"]

    def say(self, value: str) -> str:
        return f"console.log({value});"

    def say_last_letters(self, name: str) -> list[str]:
        return [self.say(f'{name}.map((word) => word[word.length - 1]).join(" ")')]

    def say_backwards(self, name: str) -> list[str]:
        return [self.say(f'[...{name}].reverse().join(" ")')]

    def say_total(self, name: str) -> list[str]:
        return [self.say(f"Object.values({name}).reduce((total, count) => total + count, 0)")]


class TypeScript(JavaScript):
    """JavaScript that says what its variables hold."""

    title = "TypeScript"
    names: ClassVar[Mapping[Kind, str]] = {
        "number": "number",
        "truth": "boolean",
        "list": "string[]",
        "counts": "Record<string, number>",
        "table": "Record<string, string>",
        "pairs": "Record<string, string>",
    }

    def rotate(self, name: str) -> list[str]:
        return [f"{name}.push({name}.shift()!);"]


class Php(Writer):
    """Statements behind an opening tag; a key of two words is one string with a space between."""

    title = "PHP"

    def whole(self, body: list[str], above: list[str], below: list[str]) -> list[str]:
        return ["<?php", *above, *body, *below]

    def text(self, value: str) -> str:
        return f"'{value}'"

    def name(self, name: str) -> str:
        return f"${name}"

    def declare(self, name: str, kind: Kind, value: str) -> str:
        return f"${name} = {value};"

    def declare_list(self, name: str, items: list[str]) -> list[str]:
        return [f"${name} = [{', '.join(items)}];"]

    def declare_map(self, name: str, kind: Kind, entries: Sequence[Entry]) -> list[str]:
        return [f"${name} = [{', '.join(f'{key} => {value}' for key, value in entries)}];"]

    def declare_pairs(self, name: str, entries: Sequence[Entry]) -> list[str]:
        told = ", ".join(f"{one_word(a, b)} => {value}" for a, b, value in entries)
        return [f"${name} = [{told}];"]

    def last(self, name: str) -> str:
        return f"${name}[count(${name}) - 1]"

    def look_up_pair(self, name: str, first: str, second: str) -> str:
        if first.startswith("'"):
            return f"${name}[{one_word(first, second)}]"
        return f"${name}[{first} . ' ' . {second}]"

    def reverse(self, name: str) -> list[str]:
        return [f"${name} = array_reverse(${name});"]

    def rotate(self, name: str) -> list[str]:
        return [f"${name}[] = array_shift(${name});"]

    def say(self, value: str) -> str:
        return f"echo {value}, PHP_EOL;"

    def say_truth(self, name: str) -> list[str]:
        return self.say_either(f"${name}", "'true'", "'false'")

    def say_last_letters(self, name: str) -> list[str]:
        return [self.say(f"implode(' ', array_map(fn($word) => substr($word, -1), ${name}))")]

    def say_backwards(self, name: str) -> list[str]:
        return [self.say(f"implode(' ', array_reverse(${name}))")]

    def say_total(self, name: str) -> list[str]:
        return [self.say(f"array_sum(${name})")]
