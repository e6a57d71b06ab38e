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
