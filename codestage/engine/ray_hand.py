"""A worker on a Ray cluster, or a gang of them that does one step together, as the driver sees it."""

import contextlib
import time
from dataclasses import dataclass
from typing import Any

from codestage.engine.ray_worker import Event, Keeper, Place
from codestage.engine.store import Step
from codestage.errors import UserError

GRACE = 5.0
"""Seconds that the processes of a gang have for a last word once one of them has failed."""
ORDER = ("refused", "error", "died", "lapsed", "broken", "ended", "stopped", "done")
"""Last words, the one that explains the others first."""
NAMES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
"""What a worker takes of a node, and what Ray calls that there."""


@dataclass
class Member:
    """One worker: its keeper, the call of it that is under way, and its last word on the step."""

    actor: Any
    call: Any = None
    """None: it can be called."""
    node: str = ""
    address: str = ""
    port: int = 0
    """One that was free there, for a gang to meet at."""
    word: Event | None = None
    gone: str = ""
    """Why it is not to be heard any more."""


class Hand:
    """`size` workers that do the same step; all are called at the same time, again when all have answered.

    A gang of several lives until one of its members fails: then the others are ended, which they confirm.
    """

    def __init__(
        self, ray: Any, size: int, shard: int | None, options: dict[str, float], *made_of: Any
    ) -> None:
        """Ask the cluster for room and start keepers, made of `made_of`, there."""
        self.ray, self.size, self.shard = ray, size, shard
        self.room: Any = None
        where: list[Any] = [None]
        if size > 1:
            from ray.util import placement_group
            from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy as In

            bundle = {NAMES[key]: value for key, value in options.items() if value}
            self.room = placement_group([bundle] * size, strategy="PACK")  # all of them or none
            where = [In(self.room, placement_group_bundle_index=i) for i in range(size)]
        actor = ray.remote(max_restarts=0, max_task_retries=0, **options)(Keeper)
        self.members = [
            Member(actor.options(scheduling_strategy=place).remote(*made_of)) for place in where
        ]
        for member in self.members:
            member.call = member.actor.hello.remote()
        self.asked = time.monotonic()
        """When they were last called: their leases end at the latest a lease after that."""
        self.step: Step | None = None
        self.greeted = False

    @property
    def idle(self) -> bool:
        """Whether a step can be begun."""
        return self.greeted and self.step is None and not self.calls() and not self.spent

    @property
    def spent(self) -> bool:
        """Whether this hand is of no more use."""
        failed = any(m.word and m.word[0] not in ("done", "stopped") for m in self.members)
        return any(m.gone for m in self.members) or (failed and self.size > 1)

    @property
    def address(self) -> str:
        """The nodes, for people."""
        return " and ".join(sorted({m.address for m in self.members}))

    def calls(self) -> list[Any]:
        return [m.call for m in self.members if m.call is not None]

    def begin(self, step: Step) -> None:
        self.step = step
        for member in self.members:
            member.word = None
        self.ask(step=step)

    def ask(self, *, step: Step | None = None, stop: bool = False) -> None:
        """Call all that are there: begin a step, or tell how it is going on, or come to an end after a failure."""
        self.asked = time.monotonic()
        first = self.members[0]
        for rank, member in enumerate(self.members):
            if member.gone:
                continue
            if self.spent and member.word is None:
                member.call = member.actor.end.remote(GRACE)
                continue
            place = None
            if step is not None and self.size > 1:
                meeting = first.address, first.port
                place = Place(rank, self.size, self.shard, *meeting, member.address)
            member.call = member.actor.look.remote(step, stop, place)

    def answer(self, call: Any) -> list[Event]:
        """Take the answer of one call; what the first worker tells of a step that goes on."""
        rank = next(i for i, m in enumerate(self.members) if m.call is call)
        member, told = self.members[rank], []
        member.call = None
        try:
            said = self.ray.get(call)
        except self.ray.exceptions.RayError as error:
            member.gone = str(error).strip().splitlines()[0]
            return []
        if not member.node:
            member.node, member.address, member.port = said
            if all(m.node for m in self.members):
                self.greeted = True
                self.members.sort(key=lambda m: m.node)  # neighbours in rank share a node
            return []
        for event in said:
            if event[0] != "progress":
                member.word = event
            elif rank == 0:
                told.append(event)
        return told

    def give_up_silent(self, seconds: float) -> None:
        """Those whose answer has been missing for so long are out of reach."""
        if self.greeted and time.monotonic() - self.asked > seconds:
            for member in self.members:
                if member.call is not None:
                    member.call, member.gone = None, "it does not answer"

    def last_word(self) -> Event | None:
        """What became of the step, once nobody has anything more to say: of several words the one that explains
        the others; `lost`, with the member, if one can only be waited for."""
        if any(m.call is not None or not (m.word or m.gone) for m in self.members):
            return None
        for member in self.members:
            if member.gone:
                return ("lost", member)
        words = [m.word for m in self.members if m.word]
        return min(words, key=lambda w: -1 if isinstance(w[1], UserError) else ORDER.index(w[0]))

    def close(self, *, reachable: bool) -> None:
        """End the workers. The head is asked only where it is `reachable`: Ray would wait for it."""
        for member in self.members:
            with contextlib.suppress(Exception):
                self.ray.kill(member.actor)
        if self.room is not None and reachable:
            from ray.util import remove_placement_group

            with contextlib.suppress(Exception):
                remove_placement_group(self.room)


def places(nodes: list[dict[str, Any]], options: dict[str, float]) -> int:
    """Workers that `nodes` have room for."""
    wants = {NAMES[key]: value for key, value in options.items() if value}
    return sum(
        min(int(node["Resources"].get(name, 0) // value) for name, value in wants.items())
        for node in nodes
    )
