"""Train steps done by two workers of a Ray cluster together."""

import socket
import sys
import time
from types import SimpleNamespace

import pytest
from clusters import (
    LONG,
    begun,
    command,
    finish,
    of_node,
    start,
    status,
    training,
    two_nodes,
    until,
    weights,
    workers,
    write,
)
from conftest import TINY

from codestage.engine.ray_driver import _memory
from codestage.engine.ray_hand import Hand, Member
from codestage.engine.ray_worker import Keeper
from codestage.engine.run import run
from codestage.engine.store import Step
from codestage.errors import RunError, UserError
from codestage.study.expand import expand
from codestage.study.models import memory_bytes, shape

pytest.importorskip("ray", reason="Ray is not installed")
TEXT = LONG.replace("tokens: 300k", "tokens: 60k")


def by_torchrun(study):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launch += ["--master-addr=127.0.0.1", f"--master-port={port}", "--local-addr=127.0.0.1"]
    return start([*launch, "--no-python", *command(study)])


@pytest.mark.slow
def test_a_gang_on_two_nodes_gives_the_bits_of_torchrun_also_if_one_of_it_is_killed(
    reference, tmp_path, monkeypatch
):
    """One of two long steps is disturbed, the other is not: there is room for one gang."""
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")  # other tests have compiled models
    wanted, mine = (begun(reference, tmp_path / name, TEXT) for name in ("torchrun", "gang"))
    code, said = finish(by_torchrun(wanted))
    assert code == 0, said
    with two_nodes() as cluster:
        process = start(command(mine, "--ray", cluster.address, "--processes", "2"))
        until(lambda: training(mine), process)
        assert training(mine) == 1
        gang = [workers(of_node(node)) for node in cluster.list_all_nodes()]
        assert [len(g) for g in gang] == [1, 1]
        gang[1][0].kill()
        until(lambda: status(mine)["warnings"], process)
        code, said = finish(process)
    assert code == 0, said
    (warning,) = status(mine)["warnings"]
    assert "its worker died (exit -9 on 127.0.0.1" in warning
    assert weights(mine.with_suffix("")) == weights(wanted.with_suffix(""))
    assert not list((mine.with_suffix("") / "work").glob("*-*"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"ray": "auto", "shard": 2},
            "--shard 2: with --ray say how many train a model with --processes",
        ),
        ({"ray": "auto", "processes": 4, "shard": 3}, "--shard 3 does not divide the 4 processes"),
        ({"ray": "auto", "processes": 0}, "--processes 0: at least one is needed"),
        ({"ray": "auto", "processes": 4, "workers": 2}, "--workers 2: a train step needs 4"),
        ({"ray": "auto", "processes": 3}, "tiny.yaml:14: stage 'pretrain': batches of 8 rows"),
        ({"processes": 2}, "without it: torchrun --nproc-per-node 2"),
        ({"shard": 2}, "--shard 2: start many processes with torchrun, or --ray and --processes"),
    ],
)
def test_gangs_that_cannot_be_are_refused_before_anything_is_begun(tmp_path, asked, said):
    study = write(tmp_path, TINY)
    with pytest.raises(UserError, match=said):
        run(study, tmp_path / "out", on_event=lambda snapshot: None, **{"workers": None, **asked})
    assert not (tmp_path / "out").exists()


def gang(*words):
    """One that has no cluster: what its members said last; None: at work, a text: lost."""
    made = Hand.__new__(Hand)
    made.size, made.greeted, made.members = len(words), True, []
    for word in words:
        lost = word if isinstance(word, str) else ""
        made.members.append(Member(None, node="n", gone=lost, word=None if lost else word))
    return made


def test_of_several_last_words_the_one_that_explains_the_others_counts():
    done, broken, died = ("done", {}), ("broken", RunError("closed by peer")), ("died", {"exit": -9})
    error, bad = ("error", RunError("not finite")), ("error", UserError("no file"))
    refused, lapsed, ended = ("refused", RunError("disk")), ("lapsed", {}), ("ended", {})
    assert gang(done, None).last_word() is None
    assert gang(broken, None).last_word() is None
    assert gang(broken, None).spent
    assert gang(done, done).last_word() == done
    assert not gang(done, done).spent
    assert gang(broken, died).last_word() == died
    assert gang(broken, ended).last_word() == broken
    assert gang(lapsed, broken).last_word() == lapsed
    assert gang(died, error).last_word() == error
    assert gang(error, refused).last_word() == refused  # the others hear of it as a plain error
    assert gang(refused, bad).last_word() == bad
    lost = gang(broken, "no answer").last_word()
    assert lost
    assert lost[0] == "lost"
    assert not gang(died).spent  # a worker by itself is started anew


def test_when_one_has_failed_the_others_are_ended_and_silent_ones_given_up():
    class Actor:
        def __init__(self):
            self.called = []
            self.look, self.end = (
                SimpleNamespace(
                    remote=lambda *given, name=name: self.called.append((name, *given)) or name
                )
                for name in ("look", "end")
            )

    hand = gang(("died", {"exit": -9}), None)
    for member in hand.members:
        member.actor = Actor()
    hand.ask()
    assert [m.actor.called[0][0] for m in hand.members] == ["look", "end"]
    hand.give_up_silent(60)
    assert not any(m.gone for m in hand.members)
    hand.asked = time.monotonic() - 61
    hand.give_up_silent(60)
    assert all(m.gone for m in hand.members)


def test_a_worker_that_is_ended_is_known_to_be_gone(tmp_path):
    keeper = Keeper(str(tmp_path), 30.0, {})
    keeper.look()
    keeper.look(Step("train", "", {}, {}, payload=None))
    worker = keeper._process
    assert worker
    assert keeper.end(0.0) == [("ended", {})]
    assert not worker.is_alive()
    assert keeper.end(0.0) == []


def test_a_process_of_a_gang_needs_less_memory_than_one_that_is_alone(tiny_study):
    size = shape(tiny_study.model, 384)
    stage = expand(tiny_study)[0].stages[0]
    payload = SimpleNamespace(shape=size, stage=stage)
    whole = memory_bytes(size, stage.micro_batch_tokens, stage.seq_len)
    assert _memory(payload, 1, None) == whole
    assert _memory(payload, 4, 4) < _memory(payload, 4, 2) < _memory(payload, 4, 1) < whole
