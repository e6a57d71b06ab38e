"""Claim: how requests are batched, packed and padded changes no answer.

The reference is Transformers alone: one request, one forward pass, no padding; `model.generate`.
"""

import copy
import random

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

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


@pytest.mark.parametrize("before", ["", "Anna gave it to Tom. " * 12])
def test_a_common_beginning_read_once_changes_nothing(model, tokenizer, requests, before):
    shared = [(before + context, choices) for context, choices in requests if len(context) < 40]
    alone = [Backend(model, tokenizer).loglikelihoods([request])[0] for request in shared]
    together = Backend(model, tokenizer).loglikelihoods(shared)
    for one, other in zip(alone, together, strict=True):
        assert [s.nats for s in one] == pytest.approx([s.nats for s in other], abs=1e-4)
        assert [s.greedy for s in one] == [s.greedy for s in other]


@pytest.mark.parametrize("rows", [1, 3, 7, 32])
def test_greedy_texts_are_those_of_transformers(model, tokenizer, requests, alone, rows):
    backend = Backend(model, tokenizer, rows=rows)
    texts = backend.generate([context for context, _ in requests], max_new_tokens=MAX_NEW)
    for text, ids in zip(texts, alone, strict=True):
        said = ids[: ids.index(0)] if 0 in ids else ids
        assert text.tokens == len(said)
        assert text.text == tokenizer.decode(said, skip_special_tokens=True)
    # Some rows left their batch early, so that others took their place.
    assert 0.1 < sum(0 in ids for ids in alone) / len(alone) < 0.9


def test_texts_after_a_common_beginning_are_those_without_sharing(model, tokenizer, requests):
    prompts = ["Anna gave it to Tom. " * 12 + context for context, _ in requests if len(context) < 40]
    shared = Backend(model, tokenizer, rows=4).generate(prompts, max_new_tokens=MAX_NEW)
    for prompt, text in zip(prompts, shared, strict=True):
        one = Backend(model, tokenizer).generate([prompt], max_new_tokens=MAX_NEW)
        assert one[0].text == text.text


def test_drawn_texts_do_not_depend_on_what_is_written_beside_them(model, tokenizer, requests):
    prompts = [context for context, _ in requests]
    drawn = [
        [
            t.text
            for t in Backend(model, tokenizer, rows=rows).generate(
                prompts, max_new_tokens=MAX_NEW, temperature=1.0, seed=seed
            )
        ]
        for rows, seed in ((2, 0), (32, 0), (32, 1))
    ]
    assert drawn[0] == drawn[1]
    assert drawn[1] != drawn[2]


def test_texts_that_fill_a_table_of_positions_end_there_whatever_is_written_beside_them(
    tokenizer, requests
):
    """Texts that are done stay in the batch for some steps; past the table's end there is nothing to look up."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_embd=32, n_layer=1, n_head=2, n_positions=32,
        bos_token_id=0, eos_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    prompts = [context * 8 for context, _ in requests if context] * 2
    one, many = (
        Backend(model, tokenizer, rows=rows).generate(
            prompts, max_new_tokens=16, temperature=0.7, stop=["a"]
        )
        for rows in (1, 24)
    )
    assert [text.text for text in one] == [text.text for text in many]
    assert any(text.tokens == 16 for text in one)
    assert any(text.tokens < 16 for text in one)


def test_a_stop_string_cuts_each_text_by_itself(model, tokenizer, requests):
    prompts = [context for context, _ in requests]
    backend = Backend(model, tokenizer)
    free = [t.text for t in backend.generate(prompts, max_new_tokens=MAX_NEW)]
    letters = {letter for text in free for letter in text if letter.isascii()}
    stop = max(sorted(letters), key=lambda letter: sum(letter in text for text in free))
    stopped = [t.text for t in backend.generate(prompts, max_new_tokens=MAX_NEW, stop=[stop])]
    assert stopped == [text.partition(stop)[0] for text in free]
    assert stopped != free


@pytest.mark.parametrize("window", [8, 40])
def test_a_sliding_window_is_kept_in_trees_and_while_writing(tokenizer, requests, window):
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, sliding_window=window,
        max_position_embeddings=128, bos_token_id=0, eos_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    says_what_transformers_does(MistralForCausalLM(config).eval(), tokenizer, requests)


def says_what_transformers_does(model, tokenizer, requests):
    scores = Backend(model, tokenizer).loglikelihoods(requests)
    texts = Backend(model, tokenizer, rows=3).generate([c for c, _ in requests], max_new_tokens=MAX_NEW)
    for (context, choices), found, text in zip(requests, scores, texts, strict=True):
        before, after = tokenizer.encode(context).ids, tokenizer.encode(choices[0]).ids
        with torch.no_grad():
            logprobs = model(torch.tensor([[0, *before, *after]])).logits[0].log_softmax(-1)
            ids = torch.tensor([[0, *before]])
            whole = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=MAX_NEW
            )
        predicting = logprobs[len(before) : len(before) + len(after)]
        wanted = predicting.gather(1, torch.tensor(after)[:, None]).sum().item()
        assert found[0].nats == pytest.approx(wanted, abs=1e-4)
        said = whole[0, len(before) + 1 :].tolist()
        said = said[: said.index(0)] if 0 in said else said
        assert text.text == tokenizer.decode(said, skip_special_tokens=True)


ODD = {
    "attention that adds its mask": (
        Gemma2Config,
        Gemma2ForCausalLM,
        {"sliding_window": 8, "head_dim": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 1.0},
    ),
    "logits bent": (
        Gemma2Config,
        Gemma2ForCausalLM,
        {"head_dim": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 0.5},
    ),
    "logits divided": (GraniteConfig, GraniteForCausalLM, {"logits_scaling": 8.0}),
    "logits multiplied": (CohereConfig, CohereForCausalLM, {"logit_scale": 0.06}),
}


def odd(tokenizer, case, **more):
    config, model, own = ODD[case]
    torch.manual_seed(0)
    made = config(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        bos_token_id=0, eos_token_id=0, pad_token_id=1, initializer_range=0.3, **own | more,
    )  # fmt: skip
    return model(made).eval()


@pytest.mark.parametrize("case", ODD)
def test_families_with_masks_and_logits_of_their_own_say_what_transformers_does(
    tokenizer, requests, case
):
    model = odd(tokenizer, case)
    assert (model.config._attn_implementation == "eager") == (model.config.model_type == "gemma2")
    says_what_transformers_does(model, tokenizer, requests)


def test_texts_are_drawn_from_logits_as_the_model_scales_them(tokenizer, requests):
    model = odd(tokenizer, "logits divided", logits_scaling=1e-5)  # the likeliest token is certain then
    backend, prompts = Backend(model, tokenizer), [context for context, _ in requests[:6]]
    greedy, drawn = (
        backend.generate(prompts, max_new_tokens=MAX_NEW, temperature=t) for t in (0.0, 1.0)
    )
    assert [text.text for text in drawn] == [text.text for text in greedy]


def test_what_is_longer_than_the_context_is_scored_after_what_there_is_room_for(model, tokenizer):
    backend = Backend(model, tokenizer)
    backend.most = 10
    before, after = tokenizer.encode("who has the ball").ids, tokenizer.encode(" Anna gave it" * 9).ids
    text = [0, *before, *after]
    assert len(after) > 20
    wanted = 0.0
    for start in range(len(before) + 1, len(text), 5):  # five at a time, with all that fits before them
        stop = min(start + 5, len(text))
        seen = text[max(0, stop - 11) : stop - 1]
        with torch.no_grad():
            logprobs = model(torch.tensor([seen])).logits[0].log_softmax(-1)
        wanted += sum(logprobs[i - stop, text[i]].item() for i in range(start, stop))
    (found,) = backend.loglikelihoods([("who has the ball", [" Anna gave it" * 9])])[0]
    assert found.nats == pytest.approx(wanted, abs=1e-4)
    assert found.tokens == len(after)
    assert found.cut


@pytest.mark.parametrize("before", ["", "Anna gave it to Tom. " * 12])
def test_in_bf16_scores_are_those_of_float32_but_for_rounding(model, tokenizer, requests, before):
    """On processors attention is computed otherwise then; texts go on as before."""
    shared = [(before + context, choices) for context, choices in requests if len(context) < 60]
    rough = copy.deepcopy(model).bfloat16()
    exact, found = (Backend(m, tokenizer).loglikelihoods(shared) for m in (model, rough))
    errors = [
        abs(one.nats - other.nats) / other.tokens
        for some, others in zip(exact, found, strict=True)
        for one, other in zip(some, others, strict=True)
    ]
    assert max(errors) < 0.2
    assert sum(errors) / len(errors) < 0.03
    assert rough.config._attn_implementation == model.config._attn_implementation == "sdpa"
    assert Backend(rough, tokenizer).generate([shared[0][0]], max_new_tokens=3)[0].tokens <= 3
