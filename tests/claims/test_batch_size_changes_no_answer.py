"""Claim: how requests are batched, packed and padded changes no answer.

The reference is Transformers alone: one request, one forward pass, no padding; `model.generate`.
"""

import random

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from codestage.data.tokenizer import train_tokenizer
from codestage.evaluate.backend import Backend

MAX_NEW = 12
WORDS = ["who", "has", "the", "ball", "Anna", "gave", "it", "to", "Tom", "1", "2", "3", "yes", "no"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = {"t": ["Question: who has the ball? Answer: Anna gave it to Tom. 1 2 3 yes no. "]}
    return train_tokenizer(
        texts, vocab_size=300, characters=10_000, out=tmp_path_factory.mktemp("tokenizer")
    )


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
        pad_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    made = LlamaForCausalLM(config).eval()
    with torch.no_grad():  # a random model all but never ends a text; this one does at times
        made.get_input_embeddings().weight[0] *= 3.0
    return made


@pytest.fixture(scope="module")
def requests():
    """Contexts of 0 to 40 words with choices of 1 to 4 words, some a beginning of others."""
    pick = random.Random(1)

    def words(low, high):
        return " ".join(pick.choice(WORDS) for _ in range(pick.randint(low, high)))

    found = []
    for _ in range(30):
        choices = [" " + words(1, 4) for _ in range(pick.randint(1, 4))]
        found.append((words(0, 40), [*choices, choices[0] + " yes"]))
    return found


@pytest.fixture(scope="module")
def alone(model, tokenizer, requests):
    """What Transformers generates for each prompt by itself."""
    found = []
    for context, _ in requests:
        ids = [0, *tokenizer.encode(context).ids]
        mask = torch.ones(1, len(ids), dtype=torch.long)
        out = model.generate(
            torch.tensor([ids]), attention_mask=mask, do_sample=False, max_new_tokens=MAX_NEW
        )
        found.append(out[0, len(ids) :].tolist())
    return found


@pytest.mark.parametrize("batch_tokens", [1, 200, 8192])
def test_log_likelihoods_are_those_of_one_plain_forward_pass_each(
    model, tokenizer, requests, batch_tokens
):
    backend = Backend(model, tokenizer, batch_tokens=batch_tokens)
    for (context, choices), scores in zip(requests, backend.loglikelihoods(requests), strict=True):
        for choice, found in zip(choices, scores, strict=True):
            before, after = tokenizer.encode(context).ids, tokenizer.encode(choice).ids
            with torch.no_grad():
                logprobs = model(torch.tensor([[0, *before, *after]])).logits[0].log_softmax(-1)
            predicting = logprobs[len(before) : len(before) + len(after)]
            wanted = predicting.gather(1, torch.tensor(after)[:, None]).sum().item()
            assert found.nats == pytest.approx(wanted, abs=1e-4)
            assert found.tokens == len(after)


@pytest.mark.parametrize("batch_tokens", [1, 200, 8192])
def test_greedy_generation_is_that_of_transformers(model, tokenizer, requests, alone, batch_tokens):
    backend = Backend(model, tokenizer, batch_tokens=batch_tokens)
    texts = backend.generate([context for context, _ in requests], max_new_tokens=MAX_NEW)
    for (text, tokens), ids in zip(texts, alone, strict=True):
        said = ids[: ids.index(0)] if 0 in ids else ids
        assert tokens == len(said)
        assert text == tokenizer.decode(said, skip_special_tokens=True)
    # Some rows left their batch early, so that the others were moved.
    assert 0.1 < sum(0 in ids for ids in alone) / len(alone) < 0.9


def test_a_stop_string_cuts_each_text_by_itself(model, tokenizer, requests):
    prompts = [context for context, _ in requests]
    backend = Backend(model, tokenizer)
    free = [text for text, _ in backend.generate(prompts, max_new_tokens=MAX_NEW)]
    letters = {letter for text in free for letter in text if letter.isascii()}
    stop = max(sorted(letters), key=lambda letter: sum(letter in text for text in free))
    stopped = [text for text, _ in backend.generate(prompts, max_new_tokens=MAX_NEW, stop=stop)]
    assert stopped == [text.partition(stop)[0] for text in free]
    assert stopped != free
