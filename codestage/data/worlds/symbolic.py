"""Symbols: coin flips, last letters, lists in reverse."""

import random

from codestage.data.worlds.episode import NAMES, THINGS, Episode, choices_from, with_noise

COIN = ("A coin is heads up.", "A coin lies heads up.", "There is a coin, heads up.")
FLIPS = ("{} flips the coin.", "{} turns the coin over.", "{} flips it.")
LEAVES = ("{} does not flip the coin.", "{} leaves the coin alone.", "{} does not flip it.")
STILL = ("Is the coin still heads up?", "Is the coin heads up now?", "Is it heads up at the end?")


def coin_flip(rng: random.Random, depth: int, noise: float) -> Episode:
    """Parity: `depth` + 1 people flip a coin or leave it."""
    people = rng.sample(NAMES, depth + 1)
    flips = [rng.random() < 0.5 for _ in people]
    story, steps, heads = [rng.choice(COIN)], [], True
    for name, flip in zip(people, flips, strict=True):
        story.append(rng.choice(FLIPS if flip else LEAVES).format(name))
        heads ^= flip
        steps.append(f"After {name} it is {'heads' if heads else 'tails'} up.")
    answer = "yes" if heads else "no"
    return Episode(
        skill="coin_flip",
        domain="symbolic",
        key=f"coin {' '.join(n + '-+'[f] for n, f in zip(people, flips, strict=True))}",
        depth=depth,
        story=with_noise(rng, story, noise, people),
        question=rng.choice(STILL),
        answer=answer,
        choices=choices_from(rng, answer, ("yes", "no"), 2),
        steps=(*steps, f"So the answer is {answer}."),
        program=_coin_program(rng, people, flips),
    )


def _coin_program(rng: random.Random, people: list[str], flips: list[bool]) -> str:
    style = rng.randrange(3)
    if style == 0:
        lines = ["heads = True"]
        lines += [
            f"heads = {'not ' if flip else ''}heads  # {name}"
            for name, flip in zip(people, flips, strict=True)
        ]
    elif style == 1:
        lines = [f"flips = {dict(zip(people, flips, strict=True))}", "heads = True"]
        lines += ["for name in flips:", "    if flips[name]:", "        heads = not heads"]
    else:
        lines = [f"flips = {flips}", "heads = sum(flips) % 2 == 0"]
    return "\n".join([*lines, "print('yes' if heads else 'no')"])


def last_letters(rng: random.Random, depth: int, noise: float) -> Episode:
    """The last letter of each of `depth` + 1 names."""
    words = rng.sample(NAMES, depth + 1)
    answer = " ".join(word[-1] for word in words)
    others = {" ".join(rng.choice(NAMES)[-1] for _ in words) for _ in range(6)}
    others |= {" ".join(word[0].lower() for word in words)}
    others |= {" ".join(rng.choice(words)[rng.choice((0, -1))].lower() for _ in words)}
    while len(others - {answer}) < 3:
        others.add(" ".join(rng.choice(NAMES)[-1] for _ in words))
    told = rng.choice(("The names are {}.", "Take the names {}.", "Here are names: {}."))
    return Episode(
        skill="last_letters",
        domain="symbolic",
        key=f"last letters {' '.join(words)}",
        depth=depth,
        story=with_noise(rng, [told.format(" ".join(words))], noise, words),
        question=rng.choice(
            ("What are the last letters?", "Which letters end the names?", "What letters end them?")
        ),
        answer=answer,
        choices=choices_from(rng, answer, sorted(others), 4),
        steps=(*(f"{w} ends in {w[-1]}." for w in words), f"So the answer is {answer}."),
        program=_letters_program(rng, words),
    )


def _letters_program(rng: random.Random, words: list[str]) -> str:
    style = rng.randrange(3)
    if style == 0:
        return f"names = {words}\nprint(' '.join(name[-1] for name in names))"
    if style == 1:
        return f"names = {words}\nends = [name[-1] for name in names]\nprint(' '.join(ends))"
    return f"ends = []\nfor name in {words}:\n    ends.append(name[-1])\nprint(*ends)"


def reverse_list(rng: random.Random, depth: int, noise: float) -> Episode:
    """A list of `depth` + 2 words from its end to its beginning."""
    words = rng.sample(THINGS, depth + 2)
    back = words[::-1]
    answer = " ".join(back)
    others = {" ".join(words)}
    while len(others - {answer}) < 3:
        others.add(" ".join(rng.sample(words, len(words))))
    told = rng.choice(("The list is {}.", "Here is a list: {}.", "The words are {}."))
    return Episode(
        skill="reverse_list",
        domain="symbolic",
        key=f"reverse {' '.join(words)}",
        depth=depth,
        story=with_noise(rng, [told.format(" ".join(words))], noise),
        question=rng.choice(
            ("What is the reverse?", "What is it in reverse?", "How does it read backwards?")
        ),
        answer=answer,
        choices=choices_from(rng, answer, sorted(others), 4),
        steps=(f"The last word is {back[0]}.", f"From the end it reads {answer}."),
        program=_reverse_program(rng, words),
    )


def _reverse_program(rng: random.Random, words: list[str]) -> str:
    style = rng.randrange(3)
    if style == 0:
        return f"words = {words}\nprint(' '.join(words[::-1]))"
    if style == 1:
        return f"words = {words}\nwords.reverse()\nprint(*words)"
    return f"back = []\nfor word in {words}:\n    back.insert(0, word)\nprint(*back)"
