"""Variants of an image: samples of its posterior, and a closed walk among them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...data.inputs import Inputs, image_files, readable_images
from ...errors import ConfigError
from ...files.atomic import write_picture
from ...files.outputs import check_apart, check_free, targets
from ...images import to_uint8
from ...images.channels import check_pictures
from ...metrics import psnr
from ...models import Autoencoder
from ...pages.call import Call
from ...pages.gallery import REPORT, Exhibit, Gallery, GallerySection, page_place, write_gallery
from ...random_streams import VARIANTS, WALK, check_seed, latent_noise
from ...reporting import SILENT, Reporter
from ...runtime import Codec
from ...runtime.opening import Model, Precision, open_codec
from ..codes import Code, Track, decode_picture, encode_picture
from .animation import write_gif
from .sheet import sheet, write_numbered

ALIKE = 1.0
"""Difference between variants in gray levels below which nobody sees it."""

LEVEL = 0.2
"""Default noise for latents that are points, in stds of their channels."""


@dataclass(frozen=True)
class Variety:
    """The differences between variants."""

    psnr: float
    """of all variants against the reconstruction without noise, in dB; infinite where all are equal to it"""
    pixel_std: float
    """std between variants, root mean square over pixels and channels, in gray levels of 255"""
    latent_std: float
    """std of the added noise, root mean square over latents, in their own units"""

    @property
    def alike(self) -> bool:
        """Whether the variants look the same."""
        return self.pixel_std < ALIKE

    @property
    def sentence(self) -> str:
        """The differences in a sentence."""
        seen = f"variants differ by {self.pixel_std:.2f} gray levels ({self.psnr:.1f} dB from the reconstruction)"
        return seen + (
            ": they are all alike to the eye; the posterior is nearly a point. --noise 0.3 varies more"
            if self.alike
            else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"psnr": self.psnr, "pixel_std": self.pixel_std, "latent_std": self.latent_std, "alike": self.alike}


def latent_scale(autoencoder: Autoencoder, means: Sequence[Tensor]) -> Tensor:
    """Standard deviation of every latent channel, c: the configuration's if it has one, else that of these latents c h
    w.

    Channels that do not vary, such as those of a single latent, count as 1.
    """
    config = autoencoder.config
    if config.latents_std is not None:
        return torch.tensor(config.latents_std)
    spread = torch.cat([mean.flatten(1) for mean in means], 1).std(1, correction=0)
    return torch.where(spread > 0, spread, 1.0)


def disturbed(code: Code, scale: Tensor, noise: float) -> Code:
    """The code with `noise` times the channels' std (scale: c) in place of the posterior's std."""
    return Code(code.mean, (noise * scale)[:, None, None].expand_as(code.mean), code.height, code.width)


def variants(
    codec: Codec, code: Code, count: int, temperature: float = 1.0, seed: int = 0, track: Track = iter
) -> tuple[list[Tensor], Variety]:
    """Decode samples of the posterior, with `temperature` times its std, to images uint8 c h w. Sample k does not
    depend on the count.

    Temperature 0 is the reconstruction.
    """
    noise = latent_noise(seed, list(range(count)), tuple(code.mean.shape), VARIANTS)  # type: ignore[arg-type]
    pictures = [
        decode_picture(codec, code.sample(temperature, noise=one), code.height, code.width) for one in track(noise)
    ]
    centre = decode_picture(codec, code.mean, code.height, code.width)
    spread = torch.stack(pictures).double().var(0, correction=0).mean().sqrt().item()
    added = temperature * code.std.double().square().mean().sqrt().item()
    return pictures, Variety(psnr(centre.expand(count, -1, -1, -1), torch.stack(pictures)), spread, added)


def closed_walk(
    codec: Codec, code: Code, steps: int, temperature: float = 1.0, seed: int = 0, track: Track = iter
) -> list[Tensor]:
    """Decode a closed path about a code to images uint8 c h w: mean + temperature * std * (cos θ n1 + sin θ n2), θ in
    equal steps.

    Noise on the great circle through two draws is standard normal everywhere, so every image is a sample at this
    temperature. The last image is one step away from the first.
    """
    one, other = latent_noise(seed, [0, 1], tuple(code.mean.shape), WALK)  # type: ignore[arg-type]
    turns = (2 * math.pi * i / steps for i in range(steps))
    circle = [math.cos(angle) * one + math.sin(angle) * other for angle in turns]
    return [
        decode_picture(codec, code.sample(temperature, noise=noise), code.height, code.width) for noise in track(circle)
    ]


def walk_figures(pictures: Sequence[Tensor]) -> dict[str, float]:
    """Mean and largest step of a closed walk, and the largest distance from its first image, as root mean squares in
    gray levels."""
    steps = [_apart(a, b) for a, b in itertools.pairwise([*pictures, pictures[0]])]
    return {
        "mean_step": sum(steps) / len(steps),
        "largest_step": max(steps),
        "farthest": max(_apart(pictures[0], p) for p in pictures),
    }


def _apart(a: Tensor, b: Tensor) -> float:
    return (a.double() - b.double()).square().mean().sqrt().item()


@dataclass(frozen=True, eq=False)
class VariedImage:
    """The variants of one image, or a walk around it."""

    source: str
    """file that was read"""
    path: str | None
    """sheet or GIF that was written; None without `out`"""
    temperature: float
    noise: float | None
    """in stds of the latents' channels; None where the posterior was sampled"""
    seed: int
    figures: Mapping[str, Any]
    """of `Variety`, or of `walk_figures`"""
    pictures: tuple[Tensor, ...]
    """uint8 c h w; none where they were written"""
    page: Path | None = None
    """the page that shows it; None where it was not written"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        page = {} if self.page is None else {"page": str(self.page)}
        options = {"temperature": self.temperature, "noise": self.noise, "seed": self.seed}
        return {"source": self.source} | options | dict(self.figures) | page


@dataclass(frozen=True, eq=False)
class VariedImages:
    """What `vary` returns."""

    images: tuple[VariedImage, ...]
    page: Path | None = None
    """the page with the pictures; None where it was not written"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, by the name of the written file, or of the source."""
        return {one.path or one.source: one.to_dict() for one in self.images}


def vary(
    model: Model,
    inputs: Inputs,
    out: str | Path | None = None,
    *,
    count: int = 8,
    temperature: float = 1.0,
    noise: float | None = None,
    walk: bool = False,
    steps: int = 32,
    seed: int = 0,
    memory: str | int | None = None,
    precision: Precision | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> VariedImages:
    """Decode samples of each image's posterior and measure how much they differ; or walk around each image.

    model: a path, a hub id or an Autoencoder. inputs: image files or folders, one or several. out: folder for a sheet
    (PNG) and a folder of variants for each image, or a GIF of each walk, and for report.html; None returns the pictures
    as tensors. count:
    variants of each image. temperature: factor of the posterior's std. noise: std in units of the latent channels'
    stds, in place of the posterior's; 0.2 where latents are points. walk: a closed walk of `steps` pictures instead of
    variants. seed: of the noise. memory, precision, settings: of the model, as in `vaeworks.reconstruct`. overwrite:
    replace files.

    Errors: ConfigError for a number out of range and for a file that exists; DataError where no image can be read.

    >>> result = vw.vary("runs/dogs", "a.png", count=4, noise=0.3)
    >>> result.images[0].pictures, result.images[0].figures["pixel_std"]
    """
    call = Call("vary", vary, dict(locals()))
    check_seed(seed)
    if count < 2 or steps < 3:
        raise ConfigError(f"count (={count}) must be at least 2, and steps (={steps}) at least 3")
    for name, value in (("temperature", temperature), ("noise", noise)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name} (={value}) must be positive")
    sources = image_files(inputs, reporter)
    codec = open_codec(model, memory, precision, settings)
    check_pictures(codec.autoencoder.config)
    pairs = _targets(sources, None if out is None else Path(out), walk, overwrite)
    page = page_place(None if out is None else Path(out), reporter)
    rows: list[VariedImage] = []
    for path, target, picture in readable_images(pairs, codec.autoencoder.config.in_channels, reporter):
        image = to_uint8(picture)
        code = encode_picture(codec, image)
        level = LEVEL if noise is None and not code.std.any() else noise
        if level is not None:
            code = disturbed(code, latent_scale(codec.autoencoder, [code.mean]), level)
        if level is not None and noise is None and not rows:
            reporter.warn(
                f"latents are points, without a posterior to sample: noise of {level} stds of each channel instead "
                "(--noise)"
            )
        shown = target or path
        track = partial(reporter.track, what=shown.name)
        if walk:
            pictures = closed_walk(codec, code, steps, temperature, seed, track)
            figures: dict[str, Any] = walk_figures(pictures)
            said = f"{shown}  {steps} pictures, steps of {figures['mean_step']:.2f} gray levels"
        else:
            pictures, variety = variants(codec, code, count, temperature, seed, track)
            figures = variety.to_dict()
            said = f"{shown}  {variety.sentence}"
        if target is not None and walk:
            write_gif(target, pictures, overwrite=overwrite)
        elif target is not None:
            write_numbered(target.with_suffix(""), pictures, overwrite)
            names = ["input", *(f"variant {number}" for number in range(count))]
            write_picture(target, sheet([image, *pictures], names), overwrite)
        reporter.say(said)
        written = None if target is None else str(target)
        kept = tuple(pictures) if target is None else ()
        rows.append(VariedImage(str(path), written, temperature, level, seed, figures, kept, page))
    found = VariedImages(tuple(rows), page)
    write_gallery(page, _gallery(found, walk, call), overwrite, reporter)
    return found


def _gallery(found: VariedImages, walk: bool, call: Call) -> Gallery:
    shown, folders = [], {}
    for image in found.images:
        if image.path is None:
            continue
        name, figures = Path(image.source).name, image.figures
        if walk:
            said = f"{name}: steps of {figures['mean_step']:.2f} gray levels, at most {figures['largest_step']:.2f}"
        else:
            said = (
                f"{name}: variants differ by {figures['pixel_std']:.2f} gray levels, {figures['psnr']:.1f} dB from the "
            )
            said += "reconstruction" + ("; all alike to the eye" if figures["alike"] else "")
            if found.page is not None:
                folder = Path(image.path).with_suffix("").relative_to(found.page.parent).as_posix()
                folders[folder] = f"the variants of {name}"
        shown.append(Exhibit(Path(image.path), said))
    first = found.images[0]
    noise = "the posterior" if first.noise is None else f"noise of {first.noise:g} standard deviations of each channel"
    lead = f"Samples of {noise}, at temperature {first.temperature:g}."
    text = (
        "Each walk is closed: it ends where it began."
        if walk
        else "The input, and samples with its own latents as mean."
    )
    section = GallerySection("Walks" if walk else "Variants", text, shown)
    return Gallery("Variants of images", lead, call, [section], found.to_dict(), files=folders)


def _targets(
    sources: list[tuple[Path, Path]], out: Path | None, walk: bool, overwrite: bool
) -> list[tuple[Path, Path]] | list[tuple[Path, None]]:
    """Images and the files that they become; no folder of variants may hold another image's sheet."""
    if out is None:
        return [(path, None) for path, _ in sources]
    check_free(out, [REPORT], overwrite)
    pairs = targets(sources, out, ".gif" if walk else ".png", overwrite)
    if not walk:
        folders = [target.with_suffix("") for _, target in pairs]
        check_free(out, (str(folder.relative_to(out)) for folder in folders), overwrite)
        check_apart(folders, [target for _, target in pairs])
    return pairs
