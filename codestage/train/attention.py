"""Attention over packed rows: a token looks at itself and at what stands before it in its document."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface

from codestage.attention import NEAR, PRODUCTS, WHOLE, Reach, bias_of, refuse_extras

FLEX = "codestage_flex"
"""The name under which `blocks_attention` is known to Transformers."""
Seen = Tensor | BlockMask | dict[str, Tensor] | dict[str, BlockMask]
"""Who may look at whom as a model takes it; by kind of layer where it has two."""

if not hasattr(BlockMask, "ndim"):  # GPT-2 in Transformers asks it of any mask
    BlockMask.ndim = property(lambda mask: len(mask.shape))  # type: ignore[attr-defined]


def attention_for(device: torch.device) -> str:
    """The name of the function that serves a device: FlexAttention has no backward pass on CPU."""
    return FLEX if device.type == "cuda" else PRODUCTS


def document_mask(documents: Tensor, window: int | None = None) -> Tensor:
    """`[batch, seq]` document numbers -> `[batch, 1, seq, seq]`: True where one may look."""
    length = documents.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    if window is not None:
        causal = causal.triu(1 - window)
    return ((documents[:, None, :] == documents[:, :, None]) & causal)[:, None]


def document_bias(documents: Tensor, window: int | None = None) -> Tensor:
    """The same to be added to scores: 0 where one may look, -inf elsewhere; bf16, in which both are exact.

    Made once for all layers: inside a compiled graph each layer would make it again.
    """
    return bias_of(document_mask(documents, window))


def seen_in(documents: Tensor, reach: Reach = Reach()) -> Seen:  # noqa: B008 - it cannot be changed
    """What a model whose layers look back as far as `reach` takes on the device where `documents` `[batch, seq]` lie."""
    make: Callable[..., Any] = document_blocks if documents.device.type == "cuda" else document_bias
    if reach.window is None or reach.window >= documents.shape[1]:
        return make(documents)
    near = make(documents, reach.window)
    return {WHOLE: make(documents), NEAR: near} if reach.both else near


def document_blocks(documents: Tensor, window: int | None = None) -> BlockMask:
    """The same as the blocks of 128 x 128 in which something may be looked at; others are skipped."""
    rows, length = documents.shape
    back = length if window is None else window

    def may_look(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = documents[row, query] == documents[row, key]
        return same & (query >= key) & (query - key < back)

    return create_block_mask(may_look, rows, None, length, length, device=documents.device)


def blocks_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: BlockMask,
    scaling: float | None = None,
    **extras: Any,
) -> tuple[Tensor, None]:
    """FlexAttention (Dong et al. 2024, 2412.05496) with the blocks of `document_blocks`."""
    refuse_extras(extras)
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


AttentionInterface.register(FLEX, blocks_attention)
