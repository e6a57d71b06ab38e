"""Scores over tasks on the page: what is said follows what was found, and nothing where there is nothing."""

import copy
import json

import pytest
from ladder_fixture import made, study, write

from codestage.analyse.run import analyse
from codestage.errors import UserError
from codestage.report.fitted import fitted_sections
from codestage.report.over_tasks_seen import over_tasks_section
from codestage.report.records import Records, read
from codestage.report.tables import to_csv
from codestage.report.view import View, main_view


def levels(metric, task, dose, tuned, tokens):
    """Code at pre-training lifts what is high and lowers what is low."""
    at = int(task[-1])
    return 0.5 + 0.05 * (at - 3.5) * (1 + 2.5 * dose) if metric == "acc" else 1.5


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    folder = tmp_path_factory.mktemp("over")
    told = study(items=60)
    told["tasks"] = [{**told["tasks"][0], "name": f"t{i}"} for i in range(8)]
    write(folder, made(told, levels, metrics=("acc",)))
    effects = analyse(folder)
    (folder / "results" / "effects.json").write_text(json.dumps(effects, allow_nan=False))
    return main_view(read(folder))


def test_the_report_tells_pairs_and_doses(view):
    given = view.records.sections["over_tasks"]
    section = over_tasks_section(view, given)
    assert section in fitted_sections(view)
    by_dose, pairs = section.tables
    variance = given["doses"][0]["statistics"][1]
    assert by_dose.data[1] == [
        "variance",
        *variance["means"],
        variance["slope"],
        variance["p"],
        variance["p_adjusted"],
    ]
    assert list(by_dose.columns[1:6]) == ["0 %", "10 %", "25 %", "40 %", "50 %"]
    assert [row[0] for row in pairs.data] == [e["label"] for e in given["pairs"]]
    assert len(to_csv(pairs).splitlines()) == len(pairs.rows) + 1
    assert section.points[0].startswith(
        "Variance over 8 tasks, code at pre-training: rises with the dose, +"
    )
    assert "With 8 tasks the smallest p is 0.008." in " ".join(section.paragraphs)


def test_only_what_was_found_is_said(view):
    given = copy.deepcopy(view.records.sections["over_tasks"])
    for entry in [*given["pairs"], *given["doses"]]:
        for told in entry["statistics"]:
            told["p_adjusted"] = 0.5
    section = over_tasks_section(view, given)
    assert section.points == []
    assert section.paragraphs[0] == "No difference in variance or quartiles over tasks is shown."
    upper = given["pairs"][0]["statistics"][3]
    upper |= {"minus": 50.0, "plus": 61.25, "difference": 11.25, "p_adjusted": 0.01, "seeds_agree": 2}
    given["pairs"][0]["statistics"][0]["p_adjusted"] = 0.01  # of a mean, for which the effects answer
    (said,) = over_tasks_section(view, given).points
    assert said == (
        "Upper quartile over 8 tasks, code at pretrain: 50.0 to 61.2, adjusted p = 0.010; in the same direction on 2 of 3 seeds."
    )


def test_records_without_it_have_no_section_and_broken_ones_are_refused(view):
    assert over_tasks_section(view, {}) is None
    broken = Records(
        **{**vars(view.records), "sections": {"over_tasks": {"pairs": [{"stage": "tune"}]}}}
    )
    with pytest.raises(UserError, match="over_tasks cannot be read"):
        fitted_sections(View(broken, view.stage, view.cot, view.metric))
