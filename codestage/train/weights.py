"""Where the weights stand that a stage trains: whole in one process, or in shards over many."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from codestage.attention import reach_of
from codestage.study.models import ModelShape
from codestage.study.schema import AdapterSpec
from codestage.train.adapter import add_adapters, plain_name
from codestage.train.model import Forward, ModelPool, build_model, recompute_activations
from codestage.train.optim import tables_of
from codestage.train.parallel import World, parameters_on_meta, sharded


class Whole:
    """Float32 weights in one process, beside a copy of the model in the precision that computes."""

    def __init__(
        self, shape: ModelShape, seq_len: int, adapter: AdapterSpec | None, seed: int, pool: ModelPool
    ) -> None:
        change = _change(adapter, seed)
        self.model, self.forward = pool.get(shape, seq_len, adapter, change)
        fresh: PreTrainedModel = build_model(shape, seq_len, seed)
        self.config, self.reach = fresh.config.to_json_string(), reach_of(fresh.config)
        self.base = _copies(fresh, trained=False) if adapter else {}
        """What adapters stand beside: in main memory, since only checkpoints ask for it again."""
        change(fresh)
        held = _copies(fresh, trained=True)
        self.trained = {name: weight.to(pool.device) for name, weight in held.items()}
        """The float32 weights that are trained, by name; their gradients are in `.grad`."""
        self.tables = tables_of(fresh)
        self.publish_base()
        self.publish()

    def publish(self) -> None:
        """Copy the weights into the model that computes, in its precision."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self.trained:
                    parameter.copy_(self.trained[name])

    def publish_base(self) -> None:
        """Copy what adapters leave as it is; once is enough."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if self.base and name not in self.trained:
                    parameter.copy_(self.base[plain_name(name)])

    def clear(self) -> None:
        """Forget all gradients."""
        for weight in [*self.trained.values(), *self.model.parameters()]:
            weight.grad = None

    def collect(self) -> None:
        """Add the gradients of the model that computes to the weights', in float32."""
        for name, parameter in self.model.named_parameters():
            if name not in self.trained:
                continue
            assert parameter.grad is not None
            gradient, weight = parameter.grad.to(torch.float32), self.trained[name]
            weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
            parameter.grad = None


class Sharded:
    """Float32 weights in shards over many processes; each layer is gathered when it computes."""

    def __init__(
        self,
        shape: ModelShape,
        seq_len: int,
        adapter: AdapterSpec | None,
        seed: int,
        world: World,
        *,
        compiled: bool,
    ) -> None:
        change = _change(adapter, seed)
        with parameters_on_meta():
            model = build_model(shape, seq_len, 0, world.device)
            change(model)
        self.config, self.reach = model.config.to_json_string(), reach_of(model.config)
        self.tables = tables_of(model)
        if shape.recompute:
            recompute_activations(model)
        self.forward: Forward = sharded(model, world, precision=shape.precision, compiled=compiled)
        named = dict(model.named_parameters())
        self.trained: dict[str, Tensor] = {n: p for n, p in named.items() if p.requires_grad}
        self.base: dict[str, Tensor] = {}
        if adapter:
            self.base = {plain_name(n): p for n, p in named.items() if not p.requires_grad}
        fresh = build_model(shape, seq_len, seed) if world.first else None
        base = dict(fresh.named_parameters()) if fresh else {}
        put_all(world, base, self.base)
        if fresh:
            change(fresh)
            base = dict(fresh.named_parameters())
        put_all(world, base, self.trained)

    def publish(self) -> None:
        """Nothing to do: what computes is gathered from the weights themselves."""

    publish_base = publish

    def clear(self) -> None:
        """Forget all gradients."""
        for weight in self.trained.values():
            weight.grad = None

    def collect(self) -> None:
        """Nothing to do: gradients are summed over the processes in the course of the backward pass."""


Weights = Whole | Sharded


def weights_of(
    shape: ModelShape,
    seq_len: int,
    adapter: AdapterSpec | None,
    seed: int,
    pool: ModelPool,
    world: World,
) -> Weights:
    """Fresh weights where `world` keeps them."""
    if world.size == 1:
        return Whole(shape, seq_len, adapter, seed, pool)
    return Sharded(shape, seq_len, adapter, seed, world, compiled=pool.compiled and shape.compile)


def put_all(world: World, whole: Mapping[str, Tensor | None], targets: Mapping[str, Tensor]) -> None:
    """Copy whole tensors into those of the same name."""
    for name, target in targets.items():
        world.put(whole.get(name), target)


def like(weight: Tensor, shape: torch.Size) -> Tensor:
    """An empty tensor for a part of an optimizer's state of `shape`: laid out as the weight if as large."""
    if weight.shape == shape:
        return torch.empty_like(weight)
    device = weight.to_local().device if isinstance(weight, DTensor) else weight.device
    return torch.empty(shape, dtype=torch.float32, device=device)


def _change(adapter: AdapterSpec | None, seed: int) -> Callable[[PreTrainedModel], None]:
    """What is done to a freshly built model before it is trained."""
    if adapter is None:
        return lambda model: None
    return partial(add_adapters, spec=adapter, seed=seed)


def _copies(model: PreTrainedModel, *, trained: bool) -> dict[str, Tensor]:
    return {
        name: p.detach().clone()
        for name, p in model.named_parameters()
        if p.requires_grad or not trained
    }
