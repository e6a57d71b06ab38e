"""One byte-level BPE tokenizer for a whole study, trained on its own sources."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from codestage.errors import UserError

SPECIAL = ("<|endoftext|>", "<|pad|>")
SAMPLE_CHARACTERS = 4_000_000
"""Characters taken from each source at most: sources weigh alike, and training stays short."""


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
    save(tokenizer, out)
    return tokenizer


def save(tokenizer: Tokenizer, out: Path) -> None:
    """Write `tokenizer` so that `AutoTokenizer.from_pretrained(out)` loads it."""
    from transformers import PreTrainedTokenizerFast

    end, pad = SPECIAL
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=pad
    )
    fast.save_pretrained(out)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in `folder`; UserError where there is none."""
    path = folder / "tokenizer.json"
    if not path.exists():
        raise UserError(f"{path} is missing; {folder} is no tokenizer folder")
    return Tokenizer.from_file(str(path))


def _beginning(texts: Iterable[str], limit: int) -> list[str]:
    taken, size = [], 0
    for text in texts:
        if size >= limit:
            break
        taken.append(text)
        size += len(text)
    return taken
