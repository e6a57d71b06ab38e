"""The tokenizer: any text comes back, training repeats, Transformers loads it."""

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from codestage.data.tokenizer import load_tokenizer, train_tokenizer
from codestage.errors import UserError

PROSE = [f"The cat of house {i} slept all day, and then she ate. " * 3 for i in range(50)]
CODE = [f"def f{i}(x):\n    return x + {i * 37}\n\n\nprint(f{i}(2))\n" for i in range(50)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer({"prose": PROSE, "code": CODE}, vocab_size=300, characters=10_000, out=out)
    return out


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(deadline=None)
def test_any_text_comes_back(folder, text):
    tokenizer = load_tokenizer(folder)
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_training_repeats_to_the_byte_and_fills_the_vocabulary(folder, tmp_path):
    again = train_tokenizer(
        {"code": CODE, "prose": PROSE}, vocab_size=300, characters=10_000, out=tmp_path
    )
    assert again.get_vocab_size() == 300
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_transformers_loads_it_and_encodes_alike(folder):
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for text in [*PROSE[:3], *CODE[:3], "héé 你好\n\t x  y", " 12 + 345"]:
        assert ours.encode(text).ids == theirs(text)["input_ids"]
    assert (theirs.eos_token_id, theirs.bos_token_id, theirs.pad_token_id) == (0, 0, 1)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(UserError, match="no tokenizer folder"):
        load_tokenizer(tmp_path)
