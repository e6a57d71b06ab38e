"""Preparing on two Ray nodes gives what preparing here gives, to the byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY

from codestage.engine.data_steps import data_steps
from codestage.engine.mix import inspect
from codestage.engine.store import Store
from codestage.errors import UserError
from codestage.study.load import load_study

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = (
    "0"  # or Ray takes 127.0.0.1 for the machine's own address
)
ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.slow
STUDY = TINY.replace(
    "procedural: {form: prose, documents: 300, depth: [1, 1]}",
    "path: prose/*.jsonl, bad_rows: skip, clean: {exact_duplicates: true, near_duplicates: 0.8, "
    "min_characters: 20, quality: true}",
).replace("chat:      {domain: text, format: instruct, procedural: {form: chat, documents: 400, depth: [1, 1]}}",
          "chat:      {domain: text, format: instruct, path: chat.jsonl}")  # fmt: skip


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine, gone at the end."""
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False},
    )
    made.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    yield made.address
    ray.shutdown()
    made.shutdown()


def corpora(folder: Path) -> Path:
    (folder / "prose").mkdir(parents=True)
    for f in range(6):
        rows = [
            json.dumps(
                {"text": f"Tale {f} of {i % 40}. The cat of house {i} sleeps and dreams of fish."}
            )
            for i in range(300)
        ]
        rows += ["no json at all", json.dumps({"text": "short"}), rows[0]]
        (folder / "prose" / f"{f}.jsonl").write_text("\n".join(rows))
    chat = [
        {"prompt": f"What is {i}?", "response": f"It is {i}, and {i * i} is its square."}
        for i in range(900)
    ]
    (folder / "chat.jsonl").write_text("\n".join(map(json.dumps, chat)))
    (folder / "tiny.yaml").write_text(STUDY)
    return folder / "tiny.yaml"


def content(study: Path, out: Path):
    """Every file of every data step, but for when and how long."""
    found = {}
    for step in data_steps(load_study(study), study).all():
        folder = Store(out).read(step.kind, step.hash)
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != "step.json":
                found[step.label, path.name] = path.read_bytes()
    return found


def test_two_nodes_give_the_same_bytes_as_this_process(cluster, tmp_path):
    study = corpora(tmp_path / "study")
    here = inspect(study, out=tmp_path / "here")
    there = inspect(study, out=tmp_path / "there", ray=cluster)
    assert here == there
    prose = next(row for row in here if row["source"] == "prose")
    assert set(prose["removed"]) == {"bad row", "length", "exact duplicate", "near duplicate"}
    assert content(study, tmp_path / "here") == content(study, tmp_path / "there")


def test_bad_input_on_a_node_is_one_message_here(cluster, tmp_path):
    study = corpora(tmp_path / "study")
    study.write_text(STUDY.replace("bad_rows: skip", "bad_rows: error"))
    with pytest.raises(UserError, match=r"tiny.yaml:\d+: source 'prose': prose/0.jsonl:301: not JSON"):
        inspect(study, out=tmp_path / "out", ray=cluster)


def test_no_cluster_is_one_message(tmp_path):
    """In a process of its own: a connection in this one would be taken instead."""
    study = corpora(tmp_path / "study")
    command = [sys.executable, "-m", "codestage.cli", "data", str(study), "--ray", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "no Ray cluster at nonsense" in done.stderr
    assert "Traceback" not in done.stderr
