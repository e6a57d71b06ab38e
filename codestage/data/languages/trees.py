"""Programs in nine languages as tree-sitter sees them: their trees, tokens and comments.

Grammars are packages of their own (`pip install 'codestage[languages]'`), loaded when a source needs one.
Tree-sitter mends what it cannot read; here a text with anything mended is no program.
"""

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING

from codestage.data.languages.grammar import Grammar
from codestage.data.languages.managed import CSHARP, JAVA
from codestage.data.languages.native import CPP, GO, RUST, C
from codestage.data.languages.scripts import JAVASCRIPT, PHP, TYPESCRIPT
from codestage.errors import UserError

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

GRAMMARS: dict[str, Grammar] = {
    "java": JAVA,
    "javascript": JAVASCRIPT,
    "typescript": TYPESCRIPT,
    "php": PHP,
    "csharp": CSHARP,
    "c": C,
    "cpp": CPP,
    "go": GO,
    "rust": RUST,
}
_IN_MACRO = re.compile(rb'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|(//.*|/\*.*?\*/)', re.DOTALL)
_DIRECTIVE = re.compile(rb"^(?:\xef\xbb\xbf)?[ \t]*#(?:[^\n]*\\\r?\n)*[^\n]*", re.MULTILINE)
"""A line for the preprocessor with those it goes on on; a file's first may stand behind a byte order mark."""


@dataclass(frozen=True)
class Token:
    """A word, sign, string or comment of a program: its place in bytes, its text, its kind of node."""

    start: int
    end: int
    text: bytes
    kind: str
    named: bool


@dataclass(frozen=True)
class Program:
    """A text that its language's grammar reads without mending anything."""

    grammar: Grammar
    text: bytes
    root: "Node"
    shift: int
    """Bytes that stand before the text in what was read: a fragment is read inside a class or function."""
    signs: tuple[bytes, ...]
    """The language's operators and brackets, and what begins a comment."""

    def walk(self, skip: frozenset[str] = frozenset()) -> Iterator[tuple["Node", str | None]]:
        """(node, its field in its parent) of all that belongs to the text, from the top, in order; what is
        inside a node of a type in `skip` is left out.
        """
        cursor = self.root.walk()
        last = self.shift + len(self.text) + 1  # with the end of its last line
        while True:
            node = cursor.node
            assert node
            inside = self.shift == 0 or (self.shift <= node.start_byte and node.end_byte <= last)
            if inside:
                yield node, cursor.field_name
            if (not inside or node.type not in skip) and cursor.goto_first_child():
                continue
            while not cursor.goto_next_sibling():
                if not cursor.goto_parent():
                    return

    def word(self, node: "Node") -> str:
        """The text of a node."""
        return self.text[node.start_byte - self.shift : node.end_byte - self.shift].decode()

    def tokens(self) -> list[Token]:
        """All of the text but white space, in order; strings and comments are one token each."""
        one = self.grammar.whole | self.grammar.comments
        found: list[Token] = []
        at = 0
        for node, _ in self.walk(one):
            if node.child_count and node.type not in one:
                continue
            start = node.start_byte - self.shift
            end = min(node.end_byte - self.shift, len(self.text))
            if node.type in self.grammar.comments:  # Rust's end behind the line
                end -= len(self.text[start:end]) - len(self.text[start:end].rstrip())
            if end <= start or not self.text[start:end].strip():
                continue
            found += [*self._between(at, start), self._token(start, end, node.type, node.is_named)]
            at = end
        return [*found, *self._between(at, len(self.text))]

    def _token(self, start: int, end: int, kind: str, named: bool) -> Token:
        return Token(start, end, self.text[start:end], kind, named)

    def _between(self, start: int, end: int) -> Iterator[Token]:
        """What the grammar shows no node for; a line's end behind a backslash is white space."""
        for piece in re.finditer(rb"(?:(?!\\\r?\n)\S)+", self.text[start:end]):
            yield self._token(start + piece.start(), start + piece.end(), "", False)

    def comments(self) -> list[tuple[int, int]]:
        """(first byte, last byte + 1) of every comment, also of those behind a macro."""
        found = []
        for token in self.tokens():
            if token.kind in self.grammar.comments:
                found.append((token.start, token.end))
            elif token.kind == "preproc_arg":
                inner = (m.span(1) for m in _IN_MACRO.finditer(token.text) if m[1])
                found += [(token.start + a, token.start + b) for a, b in inner]
        return found

    def directives(self) -> list[tuple[int, int]]:
        """(first byte, last byte + 1) of every line for the preprocessor, with the lines it goes on on."""
        if not self.grammar.directives:
            return []
        long = [(t.start, t.end) for t in self.tokens() if b"\n" in t.text and t.kind != "preproc_arg"]
        found: list[tuple[int, int]] = []
        for line in _DIRECTIVE.finditer(self.text):
            start, end = line.start() + line[0].index(b"#"), line.end()
            if any(a < start < b for a, b in long) or (found and start < found[-1][1]):
                continue
            end = max([end, *(b for a, b in long if start < a < end < b)])
            found.append((start, start + len(self.text[start:end].rstrip())))
        return found


def parse(language: str, code: str) -> Program:
    """`code` as a program of `language`.

    Raises:
        SyntaxError: it is none, and no fragment of one.
        UserError: the language's grammar is not installed.
    """
    text = code.encode()
    if b"\0" in text:
        raise SyntaxError("a text with zero bytes is no program")
    grammar = GRAMMARS[language]
    for function in grammar.functions_for(code):
        parser, signs = _load(grammar.package, function)
        for before, after in (("", ""), *grammar.around):
            root = parser.parse(before.encode() + text + b"\n" + after.encode()).root_node
            if not root.has_error and _holds(root, before):
                return Program(grammar, text, root, len(before), signs)
    raise SyntaxError(f"no {language}")


def _holds(root: "Node", before: str) -> bool:
    """Whether what stands around a fragment is still one thing: `} {` must not close and open it."""
    return not before or sum(not node.is_extra for node in root.children) == 1


@cache
def _load(package: str, function: str) -> tuple["Parser", tuple[bytes, ...]]:
    """What reads a language, and the language's signs."""
    try:
        from tree_sitter import Language, Parser

        language = Language(getattr(importlib.import_module(package), function)())
    except ImportError:
        raise UserError(
            f"{package.replace('_', '-')} is not installed; pip install 'codestage[languages]'"
        ) from None
    kinds = range(language.node_kind_count)
    names = {language.node_kind_for_id(i) or "" for i in kinds if not language.node_kind_is_named(i)}
    signs = {n.encode() for n in names if n and not re.search(r"[\w\s\"'`]", n)}
    return Parser(language), tuple(sorted(signs | {b"//", b"/*", b"<!--"}))


def grammar_versions(language: str) -> dict[str, str]:
    """Major and minor versions of what reads `language`; what is not installed is told when it is needed."""
    found = {}
    for name in () if language == "python" else ("tree_sitter", GRAMMARS[language].package):
        package = name.replace("_", "-")
        try:
            found[package] = ".".join(metadata.version(package).split(".")[:2])
        except metadata.PackageNotFoundError:
            continue
    return found
