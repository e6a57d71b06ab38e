"""Task files, suites and names."""

from collections import Counter

import pytest

from codestage.errors import UserError
from codestage.evaluate.tasks import all_tasks, load_tasks, modes, suites

TASKS = all_tasks()


def test_the_quickstart_suite_covers_what_it_must():
    tasks = load_tasks(["quickstart"])
    assert {t.domain for t in tasks} == {"symbolic", "logical", "arithmetic", "analogical", "code"}
    kinds = Counter(t.output_type for t in tasks)
    assert kinds["multiple_choice"] >= 4
    assert kinds["generate_until"] >= 4


def test_the_papers_suites_hold_the_domains_they_name():
    domains = {name: {t.domain for t in TASKS if name in t.suites} for name in suites()}
    assert domains["ma2024"] == {"logical", "legal", "scientific", "analogical", "code"}
    assert domains["zhang2025"] == {"symbolic", "logical", "arithmetic"}
    assert len(suites()["zhang2025"].tasks) == 12
    assert len(suites()["bbh"].tasks) == 27
    assert suites()["transfer"].tasks == ("c3", "ocnli", "cmnli", "dureader")
    channel = {t.name for t in TASKS if t.channel}
    assert channel >= set(suites()["ma2024"].tasks) - {"mbpp"} | {"c3", "ocnli", "cmnli"}


def test_every_task_says_where_it_comes_from_and_belongs_somewhere():
    assert len({t.name for t in TASKS}) == len(TASKS)
    for task in TASKS:
        assert task.source, task.name
        assert task.licence, task.name
        assert task.split, task.name
        assert task.suites, task.name
        known = task.chance is not None and task.items is not None
        assert known or not task.data.get("files") or task.data.get("hub"), task.name
    for suite in suites().values():
        assert suite.title
        assert suite.note
        assert len(set(suite.tasks)) == len(suite.tasks)


def test_a_task_is_found_by_name_and_by_suite_once():
    name = TASKS[0].name
    assert [t.name for t in load_tasks([name, name])] == [name]
    assert len(load_tasks(["mbpp", "ma2024"])) == len(suites()["ma2024"].tasks)


def test_a_name_that_is_nothing_gets_the_nearest_and_the_advice_works():
    with pytest.raises(UserError, match="did you mean") as error:
        load_tasks(["quikstart"])
    assert load_tasks([str(error.value).split("did you mean '")[1].split("'")[0]])


def test_a_task_is_asked_only_where_it_can_be():
    by_name = {t.name: t for t in TASKS}
    every = ("off", "supplied", "generated")
    assert modes(by_name["gsm8k"], every) == ["off", "supplied", "generated"]
    assert modes(by_name["svamp"], every) == ["off", "generated"]  # it brings no reasoning
    assert modes(by_name["mbpp"], every) == ["off"]
