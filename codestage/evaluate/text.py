"""Between text and token ids, for evaluation: what training sees is what evaluation asks with."""

from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

from codestage.errors import UserError

END = "<|endoftext|>"


class TextCodec:
    """A tokenizer with the one convention of documents: the end token stands before the text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        end = tokenizer.token_to_id(END)
        if end is None:
            raise UserError(
                f"the tokenizer has no {END} token, with which every document starts; "
                "use the tokenizer that the checkpoint was trained with"
            )
        self.end: int = end
        self.piece = cache(self._piece)

    @classmethod
    def load(cls, path: Path) -> "TextCodec":
        """From a tokenizer.json, or the folder that holds one."""
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"no tokenizer at {file}; name a tokenizer.json or its folder")
        try:
            return cls(Tokenizer.from_file(str(file)))
        except Exception as error:  # the library raises bare Exception for every malformed file
            if isinstance(error, UserError):
                raise
            raise UserError(f"{file} is not a tokenizer ({error}); make it anew") from error

    def prompt(self, text: str) -> list[int]:
        """The end token, then the text: how a document starts."""
        return [self.end, *self.continuation(text)]

    def continuation(self, text: str) -> list[int]:
        """The text alone. Split from its prompt at a space, so both are cut as training cut them."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special tokens shown."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def _piece(self, token: int) -> str:
        return self.decode([token])
