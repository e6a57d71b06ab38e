"""The model behind an evaluation: log-likelihoods of choices, and greedy generation, in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel
from transformers.utils import logging

import codestage.pangu  # noqa: F401 - makes the model known to Transformers
from codestage.data.place import in_file
from codestage.errors import UserError


@dataclass(frozen=True)
class Scored:
    """Log-likelihood of a continuation after a context."""

    nats: float
    tokens: int


class Backend:
    """A causal model and its tokenizer, ready to score and to generate."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        *,
        marked: bool = False,
        batch_tokens: int = 8192,
    ) -> None:
        """`marked` contexts bring their own special tokens, as a chat template writes them."""
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.head = model.get_output_embeddings()
        config = model.config
        ends = config.eos_token_id
        self.ends = torch.tensor(ends if isinstance(ends, list) else [ends])
        self.begin = int(self.ends[0]) if config.bos_token_id is None else int(config.bos_token_id)
        self.tokenizer = tokenizer
        self.tokenizer.encode_special_tokens = not marked
        self._before = [] if marked else [self.begin]
        self.batch_tokens = batch_tokens

    @classmethod
    def load(
        cls, checkpoint: Path, tokenizer: Tokenizer | None = None, *, marked: bool = False
    ) -> "Backend":
        """A model in float32: a folder in Transformers' format (safetensors, no code of its) or a .gguf.

        It stands on the GPU if there is one. Without a tokenizer the model's own is used.

        Raises:
            UserError: there is no such model, or it cannot be read.
        """
        logging.disable_progress_bar()  # codestage shows its own
        folder, more = in_file(checkpoint)
        safe = {} if more else {"use_safetensors": True}
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, trust_remote_code=False, **safe, **more
            )
            if tokenizer is None:
                own = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **more)
                tokenizer = own.backend_tokenizer
        except Exception as error:  # a broken file makes the readers raise anything
            raise UserError(f"{checkpoint}: no model that Transformers can read: {error}") from None
        if torch.cuda.is_available():
            torch.nn.Module.to(model, "cuda")
        return cls(model, tokenizer, marked=marked)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    @torch.no_grad()
    def loglikelihoods(self, requests: Sequence[tuple[str, Sequence[str]]]) -> list[list[Scored]]:
        """For each (context, continuations): the log-likelihood of every continuation.

        An item's continuations are scored in one row: each looks at the context and at itself, so the
        context is computed once. Batching changes no answer beyond float32 rounding.
        """
        contexts = self.encode([context for context, _ in requests])
        flat = iter(self.encode([c for _, choices in requests for c in choices]))
        trees = [
            _Tree([*self._before, *context], [next(flat) for _ in choices])
            for context, (_, choices) in zip(contexts, requests, strict=True)
        ]
        scores: list[list[Scored]] = [[] for _ in trees]
        for indices in _batches([tree.size for tree in trees], self.batch_tokens):
            for i, scored in zip(indices, self._score([trees[i] for i in indices]), strict=True):
                scores[i] = scored
        return scores

    def _score(self, trees: "Sequence[_Tree]") -> list[list[Scored]]:
        length = max(tree.size for tree in trees)
        tokens = torch.full((len(trees), length), self.begin)
        positions = torch.zeros(len(trees), length, dtype=torch.long)
        mask = torch.eye(length, dtype=torch.bool).repeat(len(trees), 1, 1)
        places: list[tuple[int, int, int]] = []  # row, place that predicts, token predicted
        for row, tree in enumerate(trees):
            tree.fill(tokens[row], positions[row], mask[row])
            places += [(row, at, token) for at, token in tree.predictions()]
        hidden = self.model.base_model(
            input_ids=tokens.to(self.device),
            attention_mask=mask[:, None].to(self.device),
            position_ids=positions.to(self.device),
            use_cache=False,
        ).last_hidden_state
        rows, at, wanted = (
            torch.tensor(column, device=self.device) for column in zip(*places, strict=True)
        )
        logits = self.head(hidden[rows, at]).float()
        nats = -torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
        values = iter(nats.tolist())
        return [
            [Scored(sum(next(values) for _ in choice), len(choice)) for choice in tree.choices]
            for tree in trees
        ]

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[str], *, max_new_tokens: int, stop: str | None = None
    ) -> list[tuple[str, int]]:
        """Greedy continuations up to the end token or `stop`: (text, tokens generated)."""
        encoded = [[*self._before, *ids] for ids in self.encode(prompts)]
        texts: list[tuple[str, int]] = [("", 0)] * len(prompts)
        sizes = [len(ids) + max_new_tokens for ids in encoded]
        for indices in _batches(sizes, self.batch_tokens * 2):
            rows = self._generate([encoded[i] for i in indices], max_new_tokens)
            for i, ids in zip(indices, rows, strict=True):
                text = self.tokenizer.decode(ids, skip_special_tokens=True)
                if stop is not None:
                    text = text.split(stop)[0]
                texts[i] = (text, len(ids))
        return texts

    def _generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Left-padded greedy decoding with a key-value cache; finished rows leave the batch."""
        length = max(map(len, prompts))
        tokens = torch.tensor([[self.begin] * (length - len(p)) + p for p in prompts])
        seen = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
        tokens, seen = tokens.to(self.device), seen.to(self.device)
        positions = (seen.cumsum(1) - 1).clamp(min=0)
        alive = torch.arange(len(prompts), device=self.device)
        results: list[list[int]] = [[] for _ in prompts]
        cache = DynamicCache(config=self.model.config)
        for _ in range(max_new_tokens):
            hidden = self.model.base_model(
                input_ids=tokens,
                attention_mask=seen,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            chosen = self.head(hidden[:, -1]).argmax(-1)
            going = ~torch.isin(chosen, self.ends.to(self.device))
            for row, token in zip(alive[going].tolist(), chosen[going].tolist(), strict=True):
                results[row].append(token)
            if not going.any():
                break
            if not going.all():
                kept = going.nonzero()[:, 0]
                cache.batch_select_indices(kept)
                alive, chosen, seen = alive[kept], chosen[kept], seen[kept]
                positions = positions[kept]
            tokens = chosen[:, None]
            seen = torch.cat([seen, torch.ones_like(tokens)], dim=1)
            positions = positions[:, -1:] + 1
        return results


class _Tree:
    """A context with several continuations, laid out in one row."""

    def __init__(self, context: list[int], choices: list[list[int]]) -> None:
        self.context, self.choices = context, choices
        self.size = len(context) + sum(max(0, len(choice) - 1) for choice in choices)

    def _starts(self) -> Iterator[tuple[int, list[int]]]:
        start = len(self.context)
        for choice in self.choices:
            yield start, choice
            start += max(0, len(choice) - 1)  # a choice's last token is predicted, never looked at

    def fill(self, tokens: Tensor, positions: Tensor, mask: Tensor) -> None:
        """Write one row: tokens `[seq]`, positions `[seq]`, mask `[seq, seq]`."""
        n = len(self.context)
        tokens[:n] = torch.tensor(self.context)
        positions[:n] = torch.arange(n)
        mask[:n, :n] = torch.ones(n, n, dtype=torch.bool).tril()
        for start, choice in self._starts():
            m = len(choice) - 1
            if m > 0:
                tokens[start : start + m] = torch.tensor(choice[:-1])
                positions[start : start + m] = torch.arange(n, n + m)
                mask[start : start + m, :n] = True
                mask[start : start + m, start : start + m] = torch.ones(m, m, dtype=torch.bool).tril()

    def predictions(self) -> Iterator[tuple[int, int]]:
        """(place whose hidden state predicts, token predicted), choice by choice."""
        for start, choice in self._starts():
            for i, token in enumerate(choice):
                yield (len(self.context) - 1 if i == 0 else start + i - 1), token


def _batches(sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
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
