"""The answer in sentences: each names what its numbers are of, and none contradicts another."""

import json
from types import SimpleNamespace

from records_fixture import write

from codestage.analyse.run import analyse
from codestage.report.answer import answer, headline, sure
from codestage.report.questions import abilities
from codestage.report.records import Effect, read
from codestage.report.view import main_view


def test_an_interaction_is_told_of_its_own_stages():
    """Of three stages the first interaction is that of the first two."""
    known = {"contrast": "pretrain×continue", "family": "interaction", "metric": "acc", "verdict": "up"}
    known |= {"estimate": 5.0, "low": 2.0, "high": 8.0, "unit": "points"}
    effect = Effect(**dict.fromkeys(Effect.__dataclass_fields__) | known)
    stages = ["pretrain", "continue", "tune"]
    view = SimpleNamespace(
        records=SimpleNamespace(confidence="95 %", stages=stages, tasks=[]),
        stage_families=stages,
        main=lambda family: effect.contrast if family == "interaction" else None,
        effect=lambda *asked: effect,
        effects=lambda *asked: [],
    )
    said = answer(view)[-1]
    assert "code at mid-training did more for accuracy after code at pre-training" in said.lead
    assert "tuning" not in said.lead


def test_a_task_whose_difference_is_resolved_is_not_called_mute(tmp_path):
    write(tmp_path, items=30)
    effects = analyse(tmp_path)
    for row in effects["arms"]:
        if row["level"] == "task":
            row["above_chance"] = row["name"] not in ("coins", "lists")
    for row in effects["effects"]:
        if (row["contrast"], row["name"]) == ("code@pretrain", "coins"):
            row |= {"estimate": 7.0, "low": 3.0, "high": 11.0, "verdict": "up"}
        if row["name"] == "lists":
            row |= {"verdict": "open"}
    (tmp_path / "results" / "effects.json").write_text(json.dumps(effects, allow_nan=False))
    view = main_view(read(tmp_path))
    (mute,) = [point for point in sure(view) if "neither help nor harm" in point]
    assert mute.startswith("1 task of 4 was shown above chance in no arm")
    assert "lists" in mute
    assert "coins" not in mute
    section = abilities(view)
    assert section
    (told,) = [text for text in section.paragraphs if "unable to resolve anything" in text]
    assert "lists" in told
    assert "coins" not in told


def test_a_difference_between_guesses_is_no_answer(tmp_path):
    write(tmp_path, items=30)
    effects = analyse(tmp_path)

    def said(above, verdict):
        for row in effects["arms"]:
            if row["level"] == "task":
                row["above_chance"] = row["name"] in above
        for row in effects["effects"]:
            row["verdict"] = verdict if row["level"] == "overall" else "open"
        (tmp_path / "results" / "effects.json").write_text(json.dumps(effects, allow_nan=False))
        view = main_view(read(tmp_path))
        return [sentence.lead for sentence in answer(view)], headline(view)

    leads, title = said((), "equivalent")
    assert len(leads) == 2
    assert all("cannot be seen in the answers: no task was shown above chance" in lead for lead in leads)
    assert "guesses" in title
    leads, title = said(("coins",), "equivalent")
    assert leads[0] == "Code at pre-training made practically no difference to accuracy"
    assert "guesses" not in title
