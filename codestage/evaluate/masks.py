"""Attention masks for rows laid out by hand, in the form each model family takes them."""

from typing import Any

from torch import Tensor

from codestage.attention import bias_of

Masks = Tensor | dict[str, Tensor]


def layer_masks(config: Any, seen: Tensor, of_queries: Tensor, of_keys: Tensor) -> Masks:
    """`seen` as a model takes it: [batch, 1, queries, keys], narrowed to the window where its layers look
    back only so far; a dict by layer type where a model has both kinds. Truth values, but where
    attention adds the mask to its scores, as "eager" does: what is to be added.

    Args:
        config: the model's.
        seen: bool [batch, queries, keys], who sees whom.
        of_queries, of_keys: their positions in the text, [batch, queries] and [batch, keys].
    """
    adds = config._attn_implementation == "eager"
    whole = bias_of(seen[:, None]) if adds else seen[:, None]
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not window or kinds == {"full_attention"}:
        return whole
    near = of_queries[:, :, None] - of_keys[:, None, :] < window
    narrow = (seen & near)[:, None]
    narrowed = bias_of(narrow) if adds else narrow
    if kinds > {"sliding_attention"}:
        return {"full_attention": whole, "sliding_attention": narrowed}
    return narrowed
