import ast

import pytest
from codestage.data.library import PIECE, pieces, standard_library
from hypothesis import given
from hypothesis import strategies as st

from codestage.errors import UserError


def test_the_standard_library_is_real_code_in_pieces():
    found = list(standard_library())
    modules = {place.rsplit(":", 1)[0] for place, _ in found}
    assert {"json/decoder.py", "collections/__init__.py", "argparse.py"} <= modules
    assert not [m for m in modules if {"test", "tests", "idlelib", "site-packages"} & set(m.split("/"))]
    assert sum(len(text) for _, text in found) > 4_000_000
    sizes = [len(text) for _, text in found]
    assert max(sizes) < 1.5 * PIECE
    parsed = 0
    for _, text in found[:200]:
        try:
            ast.parse(text)
            parsed += 1
        except SyntaxError:  # the middle of a long class
            pass
    assert parsed > 100


@given(st.text(alphabet="ab \n\r\f\x1c:()#\"'", max_size=60))
def test_pieces_joined_are_the_module(text):
    source = f"x = 1\n{text}\n" + "def f():\n    return 1\n\n\n" * 300
    assert "".join(pieces(source)) == source


def test_pieces_end_between_definitions():
    source = "".join(f"@decorated\ndef f{i}(x):\n    '''Doc.'''\n    return x\n\n\n" for i in range(400))
    cut = pieces(source)
    assert len(cut) > 2
    assert all(piece.startswith("@decorated") and len(piece) <= PIECE for piece in cut)


def test_what_is_left_out_and_a_module_that_cannot_be_read(tmp_path):
    for name in ("b.py", "a/c.py", "test/d.py", "site-packages/e.py", "_sysconfigdata__linux.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    assert [place for place, _ in standard_library(tmp_path)] == ["a/c.py:0", "b.py:0"]
    (tmp_path / "bad.py").write_bytes(b"x = '\xff'\n")
    with pytest.raises(UserError, match=r"bad\.py"):
        list(standard_library(tmp_path))
