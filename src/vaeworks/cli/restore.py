"""The command `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from .console import TERMINAL, results
from .options import Inputs, Model, Out, Overwrite, Told, arg, settings_of

if TYPE_CHECKING:
    from ..apps.restoration.scores import RestorationSummary


def restore(
    model: Model,
    inputs: Inputs,
    out: Out,
    mask: Annotated[
        Path | None,
        arg(
            metavar="MASK",
            help="image that is white where pixels are missing, or a folder with a mask for each input, by name",
        ),
    ] = None,
    noise: Annotated[
        str | None, arg(metavar="SIGMA", help="standard deviation of the noise in gray levels, or auto")
    ] = None,
    plant: Annotated[
        str | None,
        arg(
            metavar="HOW",
            help="damage intact images and score the restoration: scratches, block, salt, text, noise:SIGMA, joined "
            "by +",
        ),
    ] = None,
    compare: Annotated[bool, arg(help="also run baselines without a search; --plant always does")] = False,
    prior: Annotated[
        str, arg(metavar="SRC", help="undamaged images similar to the inputs, to fit the prior (docs/data.md)")
    ] = "photos",
    prior_images: Annotated[int, arg(metavar="N", help="largest number of images for the prior, evenly spaced")] = 64,
    prior_size: Annotated[
        int | None, arg(metavar="PX", help="side of the squares that the images of --prior become; default: about 256")
    ] = None,
    keep: Annotated[
        bool | None, arg(help="copy known pixels unchanged; default: True without --noise, else False")
    ] = None,
    steps: Annotated[int, arg(help="largest number of steps of the search")] = 100,
    seed: Annotated[int, arg(help="seed of planted damage and of the pixels that decide when to stop")] = 0,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Restore missing and noisy pixels by a search in latent space.

    See docs/restore.md.
    In Python: `vaeworks.restore`.
    """
    from ..apps.restoration.restore import RECORD
    from ..apps.restoration.restore import restore as run

    result = run(
        model,
        inputs,
        out,
        mask=mask,
        noise=noise,
        plant=plant,
        compare=compare,
        prior=prior,
        prior_images=prior_images,
        prior_size=prior_size,
        keep=keep,
        steps=steps,
        seed=seed,
        settings=settings_of(told),
        overwrite=overwrite,
        reporter=TERMINAL,
    )
    if result.summary is not None:
        _print_summary(result.summary)
    results().print(f"{out / RECORD} has every figure; {out / 'strips'} shows images side by side")
    return result.to_dict()


def _print_summary(summary: RestorationSummary) -> None:
    """Means over images, a line per method, and the gain over the best baseline."""
    from rich.table import Table

    columns = ("method", "PSNR where damaged", "SSIM", "PSNR of all", "SSIM", "")
    table = Table(*columns, box=None, header_style="dim", pad_edge=False)
    for name, mean in summary.means.items():
        figures = (f"{mean.psnr_region:.2f}", f"{mean.ssim_region:.4f}", f"{mean.psnr:.2f}", f"{mean.ssim:.4f}")
        table.add_row(name, *figures, "best" if name == summary.best else "")
    results().print(table)
    if summary.sentence:
        results().print(summary.sentence)
