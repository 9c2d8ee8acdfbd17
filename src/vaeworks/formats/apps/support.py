"""Which applications load a file (diffusers, A1111 and Forge, ComfyUI), what they check and assume, and the remedy.

Each application chooses a network and loads the file's tensors into it. So the support depends on the network, and on
how its names and shapes differ from the file's.
Source: diffusers 0.42; A1111 1.10, modules/sd_vae.py; Forge, backend/loader.py; for ComfyUI see `comfyui.py`.
"""

from __future__ import annotations

from ...config import MODELS, AutoencoderConfig, TinyConfig
from ...errors import ConfigError
from ..diffusers_config import diffusers_class, diffusers_config, only_in_metadata
from ..locate import Located
from ..sources import DIFFUSERS_WEIGHTS
from ..vaes_in_file import Layout
from .candidate import OfferedFile, as_it_is, as_saved, differences, shapes_of, wrong_ending
from .comfyui import comfyui
from .rules import (
    EXTRACT,
    NO_MEND,
    TO_DIFFUSERS,
    TO_LDM,
    Support,
    at_home,
    is_taesd,
    listed,
    no_network,
    problems,
    unknown_names,
    unless,
    unseen,
)

__all__ = ["COMFYUI", "DIFFUSERS", "WEBUI", "Support", "support"]

DIFFUSERS, WEBUI, COMFYUI = "diffusers", "A1111/Forge", "ComfyUI"

WEBUI_ENDINGS = (".safetensors", ".ckpt", ".pt")

SINGLE_FILE_PREFIXES = ("", "first_stage_model.", "vae.")
"""Prefixes that diffusers' from_single_file removes from LDM's names."""

WEBUI_SKIPS = ("model_ema.decay", "model_ema.num_updates")
"""Tensors that A1111 skips in a VAE file, besides names that begin with loss."""


def support(located: Located, layout: Layout | None = None) -> dict[str, Support]:
    """Each application's support for a VAE file; with `layout`, for the file that vaeworks would save in it."""
    offer = as_it_is(located) if layout is None else as_saved(located.config, layout)
    return {DIFFUSERS: _diffusers(offer), WEBUI: _webui(offer), COMFYUI: comfyui(offer)}


def _diffusers(offer: OfferedFile) -> Support:
    kind = diffusers_class(offer.config)
    try:
        diffusers_config(offer.config)
    except ConfigError as error:
        return Support("no", f"{error}; in Python, vaeworks.formats.to_diffusers gives pipelines an adapter")
    if offer.folder and offer.foreign:
        return Support("no", f"it has names that diffusers does not know, such as {offer.foreign}; {TO_DIFFUSERS}")
    if offer.folder:
        how = f"{kind}.from_pretrained(FOLDER{_variant(offer.name)})"
    elif reason := _not_as_single_file(offer, kind):
        return Support("no", f"{reason}; {TO_DIFFUSERS}")
    else:
        how = (
            f"{kind}.from_single_file(FILE, config=FOLDER), a folder with this VAE's config.json; without it, SD 1's "
            "is downloaded"
        )
        if offer.more:
            how += f" (if PyTorch's safe loader refuses what its pickle holds besides tensors, {TO_DIFFUSERS})"
    return unless(how, _diffusers_problems(offer))


def _variant(name: str) -> str:
    """The argument of from_pretrained for weights with their precision in the name."""
    stem = name.removesuffix(".safetensors").removesuffix(".bin")
    return f', variant="{stem.rpartition(".")[2]}"' if "." in stem and name in DIFFUSERS_WEIGHTS else ""


def _not_as_single_file(offer: OfferedFile, kind: str) -> str | None:
    if offer.layout == "native":
        return "it has vaeworks' own names"
    if offer.foreign:
        return f"it has names that diffusers does not know, such as {offer.foreign}"
    if offer.wrapper:
        return f"its tensors lie in a dict under {offer.wrapper[:-1]!r}, where diffusers does not look"
    if kind != "AutoencoderKL":
        return f"diffusers loads {kind} from folders only"
    if not offer.whole:
        return "diffusers loads shards from folders with a config.json only"
    if offer.prefix not in (SINGLE_FILE_PREFIXES if offer.layout == "ldm" else ("",)):
        return f"diffusers does not read names that begin with {offer.prefix}"
    if offer.ending == ".sft":
        return "diffusers reads safetensors files only if they end in .safetensors"
    if offer.unsafe:
        return "its pickle names classes, which PyTorch's safe loader refuses"
    if offer.old_names:
        return "diffusers reads old attention names in folders only"
    if offer.layout == "ldm" and isinstance(offer.config, AutoencoderConfig) and offer.config.attention_factors:
        return "diffusers' single-file loader ignores attention outside the middle"
    return None


def _diffusers_problems(offer: OfferedFile) -> list[str]:
    config, c = offer.config, offer.config.latent_channels
    found = []
    if words := only_in_metadata(config, "diffusers"):
        found.append(f"{unseen(words)}; in Python, vaeworks.formats.to_diffusers sets it")
    if config.normalization == "scalar" and config.shift_factor and c == 4:
        found.append("pipelines for 4 latent channels ignore shift_factor; `vaeworks fold` moves it into the weights")
    if config.normalization == "channel" and c != 4:
        found.append(
            f"pipelines for {c} latent channels ignore latents_mean; `vaeworks fold` moves it into the weights"
        )
    return found


def _webui(offer: OfferedFile) -> Support:
    config = offer.config
    if isinstance(config, TinyConfig):
        return _webui_tiny(offer, config)
    if offer.layout != "ldm":
        if (converted := _webui(as_saved(config, "ldm"))).loads == "no":
            return converted
        names = (
            "diffusers' names, which A1111 refuses (Forge translates them)"
            if offer.layout == "diffusers"
            else "vaeworks' own names"
        )
        return Support("no", f"it has {names}; {TO_LDM}")
    if unseen_names := unknown_names(offer):
        return Support("no", f"{unseen_names}; {TO_LDM}")
    if offer.prefix and not at_home(offer):
        return Support("no", f"its names begin with {offer.prefix}; {EXTRACT}")
    if config.normalization == "batchnorm":
        return Support("no", f"neither A1111 nor Forge has Flux.2, and {NO_MEND}")
    sixteen = config.latent_channels == 16
    if name := differences(shapes_of(MODELS["sd3" if sixteen else "sd1"]), offer.shapes).first:
        return no_network(f"A1111 and Forge build {'SD 3' if sixteen else 'SD'}'s network", name, offer, config)
    if extra := next((name for name in offer.beside if not name.startswith("loss") and name not in WEBUI_SKIPS), None):
        return Support("no", f"A1111 stops at tensors that are not part of a VAE, such as {extra}; {TO_LDM}")
    if wrong := wrong_ending(offer):
        return Support("no", f"A1111 reads files by their ending: {wrong}")
    if offer.ending not in WEBUI_ENDINGS:
        return Support("no", f"A1111 lists files that end with {listed(WEBUI_ENDINGS)}; {TO_LDM}")
    how = "in models/VAE, chosen as SD VAE, or selected by A1111 if its name begins with the checkpoint's"
    if offer.prefix:
        how = "as part of its checkpoint, in models/Stable-diffusion"
    return unless(
        how + (" (SD 3 in both, Flux.1 in Forge)" if sixteen else ""),
        problems(offer, config, foldable=config.post_quant_conv),
    )


def _webui_tiny(offer: OfferedFile, config: TinyConfig) -> Support:
    if (
        offer.layout == "taesd"
        and not offer.whole
        and offer.ending in (".pth", ".pt")
        and is_taesd(config)
        and not config.mid_pool
    ):
        return Support(
            "yes",
            "for previews only, in models/VAE-taesd under the names that A1111 downloads, such as taesd_decoder.pth",
        )
    return Support("no", f"A1111 uses a TAESD for previews only, as the .pth files that it downloads, and {NO_MEND}")
