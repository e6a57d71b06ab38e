"""Records of an invented study, scores with planted effects, for the tests of analysis and report.

Never shipped, never shown as a result.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codestage.evaluate.records import SCHEMA

STAGES = {"pretrain": ["text", "text+code"], "tune": ["text", "uniform", "increase"]}
TASKS = {"coins": "symbolic", "lists": "symbolic", "sums": "arithmetic", "prints": "code"}


def study(seeds=3, odd=""):
    """What `study.json` says. `odd` is added to every name that a user can choose."""
    stages = {s: [o + odd for o in options] for s, options in STAGES.items()}
    arms = [
        {
            "name": f"{a}/{b}",
            "role": "grid",
            "control": None,
            "against": None,
            "factors": {"pretrain": a, "tune": b},
            "tokens": {"pretrain": 100, "tune": 50},
        }
        for a in stages["pretrain"]
        for b in stages["tune"]
    ]
    return {
        "name": "invented" + odd,
        "seeds": list(range(seeds)),
        "stages": list(STAGES),
        "options": stages,
        "code_options": {s: options[1:] for s, options in stages.items()},
        "schedules": {
            s: {o: "phases" if o.startswith("increase") else "mix" for o in options}
            for s, options in stages.items()
        },
        "arms": arms,
        "tasks": [
            {"name": n + odd, "domain": d, "chance": 0.25, "metric": "acc", "cot": ["off"], "items": 200}
            for n, d in TASKS.items()
        ],
    }


def runs(told):
    """What `runs.json` says: every run drew what was planned."""
    return [
        {
            "run": f"{arm['name']}#{seed}",
            "arm": arm["name"],
            "seed": seed,
            "role": arm["role"],
            "factors": arm["factors"],
            "stages": [
                {
                    "name": stage,
                    "kind": stage,
                    "option": option,
                    "tokens_planned": {"prose": 100},
                    "tokens_realised": {"prose": 100},
                    "epochs": {"prose": 0.5},
                    "seconds": 2.0,
                }
                for stage, option in arm["factors"].items()
            ],
        }
        for arm in told["arms"]
        for seed in told["seeds"]
    ]


def write(
    folder, *, pretrain=0.0, tune=0.0, interaction=0.0, seeds=3, items=200, rng_seed=0, base=0.5, odd=""
):
    """A results folder whose accuracies differ by the planted effects (shares, not points)."""
    rng = np.random.default_rng(rng_seed)
    told = study(seeds, odd)
    rows = []
    for task, domain in TASKS.items():
        difficulty = rng.uniform(-0.2, 0.2, items)
        for seed in range(seeds):
            chance = rng.uniform(0, 1, items)  # shared by arms: scores of one item go together
            luck = {a["name"]: rng.normal(0, 0.01) for a in told["arms"]}
            for arm in told["arms"]:
                code = [o != told["options"][s][0] for s, o in arm["factors"].items()]
                level = base + pretrain * code[0] + tune * code[1] + interaction * all(code)
                own = rng.uniform(0, 1, items)
                draw = np.where(rng.uniform(0, 1, items) < 0.7, chance, own)
                right = draw < level + difficulty + luck[arm["name"]]
                rows += [
                    {
                        "run": f"{arm['name']}#{seed}", "arm": arm["name"], "seed": seed,
                        "stage": "tune", "tokens": 150, "task": task + odd, "suite": "x", "domain": domain,
                        "item": f"{task}-{i}", "cot": "off", "metric": "acc", "value": float(r),
                        "status": "ok",
                        "output": odd,
                    }
                    for i, r in enumerate(right)
                ]  # fmt: skip
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "study.json").write_text(json.dumps(told))
    (results / "runs.json").write_text(json.dumps(runs(told)))
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), results / "items.parquet")
    return folder
