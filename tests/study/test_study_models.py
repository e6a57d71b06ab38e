"""Sizes and costs, against the built model and hand-computed values."""

import pytest

from codestage.study.models import LADDER, ModelShape, parameters, shape, train_flops_per_token
from codestage.study.schema import ModelSpec
from codestage.train.model import build_model


@pytest.mark.parametrize("kv", [2, 4])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_the_built_model(kv, tied):
    made = ModelShape("llama", 64, 3, 4, kv, 160, 512, tied, "float32")
    model = build_model(made, 32, seed=0)
    assert parameters(made) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("size", "hidden", "layers", "heads"), LADDER)
def test_the_ladder_has_the_sizes_it_names(size, hidden, layers, heads):
    made = shape(ModelSpec(family="llama", size=str(size)), 32000)
    assert (made.hidden_size, made.layers, made.heads) == (hidden, layers, heads)
    assert 0.75 < parameters(made, embeddings=False) / size < 1.25


def test_flops_by_hand():
    made = ModelShape("llama", 4, 1, 1, 1, 8, 10, True, "float32")
    layer = 4 * 4 * 4 + 3 * 4 * 8  # four projections, three of the feed-forward
    norms = 2 * 4 + 4
    assert train_flops_per_token(made, 16) == 6 * (layer + norms + 10 * 4) + 6 * 1 * 16 * 4
