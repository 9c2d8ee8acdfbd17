"""Images through an autoencoder and back, as files or tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..data.inputs import Inputs, image_files, readable_images
from ..files.atomic import write_picture
from ..files.outputs import targets
from ..images import from_model_range, to_model_range, to_pillow, to_uint8
from ..images.channels import check_pictures
from ..metrics import psnr
from ..reporting import SILENT, Reporter
from ..runtime.opening import Model, Precision, open_codec


@dataclass(frozen=True, eq=False)
class ReconstructedImage:
    """One image through the autoencoder and back."""

    source: str
    """file that was read"""
    path: str | None
    """file that was written; None without `out`"""
    psnr: float
    """against the source, in dB"""
    image: Tensor | None
    """uint8 c h w, of the source's size; None where it was written"""


@dataclass(frozen=True, eq=False)
class ReconstructedImages:
    """What `reconstruct` returns."""

    images: tuple[ReconstructedImage, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values, by the name of the written file, or of the source."""
        return {one.path or one.source: {"source": one.source, "psnr": one.psnr} for one in self.images}


def reconstruct(
    model: Model,
    inputs: Inputs,
    out: str | Path | None = None,
    *,
    memory: str | int | None = None,
    precision: Precision | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> ReconstructedImages:
    """Encode and decode images of any size, and measure the PSNR of each.

    model: a path, a hub id or an Autoencoder. inputs: image files or folders, one or several. out: folder for PNG
    files; None returns the images as tensors. memory: bytes, or "4GiB", that an image may take beside the weights;
    None: most of what is free. precision: of the computation; None is the weights' own. settings: facts that the
    model's file leaves out, as keywords of `vw.load`, such as {"norm_groups": 4}. overwrite: replace files.

    Files that are not readable images are skipped, with a warning. Errors: ConfigError without inputs, and for a file
    that exists; DataError where no image can be read; FormatError for a model that cannot be loaded; NotFiniteError
    where the network makes infinities or NaN.

    >>> result = vw.reconstruct("runs/dogs", "photos/", out="out")
    >>> [(one.source, one.psnr) for one in result.images]
    """
    sources = image_files(inputs, reporter)
    codec = open_codec(model, memory, precision, settings)
    check_pictures(codec.autoencoder.config)
    pairs = [(path, None) for path, _ in sources] if out is None else targets(sources, Path(out), ".png", overwrite)
    found = []
    for path, target, picture in readable_images(pairs, codec.autoencoder.config.in_channels, reporter):
        image = to_uint8(picture)
        recon = from_model_range(codec.reconstruct(to_model_range(image[None])).float())[0].cpu()
        if target is not None:
            write_picture(target, to_pillow(recon), overwrite)
        score = psnr(image, recon)
        found.append(
            ReconstructedImage(
                str(path),
                None if target is None else str(target),
                score,
                recon if target is None else None,
            )
        )
        reporter.say(f"{target or path}  {score:.2f} dB")
    return ReconstructedImages(tuple(found))
