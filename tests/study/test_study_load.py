"""Reading study files: the design's example works, and nothing typed ends in a traceback."""

import re
from fractions import Fraction

import pytest
import yaml
from conftest import TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codestage.errors import UserError
from codestage.study.load import line_of, load_study
from codestage.study.values import parse_share


def test_off_is_a_word_and_true_is_not(tiny):
    study = load_study(tiny)
    assert study.evaluate.cot == ("off",)


def test_counts_and_seeds_as_written(tiny_study):
    assert tiny_study.stages["pretrain"].tokens == 4000
    assert tiny_study.seeds == (0, 1)


def test_line_of_names_the_nearest_line_that_exists(tiny):
    text = tiny.read_text().splitlines()
    assert text[line_of(tiny, ("stages", "tune", "tokens")) - 1].strip() == "tokens: 2k"
    assert text[line_of(tiny, ("stages", "tune", "nowhere")) - 1].strip() == "tune:"


def test_unequal_totals_of_sibling_schedules_are_refused(tiny):
    extra = "      steps: {phases: [{chat: 1, code_chat: 1}, {chat: 1, code_chat: 1}]}\n"
    tiny.write_text(tiny.read_text().replace("controls:", extra + "controls:"))
    with pytest.raises(UserError, match=r"(?s)tiny\.yaml:.*equal totals"):
        load_study(tiny)


def test_an_order_may_stand_beside_doses_if_one_of_them_has_its_totals(tiny):
    half = "      half: {mix: {chat: 1, code_chat: 1}}\n"
    turned = "      turned: {phases: [{chat: 2, code_chat: 6}, {chat: 8}]}\n"
    text = tiny.read_text()
    tiny.write_text(text.replace("controls:", half + turned + "controls:"))
    assert "turned" in load_study(tiny).stages["tune"].options, "5 to 3, as uniform"
    tiny.write_text(text.replace("controls:", half + turned.replace("6", "5") + "controls:"))
    with pytest.raises(UserError, match=r"(?s)turned.*equal totals"):
        load_study(tiny)


def test_all_mistakes_are_told_at_once(tiny):
    tiny.write_text(tiny.read_text().replace("seeds: 2", "seedz: 2").replace("tokens: 2k", "tokens: x"))
    with pytest.raises(UserError, match=r"(?s)seedz.*'x'|'x'.*seedz"):
        load_study(tiny)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["name", "model", "tokenizer", "seeds", "sources", "stages", "controls", "evaluate"]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(keys, trees)
def test_any_value_in_any_place_is_read_or_refused_in_words(tmp_path, key, value):
    data = yaml.safe_load(TINY) | {key: value}
    path = tmp_path / "fuzz.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8", errors="replace")
    assert told_of(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_any_bytes_are_read_or_refused_in_words(tmp_path, data):
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(data)
    assert told_of(path)


def told_of(path):
    """The study's name, or the complaint if it names the file; empty otherwise."""
    try:
        return load_study(path).name
    except UserError as error:
        return str(error) if path.name in str(error) else ""


def test_an_alias_keeps_each_stages_own_kind(tmp_path):
    head, _, rest = TINY.partition("  pretrain:\n")
    body, _, tail = rest.partition("  tune:\n")
    path = tmp_path / "a.yaml"
    path.write_text(f"{head}  pretrain: &s\n{body}  continue: *s\n  tune:\n{tail}")
    kinds = {name: stage.kind for name, stage in load_study(path).stages.items()}
    assert kinds == {"pretrain": "pretrain", "continue": "continue", "tune": "tune"}


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [("  prose:  ", "  2019:  ", 6), ("seeds: 2", "seeds: 2 # \x08", 4)],
    ids=["a number for a name", "a character that YAML does not have"],
)
def test_the_line_is_that_of_the_mistake(tmp_path, old, new, line):
    path = tmp_path / "a.yaml"
    path.write_text(TINY.replace(old, new, 1))
    with pytest.raises(UserError, match=rf"a\.yaml:{line}: "):
        load_study(path)


def test_aliases_of_aliases_are_refused_and_not_followed_for_ever(tmp_path):
    path = tmp_path / "a.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match="aliases counted"):
        load_study(path)


SHARE = "a share is a number such as 2, 0.25 or 1/3, of at most 30 digits"
COUNT = "must be a whole number of at least 1, and at most 1,000,000T"
REFUSED = {
    "a seed of 65 bits": ("seeds: 2", "seeds: [18446744073709551616, 0]", "18446744073709551616 is no seed"),
    "a seed too large": ("seeds: 2", "seeds: [4611686018427387905]", "4611686018427387905 is no seed"),
    "a seed below 0": ("seeds: 2", "seeds: [-1]", "-1 is no seed"),
    "true as a seed": ("seeds: 2", "seeds: [true, 1]", "True is no seed"),
    "half a seed": ("seeds: 2", "seeds: [1.5]", "1.5 is no seed"),
    "a seed twice": ("seeds: 2", "seeds: [1, 1]", "a seed stands twice"),
    "endless seed": ("seeds: 2", f"seeds: [0x{'f' * 5000}]", "… is no seed"),
    "endless seeds": ("seeds: 2", f"seeds: 0x{'f' * 5000}", "seeds are a number from 1 to 10,000"),
    "endless tokens": ("tokens: 2k", "tokens: 9999999999999T", COUNT),
    "a few tokens too many": ("tokens: 2k", "tokens: 1_000_001T", COUNT),
    "endless digits": ("tokens: 2k", f"tokens: 1.{'0' * 5000}M", "write a whole number up to 1,000,000T"),
    "an endless number": ("tokens: 2k", f"tokens: 0x{'f' * 5000}", "write a whole number up to 1,000,000T"),
    "too many steps": ("tokens: 2k", "tokens: 1T", "are more than 100,000,000 steps; raise batch_tokens"),
    "a share with an exponent": ("programs: 1}", "programs: 1e999999999}", SHARE),
    "a share of many digits": ("programs: 1}", f"programs: 1.{'0' * 31}/3}}", SHARE),
    "a large share": ("programs: 1}", "programs: 1.0e+300}", SHARE),
    "a share by 0": ("programs: 1}", "programs: 1/0}", SHARE),
    "a share below 0": ("programs: 1}", "programs: -0.00001}", "a share cannot be negative"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_numbers_that_no_study_can_have_are_refused_in_one_sentence(tmp_path, case):
    old, new, said = REFUSED[case]
    path = tmp_path / "a.yaml"
    assert old in TINY
    path.write_text(TINY.replace(old, new))
    with pytest.raises(UserError) as refused:
        load_study(path)
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 600


def test_the_largest_seeds_and_the_smallest_shares_are_exact(tmp_path):
    path = tmp_path / "a.yaml"
    text = TINY.replace("seeds: 2", "seeds: [4611686018427387904, 0]")
    path.write_text(text.replace("{prose: 2, programs: 1}", "{prose: 1/3, programs: 0.00001}"))
    study = load_study(path)
    assert study.seeds == (2**62, 0)
    mix = study.stages["pretrain"].options["text+code"].mix
    assert mix == {"prose": Fraction(1, 3), "programs": Fraction(1, 100_000)}


@pytest.mark.parametrize(
    ("written", "exact"), [("1e-3", "1/1000"), (0.00001, "1/100000"), ("2.5E1", "25")]
)
def test_a_share_may_have_a_small_exponent(written, exact):
    assert parse_share(written) == Fraction(exact)


@pytest.mark.parametrize("name", ["parent", "model"])
def test_a_source_is_not_called_what_steps_call_their_weights(tmp_path, name):
    """Such a source took the place of the checkpoint in the identity of what goes on from it."""
    path = tmp_path / "a.yaml"
    path.write_text(re.sub(r"\bchat\b(?=:)", name, TINY))
    with pytest.raises(UserError, match=rf"a source cannot be called '{name}'.*take another name"):
        load_study(path)
