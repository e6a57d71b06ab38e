"""The JSON Schema of the study file, for editors that complete and check it."""

from typing import Any

from codestage.study.schema import Study


def json_schema() -> dict[str, Any]:
    return Study.model_json_schema()
