"""Reading study files: the design's example works, and nothing typed ends in a traceback."""

import pytest
import yaml
from conftest import TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codestage.errors import UserError
from codestage.study.load import line_of, load_study


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
