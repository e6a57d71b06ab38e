"""Invented studies as the viewer finds them: records with outputs, scores of choices and frozen items.

Never shipped, never shown as a result.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from records_fixture import TASKS, write
from starlette.testclient import TestClient

from codestage.analyse.run import analyse
from codestage.engine.progress import status as read_status
from codestage.evaluate.records import SCHEMA
from codestage.report.viewer.app import make_app

CHOICES = ["red", "green", "blue"]
HOSTILE = '<img src=x onerror="hacked=1"><script>hacked=1</script>\'"&{{7*7}}\u202e%2e%2e/\\'
"""Goes after every name that a user can choose, and is what the models wrote."""


def viewed(folder, *, odd="", rng_seed=0, seeds=3, items=40, store=True, effects=True, code=0.15):
    """A finished study in `folder`. `odd` is added to names, outputs, choices and prompts."""
    write(folder, pretrain=code, seeds=seeds, items=items, rng_seed=rng_seed, odd=odd)
    results = folder / "results"
    rows = pq.read_table(results / "items.parquet").to_pylist()
    rng = np.random.default_rng(rng_seed)
    names = [choice + odd for choice in CHOICES]
    made = []
    for row in rows:
        gold = int(row["item"].rsplit("-", 1)[1]) % len(names)
        scores = rng.normal(-5, 1, len(names))
        said = gold if row["value"] else (gold + 1) % len(names)
        scores[said] = scores.max() + 1
        row |= {"gold": names[gold], "output": names[said], "choice_scores": scores.tolist()}
        row |= {"prompt_hash": f"{gold:016x}", "prompt_tokens": 12, "output_tokens": 0}
        odds = np.exp(scores - scores.max())
        made += [row, row | {"metric": "prob", "value": float(odds[gold] / odds.sum())}]
        steps = f"First {row['arm']} and then\n{names[said]}"
        made.append(
            row | {"cot": "generated", "output": steps, "choice_scores": None, "output_tokens": 9}
        )
    pq.write_table(pa.Table.from_pylist(made, SCHEMA), results / "items.parquet")
    if store:
        frozen(folder / "store" / "items" / "0" / "items.json", names, odd, items)
    if effects:
        (results / "effects.json").write_text(json.dumps(analyse(folder), allow_nan=False))
    return folder


def frozen(path, names, odd, items):
    """The items as they were asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            {
                task + odd: [
                    {"id": f"{task}-{i}", "instruction": f"Which is {i}?{odd}", "choices": names,
                     "answer": names[i % len(names)], "rationale": f"It is so.{odd}", "gold": i % len(names),
                     "aliases": [], "channel": [], "lettered": False, "code": {}}
                    for i in range(items)
                ]
                for task in TASKS
            }
        )
    )  # fmt: skip


def status_of(state="running", done=3, waiting=7, **more):
    """What `work/status.json` holds while a study runs."""
    return {
        "study": "invented", "state": state,
        "steps": {"done": done, "running": 1, "waiting": waiting},
        "tokens_done": 1000 * done, "tokens_total": 11000, "tokens_per_second": 1234, "seconds": 61.5,
        "seconds_left": 90,
        "running": [{"kind": "train", "step": "train text+code#0", "tokens": 512, "loss": 3.25}],
        "warnings": ["a worker died"],
    } | more  # fmt: skip


TOKEN = "the-token-of-this-test"
A, B = "text/text", "text+code/text"


def browser(*folders, once=None, opened=True):
    """A client as a browser is one: with cookies, on 127.0.0.1."""
    app = make_app(folders, read_status, TOKEN, once)
    client = TestClient(app, base_url="http://127.0.0.1:8123", raise_server_exceptions=True)
    if opened:
        assert client.get(f"/?token={TOKEN}").status_code == 200
    return client


def asked(**more):
    sides = {"arm_a": A, "arm_b": B, "stage_a": "tune", "stage_b": "tune", "cot": "off", "metric": "acc"}
    return {k: v for k, v in (sides | more).items() if v is not None}


def table(folder):
    return pq.read_table(folder / "results" / "items.parquet").to_pandas()
