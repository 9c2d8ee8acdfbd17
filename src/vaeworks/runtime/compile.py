"""torch.compile where it pays, without recompiling for every picture size; and CUDA graphs for repeated sizes.

The policy of `compiled`: a function is traced once for any height and width (no two sizes are assumed to be equal
because they are in the first picture), and once more for batches, because PyTorch treats a size of one by itself; on
CPUs also above 20480 numbers in the latents, where PyTorch takes another convolution. "auto" never compiles on CPUs. On
GPUs it computes plainly for PATIENCE seconds, about the price of compiling, so that few pictures never wait for it;
then it compiles, times both ways on the next pictures, and keeps the faster one. Without a compiler, or if compiling
fails, it warns once and runs the function as it is. Compiled code is stored in $TORCHINDUCTOR_CACHE_DIR if that is set,
else in inductor/ in $VAEWORKS_CACHE.
"""

from __future__ import annotations

import os
import shlex
import shutil
import statistics
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import ConfigError

MapFunction: TypeAlias = Callable[[Tensor], Tensor]
"""From a batch of maps n c h w to another, without random numbers or side effects: a network, or a part of one."""
When: TypeAlias = bool | Literal["auto"]

PATIENCE = 30.0
"""Seconds of plain computing before "auto" compiles: about what compiling a decoder takes, so that it costs at most
twice the time."""
AUTOMATIC = ("cuda",)
"""Device types on which "auto" may compile. On CPUs, compiling takes longer than it saves."""
TRIALS = 3
"""Timed pictures of each way before "auto" decides."""


def compiled(function: MapFunction, when: When = "auto") -> MapFunction:
    """The function, compiled as this module's policy says; equal results to rounding. It runs plainly while a gradient
    is wanted.

    when: True: compile at the first call; False: never, returns the function itself.
    Errors: ConfigError for another `when`.
    """
    if when not in (True, False, "auto"):
        raise ConfigError(f"compile (={when!r}) must be True, False or 'auto'")
    return function if when is False else Compiled(function, when)


class Compiled:
    """A function that is compiled when it pays, as this module's docstring says."""

    def __init__(
        self, function: MapFunction, when: Literal[True, "auto"], backend: str | Callable[..., Any] = "inductor"
    ):
        self.function, self.backend = function, backend
        self.state: Literal["plain", "trial", "compiled", "given up"] = "compiled" if when is True else "plain"
        self.spent = 0.0
        self.seconds: dict[bool, list[float]] = {False: [], True: []}
        """seconds per number of the input, of the timed pictures: plain, compiled"""
        self._fast: MapFunction | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.state == "given up" or torch.is_grad_enabled():
            return self.function(x)
        if self.state == "compiled":
            return self._run_compiled(x)
        if x.device.type not in AUTOMATIC:
            return self.function(x)
        if self.state == "plain":
            result, seconds = _timed(self.function, x)
            self.spent += seconds
            self.state = "trial" if self.spent >= PATIENCE else "plain"
            return result
        return self._tried(x)

    def _tried(self, x: Tensor) -> Tensor:
        """One more picture of the trial. The first compiled one includes compiling and does not count; a second such
        one does not reach the median."""
        fast, first = len(self.seconds[True]) <= len(self.seconds[False]), self._fast is None
        result, seconds = _timed(self._run_compiled if fast else self.function, x)
        if not (fast and first):
            self.seconds[fast].append(seconds / x.numel())
        if self.state == "trial" and min(map(len, self.seconds.values())) >= TRIALS:
            plain, faster = (statistics.median(self.seconds[way]) for way in (False, True))
            self.state = "compiled" if faster < plain else "given up"
        return result

    def _run_compiled(self, x: Tensor) -> Tensor:
        if self._fast is None:
            if self.backend == "inductor" and (lacking := missing_compiler(x.device)):
                return self._give_up(lacking, x)
            keep_on_disk()
            self._fast = torch.compile(self.function, dynamic=True, backend=self.backend)
        from torch._dynamo.exc import BackendCompilerFailed
        from torch.fx.experimental import _config

        try:
            # PyTorch adds `patch` to its modules of settings
            with _config.patch(use_duck_shape=False):  # type: ignore[attr-defined]
                return self._fast(x)
        except BackendCompilerFailed as error:
            return self._give_up(str(error).strip().splitlines()[0], x)

    def _give_up(self, reason: str, x: Tensor) -> Tensor:
        warnings.warn(f"not compiled, which changes nothing but speed: {reason}", stacklevel=4)
        self.state = "given up"
        self._fast = None
        return self.function(x)


def _timed(function: MapFunction, x: Tensor) -> tuple[Tensor, float]:
    _wait(x.device)
    begin = time.perf_counter()
    result = function(x)
    _wait(x.device)
    return result, time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def missing_compiler(device: torch.device) -> str | None:
    """What torch.compile lacks on this device, in words; None if nothing."""
    if device.type == "cuda":
        if find_spec("triton") is None:
            return "Triton is not installed (pip install 'vaeworks[triton]')"
        if torch.version.hip is None and torch.cuda.get_device_capability(device) < (7, 0):
            return "this GPU is older than Triton's oldest"
        return (
            None
            if _found("CC", ("cc", "gcc", "clang"))
            else "no C compiler, which Triton needs; install gcc, or set CC"
        )
    return None if _found("CXX", ("g++", "clang++", "c++")) else "no C++ compiler; install g++, or set CXX"


def _found(variable: str, usual: tuple[str, ...]) -> bool:
    own = shlex.split(os.environ.get(variable, ""))
    names = own[:1] or ([*usual, "cl"] if os.name == "nt" else usual)
    return any(shutil.which(name) for name in names)


def keep_on_disk() -> None:
    """Store compiled code in inductor/ in $VAEWORKS_CACHE (by default ~/.cache/vaeworks), unless
    $TORCHINDUCTOR_CACHE_DIR is set.

    PyTorch's default is the folder of temporary files.
    """
    if not os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
        from ..files.cache import cache_folder

        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder().with_name("inductor").absolute())


Key: TypeAlias = tuple[Any, ...]
"""Shape, strides, dtype and device of an input, and the addresses of weights."""


class Graphs:
    """CUDA graphs of a function: all its kernels in one launch, which helps where pictures are small and launching
    takes longest.

    A size is computed plainly the first time, captured the second, and replayed from then on; the `most` recent sizes
    are kept. All graphs share one memory pool, so they are for one stream at a time. In-place changes of weights are
    seen; weights that move are captured again. On other devices, and where a gradient is wanted, the function runs as
    it is.
    """

    def __init__(self, function: MapFunction, weights: nn.Module, most: int = 4):
        """function: must not read values on the CPU in between (`.item()`, printing), nor wait for the device, as
        "auto" does.

        weights: every module that it computes with; graphs hold their addresses.
        Errors: ConfigError for `most` below 1.
        """
        if most < 1:
            raise ConfigError(f"most (={most}) must be at least 1 graph")
        self.function, self.weights, self.most = function, weights, most
        self.kept: OrderedDict[Key, CapturedGraph | None] = OrderedDict()
        """None: computed once, not yet captured"""
        self._pool: Any = None

    def __call__(self, x: Tensor) -> Tensor:
        if x.device.type != "cuda" or torch.is_grad_enabled() or torch.cuda.is_current_stream_capturing():
            return self.function(x)
        key = (x.shape, x.stride(), x.dtype, x.device, *(p.data_ptr() for p in self.weights.parameters()))
        if key not in self.kept:
            self._keep(key, None)
            return self.function(x)
        graph = self.kept[key]
        if graph is None:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            graph = CapturedGraph(self.function, x, self._pool)
        self._keep(key, graph)
        return graph.replay(x)

    def _keep(self, key: Key, graph: CapturedGraph | None) -> None:
        self.kept[key] = graph
        self.kept.move_to_end(key)
        while len(self.kept) > self.most:
            self.kept.popitem(last=False)


class CapturedGraph:
    """One captured call."""

    def __init__(self, function: MapFunction, x: Tensor, pool: Any):
        with torch.inference_mode(), torch.cuda.device(x.device):
            self.input = x.clone(memory_format=torch.preserve_format)
            # a first run outside the capture, on its own stream, where libraries choose algorithms and allocate
            # workspaces
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                function(self.input)
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, pool=pool):
                self.output = function(self.input)

    def replay(self, x: Tensor) -> Tensor:
        """The function of x, which must have the captured input's shape and strides; a new tensor."""
        with torch.inference_mode(), torch.cuda.device(x.device):
            self.input.copy_(x)
            self.graph.replay()
        return self.output.clone()  # the next replay of any size overwrites it
