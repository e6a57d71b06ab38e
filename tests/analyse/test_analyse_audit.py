"""The audit of published numbers, against the arithmetic of the reference notes."""

import json

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import xlog1py, xlogy

from codestage.analyse.audit import MAX_N, PUBLISHED, allowed_sizes, audit, sentences, table_rows
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


def audited(tmp_path, right, sizes):
    """The audit's row of two counts of right answers, whose shares are printed to the last digit."""
    values = [f"T,{100 * r / n!r},{n},{arm}" for r, n, arm in zip(right, sizes, "AB", strict=True)]
    path = tmp_path / "t.csv"
    path.write_text("task,value,n,arm\n" + "\n".join(values) + "\n")
    (row,) = audit(path)["differences"]
    return row


COUNTS = [
    ((8, 9), (22, 22)),
    ((3, 0), (50, 40)),
    ((217, 86), (425, 319)),
    ((0, 1), (7, 9)),
    ((500, 540), (1000, 900)),
]


@pytest.mark.parametrize(("right", "sizes"), COUNTS)
def test_p_is_that_of_the_chi_square_test_of_the_four_counts(tmp_path, right, sizes):
    counts = [[r, n - r] for r, n in zip(right, sizes, strict=True)]
    theirs = stats.chi2_contingency(counts, correction=False).pvalue
    assert audited(tmp_path, right, sizes)["p"] == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize(("right", "sizes"), COUNTS)
def test_the_interval_ends_where_the_score_test_begins_to_reject(tmp_path, right, sizes):
    """The likeliest shares that lie so far apart, by search; the test by their standard error is then at 5 %."""
    row = audited(tmp_path, right, sizes)
    (x, y), (n, m) = right, sizes
    for end in (row["low"] / 100, row["high"] / 100):

        def unlikely(p, apart=end):
            return -(xlogy(x, p) + xlog1py(n - x, -p) + xlogy(y, p + apart) + xlog1py(m - y, -p - apart))

        bounds = (max(0.0, -end), min(1.0, 1 - end))
        p = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded").x
        error = (p * (1 - p) / n + (p + end) * (1 - p - end) / m) ** 0.5
        assert abs(y / m - x / n - end) / error == pytest.approx(1.96, abs=0.01)


@pytest.mark.parametrize(("a", "b"), [(36.36, 40.9), (25.6, 27.3), (1.0, 5.0), (90.0, 95.0)])
def test_items_needed_are_those_of_statsmodels(tmp_path, a, b):
    from statsmodels.stats.proportion import samplesize_proportions_2indep_onetail as needed

    path = tmp_path / "t.csv"
    path.write_text(f"task,arm,value\nT,A,{a}\nT,B,{b}\n")
    (row,) = audit(path)["differences"]
    theirs = needed((b - a) / 100, a / 100, 0.8, alpha=0.05, alternative="two-sided")
    assert row["n_needed"] == np.ceil(theirs)


def test_the_table_that_ships_is_the_one_of_the_reference_notes(shared):
    assert (PUBLISHED / "ma2024.csv").read_bytes() == (
        shared / "reference" / "published.csv"
    ).read_bytes()


def pair(answer, task, table, first, second):
    keys = ("task", "table", "from", "to")
    (found,) = [
        r for r in answer["differences"] if tuple(r[k] for k in keys) == (task, table, first, second)
    ]
    return found


NL, CODE = "NL PanGu 2.6B", "CODE CodePanGu 2.6B"
NN, NC = "NN PanGu 2.6B", "NC PanGu 2.6B"
UNIFORM, DECREASE = "uniform CodePanGu 2.6B", "decrease CodePanGu 2.6B"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The shipped table with the notes' guess of ScienceQA's size, 4.2k, put in."""
    path = tmp_path_factory.mktemp("audit") / "whole.csv"
    text = (PUBLISHED / "ma2024.csv").read_text().splitlines()
    filled = [line[:-1] + "4200,inferred" if ",ScienceQA," in line else line for line in text]
    path.write_text("\n".join(filled))
    return audit(path)


@pytest.mark.parametrize(
    ("task", "points", "items", "z"),
    [  # reference/papers.md, 1.9
        ("Logic", 4.54, 1, 0.31),
        ("JEC-QA", 1.70, 17, 0.85),
        ("ScienceQA", 0.13, 5, 0.12),
        ("E-KAR", 3.88, 13, 1.06),
        ("CosQA", 3.49, 21, 1.21),
    ],
)
def test_published_gains_of_code_in_items_and_standard_errors(whole, task, points, items, z):
    row = pair(whole, task, "2", NL, CODE)
    assert (row["points"], row["items"], row["z"]) == (points, items, z)


@pytest.mark.parametrize(
    ("table", "first", "second", "z"),
    [("2", NL, CODE, 1.59), ("3", NN, NC, 0.16), ("6", UNIFORM, DECREASE, -0.6)],
)
def test_all_tasks_together_are_those_of_the_notes(whole, table, first, second, z):
    (row,) = [c for c in whole["combined"] if (c["table"], c["from"], c["to"]) == (table, first, second)]
    assert row["z"] == pytest.approx(z, abs=0.05 if z == -0.6 else 0.011)
    assert (row["tasks"], row["with_inferred_n"], row["without_n"]) == (5, 4, 0)


def test_without_n_nothing_is_claimed_and_p_is_told_at_both_ends():
    answer = audit("ma2024")
    row = pair(answer, "ScienceQA", "6", UNIFORM, DECREASE)
    for key in ("n", "z", "p", "p_adjusted", "low", "larger_than_sampling_error"):
        assert row[key] is None
    assert row["n_from"] == "digits"
    smallest, largest = row["n_allowed"]
    assert (smallest, largest) == (3172, MAX_N)
    for n, told in ((smallest, row["p_at_smallest_n"]), (largest, row["p_at_largest_n"])):
        p, q = 0.4376, 0.4190
        z = (q - p) / ((p + q) * (2 - p - q) / 2 / n) ** 0.5
        assert told == pytest.approx(2 * stats.norm.sf(abs(z)))
    (logic,) = [c for c in answer["combined"] if (c["table"], c["to"]) == ("2", CODE)]
    assert (logic["tasks"], logic["without_n"]) == (4, 1)


def test_every_claim_says_where_its_n_is_from():
    answer = audit("ma2024")
    assert sum(answer["larger_by_n_from"].values()) == answer["larger_than_sampling_error"]
    assert answer["larger_by_n_from"] == {"inferred": 4, "stated": 0}
    assert {r["n_from"] for r in answer["differences"]} == {"inferred", "stated", "digits"}
    told = " ".join(sentences(answer))
    assert "4 with n inferred, 0 with n stated" in told
    columns, rows = table_rows(answer)
    assert all(len(row) == len(columns) for row in rows)
    assert any("335 (inferred)" in row for row in rows)


def test_false_discoveries_are_those_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    known = [r for r in audit("ma2024")["differences"] if r["p"] is not None]
    for method, key in (("holm", "p_adjusted"), ("fdr_bh", "p_false_discovery")):
        theirs = multipletests([r["p"] for r in known], method=method)[1]
        assert [r[key] for r in known] == pytest.approx(list(theirs), abs=1e-5)


def test_bleu_is_not_tested_and_it_is_said_why():
    answer = audit("ma2024")
    assert not [r for r in answer["differences"] if r["task"] == "MBPP"]
    assert [(r["task"], r["metric"]) for r in answer["not_tested"]] == [
        ("MBPP", "BLEU"),
        ("DuReader", "F1"),
    ]
    assert "no share of items" in answer["not_tested"][0]["why"]


def test_two_sizes_are_each_used(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("task,arm,value,n\nT,A,50,100\nT,B,60,400\n")
    (row,) = audit(path)["differences"]
    assert row["z"] == round(0.1 / (0.58 * 0.42 * (1 / 100 + 1 / 400)) ** 0.5, 2)
    assert (row["n"], row["items"], row["n_from"]) == (100, None, "given")


def test_no_n_at_all_and_digits_that_no_n_gives(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("task,arm,value\nT,A,33.33\nT,B,66.67\nU,A,50.000001\nU,B,50.000003\n")
    one, other = audit(path)["differences"]
    assert one["n_allowed"] == [3, 20_000]
    assert (other["n_allowed"], other["n_from"]) == (None, None)


def test_a_name_that_is_no_file_and_not_shipped(tmp_path):
    with pytest.raises(UserError, match=r"ma2042: no such file.*\(ma2024\)"):
        audit("ma2042")


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
        ("p,1,s,a,m,1,T,d,EM,120,10,x", r"t\.csv:2: value '120'"),
        ("p,1,s,a,m,1,T,d,acc,nan,10,x", r"t\.csv:2: value 'nan'"),
        ("p,1,s,a", r"t\.csv:2: not as many cells"),
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


@pytest.mark.parametrize("n", [100, 335, 1000])
def test_equal_models_are_seldom_called_different(tmp_path, n):
    """Two models of one accuracy, printed as tables print them."""
    rng = np.random.default_rng(n)
    right = 100 * rng.binomial(n, 0.4, (400, 2)) / n
    lines = [f"t{i},{v:.2f},{n},m{j}" for i, row in enumerate(right) for j, v in enumerate(row)]
    path = tmp_path / "equal.csv"
    path.write_text("task,value,n,arm\n" + "\n".join(lines) + "\n")
    found = audit(path)
    alarms = np.mean([row["p"] < 0.05 for row in found["differences"]])
    assert alarms <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5
    assert found["larger_than_sampling_error"] <= 1  # of 400, corrected


def test_differences_beyond_any_doubt_are_finite_numbers(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("task,arm,value,n\nT,A,10,1319\nT,B,80,1319\nU,A,10,1319\nU,B,80,1319\n")
    answer = audit(path)
    json.dumps(answer, allow_nan=False)
    assert answer["combined"][0]["z"] > 30


def test_none_right_against_all_right_is_a_difference(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("task,arm,value,n\nT,A,0.0,50\nT,B,100.0,50\n")
    (row,) = audit(path)["differences"]
    assert row["p"] < 0.001
    assert row["larger_than_sampling_error"]
    assert row["low"] < row["high"] == 100
