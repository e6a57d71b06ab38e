"""Presets: every one at every scale is a study, scales keep the design, and the designs are those of the papers."""

import re
from fractions import Fraction
from pathlib import Path

import pytest
from conftest import needs_smollm2

from codestage.errors import UserError
from codestage.evaluate.tasks import load_tasks
from codestage.study.expand import expand
from codestage.study.load import load_study
from codestage.study.presets import SCALES, load_preset, preset_names, preset_studies
from codestage.study.schedule import shares
from codestage.study.schema import Study

EVERY = [(name, scale) for name in preset_names() for scale in load_preset(name).scales or (None,)]


def studies(name: str, scale: str | None, folder: Path, *, offered: bool = False) -> list[Study]:
    """The studies of a preset; the published files that it needs, or is `offered`, are there, and empty."""
    if name == "smollm2-tune" and scale in ("smoke", "laptop"):
        needs_smollm2()
    data = folder / "published"
    preset = load_preset(name)
    needed = (preset.offered if offered else preset.data).get(scale or "", ())
    for file in needed:
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        (data / file).touch()
    made = preset_studies(name, scale=scale, data=data if needed else None)
    found = []
    for file, text in made.items():
        for mark in ("{%", "{{", "{#", "#}"):
            assert mark not in text, f"{file}: a mark of the template is left"
        (folder / file).write_text(text)
        found.append(load_study(folder / file))
    return found


def design(study: Study) -> dict:
    """What scales must keep: stages and options, shares by domain, rates' shapes, controls, modes.

    A stage of one option and one budget compares nothing: where a pretrained model is not at hand, it makes one.
    """

    def by_domain(mix: dict) -> dict[str, Fraction]:
        total: dict[str, Fraction] = {}
        for source, share in mix.items():
            domain = study.sources[source].domain
            total[domain] = total.get(domain, Fraction(0)) + share / sum(mix.values())
        return total

    return {
        "stages": {
            name: (
                stage.kind,
                (stage.lr.schedule, stage.lr.decay),
                [Fraction(b, stage.tokens) for b in stage.budgets],
                {
                    option: [(share, by_domain(mix)) for share, mix in spec.pieces(stage.lr)]
                    for option, spec in stage.options.items()
                },
            )
            for name, stage in study.stages.items()
            if len(stage.options) > 1 or stage.budgets
        },
        "controls": study.controls,
        "cot": study.evaluate.cot,
        "watched": study.validation is not None,
    }


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_every_preset_at_every_scale_is_a_study(tmp_path, name, scale):
    for study in studies(name, scale, tmp_path):
        names = [arm.name for arm in expand(study)]
        assert len(names) == len(set(names)) > 1


@pytest.mark.parametrize("name", [n for n in preset_names() if len(load_preset(n).scales) > 1])
def test_scales_keep_the_design(tmp_path, name):
    first, *others = load_preset(name).scales
    kept = {study.name: design(study) for study in studies(name, first, tmp_path)}
    for scale in others:
        for study in studies(name, scale, tmp_path):
            assert design(study) == kept[study.name], (
                f"{study.name} at {scale} is another than at {first}"
            )


OFFERED = [(name, scale) for name in preset_names() for scale in load_preset(name).offered]


@pytest.mark.parametrize(("name", "scale"), OFFERED)
def test_public_corpora_in_place_of_generated_ones_keep_the_design(tmp_path, name, scale):
    """All but the modes: the tasks are others."""
    plain = {study.name: study for study in studies(name, scale, tmp_path)}
    for study in studies(name, scale, tmp_path, offered=True):
        assert design(study) | {"cot": 0} == design(plain[study.name]) | {"cot": 0}
        assert study.seeds == plain[study.name].seeds
        assert len(study.seeds) >= 5
        generated = {name for name, source in study.sources.items() if source.procedural}
        assert generated <= {"sentences"}, "a test of its own, with the tuning that it needs"
        published = any("procedural" not in task.data for task in load_tasks(study.evaluate.suites))
        folder = str((tmp_path / "published" / "eval").resolve())
        assert study.evaluate.data == (folder if published else None)


def test_scales_are_known_and_stand_in_order():
    for name in preset_names():
        preset = load_preset(name)
        assert list(preset.scales) == [s for s in SCALES if s in preset.scales]
        assert {*preset.data, *preset.offered} <= set(preset.scales)
        assert preset.title


def test_perturbations_of_a_paper_are_there_at_every_scale(tmp_path):
    def transforms(name: str, scale: str) -> set[str]:
        sources = [s for study in studies(name, scale, tmp_path) for s in study.sources.values()]
        return {t for source in sources for t in source.transform}

    wanted = {n: transforms(n, "paper") for n in preset_names() if "paper" in load_preset(n).scales}
    assert wanted["code-induced"]
    for name, perturbed in wanted.items():
        for scale in load_preset(name).scales if perturbed else ():
            assert perturbed <= transforms(name, scale)


def mixes(study: Study, stage: str, option: str) -> list[tuple[Fraction, dict[str, Fraction]]]:
    return design(study)["stages"][stage][3][option]


def test_ma2024_holds_the_phases_of_the_paper_at_equal_totals(tmp_path):
    for study in studies("ma2024", "paper", tmp_path):
        for option, phases in {
            "uniform": [(5, 3)],
            "increase": [(7, 3), (7, 3), (6, 4), (5, 5)],
            "decrease": [(5, 5), (6, 4), (7, 3), (7, 3)],
        }.items():
            wanted = [{"text": Fraction(t, t + c), "code": Fraction(c, t + c)} for t, c in phases]
            assert [mix for _, mix in mixes(study, "tune", option)] == wanted
        for stage, code in (("pretrain", Fraction(1, 3)), ("tune", Fraction(3, 8))):
            orders = [o for o in study.stages[stage].options if o != "text"]
            held = [
                shares(study.stages[stage].options[o].pieces(study.stages[stage].lr)) for o in orders
            ]
            assert len(orders) == 3
            assert held[0] == held[1] == held[2]
            total = sum(x for s, x in held[0].items() if study.sources[s].domain == "code")
            assert total == code


def test_ma2024_has_every_cell_and_the_arms_that_the_paper_lacks(tmp_path):
    small, large = studies("ma2024", "paper", tmp_path)
    assert design(small) == design(large)
    for study in (small, large):
        arms = {arm.name: arm for arm in expand(study)}
        cells = [a for a in arms.values() if a.role == "grid"]
        assert len(cells) == 16
        assert "text+code/text" in arms, "CN, which the paper lacks"
        tokens = {n: sum(p.tokens for p in a.stages[0].phases) for n, a in arms.items()}
        assert tokens["text/text"] == tokens["text+code/decrease"] == 28 * 10**9
        assert tokens["text+code@additive/text"] == 42 * 10**9, "the paper's 150 GB model"
        assert tokens["text@token-matched/text"] == 42 * 10**9, "150 GB of text"
    shape = (small.model.hidden_size, small.model.layers, small.model.heads, small.model.family)
    assert shape == (2560, 32, 32, "pangu")


def test_petty2024_adds_code_to_all_the_text(tmp_path):
    study, _, structure = studies("petty2024", "paper", tmp_path)
    assert study.name == "petty2024"
    assert len(study.seeds) == 5
    arms = {arm.name: arm.stages[0] for arm in expand(study)}
    for tenths in range(1, 6):
        stage = arms[f"code-{10 * tenths}@additive"]
        held = {n: sum(p.by_source.get(n, 0) for p in stage.phases) for n in ("text", "code")}
        total = Fraction(132 * 10**9 * 10, 10 - tenths)
        assert abs(held["text"] - 132 * 10**9) <= 1
        assert abs(stage.tokens - total) < 1
        assert arms[f"code-{10 * tenths}"].tokens == 132 * 10**9
    assert max(stage.tokens for stage in arms.values()) == 264 * 10**9
    assert {a.name.removesuffix("/sentences"): a.stages[0] for a in expand(structure)} == arms


@pytest.mark.parametrize("scale", ["smoke", "laptop", "gpu", "paper"])
def test_petty2024_structure_asks_what_no_arm_was_tuned_on(tmp_path, scale):
    *_, study = studies("petty2024", scale, tmp_path)
    taught = study.sources["sentences"].procedural
    assert all(arm.stages[1].option == "sentences" for arm in expand(study)), "one tuning for all"
    asked = {task.name: task.data["procedural"] for task in load_tasks(study.evaluate.suites)}
    known = {
        name
        for name, made in asked.items()
        if made["skill"] in taught.skills and made["depth"][1] <= taught.depth[1]
    }
    assert known == {"logical_form", "passive"}
    for name in asked.keys() - known:
        made = asked[name]
        assert made["skill"] not in taught.skills or made["depth"][0] > taught.depth[1]


def test_petty2024_competitive_goes_from_no_code_to_nothing_else(tmp_path):
    first, study, _ = studies("petty2024", "paper", tmp_path)
    assert (study.name, study.controls, len(study.seeds)) == ("petty2024-competitive", (), 5)
    arms = {arm.name: arm.stages[0] for arm in expand(study)}
    assert list(arms) == [f"code-{share}" for share in (0, 20, 40, 50, 60, 80, 100)]
    for name, stage in arms.items():
        held = sum(p.by_source.get("code", 0) for p in stage.phases)
        assert Fraction(held, stage.tokens) == Fraction(int(name.removeprefix("code-")), 100)
        assert stage.tokens == 132 * 10**9
    told = [
        {k: v for k, v in s.model_dump().items() if k not in ("name", "controls", "stages")}
        for s in (first, study)
    ]
    assert told[0] == told[1], "all else is the same, so that a store is shared"


def test_midtraining_is_every_time_by_every_dose_on_one_trunk(tmp_path):
    (study,) = studies("midtraining", "paper", tmp_path)
    arms = {arm.name for arm in expand(study)}
    times, doses = ("text@21B", "text@63B", "text"), (0, 10, 20, 80, 100)
    assert arms == {f"{time}/code-{dose}/code" for time in times for dose in doses}
    assert study.stages["pretrain"].tokens + study.stages["midtrain"].tokens == 128 * 10**9


def test_laptop_compares_orders_at_the_dose_that_they_have(tmp_path):
    (study,) = studies("laptop", "laptop", tmp_path)
    stage = study.stages["pretrain"]
    held = {name: shares(option.pieces(stage.lr)) for name, option in stage.options.items()}
    assert held["early"] == held["late"] == held["code-25"] != held["code-50"]


def test_packages_become_a_source_where_they_lie(tmp_path):
    studies("laptop", "laptop", tmp_path)
    data = tmp_path / "published"
    (data / "packages").mkdir()
    (text,) = preset_studies("laptop", scale="laptop", data=data).values()
    path = tmp_path / "packages.yaml"
    path.write_text(text)
    study = load_study(path)
    assert study.sources["packages"].clean.licences
    assert "packages" in study.stages["pretrain"].options["code-25"].mix


def test_published_files_may_be_packed_or_not(tmp_path):
    preset = load_preset("laptop")
    for file in preset.data["laptop"]:
        plain = tmp_path / file.removesuffix(".gz")
        plain.parent.mkdir(parents=True, exist_ok=True)
        plain.touch()
    (text,) = preset_studies("laptop", scale="laptop", data=tmp_path).values()
    paths = re.findall(r'path: "([^"*]+)"', text)
    assert len(paths) >= 6
    assert all(Path(path).exists() for path in paths)


def test_a_folder_that_a_scale_does_not_read_is_refused(tmp_path):
    with pytest.raises(
        UserError, match="zhang2025 at scale laptop reads no published files; leave --data out"
    ):
        preset_studies("zhang2025", scale="laptop", data=tmp_path)


def test_a_folder_of_any_name_is_found_again(tmp_path):
    data = tmp_path / 'it\'s a "folder": #1 {é}'
    data.mkdir()
    made = preset_studies("ma2024", scale="gpu", data=data)
    path = tmp_path / "ma.yaml"
    path.write_text(made["ma2024-13b.yaml"], encoding="utf-8")
    assert load_study(path).evaluate.data == str(data / "eval")


WRONG = {
    "unknown name": (("ma2042",), {}, "did you mean 'ma2024'"),
    "one size": (("quickstart",), {"scale": "smoke"}, "has one size; leave --scale out"),
    "unknown scale": (("ma2024",), {"scale": "huge"}, "its scales: smoke, laptop, gpu, paper"),
    "no paper": (("laptop",), {"scale": "paper"}, "its scales: smoke, laptop, gpu"),
    "files needed": (("laptop",), {"scale": "laptop"}, "text/state_union.zip.*--data"),
    "files missing": (("laptop",), {"scale": "laptop", "data": Path(__file__).parent}, "not in .*tests"),
    "offered files missing": (
        ("petty2024",),
        {"scale": "laptop", "data": Path(__file__).parent},
        "petty2024 at scale laptop reads text/state_union.zip.*not in .*tests",
    ),
    "no folder": (("laptop",), {"scale": "laptop", "data": Path(__file__)}, "is no folder"),
    "never read": (("quickstart",), {"data": Path(__file__).parent}, "leave --data out"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case):
    given, more, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        preset_studies(*given, **more)


@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_published_tasks_lie_in_the_folder_that_other_presets_name(tmp_path, scale):
    (text,) = preset_studies("smollm2-tune", scale=scale, data=tmp_path).values()
    path = tmp_path / "tune.yaml"
    path.write_text(text)
    assert load_study(path).evaluate.data == str(tmp_path.resolve() / "eval")


@pytest.mark.parametrize("scale", ["smoke", "laptop"])
@pytest.mark.parametrize("name", ["zhang2025", "code-induced"])
def test_models_that_are_compared_are_trained_apart(name, scale, tmp_path):
    """Llama and Mistral of one size and seed would be one training, and its copies no agreement."""
    seen = set()
    for study in studies(name, scale, tmp_path):
        if name == "code-induced" and "pseudocode" not in study.sources:
            continue
        family = {"mistral": "llama"}.get(study.model.family, study.model.family)
        size = (study.model.hidden_size, study.model.layers, study.model.heads, study.model.kv_heads)
        trained = {(family, size, seed) for seed in study.seeds}
        assert trained.isdisjoint(seen), study.name
        seen |= trained
    assert len(seen) >= 5
