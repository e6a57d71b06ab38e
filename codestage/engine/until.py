"""Runs that go on until their questions are settled: more seeds where a contrast is still open.

Rounds: the study's own seeds first; then the next seed for every arm that an open contrast rests on, and for
no other. What to do next follows from the records alone, so that a run that was killed asks itself the
same questions again, finds the answers in the store, and goes on where it was.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codestage.analyse.records import read_records
from codestage.analyse.scales import ALPHA, MARGINS
from codestage.analyse.sequential import deciding, sequential
from codestage.engine.graph import StageWork
from codestage.engine.store import Step, write_atomically
from codestage.errors import UserError
from codestage.study.expand import count_text
from codestage.study.load import line_of
from codestage.study.schema import Study
from codestage.study.values import parse_count

MAX_SEEDS = 12
ADDED = "added-seeds.json"
"""File of a study's folder."""
Works = dict[str, list[StageWork]]
Evaluations = dict[str, Step]
More = Mapping[str, Sequence[int]]
"""Arm -> seeds beyond the study's own."""


@dataclass(frozen=True)
class Until:
    """When to stop adding seeds, beside having settled everything."""

    max_seeds: int = MAX_SEEDS
    """Seeds of an arm, the study's own among them."""
    budget: int | None = None
    """Tokens trained in total, shared ones counted once; None: no limit."""


def asked(until: str | None, max_seeds: int | None, budget: str | None) -> Until | None:
    """What the options of `codestage run` ask for; None: a plain run.

    Raises:
        UserError: an option that says nothing without --until, or a count that is none.
    """
    if until is None:
        if max_seeds is not None or budget is not None:
            told = "--max-seeds" if max_seeds is not None else "--budget"
            raise UserError(f"{told} says when to stop adding seeds; give --until resolved as well")
        return None
    try:
        return Until(
            MAX_SEEDS if max_seeds is None else max_seeds, parse_count(budget) if budget else None
        )
    except ValueError as error:
        raise UserError(f"--budget {budget!r}: {error}") from None


def check(until: Until, study: Study, path: Path, code_options: Mapping[str, Sequence[str]]) -> None:
    """What can be known before anything is trained.

    Raises:
        UserError: too few seeds to begin with, a limit below them, or nothing to settle.
    """
    place = f"{path}:{line_of(path, ('seeds',))}"
    if len(study.seeds) < 2:
        raise UserError(
            f"{place}: seeds: --until resolved compares seeds with each other, so it needs 2 to begin with; "
            "write seeds: 2 or more"
        )
    if until.max_seeds < len(study.seeds):
        raise UserError(
            f"{place}: the study has {len(study.seeds)} seeds, --max-seeds {until.max_seeds} allows fewer; "
            f"give {len(study.seeds)} or more, or write fewer seeds"
        )
    if "off" not in study.evaluate.cot:
        place = f"{path}:{line_of(path, ('evaluate', 'cot'))}"
        raise UserError(
            f"{place}: --until resolved decides by accuracy without reasoning; add off to cot"
        )
    if not any(code_options.values()):
        place = f"{path}:{line_of(path, ('stages',))}"
        raise UserError(
            f"{place}: no stage has an option with code beside its first one, so there is no contrast to "
            "settle; run without --until"
        )


def tokens(works: Works) -> int:
    """Tokens trained for these runs, shared ones once."""
    segments = {s.hash: s for stages in works.values() for w in stages for s in w.segments}
    return round(sum(s.cost for s in segments.values()))


def settle(
    until: Until,
    study: Study,
    folder: Path,
    lay_out: Callable[[More], Works],
    finish: Callable[[Works], Evaluations],
) -> tuple[Works, Evaluations]:
    """Rounds of seeds until no deciding contrast is open, or a limit is reached.

    `lay_out` gives the runs of the study with more seeds; `finish` trains and evaluates them and writes the
    records of all. What was decided stands under `until` in study.json.

    Raises:
        UserError: the study's own seeds take more tokens than the budget.
    """
    more: dict[str, list[int]] = {}
    rounds: list[dict[str, Any]] = []
    works = lay_out(more)
    if until.budget is not None and tokens(works) > until.budget:
        raise UserError(
            f"--budget {count_text(until.budget)}: the study's own {len(study.seeds)} seeds take {tokens(works):,} "
            "tokens; give at least that"
        )
    while True:
        evaluations = finish(works)
        open_, arms = _open(folder)
        seed = max([*study.seeds, *(s for extra in more.values() for s in extra)]) + 1
        used = len(study.seeds) + len(rounds)
        rounds.append({"tokens": tokens(works), "open": open_, "seed": None, "arms": []})
        stopped = "resolved" if not open_ else "max-seeds" if used >= until.max_seeds else None
        if stopped is None:
            larger = {**more, **{arm: [*more.get(arm, []), seed] for arm in arms}}
            planned = lay_out(larger)
            if until.budget is not None and tokens(planned) > until.budget:
                stopped = "budget"
            else:
                rounds[-1] |= {"seed": seed, "arms": arms}
                more, works = larger, planned
                _remember(folder, more)
        _write(folder, until, rounds, stopped)
        if stopped is not None:
            return works, evaluations


def added(folder: Path) -> dict[str, list[int]]:
    """Arm -> seeds that any run until resolved has added in a study's folder, or began to.

    A run that was killed goes through its rounds again; what later rounds had trained is wanted all the while.
    """
    try:
        told = json.loads((folder / ADDED).read_text())
        return {str(arm): [int(seed) for seed in seeds] for arm, seeds in told.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _remember(folder: Path, more: More) -> None:
    known = added(folder)
    told = {arm: sorted({*known.get(arm, ()), *more.get(arm, ())}) for arm in {**known, **more}}
    write_atomically(folder / ADDED, json.dumps(told, indent=1))


def forget(folder: Path) -> None:
    """A plain run has ended: the study is as its file says, without the seeds that were added."""
    (folder / ADDED).unlink(missing_ok=True)


def _open(folder: Path) -> tuple[list[str], list[str]]:
    """Contrasts that are open, and the arms that they rest on, in the study's order.

    One without scores is not open: no seed would settle it.
    """
    records = read_records(folder)
    answer = sequential(records, alpha=ALPHA, margin=MARGINS["acc"])
    open_ = [c["contrast"] for c in answer["contrasts"] if c["state"] == "open" and c["seeds"]]
    weights = [c.weights for c in deciding(records.study) if c.name in open_]
    return open_, [arm for arm in records.arms if any(w.get(arm, 0.0) != 0 for w in weights)]


def _write(folder: Path, until: Until, rounds: list[dict[str, Any]], stopped: str | None) -> None:
    """Put what was decided beside the rest that study.json says."""
    path = folder / "results" / "study.json"
    told = json.loads(path.read_text())
    told["until"] = {
        "alpha": ALPHA,
        "margin": MARGINS["acc"],
        "max_seeds": until.max_seeds,
        "budget": until.budget,
        "rounds": rounds,
        "stopped": stopped,
    }
    write_atomically(path, json.dumps(told, indent=1))
