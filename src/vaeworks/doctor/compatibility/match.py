"""Why pictures are washed out: the VAE and the checkpoint that it is used with do not belong together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from ...config import TinyConfig
from ...data.sources.folder import find_images
from ...errors import ConfigError, FormatError
from ...formats.io import read
from ...formats.locate import Located, locate
from ...formats.vae_slot import VaeSlot, check_fits, config_for, find_slot, is_certain, is_scaled_by, misfit_of
from ...images import notebook
from ...models import Autoencoder
from .decode import DecodedPhotos, ReferenceDecode, look, make
from .verdict import Fog, judge, labelled, picture_of

MOST_IMAGES = 8
"""How many images of a folder are looked at."""


def fog(
    reference: Autoencoder | None,
    candidate: Autoencoder,
    scaling_factor: float | None,
    shift_factor: float = 0.0,
    images: Sequence[str | Path] | None = None,
    *,
    known: bool = True,
) -> Fog:
    """Whether `candidate` decodes well what a diffusion model makes that is run with these constants.

    reference: the VAE that the diffusion model was made for: its latents are decoded by the candidate. None: latents as
    the candidate's own normalization makes them; then `known` says whether its configuration is sure of that.
    scaling_factor: with which an application runs the diffusion model; None: it takes the VAE's own normalization.
    images: files; None: four bundled photographs.
    Errors: ConfigError where the two VAEs' latents have not one shape; DataError for files that are no images.
    """
    return _judged(reference, candidate, scaling_factor, shift_factor, images, known)[1]


def fog_picture(
    reference: Autoencoder | None,
    candidate: Autoencoder,
    scaling_factor: float | None,
    shift_factor: float = 0.0,
    images: Sequence[str | Path] | None = None,
    *,
    known: bool = True,
    rows: int = 3,
) -> Image.Image:
    """Rows of photographs: as they are, decoded with what fits, decoded as an application would, with the verdict
    below.

    Arguments and errors are those of `fog`.
    """
    return picture_of(*_judged(reference, candidate, scaling_factor, shift_factor, images, known), rows)


def _judged(
    reference: Autoencoder | None,
    candidate: Autoencoder,
    scaling_factor: float | None,
    shift_factor: float,
    images: Sequence[str | Path] | None,
    known: bool,
) -> tuple[DecodedPhotos, Fog]:
    constants = None if scaling_factor is None else (scaling_factor, shift_factor)
    made = None if reference is None else make(reference, images)
    seen = look(made, candidate, constants, images, known=known)
    return seen, judge(seen, candidate, constants, known=known)


SAME_SCALE = 0.87, 1.15
"""Ratio of two VAEs' latents of the same pictures, inside which they are on one scale: it shows in no picture
(doctor/compatibility/verdict.py)."""


@dataclass(frozen=True)
class BakedVae:
    """The VAE inside a checkpoint."""

    state: Literal["fine", "missing", "incomplete", "broken"]
    reasons: tuple[str, ...]
    """plain sentences; of a fine one, what is noticed"""


@dataclass(frozen=True)
class Candidate:
    """A VAE beside a checkpoint."""

    path: str
    verdict: Literal["fits", "fits after fold", "does not fit"]
    reasons: tuple[str, ...]
    """plain sentences"""
    name: str | None = None
    """f and c; None for a file that is no VAE"""
    scaling_factor: float | None = None
    """None where the file does not tell"""
    shift_factor: float | None = None
    normalization_source: str | None = None
    """where both are from: metadata, config, family, unknown"""
    fog: Fog | None = None
    """None where nothing was decoded"""


@dataclass(frozen=True)
class Match:
    """Which VAEs fit a checkpoint."""

    checkpoint: str
    family: str
    """what the diffusion model is, in words"""
    latent_channels: int
    downsample_factor: int
    scaling_factor: float | None
    """with which applications run it; None: by statistics, or unknown"""
    shift_factor: float | None
    baked: BakedVae
    candidates: tuple[Candidate, ...]
    picture: Image.Image | None = field(default=None, compare=False, repr=False)
    """photographs decoded with what fits, and as every candidate would; None where nothing was decoded"""

    def to_dict(self) -> dict[str, Any]:
        """Everything but the picture as JSON values."""
        return asdict(dataclasses.replace(self, picture=None)) | {"picture": self.picture is not None}

    def __repr__(self) -> str:
        """One line: the checkpoint, its own VAE, and how many candidates fit."""
        fitting = sum(candidate.verdict == "fits" for candidate in self.candidates)
        others = f", {fitting} of {len(self.candidates)} candidates fit" if self.candidates else ""
        latents = f"f{self.downsample_factor}c{self.latent_channels}"
        return f"Match({self.checkpoint}: {self.family}, {latents}, its own VAE is {self.baked.state}{others})"

    def _repr_html_(self) -> str:
        """A sentence for the checkpoint and for every candidate, and the picture, for notebooks."""
        sentences = "".join(map(notebook.paragraph, self.sentences()))
        return sentences + ("" if self.picture is None else notebook.picture(self.picture))

    def sentences(self) -> list[str]:
        """All of it in plain words, a line each."""
        return list(_sentences(self))


def _sentences(match: Match) -> Iterator[str]:
    scale = "" if match.scaling_factor is None else f", run with scaling_factor {match.scaling_factor:g}"
    shift = f" and shift_factor {match.shift_factor:g}" if match.shift_factor else ""
    yield (
        f"{match.checkpoint}: {match.family}, made for latents "
        f"f{match.downsample_factor}c{match.latent_channels}{scale}{shift}"
    )
    yield "; ".join([f"its own VAE is {match.baked.state}", *match.baked.reasons])
    for candidate in match.candidates:
        yield f"{candidate.path}: {candidate.verdict}; {'; '.join(candidate.reasons)}"


def match(
    checkpoint: str | Path, vaes: Sequence[str | Path] = (), images: str | Path | Sequence[str | Path] | None = None
) -> Match:
    """Which of these VAEs fit a checkpoint, and whether its own is there and works.

    Candidates decode photographs: those that the checkpoint's own VAE has encoded, if it is fine. images: files, or a
    folder of which some are taken; None: four bundled photographs; (): nothing is decoded, only files are compared.
    Errors: FormatError for what is no checkpoint; ConfigError for a pipeline's folder; DataError for files that are no
    images.
    """
    seat = find_slot(checkpoint)
    chosen = _chosen(images)
    baked, own, made = _judge_baked(seat, chosen)
    judged = [_judge_candidate(path, seat, made, chosen) for path in vaes]
    views = [
        (candidate.path, seen, candidate.fog)
        for candidate, seen in judged
        if seen is not None and candidate.fog is not None
    ]
    if own is not None and not views:
        views = [(f"{checkpoint}, its own VAE", *own)]
    return Match(
        checkpoint=str(checkpoint),
        family=seat.title,
        latent_channels=seat.latent_channels,
        downsample_factor=seat.downsample_factor,
        scaling_factor=seat.constants[0] if seat.constants else None,
        shift_factor=seat.constants[1] if seat.constants else None,
        baked=baked,
        candidates=tuple(candidate for candidate, _ in judged),
        picture=_stack([labelled(picture_of(seen, fog, rows=2), name) for name, seen, fog in views]) if views else None,
    )


def _chosen(images: str | Path | Sequence[str | Path] | None) -> Sequence[str | Path] | None:
    if not isinstance(images, (str, Path)):
        return images
    if str(images) == "photos":
        return None
    found = find_images(images)
    return found[:: math.ceil(len(found) / MOST_IMAGES)]


def _judge_baked(
    seat: VaeSlot, images: Sequence[str | Path] | None
) -> tuple[BakedVae, tuple[DecodedPhotos, Fog] | None, ReferenceDecode | None]:
    """The checkpoint's own VAE, what was seen of it, and what it makes of the images if it can be a reference."""
    if seat.old is None:
        state = (
            BakedVae("incomplete", (seat.problem,))
            if seat.taken
            else BakedVae("missing", (f"no tensor begins with {seat.prefix}",))
        )
        return state, None, None
    faults, remarks = _look_at_tensors(seat.old)
    if misfit := misfit_of(seat.old.config, seat):
        faults.append(f"the checkpoint is made for {misfit}")
    if faults:
        return BakedVae("broken", (*faults, *remarks)), None, None
    if images is not None and not images:
        return BakedVae("fine", tuple(remarks)), None, None
    autoencoder, known = read(seat.old), is_certain(seat.old)
    seen = look(None, autoencoder, seat.constants, images, known=known)
    fog = judge(seen, autoencoder, seat.constants, known=known)
    if fog.verdict == "broken":
        return BakedVae("broken", (fog.sentence, *remarks)), (seen, fog), None
    return BakedVae("fine", (fog.sentence, *remarks)), (seen, fog), ReferenceDecode(autoencoder, seen.latents, seen.own)


def _look_at_tensors(located: Located) -> tuple[list[str], list[str]]:
    """Tensors that hold values which are no numbers, and such that are all zero."""
    broken, empty = [], []
    for name in located.names.values():
        tensor = located.archive.read(name)
        if not tensor.is_floating_point():
            continue
        low, high = torch.aminmax(tensor) if tensor.numel() else (torch.zeros(()),) * 2
        if not (low.isfinite() and high.isfinite()):
            broken.append(name)
        elif low == high == 0 and tensor.ndim > 1:  # biases may be 0
            empty.append(name)
    faults = [f"values that are infinite or no numbers in {_some(broken)}"] if broken else []
    return faults, [f"only zeros in {_some(empty)}"] if empty else []


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _judge_candidate(
    path: str | Path, seat: VaeSlot, made: ReferenceDecode | None, images: Sequence[str | Path] | None
) -> tuple[Candidate, DecodedPhotos | None]:
    try:
        located = locate(path)
        if isinstance(located.config, TinyConfig):
            if misfit := misfit_of(located.config, seat):
                raise ConfigError(f"the checkpoint is made for {misfit}")
        else:
            check_fits(located, seat)
        autoencoder = read(located)
    except (FormatError, ConfigError) as error:
        return Candidate(str(path), "does not fit", (str(error),)), None
    constants, certain = seat.constants, is_certain(located)
    scaled = True if constants is None or isinstance(located.config, TinyConfig) else is_scaled_by(located, constants)
    if scaled:
        autoencoder.config = config_for(located, constants)
    seen, fog = None, None
    if images is None or images:
        seen = look(made, autoencoder, constants, images, known=certain)
        fog = judge(seen, autoencoder, constants, known=certain)
    verdict, reasons = _verdict(located, seat, scaled, fog, compared=made is not None)
    told = certain and located.config.normalization == "scalar"
    candidate = Candidate(
        str(path),
        verdict,
        tuple(reasons),
        located.config.name,
        located.config.scaling_factor if told else None,
        located.config.shift_factor if told else None,
        located.normalization_source,
        fog,
    )
    return candidate, seen


def _verdict(
    located: Located, seat: VaeSlot, scaled: bool | None, fog: Fog | None, *, compared: bool
) -> tuple[Literal["fits", "fits after fold", "does not fit"], list[str]]:
    """From the scale that the file tells of and from what was seen. Seen beside the checkpoint's own VAE, pictures
    decide."""
    reasons = [] if fog is None else [fog.sentence]
    reasons.append(_scale_reason(located, seat, scaled))
    if isinstance(located.config, TinyConfig):
        reasons.append("it is a TAESD: `vaeworks install` puts it where applications look for one")
    if fog is not None and (
        fog.verdict in ("broken", "wrong VAE") or (fog.verdict != "clear" and isinstance(located.config, TinyConfig))
    ):
        return "does not fit", reasons
    if fog is not None and compared:
        if fog.verdict == "clear" and SAME_SCALE[0] <= fog.scale <= SAME_SCALE[1]:
            return "fits", reasons
        if (
            fog.verdict == "clear"
        ):  # its normalization layers undo the scale; its encoder's latents are wrong all the same
            reasons.append(
                f"decoded pictures look right, but its own latents are {1 / fog.scale:.2g} times those of the "
                "checkpoint's VAE"
            )
        return "fits after fold", [*reasons, "`vaeworks fold` moves the difference into its weights"]
    if scaled is False or (fog is not None and fog.verdict == "wrong scale"):
        trained = "if the checkpoint was trained with it: `vaeworks fold` moves the difference into its weights"
        return "fits after fold", [*reasons, trained]
    return "fits", reasons


def _scale_reason(located: Located, seat: VaeSlot, scaled: bool | None) -> str:
    config, constants = located.config, seat.constants
    shape = f"its latents are {config.name}, as the checkpoint's"
    if constants is None or isinstance(config, TinyConfig):
        return shape
    if scaled is None or not is_certain(located):
        return f"{shape}, and its file does not say how they are scaled"
    if scaled:
        return f"{shape}, and scaled alike (from its {located.normalization_source})"
    theirs = (
        "by channel"
        if config.normalization == "channel"
        else f"by {config.scaling_factor:g} after a shift of {config.shift_factor:g}"
    )
    return f"{shape}, but scaled {theirs} (from its {located.normalization_source})"


def _stack(pictures: Sequence[Image.Image], gap: int = 16) -> Image.Image:
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height + gap for p in pictures) - gap), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height + gap
    return sheet
