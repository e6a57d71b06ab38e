"""Claim: every task's metrics score 100 for who knows, chance for who guesses, 0 for who is silent."""

from dataclasses import replace

import pytest

from codestage.evaluate import selftest as st
from codestage.evaluate.run import make_asks
from codestage.evaluate.tasks import all_tasks

TASKS = all_tasks()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_of_the_package_passes_its_selftest(task):
    checks = st.selftest(task)
    assert len(checks) == 4 * len(task.cot) + 3
    failed = [f"{check.name}: {check.detail}" for check in checks if not check.passed]
    assert not failed, "\n".join(failed)


def task_with_choices():
    return next(task for task in TASKS if task.output_type == "multiple_choice")


def failed(checks):
    return {check.name.partition(",")[0] for check in checks if not check.passed}


def test_a_wrong_chance_level_is_noticed():
    for chance in (0.05, 0.9):
        assert "shuffled" in failed(st.selftest(replace(task_with_choices(), chance=chance)))


def test_a_right_choice_that_always_stands_first_is_noticed(monkeypatch):
    def first(tasks, **options):
        for ask in make_asks(tasks, **options):
            choices = (ask.item.answer, *(c for c in ask.item.choices if c != ask.item.answer))
            yield replace(ask, item=replace(ask.item, choices=choices, gold=0))

    monkeypatch.setattr(st, "make_asks", lambda tasks, **options: list(first(tasks, **options)))
    assert {"balance", "shuffled"} <= failed(st.selftest(task_with_choices()))


def test_an_answer_that_is_nearly_always_right_is_noticed(monkeypatch):
    def same(tasks, **options):
        asks = make_asks(tasks, **options)
        fixed = asks[0].item
        return [
            replace(a, item=replace(fixed, id=a.item.id)) if i % 10 else a for i, a in enumerate(asks)
        ]

    monkeypatch.setattr(st, "make_asks", same)
    assert "constant" in failed(st.selftest(task_with_choices()))


def test_a_metric_that_does_not_reward_the_right_answer_is_noticed(monkeypatch):
    monkeypatch.setattr(st, "certain", lambda ask, item: st.indifferent(ask))
    assert "oracle" in failed(st.selftest(task_with_choices()))
