"""What is no number is told of, and never written: every command that makes pictures or latents, with VAEs that
overflow."""

from __future__ import annotations

import copy
import json
import math
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import vaeworks as vw
from vaeworks.cli import main
from vaeworks.errors import ConfigError, DataError, NotFiniteError
from vaeworks.images import clamped, from_model_range
from vaeworks.latents.image_file import write_latents
from vaeworks.metrics.roundtrip import reconstruction
from vaeworks.runtime import Codec
from vaeworks.training.validation import validate

MODEL = {"channels": 8, "norm_groups": 4, "num_res_blocks": 1}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VAEs whose decoder overflows in float16, whose decoder does in float32, and whose encoder does; pictures and
    latents."""
    root = tmp_path_factory.mktemp("overflow")
    torch.manual_seed(0)
    sound = vw.build("small-f8c4", **MODEL)
    for name, half, scale in (("half", "decoder", 1e4), ("decoder", "decoder", 1e38), ("encoder", "encoder", 1e38)):
        model = copy.deepcopy(sound)
        part = getattr(model, half)
        with torch.no_grad():
            part.norm_out.weight.mul_(1e3)
            part.conv_out.weight.mul_(scale)
            part.conv_out.weight.clamp_(-60000, 60000) if name == "half" else None
        vw.save(model, root / name)
    vw.save(sound, root / "sound")
    noise = np.random.default_rng(0)
    for i in range(4):
        (root / "pictures" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(
            root / "pictures" / "ab"[i % 2] / f"{i}.png"
        )
    assert main(["encode", str(root / "sound"), str(root / "pictures/a/0.png"), "--out", str(root / "latents")]) == 0
    return root


COMMANDS = {
    "reconstruct": "reconstruct decoder pictures/a/0.png",
    "reconstruct in half": "reconstruct half pictures/a/0.png --precision fp16",
    "decode": "decode decoder latents/0.safetensors",
    "encode": "encode encoder pictures/a/0.png",
    "encode shards": "encode encoder pictures --into shards --size 32 --workers 0",
    "interpolate": "interpolate decoder pictures/a/0.png pictures/b/1.png --steps 2",
    "vary": "vary decoder pictures/a/0.png --count 2",
    "sample": "sample decoder --from prior --size 32 --count 2",
    "edit": "edit decoder pictures/a/0.png --contrast 1.2",
    "edit by arithmetic": "edit decoder pictures/a/0.png pictures/b/1.png --arithmetic '0.png - 1.png + 0.png'",
    "restore": "restore decoder pictures/a/0.png --noise 10 --steps 2",
    "anomaly": "anomaly decoder --normal procedural:20 --test pictures --size 32 --false-alarms 0.3",
    "anomaly, encoder": "anomaly encoder --normal procedural:20 --test pictures --size 32 --false-alarms 0.3",
    "augment": "augment decoder --data pictures",
    "features": "features encoder --data digits --size 32",
    "listen": "listen decoder sound:made:2",
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_no_command_writes_what_is_no_number(words: str, here: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """Exit code 1, one line that points at `repair`, and no picture and no latents."""
    monkeypatch.chdir(here)
    assert main([*shlex.split(words), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("vaeworks: ") and "no numbers" in said and "`vaeworks repair`" in said
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".png", ".jpg", ".gif", ".safetensors", ".wav", ".npz")]


def test_painting(here: Path, tmp_path: Path, capsys) -> None:
    """Infinities, which a pipeline clamps to white, as well."""
    words = ["generate", "tiny", "a dog", "--vae", str(here / "decoder"), "--steps", "1", "--size", "32"]
    assert main([*words, "--out", str(tmp_path / "a.png")]) == 1
    assert "repair" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_latents_with_nan(here: Path, tmp_path: Path, capsys) -> None:
    """From a file: named, not decoded; and none is written."""
    bad = torch.zeros(4, 4, 4)
    bad[1, 2, 3] = math.nan
    save_file({"latents": bad}, tmp_path / "z.safetensors")
    assert main(["decode", str(here / "sound"), str(tmp_path / "z.safetensors"), "--out", str(tmp_path / "out")]) == 1
    assert "z.safetensors: latents hold 1 values that are no numbers" in capsys.readouterr().err
    with pytest.raises(NotFiniteError, match="latents hold 1 values"):
        write_latents(tmp_path / "again.safetensors", bad, vw.load(here / "sound").config, (32, 32), "mode")
    assert not (tmp_path / "out/z.png").exists() and not (tmp_path / "again.safetensors").exists()


def test_an_evaluation_is_written_and_found_wanting(here: Path, tmp_path: Path, capsys) -> None:
    """Figures that are none, and exit code 1: infinities count, too, which clamping made white."""
    words = [
        "eval",
        str(here / "decoder"),
        "--data",
        str(here / "pictures"),
        "--lpips",
        "off",
        "--features",
        "off",
        "--include-training",
    ]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == 1
    told = capsys.readouterr()
    assert "not finite (NaN or infinite) for 4 images" in told.err and "repair" in told.err
    assert json.loads(told.out)["psnr"] is None
    assert main([*words[:1], str(here / "sound"), *words[2:]]) == 0


def test_where_tensors_become_pictures() -> None:
    """The one place refuses both kinds; clamping hides neither; what is finite is as it was."""
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0])
    assert from_model_range(x).tolist() == [0, 0, 128, 255, 255] and torch.equal(clamped(x), x.clamp(-1, 1))
    for value in (math.nan, math.inf, -math.inf):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            with pytest.raises(NotFiniteError, match="hold 1 values that are no numbers") as caught:
                from_model_range(clamped(torch.cat([x, torch.tensor([value])]).to(dtype)))
            assert (
                isinstance(caught.value, ConfigError)
                and isinstance(caught.value, DataError)
                and caught.value.exit_code == 1
            )


def test_calls_from_python(here: Path) -> None:
    """In, out, in a posterior's variance, and in a look at held-out images, which has no picture then and no figure."""
    image = torch.rand(3, 32, 32) * 255
    for name, half in (("decoder", "decode"), ("encoder", "encode")):
        codec = Codec(vw.load(here / name))
        with pytest.raises(NotFiniteError):
            getattr(codec, half)(torch.zeros(1, 4, 4, 4) if half == "decode" else torch.rand(1, 3, 32, 32) * 2 - 1)
    with pytest.raises(NotFiniteError, match="images hold"):
        Codec(vw.load(here / "sound")).encode(torch.full((1, 3, 32, 32), math.inf))
    sound = vw.load(here / "sound")
    with torch.no_grad():
        sound.encoder.conv_out.bias[6] = math.inf
    with pytest.raises(NotFiniteError, match="encoded latents hold 16 values"):
        Codec(sound).encode(torch.rand(1, 3, 32, 32) * 2 - 1)
    broken = vw.load(here / "decoder")
    seen = validate(broken, [image.byte()])
    assert seen.picture is None and math.isnan(seen.psnr) and not reconstruction(broken, image.byte())[1]
