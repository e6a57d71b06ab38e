"""Documents and examples straight to a folder of rows."""

from codestage.data.encode import Encoder, ahead
from codestage.data.shards import write_documents, write_examples


def prepare_documents(documents, tokenizer, *, seq_len, out, **more):
    encoder = Encoder(tokenizer, seq_len, **more)
    return write_documents(ahead(encoder.documents, documents), encoder, out)


def prepare_examples(examples, tokenizer, *, seq_len, out, **more):
    encoder = Encoder(tokenizer, seq_len, **more)
    return write_examples(ahead(encoder.examples, examples), encoder, out)
