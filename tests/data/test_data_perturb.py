"""Perturbations: what stays Python still does the same, and only what was meant is changed."""

import ast
import contextlib
import io
import random
import tokenize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codestage.data.perturb import PERTURBATIONS, compiles, perturb
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


def test_comments_go_or_change_places():
    assert comments(perturb("remove-comments", CODE, 0)) == []
    assert '"""' not in perturb("remove-comments", CODE, 0)
    swapped = comments(perturb("swap-comments", CODE, 0))
    assert sorted(swapped) == sorted(comments(CODE))
    assert all(a != b for a, b in zip(swapped, comments(CODE), strict=True))


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


@given(st.text(max_size=80), st.sampled_from(sorted(PERTURBATIONS)))
@settings(deadline=None)
def test_anything_is_changed_or_given_back_as_none(text, name):
    changed = perturb(name, text, 0)
    assert changed is None or isinstance(changed, str)
