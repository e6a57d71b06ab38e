"""One canonical text for everything that identifies work, and its digest."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from pydantic import BaseModel


def plain(value: Any) -> Any:
    """`value` as JSON types. Mappings keep their order out of the identity; sequences keep it in.

    Raises:
        TypeError: for anything whose text could change between runs (objects, floats that are no
            numbers, paths): identity is only worth something if it is always the same bytes.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise TypeError(f"{value} has no identity")
        return value
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no identity")


def digest(value: Any) -> str:
    """BLAKE2b of the canonical JSON of `value`: 32 hexadecimal digits."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
