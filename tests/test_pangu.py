"""PanGu's query layer against its formula, written out; and a model that grows with its cache."""

import os
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM

from codestage.engine.export import carry_code
from codestage.pangu import PanguConfig

CONFIG = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "vocab_size": 60}
OFF = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 1}


def model():
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(PanguConfig(**CONFIG, **OFF)).eval()
    for name, parameter in made.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(parameter)
    return made


@torch.no_grad()
def test_the_top_layer_asks_with_positions_and_not_with_what_was_read():
    made, tokens = model(), torch.randint(2, 60, (3, 9))
    inner = made.transformer
    assert len(inner.h) == 1  # of two layers the last one is the query layer
    whole = made(tokens).logits
    hidden = inner.wte(tokens) + inner.wpe.weight[:9]
    bias = torch.full((9, 9), float("-inf")).triu(1)[None, None]
    hidden = inner.ln_f(inner.h[0](hidden, None, bias))
    layer = inner.query
    normed = layer.ln_1(hidden)
    found = []
    for head in range(4):
        at = slice(4 * head, 4 * head + 4)
        asked = layer.q_proj(inner.wqe.weight[:9])[:, at]  # the same for every row: no token is in it
        key, value = layer.k_proj(normed)[..., at], layer.v_proj(normed)[..., at]
        scores = torch.einsum("qd,bkd->bqk", asked, key) / 2 + bias[0]
        found.append(scores.softmax(-1) @ value)
    after = hidden + layer.o_proj(torch.cat(found, -1))
    after = after + layer.mlp(layer.ln_2(after))
    torch.testing.assert_close(whole, after @ inner.wte.weight.T)


@torch.no_grad()
def test_generation_with_a_cache_is_generation_without():
    made, tokens = model(), torch.randint(2, 60, (2, 6))
    cached = made.generate(tokens, max_new_tokens=6, do_sample=False, pad_token_id=0)
    plain = tokens
    for _ in range(cached.shape[1] - 6):
        plain = torch.cat([plain, made(plain).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(cached, plain)


def test_an_exported_folder_carries_its_code(tmp_path):
    made, tokens = model(), torch.tensor([[2, 3, 4]])
    made.save_pretrained(tmp_path / "exported")
    carry_code(tmp_path / "exported")
    with torch.no_grad():
        torch.save(made(tokens).logits, tmp_path / "wanted.pt")
    load = (
        "import sys, torch; from transformers import AutoModelForCausalLM as M; "
        "m = M.from_pretrained('exported', trust_remote_code=True); "
        "assert 'codestage' not in sys.modules; "
        "torch.testing.assert_close(m(torch.tensor([[2, 3, 4]])).logits, torch.load('wanted.pt'))"
    )
    env = os.environ | {"HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", load], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
