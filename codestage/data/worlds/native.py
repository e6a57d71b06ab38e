"""The small world's programs in C, C++ and Rust."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from codestage.data.worlds.writer import Entry, Kind, Writer

BY_WORD = """\
struct entry {
    const char *key;
    const char *value;
};

static const char **look_up(struct entry *table, const char *key) {
    while (strcmp(table->key, key) != 0) {
        table++;
    }
    return &table->value;
}
"""
BY_PAIR = """\
struct entry {
    const char *first;
    const char *second;
    const char *value;
};

static const char *look_up(const struct entry *table, const char *first, const char *second) {
    while (strcmp(table->first, first) != 0 || strcmp(table->second, second) != 0) {
        table++;
    }
    return table->value;
}
"""
COUNT = """\
struct entry {
    const char *key;
    int count;
};
"""
REVERSE = """\
static void reverse(const char **words, int length) {
    for (int i = 0, j = length - 1; i < j; i++, j--) {
        const char *word = words[i];
        words[i] = words[j];
        words[j] = word;
    }
}
"""
ROTATE = """\
static void rotate(const char **words, int length) {
    const char *first = words[0];
    memmove(words, words + 1, (length - 1) * sizeof words[0]);
    words[length - 1] = first;
}
"""


def indented(lines: list[str]) -> list[str]:
    """The lines, further in."""
    return ["    " + line for line in lines]


class C(Writer):
    """C99. Tables are arrays of entries; what the library lacks stands before main."""

    title = "C"
    names: ClassVar[Mapping[Kind, str]] = {"number": "int", "truth": "bool"}

    def head(self) -> list[str]:
        headers = {"stdio.h"} | {need for need in self.needs if need.endswith(".h")}
        functions = [text for text in (BY_WORD, BY_PAIR, COUNT, REVERSE, ROTATE) if text in self.needs]
        before = [line for text in functions for line in text.split("\n")]
        return [*(f"#include <{name}>" for name in sorted(headers)), "", *before]

    def main(self, body: list[str]) -> list[str]:
        return ["int main(void) {", *indented([*body, "return 0;"]), "}"]

    def declare(self, name: str, kind: Kind, value: str) -> str:
        if kind == "truth":
            self.needs.add("stdbool.h")
        return super().declare(name, kind, value)

    def declare_list(self, name: str, items: list[str]) -> list[str]:
        return [f"const char *{name}[] = {{{', '.join(items)}}};"]

    def declare_map(self, name: str, kind: Kind, entries: Sequence[Entry]) -> list[str]:
        self.needs |= {COUNT} if kind == "counts" else {BY_WORD, "string.h"}
        return self._entries(name, entries)

    def declare_pairs(self, name: str, entries: Sequence[Entry]) -> list[str]:
        self.needs |= {BY_PAIR, "string.h"}
        return self._entries(name, entries)

    def _entries(self, name: str, entries: Sequence[Entry]) -> list[str]:
        told = ", ".join(f"{{{', '.join(entry)}}}" for entry in entries)
        return [f"struct entry {name}[] = {{{told}}};"]

    def last(self, name: str) -> str:
        return f"{name}[{self.lengths[name] - 1}]"

    def look_up(self, name: str, key: str) -> str:
        return f"*look_up({name}, {key})"

    def look_up_pair(self, name: str, first: str, second: str) -> str:
        return f"look_up({name}, {first}, {second})"

    def put(self, name: str, key: str, value: str) -> str:
        return f"*look_up({name}, {key}) = {value};"

    def reverse(self, name: str) -> list[str]:
        self.needs.add(REVERSE)
        return [f"reverse({name}, {self.lengths[name]});"]

    def rotate(self, name: str) -> list[str]:
        self.needs |= {ROTATE, "string.h"}
        return [f"rotate({name}, {self.lengths[name]});"]

    def say(self, value: str) -> str:
        return f'printf("%s\\n", {value});'

    def say_number(self, value: str) -> str:
        return f'printf("%d\\n", {value});'

    def say_truth(self, name: str) -> list[str]:
        return self.say_either(name, '"true"', '"false"')

    def say_last_letters(self, name: str) -> list[str]:
        self.needs.add("string.h")
        length = self.lengths[name]
        return [
            f"for (int i = 0; i < {length}; i++) {{",
            f"    char letter = {name}[i][strlen({name}[i]) - 1];",
            f'    printf("%c%s", letter, i < {length - 1} ? " " : "\\n");',
            "}",
        ]

    def say_backwards(self, name: str) -> list[str]:
        return [
            f"for (int i = {self.lengths[name] - 1}; i >= 0; i--) {{",
            f'    printf("%s%s", {name}[i], i > 0 ? " " : "\\n");',
            "}",
        ]

    def say_total(self, name: str) -> list[str]:
        return [
            "int total = 0;",
            f"for (int i = 0; i < {self.lengths[name]}; i++) {{",
            f"    total += {name}[i].count;",
            "}",
            self.say_number("total"),
        ]


class Cpp(Writer):
    """C++17 with the standard containers."""

    title = "C++"
    names: ClassVar[Mapping[Kind, str]] = {
        "number": "int",
        "truth": "bool",
        "list": "std::vector<std::string>",
        "counts": "std::map<std::string, int>",
        "table": "std::map<std::string, std::string>",
        "pairs": "std::map<std::pair<std::string, std::string>, std::string>",
    }

    def head(self) -> list[str]:
        return [*(f"#include <{name}>" for name in sorted({"iostream", *self.needs})), ""]

    def main(self, body: list[str]) -> list[str]:
        return ["int main() {", *indented([*body, "return 0;"]), "}"]

    def declare_list(self, name: str, items: list[str]) -> list[str]:
        self.needs |= {"string", "vector"}
        return [self.declare(name, "list", f"{{{', '.join(items)}}}")]

    def declare_map(self, name: str, kind: Kind, entries: Sequence[Entry]) -> list[str]:
        self.needs |= {"map", "string"}
        told = ", ".join(f"{{{key}, {value}}}" for key, value in entries)
        return [self.declare(name, kind, f"{{{told}}}")]

    def declare_pairs(self, name: str, entries: Sequence[Entry]) -> list[str]:
        self.needs |= {"map", "string", "utility"}
        told = ", ".join(f"{{{{{a}, {b}}}, {value}}}" for a, b, value in entries)
        return [self.declare(name, "pairs", f"{{{told}}}")]

    def last(self, name: str) -> str:
        return f"{name}.back()"

    def look_up_pair(self, name: str, first: str, second: str) -> str:
        return f"{name}[{{{first}, {second}}}]"

    def reverse(self, name: str) -> list[str]:
        self.needs.add("algorithm")
        return [f"std::reverse({name}.begin(), {name}.end());"]

    def rotate(self, name: str) -> list[str]:
        self.needs.add("algorithm")
        return [f"std::rotate({name}.begin(), {name}.begin() + 1, {name}.end());"]

    def say(self, value: str) -> str:
        return f'std::cout << {value} << "\\n";'

    def say_truth(self, name: str) -> list[str]:
        return [self.say(f"std::boolalpha << {name}")]

    def say_either(self, test: str, yes: str, no: str) -> list[str]:
        return [self.say(f"({test} ? {yes} : {no})")]

    def say_last_letters(self, name: str) -> list[str]:
        return self._joined(name, f"{name}[i].back()")

    def say_backwards(self, name: str) -> list[str]:
        return [*self.reverse(name), *self._joined(name, f"{name}[i]")]

    def _joined(self, name: str, item: str) -> list[str]:
        return [
            f"for (std::size_t i = 0; i < {name}.size(); i++) {{",
            f'    std::cout << (i > 0 ? " " : "") << {item};',
            "}",
            'std::cout << "\\n";',
        ]

    def say_total(self, name: str) -> list[str]:
        return [
            "int total = 0;",
            f"for (const auto& [key, count] : {name}) {{",
            "    total += count;",
            "}",
            self.say("total"),
        ]


class Rust(Writer):
    """A fn main; tables are hash maps."""

    title = "Rust"

    def head(self) -> list[str]:
        return [*(f"use {name};" for name in sorted(self.needs)), ""] if self.needs else []

    def main(self, body: list[str]) -> list[str]:
        return ["fn main() {", *indented(body), "}"]

    def declare(self, name: str, kind: Kind, value: str) -> str:
        word = "let mut" if name in self.rebound | self.refilled else "let"
        return f"{word} {name} = {value};"

    def declare_list(self, name: str, items: list[str]) -> list[str]:
        return [self.declare(name, "list", f"vec![{', '.join(items)}]")]

    def declare_map(self, name: str, kind: Kind, entries: Sequence[Entry]) -> list[str]:
        return self._map(name, kind, entries)

    def declare_pairs(self, name: str, entries: Sequence[Entry]) -> list[str]:
        return self._map(name, "pairs", [(f"({a}, {b})", value) for a, b, value in entries])

    def _map(self, name: str, kind: Kind, entries: Sequence[Entry]) -> list[str]:
        self.needs.add("std::collections::HashMap")
        told = ", ".join(f"({key}, {value})" for key, value in entries)
        return [self.declare(name, kind, f"HashMap::from([{told}])")]

    def last(self, name: str) -> str:
        return f"{name}[{name}.len() - 1]"

    def look_up_pair(self, name: str, first: str, second: str) -> str:
        return f"{name}[&({first}, {second})]"

    def put(self, name: str, key: str, value: str) -> str:
        return f"{name}.insert({key}, {value});"

    def reverse(self, name: str) -> list[str]:
        return [f"{name}.reverse();"]

    def rotate(self, name: str) -> list[str]:
        return [f"{name}.rotate_left(1);"]

    def say(self, value: str) -> str:
        return f'println!("{{}}", {value});'

    def say_either(self, test: str, yes: str, no: str) -> list[str]:
        return [self.say(f"if {test} {{ {yes} }} else {{ {no} }}")]

    def say_last_letters(self, name: str) -> list[str]:
        made = f"{name}.iter().map(|word| &word[word.len() - 1..]).collect()"
        return [f"let letters: Vec<&str> = {made};", self.say('letters.join(" ")')]

    def say_backwards(self, name: str) -> list[str]:
        made = f"{name}.iter().rev().copied().collect()"
        return [f"let reversed: Vec<&str> = {made};", self.say('reversed.join(" ")')]

    def say_total(self, name: str) -> list[str]:
        return [self.say(f"{name}.values().sum::<i32>()")]
