"""Claim: every task scores 100 for who knows, chance for who guesses, 0 for who is silent.

Of every task whose data can be had here, also those of published data sets.
"""

import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from published_fixture import PUBLISHED

from codestage.data.instruct import ANSWER
from codestage.evaluate import sandbox
from codestage.evaluate.documents import has_data, task_items
from codestage.evaluate.items import LETTERS, chance, permuted
from codestage.evaluate.run import Evaluation
from codestage.evaluate.speak import Scored, Written
from codestage.evaluate.tasks import all_tasks

COT = ("off", "supplied", "generated")
TASKS = [task for task in all_tasks() if has_data(task, PUBLISHED)]
CHOICES = [task for task in TASKS if not task.written]
N = 120


@cache
def items_of(task):
    return task_items(task, n=N, data=PUBLISHED)


class Speaker:
    """Stands in for a model: `answer` maps an item to what is believed to be right."""

    def __init__(self, items, answer):
        self.beliefs = {}
        for item in items:
            believed = answer(item)
            for one in (item, permuted(item, seed=0)):
                for mode in COT:
                    self._believes(one.prompt(mode), one.choices or (one.answer,), mode, item, believed)
                    if item.lettered:
                        letter = None if believed is None else LETTERS[one.choices.index(believed)]
                        letters = LETTERS[: len(one.choices)]
                        self._believes(one.prompt(mode, letters=True), letters, mode, item, letter)
                for choice, (label, evidence) in zip(one.choices, one.channel, strict=False):
                    self.beliefs[label, (evidence,)] = ("channel", choice, believed)

    def _believes(self, prompt, choices, mode, item, said):
        self.beliefs[prompt, tuple(item.response(c) for c in choices)] = (mode, item, said)
        self.beliefs[prompt] = (mode, item, said)

    def loglikelihoods(self, requests):
        scores = []
        for prompt, choices in requests:
            mode, item, said = self.beliefs[prompt, tuple(choices)]
            if mode == "channel":
                scores.append([Scored(-0.01 if item == said else -9.0, 3)])
                continue
            wanted = None if said is None else item.response(said)
            scores.append([Scored(-0.01 if c == wanted else -99.0 - len(c), 3) for c in choices])
        return scores

    def generate(self, prompts, *, max_new_tokens, stop=(), temperature=0.0, seed=0):
        texts = []
        for prompt in prompts:
            mode, item, said = self.beliefs[prompt]
            steps = (item.rationale or "It is so.") if mode == "generated" and not item.code else None
            text = "" if said is None else item.response(said)
            if steps and text:
                text = f" {steps}{ANSWER}{text}"
            texts.append(Written(text, 3))
        return texts

    def encode(self, texts):
        return [[2] * len(text) for text in texts]


def records(task, answer, cot=COT, samples=0, items=None):
    items = items_of(task) if items is None else items
    evaluation = Evaluation(Speaker(items, answer), samples=samples)
    return [row for _, make in evaluation.parts({task: items}, cot) for row in make().to_pylist()]


def means(rows, metric):
    """Mean of a metric in each mode that has it."""
    found = {}
    for row in rows:
        if row["metric"] == metric:
            found.setdefault(row["cot"], []).append(row["value"])
    return {mode: (np.mean(values), len(values)) for mode, values in found.items()}


def contradicted(items):
    """Share of items that a published set holds twice, with two answers: nobody can know them."""
    asked = [(item.instruction, item.choices) for item in items]
    return 1 - len(set(asked)) / len(asked)


def needs_sandbox(task):
    if task.answer == "code":
        try:
            sandbox.Sandbox()
        except Exception as error:
            pytest.skip(f"programs cannot be run here: {error}")


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_who_knows_scores_full_in_every_mode(task):
    needs_sandbox(task)
    items = items_of(task)[:20] if task.answer == "code" else items_of(task)
    rows = records(task, lambda item: item.answer, items=items)
    best = ("acc", "format", "prob", "letter_acc", "letter_prob", "letter_same", "channel_acc", "bleu")
    for metric in (*best, "acc_token", "f1"):
        for mode, (score, _) in means(rows, metric).items():
            assert score == pytest.approx(1.0, abs=0.01 + contradicted(items)), (metric, mode)
    for _, (bits, _) in means(rows, "bpb").items():
        assert bits < 0.02 or contradicted(items)
    assert means(rows, "acc")


@pytest.mark.parametrize("task", CHOICES, ids=lambda task: task.name)
def test_who_picks_a_choice_blindly_scores_one_choice_in_so_many(task):
    pick = random.Random(3)
    blind = {item.id: pick.choice(item.choices) for item in items_of(task)}
    rows = records(task, lambda item: blind[item.id])
    expected = np.mean([1 / len(item.choices) for item in items_of(task)])
    for metric in ("acc", "prob", "letter_acc", "channel_acc"):
        for mode, (score, n) in means(rows, metric).items():
            spread = 4 * np.sqrt(expected * (1 - expected) / n)
            assert abs(score - expected) < spread, (metric, mode)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_shuffled_answers_are_at_most_at_chance(task):
    """Each item's answer is another item's: the right distribution, no knowledge."""
    needs_sandbox(task)
    items = items_of(task)[:20] if task.answer == "code" else items_of(task)
    others = random.Random(0).sample(items, len(items))
    other = {item.id: o for item, o in zip(items, others, strict=True)}

    def believed(item):
        if task.written:
            return other[item.id].answer
        said = other[item.id].answer  # where choices differ from item to item, the same place
        place = min(other[item.id].gold, len(item.choices) - 1)
        return said if said in item.choices else item.choices[place]

    guess = chance(items, written=task.written)
    same = sum(other[item.id].answer == item.answer for item in items) / len(items)
    for mode, (score, n) in means(records(task, believed, items=items), "acc").items():
        assert score < max(guess, same if task.written else 0) + 4 * np.sqrt(0.25 / n), mode


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_who_says_nothing_scores_nothing_and_is_told_apart(task):
    cot = ("off",) if task.answer == "code" else ("generated",)
    needs_sandbox(task)
    rows = records(task, lambda item: None, cot=cot, items=items_of(task)[:20])
    written = [row for row in rows if row["metric"] in ("acc", "format", "bleu")]
    assert {row["status"] for row in written} == {"empty"}
    assert {row["value"] for row in written if row["metric"] != "format"} == {0.0}


@pytest.mark.parametrize("task", [t for t in CHOICES if t.letters], ids=lambda task: task.name)
def test_who_loves_the_first_letter_is_at_chance_and_is_found_out(task):
    """The order of choices permuted: a liking for a place gives no points, and is reported."""

    class First(Speaker):
        def loglikelihoods(self, requests):
            return [[Scored(-float(i), 1) for i, _ in enumerate(choices)] for _, choices in requests]

    items = [permuted(item, seed=1) for item in items_of(task)]
    evaluation = Evaluation(First(items, lambda item: item.answer))
    rows = [row for _, make in evaluation.parts({task: items}, ("off",)) for row in make().to_pylist()]
    expected = np.mean([1 / len(item.choices) for item in items])
    for metric in ("letter_acc", "letter_same"):
        score, n = means(rows, metric)["off"]
        assert abs(score - expected) < 4 * np.sqrt(0.25 / n), metric


@pytest.mark.parametrize("task", [t for t in TASKS if t.answer == "number"][:2], ids=lambda t: t.name)
def test_the_majority_of_samples_is_what_self_consistency_scores(task):
    items = items_of(task)[:10]

    class Wavering(Speaker):
        """Right in two samples of three."""

        def generate(self, prompts, *, max_new_tokens, stop=(), temperature=0.0, seed=0):
            texts = super().generate(prompts, max_new_tokens=max_new_tokens)
            if temperature:
                texts = [t if i % 3 else Written(" 123457", 3) for i, t in enumerate(texts)]
            return texts

    evaluation = Evaluation(Wavering(items, lambda item: item.answer), samples=3)
    rows = [row for _, make in evaluation.parts({task: items}, ("off",)) for row in make().to_pylist()]
    assert means(rows, "sc_acc")["off"] == (1.0, 10)
    assert means(rows, "sample_acc")["off"] == (pytest.approx(2 / 3), 30)
    assert {row["sample"] for row in rows if row["metric"] == "sample_acc"} == {0, 1, 2}


def test_a_task_whose_gold_is_wrong_would_be_found():
    """The self-test itself can fail: an oracle of other answers is far from full."""
    task = next(t for t in TASKS if t.name == "boolean")
    items = [replace(i, gold=1 - i.gold, answer=i.choices[1 - i.gold]) for i in items_of(task)]
    truth = {item.id: item.answer for item in items_of(task)}
    rows = records(task, lambda item: truth[item.id], items=items)
    assert means(rows, "acc")["off"][0] < 0.1
