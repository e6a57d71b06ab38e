"""Records of an invented study with doses, mixtures and shorter budgets, for the tests.

Never shipped, never shown as a result.
"""

import json
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codestage.analyse.records import Records
from codestage.evaluate.records import SCHEMA

TASKS = {"sums": "arithmetic", "chains": "arithmetic", "coins": "symbolic", "facts": "knowledge"}
DOSES = {"text": 0.0, "tenth": 0.1, "quarter": 0.25, "most": 0.4, "half": 0.5}
TUNE = {"text": 0.0, "code": 0.3}
WHOLE = {"pretrain": 8_000_000, "tune": 400_000}


def study(*, seeds=3, items=80, budgets=(), doses=None, odd="", model=None):
    """What `study.json` says: doses of code at pre-training, with and without code at tuning."""
    doses = DOSES if doses is None else doses
    stages = {"pretrain": list(doses), "tune": list(TUNE)}
    arms = []
    for tokens in (WHOLE["pretrain"], *budgets):
        whole = tokens == WHOLE["pretrain"]
        for a, b in product(*stages.values()):
            name = f"{a}{odd}/{b}{odd}" if whole else f"{a}{odd}@{tokens}/{b}{odd}"
            arms.append(
                {
                    "name": name,
                    "role": "grid" if whole else "ladder",
                    "control": None,
                    "against": None,
                    "factors": {"pretrain": a + odd, "tune": b + odd},
                    "tokens": WHOLE | {"pretrain": tokens},
                }
            )
    options = {s: [o + odd for o in names] for s, names in stages.items()}
    return {
        "name": "invented" + odd,
        "seeds": list(range(seeds)),
        "stages": list(stages),
        "options": options,
        "code_options": {s: names[1:] for s, names in options.items()},
        "schedules": {s: dict.fromkeys(names, "mix") for s, names in options.items()},
        "domains": {"prose" + odd: "text", "python" + odd: "code"},
        "arms": arms,
        "model": model or {"family": "llama", "parameters": 533_120, "hidden_size": 128, "layers": 2},
        "tasks": [
            {
                "name": n + odd,
                "domain": d,
                "chance": 0.1,
                "metric": "acc",
                "cot": ["off"],
                "items": items,
            }
            for n, d in TASKS.items()
        ],
    }


def runs(told, *, doses=None, odd=""):
    """What `runs.json` says of the grid and the ladder."""
    shares = {"pretrain": DOSES if doses is None else doses, "tune": TUNE}
    found = []
    for arm, seed in product(told["arms"], told["seeds"]):
        stages = []
        for stage, option in arm["factors"].items():
            total = arm["tokens"][stage]
            code = round(total * shares[stage][option.removesuffix(odd) if odd else option])
            drawn = {"prose" + odd: total - code} | ({"python" + odd: code} if code else {})
            stages.append(
                {
                    "name": stage, "kind": stage, "option": option, "tokens_planned": drawn,
                    "tokens_realised": drawn, "epochs": dict.fromkeys(drawn, 0.5), "seconds": 2.0,
                }
            )  # fmt: skip
        found.append(
            {
                "run": f"{arm['name']}#{seed}", "arm": arm["name"], "seed": seed, "role": arm["role"],
                "factors": arm["factors"], "stages": stages,
            }
        )  # fmt: skip
    return found


def made(told, truth, *, run_sd=0.01, trained_sd=0.0, key=0, doses=None, odd="", metrics=("acc", "bpb")):
    """Records whose mean scores are `truth(metric, task, dose, tune dose, tokens)`: shares, or bits.

    Chance of runs: `run_sd` of each arm, `trained_sd` of each pre-training, whatever its budget and its tunings.
    """
    rng = np.random.default_rng(key)
    shares = DOSES if doses is None else doses
    arms, seeds = told["arms"], told["seeds"]
    scores = {}
    for metric, task in product(metrics, told["tasks"]):
        n = task["items"]
        plain = task["name"].removesuffix(odd) if odd else task["name"]
        hard = rng.normal(0, 0.15, n)
        shared = rng.uniform(0, 1, (len(seeds), n))
        values = np.empty((len(arms), len(seeds), n))
        trained = {
            o: rng.normal(0, trained_sd, len(seeds)) if trained_sd else np.zeros(len(seeds))
            for o in told["options"]["pretrain"]
        }
        for i, arm in enumerate(arms):
            a, b = (arm["factors"][s].removesuffix(odd) if odd else arm["factors"][s] for s in WHOLE)
            mean = truth(metric, plain, shares[a], TUNE[b], arm["tokens"]["pretrain"])
            luck = (
                rng.normal(0, run_sd, len(seeds))[:, None] + trained[arm["factors"]["pretrain"]][:, None]
            )
            if metric == "bpb":
                values[i] = mean + luck + hard + rng.normal(0, 0.05, (len(seeds), n))
            else:
                own = rng.uniform(0, 1, (len(seeds), n))
                drawn = np.where(rng.uniform(0, 1, own.shape) < 0.8, shared, own)
                values[i] = drawn < mean + luck + hard
        scores["tune", "off", task["name"], metric] = values.astype(np.float32)
    names = [a["name"] for a in arms]
    return Records(told, runs(told, doses=doses, odd=odd), names, list(seeds), scores)


def write(folder, records):
    """The results folder of records."""
    told = records.study
    domain = {t["name"]: t["domain"] for t in told["tasks"]}
    columns = {name: [] for name in SCHEMA.names}
    for (stage, cot, task, metric), values in records.scores.items():
        for arm, seed, item in np.ndindex(values.shape):
            row = {
                "run": f"{records.arms[arm]}#{seed}", "arm": records.arms[arm], "seed": seed,
                "stage": stage, "tokens": 1, "task": task, "suite": "x", "domain": domain[task],
                "item": f"{task}-{item}", "cot": cot, "metric": metric,
                "value": float(values[arm, seed, item]), "status": "ok",
            }  # fmt: skip
            for name in SCHEMA.names:
                columns[name].append(row.get(name))
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "study.json").write_text(json.dumps(told))
    (results / "runs.json").write_text(json.dumps(records.runs))
    pq.write_table(pa.table(columns, SCHEMA), results / "items.parquet")
    return folder


def peaked(metric, task, dose, tuned, tokens):
    """Code at pre-training helps most at a quarter on arithmetic, harms facts, does nothing to coins."""
    more = np.log2(tokens / 1e6)
    shape = {"arithmetic": 1.2 * dose - 2.4 * dose**2, "knowledge": -0.25 * dose}.get(TASKS[task], 0.0)
    if metric == "bpb":
        return 1.1 + 0.6 * (tokens / 1e6) ** -0.4 - 0.8 * shape - 0.05 * (tuned > 0)
    return 0.3 + 0.03 * more + shape + 0.02 * (tuned > 0)
