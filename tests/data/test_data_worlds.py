"""The small world: true answers, kept-apart problems, programs that were really run."""

import itertools
import random
import subprocess
import sys
from dataclasses import replace

import pytest

from codestage.data.worlds.corpus import UNRELATED, check_outputs, corpus, episodes, eval_items, split_of
from codestage.data.worlds.episode import WORDS, words_of
from codestage.data.worlds.skills import CODE_SKILLS, SKILLS
from codestage.errors import RunError, UserError


def some(skill, n, depth=(1, 3), seed=0):
    return [
        SKILLS[skill](random.Random(f"{seed} {i}"), random.Random(i).randint(*depth)) for i in range(n)
    ]


@pytest.mark.parametrize("skill", SKILLS)
def test_every_answer_is_what_the_program_prints_when_run_alone(skill):
    for episode in some(skill, 6):
        run = subprocess.run([sys.executable, "-c", episode.program], capture_output=True, text=True)
        assert run.stdout == episode.answer + "\n", episode.program


@pytest.mark.parametrize("skill", SKILLS)
def test_choices_hold_the_answer_once_and_no_place_is_preferred(skill):
    found = some(skill, 400)
    for episode in found:
        assert len(set(episode.choices)) == len(episode.choices) >= 2
        assert episode.answer in episode.choices
    wide = [e for e in found if len(e.choices) == max(len(x.choices) for x in found)]
    if set(wide[0].choices) == {"yes", "no"}:
        share = sum(e.answer == "yes" for e in wide) / len(wide)
        assert 0.4 < share < 0.6
        return
    first = sum(e.choices[0] == e.answer for e in wide) / len(wide)
    assert abs(first - 1 / len(wide[0].choices)) < 0.1


@pytest.mark.parametrize("skill", SKILLS)
def test_problems_vary(skill):
    found = some(skill, 300)
    assert len({e.key for e in found}) > 200
    assert len({e.answer for e in found}) > 1


def test_a_program_that_prints_something_else_is_refused():
    episode = some("counting", 1)[0]
    check_outputs([episode])
    with pytest.raises(RunError, match="the story says '99'"):
        check_outputs([replace(episode, answer="99")])


def test_corpora_and_evaluation_share_no_problem():
    for skill in SKILLS:
        train = {
            e.key for e in itertools.islice(episodes([skill], split="train", seed=1, depth=(1, 2)), 500)
        }
        held = {e.key for e in eval_items(skill, 60, seed=2, depth=(1, 2))}
        assert not train & held
        assert all(split_of(key) == "train" for key in train)
        assert all(split_of(key) == "eval" for key in held)


@pytest.mark.parametrize("form", ["prose", "programs", "chat", "code_chat"])
def test_a_corpus_repeats_from_its_seed_and_differs_by_it(form):
    one, same, other = (list(corpus(form, documents=60, seed=s)) for s in (1, 1, 2))
    assert one == same
    assert one != other
    assert len(one) == 60


@pytest.mark.parametrize("form", ["prose", "chat"])
def test_text_holds_no_code(form):
    for row in corpus(form, documents=300):
        text = " ".join(v for v in row.values() if v)
        assert not any(sign in text for sign in ("print(", "==", "def ", "import "))


def test_code_skills_are_only_told_as_programs():
    assert CODE_SKILLS
    texts = [row["text"] for row in corpus("programs", documents=60)]
    assert all("print(" in text for text in texts)


@pytest.mark.parametrize("form", ["prose", "programs", "chat", "code_chat"])
def test_noise_puts_something_unrelated_into_its_share_of_problems(form):
    """Programs with noise in them are run like all others: their outputs stay true."""
    rows = list(corpus(form, documents=200, noise=0.4))
    noisy = sum(any(s in " ".join(v or "" for v in row.values()) for s in UNRELATED) for row in rows)
    assert 50 < noisy < 110
    clean = list(corpus(form, documents=200))
    assert clean == list(corpus(form, documents=200, noise=0.0))
    assert sum(a == b for a, b in zip(rows, clean, strict=True)) == 200 - noisy


def test_what_cannot_be_had_is_refused():
    with pytest.raises(UserError, match="unknown skill 'flying'"):
        next(episodes(["flying"], split="train", seed=0, depth=(1, 1)))
    with pytest.raises(UserError, match="ask for fewer items"):
        eval_items("coin_flip", 10**6, seed=0, depth=(1, 1))
    for form, other in (("prose", "programs"), ("chat", "code_chat")):
        with pytest.raises(UserError, match=f"form {form} holds no code, .* take form {other}"):
            next(corpus(form, documents=3, skills=sorted(CODE_SKILLS)))


def test_a_vocabulary_has_its_size_and_no_word_twice():
    for size in (12, 30, 31, 500, 8000):
        words = words_of(size)
        assert (len(words.names), len(words.objects)) == (size, max(4, size // 2))
        everything = [*words.names, *words.objects, *words.fruits]
        assert len({word.lower() for word in everything}) == len(everything)
    assert words_of(None) == WORDS
    assert words_of(500).names[:30] == WORDS.names


@pytest.mark.parametrize("form", ["prose", "programs", "chat", "code_chat"])
def test_a_larger_vocabulary_tells_the_same_kind_of_problems_in_more_words(form):
    def names(vocabulary):
        rows = list(
            corpus(form, documents=600, vocabulary=vocabulary, skills=["ordering", "last_letters"])
        )
        text = " ".join(str(value) for row in rows for value in row.values())
        return {name for name in words_of(2000).names if name in text}

    few, usual, many = names(12), names(None), names(2000)
    assert len(few) == 12
    assert len(usual) == 30
    assert len(many) > 500


@pytest.mark.parametrize("skill", SKILLS)
def test_answers_stay_true_in_any_vocabulary_and_depth(skill):
    stream = episodes([skill], split="train", seed=3, depth=(3, 5), vocabulary=400)
    check_outputs([next(stream) for _ in range(40)])


def test_a_vocabulary_too_small_for_the_depth_is_told():
    with pytest.raises(UserError, match="at depth 14 needs more than 12 names"):
        next(episodes(["coin_flip"], split="train", seed=0, depth=(14, 14), vocabulary=12))
