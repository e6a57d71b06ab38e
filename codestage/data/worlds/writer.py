"""The small world's Python programs, read statement by statement, for writers of other languages.

A `Writer` knows which few things those programs do; a language's own class says how each is written there.
"""

import ast
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from codestage.errors import RunError

Kind = Literal["number", "truth", "list", "counts", "table", "pairs"]
"""Of a variable: `counts` maps words to numbers, `table` words to words, `pairs` two words to one."""
Entry = tuple[str, ...]
"""The key's word, or words, and the value, as they are written."""
SIGNS: dict[type, str] = {ast.Add: "+", ast.Sub: "-", ast.And: "&&", ast.Or: "||"}


class Writer(ABC):
    """Writes one program. What stands here is common to languages with braces and semicolons."""

    title: str
    """The language's name, for people."""
    end = ";"
    """What ends a statement."""
    names: ClassVar[Mapping[Kind, str]] = {}
    """What the language calls each kind of variable, where it says so."""

    def __init__(self, program: str) -> None:
        self.kinds: dict[str, Kind] = {}
        self.lengths: dict[str, int] = {}
        self.needs: set[str] = set()
        """What the body uses of the language's library, or of functions that stand before it."""
        self.rebound: set[str] = set()
        """Variables that are given a value more than once."""
        self.refilled: set[str] = set()
        """Lists and tables that hold something else later."""
        self._program = program
        stored: set[str] = set()
        for node in ast.walk(ast.parse(program)):
            match node:
                case ast.Name(name, ast.Store()):
                    (self.rebound if name in stored else stored).add(name)
                case ast.Subscript(ast.Name(name), ctx=ast.Store()):
                    self.refilled.add(name)
                case ast.Attribute(ast.Name(name), "reverse" | "append"):
                    self.refilled.add(name)

    # the whole program

    def write(self, above: Sequence[str] = (), below: Sequence[str] = ()) -> str:
        """The program, with the same comments at the same places; `above` and `below` are more of them.

        Raises:
            RunError: the program does something that no writer knows.
        """
        body = [line for told in self._program.split("\n") for line in self._line(told)]
        made = self.whole(body, [self.comment(a) for a in above], [self.comment(b) for b in below])
        return "\n".join(made)

    def whole(self, body: list[str], above: list[str], below: list[str]) -> list[str]:
        """All lines of the file."""
        return [*above, *self.head(), *self.main(body), *below]

    def head(self) -> list[str]:
        """What stands before the program itself: what it needs."""
        return []

    def main(self, body: list[str]) -> list[str]:
        """The statements, inside of what the language wants around them."""
        return body

    def comment(self, text: str) -> str:
        return f"// {text}"

    def _line(self, line: str) -> list[str]:
        code, sign, said = line.partition("#")  # no word of the small world holds this sign
        if not code.strip():
            return [self.comment(said.strip())]
        (statement,) = ast.parse(code.strip()).body
        first, *rest = self.statement(statement)
        return [f"{first} {self.comment(said.strip())}" if sign else first, *rest]

    # statements

    def statement(self, node: ast.stmt) -> list[str]:
        """One statement of Python as lines of the language."""
        match node:
            case ast.Assign([ast.Name(name)], value):
                if name not in self.kinds:
                    return self._declare(name, value)
                return [f"{self.name(name)} = {self.expression(value)}{self.end}"]
            case ast.AugAssign(ast.Name(name), operator, value):
                return [f"{self.name(name)} {SIGNS[type(operator)]}= {self.expression(value)}{self.end}"]
            case ast.Assign(
                [ast.Subscript(ast.Name(name), ast.Constant(str(key)))], ast.Constant(str(value))
            ):
                return [self.put(name, self.text(key), self.text(value))]
            case ast.Expr(ast.Call(ast.Name("print"), [value])):
                return self._print(value)
            case ast.Expr(ast.Call(ast.Attribute(ast.Name(name), "reverse"), [])):
                return self.reverse(name)
            case ast.Expr(
                ast.Call(
                    ast.Attribute(ast.Name(name), "append"),
                    [ast.Call(ast.Attribute(ast.Name(same), "pop"), [ast.Constant(0)])],
                )
            ) if name == same:
                return self.rotate(name)
        raise self._unknown(node)

    def _unknown(self, node: ast.AST) -> RunError:
        return RunError(
            f"{ast.unparse(node)!r} of the small world has no {self.title}; write it as other skills do, or "
            "say how in codestage/data/worlds/writer.py"
        )

    def _declare(self, name: str, value: ast.expr) -> list[str]:
        match value:
            case ast.List(items):
                self.kinds[name], self.lengths[name] = "list", len(items)
                return self.declare_list(name, [self.expression(item) for item in items])
            case ast.Dict([ast.Tuple(), *_] as keys, values):
                self.kinds[name] = "pairs"
                entries = [
                    (*(self.expression(word) for word in key.elts), self.expression(said))
                    for key, said in zip(keys, values, strict=True)
                    if isinstance(key, ast.Tuple)
                ]
                return self.declare_pairs(name, entries)
            case ast.Dict(keys, [ast.Constant(first), *_] as values):
                kind: Kind = "counts" if isinstance(first, int) else "table"
                self.kinds[name] = kind
                found = [
                    (self.expression(key), self.expression(said))
                    for key, said in zip(keys, values, strict=True)
                    if key is not None
                ]
                self.lengths[name] = len(found)
                return self.declare_map(name, kind, found)
        self.kinds[name] = self._kind(value)
        return [self.declare(name, self.kinds[name], self.expression(value))]

    def _kind(self, value: ast.expr) -> Kind:
        match value:
            case ast.Constant(bool()) | ast.UnaryOp(ast.Not()):
                return "truth"
            case ast.Constant(int()):
                return "number"
        raise self._unknown(value)

    def _print(self, value: ast.expr) -> list[str]:
        match value:
            case ast.IfExp(test, ast.Constant(str(yes)), ast.Constant(str(no))):
                return self.say_either(self.expression(test), self.text(yes), self.text(no))
            case ast.Call(ast.Attribute(ast.Call(ast.Name("str"), [ast.Name(name)]), "lower"), []):
                return self.say_truth(name)
            case ast.Call(ast.Name("sum"), [ast.Call(ast.Attribute(ast.Name(name), "values"), [])]):
                return self.say_total(name)
            case ast.Call(ast.Attribute(ast.Constant(" "), "join"), [joined]):
                return self._print_joined(joined)
            case ast.Name(name):
                return [self.say_number(self.name(name))]
            case ast.Subscript():
                return [self.say(self.expression(value))]
        raise self._unknown(value)

    def _print_joined(self, joined: ast.expr) -> list[str]:
        match joined:
            case ast.Call(ast.Name("reversed"), [ast.Name(name)]):
                return self.say_backwards(name)
            case ast.GeneratorExp(
                ast.Subscript(ast.Name("word"), ast.UnaryOp(ast.USub(), ast.Constant(1))),
                [ast.comprehension(ast.Name("word"), ast.Name(name), [])],
            ):
                return self.say_last_letters(name)
        raise self._unknown(joined)

    # expressions

    def expression(self, node: ast.AST) -> str:
        """One expression of Python in the language."""
        match node:
            case ast.Constant(bool(value)):
                return "true" if value else "false"
            case ast.Constant(int(value)):
                return str(value)
            case ast.Constant(str(value)):
                return self.text(value)
            case ast.Name(name):
                return self.name(name)
            case ast.UnaryOp(ast.Not(), ast.Name() | ast.Constant() as operand):
                return f"!{self.expression(operand)}"
            case ast.BoolOp(operator, [ast.Name() as a, b]) if not isinstance(b, ast.BoolOp):
                return f"{self.expression(a)} {SIGNS[type(operator)]} {self.expression(b)}"
            case ast.BinOp(ast.Name() as a, operator, ast.Constant() as b) if type(operator) in SIGNS:
                return f"{self.expression(a)} {SIGNS[type(operator)]} {self.expression(b)}"
            case ast.Subscript(ast.Name(name), key):
                return self._item(name, key)
        raise self._unknown(node)

    def _item(self, name: str, key: ast.expr) -> str:
        match key:
            case ast.Constant(int(place)) if self.kinds[name] == "list":
                return self.at(name, place)
            case ast.UnaryOp(ast.USub(), ast.Constant(1)) if self.kinds[name] == "list":
                return self.last(name)
            case ast.Constant(str(word)):
                return self.look_up(name, self.text(word))
            case ast.Tuple([a, b]):
                return self.look_up_pair(name, self.expression(a), self.expression(b))
        raise self._unknown(key)

    # what languages write in their own way

    def text(self, value: str) -> str:
        """A string."""
        return json.dumps(value)

    def name(self, name: str) -> str:
        """A variable."""
        return name

    def at(self, name: str, place: int) -> str:
        """A list's item at a place."""
        return f"{self.name(name)}[{place}]"

    @abstractmethod
    def last(self, name: str) -> str:
        """A list's last item."""

    def look_up(self, name: str, key: str) -> str:
        """What a table holds."""
        return f"{self.name(name)}[{key}]"

    @abstractmethod
    def look_up_pair(self, name: str, first: str, second: str) -> str:
        """What a table whose keys are pairs holds."""

    def declare(self, name: str, kind: Kind, value: str) -> str:
        """A number or a truth value."""
        return f"{self.names[kind]} {name} = {value};"

    @abstractmethod
    def declare_list(self, name: str, items: list[str]) -> list[str]:
        """A list of words."""

    @abstractmethod
    def declare_map(self, name: str, kind: Kind, entries: Sequence[Entry]) -> list[str]:
        """A table of words or counts."""

    @abstractmethod
    def declare_pairs(self, name: str, entries: Sequence[Entry]) -> list[str]:
        """A table whose keys are pairs."""

    def put(self, name: str, key: str, value: str) -> str:
        """Another word in a table."""
        return f"{self.name(name)}[{key}] = {value}{self.end}"

    @abstractmethod
    def reverse(self, name: str) -> list[str]:
        """Turn a list round."""

    @abstractmethod
    def rotate(self, name: str) -> list[str]:
        """Move a list's first item to its end."""

    @abstractmethod
    def say(self, value: str) -> str:
        """Print a word, or anything that is printed like one."""

    def say_number(self, value: str) -> str:
        """Print a number."""
        return self.say(value)

    def say_truth(self, name: str) -> list[str]:
        """Print true or false."""
        return [self.say(self.name(name))]

    def say_either(self, test: str, yes: str, no: str) -> list[str]:
        """Print one of two words."""
        return [self.say(f"{test} ? {yes} : {no}")]

    @abstractmethod
    def say_last_letters(self, name: str) -> list[str]:
        """Print the last letter of each word, with spaces between."""

    @abstractmethod
    def say_backwards(self, name: str) -> list[str]:
        """Print a list from its end to its beginning."""

    @abstractmethod
    def say_total(self, name: str) -> list[str]:
        """Print the sum of the counts."""
