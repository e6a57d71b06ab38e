"""Attention by products over pieces of the queries, against PyTorch's own."""

import pytest
import torch
from torch import nn

from codestage.attention import bias_of, products_attention


@pytest.mark.parametrize("before", [0, 1, 50])
@pytest.mark.parametrize("length", [1, 63, 64, 200, 700])
@pytest.mark.parametrize("groups", [1, 3])
def test_pieces_are_plain_attention_also_after_keys_that_came_before(length, before, groups):
    torch.manual_seed(0)
    query = torch.randn(2, 6, length, 8)
    key, value = (torch.randn(2, 6 // groups, before + length, 8) for _ in range(2))
    seen = torch.rand(2, 1, length, before + length) < 0.5
    seen &= torch.ones(length, before + length, dtype=torch.bool).tril(before)
    seen |= torch.ones(length, before + length, dtype=torch.bool).tril(before).triu(before)  # itself
    wide = [t.repeat_interleave(groups, dim=1) for t in (key, value)]
    wanted = nn.functional.scaled_dot_product_attention(query, *wide, attn_mask=seen)
    found, _ = products_attention(nn.Module(), query, key, value, bias_of(seen))
    torch.testing.assert_close(found.transpose(1, 2), wanted, atol=1e-5, rtol=1e-5)
