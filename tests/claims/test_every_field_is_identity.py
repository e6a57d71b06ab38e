"""Claim: every field of what a stage is changes its identity, and nothing else does."""

import dataclasses
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import BaseModel

from codestage.study.expand import StagePlan, expand
from codestage.study.identity import digest
from codestage.study.load import load_study
from codestage.study.models import ModelShape


def variants(value: Any) -> Iterator[tuple[str, Any]]:
    """(where, value with one leaf changed), for every leaf."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            for where, new in variants(getattr(value, field.name)):
                yield f".{field.name}{where}", dataclasses.replace(value, **{field.name: new})
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            for where, new in variants(getattr(value, name)):
                yield f".{name}{where}", value.model_copy(update={name: new})
    elif isinstance(value, dict | MappingProxyType):
        for key in value:
            for where, new in variants(value[key]):
                yield f"[{key}]{where}", {**value, key: new}
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            for where, new in variants(item):
                yield f"[{i}]{where}", (*value[:i], new, *value[i + 1 :])
    elif value is None:
        yield "", "something"
    elif isinstance(value, bool):
        yield "", not value
    elif isinstance(value, str):
        yield "", value + "x"
    elif isinstance(value, int):
        yield "", value + 1
    elif isinstance(value, float):
        yield "", value + 1e-9
    else:
        raise AssertionError(f"a kind of field this test does not know: {type(value)}")


@pytest.mark.parametrize("position", [0, 1])
def test_every_leaf_of_a_stage_plan(tiny, position):
    plan = expand(load_study(tiny))[3].stages[position]
    assert isinstance(plan, StagePlan)
    changed = list(variants(plan))
    assert len(changed) > 18
    for where, other in changed:
        assert digest(other) != digest(plan), where


def test_every_field_of_a_shape():
    shape = ModelShape("llama", 64, 2, 4, 4, 160, 512, True, "bf16")
    digests = {digest(other) for _, other in variants(shape)}
    assert len(digests | {digest(shape)}) == 1 + len(list(variants(shape)))


def test_same_content_same_identity(tiny):
    assert digest(expand(load_study(tiny))[0]) == digest(expand(load_study(tiny))[0])


def test_what_could_change_from_run_to_run_has_no_identity():
    for value in (object(), float("nan"), {1, 2}):
        with pytest.raises(TypeError):
            digest(value)
