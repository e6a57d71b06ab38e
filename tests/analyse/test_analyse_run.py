"""From records to effects.json: contrasts, families, arms, verdicts."""

import json
from zlib import crc32

import ladder_fixture
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from records_fixture import STAGES, study, write

from codestage.analyse.contrasts import contrasts
from codestage.analyse.effects import make_test, parts
from codestage.analyse.rows import effect_rows, verdict
from codestage.analyse.run import analyse
from codestage.errors import UserError


def overall(answer, contrast):
    found = [e for e in answer["effects"] if e["contrast"] == contrast and e["level"] == "overall"]
    assert len(found) == 1
    return found[0]


def test_weights_sum_to_zero_and_every_cell_counts_alike():
    found = {c.name: c for c in contrasts(study())}
    assert {"code@pretrain", "code@tune", "pretrain×tune"} <= set(found)
    for contrast in found.values():
        if contrast.cot is None:
            assert sum(contrast.weights.values()) == pytest.approx(0)
    main = found["code@pretrain"].weights
    assert main == {
        f"{a}/{b}": pytest.approx((1 if a == "text+code" else -1) / 3)
        for a in STAGES["pretrain"]
        for b in STAGES["tune"]
    }


def test_orders_are_compared_only_where_their_totals_agree():
    told = study()
    assert "increase-uniform@tune" in {c.name for c in contrasts(told)}
    totals = {"text": {"chat": "1"}, "uniform": {"chat": "1/2"}, "increase": {"chat": "5/8"}}
    told["totals"] = {"pretrain": {}, "tune": totals}
    assert "increase-uniform@tune" not in {c.name for c in contrasts(told)}
    totals["uniform"] = totals["increase"]
    assert "increase-uniform@tune" in {c.name for c in contrasts(told)}


def test_main_effects_are_the_differences_of_means(tmp_path):
    write(tmp_path, pretrain=0.1)
    table = pq.read_table(tmp_path / "results" / "items.parquet").to_pylist()
    mean = {
        side: np.mean([r["value"] for r in table if r["arm"].startswith(side + "/")])
        for side in STAGES["pretrain"]
    }
    effect = overall(analyse(tmp_path), "code@pretrain")
    assert effect["estimate"] == pytest.approx(100 * (mean["text+code"] - mean["text"]), abs=1e-3)


def test_arm_means_are_shares_and_compared_with_chance(tmp_path):
    write(tmp_path, base=0.5)
    rows = analyse(tmp_path)["arms"]
    table = pq.read_table(tmp_path / "results" / "items.parquet").to_pylist()
    for row in rows:
        if row["level"] == "task":
            values = [r["value"] for r in table if (r["arm"], r["task"]) == (row["arm"], row["name"])]
            assert row["mean"] == pytest.approx(np.mean(values), abs=1e-5)
        assert row["low"] <= row["mean"] <= row["high"]
        assert (row["chance"], row["above_chance"]) == (0.25, True)
    write(tmp_path, base=0.25)
    assert not any(r["above_chance"] for r in analyse(tmp_path)["arms"] if r["level"] == "overall")


def test_one_seed_is_analysed_and_said_to_be_one(tmp_path):
    answer = analyse(write(tmp_path, seeds=1, pretrain=0.2))
    assert overall(answer, "code@pretrain")["verdict"] == "up"
    assert any("One seed" in note for note in answer["notes"])


def test_the_answer_is_a_pure_function_and_holds_no_nan(tmp_path):
    one = json.dumps(analyse(write(tmp_path)), allow_nan=False)
    assert one == json.dumps(analyse(tmp_path), allow_nan=False)


def test_records_that_are_missing_or_broken_are_told(tmp_path):
    with pytest.raises(UserError, match="no readable records"):
        analyse(tmp_path)
    write(tmp_path)
    (tmp_path / "results" / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="no readable records"):
        analyse(tmp_path)


def test_a_task_that_one_run_lacks_is_told(tmp_path):
    write(tmp_path, pretrain=0.1)
    path = tmp_path / "results" / "items.parquet"
    table = pq.read_table(path)
    rows = [r for r in table.to_pylist() if (r["run"], r["task"]) != ("text/text#2", "sums")]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    (note,) = [n for n in analyse(tmp_path)["notes"] if "(acc," in n]
    assert note.startswith(
        "sums (acc, tune, off): no scores of 1 runs that have others (text/text#2 first)"
    )


def test_answers_alike_in_all_arms_are_no_effect_and_no_certainty(tmp_path):
    """Weights of a mean over arms do not cancel to the last bit; what is left is rounding."""
    write(tmp_path, seeds=1)
    path = tmp_path / "results" / "items.parquet"
    table = pq.read_table(path)
    rows = [r | {"value": float(crc32(r["item"].encode()) % 2)} for r in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    effects = [e for e in analyse(tmp_path)["effects"] if e["metric"] == "acc"]
    assert effects
    for effect in effects:
        assert effect["estimate"] == 0
        assert effect["p"] == 1
        assert effect["low"] < -0.1
        assert effect["high"] > 0.1


def test_effects_over_all_tasks_stand_on_their_own_seeds():
    """However many contrasts there are, none's seeds are drawn towards the others' (docs/statistics.md)."""
    doses = {"text": 0.0} | {f"d{i}": i / 20 for i in range(1, 9)}
    told = ladder_fixture.study(doses=doses, items=40)
    records = ladder_fixture.made(told, ladder_fixture.peaked, doses=doses, metrics=("acc",))
    asked = contrasts(told)
    rows = effect_rows(records, asked, stage="tune", cot="off", metric="acc")
    simple = [r for r in rows if (r["family"], r["level"]) == ("simple", "overall")]
    assert len(simple) >= 8
    by_name = {c.name: c.weights for c in asked}
    for row in simple:
        weights = np.array([by_name[row["contrast"]].get(arm, 0.0) for arm in records.arms])
        d = [np.tensordot(weights, s, axes=1) for s in records.scores.values()]
        low, high = make_test(parts(d, bounded=True)).scaled(100).interval(0.05)
        assert (row["low"], row["high"]) == (pytest.approx(low, rel=1e-4), pytest.approx(high, rel=1e-4))


def test_a_study_of_one_stage_compares_every_option_with_the_first():
    told = study()
    one = {k: v for k, v in told.items() if k != "arms"} | {
        "stages": ["tune"],
        "arms": [
            a | {"name": a["factors"]["tune"], "factors": {"tune": a["factors"]["tune"]}}
            for a in told["arms"]
            if a["factors"]["pretrain"] == "text"
        ],
    }
    found = {c.name: c.weights for c in contrasts(one)}
    assert found["uniform@tune"] == {"uniform": 1.0, "text": -1.0}
    assert found["increase@tune"] == {"increase": 1.0, "text": -1.0}
    assert found["code@tune"] == {"uniform": 0.5, "increase": 0.5, "text": -1.0}


def test_an_option_may_be_called_as_the_main_effect_is():
    options = ["text", "code", "mixed"]
    told = {
        "stages": ["pretrain"],
        "options": {"pretrain": options},
        "code_options": {"pretrain": options[1:]},
        "schedules": {"pretrain": dict.fromkeys(options, "mix")},
        "tasks": [],
        "arms": [
            {"name": o, "role": "grid", "control": None, "against": None, "factors": {"pretrain": o},
             "tokens": {"pretrain": 1}}
            for o in options
        ],
    }  # fmt: skip
    found = {c.name: c for c in contrasts(told)}
    families = [c.family for c in found.values()]
    assert (families.count("pretrain"), families.count("simple")) == (1, 2)
    assert found["code@pretrain"].weights == {"code": 0.5, "mixed": 0.5, "text": -1.0}


def test_verdicts_are_those_of_the_corrected_tests():
    row = {"p_adjusted": 0.2, "estimate": 1.0, "family": "transfer"}
    assert verdict(row | {"p_adjusted": 0.04}, 0.01, 0.01) == "up"
    assert verdict(row | {"p_adjusted": 0.04, "estimate": -1.0}, 0.01, 0.01) == "down"
    assert verdict(row, 0.01, 0.01) == "equivalent"
    assert verdict(row, 0.2, 0.01) == "not_worse"
    assert verdict(row | {"family": "tune"}, 0.2, 0.01) == "open"
    assert verdict(row, 0.2, 0.2) == "open"


def test_no_harm_is_claimed_of_a_gain_too_large_to_be_none(tmp_path):
    """Code adds 3 points everywhere: harm of 2 can be ruled out on tasks outside code, a difference need not be shown."""
    answer = analyse(write(tmp_path, pretrain=0.03, items=1500, seeds=5))
    found = {e["name"]: e for e in answer["effects"] if e["contrast"] == "transfer-code@pretrain"}
    assert "prints" not in found  # the code task itself
    assert {"coins", "lists", "sums", "symbolic", "arithmetic"} <= set(found)
    assert all(found[t]["p_not_worse"] < 0.05 for t in ("coins", "lists", "sums"))
    assert all(found[t]["p_not_worse"] <= found[t]["p_equivalent"] for t in found)


def test_the_mixed_model_and_the_bootstrap_stand_beside_the_grids_effects(tmp_path):
    answer = analyse(write(tmp_path, pretrain=0.2))
    for name in ("code@pretrain", "code@tune", "pretrain×tune"):
        row = overall(answer, name)
        estimate, low, high, p = row["mixed"]
        assert estimate == pytest.approx(row["estimate"], abs=0.2)
        assert low < estimate < high
        assert 0 < p <= 1
        assert row["bootstrap"][0] == pytest.approx(row["low"], abs=0.15 * (row["high"] - row["low"]))
    assert overall(answer, "code@pretrain")["mixed"][3] < 0.05
    shrunk = [e for e in answer["effects"] if e["shrunk"]]
    assert {e["level"] for e in shrunk} == {"task"}
    assert {e["family"] for e in shrunk} == {"pretrain", "tune"}
