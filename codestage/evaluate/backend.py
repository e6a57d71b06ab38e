"""The model behind the tasks: log-likelihoods of continuations, and greedy generation.

Batches are an economy, never part of the answer: a padded, packed or refilled batch gives what each
request would give alone (to rounding of the last bits).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from codestage.data.shards import END_OF_TEXT
from codestage.data.tokenizer import Tokenizer
from codestage.errors import UserError
from codestage.evaluate.cache import new_cache
from codestage.evaluate.tree import Tree, forest

Ids = Sequence[int]


@dataclass(frozen=True)
class Runtime:
    """Where and how fast; changes no result beyond rounding, so it is in no hash."""

    device: str = "cpu"
    precision: str = "float32"
    """float32 or bfloat16; bfloat16 moves log-likelihoods in the third digit."""
    batch_tokens: int = 1024
    """Tokens computed at once. Small: the activations of a small model then stay in the cache."""
    batch_rows: int = 64
    """Prompts that generate side by side."""
    threads: int | None = None
    """Threads of one operation; None leaves the process's setting."""

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise UserError(f"precision {self.precision!r}: use float32 or bfloat16")


class Likelihood(NamedTuple):
    """Of one continuation: its log-likelihood in nats, its tokens, and whether greedy decoding
    would have produced it."""

    nats: float
    tokens: int
    greedy: bool


class Generation(NamedTuple):
    """What greedy decoding wrote: text up to the first stop string, and the token ids with it.
    `finished`: ended by the end token or a stop string and not by the length limit."""

    text: str
    ids: tuple[int, ...]
    finished: bool


class Backend:
    """A causal language model with its tokenizer, ready to be asked."""

    def __init__(self, model: Any, tokenizer: Tokenizer, runtime: Runtime | None = None) -> None:
        self.runtime = runtime or Runtime()
        if self.runtime.threads:
            torch.set_num_threads(self.runtime.threads)
        self.dtype = getattr(torch, self.runtime.precision)
        self.model = model.eval().to(device=self.runtime.device, dtype=self.dtype)
        self.tokenizer = tokenizer
        self.pieces: dict[int, str] = {}  # text of single tokens, as they turn up
        self.limit: int = getattr(model.config, "max_position_embeddings", 2**31)
        self.packs = self._can_pack()

    @classmethod
    def load(
        cls, checkpoint: Path, tokenizer: Tokenizer, runtime: Runtime | None = None
    ) -> "Backend":
        """From a checkpoint folder in the Transformers format.

        Raises UserError if the folder holds no model that can be read.
        """
        try:
            model = AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{checkpoint} holds no model that Transformers can load ({error}); name a folder "
                "with config.json and model.safetensors"
            ) from error
        return cls(model, tokenizer, runtime)

    # -- log-likelihoods ---------------------------------------------------------------------

    @torch.inference_mode()
    def loglikelihoods(self, requests: Sequence[tuple[Ids, Ids]]) -> list[Likelihood]:
        """Log-likelihood of each (context, continuation), both as token ids.

        The context holds at least one token (the end-of-text token that starts every document).
        An empty continuation is certain: 0 nats. Equal requests are computed once.

        Raises UserError if a request is longer than the model's positions.
        """
        keys = [(tuple(context), tuple(continuation)) for context, continuation in requests]
        unique = [key for key in dict.fromkeys(keys) if key[1]]
        for context, continuation in unique:
            assert context, "a context needs at least one token"
            self._check_length(len(context) + len(continuation) - 1)
        inputs = [(context + continuation)[:-1] for context, continuation in unique]
        trees = forest(inputs) if self.packs else [t for s in inputs for t in forest([s])]
        if not self.packs:  # a chain a sequence: forest numbered each of them 0
            trees = [
                Tree(t.tokens, t.depths, t.visible, (i,), t.paths) for i, t in enumerate(trees)
            ]
        trees.sort(key=lambda tree: len(tree.tokens), reverse=True)
        found: dict[tuple[tuple[int, ...], tuple[int, ...]], Likelihood] = {}
        for batch in self._batches(trees):
            found.update(self._score(batch, unique))
        return [found[key] if key[1] else Likelihood(0.0, 0, True) for key in keys]

    def _batches(self, trees: list[Tree]) -> list[list[Tree]]:
        """Neighbours in length, as many as fit `batch_tokens` (at least one), longest first."""
        batches: list[list[Tree]] = []
        for tree in trees:
            if batches and len(batches[-1][0].tokens) * (len(batches[-1]) + 1) <= (
                self.runtime.batch_tokens
            ):
                batches[-1].append(tree)
            else:
                batches.append([tree])
        return batches

    def _score(
        self, batch: list[Tree], requests: list[tuple[tuple[int, ...], tuple[int, ...]]]
    ) -> dict[tuple[tuple[int, ...], tuple[int, ...]], Likelihood]:
        """One forward pass; logits are formed only where a continuation's token is predicted."""
        width = len(batch[0].tokens)
        places: list[int] = []  # flat [row * width + node] of every predicted token, in order
        targets: list[int] = []
        spans: list[tuple[int, int]] = []  # (request, predicted tokens)
        for row, tree in enumerate(batch):
            for member, path in zip(tree.members, tree.paths, strict=True):
                context, continuation = requests[member]
                places += (row * width + path[len(context) - 1 :]).tolist()
                targets += continuation
                spans.append((member, len(continuation)))
        where, back = torch.tensor(places).unique(return_inverse=True)
        logprobs = torch.log_softmax(self._logits(batch, where).float(), -1).cpu()
        wanted = torch.tensor(targets)
        nats = logprobs[back, wanted].double()
        greedy = logprobs.argmax(-1)[back] == wanted
        answers = {}
        start = 0
        for member, length in spans:
            part = slice(start, start + length)
            start += length
            answers[requests[member]] = Likelihood(
                float(nats[part].sum()), length, bool(greedy[part].all())
            )
        return answers

    def _logits(self, batch: list[Tree], where: Tensor) -> Tensor:
        """Logits at the flat places `where` [n] of a batch of trees: [n, vocabulary]."""
        rows, width = len(batch), len(batch[0].tokens)
        tokens = torch.zeros(rows, width, dtype=torch.int64)
        depths = torch.zeros(rows, width, dtype=torch.int64)
        visible = torch.eye(width, dtype=torch.bool).repeat(rows, 1, 1)  # padding sees itself
        for i, tree in enumerate(batch):
            n = len(tree.tokens)
            tokens[i, :n] = torch.from_numpy(tree.tokens)
            depths[i, :n] = torch.from_numpy(tree.depths)
            visible[i, :n, :n] = torch.from_numpy(tree.visible)
        device = self.runtime.device
        tokens, depths, where = tokens.to(device), depths.to(device), where.to(device)
        if not self.packs:
            lengths = torch.tensor([[len(tree.tokens)] for tree in batch])
            attend = (torch.arange(width)[None] < lengths).long().to(device)
            output = self.model(
                input_ids=tokens, attention_mask=attend, position_ids=depths, use_cache=False
            )
            return output.logits.flatten(0, 1)[where]
        mask = torch.zeros(rows, 1, width, width, dtype=self.dtype)
        mask.masked_fill_(~visible[:, None], torch.finfo(self.dtype).min)
        hidden = self.model.base_model(
            input_ids=tokens, attention_mask=mask.to(device), position_ids=depths, use_cache=False
        ).last_hidden_state
        return self.model.get_output_embeddings()(hidden.flatten(0, 1)[where])

    @torch.inference_mode()
    def _can_pack(self) -> bool:
        """Whether this architecture takes a tree mask and a plain output layer: tried, not assumed.

        Others (sliding windows, soft-capped logits) get one sequence a row and the model's own
        logits: slower, same answers.
        """
        self.packs = True
        first, second = [0, 1, 2, 1, 0, 2], [0, 1, 2, 2, 1]
        (tree,) = forest([first, second])
        nodes = torch.from_numpy(tree.paths[1])
        try:
            packed = self._logits([tree], nodes)
        except (ValueError, RuntimeError, TypeError):
            return False
        plain = self.model(torch.tensor([second], device=self.runtime.device)).logits[0]
        slack = 1e-4 if self.dtype is torch.float32 else 0.1
        return bool(
            torch.allclose(packed.float(), plain.float(), atol=slack * float(plain.abs().max()))
        )

    def _check_length(self, tokens: int) -> None:
        if tokens > self.limit:
            raise UserError(
                f"an evaluation prompt has {tokens:,} tokens but the model has positions for "
                f"{self.limit:,}; leave the task out, or use a model with at least "
                f"{tokens:,} positions"
            )

    # -- generation --------------------------------------------------------------------------

    def generate(
        self, prompts: Sequence[Ids], *, max_new_tokens: int, stop: Sequence[str] = ()
    ) -> list[Generation]:
        """Greedy continuation of each prompt, until the end token, a stop string or the limit.

        The text excludes the end token and everything from the first stop string on. Generation
        also ends where the model's positions do. Equal prompts are computed once.

        Raises UserError if a prompt alone is longer than the model's positions.
        """
        unique = sorted(dict.fromkeys(tuple(p) for p in prompts), key=len)
        for prompt in unique:
            assert prompt, "a prompt needs at least one token"
            self._check_length(len(prompt))
        found: dict[tuple[int, ...], Generation] = {}
        for i in range(0, len(unique), self.runtime.batch_rows):
            batch = unique[i : i + self.runtime.batch_rows]
            found.update(zip(batch, self._continue(batch, max_new_tokens, stop), strict=True))
        return [found[tuple(prompt)] for prompt in prompts]

    @torch.inference_mode()
    def _continue(
        self, prompts: list[tuple[int, ...]], max_new_tokens: int, stop: Sequence[str]
    ) -> list[Generation]:
        """One batch: prompts padded on the left; rows that are done leave the batch."""
        width = max(map(len, prompts))
        device = self.runtime.device
        tokens = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
        attend = torch.tensor(
            [[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device
        )
        positions = (attend.cumsum(-1) - 1).clamp(min=0)
        cache = new_cache(self.model.config, capacity=width + max_new_tokens)
        written: list[list[int]] = [[] for _ in prompts]
        finished = [False] * len(prompts)
        alive = [i for i, p in enumerate(prompts) if max_new_tokens > 0]
        while alive:
            logits = self.model(
                input_ids=tokens,
                attention_mask=attend,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            chosen = logits.argmax(-1)
            keep = []
            for row, (i, token) in enumerate(zip(alive, chosen.tolist(), strict=True)):
                written[i].append(token)
                finished[i] = token == END_OF_TEXT or self._stopped(written[i], stop)
                room = min(max_new_tokens, self.limit - len(prompts[i]))
                if not finished[i] and len(written[i]) < room:
                    keep.append(row)
            if len(keep) < len(alive):
                index = torch.tensor(keep, dtype=torch.int64, device=device)
                alive = [alive[row] for row in keep]
                chosen, attend, positions = chosen[index], attend[index], positions[index]
                if alive:
                    cache.batch_select_indices(index)
            tokens = chosen[:, None]
            positions = positions[:, -1:] + 1
            attend = torch.cat([attend, attend.new_ones(len(attend), 1)], dim=1)
        return [
            Generation(self._readable(ids, stop), tuple(ids), end)
            for ids, end in zip(written, finished, strict=True)
        ]

    def _stopped(self, ids: list[int], stop: Sequence[str]) -> bool:
        """Whether a stop string stands in the text. Decodes only after a token that may end one."""
        last = ids[-1]
        if last not in self.pieces:
            self.pieces[last] = self.tokenizer.decode([last])
        if not any(s[-1] in self.pieces[last] for s in stop):
            return False
        text = self.tokenizer.decode(ids)
        return any(s in text for s in stop)

    def _readable(self, ids: list[int], stop: Sequence[str]) -> str:
        """Decoded text without the end token, cut before the first stop string."""
        text = self.tokenizer.decode([i for i in ids if i != END_OF_TEXT])
        cut = min((at for s in stop if (at := text.find(s)) >= 0), default=len(text))
        return text[:cut]


def bits(nats: float) -> float:
    """Nats of log-likelihood as bits of information: positive, 0 for what is certain."""
    return -nats / math.log(2)
