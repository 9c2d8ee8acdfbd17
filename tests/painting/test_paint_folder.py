"""Folders of trained pipelines with VAEs of several kinds, what `generate` makes of them, and the command."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import configs
import pytest
import torch
from PIL import ImageChops
from test_paint_trouble import CONFIG, OPTIONS, SHAPES, train, weights

import vaeworks as vw
from vaeworks.cli import main
from vaeworks.config import DenoiserConfig
from vaeworks.painting.folder import read_record
from vaeworks.painting.sheet import sheet
from vaeworks.training.monitor.log import read_log

pytestmark = pytest.mark.filterwarnings(  # Euler schedulers call np.array on tensors
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

U_NET = {
    "denoiser": DenoiserConfig(kind="sd1", width=32, depth=1, head_dim=4, text_width=32),
    "objective": "v",
}


def stored(path: Path, config: Any = configs.TINY, **facts: Any) -> Path:
    torch.manual_seed(0)
    model = vw.build(config)
    if facts:
        model.config = model.config.with_facts(**facts)
    vw.save(model, path)
    return path


@pytest.mark.parametrize("how", ["scalar", "channel", "file"])
@pytest.mark.parametrize("kind", ["sd3", "sd1"])
def test_the_vaes_own_file_paints_what_the_pipeline_paints(kind: str, how: str, tmp_path: Path) -> None:
    """Whatever scale it states; the denoiser's statistics are in vaeworks.json."""
    vae = stored(tmp_path / "vae.safetensors", scaling_factor=0.5, shift_factor=0.25)
    out = tmp_path / "pipe"
    train(vae, out, standardize=how, images=16, **(U_NET if kind == "sd1" else {}))
    options: dict[str, Any] = {"steps": 2, "seed": 3, "guidance": 2.0}
    own = vw.generate(str(out), "a red circle", **options).picture
    given = vw.generate(str(out), "a red circle", vae, **options).picture
    other = stored(tmp_path / "other.safetensors", scaling_factor=4.0, shift_factor=-1.0)
    again = vw.generate(str(out), "a red circle", other, **options).picture
    for picture in (given, again):
        assert max(high for _, high in ImageChops.difference(own, picture).getextrema()) <= 1
    assert max(high - low for low, high in own.getextrema()) > 8
    stated = json.loads((out / "vaeworks.json").read_text())
    assert len(stated["mean"]) == len(stated["std"]) == 4 and stated["guidance"] == CONFIG.guidance
    assert (len(set(stated["std"])) == 1) == (how != "channel")
    if how == "file":
        assert stated["std"] == pytest.approx([2.0] * 4) and stated["mean"] == pytest.approx([0.25] * 4)


def test_a_taesd(tmp_path: Path) -> None:
    """Latents as its file scales them; the folder is stock."""
    import diffusers

    vae = stored(tmp_path / "taesd.safetensors", configs.TINY_TAESD)
    train(vae, tmp_path / "pipe", images=16)
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "pipe", local_files_only=True)
    assert type(pipe.vae).__name__ == "AutoencoderTiny"
    picture = vw.generate(str(tmp_path / "pipe"), "a red circle", steps=1).picture
    assert picture.size == (16, 16)


def test_a_torn_vaeworks_json_is_one_line(tmp_path: Path) -> None:
    vae = stored(tmp_path / "vae.safetensors")
    train(vae, tmp_path / "pipe", images=8, save_every=8)
    (tmp_path / "pipe" / "vaeworks.json").write_text('{"mean": [0.1], "std": "x"}')
    with pytest.raises(vw.FormatError, match=r"vaeworks.json does not say how latents are standardized") as caught:
        vw.generate(str(tmp_path / "pipe"), "a red circle", vae, steps=1)
    assert "\n" not in str(caught.value)


def test_a_sheet_has_its_prompts() -> None:
    """Each above its picture; small pictures are enlarged by a whole number."""
    pictures = torch.zeros(10, 3, 48, 48, dtype=torch.uint8)
    pictures[3] = 255
    plain, named = sheet(pictures, [""] * 10), sheet(pictures, ["a red circle"] * 10)
    assert plain.width > 8 * 144 and plain.height > 2 * 144
    assert named.height > plain.height or named.tobytes() != plain.tobytes()
    white = [count for count, colour in named.convert("RGB").getcolors(1 << 20) if colour == (255, 255, 255)]
    assert sum(white) >= 144 * 144


# The command


@pytest.fixture(scope="module")
def commanded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A VAE, and what the command made."""
    folder = tmp_path_factory.mktemp("command")
    vae = stored(folder / "vae.safetensors")
    words = ["train-pipeline", "--vae", str(vae), "--data", SHAPES, *OPTIONS, "--images", "16"]
    assert main([*words, "--out", str(folder / "pipe")]) == 0
    return vae, folder / "pipe"


def test_the_command_prints_the_result(commanded: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    vae, out = commanded
    words = ["train-pipeline", "--vae", str(vae), "--data", SHAPES, "--out", str(out), "--resume", "--json"]
    assert main(words) == 0  # with the run's own settings, of which nothing is left to train
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert (result["kind"], result["images_seen"]) == ("StableDiffusion3Pipeline", 16)
    assert result["held_out_loss"] is not None
    assert "vaeworks generate" in said.err


def test_resume_takes_the_runs_settings_and_new_ones(commanded: tuple[Path, Path], tmp_path: Path) -> None:
    vae, out = commanded
    again = tmp_path / "pipe"
    shutil.copytree(out, again)
    words = ["train-pipeline", "--vae", str(vae), "--data", SHAPES, "--out", str(again), "--resume", "--images", "24"]
    assert main(words) == 0
    assert read_record(again).config == dataclasses.replace(read_record(out).config, images=24)
    assert [line["images_seen"] for line in read_log(again / "training") if "loss" in line] == [8, 16, 24]
    a, b = weights(out), weights(again)
    assert any(not torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("added", "words"),
    [
        (["--recipe", "paint-tinny"], "unknown recipe 'paint-tinny' for train-pipeline; did you mean 'paint-tiny'?"),
        (["--batch", "0"], "batch (=0) must be at least 1"),
        (["--denoiser.kind", "sd1"], "is for a denoiser of kind"),
        (["--caption", "a dog"], "must contain {}"),
        (["--from", "nowhere/at/all"], "nowhere/at/all"),
        (["--resume"], "holds no run to resume"),
        (["--data", "shapes:8:16"], "8 usable images; at least 16 are needed"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(
    added: list[str], words: str, commanded: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vae, _ = commanded
    out = tmp_path / "pipe"
    assert main(["train-pipeline", "--vae", str(vae), "--data", SHAPES, *OPTIONS, "--out", str(out), *added]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vaeworks: ")]
    assert len(said) == 1 and words in said[0], said
    assert not out.exists()
