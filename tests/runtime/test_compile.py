"""When a network is compiled: one trace for all sizes, the faster way wins, and plain computing where compiling cannot
be."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import vaeworks as vw
from vaeworks.config import AutoencoderConfig
from vaeworks.errors import ConfigError
from vaeworks.runtime import compile as compiling
from vaeworks.runtime.compile import Compiled, Graphs, compiled, keep_on_disk, missing_compiler

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
SIZES = [(26, 26), (26, 32), (41, 27), (30, 30), (52, 26)]
"""Square first, which a trace must not take for a rule; all on one side of the CPU's two convolutions."""


@pytest.fixture
def vae() -> vw.Autoencoder:
    torch.manual_seed(0)
    config = AutoencoderConfig(channels=32, channel_mult=(1, 1), num_res_blocks=1, norm_groups=8)
    return vw.build(config).requires_grad_(False).eval()


def latents(n: int, h: int, w: int) -> Tensor:
    return torch.randn(n, 4, h, w, generator=torch.Generator().manual_seed(h)).contiguous(
        memory_format=torch.channels_last
    )


def slow(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which plain computing takes a second, and compiled computing so many."""
    real = compiling._timed

    def timed(function: compiling.MapFunction, x: Tensor) -> tuple[Tensor, float]:
        return real(function, x)[0], seconds if getattr(function, "__name__", "") == "_run_compiled" else 1.0

    monkeypatch.setattr(compiling, "_timed", timed)


@torch.inference_mode()
def test_one_trace_for_all_sizes(vae: vw.Autoencoder) -> None:
    """Five sizes take one trace, batches one more; results are the network's."""
    counter = CompileCounter()
    function = Compiled(vae.decode, True, backend=counter)
    for h, w in SIZES:
        torch.testing.assert_close(function(latents(1, h, w)), vae.decode(latents(1, h, w)))
    assert counter.frame_count == 1
    for n, (h, w) in zip((2, 3, 2), SIZES, strict=False):
        torch.testing.assert_close(function(latents(n, h, w)), vae.decode(latents(n, h, w)))
    assert counter.frame_count == 2


@torch.inference_mode()
def test_inductor_gives_the_same(vae: vw.Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real compiler, in two sizes, with its cache where $VAEWORKS_CACHE says."""
    if missing_compiler(torch.device("cpu")):
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("VAEWORKS_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    quick = torch._inductor.config.patch(
        {"cpp_cache_precompile_headers": False}
    )  # which would be compiled for this test alone
    with warnings.catch_warnings(), quick:
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's own
        function = compiled(vae.decoder.norm_out.silu, True)
        for h, w in ((40, 40), (30, 52)):
            x = torch.randn(1, 32, h, w)
            torch.testing.assert_close(function(x), vae.decoder.norm_out.silu(x), rtol=1e-4, atol=1e-5)
    assert any((tmp_path / "inductor").rglob("*.py"))


def test_cache_that_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """$TORCHINDUCTOR_CACHE_DIR is the user's."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    keep_on_disk()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere"


@torch.inference_mode()
def test_auto_leaves_cpus_alone(vae: vw.Autoencoder) -> None:
    """By default nothing is compiled on a CPU, however many pictures come; False gives the function itself."""
    counter = CompileCounter()
    function = Compiled(vae.decode, "auto", backend=counter)
    for _ in range(40):
        function(latents(1, 4, 4))
    assert counter.frame_count == 0 and function.spent == 0
    assert compiled(vae.decode, False) == vae.decode


@torch.inference_mode()
@pytest.mark.parametrize(("seconds", "outcome"), [(0.5, "compiled"), (2.0, "given up")])
def test_auto_waits_and_keeps_the_faster(
    vae: vw.Autoencoder, monkeypatch: pytest.MonkeyPatch, seconds: float, outcome: str
) -> None:
    """Where "auto" may compile, it begins after PATIENCE seconds, and stays with whichever way was faster, also as
    sizes change."""
    monkeypatch.setattr(compiling, "AUTOMATIC", ("cpu",))
    monkeypatch.setattr(compiling, "PATIENCE", 4.0)
    slow(seconds, monkeypatch)
    counter = CompileCounter()
    function = Compiled(vae.decode, "auto", backend=counter)
    states = []
    for i in range(14):
        z = latents(1, *SIZES[i % len(SIZES)])
        torch.testing.assert_close(function(z), vae.decode(z))
        states.append((function.state, counter.frame_count))
    assert states[:4] == [("plain", 0)] * 3 + [("trial", 0)]
    assert states[4] == ("trial", 1) and states[-1] == (outcome, 1)
    assert len(function.seconds[True]) == len(function.seconds[False]) == compiling.TRIALS


def test_a_wanted_gradient_is_not_compiled(vae: vw.Autoencoder) -> None:
    """Compiled code is for inference."""
    counter = CompileCounter()
    z = latents(1, 4, 4).requires_grad_()
    Compiled(vae.decode, True, backend=counter)(z).sum().backward()
    assert z.grad is not None and counter.frame_count == 0


@torch.inference_mode()
def test_without_a_compiler(vae: vw.Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning in one line, and the plain result, then and from then on."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    function, z = compiled(vae.decode, True), latents(1, 4, 4)
    with pytest.warns(UserWarning, match=r"not compiled.*no C\+\+ compiler; install g\+\+, or set CXX$"):
        assert function(z).equal(vae.decode(z))
    assert function(z).equal(vae.decode(z))


@torch.inference_mode()
def test_a_compiler_that_fails(vae: vw.Autoencoder) -> None:
    """What the compiler trips over is run as it is."""

    def broken(graph: object, inputs: object) -> None:
        raise RuntimeError("out of registers\nand more lines")

    function, z = Compiled(vae.decode, True, backend=broken), latents(1, 4, 4)
    with pytest.warns(UserWarning, match="not compiled") as said:
        assert function(z).equal(vae.decode(z))
    assert len(said) == 1 and "\n" not in str(said[0].message)
    assert function(z).equal(vae.decode(z))


def test_own_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """$CXX may name another, with arguments."""
    monkeypatch.setattr(compiling.shutil, "which", lambda name: "/bin/mine" if name == "mine" else None)
    monkeypatch.setenv("CXX", "mine -O2")
    assert missing_compiler(torch.device("cpu")) is None
    monkeypatch.setenv("CXX", "absent")
    assert "C++" in (missing_compiler(torch.device("cpu")) or "")


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """On GPUs it is Triton that compiles."""
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    assert "vaeworks[triton]" in (missing_compiler(torch.device("cuda")) or "")


def test_bad_settings(vae: vw.Autoencoder) -> None:
    """Rules are said in one line."""
    with pytest.raises(ConfigError, match="compile"):
        compiled(vae.decode, "always")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="most"):
        Graphs(vae.decode, vae, most=0)


@torch.inference_mode()
def test_graphs_elsewhere(vae: vw.Autoencoder) -> None:
    """Without a GPU the function is run as it is, and nothing is kept."""
    graphs, z = Graphs(vae.decode, vae), latents(1, 4, 4)
    assert graphs(z).equal(vae.decode(z)) and not graphs.kept


@torch.inference_mode()
def test_graphs_keep_the_sizes_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first picture of a size is plain, the second captured, others replayed; the size used longest ago goes. On a
    pretended GPU."""

    class Pretended:
        def __init__(self, function: compiling.MapFunction, x: Tensor, pool: object):
            captured.append(tuple(x.shape))
            self.function = function

        def replay(self, x: Tensor) -> Tensor:
            return self.function(x)

    class Map:
        device = torch.device("cuda")
        dtype = torch.float32

        def __init__(self, *shape: int):
            self.shape = shape

        def stride(self) -> tuple[int, ...]:
            return self.shape

    captured: list[tuple[int, ...]] = []
    monkeypatch.setattr(compiling, "CapturedGraph", Pretended)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    weights = nn.Linear(1, 1)
    graphs = Graphs(lambda x: x, weights, most=2)
    a, b, c = (Map(1, 4, size, size) for size in (8, 16, 32))
    for x in (a, b, a, b, a, b):
        assert graphs(x) is x  # type: ignore[arg-type, comparison-overlap]
    assert captured == [a.shape, b.shape]
    for x in (c, a, b):
        graphs(x)  # type: ignore[arg-type]
    assert captured == [a.shape, b.shape] and len(graphs.kept) == 2
    graphs(b)  # type: ignore[arg-type]
    assert captured == [a.shape, b.shape, b.shape]
    weights.weight.data = weights.weight.data.clone()  # another address
    for _ in range(2):
        graphs(b)  # type: ignore[arg-type]
    assert captured == [a.shape, b.shape, b.shape, b.shape]


@on_cuda
@torch.inference_mode()
def test_graphs_on_cuda(vae: vw.Autoencoder) -> None:
    """Replays of several sizes in any order give the network's results, in tensors of their own, and see weights change
    in place."""
    vae = copy.deepcopy(vae).cuda()
    graphs = Graphs(vae.decode, vae, most=2)
    some = [latents(1, h, w).cuda() for h, w in SIZES[:3]]
    for i in (0, 0, 0, 1, 1, 0, 1, 2, 2, 1, 0, 0):
        torch.testing.assert_close(graphs(some[i] * (i + 1)), vae.decode(some[i] * (i + 1)))
    first = graphs(some[0])
    kept = first.clone()
    graphs(2 * some[0])
    assert first.equal(kept)
    vae.decoder.conv_out.weight.mul_(2)
    torch.testing.assert_close(graphs(some[0]), vae.decode(some[0]))
    vae.decoder.conv_in.weight.data = 2 * vae.decoder.conv_in.weight.data
    for _ in range(3):
        torch.testing.assert_close(graphs(some[0]), vae.decode(some[0]))


@on_cuda
@torch.inference_mode()
def test_compiled_on_cuda(vae: vw.Autoencoder) -> None:
    """Triton's code gives the network's results in changing sizes."""
    vae = copy.deepcopy(vae).cuda()
    function = compiled(vae.decode, True)
    for h, w in SIZES[:3]:
        z = latents(1, h, w).cuda()
        torch.testing.assert_close(function(z), vae.decode(z), rtol=1e-3, atol=1e-3)
