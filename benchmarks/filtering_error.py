"""How much minimal filtering rounds, beside PyTorch's own convolution, over the shapes of Stable Diffusion's VAE.

    python benchmarks/filtering_error.py [--out benchmarks/results/filtering_error.json]

Both compute the same convolution; the truth is the same in float64. The error is the root mean square of the
difference. A ratio of 2 means: twice PyTorch's error.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vaeworks.nn.filtering import F2, F4, DoubledConv, Filtering
from vaeworks.nn.winograd import minimal_filtering

CHANNELS = ((64, 64), (128, 128), (256, 128), (256, 256), (512, 256), (512, 512))
SIDES = (16, 32, 64)
SEEDS = 3
CASES: tuple[tuple[Filtering, torch.dtype], ...] = (
    (F4(), torch.float32),
    (DoubledConv(), torch.float32),
    (F2(), torch.bfloat16),
    (DoubledConv(), torch.bfloat16),
)


def direct(x: Tensor, weight: Tensor, doubled: bool) -> Tensor:
    """The convolution of PyTorch, after nearest-neighbour doubling where the filtering doubles."""
    return F.conv2d(F.interpolate(x, scale_factor=2.0) if doubled else x, weight, padding=1)


def error(found: Tensor, truth: Tensor) -> float:
    """Root mean square."""
    return float((found.double() - truth).square().mean().sqrt())


def ratio(filtering: Filtering, dtype: torch.dtype, channels: tuple[int, int], side: int, seed: int) -> float:
    """Error of minimal filtering over that of the convolution, both in `dtype`, of the same rounded inputs."""
    generator = torch.Generator().manual_seed(seed)
    inputs, outputs = channels
    x = torch.randn(1, inputs, side, side, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = (torch.randn(outputs, inputs, 3, 3, generator=generator) / (3 * inputs**0.5)).to(dtype)
    doubled = isinstance(filtering, DoubledConv)
    truth = direct(x.double(), weight.double(), doubled)
    ours = minimal_filtering(x, weight, None, filtering)
    theirs = direct(x, weight.contiguous(memory_format=torch.channels_last), doubled)
    return error(ours, truth) / error(theirs, truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    with torch.inference_mode():
        for filtering, dtype in CASES:
            ratios = [
                ratio(filtering, dtype, channels, side, seed)
                for channels in CHANNELS
                for side in SIDES
                for seed in range(SEEDS)
            ]
            row = {
                "filtering": type(filtering).__name__,
                "dtype": str(dtype).removeprefix("torch."),
                "least": min(ratios),
                "median": sorted(ratios)[len(ratios) // 2],
                "most": max(ratios),
            }
            rows.append(row)
            print("{filtering:12} {dtype:9} {least:.2f} to {most:.2f} times, median {median:.2f}".format(**row))
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads(), "processor": platform.processor()}
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({**facts, "cases": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
