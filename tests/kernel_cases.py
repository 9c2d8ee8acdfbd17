"""What Triton's interpreter computes in tests. As a program, with TRITON_INTERPRET=1: prints deviations as JSON.

In a process of its own, because Triton looks at that variable once, when it is imported, which torch.compile does as
well.
"""

from __future__ import annotations

import json
import sys
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaeworks.runtime.kernels import choice, doubled, group_moments, normalized_silu

SHAPES = [(3, 96, 33, 9), (1, 512, 13, 11), (1, 64, 1, 1), (2, 128, 8, 6), (1, 320, 3, 23), (1, 32, 41, 43)]
"""Few pixels and many, odd sizes, channels that are no power of two."""
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ROUNDING = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
"""Between neighbouring numbers, relative: the interpreter cuts bfloat16's digits off, GPUs round."""

TYPES_OF_CASES = [
    ("float32", "float32", "float32"),
    ("bfloat16", "bfloat16", "bfloat16"),
    ("float16", "float16", "float16"),
    ("bfloat16", "float32", "float32"),
]
"""of the map, of the result, of the weights"""


def group_norm_silu(x: Tensor, norm: nn.GroupNorm, dtype: torch.dtype | None = None) -> Tensor:
    """Both passes: statistics, then the result."""
    mean, var = group_moments(x, norm.num_groups)
    return normalized_silu(x, norm, mean, var, dtype)


def drawn(shape: tuple[int, int, int, int], dtype: torch.dtype, offset: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(shape, generator=generator) * torch.rand(1, shape[1], 1, 1, generator=generator).mul(3) + offset
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def norm_for(channels: int, dtype: torch.dtype = torch.float32, eps: float = 1e-6) -> nn.GroupNorm:
    generator = torch.Generator().manual_seed(channels)
    norm = nn.GroupNorm(32, channels, eps).requires_grad_(False)
    norm.weight.copy_(torch.randn(channels, generator=generator))
    norm.bias.copy_(torch.randn(channels, generator=generator))
    return norm.to(dtype)


def exact(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    return F.silu(F.group_norm(x.double(), norm.num_groups, norm.weight.double(), norm.bias.double(), norm.eps))


def relative(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over 1 or the number's own size, whichever is more."""
    return ((actual.double() - expected).abs() / expected.abs().clamp(min=1)).max().item()


def deviations() -> dict[str, dict[str, float]]:
    from vaeworks.runtime.kernels import triton_normalization

    triton_normalization.PROGRAMS = (
        2  # so that a program has several blocks to merge, as on maps that are too large for here
    )
    found: dict[str, dict[str, float]] = {"norm": {}, "doubling": {}, "moments": {}, "strips": {}}
    for shape in SHAPES:
        for name, out, weights in TYPES_OF_CASES if shape in SHAPES[:2] else TYPES_OF_CASES[:1]:
            x, norm = drawn(shape, TYPES[name]), norm_for(shape[1], TYPES[weights])
            assert choice.suits(x, norm.weight)
            y = group_norm_silu(x, norm, TYPES[out])
            assert y.dtype == TYPES[out] and y.is_contiguous(memory_format=torch.channels_last)
            found["norm"][f"{shape} {name}, weights {weights}, to {out}"] = relative(y, exact(x, norm)) / ROUNDING[out]
    for shape, (name, dtype) in product(SHAPES, TYPES.items()):
        x = drawn(shape, dtype)
        reference = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        found["doubling"][f"{shape} {name}"] = (doubled(x) - reference).abs().max().item()
    for offset in (0.0, 100.0, 3000.0):  # where sums of squares would lose all digits
        x = drawn((1, 64, 35, 31), torch.float32, offset)
        mean, var = group_moments(x, 32)
        wanted = x.double().unflatten(1, (32, -1))
        found["moments"][f"mean at {offset}"] = relative(mean, wanted.mean((2, 3, 4)))
        found["moments"][f"var at {offset}"] = relative(
            var / wanted.var((2, 3, 4), correction=0), torch.ones(1, 32).double()
        )
    # what the statistics of a large map make of one strip of it, as runtime/lazy_maps.py asks for
    x, norm = drawn((2, 64, 24, 9), torch.float32), norm_for(64, eps=1e-6 / 65536)
    mean, var = group_moments(x, 32)
    strip = x[:, :, 8:13].contiguous(memory_format=torch.channels_last)
    wanted = exact(x, norm)[:, :, 8:13]
    found["strips"]["of the whole map's statistics"] = relative(
        normalized_silu(strip, norm, mean.double(), var.double()), wanted
    )
    return found


def compiled_for_gpus() -> dict[str, list[int]]:
    """Sizes of the machine code that Triton makes of every kernel, for GPUs that are not here."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from vaeworks.runtime.kernels import triton_doubling, triton_normalization

    sizes: dict[str, list[int]] = {}
    for kind, channels in product(("fp32", "bf16", "fp16"), (96, 512)):
        wide = {96: 128, 512: 512}[channels]
        rows, width, counts = (
            8192 // wide,
            channels // 32,
            dict.fromkeys(("pixels", "stretch", "parts", "groups", "length"), "i32"),
        )
        group = 1 << (width - 1).bit_length()
        f32, constants = "*fp32", {"C": channels, "WIDE": wide, "ROWS": rows}
        kernels = {
            "stretches": (triton_normalization._stretches, {"x": f"*{kind}", "means": f32, "squares": f32}, constants),
            "merged": (
                triton_normalization._merged,
                dict.fromkeys(("means", "squares", "mean_out", "var_out"), f32),
                {"C": channels, "WIDTH": width, "WIDE": group, "PARTS": 1024 // group},
            ),
            "normalized": (
                triton_normalization._normalized,
                {
                    "x": f"*{kind}",
                    "y": f"*{kind}",
                    "mean": f32,
                    "var": f32,
                    "weight": f"*{kind}",
                    "bias": f32,
                    "eps": "fp32",
                },
                {**constants, "WIDTH": width},
            ),
            "doubled": (triton_doubling._doubled, {"x": f"*{kind}", "y": f"*{kind}"}, {"C": channels, "BLOCK": 2048}),
        }
        for name, (kernel, types, constant) in kernels.items():
            signature = {a: "constexpr" if a in constant else types.get(a) or counts[a] for a in kernel.arg_names}
            made = compile(
                ASTSource(kernel, signature, constant), target=GPUTarget("cuda", 80, 32), options={"num_warps": 8}
            )
            sizes.setdefault(name, []).append(len(made.asm["cubin"]))
    return sizes


if __name__ == "__main__":
    torch.set_num_threads(1)
    json.dump(compiled_for_gpus() if sys.argv[1:] == ["compile"] else deviations(), sys.stdout)
