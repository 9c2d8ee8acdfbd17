"""Throughput and peak memory of a model."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import ConfigError
from ..models import Autoencoder

REPEATS = 5
"""Timed calls, whose median counts; one call before them is not timed."""


@dataclass(frozen=True)
class Speed:
    """Throughput and peak memory at one size and batch."""

    size: int
    """side of the images in pixels"""
    batch: int
    encode: float
    """images per second, median"""
    decode: float
    encode_memory: float | None
    """peak in bytes beyond the memory in use before; None where the system does not report it"""
    decode_memory: float | None
    memory: str
    """how memory was measured, or why it was not"""
    device: str
    dtype: str
    threads: int
    repeats: int = REPEATS


@torch.inference_mode()
def throughput(autoencoder: Autoencoder, size: int = 256, batch: int = 1, repeats: int = REPEATS) -> Speed:
    """Images per second that a model encodes and decodes, and its peak memory, on its device and in its dtype.

    Errors: ConfigError for a size that is no multiple of f.
    """
    if size % autoencoder.downsample_factor or size <= 0 or batch < 1:
        raise ConfigError(
            f"size (={size}) must be a multiple of downsample_factor (={autoencoder.downsample_factor}), and batch "
            f"(={batch}) at least 1"
        )
    generator = torch.Generator().manual_seed(0)
    shape = (batch, autoencoder.config.in_channels, size, size)
    images = (torch.rand(shape, generator=generator) * 2 - 1).to(autoencoder.device, autoencoder.dtype)
    latents = autoencoder.encode(images).mode()
    encode, encode_memory, how = _measured(lambda: autoencoder.encode(images), autoencoder.device, repeats)
    decode, decode_memory, how = _measured(lambda: autoencoder.decode(latents), autoencoder.device, repeats)
    device = torch.cuda.get_device_name(autoencoder.device) if autoencoder.device.type == "cuda" else "CPU"
    return Speed(
        size,
        batch,
        batch / encode,
        batch / decode,
        encode_memory,
        decode_memory,
        how,
        device,
        str(autoencoder.dtype).removeprefix("torch."),
        torch.get_num_threads(),
        repeats,
    )


def _measured(call: Callable[[], object], device: torch.device, repeats: int) -> tuple[float, float | None, str]:
    """Seconds per call, and the peak in bytes of a first call that is not timed, with how it was measured."""
    before, how = _begin_memory(device)
    call()
    peak = None if before is None else max(0.0, _peak(device) - before)
    times = []
    for _ in range(repeats):
        _wait(device)
        started = time.perf_counter()
        call()
        _wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times), peak, how


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _begin_memory(device: torch.device) -> tuple[float | None, str]:
    """Bytes in use, after resetting the peak; and how the peak is measured."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return float(
            torch.cuda.memory_allocated(device)
        ), "CUDA's allocator, peak of allocated bytes beyond those before"
    if device.type != "cpu":
        return None, f"not measured: {device.type} tells no peak"
    try:
        _return_freed_memory()
        Path("/proc/self/clear_refs").write_text("5")  # Linux: VmHWM begins again at VmRSS
        return _status("VmRSS"), "Linux' peak of resident memory (VmHWM) beyond that before"
    except (OSError, ValueError) as error:
        return None, f"not measured: this system does not let a process reset its peak ({type(error).__name__})"


def _return_freed_memory() -> None:
    """Return the C allocator's free memory to the system: memory that it reuses would not show in the peak."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # other systems' C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return float(torch.cuda.max_memory_allocated(device))
    return _status("VmHWM")


def _status(field: str) -> float:
    """A field of Linux' status of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024.0 * int(line.split()[1])
    raise ValueError(f"no {field}")
