"""How answers look in the terminal: JSON for machines, plain tables for people. Only `cli` and this print."""

import json
import sys
import unicodedata
from typing import Any

UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn")
"""Categories of characters that steer a terminal, turn the direction of text, or have no shape."""


def shown(text: object) -> str:
    """Text from data as a terminal may have it: what could steer it becomes a number that can be read."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in UNPRINTABLE else f"\\x{ord(c):02x}"
        for c in str(text)
    )


def say(*lines: object, error: bool = False) -> None:
    """Print lines at once, to standard error if so asked."""
    print(*map(shown, lines), sep="\n", file=sys.stderr if error else sys.stdout, flush=True)


def as_json(answer: Any) -> None:
    text = json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a terminal without these characters, or a file's name that is no text
        text = json.dumps(answer, indent=2, allow_nan=False)
    print(text)


def warn(text: str) -> None:
    say(f"warning: {text}", error=True)


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A plain table. Cells are shown as they are: nothing in them is read as markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(shown(title)), title_justify="left", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*[Text("–" if cell is None else shown(cell)) for cell in row])
    Console().print(made)


def effects(answer: dict[str, Any], most: int = 30) -> None:
    """Accuracy over all tasks after the last stage, in the mode of reasoning of the report's answer."""
    last = [e["stage"] for e in answer["effects"]][-1:]
    here = [e for e in answer["effects"] if [e["stage"]] == last]
    modes = [e["cot"] for e in here]
    cot = "off" if "off" in modes else next(iter(modes), None)
    found = [e for e in here if (e["level"], e["metric"], e["cot"]) == ("overall", "acc", cot)]
    if not found:
        say("no effect on accuracy over all tasks to show; tables/effects.csv has all that was found")
        return
    rows = [
        [e["label"], f"{e['estimate']:+.1f}", f"{e['low']:+.1f} to {e['high']:+.1f}", f"{e['p_adjusted']:.3f}", e["verdict"]]
        for e in found[:most]
    ]  # fmt: skip
    mode = "" if cot == "off" else f"cot {cot}, "
    columns = [f"accuracy over all tasks, {mode}points", "estimate", "95 %", "adjusted p", "verdict"]
    table("", columns, rows)
    if len(found) > most:
        say(f"and {len(found) - most:,} more, in tables/effects.csv")


def model_scores(row: dict[str, Any]) -> list[str]:
    """A row of `codestage eval` as people read it."""

    def share(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f}"

    return [
        row["task"],
        row["cot"],
        share(row["accuracy"]),
        "–" if row["low"] is None else f"{share(row['low'])} to {share(row['high'])}",
        share(row["chance"]),
        "–" if row["bits_per_byte"] is None else f"{row['bits_per_byte']:.3f}",
        str(row["items"]),
    ]
