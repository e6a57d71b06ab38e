"""Presets: what plans of the papers' sizes say, against sums by hand; and the smallest sizes, run end to end."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import TINY, needs_smollm2

from codestage.data.mixture import RowCounts
from codestage.engine.graph import Supply, training_steps
from codestage.engine.plan import GPUS, plan
from codestage.evaluate.tasks import load_tasks
from codestage.study.expand import runs
from codestage.study.load import load_study
from codestage.study.models import shape
from codestage.study.presets import load_preset, preset_names, preset_studies
from codestage.study.schema import MATCHED

B = 10**9
close = pytest.approx


LR = "{schedule: wsd, warmup_tokens: 20M, decay: 0.2}"


def planned(folder: Path, name: str, file: int = 0, gpu: str = "h100", **changes: str) -> dict:
    """The plan of a paper's size; `changes` are values of whole lines, by key, where they do not matter."""
    studies = preset_studies(name, scale="paper")
    path = folder / list(studies)[file]
    text = studies[path.name]
    for key, value in changes.items():
        text, found = re.subn(rf"^( +{key}:).*(\n +- .*)*$", rf"\1 {value}", text, count=1, flags=re.M)
        assert found
    path.write_text(text)
    return plan(path, gpu=gpu)


def test_plan_of_ma2024_agrees_with_sums_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: pytest.fail("plan asked the network"))
    answer = planned(tmp_path, "ma2024")
    hidden, layers, wide, words, row = 2560, 32, 10240, 40_000, 1024
    products = layers * (4 * hidden * hidden + 2 * hidden * wide)
    assert products == close(2.516e9, rel=1e-3)
    tables = 2 * words * hidden + 2 * row * hidden
    assert answer["parameters"] == close(products + tables, rel=0.01)
    per_token = 6 * (products + words * hidden) + 6 * layers * row * hidden
    assert answer["flops_per_token"] == close(per_token, rel=0.01)

    # before tuning: 16 cells of 28 B, three additive controls and one of text alone of 42 B; 60 M of tuning each
    tokens = 3 * (16 * 28 * B + 4 * 42 * B + 20 * 60 * 10**6)
    assert answer["tokens_unshared"] == close(tokens, rel=1e-6)
    # trained once: four ways to 28 B and four to 42 B, whose beginnings are shared where two ways agree
    least, most = 4 * 28 + 4 * (42 - 25.2), 4 * 28 + 4 * 42
    assert least * B < answer["tokens"] / 3 - 20 * 60 * 10**6 < most * B
    assert answer["flops"] == close(answer["tokens"] * per_token, rel=0.01)
    assert answer["gpu"]["hours"] == close(
        answer["tokens"] * per_token / (0.4 * 989e12) / 3600, rel=0.01
    )

    # 18 bytes a parameter; of 31 layers what comes in, of one 34 bytes a hidden value and 5 a head and position;
    # 6 bytes for each of 2^25 logits; the process itself
    micro, heads = 16_384, 32
    layer = 34 * hidden + 5 * heads * row
    saved = micro * (layers * 2 * hidden + layer)
    by_hand = 18 * (products + tables) + saved + 6 * 2**25 + 0.7e9
    assert answer["gpu"]["memory_gb"] == close(by_hand / 1e9, rel=0.05)
    assert answer["gpu"]["needed_for_memory"] == 1


def test_plan_of_the_13b_model_needs_several_gpus(tmp_path):
    answer = planned(tmp_path, "ma2024", file=1, gpu="a100", tokens="2B")
    hidden, layers, words = 5120, 40, 40_000
    count = 12 * layers * hidden * hidden + 2 * words * hidden + 2 * 1024 * hidden
    assert answer["parameters"] == close(count, rel=0.01)
    per_token = 6 * (12 * layers * hidden**2 + words * hidden) + 6 * layers * 1024 * hidden
    assert answer["gpu"]["hours"] == close(
        answer["tokens"] * per_token / (0.4 * 312e12) / 3600, rel=0.01
    )
    assert answer["gpu"]["needed_for_memory"] == 4
    assert answer["gpu"]["assumed"]["peak_flops_per_second"] == GPUS["a100"].peak == 312e12


def test_plan_of_petty2024_agrees_with_sums_by_hand(tmp_path):
    answer = planned(tmp_path, "petty2024", suites="[bbh]", tokens="1320M", lr=LR)
    hidden, layers, wide, words, row = 1024, 24, 2816, 64_000, 2048
    products = layers * (4 * hidden * hidden + 3 * hidden * wide)
    assert answer["parameters"] == close(374e6, rel=0.005), "the paper's size"
    assert answer["parameters"] == close(products + words * hidden, rel=0.01)
    per_token = 6 * (products + words * hidden) + 6 * layers * row * hidden
    assert answer["flops_per_token"] == close(per_token, rel=0.01)
    tokens = 5 * 1.32 * B * (6 + sum(10 / (10 - m) for m in range(1, 6)))
    assert answer["tokens_unshared"] == close(tokens, rel=1e-6)
    assert answer["flops_unshared"] == close(tokens * per_token, rel=0.01)
    assert answer["gpu"]["hours"] == close(answer["flops"] / (0.4 * 989e12) / 3600, rel=0.01)
    layer = 34 * hidden + 5 * 16 * row
    by_hand = 18 * (products + words * hidden) + 8192 * layers * layer + 6 * 2**25 + 0.7e9
    assert answer["gpu"]["memory_gb"] == close(by_hand / 1e9, rel=0.05)


def test_both_studies_of_doses_of_petty2024_share_the_arm_without_code(tmp_path):
    found = []
    for file, text in preset_studies("petty2024", scale="laptop").items():
        (tmp_path / file).write_text(text)
        study = load_study(tmp_path / file)
        rows = {name: RowCounts(60_000, 128) for name in study.sources}
        supply = {128: Supply(rows, *[{name: name for name in rows}] * 2, study.validation)}
        works = training_steps(runs(study), supply, shape(study.model, 1024), 128)
        found.append({run: stages[0].segments for run, stages in works.items()})
    first, second, _ = found
    assert len({s.hash for segments in second.values() for s in segments}) == len(second) == 7 * 5
    for seed in range(5):
        assert first[f"code-0#{seed}"][0].hash == second[f"code-0#{seed}"][0].hash


def test_plan_of_midtraining_trains_one_trunk_a_seed(tmp_path):
    answer = planned(tmp_path, "midtraining", suites="[gsm8k]")
    hidden, layers, words, row = 1024, 24, 50_304, 2048
    products = 12 * layers * hidden * hidden
    assert answer["parameters"] == close(products + words * hidden, rel=0.01)
    per_token = 6 * (products + words * hidden) + 6 * layers * row * hidden
    assert answer["flops_per_token"] == close(per_token, rel=0.01)
    # a trunk of 105 B, and at each of three places five mid-trainings with a tuning after each
    tokens = 5 * (105 * B + 15 * 23 * B + 15 * 60 * 10**6)
    assert answer["tokens"] == close(tokens, rel=1e-3)
    unshared = 5 * 5 * (21 + 63 + 105 + 3 * 23) * B + 5 * 15 * 60 * 10**6
    assert answer["tokens_unshared"] == close(unshared, rel=1e-3)
    assert answer["flops"] == close(tokens * per_token, rel=0.01)
    assert answer["gpu"]["hours"] == close(tokens * per_token / (0.4 * 989e12) / 3600, rel=0.01)
    # 18 bytes a parameter; 8,192 tokens through all layers, kept whole; 6 bytes for each of 2^25 logits; the process
    layer = 34 * hidden + 5 * 16 * row
    by_hand = 18 * (products + words * hidden) + 8192 * layers * layer + 6 * 2**25 + 0.7e9
    assert answer["gpu"]["memory_gb"] == close(by_hand / 1e9, rel=0.05)


def assert_asked_as_planned(path):
    """Questions and lengths of answers are those of the plan, counted in what each checkpoint was asked."""
    planned = plan(path)["evaluation"]
    tables = [
        pq.read_table(file, columns=["task", "item", "cot", "metric", "output_tokens"]).to_pylist()
        for file in (path.with_suffix("") / "store" / "evaluate").glob("*/items.parquet")
    ]
    asked = [len({(r["task"], r["item"], r["cot"]) for r in rows}) for rows in tables]
    told = (planned["checkpoints"], planned["questions"])
    if set(load_study(path).controls) & set(
        MATCHED
    ):  # data may make such an arm the option that it is made from
        assert (len(asked), sum(asked)) <= told
        assert len(asked) > 0.9 * told[0]
    else:
        assert (len(asked), sum(asked)) == told
    written = sum(r["output_tokens"] or 0 for rows in tables for r in rows if r["metric"] == "format")
    assert written <= planned["written_tokens_at_most"]
    assert (written > 0) == (planned["written_tokens_at_most"] > 0)


def test_a_plan_names_tasks_that_no_hub_has(tmp_path):
    (text,) = preset_studies("laptop", scale="gpu").values()
    path = tmp_path / "laptop.yaml"
    path.write_text(text)
    (told,) = [w for w in plan(path)["warnings"] if "no hub has these tasks" in w]
    assert "prontoqa (prontoqa_dev.json)" in told
    assert "cosqa (cosqa_dev.json)" in told
    assert "svamp" not in told
    (tmp_path / "published").mkdir()
    (tmp_path / "published/cosqa_dev.json").write_text("[]")
    path.write_text(text.replace("\nevaluate:", "\nevaluate:\n  data: published"))
    (told,) = [w for w in plan(path)["warnings"] if "no hub has these tasks" in w]
    assert "cosqa" not in told
    assert "published has not what they need" in told
    (read,) = [w for w in plan(path)["warnings"] if "read from the hub" in w]
    assert "published, so" in read
    assert "svamp" in read
    assert "cosqa" not in read


def test_a_plan_says_that_nothing_about_code_is_compared(tmp_path):
    """Both options draw on both domains, so neither is the one without."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    assert not [w for w in plan(path)["warnings"] if "no effect of code" in w]
    mixed = TINY.replace("{prose: 1}", "{prose: 9, programs: 1}").replace(
        "{chat: 1}", "{chat: 9, code_chat: 1}"
    )
    path.write_text(mixed.replace("controls: [token-matched, additive]\n", ""))
    assert [w for w in plan(path)["warnings"] if "no effect of code" in w]


FIRST = [(n, 0) for n in preset_names() if "smoke" in load_preset(n).scales]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "which"), [*FIRST, ("petty2024", 2)])
def test_smoke_runs_end_to_end(tmp_path, name, which):
    """The first study of each preset, and one of another design."""
    if name == "smollm2-tune":
        needs_smollm2()
    file, text = list(preset_studies(name, scale="smoke").items())[which]
    path = tmp_path / file
    path.write_text(text)
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "codestage.cli", "run", str(path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=290,
    )
    assert done.returncode == 0, done.stderr[-2000:]

    results = path.with_suffix("") / "results"
    study = load_study(path)
    assert (results / "report.html").stat().st_size > 10_000
    told = json.loads((results / "runs.json").read_text())
    assert {run["run"] for run in told} == {run.name for run in runs(study)}
    items = pq.read_table(results / "items.parquet", columns=["task", "cot"]).to_pydict()
    assert set(items["task"]) == {task.name for task in load_tasks(study.evaluate.suites)}
    assert set(items["cot"]) <= set(study.evaluate.cot)
    assert_asked_as_planned(path)
    if name == "smollm2-tune":
        for curve in (path.with_suffix("") / "store" / "train").glob("*/curve.parquet"):
            loss = pq.read_table(curve)["loss"][0].as_py()
            assert loss < 4  # nats a token: it knows English before it is tuned
    shutil.rmtree(path.with_suffix(""))
