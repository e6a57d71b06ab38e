"""Claim: how requests are batched, packed and padded changes no answer.

The reference is Transformers alone: one request, one forward pass, no padding; `model.generate`.
"""

import random

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from codestage.data.tokenizer import train
from codestage.evaluate.backend import Backend, Runtime

SIZES = [Runtime(batch_tokens=t, batch_rows=r) for t, r in [(1, 1), (90, 3), (1024, 7), (10**6, 64)]]
MAX_NEW = 12


@pytest.fixture(scope="module")
def tokenizer():
    texts = ["Question: who has the ball? Answer: Anna gave it to Tom\nReasoning: 1 2 3 yes no. "]
    return train({"t": texts}, vocab_size=300, characters=1000)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=96,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    made = LlamaForCausalLM(config).eval()
    with torch.no_grad():  # a random model all but never ends a text; this one does at times
        made.get_input_embeddings().weight[0] *= 1.7
    return made


@pytest.fixture(scope="module")
def greedy(model, requests):
    """What Transformers generates for each prompt, alone."""

    def alone(prompt):
        return model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            do_sample=False,
            max_new_tokens=min(MAX_NEW, 96 - len(prompt)),
        )[0, len(prompt) :].tolist()

    return {tuple(context): alone(context) for context, _ in requests}


@pytest.fixture(scope="module")
def requests(tokenizer):
    """Items with choices of 0 to 4 tokens, some a prefix of others, contexts that share beginnings."""
    pick = random.Random(1)
    found = []
    for _ in range(12):
        question = [0] + [pick.randrange(2, tokenizer.vocab_size) for _ in range(pick.randrange(0, 40))]
        for context in (question, [*question, 5, 6], [*question, *question[1:20], 7]):
            for length in (0, 1, 1, 2, 4):
                found.append((context, [pick.randrange(2, 9) for _ in range(length)]))
    return found


@pytest.mark.parametrize("runtime", SIZES, ids=lambda r: f"{r.batch_tokens}x{r.batch_rows}")
@pytest.mark.parametrize("packs", [True, False], ids=["packed", "one-a-row"])
def test_log_likelihoods_are_those_of_one_plain_forward_pass_each(
    model, tokenizer, requests, runtime, packs
):
    backend = Backend(model, tokenizer, runtime)
    assert backend.packs
    backend.packs = packs
    for (context, continuation), found in zip(requests, backend.loglikelihoods(requests), strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([context + continuation])).logits[0].log_softmax(-1)
        predicting = logprobs[len(context) - 1 : len(context) + len(continuation) - 1]
        wanted = torch.tensor(continuation, dtype=torch.long)
        reference = predicting.gather(1, wanted[:, None]).sum().item()
        assert found.nats == pytest.approx(reference, abs=1e-4)
        assert found.tokens == len(continuation)
        assert found.greedy == bool((predicting.argmax(-1) == wanted).all())


@pytest.mark.parametrize("runtime", SIZES, ids=lambda r: f"{r.batch_tokens}x{r.batch_rows}")
def test_greedy_generation_is_that_of_transformers(model, tokenizer, greedy, runtime):
    texts = Backend(model, tokenizer, runtime).generate(list(greedy), max_new_tokens=MAX_NEW)
    assert [list(text.ids) for text in texts] == list(greedy.values())
    assert [text.finished for text in texts] == [ids[-1] == 0 for ids in greedy.values()]
    # some rows left their batch early, so that the others were moved
    assert 0.1 < sum(len(ids) < MAX_NEW for ids in greedy.values()) / len(greedy) < 0.9


def test_a_stop_string_ends_only_its_own_row(model, tokenizer, requests):
    prompts = [context for context, _ in requests]
    backend = Backend(model, tokenizer)
    free = backend.generate(prompts, max_new_tokens=MAX_NEW)
    letters = {letter for text in free for letter in text.text if letter.isascii()}
    stop = max(sorted(letters), key=lambda letter: sum(letter in text.text for text in free))
    stopped = backend.generate(prompts, max_new_tokens=MAX_NEW, stop=[stop])
    assert any(s != f for s, f in zip(stopped, free, strict=True))
    assert any(s == f for s, f in zip(stopped, free, strict=True))
    for s, f in zip(stopped, free, strict=True):
        assert s.text == f.text.partition(stop)[0]
        assert f.ids[: len(s.ids)] == s.ids
