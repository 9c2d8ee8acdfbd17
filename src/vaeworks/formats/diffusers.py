"""Convert a VAE of ours to one of diffusers, for use in a pipeline."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from ..config import AutoencoderConfig
from ..errors import ConfigError, FormatError, MissingExtraError
from ..files.atomic import read_json
from ..models import Autoencoder
from .diffusers_config import diffusers_class, diffusers_config, guesses_written, only_in_metadata
from .fold import fold_normalization
from .foreign_code import check_folder
from .given import model_in_memory
from .keymap import layout_name
from .kinds import DIFFUSERS_CLASSES

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderKLFlux2, AutoencoderTiny

    from .diffusers_adapter import AutoencoderAdapter

    DiffusersVAE: TypeAlias = AutoencoderKL | AutoencoderKLFlux2 | AutoencoderTiny | AutoencoderAdapter

APPLIES_SHIFT = ("StableDiffusion3", "Flux")
"""First parts of the names of pipeline classes that apply the VAE's shift_factor; SD and SDXL ignore it."""


def load_with_diffusers(folder: Path) -> DiffusersVAE:
    """Load a folder in diffusers' layout with diffusers' own class, without our code.

    Errors: MissingExtraError without diffusers; FormatError for a folder of another class.
    """
    kind = read_json(folder / "config.json").get("_class_name", "AutoencoderKL")
    if kind not in DIFFUSERS_CLASSES:
        raise FormatError(
            f"{folder} holds {kind!r:.60}, which is not supported; supported: {', '.join(DIFFUSERS_CLASSES)}"
        )
    check_folder(folder)
    return (
        getattr(_library(), kind)
        .from_pretrained(folder, local_files_only=True, use_safetensors=True)
        .requires_grad_(False)
        .eval()
    )


def _library() -> ModuleType:
    try:
        import diffusers
    except ImportError:
        raise MissingExtraError("diffusers", "diffusers", "this") from None
    return diffusers


def to_diffusers(autoencoder: Autoencoder) -> DiffusersVAE:
    """Convert a VAE to diffusers' AutoencoderKL, AutoencoderKLFlux2 or AutoencoderTiny with a copy of the weights.

    >>> pipe.vae = vw.to_diffusers(vae)

    The result survives the pipeline's save_pretrained, and loads without vaeworks. If none of these classes has the
    architecture, the result is an adapter with the same methods, which a pipeline can use but not save.
    Padding, epsilon and activation scales without a place in diffusers' configuration are set on the modules, and a
    warning says that saving loses them. SD's and SDXL's pipelines ignore shift_factor: for a denoiser trained on
    normalized latents use `pipelines.stable_diffusion.inject`, which folds the shift into the weights if needed.
    Errors: MissingExtraError without diffusers.
    """
    autoencoder = model_in_memory(autoencoder)
    config = autoencoder.config
    library = _library()
    try:
        arguments = diffusers_config(config)
    except ConfigError:
        from .diffusers_adapter import adapted

        return adapted(autoencoder)
    with torch.device("meta"):
        target = getattr(library, diffusers_class(config))(**arguments)
    state = {layout_name(name, "diffusers", config): t.detach().clone() for name, t in autoencoder.state_dict().items()}
    target.load_state_dict(state, assign=True)
    target.register_to_config(**guesses_written(config))
    if isinstance(config, AutoencoderConfig) and (unsaved := only_in_metadata(config, "diffusers")):
        _set_on_modules(target, config)
        warnings.warn(f"diffusers cannot save {'; '.join(unsaved)}: only this object has it", stacklevel=2)
    return target.requires_grad_(False).eval()


def _set_on_modules(target: nn.Module, config: AutoencoderConfig) -> None:
    for name, module in target.named_modules():
        if isinstance(module, nn.Conv2d) and module.padding != (0, 0):
            module.padding_mode = config.padding_mode
        if isinstance(module, nn.GroupNorm):
            module.eps = (
                config.norm_eps * (config.encoder_scale if name.startswith("encoder") else config.decoder_scale) ** 2
            )


def vae_for_pipeline(kind: str, autoencoder: Autoencoder) -> DiffusersVAE:
    """A VAE whose latents this class of pipeline normalizes as `autoencoder.normalize` does.

    Errors: ConfigError for a normalization that the pipeline lacks and that cannot be folded into the weights.
    """
    config = autoencoder.config
    if kind.startswith("Flux2"):
        return _for_flux2(autoencoder)
    if config.latents_patch > 1:
        raise ConfigError(
            f"{kind} does not use {config.latents_patch}x{config.latents_patch} patches of latents; take a Flux.2 "
            "pipeline"
        )
    # Every pipeline divides by scaling_factor; only some apply more, and SDXL applies latents_mean for 4 channels only.
    unseen = config.normalization == "channel" or (config.shift_factor and not kind.startswith(APPLIES_SHIFT))
    if not isinstance(config, AutoencoderConfig):
        if unseen:
            raise ConfigError(
                f"{kind} does not apply shift_factor or latents_mean, and a TAESD has no 1x1 convolutions to fold "
                "them into"
            )
        return to_diffusers(autoencoder)
    # In float16, SDXL's pipelines read post_quant_conv's weights.
    if unseen or (kind.startswith("StableDiffusionXL") and not config.post_quant_conv):
        autoencoder = fold_normalization(autoencoder)
    return to_diffusers(autoencoder)


def _for_flux2(autoencoder: Autoencoder) -> DiffusersVAE:
    """A VAE with batch normalization's statistics, which Flux.2's pipelines read; other normalizations are
    converted."""
    if autoencoder.config.normalization == "batchnorm":
        return to_diffusers(autoencoder)
    from .diffusers_adapter import adapted

    return adapted(autoencoder)
