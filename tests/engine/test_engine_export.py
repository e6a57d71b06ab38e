"""What goes beside exported weights."""

import pytest

from codestage.engine.export import _tokenizer
from codestage.engine.store import Step, Store, content
from codestage.errors import RunError


def put(store, kind, name, files, inputs=None, holds=None):
    """A finished step of these files."""
    step = Step(kind, name, {"name": name}, inputs or {}, holds or {})
    made = store.work(step) / "made"
    made.mkdir()
    for file, text in files.items():
        (made / file).write_text(text)
    store.commit(step, made, 0.0)
    return step


def test_a_model_goes_with_the_tokenizer_that_its_study_asked_it_with(tmp_path):
    """Two studies of one folder whose tokenizers differ, though the rows of this source do not."""
    store = Store(tmp_path)
    first, second = (put(store, "tokenizer", n, {"tokenizer.json": n}) for n in ("first", "second"))
    rows = [
        put(store, "prepare", t.label, {"rows": "the same"}, {"tokenizer": t.hash})
        for t in (first, second)
    ]
    same = content(store.record(rows[0]))
    trained = put(store, "train", "run", {}, {"prose": rows[0].hash}, {"prose": same})

    def words(asked):
        return (_tokenizer(store, trained.hash, asked) / "tokenizer.json").read_text()

    assert words(first.hash) == words(None) == "first", "not the newest with the same rows"
    assert words(second.hash) == "second"
    assert words("gone") == "first"


def test_rows_that_are_not_there_are_told(tmp_path):
    store = Store(tmp_path)
    trained = put(store, "train", "run", {}, {"prose": "gone"}, {"prose": "other"})
    with pytest.raises(RunError, match="prepares it again"):
        _tokenizer(store, trained.hash, None)
