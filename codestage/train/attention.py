"""Attention over packed rows: a token looks at itself and at what stands before it in its document."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface

PRODUCTS, FLEX = "codestage_products", "codestage_flex"
"""Names under which the two functions are known to Transformers."""


QUERIES, MOST_PIECES = 64, 8
"""Queries computed at once, at least; pieces that a row is cut into, at most."""


def attention_for(device: torch.device) -> str:
    """The name of the function that serves a device: FlexAttention has no backward pass on CPU."""
    return FLEX if device.type == "cuda" else PRODUCTS


def document_mask(documents: Tensor) -> Tensor:
    """`[batch, seq]` document numbers -> `[batch, 1, seq, seq]`: True where one may look."""
    length = documents.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return ((documents[:, None, :] == documents[:, :, None]) & causal)[:, None]


def document_bias(documents: Tensor) -> Tensor:
    """The same to be added to scores: 0 where one may look, -inf elsewhere; bf16, in which both are exact.

    Made once for all layers: inside a compiled graph each layer would make it again.
    """
    seen = document_mask(documents)
    nothing = torch.zeros((), dtype=torch.bfloat16, device=seen.device)
    return torch.where(seen, nothing, float("-inf"))


def seen_in(documents: Tensor) -> "Tensor | BlockMask":
    """What attention takes on the device where `documents` `[batch, seq]` lie."""
    return (document_blocks if documents.device.type == "cuda" else document_bias)(documents)


def document_blocks(documents: Tensor) -> BlockMask:
    """The same as the blocks of 128 x 128 in which something may be looked at; others are skipped."""

    def may_look(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (documents[row, query] == documents[row, key]) & (query >= key)

    rows, length = documents.shape
    return create_block_mask(may_look, rows, None, length, length, device=documents.device)


def products_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as plain products with a bias `[batch, 1, seq, seq]`; softmax in float32.

    On CPU the backward pass of `scaled_dot_product_attention` in bf16 took 47 % of a small model's step
    in a profile; benchmarks/train_speed.py compares whole loops.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rows, heads, length = query.shape[:3]
    query, key, value = (x.contiguous().flatten(0, 1) for x in (query, key, value))
    size = max(QUERIES, -(-length // MOST_PIECES))
    found = []
    for first in range(0, length, size):  # what stands behind a piece's last query is not looked at
        stop = min(first + size, length)
        scores = query[:, first:stop] @ key[:, :stop].transpose(1, 2)
        scores = scores.unflatten(0, (rows, heads)).float() * scale
        weights = (scores + attention_mask[:, :, first:stop, :stop]).softmax(-1)
        found.append(weights.to(value.dtype).flatten(0, 1) @ value[:, :stop])
    return torch.cat(found, 1).unflatten(0, (rows, heads)).transpose(1, 2).contiguous(), None


def blocks_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: BlockMask,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """FlexAttention (Dong et al. 2024, 2412.05496) with the blocks of `document_blocks`."""
    found = flex_attention(
        query,
        key,
        value,
        block_mask=attention_mask,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(found, Tensor)
    return found.transpose(1, 2).contiguous(), None


AttentionInterface.register(PRODUCTS, products_attention)
AttentionInterface.register(FLEX, blocks_attention)
