"""Points estimated together, against analyses of variance by statsmodels and by counting in simulations."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from test_analyse_dose import profile

from codestage.analyse.profile import Profiles, lineage, point_scores


def test_seeds_variance_is_that_of_the_two_way_analysis_of_variance():
    """Without items' own part, the F of any difference is that of points and seeds as factors."""
    rng = np.random.default_rng(1)
    table = rng.normal(0, 1, (4, 3)) + rng.normal(0, 2, 3)
    found = Profiles({"t": np.repeat(table[:, :, None], 50, axis=2)}, {"t": 0}, draws=64).of(["t"])
    point, seed = np.indices(table.shape).reshape(2, -1)
    design = np.column_stack([np.ones(12), np.eye(4)[point][:, 1:], np.eye(3)[seed][:, 1:]])
    wanted = sm.OLS(table.ravel(), design).fit()
    assert found.estimates[1:] == pytest.approx(wanted.params[1:4])
    assert found.covariance == pytest.approx(wanted.cov_params()[1:4, 1:4])
    f = found.estimates[1:] @ np.linalg.solve(found.covariance, found.estimates[1:]) / 3
    assert found.p_f(f, 3) == pytest.approx(wanted.f_test(np.eye(6)[1:4]).pvalue, rel=1e-6)


def test_missing_runs_are_left_out_and_the_rest_is_least_squares():
    rng = np.random.default_rng(2)
    table = rng.normal(0, 1, (4, 3)) + rng.normal(0, 2, 3)
    table[1, 2] = table[3, 0] = np.nan
    found = Profiles({"t": np.repeat(table[:, :, None], 40, axis=2)}, {"t": 0}, draws=64).of(["t"])
    point, seed = np.nonzero(~np.isnan(table))
    design = np.column_stack([np.ones(10), np.eye(4)[point][:, 1:], np.eye(3)[seed][:, 1:]])
    wanted = sm.OLS(table[point, seed], design).fit()
    assert found.estimates[1:] == pytest.approx(wanted.params[1:4])
    assert found.covariance == pytest.approx(wanted.cov_params()[1:4, 1:4])
    assert found.freedom[0][1] == wanted.df_resid


def test_points_that_share_no_seed_are_not_compared():
    table = np.full((3, 2, 5), np.nan)
    table[0, 0] = table[1, 0] = table[2, 1] = 1.0
    assert Profiles({"t": table}, {"t": 0}, draws=8).of(["t"]) is None


def test_draws_have_the_covariance_that_is_told():
    found, _ = profile([0, 1, 2, 1, 0], seeds=9, draws=4096)
    drawn = np.cov(found.draws[1:])
    share = found.freedom[0][0]
    df = found.freedom[0][1]
    assert found.draws.mean(axis=1) == pytest.approx(found.estimates, abs=0.05)
    # Student's t is wider than the variance by df / (df - 2).
    assert np.diag(drawn) == pytest.approx(
        np.diag(found.covariance) * (1 + share * 2 / (df - 2)), rel=0.08
    )


def test_arms_are_averaged_into_points_and_unknown_stays_unknown():
    scores = np.arange(24.0).reshape(4, 2, 3)
    scores[3, 1] = np.nan
    got = point_scores(scores, [(0, 1), (2, 3)])
    assert got[0] == pytest.approx(scores[:2].mean(axis=0))
    assert np.isnan(got[1, 1]).all()
    assert not np.isnan(got[1, 0]).any()


def grid(blocks=3, each=3, budgets=(100,)):
    """Arms of a grid as `study.json` tells them."""
    return [
        {"factors": {"pretrain": f"p{i}", "tune": f"t{j}"}, "tokens": {"pretrain": n, "tune": 50}}
        for n in budgets
        for i in range(blocks)
        for j in range(each)
    ]


def luck(rng, arms, seeds, *, trained, tuned):
    """`[arm, seed]`: chance of the pre-training, which its arms share, and of each tuning."""
    block = np.array([int(a["factors"]["pretrain"][1:]) for a in arms])
    shared = rng.normal(0, trained, (block.max() + 1, seeds))
    return shared[block] + rng.normal(0, tuned, (len(arms), seeds))


def single(arms):
    return lineage(arms, [[i] for i in range(len(arms))])


def test_strata_are_those_of_a_split_plot():
    """Errors of whole plots and of sub-plots by statsmodels, and the textbook's errors of differences."""
    arms, seeds, rng = grid(), 4, np.random.default_rng(5)
    table = luck(rng, arms, seeds, trained=3, tuned=1) + rng.normal(0, 2, seeds)
    found = Profiles(
        {"t": np.repeat(table[:, :, None], 50, axis=2)}, {"t": 0}, lineage=single(arms), draws=64
    ).of(["t"])
    arm, seed = np.indices(table.shape).reshape(2, -1)
    frame = pd.DataFrame({"y": table.ravel(), "arm": arm, "block": arm // 3, "seed": seed})
    plots = frame.groupby(["block", "seed"], as_index=False)["y"].mean()
    between = 3 * smf.ols("y ~ C(block) + C(seed)", plots).fit().mse_resid
    frame["of_plot"] = frame["y"] - frame.groupby(["block", "seed"])["y"].transform("mean")
    within = smf.ols("of_plot ~ C(arm)", frame).fit().ssr / 18
    cov = np.zeros((9, 9))
    cov[1:, 1:] = found.covariance
    gap = lambda i, j: cov[i, i] + cov[j, j] - 2 * cov[i, j]  # noqa: E731
    assert gap(3, 4) == pytest.approx(2 * within / seeds)
    assert gap(3, 8) == pytest.approx(2 * (between / 3 + within * 2 / 3) / seeds)
    assert [df for _, df in found.freedom[:2]] == [6, 18]


def test_points_trained_by_themselves_have_one_stratum():
    """Options of one stage, averaged over the other's, share nothing that does not cancel."""
    arms = grid()
    rng = np.random.default_rng(6)
    scores = np.repeat(luck(rng, arms, 4, trained=3, tuned=1)[:, :, None], 20, axis=2)
    by_first = [[i for i in range(9) if i // 3 == k] for k in range(3)]
    by_last = [[i for i in range(9) if i % 3 == k] for k in range(3)]
    for members in (by_first, by_last):
        points = {"t": point_scores(scores, members)}
        alone = Profiles(points, {"t": 0}, draws=64).of(["t"])
        told = Profiles(points, {"t": 0}, lineage=lineage(arms, members), draws=64).of(["t"])
        assert told.freedom[0][1] == alone.freedom[0][1] == 6
        assert told.covariance == pytest.approx(alone.covariance)
        assert told.draws == pytest.approx(alone.draws)


def test_shorter_budgets_of_a_trunk_are_of_its_block():
    arms = grid(2, 1, budgets=(50, 100))
    assert [table.tolist() for table in single(arms)] == [[[1, 0], [0, 1], [1, 0], [0, 1]]]
    assert lineage(arms, [[0, 1], [0], [2]])[0].tolist() == [[0.5, 0.5], [1, 0], [1, 0]]


@pytest.mark.parametrize("missing", [False, True])
def test_draws_of_arms_from_few_checkpoints_hold_the_truth(missing):
    """Differences of arms and of blocks' means: taken for independent, only 79 in a hundred of the last held it."""
    arms, rng = grid(4, 3), np.random.default_rng(7)
    pairs = {"between": (0, 11), "within": (0, 2), "means": None}
    held = dict.fromkeys(pairs, 0)
    rounds = 400
    for key in range(rounds):
        scores = luck(rng, arms, 3, trained=2, tuned=0.7)[:, :, None] + rng.normal(0, 10, (12, 3, 60))
        if missing:
            scores[5, 2] = scores[10, 0] = np.nan
        made = Profiles({"t": scores}, {"t": 0}, lineage=single(arms), draws=512, seed=key)
        draws = made.of(["t"]).draws
        for name, pair in pairs.items():
            gap = (
                draws[:3].mean(axis=0) - draws[9:].mean(axis=0)
                if pair is None
                else np.subtract(*draws[list(pair)])
            )
            low, high = np.quantile(gap, [0.025, 0.975])
            held[name] += low <= 0 <= high
    assert min(held.values()) >= 0.92 * rounds, held
    assert held["within"] <= 0.98 * rounds, "intervals within a block are not those between blocks"


def test_one_seed_has_no_strata_and_one_block_no_second():
    arms = grid()
    scores = np.random.default_rng(8).normal(0, 1, (9, 1, 40))
    assert len(Profiles({"t": scores}, {"t": 0}, lineage=single(arms), draws=64).of(["t"]).freedom) == 1
    one = grid(1, 5)
    scores = np.random.default_rng(9).normal(0, 1, (5, 3, 40))
    told = Profiles({"t": scores}, {"t": 0}, lineage=single(one), draws=64).of(["t"])
    assert told.freedom[0][1] == 8
    assert told.draws == pytest.approx(Profiles({"t": scores}, {"t": 0}, draws=64).of(["t"]).draws)


def test_points_of_blocks_that_share_one_seed_are_not_compared():
    """What their checkpoints' luck is was never seen; the tunings' luck is another."""
    arms = grid(2, 3)
    scores = np.random.default_rng(10).normal(0, 1, (6, 3, 40))
    scores[3:, 1:] = np.nan
    assert Profiles({"t": scores}, {"t": 0}, lineage=single(arms), draws=64).of(["t"]) is None
    scores = np.random.default_rng(10).normal(0, 1, (6, 3, 40))
    scores[3:, 2:] = np.nan
    assert Profiles({"t": scores}, {"t": 0}, lineage=single(arms), draws=64).of(["t"]) is not None
