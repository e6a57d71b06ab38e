"""The small world's programs in other languages than Python: the same problems, words and output."""

from collections.abc import Sequence
from dataclasses import replace

from codestage.data.worlds.episode import Episode
from codestage.data.worlds.managed import CSharp, Go, Java
from codestage.data.worlds.native import C, Cpp, Rust
from codestage.data.worlds.scripts import JavaScript, Php, TypeScript
from codestage.data.worlds.skills import SHOWN
from codestage.data.worlds.writer import Writer

WRITERS: dict[str, type[Writer]] = {
    "java": Java,
    "javascript": JavaScript,
    "typescript": TypeScript,
    "php": Php,
    "csharp": CSharp,
    "c": C,
    "cpp": Cpp,
    "go": Go,
    "rust": Rust,
}
"""All of `codestage.study.schema_sources.LANGUAGES` but Python, which the skills speak themselves."""


def written(program: str, language: str, above: Sequence[str] = (), below: Sequence[str] = ()) -> str:
    """A skill's program as a whole file of `language`, with comments above and below it.

    Raises:
        RunError: the program does something that no writer knows.
    """
    if language == "python":
        return "\n".join([*(f"# {a}" for a in above), program, *(f"# {b}" for b in below)])
    return WRITERS[language](program).write(above, below)


def in_language(episode: Episode, language: str) -> Episode:
    """The episode with its program in `language`, where its story shows it too. What it is called
    (`key`) is said by its Python alone: ask for it before.
    """
    if language == "python":
        return episode
    story = (_sentence(sentence, language) for sentence in episode.story)
    return replace(episode, story=tuple(story), program=written(episode.program, language))


def _sentence(sentence: str, language: str) -> str:
    if not sentence.startswith(SHOWN):
        return sentence
    return f"{SHOWN}{written(sentence.removeprefix(SHOWN).removesuffix(chr(10)), language)}\n"


def named(language: str) -> str:
    """What stands before "program" in a request: nothing for Python, which the small world speaks
    unless it says otherwise.
    """
    return "" if language == "python" else f"{WRITERS[language].title} "
