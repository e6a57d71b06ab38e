"""Invented records for the tests of the report: the shape of a study's results, none of its truth.

Never shipped, never shown as a result. `write(folder)` makes a results folder; the options bend
it into other studies (one stage, other names, one seed, no controls, no chain of thought).
"""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TASKS = {  # name: (domain, metric, chance, difficulty as the distance above chance of the base arm)
    "boolean-chain": ("logical", "acc", 0.5, 0.40),
    "family": ("logical", "acc", 0.25, 0.22),
    "holder": ("symbolic", "acc", 0.25, 0.0),
    "coin": ("symbolic", "acc", 0.5, 0.07),
    "last-letters": ("symbolic", "exact_match", 0.0, 0.31),
    "count-objects": ("arithmetic", "acc", 0.25, 0.35),
    "sum-chain": ("arithmetic", "exact_match", 0.0, 0.18),
    "analogy": ("analogical", "acc", 0.25, 0.28),
    "print-output": ("code", "exact_match", 0.0, 0.10),
    "which-line": ("code", "acc", 0.25, 0.0),
    "shuffled-control": ("control", "acc", 0.25, 0.0),
}
COT = {"boolean-chain", "coin", "count-objects", "sum-chain"}


@dataclass(frozen=True)
class World:
    """What the invented study looks like."""

    stages: tuple[str, ...] = ("pretrain", "tune")
    options: dict = field(
        default_factory=lambda: {
            "pretrain": ["text", "text+code"],
            "tune": ["text", "uniform", "increase", "decrease"],
        }
    )
    controls: tuple[str, ...] = ("token-matched", "competitive")
    seeds: int = 3
    items: int = 300
    tasks: dict = field(default_factory=lambda: dict(TASKS))
    cot: bool = True
    curves: bool = True
    truth: dict = field(default_factory=lambda: {"pretrain": 4.2, "tune": 0.8, "interaction": -0.1})
    """Planted effects in points."""


def hostile(text: str) -> World:
    """The same study with `text` as every name that a user or a model can choose."""
    world = World(items=40)
    names = {f"{text}{i}": v for i, v in enumerate(world.tasks.values())}
    options = {s: [f"{text}{o}" for o in names] for s, names in world.options.items()}
    return replace(world, tasks=names, options=options)


def arms(world: World) -> list[dict]:
    cells = [{}]
    for stage in world.stages:
        cells = [{**c, stage: o} for c in cells for o in world.options[stage]]
    grid = [
        {
            "name": "/".join(c.values()),
            "role": "grid",
            "control": None,
            "against": None,
            "factors": c,
        }
        for c in cells
    ]
    first = world.stages[0]
    rest = [world.options[s][0] for s in world.stages[1:]]
    code = "/".join([world.options[first][-1], *rest])
    made = []
    for control in world.controls:
        option = f"{world.options[first][0]}@{control}"
        factors = {**grid[0]["factors"], first: option}
        made.append(
            {
                "name": "/".join([option, *rest]),
                "role": "control",
                "control": control,
                "against": code,
                "factors": factors,
            }
        )
    return grid + made


def share(world: World, arm: dict, task: str) -> float:
    """The invented true score of an arm."""
    _, _, chance, above = world.tasks[task]
    if above == 0:
        return chance
    code = [o != world.options[s][0] and "@" not in o for s, o in arm["factors"].items()]
    points = sum(world.truth.get(s, 0.0) * c for s, c in zip(arm["factors"], code, strict=True))
    points += world.truth.get("interaction", 0.0) * all(code)
    return min(0.99, max(0.01, chance + above + points / 100))


def p_of(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def verdict(low: float, high: float, p: float, margin: float = 1.5) -> str:
    if p < 0.05 and low > 0:
        return "up"
    if p < 0.05 and high < 0:
        return "down"
    return "equivalent" if -margin < low and high < margin else "open"


def contrasts(world: World) -> list[tuple[str, str, str, dict[str, float]]]:
    """(id, label, family, weights over arms)."""
    made = []
    grid = [a for a in arms(world) if a["role"] == "grid"]
    signs = {}
    for stage in world.stages:
        base = world.options[stage][0]
        code = [a for a in grid if a["factors"][stage] != base]
        text = [a for a in grid if a["factors"][stage] == base]
        weights = {a["name"]: 1 / len(code) for a in code} | {a["name"]: -1 / len(text) for a in text}
        signs[stage] = weights
        made.append((stage, f"code at {stage}", stage, weights))
    if len(world.stages) == 2 and all(len(world.options[s]) > 1 for s in world.stages):
        first, second = world.stages
        crossed = {}
        for a in grid:
            hit = [a["factors"][s] != world.options[s][0] for s in (first, second)]
            n = len(world.options[second]) - 1
            crossed[a["name"]] = (1 if hit[0] == hit[1] else -1) / (n if hit[1] else 1)
        made.append(("interaction", f"{first} code × {second} code", "interaction", crossed))
        last = world.options[second][1:]
        for other in last[1:]:
            weights = {}
            for a in grid:
                weights[a["name"]] = {other: 0.5, last[0]: -0.5}.get(a["factors"][second], 0.0)
            made.append((f"{other}-{last[0]}", f"{other} against {last[0]}", "schedule", weights))
    for a in arms(world):
        if a["role"] == "control":
            label = f"code against {a['control']}"
            made.append((a["control"], label, "control", {a["against"]: 1.0, a["name"]: -1.0}))
    return made


def effect_rows(world: World, rng: np.random.Generator) -> list[dict]:
    by_name = {a["name"]: a for a in arms(world)}
    last = world.stages[-1]
    groups = [("overall", "overall", list(world.tasks))]
    domains = list(dict.fromkeys(v[0] for v in world.tasks.values()))
    groups += [("domain", d, [t for t, v in world.tasks.items() if v[0] == d]) for d in domains]
    groups += [("task", t, [t]) for t in world.tasks]
    rows = []
    for contrast, label, family, weights in contrasts(world):
        for level, name, tasks in groups:
            true = 100 * np.mean(
                [sum(w * share(world, by_name[a], t) for a, w in weights.items()) for t in tasks]
            )
            noise = 100 * math.sqrt(
                sum(w * w for w in weights.values()) * 0.15 / (world.items * world.seeds * len(tasks))
            )
            metrics = {
                ("acc" if level != "task" else world.tasks[name][1]): 1.0,
                "prob": 0.4,
                "bpb": 0.004,
            }
            for metric, scale in metrics.items():
                se = noise * scale
                estimate = true * scale * 0.8 + rng.normal(0, se)
                low, high, p = estimate - 1.96 * se, estimate + 1.96 * se, p_of(estimate / se)
                adjusted = min(1.0, p * 3)
                rows.append(
                    {
                        "contrast": contrast,
                        "label": label,
                        "family": family,
                        "level": level,
                        "name": name,
                        "metric": metric,
                        "stage": last,
                        "cot": "off",
                        "estimate": estimate,
                        "low": low,
                        "high": high,
                        "p": p,
                        "p_adjusted": adjusted,
                        "n_items": world.items * len(tasks),
                        "seeds": world.seeds,
                        "mde": 2.8 * se,
                        "unit": "bits" if metric == "bpb" else "points",
                        "verdict": verdict(low, high, adjusted, 1.5 if metric != "bpb" else 0.02),
                    }
                )
    return rows + cot_rows(world, rng) + transfer_rows(rows)


def cot_rows(world: World, rng: np.random.Generator) -> list[dict]:
    rows = []
    if not world.cot:
        return rows
    for mode, true in (("supplied", 6.0), ("generated", -0.5)):
        for level, name in [
            ("overall", "overall"),
            *(("task", t) for t in world.tasks if t in COT),
        ]:
            se = 1.1 if level == "overall" else 2.6
            estimate = true + rng.normal(0, se)
            low, high, p = estimate - 1.96 * se, estimate + 1.96 * se, p_of(estimate / se)
            rows.append(
                {
                    "contrast": f"cot-{mode}",
                    "label": f"chain of thought {mode} against off",
                    "family": "cot",
                    "level": level,
                    "name": name,
                    "metric": "acc" if level != "task" else world.tasks[name][1],
                    "stage": world.stages[-1],
                    "cot": mode,
                    "estimate": estimate,
                    "low": low,
                    "high": high,
                    "p": p,
                    "p_adjusted": min(1, 2 * p),
                    "n_items": 1200,
                    "seeds": world.seeds,
                    "mde": 2.8 * se,
                    "unit": "points",
                    "verdict": verdict(low, high, min(1, 2 * p)),
                }
            )
    return rows


def transfer_rows(rows: list[dict]) -> list[dict]:
    picked = [
        r
        for r in rows
        if r["level"] == "task" and r["family"] == "tune" and r["metric"] not in ("prob", "bpb")
    ]
    return [
        r
        | {
            "family": "transfer",
            "contrast": "transfer",
            "label": "code at tune, on tasks without code",
        }
        for r in picked
        if not r["name"].startswith(("print", "which"))
    ]


def mean_rows(world: World, rng: np.random.Generator) -> list[dict]:
    rows = []
    domains = list(dict.fromkeys(v[0] for v in world.tasks.values()))
    for arm in arms(world):
        for mode in ("off", "supplied", "generated") if world.cot else ("off",):
            tasks = [t for t in world.tasks if mode == "off" or t in COT]
            groups = [("overall", "overall", tasks)]
            groups += [("domain", d, [t for t in tasks if world.tasks[t][0] == d]) for d in domains]
            groups += [("task", t, [t]) for t in tasks]
            for level, name, names in groups:
                if not names:
                    continue
                n = world.items * world.seeds * len(names)
                true = float(np.mean([share(world, arm, t) for t in names]))
                true += {"off": 0.0, "supplied": 0.06, "generated": -0.01}[mode]
                se = math.sqrt(max(true * (1 - true), 0.01) / n)
                mean = min(1.0, max(0.0, true + rng.normal(0, se)))
                chance = float(np.mean([world.tasks[t][2] for t in names]))
                metric = world.tasks[name][1] if level == "task" else "acc"
                rows.append(
                    {
                        "arm": arm["name"],
                        "stage": world.stages[-1],
                        "cot": mode,
                        "level": level,
                        "name": name,
                        "metric": metric,
                        "mean": mean,
                        "low": mean - 1.96 * se,
                        "high": mean + 1.96 * se,
                        "n_items": n,
                        "seeds": world.seeds,
                        "chance": chance,
                        "above_chance": bool(mean - 2.2 * se > chance),
                    }
                )
    return rows


def study(world: World) -> dict:
    return {
        "name": "invented-grid",
        "seeds": list(range(world.seeds)),
        "stages": list(world.stages),
        "options": world.options,
        "arms": arms(world),
        "tasks": [
            {
                "name": t,
                "suite": "world",
                "domain": d,
                "metric": m,
                "metrics": [m, "prob", "bpb"],
                "chance": c,
                "items": world.items,
                "cot": ["off", "supplied", "generated"] if world.cot and t in COT else ["off"],
            }
            for t, (d, m, c, _) in world.tasks.items()
        ],
        "domains": {"prose": "text", "python": "code", "chat": "text", "code_chat": "code"},
        "code_options": {s: o[1:] for s, o in world.options.items()},
        "schedules": {"tune": ["uniform", "increase", "decrease"]},
        "machine": {"cores": 2, "memory_gb": 8, "device": "cpu", "system": "Linux"},
        "cost": {
            "seconds": 780.0,
            "tokens_trained": 61_000_000,
            "tokens_unshared": 170_000_000,
            "flops": 4.1e14,
        },
        "versions": {"codestage": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
    }


def run_rows(world: World) -> list[dict]:
    rows = []
    for arm in arms(world):
        for seed in range(world.seeds):
            stages = []
            for i, stage in enumerate(world.stages):
                option, n = arm["factors"][stage], 3_000_000 // (1 + 5 * i)
                names = ("prose", "python") if i == 0 else ("chat", "code_chat")
                code = option != world.options[stage][0] and "@" not in option
                planned = {names[0]: n - n // 3, names[1]: n // 3} if code else {names[0]: n}
                stages.append(
                    {
                        "name": stage,
                        "kind": "pretrain" if i == 0 else "tune",
                        "option": option,
                        "tokens_planned": planned,
                        "tokens_realised": planned,
                        "epochs": {k: round(v / 2_500_000, 3) for k, v in planned.items()},
                        "seconds": 61.5,
                        "flops": 6.0 * 900_000 * n,
                    }
                )
            rows.append(
                {
                    "run": f"{arm['name']}#{seed}",
                    "arm": arm["name"],
                    "seed": seed,
                    "role": arm["role"],
                    "control": arm["control"],
                    "against": arm["against"],
                    "factors": arm["factors"],
                    "stages": stages,
                }
            )
    return rows


def curve_table(world: World, rng: np.random.Generator) -> pa.Table:
    columns = {"arm": [], "seed": [], "stage": [], "tokens": [], "loss": [], "lr": []}
    for arm in arms(world):
        for seed in range(world.seeds):
            for i, stage in enumerate(world.stages):
                end = 3_000_000 // (1 + 5 * i)
                for step in range(1, 41):
                    code = arm["factors"][stage] != world.options[stage][0]
                    loss = (
                        (1.2 if i else 1.9)
                        + (5.5 if i == 0 else 0.9) * math.exp(-step / 7)
                        - 0.08 * code
                    )
                    values = (
                        arm["name"],
                        seed,
                        stage,
                        end * step // 40,
                        loss + rng.normal(0, 0.02),
                        1e-3 * (1 - step / 40),
                    )
                    for column, value in zip(columns.values(), values, strict=True):
                        column.append(value)
    return pa.table(columns)


def item_table(world: World, rng: np.random.Generator) -> pa.Table:
    """One arm's answers suffice for what the report reads from the items: their status."""
    columns = {
        "run": [],
        "task": [],
        "cot": [],
        "metric": [],
        "value": [],
        "status": [],
        "output": [],
    }
    for task in world.tasks:
        for mode in ("off", "supplied", "generated") if world.cot and task in COT else ("off",):
            for _ in range(60):
                bad = mode == "generated" and rng.random() < 0.2
                values = (
                    "r",
                    task,
                    mode,
                    "acc",
                    None if bad else 1.0,
                    "unparsed" if bad else "ok",
                    "out",
                )
                for column, value in zip(columns.values(), values, strict=True):
                    column.append(value)
    return pa.table(columns)


def write(folder: Path, world: World | None = None) -> Path:
    """A results folder under `folder`; returns `folder`."""
    world = world or World()
    out = folder / "results"
    out.mkdir(parents=True)
    rng = np.random.default_rng(7)
    effects = {
        "study": "invented-grid",
        "seeds": world.seeds,
        "alpha": 0.05,
        "arms": mean_rows(world, rng),
        "effects": effect_rows(world, rng),
        "notes": ["These records are invented for a test."],
    }
    for name, value in (("effects", effects), ("study", study(world)), ("runs", run_rows(world))):
        (out / f"{name}.json").write_text(json.dumps(value, allow_nan=False))
    pq.write_table(item_table(world, rng), out / "items.parquet")
    if world.curves:
        pq.write_table(curve_table(world, rng), out / "curves.parquet")
    return folder
