"""Writing texts: rows of a batch end and begin at any step, and what all prompts share is read once."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from codestage.evaluate.keys import Keys, aligned, common_beginning, in_place, of_cache, read_once
from codestage.evaluate.logits import logits_of
from codestage.evaluate.masks import Masks, layer_masks
from codestage.evaluate.speak import Written
from codestage.study.seeds import child

ROWS = {"cpu": 32, "cuda": 256}
"""Texts that are written at once."""
TAIL = 16
"""Tokens at the end of a text in which a stop is looked for: stops are short."""


@dataclass
class Row:
    """A text being written."""

    index: int
    prompt: list[int]
    length: int
    """Tokens whose keys and values are there."""
    generator: torch.Generator | None
    """Draws its tokens; none: the likeliest is taken."""
    ids: list[int] = field(default_factory=list)
    done: bool = False


class Decoder:
    """Continues prompts, greedily or by drawing."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        ends: Collection[int],
        decode: Callable[[list[int]], str],
        max_new_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
        rows: int | None = None,
    ) -> None:
        """`decode` turns ids into text; `rows` bounds how many texts are written at once."""
        self.model, self.ends, self.decode = model, frozenset(ends), decode
        self.limit, self.temperature, self.seed = max_new_tokens, temperature, seed
        self.stop = [
            text for text in stop if text
        ]  # an empty one, which the harness knows, stops nothing
        self.rows = rows or ROWS.get(model.device.type, ROWS["cpu"])

    @torch.no_grad()
    def write(self, prompts: Sequence[list[int]]) -> list[Written]:
        """A continuation of each prompt (token ids), up to an end token or a stop. A text does not depend
        on what is written beside it, beyond rounding.
        """
        began = time.perf_counter()
        self._shared = read_once(self.model, common_beginning(prompts))
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        waiting = [Row(i, prompts[i], len(prompts[i]), self._generator(i)) for i in order]
        texts = {row.index: row for row in waiting}
        rows: list[Row] = []
        keys = Keys([], 0)
        while waiting or rows:
            parts = [(row, keys, i, keys.used) for i, row in enumerate(rows) if not row.done]
            new = [waiting.pop() for _ in range(min(len(waiting), self.rows - len(parts)))]
            if new:
                made = self._read(new)
                parts += [(row, made, i, row.length) for i, row in enumerate(new) if not row.done]
            rows = [row for row, _, _, _ in parts]
            if rows:
                room = max(self.limit - len(row.ids) for row in rows)
                keys = aligned([(k, i, end - row.length, end) for row, k, i, end in parts], room)
                self._go_on(rows, keys, refill=bool(waiting))
        share = (time.perf_counter() - began) / max(1, sum(len(row.ids) + 1 for row in texts.values()))
        return [self._written(texts[i], share) for i in range(len(prompts))]

    def _generator(self, index: int) -> torch.Generator | None:
        if not self.temperature:
            return None
        return torch.Generator().manual_seed(child(self.seed, f"text {index}"))

    def _read(self, new: Sequence[Row]) -> Keys:
        """Read the prompts, each from the left, and choose each one's first token."""
        before, device = self._shared.used, self.model.device
        rest = [row.prompt[before:] for row in new]
        width = max(map(len, rest))
        tokens = torch.tensor([ids + [0] * (width - len(ids)) for ids in rest], device=device)
        cache = self._shared.cache(len(new)) or DynamicCache()
        positions = torch.arange(before, before + width, device=device).expand(len(new), -1)
        hidden = self.model.base_model(
            input_ids=tokens,
            attention_mask=self._causal(positions) if before else None,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        last = torch.tensor([len(ids) - 1 for ids in rest], device=device)
        self._choose(new, hidden[torch.arange(len(new), device=device), last])
        return of_cache(cache)

    def _causal(self, positions: Tensor) -> Masks:
        of_keys = torch.arange(int(positions[0, -1]) + 1, device=positions.device)
        of_keys = of_keys.expand(len(positions), -1)
        seen = of_keys[:, None, :] <= positions[:, :, None]
        return layer_masks(self.model.config, seen, positions, of_keys)

    def _go_on(self, rows: Sequence[Row], keys: Keys, *, refill: bool) -> None:
        """Write until enough texts are done for it to be worth closing the ranks."""
        enough = max(1, len(rows) // (8 if refill else 2))
        cache = in_place(keys)
        while sum(row.done for row in rows) < enough:
            self._step(rows, keys.used, cache)
            keys.used += 1

    def _step(self, rows: Sequence[Row], end: int, cache: Cache) -> None:
        device = self.model.device
        lengths = torch.tensor([[row.length] for row in rows], device=device)
        of_keys = torch.arange(end + 1, device=device) - (end - lengths)
        # a text that is done goes along, and must not walk off the end of a table of positions
        places = torch.tensor([[0 if row.done else row.length] for row in rows], device=device)
        hidden = self.model.base_model(
            input_ids=torch.tensor([[row.ids[-1]] for row in rows], device=device),
            attention_mask=layer_masks(self.model.config, (of_keys >= 0)[:, None], lengths, of_keys),
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        for row in rows:
            row.length += 1
        self._choose(rows, hidden[:, -1])

    def _choose(self, rows: Sequence[Row], hidden: Tensor) -> None:
        """Each row's next token, from the hidden states [batch, width] that predict it."""
        logits = logits_of(self.model, hidden).float()
        if self.temperature:
            shares = (logits / self.temperature).softmax(-1).cpu()
            chosen = [
                int(torch.multinomial(share, 1, generator=row.generator))
                for row, share in zip(rows, shares, strict=True)
            ]
        else:
            chosen = logits.argmax(-1).tolist()
        for row, token in zip(rows, chosen, strict=True):
            if not row.done:
                self._take(row, token)

    def _take(self, row: Row, token: int) -> None:
        if token in self.ends:
            row.done = True
            return
        row.ids.append(token)
        row.done = len(row.ids) >= self.limit
        if self.stop and not row.done:
            tail = self.decode(row.ids[-TAIL:])
            row.done = any(stop in tail for stop in self.stop)

    def _written(self, row: Row, share: float) -> Written:
        text = self.decode(row.ids)
        for stop in self.stop:
            text = text.split(stop)[0]
        return Written(text, len(row.ids), share * (len(row.ids) + 1))
