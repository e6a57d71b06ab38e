"""Files of documents: finding them, here or in a bucket, and reading their rows one at a time."""

import hashlib
import io
import json
import lzma
import re
import tarfile
import tempfile
import zipfile
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
import numpy as np
from identify import identify

from codestage.errors import UserError

Row = dict[str, Any]
Bad = Callable[[str], None]
"""Told of what cannot be read; it raises, or counts and lets the reader go on."""
MEMBER_BYTES = 2_000_000
"""Larger members of an archive are data rather than source code; they are left out."""


@dataclass(frozen=True)
class File:
    """A file of a known kind: `path` as its file system knows it, `name` as people do."""

    fs: Any
    path: str
    name: str

    def identity(self) -> str:
        """Hash of a local file's bytes and of what its name says of how they are read; of a remote one's, what its
        store says changes with them. The index of a token file is part of it.
        """
        index = [_index(self.path)] if self.path.endswith(".bin") else []
        try:
            if not self.is_local:
                return " ".join(str(self.fs.ukey(path)) for path in (self.path, *index))
            found = hashlib.blake2b(_kind(self.path).encode())
            for path in (self.path, *index):
                with self.fs.open(path, "rb") as file:
                    found.update(hashlib.file_digest(file, "blake2b").digest())
            return found.hexdigest()[:32]
        except Exception as error:
            if self.is_local and not isinstance(error, OSError):
                raise
            raise UserError(f"{self.name}: cannot be read: {error}; check the file") from None

    @property
    def is_local(self) -> bool:
        protocol = self.fs.protocol
        return "file" in ([protocol] if isinstance(protocol, str) else protocol)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The bytes, decompressed where the name ends in .gz or .zst."""
        kinds = {".gz": "gzip", ".zst": "zstd"}
        compression = kinds.get(PurePosixPath(self.path).suffix) if not self.is_archive else None
        try:
            with fsspec.open_files([self.fs.unstrip_protocol(self.path)], compression=compression)[
                0
            ] as f:
                yield f
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(
                f"{self.name}: cannot be read: {error}; mend or leave out the file"
            ) from None
        except Exception as error:
            if isinstance(error, UserError):
                raise
            if type(error).__name__ == "ZstdError" or not self.is_local:
                told = f"{self.name}: cannot be read: {error}; mend or leave out the file"
                raise UserError(told) from None
            raise

    @property
    def is_archive(self) -> bool:
        return self.path.endswith(ARCHIVES)

    def rows(self, bad: Bad) -> Iterator[Row]:
        """The rows of the file, in order; `bad` is told of a line, or the rest, that cannot be read."""
        reader = _reader(self.path)
        assert reader
        try:
            yield from reader(self, bad)
        except UserError as error:
            bad(str(error))


def find(pattern: str, folder: Path | None) -> list[File]:
    """Files behind a path, a glob, a folder or an address such as s3://bucket/part-*.jsonl.zst.

    Paths are relative to `folder`; files come sorted by name, those of unknown kinds are left out, but
    for licences.

    Raises:
        UserError: if there is none, or the place cannot be reached.
    """
    address = pattern if "://" in pattern else str((folder or Path()) / pattern)
    try:
        fs, path = fsspec.core.url_to_fs(address)
        found = sorted(fs.glob(path)) if any(sign in path for sign in "*?[") else [path]
        paths = [
            p
            for f in found
            for p in (sorted(fs.find(f)) if fs.isdir(f) else [f] if fs.exists(f) else [])
        ]
    except Exception as error:  # each kind of store raises what it likes
        if "://" not in pattern and not isinstance(error, OSError | ImportError | ValueError):
            raise
        raise UserError(f"{pattern}: cannot be reached: {error}") from None
    files = [File(fs, p, _name(p, folder)) for p in paths if _reader(p) or is_licence(p)]
    if not any(_reader(p) for p in paths):
        kinds = ", ".join([*READERS, *ARCHIVES, "source code"])
        raise UserError(f"{pattern}: no file of a known kind ({kinds}); check path and folder")
    return files


def _name(path: str, folder: Path | None) -> str:
    """The path as people know it; bytes that are no UTF-8 are written out, since documents' ids are text."""
    inside = "" if folder is None else f"{folder.resolve()}/"
    return as_text(path.removeprefix(inside))


def as_text(said: str) -> str:
    """What UTF-8 can hold: halves of characters, as in names of other encodings, are written out."""
    return said.encode("utf-8", "backslashreplace").decode()


def _lines(file: File) -> Iterator[str]:
    try:
        with file.open() as binary:
            yield from io.TextIOWrapper(binary, encoding="utf-8", newline="\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file.name}: not UTF-8 ({error.reason}); convert the file") from None


def _jsonl(file: File, bad: Bad) -> Iterator[Row]:
    """Line by line, so that one in another encoding takes no other with it."""
    with file.open() as binary:
        lines = io.BufferedReader(binary)  # type: ignore[type-var]  # not every decompressor has lines
        for number, line in enumerate(lines, 1):
            line = line.removeprefix(BOM_UTF8) if number == 1 else line
            if line.strip():
                try:
                    row = _parse(file, line.decode("utf-8"), number)
                except UnicodeDecodeError as error:
                    bad(f"{file.name}:{number}: not UTF-8 ({error.reason}); convert that line")
                except UserError as error:
                    bad(str(error))
                else:
                    yield row


def _json(file: File, bad: Bad) -> Iterator[Row]:
    rows = _parse(file, "".join(_lines(file)).removeprefix("\ufeff"), 1)
    if not isinstance(rows, list):
        raise UserError(f"{file.name}: holds a {type(rows).__name__}, not a list of rows")
    yield from rows


def _parse(file: File, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        at = line + getattr(error, "lineno", 1) - 1
        raise UserError(f"{file.name}:{at}: not JSON ({error}); mend or remove that line") from None


def _parquet(file: File, bad: Bad) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with file.open() as binary, pyarrow.parquet.ParquetFile(binary) as table:
            for batch in table.iter_batches(batch_size=1000):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file.name}: not a readable Parquet file: {error}") from None


def _arrow(file: File, bad: Bad) -> Iterator[Row]:
    """Arrow's file or stream format; a saved `datasets` folder holds the latter."""
    import pyarrow

    try:
        with file.open() as binary:
            is_file = binary.read(6) == b"ARROW1"
            binary.seek(0)
            reader: Any = pyarrow.ipc.open_file(binary) if is_file else pyarrow.ipc.open_stream(binary)
            batches = (
                (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else reader
            )
            for batch in batches:
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file.name}: not a readable Arrow file: {error}") from None


MEGATRON = b"MMIDIDX\x00\x00"
DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
"""Codes of Megatron's index files; 6 and 7 are floating-point numbers, which no tokens are."""


def _index(path: str) -> str:
    return path.removesuffix(".bin") + ".idx"


def _megatron(file: File, bad: Bad) -> Iterator[Row]:
    """Documents of token ids in Megatron's .bin, cut as the .idx beside it says."""
    index = _index(file.path)
    try:
        with file.fs.open(index, "rb") as header:
            raw = header.read()
    except OSError as error:
        raise UserError(f"{file.name}: its index {index} cannot be read: {error}") from None
    if raw[:9] != MEGATRON or len(raw) < 34 or raw[17] not in DTYPES:
        raise UserError(f"{file.name}: {index} is no index of Megatron's; make it again")
    dtype = np.dtype(DTYPES[raw[17]])
    sequences, documents = (int(n) for n in np.frombuffer(raw, np.int64, 2, 18))
    if len(raw) < 34 + 12 * sequences + 8 * documents:
        raise UserError(f"{file.name}: {index} is cut off; make it again")
    sizes = np.frombuffer(raw, np.int32, sequences, 34)
    pointers = np.frombuffer(raw, np.int64, sequences, 34 + 4 * sequences)
    ends = np.frombuffer(raw, np.int64, documents, 34 + 12 * sequences)
    with file.open() as binary:
        for first, last in pairwise(ends.tolist()):
            binary.seek(int(pointers[first]) if first < sequences else 0)
            wanted = int(sizes[first:last].sum())
            held = binary.read(wanted * dtype.itemsize)
            if len(held) < wanted * dtype.itemsize:
                raise UserError(f"{file.name}: holds fewer tokens than {index} says; copy it again")
            yield {"input_ids": np.frombuffer(held, dtype).tolist()}


def _text(file: File, bad: Bad) -> Iterator[Row]:
    yield {"text": "".join(_lines(file)), "path": file.name}


def _archive(file: File, bad: Bad) -> Iterator[Row]:
    """Text files of a source tree in a .tar.gz, .whl or .zip, with the licence nearest above each."""
    licences = _licences_inside(file)
    try:
        with file.open() as binary:
            for path, content in _members(file, binary, is_source):
                with suppress(UnicodeDecodeError):  # few files, mostly those that test encodings
                    row = {"text": content.decode("utf-8"), "path": f"{file.name}/{path}"}
                    licence = nearest(path, licences)
                    yield row if licence is None else row | {"license": licence}
    except ARCHIVE_ERRORS as error:
        raise UserError(f"{file.name}: not a readable archive: {error}") from None


ARCHIVE_ERRORS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,  # a compression that Python lacks
    RuntimeError,  # a password
    lzma.LZMAError,
    zlib.error,
)


def _members(
    file: File, binary: IO[bytes], wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    """Name and content of the members with a name that is wanted; empty and large ones are left out."""
    if file.path.endswith((".whl", ".zip")):
        with zipfile.ZipFile(binary) as archive:
            for entry in archive.infolist():
                if 0 < entry.file_size <= MEMBER_BYTES and wanted(entry.filename):
                    yield entry.filename, archive.read(entry)
        return
    with tarfile.open(fileobj=binary, mode="r:*") as tar:
        for member in tar:
            if member.isfile() and 0 < member.size <= MEMBER_BYTES and wanted(member.name):
                held = tar.extractfile(member)
                assert held
                yield member.name, held.read()


def _licences_inside(file: File) -> dict[str, str]:
    """Folders of an archive and their licences, which may stand behind what they rule: a pass of its own.

    A wheel's stands in its .dist-info, and rules all of it.
    """
    found = []
    # what cannot be read is told when the documents are
    with suppress(UserError, *ARCHIVE_ERRORS), file.open() as binary:
        for path, content in _members(file, binary, is_licence):
            ruling = WHEEL_LICENCE.sub("", path) if file.path.endswith(".whl") else path
            found.append((ruling, _licence(content)))
    return by_folder(found)


WHEEL_LICENCE = re.compile(r"^[^/]+\.dist-info/(licenses/)?(?=[^/]+$)")


def is_licence(name: str) -> bool:
    """Whether a file is a licence by its name: LICENSE-MIT, COPYING.LESSER; license_utils.py is none."""
    path = PurePosixPath(name)
    if not path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")):
        return False
    rest = "x" + path.name[len("LICENSE") :]
    known = _reader(rest) or identify.tags_from_filename(rest)
    return path.suffix.lower() in (".txt", ".md", ".rst") or not known


def licence_in(file: File) -> str:
    """The SPDX name of the licence that a file holds; empty where it is none that is known."""
    with suppress(UserError), file.open() as binary:
        return _licence(binary.read(MEMBER_BYTES))
    return ""


def _licence(content: bytes) -> str:
    """The SPDX name of a licence's text, compared with the known ones; empty where none is like it."""
    with tempfile.NamedTemporaryFile() as held:  # identify compares files
        held.write(content)
        held.flush()
        try:
            return str(identify.license_id(held.name) or "")
        except UnicodeDecodeError:
            return ""


def by_folder(licences: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Folder -> licence, from the paths of licence files; of several in one, the last that is known."""
    found: dict[str, str] = {}
    for path, licence in sorted(licences):
        folder = str(PurePosixPath(path).parent)
        found[folder] = licence or found.get(folder, "")
    return found


def nearest(path: str, licences: Mapping[str, str]) -> str | None:
    """The licence of the nearest folder above `path` that has one, empty if unknown; None if none has."""
    folders = map(str, PurePosixPath(path).parents)
    return next((licences[folder] for folder in folders if folder in licences), None)


def is_source(name: str) -> bool:
    """Whether a file's name is that of source code, markup or prose, and no data or binary."""
    tags = identify.tags_from_filename(name)
    return "text" in tags and not tags & {"json", "csv", "svg", "lock"}


ARCHIVES = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz", ".whl", ".zip")
READERS: dict[str, Callable[[File, Bad], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".bin": _megatron,
    ".txt": _text,
    ".md": _text,
}


def _kind(path: str) -> str:
    """What decides how a file is read: its suffix without the compression's, or its name if it has none."""
    plain = PurePosixPath(path.removesuffix(".gz").removesuffix(".zst"))
    return next((kind for kind in ARCHIVES if path.endswith(kind)), plain.suffix or plain.name)


def _reader(path: str) -> Callable[[File, Bad], Iterator[Row]] | None:
    if path.endswith(ARCHIVES):
        return _archive
    plain = path.removesuffix(".gz").removesuffix(".zst")
    known = READERS.get(PurePosixPath(plain).suffix)
    return known or (_text if is_source(plain) else None)
