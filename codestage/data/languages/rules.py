"""The perturbations by rule of programs in other languages than Python; each means what its Python sibling means.

Each takes a program that its grammar reads and gives a text, always: what a language can be parsed from, all
perturbations of it can be made from, so that perturbed sources hold the same documents.
"""

import random
import re
from collections.abc import Iterable, Sequence

from codestage.data.languages.names import Edit, renamed
from codestage.data.languages.trees import Program, Token

MARK = b"\0"
"""Stands for a comment that is taken out; no program holds one."""
_INERT = re.compile(
    "expression|identifier|literal|string|number|integer|float|operation|array|object|tuple|regex|"
    "boolean|null|text"
)
_ACTS = re.compile(
    "call|invocation|assign|update|postfix|await|new_|creation|macro|delete|throw|yield|return|function|"
    "closure|include|require|exit|if_|match|while|for_|loop"
)
"""Types of expressions that do something."""
_IDLE = {
    *("expression_statement", "labeled_statement", "global_statement", "empty_statement"),
    "statement_list",
}
"""What does what its parts do."""
_GAP = re.compile(rb"[ \t]*(?:\0[ \t]*)+")
_MORE = re.compile(rb"[^\S\n]*\S")
"""Something that stands behind a place on its line."""


def acts(program: Program) -> bool:
    """Whether a program does something: `no`, `12` and `Answer: no` can be parsed as well."""
    stack = [node for node in program.root.named_children if not node.is_extra]
    while stack:
        node = stack.pop()
        if node.type in _IDLE:
            stack += node.named_children
        elif node.child_count and (_ACTS.search(node.type) or not _INERT.search(node.type)):
            return True
    return False


def _edited(text: bytes, edits: Iterable[Edit]) -> bytes:
    pieces, at = [], 0
    for start, end, new in sorted(edits):
        pieces += [text[at:start], new]
        at = end
    return b"".join([*pieces, text[at:]])


def unchanged(program: Program, rng: random.Random) -> str:
    """The program as it is."""
    return program.text.decode()


def rename_variables(program: Program, rng: random.Random) -> str:
    """Names that the program binds become `v0`, `v1`, …: consistent, without meaning."""
    return _edited(program.text, renamed(program, rng)).decode()


def replace_keywords(program: Program, rng: random.Random, words: Sequence[str]) -> str:
    """Every keyword becomes one of `words`, the same one throughout the program."""
    found = [token for token in _in_lines(program) if _is_keyword(token, program)]
    used = sorted({token.text for token in found})
    order = rng.sample(words, len(words))
    many = order + [f"{word}{i}" for i in range(len(used) // len(words) + 1) for word in order]
    new = {word: other.encode() for word, other in zip(used, many, strict=False)}
    return _edited(program.text, [(t.start, t.end, new[t.text]) for t in found]).decode()


def _is_keyword(token: Token, program: Program) -> bool:
    grammar, text = program.grammar, token.text.decode()
    if not text.isidentifier() or text in grammar.no_words:
        return False
    return token.kind in grammar.words or (not token.named and token.kind == text)


def _in_lines(program: Program) -> list[Token]:
    """The tokens; a line for the preprocessor is one."""
    lines = program.directives()
    tokens = [t for t in program.tokens() if not any(a <= t.start < b for a, b in lines)]
    found = [Token(a, b, program.text[a:b], "directive", False) for a, b in lines]
    return sorted([*tokens, *found], key=lambda token: token.start)


def strip_whitespace(program: Program, rng: random.Random) -> str:
    """No indentation, no blank lines, no space but between words and where two signs would become another.

    Ends of lines stay where they can end a statement (JavaScript, TypeScript, Go), behind a comment that goes to
    the end of its line, and around lines for the preprocessor, which stay as they are.
    """
    pieces: list[bytes] = []
    before: Token | None = None
    for token in _in_lines(program):
        pieces += [_space(program, before, token), token.text]
        before = token
    return b"".join(pieces).decode().rstrip("\n") + "\n"


def _space(program: Program, before: Token | None, token: Token) -> bytes:
    """What has to stand between two tokens of what stood there."""
    if before is None:
        return b""
    gap = program.text[before.end : token.start]
    end = b"\n" if b"\n" in gap else b""
    if "directive" in (before.kind, token.kind):
        return b"\n"
    if before.kind in program.grammar.comments and not before.text.startswith(b"/*"):
        return end
    if end and (program.grammar.lines or before.kind in ("php_tag", "heredoc", "nowdoc")):
        return end
    return b" " if gap and _apart(before, token, program.signs) else b""


def _apart(before: Token, token: Token, signs: Sequence[bytes]) -> bool:
    """Whether two tokens would be read as something else if nothing stood between them."""
    last, first = before.text.decode()[-1], token.text.decode()[0]
    left, right = _of_word(last), _of_word(first)
    if before.kind in ("php_tag", "text_interpolation"):  # a tag of PHP needs white space behind it
        return True
    if (left and (right or first in "'\"")) or (right and last in "'\""):
        return True
    if (before.text[:1].isdigit() and first == ".") or (last == "." and first.isdigit()):
        return True
    both = before.text + token.text
    longer = (s for s in signs if len(s) > len(before.text) and s.startswith(before.text))
    return any(both.startswith(sign) or sign.startswith(both) for sign in longer)


def _of_word(sign: str) -> bool:
    return sign == "$" or sign.isalnum() or sign.isidentifier()


def remove_comments(program: Program, rng: random.Random) -> str:
    """No comments; lines that held nothing else go too."""
    text = program.text
    edits: list[Edit] = []
    for start, end in program.comments():
        mark = MARK
        if program.grammar.lines and b"\n" in text[start:end] and _MORE.match(text, end):
            mark = MARK + b"\n"  # the line's end inside it may end a statement
        edits.append((start, end, mark))
    lines: list[bytes] = []
    for line in _edited(text, edits).split(b"\n"):
        mended = _mended(line)
        if mended is not None:
            lines.append(mended)
        elif lines and lines[-1].endswith((b"\\", b"\\\r")):  # the last line of a macro
            lines.append(b"")
    return b"\n".join(lines).decode()


def _mended(line: bytes) -> bytes | None:
    """A line without its marks; None where nothing else stood on it."""
    if MARK not in line:
        return line
    return None if not line.replace(MARK, b"").strip() else _GAP.sub(_closed, line)


def _closed(gap: re.Match[bytes]) -> bytes:
    """What is left of a comment and the space around it."""
    line, start, end = gap.string, gap.start(), gap.end()
    if start == 0:
        return gap[0].partition(MARK)[0]  # indentation
    if not _MORE.match(line, end):
        return b""
    if line.endswith((b"<?php", b"<?PHP"), 0, start):
        return b" "
    return b"" if line[start - 1 : start] in b"([{" or line[end : end + 1] in b")]},;" else b" "


def swap_comments(program: Program, rng: random.Random) -> str:
    """The program's own comments, each at another one's place.

    One that stands before code on its line changes places with others that do; so do those in lines for the
    preprocessor and, in Rust, those that document what follows.
    """
    alike: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    lines = program.directives()
    for start, end in program.comments():
        text = program.text[start:end].decode()
        ends = not _MORE.match(program.text, end)
        attached = re.match(program.grammar.attached, text)
        # `// so ?>` goes on to PHP's tag: before anything else it would take that in
        inside = not ends and ("\n" in text, text.startswith("/*"))
        kind = (ends, any(a <= start < b for a, b in lines), attached[0] if attached else "", inside)
        alike.setdefault(kind, []).append((start, end))
    edits: list[Edit] = []
    for places in alike.values():
        if len(places) > 1:
            turn = rng.randrange(1, len(places))
            moved = (program.text[a:b] for a, b in places[turn:] + places[:turn])
            edits += [(a, b, new) for (a, b), new in zip(places, moved, strict=True)]
    return _edited(program.text, edits).decode()
