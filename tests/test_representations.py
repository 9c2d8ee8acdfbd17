"""Objects speak: one line each, and HTML or a picture in notebooks, escaped and with everything inside."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
import torch
from configs import TINY
from PIL import Image
from sheets import sheet_width

import vaeworks as vw
from vaeworks.data import scan
from vaeworks.doctor.compatibility.match import BakedVae, Candidate, Match
from vaeworks.doctor.examination import Examination
from vaeworks.doctor.finding import Figure, Finding, Picture
from vaeworks.doctor.subject import DoctorProtocol
from vaeworks.metrics import evaluate
from vaeworks.metrics.crop import Crop
from vaeworks.metrics.gallery import gallery
from vaeworks.runtime import Codec
from vaeworks.training import LatentStats, RunResult

UNSAFE = "<script>alert('&')</script>"


@pytest.fixture(scope="module")
def vae() -> vw.Autoencoder:
    torch.manual_seed(0)
    return vw.build(TINY).eval()


def test_autoencoder(vae: vw.Autoencoder) -> None:
    """Name, parameters, scale, dtype and device in one line; below it PyTorch's tree."""
    first, tree = repr(vae).split("\n", 1)
    assert first == "f2c4 autoencoder: 41,471 parameters, scaling factor 1, float32 on cpu"
    assert tree.startswith("Autoencoder(\n  (encoder): Encoder(") and tree.endswith(")")
    scale = {"scaling_factor": 0.5, "shift_factor": 0.25}
    guessed = dataclasses.replace(TINY, **scale).mark_guesses(["scaling_factor"])
    assert "scaling factor 0.5, shift factor 0.25 (a guess), bfloat16" in repr(vw.build(guessed).bfloat16())
    by_statistics = dataclasses.replace(TINY, normalization="batchnorm")
    assert "normalized by batch statistics" in repr(vw.build(by_statistics))


def test_posterior_and_codec(vae: vw.Autoencoder) -> None:
    """Shape and type; and how a codec runs its model."""
    posterior = vae.encode(torch.zeros(2, 3, 8, 6))
    assert repr(posterior) == "Posterior(Gaussian, latents 2 x 4 x 4 x 3, float32 on cpu)"
    assert repr(vw.Posterior.point(posterior.mean)).startswith("Posterior(point, latents 2 x 4")
    assert repr(Codec(vae)) == "Codec(f2c4 autoencoder, float32 on cpu, within most of the free memory)"
    assert repr(Codec(vae, dtype=torch.bfloat16, memory="1GiB", tile=8)) == (
        "Codec(f2c4 autoencoder, bfloat16 on cpu, within 1.00 GiB, strips of 8 rows)"
    )


def test_run_result() -> None:
    """Where it is, how far it came, how good it is; a table in notebooks."""
    stats = LatentStats(16, (0.0,) * 4, (1.0,) * 4, 0.5, 0.0)
    result = RunResult(UNSAFE, 96, 60.0, 1.6, 21.5, 22.0, 41_471, "fp32", "cpu", stats, "scaling factor 0.18215")
    assert repr(result) == (
        f"RunResult({UNSAFE!r}: 96 images in 1.0 min, 21.50 dB on held-out images, scaling factor 0.18215, fp32 on cpu)"
    )
    page = result._repr_html_()
    assert "<script>" not in page and "21.50 dB" in page
    assert "no held-out images" in repr(dataclasses.replace(result, val_psnr=None))


def test_evaluation_and_gallery(vae: vw.Autoencoder) -> None:
    """Figures in one line and in a table; a reconstruction beside its original as a picture."""
    files = scan("photos").files[:2]
    evaluation = dataclasses.replace(evaluate(vae, files, limit=32), name=UNSAFE, notes=(UNSAFE,))
    line = repr(evaluation)
    assert line.startswith(f"Evaluation({UNSAFE}: {evaluation.psnr:.2f} dB PSNR, ") and line.endswith("2 images)")
    page = evaluation._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page and "ms_ssim" in page and "JPEG" in page
    shot = gallery(vae, evaluation, files, Crop(2, limit=32))[0]
    drawn = Image.open(io.BytesIO(shot._repr_png_()))
    side = f"{shot.rank}, {Path(shot.score.path).name}, {shot.score.psnr:.2f} dB"
    assert drawn.width == sheet_width([32] * 3, ("original", "reconstruction", "difference x 4"), [side])
    assert drawn.height == 32 + 2 * 15 + 2 * 3  # two lines above, "difference x 4" being wider than its column
    assert dataclasses.replace(evaluation, scores=())._repr_html_()  # nothing to show is no error


def finding(verdict: str = "ill") -> Finding:
    image = Image.new("RGB", (4, 4), "red")
    return Finding(
        verdict,  # type: ignore[arg-type]
        f"Something {UNSAFE}",
        {"f": Figure(UNSAFE, 0.5, 0.4, 0.6, "dB", "ill above 0.3")},
        meaning="m",
        remedy="r",
        pictures=(Picture(UNSAFE, image, pixelated=True),),
    )


def test_findings() -> None:
    """Verdict and sentence; figures and pictures inside the HTML; a table of panels."""
    found = finding()
    assert repr(found) == f"Finding(ill: Something {UNSAFE})"
    page = found._repr_html_()
    assert "<script>" not in page and "0.400 to 0.600" in page and "ill above 0.3" in page
    assert 'src="data:image/png;base64,' in page and "pixelated" in page and "http" not in page
    assert Image.open(io.BytesIO(found.pictures[0]._repr_png_())).size == (4, 4)
    panels = {"fog": found, "scale": finding("healthy")}
    examination = Examination(UNSAFE, {}, DoctorProtocol("", 0, 0), panels, {})
    assert repr(examination) == f"Examination({UNSAFE}: 1 ill, 1 healthy)"
    page = examination._repr_html_()
    assert "<script>" not in page and page.count("<tr>") == 3


def test_match() -> None:
    """The checkpoint, its own VAE, and who fits; sentences and the picture in notebooks."""
    candidates = (Candidate("a", "fits", ("x",)), Candidate(UNSAFE, "does not fit", ("y",)))
    match = Match("c.safetensors", "Stable Diffusion 1", 4, 8, 0.18215, 0.0, BakedVae("fine", ()), candidates)
    assert repr(match) == ("Match(c.safetensors: Stable Diffusion 1, f8c4, its own VAE is fine, 1 of 2 candidates fit)")
    page = match._repr_html_()
    assert "<script>" not in page and "<img" not in page and page.count("<p>") == 4
    assert "<img" in dataclasses.replace(match, picture=Image.new("RGB", (2, 2)))._repr_html_()
