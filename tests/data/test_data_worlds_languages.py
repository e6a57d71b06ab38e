"""Other languages than Python: the same problems, comments and output, in programs that compile and run."""

import hashlib
import itertools
import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable

import pytest

from codestage.data.worlds.corpus import UNRELATED, corpus, episodes, eval_items, program
from codestage.data.worlds.episode import Episode
from codestage.data.worlds.languages import WRITERS, in_language, written
from codestage.data.worlds.skills import CODE_SKILLS, SKILLS
from codestage.errors import RunError
from codestage.study.schema_sources import LANGUAGES, SourceSpec
from codestage.study.seeds import child

OTHERS = tuple(name for name in LANGUAGES if name != "python")
ALONE = {
    "c": r"\b(main|entry|look_up|reverse|rotate)\b(?=[ (])",
    "cpp": r"\b(main)\b(?=\()",
    "csharp": r"\b(Program)\b",
    "go": r"\b(main)\b(?=\()",
    "java": r"\b(Main)\b",
    "rust": r"\b(main)\b(?=\()",
}
"""What programs in one file would have in common."""
SHARED = r"^(?:import .*|using .*|package main|import \($|\t\"\w+\"$|\)$|<\?php)\n"
"""Lines that stand once, at the head of a file."""


def some(n: int, depth: tuple[int, int] = (1, 5)) -> list[Episode]:
    return list(itertools.islice(episodes(list(SKILLS), split="train", seed=4, depth=depth), n))


def noisy(episode: Episode, i: int) -> str:
    """The program with a comment at any place, also before its first line and behind its last."""
    lines = episode.program.split("\n")
    lines.insert(i % (len(lines) + 1), f"# {UNRELATED[0]}")
    return "\n".join(lines)


def bare(text: str) -> list[str]:
    """The lines of a program without its comments."""
    return [line for line in re.sub(r"[ \t]*// .*", "", text).split("\n") if line]


# the same in all languages


def test_python_is_what_it_was_before_there_were_others():
    """Digests from the time when there was no `language`."""
    told = {
        "prose": "e7f5e910ae2a5f8c",
        "programs": "1c30674de1e53506",
        "chat": "190793c7f6a7841a",
        "code_chat": "13ecefb62e762ece",
    }
    for form, digest in told.items():
        rows = json.dumps(list(corpus(form, documents=120, depth=(1, 4), noise=0.3, seed=5)))
        assert hashlib.blake2b(rows.encode(), digest_size=8).hexdigest() == digest


def test_every_language_of_a_study_can_be_written_and_no_other():
    assert set(WRITERS) == set(OTHERS)
    for form in ("prose", "chat"):
        made = {"form": form, "documents": 1, "language": "java"}
        with pytest.raises(ValueError, match="drop language, or take form programs or code_chat"):
            SourceSpec.model_validate({"domain": "text", "procedural": made})
    made = {"form": "programs", "documents": 1, "language": "cobol"}
    with pytest.raises(ValueError, match="'rust'"):
        SourceSpec.model_validate({"domain": "code", "procedural": made})


@pytest.mark.parametrize("language", OTHERS)
def test_documents_tell_the_problems_of_the_python_ones_in_their_order(language):
    spec = {"documents": 48, "seed": 3, "depth": (1, 3), "noise": 0.3}
    python, other = (list(corpus("programs", **spec, language=name)) for name in ("python", language))
    assert [row["skill"] for row in other] == [row["skill"] for row in python]
    stream = episodes(list(SKILLS), split="train", seed=child(3, "programs"), depth=(1, 3))
    for row, before, episode in zip(other, python, stream, strict=False):
        said, told = (
            re.findall(r"(?:# |// |^>>> )(.*)", r["text"], re.MULTILINE) for r in (row, before)
        )
        assert [comment.removeprefix(">>> ") for comment in said] == told
        assert told[-1].endswith(episode.answer)
        assert bare(row["text"]) == bare(written(episode.program, language))


@pytest.mark.parametrize("language", OTHERS)
def test_instructions_ask_the_same_and_are_answered_the_same(language):
    spec = {"documents": 96, "seed": 3, "cot": 0.5, "noise": 0.2}
    kinds = set()
    python, other = (corpus("code_chat", **spec, language=name) for name in ("python", language))
    for before, row in zip(python, other, strict=True):
        assert (row["skill"], row["rationale"]) == (before["skill"], before["rationale"])
        wanted = before["prompt"].endswith("Write a program that prints it.")
        kinds.add((wanted, row["skill"] in CODE_SKILLS))
        if wanted:
            assert row["response"] == "\n" + written(before["response"][1:], language)
            asked = row["prompt"].replace(
                f"Write a {WRITERS[language].title} program", "Write a program"
            )
        else:
            assert row["response"] == before["response"]
            asked = row["prompt"]
        shown = re.search(r"The program is\n(.*?)\n\n?(?=What| )", before["prompt"], re.DOTALL)
        if shown:
            assert shown[1] not in asked
            asked = asked.replace(written(shown[1], language), shown[1])
        assert asked == before["prompt"]
    assert len(kinds) == 4


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_language_lets_training_and_evaluation_meet(language):
    """Different problems are different programs in every language, so that what Python keeps apart stays so."""
    train = {e.key: written(e.program, language) for e in some(600, depth=(1, 2))}
    held = [e for skill in SKILLS for e in eval_items(skill, 40, seed=2, depth=(1, 2))]
    kept = {e.key: written(e.program, language) for e in held}
    assert not set(train) & set(kept)
    assert not set(train.values()) & set(kept.values())
    assert len(set(train.values())) == len({key.partition(": ")[2] for key in train})


def test_a_program_that_no_writer_knows_is_told():
    episode = Episode("new", "code", 1, (), "?", "7", ("7",), (), "print(max(3, 7))")
    with pytest.raises(RunError, match=r"'max\(3, 7\)' of the small world has no Rust"):
        in_language(episode, "rust")
    with pytest.raises(RunError, match=r"'while True:\\n    break' of the small world has no C#"):
        written("while True: break", "csharp")


# programs that run


def packed(language: str, programs: list[str]) -> tuple[list[str], list[str]]:
    """The lines that many programs share, each once, and the programs without them, told apart by number."""
    heads: dict[str, None] = {}
    bodies = []
    for i, text in enumerate(programs):
        heads |= dict.fromkeys(m[0].strip() for m in re.finditer(SHARED, text, re.MULTILINE))
        body = re.sub(SHARED, "", text, flags=re.MULTILINE) if language not in ("c", "cpp") else text
        bodies.append(re.sub(ALONE[language], rf"\1_{i}", body) if language in ALONE else body)
    return list(heads), bodies


def calls(form: str, n: int) -> str:
    return "\n".join(form.format(i) for i in range(n))


def c(programs: list[str]) -> str:
    _, bodies = packed("c", programs)
    return "\n".join([*bodies, "int main(void) {", calls("main_{}();", len(bodies)), "return 0; }"])


def cpp(programs: list[str]) -> str:
    _, bodies = packed("cpp", programs)
    return "\n".join([*bodies, "int main() {", calls("main_{}();", len(bodies)), "}"])


def java(programs: list[str]) -> str:
    heads, bodies = packed("java", programs)
    bodies = [body.replace("public class", "class") for body in bodies]
    main = "public class All { public static void main(String[] args) {"
    return "\n".join([*heads, *bodies, main, calls("Main_{}.main(args);", len(bodies)), "} }"])


def csharp(programs: list[str]) -> str:
    heads, bodies = packed("csharp", programs)
    bodies = [body.replace("static void Main", "public static void Run") for body in bodies]
    calling = calls("Program_{}.Run();", len(bodies))
    return "\n".join([*heads, *bodies, "class All {", "static void Main() {", calling, "} }"])


def go(programs: list[str]) -> str:
    heads, bodies = packed("go", programs)
    names = {name for head in heads for name in re.findall(r'"\w+"', head)}
    imports = [f"import {name}" for name in sorted(names)]
    return "\n".join(
        ["package main", *imports, *bodies, "func main() {", calls("main_{}()", len(bodies)), "}"]
    )


def rust(programs: list[str]) -> str:
    _, bodies = packed("rust", programs)
    mods = [f"mod m_{i} {{\n{b.replace('fn main', 'pub fn main')}\n}}" for i, b in enumerate(bodies)]
    return "\n".join([*mods, "fn main() {", calls("m_{0}::main_{0}();", len(bodies)), "}"])


def php(programs: list[str]) -> str:
    _, bodies = packed("php", programs)
    return "\n".join(["<?php", *bodies])


def script(programs: list[str]) -> str:
    return "\n".join(f"{{\n{text}\n}}" for text in programs)


STEPS: dict[str, tuple[Callable[[list[str]], str], str, list[str]]] = {
    "c": (c, "all.c", ["gcc -std=c99 -Wall -Wextra -Werror -O0 -o all all.c", "./all"]),
    "cpp": (cpp, "all.cpp", ["g++ -std=c++17 -Wall -Wextra -Werror -O0 -o all all.cpp", "./all"]),
    "csharp": (csharp, "all.cs", ["mcs all.cs", "mono all.exe"]),
    "go": (go, "all.go", ["go run all.go"]),
    "java": (
        java,
        "All.java",
        ["javac -proc:none -J-XX:TieredStopAtLevel=1 All.java", "java -XX:TieredStopAtLevel=1 All"],
    ),
    "javascript": (script, "all.js", ["node all.js"]),
    "php": (php, "all.php", ["php -n -d error_reporting=-1 all.php"]),
    "rust": (rust, "all.rs", ["rustc --edition 2021 -A warnings -o all all.rs", "./all"]),
    "typescript": (script, "all.ts", ["tsc --strict --target es2022 all.ts", "node all.js"]),
}
"""How many programs are made one file, and what compiles and runs it."""


@pytest.mark.parametrize("language", OTHERS)
def test_programs_print_their_answers_when_run(language, tmp_path):
    pack, name, commands = STEPS[language]
    for command in commands:
        tool = command.split()[0]
        if not tool.startswith("./") and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here: programs in {WRITERS[language].title} are only parsed")
    found = some(48)
    (tmp_path / name).write_text(pack([written(noisy(e, i), language) for i, e in enumerate(found)]))
    for command in commands:
        run = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines() == [e.answer for e in found]


GRAMMARS = {
    "csharp": "c_sharp",
    "php": "php.language_php",
    "typescript": "typescript.language_typescript",
}


@pytest.mark.parametrize("language", OTHERS)
def test_documents_can_be_parsed_without_an_error(language):
    """Every document is a file of the language, its comments and the output in it too."""
    tree_sitter = pytest.importorskip("tree_sitter")
    module, _, grammar = GRAMMARS.get(language, language).partition(".")
    library = pytest.importorskip(f"tree_sitter_{module}")
    of = tree_sitter.Language(getattr(library, grammar or "language")())
    parser, rng = tree_sitter.Parser(of), random.Random(0)
    assert parser.parse(b"<?php ( 1").root_node.has_error
    for episode in some(72):
        text = program(episode, rng, language)
        assert not parser.parse(text.encode()).root_node.has_error, text
