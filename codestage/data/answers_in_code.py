"""The Python in an answer: what a perturbation changes of an instruction.

Questions stay as they are. An answer is a program, or tells of programs in fenced blocks.
"""

import ast
import re
from collections.abc import Sequence

from codestage.data.perturb import compiles, perturb

FENCED = re.compile(r"^(```|~~~)([^\n]*)\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
"""A fenced block: its fence, what stands behind it, and the lines inside."""
PYTHON = ("", "python", "python3", "py")


def perturb_answer(names: Sequence[str], answer: str) -> str | None:
    """`answer` with its programs perturbed by `names`, one after the other; None where none of it is Python,
    or a program resists.

    Blocks in other languages stay. A block that is no Python any more loses the word that says so.
    """
    if not FENCED.search(answer):
        return _perturbed(names, answer) if is_program(answer) else None
    made, at, found = [], 0, False
    for block in FENCED.finditer(answer):
        fence, told, code = block.groups()
        if told.strip().lower() in PYTHON and is_program(code):
            new = _perturbed(names, code)
            if new is None:
                return None
            found = True
            word = told if compiles(new) else ""
            made += [answer[at : block.start()], f"{fence}{word}\n{new}\n{fence}"]
            at = block.end()
    return "".join([*made, answer[at:]]) if found else None


def is_program(text: str) -> bool:
    """Whether `text` is Python that does something: `no`, `12` and `a or b` can be parsed as well."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not isinstance(s, ast.Expr) or isinstance(s.value, ast.Call) for s in body)


def _perturbed(names: Sequence[str], code: str) -> str | None:
    """One program; the empty lines before it stay, those behind it go."""
    lead = code[: len(code) - len(code.lstrip("\n"))]
    text: str | None = code
    for name in names:
        text = perturb(name, text, seed=0) if text is not None else None
    return None if text is None else lead + text.strip("\n")
