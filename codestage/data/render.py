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


def words(node: ast.expr) -> str:
    """An expression in words."""
    if isinstance(node, ast.BinOp) and type(node.op) in WORDS:
        return f"{words(node.left)} {WORDS[type(node.op)]} {words(node.right)}"
    if isinstance(node, ast.BoolOp):
        return f" {WORDS[type(node.op)]} ".join(map(words, node.values))
    if isinstance(node, ast.Compare):
        pairs = zip(node.ops, node.comparators, strict=True)
        return " ".join([words(node.left), *(f"{WORDS[type(o)]} {words(c)}" for o, c in pairs)])
    if isinstance(node, ast.UnaryOp):
        sign = {ast.Not: "not", ast.USub: "minus"}.get(type(node.op))
        return f"{sign} {words(node.operand)}" if sign else ast.unparse(node)
    if isinstance(node, ast.IfExp):
        return f"{words(node.body)} if {words(node.test)}, else {words(node.orelse)}"
    if isinstance(node, ast.Call):
        given = [words(a) for a in node.args] + [
            f"{k.arg} {words(k.value)}" for k in node.keywords if k.arg
        ]
        return (
            f"{ast.unparse(node.func)} of {' and '.join(given)}"
            if given
            else f"a call of {ast.unparse(node.func)}"
        )
    if isinstance(node, ast.Subscript):
        return f"item {words(node.slice)} of {words(node.value)}"
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
        told = f"{ast.unparse(node.target)} {WORDS[type(node.op)]} {words(node.value)}"
        return f"set {ast.unparse(node.target)} to {told}"
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return f"set {ast.unparse(node.target)} to {words(node.value)}"
    if isinstance(node, ast.Return):
        return f"give back {words(node.value)}" if node.value else "go back"
    if isinstance(node, ast.Expr):
        value = node.value
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "print":
            return f"print {', '.join(map(words, value.args)) or 'an empty line'}"
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


def flowchart(code: str) -> str:
    """A Mermaid flowchart: boxes for statements, diamonds for decisions, arrows for what comes next.

    Raises:
        SyntaxError: `code` is no Python.
    """
    lines = ["flowchart TD"]
    boxes: list[str] = []

    def box(text: str, shape: str) -> str:
        name = f"n{len(boxes)}"
        boxes.append(name)
        clean = text.replace('"', "'").replace("\n", " ")
        lines.append(f"    {name}" + shape.format(f'"{clean}"'))
        return name

    def arrow(sources: list[tuple[str, str]], target: str) -> None:
        for source, label in sources:
            lines.append(f"    {source} -->{f'|{label}|' if label else ''} {target}")

    def flow(body: list[ast.stmt], comes: list[tuple[str, str]]) -> list[tuple[str, str]]:
        for node in body:
            comes = _flow_one(node, comes, box, arrow, flow)
        return comes

    begin = box("start", "([{}])")
    ends = flow(ast.parse(code).body, [(begin, "")])
    arrow(ends, box("end", "([{}])"))
    return "\n".join(lines) + "\n"


Ends = list[tuple[str, str]]


def _flow_one(
    node: ast.stmt,
    comes: Ends,
    box: Callable[[str, str], str],
    arrow: Callable[[Ends, str], None],
    flow: Callable[[list[ast.stmt], Ends], Ends],
) -> Ends:
    """One statement of a flowchart: what its arrows leave from."""
    head = _head(node)
    if head is None:
        name = box(_sentence(node), "[{}]")
        arrow(comes, name)
        return [(name, "")]
    word, condition = head
    body = getattr(node, "body", [])
    if isinstance(node, ast.If):
        name = box(f"{condition}?", "{{{}}}")
        arrow(comes, name)
        return flow(body, [(name, "yes")]) + flow(node.orelse, [(name, "no")])
    if isinstance(node, ast.While | ast.For | ast.AsyncFor):
        told = f"{condition}?" if isinstance(node, ast.While) else f"another {condition}?"
        name = box(told, "{{{}}}")
        arrow(comes, name)
        arrow(flow(body, [(name, "yes")]), name)
        return flow(node.orelse, [(name, "no")])
    name = box(f"{word} {condition}".strip(), "[[{}]]")
    arrow(comes, name)
    ends = flow(body, [(name, "")])
    for other, part in _others(node):
        ends += flow(part, [(name, other)])
    return ends


RENDERINGS: dict[str, Callable[[str], str]] = {
    "pseudocode": pseudocode,
    "steps": steps,
    "flowchart": flowchart,
}
