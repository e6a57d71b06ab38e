"""Numbers as language models write them, and the marks with which they state an answer."""

import re
from fractions import Fraction

LATEX = (
    (r"<<[^<>\n]*>>", ""),  # the calculator notes in GSM8K's own solutions
    (r"(?<=\d)\\[dt]?frac", r" \\frac"),
    (r"\\[dt]?frac\s*\{\s*(-?[\d.]+)\s*\}\s*\{\s*([\d.]+)\s*\}", r"\1/\2"),
    (r"\\[dt]?frac\s*(\d)\s*(\d)", r"\1/\2"),
    (r"\\(?:text\w*|math\w+|mbox|operatorname)\s*\{([^{}]*)\}", r" \1"),
    (r"\\(?:times|cdot)\b", "*"),
    (r"\\div\b", "/"),
    (r"\\approx\b", "="),
    (r"\{,\}", ","),
    (r"\\[,;:]", "\u2009"),
    (r"\\!|\\(?:left|right|displaystyle)\b", ""),
    (r"\\[()\[\]]|\\q?quad\b|\\ ", " "),
    (r"\\([$%#&])", r"\1"),
    (r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{[^{}]*\})*)\}", r" #### \1\n"),
    (r"\\boxed\b\s*\{?", " #### "),
    (r"(?<!\d)\*\*+|\*\*+(?![ \t]*\d)|__+|`+", ""),
)
"""What to write instead of LaTeX, Markdown and notes; a box states an answer as `####` does."""
CHARACTERS = str.maketrans(
    {chr(c): chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F)}  # full width
    | dict(zip("−’×✕÷⁄≈【】", "-'**//=()", strict=True))
    | dict(zip("½¼¾⅓⅔。", (" 1/2", " 1/4", " 3/4", " 1/3", " 2/3", ". "), strict=True))
)
RAISED = "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"
STATED = re.compile(
    r"####|</?answer>|\b(?:answers?|ans|option|choice|antwort|respuesta|réponse)\b"
    r"(?:\s+(?:choice|option|here|(?:to|for)\b[^.:\n]{0,80}?))?"
    r"\s*(?:\b(?:is|are|will be|would be|should be|must be|seems to be|equals)\b|[:=])"
    r"|答案\s*(?:应该|应)?\s*(?:是|为|选|:)|^[ \t]*A:",
    re.IGNORECASE | re.MULTILINE,
)
"""After these marks an answer is stated."""
FILLER = re.compile(
    r"(?:[\s:#_\"'“\[({$~=>*]|\b(?:that|about|approximately|around|exactly|simply|just|only|therefore|thus|"
    r"clearly|indeed|now|equal to|a total of|(?:the\s+)?(?:correct\s+)?(?:option|choice|letter))\s){0,40}",
    re.IGNORECASE,
)
"""What may stand between the mark and the answer."""
REASON = re.compile(r",?\s+(?:because|since)\b.*$", re.IGNORECASE)
SENTENCE_END = re.compile(r"\n+|(?<=[.!?])\s+")
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)|\d{1,3}(?:[\u2009\u202f\u00a0']\d{3})+(?!\d)|\d+)"
_VALUE = re.compile(
    rf"""(?<![A-Za-z0-9_.^)\\])(?<!\d[,:])(?<!\^[-+{{])(?<!\^\{{[-+])
    (?P<sign>[-+]|negative\s|minus\s)?(?:[$€£¥₹]\s?|USD\s|Rs\.?\s)?(?P<inner>[-+])?
    (?P<whole>{_WHOLE}(?:\.\d+|,\d{{1,2}}(?![\d,]))?|\.\d+)
    (?:[eE](?P<exponent>[-+]?\d{{1,3}})(?![A-Za-z0-9_])|\s?[*x]\s?10\s?\^\s?\{{?(?P<power>[-+]?\d{{1,3}})\}}?)?
    (?:\s?/\s?(?P<under>\d+(?:\.\d+)?)(?![\d/])|\s+(?:and\s)?(?P<over>\d+)/(?P<below>\d+)(?![\d/]))?
    (?:[\s-](?P<scale>hundred|thousand|million|billion|dozen)\b)?
    (?P<percent>\s?(?:%|per\s?cent\b))?
    (?![\d^])(?![xyn]\b)(?!,\d{{3}})(?!\.\d)(?!(?:st|nd|rd|th)\b)""",
    re.IGNORECASE | re.VERBOSE,
)
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "dozen": 12}
_WORD = "|".join((*_TENS, *reversed(_SMALL), *_SCALES))
_WORDS = re.compile(
    rf"\b(?P<sign>(?:negative|minus)\s+)?(?P<words>(?:an?\s+(?={'|'.join(_SCALES)}))?(?:{_WORD})"
    rf"(?:(?:-|\s+and\s+|\s+)(?:{_WORD}))*)\b(?P<percent>\s+per\s?cent\b)?",
    re.IGNORECASE,
)
_NO_COUNT = re.compile(
    r"\b(?:the|this|that|which|each|every|any|no|another|last|next)\s+one\b|^\W*one\s+of\b|\bone\s+(?:another|by)\b",
    re.I,
)
_BESIDE = re.compile(
    r"\b(?:in|after|within|per|every|out of|during|over|by|from|on|among|each)\s+(?:the\s+|all\s+|a\s+)?$"
    r"|\b(?:January|February|March|April|May|June|July|August|(?:Sept|Octo|Novem|Decem)(?:em)?ber)\s+$",
    re.I,
)
"""Before a number that says how long, when or out of how many, not what was asked for."""
_BRACKETS = re.compile(r"\([^()]*\)")
_DIVIDED = re.compile(r"\s/|/\s")
"""A calculation, where `3/4` is a number."""
_SHARE = re.compile(r",\s+which is \S+\s*(?:%|per\s?cent) of (?:the|all|its|their)\b[^,]*$", re.I)
_THEREFORE = re.compile(r"\W*(?:therefore|thus|hence|in conclusion|in total|altogether)\b", re.I)
_NOT = re.compile(r"\s*not\s+", re.I)
_MOST = 10**300
"""No quantity has so many digits; a loop of a model does."""
_BOUGHT = re.compile(r"\bfor\s+(?:the\s+|all\s+)?$", re.I)
_AND = re.compile(r"\s+[a-z]+\s+and\s+\d", re.I)
_NEVER = re.compile(r"\b(?:not|(?:divisible|divided?|dividing|multipl\w+) by)\s+$", re.I)
_FOR = re.compile(r"\b(?:for|at|of|with|to|if|per|each|when|by)\b", re.I)
_RESULT = re.compile(
    r"(?:=|\b(?:makes?|is|are|equals?|gives?|leaves?|totals?)\b)\s*(?:about\s+)?$", re.I
)
_JOIN = re.compile(r"\s*(?:or|and|to|,|[-+*/–—]|x|plus|minus|times|divided by)\s*[$€£]?", re.I)
_UNIT = r"(?:\s*(?!or\b|and\b|plus\b|minus\b|times\b)[a-z€¥²³^0-9/]*[a-z€¥]\S*){0,3}"
_ASIDE = re.compile(
    r"\W*(?:let me|let's (?:check|verify)|if you|note|please|feel free|check|verif|to verify|to check|(?:i )?hope|is there|would you)",
    re.I,
)
_ITEM = re.compile(r"^[ \t*]*(?:#*[ \t]*step[ \t]*)?(\d{1,2})[.):][ \t]+(?=\S)", re.I | re.M)
_BROKEN_OFF = re.compile(
    r"(?:[-+*/=(,]|\s\$|\b(?:the|an?|of|is|are|was|by|and|or|to|that|with|for|from|in|so|he|she|we|they|have|"
    r"must|then|into|if|as|than|at|on|find|being|not))\s*$",
    re.IGNORECASE,
)
"""The end of a sentence that has not come to its end."""


def plain(text: str) -> str:
    """`text` without LaTeX, emphasis and full-width characters."""
    text = re.sub(f"[{RAISED}]+", lambda m: "^" + m[0].translate(_lowered()), text.translate(CHARACTERS))
    for pattern, instead in LATEX:
        text = re.sub(pattern, instead, text)
    return text


def _lowered() -> dict[int, str]:
    return str.maketrans(dict(zip(RAISED, "-0123456789", strict=True)))


def read_number(text: str, *, cot: bool) -> str | None:
    """The number that `text` (made `plain`) answers with, in plain digits; None if there is none.

    The last number that is stated as the answer; else, without `cot`, that of a first line which says
    nothing else; else the result in the last sentence that has a number.
    """
    if any(m[1] == "1" for m in _ITEM.finditer(text)):
        text = _ITEM.sub("", text)
    stated: list[str] = []
    for mark in STATED.finditer(text):
        denied = _NOT.match(text, mark.end())
        value = denied and _VALUE.match(text, denied.end())
        if stated and value and stated[-1] == _written(value):
            stated.append("")  # what was stated is taken back
        elif (found := _after(text, mark)) is not None:
            stated.append(found)
    if stated:
        return stated[-1] or None
    if not cot:
        first = text.strip().split("\n")[0].strip(" .!;\"'“”()[]:")
        value = _VALUE.match(first)
        if value and not _DIVIDED.search(value[0]) and re.fullmatch(_UNIT, first[value.end() :], re.I):
            return _written(value)
    return _concluded(text)


def _after(text: str, mark: re.Match[str]) -> str | None:
    """The number stated after a mark; "" if several are, None if none is."""
    between = FILLER.match(text, mark.end())
    start = between.end() if between else mark.end()
    if start and text[start - 1] in "([{" and re.match(r"[-+\d.]", text[start:]) is None:
        start -= 1
    sentence = SENTENCE_END.split(text[start : start + 400], maxsplit=1)[0]
    direct = _VALUE.match(text, start) or _WORDS.match(text, start)
    if direct is None:
        if mark[0] == "####" or re.match(r"not\b", sentence):
            return None
        line = text[mark.end() : mark.end() + 400].split("\n", 1)[0]
        return next(
            (f for s in reversed(SENTENCE_END.split(line)) if (f := _result(s)) is not None), None
        )
    sentence = REASON.sub("", sentence)  # whose numbers are results too, of other things
    for value in reversed(list(_VALUE.finditer(sentence))):
        if value.start() and _RESULT.search(_before(sentence, value)):
            return _written(value)
    joined = _JOIN.match(text, direct.end())
    if (joined and _VALUE.match(text, joined.end()) and not direct["percent"]) or _AND.match(
        text, direct.end()
    ):
        return ""
    return _written(direct)


def _concluded(text: str) -> str | None:
    """The result in the last sentence that has a number, if the text does not break off before."""
    sentences = [s for s in SENTENCE_END.split(text) if s.strip()]
    digits = _VALUE.search(text) is not None
    if sentences and _breaks_off(sentences[-1], alone=len(sentences) == 1):
        concludes = sentences[-2] if len(sentences) > 1 else ""
        return (_result(concludes) or None) if _THEREFORE.match(concludes) else None
    for place, sentence in enumerate(reversed(sentences)):
        found = _result(sentence, words=not digits)
        if found is not None and not (_ASIDE.match(sentence) and place + 1 < len(sentences)):
            return found or None
    return None


def _breaks_off(sentence: str, *, alone: bool) -> bool:
    """Whether the last sentence of a text ends where no sentence can end, or before its number."""
    if _BROKEN_OFF.search(sentence):
        return True
    if sentence.rstrip()[-1] in ".!?:;)]}\"'$%" or alone:
        return False
    opens = re.match(r"\W*(?:if|when|since|because|let|to)\b", sentence, re.IGNORECASE)
    long = len(sentence.split()) > 4 and not _ASIDE.match(sentence)
    return bool(opens) or (long and not _VALUE.search(sentence) and not _WORDS.search(sentence))


def _result(sentence: str, *, words: bool = False) -> str | None:
    """The number that a sentence comes to; "" if it leaves several, None if it has none."""
    pattern = _WORDS if words else _VALUE
    sentence = _NO_COUNT.sub(" ", sentence) if words else sentence
    for aside in (_BRACKETS, REASON, _SHARE):
        shorter = aside.sub(" ", sentence)
        sentence = shorter if pattern.search(shorter) else sentence
    found = [m for m in pattern.finditer(sentence) if not _NEVER.search(_before(sentence, m))]
    found = [m for m in found if not _BESIDE.search(_before(sentence, m))] or found
    if not found:
        return None
    prices = [m.start() for m in found if re.match(r"[-+]?[$€£¥₹]", m[0])]
    if prices:  # "$64 for 16 glasses"
        found = [m for m in found if m.start() <= prices[0] or not _BOUGHT.search(_before(sentence, m))]
    equal = [m for m in found if re.search(r"=\s*$", _before(sentence, m))]
    if equal and equal[-1] is not found[-1]:
        rest = sentence[equal[-1].end() : found[-1].start()]
        if _FOR.search(rest) and not re.search(
            r"[,;]|\b(?:is|are|has|have|so|then|which|equals)\b", rest
        ):
            return _written(equal[-1])
    if len(found) > 1 and _JOIN.fullmatch(sentence, found[-2].end(), found[-1].start()):
        return ""
    return "" if _DIVIDED.search(found[-1][0]) else _written(found[-1])


def _before(sentence: str, found: re.Match[str]) -> str:
    """The words just before a number: all that the patterns look at, however long a loop is."""
    return sentence[max(0, found.start() - 30) : found.start()]


def values(text: str) -> set[Fraction]:
    """What a number as `read_number` writes it may mean: 42% is 42, or 0.42."""
    written = read_number(plain(text), cot=False)
    if written is None:
        return set()
    value = Fraction(written.rstrip("%"))
    return {value, value / 100} if written.endswith("%") else {value}


def is_number(text: str) -> bool:
    """Whether `text` says one number, perhaps with a unit, and nothing else: no `5a`, `5\\sqrt{2}`, `1,2`."""
    said = plain(text).strip(" .$")
    value = _VALUE.match(said)
    several = re.search(r"\d,\d{1,2}(?!\d)", said)
    unit = value and re.fullmatch(r"(?:\s+[a-z]+){0,3}", said[value.end() :], re.IGNORECASE)
    return bool(value and unit and not several and _written(value))


def _written(found: re.Match[str]) -> str | None:
    """`$1,250.50` as `1250.5`, `3 1/2` as `3.5`, `1/3` as itself; None if it is no number."""
    parts = found.groupdict()
    value = _of_words(parts["words"]) if "words" in parts else _of_digits(parts)
    if value is None or max(abs(value.numerator), value.denominator) >= _MOST:
        return None
    if (parts["sign"] or "+").strip() != "+" or parts.get("inner") == "-":
        value = -value
    percent = "%" if parts["percent"] else ""
    places = next((k for k in range(30) if (value * 10**k).denominator == 1), None)
    if places is None:
        return f"{value}{percent}"
    digits = str(abs(value) * 10**places).rjust(places + 1, "0")
    whole, part = digits[: len(digits) - places], digits[len(digits) - places :]
    return ("-" if value < 0 else "") + whole + ("." + part if part else "") + percent


def _of_digits(parts: dict[str, str]) -> Fraction | None:
    digits = re.sub(r"[\u2009\u202f\u00a0']", "", parts["whole"])
    digits = re.sub(r",(\d{1,2})$", r".\1", digits).replace(",", "")
    if len(found := re.sub(r"\D", "", "".join(p or "" for p in parts.values()))) > 400:
        return None
    value = Fraction("0" + digits if digits.startswith(".") else digits) if found else Fraction()
    value *= Fraction(10) ** int(parts["exponent"] or parts["power"] or 0)
    under, below = Fraction(parts["under"] or 1), int(parts["below"] or 1)
    if not under or not below:
        return None
    return (value / under + Fraction(int(parts["over"] or 0), below)) * _SCALES.get(
        (parts["scale"] or "").lower(), 1
    )


def _of_words(text: str) -> Fraction | None:
    """The value of number words in their order ("two hundred and five"); None for "two five"."""
    total = current = 0
    room = 1000
    for word in re.findall(_WORD, text.lower()):
        if word in _SCALES:
            current = (current or 1) * _SCALES[word]
            room = 100 if word == "hundred" else 1000
            if room == 1000:
                total, current = total + current, 0
            continue
        value = _SMALL.index(word) if word in _SMALL else 20 + 10 * _TENS.index(word)
        if value >= room:
            return None
        current, room = current + value, 10 if value >= 20 else 0
    return Fraction(total + current)
