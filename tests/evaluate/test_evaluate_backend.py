"""The model behind an evaluation: what it and its tokenizer bring along, and models that are none for it."""

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from codestage.data.tokenizer import load_tokenizer, train_tokenizer
from codestage.errors import UserError
from codestage.evaluate.backend import Backend
from codestage.evaluate.trees import Tree

TEXT = "who has the ball? Anna gave it to Tom. 1 2 3 yes no."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer({"t": [TEXT]}, vocab_size=280, characters=1000, out=out)
    return out


def llama(**more):
    torch.manual_seed(0)
    config = {
        "vocab_size": 280, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0,
        "initializer_range": 0.3,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**config | more))


def test_a_tokenizer_that_would_cut_and_fill_up_texts_does_neither(folder, tmp_path):
    saved = Tokenizer.from_file(str(folder / "tokenizer.json"))
    saved.enable_truncation(4)
    saved.enable_padding(length=6, pad_id=1)
    saved.save(str(tmp_path / "tokenizer.json"))
    whole = load_tokenizer(folder).encode(TEXT).ids
    assert len(saved.encode(TEXT).ids) == 6
    assert load_tokenizer(tmp_path).encode(TEXT).ids == whole
    assert Backend(llama(), saved).encode([TEXT, "Anna"]) == [
        whole,
        load_tokenizer(folder).encode("Anna").ids,
    ]


def test_a_text_ends_at_every_end_token_that_the_model_names(folder):
    model, tokenizer = llama(), load_tokenizer(folder)
    prompt = torch.tensor([[0, *tokenizer.encode(TEXT).ids]])
    said = model.generate(prompt, do_sample=False, max_new_tokens=8)[0, prompt.shape[1] :].tolist()
    assert Backend(model, tokenizer).generate([TEXT], max_new_tokens=8)[0].tokens == len(said) == 8
    model.generation_config.eos_token_id = [0, said[3]]
    backend = Backend(model, tokenizer)
    assert (backend.begin, backend.ends.tolist()) == (0, [0, said[3]])
    assert backend.generate([TEXT], max_new_tokens=8)[0].tokens == said.index(said[3])
    model.config.eos_token_id = None
    assert Backend(model, tokenizer).ends.tolist() == [0, said[3]]
    model.generation_config.eos_token_id = None
    with pytest.raises(
        UserError, match=r"eos_token_id is null in config\.json and in generation_config\.json"
    ):
        Backend(model, tokenizer)


def test_a_continuation_of_nothing_is_certain_however_long_its_context(folder):
    backend = Backend(llama(), load_tokenizer(folder))
    context = [2 + i % 9 for i in range(200)]
    for choices in ([[]], [[], [3]]):
        (found,) = backend.score([Tree(context, choices)])
        assert (found[0].nats, found[0].tokens, found[0].cut) == (0.0, 0, True)
    assert found[1].tokens == 1


def test_an_empty_stop_stops_nothing(folder):
    backend = Backend(llama(), load_tokenizer(folder))
    free, stopped = (backend.generate([TEXT], max_new_tokens=8, stop=stop) for stop in ([], ["", "\0"]))
    assert stopped[0].text == free[0].text


TINY = {"vocab_size": 280, "hidden_size": 16, "bos_token_id": 0, "eos_token_id": 0}
LEAKING = {
    "layers of conv": lambda: Lfm2ForCausalLM(
        Lfm2Config(
            **TINY, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, layer_types=["conv", "full_attention"],
        )
    ),
    "no positions": lambda: BloomForCausalLM(BloomConfig(**TINY, n_layer=1, n_head=2)),
    "mamba": lambda: MambaForCausalLM(MambaConfig(**TINY, num_hidden_layers=1)),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEAKING)
def test_a_model_whose_continuations_would_see_each_other_is_refused(folder, kind):
    with pytest.raises(UserError, match=f"{kind}.*cannot be evaluated"):
        Backend(LEAKING[kind](), load_tokenizer(folder))
