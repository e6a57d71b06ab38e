"""Packed trees against the plain reading: a node sees its own sequence's tokens and no others."""

import numpy as np
from codestage.evaluate.tree import common_prefix, forest
from hypothesis import given
from hypothesis import strategies as st

SEQUENCES = st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=12)


@given(SEQUENCES, st.integers(1, 20))
def test_every_node_sees_exactly_its_sequence_so_far(sequences, max_nodes):
    seen = {}
    for tree in forest(sequences, max_nodes):
        for member, path in zip(tree.members, tree.paths, strict=True):
            assert member not in seen
            seen[member] = True
            assert tree.tokens[path].tolist() == sequences[member]
            assert tree.depths[path].tolist() == list(range(len(path)))
            for depth, node in enumerate(path):
                assert np.flatnonzero(tree.visible[node]).tolist() == sorted(path[: depth + 1])
    assert set(seen) == {i for i, s in enumerate(sequences) if s}


def test_a_shared_beginning_is_stored_once():
    prompt = list(range(10))
    (tree,) = forest([[*prompt, 11, 12], [*prompt, 13], [*prompt, 11]])
    assert len(tree.tokens) == 13
    apart = forest([[*prompt, 11], [99, *prompt]])
    assert [len(tree.tokens) for tree in apart] == [11, 11]


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_common_prefix_is_the_longest(a, b):
    n = common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n in (len(a), len(b)) or a[n] != b[n]
