from types import SimpleNamespace

import numpy as np
import pytest

from codestage.data.mixture import MixturePlan, check
from codestage.data.shards import RowCounts
from codestage.errors import UserError


def doses(*parts):
    return [SimpleNamespace(tokens=sum(part.values()), by_source=part) for part in parts]


ROWS = {
    "prose": RowCounts(100, 8),
    "code": RowCounts(30, 8),
    "chat": RowCounts(50, 8, np.random.default_rng(1).integers(1, 9, 50)),
}
PHASES = doses({"prose": 300, "code": 101}, {"chat": 150, "code": 77}, {"prose": 5, "code": 250})


@pytest.mark.parametrize("order", ["even", "random"])
def test_any_range_is_a_part_of_the_whole(order):
    plan = MixturePlan(PHASES, order, ROWS, seed=3)
    whole = plan.rows(0, plan.n_rows)
    assert whole.tokens.sum() == plan.tokens == plan.tokens_before(plan.n_rows)
    for start, stop in [(0, 1), (5, 40), (49, 60), (plan.n_rows - 3, plan.n_rows + 9)]:
        part = plan.rows(start, stop)
        for name in ("source", "ordinal", "tokens"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)[start:stop])
        assert plan.tokens_before(start) == whole.tokens[:start].sum()


def test_random_order_moves_the_same_rows_about():
    even = MixturePlan(PHASES, "even", ROWS, seed=3)
    mixed = MixturePlan(PHASES, "random", ROWS, seed=3)
    tables = [plan.rows(0, plan.n_rows) for plan in (even, mixed)]
    one, other = (sorted(zip(t.source, t.ordinal, t.tokens, strict=True)) for t in tables)
    assert one == other
    assert not np.array_equal(tables[0].source, tables[1].source)
    # Code is seldom at first in the even order of these phases, and anywhere in the random one.
    first = mixed.rows(0, mixed.n_rows // 2)
    assert abs((first.source == 1).sum() - (tables[0].source == 1).sum() / 2) < 12


def test_rows_used_are_the_skip_of_the_next_stage():
    plan = MixturePlan(PHASES, "even", ROWS, seed=3, skip={"prose": 7, "older": 4})
    table = plan.rows(0, plan.n_rows)
    for number, name in enumerate(plan.sources):
        ordinals = np.sort(table.ordinal[table.source == number])
        first = 7 if name == "prose" else 0
        assert ordinals.tolist() == list(range(first, plan.used()[name]))
    assert plan.used()["older"] == 4


def test_a_stage_without_tokens_has_no_rows():
    plan = MixturePlan([], "even", ROWS, seed=0)
    assert (plan.n_rows, plan.tokens_before(0), len(plan.rows(0, 5).source)) == (0, 0, 0)


def test_a_source_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"'markup'.*1,000 tokens"):
        MixturePlan(doses({"markup": 1000}), "even", ROWS, seed=0)


def shrunk(phases, tokens):
    """The phases at fewer tokens in all, by largest remainder, as a study would make them."""
    total, out = sum(phase.tokens for phase in phases), []
    for phase in phases:
        ideal = {name: part * tokens / total for name, part in phase.by_source.items()}
        parts = {name: int(x) for name, x in ideal.items()}
        rest = round(phase.tokens * tokens / total) - sum(parts.values())
        for name in sorted(ideal, key=lambda n: parts[n] - ideal[n])[: max(0, rest)]:
            parts[name] += 1
        out.append(parts)
    return doses(*out)


@pytest.mark.parametrize("name", ["code", "chat"])
@pytest.mark.parametrize("skip", [{}, {"code": 10, "chat": 10}])
def test_too_little_data_is_refused_and_each_advice_works(name, skip):
    phases = doses({"prose": 100, name: 300}, {"prose": 200, name: 200})
    epochs = dict.fromkeys(ROWS, 2.0)
    with pytest.raises(UserError, match=rf"source '{name}': 500 tokens") as refused:
        check(phases, ROWS, epochs, seed=1, skip=skip)
    words = str(refused.value).replace(",", "").replace(";", " ").split()
    enough = float(words[words.index("epochs") + 2])
    fewer = int(words[words.index("stage") + 2]) if "stage" in words else None
    check(phases, ROWS, epochs | {name: enough}, seed=1, skip=skip)
    with pytest.raises(UserError):
        check(phases, ROWS, epochs | {name: enough - 0.1}, seed=1, skip=skip)
    if fewer is not None:
        check(shrunk(phases, fewer), ROWS, epochs, seed=1, skip=skip)
    assert fewer is not None or name == "chat"


def test_what_fits_is_not_refused():
    check(doses({"prose": 800, "code": 240}), ROWS, dict.fromkeys(ROWS, 1.0))
    with pytest.raises(UserError):
        check(doses({"prose": 801, "code": 240}), ROWS, dict.fromkeys(ROWS, 1.0))
