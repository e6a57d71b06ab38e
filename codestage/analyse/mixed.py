"""A second opinion: a linear mixed model of the whole grid, fitted by statsmodels.

The effects' own intervals estimate how runs differ anew for each contrast, from as many numbers as there are seeds.
The model takes such differences to be alike in all arms, so that a stage of 5 options after one of 2 tells them, with
3 seeds, from 16 numbers instead of 2. Where both agree, the answer hangs on neither assumption; where they part, the
report says so.

    score[arm, seed, block] = arm + seed + block + seed:block + prefix[first stages of arm, seed] + run[arm, seed]
                              + taste[arm, block] + rest

Blocks are groups of items. A prefix is what arms share: one pre-training, tuned in several ways. What all arms share
(seed, block, seed:block) cancels in every contrast, so the arms are turned into orthonormal contrasts of the factorial
first: independent groups, which statsmodels fits fast.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.linalg import helmert

from codestage.analyse.effects import Test

BLOCKS = 12
"""Groups of items at the most: enough degrees of freedom, few enough rows."""
MOST_ARMS = 60
"""Larger grids are not fitted: their contrasts have degrees of freedom enough without it."""


@dataclass(frozen=True)
class Fit:
    """The model of a grid; variances in squared units of the score."""

    basis: np.ndarray
    """`[component, arm]` orthonormal contrasts."""
    means: np.ndarray
    """`[component]`"""
    depth: np.ndarray
    """`[component]`: how many of the first stages tell its arms apart."""
    runs: np.ndarray
    """`[component]`: variance of one seed's value that comes from runs and prefixes."""
    taste: float
    rest: float
    seeds: int
    blocks: int


def block_means(tasks: Sequence[np.ndarray], most: int = BLOCKS) -> np.ndarray | None:
    """Mean over tasks of every block's items: `[arm, seed, block]` from scores `[arm, seed, item]` of each task.

    Items unknown to any run are left out; None where a task has fewer than two left.
    """
    known = [d[:, :, ~np.isnan(d).any(axis=(0, 1))] for d in tasks]
    blocks = min(most, *(d.shape[2] for d in known))
    if blocks < 2:
        return None
    total = np.zeros((*known[0].shape[:2], blocks))
    for d in known:
        total += np.stack([d[:, :, b::blocks].mean(axis=2) for b in range(blocks)], axis=2)
    return np.asarray(total / len(known))


def _basis(levels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(orthonormal contrasts of the factorial `[component, arm]`, depth `[component]`), the mean left out."""
    one = [
        np.vstack([np.full((1, n), n**-0.5), helmert(n)]) if n > 1 else np.ones((1, 1)) for n in levels
    ]
    whole = reduce(np.kron, one)
    numbers = np.stack(np.unravel_index(np.arange(len(whole)), levels))
    last = np.where(numbers > 0, np.arange(1, len(levels) + 1)[:, None], 0).max(axis=0)
    return whole[1:], last[1:]


def fit(scores: np.ndarray, levels: Sequence[int]) -> Fit | None:
    """Fit the model to `[arm, seed, block]` by restricted maximum likelihood.

    `levels`: the number of options of each stage; arms in the order of their product, the last stage fastest.
    None where there is nothing to fit: one arm, one seed, more than `MOST_ARMS`, or no variance.
    """
    arms, seeds, blocks = scores.shape
    if not 2 <= arms <= MOST_ARMS or seeds < 2:
        return None
    basis, depth = _basis(levels)
    turned = np.einsum("ja,asb->jsb", basis, scores)
    scale = float(turned.std())
    if scale <= 1e-12 * float(np.abs(scores).max()):
        return None
    by_seed = np.kron(np.eye(seeds), np.ones((blocks, 1)))
    parts: dict[str, list[np.ndarray]] = {
        "run": [by_seed] * len(basis),
        "taste": [np.tile(np.eye(blocks), (seeds, 1))] * len(basis),
    }
    weight = {p: int(np.prod(levels[p:])) for p in range(1, len(levels)) if (depth == p).any()}
    weight = {p: w for p, w in weight.items() if w > 1 and (depth > p).any()}
    for p, w in weight.items():
        parts[f"prefix{p}"] = [by_seed * (w**0.5 if d <= p else 0.0) for d in depth]
    variances = _restricted_likelihood(turned / scale, parts)
    found = {name: v * scale**2 for name, v in variances.items()}
    runs = np.array(
        [found["run"] + sum(found[f"prefix{p}"] * w for p, w in weight.items() if d <= p) for d in depth]
    )
    means = turned.mean(axis=(1, 2))
    return Fit(basis, means, depth, runs, found["taste"], found["rest"], seeds, blocks)


def _restricted_likelihood(turned: np.ndarray, parts: dict[str, list[np.ndarray]]) -> dict[str, float]:
    """Variance components of `[component, seed, block]`, by name.

    The search ends badly where a variance is zero. The smallest is then left out and the rest fitted again.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    group = np.indices(turned.shape)[0].ravel()
    names, left_out = list(parts), dict.fromkeys(parts, 0.0)
    while names:
        columns = [[[str(i) for i in range(m.shape[1])] for m in parts[n]] for n in names]
        spec = VCSpec(names, columns, [parts[n] for n in names])
        model = MixedLM(turned.ravel(), np.eye(len(turned))[group], group, exog_vc=spec)
        # Only for standard errors, which are not taken from here; it cannot be inverted where a variance is zero.
        size = model.k_fe + model.k_re2 + model.k_vc
        model.hessian = lambda _, size=size: (-np.eye(size), False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = model.fit(reml=True, method="lbfgs")
            except np.linalg.LinAlgError:
                names.pop()
                continue
        variances = dict(zip(names, map(float, found.vcomp), strict=True))
        if found.converged:
            return left_out | variances | {"rest": float(found.scale)}
        names.remove(min(variances, key=lambda name: variances[name]))
    rest = turned - turned.mean(axis=(1, 2), keepdims=True)
    return left_out | {"rest": float((rest**2).sum() / (rest.size - len(rest)))}


def second_opinion(fitted: Fit, weights: np.ndarray) -> Test:
    """Tests of contrasts by the model; `weights` `[contrast, arm]` sum to zero.

    Student's t of the parts as in `effects`: runs and prefixes by the contrasts of the same depth, the choice of
    items by all of them.
    """
    turned = weights @ fitted.basis.T
    each = (fitted.runs + fitted.rest / fitted.blocks) / fitted.seeds
    variances = []
    for depth in np.unique(fitted.depth):
        here = fitted.depth == depth
        df = float(here.sum() * (fitted.seeds - 1))
        variances.append(((turned[:, here] ** 2) @ each[here], np.full(len(turned), df)))
    items = (turned**2).sum(axis=1) * fitted.taste / fitted.blocks
    df = float(len(fitted.basis) * (fitted.blocks - 1))
    variances.append((items, np.full(len(turned), df)))
    return Test(turned @ fitted.means, tuple(variances), fitted.seeds, np.full(len(turned), np.nan))
