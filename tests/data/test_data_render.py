"""Programs in other forms: what they do is still told, and they are no code."""

import ast
import itertools
import random
import re

import pytest

from codestage.data.perturb import compiles, perturb
from codestage.data.render import RENDERINGS, flowchart, pseudocode, steps, words
from codestage.data.sources import standard_library
from codestage.data.worlds.skills import SKILLS
from codestage.study.schema_sources import TRANSFORMS

CODE = """
def total(items, start=0):
    for item in items:
        if item > 3 and item != 5:
            start += item * 2
        else:
            continue
    return start

print(total([1, 4]))
"""


def test_pseudocode():
    assert pseudocode(CODE).splitlines() == [
        "FUNCTION total with items, start=0",
        "    FOR EACH item in items",
        "        IF item is greater than 3 and item does not equal 5",
        "            Set start to start plus item times 2",
        "        OTHERWISE",
        "            Go on with the next",
        "        END IF",
        "    END FOR EACH",
        "    Give back start",
        "END FUNCTION",
        "Print total of [1, 4]",
    ]


def test_steps():
    assert steps(CODE).splitlines() == [
        "1. Function total with items, start=0:",
        "1.1. For each item in items, do this:",
        "1.1.1. If item is greater than 3 and item does not equal 5, do this:",
        "1.1.1.1. Set start to start plus item times 2.",
        "1.1.1.a Otherwise:",
        "1.1.1.a.1. Go on with the next.",
        "1.2. Give back start.",
        "2. Print total of [1, 4].",
    ]


def test_a_flowchart_joins_every_box():
    chart = flowchart(CODE)
    boxes = set(re.findall(r"^    (n\d+)[\[({]", chart, re.MULTILINE))
    arrows = re.findall(r"^    (n\d+) -->(?:\|[^|]*\|)? (n\d+)$", chart, re.MULTILINE)
    assert {a for a, _ in arrows} | {b for _, b in arrows} == boxes
    assert sum("?" in line and "{" in line for line in chart.splitlines()) == 2
    assert "-->|yes|" in chart
    assert "-->|no|" in chart


def expressions(depth):
    """Every expression of so many operations over two names, as code with all its brackets."""
    if depth == 0:
        yield from ("a", "b")
        return
    for one in range(depth):
        for left, right in itertools.product(expressions(one), expressions(depth - 1 - one)):
            for sign in ("+", "-", "*", "**", "and", "or", "<"):
                yield f"({left} {sign} {right})"
            yield f"f({left}, {right})"
            yield f"{left}[{right}]"
    for inner in expressions(depth - 1):
        yield from (f"(not {inner})", f"(-{inner})", f"f({inner})", f"f(**{inner})", f"f(k={inner})")


def test_different_expressions_are_told_in_different_words():
    told = {}
    for code in [e for depth in range(3) for e in expressions(depth)]:
        tree = ast.parse(code, mode="eval").body
        said = words(tree)
        assert told.setdefault(said, ast.dump(tree)) == ast.dump(tree), f"{said}: {ast.unparse(tree)}"
    assert len(told) > 500
    assert words(ast.parse("(a + b) * c", mode="eval").body) == "(a plus b) times c"
    assert words(ast.parse("a + b + c", mode="eval").body) == "a plus b plus c"


LEAVES = """
def f(x):
    if x: return 1
    return 2
for i in xs:
    if i: break
    if j:
        continue
    try:
        raise ValueError
    except ValueError:
        a = 1
    finally:
        c = 1
    print(i)
else:
    b = 2
print(3)
"""


def test_arrows_go_where_the_program_goes():
    chart = flowchart(LEAVES)
    text = dict(re.findall(r"^    (n\d+)\W+\"(.*?)\"", chart, re.M))
    goes = {}
    for source, target in re.findall(r"^    (n\d+) -->(?:\|[^|]*\|)? (n\d+)$", chart, re.M):
        goes.setdefault(text[source], set()).add(text[target])
    loop = "another i in xs?"
    assert goes == {
        "start": {"function f with x"},
        "function f with x": {"x?"},
        "x?": {"give back 1", "give back 2"},
        "give back 1": {loop},
        "give back 2": {loop},
        loop: {"i?", "set b to 2"},
        "i?": {"leave the loop", "j?"},
        "leave the loop": {"print 3"},
        "j?": {"go on with the next", "try"},
        "go on with the next": {loop},
        "try": {"raise ValueError", "set a to 1"},
        "raise ValueError": {"set a to 1"},
        "set a to 1": {"set c to 1"},
        "set c to 1": {"print i"},
        "print i": {loop},
        "set b to 2": {"print 3"},
        "print 3": {"end"},
    }


@pytest.mark.parametrize("name", RENDERINGS)
def test_the_small_worlds_programs_can_be_told(name):
    for skill in SKILLS:
        code = SKILLS[skill](random.Random(2), 2).program
        told = perturb(name, code, 0)
        assert told.strip()
        assert not compiles(told)


@pytest.mark.parametrize("name", RENDERINGS)
def test_real_code_can_be_told(name):
    for document in list(standard_library())[::60]:
        assert perturb(name, document.text, 0) is not None


def test_what_is_no_python_is_none():
    assert perturb("steps", "def (", 0) is None


def test_every_transform_of_a_study_exists():
    for name in TRANSFORMS:
        assert perturb(name, "x = 1\nprint(x)  # one\n# two\n", 0)
