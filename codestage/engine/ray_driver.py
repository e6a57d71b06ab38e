"""The driver of a study on a Ray cluster: hands out steps, hears of them, has those of lost workers done again."""

import math
import os
import secrets
import socket
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from codestage.engine.graph import SegmentPayload
from codestage.engine.local import RETRIES
from codestage.engine.ray_arms import MARGIN, PATIENCE, forget, note
from codestage.engine.ray_hand import Hand, Member, places
from codestage.engine.ray_worker import Event, installed, probe
from codestage.engine.ready import Ready
from codestage.engine.store import Step, Store
from codestage.errors import RunError, UserError
from codestage.study.models import memory_bytes, parameters

NODE_LOSSES = 10
"""Times a step is tried again after its node was lost, which is seldom the step's doing."""
PROBE_SECONDS = 120.0
ROOM_SECONDS = 30.0
"""Seconds without a worker until that is said."""


class Driver:
    """Workers on a cluster and the steps that wait for them."""

    def __init__(
        self, ray: Any, root: Path, lease: float, head: float, stop: Any, pipe: Connection
    ) -> None:
        self.ray, self.store, self.stop, self.pipe = ray, Store(root), stop, pipe
        self.lease, self.head = lease, head
        self.hands: list[Hand] = []
        self.paused: list[tuple[float, Step]] = []
        """Steps that wait for a moment before they are tried again."""
        self.failures: dict[tuple[str, str], int] = {}
        self.refusals: dict[str, tuple[float, int]] = {}
        """Step hash -> since when the store has refused it, and how often."""
        self.leases_end = 0.0
        """When the leases of lost workers will have run out."""
        self.stillborn = 0
        self.lost = False
        """Whether the cluster's head is gone."""
        self.error: Exception | None = None
        self.nodes: list[dict[str, Any]] = []
        self.reached = time.monotonic()
        self.noted = self.counted = 0.0
        self.no_room_since: float | None = None

    def run(self, steps: Sequence[Step], workers: int, size: int = 1, shard: int | None = None) -> None:
        """Do the steps with up to `workers` workers, `size` of them at each step; of these `shard` hold one copy
        of the model (all, if not given).

        Raises:
            UserError, RunError: from a step; no room; the head was lost.
        """
        self.size, self.shard, self.most = size, shard, workers // size
        self.options = self._options(steps)
        self.steps, self.ready, self.left = steps, Ready(steps), len(steps)
        self.refuse_without_room(size, self.options)
        while self.left and not (self.stop.is_set() and not any(h.step for h in self.hands)):
            self._keep_note()
            if not self.stop.is_set():
                self._hire()
                self._hand_out()
            self._ask()
            self._listen()
        if self.error:
            raise self.error
        if not self.stop.is_set():  # the next steps may need hands of another size
            self._dismiss(list(self.hands))

    def close(self) -> None:
        """End the workers; those that are idle have nothing left to do. Without a head they end by themselves."""
        if self.lost:
            return
        busy = [h for h in self.hands if h.step]
        self._dismiss(list(self.hands))
        if not busy and time.monotonic() > self.leases_end:
            forget(self.store.root)

    def _dismiss(self, hands: Sequence[Hand]) -> None:
        reachable = self._reaches_head()
        for hand in hands:
            self.hands.remove(hand)
            hand.close(reachable=reachable)

    def bare(self) -> dict[str, float]:
        """What every worker takes of a node: a core, and a GPU where the cluster has any."""
        gpus = 1 if self.ray.cluster_resources().get("GPU", 0) >= 1 else 0
        return {"num_cpus": 1, "num_gpus": gpus}

    def _options(self, steps: Sequence[Step]) -> dict[str, float]:
        """What a worker takes of a node, with the memory of the largest training step."""
        need = [_memory(s.payload, self.size, self.shard) for s in steps if s.kind == "train"]
        return {**self.bare(), "memory": int(max(need, default=0))}

    def refuse_without_room(self, size: int, options: dict[str, float]) -> None:
        """UserError if the nodes that are there have no room for `size` workers."""
        found = places(self._nodes(), options)
        need = ", ".join(f"{key} {value:,}" for key, value in options.items() if value)
        if not found:
            raise UserError(f"no node of the Ray cluster has room for one worker ({need})")
        if found < size:
            raise UserError(
                f"the Ray cluster has room for {found} processes ({need} each), --processes {size} are more"
            )

    def _nodes(self) -> list[dict[str, Any]]:
        """Nodes that can work; those known last while the head does not answer, since Ray would wait for it."""
        if self._reaches_head():
            self.nodes = [
                n for n in self.ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= 1
            ]
        return self.nodes

    def _reaches_head(self) -> bool:
        host, _, port = self.ray.get_runtime_context().gcs_address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
        except OSError:
            return False
        self.reached = time.monotonic()
        return True

    def probe(self) -> None:
        """See that every node has the results folder and what is installed here.

        Raises:
            UserError: one has not, or does not answer.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        file = self.store.root / "work" / f".probe-{secrets.token_hex(8)}"
        text = secrets.token_hex(16)
        file.write_text(text)
        task = self.ray.remote(num_cpus=0, max_retries=0)(probe)
        nodes = {n["NodeID"]: n["NodeManagerAddress"] for n in self._nodes()}
        asked = {
            task.options(scheduling_strategy=On(node, soft=False)).remote(str(file), text, node): node
            for node in nodes
        }
        try:
            answers, silent = self.ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_SECONDS)
            if silent:
                raise UserError(f"node {nodes[asked[silent[0]]]} of the Ray cluster does not answer")
            for answer in answers:
                self._judge(nodes[asked[answer]], self._probed(answer, nodes[asked[answer]]), file)
        finally:
            for left in file.parent.glob(f"{file.name}*"):
                left.unlink(missing_ok=True)

    def _probed(self, answer: Any, address: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.ray.get(answer)
        except self.ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise UserError(
                f"node {address} of the Ray cluster cannot take part: {last}; it needs codestage installed "
                "as here"
            ) from None
        return found

    def _judge(self, address: str, found: dict[str, Any], file: Path) -> None:
        if found["problem"]:
            raise UserError(
                f"node {address} of the Ray cluster does not share {self.store.root} ({found['problem']}); "
                "name a folder that every node sees under the same path and may write to with --out"
            )
        here = installed()
        if differ := [f"{k} {v}, here {here[k]}" for k, v in found["installed"].items() if v != here[k]]:
            raise UserError(
                f"node {address} of the Ray cluster has {'; '.join(differ)}; results would depend on where a "
                "step is done: install the same on every node"
            )

    def _keep_note(self) -> None:
        """Note that there are workers; see that the head is there."""
        now = time.monotonic()
        if now - self.noted > self.lease / 6:
            self.noted = now
            note(self.store.root, self.lease)
            self._reaches_head()
        self.lost = now - self.reached > self.head
        if self.lost:
            raise RunError(
                f"the head of the Ray cluster has not answered for {self.head:.0f} s; when it is there "
                "again, run again: it goes on from the checkpoints"
            )

    def _hire(self) -> None:
        """Have as many workers as there is room and need for; nodes may come and go."""
        now = time.monotonic()
        if now - self.counted < min(5.0, self.lease / 6) and self.hands:
            return
        self.counted = now
        if not self._reaches_head():
            return
        room = places(self._nodes(), self.options) // self.size
        made_of = (str(self.store.root), self.lease, _environment())
        for _ in range(min(self.most, self.left, room) - len(self.hands)):
            self.hands.append(Hand(self.ray, self.size, self.shard, self.options, *made_of))
        self._warn_without_room(waits=not any(hand.greeted for hand in self.hands))

    def _warn_without_room(self, *, waits: bool) -> None:
        """Say once that nothing goes on because nodes have left, or others fill them: it will when there is room."""
        now = time.monotonic()
        if not waits:
            self.no_room_since = None
        elif self.no_room_since is None:
            self.no_room_since = now
        elif self.no_room_since + ROOM_SECONDS < now:
            self.no_room_since = math.inf
            what = f"{self.size} processes" if self.size > 1 else "a worker"
            text = f"the Ray cluster has no room for {what} now; waiting for it"
            self._tell("warning", self.steps[0], {"text": text})

    def _hand_out(self) -> None:
        """Give steps that are ready to workers that are idle."""
        now = time.monotonic()
        for moment, step in [p for p in self.paused if p[0] <= now]:
            self.paused.remove((moment, step))
            if self.store.has(step):  # its lost worker had come to the end
                self._finish(step, {"seconds": self.store.record(step)["seconds"]})
            else:
                self.ready.put(step)
        for hand in self.hands:
            if hand.idle and (next_ := self.ready.take()):
                hand.begin(next_)
                self._tell("started", next_, {})

    def _ask(self) -> None:
        """Ask the workers how they are getting on; give up those that have not answered for long."""
        now = time.monotonic()
        for hand in self.hands:
            if hand.calls():
                hand.give_up_silent(self.lease + MARGIN)
            elif hand.step or now - hand.asked > self.lease / 6:
                hand.ask(stop=self.stop.is_set())

    def _listen(self) -> None:
        """Take in what the workers answer."""
        calls = {call: hand for hand in self.hands for call in hand.calls()}
        if calls:
            self.ray.wait(list(calls), timeout=0.5)
            answered, _ = self.ray.wait(list(calls), num_returns=len(calls), timeout=0)
            for call in answered:
                for event, body in calls[call].answer(call):
                    step = calls[call].step
                    assert step
                    self._tell(event, step, body)
        else:
            time.sleep(0.1)
        for hand in list(self.hands):
            if hand.step and (word := hand.last_word()):
                self._hear(hand, hand.step, word)
                hand.step = None
            if hand.spent and hand.step is None:
                if not hand.greeted:
                    self._count_stillborn(hand)
                self._dismiss([hand])

    def _hear(self, hand: Hand, step: Step, word: Event) -> None:
        """Take in the last word on a step."""
        event, body = word
        if event == "done":
            self._finish(step, body)
        elif event == "refused":
            self._refuse(step, body)
        elif event == "error":
            kind = type(body)
            self._fail(kind(f"{body} (on node {hand.address})") if kind is UserError else body)
        elif event == "died":
            why = (
                f"its worker died (exit {body['exit']} on {hand.address}; -9 is often a lack of memory)"
            )
            self._again(step, why, "worker", RETRIES)
        elif event == "broken":
            last = str(body).strip().splitlines()[-1]
            why = f"its processes on {hand.address} lost each other, or one failed: {last}"
            self._again(step, why, "gang", RETRIES, detail=f"\n{body}")
        elif event == "lapsed":
            self.paused.append((0.0, step))
            self._tell("retried", step, {"why": f"{hand.address} was cut off from here"})
        elif event == "lost":
            self._lose(step, hand, body)

    def _finish(self, step: Step, body: dict[str, Any]) -> None:
        self.left -= 1
        self.refusals.pop(step.hash, None)
        self.ready.done(step)
        self._tell("done", step, body)

    def _fail(self, error: Exception) -> None:
        self.error = self.error or error
        self.stop.set()

    def _refuse(self, step: Step, error: RunError) -> None:
        """The store could not be read or written: try again after a while, longer from time to time."""
        now = time.monotonic()
        since, times = self.refusals.get(step.hash, (now, 0))
        pause = min(30.0, 2.0 * 2**times)
        if now + pause - since > PATIENCE:
            self._fail(error)
            return
        self.refusals[step.hash] = (since, times + 1)
        self.paused.append((now + pause, step))
        self._tell("retried", step, {"why": str(error), "in": pause})

    def _lose(self, step: Step, hand: Hand, member: Member) -> None:
        """A worker is dead or out of reach: its step is tried elsewhere when its lease must have run out."""
        end = hand.asked + self.lease + MARGIN
        self.leases_end = max(self.leases_end, end)
        there = any(n["NodeID"] == member.node for n in self._nodes())
        kind, most = ("worker", RETRIES) if there else ("node", NODE_LOSSES)
        what = "a worker on it" if there else "the node"
        self._again(step, f"{member.address} was lost ({what}: {member.gone})", kind, most, end)

    def _count_stillborn(self, hand: Hand) -> None:
        why = next(m.gone for m in hand.members if m.gone)
        self.stillborn += 1
        if self.stillborn > NODE_LOSSES:
            self._fail(RunError(f"workers cannot be started on the Ray cluster: {why}"))

    def _again(
        self, step: Step, why: str, kind: str, most: int, moment: float = 0.0, detail: str = ""
    ) -> None:
        """Try a step again from its checkpoint, unless it was tried too often."""
        count = self.failures[step.hash, kind] = self.failures.get((step.hash, kind), 0) + 1
        if count > most:
            self._fail(
                RunError(
                    f"{step.label}, {count} times now: {why}; see that the nodes have enough memory and reach one "
                    f"another, then run again: finished steps are kept{detail}"
                )
            )
            return
        self.paused.append((moment, step))
        self._tell("retried", step, {"why": why, "in": max(0.0, moment - time.monotonic())})

    def _tell(self, event: str, step: Step, body: dict[str, Any]) -> None:
        self.pipe.send((event, step.hash, body))


def _environment() -> dict[str, str]:
    """What workers are told of this process's environment: where compiled models are kept."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    return {name: os.environ[name]} if name in os.environ else {}


def _memory(payload: SegmentPayload, size: int, shard: int | None) -> float:
    """Rough bytes that a process needs, of `size` at a step, `shard` of which hold one copy of the model.

    What belongs to the weights lies in shards; the first process holds weights and moments (12 bytes a
    parameter) whole when it writes a checkpoint, which is shared out here.
    """
    stage, adapter = payload.stage, payload.stage.adapter is not None
    at_once = min(stage.micro_batch_tokens, stage.batch_tokens // size)
    alone = memory_bytes(payload.shape, at_once, stage.seq_len, adapter=adapter)
    if size == 1:
        return alone
    held = (6.0 if adapter else 18.0) * parameters(payload.shape)
    return alone - held * (1 - 1 / (shard or size)) + held * 2 / 3 / size
