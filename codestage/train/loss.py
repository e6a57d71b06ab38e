"""The loss of packed rows, with logits that never are all in memory at once."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from codestage.train.attention import Seen

LOGITS_AT_ONCE = 1 << 20
"""Logits in memory at a time on a processor: 4 MB in float32, which its cache holds."""
GPU_LOGITS_AT_ONCE = 1 << 25
"""The same elsewhere: 134 MB, so that each product is large enough to be worth its start."""
ROWS_AT_ONCE = 256
"""But rows of logits at least, however large the vocabulary: each piece reads all of the head and adds to all of its
gradient, however few its rows are."""


class PackedLoss(nn.Module):
    """A causal language model with its cross-entropy: what a step computes.

    Labels of -100 take no loss. Logits are only made here: in one piece, or, where they would be more than
    are made at once, in pieces that are gone before the next is made. `compiled`: these pieces are; the model
    itself is compiled by who made it.
    """

    def __init__(self, model: PreTrainedModel, *, compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        self._piece = torch.compile(nats_of, dynamic=False) if compiled else nats_of

    def forward(
        self, tokens: Tensor, seen: Seen, positions: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All `[batch, seq]`, and what `attention.seen_in` makes of their documents -> (nats summed, nats a
        row `[batch]`).
        """
        hidden = self.model.base_model(
            input_ids=tokens, attention_mask=seen, position_ids=positions, use_cache=False
        ).last_hidden_state
        head: Any = self.model.get_output_embeddings()
        at_once = LOGITS_AT_ONCE if labels.device.type == "cpu" else GPU_LOGITS_AT_ONCE
        rows_at_once = max(ROWS_AT_ONCE, at_once // head.weight.shape[0])
        if labels.numel() <= rows_at_once or getattr(head, "bias", None) is not None:
            logits = head(hidden).float()
            nats = F.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none"
            )
            rows = nats.view(labels.shape).sum(1)
            return rows.sum(), rows.detach()
        parts = hidden.flatten(0, 1), head.weight, labels.flatten(), rows_at_once, self._piece
        total, each = PiecewiseNats.apply(*parts) if torch.is_grad_enabled() else _held_out(*parts)
        return total, each.view(labels.shape).sum(1)


def nats_of(rows: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """`rows` `[n, h]`, `weight` `[vocab, h]`, `labels` `[n]` -> (nats `[n]`, their gradient by the logits
    `[n, vocab]`)."""
    logits = (rows @ weight.T).float()
    predicted = labels >= 0
    index = labels.clamp(min=0)[:, None]
    log_z = logits.logsumexp(-1, keepdim=True)
    nats = torch.where(predicted, (log_z - logits.gather(1, index))[:, 0], 0.0)
    slope = (logits - log_z).exp()
    slope = slope.scatter_add(1, index, torch.full_like(log_z, -1.0)) * predicted[:, None]
    return nats, slope.to(rows.dtype)


Piece = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""`nats_of`, compiled perhaps."""


def _held_out(
    hidden: Tensor, weight: Tensor, labels: Tensor, rows_at_once: int, piece: Piece
) -> tuple[Tensor, Tensor]:
    """What `PiecewiseNats` says, where no gradient is asked for."""
    pieces = zip(hidden.split(rows_at_once), labels.split(rows_at_once), strict=True)
    each = torch.cat([piece(rows, weight, wanted)[0] for rows, wanted in pieces])
    return each.sum(), each


class PiecewiseNats(torch.autograd.Function):
    """Cross-entropy of a head without bias: memory does not grow with vocabulary x batch.

    The gradients are made with the loss, a piece of the rows at a time, since the logits that they need
    are at hand then (as in Wijmans et al. 2024, 2411.09009, and Hsu et al. 2024, 2410.10989); that of the head is
    summed in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        rows_at_once: int,
        piece: Piece = nats_of,
    ) -> tuple[Tensor, Tensor]:
        """`hidden` `[n, h]`, `weight` `[vocab, h]`, `labels` `[n]` -> (nats summed, nats `[n]`)."""
        nats, hidden_grad = [], []
        trained = ctx.needs_input_grad[1]  # with an adapter the head is not
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if trained else None
        for rows, wanted in zip(hidden.split(rows_at_once), labels.split(rows_at_once), strict=True):
            some, slope = piece(rows, weight, wanted)
            nats.append(some)
            hidden_grad.append(slope @ weight)
            if weight_grad is not None:
                weight_grad += slope.T @ rows
        ctx.save_for_backward(
            torch.cat(hidden_grad), None if weight_grad is None else weight_grad.to(weight.dtype)
        )
        each = torch.cat(nats)
        ctx.mark_non_differentiable(each)
        return each.sum(), each

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        """The stored gradients, scaled by the sum's own."""
        hidden_grad, weight_grad = ctx.saved_tensors
        head = None if weight_grad is None else weight_grad * grads[0]
        return hidden_grad * grads[0], head, None, None, None
