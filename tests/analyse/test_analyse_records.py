"""Records as arrays: every score in its place, whatever the order of the rows; what is not known stays so."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_fixture import write

from codestage.analyse import records as module
from codestage.analyse.records import read_records
from codestage.errors import UserError
from codestage.evaluate.records import SCHEMA


def rows_of(folder):
    return pq.read_table(folder / "results" / "items.parquet").to_pylist()


def write_rows(folder, rows, **options):
    table = pa.Table.from_pylist(rows, SCHEMA)
    pq.write_table(table, folder / "results" / "items.parquet", **options)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), group=st.integers(50, 4000), batch=st.integers(64, 5000))
def test_every_score_is_in_its_place(tmp_path_factory, seed, group, batch):
    """Rows in any order, cut into any row groups and batches."""
    folder = write(tmp_path_factory.mktemp("r"), items=20)
    rows = rows_of(folder)
    np.random.default_rng(seed).shuffle(rows)
    write_rows(folder, rows, row_group_size=group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH", batch)
        found = read_records(folder)
    wide = pd.DataFrame(rows).pivot_table(index=["task", "arm", "seed"], columns="item", values="value")
    for (stage, cot, task, metric), scores in found.scores.items():
        assert (stage, cot, metric) == ("tune", "off", "acc")
        assert scores.shape == (6, 3, 20)
        for a, arm in enumerate(found.arms):
            for s, one in enumerate(found.seeds):
                theirs = wide.loc[(task, arm, one)].dropna()
                assert sorted(theirs) == sorted(scores[a, s])
                assert scores[a, s].mean() == pytest.approx(theirs.mean())


def test_items_stand_in_one_order_under_every_mode_and_metric(tmp_path):
    folder = write(tmp_path, items=12)
    rows = rows_of(folder)
    number = {item: i for i, item in enumerate(sorted({r["item"] for r in rows}))}
    told = [r | {"value": float(number[r["item"]])} for r in rows]
    other = [r | {"metric": "bpb"} for r in told] + [r | {"cot": "supplied"} for r in reversed(told)]
    write_rows(folder, told + other)
    scores = read_records(folder).scores
    for task in ("coins", "sums"):
        one = scores["tune", "off", task, "acc"]
        assert (one == scores["tune", "off", task, "bpb"]).all()
        assert (one == scores["tune", "supplied", task, "acc"]).all()


def test_unknown_scores_are_counted_and_runs_that_are_missing_are_told(tmp_path):
    folder = write(tmp_path, items=10)
    rows = [r for r in rows_of(folder) if (r["arm"], r["seed"]) != ("text/text", 2)]
    rows[3]["value"] = None
    write_rows(folder, rows)
    found = read_records(folder)
    assert sum(found.unknown.values()) == 1
    ran = found.ran("tune")
    assert not ran[found.arms.index("text/text"), 2]
    assert ran.sum() == ran.size - 1


@pytest.mark.parametrize(
    ("change", "told"), [({"arm": "who"}, "arm 'who' is not in"), ({"seed": 77}, "seed 77 is not in")]
)
def test_rows_of_nobody_are_refused(tmp_path, change, told):
    folder = write(tmp_path, items=10)
    rows = rows_of(folder)
    rows[5] |= change
    write_rows(folder, rows)
    with pytest.raises(UserError, match=told):
        read_records(folder)


def test_metrics_that_effects_are_not_asked_of_are_not_read(tmp_path):
    folder = write(tmp_path, items=10)
    rows = rows_of(folder)
    write_rows(folder, rows + [r | {"metric": "format"} for r in rows])
    assert {key[3] for key in read_records(folder).scores} == {"acc"}


def test_an_arm_that_lacks_a_seed_is_compared_on_those_it_has(tmp_path):
    """The contrast's estimate is that of the seeds that all its arms have."""
    from codestage.analyse.run import analyse

    folder = write(tmp_path, items=80, pretrain=0.1)
    rows = rows_of(folder)
    less = [r for r in rows if (r["arm"], r["seed"]) != ("text+code/uniform", 2)]
    write_rows(folder, less)
    found = {
        e["contrast"]: e
        for e in analyse(folder)["effects"]
        if (e["level"], e["name"]) == ("task", "coins")
    }
    main, other = found["code@pretrain"], found["uniform@tune|text at pretrain"]
    assert (main["seeds"], other["seeds"]) == (2, 3)
    frame = pd.DataFrame(rows).query("task == 'coins' and seed < 2")
    mean = frame.groupby(frame["arm"].str.startswith("text+code"))["value"].mean()
    assert main["estimate"] == pytest.approx(100 * (mean[True] - mean[False]), rel=1e-4)
    told = json.loads((folder / "results" / "study.json").read_text())
    assert len(told["seeds"]) == 3
