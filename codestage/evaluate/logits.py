"""From the last hidden states to logits, as a model's own forward pass does it."""

from torch import Tensor
from transformers import PreTrainedModel


def logits_of(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits [places, vocabulary] of hidden states [places, width].

    Cohere, Granite and Gemma scale or bend what their heads say; their configurations name by how much.
    """
    config = model.config
    logits: Tensor = model.get_output_embeddings()(hidden)
    if (by := getattr(config, "logit_scale", None)) is not None:
        logits = logits * by
    if by := getattr(config, "logits_scaling", None):
        logits = logits / by
    if most := getattr(config, "final_logit_softcapping", None):
        logits = (logits / most).tanh() * most
    return logits
