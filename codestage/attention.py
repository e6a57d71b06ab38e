"""How far a model's layers look back; attention on processors, for training and for scoring: plain products over
pieces of the queries.

PyTorch's own bf16 kernel is slower there, most of all in the backward pass, and the pieces skip what is to
come: benchmarks/train_speed.py and benchmarks/evaluate.py compare whole runs.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

PRODUCTS = "codestage_products"
"""The name under which `products_attention` is known to Transformers."""
QUERIES, MOST_PIECES = 64, 8
"""Queries computed at once, at least; pieces that a row is cut into, at most."""


WHOLE, NEAR = "full_attention", "sliding_attention"
"""Transformers' names of layers that look at all, and of layers that look back only so far."""


@dataclass(frozen=True)
class Reach:
    """How far a model's layers look back."""

    window: int | None = None
    """Tokens that a layer looks at, its own among them; None: all."""
    both: bool = False
    """Some layers look at all: masks are told apart by the kind of layer."""


def reach_of(config: Any) -> Reach:
    """What a model's Transformers configuration says of its layers."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not window or kinds == {WHOLE}:
        return Reach()
    return Reach(int(window), kinds > {NEAR})


def other_layers(config: Any) -> set[str]:
    """Kinds of layers that neither look at all nor a window back: masks alone do not say what these see."""
    return set(getattr(config, "layer_types", None) or ()) - {WHOLE, NEAR}


def refuse_extras(extras: dict[str, Any]) -> None:
    """Of what a layer hands to its attention: what changes the scores and is not computed here.

    Raises:
        ValueError: attention sinks, or scores that are capped.
    """
    for name in ("s_aux", "softcap"):
        if extras.get(name) is not None:
            raise ValueError(f"attention with {name}")


def bias_of(seen: Tensor) -> Tensor:
    """`True` where one may look -> 0 there and -inf elsewhere; bf16, in which both are exact."""
    nothing = torch.zeros((), dtype=torch.bfloat16, device=seen.device)
    return torch.where(seen, nothing, float("-inf"))


def products_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **extras: Any,
) -> tuple[Tensor, None]:
    """Attention as plain products with a bias `[batch or 1, 1, seq, keys]`; softmax in float32.

    The last `seq` of the keys are the queries' own, and no query looks at what stands behind it; what stands
    before them all look at as the bias says.
    """
    refuse_extras(extras)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rows, heads, length = query.shape[:3]
    query, key, value = (x.contiguous().flatten(0, 1) for x in (query, key, value))
    before = key.shape[1] - length
    size = max(QUERIES, -(-length // MOST_PIECES))
    found = []
    for first in range(0, length, size):  # what stands behind a piece's last query is not looked at
        stop = min(first + size, length)
        end = before + stop
        scores = query[:, first:stop] @ key[:, :end].transpose(1, 2)
        scores = scores.unflatten(0, (rows, heads)).float() * scale
        weights = (scores + attention_mask[:, :, first:stop, :end]).softmax(-1)
        found.append(weights.to(value.dtype).flatten(0, 1) @ value[:, :end])
    return torch.cat(found, 1).unflatten(0, (rows, heads)).transpose(1, 2).contiguous(), None


AttentionInterface.register(PRODUCTS, products_attention)
