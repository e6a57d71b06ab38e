"""The order of a phase's rows: every prefix holds each source within one row of its share.

Two sources are easy: each row is due when the middle of its tokens is, and merged by that neither
is ever more than half a row off. More sources are joined two by two in a tree, and an error of half
a row at a node reaches a source below it scaled by the source's share of that node. A source of
weight w is therefore at most (1 + sum of w / w_a over the groups `a` it lies in, the whole left
out) / 2 rows off. `grouping` picks the tree that keeps this at one row: one was found for every
mix of up to five sources that was tried; with eight
the bound reached 1.06 rows and with twenty 1.12, but the error did not.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Tree = int | tuple["Tree", "Tree"]  # a source's number, or two subtrees
EXACT_SEARCH = 8  # sources; 2^8 ways to split are searched in some 30 ms


@dataclass(frozen=True)
class Rows:
    """Rows of a phase in order: `source`, `ordinal` (among the source's) and `tokens`, `[n]`."""

    source: np.ndarray
    ordinal: np.ndarray
    tokens: np.ndarray


def grouping(weights: Sequence[int]) -> tuple[Tree, float]:
    """The tree over the sources with positive weight, and the most rows that any can be off."""
    groups: list[tuple[float, Tree]] = [(float(w), i) for i, w in enumerate(weights) if w > 0]
    while len(groups) > EXACT_SEARCH:  # join the two lightest: they matter least
        groups.sort(key=lambda group: group[0])
        (a, left), (b, right) = groups[:2]
        groups = [(a + b, (left, right)), *groups[2:]]
    groups.sort(key=lambda group: group[0])
    _, tree = _best_split(groups, 0.0, np.inf, root=True)
    assert tree is not None, "a phase has at least one source with tokens"
    return tree, (1 + _excess(tree, weights, 0.0, root=True)) / 2


def _best_split(
    groups: list[tuple[float, Tree]], above: float, limit: float, *, root: bool = False
) -> tuple[float, Tree | None]:
    """The greatest w * sum(1 / w_a) of the best tree below `limit`; one of at most 1 will do."""
    if len(groups) == 1:
        return groups[0][0] * above, groups[0][1]
    if not root:
        above += 1 / sum(weight for weight, _ in groups)
    if groups[-1][0] * above >= limit:
        return np.inf, None
    best: tuple[float, Tree | None] = (np.inf, None)
    for chosen in range(2 ** (len(groups) - 1) - 1):
        left = [g for i, g in enumerate(groups[:-1]) if chosen >> i & 1] + [groups[-1]]
        right = [g for i, g in enumerate(groups[:-1]) if not chosen >> i & 1]
        most_left, tree_left = _best_split(left, above, min(limit, best[0]))
        if most_left >= best[0]:
            continue
        most_right, tree_right = _best_split(right, above, min(limit, best[0]))
        if tree_left is not None and tree_right is not None and most_right < best[0]:
            best = max(most_left, most_right), (tree_left, tree_right)
        if best[0] <= 1:
            break
    return best


def _leaves(tree: Tree) -> list[int]:
    return [tree] if isinstance(tree, int) else _leaves(tree[0]) + _leaves(tree[1])


def _excess(tree: Tree, weights: Sequence[int], above: float, *, root: bool = False) -> float:
    if isinstance(tree, int):
        return weights[tree] * above
    if not root:
        above += 1 / sum(weights[leaf] for leaf in _leaves(tree))
    return max(_excess(tree[0], weights, above), _excess(tree[1], weights, above))


@dataclass(frozen=True)
class _Sequence:
    """Rows of one source, or of several joined, in order: all full but for the few in `places`."""

    n_rows: int
    tokens: int
    seq_len: int
    places: np.ndarray  # int64, ascending: rows that are not full
    lacks: np.ndarray  # int64: tokens that each of those lacks
    parts: "int | tuple[_Sequence, _Sequence]"  # a source's number, or what it was joined from

    def due(self, row: np.ndarray) -> np.ndarray:
        """When rows are due, in shares of the sequence: the middle of their own tokens."""
        lacking = np.concatenate([[0], np.cumsum(self.lacks)])
        before = row * self.seq_len - lacking[np.searchsorted(self.places, row)]
        after = (row + 1) * self.seq_len - lacking[np.searchsorted(self.places, row, side="right")]
        return (after - (after - before) / 2) / self.tokens

    def due_one(self, row: int) -> float:
        return float(self.due(np.array([row]))[0])


def _join(first: _Sequence, second: _Sequence) -> _Sequence:
    """Both by when their rows are due; `first` goes first where both are due at once."""
    ahead = [
        bisect.bisect_left(range(second.n_rows), first.due_one(row), key=second.due_one)
        for row in first.places.tolist()
    ]
    behind = [
        bisect.bisect_right(range(first.n_rows), second.due_one(row), key=first.due_one)
        for row in second.places.tolist()
    ]
    places = np.concatenate(
        [first.places + np.array(ahead, np.int64), second.places + np.array(behind, np.int64)]
    )
    order = np.argsort(places)
    return _Sequence(
        first.n_rows + second.n_rows,
        first.tokens + second.tokens,
        first.seq_len,
        places[order],
        np.concatenate([first.lacks, second.lacks])[order],
        (first, second),
    )


def _taken(joined: _Sequence, m: np.ndarray) -> np.ndarray:
    """How many of the first `m` rows of a join are its first part's: int64 `[n]`.

    The first part's row j is among the first m if the second part's row m - 1 - j is not due before
    it. This holds up to some j, which lies near m times the first part's share of the tokens: off
    by at most 3/2 rows, and one more for each row that is not full.
    """
    assert not isinstance(joined.parts, int)
    first, second = joined.parts
    reach = len(joined.places) + 3
    guess = np.floor(m * (first.tokens / joined.tokens)).astype(np.int64)
    least, most = np.maximum(0, m - second.n_rows), np.minimum(m, first.n_rows)
    low = np.clip(guess - reach, least, most)
    high = np.clip(guess + reach, least, most)
    for _ in range((2 * reach).bit_length()):
        j = (low + high) // 2
        other = m - 1 - j
        row = np.minimum(j, first.n_rows - 1)
        within = first.due(row) <= second.due(np.clip(other, 0, second.n_rows - 1))
        within = (within | (other >= second.n_rows)) & (j < high)
        low, high = np.where(within, j + 1, low), np.where(within, high, j)
    return low


class FullRows:
    """A phase of sources whose rows are all full: any row in O(sources), nothing stored.

    Source s has `tokens[s]` tokens: whole rows of `seq_len`, the last one cut to what is left.
    """

    def __init__(self, tokens: Sequence[int], seq_len: int) -> None:
        self.tokens, self.seq_len = list(tokens), seq_len
        self.by_source = [-(-t // seq_len) for t in tokens]
        self.n_rows = sum(self.by_source)
        tree, self.most_off = grouping(tokens) if self.n_rows else (0, 0.0)
        self._root = self._sequence(tree)

    def _sequence(self, tree: Tree) -> _Sequence:
        if not isinstance(tree, int):
            return _join(self._sequence(tree[0]), self._sequence(tree[1]))
        n_rows = self.by_source[tree]
        lacking = n_rows * self.seq_len - self.tokens[tree]
        cut = np.array([n_rows - 1] if lacking else [], np.int64)
        lacks = np.array([lacking] if lacking else [], np.int64)
        return _Sequence(n_rows, self.tokens[tree], self.seq_len, cut, lacks, tree)

    def rows(self, slots: np.ndarray) -> Rows:
        """The rows at the places `slots` (int64 `[n]`, each below n_rows), in that order."""
        source = np.empty(len(slots), np.int16)
        ordinal = np.empty(len(slots), np.int64)

        def descend(node: _Sequence, where: np.ndarray, place: np.ndarray) -> None:
            if isinstance(node.parts, int):
                source[where], ordinal[where] = node.parts, place
            elif len(place):
                before = _taken(node, place)
                first = _taken(node, place + 1) > before
                descend(node.parts[0], where[first], before[first])
                descend(node.parts[1], where[~first], (place - before)[~first])

        descend(self._root, np.arange(len(slots)), np.asarray(slots, np.int64))
        budget = np.array(self.tokens, np.int64)[source]
        tokens = np.minimum(budget - ordinal * self.seq_len, self.seq_len).astype(np.int32)
        return Rows(source, ordinal, tokens)

    def short(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of the rows that are not full, ascending, and the tokens that each lacks."""
        return self._root.places, self._root.lacks


class ListedRows:
    """A phase in which rows differ in tokens: the same joins, made on a list of its rows.

    `rows_of[s]` int `[n_s]`: tokens of each row that source s gives, in its order, already cut.
    """

    def __init__(self, rows_of: Sequence[np.ndarray], seq_len: int) -> None:
        self.seq_len = seq_len
        self.by_source = [len(tokens) for tokens in rows_of]
        self.n_rows = sum(self.by_source)
        weights = [int(tokens.sum()) for tokens in rows_of]
        tree, self.most_off = grouping(weights) if self.n_rows else (0, 0.0)
        self._rows = self._joined(tree, rows_of)

    def _joined(self, tree: Tree, rows_of: Sequence[np.ndarray]) -> Rows:
        if isinstance(tree, int):
            tokens = rows_of[tree]
            source = np.full(len(tokens), tree, np.int16)
            return Rows(source, np.arange(len(tokens)), tokens.astype(np.int32))
        left, right = self._joined(tree[0], rows_of), self._joined(tree[1], rows_of)
        when = np.concatenate([_midpoints(left.tokens), _midpoints(right.tokens)])
        order = np.argsort(when, kind="stable")
        return Rows(
            np.concatenate([left.source, right.source])[order],
            np.concatenate([left.ordinal, right.ordinal])[order],
            np.concatenate([left.tokens, right.tokens])[order],
        )

    def rows(self, slots: np.ndarray) -> Rows:
        """The rows at the places `slots` (int64 `[n]`, each below n_rows), in that order."""
        mine = self._rows
        return Rows(mine.source[slots], mine.ordinal[slots], mine.tokens[slots])

    def short(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of the rows that are not full, ascending, and the tokens that each lacks."""
        places = np.flatnonzero(self._rows.tokens < self.seq_len)
        return places, self.seq_len - self._rows.tokens[places].astype(np.int64)


def _midpoints(tokens: np.ndarray) -> np.ndarray:
    """When each row is due, in shares of its sequence: the middle of its own tokens."""
    done = np.cumsum(tokens, dtype=np.int64)
    return (done - tokens / 2) / done[-1]
