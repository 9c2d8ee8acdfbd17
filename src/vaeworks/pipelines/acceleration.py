"""A pipeline's VAE, computed by our `Codec`: the same pictures, in bounded memory, faster."""

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

METHODS = ("_decode", "_encode")
"""Of diffusers' VAEs: what their `decode` and `encode` call, inside hooks and slicing, and where tiling would begin."""


def accelerate(
    pipe: Pipeline,
    *,
    memory: int | str | None = None,
    dtype: torch.dtype | None = None,
    compile: bool | str | None = None,
    tile: int | None = None,
) -> Pipeline:
    """The pipeline itself, whose VAE from now on encodes and decodes by `Codec`; memory, dtype, compile and tile are
    its arguments.

    Pictures are the same to rounding (with `dtype`, to its rounding). `pipe.vae` stays the object it is, with its
    weights: saving, `.to()`, upcasting, offloading, LoRAs that are fused and `vae.decode` by hand work as before, and
    other pipelines that share it are faster, too. `enable_vae_tiling()` changes nothing any more: memory is bounded,
    and the seams that it brings are not wanted; `enable_vae_slicing()` works. Where a gradient is wanted, or layers are
    hooked or wrapped (sequential offloading, a LoRA that is not fused), the VAE computes as diffusers does; a warning
    tells of the latter, once. `decelerate` undoes it.
    Errors: ConfigError for a pipeline without a VAE that `Codec` can run, and `Codec`'s; the pipeline is then as it
    was.
    """
    vae: Any = getattr(pipe, "vae", None)
    if type(vae).__name__ not in ("AutoencoderKL", "AutoencoderKLFlux2"):
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
    """The pipeline itself, whose VAE computes as diffusers does again; nothing happens to one that was not
    accelerated."""
    vae = getattr(pipe, "vae", None)
    for method in METHODS:
        if isinstance(getattr(getattr(vae, "__dict__", {}).get(method), "__self__", None), Accelerated):
            delattr(vae, method)
    return pipe


class Accelerated:
    """What a VAE's `_decode` and `_encode` are replaced by."""

    def __init__(self, vae: Any, options: dict[str, Any]):
        """options: of `Codec`."""
        if not all(hasattr(type(vae), method) for method in METHODS):
            raise ConfigError(
                "this diffusers has another AutoencoderKL than the one known here; take the version that vaeworks asks "
                "for"
            )
        self.vae, self.options = vae, options
        self.autoencoder: Autoencoder = from_diffusers(vae)
        self.codec = self._new_codec()
        self.weights = weights_state(self.autoencoder)
        self._told = False

    def decode(self, z: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Latents n c h w to images n 3 f*h f*w, wrapped as diffusers does."""
        if not self._can(z):
            return type(self.vae)._decode(self.vae, z, return_dict=return_dict)
        from diffusers.models.autoencoders.vae import DecoderOutput

        images = self.codec.decode(z).to(z.device, z.dtype)
        return DecoderOutput(sample=images) if return_dict else (images,)

    def encode(self, x: Tensor) -> Tensor:
        """Images n 3 h w to moments n 2c h/f w/f."""
        if (
            not self._can(x)
            or x.shape[-2] % self.autoencoder.downsample_factor
            or x.shape[-1] % self.autoencoder.downsample_factor
        ):
            return type(self.vae)._encode(self.vae, x)
        posterior = self.codec.encode(x)
        return torch.cat([posterior.mean, posterior.logvar], dim=1).to(x.device, x.dtype)

    def _can(self, x: Tensor) -> bool:
        """Whether the codec computes what the VAE would; it is made anew where weights have changed."""
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
                warnings.warn(f"the VAE is not accelerated, and computes as diffusers does: {reason}", stacklevel=4)
                self._told = True
            return False
        if (weights := weights_state(self.autoencoder)) != self.weights:
            self.codec, self.weights = self._new_codec(), weights
        return True

    def _new_codec(self) -> Codec:
        from ..runtime.codec import Codec

        return Codec(self.autoencoder, **self.options)


def weights_state(module: nn.Module) -> tuple[Any, ...]:
    """What changes when weights do: type, place, norm and sum of each. A fused LoRA is seen, though it leaves no other
    trace.

    Weights are read once for that, which takes about a hundredth of a decode.
    """
    weights = [p.detach() for p in module.parameters()]
    norms = torch.stack(torch._foreach_norm(weights, 2, dtype=torch.float32))
    sums = torch.stack([weight.sum(dtype=torch.float32) for weight in weights])  # which a change of sign changes
    return weights[0].dtype, weights[0].device, tuple(norms.tolist()), tuple(sums.tolist())
