"""The Python API: its names, what its tables hold, and that its errors are for people.

That a study runs by it is seen in the notebook (tests/test_docs.py).
"""

import importlib
import inspect
import json

import pytest
from conftest import TINY
from records_fixture import write

import codestage
from codestage.api import Results


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Invented records, analysed."""
    folder = write(tmp_path_factory.mktemp("api") / "invented", items=40)
    effects = importlib.import_module("codestage.analyse.run").analyse(folder)
    (folder / "results" / "effects.json").write_text(json.dumps(effects))
    return codestage.results(folder)


def test_every_name_is_there_and_told_of():
    assert set(codestage.__all__) == set(codestage.api.__all__)
    for name in codestage.__all__:
        assert inspect.getdoc(getattr(codestage, name)), name
        assert name in dir(codestage)
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        codestage.runn  # noqa: B018


def test_names_are_no_parts():
    """A part of that name would take the place of a function as soon as it is imported."""
    for name in codestage.__all__:
        with pytest.raises(ImportError):
            importlib.import_module(f"codestage.{name}")


def test_a_study_is_loaded_and_planned(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    study = codestage.load_study(str(path))
    assert isinstance(study, codestage.Study)
    planned = codestage.plan(path)
    assert planned["study"] == study.name
    assert planned["runs"] == len(study.seeds) * planned["arms"]


def test_effects_are_those_of_the_file(finished):
    rows = finished.analysis()["effects"]
    table = finished.effects()
    assert table.num_rows == len(rows)
    assert table["estimate"].to_pylist() == [row["estimate"] for row in rows]
    some = finished.effects(level="task", metric="acc")
    assert set(some["level"].to_pylist()) == {"task"}
    assert 0 < some.num_rows == sum((r["level"], r["metric"]) == ("task", "acc") for r in rows)
    assert finished.effects(level="none").column_names == table.column_names
    assert finished.effects().to_pandas().shape[0] == len(rows)


def test_items_are_chosen_by_what_they_are(finished):
    every = finished.items()
    some = finished.items(["arm", "value"], task="coins", metric="acc", seed=1)
    wanted = [r for r in every.to_pylist() if (r["task"], r["metric"], r["seed"]) == ("coins", "acc", 1)]
    assert some.column_names == ["arm", "value"]
    assert some["value"].to_pylist() == [r["value"] for r in wanted]
    assert len(wanted) > 0


def test_arms_and_what_was_done(finished):
    assert finished.study()["name"] == "invented"
    assert set(finished.arms()["arm"].to_pylist()) <= {a["name"] for a in finished.study()["arms"]}
    assert finished.report == finished.folder / "results" / "report.html"


def test_mistakes_are_told(finished, tmp_path):
    with pytest.raises(codestage.UserError, match="no column 'taks'; there are run, arm"):
        finished.items(taks="coins")
    with pytest.raises(codestage.UserError, match="no column 'levle'"):
        finished.effects(levle="task")
    with pytest.raises(codestage.UserError, match="no results yet"):
        codestage.results(tmp_path)
    with pytest.raises(codestage.UserError, match="nowhere"):
        codestage.plan(tmp_path / "nowhere.yaml")
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    with pytest.raises(codestage.UserError, match="no arm 'x'"):
        codestage.mix(path, arm="x", stage="pretrain")


def test_a_study_file_means_the_folder_beside_it(finished):
    assert codestage.results(finished.folder.with_suffix(".yaml")) == Results(finished.folder)
