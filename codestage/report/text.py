"""Numbers and names as people read them, and the escapes that keep data from acting as markup."""

import math
import re
import unicodedata
from collections.abc import Sequence

DASH = "–"

METRICS = {
    "acc": "accuracy",
    "acc_norm": "length-normalised accuracy",
    "accuracy": "accuracy",
    "bpb": "bits per byte of the right answer",
    "exact_match": "exact match",
    "format": "readable answers",
    "loss": "held-out loss",
    "prob": "probability of the right choice",
}
UNITS = {"points": "points", "bits": "bits per byte", "nats": "nats a token"}


def metric_name(metric: str) -> str:
    return METRICS.get(metric, metric)


def signed(value: float | None, unit: str = "points") -> str:
    """`+3.2`, `−0.4`, `0.0`: one decimal for points, three for bits and nats. Unknown is a dash."""
    if value is None:
        return DASH
    shown = f"{value:+.{_decimals(unit)}f}"
    return shown[1:] if float(shown) == 0 else shown.replace("-", "−")


def size(value: float | None, unit: str = "points") -> str:
    """A magnitude, `2.6`, rounded away from zero so that it never promises too much."""
    if value is None:
        return DASH
    scale = 10 ** _decimals(unit)
    return f"{math.ceil(abs(value) * scale - 1e-9) / scale:.{_decimals(unit)}f}"


def _decimals(unit: str) -> int:
    return 1 if unit == "points" else 3


def interval(low: float | None, high: float | None, unit: str = "points") -> str:
    if low is None or high is None:
        return DASH
    return f"{signed(low, unit)} to {signed(high, unit)}"


def reach(low: float | None, high: float | None) -> str | None:
    """An interval as one cell of a CSV file."""
    return None if low is None or high is None else f"{low:.6g}..{high:.6g}"


def p_value(p: float | None) -> str:
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def percent(value: float | None, decimals: int = 1) -> str:
    return DASH if value is None else f"{100 * value:.{decimals}f}"


def count(value: float | None) -> str:
    """`1,234`; from ten thousand on `12.3k`, `4.56M`, `7.8B`."""
    if value is None:
        return DASH
    near = float(f"{value:.3g}")  # as it is shown: 999,999 is 1M
    for limit, sign in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit or abs(near) >= limit > 1e4:
            return f"{near / (1e3 if sign == 'k' else limit):.3g}{sign}"
    return f"{value:,.0f}"


def big(value: float | None) -> str:
    """`3.4 × 10^15` with a superscript exponent, for FLOPs."""
    if value is None:
        return DASH
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def plural(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def plain(text: object) -> str:
    """One line without control characters or direction overrides, which no format can carry."""
    line = " ".join(str(text).split())
    if line.isascii() and line.isprintable():
        return line
    return "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))


def short(text: object, length: int) -> str:
    """For axes: at most `length` characters, the middle left out."""
    line = plain(text)
    if len(line) <= length:
        return line
    head = length // 2
    return f"{line[:head]}…{line[len(line) - (length - 1 - head) :]}"


def markdown(text: object) -> str:
    """Text that Markdown (GitHub's, with HTML in it) shows as it is, also inside a table cell."""
    escaped = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", plain(text).replace("&", "&amp;"))
    # What would open a block: a heading, a list, an underline.
    escaped = re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", escaped)
    escaped = escaped.replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    # Broken by a zero-width space, an address or a host name does not become a link by itself.
    return re.sub(r"(://|(?i:www)\.)", lambda found: found[0][:-1] + "&#8203;" + found[0][-1], escaped)


LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "≥": r"$\geq$",
    "…": r"\ldots{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",  # a star that follows a row's end would be taken for an option of it
    "⁻": "$^{-}$",
} | {figure: f"$^{number}$" for number, figure in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}


def latex(text: object) -> str:
    return "".join(LATEX.get(c, c) for c in plain(text))
