"""Decode and encode: ours against diffusers' AutoencoderKL as it comes and at its best, and against its convolutions
alone.

    python benchmarks/decode_speed.py --sides 256 512 --rounds 5 [--compile] [--encode] [--out
    results/decode_speed.json]

Variants are run one after the other, round by round, in one process, after one round that does not count; medians are
printed. "conv-only": the same convolutions on tensors of the same shapes in NHWC memory, and nothing else, which is
what a runtime that leaves convolutions to PyTorch can reach. Weights are random: time does not depend on them. Errors
are of range 2, against diffusers in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.nn import Upsample

LAST = torch.channels_last
Variants = dict[str, Callable[[], Tensor]]


def variants(model: str, side: int, encode: bool, compiled: bool) -> Variants:
    """What is timed, by name."""
    torch.manual_seed(0)
    vae = vw.build(model).eval().requires_grad_(False)
    f = vae.downsample_factor
    x = torch.rand(1, 3, side, side) * 2 - 1 if encode else torch.randn(1, vae.latent_channels, side // f, side // f)
    found: Variants = {}
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        last = x.to(dtype).contiguous(memory_format=LAST)
        peer = vw.to_diffusers(vae).to(dtype)
        best = vw.to_diffusers(vae).to(dtype).to(memory_format=LAST)
        found[f"diffusers, {name}"] = peer_call(peer, x.to(dtype), encode)
        found[f"diffusers, channels-last, {name}"] = peer_call(best, last, encode)
        if compiled:
            half = best.encode if encode else best.decode
            fast = torch.compile(half, dynamic=False)
            found[f"diffusers, channels-last, compiled, {name}"] = result(fast, last, encode)
        found[f"conv-only, {name}"] = convolutions(vae, x, dtype, encode)
        codec = vw.Codec(vae, dtype=dtype)
        found[f"ours, {name}"] = lambda codec=codec: codec.encode(x).mean if encode else codec.decode(x)
    return found


def peer_call(peer: nn.Module, x: Tensor, encode: bool) -> Callable[[], Tensor]:
    return result(peer.encode if encode else peer.decode, x, encode)


def result(half: Callable, x: Tensor, encode: bool) -> Callable[[], Tensor]:
    return (lambda: half(x).latent_dist.mean) if encode else (lambda: half(x).sample)


def convolutions(vae: vw.Autoencoder, x: Tensor, dtype: torch.dtype, encode: bool) -> Callable[[], Tensor]:
    """The convolutions of one half, each on an input of its shape."""
    seen: list[tuple[nn.Conv2d, tuple[int, ...]]] = []
    half = vae.encoder if encode else vae.decoder
    hooks = [
        m.register_forward_pre_hook(lambda m, args: seen.append((m, tuple(args[0].shape))))
        for m in half.modules()
        if isinstance(m, nn.Conv2d)
    ]
    hooks += [
        m.register_forward_pre_hook(
            lambda m, args: seen.append((m.conv, (*args[0].shape[:2], *(2 * s for s in args[0].shape[2:]))))
        )
        for m in half.modules()
        if isinstance(m, Upsample)
    ]
    with torch.inference_mode():
        half(x)
    for hook in hooks:
        hook.remove()
    layers = []
    for conv, shape in seen:
        weight = conv.weight.to(dtype).contiguous(memory_format=LAST)
        layers.append((weight, conv.bias.to(dtype), conv.stride, conv.padding, shape))
    inputs = {shape: torch.randn(shape, dtype=dtype).contiguous(memory_format=LAST) for *_, shape in layers}

    def run() -> Tensor:
        for weight, bias, stride, padding, shape in layers:
            y = torch.conv2d(inputs[shape], weight, bias, stride, padding)
        return y

    return run


def measured(found: Variants, rounds: int) -> dict[str, dict]:
    """Seconds and errors of every variant."""
    times: dict[str, list[float]] = {name: [] for name in found}
    errors: dict[str, tuple[float, float]] = {}
    reference = None
    with torch.inference_mode():
        for number in range(rounds + 1):
            for name, call in found.items():
                started = time.perf_counter()
                y = call()
                seconds = time.perf_counter() - started
                if number:
                    times[name].append(seconds)
                elif not name.startswith("conv-only"):
                    reference = y.float() if reference is None else reference
                    error = (y.float() - reference).abs() * (2 / (reference.max() - reference.min()))
                    errors[name] = error.max().item(), error.mean().item()
    return {name: {"seconds": statistics.median(t), "all": t, "errors": errors.get(name)} for name, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd1")
    parser.add_argument("--sides", type=int, nargs="+", default=[256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--encode", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*kept in float32.*")
    torch.set_num_threads(options.threads)
    facts = {
        "model": options.model,
        "half": "encode" if options.encode else "decode",
        "threads": options.threads,
        "cpus": os.cpu_count(),
    }
    facts |= {"rounds": options.rounds, "python": platform.python_version(), "processor": processor()}
    facts |= {name: version(name) for name in ("torch", "diffusers", "vaeworks")}
    print(", ".join(f"{k} {v}" for k, v in facts.items()))
    rows = []
    for side in options.sides:
        found = measured(variants(options.model, side, options.encode, options.compile), options.rounds)
        slow = found["diffusers, fp32"]["seconds"]
        print(
            f"\n{side} px\n| variant | seconds | against diffusers, fp32 | largest error | mean error "
            "|\n|---|---|---|---|---|"
        )
        for name, row in found.items():
            errors = "| |" if row["errors"] is None else "| {:.1e} | {:.1e}".format(*row["errors"])
            print(f"| {name} | {row['seconds']:.3f} | {slow / row['seconds']:.2f}x {errors} |", flush=True)
            rows.append({"side": side, "variant": name, **row})
    if options.out:
        options.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


def processor() -> str:
    """Its name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
