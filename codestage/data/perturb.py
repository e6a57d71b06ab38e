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
import re
import token
import tokenize
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count

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
    except (SyntaxError, tokenize.TokenError, ValueError, RecursionError, MemoryError):
        return None  # the parser says MemoryError of what is nested too deep


def compiles(code: str, language: str = "python") -> bool:
    """Whether `code` is still of the language."""
    try:
        ast.parse(code) if language == "python" else parse(language, code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _lines(code: str) -> list[str]:
    """The lines as Python's parser counts them: a carriage return alone ends one too."""
    return io.StringIO(code, newline="").readlines()


def _tokens(code: str) -> Tokens:
    code = re.sub(r"\r(?!\n)", "\n", code)  # which the tokenizer does not know as the end of a line
    return _whole_strings(tokenize.generate_tokens(io.StringIO(code).readline), _lines(code))


def _whole_strings(tokens: Iterable[tokenize.TokenInfo], lines: Sequence[str]) -> Tokens:
    """Each f-string as one STRING of its source text: Python 3.12 and later part it into pieces."""
    whole: Tokens = []
    begun: Tokens = []
    for t in tokens:
        kind = token.tok_name[t.type]
        if kind.endswith("STRING_START"):
            begun.append(t)
        elif kind.endswith("STRING_END"):
            first = begun.pop()
            if not begun:
                (row, begin), (last, end) = first.start, t.end
                text = "".join([*lines[row - 1 : last - 1], lines[last - 1][:end]])[begin:]
                whole.append(tokenize.TokenInfo(token.STRING, text, first.start, t.end, first.line))
        elif not begun:
            whole.append(t)
    return whole


def _edited(code: str, edits: Sequence[tuple[tuple[int, int], tuple[int, int], str]]) -> str:
    """`code` with (start, end, new text) replaced; places are (line from 1, column)."""
    return "".join(_edited_lines(code, edits))


def _edited_lines(code: str, edits: Sequence[tuple[tuple[int, int], tuple[int, int], str]]) -> list[str]:
    """The same by lines: those that an edit spans are one, at the place of the last."""
    lines = _lines(code)
    for (row, first), (last_row, last), new in sorted(edits, reverse=True):
        tail = lines[last_row - 1][last:]
        lines[row - 1 : last_row] = [lines[row - 1][:first] + new + tail]
    return lines


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
    """Names that the program binds become `v0`, `v1`, …: consistent, without meaning, and new to it."""
    names = _bound_names(ast.parse(code))
    order = sorted(names)
    rng.shuffle(order)
    taken = set(re.findall(r"\bv\d+\b", code))
    free = (name for i in count() if (name := f"v{i}") not in taken)
    new = dict(zip(order, free, strict=False))
    before = ""
    edits = []
    for t in _tokens(code):
        if t.type == token.NAME and t.string in new and before != ".":
            edits.append((t.start, t.end, new[t.string]))
        if t.type not in (token.NL, token.COMMENT):
            before = t.string
    return _edited(code, edits)


def _bound_names(tree: ast.Module) -> set[str]:
    """Variables, parameters and functions of the program; not what others may know by name."""
    bound: set[str] = set()
    kept = set(dir(builtins)) | set(keyword.kwlist) | {"self", "cls"} | _of_classes(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ExceptHandler):
            bound.add(node.name or "")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            told = [name for a in node.names for name in (a.name, a.asname)]
            told += [node.module] if isinstance(node, ast.ImportFrom) else []
            kept |= {part for name in told if name for part in name.split(".")}
        elif isinstance(node, ast.keyword) and node.arg:
            kept.add(node.arg)  # may be the parameter of a function from elsewhere
        elif isinstance(node, ast.Global | ast.Nonlocal):
            kept |= set(node.names)
        elif isinstance(node, ast.Match):
            kept |= set(keyword.softkwlist)
        elif isinstance(node, ast.MatchAs | ast.MatchStar):
            kept.add(node.name or "")
        elif isinstance(node, ast.MatchClass):
            kept |= set(node.kwd_attrs)
        elif type(node).__name__ in ("JoinedStr", "TemplateStr"):  # one string here, see _whole_strings
            kept |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return {name for name in bound - kept if name and not name.startswith("__")}


def _of_classes(tree: ast.Module) -> set[str]:
    """Names of classes and what their bodies bind: attributes stand elsewhere too, and are printed."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found = {c.name for c in classes}
    todo: list[ast.AST] = [node for c in classes for node in c.body]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif not isinstance(node, ast.ClassDef | ast.Lambda):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            todo += ast.iter_child_nodes(node)
    return found


def replace_keywords(code: str, rng: random.Random) -> str:
    """Every keyword becomes a word without meaning, the same one throughout the program."""
    used = sorted(
        {t.string for t in _tokens(code) if t.type == token.NAME and keyword.iskeyword(t.string)}
    )
    words = rng.sample(WORDS, len(WORDS)) + [f"{w}{i}" for i in range(3) for w in WORDS]
    new = dict(zip(used, words, strict=False))
    return _changed(code, lambda t: new.get(t.string) if t.type == token.NAME else None)


def remove_comments(code: str, rng: random.Random) -> str:
    """No comments, no docstrings, no space at the end of lines; lines that held nothing else go too."""
    tokens = _tokens(code)
    edits = [(t.start, t.end, "") for t in tokens if t.type == token.COMMENT]
    edits += [(start, end, "pass" if needed else "") for start, end, needed in _docstrings(code)]
    changed = {end[0] for _, end, _ in edits}
    joined = {row for start, end, _ in edits for row in range(start[0], end[0])}
    strings = [t for t in tokens if t.type == token.STRING]
    open_ = {row for t in strings for row in range(t.start[0], t.end[0])}  # at their end, in a string
    rows = [row for row in range(1, len(_lines(code)) + 1) if row not in joined]
    return "".join(
        line if row in open_ else line.rstrip() + "\n"
        for row, line in zip(rows, _edited_lines(code, edits), strict=True)
        if line.strip() or row not in changed
    )


def _docstrings(code: str) -> list[tuple[tuple[int, int], tuple[int, int], bool]]:
    """(start, end, whether a statement has to stand there) of every docstring."""
    found = []
    lines = [line.encode() for line in _lines(code)]
    for node in ast.walk(ast.parse(code)):
        holds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, holds) and node.body and ast.get_docstring(node, clean=False) is not None:
            d = node.body[0]
            start = len(lines[d.lineno - 1][: d.col_offset].decode())
            end = len(lines[(d.end_lineno or 1) - 1][: d.end_col_offset].decode())
            needed = len(node.body) == 1 and not isinstance(node, ast.Module)
            needed |= lines[(d.end_lineno or 1) - 1][d.end_col_offset :].lstrip().startswith(b";")
            found.append(((d.lineno, start), (d.end_lineno or d.lineno, end), needed))
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
