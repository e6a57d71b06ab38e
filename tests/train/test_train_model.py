"""The model is Transformers' own: packed rows give what each document gives by itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from train_fixture import SEQ_LEN, SHAPE, batches, stage
from transformers import LlamaConfig, LlamaForCausalLM

from codestage.attention import products_attention
from codestage.train import loss
from codestage.train import model as models
from codestage.train.attention import (
    blocks_attention,
    document_bias,
    document_blocks,
    document_mask,
)
from codestage.train.loss import PackedLoss
from codestage.train.model import ModelPool, build_model


def plain(model):
    """The same weights in Transformers' own attention."""
    config = LlamaConfig(**(model.config.to_dict() | {"attn_implementation": "eager"}))
    other = LlamaForCausalLM(config)
    other.load_state_dict(model.state_dict())
    return other


def tensors(batch):
    return (
        torch.from_numpy(batch.tokens).long(),
        document_bias(torch.from_numpy(batch.documents)),
        torch.from_numpy(batch.positions).long(),
        torch.from_numpy(batch.labels).long(),
    )


@pytest.mark.parametrize("number", [0, 3, -1])
def test_loss_of_packed_rows_is_that_of_each_document_alone(number):
    model = build_model(SHAPE, SEQ_LEN, seed=1)
    held = batches(stage())
    batch = held[number % held.n_batches]
    total, rows = PackedLoss(model)(*tensors(batch))
    reference = plain(model)
    expected = np.zeros(len(batch.tokens))
    for r, (tokens, labels, documents) in enumerate(
        zip(batch.tokens, batch.labels, batch.documents, strict=True)
    ):
        for d in set(documents.tolist()) - {-1}:
            at = documents == d
            with torch.no_grad():
                logits = reference(torch.from_numpy(tokens[at]).long()[None]).logits[0]
            nats = torch.nn.functional.cross_entropy(
                logits, torch.from_numpy(labels[at]).long(), ignore_index=-100, reduction="sum"
            )
            expected[r] += float(nats)
    assert rows.numpy() == pytest.approx(expected, rel=1e-4)
    assert float(total) == pytest.approx(expected.sum(), rel=1e-4)


def test_gradients_are_those_of_transformers():
    model = build_model(SHAPE, SEQ_LEN, seed=1)
    batch = batches(stage())[0]
    tokens, seen, positions, labels = tensors(batch)
    total, _ = PackedLoss(model)(tokens, seen, positions, labels)
    total.backward()
    reference = plain(model)
    documents = torch.from_numpy(batch.documents)
    bias = torch.where(document_mask(documents), 0.0, float("-inf"))
    logits = reference(tokens, attention_mask=bias, position_ids=positions).logits
    torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum"
    ).backward()
    theirs = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-4)


def test_a_document_cannot_see_its_neighbours():
    model = build_model(SHAPE, SEQ_LEN, seed=1)
    tokens = torch.randint(2, 50, (1, SEQ_LEN))
    documents = torch.tensor([[0] * 7 + [1] * 9])
    positions = torch.tensor([[*range(7), *range(9)]])
    labels = torch.full((1, SEQ_LEN), -100)
    labels[0, 7:15] = tokens[0, 8:]
    forward = PackedLoss(model)
    seen = document_bias(documents)
    before = float(forward(tokens, seen, positions, labels)[0])
    other = tokens.clone()
    other[0, :7] = 3
    assert float(forward(other, seen, positions, labels)[0]) == before
    assert (
        float(forward(other, document_bias(torch.zeros_like(documents)), positions, labels)[0]) != before
    )


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("length", [16, 200, 256])
def test_attention_in_pieces_and_in_blocks_is_plain_attention_in_each_document(length, window):
    torch.manual_seed(0)
    documents = torch.randint(0, 2, (3, length)).cumsum(1).int()
    documents[1, length // 2 :] = -1  # padding
    query = torch.randn(3, 4, length, 16)
    key, value = torch.randn(3, 2, length, 16), torch.randn(3, 2, length, 16)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=document_mask(documents, window), enable_gqa=True
    ).transpose(1, 2)
    nothing = torch.nn.Module()
    for found, _ in (
        products_attention(nothing, query, key, value, document_bias(documents, window)),
        blocks_attention(nothing, query, key, value, document_blocks(documents, window)),
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_one_seed_gives_one_initialisation_whatever_ran_before():
    torch.manual_seed(99)
    one = build_model(SHAPE, SEQ_LEN, seed=1)
    torch.rand(7)
    two, other = build_model(SHAPE, SEQ_LEN, seed=1), build_model(SHAPE, SEQ_LEN, seed=2)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, two.state_dict()[name])
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)


@pytest.mark.slow
@pytest.mark.parametrize("wide", [1, 10_000])
def test_the_compiled_forward_pass_says_the_same(wide, monkeypatch):
    """Compiled layer by layer, and all of it in one graph; the loss in three pieces."""
    monkeypatch.setattr(models, "WIDE", wide)
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 1)
    monkeypatch.setattr(loss, "ROWS_AT_ONCE", 12)
    batch = tensors(batches(stage())[0])
    found = []
    for compiled in (False, True):
        model, forward = ModelPool(compiled=compiled).get(SHAPE, SEQ_LEN)
        total, rows = forward(*batch)
        total.backward()
        with torch.no_grad():
            held_out, _ = forward(*batch)
        assert float(held_out) == pytest.approx(float(total), rel=1e-5)
        found.append((float(total), rows.numpy(), [p.grad for p in model.parameters()]))
    (plain_total, plain_rows, plain_grads), (total, rows, grads) = found
    assert total == pytest.approx(plain_total, rel=1e-5)
    assert rows == pytest.approx(plain_rows, rel=1e-4)
    for one, other in zip(plain_grads, grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_layers_of_a_wide_model_are_compiled_once(monkeypatch):
    monkeypatch.setattr(models, "WIDE", 1)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    _, forward = ModelPool(compiled=True).get(replace(SHAPE, layers=5), SEQ_LEN)
    forward(*tensors(batches(stage())[0]))[0].backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2  # of a layer, and of the loss


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "qwen"])
def test_recomputed_activations_give_the_same_gradients_from_less_memory(family):
    plain_shape = replace(SHAPE, family=family, layers=6)
    batch = tensors(batches(stage())[0])
    found = []
    for shape in (plain_shape, replace(plain_shape, recompute=True)):
        model, forward = ModelPool(compiled=False).get(shape, SEQ_LEN)
        kept = {}

        def keep(tensor, kept=kept):
            kept[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            total, _ = forward(*batch)
        held = sum(kept.values())
        total.backward()
        found.append((held, {n: p.grad.clone() for n, p in model.named_parameters()}))
    (much, wanted), (little, grads) = found
    assert little < 0.6 * much
    for name, gradient in wanted.items():
        assert torch.equal(grads[name], gradient), name


@pytest.mark.parametrize(
    ("machine", "told", "compiled"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_training_is_compiled_where_that_can_be_and_is_not_switched_off(machine, told, compiled):
    pool = ModelPool(compiled=machine)
    model, _ = pool.get(replace(SHAPE, compile=told), SEQ_LEN)  # traced at its first call, not here
    assert (model.base_model._compiled_call_impl is not None) == compiled


def test_the_ninth_shape_is_compiled_like_the_first():
    """PyTorch by itself goes on uncompiled then, and a worker that had met fewer shapes would find other bits."""
    torch._dynamo.reset()
    ModelPool(compiled=True)
    made = []

    def backend(graph, inputs):
        made.append(inputs[0].shape)
        return graph.forward

    double = torch.compile(lambda x: 2 * x, backend=backend, dynamic=False)
    for n in range(1, 20):
        double(torch.ones(n))
    assert len(made) == 19
