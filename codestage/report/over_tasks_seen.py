"""The section on scores over tasks: whether their mean, their spread or their quartiles differ, and go with the dose."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from codestage.report.answer import place
from codestage.report.document import Cell, Section, Table
from codestage.report.doses_seen import share
from codestage.report.text import capital, listed, metric_name, p_value, plural, signed
from codestage.report.view import View

Entry = Mapping[str, Any]
FREE = ("variance", "lower quartile", "upper quartile")
"""What sentences tell: for the mean the effects answer, which know how trainings differ, and the fitted curve of doses."""
PAIRS = (
    "A mean hides whether some tasks gain what others lose. The two sides of each question are swapped task by task, all seeds "
    "of a task together; p is the share of swaps that part the sides as far, adjusted by Holm over the questions of a "
    "family and the four statistics. The variance rises where tasks with high scores gain and those with low ones lose. A quartile "
    "rests on the two or so tasks beside it: with few tasks far apart it can hardly be shown to move. The swaps ask of the "
    "runs that were made: a lucky training lifts many tasks at once, so the p of the mean is too small where trainings differ, and the effects "
    "above answer for it."
)
DOSES = (
    "Along the doses every run has its own mean, variance and quartiles over tasks. Doses are dealt out anew within each seed, "
    "which asks of other trainings on these tasks. All p of a metric are adjusted together."
)


def over_tasks_section(view: View, given: Mapping[str, Sequence[Entry]]) -> Section | None:
    """None where no two sides have enough tasks in common, or the records are of an earlier analysis."""
    pairs = [e for e in given.get("pairs", ()) if _shows(view, e)]
    doses = [e for e in given.get("doses", ()) if _shows(view, e)]
    if not (pairs or doses):
        return None
    alpha = view.records.alpha
    points = [*_found_doses(doses, alpha), *_found_pairs(pairs, alpha)]
    answer = [] if points else ["No difference in variance or quartiles over tasks is shown."]
    tables = [_dose_table(i, e) for i, e in enumerate(doses)]
    if pairs:
        tables.append(_pair_table(view, pairs))
    said = [*answer, *([PAIRS, *_reach(pairs, alpha)] if pairs else []), *([DOSES] if doses else [])]
    return Section(
        "over-tasks", "Mean, spread and quartiles over tasks", said, points=points, tables=tables
    )


def _shows(view: View, entry: Entry) -> bool:
    return (entry["stage"], entry["cot"], entry["metric"]) == (view.stage, view.cot, view.metric)


def _shown(entries: Sequence[Entry], alpha: float) -> Iterable[tuple[Entry, Entry]]:
    """What is shown of each entry: itself, and the statistic."""
    for entry in entries:
        for statistic in entry["statistics"]:
            if statistic["statistic"] in FREE and statistic["p_adjusted"] < alpha:
                yield entry, statistic


def _found_pairs(pairs: Sequence[Entry], alpha: float) -> list[str]:
    """A sentence for each difference that is shown, with the seeds that have it too."""
    return [
        f"{capital(s['statistic'])} over {plural(e['tasks'], 'task')}, {e['label']}: {_number(s['minus'], e)} to "
        f"{_number(s['plus'], e)}, adjusted p {_equals(s['p_adjusted'])}; in the same direction on {s['seeds_agree']} of "
        f"{plural(e['seeds'], 'seed')}."
        for e, s in _shown(pairs, alpha)
    ]


def _found_doses(doses: Sequence[Entry], alpha: float) -> list[str]:
    return [
        f"{capital(s['statistic'])} over {plural(e['tasks'], 'task')}, code {place(e['varied'])}: "
        f"{'rises' if s['slope'] > 0 else 'falls'} with the dose, {signed(s['slope'], e['unit'])} for 10 % more, adjusted "
        f"p {_equals(s['p_adjusted'])}."
        for e, s in _shown(doses, alpha)
    ]


def _reach(pairs: Sequence[Entry], alpha: float) -> Iterable[str]:
    """What so few tasks cannot show: the smallest p, and that times the tests of the family."""
    smallest = max(float(e["smallest_p"]) for e in pairs)
    sizes: dict[str, int] = {}
    for e in pairs:
        sizes[e["family"]] = sizes.get(e["family"], 0) + len(e["statistics"])
    beyond = [e["family"] for e in pairs if sizes[e["family"]] * e["smallest_p"] >= alpha]
    fewest, most = (of(int(e["tasks"]) for e in pairs) for of in (min, max))
    few = f"as few as {fewest} tasks" if fewest < most else f"{fewest} tasks"
    said = f"With {few} the smallest p is {p_value(smallest)}."
    if beyond:
        families = listed([f"“{f}”" for f in dict.fromkeys(beyond)])
        said += f" Once adjusted none of the family {families} can come below {alpha:g}: these differences are told, not judged."
    yield said


def _equals(p: float) -> str:
    shown = p_value(p)
    return shown if "<" in shown else f"= {shown}"


def _number(value: float, entry: Entry) -> str:
    """A side's own variance or quartile; bits have their sign turned."""
    return signed(value, entry["unit"]).removeprefix("+")


def _pair_table(view: View, pairs: Sequence[Entry]) -> Table:
    names = [s["statistic"] for s in pairs[0]["statistics"]]
    head = ["question", "tasks", *(column for n in names for column in (n, f"adj. p of {n}"))]
    rows: list[list[str]] = []
    data: list[list[Cell]] = []
    for e in pairs:
        told = e["statistics"]
        shown = [x for s in told for x in (signed(s["difference"], e["unit"]), p_value(s["p_adjusted"]))]
        rows.append([e["label"], str(e["tasks"]), *shown])
        data.append(
            [e["label"], e["tasks"], *(x for s in told for x in (s["difference"], s["p_adjusted"]))]
        )
    title = f"Differences over tasks in {metric_name(view.metric)}, {_unit(pairs[0])}"
    return Table("over-tasks", title, head, rows, data)


def _unit(entry: Entry) -> str:
    return (
        "points (variance: points squared)"
        if entry["unit"] == "points"
        else "bits (variance: bits squared)"
    )


def _dose_table(number: int, entry: Entry) -> Table:
    heads = [share(d) for d in entry["doses"]]
    rows: list[list[str]] = []
    data: list[list[Cell]] = []
    for s in entry["statistics"]:
        own = [_number(v, entry) for v in s["means"]]
        ps = [s["p"], s["p_adjusted"]]
        rows.append([s["statistic"], *own, signed(s["slope"], entry["unit"]), *map(p_value, ps)])
        data.append([s["statistic"], *s["means"], s["slope"], *ps])
    head = ["over tasks", *heads, "for 10 % more", "p", "adj. p"]
    title = f"Code {place(entry['varied'])}, by dose: above chance over {plural(entry['tasks'], 'task')}, {_unit(entry)}"
    return Table(f"over-tasks-by-dose{f'-{number}' if number else ''}", title, head, rows, data)
