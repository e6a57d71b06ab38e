"""Preparing data: tokenising beside the tokenizers library alone; cost of finding duplicates and overlaps.

Tokenising: the same documents through codestage and through the library's `encode_batch_fast`, with
its token ids read as the library gives them and without, by turns in one run. Duplicates and overlaps:
seconds and memory for 10,000 documents, for ten times as many and so on up to those asked for, and how
they grow; each in a process of its own, so that the peak of memory is its own.

    python benchmarks/prepare.py [--documents 100_000] [--rounds 7]
"""

import argparse
import json
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from codestage.data.decontaminate import Index, Overlap, decontaminate
from codestage.data.duplicates import near_duplicates
from codestage.data.encode import Encoder, ahead
from codestage.data.shards import write_documents
from codestage.data.sources import Document, standard_library
from codestage.data.tokenizer import train_tokenizer

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("", "l", "m", "nd", "rt")]


def made(count: int, seed: int = 0) -> Iterator[Document]:
    """Documents of about 120 words; one in fifty is nearly another one."""
    rng = random.Random(seed)
    before = ""
    for i in range(count):
        text = " ".join(rng.choices(WORDS, k=rng.randint(60, 180)))
        if i % 50 == 1:
            text = before + " and more"
        before = text
        yield Document(str(i), text)


def tokenise(rounds: int) -> dict[str, float]:
    """Tokens a second of ours and of the library, and the median ratios."""
    documents = list(standard_library())
    texts = [d.text for d in documents]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        tokenizer = train_tokenizer({"code": texts}, vocab_size=8192, characters=2_000_000, out=out)

        def library(read: Callable[[list[Any]], object]) -> float:
            began = time.perf_counter()
            held = []
            for i in range(0, len(texts), 1000):
                held.append(read(tokenizer.encode_batch_fast(texts[i : i + 1000])))
            return time.perf_counter() - began

        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            encoder = Encoder(tokenizer, 512)
            meta = write_documents(ahead(encoder.documents, documents), encoder, out)
            ours = time.perf_counter() - began
            times.append((ours, library(lambda found: [e.ids for e in found]), library(len)))
    tokens = meta["tokens"]
    return {
        "tokens_per_second": tokens / statistics.median(ours for ours, _, _ in times),
        "library_tokens_per_second": tokens / statistics.median(ids for _, ids, _ in times),
        "ratio": statistics.median(ids / ours for ours, ids, _ in times),
        "ratio_without_reading_ids": statistics.median(alone / ours for ours, _, alone in times),
    }


def find_duplicates(count: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        like = near_duplicates((d.text for d in made(count)), 0.8, Path(folder))
    return int((like >= 0).sum())


def find_overlaps(count: int) -> int:
    items = {str(i): d.text[:200] for i, d in enumerate(made(2000, seed=1))}
    removed: list[Overlap] = []
    for _ in decontaminate(made(count), Index(items), removed.append):
        pass
    return len(removed)


def _measure(work: Callable[[int], int], count: int, pipe: object) -> None:
    work(100)  # what is loaded once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    found = work(count)
    seconds = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    pipe.send({"documents": count, "seconds": seconds, "megabytes": grown, "found": found})  # type: ignore[attr-defined]


def alone(work: Callable[[int], int], count: int) -> dict[str, float]:
    """Seconds and growth of memory of `work` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(work, count, theirs))
    process.start()
    answer: dict[str, float] = ours.recv()
    process.join()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7, help="of tokenising")
    asked = parser.parse_args()
    result: dict[str, object] = {"tokenise": tokenise(asked.rounds)}
    speed = result["tokenise"]
    print(
        f"tokenising: {speed['tokens_per_second'] / 1e6:.2f} M tokens/s, {speed['ratio']:.0%} of the library's own "
        f"({speed['ratio_without_reading_ids']:.0%} where the library's ids are never read)"
    )  # type: ignore[index]
    for name, work in (("near duplicates", find_duplicates), ("overlaps", find_overlaps)):
        sizes = [n for n in (10_000, 100_000, 1_000_000) if n < asked.documents] + [asked.documents]
        rows = [alone(work, n) for n in sizes]
        result[name] = rows
        for row in rows:
            each = 1e6 * row["seconds"] / row["documents"]
            print(
                f"{name}: {row['documents']:>9,} documents {row['seconds']:7.1f} s {each:6.0f} µs each {row['megabytes']:6.0f} MB"
            )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
