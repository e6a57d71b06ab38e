"""A ladder of budgets costs its longest run and the decays of the others; doses hold in each."""

from fractions import Fraction

import numpy as np
import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st

from codestage.analyse.contrasts import contrasts
from codestage.data.mixture import RowCounts
from codestage.engine.graph import Supply, training_steps
from codestage.errors import UserError
from codestage.study.expand import Run, count_text, expand
from codestage.study.load import load_study
from codestage.study.models import shape
from codestage.study.schedule import trunk_phases

LADDER = ("tokens: 4k", "tokens: 64k\n    budgets: [8k, 16k, 32k]")
BATCH, DECAY = 512, Fraction(1, 4)


def study(tmp_path, *changes):
    text = TINY
    for old, new in (LADDER, *changes):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "ladder.yaml").write_text(text)
    return load_study(tmp_path / "ladder.yaml")


def works(made):
    rows = {n: RowCounts(10**6, 64) for n in made.sources}
    supply = {64: Supply(rows, *[dict.fromkeys(rows, "x")] * 2)}
    arms = [Run(arm, 0) for arm in expand(made)]
    return training_steps(arms, supply, shape(made.model, 384), 64)


mixes = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9).map(Fraction), min_size=1).filter(
    lambda mix: any(mix.values())
)


@given(mixes, mixes, st.integers(10, 10**9), st.fractions(0, 1), st.data())
def test_phases_are_exact_and_the_same_up_to_where_a_budget_leaves(trunk, late, tokens, share, data):
    end = int(tokens * share)
    leave = sorted(data.draw(st.sets(st.integers(1, max(1, end - 1)), max_size=3)))
    leave = [cut for cut in leave if cut < end]
    made = trunk_phases(tokens, trunk, late, end=end, leave=leave)
    names = {*trunk, *late}
    first, last = sum(trunk.values()), sum(late.values())
    ideal = {n: trunk.get(n, 0) * end / first + late.get(n, 0) * (tokens - end) / last for n in names}
    totals = {n: sum(p.by_source.get(n, 0) for p in made) for n in names}
    assert sum(totals.values()) == tokens
    assert all(abs(totals[n] - ideal[n]) < 1 for n in names)
    assert all(count >= 0 for phase in made for count in phase.by_source.values())
    longer = trunk_phases(7 * tokens, trunk, late, end=7 * end, leave=[*leave, end] if end else [])
    done, upto = 0, min(leave[-1] if leave else 0, tokens)
    for a, b in zip(made, longer, strict=False):
        if done + a.tokens > upto:
            break
        assert all(abs(a.by_source[n] - b.by_source[n]) <= 1 for n in names)
        done += a.tokens


@pytest.mark.parametrize("curve", [False, True])
def test_the_ladder_costs_its_longest_run_and_the_other_decays(tmp_path, curve):
    late = "{curve: cooldown-only, from: {prose: 1}, to: {programs: 1}}"
    change = ("{mix: {prose: 2, programs: 1}}", late) if curve else ("seeds: 2", "seeds: 1")
    made = study(tmp_path, change)
    stages = {run: w[0] for run, w in works(made).items() if run.split("/")[1].startswith("text#")}
    for option in ("text", "text+code"):
        ladder = [option, *(f"{option}@{count_text(n)}" for n in (8000, 16000, 32000))]
        steps = {s.hash: s.cost for name in ladder for s in stages[f"{name}/text#0"].segments}
        whole = 64_000 + DECAY * (8_000 + 16_000 + 32_000)
        assert abs(sum(steps.values()) - whole) <= 4 * BATCH


def test_every_budget_decays_at_its_own_end_and_holds_its_own_shares(tmp_path):
    made = study(tmp_path)
    for name, stages in works(made).items():
        stage, rates = stages[0].stage, stages[0].layout.rates
        if not name.startswith("text+code/text") and "@" not in name:
            continue
        held = [sum(p.by_source.get(s, 0) for p in stage.phases) for s in ("prose", "programs")]
        share = Fraction(1, 3) if name.startswith("text+code") else Fraction(0)
        if "@additive" not in name and "@token-matched" not in name:
            assert held[1] == round(stage.tokens * share)
        assert sum(held) == stage.tokens
        constant = np.flatnonzero(rates == rates.max())
        # the batch that reaches over, and what the cut rows at the ends of phases leave empty
        assert abs((constant[-1] + 1) * BATCH - stage.tokens * (1 - DECAY)) <= 3 * BATCH
        assert rates[-1] < 0.25 * rates.max()  # 8,000 tokens decay over four batches


def test_effects_are_asked_at_every_budget_and_the_grid_is_the_longest(tmp_path):
    made = study(tmp_path)
    arms = expand(made)
    assert [a.name for a in arms if a.role == "grid"][:2] == ["text/text", "text/uniform"]
    assert sum(a.role == "ladder" for a in arms) == 3 * 4
    told = {
        "stages": list(made.stages),
        "options": {n: list(s.options) for n, s in made.stages.items()},
        "code_options": {"pretrain": ["text+code"], "tune": ["uniform"]},
        "schedules": {n: dict.fromkeys(s.options, "mix") for n, s in made.stages.items()},
        "tasks": [],
        "arms": [
            {
                "name": a.name,
                "role": a.role,
                "control": a.control,
                "against": a.against,
                "factors": dict(a.factors),
                "tokens": {s.name: s.tokens for s in a.stages},
            }
            for a in arms
        ],
    }
    asked = {c.name: c for c in contrasts(told)}
    budget = [c for c in asked.values() if c.family == "budget"]
    assert [c.name for c in budget][:2] == ["code@pretrain|pretrain=8000", "code@tune|pretrain=8000"]
    assert len(budget) == 6
    assert asked["code@pretrain|pretrain=8000"].weights == {
        "text+code@8k/text": 0.5,
        "text+code@8k/uniform": 0.5,
        "text@8k/text": -0.5,
        "text@8k/uniform": -0.5,
    }
    assert not any("@" in arm for arm in asked["code@pretrain"].weights)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (("schedule: wsd, warmup_tokens: 1k, decay: 0.25", "schedule: cosine"), "schedule: wsd"),
        (("[8k, 16k, 32k]", "[8k, 64k]"), "must grow and stay below tokens"),
        (("[8k, 16k, 32k]", "[16k, 8k]"), "must grow and stay below tokens"),
        (("warmup_tokens: 1k", "warmup_tokens: 7k"), "before the warm-up"),
    ],
)
def test_budgets_that_cannot_branch_are_refused(tmp_path, change, wanted):
    with pytest.raises(UserError, match=wanted):
        study(tmp_path, change)
