"""Paths through latent space between images, compared with a cross-fade of the pixels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...arguments import check_choice, several
from ...config import dumps
from ...data.inputs import image_files, opened
from ...errors import ConfigError
from ...files.atomic import write_picture, write_text
from ...files.outputs import check_free, make_folder
from ...images import converted, each_image, is_pixels, labelled, to_model_range, to_uint8
from ...images.channels import check_pictures
from ...pages import chart, chart_file
from ...pages.call import Call
from ...pages.gallery import (
    REPORT,
    Exhibit,
    Gallery,
    GallerySection,
    PageTable,
    page_place,
    write_gallery,
)
from ...reporting import SILENT, Reporter
from ...runtime import Codec
from ...runtime.opening import Model, Precision, open_codec
from ...words import many
from ..codes import Code, Track, decode_picture, encode_picture
from .animation import find_ffmpeg, there_and_back, write_gif, write_mp4
from .sheet import write_numbered
from .vary import latent_scale

PARALLEL = 1e-4
"""Sine of the angle between two codes below which they count as parallel."""

Way = Callable[[Code, Code, float], Tensor]
"""Latents c h w at a time t in [0,1] between two codes."""


def linear(a: Code, b: Code, t: float) -> Tensor:
    """The straight line between the means, c h w; between unequal ends its middle is shorter than either."""
    return torch.lerp(a.mean, b.mean, t)


def spherical(a: Code, b: Code, t: float) -> Tensor:
    """The great circle about the latents' origin, while the norm changes linearly from one end's to the other's:
    latents c h w.

    It is the straight line where an end is 0 or a single number, which has no direction, and where both ends are nearly
    parallel. Opposite ends have no unique great circle; it then passes a direction that depends only on the first end
    (its elements shifted by one, made orthogonal).
    Source: Shoemake 1985 (slerp); White 2016 (arXiv 1609.04468), for normally distributed latents.
    """
    x, y = a.mean.double().flatten(), b.mean.double().flatten()
    p, q = x.norm(), y.norm()
    if min(p, q) == 0 or len(x) == 1:
        return linear(a, b, t)
    u, v = x / p, y / q
    across = v - (u @ v) * u
    if across.norm() < PARALLEL:
        if u @ v > 0:
            return linear(a, b, t)
        across = torch.roll(u, 1)
        across = across - (u @ across) * u
        if across.norm() < PARALLEL:  # all elements are equal
            across = torch.eye(len(u), 1, dtype=u.dtype)[:, 0] - u[0] * u
    across = across / across.norm()
    angle = t * torch.atan2((v @ across).abs(), u @ v)
    return (torch.lerp(p, q, t) * (angle.cos() * u + angle.sin() * across)).float().reshape(a.mean.shape)


def posterior(a: Code, b: Code, t: float) -> Tensor:
    """The mean of the Gaussian that minimizes (1 - t) KL(q|a) + t KL(q|b) over q: latents c h w.

    Precisions are mixed, 1/s² = (1 - t) / s_a² + t / s_b², and means are weighted by them: an element follows the image
    with the higher precision longer. With equal stds it is the straight line. This is the exponential geodesic of the
    two posteriors (Amari & Nagaoka 2000, section 3.5; Heskes 1998, logarithmic pools). We prefer it to the geodesic of
    Fisher's metric (a half circle of the half plane, Costa et al. 2015), on which a mean that is many stds away stays
    at its ends and jumps in the middle.
    Errors: ConfigError where latents are points, which have no precision.
    """
    if not (a.std.any() and b.std.any()):
        raise ConfigError(
            "path 'posterior' weighs by the posterior's std, and this model's latents are points; take linear or "
            "spherical"
        )
    high = torch.maximum(a.std, b.std).double()
    wa, wb = (1 - t) * (high / a.std.double()).square(), t * (high / b.std.double()).square()
    return ((wa * a.mean + wb * b.mean) / (wa + wb)).float()


PATHS: dict[str, Way] = {"linear": linear, "spherical": spherical, "posterior": posterior}
"""Paths by name."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded image on the path, and the cross-fade of the pixels at the same time."""

    pixels: Tensor
    """uint8 c height width"""
    fade: Tensor
    """likewise"""
    segment: int
    t: float
    """time in [0,1] within its segment"""
    norm: float
    """|z| over the linear mixture of both ends' norms; 1 where the norm stays that of encoded images"""
    norm_independent: float
    """the same for the straight line between two independent directions: the expected shrinking"""
    recon: float
    """root mean square of E(D(z)) - z, in stds of the latent channels: the encoder's disagreement"""
    recon_fade: float
    """the same for the encoded cross-fade"""
    contrast: float
    """std of the pixels over the linear mixture of both ends'"""
    contrast_fade: float
    ghost: float
    """share of the pixels' variance that a mixture of both ends explains; 1 for a cross-fade"""

    def figures(self) -> dict[str, Any]:
        """The frame without its pictures, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name not in ("pixels", "fade")}


@dataclass(frozen=True, eq=False)
class Interpolation:
    """A path through all images."""

    images: tuple[str, ...]
    """files, or numbers of tensors from 1"""
    path: str
    """name in PATHS"""
    steps: int
    """from each image to the next"""
    frames: tuple[Frame, ...]
    length: tuple[float, ...]
    """of each segment: length of the path in pixel space over the distance of its ends; a cross-fade has 1"""
    largest: tuple[float, ...]
    """of each segment: its largest step, as a share of that length; even steps have 1 / steps"""
    page: Path | None = None
    """the page with the pictures; None where it was not written"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what path.json holds."""
        page = {} if self.page is None else {"page": str(self.page)}
        return page | {
            "images": list(self.images),
            "path": self.path,
            "steps": self.steps,
            "length": list(self.length),
            "largest_step": list(self.largest),
            "frames": [frame.figures() for frame in self.frames],
        }

    @property
    def segments(self) -> list[str]:
        """A sentence for each segment: how long it is, and how even."""
        return [
            f"from image {number} to {number + 1}: {length:.2f} times the straight way of a cross-fade; the largest "
            f"step is {largest:.0%} of it, even ones have {1 / self.steps:.0%}"
            for number, (length, largest) in enumerate(zip(self.length, self.largest, strict=True), 1)
        ]

    def curves(self) -> dict[str, list[tuple[float, float | None]]]:
        """Norm and E(D(z)) - z along the path, with their baselines, by name."""
        fields = {
            "norm": "norm",
            "norm, independent ends": "norm_independent",
            "E(D(z)) - z": "recon",
            "the same of a cross-fade": "recon_fade",
        }
        return {
            name: [(frame.segment + frame.t, getattr(frame, field)) for frame in self.frames]
            for name, field in fields.items()
        }

    def chart(self) -> str:
        """The curves as an SVG file."""
        return chart_file(CURVES, self.curves(), x_label="image")


CURVES = "Norm, as a share of the ends'; E(D(z)) - z, in standard deviations"


def interpolate(
    model: Model | Codec,
    images: Sequence[Tensor | str | Path] | str | Path,
    steps: int = 8,
    path: Literal["linear", "spherical", "posterior"] = "linear",
    *,
    out: str | Path | None = None,
    video: Literal["gif", "mp4"] = "gif",
    memory: str | int | None = None,
    precision: Precision | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Interpolation:
    """Decode latents on a path through two images or more, and compare the path with a cross-fade of the pixels.

    model: a path, a hub id, an autoencoder or a codec. images: in order, files and folders of them, or Pillow images,
    arrays h w c and tensors c h w of one size, of uint8 or of floats in [0,1] or [-1,1]; files of other sizes
    are cropped and resized to the first one's. steps: from each image to the next. path:
    "linear"; "spherical", about the origin; or "posterior", weighted by the posteriors' precision. out: folder for
    strip.png, frames/, path.gif or path.mp4 (`video`, which needs ffmpeg), path.json, path.svg and report.html.
    memory, precision, settings: of the model, as in `vaeworks.reconstruct`. overwrite: replace files.

    Errors: ConfigError for fewer than two images, tensors of unlike sizes, an unknown path, a path that needs a
    posterior where latents are points, a file that exists, and a missing ffmpeg; DataError for an image that cannot be
    read.

    >>> found = vw.interpolate("runs/dogs", ["a.jpg", "b.jpg"], steps=8, path="spherical", out="out")
    >>> [frame.recon for frame in found.frames]      # how far E(D(z)) is from z, in stds
    """
    call = Call("interpolate", interpolate, dict(locals()), ("model", "images"))
    if steps < 1:
        raise ConfigError(f"steps (={steps}) must be at least 1")
    if path not in PATHS:
        raise ConfigError(f"path {path!r} is not known; choose from {', '.join(PATHS)}")
    check_choice("video", video, ("gif", "mp4"))
    if video == "mp4":
        find_ffmpeg()
    film = f"path.{video}"
    if out is not None:
        check_free(Path(out), ("strip.png", film, "path.json", "path.svg", "frames", REPORT), overwrite)
    own = hasattr(model, "autoencoder")  # a codec, or what encodes and decodes like one
    codec: Any = model if own else open_codec(model, memory, precision, settings)
    check_pictures(codec.autoencoder.config)
    given = several(images)
    channels = codec.autoencoder.config.in_channels
    if given and all(map(is_pixels, given)):
        pictures = [to_uint8(converted(image, channels)) for image in each_image(given)]
        names = tuple(str(number) for number in range(1, len(pictures) + 1))
    else:
        pictures, names = _alike(given, channels, reporter)
    found = _interpolation(codec, pictures, names, steps, path, partial(reporter.track, what="frames"))
    if out is None:
        return found
    found = replace(found, page=page_place(Path(out), reporter))
    _write(found, Path(out), film, overwrite)
    write_gallery(found.page, _gallery(found, Path(out), film, call), overwrite, reporter)
    return found


def _alike(inputs: Sequence[Any], channels: int, reporter: Reporter) -> tuple[list[Tensor], tuple[str, ...]]:
    """Images of the first one's size, and their file names. Others are cropped to its shape and resized; the reporter
    says so."""
    paths = [path for path, _ in image_files(inputs, reporter)]
    _check_count(len(paths))
    pictures = [opened(path, channels) for path in paths]
    width, height = pictures[0].size
    for path, picture in zip(paths, pictures, strict=True):
        if picture.size != (width, height):
            reporter.detail(f"{path}: {picture.width} x {picture.height}, cropped and resized to {width} x {height}")
    fitted = [
        picture if picture.size == (width, height) else ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
        for picture in pictures
    ]
    return [to_uint8(picture) for picture in fitted], tuple(map(str, paths))


def _check_count(count: int) -> None:
    if count < 2:
        raise ConfigError(f"a path needs two images at least, and {count} is given")


def _interpolation(
    codec: Codec, images: Sequence[Tensor], names: tuple[str, ...], steps: int, path: str, track: Track
) -> Interpolation:
    """The path through images uint8 c h w of one size."""
    _check_count(len(images))
    if len({image.shape for image in images}) > 1:
        raise ConfigError("images must have one size; resize them to the first one's")
    codes = [encode_picture(codec, image) for image in images]
    scale = latent_scale(codec.autoencoder, [code.mean for code in codes])[:, None, None]
    PATHS[path](codes[0], codes[1], 0.5)  # a path that these latents cannot have fails before the work
    frames = []
    for segment, i in track([(s, i) for s in range(len(codes) - 1) for i in range(steps + 1) if i or not s]):
        ends, t = segment, i / steps
        z = PATHS[path](codes[ends], codes[ends + 1], t)
        frames.append(_frame(codec, z, codes[ends : ends + 2], images[ends : ends + 2], ends, t, scale))
    lengths, largest = [], []
    for start in range(0, len(frames) - 1, steps):
        pictures = [frame.pixels for frame in frames[start : start + steps + 1]]
        way = [_distance(one, other) for one, other in itertools.pairwise(pictures)]
        apart = _distance(pictures[0], pictures[-1])
        lengths.append(sum(way) / apart if apart else float("nan"))
        largest.append(max(way) / sum(way) if sum(way) else float("nan"))
    return Interpolation(names, path, steps, tuple(frames), tuple(lengths), tuple(largest))


def _write(found: Interpolation, out: Path, film: str, overwrite: bool) -> None:
    """Write the strip, frames, film, figures and a chart."""
    make_folder(out)
    frames = [frame.pixels for frame in found.frames]
    write_numbered(out / "frames", frames, overwrite)
    write_picture(out / "strip.png", strip(found), overwrite)
    write = write_mp4 if film.endswith("mp4") else write_gif
    write(out / film, there_and_back(frames), overwrite=overwrite)
    write_text(out / "path.json", dumps(found.to_dict()) + "\n", overwrite)
    write_text(out / "path.svg", found.chart(), overwrite)


COLUMNS = {
    "norm": "norm",
    "norm, independent ends": "norm_independent",
    "E(D(z)) - z": "recon",
    "of the cross-fade": "recon_fade",
    "contrast": "contrast",
    "contrast of the cross-fade": "contrast_fade",
    "share of a mixture of both ends": "ghost",
}
"""Headings of a frame's figures on the page."""


def _gallery(found: Interpolation, out: Path, film: str, call: Call) -> Gallery:
    strips = GallerySection(
        "The path and the cross-fade",
        f"Above: latents on a {found.path} path, decoded. Below: the pixels faded into each other. "
        + "; ".join(found.segments)
        + ".",
        [Exhibit(out / "strip.png", "path and cross-fade"), Exhibit(out / film, "there and back")],
    )
    rows = [
        [f"{frame.segment + frame.t:.3g}", *(f"{getattr(frame, name):.3f}" for name in COLUMNS.values())]
        for frame in found.frames
    ]
    figures = GallerySection(
        "Figures of every frame",
        "Norm: 1 where latents are as long as those of the ends. E(D(z)) - z: how far the encoder is from the latents "
        "when it sees the frame, in standard deviations; less is better.",
        tables=[PageTable(("at", *COLUMNS), rows)],
        charts=[chart(CURVES, found.curves(), x_label="image", newest=False)],
    )
    files = {"strip.png": "the strip", "frames": "every frame", film: "the film", "path.json": "all figures"}
    lead = f"{len(found.images)} images, {many(found.steps, 'step')} from each to the next."
    files |= {"path.svg": "the chart"}
    return Gallery("From image to image", lead, call, [strips, figures], found.to_dict(), files=files)


def strip(found: Interpolation) -> Image.Image:
    """The frames of a path above the cross-fade of the pixels, with the times; a path that is given passes through its
    images at whole numbers."""
    times = [frame.segment + frame.t for frame in found.frames]
    names = [f"{t:g}: {Path(found.images[int(t)]).name}" if t == int(t) else f"{t:.3g}" for t in times]
    rows = [[frame.pixels for frame in found.frames], [frame.fade for frame in found.frames]]
    return labelled(rows, columns=names, sides=[f"{found.path} path through latents", "cross-fade of the pixels"])


def _distance(a: Tensor, b: Tensor) -> float:
    return (a.double() - b.double()).norm().item()


def _frame(
    codec: Codec, z: Tensor, ends: Sequence[Code], images: Sequence[Tensor], segment: int, t: float, scale: Tensor
) -> Frame:
    a, b = ends
    pixels = decode_picture(codec, z, a.height, a.width)
    fade = torch.lerp(images[0].float(), images[1].float(), t).round().to(torch.uint8)
    faded = encode_picture(codec, fade).mean
    p, q = a.mean.norm().item(), b.mean.norm().item()
    even = (1 - t) * p + t * q
    spread = (1 - t) * images[0].float().std() + t * images[1].float().std()
    return Frame(
        pixels,
        fade,
        segment,
        t,
        norm=z.norm().item() / even if even else float("nan"),
        norm_independent=(((1 - t) * p) ** 2 + (t * q) ** 2) ** 0.5 / even if even else float("nan"),
        recon=_disagreement(codec, z, scale),
        recon_fade=_disagreement(codec, faded, scale),
        contrast=(pixels.float().std() / spread).item(),
        contrast_fade=(fade.float().std() / spread).item(),
        ghost=_explained(pixels, images),
    )


@torch.no_grad()
def _disagreement(codec: Codec, z: Tensor, scale: Tensor) -> float:
    """Root mean square of E(D(z)) - z in stds, for latents c h w; the decoder's output is not rounded."""
    again = codec.encode(codec.decode(z[None]).float().clamp(-1, 1)).mean[0].float().cpu()
    return ((again - z) / scale).square().mean().sqrt().item()


def _explained(pixels: Tensor, images: Sequence[Tensor]) -> float:
    """R² of the best mixture of both ends, with a constant, as a model of this picture."""
    x = to_model_range(pixels).double().flatten()
    basis = torch.stack([torch.ones_like(x), *(to_model_range(image).double().flatten() for image in images)], 1)
    rest = x - basis @ torch.linalg.lstsq(basis, x[:, None], driver="gelsd").solution[:, 0]
    variance = (x - x.mean()).square().sum()
    return 1 - (rest.square().sum() / variance).item() if variance > 0 else 1.0
