"""The interpreter's own library as a source of real code: on every machine, with no download."""

import ast
import io
import itertools
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from codestage.errors import UserError

# Not people's code: tests, what others installed, tables of characters, the manual as one string.
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test"}
LEFT_OUT |= {"__pycache__", "encodings", "pydoc_data"}
THIS_MACHINE = "_sysconfigdata"  # how this very interpreter was built: differs between machines
PIECE = 6000  # characters: some 2,000 tokens, so that a row holds whole definitions


def standard_library(folder: Path | None = None) -> Iterator[tuple[str, str]]:
    """(id, text) of every module's pieces, by path; the same for the same version of Python.

    `folder` is the running interpreter's library if None. Tests, installed packages, the
    editor IDLE and generated tables are left out. A module longer than PIECE characters is cut
    between top-level definitions, a longer definition between the statements of its body, a longer
    statement between lines.
    """
    root = folder or Path(sysconfig.get_path("stdlib"))
    modules = [
        path
        for path in root.rglob("*.py")
        if not LEFT_OUT & set(path.relative_to(root).parts)
        and not path.name.startswith(THIS_MACHINE)
    ]
    for path in sorted(modules, key=lambda path: path.relative_to(root).parts):
        for number, piece in enumerate(pieces(_source(path))):
            if piece.strip():
                yield f"{path.relative_to(root).as_posix()}:{number}", piece


def _source(path: Path) -> str:
    try:
        with tokenize.open(path) as file:  # honours the coding that the file declares
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: a module of the standard library cannot be read ({error}). Mend the Python "
            "installation, or leave out stdlib: true."
        ) from error


def pieces(source: str) -> list[str]:
    """A module cut into texts of at most PIECE characters where it can be; joined, the module."""
    lines = list(io.StringIO(source))  # at line feeds alone, as the parser counts them
    cuts = sorted({0, len(lines)} | _cuts(source, lines))
    for start, end in itertools.pairwise(list(cuts)):
        if sum(map(len, lines[start:end])) > PIECE:  # one long statement: between any two lines
            cuts += range(start + 1, end)
    cuts.sort()
    out, start = [], 0
    for this, following in zip(cuts, [*cuts[1:], len(lines)], strict=True):
        if this > start and sum(map(len, lines[start:following])) > PIECE:
            out.append("".join(lines[start:this]))
            start = this
    return [*out, "".join(lines[start:])]


def _cuts(source: str, lines: list[str]) -> set[int]:
    """Numbers of the lines before which the module may be cut."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return {n for n, line in enumerate(lines) if not line.strip()}  # not this Python: at blanks
    cuts, waiting = set(), list(body)
    while waiting:
        node = waiting.pop()
        decorators = [d.lineno for d in getattr(node, "decorator_list", [])]
        first, last = min([node.lineno, *decorators]) - 1, node.end_lineno or node.lineno
        cuts.add(first)
        if sum(map(len, lines[first:last])) > PIECE:
            waiting += getattr(node, "body", [])
    return cuts
