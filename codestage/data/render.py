"""A Python program told in other forms, by rule from its syntax tree: pseudocode, steps, a flowchart.

What is kept is what the program does; what goes is that it is code. Expressions are put into words;
what has no words of its own stays as it is written.
"""

import ast
from collections.abc import Callable, Iterator

WORDS: dict[type, str] = {
    ast.Add: "plus",
    ast.Sub: "minus",
    ast.Mult: "times",
    ast.Div: "divided by",
    ast.FloorDiv: "divided by, rounded down,",
    ast.Mod: "modulo",
    ast.Pow: "to the power of",
    ast.Eq: "equals",
    ast.NotEq: "does not equal",
    ast.Lt: "is less than",
    ast.LtE: "is at most",
    ast.Gt: "is greater than",
    ast.GtE: "is at least",
    ast.In: "is in",
    ast.NotIn: "is not in",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.And: "and",
    ast.Or: "or",
}


BINDS: dict[type, int] = {
    ast.Lambda: 0, ast.NamedExpr: 0, ast.Yield: 0, ast.YieldFrom: 0, ast.Await: 0, ast.IfExp: 1, ast.Or: 2, ast.And: 3,
    ast.Not: 4, ast.Compare: 5, ast.BitOr: 6, ast.BitXor: 6, ast.BitAnd: 6, ast.LShift: 6, ast.RShift: 6, ast.Add: 7,
    ast.Sub: 7, ast.Mult: 8, ast.Div: 8, ast.FloorDiv: 8, ast.Mod: 8, ast.MatMult: 8, ast.UnaryOp: 9, ast.Pow: 10,
    ast.Call: 11, ast.Subscript: 11,
}  # fmt: skip
"""How closely an expression is held together; one that is not here is one word."""
WHOLE = 12


def _binds(node: ast.expr) -> int:
    if isinstance(node, ast.BinOp | ast.BoolOp):
        return BINDS[type(node.op)]
    if isinstance(node, ast.UnaryOp):
        return BINDS[ast.Not] if isinstance(node.op, ast.Not) else BINDS[ast.UnaryOp]
    if isinstance(node, ast.Call) and not (node.args or node.keywords):
        return WHOLE
    return BINDS.get(type(node), WHOLE)


def words(node: ast.expr, least: int = 0) -> str:
    """An expression in words, in brackets where it is held together less closely than `least`."""
    told = _words(node)
    return f"({told})" if _binds(node) < least else told


def _words(node: ast.expr) -> str:
    if isinstance(node, ast.BinOp) and type(node.op) in WORDS:
        left = right = BINDS[type(node.op)]
        left, right = (left + 1, right) if isinstance(node.op, ast.Pow) else (left, right + 1)
        return f"{words(node.left, left)} {WORDS[type(node.op)]} {words(node.right, right)}"
    if isinstance(node, ast.BoolOp):
        parts = (words(value, BINDS[type(node.op)] + 1) for value in node.values)
        return f" {WORDS[type(node.op)]} ".join(parts)
    if isinstance(node, ast.Compare):
        least = BINDS[ast.Compare] + 1
        pairs = zip(node.ops, node.comparators, strict=True)
        told = [f"{WORDS[type(o)]} {words(c, least)}" for o, c in pairs]
        return " ".join([words(node.left, least), *told])
    if isinstance(node, ast.UnaryOp):
        sign = {ast.Not: "not", ast.USub: "minus"}.get(type(node.op))
        return f"{sign} {words(node.operand, _binds(node))}" if sign else ast.unparse(node)
    if isinstance(node, ast.IfExp):
        return f"{words(node.body, 2)} if {words(node.test, 2)}, else {words(node.orelse, 1)}"
    if isinstance(node, ast.Call):
        given = [words(a, WHOLE) for a in node.args]
        for keyword in node.keywords:
            value = words(keyword.value, WHOLE)
            given.append(f"{keyword.arg} {value}" if keyword.arg else f"all that is in {value}")
        return (
            f"{ast.unparse(node.func)} of {', '.join(given)}"
            if given
            else f"a call of {ast.unparse(node.func)}"
        )
    if isinstance(node, ast.Subscript):
        return f"item {words(node.slice, WHOLE)} of {words(node.value, BINDS[ast.Subscript])}"
    return ast.unparse(node)


def pseudocode(code: str) -> str:
    """Indented pseudocode with its blocks ended in words.

    Raises:
        SyntaxError: `code` is no Python.
    """
    return "\n".join(_pseudo(ast.parse(code).body, 0)) + "\n"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _pseudo(body: list[ast.stmt], depth: int) -> Iterator[str]:
    pad = "    " * depth
    for statement in body:
        head = _head(statement)
        if head is None:
            yield pad + _capital(_sentence(statement))
            continue
        word, condition = head
        yield f"{pad}{word.upper()} {condition}".rstrip()
        yield from _pseudo(getattr(statement, "body", []), depth + 1)
        for name, part in _others(statement):
            yield f"{pad}{name.upper()}"
            yield from _pseudo(part, depth + 1)
        yield f"{pad}END {word.upper()}"


def _head(node: ast.stmt) -> tuple[str, str] | None:
    """(word, condition) of a statement that holds others."""
    if isinstance(node, ast.If):
        return "if", words(node.test)
    if isinstance(node, ast.While):
        return "while", words(node.test)
    if isinstance(node, ast.For | ast.AsyncFor):
        return "for each", f"{ast.unparse(node.target)} in {words(node.iter)}"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return "function", f"{node.name} with {ast.unparse(node.args) or 'nothing'}"
    if isinstance(node, ast.ClassDef):
        return "class", node.name
    if isinstance(node, ast.With | ast.AsyncWith):
        return "with", ", ".join(ast.unparse(item) for item in node.items)
    if isinstance(node, ast.Try):
        return "try", ""
    return None


def _others(node: ast.stmt) -> Iterator[tuple[str, list[ast.stmt]]]:
    """The parts of a statement beside its body, with what introduces each."""
    for handler in getattr(node, "handlers", []):
        kind = f" {ast.unparse(handler.type)}" if handler.type else ""
        yield f"on error{kind}", handler.body
    if orelse := getattr(node, "orelse", []):
        yield "otherwise", orelse
    if final := getattr(node, "finalbody", []):
        yield "finally", final


def _sentence(node: ast.stmt) -> str:
    """A simple statement as a sentence without its capital and its stop."""
    if isinstance(node, ast.Assign):
        return f"set {' and '.join(map(ast.unparse, node.targets))} to {words(node.value)}"
    if isinstance(node, ast.AugAssign) and type(node.op) in WORDS:
        told = f"{ast.unparse(node.target)} {WORDS[type(node.op)]} {words(node.value, BINDS[type(node.op)] + 1)}"
        return f"set {ast.unparse(node.target)} to {told}"
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return f"set {ast.unparse(node.target)} to {words(node.value)}"
    if isinstance(node, ast.Return):
        return f"give back {words(node.value)}" if node.value else "go back"
    if isinstance(node, ast.Expr):
        value = node.value
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "print" and not value.keywords:
            printed = [words(arg, WHOLE if len(value.args) > 1 else 0) for arg in value.args]
            return f"print {', '.join(printed) or 'an empty line'}"
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return f"note: {' '.join(value.value.split())}"
        return f"do {words(value)}"
    if isinstance(node, ast.Import | ast.ImportFrom):
        return f"use {', '.join(a.name for a in node.names)}"
    simple = {ast.Pass: "do nothing", ast.Break: "leave the loop", ast.Continue: "go on with the next"}
    return simple.get(type(node), ast.unparse(node))


def steps(code: str) -> str:
    """Numbered steps in prose: `2.1. Print total.`

    Raises:
        SyntaxError: `code` is no Python.
    """
    return "\n".join(_steps(ast.parse(code).body, "")) + "\n"


def _steps(body: list[ast.stmt], number: str) -> Iterator[str]:
    for i, statement in enumerate(body, 1):
        mine = f"{number}{i}."
        head = _head(statement)
        if head is None:
            yield f"{mine} {_capital(_sentence(statement))}."
            continue
        word, condition = head
        opened = {
            "if": "If {}, do this:",
            "while": "As long as {}, do this:",
            "for each": "For each {}, do this:",
        }
        told = opened.get(word, word.capitalize() + " {}:").format(condition)
        yield f"{mine} {told.replace(' :', ':')}"
        yield from _steps(getattr(statement, "body", []), mine)
        for n, (name, part) in enumerate(_others(statement)):
            letter = "abcdefghij"[min(n, 9)]
            yield f"{mine}{letter} {name.capitalize()}:"
            yield from _steps(part, f"{mine}{letter}.")


Ends = list[tuple[str, str]]
"""What the next arrows leave from: (box, what stands at the arrow)."""


def flowchart(code: str) -> str:
    """A Mermaid flowchart: boxes for statements, diamonds for decisions, arrows for what comes next.

    Raises:
        SyntaxError: `code` is no Python.
    """
    chart = _Chart()
    begin = chart.box("start", "([{}])")
    ends = chart.flow(ast.parse(code).body, [(begin, "")])
    chart.arrow([*ends, *chart.left], chart.box("end", "([{}])"))
    return "\n".join(["flowchart TD", *chart.lines]) + "\n"


class _Chart:
    """Boxes and arrows as they are drawn, and the ends that wait for a place further on."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._boxes = 0
        self.left: Ends = []
        """Of what leaves the function that is drawn, or the program."""
        self._raised: Ends | None = None
        """Of what raises where that is caught; None where it is not."""
        self._broken: Ends = []
        self._head = ""
        """Of the loop that is drawn."""

    def box(self, text: str, shape: str) -> str:
        name = f"n{self._boxes}"
        self._boxes += 1
        clean = text.replace('"', "'").replace("\n", " ")
        self.lines.append(f"    {name}" + shape.format(f'"{clean}"'))
        return name

    def arrow(self, sources: Ends, target: str) -> None:
        for source, label in sources:
            self.lines.append(f"    {source} -->{f'|{label}|' if label else ''} {target}")

    def flow(self, body: list[ast.stmt], comes: Ends) -> Ends:
        """Statements after each other; what is never reached is not drawn."""
        for node in body:
            if comes:
                comes = self._one(node, comes)
        return comes

    def _one(self, node: ast.stmt, comes: Ends) -> Ends:
        """One statement: what its arrows leave from."""
        head = _head(node)
        if head is None:
            return self._simple(node, comes)
        word, condition = head
        body = getattr(node, "body", [])
        if isinstance(node, ast.If):
            name = self._drawn(f"{condition}?", "{{{}}}", comes)
            return self.flow(body, [(name, "yes")]) + self.flow(node.orelse, [(name, "no")])
        if isinstance(node, ast.While | ast.For | ast.AsyncFor):
            told = f"{condition}?" if isinstance(node, ast.While) else f"another {condition}?"
            return self._loop(node, self._drawn(told, "{{{}}}", comes))
        name = self._drawn(f"{word} {condition}".strip(), "[[{}]]", comes)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            outside, self.left = self.left, []
            ends = self.flow(body, [(name, "")]) + self.left
            self.left = outside
            return ends
        if isinstance(node, ast.Try):
            return self._try(node, name)
        return self.flow(body, [(name, "")])

    def _drawn(self, text: str, shape: str, comes: Ends) -> str:
        name = self.box(text, shape)
        self.arrow(comes, name)
        return name

    def _simple(self, node: ast.stmt, comes: Ends) -> Ends:
        ends = [(self._drawn(_sentence(node), "[{}]", comes), "")]
        if isinstance(node, ast.Continue):
            self.arrow(ends, self._head)
        elif isinstance(node, ast.Break):
            self._broken += ends
        elif isinstance(node, ast.Raise) and self._raised is not None:
            self._raised += ends
        elif isinstance(node, ast.Return | ast.Raise):
            self.left += ends
        else:
            return ends
        return []

    def _loop(self, node: ast.While | ast.For | ast.AsyncFor, name: str) -> Ends:
        outside, self._broken, self._head = (self._broken, self._head), [], name
        self.arrow(self.flow(node.body, [(name, "yes")]), name)
        broken = self._broken
        self._broken, self._head = outside
        return self.flow(node.orelse, [(name, "no")]) + broken

    def _try(self, node: ast.Try, name: str) -> Ends:
        outside = self._raised
        self._raised = [] if node.handlers else outside
        ends = self.flow(node.body, [(name, "")])
        raised, self._raised = (self._raised or []) if node.handlers else [], outside
        ends = self.flow(node.orelse, ends)
        others = list(zip(node.handlers, _others(node), strict=False))
        for handler, (label, _) in others:
            ends += self.flow(handler.body, [(name, label), *((box, label) for box, _ in raised)])
        return self.flow(node.finalbody, ends)


RENDERINGS: dict[str, Callable[[str], str]] = {
    "pseudocode": pseudocode,
    "steps": steps,
    "flowchart": flowchart,
}
