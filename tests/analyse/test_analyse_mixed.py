"""The second opinion: variances of balanced designs are those of the analysis of variance, intervals hold."""

import numpy as np
import pytest

from codestage.analyse.mixed import block_means, fit, second_opinion


def grid(rng, levels=(2, 4), *, seeds=3, blocks=12, pre=0.04, run=0.02, taste=0.05, rest=0.06):
    """Scores `[arm, seed, block]` without any effect of an arm."""
    first, arms = levels[0], int(np.prod(levels))
    shared = np.repeat(rng.normal(0, pre, (first, seeds, 1)), arms // first, axis=0)
    own = rng.normal(0, run, (arms, seeds, 1)) + rng.normal(0, taste, (arms, 1, blocks))
    common = rng.normal(0, 0.1, (1, seeds, 1)) + rng.normal(0, 0.2, (1, 1, blocks))
    return shared + own + common + rng.normal(0, rest, (arms, seeds, blocks))


def test_variances_are_those_of_the_analysis_of_variance():
    """One stage, all mean squares in order: restricted likelihood has a closed form."""
    y = grid(np.random.default_rng(0), (6,), pre=0.05, run=0.0)
    arms, seeds, blocks = y.shape
    c = y - y.mean(axis=0)
    run = blocks * (c.mean(axis=2) - c.mean(axis=(1, 2))[:, None]) ** 2
    taste = seeds * (c.mean(axis=1) - c.mean(axis=(1, 2))[:, None]) ** 2
    rest = (
        c - c.mean(axis=2)[:, :, None] - c.mean(axis=1)[:, None, :] + c.mean(axis=(1, 2))[:, None, None]
    )
    ms_run = run.sum() / ((arms - 1) * (seeds - 1))
    ms_taste = taste.sum() / ((arms - 1) * (blocks - 1))
    ms_rest = (rest**2).sum() / ((arms - 1) * (seeds - 1) * (blocks - 1))
    found = fit(y, [6])
    assert found.rest == pytest.approx(ms_rest, rel=1e-3)
    assert found.runs == pytest.approx((ms_run - ms_rest) / blocks, rel=1e-2)
    assert found.taste == pytest.approx((ms_taste - ms_rest) / seeds, rel=1e-2)


def test_estimates_are_the_differences_of_means():
    y = grid(np.random.default_rng(1))
    weights = np.array([[1, 1, 1, 1, -1, -1, -1, -1], [3, -1, -1, -1, 3, -1, -1, -1]]) / np.array(
        [[4], [6]]
    )
    test = second_opinion(fit(y, [2, 4]), weights)
    assert test.estimate == pytest.approx(weights @ y.mean(axis=(1, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("pre", [0.0, 0.04])
def test_intervals_hold_the_truth_for_each_stage(pre):
    """A pre-training is one draw for all its tunings: the model must not take them for several."""
    rng = np.random.default_rng(2)
    weights = np.array([[1, 1, 1, 1, -1, -1, -1, -1], [3, -1, -1, -1, 3, -1, -1, -1]]) / np.array(
        [[4], [6]]
    )
    held, runs = np.zeros(2), 90
    for _ in range(runs):
        low, high = second_opinion(fit(grid(rng, pre=pre), [2, 4]), weights).interval(0.05)
        held += (low <= 0) & (high >= 0)
    assert (held / runs >= 0.92).all()


def test_tuning_is_told_from_more_runs_than_a_contrast_has_seeds():
    fitted = fit(grid(np.random.default_rng(3)), [2, 4])
    weights = np.array([[1, 1, 1, 1, -1, -1, -1, -1], [3, -1, -1, -1, 3, -1, -1, -1]]) / np.array(
        [[4], [6]]
    )
    test = second_opinion(fitted, weights)
    dfs = [df[0] for _, df in test.variances]
    assert dfs[:2] == [
        2,
        12,
    ]  # 1 contrast of pre-training, 6 of tuning and the interaction, times seeds less one


def test_what_cannot_be_fitted_is_none():
    y = grid(np.random.default_rng(4))
    assert fit(y[:, :1], [2, 4]) is None
    assert fit(y[:1], [1]) is None
    assert fit(np.ones((4, 3, 6)), [4]) is None


def test_blocks_are_means_over_items_and_tasks():
    rng = np.random.default_rng(5)
    tasks = [rng.normal(0, 1, (2, 3, 24)), rng.normal(0, 1, (2, 3, 12))]
    tasks[0][1, 2, 5] = np.nan
    blocks = block_means(tasks)
    assert blocks.shape == (2, 3, 12)
    kept = np.delete(tasks[0], 5, axis=2)
    assert blocks[0, 0, 3] == pytest.approx((kept[0, 0, 3::12].mean() + tasks[1][0, 0, 3]) / 2)
    assert block_means([rng.normal(0, 1, (2, 3, 1))]) is None
