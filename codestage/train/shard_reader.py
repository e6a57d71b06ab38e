"""Reading what `torch.distributed.checkpoint` wrote, as data: its index is a pickle, which could hold any code."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from codestage.errors import RunError

INDEX = ".metadata"
"""The file that says which tensor stands where; written last: shards without it are not whole."""
KNOWN = {
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "pathlib": {"PosixPath"},
    "pathlib._local": {"PosixPath"},  # where Python 3.13 keeps it
}
"""What an index of tensors is made of; beside these only torch's number types."""


class _Index(pickle.Unpickler):
    """Makes what is `KNOWN` and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        number_type = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not number_type and name not in KNOWN.get(module, ()):
            raise pickle.UnpicklingError(f"its index names {module}.{name}, which is no part of one")
        return super().find_class(module, name)


class ShardReader(FileSystemReader):
    """Reads tensors and nothing else; torch itself reads their values without code of theirs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index.

        Raises:
            RunError: it is damaged, or holds more than tensors.
        """
        try:
            with (self._folder / INDEX).open("rb") as file:
                found = _Index(file).load()
            named = found.state_dict_metadata.values()
            if not all(isinstance(entry, TensorStorageMetadata) for entry in named):
                raise pickle.UnpicklingError("it holds more than tensors")
            found.storage_meta = getattr(found, "storage_meta", None) or StorageMeta()
            found.storage_meta.load_id = self.load_id
        except Exception as error:  # damaged pickles raise anything
            raise RunError(f"{self._folder}: no readable checkpoint ({error}); remove it") from None
        result: Metadata = found
        return result
