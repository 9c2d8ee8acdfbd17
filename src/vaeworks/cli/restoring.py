"""The command that restores damaged pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from ..data.inputs import opened
from ..errors import ConfigError
from .console import bar, console
from .options import Inputs, Model, Out, Overwrite, Told
from .paths import check_seed
from .retouching import differentiable, mask_files, naming, places, read_mask, recorded, squares, strip_place

if TYPE_CHECKING:
    from torch import Tensor

    from ..apps.restoration import Damage, SpectralPrior
    from ..apps.restoration.scores import RestorationScore
    from ..models import Autoencoder

OURS = "VAE"
"""What the search in latent space is called beside the baselines."""


def restore(
    model: Model,
    inputs: Inputs,
    out: Out,
    mask: Annotated[
        Path | None, arg(metavar="MASK", help="an image, white where pixels are missing, or a folder of them, by name")
    ] = None,
    noise: Annotated[
        str | None, arg(metavar="SIGMA", help="standard deviation of the noise in gray levels, or auto")
    ] = None,
    plant: Annotated[
        str | None,
        arg(
            metavar="HOW",
            help="damage sound pictures, and measure: scratches, block, salt, text, noise:SIGMA, joined by +",
        ),
    ] = None,
    compare: Annotated[bool, arg(help="baselines beside it; --plant does so always")] = False,
    prior: Annotated[str, arg(metavar="SRC", help="images like those behind the damage (docs/data.md)")] = "photos",
    prior_images: Annotated[int, arg(metavar="N", help="of the prior, at most, evenly spaced")] = 64,
    prior_size: Annotated[
        int | None, arg(metavar="PX", help="side of the squares that they become; by default about 256")
    ] = None,
    keep: Annotated[bool | None, arg(help="known pixels stay exactly; by default where there is no noise")] = None,
    steps: Annotated[int, arg(help="of the search, at most")] = 100,
    seed: Annotated[int, arg(help="of planted damage and of the pixels that decide when to stop")] = 0,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Missing and noisy pixels from the known ones, by a search in latent space; with figures against baselines
    (docs/restore.md)."""
    from ..apps.restoration import restore_picture
    from ..apps.restoration.baselines import baselines
    from ..apps.restoration.damage import parse_plant
    from ..apps.restoration.scores import best, score, strip
    from ..files.atomic import write_picture
    from ..images import grid, to_pillow

    if plant is None and mask is None and noise is None:
        raise ConfigError(
            "nothing says what is wrong with the pictures; give --mask, --noise SIGMA or auto, or --plant HOW"
        )
    if plant is not None:
        parse_plant(plant)
        if mask is not None or noise is not None:
            raise ConfigError("--plant makes mask and noise; leave --mask and --noise away")
    check_seed(seed)
    if steps < 1:
        raise ConfigError(f"steps (={steps}) must be at least 1")
    codec = differentiable(model, told=told)
    pairs, record = places(inputs, out, overwrite, "restore.json", codec)
    masks = mask_files([path for path, _ in pairs], mask)
    facts = [
        (path, one, noise, plant, seed, codec.autoencoder.config.in_channels)
        for (path, _), one in zip(pairs, masks, strict=True)
    ]
    for fact in facts if plant is None else ():
        _damaged(*fact)  # what is wrong is said before the work
    known = _prior(codec.autoencoder, prior, prior_images, prior_size)
    rows: dict[str, Any] = {}
    scores: list[dict[str, RestorationScore]] = []
    for (path, target), fact in zip(bar("restore")(pairs), facts, strict=True):
        damage, truth = _damaged(*fact)
        found = restore_picture(codec, damage, known, keep=keep, steps=steps, seed=seed)
        methods: dict[str, Tensor] = baselines(codec, damage) if compare or plant else {}
        methods[OURS] = found.image
        write_picture(target, to_pillow(found.image), overwrite)
        write_picture(strip_place(out, target), grid([strip(damage, methods, OURS, truth)]), overwrite)
        rows[str(target)] = {
            "source": str(path),
            "missing": float(damage.missing.float().mean()),
            "noise": damage.noise,
            "evaluations": found.evaluations,
            "held_out_rms": {
                "start": found.held_out[0],
                "best": min(found.held_out),
                "taken": found.held_out[found.taken],
            },
        }
        if truth is not None:
            scores.append({name: score(truth, image, damage.region) for name, image in methods.items()})
            rows[str(target)] |= {
                "scores": {k: dataclasses.asdict(v) for k, v in scores[-1].items()},
                "best": best(scores[-1]),
            }
        said = f"best: {best(scores[-1])}" if truth is not None else f"{found.evaluations} evaluations"
        console().print(f"{target}  {said}" + (f", noise of {damage.noise:.1f} gray levels" if damage.noise else ""))
    options = {
        "prior": {"source": prior, "images": known.images, "error": known.error},
        "plant": plant,
        "keep": keep,
        "steps": steps,
        "seed": seed,
    }
    return recorded(record, {"model": model, **options, "pictures": rows, "summary": _summary(scores)}, overwrite)


def _damaged(
    path: Path, mask: Path | None, noise: str | None, plant: str | None, seed: int, channels: int
) -> tuple[Damage, Tensor | None]:
    """What is known of a picture, and the truth where the damage is planted. Errors name the picture."""
    import torch

    from ..apps.editing.region import check_mask
    from ..apps.restoration import Damage, estimate_noise
    from ..apps.restoration import plant as planted
    from ..apps.restoration.damage import parse_noise
    from ..images import to_uint8

    image = to_uint8(opened(path, channels))
    if plant is not None:
        return planted(image, plant, seed), image
    hole = read_mask(mask)
    with naming(path):
        if hole is not None:
            check_mask(hole, image)
        missing = torch.zeros(image.shape[-2:], dtype=torch.bool) if hole is None else hole
        level = 0.0 if noise is None else estimate_noise(image, missing) if noise == "auto" else parse_noise(noise)
    return Damage(image, missing, level), None


def _prior(autoencoder: Autoencoder, source: str, limit: int, size: int | None) -> SpectralPrior:
    from ..apps.restoration import fit_prior

    if limit < 1:
        raise ConfigError(f"--prior-images {limit} leaves no prior; give at least 1")
    found = fit_prior(autoencoder, squares(autoencoder, source, size, limit), bar("decode"))
    console().print(
        f"prior of {found.images} images of {source}, which the model reconstructs with an error of {found.error:.1f} "
        "gray levels"
    )
    return found


def _summary(scores: list[dict[str, RestorationScore]]) -> dict[str, Any] | None:
    """Means over pictures as a table, and as a dictionary."""
    from rich.table import Table

    from ..apps.restoration.scores import summary

    if not scores:
        return None
    found = summary(scores, OURS)
    table = Table(
        "method", "PSNR where damaged", "SSIM", "PSNR of all", "SSIM", "", box=None, header_style="dim", pad_edge=False
    )
    for name, row in found["means"].items():
        figures = [
            f"{row[key]:.{digits}f}"
            for key, digits in (("psnr_region", 2), ("ssim_region", 4), ("psnr", 2), ("ssim", 4))
        ]
        table.add_row(name, *figures, "best" if name == found["best"] else "")
    console().print(table)
    if gain := found["gain"]:
        console().print(
            f"{OURS} against {found['against']}: {gain['value']:+.2f} dB ({gain['low']:+.2f} to {gain['high']:+.2f}), "
            f"{found['pictures']} pictures"
        )
    return found
