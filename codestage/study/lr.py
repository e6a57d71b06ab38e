"""Learning-rate schedules as pure functions of the tokens done."""

import math

from codestage.study.schema import LRSpec


def lr_at(spec: LRSpec, peak: float, done_tokens: int, total_tokens: int) -> float:
    """Learning rate for the batch that begins after `done_tokens` of a stage's `total_tokens`.

    Linear warm-up over `spec.warmup_tokens`; then constant, or down to `spec.final * peak`: over all
    that is left (cosine, linear) or over the last `spec.decay` of the stage (wsd). Up to its decay a
    wsd schedule does not depend on `total_tokens`, so budgets can branch from one trunk.
    """
    if done_tokens < spec.warmup_tokens:
        return peak * (done_tokens + 1) / (spec.warmup_tokens + 1)
    if spec.schedule == "constant":
        return peak
    start = spec.warmup_tokens
    if spec.schedule == "wsd":
        start = max(start, round(total_tokens * (1 - spec.decay)))  # as in StageSpec.trunk
    if done_tokens < start or total_tokens <= start:
        return peak
    progress = min(1.0, (done_tokens - start) / (total_tokens - start))
    if spec.schedule == "cosine":
        progress = (1 - math.cos(math.pi * progress)) / 2
    return peak * (1 - (1 - spec.final) * progress)
