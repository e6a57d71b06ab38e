"""What a store of files needs everywhere: a file's checksum, and a write that has reached the disk."""

import hashlib
import os
from pathlib import Path


def file_digest(path: Path) -> str:
    """Checksum of a file's bytes, 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def sync(path: Path) -> None:
    """Have the system write a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
