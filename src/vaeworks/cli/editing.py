"""The command that edits pictures through their latents."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from ..data.inputs import opened
from ..errors import ConfigError
from .console import bar, console
from .options import Inputs, Memory, Model, Out, Overwrite, Told
from .retouching import (
    differentiable,
    mask_files,
    naming,
    places,
    read_mask,
    recorded,
    squares,
    strip_place,
    version_place,
)

if TYPE_CHECKING:
    from ..apps.editing import Adjustment, Direction
    from ..apps.editing.region import Change
    from ..models import Autoencoder
    from ..runtime import Codec


def edit(
    model: Model,
    inputs: Inputs,
    out: Out,
    direction: Annotated[
        str | None,
        arg(metavar="WITH:WITHOUT", help="an attribute from two sources of pictures, or a .safetensors file of one"),
    ] = None,
    kind: Annotated[
        Literal["mean", "map", "logistic"], arg(help="of the direction; map: pictures that are aligned")
    ] = "mean",
    size: Annotated[
        int | None, arg(metavar="PX", help="side of the squares that those pictures become; by default about 256")
    ] = None,
    save_direction: Annotated[Path | None, arg(metavar="FILE", help="keep the direction, as .safetensors")] = None,
    strength: Annotated[
        tuple[float, ...], arg(help="of the direction, one picture each: 1 is the way from without to with")
    ] = (1.0,),
    arithmetic: Annotated[
        str | None, arg(metavar="SUM", help="of IN, by file name: 'a.png - b.png + 0.5*c.png'")
    ] = None,
    statistics_from: Annotated[
        Path | None, arg(metavar="IMAGE", help="give the pictures the statistics of its latents")
    ] = None,
    statistics: Annotated[
        Literal["channel", "full"], arg(help="mean and spread of every channel, or the whole covariance")
    ] = "channel",
    contrast: Annotated[float, arg(help="factor")] = 1.0,
    brightness: Annotated[float, arg(help="added gray levels")] = 0.0,
    saturation: Annotated[float, arg(help="factor")] = 1.0,
    channel: Annotated[
        tuple[str, ...], arg(metavar="C:GAIN:SHIFT", help="of latent channels, about their mean, in their deviations")
    ] = (),
    mask: Annotated[
        Path | None, arg(metavar="MASK", help="an image, white where it is edited, or a folder of them, by name")
    ] = None,
    detail: Annotated[bool, arg(help="add the change to the original, instead of showing the decoded picture")] = True,
    memory: Memory = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Attributes, colours and statistics of pictures, changed in latent space, everywhere or within a mask
    (docs/edit.md)."""
    from ..apps.editing import Adjustment, adjusted_pixels, edit_picture, parse_channel
    from ..apps.editing.region import check_mask
    from ..files.atomic import write_picture
    from ..images import difference, grid, to_pillow, to_uint8
    from ..metrics import psnr

    adjustment = Adjustment(contrast, brightness, saturation)
    if not (direction or arithmetic or statistics_from or adjustment or channel):
        raise ConfigError(
            "nothing is to be changed; give --direction, --arithmetic, --statistics-from, --contrast or another change"
        )
    if len(strength) > 1 and not direction:
        raise ConfigError("several --strength are of a --direction; give one")
    if save_direction and not direction:
        raise ConfigError("--save-direction needs a --direction WITH:WITHOUT")
    if arithmetic and (mask or direction or statistics_from or adjustment or channel):
        raise ConfigError("--arithmetic stands alone; edit its picture in a second call")
    pair = _pair(direction, save_direction, overwrite) if direction else None
    codec = differentiable(model, memory, told)
    channels = codec.autoencoder.config.in_channels
    fixed: list[Change] = [parse_channel(text, codec.autoencoder.latent_channels).applied for text in channel]
    if adjustment and channels not in (1, 3):
        raise ConfigError(f"pictures of {channels} channels have no contrast, brightness or saturation; use --channel")
    versions = len(strength) if direction else 1
    pairs, record = places(inputs, out, overwrite, "edit.json", codec, versions)
    if arithmetic:
        return recorded(record, {"model": model} | _arithmetic(codec, arithmetic, pairs, out, overwrite), overwrite)
    masks = mask_files([path for path, _ in pairs], mask)
    for (path, _), file in zip(pairs, masks, strict=True):
        if (one := read_mask(file)) is not None:
            with naming(path):
                check_mask(one, to_uint8(opened(path, channels)))
    moves = _direction(codec.autoencoder, direction, pair, kind, size, save_direction, overwrite) if direction else None
    statistic = _statistics(codec, statistics_from, statistics)
    rows: dict[str, Any] = {}
    for (path, target), file in zip(bar("edit")(pairs), masks, strict=True):
        image, one = to_uint8(opened(path, channels)), read_mask(file)
        changes = [[*statistic, *step, *_colours(codec, adjustment), *fixed] for step in _steps(moves, strength)]
        found = [edit_picture(codec, image, each, one, detail=detail) for each in changes]
        for number, each in enumerate(found):
            place = version_place(target, number, versions)
            write_picture(place, to_pillow(each.image), overwrite)
            rows[str(place)] = {
                "source": str(path),
                "inside": each.inside,
                "outside": each.outside,
                "reconstruction_psnr": each.reconstruction,
                "strength": strength[number] if moves else None,
            }
            plain = (
                adjusted_pixels(image, adjustment)
                if adjustment and one is None and not (moves or statistic or fixed)
                else None
            )
            rows[str(place)] |= (
                {}
                if plain is None
                else {"psnr_to_pixels": psnr(plain, each.image), "psnr_unedited": psnr(plain, image)}
            )
            console().print(f"{place}  changed by {each.inside:.2f} gray levels")
        strip = [image, *(each.image for each in found), difference(found[-1].image, image, 1)]
        write_picture(strip_place(out, target), grid([strip]), overwrite)
    facts = None if moves is None else {"source": direction, "kind": moves.kind, "separation": moves.separation}
    return recorded(
        record,
        {"model": model, "direction": facts, "adjustment": dataclasses.asdict(adjustment), "pictures": rows},
        overwrite,
    )


def _pair(text: str, save: Path | None, overwrite: bool) -> tuple[str, str] | None:
    """The two sources of a direction; None for a file of one. Everything is checked that can be without reading
    pictures."""
    from ..files.atomic import check_ending

    if text.endswith(".safetensors"):
        if save:
            raise ConfigError("--save-direction keeps a direction that is fitted; this one is a file already")
        return None
    if save is not None:
        check_ending(save)
        if save.exists() and not overwrite:
            raise ConfigError(f"{save} exists; choose another --save-direction, or pass --overwrite")
    return split_sources(text)


def split_sources(text: str) -> tuple[str, str]:
    """WITH and WITHOUT of --direction: sources have colons of their own, so that the one colon counts that has a source
    on either side.

    Errors: ConfigError where there is no such colon, or more than one.
    """
    from ..data.source_lookup import is_source

    pairs = [(text[:i], text[i + 1 :]) for i in range(1, len(text) - 1) if text[i] == ":"]
    found = [pair for pair in pairs if all(map(is_source, pair))]
    if not pairs:
        raise ConfigError(f"--direction {text!r} must be WITH:WITHOUT, two sources of pictures, or a .safetensors file")
    if len(found) > 1:
        readings = " or ".join(f"{a} and {b}" for a, b in found)
        raise ConfigError(
            f"--direction {text!r} may mean {readings}; write one of them as an absolute path, or rename it"
        )
    if not found:
        odd = next((side for side in pairs[0] if not is_source(side)), "")
        why = f"{odd!r} does not exist" if len(pairs) == 1 else "at none of its colons are there two sources that exist"
        raise ConfigError(f"--direction {text!r} must be WITH:WITHOUT, two sources of pictures; {why} (docs/data.md)")
    return found[0]


def _direction(
    autoencoder: Autoencoder,
    text: str,
    pair: tuple[str, str] | None,
    kind: Any,
    size: int | None,
    save: Path | None,
    overwrite: bool,
) -> Direction:
    """From a file, or fitted to a pair of sources."""
    from ..apps.codes import pixel_digests
    from ..apps.editing import fit_direction, load_direction, save_direction

    if pair is None:
        return load_direction(Path(text), autoencoder)
    having, lacking = pair
    codes = squares(autoencoder, having, size), squares(autoencoder, lacking, size)
    found = fit_direction(
        codes[0].mean, codes[1].mean, kind, (pixel_digests(codes[0].pixels), pixel_digests(codes[1].pixels))
    )
    console().print(
        f"direction of {having} against {lacking}: tells held-out pictures apart with an AUROC of "
        f"{found.separation:.3f}"
    )
    if save is not None:
        save_direction(save, found, autoencoder, overwrite=overwrite)
    return found


def _steps(direction: Direction | None, strengths: tuple[float, ...]) -> list[list[Change]]:
    if direction is None:
        return [[]]
    return [[partial(direction.applied, strength=strength)] for strength in strengths]


def _statistics(codec: Codec, image: Path | None, how: Any) -> list[Change]:
    from ..apps.codes import encode_picture
    from ..apps.editing import transferred
    from ..images import to_uint8

    if image is None:
        return []
    reference = encode_picture(codec, to_uint8(opened(image, codec.autoencoder.config.in_channels))).mean
    return [lambda z: transferred(z, reference, how)]


def _colours(codec: Codec, adjustment: Adjustment) -> list[Change]:
    from ..apps.editing import adjusted_latents

    return [lambda z: adjusted_latents(codec, z, adjustment)] if adjustment else []


def _arithmetic(codec: Codec, text: str, pairs: list[tuple[Path, Path]], out: Path, overwrite: bool) -> dict[str, Any]:
    """The picture of a sum of IN, arithmetic.png."""
    from ..apps.codes import decode_picture, encode_picture
    from ..apps.editing import combined, parse_expression
    from ..files.atomic import write_picture
    from ..images import grid, to_pillow, to_uint8

    terms = parse_expression(text)
    target = out / "arithmetic.png"
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} exists; choose another --out, or pass --overwrite")
    known = {name: path for path, _ in reversed(pairs) for name in (path.stem, path.name, str(path))}
    if unknown := next((name for _, name in terms if name not in known), None):
        raise ConfigError(f"{unknown!r} of --arithmetic is none of IN: {', '.join(path.name for path, _ in pairs)}")
    images = [to_uint8(opened(known[name], codec.autoencoder.config.in_channels)) for _, name in terms]
    codes = [encode_picture(codec, image) for image in images]
    z = combined([weight for weight, _ in terms], [code.mean for code in codes])
    result = decode_picture(codec, z, codes[0].height, codes[0].width)
    write_picture(target, to_pillow(result), overwrite)
    write_picture(strip_place(out, target), grid([[*images, result]]), overwrite)
    console().print(str(target))
    return {
        "arithmetic": [{"weight": weight, "source": str(known[name])} for weight, name in terms],
        "pictures": {str(target): {}},
    }
