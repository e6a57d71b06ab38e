"""Shrinkage: against draws from the posterior by hand, and better than the estimates where tasks are alike."""

import numpy as np
import pytest

from codestage.analyse.shrink import shrink


def test_it_is_the_posterior_of_the_model():
    """Importance sampling from the prior, weighted by the likelihood."""
    estimates, errors, scale = np.array([3.0, -1.0, 0.5, 4.0]), np.array([1.0, 2.0, 0.5, 1.5]), 3.0
    rng = np.random.default_rng(0)
    n = 400_000
    tau = np.abs(rng.normal(0, scale, n))
    mu = rng.normal(0, 8, n)  # as flat as a proper prior can be here
    theta = mu[:, None] + tau[:, None] * rng.normal(0, 1, (n, 4))
    log = -0.5 * (((estimates - theta) / errors) ** 2).sum(axis=1) + 0.5 * (mu / 8) ** 2
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean, low, high = shrink(estimates, errors, scale=scale)
    assert mean == pytest.approx(weight @ theta, abs=0.15)
    for t in range(4):
        order = np.argsort(theta[:, t])
        at = np.searchsorted(np.cumsum(weight[order]), [0.025, 0.975])
        assert (low[t], high[t]) == pytest.approx(theta[order[at], t], abs=0.3)


def test_alike_tasks_are_drawn_together_and_unlike_ones_stay():
    errors = np.full(6, 2.0)
    near, *_ = shrink(np.array([-1.0, 0, 1, 2, -2, 0.5]), errors, scale=10)
    assert np.ptp(near) < 2
    far, *_ = shrink(np.array([-40.0, 0, 10, 25, -20, 5]), errors, scale=10)
    assert far == pytest.approx([-40.0, 0, 10, 25, -20, 5], abs=0.6)


def test_intervals_hold_the_truth_and_errors_are_smaller():
    rng = np.random.default_rng(1)
    held, own, drawn = [], [], []
    for _ in range(120):
        theta = rng.normal(1, 1.0, 10)
        estimates = theta + rng.normal(0, 2.0, 10)
        mean, low, high = shrink(estimates, np.full(10, 2.0), scale=10)
        held.append((low <= theta) & (theta <= high))
        own.append((estimates - theta) ** 2)
        drawn.append((mean - theta) ** 2)
    assert 0.93 <= np.mean(held) <= 0.99
    assert np.mean(drawn) < 0.6 * np.mean(own)
