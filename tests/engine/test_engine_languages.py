"""Sources of programs in other languages than Python: their identity, their rows, a preset's study of one."""

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from codestage.data.clean import Ledger, clean
from codestage.data.sources import read_source
from codestage.engine import data_steps as steps
from codestage.errors import UserError
from codestage.study.load import load_study
from codestage.study.presets import preset_studies

SOURCE = "  code_chat: {domain: code, format: instruct, "


def documents(path, told):
    """The step that makes the documents of the study's instructions with programs."""
    before, after = path.read_text().split(SOURCE)
    path.write_text(f"{before}{SOURCE}{told}}}\n{after.split(chr(10), 1)[1]}")
    return steps.data_steps(load_study(path), path).documents["code_chat"]


def test_everything_that_is_said_of_programs_and_rows_is_identity(tiny, tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    told = [
        "path: rows.jsonl",
        "path: rows.jsonl, where: {lang: [java]}",
        "path: rows.jsonl, where: {lang: [go]}",
        "path: rows.jsonl, prompt_field: problem, response_field: solution",
        "path: rows.jsonl, prompt_field: problem, response_field: answer",
        "path: rows.jsonl, transform: [unchanged]",
        "path: rows.jsonl, transform: [unchanged], programming_language: java",
        "path: rows.jsonl, transform: [unchanged], programming_language: go",
        "procedural: {form: code_chat, documents: 200, language: go}, transform: [unchanged]",
    ]
    made = [documents(tiny, each) for each in told]
    assert len({step.hash for step in made}) == len(told)
    assert set(made[5].config) == {
        "domain",
        "format",
        "transform",
        "files",
    }  # as before there were others
    for step, name in ((made[6], "java"), (made[7], "go"), (made[8], "go")):
        assert set(step.config["libraries"]) == {"tree-sitter", f"tree-sitter-{name}"}
    monkeypatch.setattr(steps, "grammar_versions", lambda language: {"tree-sitter": "9.9"})
    assert documents(tiny, told[8]).hash != made[8].hash


ROWS = [
    {
        "lang": "java",
        "problem": "Twice.",
        "solution": "```java\nint f(int n) { return 2 * n; } // twice\n```",
    },
    {"lang": "java", "problem": "Half.", "solution": "Divide it by two."},
    {"lang": "c", "problem": "Thrice.", "solution": "```c\nint f(int n) { return 3 * n; }\n```"},
]


def run(*arguments, **environment):
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment
    command = [sys.executable, "-m", "codestage.cli", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)


def test_rows_are_chosen_by_a_column_and_told_where_it_is_missing(tiny, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    told = (
        "path: rows.jsonl, prompt_field: problem, response_field: solution, where: {lang: [java]}, "
        "transform: [remove-comments], programming_language: java"
    )
    documents(tiny, told)
    spec, ledger = load_study(tiny).sources["code_chat"], Ledger()
    kept = list(clean(read_source(spec, tmp_path), spec, ledger))
    assert [item.exchanges for item in kept] == [
        [("Twice.", "```java\nint f(int n) { return 2 * n; }\n```")]
    ]
    assert ledger.read == 3
    assert ledger.removed == {"where": 1, "transform": 1}
    rows.write_text(json.dumps({"problem": "a", "solution": "b"}))
    with pytest.raises(
        UserError, match=r"row 1 has no lang, which where asks for \(it has: problem, solution\)"
    ):
        list(read_source(spec, tmp_path))


@pytest.mark.slow
def test_the_rules_in_another_language_run_end_to_end(tmp_path):
    """One of the preset's studies of a language; all of them are of one design, and `languages` reads all ten."""
    made = preset_studies("code-induced", scale="smoke")
    path = tmp_path / "code-induced-rust.yaml"
    text = made[path.name]
    assert "controls: [example-matched]\n" in text
    path.write_text(
        text.replace("controls: [example-matched]\n", "")
    )  # what it costs is known from the forms
    done = run("run", str(path))
    assert done.returncode == 0, done.stderr[-2000:]
    items = pq.read_table(path.with_suffix("") / "results" / "items.parquet", columns=["run"])
    assert len(set(items["run"].to_pylist())) == 8
    ledgers = [json.loads(p.read_text()) for p in path.with_suffix("").rglob("ledger.json")]
    changed = [ledger["transformed"] for ledger in ledgers if ledger["transformed"]]
    kept = {ledger["kept"] for ledger in ledgers if ledger["transformed"]}
    assert len(changed) == 6
    assert len(kept) == 1  # the same instructions in every form
    assert sorted(c["rust"] for c in changed) == [0, *[kept.pop()] * 5]
