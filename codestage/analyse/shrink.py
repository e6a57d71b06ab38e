"""Bayesian shrinkage of the tasks of one contrast towards each other.

Of many noisy estimates the largest is mostly the luckiest. The normal hierarchical model takes the tasks' true effects
to scatter around a common one: theta_t ~ N(mu, tau²), estimate_t ~ N(theta_t, se_t²), with mu flat and tau half-normal
of the size of the margin's tenfold (Gelman et al. 2013, section 5.4; a weak prior for tau as in Gelman 2006).
"""

import numpy as np
from scipy import stats

GRID = 400
"""Values of tau that the posterior is summed over."""


def shrink(
    estimates: np.ndarray, errors: np.ndarray, *, scale: float, alpha: float = 0.05
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high) `[task]` of the tasks' effects given all of them.

    `errors` `[task]` are standard errors, all above zero; `scale` that of the prior of tau, in the unit of the
    estimates. Limits are quantiles of the posterior, a mixture of normals over tau.
    """
    tau = np.linspace(0.0, 4 * scale, GRID)[:, None]
    weight = 1 / (errors**2 + tau**2)
    mu = (weight * estimates).sum(axis=1, keepdims=True) / weight.sum(axis=1, keepdims=True)
    mu_variance = 1 / weight.sum(axis=1, keepdims=True)
    log = stats.norm.logpdf(estimates, mu, weight**-0.5).sum(axis=1) + 0.5 * np.log(mu_variance[:, 0])
    log += stats.norm.logpdf(tau[:, 0], 0, scale)
    posterior = np.exp(log - log.max())
    posterior /= posterior.sum()
    kept = tau**2 * weight  # share of a task's own estimate
    means = kept * estimates + (1 - kept) * mu
    sds = np.sqrt(kept * errors**2 + (1 - kept) ** 2 * mu_variance)
    low, high = (_quantile(q, posterior, means, sds) for q in (alpha / 2, 1 - alpha / 2))
    return posterior @ means, low, high


def _quantile(q: float, weights: np.ndarray, means: np.ndarray, sds: np.ndarray) -> np.ndarray:
    """The q-quantile `[task]` of a mixture over the first axis, by bisection."""
    low, high = (means - 9 * sds).min(axis=0), (means + 9 * sds).max(axis=0)
    for _ in range(60):
        middle = (low + high) / 2
        below = weights @ stats.norm.cdf((middle - means) / sds) < q
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2)
