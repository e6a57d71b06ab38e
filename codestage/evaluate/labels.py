"""Letters of choice and verdicts (yes, true, unknown, entailment), as language models write them."""

import re
from collections.abc import Iterator, Sequence
from string import ascii_uppercase

from codestage.evaluate.quantities import FILLER, REASON, SENTENCE_END, STATED

_CHOSEN = re.compile(
    rf"{STATED.pattern}|\b(?:choose|pick|select|go with)\b|(?:应|故|因此)?选(?:项|择)?(?:是|为)?",
    re.IGNORECASE | re.MULTILINE,
)
_LETTER = re.compile(
    r"(?<![A-Za-z0-9'/-])(?:[(\[]\s?([A-Za-z])\s?[)\]]|([A-Z])(?![A-Za-z0-9']|-[A-Za-z]))"
)
_LETTER_HERE = re.compile(r"([A-Za-z])(?=\s?[)\]}]|[.:]?\s*$|[.:]\s)|([A-Z])(?![A-Za-z0-9']|-[A-Za-z])")
_PROSE = re.compile(
    r"\s+(?!(?:is|because|since|as|and|or|was|with|but|seems|would|not|for|which|due|makes|fits|in)\b)[a-z]"
)
"""After the article "A" and the pronoun "I", not after a letter of choice."""
_ALSO = re.compile(r"[\s)\].]*(?:\b(?:and|or)\b|[,/&+、和或])\s*(?:(?:option|choice)\s+)?")
_DENIED = re.compile(
    r"[^.,;\n]{0,40}?\b(?:is|are|was|were|seems?|looks?|can be)\s+(?:\w+ly\s+|also\s+|both\s+)?"
    r"(?:not\b|wrong|incorrect|false|ruled out|eliminated|excluded)|[^.,;\n]{0,40}?n't\b|\s*(?:不对|错|不正确)"
)
_DENY = re.compile(
    r"(?:\bnot|eliminate|exclude|rule out|than|instead of|排除)\s*(?:option\s*)?\(?$", re.I
)

_WORDS = {
    "no": r"no|nope|否|不是|不对",
    "yes": r"yes|yeah|yep|是的?|对的?",
    "false": r"false|incorrect|untrue|wrong|错误|不正确|假",
    "true": r"true|correct|正确|真",
    "unknown": r"unknown|uncertain|undetermined|not enough information|不确定|未知|无法(?:确定|判断)"
    r"|(?:cannot|can't|can not|could not) be (?:determined|known|inferred|concluded)",
    "entailment": r"entail(?:ment|s|ed)|蕴含",
    "contradiction": r"contradict(?:ion|s|ory|ed)|矛盾",
    "neutral": r"neutral|中立",
}
_OPPOSITE = {"true": "false", "false": "true"}
SAME_VERDICT = {"true": "yes", "false": "no"}
_WORD = "|".join(f"(?P<{name}>{words})" for name, words in _WORDS.items())
_END = r"(?=\s*(?:[,.;:!?)(\]\"'}—–、-]|$|\n)|\s+(?:because|since|as|it|the|he|she|they|this|that|you|we|there)\b)"
_VERDICT = re.compile(rf"(?P<not>not\s+)?(?:{_WORD}){_END}", re.IGNORECASE)
_LEAD = re.compile(
    r"(?:\W|\b(?:so|therefore|thus|hence|overall|in conclusion|finally|absolutely|sure|well)\b)*", re.I
)
_HOLDS = re.compile(
    r"\b(?:is|are|evaluates to|equals|returns|must be|would be|be|gives|yields)(?P<nt>n't)?\s+(?:\w+ly\s+|thus\s+|"
    rf"therefore\s+|also\s+|indeed\s+|an?\s+)*(?:{_VERDICT.pattern})|(?:=>?|→)\s*(?:{_VERDICT.pattern.replace('?P<', '?P<x')})",
    re.IGNORECASE,
)
_INFERENCE = ("unknown", "entailment", "contradiction", "neutral")


def read_choice(text: str, choices: Sequence[str], *, cot: bool) -> str | None:
    """The letter stated last; else that of the first line, or of the last sentence that has one.

    More than two letters stated one after the other are a model that goes through them all.
    """
    allowed = ascii_uppercase[: len(choices) or 10]
    marks = list(_CHOSEN.finditer(text))
    stated = [found for mark in marks if (found := _stated_letter(text, mark))]
    stated = stated or [found for mark in marks if (found := _stated_text(text, mark, choices))]
    if len({letter for letter in stated if letter in allowed}) > 2:
        return None
    if stated:
        return stated[-1] if stated[-1] in allowed else None
    lines = [line for line in text.splitlines() if line.strip()]
    heads = [_head(line) for line in lines]
    through = len(set(heads) - {None}) > 2  # the choices written out again
    if not cot and lines:
        if heads[0] and (len(lines) == 1 or heads[1] in (None, heads[0])):
            return heads[0] if heads[0] in allowed else None
        if not through and (by_text := _by_text(lines[0], choices)):
            return by_text
    if through:
        lines = [line for line, head in zip(lines, heads, strict=True) if not head]
    for sentence in reversed([s for line in lines for s in SENTENCE_END.split(line)]):
        letters = {letter for letter in _letters(sentence) if letter in allowed}
        if letters:
            return letters.pop() if len(letters) == 1 else None
        if by_text := _by_text(sentence, choices):
            return by_text
    return None


def _answer_start(text: str, mark: re.Match[str]) -> int:
    between = FILLER.match(text, mark.end())
    return between.end() if between else mark.end()


def _stated_text(text: str, mark: re.Match[str], choices: Sequence[str]) -> str | None:
    """The letter of the choice whose text is stated after a mark."""
    start = _answer_start(text, mark)
    line = text[start : start + 400].split("\n", 1)[0]
    if mark[0].strip() == "A:" or line.startswith("not "):
        return None
    return _by_text(REASON.sub("", line), choices)


def _stated_letter(text: str, mark: re.Match[str]) -> str | None:
    """The letter after a mark; "?" if several are stated, None if none is."""
    letter = _LETTER_HERE.match(text, _answer_start(text, mark))
    if letter is None or (letter[2] in ("A", "I") and _PROSE.match(text, letter.end())):
        return None
    if _DENIED.match(text, letter.end()) and not REASON.match(text, letter.end()):
        return None
    also = _ALSO.match(text, letter.end())
    second = also and (_LETTER.match(text, also.end()) or _LETTER_HERE.match(text, also.end()))
    if (
        also
        and second
        and not _PROSE.match(text, second.end())
        and not _DENIED.match(text, second.end())
    ):
        return "?"
    return (letter[1] or letter[2]).upper()


def _head(line: str) -> str | None:
    """The letter at the beginning of a line: `B`, `B.`, `(B) blue`, `option B`."""
    head = re.match(
        r"[\s\"'“*#>-]*(?:option|choice)?\s*(?:\(([A-Za-z])\)|([A-Z])(?=\s*[).:,]|\s+[-–—]|\s*$|\s+(?:because|since|is (?:correct|right|the))\b)"
        r"|([a-z])(?=[).:]|\s*$))(?!\s*[+/&]|\W{0,2}\s*(?:and|or)\b|,\s*\(?[A-Z]\b)",
        line,
        re.IGNORECASE if line.lower().startswith(("option", "choice")) else 0,
    )
    return (head[1] or head[2] or head[3]).upper() if head else None


def _letters(sentence: str) -> Iterator[str]:
    """Letters of choice that a sentence names and does not deny."""
    for letter in _LETTER.finditer(sentence):
        if letter[2] in ("A", "I") and _PROSE.match(sentence, letter.end()):
            continue
        if not _DENIED.match(sentence, letter.end()) and not _DENY.search(
            sentence[max(0, letter.start() - 24) : letter.start()]
        ):
            yield (letter[1] or letter[2]).upper()


def _by_text(sentence: str, choices: Sequence[str]) -> str | None:
    """The letter of the one choice whose own text a sentence holds."""
    sentence = sentence.casefold()
    found = {}
    for letter, choice in zip(ascii_uppercase, choices, strict=False):
        text = re.escape(" ".join(choice.casefold().split()))
        if text and re.search(rf"(?<![a-z0-9])(?<!not ){text}(?![a-z0-9])", sentence):
            found[letter] = choice.casefold()
    longest = [a for a, text in found.items() if not any(text in t for b, t in found.items() if b != a)]
    return longest[0] if len(longest) == 1 else None


def read_verdict(text: str, *, cot: bool) -> str | None:
    """The verdict stated last; else that which the text begins with, or, after reasoning, ends with."""
    stated = []
    for mark in STATED.finditer(text):
        stated.append(_verdict_at(text, _answer_start(text, mark)))
    if found := [verdict for verdict in stated if verdict]:
        return found[-1]
    sentences = [s.strip() for s in SENTENCE_END.split(text) if s.strip(" #*-`")]
    if not sentences:
        return None
    first = _begins(sentences[0])
    if first and not cot:
        return first
    for sentence in reversed(sentences[-3:]):
        if verdict := _begins(sentence) or _holds(sentence):
            return verdict
        if sentence is sentences[-1] and len(sentences) > 1 and sentence[-1] not in ".!?:)\"'":
            break  # it breaks off before it comes to a verdict
    return first


def _verdict_at(text: str, start: int) -> str | None:
    return _named(_VERDICT.match(text, start))


def _begins(sentence: str) -> str | None:
    lead = _LEAD.match(sentence)
    return _verdict_at(sentence, lead.end() if lead else 0)


def _holds(sentence: str) -> str | None:
    """The verdict of a sentence such as "The statement is not true." or "… entails the hypothesis."."""
    if re.fullmatch(r"(?:true|false) (?:is|=) (?:not )?(?:true|false)\W*", sentence, re.IGNORECASE):
        return None  # says nothing of what was asked
    verdicts = [v for m in _HOLDS.finditer(sentence) if (v := _named(m))]
    if verdicts:
        return verdicts[-1]
    for name in _INFERENCE:
        if re.search(rf"(?<!no )(?<!not )(?<!\w)(?:{_WORDS[name]})(?!\w)", sentence, re.IGNORECASE):
            return name
    return None


def _named(found: re.Match[str] | None) -> str | None:
    """The verdict that matched; one that is denied is its opposite, if it has one."""
    if found is None:
        return None
    parts = {name.removeprefix("x"): text for name, text in found.groupdict().items() if text}
    denied = bool(parts.pop("not", None)) ^ bool(parts.pop("nt", None))
    (name,) = parts
    return _OPPOSITE.get(name) if denied else name
