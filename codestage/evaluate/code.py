"""From what a model writes to programs and their scores: tests passed, and likeness to a reference.

What counts for a program is that its tests pass. BLEU is here to compare with published figures; it is
taken problem by problem, because texts joined into one line score high whatever answers whatever.
"""

import ast
import re
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from codestage.errors import UserError
from codestage.evaluate.sandbox import Ran, Sandbox

Doc = Mapping[str, Any]
Build = Callable[[Doc, str, str], str]
"""A problem, the code under test and the token to a program: `humaneval_program`, `mbpp_program`."""

_FENCE = re.compile(
    r"^ {0,3}```[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:^ {0,3}```|\Z)", re.MULTILINE | re.DOTALL
)
_PYTHON = {"", "python", "python3", "py"}
_BEGINS = re.compile(
    r"^(?:from\s+[\w.]+\s+import\b|import\s+\w|(?:async\s+)?def\s+\w|class\s+\w|@\w|[A-Za-z_]\w*\s*=\s*\S)",
    re.MULTILINE,
)
_DEFINES = re.compile(r"^(?:async\s+def|def|class)\s", re.MULTILINE)
_NEXT = re.compile(
    r"^(?:#{2,}\s|(?:Q|A|Question|Answer|Problem|Task|Instruction|Human|User|Assistant)\b[^\n=(]*:"
    r"|\[(?:DONE|BEGIN|END)\]|<\|)",
    re.MULTILINE,
)
_TOKEN = re.compile(r"[^\W\d]\w*|\d+(?:\.\d+)?|\*\*=?|//=?|<<=?|>>=?|->|:=|[-+*/%@&|^=!<>]=|\S")


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Probability that one of k samples passes, estimated without bias from n samples.

    1 - C(n - correct, k) / C(n, k), as a product of small factors: Chen et al. 2021, "Evaluating Large
    Language Models Trained on Code", arXiv 2107.03374, equation 1 and figure 3.

    Raises:
        UserError: k samples cannot be drawn from n.
    """
    if not 1 <= k <= n:
        raise UserError(
            f"pass@{k} needs at least {max(k, 1)} samples of each problem, and k of at least 1; there are {n}"
        )
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} of {n} samples cannot pass")
    if n - correct < k:
        return 1.0
    return float(1 - np.prod(1 - k / np.arange(n - correct + 1, n + 1)))


def is_python(code: str) -> bool:
    """Whether it parses."""
    return _parsed(code) is not None


def _parsed(code: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an odd escape is no error
        try:
            return ast.parse(code)
        except (
            SyntaxError,
            ValueError,
            MemoryError,
            RecursionError,
        ):  # hostile text raises each of them
            return None


def written_program(output: str) -> str:
    """The program in an answer to an instruction: fenced, or plain between prose.

    Of fenced blocks of Python it is the first that defines something, or the first; a fence that is
    never closed goes to the end. Without a fence the program begins at the first line that can begin
    one, and ends before the next question or, if it does not parse as a whole, after the longest part of
    it that does and that defines something. Text in which no program is found comes back as it is.
    """
    output = output.replace("\r\n", "\n")
    fenced = [code for language, code in _FENCE.findall(output) if language.lower() in _PYTHON]
    if fenced:
        return next((code for code in fenced if _BEGINS.search(code)), fenced[0])
    begin = _BEGINS.search(output)
    if begin is None:
        return output
    text = output[begin.start() :]
    if end := _NEXT.search(text):
        text = text[: end.start()]
    lines = text.split("\n")
    cuts = [len(lines), *(i for i in range(len(lines) - 1, 0, -1) if _top(lines[i]))]
    for cut in cuts:
        part = "\n".join(lines[:cut])
        tree = _parsed(part)
        if tree and (cut == len(lines) or _DEFINES.search(part)):
            return _without_words(part, tree)
    return text


def _top(line: str) -> bool:
    """Whether a line begins something at the top level."""
    return bool(line) and not line[0].isspace()


def _without_words(code: str, tree: ast.Module) -> str:
    """Without what follows the program and is Python by chance, as the one word "Done" is."""
    first = len(tree.body)
    for i, statement in reversed(list(enumerate(tree.body))):
        if not isinstance(statement, ast.Expr) or isinstance(statement.value, ast.Call | ast.Constant):
            break
        first = i
    if first in (0, len(tree.body)):
        return code
    return "\n".join(code.split("\n")[: tree.body[first].lineno - 1])


def completed_function(prompt: str, output: str) -> str:
    """A prompt that ends in a function's head, with the body that the model went on with.

    The body ends before the first line at the top level ("class", "def", "#", "if __name__", "print(")
    at which prompt and body parse; a line within a text or brackets is none. Chen et al. 2021 cut at
    such words anywhere. An answer with a fenced program in it is taken for one: the program follows the
    prompt, whose imports and helpers it may need, and defines the function anew.
    """
    output = output.replace("\r\n", "\n")
    if _FENCE.search(output):
        code = written_program(output)
        return prompt + code if not _BEGINS.search(code) and code[:1].isspace() else f"{prompt}\n{code}"
    lines = output.split("\n")
    cuts = [i for i in range(1, len(lines)) if _top(lines[i])]
    for cut in cuts:
        code = prompt + "\n".join(lines[:cut]) + "\n"
        if is_python(code):
            return code
    whole = prompt + output
    return whole if not cuts or is_python(whole) else prompt + "\n".join(lines[: cuts[0]]) + "\n"


# The tested code runs as a module of its own; the token is a local name of a function that calls it, and
# the exit status 0 alone proves nothing. Nothing of the code's making runs after the last test. What it
# might put in the place of built-in functions is looked up, and the tests are compiled, before it runs.
_HARNESS = """\
import os, sys, types
def judge(write, leave, flush, run, token, parts):
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    space = module.__dict__
    for program in [compile(part, name, "exec") for name, part in parts]:
        run(program, space)
    flush()
    write(1, token)
    leave(0)
judge(os.write, os._exit, sys.stdout.flush, exec, {token!r}, {parts!r})
"""


def _program(code: str, tests: str, token: str) -> str:
    parts = [("solution.py", code), ("tests.py", tests)]
    return _HARNESS.format(token=f"\n{token}\n".encode(), parts=parts)


def humaneval_program(doc: Doc, code: str, token: str) -> str:
    """A program that prints the token at its end if `code` passes the tests of a HumanEval problem.

    `code` holds the prompt, as `completed_function` gives it; `doc` has test and entry_point. Code that
    ends the program early, with any exit status, has not printed the token. What is left: code that
    looks for the token in the frames that call it finds it, and values may say they equal anything.
    """
    return _program(code, f"{doc['test']}\ncheck({doc['entry_point']})\n", token)


def mbpp_program(doc: Doc, code: str, token: str) -> str:
    """As `humaneval_program`, for MBPP: `doc` has test_list and test_setup_code."""
    tests = "\n".join([doc.get("test_setup_code") or "", *doc["test_list"]])
    return _program(code, tests, token)


def passed(ran: Ran, token: str) -> bool:
    """Whether the program came to the end of its tests."""
    return ran.ended == "ok" and ran.stdout.endswith(f"\n{token}\n")


def run_tests(
    sandbox: Sandbox, build: Build, answers: Sequence[tuple[Doc, str]], *, workers: int | None = None
) -> list[bool]:
    """For each problem and the code that answers it: whether it passes. Every run has its own token."""
    tokens = [secrets.token_hex(16) for _ in answers]
    programs = [build(doc, code, token) for (doc, code), token in zip(answers, tokens, strict=True)]
    ran = sandbox.run_all(programs, workers=workers)
    return [passed(one, token) for one, token in zip(ran, tokens, strict=True)]


def bleu(candidate: str, reference: str) -> float:
    """BLEU of one answer against one reference, 0 to 100, over identifiers, numbers and operators.

    n-grams up to 4 and the brevity penalty of Papineni et al. 2002, "BLEU: a Method for Automatic
    Evaluation of Machine Translation"; one is added to hits and totals of n-grams longer than one, as in
    Lin and Och 2004, "ORANGE: a Method for Evaluating Automatic Evaluation Metrics for Machine
    Translation", because a single answer often has no 4-gram of the reference. Computed by sacrebleu.

    Raises:
        UserError: sacrebleu is not installed.
    """
    try:
        import sacrebleu
    except ImportError:
        raise UserError("BLEU needs sacrebleu: pip install 'codestage[code]'") from None
    texts = [" ".join(_TOKEN.findall(text)) for text in (candidate, reference)]
    scored = sacrebleu.sentence_bleu(
        texts[0], [texts[1]], smooth_method="add-k", smooth_value=1, tokenize="none"
    )
    return float(min(100.0, scored.score))
