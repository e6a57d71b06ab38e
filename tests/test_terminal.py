"""What data say stays text in the terminal too."""

import pytest

from codestage import terminal

STEERS = "\x1b[31mred\x1b]0;title\x07\u202egnp.exe\x9b2J"


def test_nothing_from_data_steers_the_terminal(capsys):
    terminal.say(f"task {STEERS}", "second [bold]line[/bold]")
    terminal.say(STEERS, error=True)
    terminal.warn(STEERS)
    terminal.table(STEERS, ["name", "score"], [[STEERS, 1.5], ["[red]x[/red]", None]])
    seen = "".join(capsys.readouterr())
    assert not set("\x1b\x07\u202e\x9b") & set(seen)
    assert "[bold]line[/bold]" in seen  # shown, not read as markup
    assert "[red]x[/red]" in seen
    assert "\\x1b[31mred" in seen


@pytest.mark.parametrize("text", ["plain", "Größe 5 − 3", "日本語", "two\nlines\tand a tab", "👍"])
def test_text_that_only_says_something_is_shown_as_it_is(text):
    assert terminal.shown(text) == text


def effect(**more):
    told = {"level": "overall", "metric": "acc", "cot": "off", "stage": "tune", "label": "code at tune"}
    numbers = {"estimate": 2.5, "low": 1.0, "high": 4.0, "p_adjusted": 0.01, "verdict": "helps"}
    return told | numbers | more


@pytest.mark.parametrize(
    ("modes", "heading"),
    [
        (["supplied", "off"], "accuracy over all tasks, points"),
        (["supplied", "generated"], "accuracy over all tasks, cot supplied, points"),
        (["generated"], "accuracy over all tasks, cot generated, points"),
    ],
)
def test_effects_are_shown_in_the_mode_of_the_reports_answer(capsys, monkeypatch, modes, heading):
    monkeypatch.setenv("COLUMNS", "150")
    rows = [effect(stage="pretrain", label="earlier")]
    terminal.effects({"effects": rows + [effect(cot=mode, label=f"code, {mode}") for mode in modes]})
    seen = capsys.readouterr().out
    assert heading in seen
    shown = "off" if "off" in modes else modes[0]
    assert [m for m in modes if f"code, {m}" in seen] == [shown]
    assert "earlier" not in seen


@pytest.mark.parametrize(
    "rows", [[], [effect(metric="bpb")], [effect(metric="prob"), effect(level="task")]]
)
def test_where_there_is_no_accuracy_over_all_tasks_one_line_says_so(capsys, rows):
    terminal.effects({"effects": rows})
    seen = capsys.readouterr().out
    assert seen.startswith("no effect on accuracy over all tasks to show; tables/effects.csv")
    assert seen.count("\n") == 1
