"""Scoring continuations with nothing computed twice: a context once for all its continuations, and what
all contexts begin with once for all of them.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from codestage.attention import PRODUCTS, bias_of
from codestage.evaluate.keys import Keys, common_beginning, read_once
from codestage.evaluate.logits import logits_of
from codestage.evaluate.masks import Masks, layer_masks
from codestage.evaluate.speak import Scored

LOGITS_AT_ONCE = 1 << 23
"""Numbers in the logits that are held at once."""


@dataclass(frozen=True)
class Tree:
    """A context with several continuations, laid out in one row. All are token ids."""

    context: list[int]
    choices: list[list[int]]

    @property
    def size(self) -> int:
        """Tokens that are looked at; a continuation's last one is only predicted."""
        return len(self.context) + sum(max(0, len(choice) - 1) for choice in self.choices)

    def starts(self) -> Iterator[tuple[int, list[int]]]:
        start = len(self.context)
        for choice in self.choices:
            yield start, choice
            start += max(0, len(choice) - 1)

    def predictions(self) -> Iterator[tuple[int, int]]:
        """(place whose hidden state predicts, token predicted), choice by choice."""
        for start, choice in self.starts():
            for i, token in enumerate(choice):
                yield (len(self.context) - 1 if i == 0 else start + i - 1), token


@torch.no_grad()
def score(model: PreTrainedModel, trees: Sequence[Tree], *, batch_tokens: int) -> list[list[Scored]]:
    """For each tree the log-likelihood of every continuation after the context.

    Contexts hold one token at least. Batching changes no answer beyond rounding.
    """
    shared = read_once(model, common_beginning([tree.context for tree in trees]))
    rest = [Tree(tree.context[shared.used :], tree.choices) for tree in trees]
    scores: list[list[Scored]] = [[] for _ in trees]
    with _attention(model) as products:
        for indices in batches([tree.size for tree in rest], batch_tokens):
            some = _score(model, [rest[i] for i in indices], shared, products=products)
            for i, scored in zip(indices, some, strict=True):
                scores[i] = scored
    return scores


@contextmanager
def _attention(model: PreTrainedModel) -> Iterator[bool]:
    """While scoring in bf16 on a processor, attention by plain products; whether it is so."""
    config = model.config
    plain = not getattr(config, "sliding_window", None) and not getattr(
        config, "attn_logit_softcapping", None
    )
    before = str(config._attn_implementation)
    if model.device.type != "cpu" or model.dtype != torch.bfloat16 or before != "sdpa" or not plain:
        yield False
        return
    model.set_attn_implementation(PRODUCTS)
    try:
        yield True
    finally:
        model.set_attn_implementation(before)


def batches(sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in groups of like size whose padded tokens fit `budget`, longest first."""
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    group: list[int] = []
    for i in order:
        if group and sizes[group[0]] * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _score(
    model: PreTrainedModel, trees: Sequence[Tree], shared: Keys, *, products: bool
) -> list[list[Scored]]:
    began = time.perf_counter()
    device, before = model.device, shared.used
    branching = before > 0 or any(len(tree.choices) > 1 for tree in trees)
    tokens, positions, seen = _rows(trees, before, branching)
    if seen is None and products:  # which knows no "ordinary text"
        length = tokens.shape[1]
        seen = torch.ones(1, length, length, dtype=torch.bool).tril()
    cache = shared.cache(len(trees))
    masks: Masks | None = None
    if seen is not None:
        of_keys = torch.cat([torch.arange(before).expand(len(trees), -1), positions], dim=1).to(device)
        masks = layer_masks(model.config, seen.to(device), positions.to(device), of_keys)
    if products and isinstance(masks, torch.Tensor):
        masks = bias_of(masks)
    hidden = model.base_model(
        input_ids=tokens.to(device),
        attention_mask=masks,
        position_ids=positions.to(device),
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    places = [(row, at, token) for row, tree in enumerate(trees) for at, token in tree.predictions()]
    nats, greedy = _predicted(model, hidden, places)
    share = (time.perf_counter() - began) / sum(tree.size for tree in trees)
    found = iter(zip(nats, greedy, strict=True))
    return [[_scored(found, choice, tree, share) for choice in tree.choices] for tree in trees]


def _scored(values: Iterator[tuple[float, bool]], choice: list[int], tree: Tree, share: float) -> Scored:
    found = [next(values) for _ in choice]
    seconds = share * tree.size / len(tree.choices)
    return Scored(sum(n for n, _ in found), len(choice), all(g for _, g in found), seconds)


def _predicted(
    model: PreTrainedModel, hidden: Tensor, places: Sequence[tuple[int, int, int]]
) -> tuple[list[float], list[bool]]:
    """Log-likelihood of the token at each (row, place, token), and whether it was the likeliest.

    Logits are made for these places alone, some at a time.
    """
    if not places:
        return [], []
    rows, at, wanted = (torch.tensor(c, device=hidden.device) for c in zip(*places, strict=True))
    at_once = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    nats: list[float] = []
    greedy: list[bool] = []
    for begin in range(0, len(places), at_once):
        some = slice(begin, begin + at_once)
        logits = logits_of(model, hidden[rows[some], at[some]])
        target = wanted[some, None]
        greedy += (logits.gather(1, target)[:, 0] >= logits.amax(1)).tolist()
        nats += logits.log_softmax(-1, dtype=torch.float32).gather(1, target)[:, 0].tolist()
    return nats, greedy


def _rows(trees: Sequence[Tree], before: int, branching: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tokens and positions [batch, seq], and who sees whom [batch, seq, before + seq].

    Without branches a row is ordinary text padded at its end, and needs no mask of its own.
    """
    length = max(tree.size for tree in trees)
    tokens = torch.zeros(len(trees), length, dtype=torch.long)
    positions = torch.zeros(len(trees), length, dtype=torch.long)
    seen = torch.eye(length, dtype=torch.bool).repeat(len(trees), 1, 1) if branching else None
    for row, tree in enumerate(trees):
        n = len(tree.context)
        tokens[row, :n] = torch.tensor(tree.context)
        positions[row, :n] = torch.arange(before, before + n)
        if seen is not None:
            seen[row, :n, :n] = torch.ones(n, n, dtype=torch.bool).tril()
        for start, choice in tree.starts():
            m = len(choice) - 1
            if m <= 0:
                continue
            tokens[row, start : start + m] = torch.tensor(choice[:-1])
            positions[row, start : start + m] = torch.arange(before + n, before + n + m)
            if seen is not None:
                seen[row, start : start + m, :n] = True
                seen[row, start : start + m, start : start + m] = torch.ones(
                    m, m, dtype=torch.bool
                ).tril()
    if seen is not None and before:
        seen = torch.cat([torch.ones(len(trees), length, before, dtype=torch.bool), seen], dim=2)
    return tokens, positions, seen
