"""From a study to its arms: the full factorial of the stages' options, and the controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from typing import Literal

from codestage.errors import UserError
from codestage.study.curves import Pieces
from codestage.study.identity import digest
from codestage.study.schedule import Phase, phases, trunk_phases
from codestage.study.schema import MATCHED, AdapterSpec, LRSpec, OptimizerSpec, StageSpec, Study


@dataclass(frozen=True)
class StagePlan:
    """One stage of one arm, fully resolved: every field is identity."""

    name: str
    kind: str
    option: str
    tokens: int
    phases: tuple[Phase, ...]
    order: Literal["even", "random"]
    seq_len: int
    batch_tokens: int
    micro_batch_tokens: int
    lower_micro_batch: bool
    """Whether fewer tokens may be computed at once where memory does not do."""
    optimizer: OptimizerSpec
    adapter: AdapterSpec | None
    lr: LRSpec
    matched: str = ""
    """One of `MATCHED` as long as tokens and phases are those of the option itself (see `match`)."""


Role = Literal["grid", "control", "ladder"]


@dataclass(frozen=True)
class Arm:
    """One chain of stages. `control` names the control that made it, `against` its partner arm.

    An arm of the ladder is one of the grid with a shorter budget in one stage.
    """

    name: str
    factors: Mapping[str, str]
    role: Role
    stages: tuple[StagePlan, ...]
    control: str | None = None
    against: str | None = None


@dataclass(frozen=True)
class Run:
    """An arm with a seed."""

    arm: Arm
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm.name}#{self.seed}"


def expand(study: Study) -> list[Arm]:
    """All arms, grid first, in file order. Names are unique."""
    arms = [_arm(stages, "grid") for stages in _cells(study)]
    for name, spec in study.stages.items():
        for tokens in spec.budgets:
            arms += [_arm(stages, "ladder") for stages in _cells(study, {name: tokens})]
    if not study.controls:
        return arms
    told: dict[int, str] = {}
    known = {_content(arm.stages, told) for arm in arms}
    for control in study.controls:
        for arm in _controls(study, control):
            content = _content(arm.stages, {})
            if content not in known:
                known.add(content)
                arms.append(arm if all(arm.name != a.name for a in arms) else _told_apart(arm))
    return arms


def _told_apart(arm: Arm) -> Arm:
    """An arm under a name that says how long its changed stage is: doses have token-matched arms of their own."""
    stages = [
        replace(s, option=f"{s.option}-{count_text(s.tokens)}") if "@" in s.option else s
        for s in arm.stages
    ]
    told = _arm(stages, arm.role)
    return replace(told, control=arm.control, against=arm.against)


def _cells(study: Study, budgets: Mapping[str, int] | None = None) -> list[tuple[StagePlan, ...]]:
    """The full factorial of options, with shorter budgets in some stages."""
    asked = budgets or {}
    options = []
    for name, spec in study.stages.items():
        told = f"@{count_text(asked[name])}" if name in asked else ""
        tokens = asked.get(name, 0)
        options.append([_plan(study, name, o + told, tokens=tokens) for o in spec.options])
    return list(product(*options))


def count_text(count: int) -> str:
    """A count as people write it in a study: 2500000 is 2.5M."""
    for letter, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size and count * 1000 % size == 0:
            return f"{count / size:g}{letter}"
    return str(count)


def runs(study: Study, more: Mapping[str, Sequence[int]] | None = None) -> list[Run]:
    """Every arm with every seed, and with the seeds that `more` gives to it by name."""
    extra = more or {}
    return [Run(arm, s) for arm in expand(study) for s in (*study.seeds, *extra.get(arm.name, ()))]


def is_code(study: Study, stage: StageSpec, source: str) -> bool:
    """Whether a source's domain is foreign to the stage's first option (the base of its contrasts)."""
    base = next(iter(stage.options.values()))
    home = {study.sources[s].domain for mix in base.mixes for s, share in mix.items() if share}
    return study.sources[source].domain not in home


def code_share(study: Study, stage: StageSpec, mixes: Pieces) -> Fraction:
    """Share of a stage's tokens that comes from domains foreign to its first option."""
    total = sum(share for share, _ in mixes)
    code = Fraction(0)
    for share, mix in mixes:
        weight = sum(mix.values())
        code += share * sum(w for s, w in mix.items() if is_code(study, stage, s)) / weight
    return code / total


def option_mixes(stage: StageSpec, option: str) -> Pieces:
    """(share of the stage, mixture) of an option, in order."""
    return stage.options[option].pieces(stage.lr)


def _plan(
    study: Study, name: str, option: str, *, mixes: Pieces | None = None, tokens: int = 0
) -> StagePlan:
    spec = study.stages[name]
    base = option.partition("@")[0]
    tokens = tokens or spec.tokens
    order = {source: i for i, source in enumerate(study.sources)}
    mixes = mixes or option_mixes(spec, base)
    ordered = [(s, dict(sorted(m.items(), key=lambda kv: order[kv[0]]))) for s, m in mixes]
    return StagePlan(
        name=name,
        kind=spec.kind,
        option=option,
        tokens=tokens,
        phases=_phases(spec, base, tokens, ordered),
        order="even",
        seq_len=spec.seq_len,
        batch_tokens=spec.batch_tokens,
        micro_batch_tokens=spec.micro_batch_tokens
        if isinstance(spec.micro_batch_tokens, int)
        else spec.batch_tokens,
        lower_micro_batch=spec.micro_batch_tokens == "auto",
        optimizer=spec.optimizer,
        adapter=spec.adapter,
        lr=spec.lr,
    )


def _phases(spec: StageSpec, option: str, tokens: int, mixes: Pieces) -> tuple[Phase, ...]:
    """Phases of a stage; where shorter budgets branch, cut at the places where they leave."""
    known = spec.options.get(option)
    late = known is not None and known.curve == "cooldown-only"
    if not spec.budgets or not (len(mixes) == 1 or late):
        return phases(tokens, mixes)
    end = spec.trunk(tokens)
    leave = [cut for cut in map(spec.trunk, spec.budgets) if cut < end]
    return trunk_phases(tokens, mixes[0][1], mixes[-1][1], end=end, leave=leave)


def _arm(stages: Sequence[StagePlan], role: Role) -> Arm:
    grid = role != "ladder"
    return Arm(
        name="/".join(stage.option for stage in stages),
        factors={s.name: s.option if grid else s.option.partition("@")[0] for s in stages},
        role=role,
        stages=tuple(stages),
    )


def _content(stages: Sequence[StagePlan], told: dict[int, str]) -> tuple[str, ...]:
    """Identity of stages without the names that people gave to their options.

    `told` keeps it of stages that many arms hold, by their `id`.
    """
    for stage in stages:
        if id(stage) not in told:
            told[id(stage)] = digest(replace(stage, option=""))
    return tuple(told[id(stage)] for stage in stages)


def _controls(study: Study, control: str) -> list[Arm]:
    """Arms of one kind of control: one changed stage, the first option in every other stage."""
    arms = []
    for position, (name, spec) in enumerate(study.stages.items()):
        first = next(iter(spec.options))
        for option in spec.options:
            plan = _control_plan(study, name, option, control)
            if plan is None:
                continue
            stages = [_plan(study, n, next(iter(s.options))) for n, s in study.stages.items()]
            against = list(stages)
            against[position] = _plan(study, name, first if control != "random-order" else option)
            stages[position] = plan
            arm = _arm(stages, "control")
            partner = "/".join(stage.option for stage in against)
            arms.append(replace(arm, control=control, against=partner))
    return arms


def _control_plan(study: Study, name: str, option: str, control: str) -> StagePlan | None:
    """The changed stage, or None where this control says nothing about this option."""
    spec = study.stages[name]
    mixes = option_mixes(spec, option)
    code = code_share(study, spec, mixes)
    first = next(iter(spec.options))
    if control == "random-order":
        if len(mixes) == 1:
            return None
        return replace(_plan(study, name, f"{option}@random-order"), order="random")
    if control == "schedule-only":
        names = list(study.stages)
        if spec.kind not in ("continue", "cooldown") or name == names[0] or option != first:
            return None
        before = study.stages[names[names.index(name) - 1]]
        kept = option_mixes(before, next(iter(before.options)))[-1:]
        return _plan(study, name, f"{option}@schedule-only", mixes=kept)
    if control in MATCHED:
        examples = control == "example-matched"
        if option == first or code == 0 or (examples and spec.kind != "tune"):
            return None
        return replace(_plan(study, name, f"{option}@{control}"), matched=control)
    if spec.kind == "tune" or code == 0:
        return None  # doses are controlled where code competes with text for pre-training tokens
    if code == 1:
        raise UserError(
            f"control {control}: option {option!r} of stage {name!r} is code alone, so no amount of "
            "added tokens keeps its text; leave the control out or give the option some text"
        )
    larger = round(spec.tokens / (1 - code))  # the nearest, so that the text is kept to the token
    if control == "competitive":
        return _plan(study, name, f"{option}@competitive")
    if control == "additive":
        return _plan(study, name, f"{option}@additive", mixes=mixes, tokens=larger)
    return _plan(study, name, f"{first}@token-matched", mixes=option_mixes(spec, first), tokens=larger)
