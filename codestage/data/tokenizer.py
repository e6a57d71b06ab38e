"""The one tokenizer of a study: byte-level BPE trained on its own sources, or one that exists already."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from codestage.data.instruct import PLAIN_JINJA
from codestage.data.place import place_of
from codestage.errors import UserError
from codestage.study.schema import TokenizerSpec

SPECIAL = ("<|endoftext|>", "<|pad|>")
SAMPLE_CHARACTERS = 4_000_000
"""Characters taken from each source at most: sources weigh alike, and training stays short."""
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "vocab*",
    "merges.txt",
    "chat_template*",
    "*.model",
)

MARKS = "marks.json"


@dataclass(frozen=True)
class Marks:
    """Ids that part documents. Where `begin` and `end` are one token it stands between them."""

    begin: int = 0
    end: int = 0
    pad: int = 1


OWN = Marks()
"""Of a tokenizer that is trained here: `SPECIAL`."""


def train_tokenizer(
    texts: Mapping[str, Iterable[str]], *, vocab_size: int, characters: int, out: Path
) -> Tokenizer:
    """Train on the beginnings of each source's (shuffled) texts and write a Transformers folder.

    `characters` is the size of the smallest source: as much is taken of each, within bounds.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    limit = min(SAMPLE_CHARACTERS, max(characters, 200_000))
    tokenizer.train_from_iterator(
        (text for name in sorted(texts) for text in _beginning(texts[name], limit)), trainer
    )
    _save(tokenizer, out)
    return load_tokenizer(out)


def _save(tokenizer: Tokenizer, out: Path) -> None:
    """Write `tokenizer` so that `AutoTokenizer.from_pretrained(out)` loads it."""
    from transformers import PreTrainedTokenizerFast

    end, pad = SPECIAL
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=pad
    )
    fast.chat_template = PLAIN_JINJA
    save_tokenizer(fast, out)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in `folder`; what looks like a special token in a text is read as plain text, and
    texts are neither cut nor filled up, whatever the folder says.

    Raises:
        UserError: there is none.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        raise UserError(f"{path} is missing; {folder} is no tokenizer folder")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def existing_tokenizer(spec: TokenizerSpec, folder: Path) -> Any:
    """The Transformers tokenizer that `spec` names: a folder, a .gguf, or one of the hub.

    Raises:
        UserError: there is none, it has no fast form, or no end token.
    """
    from transformers import AutoTokenizer

    place, more = place_of(spec, folder)
    try:
        found: Any = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **more)
    except Exception as error:  # readers of foreign files raise anything
        raise UserError(f"{place}: no tokenizer that Transformers can read: {error}") from None
    if not found.is_fast:
        raise UserError(f"{place}: has no tokenizer.json, which fast tokenising needs")
    if found.eos_token_id is None:
        raise UserError(f"{place}: its configuration names no eos_token, which ends documents")
    if spec.chat_template and not found.chat_template:
        raise UserError(f"{place}: has no chat template; leave chat_template out")
    return found


def marks_of(tokenizer: Any) -> Marks:
    """Documents begin with the begin token where the tokenizer puts one before a text by itself, and
    else with the end token of the document before.
    """
    end, pad = int(tokenizer.eos_token_id), tokenizer.pad_token_id
    return Marks(
        int(tokenizer.bos_token_id) if puts_begin(tokenizer) else end,
        end,
        end if pad is None else int(pad),
    )


def puts_begin(tokenizer: Any) -> bool:
    """Whether a Transformers tokenizer puts its begin token before a text by itself."""
    begin = tokenizer.bos_token_id
    return begin is not None and tokenizer("a", add_special_tokens=True)["input_ids"][0] == begin


def save_tokenizer(tokenizer: Any, out: Path) -> None:
    """Write a Transformers tokenizer and its marks into `out`."""
    tokenizer.save_pretrained(out)
    (out / MARKS).write_text(json.dumps(asdict(marks_of(tokenizer))))


def load_marks(folder: Path) -> Marks:
    """The marks of a tokenizer folder that `save_tokenizer` wrote."""
    return Marks(**json.loads((folder / MARKS).read_text()))


def _beginning(texts: Iterable[str], limit: int) -> list[str]:
    taken, size = [], 0
    for text in texts:
        if size >= limit:
            break
        taken.append(text)
        size += len(text)
    return taken
