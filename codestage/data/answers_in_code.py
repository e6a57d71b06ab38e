"""The programs in an answer: what a perturbation changes of an instruction.

Questions stay as they are. An answer is a program, or tells of programs in fenced blocks.
"""

import ast
import re
from collections.abc import Sequence

from codestage.data.languages.rules import acts
from codestage.data.languages.trees import parse
from codestage.data.perturb import compiles, perturb

FENCED = re.compile(r"^(```|~~~)([^\n]*)\n(.*?)^\1[ \t]*(?=\r?$)", re.MULTILINE | re.DOTALL)
"""A fenced block: its fence, what stands behind it, and the lines inside."""
WORDS = {
    "python": ("python", "python3", "py"),
    "java": ("java",),
    "javascript": ("javascript", "js", "jsx", "mjs", "node", "nodejs"),
    "typescript": ("typescript", "ts", "tsx"),
    "php": ("php",),
    "csharp": ("csharp", "cs", "c#"),
    "c": ("c", "h"),
    "cpp": ("cpp", "c++", "cc", "cxx", "hpp"),
    "go": ("go", "golang"),
    "rust": ("rust", "rs"),
}
"""What people write behind a fence. Where nothing stands, a block that can be parsed is Python; other languages
have to be named, for what is JavaScript is TypeScript too, and most of C is C++.
"""


def perturb_answer(names: Sequence[str], answer: str, language: str = "python") -> str | None:
    """`answer` with its programs perturbed by `names`, one after the other; None where none of it is of the
    language, or a program resists.

    Blocks in other languages stay. A block that is of the language no more loses the word that says so.
    """
    if not FENCED.search(answer):
        return _perturbed(names, answer, language) if is_program(answer, language) else None
    made, at, found = [], 0, False
    for block in FENCED.finditer(answer):
        fence, told, code = block.groups()
        if _says(told, language) and is_program(code, language):
            new = _perturbed(names, code, language)
            if new is None:
                return None
            found = True
            word = told if compiles(new, language) else ""
            made += [answer[at : block.start()], f"{fence}{word}\n{new}\n{fence}"]
            at = block.end()
    return "".join([*made, answer[at:]]) if found else None


def holds_program(answer: str, language: str = "python") -> bool:
    """Whether an answer, or a block of it that says so, can be parsed."""
    blocks = [block.groups() for block in FENCED.finditer(answer)]
    if not blocks:
        return compiles(answer, language)
    return any(_says(told, language) and compiles(code, language) for _, told, code in blocks)


def _says(told: str, language: str) -> bool:
    """Whether what stands behind a fence is a word for a language."""
    word = told.strip().lower()
    return word in WORDS[language] or (word == "" and language == "python")


def is_program(text: str, language: str = "python") -> bool:
    """Whether `text` is a program that does something: `no`, `12` and `a or b` can be parsed as well."""
    if language != "python":
        try:
            return acts(parse(language, text))
        except SyntaxError:
            return False
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not isinstance(s, ast.Expr) or isinstance(s.value, ast.Call) for s in body)


def _perturbed(names: Sequence[str], code: str, language: str) -> str | None:
    """One program; the empty lines before it stay, those behind it go."""
    lead = code[: len(code) - len(code.lstrip("\n"))]
    text: str | None = code
    for name in names:
        text = perturb(name, text, 0, language) if text is not None else None
    return None if text is None else lead + text.strip("\n")
