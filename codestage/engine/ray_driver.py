"""The driver of a study on a Ray cluster: hands out steps, hears of them, has those of lost workers done again."""

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from codestage.engine.local import RETRIES
from codestage.engine.ray_arms import MARGIN, PATIENCE, forget, note
from codestage.engine.ray_worker import Event, Keeper, installed, probe
from codestage.engine.ready import Ready
from codestage.engine.store import Step, Store
from codestage.errors import RunError, UserError
from codestage.study.models import memory_bytes

NODE_LOSSES = 10
"""Times a step is tried again after its node was lost, which is seldom the step's doing."""
PROBE_SECONDS = 120.0


@dataclass
class _Hand:
    """A worker on the cluster, as the driver sees it."""

    actor: Any
    answer: Any
    """The call under way; None: it can be called."""
    asked: float
    """When it was last called: its lease ends at the latest a lease after that."""
    node: str = ""
    address: str = ""
    step: Step | None = None


class Driver:
    """Workers on a cluster and the steps that wait for them."""

    def __init__(
        self, ray: Any, root: Path, lease: float, head: float, stop: Any, pipe: Connection
    ) -> None:
        self.ray, self.store, self.stop, self.pipe = ray, Store(root), stop, pipe
        self.lease, self.head = lease, head
        self.hands: list[_Hand] = []
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

    def run(self, steps: Sequence[Step], workers: int) -> None:
        """Do the steps.

        Raises:
            UserError, RunError: from a step; a node that cannot do its part; the head was lost.
        """
        self.options = self._options(steps)
        self._probe()
        self.ready, self.left, self.workers = Ready(steps), len(steps), workers
        if not self._places():
            need = ", ".join(f"{key} {value:,}" for key, value in self.options.items() if value)
            raise UserError(f"no node of the Ray cluster has room for one worker ({need})")
        while self.left and not (self.stop.is_set() and not any(h.step for h in self.hands)):
            self._keep_note()
            if not self.stop.is_set():
                self._hire()
                self._hand_out()
            self._ask()
            self._listen()
        if self.error:
            raise self.error

    def close(self) -> None:
        """End the workers; those that are idle have nothing left to do. Without a head they end by themselves."""
        if self.lost:
            return
        busy = [h for h in self.hands if h.step]
        for hand in self.hands:
            with contextlib.suppress(Exception):
                self.ray.kill(hand.actor)
        if not busy and time.monotonic() > self.leases_end:
            forget(self.store.root)

    def _options(self, steps: Sequence[Step]) -> dict[str, float]:
        """What a worker takes of a node: a core, a GPU where the cluster has any, the memory of the largest."""
        need = [
            memory_bytes(
                p.shape, p.stage.micro_batch_tokens, p.stage.seq_len, adapter=p.stage.adapter is not None
            )
            for p in (step.payload for step in steps if step.kind == "train")
        ]
        gpus = 1 if self.ray.cluster_resources().get("GPU", 0) >= 1 else 0
        return {"num_cpus": 1, "num_gpus": gpus, "memory": int(max(need, default=0))}

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

    def _places(self) -> int:
        """Workers that the nodes there are have room for."""
        names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        wants = {names[key]: value for key, value in self.options.items() if value}
        return sum(
            min(int(node["Resources"].get(name, 0) // value) for name, value in wants.items())
            for node in self._nodes()
        )

    def _probe(self) -> None:
        """See that every node has the results folder and what is installed here."""
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
        actor = self.ray.remote(max_restarts=0, max_task_retries=0, **self.options)(Keeper)
        for _ in range(min(self.workers, self.left, self._places()) - len(self.hands)):
            made = actor.remote(str(self.store.root), self.lease, _environment())
            self.hands.append(_Hand(made, made.hello.remote(), now))

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
            idle = hand.node and hand.step is None and hand.answer is None
            if idle and (next_ := self.ready.take()):
                hand.step = next_
                self._call(hand, next_)
                self._tell("started", next_, {})

    def _call(self, hand: _Hand, step: Step | None) -> None:
        hand.asked = time.monotonic()
        hand.answer = hand.actor.look.remote(step, self.stop.is_set())

    def _ask(self) -> None:
        """Ask the workers how they are getting on; give up those that have not answered for long."""
        now = time.monotonic()
        for hand in list(self.hands):
            if hand.answer is None and (hand.step or now - hand.asked > self.lease / 6):
                self._call(hand, None)
            elif hand.node and hand.answer is not None and now - hand.asked > self.lease + MARGIN:
                self._lose(hand, "it does not answer")

    def _listen(self) -> None:
        calls = {h.answer: h for h in self.hands if h.answer is not None}
        if not calls:
            time.sleep(0.1)
            return
        self.ray.wait(list(calls), timeout=0.5)
        answered, _ = self.ray.wait(list(calls), num_returns=len(calls), timeout=0)
        for answer in answered:
            hand = calls[answer]
            hand.answer = None
            try:
                told = self.ray.get(answer)
            except self.ray.exceptions.RayError as error:
                self._lose(hand, str(error).strip().splitlines()[0])
                continue
            if not hand.node:
                hand.node, hand.address = told
                continue
            for event in told:
                self._hear(hand, event)

    def _hear(self, hand: _Hand, told: Event) -> None:
        """Take in one event of a worker."""
        (event, body), step = told, hand.step
        assert step
        if event == "progress":
            self._tell("progress", step, body)
            return
        hand.step = None
        if event == "done":
            self._finish(step, body)
        elif event == "refused":
            self._refuse(step, body)
        elif event == "error":
            kind = type(body)
            self._fail(kind(f"{body} (on node {hand.address})") if kind is UserError else body)
        elif event == "died":
            self._again(step, hand, f"{body['exit']} on {hand.address}", 0.0, "worker", RETRIES)
        elif event == "lapsed":
            self.paused.append((0.0, step))
            self._tell("retried", step, {"exit": f"cut off from here on {hand.address}"})

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
        self._tell("progress", step, {"warning": f"{error}; tried again in {pause:.0f} s"})

    def _lose(self, hand: _Hand, why: str) -> None:
        """A worker is dead or out of reach: its step is tried elsewhere when its lease must have run out."""
        self.hands.remove(hand)
        with contextlib.suppress(Exception):
            self.ray.kill(hand.actor)
        if not hand.node:
            self.stillborn += 1
            if self.stillborn > NODE_LOSSES:
                self._fail(RunError(f"workers cannot be started on the Ray cluster: {why}"))
        if hand.step is None:
            return
        end = hand.asked + self.lease + MARGIN
        self.leases_end = max(self.leases_end, end)
        there = any(n["NodeID"] == hand.node for n in self._nodes())
        kind, most = ("worker", RETRIES) if there else ("node", NODE_LOSSES)
        self._again(hand.step, hand, f"unknown, {kind} lost on {hand.address}", end, kind, most)

    def _again(self, step: Step, hand: _Hand, exit_: str, moment: float, kind: str, most: int) -> None:
        """Try a step again from its checkpoint, unless it was tried too often."""
        count = self.failures[step.hash, kind] = self.failures.get((step.hash, kind), 0) + 1
        if count > most:
            self._fail(
                RunError(
                    f"{step.label}: its {kind} died {count} times (exit {exit_}; -9 is often a lack of memory); "
                    "see that the nodes have enough of it, then run again: finished steps are kept"
                )
            )
            return
        self.paused.append((moment, step))
        self._tell("retried", step, {"exit": exit_})

    def _tell(self, event: str, step: Step, body: dict[str, Any]) -> None:
        self.pipe.send((event, step.hash, body))


def _environment() -> dict[str, str]:
    """What workers are told of this process's environment: where compiled models are kept."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    return {name: os.environ[name]} if name in os.environ else {}
