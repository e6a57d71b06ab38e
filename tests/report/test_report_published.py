"""Published effects beside one's own: the right ones, with what is known of them, in one plot and in the page."""

import csv
import json

import pytest
from records_fixture import write

from codestage.analyse.audit import audit
from codestage.analyse.run import analyse
from codestage.engine.results import rebuild
from codestage.errors import UserError
from codestage.report.published import COLUMNS, published_section
from codestage.report.records import read
from codestage.report.view import main_view


def view_of(folder, **options):
    write(folder, items=60, **options)
    effects = json.dumps(analyse(folder), allow_nan=False)
    (folder / "results" / "effects.json").write_text(effects)
    return main_view(read(folder))


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return view_of(tmp_path_factory.mktemp("published"), pretrain=0.2)


def rows_of(section):
    table = section.charts[0].table
    assert (
        [len(row) for row in table.rows]
        == [len(row) for row in table.data]
        == [len(COLUMNS)] * len(table.rows)
    )
    return [dict(zip(COLUMNS, row, strict=True)) for row in table.data]


def test_ma2024_is_nl_to_code_and_nn_to_nc_beside_the_main_effects(view):
    rows = rows_of(published_section(view, audit("ma2024")))
    tasks = ["Logic", "JEC-QA", "ScienceQA", "E-KAR", "CosQA"]
    own = ["all tasks", "symbolic", "arithmetic", "code"]
    assert [(r["question"], r["of"]) for r in rows] == [
        (question, name)
        for question in ("code at pre-training", "code at tuning")
        for name in [*tasks, *own]
    ]
    assert [r["estimate"] for r in rows[:5]] == [4.54, 1.7, 0.13, 3.88, 3.49]
    assert rows[0]["source"] == "ma2024, table 2: NL PanGu 2.6B to CODE CodePanGu 2.6B"
    assert [r["estimate"] for r in rows[9:14]] == [4.54, 0.9, -1.01, -1.79, 2.98]
    assert rows[9]["source"] == "ma2024, table 3: NN PanGu 2.6B to NC PanGu 2.6B"
    effect = view.effect("code@pretrain", "overall")
    assert (rows[5]["source"], rows[5]["estimate"]) == ("this study", effect.estimate)


def test_items_are_told_with_where_they_are_from_and_unknown_stays_unknown(view):
    section = published_section(view, audit("ma2024"))
    rows = {r["of"]: r for r in rows_of(section)[:5]}
    assert (rows["Logic"]["items"], rows["Logic"]["items from"]) == (22, "inferred")
    assert (rows["CosQA"]["items"], rows["CosQA"]["items from"]) == (604, "stated")
    unknown = rows["ScienceQA"]
    assert (unknown["interval"], unknown["p"], unknown["items"], unknown["items from"]) == (
        None, None, None, "not known",
    )  # fmt: skip
    assert any("E-KAR, JEC-QA and Logic is not stated" in text for text in section.paragraphs)
    assert (
        section.charts[0].title
        == "Of 8 published differences none is larger than sampling error; 2 cannot be tested"
    )


def drawn(section, narrow):
    """Intervals and markers of each panel: (rows with a bar, filled markers)."""
    figure = section.charts[0].draw(narrow)
    found = []
    for axes in figure.axes:
        lines = [line for line in axes.get_lines() if len(set(line.get_ydata())) == 1]
        bars = {line.get_ydata()[0] for line in lines if len(line.get_xdata()) == 2}
        marks = [line for line in lines if line.get_marker() in ("o", "D")]
        filled = {m.get_ydata()[0] for m in marks if m.get_markerfacecolor() == m.get_markeredgecolor()}
        assert len(marks) == len(axes.get_yticks())
        found.append((bars, filled, [t.get_text().replace("\n", " ") for t in axes.get_yticklabels()]))
    return found


@pytest.mark.parametrize("narrow", [False, True])
def test_one_panel_a_stage_no_bar_without_items_and_only_what_is_resolved_is_filled(view, narrow):
    first, second = drawn(published_section(view, audit("ma2024")), narrow)
    for bars, _, names in (first, second):
        assert names[2] == "ma2024: ScienceQA, items not known"
        assert names[5] == "here: all tasks"
        assert 2 not in bars
        assert {0, 1, 3, 4, 5, 6, 7, 8} <= bars
    assert min(first[1]) == 5  # the planted effect, and nothing published
    assert not second[1]


def test_a_table_of_ones_own_is_matched_by_the_kind_of_stage_and_names_stay_text(view, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "paper,table,stage,arm,task,value,n\n"
        "<b>us</b>,1,tune,base,<script>,40,2000\n"
        "<b>us</b>,1,tune,code,<script>,60,2000\n"
        "<b>us</b>,1,other,base,T,40,2000\n"
        "<b>us</b>,1,other,code,T,60,2000\n"
    )
    rows = rows_of(published_section(view, audit(path)))
    assert [r["of"] for r in rows] == ["<script>", "all tasks", "symbolic", "arithmetic", "code"]
    ((_, filled, _),) = drawn(published_section(view, audit(path)), False)
    assert filled == {0}


def test_what_holm_takes_back_is_not_filled(view, tmp_path):
    """An interval without zero among forty comparisons."""
    rows = [
        f"tune,{arm},T{i},{40 + 4.5 * (arm == 'b') * (i == 0)},1000" for i in range(40) for arm in "ab"
    ]
    path = tmp_path / "many.csv"
    path.write_text("stage,arm,task,value,n\n" + "\n".join(rows) + "\n")
    answer = audit(path)
    assert answer["differences"][0]["low"] > 0
    ((_, filled, _),) = drawn(published_section(view, answer), False)
    assert 0 not in filled


def test_a_table_without_a_stage_of_the_study_has_no_section(view, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("stage,arm,task,value,n\nother,a,T,40,100\nother,b,T,50,100\n")
    assert published_section(view, audit(path)) is None


def test_one_seed_of_ones_own_leaves_out_the_same(tmp_path):
    section = published_section(view_of(tmp_path, seeds=1), audit("ma2024"))
    assert "so do this study's, which has one seed" in section.paragraphs[0]


def test_the_report_has_it_where_it_is_asked_for_and_only_there(tmp_path):
    write(tmp_path, items=30)
    _, plain = rebuild(tmp_path)
    assert "Beside published numbers" not in plain.html.read_text()
    _, files = rebuild(tmp_path, beside="ma2024")
    assert "Beside published numbers" in files.html.read_text()
    assert "Beside published numbers" in files.markdown.read_text()
    table = next(p for p in files.tables if p.name == "published.csv")
    assert len(list(csv.DictReader(table.open()))) == 18
    before = files.html.read_bytes()
    assert rebuild(tmp_path, beside="ma2024")[1].html.read_bytes() == before
    with pytest.raises(UserError, match=r"nowhere\.csv: cannot be read"):
        rebuild(tmp_path, beside=str(tmp_path / "nowhere.csv"))
