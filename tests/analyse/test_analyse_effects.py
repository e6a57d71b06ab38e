"""Estimates and tests: against SciPy and statsmodels, and by simulation."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from codestage.analyse.effects import Test as EffectTest
from codestage.analyse.effects import holm, make_test, moderation, parts


def simulated(rng, *, effect=0.0, seeds=3, items=150, tasks=4, seed_sd=0.03, item_sd=0.2, rest=0.3):
    """D of each task `[seed, item]`: effect + seed + item + rest."""
    return [
        effect
        + rng.normal(0, seed_sd, (seeds, 1))
        + rng.normal(0, item_sd, (1, items))
        + rng.normal(0, rest, (seeds, items))
        for _ in range(tasks)
    ]


def test_one_seed_and_one_task_is_the_paired_t_test():
    d = np.random.default_rng(0).normal(0.05, 0.4, (1, 80))
    test = make_test(parts([d]))
    theirs = stats.ttest_1samp(d[0], 0)
    assert test.p == pytest.approx(theirs.pvalue)
    low, high = theirs.confidence_interval(0.95)
    assert test.interval(0.05) == pytest.approx((low, high))


def test_equivalence_is_two_one_sided_tests():
    d = np.random.default_rng(1).normal(0.0, 0.2, (1, 120))
    theirs, _, _ = ttost_paired(d[0], np.zeros(120), -0.05, 0.05)
    assert make_test(parts([d])).p_equivalent(0.05) == pytest.approx(theirs)


def test_holm_is_that_of_statsmodels():
    ps = np.random.default_rng(2).uniform(0, 0.2, 30).tolist()
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])


def test_the_item_part_is_an_unbiased_estimate_of_its_variance():
    """Mean of D varies by item_sd^2 / items beyond what seeds and rest give."""
    rng = np.random.default_rng(3)
    estimates = [parts(simulated(rng, tasks=1, items=50)).item_variance for _ in range(3000)]
    assert np.mean(estimates) == pytest.approx(0.2**2 / 50, rel=0.05)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("seed_sd", [0.0, 0.03])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds, seed_sd):
    rng = np.random.default_rng(10 * seeds)
    truth, runs = 0.04, 1500
    held = 0
    for _ in range(runs):
        test = make_test(parts(simulated(rng, effect=truth, seeds=seeds, seed_sd=seed_sd)))
        low, high = test.interval(0.05)
        held += low <= truth <= high
    # Cautious where items and seeds weigh alike; 1,500 runs tell 95 % from 93.5 %.
    assert 0.935 <= held / runs <= 0.99


def test_moderated_intervals_hold_the_truth_and_are_narrower():
    """Twelve tasks of like spread borrow degrees of freedom from each other."""
    rng = np.random.default_rng(4)
    held = alone = total = 0
    widths, widths_alone = [], []
    for _ in range(300):
        many = [parts(simulated(rng, tasks=1)) for _ in range(12)]
        prior = moderation(np.stack([p.by_seed for p in many]))
        for part in many:
            test, plain = make_test(part, prior), make_test(part)
            total += 1
            held += test.interval(0.05)[0] <= 0 <= test.interval(0.05)[1]
            alone += plain.interval(0.05)[0] <= 0 <= plain.interval(0.05)[1]
            widths.append(np.diff(test.interval(0.05)))
            widths_alone.append(np.diff(plain.interval(0.05)))
    assert 0.93 <= held / total <= 0.985
    assert np.mean(widths) < 0.8 * np.mean(widths_alone)


def test_moderation_gives_back_the_common_size_where_all_are_alike():
    rng = np.random.default_rng(5)
    many = [parts([rng.normal(0, 0.05, (3, 1)) + np.zeros((3, 40))]) for _ in range(400)]
    prior = moderation(np.stack([p.by_seed for p in many]))
    assert prior.variance == pytest.approx(0.05**2, rel=0.3)
    assert prior.df > 4
    assert prior.most == pytest.approx(2 * 400, rel=0.3)


@pytest.mark.parametrize("seeds", [3, 5])
def test_contrasts_with_one_base_are_told_from_independent_ones(seeds):
    """Differences from one arm share a half of their variance, and so a quarter of what each says of its size."""
    rng = np.random.default_rng(9)

    def independent(base):
        prior = moderation(rng.normal(size=(40, seeds)) - base * rng.normal(size=seeds))
        return 1.0 if prior is None else prior.most / (seeds - 1)

    shared, apart = (np.median([independent(base) for _ in range(200)]) for base in (1, 0))
    assert (
        2 < shared < 10
    )  # 40 / (1 + 39 / 4) = 3.7 on the mean; with three seeds it depends on the base's
    assert apart > 3 * shared


def test_tests_that_one_luck_moves_are_not_moderated():
    rng = np.random.default_rng(10)
    luck = rng.normal(size=(1, 5))
    assert moderation(rng.normal(0, 0.1, (30, 5)) + luck) is None
    assert moderation(rng.normal(size=(30, 2))) is None, "two seeds cannot tell"
    assert moderation(np.ones((30, 5))) is None
    assert moderation(rng.normal(size=(7, 5))) is None
    assert moderation(rng.normal(size=(30, 1))) is None


@pytest.mark.parametrize("kind", ["independent", "one base", "unlike", "lucky runs"])
def test_moderated_families_err_as_seldom_as_they_say(kind):
    """False findings in any of twelve tests after Bonferroni's correction, where each test's truth is zero."""
    rng, runs, wrong, single = np.random.default_rng(11), 1000, 0, 0
    for _ in range(runs):
        d = rng.normal(size=(12, 3))
        if kind == "one base":
            d -= rng.normal(size=3)
        elif kind == "unlike":
            d *= np.sqrt(4 / rng.chisquare(4, (12, 1)))
        elif kind == "lucky runs":
            d += 3 * rng.normal(size=3)
        p = make_test(parts([d[..., None] + np.zeros(50)]), moderation(d)).p
        wrong += p.min() < 0.05 / 12
        single += (p < 0.05).mean()
    assert wrong / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert single / runs <= 0.08


def test_detectable_effects_are_found_about_four_times_in_five():
    """Ten seeds, so that the standard error is well known: with three it is itself a guess."""
    rng = np.random.default_rng(6)
    mde = np.median([make_test(parts(simulated(rng, seeds=10))).detectable(0.05) for _ in range(200)])
    found = [make_test(parts(simulated(rng, effect=mde, seeds=10))).p < 0.05 for _ in range(600)]
    assert 0.73 < np.mean(found) < 0.87


@pytest.mark.parametrize("seeds", [1, 3])
def test_no_difference_and_no_harm_are_seldom_claimed_at_the_margin(seeds):
    """The truth is harm of just the margin: both claims would be wrong."""
    rng = np.random.default_rng(8)
    margin, sizes = 0.02, {"seeds": seeds, "items": 2000, "seed_sd": 0.002 if seeds > 1 else 0.0}
    tests = [make_test(parts(simulated(rng, effect=-margin, tasks=1, **sizes))) for _ in range(800)]
    assert np.mean([t.p_equivalent(margin) < 0.05 for t in tests]) <= 0.075
    assert 0.01 <= np.mean([t.p_above(-margin) < 0.05 for t in tests]) <= 0.075


@pytest.mark.parametrize("seeds", [1, 3])
def test_an_arm_that_guesses_is_seldom_called_better_than_chance(seeds):
    rng = np.random.default_rng(11)
    scores = (rng.uniform(0, 1, (1500, seeds, 120)) < 0.25).astype(float)
    assert np.mean(make_test(parts([scores])).p_above(0.25) < 0.05) <= 0.07


def test_many_contrasts_at_once_are_each_as_if_alone():
    rng = np.random.default_rng(9)
    tasks = [rng.normal(0, 1, (5, 3, 40)), rng.normal(0, 1, (5, 3, 60))]
    tasks[0][2, 1, 7] = np.nan
    together = make_test(parts(tasks))
    for i in range(5):
        alone = make_test(parts([d[i] for d in tasks]))
        assert together.p[i] == pytest.approx(alone.p, rel=1e-9)
        assert [end[i] for end in together.interval(0.05)] == pytest.approx(alone.interval(0.05))


def test_p_and_interval_say_the_same():
    """p is 5 % just where the 95 % interval ends, whatever the parts."""
    rng = np.random.default_rng(10)
    for seeds, seed_sd in ((2, 0.01), (3, 0.001), (3, 0.2), (8, 0.03)):
        part = parts(simulated(rng, seeds=seeds, seed_sd=seed_sd))
        low, high = make_test(part).interval(0.05)
        for end in (low, high):
            moved = make_test(replace(part, estimate=part.estimate - end))
            assert moved.p == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_p_of_large_effects_is_solved_to_the_end(seeds):
    """Where few seeds and many items share the variance: against bisection of the same equation."""
    for share in (0.05, 0.5, 0.9):
        for t in (3.0, 12.0, 20.0, 40.0, 200.0):
            parts_of = ((1 - share, seeds - 1.0), (share, 1499.0))

            def short(log_p, t=t, parts_of=parts_of):
                return sum(v * stats.t.isf(np.exp(log_p), df) for v, df in parts_of) - t

            lowest = np.log(1e-12)
            wanted = 1e-12 if short(lowest) < 0 else np.exp(optimize.brentq(short, lowest, np.log(0.5)))
            variances = tuple((np.array([v]), np.array([df])) for v, df in parts_of)
            found = EffectTest(np.array([t]), variances, seeds, np.array([1500])).p[0]
            assert found == pytest.approx(2 * wanted, rel=1e-6)


def test_unknown_items_are_left_out_and_a_task_without_any_has_no_test():
    d = np.random.default_rng(7).normal(0, 1, (3, 20))
    hurt = d.copy()
    hurt[1, 4] = np.nan
    left, whole = parts([hurt]), parts([np.delete(d, 4, axis=1)])
    assert left.items == 19
    assert make_test(left).interval(0.05) == pytest.approx(make_test(whole).interval(0.05))
    nothing = make_test(parts([np.full((3, 20), np.nan)]))
    assert np.isnan([nothing.estimate, nothing.p, *nothing.interval(0.05)]).all()


def test_no_difference_at_all_is_p_one_and_equivalent():
    test = make_test(parts([np.zeros((3, 20))]))
    assert (test.p, test.p_equivalent(0.02)) == (1.0, 0.0)


@pytest.mark.parametrize(("seeds", "sizes"), [(1, [24]), (1, [2] * 12), (3, [40, 10])])
def test_no_difference_on_few_items_is_no_proof_of_none(seeds, sizes):
    """The interval is that of the share of differing items that shows none one time in twenty."""
    n = sum(sizes)
    silent = [np.zeros((seeds, size)) for size in sizes]
    test = make_test(parts(silent, bounded=True))
    low, high = test.interval(0.05)
    assert (1 - high) ** n == pytest.approx(0.05, rel=0.02 if seeds == 1 else 0.6)
    assert low == -high
    assert test.p == 1.0
    assert test.p_equivalent(high / 2) > 0.05
    assert make_test(parts(silent)).interval(0.05) == (0.0, 0.0)  # of bits: the same model
    loud = [d.copy() for d in silent]
    loud[0][:, 0] = 1.0
    same = [make_test(parts(loud, bounded=b)).interval(0.05) for b in (True, False)]
    assert same[0] == same[1]
