"""Saving while training goes on: a copy is made at once, one thread writes it.

Memory is bounded: one copy for each kind of save, in buffers that are kept. A save of a kind waits for the last of its
kind to be written.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tts_kernel.models.weights import CheckpointError

_Buffers = dict[tuple[int, bool], list[Tensor]]  # by bytes and whether pinned
_Memory = tuple[torch.device, int, int]  # device, address, bytes


class Staging:
    """Memory for one copy of a state; from a GPU it is pinned, so that the copying runs at the bus's speed."""

    def __init__(self) -> None:
        self._free: _Buffers = {}

    def snapshot(self, content: Any) -> Any:
        """`content` with every tensor in memory of our own; valid until the next call. Tensors that share memory share
        it in the copy as well, so that a file of it holds what a file of `content` would. Dictionaries, lists and
        tuples are copied, other values are not."""
        before, self._free = self._free, defaultdict(list)
        copies: dict[_Memory, Tensor] = {}
        made = self._copy(content, before, copies)
        if any(device.type == "cuda" for device, _, _ in copies):
            torch.cuda.synchronize()
        for (device, _, size), buffer in copies.items():
            self._free[size, device.type == "cuda"].append(buffer)
        return made

    def _copy(self, content: Any, free: _Buffers, copies: dict[_Memory, Tensor]) -> Any:
        if isinstance(content, Tensor):
            return self._copied(content, free, copies)
        if isinstance(content, dict):
            same: dict[Any, Any] = OrderedDict() if isinstance(content, OrderedDict) else {}
            if isinstance(content, OrderedDict):
                vars(same).update(vars(content))  # a state dict's _metadata
            same.update({name: self._copy(value, free, copies) for name, value in content.items()})
            return same
        if isinstance(content, list | tuple):
            values = [self._copy(value, free, copies) for value in content]
            return values if isinstance(content, list) else tuple(values)
        return content

    def _copied(self, tensor: Tensor, free: _Buffers, copies: dict[_Memory, Tensor]) -> Tensor:
        if tensor.layout != torch.strided or tensor.is_conj() or tensor.is_neg():
            return tensor.detach().to("cpu", copy=True)
        memory = tensor.untyped_storage()
        key = (memory.device, memory.data_ptr(), memory.nbytes())
        if key not in copies:
            pinned = memory.device.type == "cuda"
            kept = free.get((memory.nbytes(), pinned))
            copies[key] = kept.pop() if kept else torch.empty(memory.nbytes(), dtype=torch.uint8, pin_memory=pinned)
            source = torch.empty(0, dtype=torch.uint8, device=memory.device).set_(memory)
            if memory.device.type == "cpu":
                # By this thread alone: torch's others may be busy, and it waits for the slowest of them.
                np.copyto(copies[key].numpy(), source.numpy())
            else:
                copies[key].copy_(source, non_blocking=True)
        view = torch.empty(0, dtype=tensor.dtype)
        return view.set_(copies[key].untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


class Writer:
    """The thread that writes, one save after the other in the order asked for. It ends with `close`, or when the
    interpreter does, after what was asked for is written."""

    def __init__(self) -> None:
        self._staging: dict[str, Staging] = defaultdict(Staging)
        self._thread: ThreadPoolExecutor | None = None
        self._pending: dict[str, Future[None]] = {}  # the last of each kind

    def wait_for(self, kind: str) -> None:
        """Until the last save of this kind is written. Raises what an earlier save raised, of any kind."""
        for name, job in list(self._pending.items()):
            if name == kind or job.done():
                self._end(name)

    def submit(self, kind: str, job: Callable[..., None], *contents: Any) -> None:
        """Call `job` with copies of `contents` in the thread. Returns when they are copied."""
        self.wait_for(kind)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        copies = self._staging[kind].snapshot(contents)
        self._pending[kind] = self._thread.submit(job, *copies)

    def wait(self) -> None:
        """Until everything is written. Raises what a save raised."""
        first: CheckpointError | None = None
        for name in list(self._pending):
            try:
                self._end(name)
            except CheckpointError as error:
                first = first or error
        if first is not None:
            raise first

    def close(self) -> None:
        """`wait`, then give thread and memory back."""
        try:
            self.wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
            self._thread = None
            self._staging.clear()

    def _end(self, name: str) -> None:
        error = self._pending[name].exception()
        del self._pending[name]
        if isinstance(error, CheckpointError):
            raise error
        if error is not None:
            raise CheckpointError(f"a checkpoint was not written: {error!r}") from error
