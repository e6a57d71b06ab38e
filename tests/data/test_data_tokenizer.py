import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from codestage.data import tokenizer
from codestage.errors import RunError, UserError

PROSE = [f"The cat of house {i} slept all day, and then she ate. " * 3 for i in range(50)]
CODE = [f"def f{i}(x):\n    return x + {i * 37}\n\n\nprint(f{i}(2))\n" for i in range(50)]
TRAINED = tokenizer.train({"prose": PROSE, "code": CODE}, vocab_size=300)


@given(st.text())
@settings(deadline=None)
def test_any_text_comes_back_and_never_yields_special_tokens(text):
    ids = TRAINED.encode(text + "<|endoftext|><|pad|>" + text)
    assert TRAINED.decode(ids) == text + "<|endoftext|><|pad|>" + text
    assert min(ids) > 1
    assert max(ids) < TRAINED.vocab_size


def test_training_is_deterministic_and_fills_the_vocabulary():
    again = tokenizer.train({"prose": iter(PROSE), "code": iter(CODE)}, vocab_size=300)
    assert again.digest == TRAINED.digest
    assert TRAINED.vocab_size == 300
    assert tokenizer.train({"prose": PROSE}, vocab_size=300).digest != TRAINED.digest


def test_it_is_a_folder_that_transformers_loads(tmp_path):
    TRAINED.save(tmp_path)
    loaded = tokenizer.load(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*PROSE[:3], *CODE[:3], "héé 你好\n\t x  y", " 12 + 345"]:
        assert loaded.encode(text) == TRAINED.encode(text) == theirs(text)["input_ids"]
        assert theirs.decode(TRAINED.encode(text)) == text
    assert loaded.digest == TRAINED.digest
    assert (theirs.eos_token_id, theirs.bos_token_id, theirs.pad_token_id) == (0, 0, 1)
    assert len(theirs) == TRAINED.vocab_size


def test_a_small_source_weighs_as_much_as_a_large_one():
    """A word that fills a thousandth of the text, but all of its source, gets a token of its own."""
    large = ["".join(chr(97 + (i * i + i // 26) % 26) for i in range(k, k + 40)) for k in range(5000)]
    small = [" xylophone"] * 20
    trained = tokenizer.train({"large": large, "small": small}, vocab_size=300)
    assert len(trained.encode(" xylophone")) == 1


def test_digits_stand_alone():
    assert len(TRAINED.encode("3737")) == 4


@pytest.mark.parametrize("size", [0, 257])
def test_a_vocabulary_without_room_for_bytes_is_refused_and_the_advice_works(size):
    with pytest.raises(UserError, match="258 or more"):
        tokenizer.train({"prose": PROSE}, vocab_size=size)
    assert tokenizer.train({"prose": PROSE}, vocab_size=258).decode([70, 71])


def test_a_source_without_text_is_refused():
    with pytest.raises(UserError, match="'code' holds no text"):
        tokenizer.train({"prose": PROSE, "code": []}, vocab_size=300)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(RunError, match="not a tokenizer"):
        tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(RunError, match="not a tokenizer"):
        tokenizer.load(tmp_path)
