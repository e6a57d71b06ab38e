"""Attention over packed rows: a token looks at itself and at what stands before it in its document."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface

from codestage.attention import PRODUCTS, bias_of

FLEX = "codestage_flex"
"""The name under which `blocks_attention` is known to Transformers."""


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
    return bias_of(document_mask(documents))


def seen_in(documents: Tensor) -> "Tensor | BlockMask":
    """What attention takes on the device where `documents` `[batch, seq]` lie."""
    return (document_blocks if documents.device.type == "cuda" else document_bias)(documents)


def document_blocks(documents: Tensor) -> BlockMask:
    """The same as the blocks of 128 x 128 in which something may be looked at; others are skipped."""

    def may_look(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (documents[row, query] == documents[row, key]) & (query >= key)

    rows, length = documents.shape
    return create_block_mask(may_look, rows, None, length, length, device=documents.device)


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


AttentionInterface.register(FLEX, blocks_attention)
