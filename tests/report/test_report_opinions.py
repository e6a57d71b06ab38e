"""Second opinions: shown beside the answer, and told where they part from it."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from records_fixture import write

from codestage.analyse.run import analyse
from codestage.report.opinions import disagreement, item_by_item, model_claims, second_opinions
from codestage.report.page import write_report
from codestage.report.records import read
from codestage.report.view import main_view


def seen(folder, change=None, **options):
    """The main view of invented records, their effects changed by `change`."""
    write(folder, items=60, **options)
    effects = analyse(folder)
    if change:
        change(effects)
    (folder / "results" / "effects.json").write_text(json.dumps(effects, allow_nan=False))
    return main_view(read(folder))


def test_every_answer_has_three_intervals(tmp_path):
    section = second_opinions(seen(tmp_path, pretrain=0.2))
    table = section.charts[0].table
    assert [row[0] for row in table.data] == [
        "code at pretrain",
        "code at tune",
        "interaction of pretrain and tune",
    ]
    for row in table.data:
        ends = [[float(x) for x in row[i].split("..")] for i in (2, 3, 5)]
        assert all(low < row[1] < high for low, high in ends)
        widths = [high - low for low, high in ends]
        assert max(widths) < 3 * min(widths)


def test_a_method_that_would_answer_otherwise_is_told_and_no_other(tmp_path):
    def other(effects):
        for row in effects["effects"]:
            if (row["contrast"], row["level"]) == ("code@tune", "overall"):
                row["mixed"] = [-5.0, -7.0, -3.0, 0.001]

    said = disagreement(seen(tmp_path / "a", other, pretrain=0.2))
    assert len(said) == 1
    assert "code at tuning" in said[0]
    assert "called lowered" in said[0]
    assert disagreement(seen(tmp_path / "b", pretrain=0.2)) == []


def test_equivalence_is_not_contradicted_by_a_model_that_does_not_test_it(tmp_path):
    def same(effects):
        for row in effects["effects"]:
            row["verdict"] = "equivalent"
            row["mixed"] = [0.1, -1.0, 1.0, 0.8] if row["mixed"] else None

    view = seen(tmp_path, same)
    assert disagreement(view) == []
    assert "same answer" in second_opinions(view).charts[0].title
    assert model_claims(view.effects("tune", "overall")[0], 0.05) == "open"


def test_gained_and_lost_items_are_counted_over_seeds(tmp_path):
    view = seen(tmp_path, pretrain=0.1)
    rows = pq.read_table(tmp_path / "results" / "items.parquet").to_pylist()
    right = {(r["arm"], r["seed"], r["item"]): r["value"] for r in rows if r["task"] == "sums"}
    keys = {(s, i) for _, s, i in right}
    change = [right["text/uniform", s, i] - right["text/text", s, i] for s, i in keys]
    table = item_by_item(view).tables[0]
    row = next(r for r in table.data if r[1] == "sums" and str(r[0]).startswith("uniform against text"))
    assert row[2:4] == [np.sum(np.array(change) > 0), np.sum(np.array(change) < 0)]


@pytest.fixture(scope="module")
def bands(tmp_path_factory):
    """A report whose runs tell what each stretch of a stage drew."""
    folder = write(tmp_path_factory.mktemp("bands"), items=40)
    runs = json.loads((folder / "results" / "runs.json").read_text())
    for run in runs:
        for stage in run["stages"]:
            rising = stage["option"] == "increase"
            code = [10 * i for i in range(24)] if rising else [115] * 24
            stage["drawn"] = {"prose": [300 - c for c in code], "python": code}
    (folder / "results" / "runs.json").write_text(json.dumps(runs))
    (folder / "results" / "effects.json").write_text(json.dumps(analyse(folder)))
    return write_report(folder, folder / "results")


def test_schedules_are_shown_as_they_were_drawn(bands):
    table = next(p for p in bands.tables if p.name == "schedule-bands.csv").read_text().splitlines()
    rows = {tuple(line.split(",")[:3]): [float(x) for x in line.split(",")[3:]] for line in table[1:]}
    assert rows["tune", "increase", "python"] == pytest.approx([0, 0.4, 230 / 300], rel=1e-4)
    assert rows["tune", "uniform", "python"] == pytest.approx([115 / 300] * 3, rel=1e-4)


def test_figures_and_tables_are_one_click_away(bands):
    html = bands.html.read_text()
    linked = set(re.findall(r'download="([^"]+)" href="data:', html))
    for figure in bands.figures:
        assert figure.name in linked
    for table in bands.tables:
        shown = len(table.with_suffix(".csv").read_text().splitlines()) > 1
        if shown and table.stem not in ("effects", "arms"):  # which are files only
            assert table.name in linked


def told(view):
    chart = second_opinions(view).charts[0]
    return chart.table.title


def test_how_many_methods_agree_is_counted(tmp_path):
    assert told(seen(tmp_path / "three", pretrain=0.2)) == "Three methods give the same answer"
    assert "Three" not in told(
        seen(tmp_path / "one", seeds=1, pretrain=0.2)
    )  # no mixed model of one seed

    def doubtful(effects):
        for row in effects["effects"]:
            if (row["contrast"], row["level"]) == ("code@pretrain", "overall"):
                row["bootstrap"] = [-1.0, 5.0]

    assert told(seen(tmp_path / "two", doubtful, pretrain=0.2)) == "The bootstrap would answer otherwise"
