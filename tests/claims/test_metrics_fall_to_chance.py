"""Claim: every task scores 100 for who knows, chance for who guesses, 0 for who is silent."""

import random

import numpy as np
import pytest

from codestage.data.instruct import PLAIN
from codestage.evaluate.backend import Scored
from codestage.evaluate.run import evaluate
from codestage.evaluate.tasks import all_tasks, task_items

TASKS = all_tasks()
COT = ("off", "supplied", "generated")


class Speaker:
    """Stands in for a model: `answer` maps an item to what is believed to be right."""

    def __init__(self, task, answer):
        self.beliefs = {}
        for item in task_items(task, seed=0):
            believed = answer(item)
            for mode in COT:
                self.beliefs[item.prompt(mode)] = (mode, item, believed)

    def loglikelihoods(self, requests):
        scores = []
        for prompt, choices in requests:
            _, _, believed = self.beliefs[prompt]
            wanted = None if believed is None else PLAIN.response(believed)
            scores.append([Scored(-0.01 if c == wanted else -9.0, 3) for c in choices])
        return scores

    def generate(self, prompts, *, max_new_tokens):
        texts = []
        for prompt in prompts:
            mode, item, believed = self.beliefs[prompt]
            steps = item.rationale if mode == "generated" else None
            texts.append(("", 0) if believed is None else (PLAIN.response(believed, rationale=steps), 3))
        return texts

    def encode(self, texts):
        return [[2] * len(text) for text in texts]


def mean(task, answer, metric):
    """Mean of a metric in each mode that has it."""
    table = evaluate(Speaker(task, answer), [task], cot=COT, seed=0)
    found = {}
    for row in table.select(["cot", "metric", "value"]).to_pylist():
        if row["metric"] == metric:
            found.setdefault(row["cot"], []).append(row["value"])
    return {mode: (np.mean(values), len(values)) for mode, values in found.items()}


def shuffled(task):
    """Each item's answer is another item's: the right distribution, no knowledge."""
    items = list(task_items(task, seed=0))
    order = random.Random(0).sample(items, len(items))
    other = {item.id: o.answer for item, o in zip(items, order, strict=True)}
    return lambda item: other[item.id]


def blind(seed):
    pick = random.Random(seed)
    return lambda item: pick.choice(item.choices)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_who_knows_scores_full_in_every_mode(task):
    for metric, best in (("acc", 1.0), ("format", 1.0), ("prob", 1.0)):
        for mode, (score, _) in mean(task, lambda item: item.answer, metric).items():
            assert score == pytest.approx(best, abs=0.01), (metric, mode)
    for _, (bits, _) in mean(task, lambda item: item.answer, "bpb").items():
        assert bits < 0.02


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_who_picks_a_choice_blindly_scores_one_choice_in_so_many(task):
    expected = np.mean([1 / len(item.choices) for item in task_items(task, seed=0)])
    for metric in ("acc", "prob"):
        for mode, (score, n) in mean(task, blind(3), metric).items():
            spread = 4 * np.sqrt(expected * (1 - expected) / n)
            assert abs(score - expected) < spread, (metric, mode)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_shuffled_answers_are_at_most_at_chance(task):
    """The answers of other items: what the wording alone gives away, no more than chance says."""
    for mode, (score, n) in mean(task, shuffled(task), "acc").items():
        assert score < task.chance + 4 * np.sqrt(0.25 / n), mode


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_no_constant_answer_beats_chance(task):
    answers = [item.answer for item in task_items(task, seed=0)]
    for answer in set(answers):
        n = len(answers)
        share = answers.count(answer) / n
        assert share <= task.chance + (
            4 * np.sqrt(0.25 / n) if task.output_type != "generate_until" else 0
        )


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_who_says_nothing_scores_nothing_and_is_told_apart(task):
    table = evaluate(Speaker(task, lambda item: None), [task], cot=("generated",), seed=0).to_pylist()
    assert {row["status"] for row in table} == {"empty"}
    assert {row["value"] for row in table} == {0.0}
