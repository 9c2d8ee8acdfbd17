"""Commands for files and applications: inspect, convert, extract, bake, install, match, fold, repair."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from ..config import MODELS
from ..errors import ConfigError
from .console import byte_bar, console, quietly
from .options import Model, Overwrite, Told, settings_of

if TYPE_CHECKING:
    import torch

    from ..formats.identify import Identity
    from ..formats.locate import Located

Files = Annotated[
    Positional[tuple[str, ...]], arg(metavar="FILE", help="VAE files or folders, full checkpoints, hf:OWNER/NAME")
]
Checkpoint = Annotated[Positional[Path], arg(metavar="CHECKPOINT", help="file of a whole diffusion model")]
Target = Annotated[Positional[Path], arg(metavar="DST", help="what to write")]
DTypeName = Literal["keep", "fp32", "bf16", "fp16"]
ScaleOf = Annotated[
    Literal["sd1", "sd2", "sdxl", "sd3", "flux1"] | None,
    arg(help="whose scaling and shift the VAE has, where its file does not say it"),
]
DType = Annotated[DTypeName, arg(help="of the stored weights")]


def inspect(files: Files, told: Told = ()) -> dict[str, Any]:
    """What is in a file: family, f, c, layout, dtype, baked or not, scale, who can load it. Several files are
    compared."""
    from ..formats.fingerprint import relation
    from ..formats.identify import identify

    if not files:
        raise ConfigError("inspect needs at least one file")
    found = [identify(file, **settings_of(told)) for file in files]
    for identity in found:
        _print_identity(identity)
    pairs = [(a, b) for i, a in enumerate(found) for b in found[i + 1 :]]
    relations = [
        {"a": str(a.path), "b": str(b.path), "relation": relation(a.fingerprint, b.fingerprint)} for a, b in pairs
    ]
    for pair in relations:
        console().print(f"{pair['a']} and {pair['b']}: {pair['relation']}")
    values = [identity.to_dict() for identity in found]
    return values[0] if len(values) == 1 else {"files": values, "relations": relations}


def convert(
    src: Model,
    dst: Target,
    layout: Annotated[
        Literal["diffusers", "ldm", "native", "taesd"], arg(help="diffusers: a folder; the others: one file")
    ],
    dtype: DType = "keep",
    scale_of: ScaleOf = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Any VAE into another layout, without loss; what the layout has no place for is said, and kept in the file's
    metadata."""
    from ..files.atomic import check_ending
    from ..formats.apps import support
    from ..formats.diffusers_config import normalization_elsewhere, only_in_metadata
    from ..formats.fingerprint import content_hash
    from ..formats.io import read, save
    from ..formats.locate import locate

    source = locate(src, **settings_of(told, scale_of=scale_of))
    if layout in ("ldm", "native"):
        check_ending(dst)
    vae = read(source)
    with quietly():  # the warnings are printed below
        save(vae, dst, layout, dtype=_dtype(dtype), overwrite=overwrite)
    written = locate(dst)
    notes = [*_left_open(source), *source.notes]
    notes += [
        f"other programs do not see {what}"
        + ("" if what.split()[0] in vae.config.guesses else ", which stands in our metadata only")
        for what in only_in_metadata(vae.config, layout)
    ]
    notes += filter(None, [normalization_elsewhere(vae.config, layout)])
    if source.ignored:
        notes.append(f"left behind: {len(source.ignored)} tensors of its training, such as {source.ignored[0]}")
    hashes = content_hash(source), content_hash(written)
    same = hashes[0] == hashes[1]
    console().print(
        f"{dst}  {layout}, {vae.config.name}, content {hashes[1]}"
        + (", as before" if same else ", rounded from " + hashes[0])
    )
    _print_notes(notes)
    loaders = support(written)
    for application, verdict in loaders.items():
        console().print(f"  {application}: {verdict.why}")
    return {
        "out": str(dst),
        "layout": layout,
        "content_hash": hashes[1],
        "same_content": same,
        "notes": notes,
        "support": {name: dataclasses.asdict(verdict) for name, verdict in loaders.items()},
    }


def extract(checkpoint: Checkpoint, dst: Target, told: Told = (), overwrite: Overwrite = False) -> dict[str, Any]:
    """The VAE out of a full checkpoint into a file of its own, byte for byte, without loading the rest."""
    from ..formats.bake import extract as take_out

    with byte_bar("extracting") as progress:
        result = take_out(checkpoint, dst, overwrite=overwrite, progress=progress, **settings_of(told))
    console().print(f"{result.dst}  {result.tensors} tensors, {result.bytes / 1e6:,.0f} MB")
    _print_notes(result.notes)
    return dataclasses.asdict(result)


def bake(
    vae: Annotated[Positional[str], arg(metavar="VAE", help="as MODEL elsewhere")],
    checkpoint: Checkpoint,
    dst: Target,
    dtype: Annotated[DTypeName, arg(help="of the VAE's weights; keep: that of the VAE which it replaces")] = "keep",
    scale_of: ScaleOf = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """A copy of a full checkpoint with this VAE inside; every other tensor keeps its bytes, and nothing of it is
    loaded."""
    from ..formats.bake import bake as put_in

    with byte_bar("baking") as progress:
        settings = settings_of(told, scale_of=scale_of)
        result = put_in(vae, checkpoint, dst, overwrite=overwrite, dtype=_dtype(dtype), progress=progress, **settings)
    console().print(
        f"{result.dst}  {result.tensors} tensors of the VAE under {result.prefix} in {result.dtype} in place of "
        f"{result.replaced}, {result.kept} others as they were, {result.bytes / 1e6:,.0f} MB"
    )
    _print_notes(result.notes)
    return dataclasses.asdict(result)


def install(
    vae: Annotated[Positional[str], arg(metavar="VAE", help="as MODEL elsewhere")],
    into: Annotated[Literal["webui", "comfyui"], arg(help="webui: AUTOMATIC1111 or Forge")],
    folder: Annotated[Positional[Path], arg(metavar="DIR", help="the application's folder")],
    checkpoint: Annotated[
        Path | None, arg(name="for", metavar="CHECKPOINT", help="the checkpoint that shall use it by itself")
    ] = None,
    name: Annotated[str | None, arg(help="name of the file, without ending; default: that of VAE")] = None,
    scale_of: ScaleOf = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """A file that the application loads, in the folder and under the name where it looks."""
    from ..formats.apps.install import install as put

    with quietly():
        result = put(
            vae,
            into,
            folder,
            checkpoint=checkpoint,
            name=name,
            overwrite=overwrite,
            **settings_of(told, scale_of=scale_of),
        )
    console().print(result.path)
    console().print(result.how)
    _print_notes(result.notes)
    return dataclasses.asdict(result)


def match(
    checkpoint: Checkpoint,
    vaes: Annotated[
        Positional[tuple[str, ...]], arg(metavar="VAE", help="candidates; none: only the checkpoint's own is judged")
    ] = (),
    out: Annotated[
        Path | None, arg(metavar="PNG", help="a picture of photographs decoded rightly and as they would be")
    ] = None,
    data: Annotated[str | None, arg(metavar="SRC", help="photographs to look at; default: four bundled ones")] = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Which VAE fits a checkpoint, whether its own is missing or broken, and whether pictures would be foggy."""
    from ..doctor.compatibility.match import match as judge
    from ..files.atomic import picture_kind, write_picture

    if out is not None:
        picture_kind(out)
        if out.exists() and not overwrite:
            raise ConfigError(f"{out} exists; choose another --out, or pass --force")
    with quietly():
        result = judge(checkpoint, vaes, data)
    for sentence in result.sentences():
        console().print(sentence)
    if out is not None:
        if result.picture is None:
            console().print("no picture: nothing could be decoded", style="yellow")
        else:
            write_picture(out, result.picture, overwrite)
            console().print(f"{out}")
    return result.to_dict()


def fold(
    model: Model,
    dst: Target,
    scaling_factor: Annotated[float | None, arg(help="that the application hard-codes")] = None,
    shift_factor: Annotated[float, arg(help="that the application hard-codes")] = 0.0,
    like: Annotated[
        Literal["sd1", "sd2", "sdxl", "sd3", "flux1"] | None,
        arg(name="for", help="take both numbers of this diffusion model"),
    ] = None,
    layout: Annotated[Literal["ldm", "native", "diffusers"], arg(help="of DST")] = "ldm",
    scale_of: ScaleOf = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """The normalization of the latents moved into the weights, for programs that hard-code their own."""
    from ..files.atomic import check_ending
    from ..formats.fold import fold_to
    from ..formats.io import read, save
    from ..formats.locate import locate

    if (scaling_factor is None) == (like is None):
        raise ConfigError("give either --scaling-factor (and --shift-factor) or --for MODEL")
    if like is not None:
        scaling_factor, shift_factor = MODELS[like].scaling_factor, MODELS[like].shift_factor
    assert scaling_factor is not None
    source = locate(model, **settings_of(told, scale_of=scale_of))
    if source.ambiguity:
        raise ConfigError(f"{model}: {source.ambiguity}; what it is folded from must be known")
    if layout != "diffusers":
        check_ending(dst)
    vae = read(source)
    before = vae.config
    if like is not None and MODELS[like].name != before.name:
        raise ConfigError(f"{like} is {MODELS[like].name}, this VAE {before.name}: no scale makes it fit")
    folded = fold_to(vae, scaling_factor, shift_factor)
    save(folded, dst, layout, overwrite=overwrite)
    was = (
        "latents_mean and latents_std"
        if before.normalization == "channel"
        else f"scaling_factor {before.scaling_factor:g}, shift_factor {before.shift_factor:g}"
    )
    console().print(f"{dst}  {layout}; {was} became scaling_factor {scaling_factor:g}, shift_factor {shift_factor:g}")
    added = folded.kl_config.post_quant_conv and not vae.kl_config.post_quant_conv
    if added:
        console().print(
            "  quant_conv and post_quant_conv were added, because the decoder pads its first convolution with zeros"
        )
    return {"out": str(dst), "scaling_factor": scaling_factor, "shift_factor": shift_factor, "added_quant_convs": added}


def repair(
    model: Model,
    dst: Target,
    purpose: Annotated[Literal["fp16"], arg(name="for", help="fp16: activations that stay finite in float16")] = "fp16",
    layout: Annotated[Literal["native", "ldm", "diffusers"], arg(help="of DST")] = "native",
    dtype: DType = "keep",
    headroom: Annotated[float, arg(help="how many times larger than measured activations may become")] = 4.0,
    data: Annotated[str | None, arg(metavar="SRC", help="images to measure on; default: bundled photographs")] = None,
    scale_of: ScaleOf = None,
    told: Told = (),
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """A VAE that gives black pictures in float16, rescaled so that it does not, without training; the error is
    measured."""
    from ..files.atomic import check_ending
    from ..formats.io import read, save
    from ..formats.locate import locate
    from ..runtime import half_safe, sample_images

    if dst.exists() and not overwrite:
        raise ConfigError(f"{dst} exists; choose another name, or pass --force")
    if layout != "diffusers":
        check_ending(dst)
    source = locate(model, **settings_of(told, scale_of=scale_of))
    vae = read(source)
    with quietly():  # of epsilon, which is said below
        images = None if data is None else sample_images(vae, data)
        result = half_safe(vae, images, headroom=headroom)
        save(result.autoencoder, dst, layout, dtype=_dtype(dtype), overwrite=overwrite)
    for sentence in result.sentences():
        console().print(sentence)
    console().print(f"{dst}  {layout}" + ("" if result.needed else ", unchanged, because nothing overflows"))
    notes = _left_open(source)
    _print_notes(notes)
    return {"out": str(dst), **result.to_dict(), "notes": notes}


def _left_open(source: Located) -> list[str]:
    """What is told of a VAE that is written again: its doubts, and that they stay."""
    stays = (
        ["what is not known of it is not written down either: who reads DST is told the same"]
        if source.config.guesses
        else []
    )
    return [*source.doubts, *(stays if source.doubts else [])]


def _dtype(name: str) -> torch.dtype | None:
    import torch

    return {"keep": None, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        console().print(f"note: {note}", style="yellow")


def _print_identity(identity: Identity) -> None:
    from rich.table import Table

    out = console()
    out.print(str(identity.path), style="bold")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, value in identity.rows():
        table.add_row(name, value)
    out.print(table)
    loaders = Table(box=None, show_header=False, padding=(0, 2))
    for application, verdict in identity.support.items():
        loaders.add_row(application, verdict.loads, verdict.why)
    out.print(loaders)
    _print_notes(identity.notes)
