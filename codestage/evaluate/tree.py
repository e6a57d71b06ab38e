"""Sequences that share a beginning, packed so that the beginning is computed once.

The choices of an item differ in their last few tokens, and an item's direct prompt and its prompt
with the reasoning supplied share the question. Such sequences form a tree of tokens; a row of a
batch holds one tree, and a token attends to its ancestors only, so that every token sees exactly
what it would see alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tree:
    """One row of a batch: the tokens of some sequences, shared beginnings stored once.

    `members[k]` is the number of the sequence that `paths[k]` belongs to; `paths[k][d]` is the node
    that holds the sequence's token at depth d. A node's depth is its position in the sequence.
    """

    tokens: np.ndarray
    """[nodes] int64"""
    depths: np.ndarray
    """[nodes] int64, position ids"""
    visible: np.ndarray
    """[nodes, nodes] bool, `visible[i, j]`: j is i or an ancestor of i"""
    members: tuple[int, ...]
    paths: tuple[np.ndarray, ...]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences share from the start."""
    n = min(len(a), len(b))
    for i in range(n):
        if a[i] != b[i]:
            return i
    return n


def forest(sequences: Sequence[Sequence[int]], max_nodes: int = 512) -> list[Tree]:
    """Pack sequences into trees: one tree holds sequences that share at least half of themselves.

    Less than half is not worth a row's longer attention. Empty sequences are in no tree.
    `max_nodes` bounds a tree unless a single sequence is longer.
    """
    order = sorted(
        (i for i, s in enumerate(sequences) if len(s)), key=lambda i: tuple(sequences[i])
    )
    trees: list[Tree] = []
    group: list[tuple[int, int]] = []  # (sequence, tokens shared with the one before)
    nodes = 0
    for i in order:
        sequence = sequences[i]
        shared = common_prefix(sequences[group[-1][0]], sequence) if group else 0
        if group and (2 * shared < len(sequence) or nodes + len(sequence) - shared > max_nodes):
            trees.append(_tree(sequences, group))
            group, nodes, shared = [], 0, 0
        group.append((i, shared))
        nodes += len(sequence) - shared
    if group:
        trees.append(_tree(sequences, group))
    return trees


def _tree(sequences: Sequence[Sequence[int]], group: list[tuple[int, int]]) -> Tree:
    """The tree of sequences in lexicographic order, each with what it shares with the last one."""
    size = sum(len(sequences[i]) - shared for i, shared in group)
    tokens = np.zeros(size, dtype=np.int64)
    depths = np.zeros(size, dtype=np.int64)
    visible = np.zeros((size, size), dtype=bool)
    path = np.zeros(0, dtype=np.int64)
    paths = []
    used = 0
    for i, shared in group:
        sequence = sequences[i]
        new = np.arange(used, used + len(sequence) - shared)
        path = np.concatenate([path[:shared], new])
        tokens[new] = sequence[shared:]
        depths[new] = np.arange(shared, len(sequence))
        visible[used : used + len(new), path[:shared]] = True
        visible[used : used + len(new), used : used + len(new)] = np.tri(len(new), dtype=bool)
        paths.append(path)
        used += len(new)
    return Tree(tokens, depths, visible, tuple(i for i, _ in group), tuple(paths))
