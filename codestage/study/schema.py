"""The study file as frozen models: what may be written, in which units, and what is refused."""

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, model_validator

from codestage.study.curves import CURVES, Pieces, blend, pieces
from codestage.study.schema_sources import HubModel, SourceSpec
from codestage.study.values import Count, CountOrNone, Mix, Model, Seeds, Share

KINDS = ("pretrain", "continue", "cooldown", "tune")
FAMILIES = ("llama", "mistral", "qwen", "gemma", "gpt2", "neox", "pangu")
GPT = ("gpt2", "neox", "pangu")
"""Families with layer norms, biases and a feed-forward of two matrices; they share no key heads."""
MOST_STEPS = 10**8
"""Batches of a stage: each has its learning rate in a table, in memory."""
MATCHED = ("example-matched", "flop-matched")
"""Controls whose size is taken from the data, once that is prepared."""
CONTROLS = ("competitive", "additive", "token-matched", *MATCHED, "random-order", "schedule-only")


class ModelSpec(Model):
    """The model every arm trains: from scratch, by a `size` or a shape of its own, or pretrained."""

    family: Literal[FAMILIES] | None = Field(  # type: ignore[valid-type]
        None, description="architecture of a model trained from scratch"
    )
    path: str | None = Field(None, description="a pretrained model: its folder, or a .gguf")
    hub: HubModel | None = Field(None, description="a pretrained model of the hub")
    size: Count | None = Field(None, description="parameters without embeddings, e.g. 2M")
    hidden_size: int | None = Field(None, ge=8, description="width, in place of a size")
    layers: int | None = Field(None, ge=1, description="in place of a size")
    heads: int | None = Field(None, ge=1, description="of attention, in place of a size")
    kv_heads: int | None = Field(None, ge=1, description="key and value heads; default as many as heads")
    intermediate_size: int | None = Field(None, ge=8, description="width of the feed-forward layers")
    precision: Literal["bf16", "float32"] = Field(
        "bf16", description="in which products are computed; weights are float32 either way"
    )
    grow: bool = Field(
        False, description="a pretrained model's embeddings grow to its tokenizer, alike in all arms"
    )
    recompute: bool = Field(
        False,
        description="activations are computed again for the gradients: less memory, a third more work",
    )
    compile: bool = Field(
        True,
        description="training is compiled first: minutes for each shape, once on a machine, for more speed",
    )

    @model_validator(mode="after")
    def _one_way(self) -> "ModelSpec":
        own = (self.hidden_size, self.layers, self.heads)
        if [self.family, self.path, self.hub].count(None) != 2:
            raise ValueError("give exactly one of family, path, hub")
        if self.pretrained:
            if self.size is not None or any(own):
                raise ValueError("a pretrained model has its own shape; leave size and shape out")
            return self
        if self.grow:
            raise ValueError("grow is for pretrained models; one from scratch fits its tokenizer anyway")
        if self.size is None and None in own:
            raise ValueError("give size, or hidden_size, layers and heads")
        if self.size is not None and any(own):
            raise ValueError("give size or a shape of your own, not both")
        if self.hidden_size and self.heads and self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is no even multiple of heads {self.heads}; "
                f"try hidden_size {2 * self.heads * round(self.hidden_size / 2 / self.heads)}"
            )
        if self.kv_heads and self.family in GPT:
            raise ValueError(f"{self.family} has no kv_heads of their own; leave it out")
        if self.heads and self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} does not divide heads {self.heads}")
        return self

    @property
    def pretrained(self) -> bool:
        return self.family is None


class TokenizerSpec(Model):
    """One tokenizer for all arms: trained on the study's sources, or one that exists already."""

    train: Literal["bpe"] | None = Field(None, description="train one on the study's sources")
    vocab_size: int | None = Field(None, ge=300, le=1_000_000, description="goes with train")
    path: str | None = Field(None, description="folder of a tokenizer, or a .gguf that holds one")
    hub: HubModel | None = Field(None, description="a model whose tokenizer is taken")
    chat_template: bool = Field(False, description="write instructions as its chat template does")

    @model_validator(mode="after")
    def _one_way(self) -> "TokenizerSpec":
        if [self.train, self.path, self.hub].count(None) != 2:
            raise ValueError("give exactly one of train, path, hub")
        if (self.train is None) != (self.vocab_size is None):
            raise ValueError("vocab_size goes with train: bpe, which needs it")
        if self.train and self.chat_template:
            raise ValueError("a tokenizer that is trained here has no chat template; leave it out")
        return self


class OptimizerSpec(Model):
    """AdamW, or Muon for the matrices between embeddings and head; decay is on matrices only."""

    name: Literal["adamw", "muon"] = Field("adamw", description="muon: for matrices inside the model")
    lr: float = Field(1e-3, gt=0, description="largest learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the mean gradient")
    beta2: float = Field(0.95, ge=0, lt=1, description="decay of the mean squared gradient")
    eps: float = Field(1e-8, gt=0, description="added to the root of the mean squared gradient")
    weight_decay: float = Field(0.1, ge=0, description="of matrices; nothing else decays")
    clip: float = Field(1.0, gt=0, description="largest global gradient norm")
    spike: float | None = Field(
        None, gt=0, description="stop where the loss is this many nats above its mean of 50 batches"
    )
    ema: float = Field(
        0.0, ge=0, lt=1, description="a stage ends with the mean of its weights, with this decay a step"
    )


class AdapterSpec(Model):
    """Small matrices that are trained in place of all weights."""

    kind: Literal["lora", "dora"] = Field("lora", description="which kind of adapter")
    rank: int = Field(8, ge=1, description="of the adapters' matrices")
    alpha: int | None = Field(None, ge=1, description="weight of the adapters; default twice the rank")


class LRSpec(Model):
    """The learning rate over a stage's own tokens."""

    schedule: Literal["cosine", "linear", "wsd", "constant"] = Field(
        "cosine", description="wsd: warm-up, constant, then a decay"
    )
    warmup_tokens: CountOrNone = Field(0, description="over which the rate rises from 0")
    decay: float = Field(0.2, gt=0, le=1, description="wsd: share of the stage spent decaying")
    final: float = Field(0.0, ge=0, le=1, description="share of the peak at the end")


OPTION_NAME, STAGE_NAME = r"^\w[\w .+%=-]*$", r"^\w[\w .-]*$"
"""Names of arms are made of them, with `/`, `@` and `#` between."""
ROLES = ("parent", "model")
"""What a train step calls the weights that it goes on from, beside its sources by their names."""
KINDS_OF_EFFECT = ("interaction", "simple", "schedule", "control", "budget", "cot", "transfer")
"""What the report calls kinds of effects that are no stage's, so no stage can be called that."""


class OptionSpec(Model):
    """One way to fill a stage: a mixture, phases, or a curve from one mixture to another."""

    mix: Mix | None = Field(None, description="source -> share, by tokens")
    phases: tuple[Mix, ...] | None = Field(None, min_length=1, description="mixtures one after another")
    lengths: tuple[Share, ...] | None = Field(None, description="of the phases; equal if not given")
    curve: str | None = Field(None, description=f"{', '.join(CURVES)}, or FILE.py:FUNCTION")
    start: Mix | None = Field(None, alias="from", description="the curve's mixture of weight 0")
    end: Mix | None = Field(None, alias="to", description="the curve's mixture of weight 1")
    width: Share | None = Field(
        None, description="of warm-in, early-only, late-only: share of the stage"
    )
    steps: int = Field(20, ge=2, le=10_000, description="phases that a gradual curve is cut into")
    weights: tuple[Share, ...] | None = Field(
        None, exclude=True, description="of FILE.py:FUNCTION; computed"
    )

    @model_validator(mode="after")
    def _one_way(self) -> "OptionSpec":
        if [self.mix, self.phases, self.curve].count(None) != 2:
            raise ValueError("give exactly one of mix, phases, curve")
        for mix in self.mixes:
            if not mix or not any(mix.values()):
                raise ValueError("the shares of a mixture are all zero; give one a share above 0")
        self._check_lengths()
        self._check_curve()
        return self

    def _check_lengths(self) -> None:
        if self.lengths is None:
            return
        if self.phases is None or len(self.lengths) != len(self.phases):
            raise ValueError("lengths goes with phases: one number for each of them")
        if not all(self.lengths):
            raise ValueError("a phase of length 0 is none; leave it out")

    def _check_curve(self) -> None:
        if self.curve is None:
            if self.start is not None or self.end is not None or self.width is not None:
                raise ValueError("from, to and width go with a curve")
            return
        if self.start is None or self.end is None:
            raise ValueError("a curve goes from one mixture to another: give from and to")
        needs = self.curve in ("warm-in", "early-only", "late-only")
        if needs != (self.width is not None):
            which = "needs" if needs else "takes no"
            raise ValueError(f"curve {self.curve} {which} width, a share of the stage such as 0.2")
        if self.width is not None and not 0 < self.width < 1:
            raise ValueError(f"width {self.width} is not between 0 and 1")
        if self.weights is not None and (self.curve in CURVES or max(self.weights) > 1):
            raise ValueError("weights are from 0 to 1, and those of FILE.py:FUNCTION")
        if self.curve not in CURVES and self.weights is None:
            raise ValueError(f"unknown curve; write one of {', '.join(CURVES)}, or FILE.py:FUNCTION")

    @property
    def mixes(self) -> tuple[Mix, ...]:
        """The mixtures written down."""
        if self.curve is not None:
            return tuple(m for m in (self.start, self.end) if m is not None)
        return (self.mix,) if self.mix is not None else self.phases or ()

    def pieces(self, lr: LRSpec) -> Pieces:
        """(share of the stage, mixture) in order; `lr` says where its cooldown begins."""
        if self.curve is None:
            return list(zip(self.lengths or [Fraction(1)] * len(self.mixes), self.mixes, strict=True))
        assert self.start is not None
        assert self.end is not None
        if self.weights is not None:
            share = Fraction(1, len(self.weights))
            return [(share, blend(self.start, self.end, weight)) for weight in self.weights]
        width = Fraction(str(lr.decay)) if self.curve == "cooldown-only" else self.width or Fraction(1)
        return pieces(self.curve, self.start, self.end, width=width, steps=self.steps)


class StageSpec(Model):
    """One piece of training; its options are what the study compares."""

    kind: Literal["pretrain", "continue", "cooldown", "tune"] = Field(
        description="not needed where the stage is named so"
    )
    tokens: Count = Field(description="trained on in this stage, without padding")
    budgets: tuple[Count, ...] = Field(
        (),
        description="shorter budgets: arms that branch from the run of all tokens and decay by themselves",
    )
    options: dict[Annotated[str, Field(pattern=OPTION_NAME)], OptionSpec] = Field(
        min_length=1, description="the ways to fill it that are compared; the first is the base"
    )
    seq_len: int = Field(512, ge=8, description="tokens a row")
    batch_tokens: Count = Field(16384, description="tokens a step of the optimizer")
    micro_batch_tokens: Literal["auto"] | Count | None = Field(
        None,
        description="tokens whose gradients are computed at once: less needs less memory; auto halves them "
        "where memory does not do",
    )
    optimizer: OptimizerSpec = Field(OptimizerSpec(), description="how weights are moved")
    adapter: AdapterSpec | None = Field(None, description="train adapters and freeze the weights")
    lr: LRSpec = Field(LRSpec(), description="how the learning rate goes over the stage")

    @model_validator(mode="after")
    def _whole_rows(self) -> "StageSpec":
        if self.batch_tokens % self.seq_len:
            near = max(1, round(self.batch_tokens / self.seq_len)) * self.seq_len
            raise ValueError(
                f"batch_tokens {self.batch_tokens} is no multiple of seq_len {self.seq_len}; try {near}"
            )
        micro = self.micro_batch_tokens
        if isinstance(micro, int) and (micro % self.seq_len or self.batch_tokens % micro):
            raise ValueError(
                f"micro_batch_tokens {micro} must be a multiple of seq_len {self.seq_len} that divides "
                f"batch_tokens {self.batch_tokens}"
            )
        if self.tokens > MOST_STEPS * self.batch_tokens:
            raise ValueError(
                f"tokens {self.tokens:,} in batches of {self.batch_tokens:,} are more than {MOST_STEPS:,} steps; raise "
                "batch_tokens, or lower tokens"
            )
        self._check_budgets()
        if self.lr.warmup_tokens > self.trunk(self.tokens):
            raise ValueError(
                f"the warm-up of {self.lr.warmup_tokens:,} tokens is not over when the learning rate of a stage of "
                f"{self.tokens:,} tokens falls or the stage ends; lower warmup_tokens, or raise tokens"
            )
        if self.lr.schedule != "wsd" and any(o.curve == "cooldown-only" for o in self.options.values()):
            raise ValueError("curve cooldown-only needs lr: {schedule: wsd}, which has a cooldown")
        return self

    def _check_budgets(self) -> None:
        if not self.budgets:
            return
        if self.lr.schedule not in ("wsd", "constant"):
            raise ValueError(
                f"budgets branch from one run, which a {self.lr.schedule} learning rate does not allow: its "
                "rate depends on the budget from the first token on; use lr: {schedule: wsd}"
            )
        if list(self.budgets) != sorted({*self.budgets}) or self.budgets[-1] >= self.tokens:
            raise ValueError(
                f"budgets must grow and stay below tokens ({self.tokens:,}): {list(self.budgets)}"
            )
        if self.lr.warmup_tokens > (1 - self.lr.decay) * self.budgets[0]:
            raise ValueError(
                f"budget {self.budgets[0]:,} decays before the warm-up of {self.lr.warmup_tokens:,} tokens is over; "
                "raise it, or lower warmup_tokens"
            )

    def trunk(self, tokens: int) -> int:
        """Where a run of `tokens` tokens leaves the constant learning rate."""
        return round(tokens * (1 - self.lr.decay)) if self.lr.schedule == "wsd" else tokens


class OwnTaskSpec(Model):
    """Questions of the study's own: rows of `{question, answer}`, with `choices` or to be answered in writing."""

    path: str = Field(description="file of JSON lines, or of a JSON list, beside the study file")
    domain: str = Field(pattern=r"^[\w][\w -]*$", description="what the report counts it under")
    answer: Literal["text", "number"] = Field("text", description="how written answers are compared")
    letters: bool = Field(False, description="whether the choices are also shown with letters")
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = Field(
        12, description="room for a written answer"
    )


class EvaluateSpec(Model):
    """What is evaluated at the end of every stage."""

    suites: tuple[str, ...] = Field((), description="names of suites and tasks")
    tasks: dict[Annotated[str, Field(pattern=r"^[\w][\w-]*$")], OwnTaskSpec] = Field(
        default_factory=dict, description="name -> questions of your own"
    )
    cot: tuple[Literal["off", "supplied", "generated"], ...] = Field(
        ("off",),
        min_length=1,
        description="no reasoning, reasoning supplied, or reasoning written by the model",
    )
    items: Annotated[int, Field(ge=2)] | None = Field(
        None, description="at most so many a task; default all"
    )
    data: str | None = Field(None, description="folder with the tasks' published files; else the hub")
    samples: Annotated[int, Field(ge=0, le=1000)] = Field(
        0, description="answers drawn beside the greedy one: self-consistency, pass@k"
    )
    sandbox: Literal["bubblewrap", "unconfined"] = Field(
        "bubblewrap", description="what runs the programs that models write"
    )
    training_splits: dict[str, str] = Field(
        default_factory=dict, description="task -> files of its training split, looked for in the data"
    )

    @model_validator(mode="after")
    def _asks_something(self) -> "EvaluateSpec":
        if not self.suites and not self.tasks:
            raise ValueError(
                "nothing is asked; name suites or tasks under suites, or your own under tasks"
            )
        return self


class ValidationSpec(Model):
    """Loss on rows that no arm trains on, of every source, while training."""

    tokens: Count = Field(16_384, description="held out of each source, a tenth of it at most")
    times: int = Field(10, ge=1, description="measurements a stage")

    def rows(self, rows: int, seq_len: int) -> int:
        """Rows held out of a source that has `rows`."""
        return min(-(-self.tokens // seq_len), rows // 10)


class Study(Model):
    """A whole study."""

    name: str = Field(pattern=r"^[\w][\w.-]*$", description="of the study, in its report")
    model: ModelSpec = Field(description="what every arm trains")
    tokenizer: TokenizerSpec = Field(description="one for all arms")
    seeds: Seeds = Field(min_length=1, description="how many, counted from 0, or which")
    sources: dict[str, SourceSpec] = Field(min_length=1, description="name -> where documents come from")
    stages: dict[Annotated[str, Field(pattern=STAGE_NAME)], StageSpec] = Field(
        min_length=1, description="name -> stage, in order"
    )
    controls: tuple[Literal[CONTROLS], ...] = Field(  # type: ignore[valid-type]
        (), description="further arms that make contrasts readable"
    )
    validation: ValidationSpec | None = Field(None, description="watch the loss on held-out rows")
    evaluate: EvaluateSpec = Field(description="what every checkpoint is asked")

    @model_validator(mode="after")
    def _names(self) -> "Study":
        if taken := [name for name in self.sources if name in ROLES]:
            raise ValueError(
                f"a source cannot be called {taken[0]!r}, by which steps know what they go on from; take another name"
            )
        if taken := [name for name in self.stages if name in KINDS_OF_EFFECT]:
            raise ValueError(
                f"a stage cannot be called {taken[0]!r}, which is a kind of effect in the report; take another name"
            )
        return self
