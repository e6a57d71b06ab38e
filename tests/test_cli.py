"""The commands as their users type them: right and wrong input, one message, the right exit status."""

import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY as STUDY

from codestage import cli, terminal
from codestage.cli.arguments import own_study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a command in this process: (exit status, standard output, standard error)."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["codestage", *map(str, args)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_help_answers_in_a_third_of_a_second():
    """Of a processor's time, whatever else the machine does."""

    def spent():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    times = []
    for _ in range(5):
        start = spent()
        subprocess.run(
            [sys.executable, "-m", "codestage.cli", "--help"], check=True, capture_output=True
        )
        times.append(spent() - start)
    assert min(times) < 0.3


def test_init_writes_a_study_that_plans(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("init", "quickstart")[0] == 0
    code, out, _ = call("plan", "quickstart.yaml", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["arms"] >= 8
    assert answer["runs"] == 3 * answer["arms"]
    assert answer["tokens"] < answer["tokens_unshared"]
    assert answer["steps"] < answer["steps_unshared"]
    assert {"flops", "hours", "memory_gb", "minimum_detectable_effect"} <= answer.keys()


def test_init_never_overwrites(call, tmp_path):
    target = tmp_path / "mine.yaml"
    target.write_text("precious")
    code, _, err = call("init", "quickstart", "--to", target)
    assert code == 2
    assert "exists already" in err
    assert target.read_text() == "precious"


def test_init_writes_a_file_for_each_model_or_none(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("init", "ma2024", "--scale", "paper", "--to", "both")
    assert code == 0
    assert sorted(os.listdir("both")) == ["ma2024-13b.yaml", "ma2024-2.6b.yaml"]
    assert "codestage run both/ma2024-2.6b.yaml --store both/ma2024-store" in out
    assert "codestage compare both/ma2024-2.6b both/ma2024-13b" in out
    os.remove("both/ma2024-2.6b.yaml")
    code, _, err = call("init", "ma2024", "--to", "both")
    assert code == 2
    assert "ma2024-13b.yaml exists already" in err
    assert os.listdir("both") == ["ma2024-13b.yaml"], "nothing half-written"
    assert call("init", "ma2024", "--to", "one.yaml")[0] == 2


def test_presets_and_tasks_are_listed(call):
    assert "quickstart" in json.loads(call("presets", "--json")[1])
    assert "smoke, laptop, gpu, paper" in call("presets")[1]
    tasks = json.loads(call("tasks", "--json")[1])
    assert {"name", "domain", "suite", "metric", "chance", "items", "source"} <= tasks[0].keys()
    domains = {task["domain"] for task in tasks if task["suite"] == "quickstart"}
    assert domains >= {"symbolic", "logical", "arithmetic", "analogical", "code"}


WRONG = {
    "unknown key": ("seeds: 2", "seedz: 2", "seedz"),
    "unknown source": ("{prose: 1}", "{pros: 1}", "pros"),
    "negative share": ("{prose: 2, programs: 1}", "{prose: 2, programs: -1}", "-1"),
    "all shares zero": ("{prose: 1}", "{prose: 0}", "0"),
    "wrong type": ("seeds: 2", "seeds: many", "many"),
    "tokens not positive": ("tokens: 4k", "tokens: 0", "tokens"),
    "tokens unreadable": ("tokens: 4k", "tokens: 4 bananas", "bananas"),
    "unknown suite": ("suites: [quickstart]", "suites: [quickstrat]", "quickstart"),
    "unknown control": ("[token-matched,", "[token-match,", "token-matched"),
    "unknown family": ("family: llama", "family: lama", "llama"),
    "not YAML": ("seeds: 2", "seeds: [2", "tiny.yaml"),
    "duplicate key": ("seeds: 2", "seeds: 2\nseeds: 3", "seeds"),
    "heads do not divide": ("heads: 2", "heads: 3", "heads"),
    "a dose named with @": ("text+code: {mix", "code@25: {mix", "stages.pretrain.options"),
    "a slash in an option": ("text+code: {mix", "text/code: {mix", "stages.pretrain.options"),
    "a slash in a stage": ("  tune:", "  mid/tune:\n    kind: tune", "stages"),
    "markup in a stage": ("  tune:", "  'x<img>':\n    kind: tune", "stages"),
    "a stage called like an effect": ("  tune:", "  cot:\n    kind: tune", "cannot be called 'cot'"),
    "no mode": ("cot: [off]", "cot: []", "evaluate.cot"),
    "an infinite rate": ("batch_tokens: 512", "batch_tokens: 512\n    optimizer: {lr: .inf}", "finite"),
    "an infinite clip": (
        "batch_tokens: 512",
        "batch_tokens: 512\n    optimizer: {clip: .inf}",
        "finite",
    ),
    "a seed twice": ("seeds: 2", "seeds: [0, 0]", "a seed stands twice"),
    "a warm-up longer than its stage": (
        "warmup_tokens: 1k",
        "warmup_tokens: 2M",
        "the warm-up of 2,000,000",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_message_with_file_line_value_and_exit_2(call, study, case):
    old, new, named = WRONG[case]
    assert STUDY.count(old) >= 1
    study.write_text(STUDY.replace(old, new, 1))
    code, out, err = call("plan", study)
    assert code == 2
    assert err.startswith("error: ")
    assert "tiny.yaml:" in err
    assert named in err
    assert "Traceback" not in err + out
    assert os.listdir(study.parent) == ["tiny.yaml"], "nothing half-written"


def test_a_budget_larger_than_the_data_is_refused_and_the_advice_works(call, study):
    study.write_text(STUDY.replace("tokens: 4k", "tokens: 400k"))
    code, _, err = call("mix", study, "--arm", "text/text", "--stage", "pretrain")
    assert code == 2
    assert "prose" in err
    assert "epochs" in err
    assert "tiny.yaml:" in err


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe\x00", b"- 1\n- 2\n", b"!!python/object:os.system {}"]
)
def test_a_file_that_is_no_study_is_refused(call, tmp_path, content):
    path = tmp_path / "odd.yaml"
    if content is not None:
        path.write_bytes(content)
    code, _, err = call("plan", path)
    assert code == 2
    assert "odd.yaml" in err
    assert "Traceback" not in err


def test_an_empty_corpus_is_refused_by_name(call, study, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    old = "{form: prose, documents: 300, depth: [1, 1]}}"
    study.write_text(STUDY.replace("procedural: " + old, "path: empty.jsonl}"))
    code, _, err = call("mix", study, "--arm", "text/text", "--stage", "pretrain")
    assert code == 2
    assert "empty.jsonl" in err or "prose" in err


def test_mix_counts_what_the_batches_hold(call, study):
    args = ("--arm", "text+code/text", "--stage", "pretrain", "--json")
    code, out, err = call("mix", study, *args)
    assert code == 0, err
    total = json.loads(out)["total"]
    assert total["tokens"] == 4000
    assert total["by_source"] == {"prose": 2667, "programs": 1333}


def test_an_unknown_arm_is_refused_with_the_names_that_exist(call, study):
    code, _, err = call("mix", study, "--arm", "nothing", "--stage", "pretrain")
    assert code == 2
    assert "text+code/text" in err


def test_status_and_report_of_nothing_say_so(call, tmp_path):
    for command in ("status", "report"):
        code, _, err = call(command, tmp_path / "nowhere")
        assert code == 2
        assert "nowhere" in err


@pytest.mark.parametrize("held", ["{}", "[]", "7", "{", ""])
def test_a_status_that_is_none_ends_in_words(call, tmp_path, held):
    (tmp_path / "mine/work").mkdir(parents=True)
    (tmp_path / "mine/work/status.json").write_text(held)
    code, _, err = call("status", tmp_path / "mine")
    assert code == 2
    assert "no study was run here" in err


def test_a_model_larger_than_memory_is_refused_before_anything_is_made(call, study):
    large = "{family: llama, hidden_size: 65536, layers: 80, heads: 64}"
    study.write_text(
        STUDY.replace(
            "{family: llama, hidden_size: 32, layers: 1, heads: 2, precision: float32, compile: false}",
            large,
        )
    )
    code, _, err = call("run", study)
    assert code == 2
    assert "GB of memory" in err
    assert "tiny.yaml:2" in err
    assert os.listdir(study.parent) == ["tiny.yaml"]


def test_cleaning_is_counted_in_the_sources_ledger(call, study, tmp_path):
    long = " ".join(
        f"The {w} sat on the mat."
        for w in ["cat", "dog", "cow", "hen", "fox", "owl", "bee", "ant", "emu", "elk"]
    )
    rows = [{"text": f"{long} Number {i} {'x' * i} was there too, they said."} for i in range(60)]
    rows += [rows[3], rows[4], {"text": "tiny"}, {"text": "1 2 3 4 5 6 7 8 9 10 11 12"}, {"body": 1}]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    clean = "{min_characters: 10, quality: true, exact_duplicates: true}"
    mine = f"path: mine.jsonl, bad_rows: skip, clean: {clean}}}"
    study.write_text(
        STUDY.replace("procedural: {form: prose, documents: 300, depth: [1, 1]}}", mine)
        .replace("warmup_tokens: 1k", "warmup_tokens: 500")
        .replace("4k", "1k")
    )
    code, out, err = call("mix", study, "--arm", "text/text", "--stage", "pretrain", "--json")
    assert code == 0, err
    assert json.loads(out)["total"]["by_source"] == {"prose": 1000}
    code, out, err = call("data", study, "--json")
    assert code == 0, err
    ledger = next(row for row in json.loads(out) if row["source"] == "prose")
    assert ledger["removed"] == {"bad row": 1, "length": 1, "quality": 1, "exact duplicate": 2}
    assert (ledger["read"], ledger["kept"]) == (64, 60)
    ledgers = (study.with_suffix("") / "store" / "documents").glob("*/ledger.json")
    told = [e for path in ledgers for e in json.loads(path.read_text())["examples"]]
    whys = [e["why"] for e in told if e["rule"] == "bad row"]
    assert [why.endswith("name the column of the text with text_field") for why in whys] == [True]


def test_plan_tells_what_each_seed_buys_and_takes_a_pilot(call, study, tmp_path):
    from records_fixture import write

    code, out, err = call("plan", study, "--json")
    assert code == 0, err
    answer = json.loads(out)["minimum_detectable_effect"]
    assert {row["from"] for row in answer["rows"]} == {"assumed"}
    assert answer["rows"][0]["by_seeds"].keys() == {"2", "3", "5", "8"}
    assert answer["unresolvable"], "four items resolve nothing"
    code, out, _ = call("plan", study)
    assert code == 0
    assert "never below" in out
    assert "by themselves they can resolve nothing" in out
    code, out, err = call("plan", study, "--pilot", write(tmp_path / "pilot", items=20))
    assert code == 0, err
    assert "not in the pilot, so their variances are assumed" in out
    code, _, err = call("plan", study, "--pilot", tmp_path / "nowhere")
    assert (code, "nowhere" in err) == (2, True)


def test_limits_of_a_run_that_has_none_are_refused(call, study):
    code, _, err = call("run", study, "--budget", "5M")
    assert code == 2
    assert "give --until resolved as well" in err
    code, _, err = call("run", study, "--until", "resolved", "--max-seeds", "1")
    assert code == 2
    assert "tiny.yaml:4" in err
    assert os.listdir(study.parent) == ["tiny.yaml"]


def test_a_table_that_ships_is_audited_by_name(call):
    code, out, err = call("audit", "ma2024", "--json")
    assert code == 0, err
    assert json.loads(out)["not_tested"][0]["task"] == "MBPP"
    assert "E-KAR" in call("audit", "ma2024")[1]
    code, _, err = call("audit", "ma2042")
    assert (code, "ma2024" in err) == (2, True)


def test_what_init_says_can_be_typed(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("init", "quickstart", "--to", "my study.yaml")
    assert code == 0
    assert "codestage run 'my study.yaml'" in out
    code, _, err = call(
        "init", "quickstart", "--to", "noend"
    )  # its results would have the name of the file
    assert code == 2
    assert "ends in .yaml" in err
    assert not (tmp_path / "noend").exists()


def test_a_folder_that_cannot_be_used_is_refused(call, study, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "work").write_text("")
    code, _, err = call("data", study, "--out", tmp_path / "out")
    assert code == 2
    assert "cannot be written" in err


def test_a_terminal_without_our_characters_is_told_all_the_same(study):
    command = [sys.executable, "-m", "codestage.cli", "plan", str(study)]
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=env, capture_output=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert rb"runs (arms \xd7 seeds)" in done.stdout


def test_the_study_of_a_folder_is_found_from_wherever_the_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "mine" / "store").mkdir(parents=True)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "other").symlink_to(tmp_path / "mine")
    study = tmp_path / "mine.yaml"
    study.write_text(STUDY)
    monkeypatch.chdir(tmp_path / "mine")
    for name in (".", "..//mine", "../links/other", "store/..", "", tmp_path / "mine"):
        assert [p.resolve() for p in own_study(Path(name))] == [study], name
    assert own_study(Path("store")) == own_study(Path("/")) == []
    beside = tmp_path / "links" / "other.yml"
    beside.write_text(STUDY)
    assert own_study(tmp_path / "links" / "other") == [beside]


def test_what_could_go_is_told_inside_the_folder_too(call, study, monkeypatch):
    (study.parent / "tiny" / "store").mkdir(parents=True)
    monkeypatch.chdir(study.parent / "tiny")
    code, out, err = call("gc", ".", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["notes"][0].startswith(f"{study}: not prepared yet")


def test_json_can_hold_names_that_are_no_text(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "utf-8"))
    terminal.as_json({"folder": "caf\udce9"})
    sys.stdout.flush()
    assert json.loads(raw.getvalue()) == {"folder": "caf\udce9"}
