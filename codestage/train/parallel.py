"""One process or many: who is there, what they tell each other, and a model in shards (FSDP2, HSDP).

Many processes are started by torchrun. A tensor that is said to be whole below is so in the first process
alone; elsewhere it is None.
"""

import contextlib
import os
import unittest.mock
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from codestage.errors import RunError, UserError
from codestage.train.loss import PackedLoss
from codestage.train.model import layers_of

T = TypeVar("T")
PATIENCE = timedelta(days=30)
"""How long a process waits for its next order: data may be prepared in the meantime."""
TOGETHER = timedelta(hours=1)
"""How long it waits for the others' tensors: the first process makes fresh weights of large models by itself."""


@dataclass(frozen=True)
class World:
    """The processes that train one model together."""

    device: torch.device
    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    orders: Any = None
    """Group for what the first process tells the others."""
    background: Any = None
    """Group for checkpoints that are written while training goes on."""

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes of `values`, in float64 on CPU."""
        values = values.double()
        if self.size > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values.cpu()

    def tell(self, thing: Any) -> Any:
        """What the first process holds, in all processes."""
        if self.size == 1:
            return thing
        box = [thing if self.first else None]
        dist.broadcast_object_list(box, src=0, group=self.orders)
        return box[0]

    def leave(self) -> None:
        """At the end, of a process that nobody waits for: end the threads that listen to the others.

        An interpreter that ends while they run is aborted now and then.
        """
        if self.size > 1:
            dist.destroy_process_group()

    def by_first(self, do: Callable[[], T]) -> T | None:
        """Let the first process do something while the others wait; all fail with it.

        Raises:
            RunError: in every process, what the first one raised.
        """
        result, error = None, None
        if self.first:
            try:
                result = do()
            except RunError as failed:
                error = failed
        error = self.tell(error)
        if error is not None:
            raise error
        return result

    def whole(self, tensor: Tensor) -> Tensor | None:
        """A tensor that may lie in shards, whole and on CPU; a copy."""
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        return tensor.detach().to("cpu", copy=True) if self.first else None

    def put(self, whole: Tensor | None, target: Tensor) -> None:
        """Copy a whole tensor into one that may lie in shards."""
        with torch.no_grad():
            if self.size == 1:
                assert whole is not None
                target.copy_(whole)
                return
            held = torch.empty(target.shape, dtype=target.dtype, device=self.device)
            if self.first:
                assert whole is not None
                held.copy_(whole)
            if isinstance(target, DTensor):
                parted = distribute_tensor(held, target.device_mesh, target.placements)
                target.to_local().copy_(parted.to_local())
            else:
                dist.broadcast(held, src=0)
                target.copy_(held)


def alone() -> World:
    """This process by itself, on its GPU if it has one."""
    if torch.cuda.is_available():
        _repeat()
    return World(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def let_go() -> None:
    """Give memory that nothing uses any more back to the GPU, for the processes beside this one."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _repeat() -> None:
    """Have a GPU add in the same order each time, wherever PyTorch can."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def join(shard: int | None = None) -> World:
    """Meet the other processes that torchrun started.

    `shard` processes hold one copy of a model between them (HSDP); all of them if not given (FSDP).

    Raises:
        UserError: `shard` does not divide their number.
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    shard = shard or size
    if shard < 1 or size % shard:
        raise UserError(f"--shard {shard} does not divide the {size} processes")
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(kind)
    if kind == "cuda":
        _repeat()
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=TOGETHER)
    sizes = (shard,) if shard == size else (size // shard, shard)
    names = ("shard",) if shard == size else ("replicate", "shard")
    mesh = init_device_mesh(kind, sizes, mesh_dim_names=names)
    orders = dist.new_group(backend="gloo", timeout=PATIENCE)
    return World(device, rank, size, mesh, orders, dist.new_group(backend="gloo"))


def sharded(model: PreTrainedModel, world: World, *, precision: str, compiled: bool) -> nn.Module:
    """`PackedLoss` of a model whose float32 parameters, on meta until now, lie in shards on the device.

    Layers are gathered one by one, in the precision that computes; gradients are summed in float32. The
    parameters' values are still to be put there.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for layer in layers_of(model):
        if compiled:
            layer.compile(dynamic=False)
        fully_shard(layer, mesh=world.mesh, mp_policy=policy)
    loss = PackedLoss(model, compiled=compiled)
    fully_shard(loss, mesh=world.mesh, mp_policy=policy)
    buffers = {name: buffer.clone() for name, buffer in loss.named_buffers()}
    loss.to_empty(device=world.device)
    for name, buffer in loss.named_buffers():
        buffer.copy_(buffers[name])
    return loss


@contextlib.contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Models built inside have no memory for their parameters; buffers, which are small, are real."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None and not parameter.is_meta:  # one on meta may be tied: it stays itself
            empty = nn.Parameter(parameter.data.to("meta"), parameter.requires_grad)
            module._parameters[name] = empty

    with unittest.mock.patch.object(nn.Module, "register_parameter", on_meta):
        yield
