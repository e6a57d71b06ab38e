"""A tokenizer as others save theirs, for tests of what comes from outside."""

from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from codestage.data.tokenizer import train_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [f"Question: What is {i} and {i}?\nAnswer: It is {2 * i}. Count on." for i in range(99)]


def foreign(folder, *, template=CHATML, begin=False):
    """A tokenizer as others save theirs: end token apart from the begin token, a chat template."""
    texts = {"a": TEXTS}
    trained = train_tokenizer(texts, vocab_size=300, characters=2000, out=folder / "plain")
    if begin:
        trained.add_special_tokens(["<s>"])
        number = trained.token_to_id("<s>")
        trained.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", number)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=trained, eos_token="<|im_end|>", **({"bos_token": "<s>"} if begin else {})
    )
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = template
    fast.save_pretrained(folder / "saved")
    return folder / "saved"
