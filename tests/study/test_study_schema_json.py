"""The JSON Schema that editors use: it takes what `load_study` takes, as people write it, and refuses mistakes."""

import re
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import TINY

from codestage.study.presets import load_preset, preset_names, preset_studies
from codestage.study.schema_json import json_schema

PRESETS = [
    (name, scale)
    for name in preset_names()
    for scale in load_preset(name).scales or (None,)
    if not load_preset(name).data.get(scale)
]


class Editor(yaml.SafeLoader):
    """YAML 1.2, as editors read it: 3e-3 is a number, on and off are words."""


Editor.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if not tag.endswith((":bool", ":float"))]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Editor.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), ["t", "f"])
Editor.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?$"),
    list("-+.0123456789"),
)


def complaints(text: str) -> list[str]:
    checker = jsonschema.Draft202012Validator(json_schema())
    return [e.json_path for e in checker.iter_errors(yaml.load(text, Loader=Editor))]


@pytest.mark.parametrize(("name", "scale"), PRESETS)
def test_presets_are_valid(name, scale):
    for text in preset_studies(name, scale=scale).values():
        assert complaints(text) == []


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(json_schema())


WRONG = {
    "unknown key": ("seeds: 2", "seedz: 2"),
    "unknown key inside": ("vocab_size: 384", "vocab_sise: 384"),
    "wrong word": ("family: llama", "family: lama"),
    "no count": ("tokens: 4k", "tokens: 4 bananas"),
    "no tokens": ("tokens: 4k", "tokens: 0"),
    "negative share": ("{prose: 2, programs: 1}", "{prose: 2, programs: -1}"),
    "no share": ("{prose: 1}", "{prose: much}"),
    "unknown control": ("[token-matched,", "[token-match,"),
    "kind unknown": ("  pretrain:\n", "  before:\n"),
    "stage with a slash": ("  tune:\n", "  tune/late:\n    kind: tune\n"),
    "stage called like an effect": ("  tune:\n", "  cot:\n    kind: tune\n"),
    "option with an at": ("text+code: ", "text@code: "),
    "no mode": ("cot: [off]", "cot: []"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_refused(case):
    old, new = WRONG[case]
    assert complaints(TINY) == []
    assert old in TINY
    assert complaints(TINY.replace(old, new, 1))


@pytest.mark.parametrize("share", ["2", "0.25", "1/3"])
@pytest.mark.parametrize("count", ["4000", "4k", "0.004M"])
def test_counts_and_shares_are_written_as_people_do(count, share):
    text = TINY.replace("tokens: 4k", f"tokens: {count}").replace("{prose: 1}", f"{{prose: {share}}}")
    assert complaints(text) == []


def described(schema: dict[str, Any]) -> list[str]:
    parts = {"Study": schema} | schema["$defs"]
    return [
        f"{p}.{k}"
        for p, s in parts.items()
        for k, v in s["properties"].items()
        if "description" not in v
    ]


def test_every_key_says_what_it_is():
    """The reference and editors show it."""
    assert described(json_schema()) == []
