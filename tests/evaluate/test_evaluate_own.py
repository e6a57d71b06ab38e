"""Questions of a study's own: what a file says is what is asked, and a row that is none is named."""

import gzip
import json

import pytest

from codestage.errors import UserError
from codestage.evaluate.answers import read_output, same_answer
from codestage.evaluate.documents import has_data, task_items
from codestage.evaluate.own import own_task
from codestage.evaluate.tasks import load_tasks, tasks_of
from codestage.study.schema import OwnTaskSpec

CHOICES = [
    {
        "question": "Which is a colour?",
        "choices": ["red", "seven"],
        "answer": "red",
        "rationale": "Red is.",
    },
    {
        "question": "How many?",
        "context": "A, B.",
        "choices": [1, 2],
        "answer": 2,
        "rationale": "Two letters.",
    },
]
WRITTEN = [
    {"question": "2 + 2?", "answer": 4, "aliases": ["four"]},
    {"question": "3?", "answer": "3", "id": "x"},
]


def task(folder, rows, name="own.jsonl", **more):
    text = "\n".join(json.dumps(row) for row in rows)
    packed = name.endswith(".gz")
    (folder / name).write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return own_task("own", OwnTaskSpec(path=name, domain="logical", **more), folder)


@pytest.mark.parametrize("name", ["own.jsonl", "own.json", "own.jsonl.gz"])
def test_questions_with_choices_are_asked_as_they_stand(tmp_path, name):
    found = task(tmp_path, CHOICES, name, letters=True)
    assert (found.written, found.items, found.rationales, found.letters) == (False, 2, True, True)
    first, second = task_items(found)
    assert (first.instruction, first.choices, first.answer) == (
        "Which is a colour?",
        ("red", "seven"),
        "red",
    )
    assert (second.instruction, second.choices, second.gold) == ("A, B.\nHow many?", ("1", "2"), 1)
    assert second.rationale == "Two letters."
    assert has_data(found, None)


def test_questions_without_choices_are_answered_in_writing(tmp_path):
    found = task(tmp_path, WRITTEN, answer="number", max_new_tokens=7)
    assert (found.written, found.answer, found.max_new_tokens, found.rationales) == (
        True,
        "number",
        7,
        False,
    )
    first, second = task_items(found)
    assert (first.id, first.instruction, first.answer) == ("own-0", "2 + 2?", "4")
    assert (first.aliases, first.choices) == (("four",), ())
    assert second.id == "own-x"


def test_every_way_of_writing_a_number_that_is_read_is_an_answer(tmp_path):
    answers = [-5, 4.0, 1e-7, "1/3", "42%", "$1,250", "12 apples", "twelve", "½"]
    rows = [{"question": f"{i}?", "answer": answer} for i, answer in enumerate(answers)]
    found = task(tmp_path, rows, answer="number")
    for item in task_items(found):
        assert same_answer(read_output(item.answer, cot=False, kind="number")[0], item.answer, "number")
    task(tmp_path, [*rows, {"question": "Which?", "answer": "red"}])  # as text


def test_zero_is_an_id_like_any_other(tmp_path):
    rows = [{"id": i, "question": f"{i} + 1?", "answer": i + 1} for i in (1, 0)]
    assert [item.id for item in task_items(task(tmp_path, rows))] == ["own-1", "own-0"]


def test_own_tasks_stand_among_the_named_ones_in_one_order(tmp_path):
    own = task(tmp_path, WRITTEN)
    named = [(t.name, t.version) for t in load_tasks(["quickstart"])]
    found = tasks_of([*named, ("own", 0)], [own])
    assert found == tasks_of([("own", 0), *reversed(named)], [own])
    assert own in found
    assert len(found) == len(named) + 1


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        ([WRITTEN[0]], {}, "1 questions; at least two"),
        ([WRITTEN[0], ["a"]], {}, r"row 2: \['a'\] is no question"),
        ([WRITTEN[0], {"question": "Why?"}], {}, "row 2: has no answer"),
        ([{"question": " ", "answer": 1}, WRITTEN[0]], {}, "row 1: has no question"),
        ([WRITTEN[0], WRITTEN[1] | {"hint": "x"}], {}, "row 2: unknown hint; known: aliases, answer"),
        ([WRITTEN[0] | {"aliases": "IV"}, WRITTEN[1]], {}, "row 1: aliases 'IV': write a list"),
        ([WRITTEN[0], WRITTEN[1] | {"aliases": 5}], {}, "row 2: aliases 5: write a list"),
        ([CHOICES[0], WRITTEN[0]], {}, "row 2: rows with choices and rows without"),
        ([CHOICES[0], CHOICES[1] | {"answer": 3}], {}, "row 2: answer 3 is none of its choices"),
        (
            [CHOICES[0], CHOICES[1] | {"choices": [2, 2]}],
            {},
            r"row 2: choices \[2, 2\]: write a list of two",
        ),
        ([CHOICES[0], CHOICES[1] | {"choices": "2"}], {}, "row 2: choices '2': write a list"),
        ([CHOICES[0], CHOICES[1] | {"choices": ["", 2]}], {}, "row 2: choices .*one is blank"),
        (
            [CHOICES[0], CHOICES[1] | {"choices": list(range(27))}],
            {"letters": True},
            "a question has 27 choices, and there are 26 letters; leave letters out",
        ),
        ([WRITTEN[1], WRITTEN[1]], {}, "row 2: id 'x' stood in an earlier row"),
        (WRITTEN, {"letters": True}, "letters need choices"),
        (CHOICES, {"answer": "number"}, "answer: number is for written answers"),
        (
            [WRITTEN[0], {"question": "Which?", "answer": "red"}],
            {"answer": "number"},
            r"own\.jsonl, row 2: answer 'red' is not read as a number, .* leave answer: number out",
        ),
        (
            [{"question": "Is it?", "answer": True}, WRITTEN[0]],
            {"answer": "number"},
            "row 1: answer 'True'",
        ),
        (
            [WRITTEN[0] | {"aliases": ["four", "3 or 4"]}, WRITTEN[1]],
            {"answer": "number"},
            "row 1: alias '3 or 4' is not read as a number",
        ),
    ],
)
def test_what_is_no_question_is_said_with_its_row(tmp_path, rows, more, said):
    with pytest.raises(UserError, match=said):
        task(tmp_path, rows, **more)


def test_the_mark_that_some_editors_begin_a_file_with_is_no_part_of_it(tmp_path):
    text = "\n".join(json.dumps(row) for row in WRITTEN)
    (tmp_path / "own.jsonl").write_text(text, encoding="utf-8-sig")
    found = own_task("own", OwnTaskSpec(path="own.jsonl", domain="logical"), tmp_path)
    assert [item.answer for item in task_items(found)] == ["4", "3"]


def test_what_ends_a_line_elsewhere_may_stand_in_a_question(tmp_path):
    rows = [{"question": f"What is{end}it?", "answer": "x"} for end in ("\u2028", "\u2029", "\x85")]
    (tmp_path / "own.jsonl").write_text(
        "\r\n".join(json.dumps(r, ensure_ascii=False) for r in rows), newline=""
    )
    found = own_task("own", OwnTaskSpec(path="own.jsonl", domain="logical"), tmp_path)
    assert [item.instruction for item in task_items(found)] == [row["question"] for row in rows]


def test_a_file_that_is_not_there_or_not_json_is_said(tmp_path):
    spec = OwnTaskSpec(path="own.jsonl", domain="logical")
    with pytest.raises(UserError, match="there is no such file"):
        own_task("own", spec, tmp_path)
    (tmp_path / "own.jsonl").write_text("{'question'}")
    with pytest.raises(UserError, match=r"own.jsonl: not JSON"):
        own_task("own", spec, tmp_path)
