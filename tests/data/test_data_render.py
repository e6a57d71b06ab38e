"""Programs in other forms: what they do is still told, and they are no code."""

import random
import re

import pytest

from codestage.data.perturb import compiles, perturb
from codestage.data.render import RENDERINGS, flowchart, pseudocode, steps
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
