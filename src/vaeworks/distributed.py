"""Data-parallel processes: means over processes, and work whose result or error all of them share.

With one process every function here does nothing, so that callers need not ask.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import ConfigError, DataError, FormatError, TrainingError, VaeworksError
from .launcher import is_shared, place, shared

T = TypeVar("T")

PATIENCE = timedelta(hours=6)
"""How long processes wait for each other. Process 0 may read a large data set for hours; a process that has died is
noticed at once."""


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number; process 0 writes files and prints."""
    return dist.get_rank() if world_size() > 1 else 0


def process_mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, without gradient; the tensor itself where there is one process.

    All processes must call it equally often.
    """
    value = value.detach()
    if world_size() == 1:
        return value
    total = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / world_size()


def process_average(value: Tensor) -> Tensor:
    """`process_mean` with a gradient, of any order. A mean over processes of the gradients is then that of the loss."""
    return _Average.apply(value) if world_size() > 1 else value


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return process_mean(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # every process has a loss of the same mean, and the losses of all of them depend on this one's value
        return _Average.apply(grad)


@torch.no_grad()
def average_gradients_(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Gradients become their means over all processes, in place, in one message."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if world_size() == 1 or not grads:
        return
    flat = process_mean(torch.cat([grad.flatten() for grad in grads]))
    for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def process_sum(numbers: list[float]) -> list[float]:
    """Sums over processes."""
    if world_size() == 1:
        return numbers
    told = torch.tensor(numbers, dtype=torch.float64, device=_device())
    dist.all_reduce(told)
    return told.tolist()


def on_rank0(work: Callable[[], T]) -> T:
    """Run `work` in process 0; its result, or its error, is that of every process.

    The result must be plain data, because it is sent to the others.
    """
    if world_size() == 1:
        return work()
    told: list[Any] = [None]
    error: Exception | None = None
    if rank() == 0:
        try:
            told = [work()]
        except Exception as problem:
            error = problem
    agree(error)
    dist.broadcast_object_list(told)
    return told[0]


def on_all_ranks(work: Callable[[], T]) -> T:
    """Run `work` in every process; an error of any of them is raised in all."""
    if world_size() == 1:
        return work()
    error: Exception | None = None
    try:
        result = work()
    except Exception as problem:
        error = problem
    agree(error)
    return result


def agree(error: Exception | None) -> None:
    """Errors: the first error of any process, in all of them; the others would wait for one that stopped alone."""
    if world_size() == 1:
        if error is not None:
            raise error
        return
    if process_sum([float(error is not None)])[0] == 0:
        return
    words: list[Any] = [None] * world_size()
    dist.all_gather_object(words, None if error is None else (type(error).__name__, str(error)))
    teller = next(number for number, word in enumerate(words) if word is not None)
    if teller == rank():
        assert error is not None
        raise shared(error, teller)
    raise shared(_told(*words[teller]), teller)


def _told(kind: str, text: str) -> VaeworksError:
    """Another process's error."""
    known = {error.__name__: error for error in (ConfigError, DataError, FormatError, TrainingError)}
    return known.get(kind, VaeworksError)(text)


def broadcast_tensors(tensors: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """Process 0's tensors, in every process, on the CPU; the others give None."""
    if world_size() == 1:
        assert tensors is not None
        return tensors
    shapes = on_rank0(lambda: {name: (t.shape, t.dtype) for name, t in (tensors or {}).items()})
    found = {}
    for name, (shape, dtype) in shapes.items():
        tensor = tensors[name].to(_device()) if tensors else torch.empty(shape, dtype=dtype, device=_device())
        dist.broadcast(tensor := tensor.contiguous(), 0)
        found[name] = tensor.cpu()
    return found


def _device() -> torch.device:
    """Where messages have to be."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


@contextmanager
def starting() -> Iterator[None]:
    """Processes that are started in this context ignore Ctrl-C from their first moment on; their parent does not."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """The group of processes that a launcher has started, if one has. A group that is there already stays.

    It ends without waiting for processes that may be gone. Errors: TrainingError where others have gone.
    """
    here = place()
    if not dist.is_available() or dist.is_initialized() or here is None:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    os.environ.setdefault("MASTER_PORT", "29500")  # as torchrun and accelerate have it
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        rank=here.rank,
        world_size=here.size,
        timeout=PATIENCE,
        device_id=device if device.type == "cuda" else None,
    )
    try:
        yield
    except BaseException as error:
        if is_shared(
            error
        ):  # nobody leaves while process 0 still writes: a launcher ends all as soon as one has failed
            with suppress(RuntimeError):
                dist.barrier()
        elif isinstance(error, RuntimeError) and _is_lost(error):
            raise TrainingError("another process of this run has ended; look at its messages for the reason") from None
        raise
    finally:
        dist.destroy_process_group()


def _is_lost(error: RuntimeError) -> bool:
    """Whether the error says that another process cannot be reached."""
    said = str(error)
    return isinstance(error, dist.DistError) or any(
        words in said for words in ("closed by peer", "reset by peer", "Broken pipe")
    )
