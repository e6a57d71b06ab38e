"""Attention masks for rows laid out by hand, in the form each model family takes them."""

from typing import Any

from torch import Tensor

from codestage.attention import NEAR, WHOLE, bias_of, reach_of

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
    reach = reach_of(config)
    if reach.window is None:
        return whole
    near = of_queries[:, :, None] - of_keys[:, None, :] < reach.window
    narrow = (seen & near)[:, None]
    narrowed = bias_of(narrow) if adds else narrow
    return {WHOLE: whole, NEAR: narrowed} if reach.both else narrowed
