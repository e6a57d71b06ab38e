"""One byte-level BPE tokenizer for all arms of a study, in a folder that Transformers loads."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from codestage.data.shards import END_OF_TEXT, PAD
from codestage.errors import RunError, UserError

SPECIAL = ("<|endoftext|>", "<|pad|>")  # ids 0 and 1
SMALLEST = len(SPECIAL) + 256  # every byte has a token, so nothing is ever unknown
# Words with the space before them, digits one by one (so that numbers have places), runs of signs,
# and runs of spaces but for the one that belongs to the next word (so that indentation is short).
SPLIT = r"'(?:[sdmt]|ll|ve|re)\b| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


class Tokenizer:
    """Text to token ids and back. Text never yields the special tokens, whatever it says."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._inner = inner
        self._inner.encode_special_tokens = True  # `<|endoftext|>` in a document is plain text
        self.vocab_size: int = inner.get_vocab_size()
        self.digest = hashlib.blake2b(inner.to_str().encode(), digest_size=16).hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        return [encoding.ids for encoding in self._inner.encode_batch_fast(list(texts))]

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without special tokens."""
        return self.encode_batch([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; special tokens appear by name, bytes that are no UTF-8 as U+FFFD."""
        return str(self._inner.decode(list(ids), skip_special_tokens=False))

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and what `transformers.AutoTokenizer.from_pretrained` needs."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIAL[END_OF_TEXT],
            "eos_token": SPECIAL[END_OF_TEXT],
            "pad_token": SPECIAL[PAD],
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer.json").write_text(self._inner.to_str(), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def train(
    sources: Mapping[str, Iterable[str]], *, vocab_size: int, characters: int = 10_000_000
) -> Tokenizer:
    """Train on the sources with equal weight, so that no domain is told in longer tokens by size.

    Each source gives its first texts up to `characters`; one that has fewer than the others is
    repeated until it has as many. The vocabulary is smaller than `vocab_size` where the texts hold
    no more pairs to join. Raises UserError for a vocabulary without room for all bytes, or no text.
    """
    if vocab_size < SMALLEST:
        raise UserError(
            f"tokenizer: vocab_size is {vocab_size:,}, but {SMALLEST} tokens are needed for the "
            f"256 bytes and {len(SPECIAL)} special tokens. Set vocab_size to {SMALLEST} or more."
        )
    samples = {name: _sample(texts, characters) for name, texts in sources.items()}
    sizes = {name: sum(map(len, sample)) for name, sample in samples.items()}
    for name, size in sizes.items():
        if not size:
            raise UserError(
                f"tokenizer: source {name!r} holds no text to learn from. Add documents to it, or "
                "take it out of the study."
            )
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    most = max(sizes.values(), default=0)
    equal = (text for sample in samples.values() for text in _sample(itertools.cycle(sample), most))
    inner.train_from_iterator(equal, trainer)
    return Tokenizer(inner)


def load(folder: Path) -> Tokenizer:
    """Open a tokenizer folder; RunError if it is none, or its special tokens are not 0 and 1."""
    path = folder / "tokenizer.json"
    try:
        inner = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception for a file that it cannot parse
        raise RunError(
            f"{path}: not a tokenizer ({error}). Delete the folder {folder} and run again: it is "
            "made anew."
        ) from error
    ids = tuple(inner.token_to_id(token) for token in SPECIAL)
    if ids != (END_OF_TEXT, PAD):
        raise RunError(
            f"{path}: {SPECIAL[0]} and {SPECIAL[1]} must be tokens {END_OF_TEXT} and {PAD}, but "
            f"are {ids[0]} and {ids[1]}. Use a tokenizer that codestage trained."
        )
    return Tokenizer(inner)


def _sample(texts: Iterable[str], characters: int) -> list[str]:
    """The first texts up to `characters`; the last one is cut."""
    sample, left = [], characters
    for text in texts:
        if left <= 0:
            break
        sample.append(text[:left])
        left -= len(sample[-1])
    return sample
