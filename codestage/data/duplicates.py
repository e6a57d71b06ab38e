"""Near-duplicate documents by MinHash, in memory that does not hold them.

Signatures of word shingles (rensa) lie in a file; documents whose signatures agree in a whole band
are compared (locality-sensitive hashing, Leskovec, Rajaraman and Ullman 2014, section 3.4). Memory is
some sixteen bytes a document, time is linear but for sorting each band.
"""

import re
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from rensa import RMinHash

PERMUTATIONS, SHINGLE, CHUNK = 128, 5, 2000
WORDS = re.compile(r"\w+|[^\w\s]")


def near_duplicates(texts: Iterable[str], threshold: float, folder: Path) -> np.ndarray:
    """`[documents]` int64: the earlier document that each one is like, or -1.

    Likeness is the estimated Jaccard similarity of the sets of five words in a row. `folder` takes the
    signatures for the time being (512 bytes a document).
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        count = 0
        for matrix in _signatures(texts):
            matrix.tofile(file)
            count += len(matrix)
        like = np.full(count, -1, dtype=np.int64)
        if count:
            file.flush()
            signatures = np.memmap(file, np.uint32, "r", shape=(count, PERMUTATIONS))
            for band in _bands(threshold):
                _compare_band(signatures, band, threshold, like)
    return like


def shingles(text: str) -> list[str]:
    """Every five words or signs in a row, in lower case; a shorter text is one shingle."""
    words = WORDS.findall(text.lower())
    return [" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))]


def _signatures(texts: Iterable[str]) -> Iterator[np.ndarray]:
    stream = iter(texts)
    while chunk := [shingles(text) for text in islice(stream, CHUNK)]:
        matrix = RMinHash.digest_matrix_from_token_sets(chunk, PERMUTATIONS, 42)
        yield np.array(matrix.to_rows(), dtype=np.uint32)


def _bands(threshold: float) -> list[slice]:
    """Bands so wide that documents at the threshold share one in all but one case in a hundred."""
    rows = 1
    while rows < 32 and (1 - threshold ** (rows * 2)) ** (PERMUTATIONS // (rows * 2)) < 0.01:
        rows *= 2
    return [slice(i, i + rows) for i in range(0, PERMUTATIONS, rows)]


def _compare_band(signatures: np.memmap, band: slice, threshold: float, like: np.ndarray) -> None:
    """Mark documents that share this band with an earlier, similar one."""
    mixed = np.zeros(len(signatures), dtype=np.uint64)
    for column in range(band.start, band.stop):
        mixed ^= signatures[:, column].astype(np.uint64)
        mixed *= np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    edges = np.flatnonzero(np.diff(mixed[order])) + 1
    starts = np.concatenate([[0], edges])
    ends = np.concatenate([edges, [len(order)]])
    for group in np.flatnonzero(ends - starts > 1):
        members = order[starts[group] : ends[group]]
        members = members[like[members] < 0]
        while len(members) > 1:  # the first is kept; what is like it goes; the rest are compared again
            first, rest = members[0], members[1:]
            agree = (signatures[rest] == signatures[first]).mean(axis=1) >= threshold
            like[rest[agree]] = first
            members = rest[~agree]
