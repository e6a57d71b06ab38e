"""The engine from outside: a small study run, run again, edited, killed, stopped, watched."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import psutil
import pyarrow.parquet as pq
import pytest
from clusters import LONG
from conftest import TINY as UNCOMPILED
from published_fixture import published

from codestage.errors import UserError

pytestmark = pytest.mark.slow
TINY = UNCOMPILED.replace(", compile: false", "")
KINDS = ("documents", "evaluate", "items", "prepare", "tokenizer", "train")


def start(study, *more):
    command = [sys.executable, "-m", "codestage.cli", "run", str(study), *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def run(study, *more):
    process = start(study, *more)
    out, err = process.communicate(timeout=280)
    return process.returncode, out, err


def steps(folder):
    """Finished steps: (kind, hash) -> when their folder was made."""
    found = {}
    for path in (folder / "store").glob("*/*"):
        found[path.parent.name, path.name] = (path / "step.json").stat().st_mtime_ns
    return found


def weights(folder):
    return {
        path.parent.name: path.read_bytes()
        for path in (folder / "store" / "train").glob("*/model.safetensors")
    }


def results(folder):
    """What a study found, without when and how fast."""
    items = pq.read_table(folder / "results" / "items.parquet").drop(["seconds"]).to_pylist()
    effects = json.loads((folder / "results" / "effects.json").read_text())
    return items, effects


def write(folder, text=TINY):
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(text)
    return folder / "tiny.yaml"


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a small study that was run without a disturbance."""
    study = write(tmp_path_factory.mktemp("finished"))
    code, out, err = run(study)
    assert code == 0, out + err
    assert "report:" in out
    assert not err.strip(), err
    return study.parent


def copy(finished, to):
    shutil.copytree(finished, to / "copy")
    return to / "copy"


def test_nothing_is_done_twice(finished, tmp_path):
    folder = copy(finished, tmp_path)
    before, found = steps(folder / "tiny"), results(folder / "tiny")
    code, out, _ = run(folder / "tiny.yaml")
    assert code == 0
    assert "54/54" in out.splitlines()[-2]
    assert steps(folder / "tiny") == before
    assert results(folder / "tiny") == found
    assert {kind for kind, _ in before} == set(KINDS)


def test_what_the_batches_held_is_what_was_planned(finished):
    for entry in json.loads((finished / "tiny" / "results" / "runs.json").read_text()):
        for stage in entry["stages"]:
            assert stage["tokens_realised"] == stage["tokens_planned"]


def test_shared_work_is_done_once_and_its_records_are_those_of_every_run(finished):
    study = json.loads((finished / "tiny" / "results" / "study.json").read_text())
    assert study["cost"]["tokens_trained"] < study["cost"]["tokens_unshared"]
    table = pq.read_table(finished / "tiny" / "results" / "items.parquet")
    runs = set(table["run"].to_pylist())
    assert len(runs) == 2 * len(study["arms"])


def test_killed_at_any_moment_the_study_ends_with_the_same_bits(finished, tmp_path):
    study = write(tmp_path / "killed")
    kills = 0
    for seconds in (2.0, 4.0, 5.5, 7.0, 9.0):
        process = start(study)
        time.sleep(seconds)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    code, out, err = run(study)
    assert code == 0, out + err
    assert kills >= 2
    assert weights(study.parent / "tiny") == weights(finished / "tiny")
    assert results(study.parent / "tiny") == results(finished / "tiny")


def test_stopped_by_control_c_it_says_so_saves_and_goes_on(finished, tmp_path):
    study = write(tmp_path / "stopped")
    process = start(study)
    while not list((study.parent / "tiny" / "store").glob("train/*")):
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "goes on from here" in err
    assert "Traceback" not in out + err
    assert run(study)[0] == 0
    assert weights(study.parent / "tiny") == weights(finished / "tiny")


def test_a_signal_to_all_of_its_processes_lets_them_save(tmp_path):
    """As `timeout` and service managers send it."""
    study = write(tmp_path / "ended", LONG)
    process, work = start(study), study.parent / "tiny" / "work"
    status = work / "status.json"
    while not (
        status.exists() and any("tokens" in r for r in json.loads(status.read_text())["running"])
    ):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)  # it trains, and has not saved by itself
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "everything is saved" in err
    assert "Traceback" not in out + err
    assert list(work.glob("train-*/partial"))


def test_an_edited_study_does_only_what_changed(finished, tmp_path):
    folder = copy(finished, tmp_path)
    before = steps(folder / "tiny")
    write(folder, TINY.replace("tokens: 2k", "tokens: 2500"))
    assert run(folder / "tiny.yaml")[0] == 0
    new = set(steps(folder / "tiny")) - set(before)
    assert {kind for kind, _ in new} == {"train", "evaluate"}
    records = [
        json.loads((folder / "tiny" / "store" / kind / hash_ / "step.json").read_text())
        for kind, hash_ in new
    ]
    assert all(" tune " in r["label"] or "after tune" in r["label"] for r in records)


def answers(folder):
    """What was recorded, and how many seconds each took, by item."""
    table = pq.read_table(folder / "results" / "items.parquet")
    key = ("run", "stage", "task", "item", "cot", "metric")
    return {tuple(r[k] for k in key): (r["value"], r["output"], r["seconds"]) for r in table.to_pylist()}


def ask_of_its_own(folder, question):
    """Write the small study with a question more than it has, and one that asks for nothing."""
    rows = [{"question": q, "choices": ["3", "4"], "answer": "4"} for q in (question, "Four?")]
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return write(
        folder, TINY.replace("items: 4}", "items: 4, tasks: {own: {domain: x, path: own.jsonl}}}")
    )


def codestage(*arguments):
    command = [sys.executable, "-m", "codestage.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_task_more_trains_nothing_again_where_no_document_asks_it(finished, tmp_path):
    """The data are prepared again, to look for the question; what came out the same is the same to training."""
    folder = copy(finished, tmp_path)
    out, before, known = folder / "tiny", steps(folder / "tiny"), weights(folder / "tiny")
    answered = answers(out)
    study = ask_of_its_own(folder, "Which number of apples did nobody in this village ever count twice?")
    assert json.loads(codestage("why", study, "--json").stdout)["waits_for"]
    code, _, err = run(study)
    assert code == 0, err
    new = {kind for kind, _ in set(steps(out)) - set(before)}
    assert new == {"items", "documents", "tokenizer", "prepare", "evaluate"}
    assert weights(out) == known
    found = answers(out)
    assert {task for _, _, task, *_ in found.keys() - answered.keys()} == {"own"}
    assert {key: found[key] for key in answered} == answered  # to the second: none was asked again
    # what was prepared before can go; what was trained on it stays, and knows its tokenizer
    done = codestage("gc", study, "--delete")
    assert done.returncode == 0, done.stderr
    assert len([kind for kind, _ in steps(out) if kind == "tokenizer"]) == 1
    assert weights(out) == known
    done = codestage("export", out, "--run", "text/text#0", "--to", tmp_path / "model")
    assert done.returncode == 0, done.stderr


def test_a_task_more_trains_again_where_a_document_asks_it(finished, tmp_path):
    folder = copy(finished, tmp_path)
    (prose,) = (p for p in (folder / "tiny/store/documents").glob("*") if "of prose" in label(p))
    question = pq.read_table(prose / "documents.parquet")["text"][7].as_py()
    study = ask_of_its_own(folder, question)
    assert run(study)[0] == 0
    trained = [key for key in steps(folder / "tiny") if key[0] == "train"]
    assert len(trained) == 2 * len(
        weights(finished / "tiny")
    )  # none of the first is used: all read prose


def label(folder):
    return json.loads((folder / "step.json").read_text())["label"]


def test_a_study_of_one_arm_has_the_weights_of_the_same_arm_in_the_grid(finished, tmp_path):
    """Sharing changes no result: alone, every stage is trained in one piece."""
    alone = TINY.replace("      text:      {mix: {prose: 1}}\n", "").replace(
        "      text:    {mix: {chat: 1}}\n", ""
    )
    study = write(tmp_path / "alone", alone.replace("controls: [token-matched, additive]\n", ""))
    code, out, err = run(study)
    assert code == 0, out + err
    mine = json.loads((study.parent / "tiny" / "results" / "runs.json").read_text())
    grid = json.loads((finished / "tiny" / "results" / "runs.json").read_text())
    for entry in mine:
        assert entry["arm"] == "text+code/uniform"
        twin = next(e for e in grid if (e["arm"], e["seed"]) == (entry["arm"], entry["seed"]))
        for ours, theirs in zip(entry["stages"], twin["stages"], strict=True):
            one = study.parent / "tiny" / "store" / "train" / ours["steps"][-1]
            other = finished / "tiny" / "store" / "train" / theirs["steps"][-1]
            assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_a_worker_that_dies_is_replaced(finished, tmp_path):
    study = write(tmp_path / "worker")
    process = start(study)
    while not list((study.parent / "tiny" / "work").glob("train-*")):
        assert process.poll() is None
        time.sleep(0.05)
    children = psutil.Process(process.pid).children()
    (source,) = [child for child in children if "forkserver" in " ".join(child.cmdline())]
    source.children()[0].kill()
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, out + err
    assert weights(study.parent / "tiny") == weights(finished / "tiny")


def test_status_while_it_runs_and_a_second_run_is_refused(tmp_path):
    study = write(tmp_path / "watched")
    process = start(study)
    status = [sys.executable, "-m", "codestage.cli", "status", str(study.parent / "tiny")]
    while not (study.parent / "tiny" / "work" / "status.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    answer = json.loads(subprocess.run([*status, "--json"], capture_output=True, check=True).stdout)
    assert answer["state"] == "running"
    code, _, err = run(study)
    assert code == 2
    assert "another `codestage run` works here" in err
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    answer = json.loads(subprocess.run([*status, "--json"], capture_output=True, check=True).stdout)
    assert answer["state"] == "stopped"


def test_a_damaged_store_is_told_by_its_path(finished, tmp_path):
    folder = copy(finished, tmp_path)
    damaged = next((folder / "tiny" / "store" / "evaluate").glob("*/items.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"oops")
    code, _, err = run(folder / "tiny.yaml")
    assert code == 1
    assert "damaged" in err
    assert damaged.parent.name in err
    assert "Traceback" not in err


def test_no_room_on_the_disk_is_one_message_and_leaves_nothing_half_written(tmp_path):
    """The limit on a file's size stands in for a full disk: writing fails under way."""
    study = write(tmp_path / "full")
    limited = f"ulimit -f 40; trap '' XFSZ; exec {sys.executable} -m codestage.cli run {study}"
    done = subprocess.run(
        ["/bin/bash", "-c", limited],
        env={"PATH": "/nowhere"},  # no compiler: its own files are not what is asked about
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1
    assert "make room" in done.stderr or "free some space" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for path in (study.parent / "tiny" / "store").glob("*/*"):
        assert (path / "step.json").exists()
    assert run(study)[0] == 0


def test_a_compiler_that_fails_is_told_as_that(tmp_path):
    study = write(tmp_path / "compiler")
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "g++"
    fake.write_text("#!/bin/sh\necho 'g++: no input today' >&2\nexit 1\n")
    fake.chmod(0o755)
    env = os.environ | {"CXX": str(fake), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "codestage.cli", "run", str(study)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert "C++ compiler" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_is_exported_with_a_card_that_says_how_it_came_to_be(finished, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def export(*more):
        command = [sys.executable, "-m", "codestage.cli", "export", str(finished / "tiny"), *more]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    out = tmp_path / "model"
    done = export("--run", "text+code/uniform#1", "--to", str(out))
    assert done.returncode == 0, done.stderr
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    ids = tokenizer("Question: What is it?\nAnswer:", return_tensors="pt")["input_ids"]
    assert model(ids).logits.shape[-1] == len(tokenizer)
    text = (out / "README.md").read_text()
    assert "| pretrain | text+code | prose | 2,667 |" in text
    assert "seed 1" in text
    assert "| coin_flip | off |" in text
    earlier = tmp_path / "earlier"
    assert export("--run", "text/text#0", "--stage", "pretrain", "--to", str(earlier)).returncode == 0
    assert "| tune |" not in (earlier / "README.md").read_text()
    for wrong in (["--run", "nothing"], ["--run", "text/text#0", "--stage", "x"]):
        refused = export(*wrong, "--to", str(tmp_path / "never"))
        assert refused.returncode == 2
        assert not (tmp_path / "never").exists()
    assert export("--run", "text/text#0", "--to", str(out)).returncode == 2
    items = finished / "tiny" / "results" / "items.parquet"
    held = items.read_bytes()
    try:
        items.write_bytes(held[: len(held) // 2])
        cut = export("--run", "text/text#0", "--to", str(tmp_path / "cut"))
    finally:
        items.write_bytes(held)
    assert cut.returncode == 2
    assert "items.parquet: cannot be read" in cut.stderr
    assert not (tmp_path / "cut").exists()


def test_json_progress_is_one_object_a_line(finished, tmp_path):
    folder = copy(finished, tmp_path)
    code, out, err = run(folder / "tiny.yaml", "--json")
    assert code == 0
    states = [json.loads(line)["state"] for line in err.splitlines()]
    assert states[-1] == "done"
    assert json.loads(out)["report"].endswith("report.html")


def test_learning_curves_go_to_tensorboard_whole(finished, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = copy(finished, tmp_path)
    code, _, err = run(folder / "tiny.yaml", "--track", "tensorboard")
    assert code == 0, err
    entry = next(
        e
        for e in json.loads((folder / "tiny" / "results" / "runs.json").read_text())
        if e["run"] == "text/uniform#1"
    )
    events = reader.EventAccumulator(str(folder / "tiny" / "tensorboard" / "text_uniform#1"))
    events.Reload()
    for stage in entry["stages"]:
        wanted = [
            (row["tokens"], row["loss"], row["lr"])
            for step in stage["steps"]
            for row in pq.read_table(
                folder / "tiny" / "store" / "train" / step / "curve.parquet"
            ).to_pylist()
        ]
        for at, kind in ((1, "loss"), (2, "lr")):
            told = [(e.step, e.value) for e in events.Scalars(f"{stage['name']}/{kind}")]
            assert [tokens for tokens, _ in told] == [row[0] for row in wanted]
            assert [value for _, value in told] == pytest.approx([row[at] for row in wanted], rel=1e-6)


def test_learning_curves_go_to_trackio_and_wandb(finished, tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    pytest.importorskip("wandb")
    folder = copy(finished, tmp_path)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    for kind in ("trackio", "wandb"):
        code, out, err = run(folder / "tiny.yaml", "--track", kind)
        assert code == 0, out + err
    entries = json.loads((folder / "tiny" / "results" / "runs.json").read_text())
    wanted = {}
    for entry in entries:
        for stage in entry["stages"]:
            for step in stage["steps"]:
                curve = folder / "tiny" / "store" / "train" / step / "curve.parquet"
                for row in pq.read_table(curve).to_pylist():
                    wanted[entry["run"], stage["name"], row["tokens"]] = row["loss"]
    with sqlite3.connect(tmp_path / "trackio" / "tiny.db") as data:
        rows = data.execute("select run_name, step, metrics from metrics").fetchall()
    told = {
        (name, key.partition("/")[0], step): value
        for name, step, values in rows
        for key, value in json.loads(values).items()
        if key.endswith("/loss")
    }
    assert told == pytest.approx(wanted)
    files = list((folder / "tiny" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == len(entries)  # its format is its own; that it holds something can be seen
    assert all(file.stat().st_size > 1000 for file in files)


def test_a_tracker_that_is_unknown_or_missing_is_refused_before_anything_is_done(tmp_path, monkeypatch):
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "wandb.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "missing"))
    study = write(tmp_path)
    for kind, words in (("tensorbord", "write one of tensorboard"), ("wandb", "pip install wandb")):
        code, _, err = run(study, "--track", kind)
        assert (code, words in err) == (2, True), err
    assert not (tmp_path / "tiny" / "store").exists()


def test_a_study_asks_published_tasks_with_samples_and_programs(tmp_path):
    asked = f"{{suites: [cosqa, gsm8k, mbpp], cot: [off, generated], items: 3, samples: 2, data: {published()}}}"
    text = "\n".join(
        f"evaluate: {asked}" if line.startswith("evaluate:") else line for line in TINY.splitlines()
    )
    study = write(tmp_path / "published", text.replace("seeds: 2", "seeds: 1"))
    code, out, err = run(study)
    assert code == 0, out + err
    rows = pq.read_table(study.parent / "tiny" / "results" / "items.parquet").to_pylist()
    metrics = {}
    for row in rows:
        metrics.setdefault((row["task"], row["cot"]), set()).add(row["metric"])
    assert metrics["cosqa", "off"] >= {"acc", "prob", "bpb", "channel_acc", "channel_prob"}
    assert metrics["gsm8k", "generated"] == {"acc", "format", "sample_acc", "sc_acc"}
    assert metrics["mbpp", "off"] >= {"acc", "bleu", "pass@1", "pass@2", "bpb"}
    told = json.loads((study.parent / "tiny" / "results" / "study.json").read_text())["tasks"]
    assert {task["name"]: task["cot"] for task in told} == {
        "cosqa": ["off", "generated"], "gsm8k": ["off", "generated"], "mbpp": ["off"],
    }  # fmt: skip
    assert {task["items"] for task in told} == {3}
    assert (study.parent / "tiny" / "results" / "report.html").exists()


def test_programs_that_cannot_be_confined_are_refused_before_anything_is_trained(tmp_path, monkeypatch):
    from codestage.engine import run as engine
    from codestage.evaluate import sandbox

    def refused(mode):
        raise UserError("pip install 'codestage[code]'")

    monkeypatch.setattr(sandbox, "Sandbox", refused)
    study = write(tmp_path / "code", TINY.replace("suites: [", "suites: [humaneval, "))
    with pytest.raises(UserError, match=r"tiny\.yaml:\d+: pip install"):
        engine.run(study, tmp_path / "code" / "tiny", workers=1, on_event=lambda event: None)
    assert not (tmp_path / "code" / "tiny").exists()
