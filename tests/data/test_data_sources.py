import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codestage.data.sources import Document, Example, read, read_documents, read_examples
from codestage.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "instruct"
ROWS = [
    {"text": "One two."},
    {"text": "Drei, zwei — 你好\n\x0cx\u2028y"},
    {"content": "print(3)\n"},
]


def spec(format="document", path=None, procedural=None, stdlib=False):
    return SimpleNamespace(format=format, path=path, procedural=procedural, stdlib=stdlib)


def write(folder):
    """The same rows in every kind of file."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (folder / "a.jsonl").write_text(lines, newline="")
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.replace("\n", "\r\n\n").encode()))
    (folder / "c.json").write_text(json.dumps(ROWS))
    pq.write_table(
        pa.Table.from_pylist([{"text": row.get("text") or row["content"]} for row in ROWS]),
        folder / "d.parquet",
    )
    return ["a.jsonl", "b.jsonl.gz", "c.json", "d.parquet"]


def test_every_kind_of_file_gives_the_same_documents(tmp_path):
    texts = ["One two.", "Drei, zwei — 你好\n\x0cx\u2028y", "print(3)\n"]
    for name in write(tmp_path):
        assert [d.text for d in read(spec(path=name), name="s", folder=tmp_path)] == texts


def test_folders_and_patterns_give_their_files_in_order(tmp_path):
    for name in ("z.py", "in/a.txt", "in/deep/b.py", "in/notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    texts = [d.text for d in read(spec(path="."), name="s", folder=tmp_path)]
    assert texts == ["in/a.txt", "in/deep/b.py", "z.py"]
    texts = [d.text for d in read(spec(path="**/*.py"), name="s", folder=tmp_path)]
    assert texts == ["in/deep/b.py", "z.py"]
    absolute = spec(path=str(tmp_path / "z.py"))
    assert read(absolute, name="s", folder=Path("/")) == [Document("z.py", "z.py")]


INSTRUCTIONS = [
    ({"prompt": "P", "response": "R"}, Example("P", "R")),
    ({"prompt": "P", "response": "R", "rationale": "Q"}, Example("P", "R", "Q")),
    ({"prompt": "P", "completion": "R", "rationale": None}, Example("P", "R")),
    ({"instruction": "P", "input": "", "output": "R"}, Example("P", "R")),
    ({"instruction": "P", "input": "I", "output": "R"}, Example("P\nI", "R")),
    ({"question": "P", "answer": "a\nb\n#### 42"}, Example("P", "42", "a\nb")),
    ({"question": "P", "answer": "no"}, Example("P", "no")),
    (
        {"messages": [{"role": "user", "content": "P"}, {"role": "assistant", "content": "R"}]},
        Example("P", "R"),
    ),
]


@pytest.mark.parametrize(("row", "example"), INSTRUCTIONS)
def test_every_form_of_instruction_is_read(tmp_path, row, example):
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    assert list(read_examples(tmp_path / "a.jsonl")) == [example]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    assert list(read_examples(tmp_path / "a.parquet")) == [example]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"text": "cut o', "no JSON"),
        ("[1, 2]", "is no row"),
        ('{"body": "x"}', "no key 'text'.*'body'"),
        ('{"text": 3}', "'text' is 3, not a text"),
        ('{"text": "  "}', "'text' is empty"),
        ('{"text": "a\\ud800"}', "half a character"),
        ("[" * 100_000, "JSON that cannot be read"),
        ('{"text": ' + "1" * 5000 + "}", "JSON that cannot be read"),
    ],
)
def test_a_bad_row_is_told_with_file_and_line(tmp_path, line, told):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n\n' + line + '\n{"text": "good"}\n')
    with pytest.raises(UserError, match=rf"a\.jsonl:3: .*{told}"):
        list(read_documents(path))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": "x"}, "keys 'text' are no instruction"),
        ({"prompt": "x", "response": ""}, "'response' is empty"),
        ({"instruction": "x", "input": 3, "output": "y"}, "'input' is 3"),
        ({"messages": [{"role": "user", "content": "x"}]}, r"roles are \['user'\]"),
        ({"messages": "hello"}, r"roles are \[\]"),
        ({"messages": [{"role": "user"}, {"role": "assistant"}]}, "'content' is None"),
    ],
)
def test_a_bad_instruction_is_told_with_file_and_row(tmp_path, row, told):
    (tmp_path / "a.json").write_text(json.dumps([{"prompt": "P", "response": "R"}, row]))
    with pytest.raises(UserError, match=rf"a\.json:2: .*{told}"):
        list(read_examples(tmp_path / "a.json"))


def test_files_that_are_missing_cut_off_empty_or_of_another_kind(tmp_path):
    whole = gzip.compress(b'{"text": "x"}\n' * 1000)
    files = {
        "cut.jsonl.gz": (whole[:-9], "damaged"),
        "plain.jsonl.gz": (b'{"text": "x"}\n', "not packed by gzip"),
        "cut.parquet": (b"PAR1 and no more", "no readable Parquet"),
        "cut.json": (b'[{"text": "x"}, {"te', r"cut\.json:1: no JSON"),
        "list.json": (b'{"text": "x"}', "not a list"),
        "latin.txt": (b"ol\n\xe9!", r"latin\.txt:2: byte 0xe9"),
        "empty.py": (b"\n", "empty"),
        "empty.jsonl": (b"\n", "no records"),
        "table.csv": (b"a,b", "unknown kind of file"),
    }
    for name, (content, told) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=told):
            read(spec(path=name), name="s", folder=tmp_path)
    (tmp_path / "folder.jsonl").mkdir()
    for nothing in ("gone.jsonl", "*.nothing", "folder.jsonl"):
        with pytest.raises(UserError, match="no such file"):
            read(spec(path=nothing), name="s", folder=tmp_path)
    with pytest.raises(UserError, match="holds no instructions"):
        list(read_examples(tmp_path / "latin.txt"))


def valid_files():
    parquet = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([{"text": "x" * i} for i in range(1, 9)]), parquet)
    lines = b'{"text": "one"}\n{"messages": [{"role": "user", "content": "x"}]}\n'
    return {
        ".jsonl": lines,
        ".jsonl.gz": gzip.compress(lines),
        ".json": b"[" + lines.replace(b"\n", b",", 1) + b"]",
        ".parquet": parquet.getvalue().to_pybytes(),
        ".txt": "fünf".encode(),
    }


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_whatever_the_bytes_only_user_errors_escape(tmp_path_factory, data):
    kind, content = data.draw(st.sampled_from(list(valid_files().items())))
    if data.draw(st.booleans()):
        content = data.draw(st.binary(max_size=200))
    else:
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 30)))
        content = content[:start] + data.draw(st.binary(max_size=8)) + content[stop:]
    path = tmp_path_factory.getbasetemp() / f"fuzzed{kind}"
    path.write_bytes(content)
    for reader in (read_documents, read_examples):
        try:
            texts = [record.text for record in reader(path)]
        except UserError as error:
            texts = [str(error)]
            told = str(error)
        else:
            told = str(path)
        assert all(text.encode() for text in texts)
        assert str(path) in told


def test_procedural_corpora_and_the_standard_library_are_sources(tmp_path):
    made = SimpleNamespace(form="prose", documents=24, depth=(1, 2), skills=None, cot=0.5)
    one = read(spec(procedural=made), name="s", folder=tmp_path, seed=1)
    assert len(one) == 24
    assert all(isinstance(document, Document) for document in one)
    assert one == read(spec(procedural=made), name="s", folder=tmp_path, seed=1)
    assert one != read(spec(procedural=made), name="s", folder=tmp_path, seed=2)
    with pytest.raises(UserError, match="format: document"):
        read(spec("instruct", procedural=made), name="s", folder=tmp_path)
    made.form = "chat"
    chat = read(spec("instruct", procedural=made), name="s", folder=tmp_path)
    assert all(isinstance(example, Example) for example in chat)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared real data is not beside this checkout")
def test_real_instructions_are_read():
    counts = {
        "alpaca_en_demo.json.gz": 999,
        "new_codealpaca.json.gz": 4535,
        "gsm8k_train.jsonl.gz": 7473,
    }
    for name, count in counts.items():
        examples = list(read_examples(SHARED / name))
        assert len(examples) == count
        assert all(e.rationale for e in examples) == name.startswith("gsm8k")
