"""Match: which VAEs fit a checkpoint; fog: images that are washed out because a VAE does not fit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from ...arguments import several
from ...config import TinyConfig
from ...data.sources.folder import Tree, find_images
from ...errors import ConfigError, FormatError
from ...files.atomic import check_free_picture, write_picture
from ...formats.fingerprint import content_hash
from ...formats.io import read
from ...formats.known_vaes import known_vaes
from ...formats.locate import Located, locate
from ...formats.sources import ENDINGS, RUN_MODEL
from ...formats.vae_slot import VaeSlot, check_fits, config_for, find_slot, is_certain, is_scaled_by, misfit_of
from ...images import notebook
from ...images.channels import check_pictures
from ...reporting import SILENT, Reporter
from ...runtime.opening import Model, open_model
from .decode import DecodedPhotos, ReferenceDecode, look, make
from .verdict import Fog, judge, labelled, picture_of

MOST_IMAGES = 8
"""Most images that are taken from a folder."""


def fog(
    reference: Model | None,
    candidate: Model,
    scaling_factor: float | None,
    shift_factor: float = 0.0,
    images: Sequence[str | Path] | None = None,
    *,
    known: bool = True,
) -> Fog:
    """Judge how `candidate` decodes the latents of a diffusion model that is run with these constants.

    >>> fog("sdxl-vae.safetensors", "sd-vae.safetensors", 0.13025).sentence
    'foggy: contrast 71% and saturation 73% of the originals, ...'

    Both VAEs are an autoencoder, or where one is. reference: the VAE that the diffusion model was trained with; the
    candidate decodes its latents. None: the candidate decodes its own latents, and `known` says whether its
    configuration states their normalization. scaling_factor, shift_factor: the constants that the application uses;
    None: the VAE's own normalization. images: files; None: four bundled photographs.
    Errors: ConfigError for two VAEs with latents of different shapes; DataError for unreadable images.
    """
    return _judged(reference, candidate, scaling_factor, shift_factor, images, known)[1]


def fog_picture(
    reference: Model | None,
    candidate: Model,
    scaling_factor: float | None,
    shift_factor: float = 0.0,
    images: Sequence[str | Path] | None = None,
    *,
    known: bool = True,
    rows: int = 3,
) -> Image.Image:
    """Comparison image with the verdict below: originals, correct decodes, decodes with this VAE.

    rows: number of photographs. The other arguments and the errors are those of `fog`.
    """
    return picture_of(*_judged(reference, candidate, scaling_factor, shift_factor, images, known), rows)


def _judged(
    reference: Model | None,
    candidate: Model,
    scaling_factor: float | None,
    shift_factor: float,
    images: Sequence[str | Path] | None,
    known: bool,
) -> tuple[DecodedPhotos, Fog]:
    constants = None if scaling_factor is None else (scaling_factor, shift_factor)
    theirs, autoencoder = None if reference is None else open_model(reference), open_model(candidate)
    for vae, name in ((theirs, "the reference"), (autoencoder, "the candidate")):
        if vae is not None:
            check_pictures(vae.config, name=name)
    made = None if theirs is None else make(theirs, images)
    seen = look(made, autoencoder, constants, images, known=known)
    return seen, judge(seen, autoencoder, constants, known=known)


SAME_SCALE = 0.87, 1.15
"""Range of the ratio of two VAEs' latents of the same images in which their scales count as equal; the difference is
invisible (doctor/compatibility/verdict.py)."""


CandidateVerdict = Literal["fits", "fits after fold", "cannot tell", "does not fit"]

RANKS: tuple[CandidateVerdict, ...] = ("fits", "fits after fold", "cannot tell", "does not fit")
"""Verdicts, the best first."""


@dataclass(frozen=True)
class BakedVae:
    """The VAE inside a checkpoint."""

    state: Literal["fine", "missing", "incomplete", "broken"]
    reasons: tuple[str, ...]
    """plain sentences; for a fine VAE, observations"""
    fog: Fog | None = None
    """its pictures under the checkpoint's constants, where it was decoded"""


@dataclass(frozen=True)
class Candidate:
    """The verdict on a VAE for a checkpoint."""

    path: str
    verdict: CandidateVerdict
    reasons: tuple[str, ...]
    """plain sentences"""
    name: str | None = None
    """f and c; None for a file without a VAE"""
    scaling_factor: float | None = None
    """None if the file does not state it"""
    shift_factor: float | None = None
    normalization_source: str | None = None
    """source of both: metadata, config, family, unknown, given"""
    fog: Fog | None = None
    """None if nothing was decoded"""
    known_as: str | None = None
    """the name that the user has given to this VAE (`inspect --remember`)"""


@dataclass(frozen=True)
class Match:
    """The verdicts of `match` on a checkpoint and its candidates."""

    checkpoint: str
    family: str
    """kind of the diffusion model, in words"""
    latent_channels: int
    downsample_factor: int
    scaling_factor: float | None
    """number that applications use with it; None if they use statistics, or if it is unknown"""
    shift_factor: float | None
    baked: BakedVae
    candidates: tuple[Candidate, ...]
    picture: Image.Image | None = field(default=None, compare=False, repr=False)
    """comparison image of correct decodes and those of every candidate; None if nothing was decoded"""

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
        """The verdicts in plain words, a line each."""
        return list(_sentences(self))


def _sentences(match: Match) -> Iterator[str]:
    scale = "" if match.scaling_factor is None else f", used with scaling_factor {match.scaling_factor:g}"
    shift = f" and shift_factor {match.shift_factor:g}" if match.shift_factor else ""
    yield (
        f"{match.checkpoint}: {match.family}, made for latents "
        f"f{match.downsample_factor}c{match.latent_channels}{scale}{shift}"
    )
    clear = match.baked.fog is None or match.baked.fog.verdict == "clear"
    state = match.baked.state if clear or match.baked.state != "fine" else "whole, but its pictures are not clear"
    yield "; ".join([f"its own VAE is {state}", *match.baked.reasons])
    for candidate in match.candidates:
        name = f" ({candidate.known_as})" if candidate.known_as else ""
        yield f"{candidate.path}{name}: {candidate.verdict}; {'; '.join(candidate.reasons)}"


def match(
    checkpoint: str | Path,
    vaes: Sequence[str | Path] = (),
    images: str | Path | Sequence[str | Path] | None = None,
    *,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    reporter: Reporter = SILENT,
) -> Match:
    """Judge which of these VAEs fit a checkpoint, and whether the checkpoint's own VAE is there and works.

    >>> found = vw.match("model.safetensors", ["a.safetensors", "b.safetensors"], out="fog.png")
    >>> [candidate.verdict for candidate in found.candidates]
    ['fits', 'fits after fold']

    checkpoint: a file of a whole diffusion model. vaes: candidates, files or folders of any layout; of a folder of
    VAEs, every file is one, and candidates are then ranked, the best first. They decode photographs that the
    checkpoint's own VAE encoded, if it works. images: files, or a folder from which at most eight are taken; None: four
    bundled photographs; (): nothing is decoded, and only the files are compared. out: the comparison image to write; it
    is left out if nothing could be decoded. settings: facts that the candidates' files leave out, as keywords of
    `load`.
    Errors: FormatError for a file without a diffusion model; ConfigError for a pipeline's folder and, without
    `overwrite`, for a name that is taken; DataError for unreadable images.
    """
    if out is not None:
        check_free_picture(Path(out), overwrite)
    slot = find_slot(checkpoint)
    chosen = _chosen(images)
    baked, own, made = _judge_baked(slot, chosen)
    paths, ranked = _candidates(several(vaes), Path(checkpoint).expanduser())
    tracked = reporter.track(paths, "judging VAEs") if paths else ()
    judged = [_judge_candidate(path, slot, made, chosen, settings or {}) for path in tracked]
    if ranked:
        judged.sort(key=lambda pair: _rank(pair[0]))
    views = [
        (candidate.path, seen, candidate.fog)
        for candidate, seen in judged
        if seen is not None and candidate.fog is not None
    ]
    if own is not None and not views:
        views = [(f"{checkpoint}, its own VAE", *own)]
    picture = _stack([labelled(picture_of(seen, fog, rows=2), name) for name, seen, fog in views]) if views else None
    if out is not None and picture is not None:
        write_picture(Path(out), picture, overwrite)
    return Match(
        checkpoint=str(checkpoint),
        family=slot.title,
        latent_channels=slot.latent_channels,
        downsample_factor=slot.downsample_factor,
        scaling_factor=slot.constants[0] if slot.constants else None,
        shift_factor=slot.constants[1] if slot.constants else None,
        baked=baked,
        candidates=tuple(candidate for candidate, _ in judged),
        picture=picture,
    )


def _candidates(vaes: Sequence[str | Path], checkpoint: Path) -> tuple[list[str | Path], bool]:
    """The candidates, and whether they come from a folder of VAEs, in which the checkpoint may lie, too."""
    found: list[str | Path] = []
    ranked = False
    for path in vaes:
        folder = Path(path).expanduser()
        if not folder.is_dir() or any((folder / name).is_file() for name in ("config.json", "run.json", RUN_MODEL)):
            found.append(path)
            continue
        inside = [path for path in _below(folder) if not Path(path).samefile(checkpoint)]
        if not inside:
            raise ConfigError(f"{path} is a folder without a model file; give VAEs, or a folder of VAEs")
        found += inside
        ranked = True
    return found, ranked


def _below(folder: Path) -> list[str | Path]:
    """The model files of a folder tree, and diffusers folders as a whole. A decoder of a TAESD comes with its
    encoder."""
    tree = Tree(folder).paths
    whole = {path.parent for path in tree if path.name == "config.json"}
    files = [
        path
        for path in tree
        if path.suffix.lower() in ENDINGS and path.parent not in whole and not path.stem.endswith("_decoder")
    ]
    return [str(path) for path in sorted([*whole, *files])]


def _rank(candidate: Candidate) -> tuple[int, float]:
    """By verdict, then by the quality of the decoded photographs."""
    return RANKS.index(candidate.verdict), -(candidate.fog.psnr if candidate.fog else -math.inf)


def _chosen(images: str | Path | Sequence[str | Path] | None) -> Sequence[str | Path] | None:
    if not isinstance(images, (str, Path)):
        return images
    if str(images) == "photos":
        return None
    found = find_images(images)
    return found[:: math.ceil(len(found) / MOST_IMAGES)]


def _judge_baked(
    slot: VaeSlot, images: Sequence[str | Path] | None
) -> tuple[BakedVae, tuple[DecodedPhotos, Fog] | None, ReferenceDecode | None]:
    """The verdict on the checkpoint's own VAE, its decodes, and the reference if it can be one."""
    if slot.old is None:
        state = (
            BakedVae("incomplete", (slot.problem,))
            if slot.taken
            else BakedVae("missing", (f"no tensor begins with {slot.prefix}",))
        )
        return state, None, None
    faults, remarks = _look_at_tensors(slot.old)
    if misfit := misfit_of(slot.old.config, slot):
        faults.append(f"the checkpoint is made for {misfit}")
    if faults:
        return BakedVae("broken", (*faults, *remarks)), None, None
    if images is not None and not images:
        return BakedVae("fine", tuple(remarks)), None, None
    try:
        check_pictures(slot.old.config, name="it")
        autoencoder, known = read(slot.old), is_certain(slot.old)
    except (FormatError, ConfigError) as error:  # holes, or images that are no pictures
        return BakedVae("broken", (str(error), *remarks)), None, None
    seen = look(None, autoencoder, slot.constants, images, known=known)
    fog = judge(seen, autoencoder, slot.constants, known=known)
    if fog.verdict == "broken":
        return BakedVae("broken", (fog.sentence, *remarks), fog), (seen, fog), None
    baked = BakedVae("fine", (fog.sentence, *remarks), fog)
    return baked, (seen, fog), ReferenceDecode(autoencoder, seen.latents, seen.own)


def _look_at_tensors(located: Located) -> tuple[list[str], list[str]]:
    """(faults, remarks) about tensors with values that are not finite, and tensors of zeros."""
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
    path: str | Path,
    slot: VaeSlot,
    made: ReferenceDecode | None,
    images: Sequence[str | Path] | None,
    settings: Mapping[str, Any],
) -> tuple[Candidate, DecodedPhotos | None]:
    known = None
    try:
        located = locate(path, **settings)
        known = known_vaes().get(content_hash(located))
        if isinstance(located.config, TinyConfig):
            if misfit := misfit_of(located.config, slot):
                raise ConfigError(f"the checkpoint is made for {misfit}")
        else:
            check_fits(located, slot)
        if images is None or images:
            check_pictures(located.config, name="it")
        autoencoder = read(located)
    except (FormatError, ConfigError) as error:
        return Candidate(str(path), "does not fit", (str(error),), known_as=known), None
    constants, certain = slot.constants, is_certain(located)
    scaled = True if constants is None or isinstance(located.config, TinyConfig) else is_scaled_by(located, constants)
    if scaled:
        autoencoder.config = config_for(located, constants)
    seen, fog = None, None
    if images is None or images:
        seen = look(made, autoencoder, constants, images, known=certain)
        fog = judge(seen, autoencoder, constants, known=certain)
    verdict, reasons = _verdict(located, slot, scaled, fog, compared=made is not None)
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
        known,
    )
    return candidate, seen


def _verdict(
    located: Located, slot: VaeSlot, scaled: bool | None, fog: Fog | None, *, compared: bool
) -> tuple[CandidateVerdict, list[str]]:
    """The verdict on a candidate. Decodes decide if the checkpoint's own VAE is the reference; without decodes, its
    weights do. Without a reference, nothing can tell a VAE of the right shape from the right VAE."""
    reasons = [] if fog is None else [fog.sentence]
    reasons.append(_scale_reason(located, slot, scaled))
    if isinstance(located.config, TinyConfig):
        reasons.append("it is a TAESD: `vaeworks install` puts it where applications look for one")
    if fog is not None and (
        fog.verdict in ("broken", "mixed channels", "wrong VAE")
        or (fog.verdict != "clear" and isinstance(located.config, TinyConfig))
    ):
        return "does not fit", reasons
    if fog is not None and compared:
        if fog.verdict == "clear" and SAME_SCALE[0] <= fog.scale <= SAME_SCALE[1]:
            return "fits", reasons
        if fog.verdict == "clear":  # its normalization layers undo the scale, but its encoder's latents are wrong
            reasons.append(
                f"decoded images look right, but its own latents are {1 / fog.scale:.2g} times those of the "
                "checkpoint's VAE"
            )
        return "fits after fold", [*reasons, "`vaeworks fold` moves the difference into its weights"]
    if slot.old is not None and fog is None and content_hash(slot.old) == content_hash(located):
        verdict: CandidateVerdict = "fits after fold" if scaled is False else "fits"
        return verdict, [*reasons, "its weights are those of the checkpoint's own VAE"]
    nothing = (
        "the checkpoint has no VAE of its own that works, so there is nothing to compare with"
        if fog is not None or slot.old is None
        else "nothing was decoded, and its weights are not those of the checkpoint's own VAE"
    )
    remedy = "docs/files.md lists the VAEs of published checkpoints" if fog is not None or slot.old is None else ""
    if scaled is False:
        remedy = "if the checkpoint was trained with it, `vaeworks fold` moves its scale into its weights"
    return "cannot tell", [*reasons, nothing, *filter(None, [remedy])]


def _scale_reason(located: Located, slot: VaeSlot, scaled: bool | None) -> str:
    config, constants = located.config, slot.constants
    shape = f"its latents are {config.name}, like the checkpoint's"
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
