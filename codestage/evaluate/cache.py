"""A key-value cache with room set aside: a new token is written in place, nothing is copied."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, views into buffers that hold `capacity` tokens.

    Transformers' own dynamic layer concatenates, copying the whole cache at every token; its static
    one attends to the empty room as well.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Append `[rows, heads, new, head_dim]`; returns all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            rows, heads, _new, size = key_states.shape
            self.key_room = key_states.new_empty(rows, heads, self.capacity, size)
            self.value_room = value_states.new_empty(
                rows, heads, self.capacity, value_states.shape[-1]
            )
            self.used = 0
        end = self.used + key_states.shape[-2]
        self.key_room[:, :, self.used : end] = key_states
        self.value_room[:, :, self.used : end] = value_states
        self.used = end
        self.keys, self.values = self.key_room[:, :, :end], self.value_room[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the rows `indices`, in place: they ascend, so none is overwritten too early."""
        for room in (self.key_room, self.value_room):
            room[: len(indices), :, : self.used] = room[indices, :, : self.used]
        self.key_room = self.key_room[: len(indices)]
        self.value_room = self.value_room[: len(indices)]
        self.keys = self.key_room[:, :, : self.used]
        self.values = self.value_room[:, :, : self.used]


def new_cache(config: Any, *, capacity: int) -> DynamicCache:
    """An empty cache for a model; layers that need their own kind (sliding windows) keep it."""
    cache = DynamicCache(config=config)
    cache.layers = [
        RoomyLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
