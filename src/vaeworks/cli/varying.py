"""Commands that make pictures which were not there: interpolate, vary, sample."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..config import dumps
from ..data.inputs import data_source, image_files, opened, readable_images, warn_of_skipped
from ..errors import ConfigError
from ..files.outputs import check_apart, check_free, make_folder, targets
from .console import TERMINAL, bar, console
from .options import Data, Inputs, Memory, Model, Out, Overwrite, Precision, Told
from .paths import check_seed, codec, placed

if TYPE_CHECKING:
    from torch import Tensor

    from ..apps.generation.interpolate import Interpolation
    from ..apps.generation.sample_metrics import Likeness

Seed = Annotated[int, arg(help="of everything random")]

COLUMNS = 8
"""Of a sheet."""

LEVEL = 0.2
"""Of noise for latents that are points, where none is given."""

LARGEST, SMALLEST = 256, 64
"""Side in pixels of samples by default: the images' own, up to the first; about the second where there are no
images."""


def interpolate(
    model: Model,
    inputs: Annotated[
        Positional[tuple[str, ...]], arg(metavar="IMAGE", help="two or more files, or folders of them, in order")
    ],
    out: Out,
    path: Annotated[
        Literal["linear", "spherical", "posterior"],
        arg(help="straight; about the origin; weighted by the posteriors' precision"),
    ] = "linear",
    steps: Annotated[int, arg(help="from each image to the next")] = 8,
    video: Annotated[Literal["gif", "mp4"], arg(help="mp4 needs ffmpeg")] = "gif",
    memory: Memory = None,
    precision: Precision = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Pictures between two images or more, as a strip, frames and a video; and how natural the way is beside a
    cross-fade."""
    from ..apps.generation.animation import find_ffmpeg, there_and_back, write_gif, write_mp4
    from ..apps.generation.interpolate import interpolate as between
    from ..files.atomic import write_picture, write_text
    from ..images import grid

    if steps < 1:
        raise ConfigError(f"steps (={steps}) must be at least 1")
    if video == "mp4":
        find_ffmpeg()
    film = out / f"path.{video}"
    check_free(out, ("strip.png", film.name, "path.json", "path.svg", "frames"), overwrite)
    through = codec(model, memory, precision, told)
    images, names = _alike([path for path, _ in image_files(inputs, TERMINAL)], through.autoencoder.config.in_channels)
    found = between(through, images, steps, path, bar("frames"))
    make_folder(out)
    frames = [frame.pixels for frame in found.frames]
    _write_pictures(out / "frames", frames, overwrite)
    write_picture(out / "strip.png", grid([frames, [frame.fade for frame in found.frames]]), overwrite)
    (write_gif if video == "gif" else write_mp4)(film, there_and_back(frames), overwrite=overwrite)
    result = {
        "images": names,
        "path": path,
        "steps": steps,
        "length": list(found.length),
        "largest_step": list(found.largest),
        "frames": [frame.figures() for frame in found.frames],
    }
    write_text(out / "path.json", dumps(result) + "\n", overwrite)
    if find_spec("matplotlib") is not None:
        write_text(out / "path.svg", found.chart(), overwrite)
    _print_path(found, steps)
    console().print(f"{out / 'strip.png'}: the path above, the cross-fade below; {film} moves")
    return result


def vary(
    model: Model,
    inputs: Inputs,
    out: Out,
    count: Annotated[int, arg(help="variants of each image")] = 8,
    temperature: Annotated[float, arg(help="of samples: times the posterior's std; 1 is the posterior itself")] = 1.0,
    noise: Annotated[
        float | None,
        arg(
            help="noise of so many stds of the latents' channels in place of the posterior's; by default 0.2 for points"
        ),
    ] = None,
    walk: Annotated[bool, arg(help="a walk around each image as a GIF, in place of variants")] = False,
    steps: Annotated[int, arg(help="pictures of a walk")] = 32,
    seed: Seed = 0,
    memory: Memory = None,
    precision: Precision = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Pictures around each image: samples of its posterior, and how different they are; or a walk among them."""
    from ..apps.codes import encode_picture
    from ..apps.generation.animation import write_gif
    from ..apps.generation.vary import disturbed, latent_scale, variants, walk_figures
    from ..apps.generation.vary import walk as around
    from ..files.atomic import write_picture
    from ..images import grid, to_uint8

    if not inputs:
        raise ConfigError("no IN is given: vaeworks vary MODEL IN... --out DIR")
    check_seed(seed)
    if count < 2 or steps < 3:
        raise ConfigError(f"count (={count}) must be at least 2, and steps (={steps}) at least 3")
    for name, value in (("temperature", temperature), ("noise", noise)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name} (={value}) must be positive")
    pairs = targets(image_files(inputs, TERMINAL), out, ".gif" if walk else ".png", overwrite)
    if not walk:
        folders = [target.with_suffix("") for _, target in pairs]
        check_free(out, (str(folder.relative_to(out)) for folder in folders), overwrite)
        check_apart(folders, [target for _, target in pairs])
    through = codec(model, memory, precision, told)
    rows: dict[str, Any] = {}
    for path, target, picture in readable_images(pairs, through.autoencoder.config.in_channels, TERMINAL):
        image = to_uint8(picture)
        code = encode_picture(through, image)
        level = LEVEL if noise is None and not code.std.any() else noise
        if level is not None:
            code = disturbed(code, latent_scale(through.autoencoder, [code.mean]), level)
        if level is not None and noise is None and not rows:
            console().print(
                f"latents are points, without a posterior to sample: noise of {level} stds of each channel instead "
                "(--noise)"
            )
        if walk:
            pictures = around(through, code, steps, temperature, seed, bar(target.name))
            write_gif(target, pictures, overwrite=overwrite)
            figures: dict[str, Any] = walk_figures(pictures)
            console().print(f"{target}  {steps} pictures, steps of {figures['mean_step']:.2f} gray levels")
        else:
            pictures, variety = variants(through, code, count, temperature, seed, bar(target.name))
            _write_pictures(target.with_suffix(""), pictures, overwrite)
            write_picture(target, grid(_rows([image, *pictures])), overwrite)
            figures = variety.to_dict()
            console().print(f"{target}  {variety.sentence}", style="yellow" if variety.alike else None)
        rows[str(target)] = {"source": str(path), "temperature": temperature, "noise": level, "seed": seed} | figures
    return rows


def sample(
    model: Model,
    out: Out,
    count: Annotated[int, arg(help="pictures")] = 64,
    source: Annotated[
        Literal["prior", "gaussian", "mixture", "flow"],
        arg(
            name="from", help="standard normal; or fitted to the latents of --data: one Gaussian, several, a small flow"
        ),
    ] = "prior",
    data: Annotated[Data | None, arg(help="images: for fitting, and for the figures")] = None,
    labels: Annotated[
        str | None, arg(metavar="HOW", help="folders, names, none, or a CSV file; by default folders")
    ] = None,
    size: Annotated[
        int | None, arg(metavar="PX", help="side of the pictures; by default about that of the data's")
    ] = None,
    components: Annotated[int, arg(help="of a mixture")] = 10,
    map: Annotated[bool, arg(help="also the plane of latents, where they are two numbers")] = False,
    seed: Seed = 0,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """New pictures from the prior, or from a density fitted to a data set's latents; with --data beside held-out images
    in figures."""
    from ..apps.generation.density import density
    from ..files.atomic import write_picture, write_text
    from ..images import grid

    check_seed(seed)
    if count < 1:
        raise ConfigError(f"count (={count}) must be at least 1")
    if data is not None and count < 2:
        raise ConfigError(f"count (={count}) must be at least 2 with --data, whose figures compare sets of pictures")
    if data is None and (source != "prior" or map):
        raise ConfigError(f"{'--map' if map else f'--from {source}'} needs --data: the images whose latents it is of")
    check_free(out, ("samples", "samples.png", "sample.json", *(["map.png"] if map else [])), overwrite)
    wanted = density(source, components, bar("flow"))
    autoencoder = placed(model, told)
    plane = None
    if data is None:
        from ..apps.generation.density import Prior
        from ..apps.generation.sampling import sample as draw

        side = _side(autoencoder.downsample_factor, size or SMALLEST)
        shape = (
            autoencoder.latent_channels,
            side // autoencoder.downsample_factor,
            side // autoencoder.downsample_factor,
        )
        found = draw(autoencoder, Prior(shape), count, seed, bar("pictures"))
    else:
        from ..apps.generation.latent_map import check_plane, latent_map
        from ..apps.generation.sampling import read_halves, sample_like
        from ..data import scan
        from ..data.labels import find_labels

        images = scan(data_source(data, reporter=TERMINAL))
        own = min(max(min(file.width, file.height) for file in images.files), LARGEST)
        side = _side(autoencoder.downsample_factor, size or own)
        known, held_out = read_halves(autoencoder, images, side, find_labels(images.files, labels), bar("images"))
        warn_of_skipped([*known.skipped, *held_out.skipped], TERMINAL)
        if map:
            check_plane(known.mean)
            plane = latent_map(autoencoder, known.mean, known.std, known.labels)
        found = sample_like(autoencoder, wanted, known, held_out, count, seed, bar("pictures"))
    make_folder(out)
    _write_pictures(out / "samples", list(found.pixels), overwrite)
    write_picture(out / "samples.png", grid(_rows(list(found.pixels[: COLUMNS**2]))), overwrite)
    if plane is not None:
        write_picture(out / "map.png", plane, overwrite)
    result = {"model": model, "data": data, "size": side, "seed": seed} | found.to_dict()
    write_text(out / "sample.json", dumps(result) + "\n", overwrite)
    _print_sampled(found.stated, found.features, found.figures)
    if source == "prior" and found.latents_std is not None and abs(found.latents_std - 1) > 0.5:
        console().print(
            f"latents of these images have a std of {found.latents_std:.3g}, a standard normal prior has 1: this "
            "decoder was not trained on samples like these; try --from gaussian, mixture or flow",
            style="yellow",
        )
    console().print(
        f"{out / 'samples.png'}: {len(found.pixels)} pictures of {side} px" + (f"; {out / 'map.png'}" if map else "")
    )
    return result


def _alike(paths: Sequence[Path], channels: int) -> tuple[list[Tensor], list[str]]:
    """Images of the first one's size, and their names; others are cropped to its shape, resized, and named."""
    from PIL import Image, ImageOps

    from ..images import to_uint8

    if len(paths) < 2:
        raise ConfigError(f"a path needs two images at least, and {len(paths)} is given")
    pictures = [opened(path, channels) for path in paths]
    size = pictures[0].size
    for path, picture in zip(paths, pictures, strict=True):
        if picture.size != size:
            console().print(
                f"{path}: {picture.width} x {picture.height}, cropped and resized to {size[0]} x {size[1]}", style="dim"
            )
    fitted = [p if p.size == size else ImageOps.fit(p, size, Image.Resampling.LANCZOS) for p in pictures]
    return [to_uint8(picture) for picture in fitted], [str(path) for path in paths]


def _side(factor: int, size: int) -> int:
    """The multiple of f next to a size, at least f."""
    return max(1, round(size / factor)) * factor


def _rows(pictures: list[Tensor]) -> list[list[Tensor]]:
    return [pictures[i : i + COLUMNS] for i in range(0, len(pictures), COLUMNS)]


def _write_pictures(folder: Path, pictures: Sequence[Tensor], overwrite: bool) -> None:
    """A folder of numbered PNGs, whole or not at all; over one that was there, or only where nothing is."""
    from ..files.atomic import atomic
    from ..images import to_pillow

    with atomic(folder, overwrite) as temporary:
        temporary.mkdir()
        for number, picture in enumerate(pictures):
            to_pillow(picture).save(temporary / f"{number:04}.png")


def _print_path(found: Interpolation, steps: int) -> None:
    """A line per frame, and one per segment."""
    from rich.table import Table

    table = Table(
        "at",
        "norm",
        "(independent)",
        "E(D(z)) - z",
        "(fade)",
        "contrast",
        "(fade)",
        "ghost",
        box=None,
        header_style="dim",
    )
    for frame in found.frames:
        values = (
            frame.norm,
            frame.norm_independent,
            frame.recon,
            frame.recon_fade,
            frame.contrast,
            frame.contrast_fade,
            frame.ghost,
        )
        table.add_row(f"{frame.segment + frame.t:.2f}", *(f"{value:.3f}" for value in values))
    console().print(table)
    for number, (length, largest) in enumerate(zip(found.length, found.largest, strict=True)):
        console().print(
            f"from image {number + 1} to {number + 2}: {length:.2f} times the straight way of a cross-fade; the "
            f"largest step is {largest:.0%} of it, even ones have {1 / steps:.0%}"
        )


def _print_sampled(stated: str, features: str | None, figures: dict[str, Likeness] | None) -> None:
    """A row per figure, a column for samples and for each baseline."""
    from rich.table import Table

    console().print(stated)
    if figures is None:
        return
    table = Table("", *figures, box=None, header_style="dim")
    rows = {
        "Fréchet distance": ("frechet", ".4g"),
        "density (fidelity)": ("density", ".3f"),
        "coverage (diversity)": ("coverage", ".3f"),
        "near-copies": ("copies", ".1%"),
        "recognized": ("recognized", ".1%"),
        "classes in effect": ("classes", ".2f"),
    }
    for name, (field, form) in rows.items():
        values = [getattr(likeness, field) for likeness in figures.values()]
        if None not in values:
            table.add_row(name, *(f"{value:{form}}" for value in values))
    console().print(table)
    console().print(features or "", style="dim")
