"""Sentences: a parser that knows nothing of the generator finds the same meaning, and the same passive."""

import itertools
import random
import re

import pytest

from codestage.data.worlds.corpus import UNRELATED, corpus, episodes, eval_items
from codestage.data.worlds.grammar import HELD, SENTENCES
from codestage.errors import UserError

MEANINGS = ("logical_form", "logical_form_subject", "logical_form_word")
PREPOSITIONS = {"on", "in", "beside", "under"}
PAST = dict(
    pair.split("-")
    for pair in (
        "saw-see found-find liked-like painted-paint pushed-push heard-hear drew-draw cleaned-clean followed-follow "
        "hid-hide took-take broke-break gave-give handed-hand sent-send showed-show said-say thought-think "
        "knew-know hoped-hope believed-believe"
    ).split()
)
PARTICIPLE = PAST | dict(
    pair.split("-")
    for pair in "seen-see drawn-draw hidden-hide taken-take broken-break given-give shown-show".split()
)


def some(skill, n, depth=(1, 4)):
    rng = random.Random(f"{skill} {depth}")
    return [SENTENCES[skill](rng, rng.randint(*depth)) for _ in range(n)]


class Parser:
    """By recursive descent, from words to `verb(role=…)`."""

    def __init__(self, said):
        assert re.fullmatch(r"[A-Z][A-Za-z ]*\.", said), said
        words = said.removesuffix(".").split()
        self.words = [words[0].lower() if words[0] in ("The", "A", "An") else words[0], *words[1:]]
        self.at, self.subjects = 0, []

    def peek(self):
        return self.words[self.at] if self.at < len(self.words) else None

    def take(self, *expected):
        word = self.peek()
        assert word is not None
        assert not expected or word in expected, (word, expected, self.words)
        self.at += 1
        return word

    def thing(self):
        star = ""
        if self.peek() in ("the", "a", "an"):
            article = self.take()
            star = "*" if article == "the" else ""
            assert article == "the" or (article == "an") == (self.peek()[0] in "aeiou")
        else:
            assert self.peek()[0].isupper()
        word = self.take()
        if self.peek() not in PREPOSITIONS:
            return star + word
        return f"{star}{word}({self.take()}={self.thing()})"

    def clause(self):
        subject = self.thing()
        self.subjects.append(subject)
        if self.peek() == "was":
            self.take("was")
            verb, goal = PARTICIPLE[self.take()], self.goal()
            self.take("by")
            return self.told(verb, self.thing(), subject, goal)
        verb = PAST[self.take()]
        if self.peek() == "that":
            self.take("that")
            return f"{verb}(agent={subject}, content={self.clause()})"
        theme = self.thing()
        return self.told(verb, subject, theme, self.goal())

    def goal(self):
        if self.peek() != "to":
            return ""
        self.take("to")
        return f", recipient={self.thing()}"

    @staticmethod
    def told(verb, agent, theme, goal):
        return f"{verb}(agent={agent}, theme={theme}{goal})"

    def whole(self):
        found = self.clause()
        assert self.peek() is None, self.words[self.at :]
        return found


@pytest.mark.parametrize("skill", MEANINGS)
def test_a_logical_form_is_what_another_parser_finds(skill):
    for episode in some(skill, 500):
        (said,) = episode.story
        assert Parser(said).whole() == episode.answer


@pytest.mark.parametrize("skill", ["passive", "passive_subject"])
def test_a_passive_means_what_its_sentence_means(skill):
    for episode in some(skill, 500):
        (said,) = episode.story
        assert " was " not in said
        assert " was " in episode.answer
        assert Parser(episode.answer).whole() == Parser(said).whole()


@pytest.mark.parametrize("skill", SENTENCES)
def test_choices_hold_the_answer_once_at_any_place_and_nothing_else_that_is_right(skill):
    found = some(skill, 400)
    for episode in found:
        assert len(set(episode.choices)) == len(episode.choices) >= 2
        assert episode.choices.count(episode.answer) == 1
        if skill not in MEANINGS:
            (said,) = episode.story
            meant = [Parser(c).whole() for c in episode.choices if " was " in c]
            assert meant.count(Parser(said).whole()) == 1
    wide = [e for e in found if len(e.choices) == 4]
    assert len(wide) > 300
    first = sum(e.choices[0] == e.answer for e in wide) / len(wide)
    assert abs(first - 1 / 4) < 0.1


def inside(form):
    """How many things stand inside each other in a logical form, the outermost clause not counted."""
    deepest = level = 0
    for sign in form:
        level += (sign == "(") - (sign == ")")
        deepest = max(deepest, level)
    return deepest - 1


def subjects(said):
    """What stands before the verb, of each clause, as logical forms."""
    parser = Parser(said)
    parser.whole()
    return parser.subjects


def roles(said, name):
    return re.findall(rf"{name}=\*?(\w+)", Parser(said).whole())


def test_depth_is_how_many_clauses_or_how_many_places_stand_inside_each_other():
    for depth in range(1, 7):
        kinds = {
            ("clauses", "places")[" that " not in e.story[0]]
            for e in some("logical_form", 60, (depth, depth))
        }
        assert len(kinds) == min(depth, 2)
        for episode in some("logical_form", 100, (depth, depth)):
            assert inside(episode.answer) == depth - 1
            assert episode.answer.count("content=") in (0, depth - 1), (
                "of one kind, so that deeper is deeper"
            )
        for skill in ("logical_form_subject", "passive_subject"):
            for episode in some(skill, 50, (depth, depth)):
                (subject,) = subjects(episode.story[0])
                assert inside(f"({subject})") == max(1, depth - 1)


def test_what_is_generalised_to_is_in_no_corpus_of_the_plain_skills():
    rows = list(corpus("chat", documents=3000, skills=["logical_form", "passive"], depth=(1, 3), cot=0))
    told = [row["prompt"].partition(".")[0] + "." for row in rows]
    acted_on = {word for said in told for role in ("theme", "recipient") for word in roles(said, role)}
    agents = {word for said in told for word in roles(said, "agent")}
    assert not acted_on & set(HELD)
    assert agents > set(HELD)
    assert len(acted_on & agents) > 12, "that somebody is acted on is nothing new"
    assert not any("(" in subject for said in told for subject in subjects(said))
    forms = [Parser(said).whole() for said in told]
    assert max(inside(form) for form in forms) == 2
    for skill in ("logical_form_subject", "passive_subject"):
        for episode in eval_items(skill, 100, seed=1, depth=(1, 3)):
            assert all("(" in subject for subject in subjects(episode.story[0]))
    for episode in eval_items("logical_form_word", 100, seed=1, depth=(1, 3)):
        assert set(roles(episode.story[0], "theme")) <= set(HELD)


def test_who_does_what_cannot_be_told_by_the_words_alone():
    for skill in ("logical_form", "passive"):
        found = some(skill, 600)
        themes = [word for e in found for word in roles(e.story[0], "theme")]
        agents = {word for e in found for word in roles(e.story[0], "agent")}
        assert 0.3 < sum(word in agents for word in themes) / len(themes) < 0.7
        for said in (e.story[0] for e in found):
            named = [word for role in ("agent", "theme", "recipient") for word in roles(said, role)[-1:]]
            assert len(set(named)) == len(named), said


@pytest.mark.parametrize("skill", SENTENCES)
def test_corpora_and_evaluation_share_no_sentence(skill):
    stream = episodes([skill], split="train", seed=1, depth=(1, 3))
    train = {e.instruction for e in itertools.islice(stream, 800)}
    held = {e.instruction for e in eval_items(skill, 150, seed=2, depth=(1, 3))}
    assert len(held) == 150
    assert not train & held


def test_sentences_are_in_no_corpus_that_does_not_name_them():
    for form in ("prose", "chat"):
        assert not {row["skill"] for row in corpus(form, documents=200)} & set(SENTENCES)


def test_nothing_unrelated_stands_beside_a_sentence():
    rows = list(corpus("chat", documents=100, skills=["passive", "counting"], noise=0.9))
    noisy = {row["skill"] for row in rows if any(s in row["prompt"] for s in UNRELATED)}
    assert noisy == {"counting"}


def test_what_cannot_be_had_is_refused():
    for form, other in (("programs", "prose"), ("code_chat", "chat")):
        with pytest.raises(UserError, match=f"form {form} holds programs, .* take form {other}"):
            next(corpus(form, documents=3, skills=["passive"]))
        rows = list(corpus(form, documents=20, skills=["passive", "counting"]))
        assert {row["skill"] for row in rows} == {"counting"}
    with pytest.raises(UserError, match="needs more words for places than there are; give it less"):
        next(episodes(["passive"], split="train", seed=0, depth=(20, 20)))
