"""Wrap a VAE of diffusers as one of ours, with shared weights."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from ..config import AutoencoderConfig, LatentConfig
from ..errors import ConfigError, FormatError
from ..models import Autoencoder
from .diffusers_config import NORM_EPS, config_from_diffusers
from .keymap import layout_name
from .kinds import DIFFUSERS_CLASSES

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderKLFlux2, AutoencoderTiny

    TheirVAE: TypeAlias = AutoencoderKL | AutoencoderKLFlux2 | AutoencoderTiny

PROCESSORS = ("AttnProcessor", "AttnProcessor2_0", "XFormersAttnProcessor", "SlicedAttnProcessor")
"""Attention processors of diffusers that give the same result."""


def from_diffusers(vae: TheirVAE) -> Autoencoder:
    """Wrap a VAE of diffusers as an `Autoencoder` that shares its parameters; nothing is copied.

    >>> vae = vw.from_diffusers(pipe.vae)
    >>> latents = vae.encode(vw.open_image("dog.jpg", size=512)).mode()

    Both sides see `vae.to(...)` and changes in place, such as a fused LoRA. A parameter that is replaced by another
    object is not seen until `share_weights`.
    Errors: ConfigError for an object that is not an AutoencoderKL, AutoencoderKLFlux2 or AutoencoderTiny, and for a VAE
    that was altered.
    """
    if not _is_theirs(vae):
        raise ConfigError(
            f"a {type(vae).__name__} cannot be taken over; supported classes of diffusers: "
            f"{', '.join(DIFFUSERS_CLASSES)}"
        )
    if missing := [half for half in ("encoder", "decoder") if not isinstance(getattr(vae, half, None), nn.Module)]:
        raise ConfigError(
            f"this {type(vae).__name__} has no {' and no '.join(missing)}; load the whole VAE again, both halves are "
            "needed"
        )
    if reason := altered(vae):
        raise ConfigError(f"this {type(vae).__name__} does not compute as its configuration says: {reason}")
    try:
        values: Any = vae.config
        config = config_from_diffusers({**values, "_class_name": type(vae).__name__}, f"this {type(vae).__name__}")
    except FormatError as error:
        raise ConfigError(str(error)) from None
    if isinstance(config, AutoencoderConfig):
        config = dataclasses.replace(config, **_set_on_modules(vae))
    with torch.device("meta"):
        autoencoder = Autoencoder(config)
    share_weights(autoencoder, vae)
    return autoencoder.train(vae.training)


def in_memory(model: object) -> Autoencoder | None:
    """The autoencoder that an object is: ours, a codec's, or one around a VAE of diffusers; None for a path.

    Errors: ConfigError for anything else, with what to give instead.
    """
    own = getattr(model, "autoencoder", model)  # of a codec
    if isinstance(own, Autoencoder):
        return own
    if isinstance(model, (str, os.PathLike)):
        return None
    if _is_theirs(model):
        return from_diffusers(model)
    kind, remedy = type(model).__name__, ""
    if isinstance(model, type):
        kind, remedy = f"the class {model.__name__}", "; give an object of it"
    elif _is_theirs(getattr(model, "vae", None)):
        remedy = "; give its .vae"
    elif isinstance(model, LatentConfig):
        remedy = "; `vaeworks.build` makes an Autoencoder of it"
    raise ConfigError(
        f"a model must be an Autoencoder, a VAE of diffusers ({', '.join(DIFFUSERS_CLASSES)}), or a path, not {kind}"
        f"{remedy}"
    )


def _is_theirs(model: object) -> bool:
    return (
        isinstance(model, nn.Module)
        and type(model).__name__ in DIFFUSERS_CLASSES
        and type(model).__module__.startswith("diffusers.")
    )


def share_weights(autoencoder: Autoencoder, vae: TheirVAE) -> None:
    """Give the result of `from_diffusers` the VAE's present parameters, and the padding and epsilon of its modules.

    Errors: ConfigError for a VAE whose parameters are no longer those of its architecture.
    """
    config = autoencoder.config
    theirs: dict[str, Tensor] = vae.state_dict(keep_vars=True)
    names = {name: layout_name(name, "diffusers", config) for name in autoencoder.state_dict(keep_vars=True)}
    if odd := sorted(set(names.values()) ^ theirs.keys()):
        raise ConfigError(
            f"weights of this {type(vae).__name__} are not those of its architecture: {odd[0]} and {len(odd) - 1} more"
        )
    for name, their_name in names.items():
        path, _, last = name.rpartition(".")
        ours, tensor = autoencoder.get_submodule(path), theirs[their_name]
        kind = ours._parameters if last in ours._parameters else ours._buffers
        if (kept := kind[last]) is not tensor:
            assert kept is None or kept.shape == tensor.shape, f"{their_name} is {tuple(tensor.shape)}"
            kind[last] = tensor  # type: ignore[assignment]
        if last == "weight":
            _take_settings(ours, vae.get_submodule(their_name.rpartition(".")[0]))


def _take_settings(ours: nn.Module, theirs: nn.Module) -> None:
    if isinstance(ours, nn.GroupNorm) and isinstance(theirs, nn.GroupNorm):
        ours.eps = theirs.eps
    if isinstance(ours, nn.Conv2d) and isinstance(theirs, nn.Conv2d):
        ours.padding_mode = theirs.padding_mode


def _set_on_modules(vae: nn.Module) -> dict[str, Any]:
    """Settings that diffusers' configuration has no field for, read from the modules."""
    eps = {
        half: _only({m.eps for m in part.modules() if isinstance(m, nn.GroupNorm)})
        for half, part in _halves(vae).items()
    }
    modes = {m.padding_mode for m in vae.modules() if isinstance(m, nn.Conv2d) and m.padding not in (0, (0, 0))}
    scales = {f"{half}_scale": math.sqrt(found / NORM_EPS) for half, found in eps.items()}
    same = len({*eps.values()}) == 1
    norms = {"norm_eps": eps["encoder"]} if same else {"norm_eps": NORM_EPS, **scales}
    return {"padding_mode": _only(modes), **norms}


def _halves(vae: nn.Module) -> dict[str, nn.Module]:
    return {half: vae.get_submodule(half) for half in ("encoder", "decoder")}


def _only(found: set[Any]) -> Any:
    if len(found) != 1:
        raise ConfigError(
            f"this VAE's layers differ in epsilon or padding ({', '.join(map(str, sorted(found)))}); ours has one value"
        )
    return found.pop()


def altered(vae: nn.Module) -> str | None:
    """How a VAE's modules were changed so that they do not compute what their weights say, or compute it elsewhere;
    None if they were not.

    Hooks on the whole VAE do not count, because they run around its methods.
    """
    for name, module in vae.named_modules():
        if not name:
            continue
        if module._forward_hooks or module._forward_pre_hooks or _patched(module):
            return f"something is hooked to {name} (offloading by layers, or a patch)"
        if (processor := getattr(module, "processor", None)) is not None and type(processor).__name__ not in PROCESSORS:
            return f"{name} has a processor of its own, {type(processor).__name__}"
        if any(p.is_meta for p in module.parameters(recurse=False)):
            return f"the weights of {name} are elsewhere"
    return None


def _patched(module: nn.Module) -> bool:
    """Whether a module has its own `forward`; accelerate leaves the class's method on the object when its hooks go."""
    own = ((name, module.__dict__[name]) for name in ("forward", "_conv_forward") if name in module.__dict__)
    return any(getattr(method, "__func__", None) is not getattr(type(module), name) for name, method in own)
