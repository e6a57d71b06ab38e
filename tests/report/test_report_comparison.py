"""The page of several studies, and its command."""

import copy
import json
import re

import pytest
from ladder_fixture import made, peaked, study, write
from typer.testing import CliRunner

from codestage.analyse.run import analyse
from codestage.cli import app
from codestage.errors import RunError
from codestage.report.comparison import compose, write_comparison

HOSTILE = """<script>alert('x')</script>"&|$\\`*_[a](http://evil.example)"""
SIZES = (("llama", 500_000), ("llama", 2_000_000), ("qwen", 8_000_000))


def finished(folder, *, family, parameters, key, odd=""):
    told = study(items=40, odd=odd, model={"family": family, "parameters": parameters})
    write(folder, made(told, peaked, key=key, odd=odd))
    (folder / "results" / "effects.json").write_text(json.dumps(analyse(folder), allow_nan=False))
    return folder


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    root = tmp_path_factory.mktemp("compared")
    folders = [finished(root / str(i), family=f, parameters=n, key=i) for i, (f, n) in enumerate(SIZES)]
    found, files = write_comparison(folders, root / "out")
    return folders, found, files


def test_everything_is_written_and_the_same_each_time(compared, tmp_path):
    folders, found, files = compared
    assert json.loads(files.json.read_text()) == found
    _, again = write_comparison(folders, tmp_path)
    for one, two in (
        (files.html, again.html),
        (files.markdown, again.markdown),
        (files.json, again.json),
    ):
        assert one.read_bytes() == two.read_bytes()
    titles = re.findall(r"<h2>(.*?)</h2>", files.html.read_text())
    assert titles == [
        "By domain and task", "Agreement of orders", "From small to large", "Family and size as factors",
        "The studies",
    ]  # fmt: skip
    names = {p.name for p in (files.html.parent / "tables").iterdir()}
    assert {
        "by-study.csv",
        "pooled.csv",
        "orders.csv",
        "decisions.csv",
        "factors.csv",
        "studies.csv",
    } <= names


def test_what_is_said_follows_the_interval_and_the_test(compared):
    found = copy.deepcopy(compared[1])
    row = next(
        e
        for e in found["effects"]
        if (e["contrast"], e["level"], e["metric"]) == ("code@pretrain", "overall", "acc")
    )
    row["pooled"] = {"estimate": 2.0, "low": -1.0, "high": 5.0}
    row["differ"] |= {"p_adjusted": 0.4}
    (first, *_) = compose(found).answer
    assert first.claim == "open"
    assert "That the studies differ is not shown" in first.text
    row["pooled"] = {"estimate": 2.0, "low": 1.0, "high": 5.0}
    row["differ"] |= {"p_adjusted": 0.01}
    (first, *_) = compose(found).answer
    assert first.claim == "raised"
    assert "The studies differ by more than chance" in first.text


@pytest.mark.slow
def test_names_of_any_kind_stay_text(tmp_path):
    folders = [
        finished(tmp_path / str(i), family=f + HOSTILE, parameters=n, key=i, odd=HOSTILE)
        for i, (f, n) in enumerate(SIZES[:2])
    ]
    _, files = write_comparison(folders, tmp_path / "out")
    assert "<script" not in files.html.read_text()
    assert "<script" not in files.markdown.read_text()


def test_a_place_that_cannot_be_written_is_told(compared, tmp_path):
    folders, _, _ = compared
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="--out"):
        write_comparison(folders, tmp_path / "file" / "out")


def test_the_command_shows_the_means_or_all_as_json(compared, tmp_path):
    folders, found, _ = compared
    names = [str(f) for f in folders]
    shown = CliRunner().invoke(app, ["compare", *names, "--out", str(tmp_path)])
    assert shown.exit_code == 0
    assert shown.output.splitlines() == [
        *(s.text for s in compose(found).answer), f"page: {tmp_path / 'compare.html'}",
    ]  # fmt: skip
    told = CliRunner().invoke(app, ["compare", *names, "--out", str(tmp_path), "--json"])
    assert [s["label"] for s in json.loads(told.output)["studies"]] == [
        s["label"] for s in found["studies"]
    ]


def test_studies_that_share_controls_alone_have_a_page_without_an_answer(compared):
    _, found, _ = compared
    left = copy.deepcopy(found)
    for row in left["effects"]:
        row["family"] = "control"
    document = compose(left)
    assert not document.answer
    assert document.sections
