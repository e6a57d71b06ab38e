"""Equal examples and equal FLOPs: against sums done one source and phase at a time."""

from dataclasses import replace
from fractions import Fraction

import pytest
from conftest import TINY

from codestage.errors import UserError
from codestage.study.expand import expand, runs
from codestage.study.load import load_study
from codestage.study.match import Measure, match
from codestage.study.models import ModelShape, train_flops_per_token

SHAPE = ModelShape("llama", 64, 2, 4, 4, 160, 512, True, "bf16")
MEASURES = {
    "prose": Measure(10_000, 100, 10_000, 400_000),
    "programs": Measure(10_000, 20, 10_000, 3_000_000),
    "chat": Measure(9_000, 300, 10_000, 200_000),
    "code_chat": Measure(8_000, 100, 10_000, 500_000),
}


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        TINY.replace(
            "controls: [token-matched, additive]", "controls: [example-matched, flop-matched]"
        ).replace(
            "uniform: {mix: {chat: 5, code_chat: 3}}",
            "uniform: {mix: {chat: 5, code_chat: 3}}\n"
            "      late: {phases: [{chat: 1}, {chat: 1, code_chat: 3}], lengths: [1, 1]}",
        )
    )
    return load_study(path)


def matched(study, name):
    (run,) = (r for r in runs(study) if r.arm.name == name and r.seed == 0)
    return match(study, run, {64: MEASURES}, SHAPE).arm


def test_the_arms_are_those_with_code_against_the_base(study):
    controls = [(a.name, a.control, a.against) for a in expand(study) if a.role == "control"]
    assert controls == [
        ("text/uniform@example-matched", "example-matched", "text/text"),
        ("text/late@example-matched", "example-matched", "text/text"),
        ("text+code@flop-matched/text", "flop-matched", "text/text"),
        ("text/uniform@flop-matched", "flop-matched", "text/text"),
        ("text/late@flop-matched", "flop-matched", "text/text"),
    ]


@pytest.mark.parametrize(("option", "code"), [("uniform", Fraction(3, 8)), ("late", Fraction(3, 8))])
def test_an_example_matched_stage_has_the_examples_of_the_base_and_its_dose_in_examples(
    study, option, code
):
    stage = matched(study, f"text/{option}@example-matched").stages[1]
    examples = {
        name: sum(phase.by_source.get(name, 0) for phase in stage.phases)
        / MEASURES[name].tokens_per_example()
        for name in ("chat", "code_chat")
    }
    assert sum(examples.values()) == pytest.approx(2000 / 30, rel=2e-3)
    assert examples["code_chat"] / sum(examples.values()) == pytest.approx(code, rel=5e-3)
    assert stage.tokens == sum(phase.tokens for phase in stage.phases) > 2000  # programs are longer


def test_the_phases_of_an_example_matched_stage_keep_their_lengths_in_examples(study):
    first, second = matched(study, "text/late@example-matched").stages[1].phases
    size = {name: MEASURES[name].tokens_per_example() for name in ("chat", "code_chat")}
    counts = [sum(t / size[n] for n, t in phase.by_source.items()) for phase in (first, second)]
    assert counts[1] / counts[0] == pytest.approx(1, rel=0.02)
    assert not first.by_source.get("code_chat")


@pytest.mark.parametrize(
    ("arm", "place", "tokens", "base"),
    [("text+code@flop-matched/text", 0, 4000, "prose"), ("text/uniform@flop-matched", 1, 2000, "chat")],
)
def test_a_flop_matched_stage_costs_what_the_base_costs(study, arm, place, tokens, base):
    def cost(name):
        held = MEASURES[name]
        products = train_flops_per_token(SHAPE, 0) * held.slots
        attention = 12 * SHAPE.layers * SHAPE.hidden_size * held.attended
        return (products + attention) / held.tokens

    stage = matched(study, arm).stages[place]
    spent = sum(cost(n) * t for phase in stage.phases for n, t in phase.by_source.items())
    assert spent == pytest.approx(cost(base) * tokens, rel=1e-3)
    shares = {n: t / stage.tokens for phase in stage.phases for n, t in phase.by_source.items()}
    grid = next(a for a in expand(study) if a.name == arm.replace("@flop-matched", "")).stages[place]
    for phase in grid.phases:
        for name, count in phase.by_source.items():
            assert shares[name] == pytest.approx(count / grid.tokens, abs=1e-3)


def test_other_stages_and_arms_stay_as_they_are(study):
    for run in runs(study):
        found = match(study, run, {64: MEASURES}, SHAPE)
        assert found.seed == run.seed
        for before, after in zip(run.arm.stages, found.arm.stages, strict=True):
            assert (before == after) == (not before.matched)
            assert not after.matched
            assert replace(after, tokens=0, phases=()) == replace(
                before, tokens=0, phases=(), matched=""
            )


def test_a_matched_stage_that_ends_in_its_warm_up_is_refused(study):
    tune = study.stages["tune"]
    slow = tune.lr.model_copy(update={"warmup_tokens": tune.tokens})
    later = study.model_copy(
        update={"stages": study.stages | {"tune": tune.model_copy(update={"lr": slow})}}
    )
    with pytest.raises(
        UserError, match=r"stage 'tune', 'uniform@flop-matched': flop-matched makes it .* warm-up"
    ):
        matched(later, "text/uniform@flop-matched")
