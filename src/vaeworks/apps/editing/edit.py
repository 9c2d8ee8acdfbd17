"""Edit image files in latent space: the function behind `vaeworks edit`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from torch import Tensor

from ...arguments import check_choice, several
from ...data.inputs import Inputs, image_files, opened, readable_images
from ...errors import ConfigError
from ...files.atomic import check_ending, write_picture
from ...files.outputs import check_free
from ...images import difference, labelled, to_pillow, to_uint8
from ...images.channels import check_pictures
from ...metrics import psnr
from ...models import Autoencoder
from ...pages.call import Call
from ...pages.gallery import Exhibit, Gallery, GallerySection, PageTable, page_place, write_gallery
from ...reporting import SILENT, Reporter
from ...runtime import Codec
from ...runtime.opening import Model, name_of, open_model
from ..codes import decode_picture, encode_picture, pixel_digests
from ..picture_files import (
    SCHEMA,
    encoded_source,
    frozen,
    mask_files,
    naming,
    picture_targets,
    read_mask,
    strip_place,
    version_place,
    write_record,
)
from .adjust import Adjustment, adjusted_latents, adjusted_pixels, parse_channel
from .arithmetic import combined, parse_expression
from .directions import Direction, Kind, fit_direction, load_direction, save_direction, split_sources
from .region import Change, Edited, check_mask, edit_picture
from .statistics import Statistics, transferred

RECORD = "edit.json"
"""File of the output folder that holds the result."""

Pairs = Sequence[tuple[Path, Path | None]]
"""Image files and their results; None where nothing is written."""


@dataclass(frozen=True, eq=False)
class EditedImage:
    """One edit of one image."""

    source: str
    """file that was read"""
    path: str | None
    """file that was written; None without `out`"""
    inside: float
    """mean absolute change in gray levels, inside the mask or everywhere"""
    outside: float
    """outside the mask; nan where there is none"""
    reconstruction_psnr: float
    """of the autoencoder without an edit, in dB"""
    strength: float | None
    """of the direction; None without one"""
    psnr_to_pixels: float | None
    """against the same adjustment of the pixels, in dB; None unless an adjustment of the whole image is all"""
    psnr_unedited: float | None
    """of the source against the same adjustment of the pixels"""
    image: Tensor | None
    """uint8 c h w; None where it was written"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        names = ["source", "inside", "outside", "reconstruction_psnr", "strength"]
        names += [] if self.psnr_to_pixels is None else ["psnr_to_pixels", "psnr_unedited"]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class DirectionFacts:
    """The direction of an edit."""

    source: str
    """two sources WITH:WITHOUT, or a file"""
    kind: Kind
    separation: float
    """as in `Direction`"""


@dataclass(frozen=True, eq=False)
class EditResult:
    """What `edit` returns for changes of each image."""

    model: str
    direction: DirectionFacts | None
    adjustment: Adjustment
    images: tuple[EditedImage, ...]
    """in the order of the inputs, and of the strengths"""
    page: Path | None = None
    """the page with the pictures; None where it was not written"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what edit.json holds."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "direction": None if self.direction is None else dataclasses.asdict(self.direction),
            "adjustment": dataclasses.asdict(self.adjustment),
            "pictures": {one.path or f"{one.source}:{number}": one.to_dict() for number, one in enumerate(self.images)},
            **({} if self.page is None else {"page": str(self.page)}),
        }


@dataclass(frozen=True, eq=False)
class ArithmeticResult:
    """What `edit` returns for a weighted sum of images."""

    model: str
    terms: tuple[tuple[float, str], ...]
    """weights and files"""
    path: str | None
    """file that was written; None without `out`"""
    image: Tensor
    """uint8 c h w"""
    page: Path | None = None
    """the page with the pictures; None where it was not written"""

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what edit.json holds."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "arithmetic": [{"weight": weight, "source": source} for weight, source in self.terms],
            "pictures": {} if self.path is None else {self.path: {}},
            **({} if self.page is None else {"page": str(self.page)}),
        }


R = TypeVar("R", EditResult, ArithmeticResult)


def edit(
    model: Model,
    inputs: Inputs,
    out: str | Path | None = None,
    *,
    direction: str | Path | tuple[str, str] | Direction | None = None,
    kind: Kind = "mean",
    size: int | None = None,
    save_direction: str | Path | None = None,
    strength: float | Sequence[float] = (1.0,),
    arithmetic: str | None = None,
    statistics_from: str | Path | None = None,
    statistics: Statistics = "channel",
    contrast: float = 1.0,
    brightness: float = 0.0,
    saturation: float = 1.0,
    channel: Sequence[str] = (),
    mask: str | Path | None = None,
    detail: bool = True,
    memory: str | int | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> EditResult | ArithmeticResult:
    """Change images through their latents, everywhere or within a mask (docs/edit.md).

    Changes are applied in the order statistics, direction, colours, channels; or `arithmetic` alone.

    model: a path, a hub id or an Autoencoder. inputs: image files or folders, one or several. out: folder for the
    edited PNG files, strips/ (before, after, difference), edit.json and report.html; None returns tensors.
    direction: an attribute, as two sources of images with it and without it, "WITH:WITHOUT" or a tuple; a .safetensors
    file; or a fitted `Direction`. kind: how it is fitted, as `Kind` says. size: side in pixels of the squares that
    these sources become, about 256 by default. save_direction: file for the fitted direction. strength: one result for
    each; 1 is the distance between the means of the two sources.
    arithmetic: a sum of inputs by file name, such as "a.png - b.png + 0.5*c.png".
    statistics_from: an image whose latent statistics the inputs get; statistics: "channel" (mean and spread of each) or
    "full" (covariance). contrast, saturation: factors; brightness: added gray levels. channel: "CHANNEL:GAIN:SHIFT" of
    latent channels, about their mean and in their standard deviations.
    mask: an image that is white where it is edited, or a folder of masks by name. detail: add the change to the
    original, instead of showing the decoded image.
    memory: bytes, or "4GiB", that an image may take beside the weights. settings: facts that the model's file leaves
    out, as keywords of `vw.load`. overwrite: replace files.

    Errors: ConfigError where no change is given, changes do not fit together, or a file exists; DataError where no
    image can be read or one has no mask; FormatError for a file that holds no direction.

    >>> vw.edit("runs/faces", "me.png", "out", direction=("smiling", "neutral"), strength=[0.5, 1.0])
    >>> vw.edit("runs/faces", "me.png", saturation=1.4, mask="sky.png").images[0].image
    """
    given = dict(locals()) | ({} if direction is None else {"direction": _source(direction)})
    call = Call("edit", edit, given)
    strengths = (float(strength),) if isinstance(strength, (int, float)) else tuple(strength)
    check_choice("kind", kind, get_args(Kind))
    check_choice("statistics", statistics, get_args(Statistics))
    direction, adjustment = direction or None, Adjustment(contrast, brightness, saturation)
    others = bool(direction or statistics_from or adjustment or channel)
    _check(others, arithmetic, direction, save_direction, strengths, mask)
    kept = None if save_direction is None else Path(save_direction)
    pair = _sources(direction, kept, overwrite)
    folder = None if out is None else Path(out)
    with frozen(open_model(model, settings)) as autoencoder:
        check_pictures(autoencoder.config)
        codec, channels = Codec(autoencoder, memory=memory), autoencoder.config.in_channels
        fixed: list[Change] = [parse_channel(text, autoencoder.latent_channels).applied for text in several(channel)]
        if adjustment and channels not in (1, 3):
            raise ConfigError(
                f"pictures of {channels} channels have no contrast, brightness or saturation; use --channel"
            )
        pairs = _pairs(inputs, folder, channels, len(strengths) if direction else 1, overwrite, reporter)
        if arithmetic:
            summed = _arithmetic(codec, name_of(model), arithmetic, pairs, folder, overwrite, reporter)
            return _recorded(summed, folder, call, overwrite, reporter)
        masks = mask_files([path for path, _ in pairs], None if mask is None else Path(mask))
        for (path, _), file in zip(pairs, masks, strict=True):
            if (region := read_mask(file)) is not None:
                with naming(path):
                    check_mask(region, to_uint8(opened(path, channels)))
        moves = _direction(autoencoder, direction, pair, kind, size, kept, overwrite, reporter)
        before = _statistics(codec, statistics_from, statistics)
        after = [partial(adjusted_latents, codec, adjustment=adjustment)] if adjustment else []
        steps = [[]] if moves is None else [[partial(moves.applied, strength=each)] for each in strengths]
        changes: list[list[Change]] = [[*before, *step, *after, *fixed] for step in steps]
        colours_alone = adjustment if adjustment and not (moves or before or fixed) else None
        found: list[EditedImage] = []
        for (path, target), file in zip(reporter.track(pairs, "edit"), masks, strict=True):
            image, region = to_uint8(opened(path, channels)), read_mask(file)
            edited = [edit_picture(codec, image, each, region, detail=detail) for each in changes]
            plain = adjusted_pixels(image, colours_alone) if colours_alone and region is None else None
            found += _written(path, target, image, edited, strengths if moves else None, plain, overwrite, reporter)
            if folder is not None and target is not None:
                strip = [image, *(each.image for each in edited), difference(edited[-1].image, image, 1)]
                names = _names(strengths if moves else [None])
                write_picture(strip_place(folder, target), labelled([strip], columns=names), overwrite)
    facts = None if moves is None else DirectionFacts(_source(direction), moves.kind, moves.separation)
    return _recorded(EditResult(name_of(model), facts, adjustment, tuple(found)), folder, call, overwrite, reporter)


def _names(strengths: Sequence[float | None]) -> list[str]:
    """Labels of a strip: the input, its edits, and the difference of the last one."""
    edits = ["edited" if strength is None else f"strength {strength:g}" for strength in strengths]
    return ["input", *edits, f"difference of {edits[-1]}" if len(edits) > 1 else "difference"]


def _check(
    others: bool, arithmetic: str | None, direction: Any, kept: Any, strengths: Sequence[float], mask: Any
) -> None:
    """Errors: ConfigError without a change, and for changes that do not fit together. others: whether there are changes
    beside `arithmetic`."""
    if not (arithmetic or others):
        raise ConfigError(
            "nothing is to be changed; give --direction, --arithmetic, --statistics-from, --contrast or another change"
        )
    if not strengths or not all(map(math.isfinite, strengths)):
        raise ConfigError(f"strength (={strengths}) must be one or more finite numbers")
    if len(strengths) > 1 and not direction:
        raise ConfigError("several --strength need a --direction; give one value")
    if kept and not direction:
        raise ConfigError("--save-direction needs a --direction WITH:WITHOUT")
    if arithmetic and (mask or others):
        raise ConfigError("--arithmetic stands alone; edit its picture in a second call")


def _sources(direction: Any, kept: Path | None, overwrite: bool) -> tuple[str, str] | None:
    """The two sources of a direction to fit; None for a fitted one. Reads no images."""
    if direction is None:
        return None
    if isinstance(direction, Direction) or str(direction).endswith(".safetensors"):
        if kept is not None:
            raise ConfigError("--save-direction stores a fitted direction; this one is fitted already")
        return None
    if kept is not None:
        check_ending(kept)
        if kept.exists() and not overwrite:
            raise ConfigError(f"{kept} exists; choose another --save-direction, or pass --overwrite")
    if isinstance(direction, (str, Path)):
        return split_sources(str(direction))
    if not isinstance(direction, (list, tuple)) or len(direction) != 2:
        raise ConfigError(f"direction (={direction!r}) must be two sources of pictures: with and without")
    having, lacking = map(str, direction)
    return having, lacking


def _source(direction: Any) -> str:
    """The direction's name in the result."""
    if isinstance(direction, Direction):
        return "given"
    return str(direction) if isinstance(direction, (str, Path)) else ":".join(map(str, direction))


def _pairs(
    inputs: Inputs, out: Path | None, channels: int, versions: int, overwrite: bool, reporter: Reporter
) -> Pairs:
    """Every input that can be read, and its result."""
    if out is not None:
        return picture_targets(inputs, out, RECORD, channels, versions=versions, overwrite=overwrite, reporter=reporter)
    sources = [(path, None) for path, _ in image_files(inputs, reporter)]
    return [(path, None) for path, _, _ in readable_images(sources, channels, reporter)]


def _direction(
    autoencoder: Autoencoder,
    direction: Any,
    pair: tuple[str, str] | None,
    kind: Kind,
    size: int | None,
    kept: Path | None,
    overwrite: bool,
    reporter: Reporter,
) -> Direction | None:
    """As given, from a file, or fitted to a pair of sources."""
    if direction is None or isinstance(direction, Direction):
        return direction
    if pair is None:
        return load_direction(Path(direction), autoencoder)
    having, lacking = (encoded_source(autoencoder, source, size, reporter=reporter) for source in pair)
    digests = pixel_digests(having.pixels), pixel_digests(lacking.pixels)
    found = fit_direction(having.mean, lacking.mean, kind, digests)
    reporter.say(
        f"direction of {pair[0]} against {pair[1]}: separates held-out images with an AUROC of {found.separation:.3f}"
    )
    if kept is not None:
        save_direction(kept, found, autoencoder, overwrite=overwrite)
    return found


def _statistics(codec: Codec, image: str | Path | None, how: Statistics) -> list[Change]:
    if image is None:
        return []
    picture = opened(Path(image), codec.autoencoder.config.in_channels)
    return [partial(transferred, reference=encode_picture(codec, to_uint8(picture)).mean, statistics=how)]


def _written(
    path: Path,
    target: Path | None,
    image: Tensor,
    edited: Sequence[Edited],
    strengths: Sequence[float] | None,
    plain: Tensor | None,
    overwrite: bool,
    reporter: Reporter,
) -> Iterator[EditedImage]:
    """The edits of an image, written where there is a target. plain: the image with the adjustment in pixels."""
    for number, each in enumerate(edited):
        place = None if target is None else version_place(target, number, len(edited))
        if place is not None:
            write_picture(place, to_pillow(each.image), overwrite)
        reporter.say(f"{place or path}  changed by {each.inside:.2f} gray levels")
        yield EditedImage(
            str(path),
            None if place is None else str(place),
            each.inside,
            each.outside,
            each.reconstruction,
            strength=None if strengths is None else strengths[number],
            psnr_to_pixels=None if plain is None else psnr(plain, each.image),
            psnr_unedited=None if plain is None else psnr(plain, image),
            image=each.image if place is None else None,
        )


def _arithmetic(
    codec: Codec, model: str, text: str, pairs: Pairs, out: Path | None, overwrite: bool, reporter: Reporter
) -> ArithmeticResult:
    """The picture of a sum of the inputs, as arithmetic.png."""
    terms = parse_expression(text)
    target = None if out is None else out / "arithmetic.png"
    if target is not None:
        check_free(target.parent, (target.name,), overwrite)
    known = {name: path for path, _ in reversed(pairs) for name in (path.stem, path.name, str(path))}
    if unknown := next((name for _, name in terms if name not in known), None):
        raise ConfigError(f"{unknown!r} of --arithmetic is none of IN: {', '.join(path.name for path, _ in pairs)}")
    images = [to_uint8(opened(known[name], codec.autoencoder.config.in_channels)) for _, name in terms]
    codes = [encode_picture(codec, image) for image in images]
    z = combined([weight for weight, _ in terms], [code.mean for code in codes])
    result = decode_picture(codec, z, codes[0].height, codes[0].width)
    if out is not None and target is not None:
        write_picture(target, to_pillow(result), overwrite)
        names = [f"{weight:+g} times {known[name].name}" for weight, name in terms]
        write_picture(strip_place(out, target), labelled([[*images, result]], columns=[*names, "sum"]), overwrite)
        reporter.say(str(target))
    files = tuple((weight, str(known[name])) for weight, name in terms)
    return ArithmeticResult(model, files, None if target is None else str(target), result)


def _recorded(result: R, out: Path | None, call: Call, overwrite: bool, reporter: Reporter) -> R:
    """Write the result to edit.json and its page where there is a folder, and return it."""
    if out is not None:
        result = dataclasses.replace(result, page=page_place(out, reporter))
        write_record(out / RECORD, result.to_dict(), overwrite)
        write_gallery(result.page, _gallery(result, out, call), overwrite, reporter)
    return result


def _gallery(result: EditResult | ArithmeticResult, out: Path, call: Call) -> Gallery:
    files = {RECORD: "all figures", "strips": "inputs and results side by side"}
    if isinstance(result, ArithmeticResult):
        shown = [Exhibit(strip_place(out, Path(path)), "terms and sum") for path in [result.path] if path]
        lead = " ".join(f"{weight:+g} times {Path(source).name}" for weight, source in result.terms)
        section = GallerySection("Sum of latents", "", shown)
        return Gallery("A sum of images", lead, call, [section], result.to_dict(), files=files | {"arithmetic.png": ""})
    by_source: dict[str, list[EditedImage]] = {}
    for one in result.images:
        by_source.setdefault(one.source, []).append(one)
    shown = [
        Exhibit(_strip(out, edits), f"{Path(source).name}: {_changes(edits)}") for source, edits in by_source.items()
    ]
    header = ("image", "strength", "change, gray levels", "outside the mask", "reconstruction, dB", "to pixels, dB")
    rows = []
    for one in result.images:
        values = (one.strength, one.inside, one.outside, one.reconstruction_psnr, one.psnr_to_pixels)
        forms = ("g", ".2f", ".2f", ".2f", ".2f")
        texts = ["" if v is None or math.isnan(v) else f"{v:{form}}" for v, form in zip(values, forms, strict=True)]
        rows.append([Path(one.path or one.source).name, *texts])
    text = "PSNR to pixels: against the same change of the pixels, where there is one."
    lead = "Input, result and difference of each image."
    if result.direction is not None:
        lead += f" The direction {result.direction.source} separates held-out images with an AUROC of "
        lead += f"{result.direction.separation:.3f}."
    sections = [
        GallerySection("Pictures", "", shown),
        GallerySection("Figures", text, tables=[PageTable(header, rows)]),
    ]
    return Gallery("Edited images", lead, call, sections, result.to_dict(), files=files)


def _strip(out: Path, edits: Sequence[EditedImage]) -> Path:
    """The strip of an image's edits."""
    path = Path(edits[0].path or "")
    return strip_place(out, path if len(edits) == 1 else path.with_stem(path.stem.removesuffix("-0")))


def _changes(edits: Sequence[EditedImage]) -> str:
    parts = [("" if e.strength is None else f"strength {e.strength:g} ") + f"changes {e.inside:.2f}" for e in edits]
    return ", ".join(parts) + " gray levels"
