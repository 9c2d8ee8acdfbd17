"""Export to ONNX: the same function for every size, under the names that others expect, or nothing at all."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from configs import LEAST
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

import vaeworks as vw
from vaeworks.cli import main
from vaeworks.config import AutoencoderConfig, BottleneckConfig, TinyConfig, from_dict
from vaeworks.errors import ConfigError, MissingExtraError, VaeworksError
from vaeworks.exports import onnx as exporting
from vaeworks.exports import onnx_graphs
from vaeworks.exports.onnx import export_onnx
from vaeworks.exports.onnx_check import quiet_session

ATTENTION = AutoencoderConfig(
    channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    norm_groups=4,
    latent_channels=3,
    num_heads=2,
    scaling_factor=0.5,
    shift_factor=0.25,
)
POINT = dataclasses.replace(LEAST, bottleneck=BottleneckConfig(kind="point", bound="layernorm"), padding_mode="reflect")
FLUX2_LIKE = dataclasses.replace(LEAST, normalization="batchnorm", latents_patch=2, padding_mode="circular")


def random_vae(config: AutoencoderConfig | TinyConfig) -> vw.Autoencoder:
    torch.manual_seed(0)
    vae = vw.build(config)
    if config.normalization == "batchnorm":
        assert vae.bn.running_mean is not None and vae.bn.running_var is not None
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.3, 3)
    return vae


def ran(path: Path, given: Tensor) -> dict[str, Tensor]:
    """Outputs by name."""
    session = quiet_session(path)
    (taken,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(torch.from_numpy, session.run(None, {taken.name: given.numpy()})), strict=True))


def assert_near(found: Tensor, expected: Tensor, share: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert (found.float() - expected).abs().max() <= share * (expected.max() - expected.min()).clamp_min(1e-3)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[vw.Autoencoder, Path, exporting.OnnxExport]:
    vae = random_vae(ATTENTION).train()
    folder = tmp_path_factory.mktemp("onnx") / "plain"
    result = export_onnx(vae, folder)
    assert vae.training  # the model is not touched
    return vae.eval(), folder, result


@pytest.mark.parametrize(("n", "h", "w"), [(1, 1, 1), (1, 2, 9), (5, 8, 3), (1, 40, 24)])
def test_any_batch_and_size(plain: tuple[vw.Autoencoder, Path, Any], n: int, h: int, w: int) -> None:
    """One file is the model's function for every batch, height and width, also 1 and those of the tracing."""
    vae, folder, _ = plain
    images, latents = torch.rand(n, 3, 2 * h, 2 * w) * 2 - 1, torch.randn(n, 3, h, w)
    with torch.inference_mode():
        posterior, decoded = vae.encode(images), vae.decode(latents)
    encoded = ran(folder / "encoder.onnx", images)
    assert list(encoded) == ["mean", "logvar"]
    assert_near(encoded["mean"], posterior.mean)
    assert_near(encoded["logvar"], posterior.logvar)
    assert_near(ran(folder / "decoder.onnx", latents)["images"], decoded)


def test_what_the_file_says(plain: tuple[vw.Autoencoder, Path, exporting.OnnxExport]) -> None:
    """Names, axes and the model's facts are in the file; nothing of the machine that wrote it is."""
    vae, folder, result = plain
    for name in ("encoder.onnx", "decoder.onnx"):
        path = folder / name
        assert onnx.load(str(path)).ir_version == 9  # opset 20's own, which older runtimes read
        onnx.checker.check_model(str(path), full_check=True)
        assert str(Path(vw.__file__).parent).encode() not in path.read_bytes()
        facts = quiet_session(path).get_modelmeta().custom_metadata_map
        assert from_dict(AutoencoderConfig, json.loads(facts["config"])) == vae.config
        assert (facts["downsample_factor"], facts["scaling_factor"], facts["shift_factor"]) == ("2", "0.5", "0.25")
        assert len(facts["model_digest"]) == 64
    encoder, decoder = (quiet_session(folder / name) for name in ("encoder.onnx", "decoder.onnx"))
    assert encoder.get_inputs()[0].shape == ["n", 3, "height", "width"]
    assert [o.shape for o in encoder.get_outputs()] == [["n", 3, "height / 2", "width / 2"]] * 2
    assert decoder.get_outputs()[0].shape == ["n", 3, "height * 2", "width * 2"]
    assert sorted(p.name for p in folder.iterdir()) == ["decoder.onnx", "encoder.onnx"]
    assert all(0 < file.difference < 1e-5 for file in result.files)
    assert sum(file.bytes for file in result.files) == sum(p.stat().st_size for p in folder.iterdir())


def test_names_that_optimum_expects(tmp_path: Path) -> None:
    """Layout optimum: its folders, names and config.json; parameters are what diffusers makes a posterior of. In
    float16."""
    vae = random_vae(dataclasses.replace(LEAST, mid_attention=True)).eval()
    (tmp_path / "out").mkdir()  # an empty folder is as good as none
    export_onnx(vae, tmp_path / "out", layout="optimum", dtype=torch.float16)
    images, latents = torch.rand(2, 3, 8, 12).half() * 2 - 1, torch.randn(2, 2, 4, 6).half()
    with torch.inference_mode():
        posterior, decoded = vae.encode(images.float()), vae.decode(latents.float())
    parameters = ran(tmp_path / "out/vae_encoder/model.onnx", images)["latent_parameters"]
    sample = ran(tmp_path / "out/vae_decoder/model.onnx", latents)["sample"]
    assert parameters.dtype == sample.dtype == torch.float16
    theirs = DiagonalGaussianDistribution(parameters.float())
    assert_near(theirs.mean, posterior.mean, 5e-3)
    assert_near(theirs.std, posterior.std, 5e-3)
    assert_near(sample, decoded, 5e-3)
    for half, height in (("encoder", "sample_height"), ("decoder", "latent_height")):
        session = quiet_session(tmp_path / f"out/vae_{half}/model.onnx")
        (taken,), (given,) = session.get_inputs(), session.get_outputs()
        assert taken.name == ("sample" if half == "encoder" else "latent_sample")
        # Optimum evaluates the names of an output's axes, word by word
        words = ["12" if word == height else word for word in given.shape[2].split(" ")]
        assert eval(" ".join(words)) == (6 if half == "encoder" else 24)
        config = json.loads((tmp_path / f"out/vae_{half}/config.json").read_text())
        assert (config["_class_name"], config["scaling_factor"]) == ("AutoencoderKL", 1.0)


def test_normalized(tmp_path: Path) -> None:
    """normalized: mean, variance and decoder belong to latents as a diffusion model sees them, with squares become
    channels."""
    vae = random_vae(FLUX2_LIKE).eval()
    export_onnx(vae, tmp_path / "out", normalized=True)
    images, z, noise = torch.rand(2, 3, 8, 12) * 2 - 1, torch.randn(1, 8, 3, 2), torch.randn(2, 2, 4, 6)
    with torch.inference_mode():
        posterior = vae.encode(images)
        mean, sample = vae.normalize(posterior.mean), vae.normalize(posterior.sample(noise=noise))
        decoded = vae.decode(vae.denormalize(z))
    found = ran(tmp_path / "out/encoder.onnx", images)
    assert_near(found["mean"], mean)
    std = (found["logvar"] / 2).exp()
    assert_near(found["mean"] + std * torch.nn.functional.pixel_unshuffle(noise, 2), sample)
    assert_near(ran(tmp_path / "out/decoder.onnx", z)["images"], decoded)


def test_command_and_weights_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`export` prints what it measured; weights too large for one file go beside it, by a name that survives moving the
    folder."""
    vae = random_vae(POINT).eval()
    vw.save(vae, tmp_path / "vae.safetensors")
    monkeypatch.setattr(onnx_graphs, "LARGEST", 100)
    assert main(["export", str(tmp_path / "vae.safetensors"), str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [file["half"] for file in said["files"]] == ["encoder", "decoder"]
    assert all(file["difference"] < 1e-5 for file in said["files"])
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    names = ["decoder.onnx", "decoder.onnx.data", "encoder.onnx", "encoder.onnx.data"]
    assert sorted(p.name for p in (tmp_path / "elsewhere").iterdir()) == names
    assert sum(file["bytes"] for file in said["files"]) == sum(
        p.stat().st_size for p in (tmp_path / "elsewhere").iterdir()
    )
    images = torch.rand(1, 3, 8, 12) * 2 - 1
    with torch.inference_mode():
        expected = vae.encode(images).mean
    assert_near(ran(tmp_path / "elsewhere/encoder.onnx", images)["latents"], expected)


def test_wrong_graph_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that computes something else is not kept, not even under another name, and what was there before is."""

    def wrong(graph: onnx_graphs.OnnxGraph, *rest: Any) -> None:
        with torch.no_grad():
            next(p for name, p in graph.module.named_parameters() if name.endswith("encoder.conv_in.bias")).add_(0.01)
        onnx_graphs.write_graph(graph, *rest)

    monkeypatch.setattr(exporting, "write_graph", wrong)
    monkeypatch.setattr(exporting, "graphs", lambda vae, *rest: exporting_graphs(copy_of(vae), *rest))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/encoder.onnx").write_bytes(b"before")
    with pytest.raises(VaeworksError, match=r"onnxruntime's encoder differs .* nothing was written"):
        export_onnx(random_vae(LEAST), tmp_path / "out", overwrite=True)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["out", "out/encoder.onnx"]
    assert (tmp_path / "out/encoder.onnx").read_bytes() == b"before"


exporting_graphs = exporting.graphs


def copy_of(vae: vw.Autoencoder) -> vw.Autoencoder:
    other = vw.build(vae.config).eval().requires_grad_(False)
    other.load_state_dict(vae.state_dict())
    return other


def test_float16_that_would_be_black(tmp_path: Path) -> None:
    """Activations beyond float16 are found before anything is written, although onnxruntime's CPU would not
    overflow."""
    vae = random_vae(LEAST)
    with torch.no_grad():
        vae.decoder.conv_in.weight.mul_(1e7)
    with pytest.raises(ConfigError, match=r"decoder\.conv_in reaches .* more than float16 holds .*repair"):
        export_onnx(vae, tmp_path / "out", dtype=torch.float16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (LEAST, {"opset": 17}, r"opset \(=17\) must be in 18\.\.23"),
        (LEAST, {"dtype": torch.bfloat16}, "must be float32 or float16"),
        (LEAST, {"layout": "onnx"}, "unknown layout 'onnx'; known: plain, optimum"),
        (LEAST, {"layout": "optimum", "normalized": True}, "would apply it twice"),
        (POINT, {"layout": "optimum"}, "predicts latents alone"),
        (LEAST, {}, "exists; choose another name"),
        (LEAST, {"overwrite": True}, r"holds other things .*\(notes\.txt\)"),
    ],
)
def test_refused(tmp_path: Path, config: AutoencoderConfig, settings: dict[str, Any], message: str) -> None:
    """What cannot be or would destroy something is refused in one line, at once."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=message):
        export_onnx(vw.build(config), tmp_path, **settings)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"needs onnxscript: pip install 'vaeworks\[onnx\]'"):
        export_onnx(vw.build(LEAST), tmp_path / "out")


def test_checks_see_what_is_wrong() -> None:
    """A difference is a share of the range; a shape or a value that is none is never below a limit."""
    from vaeworks.exports.onnx_check import _share

    ours = torch.tensor([[-1.0, 3.0]])
    assert _share(ours, ours + torch.tensor([[0.0, 0.4]])) == pytest.approx(0.1)
    assert not _share(ours, ours.T) <= 1
    assert not _share(ours, torch.tensor([[-1.0, np.nan]])) <= 1
    assert not _share(torch.zeros(2), torch.ones(2)) <= 1
    assert _share(torch.zeros(2), torch.zeros(2)) == 0


def test_a_vae_that_overflows(tmp_path: Path, capsys) -> None:
    """Its graph would give what is no number, too: that is named, and no opset."""
    vae = random_vae(LEAST)
    with torch.no_grad():
        vae.decoder.norm_out.weight.mul_(1e3)
        vae.decoder.conv_out.weight.mul_(1e38)
    vw.save(vae, tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "onnx")]) == 1
    assert "repair" in capsys.readouterr().err and [p.name for p in tmp_path.iterdir()] == ["model"]
