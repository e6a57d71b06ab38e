"""What the viewer tells is what the records hold."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest
from viewer_fixture import HOSTILE, A, B, asked, browser, status_of, table, viewed

from codestage.report.viewer.items import Asked, Comparison, Side, compare, mcnemar, page, scan
from codestage.report.viewer.studies import Folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return viewed(tmp_path_factory.mktemp("one") / "study")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another study of the same tasks: fewer items, two seeds, one answer corrected."""
    folder = viewed(
        tmp_path_factory.mktemp("two") / "other", rng_seed=5, seeds=2, items=30, effects=False
    )
    path = folder / "results" / "items.parquet"
    rows = pq.read_table(path).to_pylist()
    rows = [row | {"gold": "mauve"} if row["item"] == "coins-0" else row for row in rows]
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), path)
    return folder


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("task", [None, "lists"])
def test_flips_are_those_of_the_records(study, seed, task):
    rows = table(study)
    rows = rows[(rows.stage == "tune") & (rows.cot == "off") & (rows.metric == "acc")]
    rows = rows if seed is None else rows[rows.seed == seed]
    a, b = (rows[rows.arm == arm].set_index(["task", "item", "seed"]).value for arm in (A, B))
    change = (b - a).dropna()
    told = browser(study).get("/api/compare", params=asked(seed=seed)).json()
    here = change if task is None else change[task]
    counts = told["total"] if task is None else next(t for t in told["tasks"] if t["task"] == task)
    assert counts["gained"] == (here == 1).sum() > 0
    assert counts["lost"] == (here == -1).sum() > 0
    assert counts["same"] == (here == 0).sum()
    assert counts["pairs"] == len(here)
    assert counts["unknown"] == 0
    ours = a if task is None else a[task]
    assert counts["mean_a"] == pytest.approx(ours.mean())
    n = int((here != 0).sum())
    p = None if seed is None else pytest.approx(binomtest(int((here == 1).sum()), n).pvalue)
    assert counts["p"] == p
    client = browser(study)
    by_item = change.groupby(level=["task", "item"])
    wanted = {
        "gained": by_item.max() > 0, "lost": by_item.min() < 0, "changed": by_item.apply(lambda x: (x != 0).any()),
        "same": by_item.apply(lambda x: (x == 0).all()), "all": by_item.size() > 0,
    }  # fmt: skip
    for direction, which in wanted.items():
        expected = {key for key in which[which].index if task in (None, key[0])}
        got, offset = [], 0
        while True:
            query = asked(seed=seed, task=task, direction=direction, offset=offset, limit=7)
            part = client.get("/api/items", params=query).json()
            got += part["rows"]
            offset += 7
            if not part["rows"]:
                break
        assert part["total"] == len(got) == len(expected), direction
        assert {(row["task"], row["item"]) for row in got} == expected
        if direction in ("gained", "lost"):
            sizes = [row["gained"] - row["lost"] for row in got]
            assert sizes == sorted(sizes, reverse=direction == "gained")


def test_mcnemar_is_the_sum_of_binomial_terms():
    from math import comb

    tail = sum(comb(12, k) for k in range(3)) / 2**12
    assert mcnemar(2, 10) == mcnemar(10, 2) == pytest.approx(2 * tail)
    assert mcnemar(0, 0) == 1.0


def test_a_continuous_score_gets_better_or_worse_and_bits_turn_the_sign(study, tmp_path):
    told = browser(study).get("/api/compare", params=asked(metric="prob", seed=0)).json()
    rows = table(study)
    rows = rows[(rows.metric == "prob") & (rows.seed == 0)].set_index(["task", "item"])
    change = rows[rows.arm == B].value - rows[rows.arm == A].value
    assert told["kind"] == "graded"
    assert told["total"]["p"] is None
    assert (told["total"]["gained"], told["total"]["lost"]) == ((change > 0).sum(), (change < 0).sum())
    values = np.array([[1.5], [0.5]]), np.array([[1.0], [0.75]])
    found = Comparison(["t"], np.zeros(2, np.int32), pa.array(["x", "y"]), [0], *values, False, 0, 0, 0)
    bits = page(found, "bpb", task=None, direction="gained", offset=0, limit=9)
    assert [row["item"] for row in bits["rows"]] == ["x"]  # fewer bits are better
    assert [
        r["item"] for r in page(found, "prob", task=None, direction="gained", offset=0, limit=9)["rows"]
    ] == ["y"]


def test_unknown_is_neither_wrong_nor_counted(study, tmp_path):
    folder = viewed(tmp_path / "gaps", items=10, effects=False)
    path = folder / "results" / "items.parquet"
    rows = pq.read_table(path).to_pylist()
    hit = 0
    for row in rows:
        if (row["arm"], row["item"], row["metric"], row["cot"]) == (B, "coins-3", "acc", "off"):
            row |= {"value": None, "status": "missing", "choice_scores": [-np.inf, -1.0, np.nan]}
            hit += 1
        if (row["arm"], row["item"], row["metric"]) == (B, "coins-4", "prob"):
            row |= {"value": np.inf}
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), path)
    assert hit == 3
    client = browser(folder)
    told = client.get("/api/compare", params=asked()).json()
    coins = next(t for t in told["tasks"] if t["task"] == "coins")
    assert (coins["unknown"], coins["pairs"], coins["items"]) == (3, 27, 10)
    listed = client.get("/api/items", params=asked(task="coins", direction="all")).json()["rows"]
    gap = next(row for row in listed if row["item"] == "coins-3")
    assert gap["b"] == [None] * 3
    assert gap["gained"] == gap["lost"] == 0
    assert None not in gap["a"]
    for direction in ("changed", "same"):
        some = client.get("/api/items", params=asked(task="coins", direction=direction)).json()["rows"]
        assert "coins-3" not in {row["item"] for row in some}
    one = client.get("/api/item", params=asked(task="coins", item="coins-3")).json()
    assert [entry["value"] for entry in one["b"]] == [None] * 3
    assert one["b"][0]["status"] == "missing"
    assert one["b"][0]["choice_scores"] == [None, -1.0, None]  # JSON has no infinite numbers
    graded = client.get("/api/compare", params=asked(metric="prob")).json()
    assert graded["total"]["unknown"] == 3
    other = client.get("/api/item", params=asked(metric="prob", task="coins", item="coins-4")).json()
    assert [entry["value"] for entry in other["b"]] == [None] * 3


def test_two_studies_are_matched_by_item_where_the_right_answer_agrees(study, other):
    client = browser(study, other)
    told = client.get("/api/compare", params=asked(b=1)).json()
    keys = []
    for folder, arm in ((study, A), (other, B)):
        rows = table(folder)
        rows = rows[(rows.arm == arm) & (rows.metric == "acc") & (rows.cot == "off")]
        keys.append({(r.task, r.item): r.gold for r in rows.itertuples()})
    common = keys[0].keys() & keys[1].keys()
    agree = {key for key in common if keys[0][key] == keys[1][key]}
    assert told["matched"] == len(agree) == 4 * 30 - 1
    assert told["gold_differs"] == len(common) - len(agree) == 1
    assert (told["only_a"], told["only_b"]) == (4 * 10, 0)
    assert told["seeds"] == [0, 1]
    listed = client.get("/api/items", params=asked(b=1, direction="all", limit=200)).json()
    assert {(row["task"], row["item"]) for row in listed["rows"]} == agree
    back = client.get("/api/compare", params=asked(a=1, b=0, arm_a=B, arm_b=A)).json()
    assert back["total"]["gained"] == told["total"]["lost"]


def test_an_item_shows_prompt_scores_and_outputs_of_both_sides(study):
    told = browser(study).get("/api/item", params=asked(task="sums", item="sums-4")).json()
    assert told["prompt"]["instruction"] == "Which is 4?"
    assert told["prompt"]["choices"][told["prompt"]["gold"]] == told["gold"] == "green"
    assert told["prompt"]["rationale"] is None  # the models were not given it
    rows = table(study)
    rows = rows[(rows.item == "sums-4") & (rows.metric == "acc") & (rows.cot == "off")]
    for side, arm in (("a", A), ("b", B)):
        assert [entry["seed"] for entry in told[side]] == [0, 1, 2]
        for entry in told[side]:
            row = rows[(rows.arm == arm) & (rows.seed == entry["seed"])].iloc[0]
            assert entry["value"] == row.value
            assert entry["output"] == row.output
            assert entry["choice_scores"] == list(row.choice_scores)
            assert told["prompt"]["choices"][entry["chosen"]] == row.output
            assert set(entry["metrics"]) == {"acc", "prob"}


def test_supplied_reasoning_is_shown_and_a_lost_store_is_said(tmp_path):
    folder = viewed(tmp_path / "s", items=4, effects=False)
    path = folder / "results" / "items.parquet"
    rows = [row | {"cot": "supplied"} for row in pq.read_table(path).to_pylist() if row["cot"] == "off"]
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), path)
    query = asked(cot="supplied", task="sums", item="sums-1")
    assert browser(folder).get("/api/item", params=query).json()["prompt"]["rationale"] == "It is so."
    (folder / "store" / "items" / "0" / "items.json").unlink()
    gone = browser(folder).get("/api/item", params=query).json()
    assert gone["prompt"] is None
    assert "not at hand" in gone["note"]
    assert gone["a"][0]["output"]
    assert gone["gold"] == "green"


def test_the_frozen_item_of_another_version_is_not_taken(tmp_path):
    folder = viewed(tmp_path / "s", items=4, effects=False)
    first = folder / "store" / "items" / "0" / "items.json"
    tasks = json.loads(first.read_text())
    tasks["sums"][1] |= {"answer": "other", "instruction": "another question"}
    newer = folder / "store" / "items" / "1" / "items.json"
    newer.parent.mkdir()
    newer.write_text(json.dumps(tasks))
    os.utime(newer, (2e9, 2e9))
    told = browser(folder).get("/api/item", params=asked(task="sums", item="sums-1")).json()
    assert told["prompt"]["instruction"] == "Which is 1?"


def test_an_effect_leads_to_two_arms_that_show_it(study):
    told = browser(study).get("/api/effects").json()
    pairs = {row["contrast"]: row["pair"] for row in told["rows"]}
    assert pairs["code@pretrain"] == [A, B]
    assert pairs["code@tune"] == [A, "text/uniform"]
    assert pairs["pretrain×tune"] is None  # four arms
    effects = json.loads((study / "results" / "effects.json").read_text())["effects"]
    here = [e for e in effects if (e["stage"], e["cot"], e["metric"]) == ("tune", "off", "acc")]
    assert [row["estimate"] for row in told["rows"]] == [e["estimate"] for e in here]
    prob = browser(study).get("/api/effects", params={"metric": "prob"}).json()
    assert {row["metric"] for row in prob["rows"]} == {"prob"}


# A study that runs, and one whose results change


def test_before_there_are_results_progress_is_told_and_the_rest_says_so(tmp_path):
    folder = tmp_path / "early"
    (folder / "work").mkdir(parents=True)
    (folder / "work" / "status.json").write_text(json.dumps(status_of("stopped")))
    client = browser(folder)
    told = client.get("/api/status").json()
    assert told["status"]["steps"]["done"] == 3
    assert told["note"] is None
    only = client.get("/api/studies").json()["studies"][0]
    assert only["ready"] is False
    assert only["error"] is None
    for path in ("effects", "compare", "items", "item"):
        answer = client.get(f"/api/{path}", params=asked(task="t", item="i"))
        assert answer.status_code == 400
        assert "no results yet" in answer.json()["error"]
    assert client.get("/report/0/").status_code == 404
    viewed(folder, items=4, effects=False)
    assert client.get("/api/status").json()["stamp"] != told["stamp"]
    assert client.get("/api/studies").json()["studies"][0]["ready"] is True
    assert client.get("/api/compare", params=asked()).status_code == 200


def test_a_folder_where_nothing_ran_still_shows_its_results(study):
    told = browser(study).get("/api/status").json()
    assert told["status"] is None
    assert "no study was run here" in told["note"]
    assert browser(study).get("/api/effects").status_code == 200


def test_results_that_were_written_again_are_read_again(tmp_path):
    folder = viewed(tmp_path / "s", items=10, effects=False)
    client = browser(folder)
    before = client.get("/api/compare", params=asked()).json()
    stamp = client.get("/api/status").json()["stamp"]
    viewed(folder, items=12, rng_seed=3, effects=False)
    after = client.get("/api/compare", params=asked()).json()
    assert (before["matched"], after["matched"]) == (40, 48)
    assert client.get("/api/status").json()["stamp"] != stamp


def test_half_written_results_are_an_answer_not_a_failure(tmp_path):
    folder = viewed(tmp_path / "s", items=4, effects=False)
    path = folder / "results" / "items.parquet"
    path.write_bytes(path.read_bytes()[:1000])
    client = browser(folder)
    answer = client.get("/api/compare", params=asked())
    assert answer.status_code == 400
    assert "cannot be read just now" in answer.json()["error"]
    only = client.get("/api/studies").json()["studies"][0]
    assert only["ready"] is False
    assert "cannot be read" in only["error"]
    (folder / "results" / "study.json").write_text('{"name": "half"')
    assert "study.json" in client.get("/api/studies").json()["studies"][0]["error"]
    (folder / "results" / "study.json").write_text('{"name": "half"}')
    assert "lacks seeds" in client.get("/api/studies").json()["studies"][0]["error"]


# What people and data may say


@pytest.mark.parametrize(
    ("path", "change", "code", "said"),
    [
        ("compare", {"arm_a": "no-such"}, 404, "no arm 'no-such'"),
        ("compare", {"arm_a": None}, 400, "lacks arm_a"),
        ("compare", {"stage_b": "cooldown"}, 404, "no stage 'cooldown'"),
        ("compare", {"stage_b": "pretrain"}, 400, "no scores with"),
        ("compare", {"metric": "bleu"}, 400, "metric 'bleu'"),
        ("compare", {"seed": "9"}, 400, "no scores"),
        ("compare", {"seed": "one"}, 400, "whole number"),
        ("compare", {"b": "7"}, 404, "no study '7'"),
        ("compare", {"b": "-1"}, 404, "no study"),
        ("compare", {"b": "٣"}, 404, "no study"),
        ("items", {"direction": "up"}, 400, "direction is one of"),
        ("items", {"limit": "100000"}, 400, "limit is a whole number"),
        ("items", {"offset": "-1"}, 400, "offset is a whole number"),
        ("item", {"task": "sums", "item": "none"}, 400, "no item 'none'"),
        ("effects", {"metric": "bleu"}, 400, "metric 'bleu'"),
        ("nothing", {}, 404, "nothing at /api/nothing"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_answered_in_words(study, path, change, code, said):
    answer = browser(study).get(f"/api/{path}", params=asked(**change))
    assert answer.status_code == code
    assert said in answer.json()["error"]
    assert "Traceback" not in answer.text


def test_hostile_names_come_back_as_they_are_and_only_as_json(tmp_path):
    folder = viewed(tmp_path / "<b>odd'\"&", odd=HOSTILE, items=5, effects=False)
    client = browser(folder)
    told = client.get("/api/studies")
    assert told.headers["content-type"] == "application/json"
    only = told.json()["studies"][0]
    assert only["name"] == "invented" + HOSTILE
    assert only["tasks"][0]["name"] == "coins" + HOSTILE
    arms = {"arm_a": f"text{HOSTILE}/text{HOSTILE}", "arm_b": f"text+code{HOSTILE}/text{HOSTILE}"}
    rows = client.get("/api/items", params=asked(**arms, direction="all")).json()["rows"]
    assert {row["task"] for row in rows} == {t + HOSTILE for t in ("coins", "lists", "sums", "prints")}
    one = client.get("/api/item", params=asked(**arms, task="coins" + HOSTILE, item="coins-1")).json()
    assert one["a"][0]["output"].endswith(HOSTILE)
    assert one["prompt"]["instruction"].endswith(HOSTILE)
    wrong = client.get("/api/compare", params=asked(arm_a=HOSTILE))
    assert wrong.headers["content-type"] == "application/json"
    assert wrong.status_code == 404
    # what no encoding carries is no failure either
    study = json.loads((folder / "results" / "study.json").read_text())
    (folder / "results" / "study.json").write_text(json.dumps(study | {"name": "half \ud800"}))
    assert client.get("/api/studies").json()["studies"][0]["name"] == "half \ud800"


# Large tables, and the command


def test_only_the_rows_and_columns_asked_for_are_decoded(tmp_path, monkeypatch):
    folder = viewed(tmp_path / "s", items=40, effects=False)
    path = folder / "results" / "items.parquet"
    whole = pq.read_table(path).sort_by(
        "run"
    )  # as the engine writes a large study: groups of whole runs
    pq.write_table(whole, path, row_group_size=200)
    groups = pq.ParquetFile(path).num_row_groups
    seen = []
    import pyarrow.dataset as ds

    def subset(fragment, **how):
        seen.append(how["row_group_ids"])
        return ds.ParquetFileFragment.subset(fragment, **how)

    class Watched:
        def __init__(self, fragment):
            self.fragment = fragment

        def subset(self, **how):
            return subset(self.fragment, **how)

    real = ds.dataset
    monkeypatch.setattr(
        "codestage.report.viewer.items.ds.dataset",
        lambda *a, **k: type("D", (), {"get_fragments": lambda s: iter([Watched(f) for f in real(*a, **k).get_fragments()])})(),
    )  # fmt: skip
    rows = scan(
        Folder(folder), ["task", "value"], {"arm": A, "stage": "tune", "metric": "acc", "cot": "off"}
    )
    expected = whole.to_pandas().query("arm == @A and metric == 'acc' and cot == 'off'")
    assert rows.column_names == ["task", "value"]
    assert len(rows) == len(expected) == 4 * 40 * 3
    assert 0 < len(seen[0]) < groups / 3
    assert not len(scan(Folder(folder), ["task"], {"arm": "none"}))


def test_memory_holds_what_is_compared_not_the_table(tmp_path):
    """720,000 rows with long outputs, 600 MB decoded: comparing and opening an item needs far less."""
    folder = viewed(tmp_path / "s", items=4, effects=False)
    path = folder / "results" / "items.parquet"
    schema = pq.read_schema(path)
    arms = [a["name"] for a in json.loads((folder / "results" / "study.json").read_text())["arms"]]
    n = 40_000
    outputs = pa.array(["x" * 800]).take(pa.array(np.zeros(n, np.int64)))
    with pq.ParquetWriter(path, schema) as writer:
        for arm in arms:
            for seed in range(3):
                columns = {
                    "run": [f"{arm}#{seed}"] * n, "arm": [arm] * n, "seed": [seed] * n, "stage": ["tune"] * n,
                    "task": ["coins"] * n, "item": [f"coins-{i}" for i in range(n)], "cot": ["off"] * n,
                    "metric": ["acc"] * n, "value": (np.arange(n) % (2 + seed) == 0).astype(float), "output": outputs,
                }  # fmt: skip
                arrays = [
                    pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type)
                    for f in schema
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from codestage.report.viewer.items import *; from codestage.report.viewer.detail import detail\n"
        "from codestage.report.viewer.studies import Folder\n"
        "import pyarrow as pa\n"
        "f = Folder(Path(sys.argv[1])); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"q = Asked(Side(f, {A!r}, 'tune'), Side(f, {B!r}, 'tune'), 'off', 'acc')\n"
        "found = compare(q); told = detail(q, 'coins', 'coins-77')\n"
        f"assert len(found.task) == {n} and len(told['b'][2]['output']) == 800\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200, f"{done.stdout} MB more"


def test_scores_stand_at_their_item_and_seed(study):
    folder = Folder(study)
    asked_ = Asked(Side(folder, A, "tune"), Side(folder, B, "tune"), "off", "acc")
    found = compare(asked_)
    assert isinstance(found, Comparison)
    assert found.a.shape == (160, 3)
    rows = table(study)
    rows = rows[(rows.metric == "acc") & (rows.cot == "off")]
    values = {(r.task, r.item, r.seed): r.value for r in rows[rows.arm == B].itertuples()}
    for i in range(0, 160, 7):
        key = (found.tasks[found.task[i]], found.item[i].as_py())
        assert [values[(*key, seed)] for seed in found.seeds] == found.b[i].tolist()
