"""Skills of sentences, told in words alone: what a sentence means, and how it is said in the passive.

After the two tests of compositional generalisation of Petty et al. (2024): COGS (Kim and Linzen, EMNLP 2020)
with logical forms that have no variables (Qiu et al., NAACL 2022), and passivization (Mueller et al., Findings
of ACL 2022). Grammar, words and notation are codestage's own. What is generalised to is a skill or a depth
of its own, so a corpus that leaves it out has never shown it:

- `logical_form`, deeper: more clauses, or more places, inside each other than a corpus of less depth holds;
- `logical_form_subject`, `passive_subject`: what is asked has a place in its subject; elsewhere only in its object;
- `logical_form_word`: words of `HELD`, which elsewhere are agents alone, are acted on, as other beings are.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from codestage.data.worlds.episode import WORDS, Episode, Words
from codestage.data.worlds.skills import Skill, distractors

HELD = ("hedgehog", "sailor", "lion", "queen")
"""Agents alone, but for `logical_form_word`."""
_BEINGS = tuple("girl boy cat dog teacher nurse king baby bird horse farmer child".split())
_PLACES = tuple("table chair box tree house garden mat shelf boat wall bed road".split())
_PREPOSITIONS = ("on", "in", "beside", "under")
_TRANSITIVE = tuple(
    tuple(verb.split("-"))
    for verb in (
        "see-saw-seen find-found-found like-liked-liked paint-painted-painted push-pushed-pushed hear-heard-heard "
        "draw-drew-drawn clean-cleaned-cleaned follow-followed-followed hide-hid-hidden take-took-taken "
        "break-broke-broken"
    ).split()
)
"""Base, past, participle."""
_DATIVE = tuple(
    tuple(verb.split("-"))
    for verb in "give-gave-given hand-handed-handed send-sent-sent show-showed-shown".split()
)
_SAYING = tuple(
    tuple(verb.split("-"))
    for verb in "say-said think-thought know-knew hope-hoped believe-believed".split()
)


@dataclass(frozen=True)
class Thing:
    """A noun or a name, and where it is."""

    word: str
    article: str
    """"the", "a", or "" for a name."""
    place: "tuple[str, Thing] | None" = None

    def said(self) -> str:
        article = "an" if self.article == "a" and self.word[0] in "aeiou" else self.article
        words = [article, self.word] if article else [self.word]
        if self.place:
            words += [self.place[0], self.place[1].said()]
        return " ".join(words)

    def form(self) -> str:
        """A star stands for "the"."""
        inside = f"({self.place[0]}={self.place[1].form()})" if self.place else ""
        return f"{'*' if self.article == 'the' else ''}{self.word}{inside}"


@dataclass(frozen=True)
class Clause:
    """Who does what to whom; or who says what."""

    verb: tuple[str, ...]
    agent: Thing
    theme: Thing | None = None
    recipient: Thing | None = None
    content: "Clause | None" = None
    passive: bool = False

    def said(self) -> str:
        """Without a period, and without a capital."""
        if self.content:
            return f"{self.agent.said()} {self.verb[1]} that {self.content.said()}"
        assert self.theme
        goal = f" to {self.recipient.said()}" if self.recipient else ""
        if self.passive:
            return f"{self.theme.said()} was {self.verb[2]}{goal} by {self.agent.said()}"
        return f"{self.agent.said()} {self.verb[1]} {self.theme.said()}{goal}"

    def form(self) -> str:
        """Roles in one order, however the sentence has them."""
        roles = (
            ("agent", self.agent),
            ("theme", self.theme),
            ("recipient", self.recipient),
            ("content", self.content),
        )
        return f"{self.verb[0]}({', '.join(f'{role}={x.form()}' for role, x in roles if x)})"


def sentence(clause: Clause) -> str:
    """With its capital and its period."""
    said = clause.said()
    return f"{said[0].upper()}{said[1:]}."


# drawing


def _article(rng: random.Random) -> str:
    return rng.choice(["the", "a"])


def _being(rng: random.Random, known: Words, *, held: bool = False, but: Sequence[str] = ()) -> Thing:
    """Somebody by name or by kind, none of `but`; those of `HELD` too where they may stand."""
    if rng.random() < 0.4:
        return Thing(rng.choice([name for name in known.names if name not in but]), "")
    kinds = _BEINGS + HELD if held else _BEINGS
    return Thing(rng.choice([kind for kind in kinds if kind not in but]), _article(rng))


def _placed(thing: Thing, places: int, rng: random.Random) -> Thing:
    """The thing in a place that is in a place, and so on; no word twice."""
    inner: tuple[str, Thing] | None = None
    for word in rng.sample(_PLACES, places):
        inner = (rng.choice(_PREPOSITIONS), Thing(word, _article(rng), inner))
    return replace(thing, place=inner)


def _acted_on(rng: random.Random, known: Words, places: int, agent: Thing) -> Thing:
    """A thing or somebody, within so many places: who does what cannot be told by the words alone."""
    if rng.random() < 0.5:
        return _placed(Thing(rng.choice(known.objects), _article(rng)), places, rng)
    kinds = [kind for kind in _BEINGS if kind != agent.word]
    return _placed(Thing(rng.choice(kinds), _article(rng)), places, rng)


def _clause(rng: random.Random, known: Words, places: int = 0, sayers: int = 0) -> Clause:
    """Something that happens to somebody or something within so many places; or as told by somebody, who is told
    of, and so on. It is in the passive now and then, but never with a place in its subject.
    """
    if sayers:
        content = _clause(rng, known, places, sayers - 1)
        return Clause(rng.choice(_SAYING), _being(rng, known, held=True), content=content)
    agent = _being(rng, known, held=True)
    theme = _acted_on(rng, known, places, agent)
    passive = not places and rng.random() < 0.25
    if rng.random() < 0.3:
        recipient = _being(rng, known, but=(agent.word, theme.word))
        return Clause(rng.choice(_DATIVE), agent, theme, recipient, passive=passive)
    return Clause(rng.choice(_TRANSITIVE), agent, theme, passive=passive)


def _nested(rng: random.Random, known: Words, depth: int) -> Clause:
    """A clause with depth - 1 places, or within depth - 1 clauses; never both, so that deeper is deeper."""
    return _clause(rng, known, depth - 1) if rng.random() < 0.5 else _clause(rng, known, 0, depth - 1)


def _with_place(clause: Clause, depth: int, rng: random.Random) -> Clause:
    """The clause in the active, with places, one at least, in its subject."""
    others = {thing.word for thing in (clause.theme, clause.recipient) if thing}
    kinds = [kind for kind in _BEINGS if kind not in others]
    agent = _placed(Thing(rng.choice(kinds), _article(rng)), max(1, depth - 1), rng)
    return replace(clause, agent=agent, passive=False)


# what is nearly right


def _wrong_things(thing: Thing) -> Iterator[Thing]:
    """Another article; another preposition; a place too few; two words in each other's place."""
    if thing.article:
        yield replace(thing, article="a" if thing.article == "the" else "the")
    if thing.place:
        preposition, place = thing.place
        others = [p for p in _PREPOSITIONS if p != preposition]
        yield replace(thing, place=(others[len(thing.word) % len(others)], place))
        yield replace(thing, place=place.place)
        yield replace(thing, word=place.word, place=(preposition, replace(place, word=thing.word)))
        yield from (replace(thing, place=(preposition, other)) for other in _wrong_things(place))


def _wrong_clauses(clause: Clause) -> Iterator[Clause]:
    """Roles exchanged, a place that moved to another thing, and everything wrong about a part."""
    agent, theme, recipient, content = clause.agent, clause.theme, clause.recipient, clause.content
    if content:
        if not content.content:
            yield replace(clause, agent=content.agent, content=replace(content, agent=agent))
        yield from (replace(clause, content=other) for other in _wrong_clauses(content))
    if theme:
        yield replace(clause, agent=theme, theme=agent)
        if agent.place or theme.place:
            yield replace(
                clause, agent=replace(agent, place=theme.place), theme=replace(theme, place=agent.place)
            )
        yield from (replace(clause, theme=other) for other in _wrong_things(theme))
    if recipient:
        yield replace(clause, agent=recipient, recipient=agent)
    yield from (replace(clause, agent=other) for other in _wrong_things(agent))


# the skills


def _meaning(skill: str, clause: Clause, depth: int, rng: random.Random) -> Episode:
    answer = clause.form()
    steps = [f"The verb is {clause.verb[0]}.", f"The agent is {clause.agent.said()}."]
    if clause.theme:
        steps.append(f"The theme is {clause.theme.said()}.")
    return Episode(
        skill,
        "linguistic",
        depth,
        (sentence(clause),),
        "What is its logical form?",
        answer,
        distractors(answer, [wrong.form() for wrong in _wrong_clauses(clause)], rng),
        tuple(steps),
        "",
    )


def logical_form(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """What a sentence means; depth - 1 clauses or places stand inside each other, places in objects alone."""
    return _meaning("logical_form", _nested(rng, known, depth), depth, rng)


def logical_form_subject(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """The same where the places, one at least, are in the subject."""
    return _meaning("logical_form_subject", _with_place(_clause(rng, known), depth, rng), depth, rng)


def logical_form_word(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """The same where a word that is otherwise an agent is acted on."""
    return _meaning("logical_form_word", _with_theme(_nested(rng, known, depth), rng), depth, rng)


def _with_theme(clause: Clause, rng: random.Random) -> Clause:
    """The clause with a word of `HELD` in place of what is acted on, another one than its agent."""
    if clause.content:
        return replace(clause, content=_with_theme(clause.content, rng))
    assert clause.theme
    word = rng.choice([word for word in HELD if word != clause.agent.word])
    return replace(clause, theme=replace(clause.theme, word=word))


def _to_passive(skill: str, clause: Clause, depth: int, rng: random.Random) -> Episode:
    active, answer = replace(clause, passive=False), sentence(replace(clause, passive=True))
    assert clause.theme
    wrong = [sentence(replace(other, passive=True)) for other in _wrong_clauses(active)]
    return Episode(
        skill,
        "linguistic",
        depth,
        (sentence(active),),
        "What is it in the passive?",
        answer,
        distractors(answer, [sentence(active), *wrong], rng),
        (f"The verb is {clause.verb[0]}.", f"The theme is {clause.theme.said()}."),
        "",
    )


def passive(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """A sentence in the passive; its object is in depth - 1 places."""
    return _to_passive("passive", _clause(rng, known, depth - 1), depth, rng)


def passive_subject(rng: random.Random, depth: int, known: Words = WORDS) -> Episode:
    """The same where the places, one at least, are in the subject: the second noun is not the object."""
    return _to_passive("passive_subject", _with_place(_clause(rng, known), depth, rng), depth, rng)


SENTENCES: dict[str, Skill] = {
    skill.__name__: skill
    for skill in (logical_form, logical_form_subject, logical_form_word, passive, passive_subject)
}
