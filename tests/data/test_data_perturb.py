"""Perturbations: what stays Python still does the same, and only what was meant is changed."""

import ast
import contextlib
import io
import random
import token
import tokenize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codestage.data.perturb import PERTURBATIONS, _whole_strings, compiles, perturb
from codestage.data.sources import standard_library
from codestage.data.worlds.skills import SKILLS

CODE = '''"""Module."""
import os.path as path

# the first
def area(width, height=2):
    """Area of it."""
    total = width * height  # the second
    for step in range(3):
        # the third
        total += step if step != 1 else 0
    return {"total": total, 'é': f"{total!r}"}


class Box:
    """Only this."""


print(area(3, height=4), path.join("a", "b"))
'''


def printed(code):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "x", "exec"), {})
    return out.getvalue()


def comments(code):
    return [
        t.string
        for t in tokenize.generate_tokens(io.StringIO(code).readline)
        if t.type == tokenize.COMMENT
    ]


@pytest.mark.parametrize("name", ["rename-variables", "remove-comments", "swap-comments"])
def test_what_keeps_the_structure_keeps_what_the_program_does(name):
    changed = perturb(name, CODE, 0)
    assert changed != CODE
    assert printed(changed) == printed(CODE)


@pytest.mark.parametrize("name", ["rename-variables", "remove-comments", "swap-comments"])
@pytest.mark.parametrize("skill", SKILLS)
def test_programs_of_the_small_world_still_print_their_answer(name, skill):
    episode = SKILLS[skill](random.Random(1), 2)
    assert printed(perturb(name, episode.program, 0)) == episode.answer + "\n"


def test_names_lose_their_meaning_and_others_names_stay():
    changed = perturb("rename-variables", CODE, 0)
    names = {n.id for n in ast.walk(ast.parse(changed)) if isinstance(n, ast.Name)}
    assert not names & {"width", "step", "area"}
    assert "total" in names  # stands in an f-string too
    assert {"range", "print", "path"} <= names
    assert "height" in changed  # given by keyword: its name is part of the call


KEPT = {
    "attributes of a class": """
class P:
    x = 1
    if x:
        y: int = x + 1
        def twice(self, x): return 2 * x
    class Inner:
        z = 4
x, y, twice, z, Inner, w = 6, 7, 8, 9, 10, 11
print(P.x, P().y, P().twice(4), P.Inner.z, x, y, twice, z, Inner, w)
""",
    "fields of a dataclass": """
from dataclasses import dataclass
@dataclass
class Point:
    left: int
    right: int = 3
    def sum(self):
        total = self.left + self.right
        return total
left, right = 4, 5
print(Point(left, right).sum(), Point(left=2), Point(1).right)
""",
    "members of an enum": """
from enum import Enum
class Colour(Enum):
    RED = 1
    GREEN = 2
RED = Colour["RED"]
print(RED, Colour.GREEN.name, [c.value for c in Colour])
""",
    "names of modules": """
from queue import Queue
import os.path as place
queue = Queue(); os = 3; joined = place.join("a", "b")
print(queue.empty(), os, joined)
""",
    "names that look like new ones": """
def f(v0, other=1): return v0 - other
def g(first, **more): return first, sorted(more)
print(f(v0=5, other=2), g(3, v1=1, v2=2, v3=3), f"{f(1)}")
""",
    "words that are keywords in places": """
_, case, match, other = 1, 2, 3, 4
match (case, _):
    case (_, 7): print(7)
    case (_, _): print(match, case, other)
""",
    "attributes in patterns": """
class Named:
    def __init__(self): self.y = 2
y, other = 5, 6
match Named():
    case Named(y=2): print(y, other)
""",
    "attributes behind a comment": """
real = other = 3
print((4 .  # the whole
    real), real, other)
""",
}


@pytest.mark.parametrize("code", KEPT.values(), ids=KEPT)
def test_names_that_others_know_stay(code):
    for seed in range(3):
        changed = perturb("rename-variables", code, seed)
        assert changed != code
        assert printed(changed) == printed(code)


def test_new_names_are_none_that_the_program_has():
    changed = perturb("rename-variables", "v1 = 1\nanother = f(v0=2)\nprint(v1, another)\n", 0)
    names = {n.id for n in ast.walk(ast.parse(changed)) if isinstance(n, ast.Name)}
    assert names == {"f", "print", "v2", "v3"}


def test_comments_go_or_change_places():
    assert comments(perturb("remove-comments", CODE, 0)) == []
    assert '"""' not in perturb("remove-comments", CODE, 0)
    swapped = comments(perturb("swap-comments", CODE, 0))
    assert sorted(swapped) == sorted(comments(CODE))
    assert all(a != b for a, b in zip(swapped, comments(CODE), strict=True))


COMMENTED = '''def f():  # one
    """Doc.

    string."""
    # two
    text = """a \x20
  # no comment\t

b"""  # three

    return text\x20
class Empty:
    """Only
    this."""  # four
class Short: "This"; x = 1
print(f(), Short.x)
# five'''
BARE = '''def f():
    text = """a \x20
  # no comment\t

b"""

    return text
class Empty:
    pass
class Short: pass; x = 1
print(f(), Short.x)
'''


def test_what_stands_in_strings_is_no_comment_and_lines_of_comments_go():
    assert perturb("remove-comments", COMMENTED, 0) == BARE
    assert printed(BARE) == printed(COMMENTED)


FORMATTED = """name = f'{1 if  x  else  2!r:>{ w }}  and  {f"{ y }"}'  \nmore = rf'''a  {b}
   c'''\n"""


def pieces():
    """What Python 3.12 makes of the two strings, with numbers that no type of 3.11 has."""
    start, middle, end = 1000, 1001, 1002
    lines = FORMATTED.splitlines(keepends=True)
    told = [
        (start, "f'", (1, 7), (1, 9)),
        (token.OP, "{", (1, 9), (1, 10)),
        (token.NAME, "if", (1, 12), (1, 14)),
        (middle, "  and  ", (1, 36), (1, 43)),
        (start, 'f"', (1, 44), (1, 46)),
        (token.NAME, "y", (1, 48), (1, 49)),
        (end, '"', (1, 51), (1, 52)),
        (token.OP, "}", (1, 52), (1, 53)),
        (end, "'", (1, 53), (1, 54)),
        (token.NEWLINE, "\n", (1, 56), (1, 57)),
        (start, "rf'''", (2, 7), (2, 12)),
        (middle, "a  ", (2, 12), (2, 15)),
        (end, "'''", (3, 4), (3, 7)),
    ]
    return [tokenize.TokenInfo(*t, lines[t[2][0] - 1]) for t in told], lines


def test_pieces_of_formatted_strings_are_one_string_again(monkeypatch):
    names = {1000: "FSTRING_START", 1001: "FSTRING_MIDDLE", 1002: "FSTRING_END"}
    for number, name in names.items():
        monkeypatch.setitem(token.tok_name, number, name)
    made = _whole_strings(*pieces())
    first, second = (ast.get_source_segment(FORMATTED, s.value) for s in ast.parse(FORMATTED).body)
    assert [(t.type, t.string) for t in made] == [
        (token.STRING, first),
        (token.NEWLINE, "\n"),
        (token.STRING, second),
    ]
    assert [(t.start, t.end) for t in made] == [
        ((1, 7), (1, 54)),
        ((1, 56), (1, 57)),
        ((2, 7), (3, 7)),
    ]


@pytest.mark.parametrize("name", ["strip-whitespace", "replace-keywords"])
def test_formatted_strings_stay_as_they_are_in_every_python(name):
    """Python 3.12 and later part them into tokens; 3.11 does not."""
    changed = perturb(name, FORMATTED, 0)
    for statement in ast.parse(FORMATTED).body:
        assert ast.get_source_segment(FORMATTED, statement.value) in changed


def test_keywords_become_words_of_no_meaning():
    changed = perturb("replace-keywords", CODE, 0)
    found = {t.string for t in tokenize.generate_tokens(io.StringIO(changed).readline)}
    assert not found & {"def", "for", "in", "return", "if", "else", "import", "class"}
    assert not compiles(changed)


def test_whitespace_goes_and_words_stay_apart():
    changed = perturb("strip-whitespace", CODE, 0)
    assert "\n\n" not in changed
    assert not any(line.startswith(" ") for line in changed.splitlines())
    assert "defarea" not in changed
    assert "def area(width,height=2):" in changed
    assert "return{" in changed


def test_a_seed_repeats_and_another_differs():
    assert perturb("replace-keywords", CODE, 1) == perturb("replace-keywords", CODE, 1)
    assert perturb("replace-keywords", CODE, 1) != perturb("replace-keywords", CODE, 2)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_real_code_is_changed_as_asked_and_what_should_compile_does(name):
    found = [d.text for d in standard_library()][::40]
    changed = [perturb(name, text, 0) for text in found]
    done = [(a, b) for a, b in zip(found, changed, strict=True) if b is not None]
    assert len(done) > 0.95 * len(found)
    good = sum(compiles(b) for _, b in done) / len(done)
    if name in ("unchanged", "rename-variables", "remove-comments", "swap-comments"):
        assert good > 0.98
    else:
        assert good < 0.15  # short pieces without a block survive
    different = sum(a != b for a, b in done)
    assert different == 0 if name == "unchanged" else different > 0.5 * len(done)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_lines_may_end_in_any_way_that_python_lets_them(name, end):
    changed, usual = perturb(name, CODE.replace("\n", end), 0), perturb(name, CODE, 0)
    if name in ("rename-variables", "remove-comments", "swap-comments"):
        assert printed(changed) == printed(usual)
    if name != "replace-keywords":  # whose words are drawn by the text
        assert len(changed.splitlines()) == len(usual.splitlines())


@pytest.mark.parametrize("name", ["unchanged", "rename-variables", "remove-comments"])
def test_what_is_nested_too_deep_is_given_back_as_none(name):
    assert perturb(name, "x = " + "-" * 100_000 + "1", 0) is None


PIECES = ["x", " ", "\n", "\r", "\t", "\n    ", "\f", "é", '"', "'''", '"""', "#", ";", ":", "\\", "("]
PIECES += ["def f():", "class A:", "pass", "x = 1", 'f"{x}"', '"""D"""', "match x:", "case _:"]


@given(
    st.text(max_size=80) | st.lists(st.sampled_from(PIECES), max_size=20).map("".join),
    st.sampled_from(sorted(PERTURBATIONS)),
)
@settings(deadline=None)
def test_anything_is_changed_or_given_back_as_none(text, name):
    changed = perturb(name, text, 0)
    assert changed is None or isinstance(changed, str)
