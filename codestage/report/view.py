"""Which of the many effects a section shows: one metric, one stage, one way of asking.

The main view is what rule 8 asks for: after the last stage, without a chain of thought, in the
metric of the task. The continuous view is the likelihood score beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from codestage.report.records import Effect, Mean, Records
from codestage.study.schema import KINDS_OF_EFFECT

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

    @cached_property
    def _metrics(self) -> Mapping[str, str]:
        return {task["name"]: str(task["metric"]) for task in self.records.tasks}

    def task_metric(self, name: str) -> str:
        return self._metrics.get(name, self.metric)

    @cached_property
    def _families(self) -> Mapping[str, list[Effect]]:
        """Family -> the effects that are shown, in file order."""
        found: dict[str, list[Effect]] = {}
        for e in self.records.effects:
            if self.shows(e):
                found.setdefault(e.family, []).append(e)
        return found

    @cached_property
    def _effects(self) -> Mapping[tuple[str, str], list[Effect]]:
        found: dict[tuple[str, str], list[Effect]] = {}
        for effects in self._families.values():
            for e in effects:
                found.setdefault((e.contrast, e.level), []).append(e)
        return found

    @cached_property
    def _means(self) -> Mapping[tuple[str, str], list[Mean]]:
        found: dict[tuple[str, str], list[Mean]] = {}
        for m in self.records.means:
            if self.shows(m):
                found.setdefault((m.arm, m.level), []).append(m)
        return found

    def effects(self, family: str, level: str | None = None) -> list[Effect]:
        """Effects of one family in file order."""
        return [e for e in self._families.get(family, ()) if level in (None, e.level)]

    def main(self, family: str) -> str | None:
        """The contrast that answers for the family: the first one asked over all tasks."""
        found = self.effects(family, "overall") or self.effects(family)
        return found[0].contrast if found else None

    def effect(self, contrast: str, level: str, name: str | None = None) -> Effect | None:
        found = self._effects.get((contrast, level), ())
        return next((e for e in found if name in (None, e.name)), None)

    def mean(self, arm: str, level: str, name: str | None = None) -> Mean | None:
        found = self._means.get((arm, level), ())
        return next((m for m in found if name in (None, m.name)), None)

    @property
    def stage_families(self) -> list[str]:
        """Families that ask what code did at one stage, in file order."""
        return [family for family in self._families if family not in KINDS_OF_EFFECT]

    @property
    def families(self) -> list[str]:
        """The stages' families and their interaction, where there is one."""
        more = ["interaction"] if self.main("interaction") else []
        return self.stage_families + more

    @property
    def unit(self) -> str:
        return next((effects[0].unit for effects in self._families.values()), "points")

    def able(self, task: str) -> bool | None:
        """Could the task show anything: was some arm above chance? None: nobody knows."""
        return self._able.get(task)

    @cached_property
    def _able(self) -> Mapping[str, bool]:
        found: dict[str, bool] = {}
        for (_, level), means in self._means.items():
            for m in means if level == "task" else ():
                if m.above_chance is not None:
                    found[m.name] = found.get(m.name, False) or m.above_chance
        return found


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
