"""The questions of a study, each as weights over its arms.

Main effects average over the other stages' options, so every cell of the grid counts alike.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any


@dataclass(frozen=True)
class Contrast:
    """A difference between arms: weights that sum to zero.

    With `cot` = (a, b) it is instead the mean of mode b minus that of mode a over `weights` that sum
    to one. With `outside` it is asked of the tasks outside that domain only.
    """

    name: str
    label: str
    family: str
    weights: Mapping[str, float]
    cot: tuple[str, str] | None = None
    outside: str | None = None


def contrasts(study: Mapping[str, Any]) -> list[Contrast]:
    """Every contrast that the study's arms allow, in reading order."""
    found = [
        *_main_effects(study),
        *_interactions(study),
        *_simple_effects(study),
        *_schedules(study),
        *_controls(study),
        *_budgets(study),
        *_cot(study),
        *_transfer(study),
    ]
    return list({c.name: c for c in found}.values())


def _grid(study: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [arm for arm in study["arms"] if arm["role"] == "grid"]


def _mean(arms: list[Mapping[str, Any]], sign: float = 1.0) -> dict[str, float]:
    return {arm["name"]: sign / len(arms) for arm in arms}


def _difference(plus: list[Mapping[str, Any]], minus: list[Mapping[str, Any]]) -> dict[str, float]:
    """Mean of `plus` less mean of `minus`."""
    weights = _mean(plus)
    for name, weight in _mean(minus, -1.0).items():
        weights[name] = weights.get(name, 0.0) + weight
    return weights


def _sides(
    study: Mapping[str, Any], stage: str, **fixed: str
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Grid arms with code at `stage`, and those with its first option; other stages as `fixed`."""
    base = study["options"][stage][0]
    arms = [a for a in _grid(study) if all(a["factors"][k] == v for k, v in fixed.items())]
    foreign = set(study["code_options"][stage])
    code = [a for a in arms if a["factors"][stage] in foreign]
    return code, [a for a in arms if a["factors"][stage] == base]


def _main_effects(study: Mapping[str, Any]) -> Iterator[Contrast]:
    for stage in study["stages"]:
        code, base = _sides(study, stage)
        if code and base:
            yield Contrast(f"code@{stage}", f"code at {stage}", stage, _difference(code, base))


def _interactions(study: Mapping[str, Any]) -> Iterator[Contrast]:
    """Whether code at one stage helps more where there was code at the other."""
    for first, second in combinations(study["stages"], 2):
        base = study["options"][first][0]
        code = study["code_options"][first]
        if not code or not study["code_options"][second]:
            continue
        with_code = [_sides(study, second, **{first: option}) for option in code]
        on = _difference([a for c, _ in with_code for a in c], [a for _, b in with_code for a in b])
        off = _difference(*_sides(study, second, **{first: base}))
        weights = {k: on.get(k, 0.0) - off.get(k, 0.0) for k in {**on, **off}}
        yield Contrast(
            f"{first}×{second}", f"interaction of {first} and {second}", "interaction", weights
        )


def _simple_effects(study: Mapping[str, Any]) -> Iterator[Contrast]:
    """One option of one stage against the first, with every other stage on its first option."""
    for stage in study["stages"]:
        if len(study["stages"]) == 1 and len(study["code_options"][stage]) < 2:
            continue  # that is the main effect
        fixed = {s: study["options"][s][0] for s in study["stages"] if s != stage}
        told = ", ".join(f"{o} at {s}" for s, o in fixed.items())
        code, base = _sides(study, stage, **fixed)
        by_option: dict[str, list[Mapping[str, Any]]] = {}
        for arm in code:
            by_option.setdefault(arm["factors"][stage], []).append(arm)
        for option, arms in by_option.items() if base else ():
            against = f"{option} against {study['options'][stage][0]} at {stage}"
            yield Contrast(
                # an option may be called "code", as the main effect is
                f"{option}@{stage}|{told}" if told or option == "code" else f"{option}@{stage}",
                f"{against}, with {told}" if told else against,
                "simple",
                _difference(arms, base),
            )


def _schedules(study: Mapping[str, Any]) -> Iterator[Contrast]:
    """Orders of one stage with equal totals, pair by pair; a study that tells no totals has none that differ."""
    for stage in study["stages"]:
        kinds = study["schedules"][stage]
        totals = study.get("totals", {}).get(stage, {})
        ordered = [o for o in study["code_options"][stage] if kinds[o] == "phases"]
        plain = [o for o in study["code_options"][stage] if kinds[o] == "mix"]
        for other, option in combinations([*plain, *ordered] if ordered else [], 2):
            if option not in ordered or totals.get(option) != totals.get(other):
                continue
            plus = [a for a in _grid(study) if a["factors"][stage] == option]
            minus = [a for a in _grid(study) if a["factors"][stage] == other]
            name = f"{option}-{other}@{stage}"
            label = f"{option} against {other} at {stage}"
            yield Contrast(name, label, "schedule", _difference(plus, minus))


def _controls(study: Mapping[str, Any]) -> Iterator[Contrast]:
    arms = {arm["name"]: arm for arm in study["arms"]}
    for arm in arms.values():
        if arm["role"] != "control":
            continue
        against = arms.get(arm["against"])
        if against:
            label = f"{arm['name']} against {against['name']}"
            yield Contrast(label, label, "control", _difference([arm], [against]))
    added = [a for a in arms.values() if a["control"] == "additive"]
    matched = [a for a in arms.values() if a["control"] == "token-matched"]
    for arm in added:
        for other in matched:
            if arm["tokens"] == other["tokens"]:
                label = f"{arm['name']} against {other['name']} (equal tokens)"
                yield Contrast(label, label, "control", _difference([arm], [other]))


def _budgets(study: Mapping[str, Any]) -> Iterator[Contrast]:
    """The main effects where one stage had a shorter budget."""
    ladder = [arm for arm in study["arms"] if arm["role"] == "ladder"]
    whole = {stage: max(arm["tokens"][stage] for arm in _grid(study)) for stage in study["stages"]}
    for short in study["stages"]:
        for tokens in sorted({arm["tokens"][short] for arm in ladder}):
            arms = [a for a in ladder if a["tokens"] == whole | {short: tokens}]
            for stage in study["stages"] if arms and tokens < whole[short] else ():
                code, base = _sides({**study, "arms": [{**a, "role": "grid"} for a in arms]}, stage)
                if code and base:
                    yield Contrast(
                        f"code@{stage}|{short}={tokens}",
                        f"code at {stage}, with {tokens:,} tokens at {short}",
                        "budget",
                        _difference(code, base),
                    )


def _cot(study: Mapping[str, Any]) -> Iterator[Contrast]:
    modes = list(dict.fromkeys(mode for task in study["tasks"] for mode in task["cot"]))
    if "off" not in modes:
        return
    for mode in modes:
        if mode != "off":
            label = f"reasoning {mode} against none"
            yield Contrast(f"cot-{mode}", label, "cot", _mean(_grid(study)), ("off", mode))


def _transfer(study: Mapping[str, Any]) -> Iterator[Contrast]:
    """Main effects on the tasks that are not code themselves: does code help or harm elsewhere?"""
    domains = {task["domain"] for task in study["tasks"]}
    if "code" not in domains or len(domains) < 2:
        return
    for effect in _main_effects(study):
        yield Contrast(
            f"transfer-{effect.name}",
            f"{effect.label}, on tasks outside code",
            "transfer",
            effect.weights,
            outside="code",
        )
