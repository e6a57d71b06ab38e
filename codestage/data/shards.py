"""A prepared source on disk: rows of tokens that are memory-mapped, never read whole."""

import errno
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from codestage.errors import RunError

END_OF_TEXT, PAD = 0, 1  # ids of `<|endoftext|>` and `<|pad|>` in every tokenizer of a study


@dataclass(frozen=True)
class ShardMeta:
    """What `meta.json` says of a prepared source."""

    domain: str
    rows: int
    tokens: int
    """Tokens that the rows predict in one pass, padding excluded: what a dose counts."""
    documents: int
    """Documents or examples that the rows hold."""
    dropped: int
    """Examples longer than a row, left out. Always 0 for documents, which are cut instead."""
    dropped_tokens: int
    """Tokens left out: those of dropped examples, or the end of a stream that fills no row."""
    bytes: int
    """UTF-8 bytes of the texts in the rows, to turn nats per token into bits per byte."""
    longest: int
    """Tokens of the longest document or example seen, dropped ones included."""
    seq_len: int
    vocabulary: str
    """Digest of the tokenizer that made the rows."""
    token_type: str
    """uint16 or uint32."""


@dataclass(frozen=True)
class RowCounts:
    """How many rows a source has, and how many tokens each predicts."""

    rows: int
    seq_len: int
    counts: np.ndarray | None = None
    """Tokens of each row `[rows]`; None where every row holds seq_len."""

    @property
    def tokens(self) -> int:
        """Tokens of one pass."""
        return self.rows * self.seq_len if self.counts is None else int(self.counts.sum())


class Shard:
    """An open prepared source: `tokens` `[rows, seq_len + 1]`, `mask` and `counts` or None.

    Raises RunError where the files do not fit `meta.json`: a copy was cut off or mixed up.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta = read_meta(folder)
        shape = (self.meta.rows, self.meta.seq_len + 1)
        self.tokens = _mapped(folder / "rows.tokens", self.meta.token_type, shape)
        self.mask: np.ndarray | None = None
        self.counts: np.ndarray | None = None
        if (folder / "rows.mask").exists():
            self.mask = _mapped(folder / "rows.mask", "uint8", shape)
            self.counts = _mapped(folder / "rows.counts", "uint32", shape[:1])

    @property
    def row_counts(self) -> RowCounts:
        """What a mixture needs to know of this source."""
        return RowCounts(self.meta.rows, self.meta.seq_len, self.counts)


def read_meta(folder: Path) -> ShardMeta:
    """`meta.json` of a prepared source; RunError if it is missing or not one."""
    path = folder / "meta.json"
    try:
        return ShardMeta(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{path}: not a prepared source ({error}). Delete the folder {folder} and run again: "
            "it is prepared anew."
        ) from error


def write_meta(folder: Path, meta: ShardMeta) -> None:
    """Write `meta.json`, last of all files."""
    text = json.dumps(asdict(meta), indent=1) + "\n"
    append(folder / "meta.json", text.encode())


def append(path: Path, data: bytes | np.ndarray) -> None:
    """Add bytes at the end of a file; a full disk is a RunError that says how much was needed."""
    raw = np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else data
    try:
        with path.open("ab") as file:
            file.write(raw)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        needed = raw.nbytes if isinstance(raw, memoryview) else len(raw)
        raise RunError(
            f"{path}: no space left on the disk for {needed:,} more bytes. Nothing that was "
            "finished is lost; free some space (or choose another output folder) and run again."
        ) from error


def _mapped(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        needed, held = int(np.prod(shape)) * np.dtype(dtype).itemsize, path.stat().st_size
        if held == needed:
            return np.memmap(path, dtype=dtype, mode="r", shape=shape)
        why = f"{held:,} bytes, but meta.json says {needed:,}"
    except OSError as error:
        why = str(error)
    raise RunError(
        f"{path}: damaged ({why}). Delete the folder {path.parent} and run again: "
        "it is prepared anew."
    )
