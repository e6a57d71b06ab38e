"""Reading sources: every kind of file, every form of instruction, and what is told of bad ones."""

import ast
import gzip
import io
import json
import os
import re
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codestage.data.files import ARCHIVES, READERS
from codestage.data.sources import Example, _pieces, read_source, source_files, standard_library
from codestage.data.tokenizer import train_tokenizer
from codestage.errors import UserError
from codestage.study.schema import SourceSpec

ROWS = [
    {"text": "One two."},
    {"text": "Drei, zwei — 你好\n\x0cx\u2028y"},
    {"content": "print(3)\n"},
]


def spec(path, format="document"):
    return SourceSpec.model_validate({"domain": "text", "format": format, "path": path})


def test_every_kind_of_file_gives_the_same_documents(tmp_path):
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (tmp_path / "a.jsonl").write_text(lines, newline="")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.replace("\n", "\r\n\n").encode()))
    (tmp_path / "c.json").write_text(json.dumps(ROWS))
    texts = [row.get("text") or row["content"] for row in ROWS]
    pq.write_table(pa.Table.from_pylist([{"text": t} for t in texts]), tmp_path / "d.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.json", "d.parquet"):
        assert [d.text for d in read_source(spec(name), tmp_path)] == texts, name


def test_names_that_are_not_utf8_can_be_written_and_others_stay_as_they_are(tmp_path):
    (tmp_path / "café.jsonl").write_text('{"text": "x"}\n')
    for name, held in ((b"caf\xe9.jsonl", b'{"text": "x"}\n'), (b"caf\xe9.txt", b"y")):
        (tmp_path / os.fsdecode(name)).write_bytes(held)
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        entry = tarfile.TarInfo("caf\xe9.py")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"z"))
    found = list(read_source(spec("."), tmp_path))
    inside = "a.tar/caf\\udce9.py"
    assert [(d.id, d.meta.get("path")) for d in found] == [
        ("a.tar:1", inside),
        ("café.jsonl:1", None),
        ("caf\\udce9.jsonl:1", None),
        ("caf\\udce9.txt:1", "caf\\udce9.txt"),
    ]
    pa.table({"id": [d.id for d in found], "path": [d.meta.get("path") for d in found]})


def test_folders_and_patterns_give_their_files_in_order(tmp_path):
    for name in ("z.py", "in/a.txt", "in/deep/b.py", "in/notes.unknown"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    names = ["in/a.txt", "in/deep/b.py", "z.py"]
    assert [d.text for d in read_source(spec("."), tmp_path)] == names
    assert [d.text for d in read_source(spec("**/*.py"), tmp_path)] == names[1:]
    assert [d.text for d in read_source(spec(str(tmp_path / "z.py")), tmp_path / "in")] == ["z.py"]


INSTRUCTIONS = [
    ({"prompt": "P", "response": "R"}, ("P", "R", None)),
    ({"prompt": "P", "response": "R", "rationale": "Q"}, ("P", "R", "Q")),
    ({"prompt": "P", "completion": "R", "rationale": None}, ("P", "R", None)),
    ({"question": "P", "answer": "a\nb\n#### 42"}, ("P", "42", "a\nb")),
    ({"question": "P", "answer": "no"}, ("P", "no", None)),
    ({"instruction": "P", "input": "", "output": "R"}, ("P", "R", None)),
    ({"instruction": "P", "input": "I", "output": "R"}, ("P\nI", "R", None)),
    (
        {"messages": [{"role": "user", "content": "P"}, {"role": "assistant", "content": "R"}]},
        ("P", "R", None),
    ),
    (
        {"conversations": [{"from": "human", "value": "P"}, {"from": "gpt", "value": "R"}]},
        ("P", "R", None),
    ),
]


@pytest.mark.parametrize(("row", "expected"), INSTRUCTIONS)
def test_every_form_of_instruction_is_read(tmp_path, row, expected):
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    (example,) = list(read_source(spec("a.jsonl", "instruct"), tmp_path))
    assert isinstance(example, Example)
    assert (example.prompt, example.response, example.rationale) == expected


@pytest.mark.parametrize("line", ['{"text": "cut o', "[" * 100_000, "{]"])
def test_a_line_that_is_not_json_is_told_with_its_number(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n\n' + line + '\n{"text": "good"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:3: not JSON"):
        list(read_source(spec("a.jsonl"), tmp_path))


MEND = "; mend that row, or leave such rows out with bad_rows: skip"
NAME_BOTH = "name the columns of prompt and response with prompt_field and response_field"


def turns(*said):
    return {"messages": [{"role": role, "content": content} for role, content in said]}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"body": "x"}, " has no text (it has: body); name the column of the text with text_field"),
        ({}, " has no text (it is empty); name the column of the text with text_field"),
        (
            {"input_ids": [1]},
            " has no text (it has: input_ids); name the tokenizer that made its input_ids",
        ),
        ({"text": 3}, f": text is a number{MEND}"),
        ({"text": True}, f": text is true{MEND}"),
        ({"text": None, "content": "x"}, f": text is null{MEND}"),
        ({"content": {"a": 1}}, f": content is an object{MEND}"),
        ([1], f": it is a list, not an object with columns{MEND}"),
        (None, f": it is null, not an object with columns{MEND}"),
        ("text", f": it is text, not an object with columns{MEND}"),
    ],
)
def test_why_a_row_is_no_document_is_told_with_its_number(tmp_path, row, why):
    told_with_its_number(tmp_path, row, spec("a.jsonl"), why)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"text": "x"}, f" has no prompt and response (it has: text); {NAME_BOTH}, or leave such"),
        ({"prompt": "x"}, f" has no response (it has: prompt); {NAME_BOTH}"),
        ({"completion": "x"}, f" has no prompt (it has: completion); {NAME_BOTH}"),
        ({"instruction": "x"}, f" has no output (it has: instruction); {NAME_BOTH}"),
        ({"question": "x"}, f" has no answer (it has: question); {NAME_BOTH}"),
        ({"question": "x", "answer": 5}, f": answer is a number{MEND}"),
        ({"prompt": "x", "response": None}, f": response is null{MEND}"),
        ({"prompt": ["x"], "response": "y"}, f": prompt is a list{MEND}"),
        ({"prompt": "x", "response": "y", "rationale": ["z"]}, f": rationale is a list{MEND}"),
        ([1], f": it is a list, not an object with columns{MEND}"),
        ({"messages": "hello"}, f": messages is text, not a list of turns{MEND}"),
        ({"messages": None}, f": messages is null, not a list of turns{MEND}"),
        ({"messages": []}, f": messages has no prompt with its answer{MEND}"),
        ({"messages": [], "conversations": 7}, ": conversations is a number, not a list of turns"),
        ({"messages": ["hello"]}, ": turn 1 is text, not an object with role and content"),
        ({"messages": [{"content": "x"}]}, ": turn 1 has no role"),
        (turns(("user", "a")), ": messages has no prompt with its answer"),
        (turns(("user", "a"), ("user", "b")), f": turn 2 is a second user turn in a row{MEND}"),
        (turns(("assistant", "hi"), ("user", "a"), ("assistant", "b"), ("assistant", "c")), ": turn 4 is a second assistant turn"),
        (turns(("user", "a"), ("system", "b"), ("assistant", "c")), ": turn 2 is a system turn, which can only be the first"),
        (turns(("user", "a"), ("tool", "b")), ": role 'tool' of turn 2 is not known (known: system, user, human, assistant, gpt)"),
        (turns(("user", [{"type": "text"}]), ("assistant", "b")), f": the content of turn 1 is a list{MEND}"),
        (turns(("system", "s"), ("user", "a"), ("assistant", None)), ": the content of turn 3 is null"),
        (turns(("system", 3), ("user", "a"), ("assistant", "b")), ": the content of turn 1 is a number"),
    ],
)  # fmt: skip
def test_why_a_row_is_no_instruction_is_told_with_its_number(tmp_path, row, why):
    told_with_its_number(tmp_path, row, spec("a.jsonl", "instruct"), why)


@pytest.mark.parametrize(
    ("said", "system", "exchanges"),
    [
        ([("assistant", ["hi"]), ("user", "a"), ("assistant", "b")], None, [("a", "b")]),
        ([("user", "a"), ("assistant", "b"), ("user", None)], None, [("a", "b")]),
        ([("system", None), ("user", "a"), ("assistant", "b")], None, [("a", "b")]),
        (
            [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
            "s",
            [("a", "b"), ("c", "d")],
        ),
    ],
)
def test_what_is_left_out_of_a_conversation_spoils_nothing(tmp_path, said, system, exchanges):
    (tmp_path / "a.jsonl").write_text(json.dumps(turns(*said)) + "\n")
    (example,) = read_source(spec("a.jsonl", "instruct"), tmp_path)
    assert (example.system, example.exchanges) == (system, exchanges)


def test_columns_that_the_study_names_are_told_by_their_names(tmp_path):
    asked = spec("a.jsonl", "instruct").model_copy(update={"prompt_field": "q", "response_field": "a"})
    told_with_its_number(tmp_path, {"q": "x"}, asked, f" has no a (it has: q); {NAME_BOTH}")
    told_with_its_number(tmp_path, {"q": "x", "a": 1}, asked, f": a is a number{MEND}")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "response": "\ud83d"},
        {"prompt": "a", "response": "b", "rationale": "\ud83d"},
    ],
)
def test_an_instruction_with_half_a_character_is_told_with_its_number(tmp_path, row):
    told_with_its_number(tmp_path, row, spec("a.jsonl", "instruct"), " holds half of a surrogate pair")


def test_a_text_with_half_a_character_is_told_with_its_number(tmp_path):
    told_with_its_number(
        tmp_path, {"text": "x \ud83d"}, spec("a.jsonl"), " holds half of a surrogate pair"
    )


@pytest.mark.parametrize("ids", [[-1], [2**40], ["x"], 3])
def test_tokens_that_are_none_are_told_with_their_row(tmp_path, ids):
    train_tokenizer({"a": ["one two"] * 20}, vocab_size=300, characters=1000, out=tmp_path / "tok")
    asked = {"domain": "text", "path": "a.jsonl", "tokenizer": "tok"}
    told_with_its_number(
        tmp_path, {"input_ids": ids}, SourceSpec.model_validate(asked), ": input_ids are no tokens ("
    )


def told_with_its_number(folder, row, asked, why):
    (folder / "a.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=re.escape(f"a.jsonl: row 1{why}")):
        list(read_source(asked, folder))
    told = []
    assert list(read_source(asked, folder, told.append)) == []
    assert len(told) == 1


def test_files_that_are_missing_cut_off_empty_or_of_another_kind(tmp_path):
    whole = gzip.compress(b'{"text": "x"}\n' * 1000)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "no.parquet").write_bytes(b"PAR1 nonsense")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "one.json").write_text('{"text": "x"}')
    told = {
        "cut.jsonl.gz": "cannot be read",
        "no.parquet": "not a readable Parquet",
        "latin.txt": "not UTF-8",
        "one.json": "not a list of rows",
        "missing.jsonl": "no file of a known kind",
    }
    for name, words in told.items():
        with pytest.raises(UserError, match=words):
            list(read_source(spec(name), tmp_path))


@st.composite
def damaged(draw):
    """Bytes of no kind, or of a real kind with a few of them changed or cut off."""
    lines = b'{"text": "one two three"}\n' * 5
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.py", "print(1)")
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w:gz") as tar:
        entry = tarfile.TarInfo("a.py")
        entry.size = 8
        tar.addfile(entry, io.BytesIO(b"print(1)"))
    table = pa.table({"text": ["one", "two"]})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet)
    with pa.ipc.new_file(arrow, table.schema) as out:
        out.write_table(table)
    whole = [
        lines,
        gzip.compress(lines),
        zstandard.compress(lines),
        packed.getvalue(),
        tarred.getvalue(),
    ]
    whole += [parquet.getvalue(), arrow.getvalue()]
    data = bytearray(draw(st.sampled_from(whole) | st.binary(max_size=80)))
    for _ in range(draw(st.integers(0, 3))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


FUZZED = [f"a{kind}" for kind in [*READERS, *ARCHIVES, ".jsonl.gz", ".jsonl.zst", ".py"]]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged(), st.sampled_from(FUZZED))
def test_any_bytes_are_read_or_refused_in_words(tmp_path, data, name):
    (tmp_path / name).write_bytes(data)
    told = None
    try:
        told = "".join(d.text for d in read_source(spec(name), tmp_path))
    except UserError as error:
        told = str(error) if name in str(error) else None
    assert told is not None


def test_real_instruction_data_is_read(shared):
    files = sorted((shared / "data" / "instruct").glob("*.jsonl*"))
    if not files:
        pytest.skip("no instruction data in shared/data/instruct")
    for path in files[:3]:
        examples = list(read_source(spec(str(path), "instruct"), path.parent))
        assert len(examples) > 10
        assert all(e.prompt and e.response for e in examples[:200])


def test_the_standard_library_is_real_code_in_pieces():
    found = list(standard_library())
    modules = {d.id.rsplit(":", 1)[0] for d in found}
    assert {"stdlib/json/decoder.py", "stdlib/collections/__init__.py"} <= modules
    assert not [m for m in modules if {"test", "tests", "idlelib", "site-packages"} & set(m.split("/"))]
    assert sum(len(d.text) for d in found) > 4_000_000
    for document in found[:300]:
        ast.parse(document.text)  # cut between statements, so every piece is a module


@given(st.text(alphabet="ab \n\f:()#\"'", max_size=60))
@settings(deadline=None)
def test_pieces_joined_are_the_module(text):
    source = (
        "x = 1\n"
        + "".join(f"# {line}\n" for line in text.split("\n"))
        + "def f():\n    return 1\n\n\n" * 300
    )
    assert "".join(_pieces(source)) == source


def test_source_files_of_generated_sources_are_none(tmp_path):
    generated = SourceSpec.model_validate({"domain": "code", "stdlib": True})
    assert source_files(generated, tmp_path) == []
