"""The house rules that a machine can hold: who imports whom, how large a piece may grow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "codestage"
RANK = {
    "errors": 0,
    "terminal": 0,  # how answers look in the terminal: cli hands them over
    "attention": 0,  # train and evaluate, which do not know each other, compute it alike
    "pangu": 0,  # a model's own code: train and evaluate know it, and exports carry it
    "study": 1,
    "data": 2,
    "train": 3,
    "evaluate": 3,
    "analyse": 3,
    "report": 4,
    "engine": 5,
    "api": 6,  # what notebooks use, as cli is what terminals use
    "cli": 6,
}
SIDEWAYS = {("train", "evaluate"), ("train", "analyse"), ("evaluate", "analyse")}
MODULE_LINES, FUNCTION_LINES = 450, 70
MODULES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """Parts of codestage that a module imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("codestage.") and "." in n}
    return found & RANK.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_never_go_upward(path):
    me = part(path)
    if me == "__init__":
        assert imported_parts(path) == {
            "api"
        }  # for type checkers; the next test says that nothing is loaded
        return
    for other in imported_parts(path) - {me}:
        assert RANK[other] < RANK[me], f"{path}: {me} imports {other}"
        assert not {(me, other), (other, me)} & SIDEWAYS


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_pieces_stay_readable_in_one_sitting(path):
    source = path.read_text()
    assert source.count("\n") <= MODULE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{path}:{node.lineno}: {node.name} has {lines} lines"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_cli_prints_and_exits(path):
    if part(path) in ("cli", "terminal"):
        return
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    names = {ast.unparse(c.func) for c in calls}
    assert not names & {"print", "sys.exit", "exit", "quit"}


def test_a_study_can_be_planned_and_analysed_without_torch():
    code = "import sys\n" + "\n".join(
        f"import {'.'.join(p.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')}"
        for p in MODULES
        if part(p) in ("study", "analyse", "report")
    )
    code += "\nassert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_by_itself_loads_no_part():
    code = "import sys, codestage; print([m for m in sys.modules if m.startswith('codestage.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_answers_without_loading_the_parts():
    code = (
        "import sys, codestage.cli\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'matplotlib', 'scipy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
