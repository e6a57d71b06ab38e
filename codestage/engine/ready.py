"""Which step is done next: those whose inputs are there, the one with most work behind it first."""

import heapq
from collections.abc import Sequence

from codestage.engine.store import Step


class Ready:
    """Steps that wait. Every operation costs a few comparisons, however many steps there are."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._users: dict[str, list[Step]] = {}
        waiting = {step.hash for step in steps}
        self._missing: dict[str, int] = {}
        for step in steps:
            inputs = waiting.intersection(step.inputs.values())
            self._missing[step.hash] = len(inputs)
            for hash_ in inputs:
                self._users.setdefault(hash_, []).append(step)
        self._ranks = self._ranked(steps)
        self._heap: list[tuple[float, int, Step]] = []
        self._put = 0
        for step in steps:
            if not self._missing[step.hash]:
                self.put(step)

    def _ranked(self, steps: Sequence[Step]) -> dict[str, float]:
        """Step hash -> work on the longest chain from it on, itself included."""
        ranks: dict[str, float] = {}
        stack = list(steps)
        while stack:
            step = stack[-1]
            users = self._users.get(step.hash, [])
            if missing := [u for u in users if u.hash not in ranks]:
                stack += missing
                continue
            stack.pop()
            ranks[step.hash] = step.cost + max((ranks[u.hash] for u in users), default=0.0)
        return ranks

    def put(self, step: Step) -> None:
        """A step can be done: its inputs are there, or it is to be tried again."""
        self._put += 1
        heapq.heappush(self._heap, (-self._ranks[step.hash], self._put, step))

    def take(self) -> Step | None:
        """The next step to do; None where all that are left wait for others."""
        return heapq.heappop(self._heap)[2] if self._heap else None

    def done(self, step: Step) -> None:
        """A step is in the store: those that waited for it alone can be done."""
        for user in self._users.get(step.hash, []):
            self._missing[user.hash] -= 1
            if not self._missing[user.hash]:
                self.put(user)
