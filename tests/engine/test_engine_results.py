"""What a run leaves in `results/` is this run's alone."""

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codestage.engine import results


@pytest.fixture
def without_work(monkeypatch):
    """A study without steps."""
    for name, made in {
        "_write_items": lambda *_: None,
        "_curves": lambda *_: pa.table({"loss": [1.0]}),
        "_runs": lambda *_: [],
        "_study": lambda *_: {"name": "s"},
        "_told_tasks": lambda *_: [],
    }.items():
        monkeypatch.setattr(results, name, made)


@pytest.mark.usefixtures("without_work")
def test_held_out_losses_of_an_earlier_study_go(tmp_path):
    left = tmp_path / "results" / "validation.parquet"
    left.parent.mkdir()
    pq.write_table(pa.table({"loss": [3.0]}), left)
    store = SimpleNamespace(root=tmp_path, fetch=lambda _: None)
    results.write_records(SimpleNamespace(validation=None), [], {}, {}, store, {}, None)
    assert not left.exists()
    assert (tmp_path / "results" / "curves.parquet").exists()
