"""The model behind an evaluation: log-likelihoods of choices, and texts, in batches."""

import inspect
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel
from transformers.utils import logging

import codestage.pangu  # noqa: F401 - makes the model known to Transformers
from codestage.attention import other_layers
from codestage.data.own_code import unreadable
from codestage.data.place import in_file
from codestage.data.tokenizer import MARKS, puts_begin
from codestage.errors import UserError
from codestage.evaluate.decode import Decoder
from codestage.evaluate.speak import Scored, Written
from codestage.evaluate.trees import Tree, score

Precision = Literal["float32", "bfloat16"]
BATCH_TOKENS = {"cpu": 1536, "cuda": 32_768}
"""Padded tokens that are looked at at once; more are no faster on a processor (benchmarks/evaluate.py)."""


class Backend:
    """A causal model and its tokenizer, ready to score and to generate."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        *,
        marked: bool = False,
        begins: bool = True,
        batch_tokens: int | None = None,
        rows: int | None = None,
    ) -> None:
        """`marked` contexts bring their own special tokens, as a chat template writes them; otherwise the
        begin token stands before a context, unless the model `begins` its texts without one.
        `batch_tokens` are scored, `rows` texts are written at once.

        Raises:
            UserError: the model names no token that ends a text, or does not read texts by attention alone.
        """
        _readable(model)
        self.model = model.eval()
        self.device = next(model.parameters()).device
        config = model.config
        self.ends = torch.tensor(_ends(model))
        self.begin = int(self.ends[0]) if config.bos_token_id is None else int(config.bos_token_id)
        self.tokenizer = tokenizer
        self.tokenizer.encode_special_tokens = not marked
        self.tokenizer.no_truncation()  # which its file may ask for
        self.tokenizer.no_padding()
        self.before = [self.begin] if begins and not marked else []
        self.batch_tokens = batch_tokens or BATCH_TOKENS.get(self.device.type, BATCH_TOKENS["cpu"])
        self.rows = rows
        self.most: int = getattr(config, "max_position_embeddings", None) or sys.maxsize
        """Tokens of the model's context."""

    @classmethod
    def load(
        cls,
        model: Path | str,
        tokenizer: Tokenizer | None = None,
        *,
        marked: bool = False,
        precision: Precision = "float32",
    ) -> "Backend":
        """A folder in Transformers' format (safetensors), a .gguf, or a hub id; code of its is not run here.

        It stands on the GPU if there is one. Without a tokenizer the model's own is used, and then the
        begin token stands before a text where that tokenizer puts one, or codestage trained the model.

        Raises:
            UserError: there is no such model, or it cannot be read.
        """
        logging.disable_progress_bar()  # codestage shows its own
        place, more = in_file(model) if isinstance(model, Path) else (model, {})
        how = {"quantization_config": GgufConfig(dequantize=True)} if more else {"use_safetensors": True}
        begins = True
        try:
            found = AutoModelForCausalLM.from_pretrained(
                place, dtype=getattr(torch, precision), trust_remote_code=False, **how, **more
            )
            if tokenizer is None:
                own = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **more)
                tokenizer = own.backend_tokenizer
                begins = (Path(place) / MARKS).exists() or puts_begin(own)
        except Exception as error:  # a broken file makes the readers raise anything
            raise unreadable(str(model), error) from None
        if torch.cuda.is_available():
            torch.nn.Module.to(found, "cuda")
        return cls(found, tokenizer, marked=marked, begins=begins)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def loglikelihoods(self, requests: Sequence[tuple[str, Sequence[str]]]) -> list[list[Scored]]:
        """For each (context, continuations): the log-likelihood of every continuation.

        Contexts and continuations are tokenised by themselves, as in training. A context is computed once
        for all its continuations. Batching changes no answer beyond rounding.
        """
        contexts = self.encode([context for context, _ in requests])
        flat = iter(self.encode([c for _, choices in requests for c in choices]))
        return self.score(
            [
                Tree([*self.before, *context] or [self.begin], [next(flat) for _ in choices])
                for context, (_, choices) in zip(contexts, requests, strict=True)
            ]
        )

    def score(self, trees: Sequence[Tree]) -> list[list[Scored]]:
        """As `loglikelihoods`, of token ids. A context that does not fit the model's loses its beginning, as
        in lm-evaluation-harness; a continuation that does not fit is scored in pieces, each after half a
        context of what stands before it. Their scores say so.
        """
        plans = [self._fitting(tree) for tree in trees]
        flat = [piece for plan in plans for _, piece in plan]
        found = iter(score(self.model, flat, batch_tokens=self.batch_tokens))
        scores = []
        for tree, plan in zip(trees, plans, strict=True):
            if plan and plan[0][1] is tree:
                scores.append(next(found))
                continue
            sums = [Scored(0.0, 0, greedy=True, cut=True) for _ in tree.choices]
            for choice, _ in plan:
                one, sum_ = next(found)[0], sums[choice]
                sums[choice] = replace(
                    sum_,
                    nats=sum_.nats + one.nats,
                    tokens=sum_.tokens + one.tokens,
                    greedy=sum_.greedy and one.greedy,
                    seconds=sum_.seconds + one.seconds,
                )
            scores.append(sums)
        return scores

    def _fitting(self, tree: Tree) -> list[tuple[int, Tree]]:
        """The tree itself, or (choice, piece of it) with as much before it as there is room for."""
        if len(tree.context) + max(map(len, tree.choices)) - 1 <= self.most:
            return [(0, tree)]
        pieces = []
        for n, choice in enumerate(tree.choices):
            text = tree.context + choice
            step = max(1, len(choice) if len(choice) <= self.most else self.most // 2)
            for start in range(len(tree.context), len(text), step):
                stop = min(start + step, len(text))
                before = text[max(0, stop - 1 - self.most) : start]
                pieces.append((n, Tree(before, [text[start:stop]])))
        return pieces

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Written]:
        """Continuations up to the end token or a `stop`: the likeliest tokens, or drawn at `temperature`.
        A prompt that leaves no room for them loses its beginning, and at least half of the model's context
        stays for it; texts that had to end sooner for that, or after such a prompt, say so.
        """
        new = min(max_new_tokens, max(1, self.most // 2))
        room = self.most - new
        ids = [[*self.before, *some] or [self.begin] for some in self.encode(prompts)]
        decoder = Decoder(
            self.model,
            ends=self.ends.tolist(),
            decode=lambda ids: self.tokenizer.decode(ids, skip_special_tokens=True),
            max_new_tokens=new,
            stop=stop,
            temperature=temperature,
            seed=seed,
            rows=self.rows,
        )
        written = decoder.write([some[-room:] for some in ids])
        return [
            replace(text, cut=len(some) > room or (text.tokens == new < max_new_tokens))
            for text, some in zip(written, ids, strict=True)
        ]


def _readable(model: PreTrainedModel) -> None:
    """Continuations in one row, and texts side by side, are told apart by masks and positions alone.

    Raises:
        UserError: the model keeps a state besides, or takes no positions.
    """
    kinds = other_layers(model.config)
    placed = "position_ids" in inspect.signature(model.base_model.forward).parameters
    if model._is_stateful or kinds or not placed:
        why = (
            f"layers of {', '.join(sorted(kinds))}"
            if kinds
            else "no positions"
            if not placed
            else "a state"
        )
        raise UserError(
            f"{model.config.name_or_path or 'the model'}: a {model.config.model_type} model, with {why}, cannot be "
            "evaluated: continuations would see each other; take one whose layers are all full or sliding attention"
        )


def _ends(model: PreTrainedModel) -> list[int]:
    """The tokens that end a text, the configuration's first; chat models name further ones for writing.

    Raises:
        UserError: there are none.
    """
    found: list[int | None] = []
    for config in (model.config, model.generation_config):
        some = getattr(config, "eos_token_id", None)
        found += some if isinstance(some, list) else [some]
    ends = [token for token in dict.fromkeys(found) if token is not None]
    if not ends:
        raise UserError(
            f"{model.config.name_or_path or 'the model'}: eos_token_id is null in config.json and in "
            "generation_config.json; write the number of the token that ends a text into one of them"
        )
    return ends
