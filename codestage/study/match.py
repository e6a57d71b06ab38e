"""Controls whose size is known only once the data is prepared: equal examples, equal FLOPs.

Shares and totals of a study are in tokens. A dose of code in tokens changes how many examples are seen,
since programs are longer or shorter than answers, and what attention and padding cost. These two
controls hold the one or the other fixed instead.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from codestage.errors import UserError
from codestage.study.curves import Pieces
from codestage.study.expand import Run, StagePlan, option_mixes
from codestage.study.models import ModelShape, attention_width, train_flops_per_token
from codestage.study.schedule import phases
from codestage.study.schema import Study


@dataclass(frozen=True)
class Measure:
    """What a prepared source holds."""

    tokens: int
    examples: int
    slots: int
    """Places of its rows, padding included: these are multiplied, whatever stands in them."""
    attended: int
    """Pairs of a token and one that it looks at."""

    def tokens_per_example(self) -> Fraction:
        return Fraction(self.tokens, self.examples)

    def flops_per_token(self, shape: ModelShape) -> Fraction:
        """Of a token that counts, with its part of the padding, by `train_flops_per_token`; attention
        as a kernel spends it that skips what the document mask rules out.
        """
        looks_at = 2 * self.attended / self.tokens  # the formula halves it for the causal mask
        products = train_flops_per_token(shape, 0) * self.slots / self.tokens
        attention = 6.0 * shape.layers * looks_at * attention_width(shape)
        return Fraction(round(products + attention))


def match(
    study: Study, run: Run, measures: Mapping[int, Mapping[str, Measure]], shape: ModelShape
) -> Run:
    """The run with every matched stage at its true size. `measures` is by row length and source.

    An example-matched stage holds as many examples as the stage's first option, its shares counted in
    examples; a flop-matched one costs what the first option costs, its shares counted in tokens.

    Raises:
        UserError: a matched stage ends before its warm-up does.
    """
    stages = [
        _matched(study, stage, measures[stage.seq_len], shape) if stage.matched else stage
        for stage in run.arm.stages
    ]
    return replace(run, arm=replace(run.arm, stages=tuple(stages)))


def _matched(
    study: Study, stage: StagePlan, measures: Mapping[str, Measure], shape: ModelShape
) -> StagePlan:
    spec = study.stages[stage.name]
    own = option_mixes(spec, stage.option.partition("@")[0])
    base = option_mixes(spec, next(iter(spec.options)))
    if stage.matched == "example-matched":
        size = {name: m.tokens_per_example() for name, m in measures.items()}
        examples = spec.tokens * _mean(base, lambda source: 1 / size[source])
        total = examples * _mean(own, size.__getitem__)
        own = _weighed(own, size.__getitem__)
    else:
        cost = {name: m.flops_per_token(shape) for name, m in measures.items()}
        total = spec.tokens * _mean(base, cost.__getitem__) / _mean(own, cost.__getitem__)
    tokens = max(1, round(total))
    if tokens < spec.lr.warmup_tokens:
        raise UserError(
            f"stage {stage.name!r}, {stage.option!r}: {stage.matched} makes it {tokens:,} tokens, which end before the "
            f"warm-up of {spec.lr.warmup_tokens:,}; lower its lr.warmup_tokens, or raise tokens"
        )
    return replace(stage, tokens=tokens, phases=phases(tokens, own), matched="")


def _mean(pieces: Pieces, value: Callable[[str], Fraction]) -> Fraction:
    """Mean of a value of sources over a stage, each weighed by its share."""
    length = sum(share for share, _ in pieces)
    zero = Fraction(0)
    inside = (
        share * sum((part * value(s) for s, part in mix.items() if part), zero) / sum(mix.values())
        for share, mix in pieces
    )
    return sum(inside, zero) / length


def _weighed(pieces: Pieces, value: Callable[[str], Fraction]) -> Pieces:
    """Pieces in whose shares each source counts `value` times: shares of examples as shares of tokens."""
    weighed = [
        (share / sum(mix.values()), {s: p * value(s) for s, p in mix.items() if p})
        for share, mix in pieces
    ]
    return [(share * sum(mix.values()), mix) for share, mix in weighed]
