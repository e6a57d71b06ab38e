"""What goes and what stays: nothing that a record or a study rests on, and nothing while a run goes on."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from finished_fixture import MIXED, copy, finish, finished_study

from codestage import cli
from codestage.engine.gc import answer_lines, collect
from codestage.engine.progress import only_one
from codestage.engine.store import Store
from codestage.engine.wanted import wanted
from codestage.engine.why import why
from codestage.errors import RunError, UserError


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gc")
    finished_study(folder)
    return folder


@pytest.fixture
def study(held, tmp_path):
    return copy(held, tmp_path)[0]


def drop(study, old=MIXED, new=""):
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new))


def steps(study):
    return {p.name for p in (study.with_suffix("") / "store").glob("*/*")}


def ask(study, **how):
    answer = collect(study.with_suffix(""), [study], **how)
    json.dumps(answer, allow_nan=False)
    return answer


def record(study, runs):
    """results/runs.json as a run would have left it, of these runs."""
    store = Store(study.with_suffix(""))
    entries = []
    for step in wanted(study, store).steps.values():
        if step.kind == "train" and step.label.split(" ")[0] in runs:
            entries.append({"stages": [{"steps": [step.hash]}]})
    (store.root / "results").mkdir(exist_ok=True)
    (store.root / "results" / "runs.json").write_text(json.dumps(entries))


def test_nothing_goes_of_a_study_that_is_as_it_was(study):
    answer = ask(study, delete=True)
    assert answer["steps"] == answer["work"] == []
    assert answer["kept"]["steps"] == len(steps(study))
    assert why(study, study.with_suffix(""))["steps"] == []


def test_what_an_edit_left_behind_is_shown_and_deleted_only_when_asked(study):
    before = steps(study)
    drop(study)
    shown = ask(study)
    assert steps(study) == before
    assert not shown["deleted"]
    assert {s["kind"] for s in shown["steps"]} >= {"train", "evaluate"}
    assert all("mixed" in s["label"] for s in shown["steps"])
    sizes = [
        sum(
            f.stat().st_size for f in (study.with_suffix("") / "store" / s["kind"] / s["hash"]).iterdir()
        )
        for s in shown["steps"]
    ]
    assert [s["bytes"] for s in shown["steps"]] == sizes
    assert shown["bytes"] == sum(sizes)
    assert "would be deleted with --delete" in "\n".join(answer_lines(shown))
    done = ask(study, delete=True)
    assert done["steps"] == shown["steps"]
    assert steps(study) == before - {s["hash"] for s in shown["steps"]}
    assert why(study, study.with_suffix(""))["steps"] == []  # all that it wants is there
    assert not list((study.with_suffix("") / "work").glob(".gone-*"))


def test_what_the_records_rest_on_stays_with_its_evaluations(study):
    record(study, {"text/mixed#0", "text/text#0"})
    drop(study)
    gone = ask(study)["steps"]
    assert gone
    assert all("text+code" in s["label"] for s in gone if s["kind"] in ("train", "evaluate"))
    kept = {r["label"] for r in Store(study.with_suffix("")).finished()} - {s["label"] for s in gone}
    assert "text/mixed#0 after tune" in kept
    # without evaluations that stand on it, training stays for the records alone
    shutil.rmtree(study.with_suffix("") / "store" / "evaluate")
    kept = steps(study) - {s["hash"] for s in ask(study)["steps"]}
    entries = json.loads((study.with_suffix("") / "results" / "runs.json").read_text())
    assert {hash_ for e in entries for stage in e["stages"] for hash_ in stage["steps"]} <= kept


def test_what_another_study_in_the_folder_wants_stays(study, tmp_path):
    other = study.with_name("other.yaml")
    other.write_text(study.read_text())
    drop(study)
    assert ask(study)["steps"]
    assert ask(study, keep=[other], delete=True)["steps"] == []


def test_evaluations_that_ask_what_is_asked_no_more_go(study):
    text = study.read_text()
    study.write_text(text.replace("cot: [off]", "cot: [off, supplied]"))
    finish(study)
    study.write_text(text)
    gone = ask(study)["steps"]
    assert {s["kind"] for s in gone} == {"evaluate"}


def test_training_stays_where_the_data_are_not_prepared_yet(study):
    drop(study, "documents: 200, depth: [1, 1]", "documents: 201, depth: [1, 1]")
    answer = ask(study)
    assert not {"train", "evaluate"} & {s["kind"] for s in answer["steps"]}
    assert "so all that was trained and evaluated is kept" in answer["notes"][0]


def test_unfinished_work_stays_where_it_is_wanted(study):
    store = Store(study.with_suffix(""))
    one = next(s for s in wanted(study, store).steps.values() if s.label == "text/text#0 after tune")
    for name in (f"evaluate-{one.hash}", "evaluate-" + "0" * 32):
        (store.root / "work" / name).mkdir(parents=True)
        (store.root / "work" / name / "part").write_text("x")
    assert [w["name"] for w in ask(study, delete=True)["work"]] == ["evaluate-" + "0" * 32]
    assert (store.root / "work" / f"evaluate-{one.hash}" / "part").exists()


def test_without_a_study_file_only_the_records_say_what_is_needed(study):
    record(study, {"text/text#0"})
    answer = collect(study.with_suffix(""), [])
    labels = {s["label"] for s in answer["steps"]}
    assert "no study file" in answer["notes"][0]
    assert "text+code/mixed#0 after tune" in labels
    assert not {"text/text#0 after tune", "documents of prose", "tokenizer, 384 tokens"} & labels


def test_nothing_is_deleted_while_a_run_goes_on(study):
    drop(study)
    before = steps(study)
    with only_one(study.with_suffix("")):
        ask(study)  # looking is allowed
        with pytest.raises(UserError, match="another `codestage run` works here"):
            ask(study, delete=True)
    assert steps(study) == before


def test_records_that_cannot_be_read_stop_it(study):
    (study.with_suffix("") / "results").mkdir()
    (study.with_suffix("") / "results" / "runs.json").write_text("[{")
    with pytest.raises(RunError, match="what the results rest on cannot be told"):
        ask(study, delete=True)


def test_what_was_half_deleted_goes_the_next_time(study):
    left = study.with_suffix("") / "work" / ".gone-abc"
    left.mkdir()
    (left / "model.safetensors").write_text("x")
    assert [w["name"] for w in ask(study, delete=True)["work"]] == [".gone-abc"]
    assert not left.exists()


def command(monkeypatch, capsys, *args):
    """(exit status, standard output, standard error) of a command."""
    monkeypatch.setattr(sys, "argv", ["codestage", *map(str, args)])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    return (code, *capsys.readouterr())


def test_the_commands_find_the_study_file_beside_its_folder(study, monkeypatch, capsys):
    drop(study)
    folder = study.with_suffix("")
    code, out, _ = command(monkeypatch, capsys, "gc", folder)
    assert (code, "would be deleted" in out, "mixed#0 after tune" in out) == (0, True, True)
    code, out, _ = command(monkeypatch, capsys, "gc", study, "--delete", "--json")
    assert (code, json.loads(out)["deleted"]) == (0, True)
    code, out, _ = command(monkeypatch, capsys, "gc", folder)
    assert "nothing to delete" in out
    code, out, _ = command(monkeypatch, capsys, "why", study)
    assert (code, out) == (0, "every step is finished: nothing will run again\n")
    drop(study, "items: 4", "items: 5")
    code, out, _ = command(monkeypatch, capsys, "why", study, "evaluation items", "--json")
    assert [(c["field"], c["was"], c["now"]) for c in json.loads(out)["causes"]] == [("n", 4, 5)]
    code, out, err = command(monkeypatch, capsys, "run", study, "--notify", "somewhere")
    assert (code, out, "--notify somewhere: write desktop" in err) == (2, "", True)


def test_a_folder_where_nothing_ran_is_refused(tmp_path):
    with pytest.raises(UserError, match="no study was run here"):
        collect(Path(tmp_path / "nowhere"), [])


def test_evaluations_stay_until_those_that_take_over_their_answers_are_done(study):
    study.write_text(study.read_text().replace("cot: [off]", "cot: [off, supplied]"))
    answer = ask(study)
    assert "evaluate" not in {s["kind"] for s in answer["steps"]}
    finish(study)
    assert "evaluate" in {s["kind"] for s in ask(study)["steps"]}
