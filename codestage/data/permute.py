"""A keyed permutation of 0..n-1 without a table: any entry alone, backwards too.

A Feistel network on the smallest power of two that holds `n`, walked until it lands inside
(cycle walking): an enciphered value that falls outside `n` is enciphered again, which keeps the map
one to one. Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002. This is for spreading
data, not for secrecy.
"""

import numpy as np

from codestage.study.seeds import child

ROUNDS = 8


def permute(name: str, seed: int, epoch: int, k: np.ndarray, n: int) -> np.ndarray:
    """Entries `k` of the permutation of 0..n-1 that belongs to (`name`, `seed`, `epoch`).

    `k` int64 `[m]`, each in 0..n-1; returns int64 `[m]`. Linear in m, whatever n is.
    """
    return _walk(np.asarray(k), n, _keys(name, seed, epoch))


def unpermute(name: str, seed: int, epoch: int, k: np.ndarray, n: int) -> np.ndarray:
    """Where the entries `k` stand: `unpermute(permute(k)) == k`."""
    return _walk(np.asarray(k), n, _keys(name, seed, epoch), backwards=True)


def _keys(name: str, seed: int, epoch: int) -> list[np.uint64]:
    return [
        np.uint64(child(seed, "permute", name, str(epoch), str(number))) for number in range(ROUNDS)
    ]


def _walk(k: np.ndarray, n: int, keys: list[np.uint64], *, backwards: bool = False) -> np.ndarray:
    assert n > 0 or k.size == 0, "nothing to permute"
    bits = max(1, (n - 1).bit_length())
    out = _feistel(k.astype(np.uint64), bits, keys, backwards)
    outside = np.flatnonzero(out >= n)
    while outside.size:  # fewer than half are outside, so this ends after some log2(m) turns
        out[outside] = _feistel(out[outside], bits, keys, backwards)
        outside = outside[out[outside] >= n]
    return out.astype(np.int64)


def _feistel(value: np.ndarray, bits: int, keys: list[np.uint64], backwards: bool) -> np.ndarray:
    """Each round changes one half by a mix of the other, so undoing it is doing it again."""
    low = np.uint64(bits // 2)
    low_mask = np.uint64((1 << (bits // 2)) - 1)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    left, right = value >> low, value & low_mask
    for number in reversed(range(ROUNDS)) if backwards else range(ROUNDS):
        if number % 2 == 0:
            left = left ^ (_mix(right ^ keys[number]) & high_mask)
        else:
            right = right ^ (_mix(left ^ keys[number]) & low_mask)
    return (left << low) | right


def _mix(value: np.ndarray) -> np.ndarray:
    """The 64-bit finaliser of Stafford's variant 13 (as in SplitMix64); wraps around on purpose."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
