"""Arms: the full factorial, and controls that mean what they say."""

from fractions import Fraction

import pytest

from codestage.errors import UserError
from codestage.study.expand import code_share, expand, option_mixes, runs
from codestage.study.load import load_study


def tokens(arm, stage):
    plan = next(s for s in arm.stages if s.name == stage)
    total: dict[str, int] = {}
    for phase in plan.phases:
        for name, count in phase.by_source.items():
            total[name] = total.get(name, 0) + count
    return total


def test_the_grid_is_full_and_controls_go_through_the_first_tuning(tiny_study):
    names = [arm.name for arm in expand(tiny_study)]
    assert names[:4] == ["text/text", "text/uniform", "text+code/text", "text+code/uniform"]
    assert names[4:] == ["text@token-matched/text", "text+code@additive/text"]
    assert len(runs(tiny_study)) == 2 * len(names)


def test_additive_keeps_the_text_and_token_matched_has_as_many_tokens(tiny_study):
    arms = {arm.name: arm for arm in expand(tiny_study)}
    base = tokens(arms["text/text"], "pretrain")
    competitive = tokens(arms["text+code/text"], "pretrain")
    additive = tokens(arms["text+code@additive/text"], "pretrain")
    matched = tokens(arms["text@token-matched/text"], "pretrain")
    assert sum(competitive.values()) == sum(base.values()) == 4000
    assert additive == {"prose": 4000, "programs": 2000}
    assert matched == {"prose": 6000}


def test_additive_keeps_the_text_where_the_total_is_no_whole_number(tiny):
    """4,000 tokens of text at nine tenths: 4,444.4 in all."""
    tiny.write_text(tiny.read_text().replace("{prose: 2, programs: 1}", "{prose: 9, programs: 1}"))
    arms = {arm.name: arm for arm in expand(load_study(tiny))}
    additive = tokens(arms["text+code@additive/text"], "pretrain")
    assert additive == {"prose": 4000, "programs": 444}
    assert tokens(arms["text@token-matched/text"], "pretrain") == {"prose": 4444}


def test_each_dose_is_token_matched_by_an_arm_with_a_name_of_its_own(tiny):
    half = "\n      half: {mix: {prose: 1, programs: 1}}"
    tiny.write_text(
        tiny.read_text().replace(
            "{mix: {prose: 2, programs: 1}}", "{mix: {prose: 2, programs: 1}}" + half
        )
    )
    arms = {arm.name: arm for arm in expand(load_study(tiny))}
    assert len(arms) == len(expand(load_study(tiny)))
    assert arms["text@token-matched/text"].stages[0].tokens == 6000
    assert arms["text@token-matched-8k/text"].stages[0].tokens == 8000
    assert arms["text@token-matched-8k/text"].against == "text/text"


def test_a_control_that_is_in_the_grid_is_that_arm(tiny):
    text = tiny.read_text()
    tiny.write_text(text.replace("[token-matched, additive]", "[competitive]"))
    assert [a.role for a in expand(load_study(tiny))] == ["grid"] * 4


def test_random_order_keeps_totals(tiny):
    extra = (
        "      steps: {phases: [{chat: 1}, {chat: 1, code_chat: 3}]}\n"
        "      back: {phases: [{chat: 1, code_chat: 3}, {chat: 1}]}\n"
    )
    text = tiny.read_text().replace(
        "controls: [token-matched, additive]", extra + "controls: [random-order]"
    )
    tiny.write_text(text)
    arms = {arm.name: arm for arm in expand(load_study(tiny))}
    assert tokens(arms["text/steps@random-order"], "tune") == tokens(arms["text/steps"], "tune")
    assert arms["text/steps@random-order"].stages[1].order == "random"
    assert arms["text/steps@random-order"].against == "text/steps"


def test_schedule_only_anneals_on_the_mixture_before(tiny):
    cooldown = (
        "  cooldown:\n    tokens: 1k\n    seq_len: 64\n    batch_tokens: 512\n"
        "    options:\n      code: {mix: {programs: 1}}\n  tune:"
    )
    text = tiny.read_text().replace("  tune:", cooldown, 1)
    tiny.write_text(text.replace("[token-matched, additive]", "[schedule-only]"))
    arms = [a for a in expand(load_study(tiny)) if a.role == "control"]
    assert [a.name for a in arms] == ["text/code@schedule-only/text"]
    assert tokens(arms[0], "cooldown") == {"prose": 1000}


def test_code_share_counts_foreign_domains(tiny_study):
    stage = tiny_study.stages["tune"]
    assert code_share(tiny_study, stage, option_mixes(stage, "uniform")) == Fraction(3, 8)


def test_no_dose_of_text_can_be_kept_where_there_is_none(tiny):
    text = tiny.read_text().replace("{prose: 2, programs: 1}", "{programs: 1}")
    tiny.write_text(text)
    with pytest.raises(UserError, match="code alone"):
        expand(load_study(tiny))
