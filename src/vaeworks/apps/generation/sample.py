"""Sample new images from a model's latent space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from ...config import dumps
from ...data.inputs import Images, image_set, source_name, warn_of_skipped
from ...data.labels import find_labels
from ...errors import ConfigError
from ...files.atomic import write_picture, write_text
from ...files.outputs import check_free, make_folder
from ...images.channels import check_pictures
from ...models import Autoencoder
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
from ...random_streams import check_seed
from ...reporting import SILENT, Reporter
from ...runtime.opening import Model, name_of, open_model
from ...words import many
from .density import Density, Prior, density
from .latent_map import check_plane, latent_map
from .sampling import SampledSet, read_halves, sample_density, sample_like
from .sheet import COLUMNS, sheet, write_numbered

LARGEST, SMALLEST = 256, 64
"""Default side in pixels: the images' own, up to the first; about the second without images."""


METRICS = {
    "Fréchet distance": ("frechet", ".4g"),
    "density (fidelity)": ("density", ".3f"),
    "coverage (diversity)": ("coverage", ".3f"),
    "near-copies": ("copies", ".1%"),
    "recognized": ("recognized", ".1%"),
    "classes in effect": ("classes", ".2f"),
}
"""Metrics by their titles: the field of `Likeness`, and its format."""


@dataclass(frozen=True, eq=False)
class Samples:
    """What `sample` returns."""

    model: str
    data: str | None
    size: int
    """side of the pictures in pixels"""
    seed: int
    found: SampledSet
    """pictures and metrics"""
    map: Image.Image | None = None
    """the plane of latents; None unless it was asked for"""
    page: Path | None = None
    """the page with the pictures; None where it was not written"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what sample.json holds."""
        page = {} if self.page is None else {"page": str(self.page)}
        options = {"model": self.model, "data": self.data, "size": self.size, "seed": self.seed}
        return options | self.found.to_dict() | page


def sample(
    model: Model,
    out: str | Path | None = None,
    *,
    count: int = 64,
    source: Literal["prior", "gaussian", "mixture", "flow"] = "prior",
    data: Images | None = None,
    labels: str | None = None,
    size: int | None = None,
    components: int = 10,
    map: bool = False,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Samples:
    """Decode samples of the standard normal prior, or of a density that is fitted to a data set's latents.

    With data, the samples are scored beside held-out images and their reconstructions (Fréchet distance, density,
    coverage, near-copies, and with labels how many are recognized).

    model: a path, a hub id or an Autoencoder. out: folder for samples.png, samples/, sample.json, report.html and
    map.png; None writes nothing. count: samples. source: "prior"; or fitted to the latents of `data`, "gaussian",
    "mixture" (of `components`) or "flow". data: a source of images as in docs/data.md. labels: "folders", "names",
    "none" or a CSV file. size: side of the pictures in pixels, by default about that of the data's. map: also draw the
    plane of latents, where they are two numbers. seed: random seed. settings: facts that the model's file leaves out,
    as keywords of `vw.load`. overwrite: replace files.

    Errors: ConfigError for a number out of range, a source that needs data, and a file that exists; DataError for too
    few images.

    >>> result = vw.sample("runs/digits-vae", data="digits", source="mixture", components=10)
    >>> result.found.pixels, result.found.figures["samples"].coverage
    """
    call = Call("sample", sample, dict(locals()), ("model",), {"source": "from"})
    check_seed(seed)
    if count < 1:
        raise ConfigError(f"count (={count}) must be at least 1")
    if size is not None and size < 1:
        raise ConfigError(f"size (={size}) must be at least 1")
    if data is not None and count < 2:
        raise ConfigError(f"count (={count}) must be at least 2 with --data, whose figures compare sets of pictures")
    if data is None and (source != "prior" or map):
        raise ConfigError(f"{'--map' if map else f'--from {source}'} needs --data, the images to encode")
    if out is not None:
        names = ("samples", "samples.png", "sample.json", REPORT, *(["map.png"] if map else []))
        check_free(Path(out), names, overwrite)
    wanted = density(source, components, partial(reporter.track, what="flow"))
    autoencoder = open_model(model, settings)
    check_pictures(autoencoder.config, reads=data is not None)
    if data is None:
        found, side, plane = *_from_prior(autoencoder, count, size, seed, reporter), None
    else:
        found, side, plane = _from_data(autoencoder, wanted, data, labels, count, size, map, seed, reporter)
    folder = None if out is None else Path(out)
    page = page_place(folder, reporter)
    result = Samples(name_of(model), None if data is None else source_name(data), side, seed, found, plane, page)
    if folder is not None:
        _write(result, folder, overwrite)
        write_gallery(page, _gallery(result, folder, call), overwrite, reporter)
    if source == "prior" and found.latents_std is not None and abs(found.latents_std - 1) > 0.5:
        reporter.warn(
            f"latents of these images have a std of {found.latents_std:.3g}, a standard normal prior has 1: this "
            "decoder was not trained on samples like these; try --from gaussian, mixture or flow"
        )
    return result


def _from_prior(
    autoencoder: Autoencoder, count: int, size: int | None, seed: int, reporter: Reporter
) -> tuple[SampledSet, int]:
    factor = autoencoder.downsample_factor
    side = _side(factor, size or SMALLEST)
    prior = Prior((autoencoder.latent_channels, side // factor, side // factor))
    return sample_density(autoencoder, prior, count, seed, partial(reporter.track, what="pictures")), side


def _from_data(
    autoencoder: Autoencoder,
    wanted: Density,
    data: Images,
    labels: str | None,
    count: int,
    size: int | None,
    map: bool,
    seed: int,
    reporter: Reporter,
) -> tuple[SampledSet, int, Image.Image | None]:
    images = image_set(data, reporter)
    own = min(max(min(file.width, file.height) for file in images.files), LARGEST)
    side = _side(autoencoder.downsample_factor, size or own)
    track = partial(reporter.track, what="images")
    classes = find_labels(images.files, labels, reporter)
    known, held_out = read_halves(autoencoder, images, side, classes, track)
    warn_of_skipped([*known.skipped, *held_out.skipped], reporter)
    plane = None
    if map:
        check_plane(known.mean)
        plane = latent_map(autoencoder, known.mean, known.std, known.labels)
    track = partial(reporter.track, what="pictures")
    return sample_like(autoencoder, wanted, known, held_out, count, seed, track), side, plane


def _side(factor: int, size: int) -> int:
    """The multiple of f that is nearest to a size, at least f."""
    return max(1, round(size / factor)) * factor


def _write(result: Samples, out: Path, overwrite: bool) -> None:
    make_folder(out)
    pictures = list(result.found.pixels)
    write_numbered(out / "samples", pictures, overwrite)
    shown = pictures[: COLUMNS**2]
    title = f"{result.found.stated}: {len(shown)} of {len(pictures)} samples"
    write_picture(out / "samples.png", sheet(shown, [f"{n}" for n in range(len(shown))], title), overwrite)
    if result.map is not None:
        write_picture(out / "map.png", result.map, overwrite)
    write_text(out / "sample.json", dumps(result.to_dict()) + "\n", overwrite)


def _gallery(result: Samples, out: Path, call: Call) -> Gallery:
    found = result.found
    shown = [Exhibit(out / "samples.png", "samples, each below the number of its file")]
    if result.map is not None:
        shown.append(Exhibit(out / "map.png", "latents of the images (left), and what the decoder makes of the plane"))
    sections = [GallerySection("Samples", f"Density: {found.stated}.", shown)]
    if found.figures is not None:
        rows = [
            [name, *(f"{value:{form}}" for value in values)]
            for name, (key, form) in METRICS.items()
            if None not in (values := [getattr(likeness, key) for likeness in found.figures.values()])
        ]
        text = f"In the feature space of {found.features}. Of the Fréchet distance and near-copies less is better."
        sections.append(GallerySection("How good they are", text, tables=[PageTable(("", *found.figures), rows)]))
    files = {"samples": "every sample", "samples.png": "the sheet", "map.png": "the map", "sample.json": "all figures"}
    lead = f"{many(len(found.pixels), 'sample')} of {result.size} px by {result.model}."
    return Gallery("Samples of the latent space", lead, call, sections, result.to_dict(), files=files)
