"""README's commands and Python blocks, run on small inputs. Each line is found by parsing README: none is forgotten."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tomllib
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import vaeworks as vw
from vaeworks.cli import COMMANDS, main
from vaeworks.data import photos

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(*languages: str) -> list[str]:
    """The fenced blocks of README in these languages."""
    return [
        text for language, text in re.findall(r"^```(\w*)\n(.*?)^```", README, re.M | re.S) if language in languages
    ]


LINES = [
    words
    for block in blocks("bash", "console")
    for line in block.splitlines()
    if (words := shlex.split(line, comments=True))
]
"""The command lines of README, split as a shell splits them, without their comments."""

# Small inputs

SMALL = vw.AutoencoderConfig(
    channels=32, channel_mult=(1, 1, 1, 1), num_res_blocks=1, scaling_factor=0.5, shift_factor=0.1
)
"""As small as a VAE can be that applications recognize as Stable Diffusion's: four channels, f = 8, 32 groups."""

SHORT_RUN = (
    "--images 16 --batch 8 --data.size 32 --data.workers 0 --data.val-fraction 0.3 "
    "--stats-images 8 --precision fp32 --trackers"
)
TINY_MODEL = "--model.channels 16 --model.channel-mult 1 1 1 1 --model.num-res-blocks 1 --model.norm-groups 4"
SHORT_ARENA = "--budget 128 --samples 16 --features statistics --jobs 1 --shifts none --probes xs"


def full_size(place: Path) -> None:
    """vae.safetensors of Stable Diffusion's own shapes: zeros in half precision."""
    with torch.device("meta"):
        vae = vw.build("sd1").half()
    vae = vae.to_empty(device="cpu")
    for p in vae.parameters():
        p.data.zero_()
    vw.save(vae, place / "vae.safetensors", layout="ldm", overwrite=True)


@dataclass(frozen=True)
class Change:
    """More words for a line, or others in place of some; files that it needs; and the reason."""

    why: str
    more: str = ""
    instead: tuple[str, str] = ("", "")
    prepare: Callable[[Path], None] = lambda place: None

    def __call__(self, words: list[str]) -> list[str]:
        before, after = self.instead
        line = shlex.join(words)
        return shlex.split(line.replace(before, after) if before else line) + shlex.split(self.more)


TRAINING = Change("a run of two steps on a network of a few thousand weights", f"{TINY_MODEL} {SHORT_RUN}")

CHANGES = {
    "vaeworks doctor vae.safetensors --data ~/photos --out out/doctor --quick": Change(
        "two of ten panels, on four images", "--panels scale collapse --images 4 --size 64 --no-cache"
    ),
    "vaeworks train small-f8c16 --data ~/photos --out runs/mine": TRAINING,
    "vaeworks train modern-gan --data ~/photos --out runs/sharp": Change(
        "two steps, and a small discriminator",
        f"{TINY_MODEL} {SHORT_RUN} --adversarial.channels 8",
    ),
    "vaeworks train finetune-decoder --from vae.safetensors --data ~/photos --out runs/ft": Change(
        "two steps", SHORT_RUN
    ),
    "torchrun --nproc-per-node 8 -m vaeworks train sd1 --data DIR --out runs/sd1": Change(
        "one process: tests/training has several; DIR stands for a folder; LPIPS's weights are not at hand",
        f"{TINY_MODEL} {SHORT_RUN} --adversarial.channels 8 --loss.perceptual none",
        ("torchrun --nproc-per-node 8 -m vaeworks train sd1 --data DIR", "vaeworks train sd1 --data photos"),
    ),
    "vaeworks generate tiny 'a photo of a dog' --vae runs/mine --out dog.png": Change(
        "two steps", "--steps 2 --size 64"
    ),
    "vaeworks generate ./my-sd-pipeline 'a photo of a dog' --vae runs/f8c4 --out dog.png": Change(
        "two steps", "--steps 2 --size 64"
    ),
    "vaeworks train-pipeline --vae runs/mine --data shapes --out pipelines/shapes": Change(
        "two steps of a network of a few thousand weights, on few figures",
        "--images 32 --batch 16 --denoiser.width 32 --denoiser.depth 1 --denoiser.text-width 16 --steps 2 --trackers",
        ("shapes --out", "shapes:64:48 --out"),
    ),
    "vaeworks generate pipelines/shapes 'a red circle on a blue ground' --out circle.png": Change(
        "the pipeline of another line, and two steps", "--steps 2 --size 64", ("pipelines/shapes", "my-sd-pipeline")
    ),
    "vaeworks eval runs/mine runs/f8c4 --data ~/photos --out out/eval2": Change(
        "drawn text takes most of the time; the line with one model measures it", "--no-legibility"
    ),
    "vaeworks doctor runs/mine runs/f8c4 --data ~/photos --out out/doctor2": Change(
        "one panel, on four images", "--panels scale --images 4 --size 64 --no-cache"
    ),
    "vaeworks arena runs/mine runs/f8c4 --data ~/photos --out out/arena": Change(
        "generators of a few steps without the arena's checks, on images enough for its statistics",
        f"{SHORT_ARENA} --seeds 1 --no-checks",
        ("~/photos", "procedural:256:32"),
    ),
    "vaeworks arena study kl --data procedural --out out/studies": Change(
        "one arm, and autoencoders of a few steps",
        f"{SHORT_ARENA} --seeds 1 --arms kl-0.1 --channels 8 --images 32 --vae-seeds 1",
        ("procedural", "procedural:256:32"),
    ),
    "vaeworks restore runs/mine a.jpg --mask holes.png --compare --out out/fixed": Change(
        "a short search, and a prior of few small images", "--steps 2 --prior-images 4 --prior-size 64"
    ),
    "vaeworks features runs/mine --data labelled --out out/features": Change(
        "few labels of few images", "--counts 1 2 --choices 2"
    ),
    "vaeworks augment runs/mine --data labelled --out out/more --per-image 4": Change(
        "one image of each", "", ("4", "1")
    ),
    "vaeworks install vae.safetensors --into webui ~/stable-diffusion-webui --for model.safetensors": Change(
        "A1111 and Forge take no other network than Stable Diffusion's", prepare=full_size
    ),
    "vaeworks listen runs/audio song.wav --out out/listen": Change("Griffin-Lim in two rounds", "--iterations 2"),
}
"""Lines that take too long, or need something that a test does not have. Every other line is run as it stands."""


def test_changes_name_lines_of_readme() -> None:
    """A change whose line README has lost is a change to be deleted."""
    assert not [line for line in CHANGES if shlex.split(line) not in LINES]


def photographs(folder: Path, count: int, size: int = 64, shift: int = 0) -> None:
    """Different parts of the bundled photographs, as files."""
    folder.mkdir(parents=True)
    sources = photos()
    for i in range(count):
        with Image.open(sources[i % 8]) as image:
            left, top = (shift + i // 8 * 32) % (image.width - 128), (shift + i // 8 * 24) % (image.height - 128)
            part = image.convert("RGB").crop((left, top, left + 128, top + 128))
        part.resize((size, size)).save(folder / f"{i:02}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that README's lines name: small files, and runs of two steps."""
    home = tmp_path_factory.mktemp("readme")
    photographs(home / "photos", 24)
    for folder, count in (("good", 96), ("new", 4), ("labelled/cat", 8), ("labelled/dog", 8)):
        photographs(home / folder, count, size=32, shift=16 if folder == "new" else 0)
    for name in ("a", "b", "portrait"):
        shutil.copy(home / "photos" / f"{'ab'.find(name) + 1:02}.png", home / f"{name}.png")
        Image.open(home / f"{name}.png").save(home / f"{name}.jpg", quality=95)
    for name in ("sky", "holes"):
        mask = np.zeros((64, 64), np.uint8)
        mask[8:24, 8:40] = 255
        Image.fromarray(mask).save(home / f"{name}.png")
    with wave.open(str(home / "song.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((8000 * np.sin(np.arange(4000) / 6)).astype("<i2").tobytes())
    (home / "stable-diffusion-webui" / "models" / "Stable-diffusion").mkdir(parents=True)
    (home / "stable-diffusion-webui" / "models" / "VAE").mkdir()
    files(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for run, recipe in (("mine", "small-f8c16"), ("f8c4", "small-f8c4")):
            train = f"train {recipe} --data photos --out runs/{run} {TINY_MODEL} {SHORT_RUN}"
            assert main(shlex.split(train)) == 0
        audio = "train audio-mel-tiny --data sound:made:12 --out runs/audio --images 8"
        assert main(shlex.split(f"{audio} --data.workers 0 --data.val-fraction 0.3")) == 0
    pipeline(home)
    return home


def files(home: Path) -> None:
    """vae.safetensors, vae.pt; big.safetensors, latents; model.safetensors, recognized as a checkpoint of SD 1."""
    torch.manual_seed(0)
    vae = vw.build(SMALL).eval()
    vw.save(vae, home / "vae.safetensors", layout="ldm")
    weights = load_file(home / "vae.safetensors")
    torch.save({"state_dict": weights}, home / "vae.pt")
    save_file({"latents": torch.randn(4, 12, 10)}, home / "big.safetensors")
    unet = {
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(8, 768),
        "model.diffusion_model.out.2.weight": torch.zeros(4, 8, 3, 3),
    }
    save_file(unet | {f"first_stage_model.{name}": t for name, t in weights.items()}, home / "model.safetensors")


def pipeline(home: Path) -> None:
    """my-sd-pipeline, a folder of diffusers whose denoiser takes the latents of runs/f8c4; its weights are random."""
    from vaeworks.pipelines.stable_diffusion import load_pipeline

    pipe = load_pipeline("tiny", vw.load(home / "runs" / "f8c4"), "cpu", torch.float32)
    pipe.save_pretrained(home / "my-sd-pipeline")


@pytest.fixture
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of these files as home and working folder, so that every line can be run alone."""
    place = tmp_path / "home"
    shutil.copytree(home, place)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.chdir(place)
    return place


def parsed_only(words: list[str]) -> bool:
    """Whether no test runs the line, because it installs, fetches, or takes minutes."""
    return words[:2] in (["pip", "install"], ["git", "clone"], ["vaeworks", "demo"]) or words[0] == "make"


def test_readme_has_lines() -> None:
    """The parser finds the lines that a reader sees: every program is known, and README shows nearly every command."""
    assert {words[0] for words in LINES} <= {"vaeworks", "torchrun", "pip", "git", "make"}
    assert len(LINES) > 25 and len(blocks("python")) >= 1 and not blocks("")
    assert {c.split()[0] for c in COMMANDS} - {words[1] for words in LINES} <= {"sample"}


@pytest.mark.parametrize("words", [w for w in LINES if not parsed_only(w)], ids=shlex.join)
def test_line(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of README does what it says, with exit code 0. A study's doctor sees 4 images instead of 512."""
    monkeypatch.setattr("vaeworks.arena.study.autoencoders.EXAMINED", 4)
    change = next((change for line, change in CHANGES.items() if shlex.split(line) == words), None)
    program, *rest = change(words) if change else words
    if change:
        change.prepare(place)
    assert program == "vaeworks"
    rest = [os.path.expanduser(word) for word in rest]
    if "--out" in rest:  # the result of another line
        shutil.rmtree(place / rest[rest.index("--out") + 1], ignore_errors=True)
    assert main(rest) == 0


@pytest.mark.parametrize("words", [w for w in LINES if parsed_only(w)], ids=shlex.join)
def test_line_that_is_not_run(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Extras exist, targets of make exist, addresses are ours, and the demo's options are options."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    if words[:2] == ["pip", "install"]:
        for wanted in words[2:]:
            name, extras = re.fullmatch(r"([\w.]+)(?:\[([\w,]+)\])?", wanted).groups()  # type: ignore[union-attr]
            assert name in (".", project["name"], "torch")
            assert set((extras or "").split(",")) - {""} <= set(project["optional-dependencies"])
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    elif words[0] == "vaeworks":
        with pytest.raises(SystemExit, match="0"):  # what stands before --help is not parsed if it is wrong
            main([*words[1:], "--help"])
        capsys.readouterr()
        assert main([*words[1:], "--no-such-option"]) == 2
        assert "--no-such-option" in (said := capsys.readouterr().err)
        assert not [word for word in words[2:] if word.startswith("--") and f" {word} " in said]
    else:
        assert words[2].endswith(f"/{project['name']}")


@pytest.mark.parametrize("text", blocks("python"), ids=lambda text: text.splitlines()[-1][:40])
def test_python(text: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of Python runs as it stands; Stable Diffusion's network is built without its 335 MB."""
    build = vw.build

    def without_memory(config: object) -> object:
        with torch.device("meta"):
            return build(config)  # type: ignore[arg-type]

    monkeypatch.setattr(vw, "build", without_memory, raising=False)
    scope: dict[str, object] = {}
    exec(compile(text, "README.md", "exec"), scope)
    comment = re.search(r"(\d+) tensors, ([\d,]+) parameters", text)
    if comment:
        parameters = [t for _, t in scope["sd"].named_parameters()]  # type: ignore[attr-defined]
        assert (f"{len(parameters)}", f"{sum(t.numel() for t in parameters):,}") == comment.groups()


def test_links() -> None:
    """What README links to is there, its headings too."""
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]+)(?:#([^)]+))?\)", README):
        text = (ROOT / target).read_bytes()
        if heading:
            titles = re.findall(r"^#+ (.*)$", text.decode(), re.M)
            assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], target
