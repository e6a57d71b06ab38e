"""Programs in answers: what is perturbed of an instruction, and what is left as it is."""

import pytest

from codestage.data.answers_in_code import is_program, perturb_answer
from codestage.data.clean import Ledger, clean
from codestage.data.perturb import compiles
from codestage.data.sources import Example
from codestage.data.worlds import corpus
from codestage.study.schema_sources import TRANSFORMS, SourceSpec

PROGRAM = "def area(w, h):\n    return w * h  # flat\n\nprint(area(2, 3))"
TOLD = f"Here it is:\n\n```python\n{PROGRAM}\n```\n\nRun it so:\n\n```bash\npython area.py\n```\nThat is all."


@pytest.mark.parametrize("text", ["no", "12", "true or false", "the dog", "'a'", "def (:", ""])
def test_short_answers_are_no_programs_though_python_can_read_them(text):
    assert not is_program(text)
    assert perturb_answer(["rename-variables"], text) is None


def test_a_whole_answer_is_perturbed_between_its_empty_lines():
    assert perturb_answer(["unchanged"], f"\n{PROGRAM}") == f"\n{PROGRAM}"
    changed = perturb_answer(["remove-comments", "rename-variables"], f"\n{PROGRAM}")
    assert changed.startswith("\ndef v")
    assert "flat" not in changed
    assert compiles(changed)


def test_fenced_python_is_perturbed_and_what_stands_around_it_stays():
    assert perturb_answer(["unchanged"], TOLD) == TOLD
    before, after = TOLD.split(PROGRAM)
    changed = perturb_answer(["rename-variables"], TOLD)
    assert changed.startswith(before)
    assert changed.endswith(after)
    assert changed != TOLD
    told = perturb_answer(["pseudocode"], TOLD)
    assert "```python" not in told  # it is none any more
    assert told.endswith(after)


def test_fences_may_end_as_windows_ends_lines():
    told = TOLD.replace("\n", "\r\n")
    assert perturb_answer(["unchanged"], told) == told
    js = "So:\r\n```js\r\nlet n = 1; // a\r\n```\r\nDone."
    made = perturb_answer(["remove-comments"], js, "javascript")
    assert made == "So:\r\n```js\r\nlet n = 1;\r\n```\r\nDone."


def test_instructions_without_python_go_and_are_counted():
    held = [
        Example("a", "Write it.", PROGRAM),
        Example("b", "Is it?", "no"),
        Example("c", "In C.", "```c\nint main() {}\n```"),
        Example("d", "Write it.", PROGRAM, more=(("And why?", "Because."),)),
        Example("e", "Write it.", PROGRAM, more=(("Again.", PROGRAM),)),
    ]
    spec = SourceSpec(domain="code", format="instruct", path="x", transform=["remove-comments"])
    ledger = Ledger()
    kept = list(clean(held, spec, ledger))
    assert [item.id for item in kept] == ["a", "e"]
    assert all("flat" not in said for item in kept for pair in item.exchanges for said in pair)
    assert ledger.removed == {"transform": 3}
    assert ledger.transformed == {"changed": 2, "python": 2}


def test_every_form_keeps_the_same_instructions():
    """What `unchanged` keeps is what its perturbed siblings keep: samples are matched by construction."""
    made = [
        Example(str(i), row["prompt"], row["response"], row["rationale"])
        for i, row in enumerate(corpus("code_chat", documents=200, depth=(1, 2)))
    ]
    kept = {}
    for name in TRANSFORMS:
        spec = SourceSpec(domain="code", format="instruct", path="x", transform=[name])
        kept[name] = {item.id: item.response for item in clean(made, spec, Ledger())}
    assert 70 < len(kept["unchanged"]) < 130  # half of them ask for a program
    assert all(some.keys() == kept["unchanged"].keys() for some in kept.values())
    assert all(kept[name] != kept["unchanged"] for name in TRANSFORMS if name != "unchanged")
