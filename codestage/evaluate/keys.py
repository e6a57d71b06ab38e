"""Keys and values of tokens that were read already: computed once, looked at by whatever follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

WORTH_SHARING = 32
"""Tokens from which a common beginning is computed by itself."""


@dataclass
class Keys:
    """Every layer's keys and values, each [batch, heads, room, head_dim], of which `used` are written."""

    layers: list[tuple[Tensor, Tensor]]
    used: int

    def cache(self, batch: int) -> DynamicCache | None:
        """For a batch of rows that all begin with these, whose own keys are added behind."""
        if not self.layers:
            return None
        cache = DynamicCache()
        for i, (keys, values) in enumerate(self.layers):
            cache.update(keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1), i)
        return cache


def of_cache(cache: DynamicCache) -> Keys:
    layers: list[Any] = cache.layers
    return Keys([(layer.keys, layer.values) for layer in layers], cache.get_seq_length())


def common_beginning(texts: Sequence[list[int]]) -> list[int]:
    """The tokens that all texts begin with, if they are worth sharing. Never a whole text: its last token
    has to be looked at with what follows.
    """
    if len(texts) < 2:
        return []
    first, last = min(texts), max(texts)  # in the order of lists all others lie between them
    most = min(map(len, texts)) - 1
    n = next((i for i in range(most) if first[i] != last[i]), most)
    return first[:n] if n >= WORTH_SHARING else []


def read_once(model: PreTrainedModel, tokens: list[int]) -> Keys:
    """The keys and values of `tokens` in a batch of one; of no tokens, none."""
    if not tokens:
        return Keys([], 0)
    cache = DynamicCache()
    rows = torch.tensor([tokens], device=model.device)
    model.base_model(input_ids=rows, past_key_values=cache, use_cache=True)
    return of_cache(cache)


class Room(DynamicLayer):
    """A layer whose keys and values are written in place, as far as there is room."""

    def __init__(self, keys: Tensor, values: Tensor, used: int) -> None:
        super().__init__()
        self._room, self.used = (keys, values), used
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        keys, values = self._room
        end = self.used + key_states.shape[-2]
        keys[:, :, self.used : end] = key_states
        values[:, :, self.used : end] = value_states
        self.used = end
        return keys[:, :, :end], values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.used


def in_place(keys: Keys) -> Cache:
    """A cache that writes into `keys`; whoever steps counts `used` up."""
    return Cache(layers=[Room(k, v, keys.used) for k, v in keys.layers])


def aligned(parts: Sequence[tuple[Keys, int, int, int]], room: int) -> Keys:
    """Rows of several batches side by side, all ending at one place, with `room` behind it.

    Args:
        parts: (where it is, row there, first and last place of it there).
    """
    end = max(stop - start for _, _, start, stop in parts)
    layers = []
    for n, pair in enumerate(parts[0][0].layers):
        wide = [t.new_zeros(len(parts), t.shape[1], end + room, t.shape[3]) for t in pair]
        for i, (keys, row, start, stop) in enumerate(parts):
            for to, source in zip(wide, keys.layers[n], strict=True):
                to[i, :, end - (stop - start) : end] = source[row, :, start:stop]
        layers.append((wide[0], wide[1]))
    return Keys(layers, end)
