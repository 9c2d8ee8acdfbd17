"""Compute a pipeline's VAE with our `Codec`: the same images, faster and in bounded memory."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..formats.shared_weights import altered, from_diffusers, share_weights
from ..models import Autoencoder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from diffusers.models.autoencoders.vae import DecoderOutput

    from ..runtime.codec import Codec

    Pipeline = TypeVar("Pipeline", bound=DiffusionPipeline)

CLASSES = ("AutoencoderKL", "AutoencoderKLFlux2")
"""Classes of diffusers that the codec can run."""

METHODS = ("_decode", "_encode")
"""Methods that `decode` and `encode` of diffusers' VAEs call, inside hooks and slicing, before tiling."""


def accelerate(
    pipe: Pipeline,
    *,
    memory: int | str | None = None,
    dtype: torch.dtype | None = None,
    compile: bool | str | None = None,
    tile: int | None = None,
) -> Pipeline:
    """Let a pipeline's VAE encode and decode with `Codec`, and return the pipeline.

    >>> pipe = vw.accelerate(pipe, memory="2GiB")

    pipe: a pipeline, or its VAE. memory, dtype, compile, tile: arguments of `Codec`.
    Images are equal up to rounding (of `dtype`, if given). `pipe.vae` stays the same object with the same weights, so
    saving, `.to()`, upcasting, offloading, fused LoRAs and direct calls of `vae.decode` work as before, and other
    pipelines that share the VAE become faster, too. `enable_vae_slicing()` works; `enable_vae_tiling()` has no effect,
    because memory is bounded without its seams. The VAE computes as in diffusers if a gradient is needed, or if layers
    are hooked or wrapped (sequential offloading, a LoRA that is not fused); one warning names the latter.
    `decelerate` undoes it.
    Errors: ConfigError for a pipeline without a VAE that `Codec` can run; those of `Codec`. The pipeline is then
    unchanged.
    """
    vae = _vae_of(pipe)
    if isinstance(pipe, Autoencoder):
        raise ConfigError("accelerate takes pipelines; `vaeworks.Codec(autoencoder)` runs an Autoencoder")
    if type(vae).__name__ not in CLASSES:
        has = (
            f"{type(pipe).__name__}'s VAE is of class {type(vae).__name__}"
            if vae is not None
            else f"a {type(pipe).__name__} has no VAE"
        )
        raise ConfigError(f"{has}; accelerate takes pipelines with an AutoencoderKL or AutoencoderKLFlux2")
    options = {"memory": memory, "dtype": dtype, "compile": compile, "tile": tile}
    accelerated = Accelerated(vae, {name: value for name, value in options.items() if value is not None})
    vae._decode, vae._encode = accelerated.decode, accelerated.encode
    return pipe


def decelerate(pipe: Pipeline) -> Pipeline:
    """Undo `accelerate` and return the pipeline; one that was not accelerated is unchanged.

    >>> pipe = vw.decelerate(vw.accelerate(pipe))
    """
    vae = _vae_of(pipe)
    for method in METHODS:
        if isinstance(getattr(getattr(vae, "__dict__", {}).get(method), "__self__", None), Accelerated):
            delattr(vae, method)
    return pipe


def _vae_of(pipe: Any) -> Any:
    """A pipeline's VAE; a VAE of diffusers stands for itself."""
    return getattr(pipe, "vae", pipe if type(pipe).__name__ in CLASSES else None)


class Accelerated:
    """The replacement of a VAE's `_decode` and `_encode`."""

    def __init__(self, vae: Any, options: dict[str, Any]):
        """Options are those of `Codec`."""
        if not all(hasattr(type(vae), method) for method in METHODS):
            raise ConfigError(
                "this version of diffusers has an unknown AutoencoderKL; install the version that vaeworks needs"
            )
        self.vae, self.options = vae, options
        self.autoencoder: Autoencoder = from_diffusers(vae)
        self.codec = self._new_codec()
        self.weights = weights_state(self.autoencoder)
        self._told = False

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Decode latents n c h w to images n 3 f*h f*w, wrapped as in diffusers."""
        if not self._can(z):
            return type(self.vae)._decode(self.vae, z, return_dict=return_dict)
        from diffusers.models.autoencoders.vae import DecoderOutput

        images = self.codec.decode(z).to(z.device, z.dtype)
        return DecoderOutput(sample=images) if return_dict else (images,)

    def encode(self, x: Tensor) -> Tensor:
        """Encode images n 3 h w to moments n 2c h/f w/f."""
        if (
            not self._can(x)
            or x.shape[-2] % self.autoencoder.downsample_factor
            or x.shape[-1] % self.autoencoder.downsample_factor
        ):
            return type(self.vae)._encode(self.vae, x)
        posterior = self.codec.encode(x)
        return torch.cat([posterior.mean, posterior.logvar], dim=1).to(x.device, x.dtype)

    def _can(self, x: Tensor) -> bool:
        """Whether the codec may compute this; it is built again if weights have changed."""
        if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in self.vae.parameters())):
            return False
        reason = altered(self.vae)
        try:
            if not reason:
                share_weights(self.autoencoder, self.vae)
        except ConfigError as error:
            reason = str(error)
        if reason:
            if not self._told:
                warnings.warn(f"the VAE is not accelerated and computes as in diffusers: {reason}", stacklevel=4)
                self._told = True
            return False
        if (weights := weights_state(self.autoencoder)) != self.weights:
            self.codec, self.weights = self._new_codec(), weights
        return True

    def _new_codec(self) -> Codec:
        from ..runtime.codec import Codec

        return Codec(self.autoencoder, **self.options)


def weights_state(module: nn.Module) -> tuple[Any, ...]:
    """A value that changes with the weights: dtype, device, norm and sum of each. A fused LoRA leaves no other trace.

    It reads all weights once, which takes about a hundredth of a decode.
    """
    weights = [p.detach() for p in module.parameters()]
    norms = torch.stack(torch._foreach_norm(weights, 2, dtype=torch.float32))
    sums = torch.stack([weight.sum(dtype=torch.float32) for weight in weights])  # they show a change of sign
    return weights[0].dtype, weights[0].device, tuple(norms.tolist()), tuple(sums.tolist())
