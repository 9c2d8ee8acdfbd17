"""Stable Diffusion pipelines: load them with a VAE of ours, put a VAE inside, and generate images."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from torch import Tensor

from ..config import AutoencoderConfig, LatentConfig
from ..errors import ConfigError, FormatError, NotFiniteError, VaeworksError
from ..files.atomic import atomic, read_json
from ..files.hub_network import one_try
from ..files.scratch import remove
from ..formats.diffusers import vae_for_pipeline
from ..formats.diffusers_config import config_from_diffusers
from ..formats.foreign_code import check_config, check_index, check_pipeline_folder
from ..formats.shared_weights import from_diffusers
from ..images import center_crop, check_finite, from_model_range, to_pillow
from ..models import Autoencoder
from .tiny import TINY, diffusers_library

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

OwnVae = tuple[str, Mapping[str, Any]]
"""A pipeline's own VAE: the name of its class, and its configuration."""

REPLACEABLE = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderKLFlux2", "AutoencoderAdapter")
"""VAE classes that ours can replace; video VAEs and others have another interface."""

_WARNINGS: dict[str, type[Warning]] = {
    # Euler schedulers call np.array on tensors, which PyTorch answers in the way of NumPy 1
    "__array__ implementation doesn't accept a copy keyword": DeprecationWarning,
    # SDXL pipelines in float16 call this method of their own
    "`upcast_vae` is deprecated": FutureWarning,
    # every look at the hub
    "The `local_dir_use_symlinks` argument is deprecated": UserWarning,
}  # warnings that diffusers' own code causes


TRAINED = "vaeworks.json"
"""In the folder of a pipeline that was trained here: how the denoiser sees latents, and how it was looked at."""


def open_pipeline(
    name: str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> DiffusionPipeline:
    """Load a stored pipeline with its own VAE. Name and safety as in `load_pipeline`.

    Errors: FormatError.
    """
    diffusers = diffusers_library()
    name = name.removeprefix("hf:")
    here = Path(name).exists()
    if name in TINY or (here and not (Path(name) / "model_index.json").is_file()):
        raise FormatError(f"{name} is not a diffusers pipeline: a folder with a model_index.json, or a hub id")
    bars = _without_bars() if here else nullcontext()
    with bars, nullcontext("") if here else one_try() as unreachable, format_errors(name, unreachable), _quiet():
        index = _stored_index(name)
        _pipeline_class(index, name)
        absent = [part for part, entry in index.items() if isinstance(entry, list) and entry[-1:] == [None]]
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            name, dtype=dtype, use_safetensors=True, trust_remote_code=False, **dict.fromkeys(absent)
        )
        return pipe.to(device, silence_dtype_warnings=True)


def guidance_of(name: str) -> float:
    """The guidance scale that suits a pipeline: that of its training here, else 7.5."""
    path = Path(name) / TRAINED
    scale = read_json(path).get("guidance") if path.is_file() else None
    return float(scale) if isinstance(scale, (int, float)) and 0 <= scale < math.inf else 7.5


def own_vae(pipe: DiffusionPipeline) -> Autoencoder:
    """The VAE of a pipeline as one of ours. Errors: ConfigError for one of another kind."""
    return from_diffusers(pipe.vae)


def save_pipeline(pipe: DiffusionPipeline, folder: Path) -> None:
    """Save a pipeline into a folder, whole or not at all; files beside its parts stay there.

    Errors: VaeworksError where the disk is full; an earlier pipeline in the folder is then kept.
    """
    with atomic(folder / ".pipeline", overwrite=True) as temporary, _without_bars(), _quiet():
        pipe.save_pretrained(temporary, safe_serialization=True)
    made = folder / ".pipeline"
    for part in sorted(made.iterdir(), key=lambda path: path.name == "model_index.json"):  # last, because it tells
        remove(folder / part.name)
        part.rename(folder / part.name)
    remove(made)


def load_pipeline(
    name: str, autoencoder: Autoencoder | None, device: str | torch.device, dtype: torch.dtype
) -> DiffusionPipeline:
    """Load a pipeline with this VAE inside; None: with its own.

    name: a key of `TINY`, a diffusers folder, or a hub id such as "org/name". The weights of the pipeline's own VAE are
    neither loaded nor downloaded. Whether the VAE fits is checked before anything large is read. Only safetensors
    weights and classes of diffusers and transformers are loaded; no code in a file is run. If the pipeline was trained
    here, the VAE's latents are standardized as they were in its training.
    Errors: FormatError for a pipeline that cannot be found or read; ConfigError for a VAE whose latents the pipeline's
    denoiser does not take.
    """
    if autoencoder is None:
        return open_pipeline(name, device, dtype)
    diffusers = diffusers_library()
    if name in TINY:
        return TINY[name](autoencoder).to(device=device, dtype=dtype, silence_dtype_warnings=True)
    name = name.removeprefix("hf:")
    if Path(name).exists() and not (Path(name) / "model_index.json").is_file():
        raise FormatError(
            f"{name} is not a diffusers pipeline (a folder with a model_index.json); pass one, or one of "
            f"{', '.join(TINY)}"
        )
    here = Path(name).exists()
    with nullcontext("") if here else one_try() as unreachable, format_errors(name, unreachable), _quiet():
        kind, absent, own = _check_stored(name, autoencoder.config)
        ours = _standardized_as(_scaled_as(autoencoder, own), Path(name) / TRAINED)
        parts = dict.fromkeys(absent) | {"vae": vae_for_pipeline(kind.__name__, ours).to(dtype=dtype)}
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            name, dtype=dtype, use_safetensors=True, trust_remote_code=False, **parts
        )
        return pipe.to(device, silence_dtype_warnings=True)


def inject(pipe: DiffusionPipeline, autoencoder: Autoencoder) -> DiffusionPipeline:
    """Return a new pipeline with this VAE inside; it shares all other parts with `pipe`, which is unchanged.

    The VAE is moved to the denoiser's device and dtype. If the denoiser was trained on the latents of another VAE than
    the pipeline's, set `pipe.vae = None` first.
    Errors: ConfigError for a denoiser that takes latents of other channels or another downsample_factor.
    """
    denoiser, own = _denoiser(pipe), pipe.components.get("vae")
    described = None if own is None else (type(own).__name__, own.config)
    _check_fits(type(pipe), denoiser.config, described, autoencoder.config)
    if any(hasattr(part, "_hf_hook") for part in pipe.components.values()):
        raise ConfigError("the pipeline is offloaded to the CPU; inject the VAE first, then enable offloading")
    ours = _scaled_as(autoencoder, described)
    vae = vae_for_pipeline(type(pipe).__name__, ours).to(device=denoiser.device, dtype=denoiser.dtype)
    # built again, because each class derives values from its VAE when it is built (vae_scale_factor, ...)
    parameters = inspect.signature(type(pipe).__init__).parameters
    settings = {key: value for key, value in pipe.config.items() if key in parameters}
    return type(pipe)(**{**settings, **pipe.components, "vae": vae})


def paint(
    pipe: DiffusionPipeline,
    prompt: str,
    *,
    image: Image.Image | None = None,
    strength: float = 0.6,
    size: int | tuple[int, int] | None = None,
    steps: int = 20,
    guidance: float = 7.5,
    seed: int = 0,
) -> Image.Image:
    """Generate an image for a prompt; with `image`, a variation of that image.

    strength: share of the steps that is run on `image`, in (0,1]; 1 keeps almost nothing of it. size: side, or (height,
    width), in pixels; `image` is scaled and cropped to it. None: the pipeline's own size, or that of `image`, cropped
    to a size that the pipeline supports. guidance: classifier-free guidance scale; 1 is none.
    The same seed gives the same noise on every device. The progress bar is shown only if stderr is a terminal.
    Errors: ConfigError for an unsupported size (the message names the nearest), and for steps and strength that leave
    no step; NotFiniteError for values that overflow; DataError for an image that is too small.
    """
    if steps < 1:
        raise ConfigError(f"steps (={steps}) must be at least 1")
    if image is not None and not (0 < strength <= 1 and steps * strength >= 1):
        raise ConfigError(f"strength (={strength}) must be in (0,1], and steps (={steps}) times strength at least 1")
    if image is not None and size is None:
        image = center_crop(image, _size_multiple(pipe))
        size = image.height, image.width
    height, width = picture_size(pipe, size)
    options: dict[str, Any] = {"guidance_scale": guidance, "height": height, "width": width}
    pipe = _for_task(pipe, painting_over=image is not None)
    if image is not None:
        mode = "L" if pipe.vae.config.in_channels == 1 else "RGB"
        options |= {
            "image": ImageOps.fit(image.convert(mode), (width, height), Image.Resampling.LANCZOS),
            "strength": strength,
        }
    accepted = inspect.signature(pipe.__call__).parameters
    with _bar_on_terminals(pipe), _quiet(), _finite(pipe.vae):
        pixels = pipe(
            prompt=prompt,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
            **{key: value for key, value in options.items() if key in accepted},
        ).images[0]
    return _picture(pixels)


@contextmanager
def _without_bars() -> Iterator[None]:
    """No bars of diffusers and transformers about parts that load in a moment."""
    import transformers.utils.logging as theirs

    ours = diffusers_library().utils.logging
    shown = [(library, library.is_progress_bar_enabled()) for library in (ours, theirs)]
    for library, _ in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, before in shown:
            if before:
                library.enable_progress_bar()


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        for message, category in _WARNINGS.items():
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


@contextmanager
def format_errors(name: str, unreachable: str = "") -> Iterator[None]:
    """Turn errors of diffusers about missing or broken files into one line."""
    try:
        yield
    except VaeworksError:
        raise
    except (
        OSError,
        ValueError,
        ImportError,
        RuntimeError,
        SafetensorError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
    ) as error:
        if unreachable:
            raise FormatError(
                f"{name} is not in the hub's cache, and {unreachable}; pass a diffusers folder, or one of "
                f"{', '.join(TINY)}"
            ) from None
        reason = " ".join(str(error).split()).rstrip(".")
        raise FormatError(
            f"no pipeline could be loaded from {name}: {reason if len(reason) < 300 else reason[:300] + ' ...'}; pass "
            f"another diffusers folder or hub id, or one of {', '.join(TINY)}"
        ) from None


# Does the VAE fit?


def _check_stored(name: str, config: LatentConfig) -> tuple[type[DiffusionPipeline], list[str], OwnVae | None]:
    """Check by its configuration files that a stored pipeline takes the VAE; return its class, its absent parts and its
    own VAE."""
    index = _stored_index(name)
    found = _pipeline_class(index, name)
    kind = found.__name__
    parts = {part: entry[1] for part, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    denoiser = next((part for part in ("transformer", "unet") if parts.get(part)), None)
    if denoiser is None:
        raise FormatError(
            f"{name} holds a {kind}, which has neither a unet nor a transformer; take a text-to-image pipeline"
        )
    published_without = Path(name).is_dir() and not (Path(name) / "vae").is_dir()
    own = (parts["vae"], _stored_config(name, "vae")) if parts.get("vae") and not published_without else None
    _check_fits(found, _stored_config(name, denoiser), own, config)
    # SD3's class needs an explicit None for T5
    return found, [part for part, value in parts.items() if value is None], own


def _pipeline_class(index: Any, name: str) -> type[DiffusionPipeline]:
    """The class of a stored pipeline, checked to be diffusers' own; nothing in its folder may name code."""
    diffusers = diffusers_library()
    kind = index.get("_class_name") if isinstance(index, dict) else None
    found = getattr(diffusers, kind, None) if isinstance(kind, str) and kind.isidentifier() else None
    if not (isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)):
        raise FormatError(
            f"{name} holds a pipeline of class {kind!r:.80}, which diffusers {diffusers.__version__} does not have"
        )
    check_index(index, name)
    if Path(name).is_dir():
        check_pipeline_folder(Path(name), index)
    return found


def _stored_index(name: str) -> Any:
    """The contents of model_index.json, which should be an object."""
    try:
        return diffusers_library().DiffusionPipeline.load_config(name)
    except OSError:
        if Path(name).exists():
            raise
        # diffusers says "no file named model_index.json" for an unknown repository and for a missing network alike
        raise FormatError(
            f"{name} is neither a diffusers folder nor a repository that could be fetched; check the name, the network "
            f"(HF_HUB_OFFLINE) and, for a private one, 'hf auth login'; or pass one of {', '.join(TINY)}"
        ) from None


def _stored_config(name: str, part: str) -> dict[str, Any]:
    """A component's config.json, from a folder or the hub."""
    try:
        found = diffusers_library().AutoencoderKL.load_config(name, subfolder=part)
    except OSError:
        raise FormatError(f"{name} has no readable {part}/config.json") from None
    check_config(found, f"{part}/config.json of {name}")
    return found


def _check_fits(
    kind: type[DiffusionPipeline], denoiser: Mapping[str, Any], own: OwnVae | None, config: LatentConfig
) -> None:
    """Check that a pipeline takes latents of this shape. Errors: ConfigError if not.

    kind: the pipeline's class. denoiser: its configuration. own: class and configuration of the VAE that is replaced.
    """
    remedy = "take an SD, SDXL, SD3, Flux.1 or Flux.2 pipeline"
    if "vae" not in inspect.signature(kind.__init__).parameters or "in_channels" not in denoiser:
        raise ConfigError(f"{kind.__name__} does not work on the latents of an image VAE; {remedy}")
    if own is not None and own[0] not in REPLACEABLE:
        raise ConfigError(f"{kind.__name__} has a VAE of another kind, {own[0]}; {remedy}")
    # min: denoisers for inpainting also take a mask, others also predict a variance
    channels = min(denoiser["in_channels"], denoiser.get("out_channels") or denoiser["in_channels"]) // (
        4 if _packs(kind) else 1
    )
    factor = 2 ** (len(own[1]["block_out_channels"]) - 1) if own is not None else config.downsample_factor
    made_for = f"f{factor}c{channels}"
    remedy = f"take a VAE that is {made_for}, or a pipeline made for {config.name}"
    if channels != config.latent_channels:
        raise ConfigError(
            f"the pipeline's denoiser takes latents of {channels} channels ({made_for}), this VAE makes "
            f"{config.latent_channels} ({config.name}); {remedy}"
        )
    # Latents of another f have the right shape and would run. But each covers another area of the image and has other
    # statistics than the denoiser learned, so the image is certainly wrong. Tiny pipelines are no exception.
    # `inject` describes the way around.
    if factor != config.downsample_factor:
        raise ConfigError(
            f"the pipeline's denoiser takes latents of 1/{factor} of the picture's size ({made_for}), this VAE makes "
            f"1/{config.downsample_factor} ({config.name}); {remedy}"
        )


def _scaled_as(autoencoder: Autoencoder, own: OwnVae | None) -> Autoencoder:
    """The VAE, with the scale of the pipeline's own VAE if its file states none: its user means it to be of that
    kind."""
    config = autoencoder.config
    if config.normalization_known or own is None or own[0] != "AutoencoderKL":
        return autoencoder
    theirs = config_from_diffusers({**own[1], "_class_name": own[0]}, "the pipeline's VAE")
    if theirs.normalization != "scalar" or not theirs.normalization_known:
        return autoencoder
    scaled = copy.copy(autoencoder)  # shares the weights
    scaled.config = config.with_facts(scaling_factor=theirs.scaling_factor, shift_factor=theirs.shift_factor)
    warnings.warn(
        "the VAE's file does not say how its latents are scaled: the scaling_factor of the pipeline's own, "
        f"{theirs.scaling_factor:g}, is used",
        stacklevel=3,
    )
    return scaled


def _standardized_as(autoencoder: Autoencoder, path: Path) -> Autoencoder:
    """The VAE, with the statistics with which a denoiser was trained here, if `path` is there and has them."""
    if not path.is_file() or not isinstance(autoencoder.config, AutoencoderConfig):
        return autoencoder
    values = read_json(path)
    try:
        mean, std = (tuple(map(float, values[name])) for name in ("mean", "std"))
        config = autoencoder.config.with_facts(
            normalization="channel", latents_mean=mean, latents_std=std, scaling_factor=1.0, shift_factor=0.0
        )
    except (LookupError, TypeError, ValueError) as error:
        raise FormatError(f"{path} does not say how latents are standardized: {error}") from None
    if len(set(mean)) == len(set(std)) == 1:  # two numbers suffice, which pipelines apply themselves
        config = config.with_facts(
            normalization="scalar",
            latents_mean=None,
            latents_std=None,
            scaling_factor=1 / std[0],
            shift_factor=mean[0],
        )
    found = copy.copy(autoencoder)  # shares the weights
    found.config = config
    return found


def _packs(kind: type[DiffusionPipeline]) -> bool:
    """Whether a pipeline packs 2x2 latents into one token of four times the channels, as Flux does."""
    return hasattr(kind, "_pack_latents")


def _denoiser(pipe: DiffusionPipeline) -> Any:
    """A diffusers model, with its configuration."""
    for part in ("transformer", "unet"):
        if pipe.components.get(part) is not None:
            return pipe.components[part]
    raise ConfigError(f"{type(pipe).__name__} has neither a unet nor a transformer; take a text-to-image pipeline")


# Generation


def picture_size(pipe: DiffusionPipeline, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """The (height, width) to generate, checked; None is the pipeline's own size."""
    if size is None:
        sample = getattr(pipe, "default_sample_size", None) or _denoiser(pipe).config.sample_size
        height, width = (side * pipe.vae_scale_factor for side in _pair(sample))
    else:
        height, width = _pair(size)
    multiple = _size_multiple(pipe)
    if height < multiple or width < multiple or height % multiple or width % multiple:
        nearest = "x".join(str(max(1, round(side / multiple)) * multiple) for side in (height, width))
        raise ConfigError(
            f"height x width (={height}x{width}) must be divisible by {multiple} for {type(pipe).__name__} with a "
            f"VAE of f{pipe.vae_scale_factor}; the nearest size is {nearest}"
        )
    largest = _denoiser(pipe).config.get("pos_embed_max_size")
    limit = largest * multiple if largest else math.inf
    if max(height, width) > limit:
        raise ConfigError(
            f"height x width (={height}x{width}) must be at most {limit}x{limit}, the pipeline's table of positions"
        )
    return height, width


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _size_multiple(pipe: DiffusionPipeline) -> int:
    """The number that divides the sides of every supported size."""
    f = pipe.vae_scale_factor
    if _packs(type(pipe)):
        return 2 * f
    patch = _denoiser(pipe).config.get("patch_size")
    return f * patch if patch else math.lcm(8, f)  # pipelines with a U-Net need 8, whatever the VAE


def _for_task(pipe: DiffusionPipeline, painting_over: bool) -> DiffusionPipeline:
    """The pipeline of the same family that starts from noise, or from an image; it shares all parts."""
    kind, accepted = type(pipe).__name__, inspect.signature(pipe.__call__).parameters
    if "mask_image" in accepted:
        raise ConfigError(f"{kind} is for inpainting; take a text-to-image pipeline")
    # Pipelines take an image with as many channels as latents for latents: transformers compare with the VAE's, U-Nets
    # with 4. LDM's f4 has 3 latent channels.
    latents = pipe.vae.config.latent_channels if getattr(pipe, "transformer", None) is not None else 4
    if painting_over and pipe.vae.config.in_channels == latents:
        raise ConfigError(
            f"{kind} would take an image of {latents} channels for latents of this VAE; generate without an image"
        )
    if painting_over and kind.startswith("Flux2"):
        raise ConfigError(f"{kind} takes images as references, not to start from; generate without an image")
    if painting_over == ("strength" in accepted):
        return pipe
    diffusers = diffusers_library()
    try:
        return (
            diffusers.AutoPipelineForImage2Image if painting_over else diffusers.AutoPipelineForText2Image
        ).from_pipe(pipe)
    except ValueError:
        other = "image-to-image" if painting_over else "text-to-image"
        raise ConfigError(
            f"diffusers has no {other} pipeline of the family of {kind}; take an SD, SDXL, SD3 or Flux.1 pipeline"
        ) from None


@contextmanager
def _bar_on_terminals(pipe: DiffusionPipeline) -> Iterator[None]:
    before = getattr(pipe, "_progress_bar_config", {})
    pipe.set_progress_bar_config(
        **{"disable": None, "leave": False, **before}
    )  # None: tqdm checks whether stderr is a terminal
    try:
        yield
    finally:
        pipe.set_progress_bar_config(**before)


@contextmanager
def _finite(vae: Any) -> Iterator[None]:
    """Let the VAE's `decode` raise NotFiniteError for NaN and for infinities, which a pipeline would clamp to white."""
    before = vars(vae).get("decode")
    decode = vae.decode

    def checked(*args: Any, **options: Any) -> Any:
        result = decode(*args, **options)
        check_finite(result[0], "decoded images")
        return result

    vae.decode = checked
    try:
        yield
    finally:
        del vae.decode
        if before is not None:
            vae.decode = before


def _picture(pixels: Tensor) -> Image.Image:
    """Pixels c h w in [0,1] as an image."""
    if not pixels.isfinite().all():
        raise NotFiniteError(
            f"the image has values that are not numbers, because the VAE or the denoiser overflows in "
            f"{str(pixels.dtype).removeprefix('torch.')}; use float32 or bfloat16"
        )
    return to_pillow(from_model_range(pixels * 2 - 1))
