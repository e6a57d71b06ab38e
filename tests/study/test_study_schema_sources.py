"""What a source may say of its programs and rows: every mistake is told with what to do."""

import pytest

from codestage.errors import UserError
from codestage.study.load import load_study
from codestage.study.schema_sources import SourceSpec


@pytest.mark.parametrize(
    ("told", "answer"),
    [
        (
            "path: x, programming_language: java, transform: [pseudocode]",
            "transform pseudocode reads Python, and these programs are in java; drop it",
        ),
        (
            "procedural: {form: programs, documents: 9, language: go}, transform: [unchanged, steps, flowchart]",
            "transform steps, flowchart reads Python, and these programs are in go; drop it",
        ),
        (
            "procedural: {form: programs, documents: 9, language: go}, transform: [unchanged], "
            "programming_language: go",
            "programming_language of generated programs is procedural's language; drop it",
        ),
        ("path: x, programming_language: c", "drop it, or add transform"),
        (
            "procedural: {form: programs, documents: 9, depth: [3, 1]}",
            "depth [3, 1] has the fewest last; write [1, 3]",
        ),
        (
            "path: x, transform: [unchanged], programming_language: c++",
            "write one of python, java, javascript, typescript, php, csharp, c, cpp, go, rust",
        ),
        ("path: x, prompt_field: problem", "give both"),
        ("path: x, prompt_field: a, response_field: b", "documents have text_field"),
        ("stdlib: true, where: {lang: [c]}", "stdlib has none; drop where"),
        ("path: x, where: {lang: []}", "where.lang"),
    ],
)
def test_mistakes_are_told_at_their_line(tiny, told, answer):
    before, after = tiny.read_text().split("sources:\n")
    tiny.write_text(f"{before}sources:\n  other: {{domain: code, {told}}}\n{after}")
    line = before.count("\n") + 2
    with pytest.raises(UserError) as error:
        load_study(tiny)
    assert f"{tiny}:{line}: " in str(error.value)
    assert answer in str(error.value)


def test_programs_are_in_python_where_nothing_else_is_said():
    def programs_in(**told):
        return SourceSpec(domain="code", transform=["unchanged"], **told).programs_in

    made = {"form": "programs", "documents": 3}
    assert programs_in(path="x") == programs_in(procedural=made) == "python"
    assert programs_in(path="x", programming_language="php") == "php"
    assert programs_in(procedural=made | {"language": "rust"}) == "rust"
