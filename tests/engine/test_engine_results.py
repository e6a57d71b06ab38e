"""What a run leaves in `results/` is this run's alone."""

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codestage.engine import results
from codestage.study.models import shape, train_flops_per_token
from codestage.study.schema import ModelSpec


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


def test_operations_are_those_of_each_stages_own_rows():
    size = shape(ModelSpec.model_validate({"family": "llama", "size": "400k"}), 1024)
    shared = SimpleNamespace(hash="a", cost=1000.0)
    long, short = SimpleNamespace(seq_len=2048), SimpleNamespace(seq_len=256)
    works = {
        f"{arm}#0": [
            SimpleNamespace(stage=long, segments=[shared]),
            SimpleNamespace(stage=short, segments=[SimpleNamespace(hash=arm, cost=500.0)]),
        ]
        for arm in ("text", "code")
    }
    each = [train_flops_per_token(size, length) for length in (2048, 256)]
    assert results.flops(works, size) == pytest.approx(1000 * each[0] + 2 * 500 * each[1])
    assert each[0] > 1.2 * each[1]
