"""The audit of published numbers, against the arithmetic of the reference notes."""

import pytest

from codestage.analyse.audit import allowed_sizes, audit
from codestage.errors import UserError

HEAD = "paper,table,stage,arm,model,size,task,domain,metric,value,n,n_from\n"


def difference(answer, task, first, second):
    for row in answer["differences"]:
        if (row["task"], row["from"], row["to"]) == (task, first, second):
            return row
    raise AssertionError([(r["task"], r["from"], r["to"]) for r in answer["differences"]][:20])


@pytest.mark.parametrize(
    ("a", "b", "n", "items", "z"),
    [  # reference/papers.md, 1.9: published accuracies, number of items, items and z of the difference
        (36.36, 40.90, 22, 1, 0.31),
        (25.60, 27.30, 1000, 17, 0.86),
        (32.24, 36.12, 335, 13, 1.06),
        (47.02, 50.51, 604, 21, 1.21),
    ],
)
def test_z_is_that_of_two_unpaired_proportions(tmp_path, a, b, n, items, z):
    path = tmp_path / "t.csv"
    path.write_text(
        HEAD + "".join(f"p,1,s,{arm},m,1,T,d,acc,{v},{n},x\n" for arm, v in (("A", a), ("B", b)))
    )
    row = audit(path)["differences"][0]
    assert (row["items"], row["z"]) == (items, pytest.approx(z, abs=0.011))
    assert not row["larger_than_sampling_error"]


def test_the_published_table_is_read_and_hardly_any_gain_survives(shared):
    answer = audit(shared / "reference" / "published.csv")
    tested = [r for r in answer["differences"] if r["z"] is not None]
    assert len(tested) > 20
    # Ma et al. 2024, table 2: no gain of CODE over NL at 2.6B reaches 1.96.
    gains = [
        r
        for r in tested
        if r["table"] == "2" and {r["from"].split()[0], r["to"].split()[0]} == {"NL", "CODE"}
    ]
    assert gains
    assert all(abs(r["z"]) < 1.96 for r in gains if r["from"].split()[1:] == r["to"].split()[1:])


def test_sizes_that_printed_digits_allow(tmp_path):
    path = tmp_path / "t.csv"
    values = (36.36, 45.45, 31.82)
    path.write_text(HEAD + "".join(f"p,1,s,a{i},m,1,T,d,acc,{v},,\n" for i, v in enumerate(values)))
    assert audit(path)["sizes"][0]["smallest_n_allowed"][0] == 22
    assert allowed_sizes([]) != []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("p,1,s,a,m,1,T,d,acc,abc,10,x", r"t\.csv:2: value 'abc'"),
        ("p,1,s,a,m,1,T,d,acc,120,10,x", r"t\.csv:2: value '120'"),
        ("p,1,s,a,m,1,T,d,acc,50,-3,x", r"t\.csv:2: n '-3'"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(tmp_path, line, told):
    path = tmp_path / "t.csv"
    path.write_text(HEAD + line + "\n")
    with pytest.raises(UserError, match=told):
        audit(path)


def test_a_table_without_values_and_a_file_that_is_none(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("task,score\nT,1\n")
    with pytest.raises(UserError, match="no column 'value'"):
        audit(path)
    with pytest.raises(UserError, match="cannot be read"):
        audit(tmp_path / "none.csv")
