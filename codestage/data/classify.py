"""What a document is: code, text that tells of code, markup, mathematics, or plain text.

Corpora called code hold much else, and what helps a model may be that (Zhao et al. 2026,
2605.19762). The classes are told apart by rule, from the share of lines that look like each, or by a small
neural classifier of file types, magika (Fratantonio et al. 2024, 2409.13768), where that is installed.
"""

import re
from collections.abc import Callable
from typing import Literal

from codestage.errors import UserError

KINDS = ("code", "code-text", "markup", "math", "text")

CODE_LINE = re.compile(
    r"""^\s*(?:
        (?:def|class|async\s+def)\s+\w+.*:\s*$ | (?:import|from)\s+[\w.]+(?:\s+(?:import|as)\b.*)?$
      | (?:if|elif|while|for|with|try|except|else|finally)\b.*:\s*(?:\#.*)?$
      | (?:return|raise|assert|yield|del|pass|break|continue)\b[^.?!]*$
      | @\w[\w.]*(?:\(.*)?$ | \#!\S+ | \#\s*(?:include|define|ifdef|ifndef|endif|pragma)\b.*
      | [\w.\[\]'"*&]+\s*(?:[-+*/%|&^]|//|\*\*|<<|>>)?=(?!=)\s*\S.*
      | (?:public|private|protected|static|const|let|var|int|void|char|float|double|bool|struct|enum
          |fn|func|function|package|namespace|using|template|impl|pub|mut|type|interface|switch|case)\b.*[;{(:=].*
      | .*[;{}]\s*(?://.*)?$ | [\w.]+\([^()]*(?:\([^()]*\)[^()]*)*\)[;,]?\s*(?:\#.*)?$
      | (?:'[^']*'|"[^"]*"|0x[0-9a-fA-F]+|-?\d[\d.]*)\s*(?::\s*\S.*)?(?:,.*|\s+\#.*)$
      | \s{4,}(?:'[^']*'|"[^"]*")\s*$
      | [\])}]+[;,]?\s*$ | >>>\s.* | (?://|/\*|\*/).*
    )""",
    re.VERBOSE,
)
MARKUP_LINE = re.compile(
    r"^\s*(?:</?[a-zA-Z!?][^>]*>.*|\\(?:begin|end|section|documentclass)\b.*|<!--.*)$"
)
MATH = re.compile(
    r"\\(?:frac|sum|int|sqrt|alpha|beta|theta|mathbb|leq|geq|infty|partial)\b|\$[^$\n]{1,200}\$"
    r"|[∑∫√≤≥∞∂∈∀∃⊂∪∩≠±]"
)
FENCE = re.compile(r"^\s*(?:```|~~~)")


def kind_of(text: str) -> str:
    """One of `KINDS`. Code and prose in one document, in blocks or by turns, is code-text."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return "text"
    markup = sum(bool(MARKUP_LINE.match(line)) for line in lines) / len(lines)
    if markup > 0.3:
        return "markup"
    code = _code_share(lines)
    if code >= 0.6:
        return "code"
    if code >= 0.15 or sum(bool(FENCE.match(line)) for line in lines) >= 2:
        return "code-text"
    per_line = len(MATH.findall(text)) / len(lines)
    return "math" if per_line > 0.25 else "text"


def _code_share(lines: list[str]) -> float:
    """Share of lines that are code: by their look, or because they stand in a fenced block.

    Comments and docstrings inside code count with the code around them.
    """
    inside, code, docstring = False, 0, False
    before = False
    for line in lines:
        if FENCE.match(line):
            inside = not inside
            continue
        quotes = line.count('"""') + line.count("'''")
        comment = line.lstrip().startswith(("#", "//", "*", "--")) and before
        is_code = (
            inside or docstring or bool(CODE_LINE.match(line)) or comment or (quotes > 0 and before)
        )
        if quotes % 2 and (before or docstring or is_code):
            docstring = not docstring
        code += is_code
        before = is_code
    return code / len(lines)


def classifier(name: Literal["rule", "magika"]) -> Callable[[str], str]:
    """A function from a document's text to one of `KINDS`.

    Raises:
        UserError: magika is not installed.
    """
    if name == "rule":
        return kind_of
    try:
        from magika import Magika
    except ImportError:
        raise UserError("magika is not installed; pip install 'codestage[classify]'") from None
    model = Magika()

    def kind(text: str) -> str:
        """Magika tells code and markup from the rest; what mixes code with prose, and mathematics, it
        does not know: there the rule has its say.
        """
        found = model.identify_bytes(text.encode()).output
        by_rule = kind_of(text)
        if found.label in MARKUP_TYPES:
            return "markup"
        if found.group == "code" and found.label not in DATA_TYPES:
            return "code-text" if by_rule == "code-text" else "code"
        return "code-text" if by_rule == "code" else by_rule

    return kind


MARKUP_TYPES = ("html", "xml", "latex", "svg", "sgml", "rst", "rdf", "xsd")
DATA_TYPES = (
    "csv",
    "tsv",
    "json",
    "jsonl",
    "yaml",
    "ini",
    "toml",
    "srt",
    "vtt",
    "ignorefile",
    "htaccess",
)


CODING_WORDS = re.compile(
    r"\b(?:python|javascript|typescript|java|c\+\+|c#|rust|golang|sql|html|css|bash|regex|code|coding|"
    r"program|function|script|algorithm|compile|debug|api|class|array|recursion|library|numpy|pandas|"
    r"implement|implementation|database|query|json|git|docker|linux|unit tests?)\b",
    re.IGNORECASE,
)
MATH_WORDS = re.compile(
    r"\b(?:solve|equation|integral|derivative|probability|theorem|proof|prove|matrix|algebra|geometry|"
    r"triangle|polynomial|fraction|percent|arithmetic|calculate|sum of|how many|total cost|average|"
    r"square root|perimeter|radius|ratio|calculus|modulo|factorial)\b",
    re.IGNORECASE,
)


def subject_of(prompt: str, response: str) -> str:
    """coding, math or other: the three parts that Zhang et al. cut ShareGPT into, here by rule."""
    text = f"{prompt}\n{response}"
    if "```" in text or kind_of(response) in ("code", "code-text") or kind_of(prompt) == "code":
        return "coding"
    words = max(20, len(prompt.split()))
    coding = len(CODING_WORDS.findall(prompt))
    math = len(MATH_WORDS.findall(prompt)) + len(MATH.findall(text)) + _sums(text)
    if coding and coding / words >= 0.04 and coding >= math:
        return "coding"
    return "math" if math >= 2 or (math and re.search(r"\d", prompt)) else "other"


def _sums(text: str) -> int:
    """Written-out sums such as `3 + 4 = 7`."""
    return len(re.findall(r"\d\s*[-+*/×÷]\s*\d[^=\n]{0,20}=", text))
