"""Low-rank adapters (LoRA, DoRA) through PEFT: small matrices are trained beside frozen weights.

LoRA is Hu et al. 2021 (2106.09685), DoRA Liu et al. 2024 (2402.09353). A checkpoint holds the weights with
the adapters merged in, so that it loads and is evaluated like any other.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from codestage.errors import UserError
from codestage.study.models import ModelShape
from codestage.study.schema import AdapterSpec
from codestage.study.seeds import child
from codestage.train.model import build_model

ADAPTER, BASE = "adapter", "base"
"""Kinds of tensors in a checkpoint's optimizer file, beside the optimizer's own."""


def add_adapters(model: PreTrainedModel, spec: AdapterSpec, seed: int) -> None:
    """Put fresh adapters beside every linear layer but the head, in place; all other weights are frozen.

    The adapters begin as no change at all. The global random state is left as it was.

    Raises:
        UserError: PEFT is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("adapters need PEFT; pip install 'codestage[lora]'") from None
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha or 2 * spec.rank,
        target_modules="all-linear",
        use_dora=spec.kind == "dora",
        lora_dropout=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(child(seed, "adapter"))
        inject_adapter_in_model(config, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def plain_name(name: str) -> str:
    """The name of a frozen weight in the model without adapters."""
    return name.replace(".base_layer.", ".")


def fresh_adapters(
    shape: ModelShape, seq_len: int, spec: AdapterSpec, base: Mapping[str, Tensor], seed: int
) -> dict[str, Tensor]:
    """The adapters that are no change of the weights `base`, by name."""
    model = build_model(shape, seq_len, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(base[name])
    add_adapters(model, spec, seed)
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def merged(
    shape: ModelShape,
    seq_len: int,
    spec: AdapterSpec,
    base: Mapping[str, Tensor],
    adapters: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The weights with their adapters merged in, in float32, by the names of the plain model."""
    model = build_model(shape, seq_len, seed=0)
    add_adapters(model, spec, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(adapters[name] if name in adapters else base[plain_name(name)])
    found = dict(base)
    for name, module in model.named_modules():
        layer: Any = module
        if hasattr(layer, "merge") and hasattr(layer, "base_layer"):
            layer.merge()
            found[f"{name}.weight"] = layer.base_layer.weight.detach()
    return {name: weight.clone().contiguous() for name, weight in found.items()}
