"""Restore image files: the function behind `vaeworks restore`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data.inputs import Inputs, image_files, opened, readable_images
from ...errors import ConfigError
from ...files.atomic import write_picture
from ...images import to_pillow, to_uint8
from ...images.channels import check_pictures
from ...models import Autoencoder
from ...pages.call import Call
from ...pages.gallery import Exhibit, Gallery, GallerySection, PageTable, page_place, write_gallery
from ...random_streams import check_seed
from ...reporting import SILENT, Reporter
from ...runtime import Codec
from ...runtime.opening import Model, name_of, open_model
from ...words import many
from ..editing.region import check_mask
from ..picture_files import (
    SCHEMA,
    encoded_source,
    frozen,
    mask_files,
    naming,
    picture_targets,
    read_mask,
    strip_place,
    write_record,
)
from .baselines import baselines
from .damage import Damage, parse_noise, parse_plant
from .damage import plant as planted
from .noise import estimate_noise
from .prior import SpectralPrior, fit_prior
from .scores import RestorationScore, RestorationSummary, best, score, strip, summary
from .search import STEPS, Restored, restore_picture

RECORD = "restore.json"
"""The file of the output folder that holds the result."""

OURS = "VAE"
"""The name of the search in latent space beside the baselines."""


@dataclass(frozen=True, eq=False)
class RestoredFile:
    """One restored image file."""

    source: str
    missing: float
    """share of the pixels that are missing"""
    noise: float
    """standard deviation of the noise, in gray levels"""
    evaluations: int
    """of the decoder and its gradient"""
    held_out_rms: Mapping[str, float]
    """root mean square distance to the held-out pixels, in gray levels: at the start, the best, and of the result
    taken"""
    scores: Mapping[str, RestorationScore] | None = None
    """of every method against the undamaged image; None where that is not known"""
    image: Tensor | None = field(default=None, repr=False)
    """uint8 c h w; None where it is written to a file"""

    @property
    def best(self) -> str | None:
        """The method with the highest PSNR in the damaged region."""
        return None if self.scores is None else best(self.scores)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        names = ("source", "missing", "noise", "evaluations", "held_out_rms")
        values = {name: getattr(self, name) for name in names}
        if self.scores is None:
            return values
        return values | {"scores": {n: dataclasses.asdict(s) for n, s in self.scores.items()}, "best": self.best}


@dataclass(frozen=True)
class RestorationPrior:
    """The images that the prior was fitted to."""

    source: str
    images: int
    error: float
    """root mean square reconstruction error of the model on them, in gray levels"""


@dataclass(frozen=True, eq=False)
class RestorationResult:
    """What `restore` did."""

    model: str
    prior: RestorationPrior
    plant: str | None
    keep: bool | None
    steps: int
    seed: int
    pictures: Mapping[str, RestoredFile]
    """by the path of the restored image, or of the input where nothing is written"""
    summary: RestorationSummary | None
    """over all images; None without planted damage"""
    page: Path | None = None
    """the page with the pictures; None where it was not written"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as in restore.json."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "prior": dataclasses.asdict(self.prior),
            "plant": self.plant,
            "keep": self.keep,
            "steps": self.steps,
            "seed": self.seed,
            "pictures": {place: file.to_dict() for place, file in self.pictures.items()},
            "summary": None if self.summary is None else self.summary.to_dict(),
            **({} if self.page is None else {"page": str(self.page)}),
        }


def restore(
    model: Model,
    inputs: Inputs,
    out: str | Path | None = None,
    *,
    mask: str | Path | None = None,
    noise: float | str | None = None,
    plant: str | None = None,
    compare: bool = False,
    prior: str | Path = "photos",
    prior_images: int = 64,
    prior_size: int | None = None,
    keep: bool | None = None,
    steps: int = STEPS,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> RestorationResult:
    """Restore missing and noisy pixels of image files by a search in the model's latent space.

    >>> result = vw.restore("runs/dogs", "scans", "out", mask="masks", noise="auto")
    >>> vw.restore("runs/dogs", "photos", "out", plant="scratches").summary.gain

    model: a run folder, a VAE file or folder, hf:OWNER/NAME, or an autoencoder. inputs: image files and folders.
    out: the folder for the restored PNG files, strips/ (input, every method, difference), restore.json and report.html;
    None: write nothing, the restored images are in the result.
    mask: an image that is white where pixels are missing, or a folder with a mask for each input, by name.
    noise: standard deviation of the noise in gray levels, or "auto" to estimate it.
    plant: damage the inputs, which must be intact, and score the restoration: "block", "scratches+noise:10", ...
    compare: also run the methods without a search (always done with `plant`).
    prior: a data source of undamaged images similar to the inputs; at most `prior_images` of them are used, as squares
    of `prior_size` pixels (None: about 256).
    keep: leave known pixels exactly as they are; None: where there is no noise. steps: most steps of the search.
    seed: of planted damage and of the held-out pixels. settings: facts about the model that its file lacks, as keywords
    of `vw.load`. overwrite: replace existing results.

    Returns the figures of every image; with `plant`, also means over images and the gain over the best baseline.
    Errors: ConfigError for settings that do not fit together, or existing results; DataError for images or masks that
    cannot be used; those of `vw.load`.
    """
    call = Call("restore", restore, dict(locals()))
    folder, mask = None if out is None else Path(out), None if mask is None else Path(mask)
    _check(mask, noise, plant, steps, seed)
    autoencoder = open_model(model, settings)
    check_pictures(autoencoder.config)
    with frozen(autoencoder):
        codec, channels = Codec(autoencoder), autoencoder.config.in_channels
        pairs = _pairs(inputs, folder, channels, overwrite, reporter)
        masks = mask_files([path for path, _ in pairs], mask)
        if plant is None:
            for (path, _), hole in zip(pairs, masks, strict=True):
                given_damage(path, hole, noise, channels)  # errors come before the work
        fitted = _fit_prior(autoencoder, str(prior), prior_images, prior_size, reporter)
        files: dict[str, RestoredFile] = {}
        for (path, target), hole in zip(reporter.track(pairs, "restore"), masks, strict=True):
            if plant is None:
                damage, truth = given_damage(path, hole, noise, channels), None
            else:
                truth = to_uint8(opened(path, channels))
                damage = planted(truth, plant, seed)
            found = restore_picture(codec, damage, fitted, keep=keep, steps=steps, seed=seed)
            methods: dict[str, Tensor] = baselines(codec, damage) if compare or plant else {}
            methods[OURS] = found.image
            if folder is not None and target is not None:
                write_picture(target, to_pillow(found.image), overwrite)
                write_picture(strip_place(folder, target), strip(damage, methods, OURS, truth), overwrite)
            file = _figures(path, damage, found, methods, truth, keep_image=folder is None)
            files[str(target or path)] = file
            reporter.say(_sentence(target or path, file))
    scores = [file.scores for file in files.values() if file.scores is not None]
    facts = RestorationPrior(str(prior), fitted.images, fitted.error)
    means = summary(scores, OURS) if scores else None
    page = page_place(folder, reporter)
    result = RestorationResult(name_of(model), facts, plant, keep, steps, seed, files, means, page)
    if folder is not None:
        write_record(folder / RECORD, result.to_dict(), overwrite)
        write_gallery(page, _gallery(result, folder, call), overwrite, reporter)
    return result


def _gallery(result: RestorationResult, out: Path, call: Call) -> Gallery:
    shown = [
        Exhibit(strip_place(out, Path(place)), f"{Path(file.source).name}: {_outcome(file)}")
        for place, file in result.pictures.items()
    ]
    sections = []
    lead = f"Prior of {many(result.prior.images, 'image')} of {result.prior.source}, which {result.model} reconstructs "
    lead += f"with an error of {result.prior.error:.1f} gray levels."
    if (means := result.summary) is not None:
        header = ("method", "PSNR where damaged, dB", "SSIM there", "PSNR of all, dB", "SSIM of all", "")
        rows = []
        for name, mean in means.means.items():
            figures = (f"{mean.psnr_region:.2f}", f"{mean.ssim_region:.4f}", f"{mean.psnr:.2f}", f"{mean.ssim:.4f}")
            rows.append([name, *figures, "highest" if name == means.best else ""])
        sections.append(GallerySection("Methods", means.sentence, tables=[PageTable(header, rows)]))
    text = "From left to right as labelled; the difference is amplified 4 times."
    sections.append(GallerySection("Pictures", text, shown))
    header = ("image", "missing", "noise, gray levels", "evaluations", "held-out pixels, gray levels", "best")
    rows = []
    for place, file in result.pictures.items():
        figures = (
            f"{file.missing:.1%}",
            f"{file.noise:.1f}",
            str(file.evaluations),
            f"{file.held_out_rms['taken']:.2f}",
        )
        rows.append([Path(place).name, *figures, file.best or ""])
    sections.append(GallerySection("Figures of every image", "", tables=[PageTable(header, rows)]))
    files = {RECORD: "all figures", "strips": "inputs and results side by side"}
    return Gallery("Restored images", lead, call, sections, result.to_dict(), files=files)


def _check(mask: Path | None, noise: float | str | None, plant: str | None, steps: int, seed: int) -> None:
    if plant is None and mask is None and noise is None:
        raise ConfigError(
            "nothing says what is wrong with the pictures; give --mask, --noise SIGMA or auto, or --plant HOW"
        )
    if plant is not None:
        parse_plant(plant)
        if mask is not None or noise is not None:
            raise ConfigError("--plant makes mask and noise; leave --mask and --noise away")
    if noise is not None and noise != "auto":
        parse_noise(noise)
    check_seed(seed)
    if steps < 1:
        raise ConfigError(f"steps (={steps}) must be at least 1")


def _pairs(
    inputs: Inputs, out: Path | None, channels: int, overwrite: bool, reporter: Reporter
) -> Sequence[tuple[Path, Path | None]]:
    """Every image file that can be read, and its result; None where nothing is written."""
    if out is not None:
        return picture_targets(inputs, out, RECORD, channels, overwrite=overwrite, reporter=reporter)
    sources = [(path, path) for path, _ in image_files(inputs, reporter)]
    return [(path, None) for path, _, _ in readable_images(sources, channels, reporter)]


def given_damage(path: Path, mask: Path | None, noise: float | str | None, channels: int) -> Damage:
    """The image in a file, with its mask and its noise. Errors name the file."""
    image = to_uint8(opened(path, channels))
    hole = read_mask(mask)
    with naming(path):
        if hole is not None:
            check_mask(hole, image)
        missing = torch.zeros(image.shape[-2:], dtype=torch.bool) if hole is None else hole
        level = 0.0 if noise is None else estimate_noise(image, missing) if noise == "auto" else parse_noise(noise)
    return Damage(image, missing, level)


def _fit_prior(
    autoencoder: Autoencoder, source: str, limit: int, size: int | None, reporter: Reporter
) -> SpectralPrior:
    if limit < 1:
        raise ConfigError(f"--prior-images {limit} leaves no prior; give at least 1")
    codes = encoded_source(autoencoder, source, size, limit, reporter)
    prior = fit_prior(autoencoder, codes, partial(reporter.track, what="decode"))
    reporter.say(
        f"prior of {prior.images} images of {source}, which the model reconstructs with an error of {prior.error:.1f} "
        "gray levels"
    )
    return prior


def _figures(
    path: Path,
    damage: Damage,
    found: Restored,
    methods: Mapping[str, Tensor],
    truth: Tensor | None,
    keep_image: bool,
) -> RestoredFile:
    held_out = {"start": found.held_out[0], "best": min(found.held_out), "taken": found.held_out[found.taken]}
    scores = None
    if truth is not None:
        scores = {name: score(truth, image, damage.region) for name, image in methods.items()}
    missing = float(damage.missing.float().mean())
    image = found.image if keep_image else None
    return RestoredFile(str(path), missing, damage.noise, found.evaluations, held_out, scores, image)


def _sentence(target: Path, file: RestoredFile) -> str:
    return f"{target}  {_outcome(file)}"


def _outcome(file: RestoredFile) -> str:
    outcome = f"{file.evaluations} evaluations" if file.best is None else f"best: {file.best}"
    return outcome + (f", noise of {file.noise:.1f} gray levels" if file.noise else "")
