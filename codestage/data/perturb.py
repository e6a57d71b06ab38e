"""Perturbations of code, to ask what in code it is that helps.

Structure-keeping and meaning-destroying changes after Waheed et al. 2025 (2509.21499): each is a pure
function of a program's text and a seed. What cannot be tokenised comes back as None and is counted,
not guessed at. Python's rules are here; those of the other languages are in `languages.rules`, and renderings
of a program in other forms, for Python alone, in `render`.
"""

import ast
import builtins
import io
import keyword
import random
import token
import tokenize
from collections.abc import Callable, Sequence
from functools import partial

from codestage.data.languages import rules
from codestage.data.languages.trees import Program, parse
from codestage.data.render import RENDERINGS
from codestage.study.seeds import child

Tokens = list[tokenize.TokenInfo]
WORDS = [
    "zorp",
    "blick",
    "tarn",
    "quim",
    "velt",
    "osk",
    "drape",
    "minto",
    "fulk",
    "gant",
    "prax",
    "lode",
    "wist",
    "jarm",
    "keld",
    "noof",
]


def perturb(name: str, code: str, seed: int, language: str = "python") -> str | None:
    """`code` after the perturbation or in the rendering `name`; None if it is not of the language.

    Raises:
        KeyError: no such name; `PERTURBATIONS` and `render.RENDERINGS` have them all, and `IN_LANGUAGES` those
            for other languages than Python.
        UserError: what reads the language is not installed.
    """
    rng = random.Random(child(seed, name, code))
    try:
        if language != "python":
            return IN_LANGUAGES[name](parse(language, code), rng)
        return RENDERINGS[name](code) if name in RENDERINGS else PERTURBATIONS[name](code, rng)
    except (SyntaxError, tokenize.TokenError, ValueError, RecursionError):
        return None


def compiles(code: str, language: str = "python") -> bool:
    """Whether `code` is still of the language."""
    try:
        ast.parse(code) if language == "python" else parse(language, code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _tokens(code: str) -> Tokens:
    return list(tokenize.generate_tokens(io.StringIO(code).readline))


def _edited(code: str, edits: Sequence[tuple[tuple[int, int], tuple[int, int], str]]) -> str:
    """`code` with (start, end, new text) replaced; places are (line from 1, column)."""
    lines = io.StringIO(code).readlines()
    for (row, first), (last_row, last), new in sorted(edits, reverse=True):
        tail = lines[last_row - 1][last:]
        lines[row - 1 : last_row] = [lines[row - 1][:first] + new + tail]
    return "".join(lines)


def _changed(code: str, new_text: Callable[[tokenize.TokenInfo], str | None]) -> str:
    """`code` with every token replaced for which `new_text` is not None."""
    edits = [
        (t.start, t.end, new)
        for t in _tokens(code)
        if (new := new_text(t)) is not None and new != t.string
    ]
    return _edited(code, edits)


def unchanged(code: str, rng: random.Random) -> str:
    """The program as it is: so a source can hold the very programs that its perturbed siblings hold.

    Raises:
        SyntaxError: `code` is no Python.
    """
    ast.parse(code)
    return code


def strip_whitespace(code: str, rng: random.Random) -> str:
    """No indentation, no blank lines, no space that does not part two words."""
    skipped = (token.NL, token.INDENT, token.DEDENT, token.ENDMARKER)
    lines, line = [], ""
    for t in _tokens(code):
        if t.type in skipped and not (t.type == token.NL and line):
            continue
        if t.type in (token.NEWLINE, token.NL):
            lines.append(line)
            line = ""
            continue
        words = line[-1:].isidentifier() or line[-1:].isdigit()
        begins = t.string[:1].isidentifier() or t.string[:1].isdigit()
        line += f" {t.string}" if words and (begins or t.string[:1] in "'\"") else t.string
    return "\n".join([*lines, line] if line else lines) + "\n"


def rename_variables(code: str, rng: random.Random) -> str:
    """Names that the program binds become `v0`, `v1`, …: consistent, without meaning."""
    names = _bound_names(ast.parse(code))
    order = sorted(names)
    rng.shuffle(order)
    new = {name: f"v{i}" for i, name in enumerate(order)}
    before = ""
    edits = []
    for t in _tokens(code):
        if t.type == token.NAME and t.string in new and before != ".":
            edits.append((t.start, t.end, new[t.string]))
        before = t.string
    return _edited(code, edits)


def _bound_names(tree: ast.Module) -> set[str]:
    """Variables, parameters and functions of the program; not what others may know by name."""
    bound: set[str] = set()
    kept = set(dir(builtins)) | set(keyword.kwlist) | {"self", "cls"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler):
            bound.add(node.name or "")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            kept |= {part for a in node.names for part in (a.asname or a.name).split(".")}
        elif isinstance(node, ast.keyword) and node.arg:
            kept.add(node.arg)  # may be the parameter of a function from elsewhere
        elif isinstance(node, ast.Global | ast.Nonlocal):
            kept |= set(node.names)
        elif isinstance(node, ast.MatchAs | ast.MatchStar):
            kept.add(node.name or "")
        elif isinstance(node, ast.JoinedStr):  # a string to the tokenizer before Python 3.12
            kept |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    methods = {
        f.name
        for c in ast.walk(tree)
        if isinstance(c, ast.ClassDef)
        for f in c.body
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return {name for name in bound - kept - methods if name and not name.startswith("__")}


def replace_keywords(code: str, rng: random.Random) -> str:
    """Every keyword becomes a word without meaning, the same one throughout the program."""
    used = sorted(
        {t.string for t in _tokens(code) if t.type == token.NAME and keyword.iskeyword(t.string)}
    )
    words = rng.sample(WORDS, len(WORDS)) + [f"{w}{i}" for i in range(3) for w in WORDS]
    new = dict(zip(used, words, strict=False))
    return _changed(code, lambda t: new.get(t.string) if t.type == token.NAME else None)


def remove_comments(code: str, rng: random.Random) -> str:
    """No comments and no docstrings; lines that held nothing else go too."""
    docstrings = _docstrings(code)
    edits = [(t.start, t.end, "") for t in _tokens(code) if t.type == token.COMMENT]
    edits += [(start, end, "pass" if alone else "") for start, end, alone in docstrings]
    before, after = io.StringIO(code).readlines(), io.StringIO(_edited(code, edits)).readlines()
    if len(before) == len(after):
        after = [a for b, a in zip(before, after, strict=True) if a.strip() or not b.strip()]
    return "".join(line.rstrip() + "\n" for line in after)


def _docstrings(code: str) -> list[tuple[tuple[int, int], tuple[int, int], bool]]:
    """(start, end, is the whole body) of every docstring."""
    found = []
    lines = [line.encode() for line in io.StringIO(code).readlines()]
    for node in ast.walk(ast.parse(code)):
        holds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, holds) and node.body and ast.get_docstring(node, clean=False) is not None:
            d = node.body[0]
            start = len(lines[d.lineno - 1][: d.col_offset].decode())
            end = len(lines[(d.end_lineno or 1) - 1][: d.end_col_offset].decode())
            alone = len(node.body) == 1 and not isinstance(node, ast.Module)
            found.append(((d.lineno, start), (d.end_lineno or d.lineno, end), alone))
    return found


def swap_comments(code: str, rng: random.Random) -> str:
    """The program's own comments, each at another one's place."""
    comments = [t.string for t in _tokens(code) if t.type == token.COMMENT]
    if len(comments) < 2:
        return code
    turn = rng.randrange(1, len(comments))
    moved = iter(comments[turn:] + comments[:turn])
    return _changed(code, lambda t: next(moved) if t.type == token.COMMENT else None)


PERTURBATIONS: dict[str, Callable[[str, random.Random], str]] = {
    "unchanged": unchanged,
    "strip-whitespace": strip_whitespace,
    "rename-variables": rename_variables,
    "replace-keywords": replace_keywords,
    "remove-comments": remove_comments,
    "swap-comments": swap_comments,
}
IN_LANGUAGES: dict[str, Callable[[Program, random.Random], str]] = {
    "unchanged": rules.unchanged,
    "strip-whitespace": rules.strip_whitespace,
    "rename-variables": rules.rename_variables,
    "replace-keywords": partial(rules.replace_keywords, words=WORDS),
    "remove-comments": rules.remove_comments,
    "swap-comments": rules.swap_comments,
}
"""The same in other languages than Python."""
