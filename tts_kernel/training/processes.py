"""One process, or several that share each batch: sums over all of them, whole weights, and who writes.

Several are started by torchrun or `accelerate launch`. A batch is that of one process, its rows dealt out, and a
gradient is the sum over all rows: how many processes there are changes the time, not the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import get_total_norm

from tts_kernel.training.speed import DeviceName, choose_device

if TYPE_CHECKING:
    from accelerate import Accelerator


def environment_world() -> int:
    """How many processes torchrun, or `accelerate launch`, has started for this run; 1 where neither did."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def environment_rank() -> int:
    """This process's number among them."""
    return int(os.environ.get("RANK", "0"))


def check_processes(processes: int, device: DeviceName) -> None:
    """Raise ValueError if there are more processes than GPUs to compute on."""
    if choose_device(device).type == "cuda" and processes > torch.cuda.device_count():
        raise ValueError(
            f"processes is {processes}, but torch finds {torch.cuda.device_count()} GPUs; lower it, or set device 'cpu'"
        )


class Processes:
    """This process and those that train the same run. Alone it costs nothing."""

    def __init__(self, device: torch.device, accelerator: Accelerator | None = None, fsdp: bool = False) -> None:
        self._accelerator, self._fsdp = accelerator, fsdp
        self.device = accelerator.device if accelerator else device
        self.rank = accelerator.process_index if accelerator else 0
        self.world = accelerator.num_processes if accelerator else 1

    @staticmethod
    def from_environment(device: DeviceName = "auto", fsdp: bool = False) -> Processes:
        """Joins the others where WORLD_SIZE says that there are some. Raises ValueError for too few GPUs."""
        chosen = choose_device(device)
        if environment_world() == 1:
            return Processes(chosen)
        check_processes(int(os.environ.get("LOCAL_WORLD_SIZE", environment_world())), device)
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        foreign = [f"ACCELERATE_USE_{name}" for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM")]
        if wanted := [name for name in foreign if os.environ.get(name, "").lower() in ("1", "true")]:
            raise ValueError(
                f"{', '.join(wanted)}: asked for by accelerate's configuration; here the run's own settings say how "
                "it is trained. Leave it out, and set fsdp where the state does not fit"
            )
        kwargs = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        # Precision is ours: what accelerate would wrap around the forward pass, validation would not have.
        cpu = chosen.type == "cpu"
        return Processes(chosen, Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[kwargs]), fsdp)

    @property
    def main(self) -> bool:
        """Whether this is the one that logs and writes."""
        return self.rank == 0

    # Models

    def shard(self, module: nn.Module, parts: Iterable[nn.Module]) -> None:
        """With `fsdp`, split the parameters of `module` over the processes, those of each of `parts` as one group. To
        be called before the optimizer is made: it replaces the parameters."""
        if not self._fsdp:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.world,))
        for part in (*parts, module):
            fully_shard(part, mesh=mesh)

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module`, whose backward pass averages gradients over the processes."""
        return module if self._accelerator is None or self._fsdp else self._accelerator.prepare_model(module)

    @contextmanager
    def accumulating(self, wrapped: nn.Module, last: bool) -> Iterator[None]:
        """Gradients are exchanged in the `last` backward pass of an update alone; sharded ones in each, as they are not
        kept whole."""
        local: AbstractContextManager[None] = nullcontext()
        if self._accelerator is not None and not last and not self._fsdp:
            local = self._accelerator.no_sync(wrapped)
        with local:
            yield

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """() norm of the whole gradient; not finite where a part of it is not."""
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    # Sums and messages

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes, element by element, on each of them."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Everyone's value, by rank, on each of them."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all are here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process does what is inside while the others wait, then they do."""
        if self._accelerator is None:
            yield
        else:
            with self._accelerator.main_process_first():
                yield

    # Whole states of what may be sharded

    def whole(self, state: Any) -> Any:
        """A state dict, however nested, with every sharded tensor put together, in CPU memory of the main process; what
        the others hold is not to be used. All have to call it."""
        if not self._fsdp:
            return state
        if isinstance(state, DTensor):
            full = state.full_tensor()
            return full.cpu() if self.main else full.new_empty(0)
        if isinstance(state, Mapping):
            return {name: self.whole(value) for name, value in state.items()}
        if isinstance(state, list | tuple):
            return type(state)(self.whole(value) for value in state)
        return state

    def parts_of(self, state: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
        """A model's whole state dict as shards like those it has `now`."""
        return {name: _like(value, now.get(name)) for name, value in state.items()} if self._fsdp else dict(state)

    def optimizer_parts(self, state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """An optimizer's whole state dict, its tensors sharded as its parameters are."""
        if not self._fsdp:
            return dict(state)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        sharded = {
            number: {
                name: _like(value, parameters[number]) if isinstance(value, Tensor) and value.ndim else value
                for name, value in values.items()
            }
            for number, values in state["state"].items()
        }
        return {**state, "state": sharded}


def _like(value: Tensor, now: Any) -> Tensor:
    if not isinstance(now, DTensor):
        return value
    return distribute_tensor(value.to(now.device), now.device_mesh, now.placements)
