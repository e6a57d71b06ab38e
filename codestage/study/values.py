"""What stands in study files: counts, shares and seeds as people write them, and the base of all parts."""

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def parse_count(value: Any) -> int:
    """`20M`, `1.5B`, `800k` or a whole number, as an exact positive integer."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMBT]?)", str(value).replace("_", ""))
    if isinstance(value, bool) or not match:
        raise ValueError("write a whole number, or one like 800k, 20M, 1.5B")
    count = Fraction(match[1]) * _UNITS[match[2]]
    if count.denominator != 1 or count < 1:
        raise ValueError("must be a whole number of at least 1")
    return int(count)


def parse_share(value: Any) -> Fraction:
    """A share of a mixture, exactly as written: 2, 0.25 or 1/3."""
    try:
        if isinstance(value, bool):
            raise ValueError
        share = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError("a share is a number such as 2, 0.25 or 1/3") from None
    if share < 0:
        raise ValueError("a share cannot be negative; leave the source out or give it 0")
    return share


def parse_seeds(value: Any) -> Any:
    """A number of seeds, counted from 0, or the seeds themselves."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 10_000:
        return tuple(range(value))
    if not isinstance(value, list | tuple):
        raise ValueError("seeds are a number from 1 to 10,000, or a list such as [0, 1, 2]")
    if len(set(map(str, value))) < len(value):
        raise ValueError("a seed stands twice; each makes one run of an arm")
    return value


_COUNT: dict[str, Any] = {"type": "string", "pattern": r"^[\d_]+(\.[\d_]+)?\s*[kMBT]?$"}
_SEED: dict[str, Any] = {"type": "array", "items": {"type": "integer"}, "minItems": 1}
_SHARE: dict[str, Any] = {"type": "string", "pattern": r"^\d+(\.\d+)?(/\d+)?$"}
Count = Annotated[
    int,
    BeforeValidator(parse_count),
    WithJsonSchema({"$comment": "count", "anyOf": [{"type": "integer", "minimum": 1}, _COUNT]}),
]
CountOrNone = Annotated[
    int,
    BeforeValidator(lambda v: 0 if v == 0 else parse_count(v)),
    WithJsonSchema({"$comment": "count, or 0", "anyOf": [{"type": "integer", "minimum": 0}, _COUNT]}),
]
Share = Annotated[
    Fraction,
    BeforeValidator(parse_share),
    WithJsonSchema({"$comment": "share", "anyOf": [{"type": "number", "minimum": 0}, _SHARE]}),
]
Seeds = Annotated[
    tuple[int, ...],
    BeforeValidator(parse_seeds),
    WithJsonSchema(
        {
            "$comment": "a number, or a list of integers",
            "anyOf": [{"type": "integer", "minimum": 1, "maximum": 10_000}, _SEED],
        }
    ),
]
Mix = dict[str, Share]


class Model(BaseModel):
    """Base of all parts of the study file: unknown keys are refused, values never change."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False
    )
