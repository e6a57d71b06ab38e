"""The data steps: what is removed, listed, counted, and the same again."""

import gzip
import json
from pathlib import Path

import pytest
from conftest import TINY

from codestage.data.batches import Batches
from codestage.engine.data_steps import data_steps, shards
from codestage.engine.mix import inspect
from codestage.engine.run import plan_training
from codestage.engine.store import Store
from codestage.errors import UserError
from codestage.study.load import load_study


def study(tmp_path: Path, **changes: str) -> Path:
    text = TINY
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "tiny.yaml").write_text(text)
    return tmp_path / "tiny.yaml"


def test_documents_with_items_are_listed_and_training_splits_are_counted(tmp_path):
    path = study(
        tmp_path,
        source=("procedural: {form: prose, documents: 300, depth: [1, 1]}", "path: prose.jsonl"),
        split=("items: 4}", "items: 4, training_splits: {sums: sums.jsonl.gz}}"),
    )
    asked = [f"Ann has {i} apples and gets {i + 3} more from Bob, how many has she?" for i in range(40)]
    with gzip.open(tmp_path / "sums.jsonl.gz", "wt") as file:
        for question in asked:
            file.write(json.dumps({"question": question, "answer": "#### 3"}) + "\n")
    tales = [f"The cat of house {i} sleeps all day and dreams of fish and rain." for i in range(200)]
    texts = [*tales, "Once more: " + asked[7] + " She has ten.", asked[9].upper()]
    out = tmp_path / "out"
    (tmp_path / "prose.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    before = {row["source"]: row for row in inspect(path, out=out)}
    assert before["prose"]["training"] == {"sums": 2}
    assert before["prose"]["removed"] == {}
    (item, *_) = json.loads(next(out.glob("store/items/*/items.json")).read_text())["coin_flip"]
    (tmp_path / "prose.jsonl").write_text(
        "\n".join(json.dumps({"text": t}) for t in [*texts, f"Well. {item['instruction']} No."])
    )
    after = {row["source"]: row for row in inspect(path, out=out)}
    assert after["prose"]["removed"] == {"evaluation item": 1}
    listed = [
        json.loads(line)
        for file in out.glob("store/documents/*/overlaps.jsonl")
        for line in file.read_text().splitlines()
        if "prose" in line
    ]
    assert listed == [{"document": "prose.jsonl:203", "items": [item["id"]], "nearly": []}]
    # problems made from the skills of the study's tasks are their training split
    assert sum(after["chat"]["training"].values()) == after["chat"]["kept"]


def test_a_training_split_that_is_missing_is_told_with_its_line(tmp_path):
    path = study(tmp_path, split=("items: 4}", "items: 4, training_splits: {sums: nowhere.jsonl}}"))
    with pytest.raises(UserError, match=r"tiny.yaml:\d+: nowhere.jsonl"):
        inspect(path, out=tmp_path / "out")


def test_an_example_matched_arm_sees_as_many_examples_as_the_base_counted_in_its_batches(tmp_path):
    path = study(
        tmp_path,
        controls=("controls: [token-matched, additive]", "controls: [example-matched]"),
        more=("documents: 400, depth: [1, 1]", "documents: 1800"),
        tokens=("tokens: 2k", "tokens: 20k"),
        code=("form: code_chat, documents: 200", "form: code_chat, documents: 2000"),
        seeds=("seeds: 2", "seeds: 1"),
    )
    held, store = load_study(path), Store(tmp_path / "out")
    inspect(path, out=tmp_path / "out")
    data = data_steps(held, path)
    works = plan_training(held, path, data, store)
    found = {}
    for name in ("text/text", "text/uniform", "text/uniform@example-matched"):
        work = works[f"{name}#0"][1]
        batches = Batches(work.plan, shards(data, store, 64), rows_per_batch=8)
        starts = [
            (b.positions == 0) & (b.documents >= 0)
            for b in map(batches.__getitem__, range(batches.n_batches))
        ]
        found[name] = sum(int(s.sum()) for s in starts)
    base = found["text/text"]
    assert found["text/uniform@example-matched"] == pytest.approx(base, rel=0.03)
    assert found["text/uniform"] < 0.98 * base  # equal tokens are fewer examples: programs are longer


def test_a_source_in_rows_of_two_lengths_is_not_held_out_for_validation(tmp_path):
    longer = ("tokens: 2k\n    seq_len: 64", "tokens: 2k\n    seq_len: 128")
    watch = ("controls: [token-matched, additive]", "validation: {tokens: 300, times: 3}")
    path = study(tmp_path, longer=longer, watch=watch)
    data_steps(load_study(path), path)  # each source in one length
    stage = (
        "  cooldown: {tokens: 1k, seq_len: 128, batch_tokens: 512, options: {text: {mix: {prose: 1}}}}\n"
    )
    both = ("  tune:\n", stage + "  tune:\n")
    path = study(tmp_path, longer=longer, watch=watch, both=both)
    line = path.read_text().splitlines().index(watch[1]) + 1
    with pytest.raises(UserError, match=rf"tiny.yaml:{line}: .*'prose' .* rows of 64 and 128 tokens"):
        data_steps(load_study(path), path)
    path = study(tmp_path, longer=longer, both=both)
    data_steps(load_study(path), path)


@pytest.mark.parametrize("held", [".", "..", "../corpus"])
def test_a_folder_that_holds_the_study_is_no_source(tmp_path, held):
    """A run would read its own results, which change with every run."""
    made = "procedural: {form: prose, documents: 300, depth: [1, 1]}"
    folder, beside = tmp_path / "corpus", tmp_path / "beside"
    for place in (folder, beside):
        place.mkdir()
    (folder / "a.txt").write_text("Some words.")
    path = study(folder, source=(made, f"path: {held}"))
    with pytest.raises(
        UserError, match=r"tiny.yaml:\d+: source 'prose': \S+ this folder holds the study"
    ):
        data_steps(load_study(path), path)
    for at, told in ((folder, '"*.txt"'), (beside, "../corpus")):
        path = study(at, source=(made, f"path: {told}"))
        assert "a.txt" in str(data_steps(load_study(path), path).documents["prose"].names)


def test_documents_made_before_a_key_came_are_still_found(tmp_path):
    """A key at its default adds nothing to what documents are; another value does."""
    made = "procedural: {form: programs, documents: 200, depth: [1, 1]}"
    hub = "hub: {id: someone/data}"

    def documents(origin: str):
        path = study(tmp_path, source=(made, origin))
        return data_steps(load_study(path), path).documents["programs"]

    told = set(documents(made).config["procedural"])
    assert told == {"form", "documents", "depth", "skills", "cot", "noise", "vocabulary", "seed"}
    assert set(documents(hub).config["hub"]) == {"id", "revision", "split", "config"}
    for before, after in (
        (made, made.replace("]}", "], language: java}")),
        (hub, hub.replace("}", ", files: [a.parquet]}")),
    ):
        assert documents(before).hash == documents(before).hash != documents(after).hash
