"""Kernels between convolutions: the plain formulas, and Triton's kernels against them, by its interpreter; compiled for
GPUs, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import SHAPES, drawn, exact, group_norm_silu, norm_for, relative
from torch import nn

from vaeworks.nn import GroupNorm
from vaeworks.runtime.kernels import choice, doubled, group_moments, normalized_silu

with_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def cases(*arguments: str, **environment: str) -> dict[str, dict[str, float]]:
    command = [sys.executable, "-W", "ignore", str(Path(__file__).parents[1] / "kernel_cases.py"), *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def interpreted() -> dict[str, dict[str, float]]:
    return cases(TRITON_INTERPRET="1")


@with_triton
def test_triton_normalizes_as_float64_does(interpreted: dict[str, dict[str, float]]) -> None:
    """For every shape and type: float32 within 8 units in the last place, half precision within one, because it is
    rounded once."""
    for case, units in interpreted["norm"].items():
        assert units <= (1.01 if case.endswith("16") else 8), case
    assert len(interpreted["norm"]) == len(SHAPES) + 6


@with_triton
def test_triton_moments_of_far_off_maps(interpreted: dict[str, dict[str, float]]) -> None:
    """A mean of thousands of deviations leaves the variance alone: sums of squares would lose it whole."""
    figures = interpreted["moments"]
    assert figures["var at 0.0"] < 1e-6 and figures["var at 100.0"] < 1e-5 and figures["var at 3000.0"] < 1e-3
    assert max(value for case, value in figures.items() if case.startswith("mean")) < 1e-6


@with_triton
def test_triton_normalizes_strips(interpreted: dict[str, dict[str, float]]) -> None:
    """A strip takes the whole map's statistics, and an epsilon of 1e-11."""
    assert interpreted["strips"]["of the whole map's statistics"] < 1e-6


@with_triton
def test_triton_doubles_bit_for_bit(interpreted: dict[str, dict[str, float]]) -> None:
    """Nearest-neighbour doubling copies."""
    assert set(interpreted["doubling"].values()) == {0.0}


@with_triton
def test_kernels_compile_for_gpus(tmp_path: Path) -> None:
    """Triton makes machine code of every kernel, type and width, though no GPU is here: the interpreter takes what it
    would not."""
    sizes = cases("compile", TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")
    assert sizes.keys() == {"stretches", "merged", "normalized", "doubled"} and all(
        min(found) > 1000 for found in sizes.values()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_plain_formula(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    """Without Triton: float64's result in any type, rounded once."""
    x, norm = drawn(shape, dtype), norm_for(shape[1], dtype)
    assert not choice.suits(x)
    y = group_norm_silu(x, norm)
    assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
    assert relative(y, exact(x, norm)) <= max(0.501 * torch.finfo(dtype).eps, 1e-6)
    assert group_norm_silu(x, norm, torch.float32).dtype == torch.float32
    wanted = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert doubled(x).equal(wanted)


def test_channels_moments_are_groups_of_one() -> None:
    """With as many groups as channels they are the channels' own, and a strip can be normalized with another map's."""
    x, norm = drawn((2, 64, 12, 9), torch.float32), norm_for(64)
    mean, var = group_moments(x, 64)
    torch.testing.assert_close(mean, x.mean((2, 3)))
    torch.testing.assert_close(var, x.var((2, 3), correction=0))
    whole = group_norm_silu(x, norm)
    torch.testing.assert_close(normalized_silu(x[:, :, 4:7], norm, *group_moments(x, 32)), whole[:, :, 4:7])


def test_is_our_networks_normalization() -> None:
    """GroupNorm.silu in evaluation is the same function."""
    norm = GroupNorm(64).requires_grad_(False).eval()
    x = drawn((1, 64, 9, 5), torch.float32)
    torch.testing.assert_close(group_norm_silu(x, norm), norm.silu(x), rtol=1e-5, atol=1e-6)


def test_a_wanted_gradient_is_the_plain_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels have no backward pass, so that maps or weights that want a gradient stay away from them."""
    monkeypatch.setattr(choice, "_runs_on", lambda device: True)
    monkeypatch.setattr(choice, "installed", lambda: True)
    x = drawn((1, 64, 4, 4), torch.float32)
    assert choice.suits(x)
    assert not choice.suits(x.clone().requires_grad_())
    assert not choice.suits(x, nn.Parameter(torch.ones(64)))
    assert not choice.suits(x.contiguous()) and not choice.suits(x.double()) and not choice.suits(x[:0])
    with torch.inference_mode():
        assert choice.suits(x, nn.Parameter(torch.ones(64)))
    leaf = x.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda t: group_norm_silu(t, norm_for(64, torch.float64)), leaf[:, :, :1, :2].detach().requires_grad_()
    )


def test_no_triton_no_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, nothing asks for it."""
    monkeypatch.setattr(choice, "installed", lambda: False)
    monkeypatch.setattr(choice, "_runs_on", lambda device: True)
    monkeypatch.setitem(sys.modules, "triton", None)
    assert group_norm_silu(drawn((1, 64, 4, 4), torch.float32), norm_for(64)).isfinite().all()


@with_triton
@on_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [*SHAPES, (2, 128, 256, 256)], ids=str)
def test_on_cuda(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    """On a GPU the kernels run, and agree with float64."""
    x, norm = drawn(shape, dtype).cuda(), norm_for(shape[1], dtype).cuda()
    assert choice.suits(x, norm.weight)
    assert relative(group_norm_silu(x, norm), exact(x, norm)) <= max(0.51 * torch.finfo(dtype).eps, 2e-6)
    assert doubled(x).equal(F.interpolate(x, scale_factor=2.0, mode="nearest"))
