"""Analogies: a is to b as c is to what, where every word stands in several relations."""

import random

from codestage.data.worlds.episode import Episode, choices_from, with_noise

# Each word of a row is related to all others of it, so that only the example tells which is meant.
ANIMALS = """
cat kitten meow basket|dog puppy bark kennel|cow calf moo barn|hen chick cluck coop
horse foal neigh stable|sheep lamb baa pen|duck duckling quack pond|bear cub growl cave
goose gosling honk lake|pig piglet oink sty|owl owlet hoot tree|frog tadpole croak pool
"""
QUALITIES = """
hot cold hotter|big small bigger|old young older|fast slow faster|dark light darker
long short longer|rich poor richer|hard soft harder|loud quiet louder|high low higher
"""


def _relations(table: str, names: str) -> dict[str, dict[str, str]]:
    """Relation -> first word of each row -> the word of the row that has that relation to it."""
    rows = [row.split() for row in table.strip().replace("\n", "|").split("|")]
    return {name: {row[0]: row[n] for row in rows} for n, name in enumerate(names.split(), 1)}


RELATIONS = {**_relations(ANIMALS, "young voice home"), **_relations(QUALITIES, "opposite more")}
SIBLINGS = {
    name: [other for other in RELATIONS if other != name and RELATIONS[other].keys() == rows.keys()]
    for name, rows in RELATIONS.items()
}
PAIR = ("{} is to {}", "{} goes with {}")


def analogy(rng: random.Random, depth: int, noise: float) -> Episode:
    """`depth` examples of one relation; the word that has it to another word is asked for."""
    name = rng.choice(tuple(RELATIONS))
    relation = RELATIONS[name]
    *examples, asked = rng.sample(tuple(relation), min(depth, len(relation) - 1) + 1)
    answer = relation[asked]
    pair = rng.choice(PAIR)
    story = [f"{pair.format(word, relation[word])}." for word in examples]
    same_word = [RELATIONS[other][asked] for other in SIBLINGS[name]]
    others = rng.sample([w for k, w in relation.items() if k not in (asked, *examples)] or [], 2)
    return Episode(
        skill="analogy",
        domain="analogical",
        key=f"analogy {name} {sorted(examples)} {asked}",
        depth=depth,
        story=with_noise(rng, story, noise),
        question=rng.choice((f"{asked} is to what?", f"{asked} goes with what?")),
        answer=answer,
        choices=choices_from(rng, answer, (rng.choice(same_word), *others), 4),
        steps=tuple(f"The {name} of {word} is {relation[word]}." for word in (examples[-1], asked)),
        program=_analogy_program(rng, examples, asked, name),
    )


def _analogy_program(rng: random.Random, examples: list[str], asked: str, name: str) -> str:
    """Tables of two relations; the one that holds the examples gives the answer."""
    other = rng.choice(SIBLINGS[name])
    words = rng.sample([*examples, asked], len(examples) + 1)
    tables = {key: {word: RELATIONS[key][word] for word in words} for key in (name, other)}
    order = rng.sample(list(tables), 2)
    lines = [f"{key} = {tables[key]}" for key in order]
    if rng.random() < 0.5:
        return "\n".join([*lines, f"print({name}['{asked}'])"])
    word = examples[0]
    lines += [f"for relation in ({', '.join(order)}):"]
    lines += [f"    if relation['{word}'] == '{tables[name][word]}':"]
    lines += [f"        print(relation['{asked}'])"]
    return "\n".join(lines)
