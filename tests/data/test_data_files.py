"""Files: compressed, archived, in Arrow, in a bucket; bad rows refused or counted."""

import gzip
import io
import json
import random
import struct
import tarfile
import zipfile
from string import ascii_letters

import datasets
import fsspec
import numpy as np
import pyarrow as pa
import pytest
import zstandard
from identify.vendor.licenses import LICENSES

from codestage.data.clean import Ledger, clean
from codestage.data.files import find, is_licence
from codestage.data.sources import read_source
from codestage.data.tokenizer import train_tokenizer
from codestage.errors import UserError
from codestage.study.schema import SourceSpec

TEXTS = ["One two.", "Drei, zwei — 你好", "print(3)\n"]
LINES = "".join(json.dumps({"text": t}) + "\n" for t in TEXTS).encode()


def spec(path, **more):
    return SourceSpec.model_validate({"domain": "text", "path": path} | more)


def texts(path, folder, **more):
    return [d.text for d in read_source(spec(path, **more), folder)]


def test_compressed_and_arrow_files_give_the_same_documents(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(LINES))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(LINES))
    table = pa.table({"text": TEXTS})
    with pa.OSFile(str(tmp_path / "c.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table)
    with (
        pa.OSFile(str(tmp_path / "d.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as out,
    ):
        out.write_table(table)
    for name in ("a.jsonl.gz", "b.jsonl.zst", "c.arrow", "d.arrow"):
        assert texts(name, tmp_path) == TEXTS, name


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json"])
def test_a_byte_order_mark_before_the_first_row_is_no_part_of_it(tmp_path, name):
    rows = [{"text": "\ufeffOne."}, {"text": "Two."}]
    text = json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows))
    marked = text.encode("utf-8-sig")
    (tmp_path / name).write_bytes(gzip.compress(marked) if name.endswith(".gz") else marked)
    assert texts(name, tmp_path) == ["\ufeffOne.", "Two."]


def test_a_byte_order_mark_elsewhere_is_told_with_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x"}\n\xef\xbb\xbf{"text": "y"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2: not JSON"):
        texts("a.jsonl", tmp_path)


def test_files_in_a_bucket_are_read_like_those_at_hand():
    memory = fsspec.filesystem("memory")
    with memory.open("/corpora/b.jsonl", "wb") as file:
        file.write(LINES)
    with memory.open("/corpora/a.jsonl.gz", "wb") as file:
        file.write(gzip.compress(b'{"text": "first"}\n'))
    assert texts("memory://corpora/*.jsonl*", None) == ["first", *TEXTS]
    before = find("memory://corpora/b.jsonl", None)[0].identity()
    with memory.open("/corpora/b.jsonl", "wb") as file:
        file.write(LINES * 2)
    assert find("memory://corpora/b.jsonl", None)[0].identity() != before


def test_what_a_file_is_read_as_is_part_of_what_it_is(tmp_path):
    for name in ("a.txt", "b.txt", "a.jsonl"):
        (tmp_path / name).write_bytes(LINES)
    one, same, other = (find(n, tmp_path)[0].identity() for n in ("a.txt", "b.txt", "a.jsonl"))
    assert one == same != other


def test_the_index_of_a_token_file_is_part_of_what_it_is(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(40))
    (tmp_path / "a.idx").write_bytes(b"one")
    (held,) = find("a.bin", tmp_path)
    before = held.identity()
    (tmp_path / "a.idx").write_bytes(b"two")
    assert held.identity() != before
    (tmp_path / "a.idx").unlink()
    with pytest.raises(UserError, match=r"a\.bin: cannot be read: .*a\.idx"):
        held.identity()


@pytest.mark.parametrize("address", ["nowhere://bucket/x.jsonl", "memory://no/such/*.jsonl"])
def test_a_place_that_cannot_be_reached_is_told(address):
    with pytest.raises(UserError, match=r"cannot be reached|no file of a known kind"):
        texts(address, None)


TREE = {
    "pkg/LICENSE": "x",
    "pkg/a.py": "print(1)\n",
    "pkg/deep/b.c": "int main() { return 0; }\n",
    "pkg/data.bin": "\x00\x01",
    "pkg/latin.py": None,
}


def source_tree(path, members=TREE):
    """An archive of the members in their order; one without text is not UTF-8."""
    if path.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in members.items():
                archive.writestr(name, "caf\xe9".encode("latin-1") if text is None else text)
        return
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            data = "caf\xe9".encode("latin-1") if text is None else text.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


@pytest.mark.parametrize("name", ["pkg.tar.gz", "pkg-1-py3-none-any.whl"])
def test_source_trees_give_their_source_files_with_languages(tmp_path, name):
    source_tree(tmp_path / name)
    found = list(read_source(spec(name), tmp_path))
    by_path = {d.meta["path"]: d for d in found}
    assert by_path[f"{name}/pkg/a.py"].text == "print(1)\n"
    assert by_path[f"{name}/pkg/a.py"].meta["language"] == "python"
    assert by_path[f"{name}/pkg/deep/b.c"].meta["language"] == "c"
    assert not [path for path in by_path if "data.bin" in path or "latin" in path]


LICENSED = {
    "pkg/CLI.py": "before its licence\n",
    "pkg/vendor/LICENSE.txt": "nobody knows these terms",
    "pkg/vendor/b.py": "under them\n",
    "pkg/deep/c.py": "deep\n",
    "pkg/LICENSE": None,
    "pkg/z.py": "behind it\n",
    "pkg/gnu/COPYING": None,
    "pkg/gnu/d.py": "free\n",
    "pkg/license_utils.py": "no licence\n",
    "quite/other.py": "nobody said\n",
}
"""A source tree; the two licences without a text are known ones."""
RULING = {
    "CLI.py": "MIT",
    "b.py": None,
    "c.py": "MIT",
    "z.py": "MIT",
    "d.py": "GPL-3.0",
    "license_utils.py": "MIT",
    "other.py": None,
}


def licensed():
    known = {"pkg/LICENSE": MIT, "pkg/gnu/COPYING": dict(LICENSES)["GPL-3.0"]}
    return {name: text or known[name] for name, text in LICENSED.items()}


def licences(found):
    return {d.meta["path"].rpartition("/")[2]: d.meta.get("license") for d in found}


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_members_of_an_archive_have_the_licence_nearest_above_them(tmp_path, name):
    source_tree(tmp_path / name, licensed())
    found = licences(read_source(spec(name), tmp_path))
    assert {file: found[file] for file in RULING} == RULING
    stated = licences(read_source(spec(name, license="ISC"), tmp_path))
    assert {file: stated[file] for file in RULING} == {f: told or "ISC" for f, told in RULING.items()}


def test_archives_pass_the_rule_of_their_licence(tmp_path):
    source_tree(tmp_path / "a.tar.gz", licensed())
    asked = spec("*.tar.gz", clean={"licences": ["GPL-3.0"]})
    ledger = Ledger()
    kept = clean(read_source(asked, tmp_path), asked, ledger)
    assert set(licences(kept)) == {"COPYING", "d.py"}
    assert ledger.removed == {"licence": 8}


@pytest.mark.parametrize("place", ["", "licenses/"])
def test_the_licence_in_a_wheel_rules_all_of_it(tmp_path, place):
    members = {"pkg/a.py": "print(1)\n", f"pkg-1.dist-info/{place}LICENSE": MIT}
    source_tree(tmp_path / "pkg-1-py3-none-any.whl", members)
    found = licences(read_source(spec("pkg-1-py3-none-any.whl"), tmp_path))
    assert found["a.py"] == "MIT"


def test_what_stands_before_the_damage_in_an_archive_is_still_read(tmp_path):
    members = {"LICENSE": MIT, "a.py": "print(1)\n"} | {
        f"{i}.py": "".join(random.Random(i).choices(ascii_letters, k=5000)) for i in range(20)
    }
    source_tree(tmp_path / "a.tar.gz", members)
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    told = []
    found = licences(read_source(spec("a.tar.gz"), tmp_path, told.append))
    assert found["a.py"] == "MIT"
    assert len(told) == 1


def test_files_in_folders_have_the_licence_nearest_above_them(tmp_path):
    for name, text in licensed().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert licences(read_source(spec("."), tmp_path)) == RULING
    (tmp_path / "pkg" / "vendor" / "LICENCE-MIT").write_text(MIT)
    assert licences(read_source(spec("."), tmp_path)) == RULING | {"b.py": "MIT"}


def test_folders_in_a_bucket_know_their_licence():
    memory = fsspec.filesystem("memory")
    memory.pipe({"/licensed/in/a.py": b"print(1)\n", "/licensed/LICENSE": MIT.encode()})
    assert licences(read_source(spec("memory://licensed"), None)) == {"a.py": "MIT"}


@pytest.mark.parametrize("name", ["LICENSE", "license-mit", "a/LICENCE.md", "COPYING.LESSER"])
def test_licences_are_known_by_their_name(name):
    assert is_licence(name)
    assert not is_licence(f"{name}.jsonl.gz")
    assert not is_licence(f"{name}_tools.py")
    assert not is_licence(f"{name}/README.md")


def test_only_licences_are_no_files_of_documents(tmp_path):
    (tmp_path / "LICENSE-MIT").write_text(MIT)
    with pytest.raises(UserError, match="no file of a known kind"):
        texts(".", tmp_path)


def test_rows_say_their_licence_or_the_study_does(tmp_path):
    rows = [{"text": "words", "license": licence} for licence in ("ISC", "", None)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = [d.meta.get("license") for d in read_source(spec("a.jsonl"), tmp_path)]
    assert said == ["ISC", None, None]
    said = [d.meta["license"] for d in read_source(spec("a.jsonl", license="MIT"), tmp_path)]
    assert said == ["ISC", "MIT", "MIT"]
    library = SourceSpec.model_validate({"domain": "code", "stdlib": True, "license": "PSF-2.0"})
    assert next(iter(read_source(library, tmp_path))).meta == {"license": "PSF-2.0"}


def test_a_data_set_of_hugging_face_from_a_folder(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_bytes(LINES)
    hub = SourceSpec.model_validate({"domain": "text", "hub": {"id": "set"}})
    assert [d.text for d in read_source(hub, tmp_path)] == TEXTS
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "saved")
    assert texts("saved/*.arrow", tmp_path) == TEXTS
    missing = SourceSpec.model_validate({"domain": "text", "hub": {"id": "set", "split": "none"}})
    with pytest.raises(UserError, match="data set 'set'"):
        list(read_source(missing, tmp_path))


def test_some_files_of_a_data_set_whose_folders_have_other_columns(tmp_path):
    for folder, row in (("python", '{"content": "1"}\n'), ("issues", '{"thread": 7}\n')):
        (tmp_path / "set" / folder).mkdir(parents=True)
        (tmp_path / "set" / folder / "a.jsonl").write_text(row)
    some = {"domain": "code", "hub": {"id": "set", "files": ["python/*.jsonl"]}}
    assert [d.text for d in read_source(SourceSpec.model_validate(some), tmp_path)] == ["1"]
    some["hub"] = {"id": "set", "files": ["perl/*.jsonl"]}
    with pytest.raises(UserError, match="data set 'set'"):
        list(read_source(SourceSpec.model_validate(some), tmp_path))


def test_a_column_of_another_name(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "here"}\n')
    assert texts("a.jsonl", tmp_path, text_field="body") == ["here"]


def test_bad_rows_are_an_error_or_counted_as_the_user_chose(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{oops\n{"body": 1}\n{"text": "y"}\n')
    whole = gzip.compress(LINES * 500)
    (tmp_path / "b.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    told = []
    found = [d.text for d in read_source(spec("*.jsonl*"), tmp_path, told.append)]
    assert found[:2] == ["x", "y"]
    assert len(found) > 2
    assert "a.jsonl:2: not JSON" in told[0]
    assert "row 2 has no text" in told[1]
    assert "b.jsonl.gz: cannot be read" in told[2]
    with pytest.raises(UserError, match=r"a\.jsonl:2"):
        texts("*.jsonl*", tmp_path)


def test_lines_in_another_encoding_take_no_other_line_with_them(tmp_path):
    lines = [json.dumps({"text": f"caf\u00e9 {i}"}, ensure_ascii=False) for i in range(9)]
    mixed = [line.encode("latin-1" if i % 4 == 1 else "utf-8") for i, line in enumerate(lines)]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(mixed))
    told = []
    found = [d.text for d in read_source(spec("a.jsonl"), tmp_path, told.append)]
    assert found == [f"caf\u00e9 {i}" for i in range(9) if i % 4 != 1]
    assert [t.partition(" (")[0] for t in told] == [f"a.jsonl:{n}: not UTF-8" for n in (2, 6)]
    with pytest.raises(UserError, match=r"a\.jsonl:2: not UTF-8"):
        texts("a.jsonl", tmp_path)


def write_megatron(path, documents):
    """Files as Megatron's own builder lays them out: one sequence a document."""
    ids = [np.array(d, np.uint16) for d in documents]
    path.with_suffix(".bin").write_bytes(b"".join(x.tobytes() for x in ids))
    sizes = np.array([len(x) for x in ids], np.int32)
    pointers = np.concatenate([[0], np.cumsum(sizes[:-1] * 2)]).astype(np.int64)
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, len(ids), len(ids) + 1)
    ends = np.arange(len(ids) + 1, dtype=np.int64)
    path.with_suffix(".idx").write_bytes(head + sizes.tobytes() + pointers.tobytes() + ends.tobytes())


def test_pre_tokenised_documents_come_back_as_what_they_say(tmp_path):
    tokenizer = train_tokenizer({"a": TEXTS * 20}, vocab_size=300, characters=1000, out=tmp_path / "tok")
    ids = [tokenizer.encode(text).ids for text in TEXTS]
    write_megatron(tmp_path / "shard", [[0, *x] for x in ids])
    assert texts("shard.bin", tmp_path, tokenizer="tok") == TEXTS
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"input_ids": x}) + "\n" for x in ids))
    assert texts("rows.jsonl", tmp_path, tokenizer="tok") == TEXTS
    with pytest.raises(UserError, match="row 1 has no text"):
        texts("shard.bin", tmp_path)
    with pytest.raises(UserError, match="no tokenizer folder"):
        texts("shard.bin", tmp_path, tokenizer="nowhere")


@pytest.mark.parametrize("cut", ["index", "tokens", "magic"])
def test_pre_tokenised_files_that_do_not_fit_are_told(tmp_path, cut):
    train_tokenizer({"a": TEXTS * 20}, vocab_size=300, characters=1000, out=tmp_path / "tok")
    write_megatron(tmp_path / "shard", [[5, 6, 7], [8, 9]])
    path = tmp_path / ("shard.bin" if cut == "tokens" else "shard.idx")
    data = path.read_bytes()
    path.write_bytes(b"X" + data[1:] if cut == "magic" else data[:-3])
    with pytest.raises(UserError, match=r"shard\.bin"):
        texts("shard.bin", tmp_path, tokenizer="tok")


def test_problems_of_reasoning_gym_repeat_from_their_seed():
    pytest.importorskip("reasoning_gym")
    gym = {"tasks": ["leg_counting", "basic_arithmetic"], "documents": 11}
    made = {"domain": "text", "format": "instruct", "reasoning_gym": gym}
    one, again = (list(read_source(SourceSpec.model_validate(made), None)) for _ in range(2))
    assert one == again
    assert len(one) == 11
    assert all(e.prompt and e.response for e in one)
    other = SourceSpec.model_validate(made | {"reasoning_gym": gym | {"seed": 1}})
    assert list(read_source(other, None)) != one
    wrong = SourceSpec.model_validate(made | {"reasoning_gym": gym | {"tasks": ["nothing"]}})
    with pytest.raises(UserError, match="reasoning_gym"):
        list(read_source(wrong, None))


MIT = """MIT License

Copyright (c) 2020 Someone

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
