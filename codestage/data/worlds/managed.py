"""The small world's programs in Java, C# and Go: a main of their own, and a library that they import."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from codestage.data.worlds.writer import Entry, Kind, Writer


def indented(lines: list[str], by: str) -> list[str]:
    """The lines, further in."""
    return [by + line for line in lines]


class Java(Writer):
    """A class with a main; lists and tables are those of java.util."""

    title = "Java"
    names: ClassVar[Mapping[Kind, str]] = {"number": "int", "truth": "boolean"}

    def head(self) -> list[str]:
        imports = [f"import java.util.{name};" for name in sorted(self.needs)]
        return [*imports, ""] if imports else []

    def main(self, body: list[str]) -> list[str]:
        return [
            "public class Main {",
            "    public static void main(String[] args) {",
            *indented(body, " " * 8),
            "    }",
            "}",
        ]

    def declare_list(self, name: str, items: list[str]) -> list[str]:
        self.needs.add("List")
        made = f"List.of({', '.join(items)})"
        if name in self.refilled:
            self.needs.add("ArrayList")
            made = f"new ArrayList<>({made})"
        return [f"List<String> {name} = {made};"]

    def declare_map(self, name: str, kind: Kind, entries: Sequence[Entry]) -> list[str]:
        return self._map(name, "String", "Integer" if kind == "counts" else "String", entries)

    def declare_pairs(self, name: str, entries: Sequence[Entry]) -> list[str]:
        self.needs.add("List")
        told = [(f"List.of({a}, {b})", value) for a, b, value in entries]
        return self._map(name, "List<String>", "String", told)

    def _map(self, name: str, of: str, to: str, entries: Sequence[Entry]) -> list[str]:
        self.needs |= {"HashMap", "Map"}
        made = f"Map<{of}, {to}> {name} = new HashMap<>();"
        return [made, *(self.put(name, key, value) for key, value in entries)]

    def at(self, name: str, place: int) -> str:
        return f"{name}.get({place})"

    def last(self, name: str) -> str:
        return f"{name}.get({name}.size() - 1)"

    def look_up(self, name: str, key: str) -> str:
        return f"{name}.get({key})"

    def look_up_pair(self, name: str, first: str, second: str) -> str:
        return f"{name}.get(List.of({first}, {second}))"

    def put(self, name: str, key: str, value: str) -> str:
        return f"{name}.put({key}, {value});"

    def reverse(self, name: str) -> list[str]:
        self.needs.add("Collections")
        return [f"Collections.reverse({name});"]

    def rotate(self, name: str) -> list[str]:
        return [f"{name}.add({name}.remove(0));"]

    def say(self, value: str) -> str:
        return f"System.out.println({value});"

    def say_last_letters(self, name: str) -> list[str]:
        self.needs.add("stream.Collectors")
        letters = f"{name}.stream().map(word -> word.substring(word.length() - 1))"
        return [self.say(f'{letters}.collect(Collectors.joining(" "))')]

    def say_backwards(self, name: str) -> list[str]:
        self.needs |= {"ArrayList", "Collections"}
        return [
            f"List<String> reversed = new ArrayList<>({name});",
            "Collections.reverse(reversed);",
            self.say('String.join(" ", reversed)'),
        ]

    def say_total(self, name: str) -> list[str]:
        return [self.say(f"{name}.values().stream().mapToInt(Integer::intValue).sum()")]


class CSharp(Writer):
    """A class with a Main; what is asked of lists is Linq's."""

    title = "C#"
    names: ClassVar[Mapping[Kind, str]] = {"number": "int", "truth": "bool"}

    def head(self) -> list[str]:
        return [f"using {name};" for name in ("System", *sorted(self.needs))] + [""]

    def main(self, body: list[str]) -> list[str]:
        start = ["class Program", "{", "    static void Main()", "    {"]
        return [*start, *indented(body, " " * 8), "    }", "}"]

    def declare_list(self, name: str, items: list[str]) -> list[str]:
        self.needs.add("System.Collections.Generic")
        return [f"var {name} = new List<string> {{ {', '.join(items)} }};"]

    def declare_map(self, name: str, kind: Kind, entries: Sequence[Entry]) -> list[str]:
        return self._map(name, "string", "int" if kind == "counts" else "string", entries)

    def declare_pairs(self, name: str, entries: Sequence[Entry]) -> list[str]:
        told = [(f"({a}, {b})", value) for a, b, value in entries]
        return self._map(name, "(string, string)", "string", told)

    def _map(self, name: str, of: str, to: str, entries: Sequence[Entry]) -> list[str]:
        self.needs.add("System.Collections.Generic")
        told = ", ".join(f"[{key}] = {value}" for key, value in entries)
        return [f"var {name} = new Dictionary<{of}, {to}> {{ {told} }};"]

    def last(self, name: str) -> str:
        self.needs.add("System.Linq")
        return f"{name}.Last()"

    def look_up_pair(self, name: str, first: str, second: str) -> str:
        return f"{name}[({first}, {second})]"

    def reverse(self, name: str) -> list[str]:
        return [f"{name}.Reverse();"]

    def rotate(self, name: str) -> list[str]:
        return [f"{name}.Add({name}[0]);", f"{name}.RemoveAt(0);"]

    def say(self, value: str) -> str:
        return f"Console.WriteLine({value});"

    def say_truth(self, name: str) -> list[str]:
        return [self.say(f"{name}.ToString().ToLower()")]

    def say_last_letters(self, name: str) -> list[str]:
        self.needs.add("System.Linq")
        return [self.say(f'string.Join(" ", {name}.Select(word => word.Last()))')]

    def say_backwards(self, name: str) -> list[str]:
        self.needs.add("System.Linq")
        return [self.say(f'string.Join(" ", Enumerable.Reverse({name}))')]

    def say_total(self, name: str) -> list[str]:
        self.needs.add("System.Linq")
        return [self.say(f"{name}.Values.Sum()")]


class Go(Writer):
    """A package main; statements end with their lines, and blocks are indented by tabs."""

    title = "Go"
    end = ""

    def head(self) -> list[str]:
        names = sorted({"fmt", *self.needs})
        if len(names) == 1:
            return ["package main", "", 'import "fmt"', ""]
        return ["package main", "", "import (", *(f'\t"{name}"' for name in names), ")", ""]

    def main(self, body: list[str]) -> list[str]:
        return ["func main() {", *indented(body, "\t"), "}"]

    def declare(self, name: str, kind: Kind, value: str) -> str:
        return f"{name} := {value}"

    def declare_list(self, name: str, items: list[str]) -> list[str]:
        return [f"{name} := []string{{{', '.join(items)}}}"]

    def declare_map(self, name: str, kind: Kind, entries: Sequence[Entry]) -> list[str]:
        told = ", ".join(f"{key}: {value}" for key, value in entries)
        return [f"{name} := map[string]{'int' if kind == 'counts' else 'string'}{{{told}}}"]

    def declare_pairs(self, name: str, entries: Sequence[Entry]) -> list[str]:
        told = ", ".join(f"{{{a}, {b}}}: {value}" for a, b, value in entries)
        return [f"{name} := map[[2]string]string{{{told}}}"]

    def last(self, name: str) -> str:
        return f"{name}[len({name})-1]"

    def look_up_pair(self, name: str, first: str, second: str) -> str:
        return f"{name}[[2]string{{{first}, {second}}}]"

    def reverse(self, name: str) -> list[str]:
        self.needs.add("slices")
        return [f"slices.Reverse({name})"]

    def rotate(self, name: str) -> list[str]:
        return [f"{name} = append({name}[1:], {name}[0])"]

    def say(self, value: str) -> str:
        return f"fmt.Println({value})"

    def say_either(self, test: str, yes: str, no: str) -> list[str]:
        return [f"if {test} {{", f"\t{self.say(yes)}", "} else {", f"\t{self.say(no)}", "}"]

    def say_last_letters(self, name: str) -> list[str]:
        self.needs.add("strings")
        return [
            "letters := []string{}",
            f"for _, word := range {name} {{",
            "\tletters = append(letters, word[len(word)-1:])",
            "}",
            self.say('strings.Join(letters, " ")'),
        ]

    def say_backwards(self, name: str) -> list[str]:
        self.needs |= {"slices", "strings"}
        return [f"slices.Reverse({name})", self.say(f'strings.Join({name}, " ")')]

    def say_total(self, name: str) -> list[str]:
        return [
            "total := 0",
            f"for _, count := range {name} {{",
            "\ttotal += count",
            "}",
            self.say("total"),
        ]
