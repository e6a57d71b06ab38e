"""Named child seeds: every random choice has a name, so arms share it or don't, on purpose."""

import hashlib


def child(seed: int, *names: str) -> int:
    """A 63-bit seed for the choice called `names` under `seed`.

    Children of different names are independent; the same names give the same seed in every
    arm, process and version of Python (BLAKE2b of the UTF-8 text, not `hash`).
    """
    text = "\x1f".join([str(seed), *names])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
