"""Which of the many effects a section shows: one metric, one stage, one way of asking.

The main view is what rule 8 asks for: after the last stage, without a chain of thought, in the
metric of the task. The continuous view is the likelihood score beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from codestage.report.records import Effect, Mean, Records

SPECIAL = ("interaction", "simple", "schedule", "control", "budget", "cot", "transfer")
CONTINUOUS = ("bpb", "prob")


@dataclass(frozen=True)
class View:
    """The records seen through one metric."""

    records: Records
    stage: str
    cot: str
    metric: str
    """Metric of the overall and domain levels; a task is seen in its own metric."""
    continuous: bool = False

    def shows(self, row: Effect | Mean) -> bool:
        if row.stage != self.stage or row.cot != self.cot:
            return False
        if self.continuous or row.level != "task":
            return row.metric == self.metric
        return row.metric == self.task_metric(row.name)

    def task_metric(self, name: str) -> str:
        for task in self.records.tasks:
            if task["name"] == name:
                return str(task["metric"])
        return self.metric

    def effects(self, family: str, level: str | None = None) -> list[Effect]:
        """Effects of one family in file order."""
        return [
            e
            for e in self.records.effects
            if e.family == family and level in (None, e.level) and self.shows(e)
        ]

    def main(self, family: str) -> str | None:
        """The contrast that answers for the family: the first one asked over all tasks."""
        found = self.effects(family, "overall") or self.effects(family)
        return found[0].contrast if found else None

    def effect(self, contrast: str, level: str, name: str | None = None) -> Effect | None:
        for e in self.records.effects:
            if e.contrast == contrast and e.level == level and self.shows(e) and name in (None, e.name):
                return e
        return None

    def mean(self, arm: str, level: str, name: str | None = None) -> Mean | None:
        for m in self.records.means:
            if m.arm == arm and m.level == level and self.shows(m) and name in (None, m.name):
                return m
        return None

    @property
    def stage_families(self) -> list[str]:
        """Families that ask what code did at one stage, in file order."""
        seen = dict.fromkeys(e.family for e in self.records.effects if self.shows(e))
        return [family for family in seen if family not in SPECIAL]

    @property
    def families(self) -> list[str]:
        """The stages' families and their interaction, where there is one."""
        more = ["interaction"] if self.main("interaction") else []
        return self.stage_families + more

    @property
    def unit(self) -> str:
        for e in self.records.effects:
            if self.shows(e):
                return e.unit
        return "points"

    def able(self, task: str) -> bool | None:
        """Could the task show anything: was some arm above chance? None: nobody knows."""
        known = [
            m.above_chance
            for m in self.records.means
            if m.level == "task" and m.name == task and self.shows(m) and m.above_chance is not None
        ]
        return any(known) if known else None


def main_view(records: Records) -> View | None:
    """None where there is no effect and no score at all."""
    rows: Sequence[Effect | Mean] = records.effects or records.means
    if not rows:
        return None
    seen = {row.stage for row in rows}
    stage = next((s for s in reversed(records.stages) if s in seen), rows[-1].stage)
    modes = list(dict.fromkeys(row.cot for row in rows if row.stage == stage))
    cot = "off" if "off" in modes else modes[0]
    here = [row for row in rows if row.stage == stage and row.cot == cot]
    wide = [row for row in here if row.level == "overall"] or here
    metrics = list(dict.fromkeys(row.metric for row in wide))
    metric = next((m for m in metrics if m not in CONTINUOUS), metrics[0])
    return View(records, stage, cot, metric)


def continuous_view(view: View) -> View | None:
    """The same in the likelihood score, or None where no task has one over all tasks."""
    rows = [
        e.metric
        for e in view.records.effects
        if e.level == "overall" and (e.stage, e.cot) == (view.stage, view.cot)
    ]
    for metric in CONTINUOUS:
        if metric in rows and metric != view.metric:
            return View(view.records, view.stage, view.cot, metric, continuous=True)
    return None
