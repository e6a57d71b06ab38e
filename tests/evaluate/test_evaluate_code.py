"""From answers to programs, from programs to verdicts, and the scores made of them."""

import gzip
import json
import math
import re
import statistics
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codestage.errors import UserError
from codestage.evaluate.code import (
    bleu,
    completed_function,
    humaneval_program,
    is_python,
    mbpp_program,
    pass_at_k,
    passed,
    run_tests,
    written_program,
)
from codestage.evaluate.sandbox import Ran, Sandbox

ADD = {"test_list": ["assert add(2, 3) == 5", "assert add(0, 0) == 0"], "test_setup_code": ""}
CHECK = {"test": "def check(f):\n    assert f(2, 3) == 5\n", "entry_point": "add"}
PROMPT = 'import math\n\n\ndef add(a, b):\n    """The sum."""\n'
RIGHT = "def add(a, b):\n    return a + b\n"


@pytest.fixture(scope="module")
def box() -> Sandbox:
    try:
        return Sandbox()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def problems(shared):
    """Reads one of the public sets, or skips if it is missing."""

    def read(name):
        path = shared / "data" / "eval" / name
        if not path.exists():
            pytest.skip(f"{name} is not in shared/data/eval")
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    return read


def test_pass_at_k_is_the_share_of_draws_with_a_right_sample():
    for n in range(1, 8):
        for correct in range(n + 1):
            for k in range(1, n + 1):
                draws = list(combinations([i < correct for i in range(n)], k))
                assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@given(st.integers(1, 3000), st.data())
def test_pass_at_k_stays_exact_for_many_samples(n, data):
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    exact = 1 - math.comb(n - correct, k) / math.comb(n, k)
    assert pass_at_k(n, correct, k) == pytest.approx(exact, abs=1e-9)
    assert 0 <= pass_at_k(n, correct, k) <= 1


def test_pass_at_k_of_too_few_samples_is_refused():
    with pytest.raises(UserError, match="at least 10 samples"):
        pass_at_k(5, 1, 10)
    with pytest.raises(UserError, match="at least 1"):
        pass_at_k(5, 1, 0)


ANSWERS = {
    "fenced": f"Sure!\n```python\n{RIGHT}```\nIt adds.",
    "fenced without a language": f"```\n{RIGHT}```",
    "fence with a capital": f"```Python\n{RIGHT}```",
    "fence never closed": f"Here:\n```python\n{RIGHT}",
    "a call before the program": f"```bash\npip install x\n```\nthen\n```python\n{RIGHT}```",
    "an example of use before it": f"```python\nadd(1, 2)\n```\nis defined by\n```python\n{RIGHT}```",
    "Windows' ends of line": f"```python\n{RIGHT}```".replace("\n", "\r\n"),
    "plain": RIGHT,
    "plain after prose": f"The function is as follows.\n\n{RIGHT}",
    "plain before prose": f"{RIGHT}\nThis function adds the two (numbers.",
    "plain between prose": f"Here it is:\n{RIGHT}\nIt's easy, isn't it?\nYes.\n",
    "one word after it": f"{RIGHT}\nDone",
    "before the next question": f"{RIGHT}\nQuestion: Write a function to subtract.\ndef add(a): pass",
    "before a heading": f"{RIGHT}\n### Instruction:\nSubtract.\n### Response:\ndef add(a): pass",
    "before MBPP's mark": f"{RIGHT}[DONE]\n[BEGIN]\ndef add(a): pass",
    "before a part cut short": f"{RIGHT}\ndef subtract(a, b):\n    return (a",
    "with an import": f"Use math:\nimport math\n{RIGHT}",
    "with a constant": f"N = 1\n{RIGHT}",
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_program_is_found_in_an_answer(kind):
    code = written_program(ANSWERS[kind])
    space = {}
    exec(code, space)
    assert space["add"](2, 3) == 5
    assert code.replace("import math\n", "").replace("N = 1\n", "").strip() == RIGHT.strip()


@pytest.mark.parametrize("answer", ["", "I cannot do that.", "```", "def f(:\n    pass", "```python"])
def test_an_answer_without_a_program_is_no_error(answer):
    assert isinstance(written_program(answer), str)
    assert isinstance(completed_function(PROMPT, answer), str)


def test_a_broken_program_is_not_mended_by_leaving_it_out():
    assert not is_python(written_program("import math\ndef f(:\n    return math.pi\n"))


@given(st.text(alphabet="`\n py:def()=[x #\"'\r", max_size=60))
def test_no_text_breaks_the_search_for_a_program(text):
    said = set(re.sub(r"\s", "", text))
    assert set(re.sub(r"\s", "", written_program(text))) <= said  # nothing that was not written
    assert completed_function(PROMPT, text).startswith(PROMPT)


BODY = "    return a + b\n"
COMPLETIONS = {
    "only the body": BODY,
    "then a class": f"{BODY}\nclass Other:\n    pass",
    "then a function": f"{BODY}\n\ndef other():\n    return (",
    "then a comment": f"{BODY}\n# Test it\nassert False",
    "then a main part": f'{BODY}\nif __name__ == "__main__":\n    raise ValueError',
    "then a print": f"{BODY}\nprint(add(1, 2)",
    "then prose": f"{BODY}\nThis adds the numbers.",
    "a text over several lines": f'    text = """\ndef no\n"""\n{BODY}\nprint("x"',
    "brackets over several lines": "    return sum([\na,\nb,\n])\n\nend of it",
    "a fenced program": f"```python\n{RIGHT}```",
    "a fenced body": f"```python\n{BODY}```",
    "an inner function": "    def inner():\n        return a + b\n\n    return inner()\n\ndef f(",
}


@pytest.mark.parametrize("kind", COMPLETIONS)
def test_a_completion_ends_with_the_function(kind):
    code = completed_function(PROMPT, COMPLETIONS[kind])
    space = {"__name__": "__main__"}
    exec(code, space)
    assert space["add"](2, 3) == 5
    assert code.startswith(PROMPT)


EARLY = {
    "sys.exit": "import sys\nsys.exit(0)",
    "os._exit": "import os\nos._exit(0)",
    "exit within a call": "import sys\ndef add(a, b): sys.exit(0)",
    "SystemExit": "raise SystemExit",
    "exit after printing": "print('ok')\nraise SystemExit(0)",
    "exit from a thread": "import threading, os\nthreading.Thread(target=os._exit, args=(0,)).start()\n"
    "import time\ntime.sleep(9)",
    "a signal's handler": "import signal, os\nsignal.signal(14, lambda *a: os._exit(0))\n"
    "signal.setitimer(signal.ITIMER_REAL, 0.01)\nwhile True: pass",
    "another program in its place": "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', ''])",
    "end of what is run": "import atexit, os\natexit.register(os._exit, 0)\nraise ValueError",
    "an error": "raise ValueError",
    "wrong": "def add(a, b): return a * b",
    "nothing": "",
    "not Python": "def add(a, b",
    "closed output": f"import os\nos.close(1)\n{RIGHT}",
    "no exec": "import builtins\nbuiltins.exec = lambda *a: None",
    "no compile": "import builtins\nbuiltins.compile = lambda *a: ''",
}


@pytest.mark.parametrize("build", [humaneval_program, mbpp_program])
def test_only_a_program_that_ran_all_its_tests_passes(box, build):
    doc = CHECK if build is humaneval_program else ADD
    answers = [(doc, RIGHT), *((doc, code) for code in EARLY.values()), (doc, RIGHT)]
    found = run_tests(box, build, answers)
    assert dict(zip(["right", *EARLY, "again"], found, strict=True)) == {
        "right": True,
        **dict.fromkeys(EARLY, False),
        "again": True,
    }


@pytest.mark.parametrize(
    "code",
    [
        f"{RIGHT}print('no end of line', end='')",
        f"import os\n{RIGHT}os.write = os._exit = None",
        f"import sys, io\n{RIGHT}sys.stdout = io.StringIO()",
        f"{RIGHT}if __name__ == '__main__':\n    raise ValueError",
        f"from __future__ import annotations\n{RIGHT}",
        f"import threading, time\n{RIGHT}threading.Thread(target=time.sleep, args=(99,)).start()",
        f"import atexit\n{RIGHT}atexit.register(print, 'later')",
        RIGHT.replace("\n", "\r\n"),
    ],
)
def test_a_right_program_passes_whatever_else_it_does(box, code):
    assert run_tests(box, mbpp_program, [(ADD, code)]) == [True]


def test_setup_code_runs_between_the_answer_and_its_tests(box):
    doc = {"test_setup_code": "two = add(1, 1)", "test_list": ["assert add(two, 3) == 5"]}
    assert run_tests(box, mbpp_program, [(doc, RIGHT)]) == [True]


def test_the_token_is_neither_in_the_code_s_names_nor_in_a_file(box):
    code = """
import glob, sys
seen = repr(globals()) + repr(sys.modules["__main__"].__dict__) + repr(sys.argv)
for path in glob.glob("/*") + glob.glob("/tmp/*") + ["/proc/self/cmdline", "/proc/self/environ"]:
    try:
        seen += open(path, errors="replace").read()
    except OSError:
        pass
print("the token" in seen)
"""
    ran = box.run(mbpp_program({"test_list": []}, code, "the token"))
    assert passed(ran, "the token")
    assert ran.stdout.startswith("False\n")


def test_the_token_counts_at_the_very_end_and_with_exit_status_0():
    assert passed(Ran("ok", 0, "text\nabc\n", "", 0.1), "abc")
    for ended, text in (("failed", "\nabc\n"), ("ok", "\nabc\nmore"), ("ok", "abc"), ("ok", "\nabd\n")):
        assert not passed(Ran(ended, 0, text, "", 0.1), "abc")


@pytest.mark.slow
def test_the_reference_solutions_of_humaneval_pass_and_empty_ones_fail(box, problems):
    docs = problems("HumanEval.jsonl.gz")
    solved = [(d, completed_function(d["prompt"], d["canonical_solution"])) for d in docs]
    assert all(run_tests(box, humaneval_program, solved))
    assert not any(run_tests(box, humaneval_program, [(d, d["prompt"] + "    pass\n") for d in docs]))


@pytest.mark.slow
def test_the_reference_solutions_of_mbpp_pass_and_each_other_s_do_not(box, problems):
    docs = problems("mbpp.jsonl.gz")
    found = run_tests(box, mbpp_program, [(d, written_program(d["code"])) for d in docs])
    assert [d["task_id"] for d, right in zip(docs, found, strict=True) if not right] == []
    swapped = [(d, other["code"]) for d, other in pairwise(docs)]
    assert not any(run_tests(box, mbpp_program, swapped[:100]))


def test_answers_to_other_problems_have_a_low_bleu_and_right_ones_100(problems):
    codes = [d["code"] for d in problems("mbpp.jsonl.gz")]
    assert {bleu(code, code) for code in codes} == {100.0}
    assigned_wrongly = [bleu(a, b) for a, b in zip(codes, codes[1:] + codes[:1], strict=True)]
    assert statistics.mean(assigned_wrongly) == pytest.approx(6.0, abs=0.1)


def by_hand(candidate: list[str], reference: list[str]) -> float:
    """BLEU with one added to hits and totals of n-grams longer than one, from its definition."""
    logs = []
    for n in range(1, 5):
        mine, theirs = (
            [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
            for tokens in (candidate, reference)
        )
        hits = sum(min(mine.count(gram), theirs.count(gram)) for gram in set(mine))
        more = n > 1
        logs.append(math.log((hits + more) / (len(mine) + more)))
    brevity = min(0, 1 - len(reference) / len(candidate))
    return 100 * math.exp(brevity + sum(logs) / 4)


@given(
    st.lists(st.sampled_from("abcd"), max_size=9),
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=9),
)
def test_bleu_is_what_its_definition_gives(candidate, reference):
    expected = by_hand(candidate, reference) if set(candidate) & set(reference) else 0.0
    assert bleu(" ".join(candidate), " ".join(reference)) == pytest.approx(expected)


def test_bleu_looks_at_code_as_tokens():
    assert bleu("x=f(1,2)**3", "x  =  f( 1, 2 )\n** 3") == 100
    assert bleu("", "x = 1") == 0
    assert bleu("x = 1", "") == 0
    assert bleu("x <= 1", "x < = 1") < 100


def test_what_is_python_is_told_from_what_is_not():
    assert is_python("x = 1\n")
    assert is_python("")
    assert is_python("'\\d'")
    for text in ("def f(:", "x = ", "\0", "(" * 10_000, "it reads like prose"):
        assert not is_python(text)
