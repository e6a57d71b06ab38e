"""Optimizers over a model's float32 weights: AdamW, or Muon for its matrices; and the mean of the weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from codestage.study.schema import OptimizerSpec

EMA = "ema"


class Optimizers:
    """What turns gradients into weights. Its state is kept by parameter name.

    Weights are updated in place. Decay is decoupled and on matrices only. With `muon`, the matrices
    between the embeddings and the head are updated by Muon (Jordan et al. 2024), its steps scaled to the
    size of AdamW's (Liu et al. 2025, 2502.16982), so that one learning rate serves both.
    """

    def __init__(self, weights: Mapping[str, Tensor], spec: OptimizerSpec, tables: set[str]) -> None:
        """`tables` names the embeddings and the head."""
        self.weights, self.spec = weights, spec
        for weight in weights.values():
            weight.requires_grad_(True)
        by_muon = {
            name
            for name, weight in weights.items()
            if spec.name == "muon" and weight.ndim == 2 and name not in tables
        }
        rest = [weight for name, weight in weights.items() if name not in by_muon]
        self._all: list[torch.optim.Optimizer] = [self._adamw(rest)]
        if by_muon:
            self._all.append(
                torch.optim.Muon(
                    [weights[name] for name in weights if name in by_muon],
                    lr=spec.lr,
                    weight_decay=spec.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        self.mean = {name: w.detach().clone() for name, w in weights.items()} if spec.ema else {}

    def _adamw(self, weights: list[Tensor]) -> torch.optim.Optimizer:
        spec = self.spec
        groups = [
            {"params": [w for w in weights if w.ndim >= 2], "weight_decay": spec.weight_decay},
            {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), eps=spec.eps, fused=True
        )

    def step(self, rate: float) -> None:
        """One step at learning rate `rate` on the weights' gradients."""
        for optimizer in self._all:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        with torch.no_grad():
            for name, mean in self.mean.items():
                mean.lerp_(self.weights[name], 1 - self.spec.ema)

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the state, by `kind.parameter`; no copies."""
        names = {id(weight): name for name, weight in self.weights.items()}
        found = {
            f"{kind}.{names[id(weight)]}": value
            for optimizer in self._all
            for weight, held in optimizer.state.items()
            for kind, value in held.items()
        }
        return found | {f"{EMA}.{name}": mean for name, mean in self.mean.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a state back, each tensor laid out as its weight is; no copies but of the mean."""
        held: dict[str, dict[str, Any]] = {}
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            if kind == EMA:
                self.mean[name].copy_(value)
            else:
                held.setdefault(name, {})[kind] = value
        names = {id(weight): name for name, weight in self.weights.items()}
        for optimizer in self._all:
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    optimizer.state[weight] = held[names[id(weight)]]

    def begin_mean(self) -> None:
        """Let the mean begin at the weights as they are now."""
        with torch.no_grad():
            for name, mean in self.mean.items():
                mean.copy_(self.weights[name])


def tables_of(model: PreTrainedModel) -> set[str]:
    """Names of the parameters of embeddings and head."""
    modules = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    held = {id(p) for m in [*modules, model.get_output_embeddings()] for p in m.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in held}
