"""The package as others get it: the wheel holds every file, and works from outside the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import codestage

ROOT = Path(__file__).parents[1]
IMPORT_ALL = """
from importlib import import_module
from pkgutil import walk_packages
import codestage
for module in walk_packages(codestage.__path__, "codestage."):
    try:
        module.name.endswith("__main__") or import_module(module.name)
    except ModuleNotFoundError as missing:
        print(module.name, missing.name)
"""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the checkout."""
    out = tmp_path_factory.mktemp("wheel")
    how = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(out)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *how, str(ROOT)], check=True)
    (made,) = out.glob("*.whl")
    return made


def depended_on(requirements: list[str]) -> dict[str, Distribution]:
    """What pip would install for them here: every distribution by its name, theirs in turn too."""
    found: dict[str, Distribution] = {}
    todo, seen = [Requirement(text) for text in requirements], set()
    while todo:
        wanted = todo.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        found[wanted.name] = distribution(wanted.name)
        assert wanted.specifier.contains(found[wanted.name].version, prereleases=True), str(wanted)
        inner = [Requirement(text) for text in found[wanted.name].requires or []]
        extras = ["", *wanted.extras]
        todo += [
            r for r in inner if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras)
        ]
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of a new environment with the wheel in it and what it says it depends on, no extras.

    The dependencies are gigabytes, so they are links to this environment's.
    """
    place = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    how = ["--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(place), "install", *how], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    for one in depended_on(PROJECT["dependencies"]).values():
        for top in {file.parts[0] for file in one.files or []} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(one.locate_file(top)))
    return place


@pytest.fixture
def call(installed, tmp_path):
    """Run a program of the new environment in an empty folder: its standard output."""

    def run(name, *args):
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        done = subprocess.run(
            [installed / "bin" / name, *args],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "codestage").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours - held == set()
    kinds = {Path(name).suffix for name in ours}
    assert kinds >= {".yaml", ".html", ".js", ".css"}, "tasks, presets, the viewer's page"
    assert "codestage/py.typed" in ours
    assert {n for n in held if not n.startswith("codestage-")} == ours
    assert any(name.endswith("licenses/LICENSE") for name in held)


@pytest.mark.slow
def test_it_works_from_a_clean_environment(call, installed, tmp_path):
    where = call("python", "-c", "import codestage; print(codestage.__file__)")
    assert Path(where.strip()).is_relative_to(installed), "not the checkout"
    assert "Usage: codestage" in call("codestage", "--help")
    assert "quickstart" in json.loads(call("codestage", "presets", "--json"))
    assert len(json.loads(call("codestage", "tasks", "--json"))) > 50
    call("codestage", "init", "quickstart")
    planned = json.loads(call("codestage", "plan", "quickstart.yaml", "--json"))
    assert planned["tokens"] < planned["tokens_unshared"]


@pytest.mark.slow
def test_a_study_runs_with_what_the_wheel_depends_on_and_no_more(call, tmp_path):
    extras = ["ray", "lm_eval", "peft", "accelerate", "magika", "pytest", "wandb", "tensorboard"]
    seen = call(
        "python", "-c", f"from importlib.util import find_spec; print(*map(find_spec, {extras}))"
    )
    assert set(seen.split()) == {"None"}
    assert call("python", "-c", IMPORT_ALL).split() == ["codestage.evaluate.harness", "lm_eval"]
    call("codestage", "init", "ma2024", "--scale", "smoke", "--to", ".")
    call("codestage", "run", "ma2024-2.6b.yaml")
    assert (tmp_path / "ma2024-2.6b/results/report.html").exists()
    assert json.loads(call("codestage", "status", "ma2024-2.6b", "--json"))["state"] == "done"


def test_what_the_package_says_of_itself_agrees():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited.keys() >= {"cff-version", "message", "title", "authors"}, "what the format asks for"
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == PROJECT["version"] == codestage.__version__
    assert cited["license"] == PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert f"## {codestage.__version__}" in (ROOT / "CHANGELOG.md").read_text()
