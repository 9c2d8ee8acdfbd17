"""The demo, with next to no training: everything it promises is there and works without us."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from html_pages import checked
from PIL import Image

import vaeworks as vw
from vaeworks import demo
from vaeworks.cli import COMMANDS, main
from vaeworks.doctor.panels import TITLES
from vaeworks.metrics import ImageScore


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:  # smaller pictures; all else is the demo's
        patch.setattr(demo, "DOCTOR_SIZE", 64)
        patch.setattr(demo, "LIMIT", 128)
        patch.setattr(demo, "FIGURES", 196)
        patch.setattr(demo, "JUDGED", 8)
        assert main(["demo", "--out", str(folder), "--max-minutes", "0.02", "--paint-minutes", "0.01"]) == 0
    return folder


def test_demo_leaves_what_it_promises(out: Path) -> None:
    """Run, exports, pictures and reports; the report has every headline figure."""
    names = [
        "run/model.safetensors",
        "doctor/report.html",
        "doctor/report.json",
        "vae-diffusers/config.json",
        "vae-ldm.safetensors",
        "pipeline/model_index.json",
        "pipeline/training/report.html",
        "painted.png",
        "repainted.png",
        "report.html",
    ]
    assert all((out / name).is_file() for name in names)
    report = json.loads((out / "report.json").read_text())
    assert report["largest_difference_to_diffusers"] < 1e-5
    assert set(report["doctor"]) == set(TITLES)
    assert report["prompt"] == "a photo of a dog"
    assert report["pipeline"] == "StableDiffusionPipeline"
    assert report["painting"]["kind"] == "StableDiffusion3Pipeline"
    painted = report["painted"]
    assert (painted["count_seen"], painted["count_unseen"]) == (8, 28)
    assert painted["chance"]["all"] == pytest.approx(1 / 224)
    assert all(0 <= painted[part]["all"] <= painted[part]["shape"] <= 1 for part in ("seen", "unseen", "untrained"))
    assert report["gain_over_down_up"] == pytest.approx(
        report["psnr"] - report["evaluation"]["baselines"]["bicubic down-up"]["psnr"]
    )
    baselines = report["evaluation"]["baselines"]
    assert report["gain_over_pca"] == pytest.approx(report["psnr"] - baselines["PCA, same numbers"]["psnr"])
    assert report["evaluation"]["codes"].endswith("PCA: components of the training images, fitted on 12 images")
    trained_on = {f["digest"] for f in json.loads((out / "run" / "data.json").read_text())["train"]}
    held_out = {f["path"] for f in json.loads((out / "run" / "data.json").read_text())["val"]}
    assert {s["path"] for s in report["evaluation"]["scores"]} == held_out
    assert not trained_on & {f["digest"] for f in json.loads((out / "run" / "data.json").read_text())["val"]}


def test_page_is_self_contained(out: Path) -> None:
    """No address of anything outside, every picture inside, alternative texts for all."""
    page = checked(out / "report.html")
    assert "@import" not in page.text
    assert len(page.pictures()) == len(page.all("img")) >= 12 + 2 + 16 + 3
    assert "PSNR, dB" in page.said and page.text.count("<svg") >= 1  # a short run has logged no loss
    report = json.loads((out / "report.json").read_text())
    assert f"{report['psnr']:.2f} dB" in page.said
    assert checked(out / "doctor" / "report.html") and checked(out / "run" / "report.html")


def test_page_links_what_it_names_and_says_what_is_next(out: Path) -> None:
    """Every file that was saved; the next commands parse; photographs that are worse than bicubic are named."""
    page = checked(out / "report.html")
    links = {values["href"] for values in page.all("a")}
    assert links >= {"run/model.safetensors", "run/report.html", "doctor/report.html", "vae-diffusers", "report.json"}
    commands = [command for _, command in demo.own_commands(out)]
    assert all(command in page.said for command in commands)
    for words in map(shlex.split, commands):
        assert words[0] == "vaeworks" and words[1] in COMMANDS
        assert all(word.removeprefix("--") in ("out", "data", "from", "layout") for word in words if word[:2] == "--")
    scores = json.loads((out / "report.json").read_text())["evaluation"]["scores"]
    gains = {Path(s["path"]).stem: s["psnr"] - s["baselines"]["bicubic down-up"][0] for s in scores}
    for name, gain in gains.items():
        assert (f"{name} ({gain:+.2f} dB)" in page.said) == (gain < 0)
        assert f"{abs(gain):.2f} dB {'better' if gain > 0 else 'worse'} than bicubic" in page.said


def test_a_sentence_names_what_bicubic_does_better() -> None:
    def score(name: str, psnr: float) -> ImageScore:
        return ImageScore(f"{name}.png", 8, 8, psnr, 0.9, {"bicubic down-up": (30.0, 0.9)}, 1, 1)

    said = demo.behind_down_up([score("moon", 29.0), score("cat", 31.0), score("sky", 29.5)])
    assert "2 of 3 photographs" in said and "moon (-1.00 dB), sky (-0.50 dB)" in said and "cat" not in said
    assert demo.behind_down_up([score("cat", 31.0)]) == ""


def test_exports_load_without_us(out: Path) -> None:
    """diffusers' own class loads the folder; the three files hold one model, with its measured factors."""
    theirs = AutoencoderKL.from_pretrained(out / "vae-diffusers")
    ours, ldm = vw.load(out / "run"), vw.load(out / "vae-ldm.safetensors")
    assert theirs.config.scaling_factor == ours.config.scaling_factor == ldm.config.scaling_factor != 1.0
    assert theirs.config.shift_factor == ours.config.shift_factor
    images = torch.rand(1, 3, 64, 96) * 2 - 1
    with torch.no_grad():
        expected = theirs.decode(theirs.encode(images).latent_dist.mode()).sample
        for vae in (ours, ldm, vw.load(out / "vae-diffusers")):
            torch.testing.assert_close(vae.decode(vae.encode(images).mode()), expected, atol=1e-5, rtol=0)


def test_the_demo_paints_without_vaeworks(out: Path, tmp_path: Path) -> None:
    """A program that cannot import vaeworks paints the prompt of the page, with the demo's pipeline."""
    code = """
import sys
sys.modules["vaeworks"] = None
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
picture = pipe("a red circle on a blue ground", num_inference_steps=2, height=48, width=48).images[0]
picture.save(sys.argv[2])
"""
    picture = tmp_path / "painted.png"
    subprocess.run([sys.executable, "-c", code, str(out / "pipeline"), str(picture)], check=True, timeout=300)
    with Image.open(picture) as painted:
        assert painted.size == (48, 48)


def test_painting_can_be_skipped(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--skip paint` trains no denoiser, and the page says so; another part cannot be skipped."""
    monkeypatch.setattr(demo, "DOCTOR_SIZE", 64)
    monkeypatch.setattr(demo, "LIMIT", 128)
    result = vw.run_demo(tmp_path / "demo", 0.01, skip=("paint",))
    assert result.paint is None and result.painted is None and not (tmp_path / "demo" / "pipeline").exists()
    assert "was skipped" in (tmp_path / "demo" / "report.html").read_text()
    with pytest.raises(vw.ConfigError, match="must be paint"):
        vw.run_demo(tmp_path / "other", skip=("doctor",))


def test_demo_clears_only_what_a_demo_made(out: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not unasked, never a folder that holds something else, and never a file it did not make."""
    assert main(["demo", "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    (tmp_path / "thesis.txt").write_text("precious")
    assert main(["demo", "--out", str(tmp_path), "--overwrite"]) == 2
    (out / "notes.txt").write_text("precious")

    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def begun(*args: object, **options: object) -> None:
        assert {path.name for path in out.iterdir()} == {"notes.txt", demo.EARLIER, demo.LOCK}
        (out / "run").mkdir()
        raise vw.ConfigError("far enough")

    monkeypatch.setattr(demo, "train", begun)
    assert main(["demo", "--out", str(out), "--overwrite"]) == 2
    assert capsys.readouterr().err.endswith("far enough\n")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before  # the earlier demo is back
    assert (out / "notes.txt").read_text() == (tmp_path / "thesis.txt").read_text() == "precious"
