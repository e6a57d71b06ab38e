"""Shapes of models by size, and what they cost: no torch, so a study can be planned anywhere."""

from dataclasses import dataclass
from typing import Any

from codestage.study.identity import plain
from codestage.study.schema import GPT, ModelSpec


@dataclass(frozen=True)
class ModelShape:
    """A decoder-only transformer's dimensions."""

    family: str
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    intermediate_size: int
    vocab_size: int
    tied: bool
    precision: str
    recompute: bool = False
    compile: bool = True
    marks: tuple[int, int, int] = (0, 0, 1)
    """Ids of the begin, end and padding tokens."""
    config: str = ""
    """Of a pretrained model: its Transformers configuration as JSON, which says all of its shape."""
    counted: tuple[int, int] = (0, 0)
    """Of a pretrained model: its parameters, and those without embeddings."""
    active: int = 0
    """Of a pretrained model with experts: its parameters without embeddings that a token is multiplied with."""
    attends: int = 0
    """Of a pretrained model whose heads together are not as wide as a layer: how wide they are."""


def shape_told(shape: ModelShape) -> dict[str, Any]:
    """The shape as steps know it; what came later is told only where it is not as it was before."""
    held: dict[str, Any] = plain(shape)
    for counted in ("active", "attends"):  # said by the configuration too
        del held[counted]
    if shape.compile:
        del held["compile"]
    return held


# (parameters without embeddings, hidden size, layers, heads): depth and width grow together, head
# size goes from 16 to 128 as in the published small Llamas.
LADDER = (
    (150_000, 64, 3, 4),
    (400_000, 96, 4, 4),
    (800_000, 128, 4, 4),
    (2_000_000, 192, 5, 6),
    (6_000_000, 288, 6, 6),
    (15_000_000, 384, 8, 6),
    (27_000_000, 512, 8, 8),
    (60_000_000, 640, 12, 10),
    (125_000_000, 768, 18, 12),
    (350_000_000, 1024, 28, 16),
    (1_000_000_000, 2048, 20, 16),
    (3_000_000_000, 2816, 32, 22),
    (7_000_000_000, 4096, 35, 32),
    (13_000_000_000, 5120, 41, 40),
)


def shape(model: ModelSpec, vocab_size: int, marks: tuple[int, int, int] = (0, 0, 1)) -> ModelShape:
    """The shape of a model from scratch; a size takes the ladder's nearest rung, by ratio."""
    assert model.family is not None
    if model.size is not None:
        size = model.size
        _, hidden, layers, heads = min(LADDER, key=lambda r: max(r[0] / size, size / r[0]))
    else:
        hidden, layers, heads = model.hidden_size or 0, model.layers or 0, model.heads or 0
    wide = 4 * hidden if model.family in GPT else max(32, round(8 * hidden / 3 / 32) * 32)
    return ModelShape(
        family=model.family,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=model.kv_heads or heads,
        intermediate_size=model.intermediate_size or wide,
        vocab_size=vocab_size,
        tied=hidden < 2048,
        precision=model.precision,
        recompute=model.recompute,
        compile=model.compile,
        marks=marks,
    )


def parameters(shape: ModelShape, *, embeddings: bool = True, positions: int = 0) -> int:
    """Trainable parameters, counted exactly (a test compares with the built model).

    `positions` matters for GPT-2, which learns an embedding for each, and PanGu, which learns two.
    """
    if shape.config:
        return shape.counted[0 if embeddings else 1]
    d, f = shape.hidden_size, shape.intermediate_size
    kv = d * shape.kv_heads // shape.heads
    if shape.family in GPT:
        layer = 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d
        final = 2 * d
    else:
        layer = 2 * d * d + 2 * d * kv + 3 * d * f + 2 * d
        layer += 2 * (d // shape.heads) if shape.family == "qwen" else 0  # norms of queries and keys
        final = d
    table = shape.vocab_size * d * (1 if shape.tied else 2)
    table += positions * d * {"gpt2": 1, "pangu": 2}.get(shape.family, 0)
    return shape.layers * layer + final + (table if embeddings else 0)


def train_flops_per_token(shape: ModelShape, seq_len: int) -> float:
    """6 per parameter of a matrix product, and 6 * layers * seq_len * width of all heads for causal attention.

    The count of Chowdhery et al. 2022 (PaLM), appendix B, halved for the causal mask; the output
    table is a product, the input table is not.
    """
    layers = shape.active or parameters(shape, embeddings=False)
    products = layers + shape.vocab_size * shape.hidden_size
    return 6.0 * products + 6.0 * shape.layers * seq_len * attention_width(shape)


def attention_width(shape: ModelShape) -> int:
    """Width of a token's queries, all heads together."""
    return shape.attends or shape.hidden_size


def memory_bytes(
    shape: ModelShape, micro_batch_tokens: int, seq_len: int, *, adapter: bool = False
) -> float:
    """Rough peak of a training process: 18 bytes a parameter that is trained (6 for one that is frozen),
    saved activations, the process itself.

    Activations are estimated as 34 * hidden + 5 * heads * seq_len bytes a token and layer (Korthikanti
    et al. 2022, equation 2, at 2 bytes a value) and 6 bytes a logit, of which 2^25 are made at a time on a GPU
    (fewer on a processor), or those of 256 tokens, where that is more.
    """
    layer = 34.0 * shape.hidden_size + 5.0 * shape.heads * seq_len
    if shape.recompute:  # of all layers but one, what comes in alone is kept
        layer = 2.0 * shape.hidden_size + layer / shape.layers
    logits = min(micro_batch_tokens, max(256, (1 << 25) // shape.vocab_size)) * shape.vocab_size
    activations = micro_batch_tokens * shape.layers * layer + 6.0 * logits
    return (6.0 if adapter else 18.0) * parameters(shape) + activations + 0.7e9
