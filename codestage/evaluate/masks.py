"""Attention masks for rows laid out by hand, in the form each model family takes them."""

from typing import Any

from torch import Tensor

Masks = Tensor | dict[str, Tensor]


def layer_masks(config: Any, seen: Tensor, of_queries: Tensor, of_keys: Tensor) -> Masks:
    """`seen` as a model takes it: [batch, 1, queries, keys], narrowed to the window where its layers look
    back only so far; a dict by layer type where a model has both kinds.

    Args:
        config: the model's.
        seen: bool [batch, queries, keys], who sees whom.
        of_queries, of_keys: their positions in the text, [batch, queries] and [batch, keys].
    """
    whole = seen[:, None]
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not window or kinds == {"full_attention"}:
        return whole
    near = of_queries[:, :, None] - of_keys[:, None, :] < window
    narrowed = whole & near[:, None]
    if kinds > {"sliding_attention"}:
        return {"full_attention": whole, "sliding_attention": narrowed}
    return narrowed
