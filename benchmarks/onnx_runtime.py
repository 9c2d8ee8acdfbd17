"""Decode and encode on a CPU: onnxruntime with exported files against PyTorch.

    python benchmarks/onnx_runtime.py --model sd1 --side 256 --rounds 5 [--encode] [--aot] [--out
    results/onnx_runtime.json]

Variants are run one after the other, round by round, in one process, with as many threads each; medians are printed,
and each result's largest difference from PyTorch's as it comes, as a share of the range. --aot adds the same half
compiled ahead of time by AOTInductor for this size, which needs a C++ compiler, and how long that took. Weights are
random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

import vaeworks as vw
from vaeworks.exports.onnx import export_onnx, graphs
from vaeworks.exports.onnx_check import quiet_session

LAST = torch.channels_last
Variants = dict[str, Callable[[], Tensor]]


def variants(
    vae: vw.Autoencoder, x: Tensor, encode: bool, threads: int, aot: bool, folder: Path
) -> tuple[dict[str, Callable[[], Tensor]], dict]:
    """What is timed, by name; and how many seconds it took to make."""
    graph = graphs(vae, "plain", False)[0 if encode else 1]
    last = x.contiguous(memory_format=LAST)
    seconds = {}
    began = time.perf_counter()
    export_onnx(vae, folder / "onnx")
    seconds["export of both halves, checked"] = time.perf_counter() - began
    session, given = quiet_session(folder / "onnx" / graph.file, threads), x.numpy()
    moved = nn.Module.to(vw.build(vae.config).eval().requires_grad_(False), memory_format=LAST)
    moved.load_state_dict(vae.state_dict())
    best = graphs(moved, "plain", False)[0 if encode else 1].module
    codec = vw.Codec(vae)
    found: Variants = {
        "PyTorch": lambda: graph.module(x)[0],
        "PyTorch, channels-last": lambda: best(last)[0],
        "onnxruntime": lambda: torch.from_numpy(session.run(list(graph.outputs), {graph.input: given})[0]),
        "vaeworks Codec": lambda: codec.encode(x).mean if encode else codec.decode(x),
    }
    if aot:
        began = time.perf_counter()
        warnings.filterwarnings(
            "ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning
        )  # PyTorch's own use of what it has deprecated
        package = torch._inductor.aoti_compile_and_package(
            torch.export.export(best, (last,)), package_path=str(folder / "half.pt2")
        )
        seconds["AOTInductor"] = time.perf_counter() - began
        compiled = torch._inductor.aoti_load_package(package)
        found["AOTInductor, channels-last"] = lambda: compiled(last)[0]
    return found, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd1")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--encode", action="store_true")
    parser.add_argument("--aot", action="store_true")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    vae = vw.build(a.model).eval().requires_grad_(False)
    f = vae.downsample_factor
    x = (
        torch.rand(1, 3, a.side, a.side) * 2 - 1
        if a.encode
        else torch.randn(1, vae.latent_channels, a.side // f, a.side // f)
    )
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), torch.no_grad():
        found, seconds = variants(vae, x, a.encode, a.threads, a.aot, Path(folder))
        results = {name: run() for name, run in found.items()}  # and the first call, which is slower
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(a.rounds):
            for name, run in found.items():
                began = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - began)
    expected = results["PyTorch"]
    spread = (expected.max() - expected.min()).item()
    rows = {
        name: {
            "seconds": statistics.median(values),
            "difference": (results[name] - expected).abs().max().item() / spread,
        }
        for name, values in times.items()
    }
    print(f"{a.model}, {'encode' if a.encode else 'decode'}, {a.side} px, {a.threads} threads, {a.rounds} rounds")
    for name, row in rows.items():
        print(f"{name:28}{row['seconds']:9.3f} s{row['difference']:12.1e}")
    for name, value in seconds.items():
        print(f"{name:40}{value:9.1f} s to make")
    record = {
        "model": a.model,
        "side": a.side,
        "encode": a.encode,
        "threads": a.threads,
        "rounds": a.rounds,
        "medians": rows,
        "seconds_to_make": seconds,
        "machine": platform.platform(),
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxruntime", "onnxscript")},
    }
    if a.out is not None:
        a.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
