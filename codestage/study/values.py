"""What stands in study files: counts, shares and seeds as people write them, and the base of all parts."""

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_DIGITS = r"\d{1,30}"
"""More digits than any count or share needs, and few enough to reckon with exactly."""
_SHARE_TEXT = rf"{_DIGITS}(/{_DIGITS}|(\.{_DIGITS})?([eE][-+]?\d{{1,2}})?)"
MOST = 10**18
"""Largest count: sums of a few of them still fit into 64 bits."""
_MOST_TEXT = "1,000,000T"
MOST_SEED = 2**62
"""Largest seed: results hold seeds in 64 bits with a sign, and `run --until` goes on from it."""


def _written(value: Any) -> str:
    """As `str`, which refuses integers of over 4,300 digits: 0xfff… in a file can be one."""
    long = isinstance(value, int) and value.bit_length() > 256
    return f"{value:#x}" if long else str(value)


def shown(value: Any) -> str:
    """A value as complaints show it: its beginning, where it is long."""
    text = _written(value) if isinstance(value, int) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def parse_count(value: Any) -> int:
    """`20M`, `1.5B`, `800k` or a whole number, as an exact integer from 1 to `MOST`."""
    match = re.fullmatch(rf"({_DIGITS}(?:\.{_DIGITS})?)\s*([kMBT]?)", _written(value).replace("_", ""))
    if isinstance(value, bool) or not match:
        raise ValueError(f"write a whole number up to {_MOST_TEXT}, or one like 800k, 20M, 1.5B")
    count = Fraction(match[1]) * _UNITS[match[2]]
    if count.denominator != 1 or not 1 <= count <= MOST:
        raise ValueError(f"must be a whole number of at least 1, and at most {_MOST_TEXT}")
    return int(count)


def parse_share(value: Any) -> Fraction:
    """A share of a mixture, exactly as written: 2, 0.25 or 1/3."""
    text = _written(value)  # whose exponent could be of any size, and the number as long
    try:
        if isinstance(value, bool) or not re.fullmatch(rf"-?{_SHARE_TEXT}", text):
            raise ValueError
        share = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError("a share is a number such as 2, 0.25 or 1/3, of at most 30 digits") from None
    if share < 0:
        raise ValueError("a share cannot be negative; leave the source out or give it 0")
    return share


def parse_seeds(value: Any) -> Any:
    """A number of seeds, counted from 0, or the seeds themselves."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 10_000:
        return tuple(range(value))
    if not isinstance(value, list | tuple):
        raise ValueError("seeds are a number from 1 to 10,000, or a list such as [0, 1, 2]")
    for seed in value:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MOST_SEED:
            raise ValueError(f"{shown(seed)} is no seed; write whole numbers from 0 to {MOST_SEED}")
    if len(set(value)) < len(value):
        raise ValueError("a seed stands twice; each makes one run of an arm")
    return value


_COUNT: dict[str, Any] = {"type": "string", "pattern": r"^[\d_]+(\.[\d_]+)?\s*[kMBT]?$"}
_SEED: dict[str, Any] = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": MOST_SEED},
    "minItems": 1,
}
_SHARE: dict[str, Any] = {"type": "string", "pattern": rf"^{_SHARE_TEXT}$"}
Count = Annotated[
    int,
    BeforeValidator(parse_count),
    WithJsonSchema(
        {"$comment": "count", "anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST}, _COUNT]}
    ),
]
CountOrNone = Annotated[
    int,
    BeforeValidator(lambda v: 0 if v == 0 else parse_count(v)),
    WithJsonSchema(
        {
            "$comment": "count, or 0",
            "anyOf": [{"type": "integer", "minimum": 0, "maximum": MOST}, _COUNT],
        }
    ),
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
