"""Items from generators, from published files, and from the hub's editions."""

import gzip
import json
from collections import Counter
from dataclasses import asdict, replace

import pytest
from datasets import Dataset
from jinja2.exceptions import SecurityError
from published_fixture import PUBLISHED, published

from codestage.errors import UserError
from codestage.evaluate.converters import math_boxed
from codestage.evaluate.documents import _render, from_json, has_data, published_files, task_items
from codestage.evaluate.items import chance, permuted
from codestage.evaluate.tasks import all_tasks

TASKS = {task.name: task for task in all_tasks()}
MADE = [t for t in TASKS.values() if "procedural" in t.data]
FILED = [t for t in TASKS.values() if PUBLISHED.is_dir() and published_files(t, PUBLISHED)]


@pytest.mark.parametrize("task", MADE, ids=lambda task: task.name)
def test_made_items_depend_on_the_seed_alone_and_are_well_formed(task):
    found = task_items(task, seed=0, n=40)
    assert task_items(task, seed=0, n=40) == found
    assert task_items(task, seed=1, n=40) != found
    assert task_items(task, seed=0, n=20) == found[:20]  # fewer items are the first of more
    for item in found:
        prompts = [item.prompt(mode) for mode in ("off", "supplied", "generated")]
        assert len(set(prompts)) == 3
        assert all(item.instruction in prompt for prompt in prompts)
        assert prompts[1].startswith(prompts[2])  # supplied: the asked-for reasoning, written out
        assert len(set(item.choices)) == len(item.choices)
        assert len(item.rationale) > 5


@pytest.mark.parametrize("task", [*MADE, *FILED], ids=lambda task: task.name)
def test_counts_and_chance_are_those_the_task_states(task):
    items = task_items(task, data=PUBLISHED)
    assert len(items) == task.items
    assert len({item.id for item in items}) == len(items)
    assert chance(items, written=task.written) == pytest.approx(task.chance, abs=6e-5)
    if task.written and not any(item.code for item in items):
        commonest = Counter(item.answer for item in items).most_common(1)[0][1] / len(items)
        assert task.chance == pytest.approx(commonest, abs=6e-5)
    for item in items:
        assert item.instruction
        assert item.answer
        assert not item.choices or item.choices[item.gold] == item.answer
        assert len(item.channel) in (0, len(item.choices))
        assert item.rationale or not task.rationales
        assert from_json(json.loads(json.dumps(asdict(item)))) == item


def test_published_files_are_there_for_the_tasks_of_most_suites():
    folder = published()
    assert sum(has_data(task, folder) for task in TASKS.values()) >= 55


# What a person reads in the published files: (task, item, part of the question, answer).
READ = [
    ("logiqa_en", 0, "centered on the citizen park", None),
    ("gsm8k", 0, "Janet’s ducks lay 16 eggs per day", "18"),
    ("svamp", 0, "Each pack of dvds costs 76 dollars. If there is", "51"),
    ("asdiv", 0, "Seven red apples and two green apples", "9"),
    ("multiarith", 0, "For Halloween Debby", "39"),
    ("addsub", 0, "Joan found 70 seashells", "43"),
    ("coin_flips", 0, "Whitney flips the coin", "yes"),
    ("last_letter_concat", 0, "Whitney Erika Tj Benito", "yajo"),
    ("first_letter_concat", 0, "Whitney Erika Tj Benito", "wetb"),
    ("reverse_names", 0, "Whitney, Erika, Tj, Benito", "Benito, Tj, Erika, Whitney"),
    ("folio", 0, "Bonnie performs in school talent shows often.", "Uncertain"),
    ("proofwriter", 0, "Charlie is kind", None),
    ("prontoqa", 0, "Max is sour", "False"),
    ("commonsense_qa", 0, "A revolving door is convenient", "bank"),
    ("bbh_navigate", 0, "Take 9 steps left", "No"),
    ("bbh_object_counting", 0, "", None),
    ("cosqa", 0, "python check relation is symmetric", None),
    ("c3", 0, "梅兰芳是一个什么样的人?", "他是一个很虚心的人"),
    ("ocnli", 0, "身上至少一件衣服", "Yes"),
    ("mbpp", 0, "remove first and last occurrence of a given character", None),
    ("humaneval", 0, "has_close_elements", None),
    ("sat_math", 0, "frac{x-1}{3}=k", "10"),
]


@pytest.mark.parametrize(("name", "i", "part", "answer"), READ, ids=lambda v: str(v)[:24])
def test_published_files_are_read_as_a_person_reads_them(name, i, part, answer):
    item = task_items(TASKS[name], data=published())[i]
    assert part.casefold() in item.instruction.casefold()
    assert answer is None or item.answer == answer
    assert not any(choice[:2] in ("A.", "(A", "A)") for choice in item.choices)


def test_the_channel_has_the_papers_templates():
    """Ma et al. 2024, Table 1, and their loader of CosQA."""
    folder = published()
    cosqa = task_items(TASKS["cosqa"], n=1, data=folder)[0]
    assert cosqa.channel[0][0] == "python check relation is symmetric? Answered code is correct:"
    assert cosqa.channel[1][0].endswith("? Answered code is wrong:")
    assert cosqa.channel[0][1] == cosqa.channel[1][1]  # the evidence is the same under each label
    assert cosqa.channel[0][1].startswith(" def is_edge_consistent")
    ocnli = task_items(TASKS["ocnli"], n=1, data=folder)[0]
    assert [label.rpartition("? ")[2] for label, _ in ocnli.channel] == ["Yes,", "Maybe,", "No,"]
    c3 = task_items(TASKS["c3"], n=1, data=folder)[0]
    assert c3.channel[2][0] == (
        "Question: 梅兰芳是一个什么样的人?\n Answer:他是一个很虚心的人 comes from the dialogue:"
    )
    logic = task_items(TASKS["logiqa_en"], n=1, data=folder)[0]
    assert logic.channel[0][0] == f"The answer: {logic.choices[0]}, can answer the following questions:"


# One row as the hub's edition of a data set holds it, and what it asks and answers.
HUB = {
    "ceval_logic": (
        {"id": 0, "question": "以下哪项？", "A": "甲", "B": "乙", "C": "丙", "D": "丁", "answer": "C", "explanation": ""},
        "以下哪项？", "丙",
    ),
    "scienceqa": (
        {"image": None, "question": "Which is it?", "choices": ["a", "b"], "answer": 1, "hint": "A hint.", "lecture": "L.", "solution": "S."},
        "A hint.\nWhich is it?", "b",
    ),
    "ekar_zh": (
        {"id": "1", "question": "教师:学生", "choices": {"label": ["A", "B"], "text": ["医生:病人", "苹果:梨"]}, "answerKey": "A", "explanation": ["x", "y"]},
        "教师:学生", "医生:病人",
    ),
    "cmnli": ({"sentence1": "他走了。", "sentence2": "他还在。", "label": 2, "idx": 0}, None, "No"),
    "dureader": (
        {"id": "1", "title": "", "context": "水在0度结冰。", "question": "几度？", "answers": {"text": ["0度", "零度"], "answer_start": [2, 2]}},
        "水在0度结冰。\n几度？", "0度",
    ),
    "clutrr": (
        {"id": "1", "story": "[Ann] is the mother of [Bob].", "query": "('Bob', 'Ann')", "target_text": "mother"},
        None, "mother",
    ),
    "babi_deduction": (
        {"passage": "Sheep are afraid of wolves.\n", "question": "What is Gertrude afraid of?", "answer": "wolf", "task": 15},
        "Sheep are afraid of wolves.\nWhat is Gertrude afraid of?", "wolf",
    ),
    "babi_induction": (
        {"passage": "Lily is a swan.\n", "question": "What color is Greg?", "answer": "white", "task": 16},
        None, "white",
    ),
    "math": (
        {"problem": "Solve $x=1$.", "solution": r"So $x=\boxed{\frac{1}{2}}$.", "level": "Level 1", "type": "Algebra"},
        "Solve $x=1$.", r"\frac{1}{2}",
    ),
    "gsm8k": ({"question": "How many?", "answer": "2+2=<<2+2=4>>4\n#### 4"}, "How many?", "4"),
    "multiarith": ({"question": " How many? ", "final_ans": "7"}, "How many?", "7"),
    "asdiv": ({"body": "Two.", "question": "How many?", "answer": "9 (apples)", "solution_type": "", "formula": ""}, "Two. How many?", "9"),
    "logiqa_en": (
        {"query": "Q: It rains. What follows? Answer Choices: (A)wet (B)dry\nA: Among A through B, the answer is", "choices": ["(A)wet", "(B)dry"], "gold": [0]},
        "It rains. What follows?", "wet",
    ),
    "commonsense_qa": (
        {"id": "x", "question": "Where?", "choices": {"label": ["A", "B"], "text": ["here", "there"]}, "answerKey": "B"},
        "Where?", "there",
    ),
    "c3": ({"id": 0, "context": ["甲"], "question": "谁?", "choice": ["甲", "乙"], "answer": "甲"}, "甲\n谁?", "甲"),
    "folio": ({"premises": "All is well.", "conclusion": "It is.", "label": "True"}, None, "True"),
    "bbh_web_of_lies": ({"input": "Does Ann tell the truth?", "target": "Yes"}, "Does Ann tell the truth?", "Yes"),
    "bbh_word_sorting": ({"input": "Sort: b a", "target": "a b"}, "Sort: b a", "a b"),
}  # fmt: skip


@pytest.mark.parametrize("name", HUB)
def test_the_hubs_editions_are_read(name, tmp_path):
    """By the very call that reads the hub, from a folder that stands in for it."""
    row, question, answer = HUB[name]
    task = TASKS[name]
    hub = dict(task.data["hub"]) | {"path": str(tmp_path), "name": None, "split": "train"}
    Dataset.from_list([row]).to_parquet(str(tmp_path / "train.parquet"))
    (item,) = task_items(replace(task, data=dict(task.data) | {"hub": hub}))
    assert question is None or item.instruction == question
    assert item.answer == answer


def test_what_cannot_be_asked_is_left_out(tmp_path):
    task = TASKS["jecqa"]
    rows = [
        {"passage": None, "question": "q", "options": ["(A)a", "(B)b"], "label": label}
        for label in (["A"], ["A", "B"], None, "C", [""], ["AB"])
    ]
    (tmp_path / "agieval").mkdir()
    for name in task.data["files"]:
        (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows))
    assert [item.answer for item in task_items(task, data=tmp_path)] == ["a", "a"]


def test_a_problem_whose_answer_is_no_number_is_not_asked_for_one():
    numbers = (r"\frac{1}{2}", "-3", r"10,\!000", r"\$18.90", r"50\%", r"12\text{ cm}", "0")
    others = (
        r"5\sqrt{2}",
        "x+1",
        "5a",
        "2a + 3",
        "(3, 4)",
        "3, 5",
        "1,2",
        r"\text{Yes}",
        "x^2",
        "",
        "2 + 3i",
    )
    rows = [
        {"problem": "Solve.", "solution": rf"So \boxed{{{answer}}}."} for answer in (*numbers, *others)
    ]
    assert [doc["answer"] for doc in math_boxed(rows)] == list(numbers)


def test_data_without_an_item_that_can_be_asked_is_refused(tmp_path):
    (tmp_path / "AddSub.json").write_text("[]")
    with pytest.raises(UserError, match="no item that can be asked"):
        task_items(TASKS["addsub"], data=tmp_path)


def test_data_that_is_not_there_or_broken_is_told_with_what_to_do(tmp_path):
    offline = replace(TASKS["addsub"])  # the hub has no edition of it
    with pytest.raises(UserError, match=r"AddSub\.json.*--data FOLDER"):
        task_items(offline, data=tmp_path)
    (tmp_path / "AddSub.json").write_text('[{"question": "?"}]')
    with pytest.raises(UserError, match=r"AddSub\.json is not in the format expected"):
        task_items(offline, data=tmp_path)
    (tmp_path / "AddSub.json").write_text("no json")
    with pytest.raises(UserError, match="not in the format expected"):
        task_items(offline, data=tmp_path)
    (tmp_path / "AddSub.json").unlink()
    (tmp_path / "AddSub.json.gz").write_bytes(gzip.compress(b"[]")[:12])
    with pytest.raises(UserError, match="cannot be read"):
        task_items(offline, data=tmp_path)
    (tmp_path / "AddSub.json.gz").write_bytes(gzip.compress(b"[]")[:10] + b"\xff" * 20)
    with pytest.raises(UserError, match="cannot be read"):
        task_items(offline, data=tmp_path)
    (tmp_path / "ASDiv.xml").write_text("<Problem ID='1'><Body>Two.")
    with pytest.raises(UserError, match=r"ASDiv\.xml is not in the format expected"):
        task_items(TASKS["asdiv"], data=tmp_path)


def test_a_permuted_item_is_the_same_question():
    item = task_items(TASKS["family"], n=1)[0]
    orders = {permuted(item, seed).choices for seed in range(30)}
    assert len(orders) > 4
    for seed in range(5):
        other = permuted(item, seed)
        assert sorted(other.choices) == sorted(item.choices)
        assert other.choices[other.gold] == item.answer


def test_a_template_cannot_reach_the_program():
    with pytest.raises(SecurityError):
        _render("{{ x.__class__.__mro__ }} and text", {"x": "text"})
