"""Every block on the pages that teach is run, in the order of its page, and the README's commands; those of studies and
results as far as their trainings; other pages' are parsed.

How a page is run, each in a folder of its own:

- ```python title="x.py"``` and ```yaml title="x.yaml"``` are written to that file, ```python``` without is executed;
- a whole study is loaded and planned, a fragment is put into the tutorial's study and loaded;
- of ```console``` every line after `$ ` is run. Lines under it must be in what it printed, unless the block comes after
  `<!-- output of one machine -->`; `error: …` among them means that the command is to be refused;
- `<!-- goes on from the tutorial -->` on a page: the tutorial's finished study lies in its folder;
- `<!-- not run: why -->` before a block: it is parsed only. Which pages may do that, and how often, is held below.
"""

import contextlib
import dataclasses
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
import typer
import yaml
from conftest import needs_smollm2

from codestage import cli
from codestage.errors import UserError
from codestage.study.load import load_study

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TAUGHT = sorted(
    [*DOCS.glob("how-to/*.md"), *DOCS.glob("explanation/*.md"), DOCS / "reference/study-file.md"]
)
OTHERS = sorted({*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"} - {*TAUGHT})
STUDIES = sorted(
    page
    for folder in ("studies", "results")
    for page in DOCS.glob(f"{folder}/*.md")
    if page.stem != "index"
)
NOT_RUN = {"cluster": 3, "own-model": 1, "read-the-report": 1, "seeds-and-budget": 2}
"""Blocks that a page may leave unrun, at most."""
FENCE = re.compile(r"((?:^<!--[^\n]*-->\n+)*)^```(\w+)([^\n]*)\n(.*?)^```$", re.M | re.S)
COMPILERS = re.compile(r"g\+\+|clang\+\+|c\+\+")


@dataclasses.dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    title: str | None
    text: str
    said: str
    """The comments right before it."""

    @property
    def place(self) -> str:
        return f"{os.path.relpath(self.page, ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in FENCE.finditer(text):
        said, language, info, body = match.groups()
        title = re.search(r'title="([^"]+)"', info)
        line = text[: match.start(2)].count("\n") + 1
        found.append(Block(page, line, language, title[1] if title else None, body, said))
    fences = len(re.findall(r"^ *```", text, re.M))
    assert fences == 2 * len(found), f"{page}: a block without an end, or without a language"
    return found


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """(command, lines that are shown under it); a command may go on after a backslash."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.strip():
            assert found, f"{block.place}: output before a command"
            found[-1][1].append(line)
    return found


def words(line: str) -> list[str]:
    return shlex.split(re.sub(r"\s#\s.*$|\s>\s\S+$", "", line))


def parse(line: str) -> None:
    """A command of codestage's as far as its own parser: command, options and their values."""
    group = typer.main.get_command(cli.app)
    name, *rest = words(line)[1:]
    command = group.commands[name]
    command.make_context(name, rest)


class Reader:
    """Somebody who does what a page says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names = folder, {"__name__": "__page__"}

    def do(self, block: Block) -> None:
        if "not run:" in block.said:
            check_unrun(block)
        elif block.language == "console":
            for line, shown in commands(block):
                self.call(block, line, shown)
        elif block.language in ("python", "yaml") and block.title:
            target = self.folder / block.title
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text)
            if block.language == "yaml" and "stages:" in block.text:
                load_study(target)
        elif block.language == "python":
            exec(compile(block.text, block.place, "exec"), self.names)
        elif block.language == "yaml":
            self.fragment(block)
        else:
            assert block.language in ("text", "json"), f"{block.place}: what is {block.language}?"

    def call(self, block: Block, line: str, shown: list[str]) -> None:
        refused = any(told.startswith("error: ") for told in shown)
        status, printed = self.run(line)
        assert status == (2 if refused else 0), f"{block.place}: {line}\n{printed}"
        if "output of one machine" not in block.said:
            have = " ".join(printed.split())
            for told in shown:
                assert " ".join(told.split()) in have, f"{block.place}: not printed: {told}\n{printed}"

    def run(self, line: str) -> tuple[int, str]:
        if not line.startswith("codestage ") or re.search(r"[|><&;$*]", line):
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            sys.argv, status = words(line), 0
            try:
                cli.main()
            except SystemExit as stop:
                status = int(stop.code or 0)
        return status, said.getvalue()

    def fragment(self, block: Block) -> None:
        """A part of a study, put into the tutorial's."""
        study = yaml.safe_load((self.folder / "mine.yaml").read_text())
        for key, value in yaml.safe_load(block.text).items():
            if key == "sources":
                study[key] |= value
            elif key == "stages":
                for name, stage in value.items():
                    study[key][name] = study[key].get(name, {}) | stage
            else:
                study[key] = value
        target = self.folder / "fragment.yaml"
        target.write_text(json.dumps(study))
        load_study(target)


def check_unrun(block: Block) -> None:
    """A block that cannot run here is at least what it says it is."""
    if block.language == "console":
        for line, _ in commands(block):
            if line.startswith("codestage "):
                parse(line)
    elif block.language == "bash":
        done = subprocess.run(
            ["bash", "-n"], input=block.text, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{block.place}: {done.stderr}"
    elif block.language == "yaml":
        assert list(yaml.safe_load_all(block.text))
    elif block.language == "python":
        compile(block.text, block.place, "exec")


def teach(page: Path, folder: Path) -> int:
    """Do a page's blocks; how many there were."""
    here, argv = Path.cwd(), sys.argv
    os.chdir(folder)
    try:
        reader = Reader(folder)
        found = list(blocks(page))
        for block in found:
            reader.do(block)
        return len(found)
    finally:
        os.chdir(here)
        sys.argv = argv


@pytest.fixture(scope="module", autouse=True)
def tools(tmp_path_factory):
    """The machine's commands without its compilers: to compile takes longer than pages may."""
    folder = tmp_path_factory.mktemp("bin")
    for place in os.environ["PATH"].split(os.pathsep):
        for tool in Path(place).glob("*"):
            if not COMPILERS.search(tool.name) and not (folder / tool.name).is_symlink():
                (folder / tool.name).symlink_to(tool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{folder}")
        patch.setenv("COLUMNS", "110")
        yield


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """The folder in which the tutorial was done."""
    folder = tmp_path_factory.mktemp("tutorial")
    teach(DOCS / "tutorial.md", folder)
    return folder


@pytest.mark.slow
def test_the_tutorial_leads_to_a_report(tutorial):
    assert (tutorial / "mine/results/report.html").stat().st_size > 100_000


@pytest.mark.slow
@pytest.mark.parametrize("page", TAUGHT, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(page, tutorial, tmp_path):
    if "<!-- goes on from the tutorial -->" in page.read_text():
        shutil.copytree(tutorial, tmp_path, dirs_exist_ok=True)
    else:
        shutil.copy(tutorial / "mine.yaml", tmp_path)
    assert teach(page, tmp_path), "a page that teaches has something to run"


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path, monkeypatch):
    """In their order, the quickstart made small once it is written; what waits, goes on for hours or asks other
    machines is parsed, as on the pages that are not run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    shutil.copy(ROOT / "codestage/analyse/published/ma2024.csv", "published.csv")
    (block,) = [b for b in blocks(ROOT / "README.md") if "codestage init" in b.text]
    reader, ran = Reader(tmp_path), 0
    for line, _ in commands(block):
        if line.startswith(". ") or re.search(r" (view|--until|--store|--ray) ", line):
            continue
        if line.startswith("codestage compare"):
            for n, name in enumerate(words(line)[2:]):
                shutil.copytree("mine/results", f"{name}/results")
                _shift(Path(f"{name}/results/effects.json"), 0.01 * n)
        status, printed = reader.run(line)
        assert status == 0, f"{line}\n{printed}"
        ran += 1
        if line.startswith("codestage init quickstart"):
            _make_small(Path("mine.yaml"))
    assert ran >= 15
    assert {"config.json", "README.md", "model.safetensors"} <= {f.name for f in Path("model").iterdir()}
    assert "## Beside" in Path("mine/results/report.md").read_text()


def _shift(effects: Path, by: float) -> None:
    """As of another model: `compare` refuses one training under two names."""
    told = json.loads(effects.read_text())
    for row in told["effects"]:
        row |= {key: row[key] + by for key in ("estimate", "low", "high") if row[key] is not None}
    effects.write_text(json.dumps(told))


def _make_small(study: Path) -> None:
    text = study.read_text()
    for large, small in (
        (r"hidden_size: 128, layers: 2, heads: 4", "hidden_size: 32, layers: 1, heads: 2"),
        (r"documents: \d+", "documents: 4000"),
        (r"tokens: 1M", "tokens: 40k"),
        (r"tokens: 384k", "tokens: 16k"),
        (r", warmup_tokens: \d+k", ""),
        (r"cot: \[.*\]", "cot: [off]\n  items: 4"),
        (r"seeds: 3", "seeds: 2"),
    ):
        text, found = re.subn(large, small, text)
        assert found, f"{large} is not in the quickstart"
    study.write_text(text)


@pytest.mark.slow
def test_the_notebook_runs(tutorial, tmp_path):
    """Its cells as a notebook runs them, with nothing else of a notebook's."""
    notebook = json.loads((ROOT / "examples/explore.ipynb").read_text())
    here, names = Path.cwd(), {"__name__": "__page__"}
    os.chdir(tmp_path)
    try:
        for i, cell in enumerate(c for c in notebook["cells"] if c["cell_type"] == "code"):
            assert not cell["outputs"], "outputs are not kept: they would grow old"
            exec(compile("".join(cell["source"]), f"cell {i}", "exec"), names)
    finally:
        os.chdir(here)


def test_few_blocks_are_not_run():
    for page in TAUGHT:
        unrun = [block for block in blocks(page) if "not run:" in block.said]
        assert len(unrun) <= NOT_RUN.get(page.stem, 0), [block.place for block in unrun]


@pytest.mark.parametrize("page", OTHERS, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_of_other_pages_are_what_they_say(page, tmp_path):
    for block in blocks(page):
        check_unrun(block)
        if block.language == "yaml" and {"name", "stages"} <= yaml.safe_load(block.text).keys():
            load_study(_written(tmp_path / "study.yaml", block.text))


@pytest.mark.slow
@pytest.mark.parametrize("page", STUDIES, ids=lambda page: str(page.relative_to(DOCS)))
def test_what_pages_of_studies_and_results_say_is_there_to_run(page, tmp_path, monkeypatch, request):
    """What they begin with is done and what they plan is planned; what would then train for minutes to days is a
    study file that reads, and what they compare or report is a study of that name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    if page == DOCS / "studies/smollm2-tune.md":
        needs_smollm2()
    reader = Reader(tmp_path)
    assert blocks(page)
    for block in blocks(page):
        if block.language == "python":
            monkeypatch.chdir(page.with_suffix(""))  # it reads what lies beside its page
            reader.do(block)
        for line, _ in commands(block) if block.language == "console" else []:
            for told in line.split("; "):
                if " FOLDER" in told:
                    told = told.replace("FOLDER", str(request.getfixturevalue("shared") / "data"))
                if told.startswith("cd "):
                    monkeypatch.chdir(words(told)[1])
                elif told.startswith("codestage "):
                    try_out(reader, told)


def try_out(reader: Reader, line: str) -> None:
    """A command of a page on which trainings take too long: all of it, or what it would have to find."""
    command, *rest = words(line)[1:]
    if command in ("run", "data"):
        load_study(Path(rest[0]))
    elif command in ("compare", "report"):
        named = list(takewhile(lambda word: not word.startswith("-"), rest))
        assert [name for name in named if Path(f"{name}.yaml").is_file()] == (named or [line])
    else:
        status, printed = reader.run(line)
        assert status == 0, f"{line}\n{printed}"


def test_a_page_that_is_wrong_is_noticed(tmp_path, tutorial_study):
    """Of what the others rest on: each kind of mistake on a page fails."""
    wrong = [
        "```console\n$ codestage plan mine.yaml --pilto x\n```\n",
        "```console\n$ codestage presets\nno such preset\n```\n",
        "```console\n$ false\n```\n",
        "```python\nassert 1 == 2\n```\n",
        "```yaml\nmodle: {family: llama}\n```\n",
        '```yaml title="x.yaml"\nname: x\nstages: {}\n```\n',
        "<!-- not run: why -->\n```bash\nif then\n```\n",
        "```console\n$ codestage presets ```\n",
        "<!-- not run: why -->\n```console\n$ codestage runn mine.yaml\n```\n",
    ]
    for i, text in enumerate(wrong):
        page = _written(tmp_path / f"wrong-{i}.md", text)
        with pytest.raises(BaseException):  # noqa: B017, PT011
            teach(page, tutorial_study.parent)


@pytest.mark.parametrize(
    "line",
    [
        "codestage run mine-2.yaml",
        "codestage compare mine mine-2",
        "codestage report --beside ma2024",
        "codestage init mine-2",
    ],
)
def test_a_command_that_finds_nothing_is_noticed(tutorial_study, monkeypatch, line):
    monkeypatch.chdir(tutorial_study.parent)
    monkeypatch.setattr(sys, "argv", sys.argv)
    with pytest.raises((UserError, AssertionError)):
        try_out(Reader(tutorial_study.parent), line)


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def tutorial_study(tmp_path):
    """The tutorial's study file, without having done the tutorial."""
    text = next(b.text for b in blocks(DOCS / "tutorial.md") if b.title == "mine.yaml")
    (tmp_path / "study").mkdir()
    return _written(tmp_path / "study" / "mine.yaml", text)
