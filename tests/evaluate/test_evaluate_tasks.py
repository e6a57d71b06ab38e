"""Task files, their names and their items."""

from collections import Counter

import pytest
from jinja2.exceptions import SecurityError

from codestage.errors import UserError
from codestage.evaluate.tasks import _render, all_tasks, load_tasks, task_items

TASKS = all_tasks()


def test_the_quickstart_suite_covers_what_it_must():
    tasks = load_tasks(["quickstart"])
    assert {t.domain for t in tasks} == {"symbolic", "logical", "arithmetic", "analogical", "code"}
    kinds = Counter(t.output_type for t in tasks)
    assert kinds["multiple_choice"] >= 4
    assert kinds["generate_until"] >= 4
    assert len({t.name for t in tasks}) == len(tasks)
    assert all(t.licence and t.source and t.version for t in tasks)


def test_a_task_is_found_by_name_and_by_suite_once():
    name = TASKS[0].name
    assert [t.name for t in load_tasks([name, name])] == [name]
    assert len(load_tasks([name, "quickstart"])) == len(load_tasks(["quickstart"]))


def test_a_name_that_is_nothing_gets_the_nearest_and_the_advice_works():
    with pytest.raises(UserError, match="did you mean") as error:
        load_tasks(["quikstart"])
    assert load_tasks([str(error.value).split("did you mean '")[1].split("'")[0]])


def test_a_template_cannot_reach_the_program():
    with pytest.raises(SecurityError):
        _render("{{ x.__class__.__mro__ }} and text", {"x": "text"})


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_items_depend_on_the_seed_alone_and_are_well_formed(task):
    found = task_items(task, seed=0, n=40)
    task_items.cache_clear()
    assert task_items(task, seed=0, n=40) == found
    assert task_items(task, seed=1, n=40) != found
    assert task_items(task, seed=0, n=20) == found[:20]  # fewer items are the first of more
    assert len({item.id for item in found}) == 40
    for item in found:
        assert item.choices[item.gold] == item.answer
        assert len(set(item.choices)) == len(item.choices)
        prompts = [item.prompt(mode) for mode in ("off", "supplied", "generated")]
        assert len(set(prompts)) == 3
        assert all(item.instruction in prompt for prompt in prompts)
        assert prompts[1].startswith(prompts[2])  # supplied: the asked-for reasoning, written out
        assert len(item.rationale) > 5


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_chance_is_one_choice_picked_blindly_or_the_commonest_answer(task):
    items = task_items(task, seed=0)
    commonest = Counter(item.answer for item in items).most_common(1)[0][1] / len(items)
    if task.output_type == "generate_until":
        assert task.chance == pytest.approx(commonest)
    else:
        assert task.chance == pytest.approx(sum(1 / len(i.choices) for i in items) / len(items))
