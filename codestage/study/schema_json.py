"""The JSON Schema of the study file, for editors that complete and check it."""

from typing import Any

from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from codestage.study.schema import KINDS, KINDS_OF_EFFECT, Study


class _Plain(GenerateJsonSchema):
    """Without titles that only repeat the names of keys."""

    def field_title_should_be_set(self, schema: CoreSchema | FieldInfo) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """What may be written in a study file, as people write it: counts such as 20M, shares such as 1/3.

    It holds less than `load_study` does: what keys say about each other (that sources exist, that siblings
    have equal totals, which keys exclude each other) is not in it.
    """
    schema = Study.model_json_schema(schema_generator=_Plain)
    parts = schema["$defs"]
    parts["OptionSpec"]["properties"].pop("weights")  # computed, never written
    parts["StageSpec"]["required"].remove("kind")
    stages, stage = schema["properties"]["stages"], {"$ref": "#/$defs/StageSpec"}
    for named in (
        parts["StageSpec"]["properties"]["options"],
        parts["EvaluateSpec"]["properties"]["tasks"],
    ):
        named["additionalProperties"] = False  # a name that is no name
    (name,) = stages.pop("patternProperties")
    stages["propertyNames"] = {"pattern": name, "not": {"enum": list(KINDS_OF_EFFECT)}}
    stages["properties"] = dict.fromkeys(KINDS, stage)
    stages["additionalProperties"] = {"allOf": [stage, {"required": ["kind"]}]}
    return (
        {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        | schema
        | {"title": "codestage study"}
    )
