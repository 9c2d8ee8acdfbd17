"""The demo: every part of the work once, on real photographs, with one page that shows it."""

from __future__ import annotations

import dataclasses
import math
import platform
import shlex
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from . import __version__
from .config import TrainConfig, dumps
from .data import ImageFile, ImageSet, scan
from .data.synthetic.captioned_shapes import caption_of
from .doctor import Examination, examine
from .doctor.page import write_report
from .doctor.panels import TITLES
from .errors import ConfigError
from .files.atomic import read_json, write_picture, write_text
from .files.locks import LOCK, alone_in
from .files.scratch import remove
from .formats import load, save
from .formats.diffusers import load_with_diffusers
from .images import difference, from_model_range, image_file, to_model_range, to_pillow, to_uint8
from .metrics import Evaluation, ImageScore, evaluate, psnr
from .metrics.baselines import down_up
from .metrics.evaluation import DOWN_UP, PCA
from .metrics.roundtrip import read_crop, reconstruct_uint8
from .models import Autoencoder
from .pages import chart, data_uri, write_page
from .painting import train_pipeline
from .painting.painted_shapes import PaintedShapes, judge_shapes, painted_sheet
from .painting.result import PaintResult
from .pipelines.stable_diffusion import open_pipeline, paint
from .pipelines.tiny import TINY
from .recipes import paint_recipe, recipe
from .reporting import SILENT, Reporter
from .training import RunResult, train
from .training.monitor.log import read_log
from .training.run.folder import read_run
from .training.validation import CROP, SHOWN, first_panel, validation_files, validation_images

PROMPT = "a photo of a dog"
FIGURES = 6000  # drawn figures with captions that the denoiser is trained on
SHEET = 16  # prompts on the page, half of them unseen combinations
JUDGED = 64  # prompts of seen combinations that are judged, beside all unseen ones
PAINT_PROMPTS = tuple(
    caption_of(*words)
    for words in (
        ("red", "circle", "blue"),
        ("yellow", "square", "green"),
        ("white", "triangle", "purple"),
        ("black", "cross", "turquoise"),
        ("blue", "circle", "yellow"),
        ("green", "square", "white"),
        ("red", "triangle", "black"),
        ("yellow", "cross", "red"),
    )
)
"""Prompts that are painted during the training; the last four combine a colour and a shape that were never seen
together."""
STRENGTH = 0.3
DOCTOR_SIZE = 128  # side of the squares that are examined, in pixels
LIMIT = 512  # longest side of the crops that are judged, in pixels
PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "numpy", "pillow", "scikit-image")


@dataclass(frozen=True)
class DemoResult:
    """Everything that a demo measured; its pictures and files lie in `folder`."""

    folder: Path
    config: TrainConfig
    training: RunResult
    evaluation: Evaluation
    """on photographs that training held out"""
    examination: Examination
    difference_to_diffusers: float
    """largest difference of decoded pixels (range 2) between our network and diffusers' with the saved weights"""
    pipeline: str
    """class of the pipeline that painted"""
    painted: PaintedShapes | None
    """what the trained denoiser paints; None if it was skipped"""
    paint: PaintResult | None
    """the denoiser's training"""
    environment: Mapping[str, str]
    """versions, threads and processor"""
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what report.json holds."""
        return {
            "version": __version__,
            "model": self.evaluation.model,
            "psnr": self.evaluation.psnr,
            "ssim": self.evaluation.ssim,
            "gain_over_down_up": self.evaluation.psnr - self.evaluation.baseline(DOWN_UP)[0],
            "gain_over_pca": self.evaluation.psnr - self.evaluation.baseline(PCA)[0],
            "largest_difference_to_diffusers": self.difference_to_diffusers,
            "prompt": PROMPT,
            "pipeline": self.pipeline,
            "painting": None if self.paint is None else self.paint.to_dict(),
            "painted": None if self.painted is None else self.painted.to_dict(),
            "training": dataclasses.asdict(self.training),
            "evaluation": self.evaluation.to_dict(),
            "doctor": {
                name: {"verdict": found.verdict, "sentence": found.sentence}
                for name, found in self.examination.findings.items()
            },
            "recipe": dataclasses.asdict(self.config),
            "environment": dict(self.environment),
            "seconds": self.seconds,
        }


def run_demo(
    out: str | Path = "out/demo",
    minutes: float = 4.0,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
    *,
    paint_minutes: float = 3.0,
    skip: Sequence[str] = (),
    seed: int = 0,
) -> DemoResult:
    """Train a VAE on the bundled photographs, evaluate, examine and export it, train a denoiser for its latents, and
    paint: `vaeworks demo`.

    >>> vw.run_demo("out/demo", minutes=1).evaluation.psnr
    27.5

    out: folder for run/, doctor/, vae-diffusers/, vae-ldm.safetensors, pipeline/, painted.png, repainted.png,
    report.json and report.html. minutes, paint_minutes: longest training time of the VAE and of the denoiser.
    overwrite: replace an earlier demo in `out`. skip: parts to leave out, only "paint". seed: of both trainings.
    Errors: ConfigError for an `out` that holds anything but an earlier demo, and for an unknown part.
    """
    if unknown := set(skip) - {"paint"}:
        raise ConfigError(f"skip (={', '.join(sorted(unknown))}) must be paint, the only part that can be left out")
    with _earlier_aside(Path(out), overwrite):
        return _run(Path(out), minutes, None if "paint" in skip else paint_minutes, seed, reporter)


def _run(out: Path, minutes: float, paint_minutes: float | None, seed: int, reporter: Reporter) -> DemoResult:
    started = time.perf_counter()
    config = dataclasses.replace(recipe("demo"), max_minutes=minutes, seed=seed)
    result = train(config, "photos", out / "run", recipe="demo")
    vae = load(out / "run")

    photos = scan("photos")
    known, held_out = photos.split(config.data.val_fraction)
    reporter.step("judging it on photographs it never saw")
    known = ImageSet("the training images", known.files)
    judged = evaluate(vae, held_out, limit=LIMIT, pca_data=known)

    reporter.step("asking the doctor what is wrong with its latents")
    examined = examine(vae, photos.files, model=str(out / "run"), size=DOCTOR_SIZE, quick=True, keep=False)
    (out / "doctor").mkdir()
    write_report(out / "doctor", examined)

    reporter.step("saving it as a diffusers folder and as an LDM file")
    save(vae, out / "vae-diffusers", layout="diffusers")
    save(vae, out / "vae-ldm.safetensors", layout="ldm")
    theirs = load_with_diffusers(out / "vae-diffusers")
    first = validation_files(held_out.files)[0]
    shown = read_crop(first.path, vae, CROP)
    error = difference_to_diffusers(vae, theirs, shown)

    reporter.step("putting it into a Stable Diffusion pipeline with random weights")
    pipe = TINY["tiny"](vae)
    pipe.vae = theirs
    start = to_pillow(shown).resize((128, 128), Image.Resampling.LANCZOS)
    repainted = paint(pipe, PROMPT, image=start, strength=STRENGTH)
    write_picture(out / "repainted.png", repainted)
    pictures = {"started": start, "repainted": repainted}

    painting, shapes = None, None
    if paint_minutes is not None:
        reporter.step("training a denoiser for its latents, on figures with captions")
        painting, shapes = _painted(out, paint_minutes, seed)
        reporter.step(
            f"right in colour, shape and ground: {shapes.seen.all:.0%} of {shapes.count_seen} prompts, and "
            f"{shapes.unseen.all:.0%} of {shapes.count_unseen} that combine words never seen together"
        )

    seconds = time.perf_counter() - started
    report = DemoResult(
        out, config, result, judged, examined, error, type(pipe).__name__, shapes, painting, environment(), seconds
    )
    write_text(out / "report.json", dumps(report.to_dict()) + "\n")
    write_page(out / "report.html", "demo.html", page_values(report, vae, held_out, first, pictures))
    return report


def _painted(out: Path, minutes: float, seed: int) -> tuple[PaintResult, PaintedShapes]:
    """Train a denoiser for the demo's VAE on drawn figures with captions, and judge what it paints."""
    config = dataclasses.replace(paint_recipe("paint-tiny"), max_minutes=minutes, seed=seed, prompts=PAINT_PROMPTS)
    result = train_pipeline(config, out / "run", f"shapes:{FIGURES}:{config.size}", out / "pipeline", name="paint-tiny")
    judged = judge_shapes(open_pipeline(str(out / "pipeline")), config, seed, JUDGED)
    write_picture(out / "painted.png", painted_sheet(judged, SHEET))
    return result, judged


MADE = (
    "run",
    "doctor",
    "vae-diffusers",
    "vae-ldm.safetensors",
    "pipeline",
    "painted.png",
    "repainted.png",
    "report.json",
    "report.html",
)
"""The files and folders of a demo."""

EARLIER = ".earlier"
"""The folder that keeps an earlier demo until the new one is complete."""


@contextmanager
def _earlier_aside(out: Path, overwrite: bool) -> Iterator[None]:
    """Move an earlier demo aside; it comes back if the new one fails. Nothing else is replaced."""
    with alone_in(out):
        earlier = out / EARLIER
        if earlier.exists():  # a demo was killed
            _bring_back(out)
        if any(p.name != LOCK for p in out.iterdir()):
            if not overwrite or not (out / "run" / "run.json").exists() or read_run(out / "run").recipe != "demo":
                raise ConfigError(
                    f"{out} is not empty; choose another --out"
                    + ("" if overwrite else ", or pass --overwrite to repeat an earlier demo")
                )
            earlier.mkdir()
            for name in MADE:
                if (out / name).exists():
                    (out / name).rename(earlier / name)
        try:
            yield
        except BaseException as error:
            if earlier.exists():
                _bring_back(out)
                if isinstance(error, KeyboardInterrupt):
                    raise KeyboardInterrupt("interrupted; the earlier demo is as it was") from None
            raise
        remove(earlier)


def _bring_back(out: Path) -> None:
    for path in (out / EARLIER).iterdir():
        remove(out / path.name)
        path.rename(out / path.name)
    remove(out / EARLIER)


@torch.inference_mode()
def difference_to_diffusers(vae: Autoencoder, theirs: Any, image: Tensor) -> float:
    """Largest difference of decoded pixels (range 2) between our network and diffusers' with the saved weights."""
    x = to_model_range(image[None])
    ours = vae.decode(vae.encode(x).mode())
    other = theirs.decode(theirs.encode(x).latent_dist.mode()).sample
    return (ours - other).abs().max().item()


def environment() -> dict[str, str]:
    """Versions, threads and processor, which figures depend on."""
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def page_values(
    report: DemoResult, vae: Autoencoder, held_out: ImageSet, first: ImageFile, pictures: dict[str, Image.Image]
) -> dict[str, Any]:
    """The values of the page's template. first: the image whose latents and progress are shown."""
    out, judged, result = report.folder, report.evaluation, report.training
    log = read_log(out / "run")
    looks = [line for line in log if "val_psnr" in line]
    steps = [line for line in log if "loss" in line]
    seen = [line["images_seen"] for line in steps]
    shown = validation_images(vae, held_out.files, report.config.data.val_images)
    return {
        "version": __version__,
        "model": judged.model,
        "factor": vae.downsample_factor,
        "channels": vae.latent_channels,
        "parameters": vae.num_parameters,
        "minutes": f"{result.seconds / 60:.1f}",
        "threads": torch.get_num_threads(),
        "train_files": read_json(out / "run" / "data.json")["train"],
        "psnr": judged.psnr,
        "ssim": judged.ssim,
        "down_up": judged.baseline(DOWN_UP),
        "pca": judged.baseline(PCA),
        "baselines": [(name, *judged.baseline(name)) for name in judged.baselines],
        "codes": judged.codes,
        "rate": result.images_per_second,
        "precision": result.precision,
        "images_seen": result.images_seen,
        "crop": report.config.data.size,
        "diffusers_error": report.difference_to_diffusers,
        "scores": [
            {
                **dataclasses.asdict(s),
                "name": Path(s.path).stem,
                "down_up": s.baselines[DOWN_UP],
                "pca": s.baselines[PCA],
            }
            for s in judged.scores
        ],
        "rows": [_row(vae, s) for s in judged.worst(len(judged.scores))],
        "behind": behind_down_up(judged.scores),
        "commands": own_commands(out),
        "steps": _steps(out / "run" / "samples", looks, shown[:SHOWN]),
        "charts": [
            chart(
                "PSNR, dB",
                {
                    "validation, weight average": [(x["images_seen"], x["val_psnr"]) for x in looks],
                    "training crops": list(zip(seen, smooth([x["psnr"] for x in steps]), strict=True)),
                },
                levels={"bicubic down-up, validation": down_up_psnr(vae, held_out)},
                x_label="images seen",
                newest=False,
            ),
            chart(
                "Loss (smoothed)",
                {"loss": list(zip(seen, smooth([x["loss"] for x in steps]), strict=True))},
                log=True,
                x_label="images seen",
                newest=False,
            ),
        ],
        "protocol": judged.protocol,
        "latent_name": first.path.stem,
        "latents": latent_pictures(vae, first),
        "stats": result.latents,
        "bits": steps[-1]["bits_per_dimension"] if steps else math.nan,
        "pipeline": report.pipeline,
        "painting": report.paint,
        "painted": report.painted,
        "sheets": _sheets(out) if report.paint is not None else [],
        "prompt": PROMPT,
        "strength": STRENGTH,
        **{name: data_uri(picture) for name, picture in pictures.items()},
        "doctor_size": DOCTOR_SIZE,
        "findings": [
            {"verdict": found.verdict, "sentence": found.sentence, "title": TITLES[name].partition(":")[0]}
            for name, found in report.examination.findings.items()
        ],
        "files": _files(out),
        "details": dumps({"recipe": dataclasses.asdict(report.config), "environment": dict(report.environment)}),
        "total_seconds": report.seconds,
        "train_seconds": result.seconds,
    }


def _row(vae: Autoencoder, score: ImageScore) -> dict[str, Any]:
    image = read_crop(score.path, vae, LIMIT)
    recon = reconstruct_uint8(vae, image)
    pictures = [data_uri(to_pillow(x), quality=92) for x in (image, recon, difference(image, recon))]
    gain = score.psnr - score.baselines[DOWN_UP][0]
    return {"name": Path(score.path).stem, "psnr": score.psnr, "ssim": score.ssim, "gain": gain, "pictures": pictures}


def behind_down_up(scores: Sequence[ImageScore]) -> str:
    """A sentence that names the photographs on which bicubic down-up is better; empty where there is none."""
    worse = {Path(s.path).stem: gain for s in scores if (gain := s.psnr - s.baselines[DOWN_UP][0]) < 0}
    if not worse:
        return ""
    names = ", ".join(f"{name} ({gain:+.2f} dB)" for name, gain in worse.items())
    return (
        f"On {len(worse)} of {len(scores)} photographs this VAE is worse than an image that bicubic filtering shrinks "
        f"and enlarges again: {names}. `vaeworks demo --minutes 15` trains longer."
    )


def own_commands(out: Path) -> list[tuple[str, str]]:
    """What each next step is for, and its command: the demo's model on one's own photographs, and a model of one's
    own."""
    model = shlex.quote(str(out / "run"))
    return [
        ("send photographs through this model", f"vaeworks reconstruct {model} PHOTOS --out out/mine"),
        ("measure how faithful it is to them", f"vaeworks eval {model} --data PHOTOS --out out/eval"),
        ("train a model on them; docs/training.md", "vaeworks train small-f8c16 --data PHOTOS --out runs/mine"),
        ("or train this model further", f"vaeworks train small-f8c16 --data PHOTOS --out runs/mine --from {model}"),
        ("find what is wrong with its latents", "vaeworks doctor runs/mine --data PHOTOS --out out/doctor"),
        ("write it for diffusers", "vaeworks convert runs/mine out/vae --layout diffusers"),
    ]


def _steps(samples: Path, looks: list[dict[str, float]], shown: list[Tensor]) -> list[dict[str, Any]]:
    """The first held-out image's reconstruction, from every grid of the shown images that training wrote."""
    sizes = [(image.shape[-1], image.shape[-2]) for image in shown]
    rows = []
    for look in looks:
        if not (place := samples / f"{int(look['images_seen']):010d}.png").exists():  # the decoder gave no numbers
            continue
        with image_file(place) as grid:
            picture = first_panel(grid, 1, sizes)
        rows.append(
            {"images": int(look["images_seen"]), "psnr": look["val_psnr"], "picture": data_uri(picture, quality=90)}
        )
    return rows


@torch.inference_mode()
def latent_pictures(vae: Autoencoder, file: ImageFile) -> list[str]:
    """Every channel of an image's latents as a gray picture, from -3 to 3 of its standard deviations."""
    latents = vae.encode(to_model_range(read_crop(file.path, vae, CROP)[None])).mode()[0]
    mean = torch.tensor(vae.config.latents_mean)[:, None, None]
    std = torch.tensor(vae.config.latents_std)[:, None, None]
    return [data_uri(to_pillow(channel[None])) for channel in from_model_range((latents - mean) / (3 * std))]


def down_up_psnr(vae: Autoencoder, held_out: ImageSet) -> float:
    """Mean PSNR in dB of the down-up baseline on the crops that training validates."""
    crops = [to_pillow(read_crop(file.path, vae, CROP)) for file in held_out.files]
    return statistics.fmean(psnr(to_uint8(c), to_uint8(down_up(c, vae.downsample_factor))) for c in crops)


def smooth(values: list[float], share: float = 0.05) -> list[float]:
    """A trailing mean over this share of the values."""
    width = max(1, round(len(values) * share))
    return [sum(values[max(0, i - width + 1) : i + 1]) / min(i + 1, width) for i in range(len(values))]


def _sheets(out: Path) -> list[dict[str, Any]]:
    """What was painted during the training, and in the end for the prompts that were judged."""
    rows = []
    for line in read_log(out / "pipeline" / "training"):
        place = out / "pipeline" / "training" / "samples" / f"{line['images_seen']:010d}.png"
        if "held_out_loss" in line and place.is_file():
            with image_file(place) as picture:
                rows.append({"images": line["images_seen"], "picture": data_uri(picture, quality=88)})
    with image_file(out / "painted.png") as picture:
        rows.append({"images": None, "picture": data_uri(picture, quality=90)})
    return rows


def _files(out: Path) -> list[dict[str, str]]:
    what = {
        "run/model.safetensors": "the model, our layout: vaeworks.load",
        "run/report.html": "the training's page: curves, pictures, settings",
        "doctor/report.html": "what the doctor found",
        "vae-diffusers": "AutoencoderKL.from_pretrained, any diffusers pipeline",
        "vae-ldm.safetensors": "LDM names in one file, as web UIs name theirs",
        "run/checkpoints": "to continue: vaeworks train demo --data photos --out .../run --resume",
        "run/log.jsonl": "loss, PSNR, KL, learning rate by images seen",
        "pipeline": "DiffusionPipeline.from_pretrained; vaeworks generate PIPELINE PROMPT",
        "pipeline/training/report.html": "the page of the denoiser's training",
        "painted.png": "prompts, and what was painted for them",
        "repainted.png": "from a photograph, by a pipeline with random weights",
        "report.json": "all figures of this page",
    }
    rows = []
    for name, purpose in what.items():
        path = out / name
        if not path.exists():  # a part that was skipped
            continue
        size = sum(p.stat().st_size for p in path.rglob("*")) if path.is_dir() else path.stat().st_size
        rows.append(
            {
                "path": name,
                "size": f"{size / 2**20:.1f} MiB" if size > 2**20 else f"{size / 2**10:.0f} KiB",
                "what": purpose,
            }
        )
    return rows
