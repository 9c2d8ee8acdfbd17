"""Move a pipeline to the latent space of another VAE: the denoiser stays, its first and last layers are new."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DataError
from ..formats.diffusers import vae_for_pipeline
from ..models import Autoencoder
from .latent_map import GAIN, HELD_OUT, Affine, LatentMaps, check_enough, latent_maps

Pipeline = Any
"""A pipeline of diffusers, whose classes are named in `formats` and `pipelines` only"""

Remap = Literal["auto", "always", "never"]
"""Whether the layers change where the old and the new latents have one shape."""

Output = Literal["inverse", "regression"]
"""How a prediction in the old space becomes one in the new space: by a right inverse of the map that the input goes
through, or by the least-squares map of latents."""

EDGES = {
    "UNet2DConditionModel": ("conv_in", "conv_out"),
    "SD3Transformer2DModel": ("pos_embed.proj", "proj_out"),
    "FluxTransformer2DModel": ("x_embedder", "proj_out"),
}
"""Names of the layers that take latents and that predict, by the denoiser's class in diffusers."""

FLUX_PACKS = 2
"""Side of the squares of latents that Flux.1's pipelines pack into a token; it is written into their code."""

IGNORED = 0.1
"""Gain of noise through the map, below which a direction of the new latents counts as ignored by it."""

_RANK = 1e-6  # smallest eigenvalue of a map's Gram matrix that counts, as a share of the largest


@dataclass(frozen=True)
class Target:
    """What a denoiser predicts: p * noise + q * latents, where its input is a * latents + b * noise. E: over all
    timesteps."""

    kind: str
    """epsilon, v_prediction, sample or flow"""
    noise: float
    """E[p^2]"""
    latents: float
    """E[q^2]"""
    mean: float
    """E[q]"""
    kept: float
    """E[a]"""


@dataclass(frozen=True)
class MoveReport:
    """What `move_pipeline` did."""

    pipeline: str
    """the pipeline's class"""
    old: str
    """f and c of the old VAE, for example f8c4"""
    new: str
    maps: LatentMaps = field(repr=False)
    new_layers: tuple[str, ...]
    """names of the denoiser's layers that were made anew; empty if the old ones fit better, or as well"""
    target: str
    """what the denoiser predicts: epsilon, v_prediction, sample or flow"""
    output: Output | None
    """the choice that was made for the output layer; None if it is the old one"""
    start_errors: dict[str, float]
    """by choice: squared error of the moved prediction, if the old denoiser were perfect, over that of predicting the
    mean. It is an estimate before training, from held-out images; the smaller one is chosen."""
    ignored: int
    """directions of the new latents that the map ignores, of all that a position or patch has; the input layer begins
    with random weights for them"""
    border: float | None
    """U-Nets: how far the input layer's result at the image's edge is off, in standard deviations of its result for
    white noise (`_move_unet`); None for transformers, whose patches need no padding"""

    def sentences(self) -> list[str]:
        """For people, a line each."""
        return list(_sentences(self))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        to_old, to_new = self.maps.to_old, self.maps.to_new
        return {
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "maps"},
            "new_layers": list(self.new_layers),
            "explained_of_old": to_old.explained,
            "explained_of_new": to_new.explained,
            "explained_as_they_are": self.maps.identity,
            "noise_gain": to_old.noise_gain,
            "patchwise": not self.maps.per_position,
            "num_images": to_old.num_images,
            "num_held_out": to_old.num_held_out,
        }


def _sentences(report: MoveReport) -> Iterable[str]:
    yield from report.maps.sentences()
    if not report.new_layers:
        yield "the denoiser's layers are unchanged: a linear map would fit the new latents no better"
        return
    yield f"{' and '.join(report.new_layers)} are new, and start from these maps; all other weights are the old ones"
    if report.ignored:
        directions = report.maps.to_old.weight.shape[1]
        yield (
            f"{report.ignored} of {directions} directions of the new latents have no part in the map; the input layer "
            "begins with random weights for them"
        )
    yield (
        f"noise of 1 in the new latents reaches the old layers as {report.maps.to_old.noise_gain:.2f}, where they "
        "expect 1; training must make up for the difference"
    )
    if report.border:
        yield f"at the image's edge the input layer is off by {report.border:.2g} standard deviations of noise"


@dataclass(frozen=True)
class MovedPipeline:
    """A pipeline in a new latent space, before training."""

    pipe: Pipeline = field(repr=False)
    report: MoveReport


def move_pipeline(
    pipe: Pipeline,
    old: Autoencoder,
    new: Autoencoder,
    images: Iterable[Tensor],
    *,
    remap: Remap = "auto",
    seed: int = 0,
) -> MovedPipeline:
    """Put a VAE with another latent space into a pipeline of SD1, SD2, SDXL, SD3 or Flux.1, ready for training.

    >>> moved = move_pipeline(pipe, vw.from_diffusers(pipe.vae), vw.load("f8c16.safetensors"), batches)
    >>> print("\\n".join(moved.report.sentences()))

    old: the VAE that the denoiser was trained with. images: batches uint8 n 3 s s; a few hundred images of 256 pixels
    are plenty. remap: for latents of the same shape, "auto" makes new layers only if a linear map explains more of the
    old latents than the new latents do as they are; "always" and "never" decide it. seed: of random weights.

    The result is a new pipeline of the same class. It shares all parts and all of the denoiser's weights with `pipe`,
    except for the VAE and the two new layers, so that nothing large is copied; `pipe` paints as before until the
    denoiser is trained. `save_pretrained` writes a folder that diffusers loads without vaeworks.

    **Input.** The new layer is the old layer after the least-squares map W, b from the new to the old latents. A
    denoiser sees a * latents + b * noise, so the map's bias should be a * b, which one layer cannot do at all
    timesteps; it is E[a] * b. W makes white noise coloured, and weaker or stronger; `LatentMap.noise_gain` says how
    much. For directions that W ignores, as it must with more channels, the layer begins with random weights. Without
    them neither of the two new layers has a gradient there until the other has weights: a tiny U-Net that was moved
    from f8c4 to TAEF2's f8c32 (61 % explained) had a loss of 0.94 at the start, and after 200 steps of LoRA 0.70
    without random weights, 0.64 with them, and 0.65 with both layers random; after 200 steps of everything 0.51 with
    them, and 0.53 with both layers random. Random weights in the output layer made the start worse, and the end no
    better.

    **Output.** Two choices, and the better one by `MoveReport.start_errors` is taken. "inverse": the right inverse of W
    that fits the new target best, S W^T (W S W^T)^+, where S is the new target's covariance. What a sampler does with
    the moved prediction in the new space is then, seen through W and but for constants, what it did in the old space.
    "regression": the least-squares map from the old to the new latents, which is the smaller one if the spaces have
    little in common. Noise in the new space is no image of noise in the old one, so neither is more than a start. The
    means of the latents are taken into account as far as the target holds latents: not at all for epsilon.

    Errors: ConfigError for another class of denoiser, for one that takes or predicts more than latents (inpainting,
    control), for latents on another grid and for a VAE that diffusers cannot save; those of `latent_maps`.
    """
    name, denoiser = _denoiser(pipe)
    patch, new_patch = _patches(pipe, denoiser, old, new)
    _check_channels(pipe, denoiser, old)
    target = target_of(pipe.scheduler)
    same_shape = (old.latent_channels, patch) == (new.latent_channels, new_patch)
    if remap == "never" and not same_shape:
        raise ConfigError(
            f"remap='never' keeps layers that take {old.config.name}, and the new latents are {new.config.name}; leave "
            "remap at 'auto'"
        )
    # first, because a VAE that does not fit should be refused before many images are encoded
    vae = _new_vae(pipe, new).to(device=denoiser.device, dtype=denoiser.dtype)
    maps = latent_maps(old, new, images, patch=patch, new_patch=new_patch)
    if not maps.to_old.explained > -float("inf"):  # NaN
        raise DataError("the old VAE's latents of these images do not vary; give other images")
    keep = same_shape and (
        remap == "never"
        or (remap == "auto" and maps.identity is not None and maps.identity >= maps.to_old.explained - GAIN)
    )
    output, errors, ignored, border = None, {}, 0, None
    if not keep:
        choices = {"inverse": _inverse(maps, target), "regression": maps.to_new.weight}
        errors = {choice: _start_error(maps, target, weight) for choice, weight in choices.items()}
        output = min(choices, key=lambda choice: errors[choice])
        weight = choices[output]
        mean, (new_side, old_side) = maps.moments.fitted.mean, maps.moments.sides(to_old=True)
        after = weight, target.mean * (mean[new_side] - weight @ mean[old_side])
        before = maps.to_old.weight, target.kept * maps.to_old.bias
        unseen, ignored = _ignored(maps.to_old.weight)
        layers = NewLayers(before, after, unseen, new.latent_channels, new_patch, seed)
        denoiser = _shallow_copy(denoiser)
        border = MOVES[type(denoiser).__name__](denoiser, layers)
    report = MoveReport(
        pipeline=type(pipe).__name__,
        old=old.config.name,
        new=new.config.name,
        maps=maps,
        new_layers=() if keep else EDGES[type(denoiser).__name__],
        target=target.kind,
        output=output,  # type: ignore[arg-type]
        start_errors=errors,
        ignored=ignored,
        border=border,
    )
    moved = assembled(pipe, **{name: denoiser, "vae": vae})
    if hasattr(pipe, "default_sample_size") and patch == new_patch:
        moved.default_sample_size = pipe.default_sample_size  # Flux's class has a constant
    return MovedPipeline(moved, report)


# What is supported


def check_move(pipe: Pipeline, old: Autoencoder, new: Autoencoder, count: int, size: int) -> None:
    """Check, before any image is encoded, that `move_pipeline` supports a pipeline and its new VAE, and that `count`
    images of `size` pixels suffice.

    Errors: ConfigError; DataError for too few images.
    """
    _, denoiser = _denoiser(pipe)
    patch, new_patch = _patches(pipe, denoiser, old, new)
    _check_channels(pipe, denoiser, old)
    target_of(pipe.scheduler)
    _new_vae(pipe, new)
    positions = (count - count // HELD_OUT) * (size // (old.downsample_factor * patch)) ** 2
    check_enough(count, positions, max(old.latent_channels * patch**2, new.latent_channels * new_patch**2))


def _new_vae(pipe: Pipeline, new: Autoencoder) -> Any:
    """The new VAE as diffusers has it. Errors: ConfigError where that has no class for it."""
    vae = vae_for_pipeline(type(pipe).__name__, new)
    if type(vae).__name__ == "AutoencoderAdapter":
        raise ConfigError(
            f"diffusers has no class for the architecture of this {new.config.name} VAE, so that the pipeline could "
            "not be saved; take a VAE with diffusers' architecture"
        )
    return vae


def _denoiser(pipe: Pipeline) -> tuple[str, Any]:
    """The name and the object of a pipeline's denoiser. Errors: ConfigError for one that is not supported."""
    kind = type(pipe).__name__
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    found = [(name, part) for name, part in parts.items() if name in ("unet", "transformer")]
    if len(found) != 1 or type(found[0][1]).__name__ not in EDGES:
        has = type(found[0][1]).__name__ if len(found) == 1 else "none or several"
        raise ConfigError(f"{kind} has a denoiser of class {has}; take a pipeline of SD1, SD2, SDXL, SD3 or Flux.1")
    if other := [name for name in parts if "controlnet" in name or "adapter" in name]:
        raise ConfigError(f"{kind} has a {other[0]}, which takes the old latents, too; take a text-to-image pipeline")
    if any(hasattr(part, "_hf_hook") for part in parts.values()):
        raise ConfigError("the pipeline is offloaded to the CPU; move it first, then enable offloading")
    name, denoiser = found[0]
    for layer in EDGES[type(denoiser).__name__]:
        if type(module := denoiser.get_submodule(layer)) not in (nn.Conv2d, nn.Linear):
            raise ConfigError(
                f"the denoiser's {layer} is a {type(module).__name__}, not a plain layer; load it without quantization "
                "and without adapters"
            )
    return name, denoiser


def _patches(pipe: Pipeline, denoiser: Any, old: Autoencoder, new: Autoencoder) -> tuple[int, int]:
    """Sides of the squares of old and of new latents that the denoiser takes as one vector.

    Stable Diffusion 3's transformer may have any patches, so that its tokens can cover the same pixels with another f.
    Errors: ConfigError for an f that the denoiser's grid cannot have.
    """
    kind = type(denoiser).__name__
    patch = denoiser.config.patch_size if kind.startswith("SD3") else FLUX_PACKS if kind.startswith("Flux") else 1
    if kind.startswith("Flux") and denoiser.config.patch_size != 1:
        raise ConfigError(f"patch_size (={denoiser.config.patch_size}) of a Flux transformer must be 1")
    area = old.downsample_factor * patch
    new_patch = area // new.downsample_factor
    flexible = kind.startswith("SD3") and new_patch * new.downsample_factor == area
    if old.downsample_factor != new.downsample_factor and not flexible:
        grid = f"cells of {area} pixels" if patch > 1 else f"one latent for {area} pixels"
        raise ConfigError(
            f"{type(pipe).__name__} works on {grid}, and latents of {new.config.name} have another grid than those of "
            f"{old.config.name}; take a VAE of f{old.downsample_factor}"
        )
    return patch, new_patch


def _check_channels(pipe: Pipeline, denoiser: Any, old: Autoencoder) -> None:
    """Errors: ConfigError for a denoiser that takes or predicts something else than the old VAE's latents."""
    packed = FLUX_PACKS**2 if type(denoiser).__name__.startswith("Flux") else 1
    taken = denoiser.config.in_channels
    predicted = denoiser.config.out_channels or taken
    if taken != predicted:
        raise ConfigError(
            f"the denoiser of {type(pipe).__name__} takes {taken} channels and predicts {predicted}, so it takes more "
            "than latents (inpainting, editing, control); take a text-to-image pipeline"
        )
    if taken != packed * old.latent_channels:
        raise ConfigError(
            f"the denoiser of {type(pipe).__name__} takes {taken // packed} latent channels, and the old VAE makes "
            f"{old.latent_channels} ({old.config.name}); give the VAE that the denoiser was trained with"
        )


def target_of(scheduler: Any) -> Target:
    """What the denoiser of a pipeline with this scheduler predicts. Errors: ConfigError for an unknown kind."""
    kind = scheduler.config.get("prediction_type", "flow")
    if "FlowMatch" in type(scheduler).__name__ or kind.startswith("flow"):
        return Target(
            "flow", noise=1.0, latents=1.0, mean=-1.0, kept=0.5
        )  # noise - latents of (1 - t) latents + t noise
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is not None:
        alphas = torch.as_tensor(alphas, dtype=torch.float64)
        kept, share = alphas.sqrt().mean().item(), alphas.mean().item()
        if kind == "epsilon":
            return Target(kind, noise=1.0, latents=0.0, mean=0.0, kept=kept)
        if kind == "v_prediction":
            return Target(kind, noise=share, latents=1 - share, mean=-(1 - alphas).sqrt().mean().item(), kept=kept)
        if kind == "sample":
            return Target(kind, noise=0.0, latents=1.0, mean=1.0, kept=kept)
    raise ConfigError(
        f"it is unknown what a denoiser with a {type(scheduler).__name__} predicts (prediction_type {kind}); give the "
        "pipeline the scheduler that it was published with"
    )


# The output layer


def _inverse(maps: LatentMaps, target: Target) -> Tensor:
    """The right inverse of the input's map that fits the new target best."""
    weight = maps.to_old.weight
    new, _ = maps.moments.sides(to_old=True)
    covariance = target.latents * maps.moments.fitted.covariance[new][:, new]
    covariance = covariance + target.noise * torch.eye(len(covariance), dtype=torch.float64)
    lifted = covariance @ weight.T
    return lifted @ torch.linalg.pinv(weight @ lifted, rtol=_RANK, hermitian=True)


def _start_error(maps: LatentMaps, target: Target, weight: Tensor) -> float:
    """Squared error of the mapped prediction, over that of predicting the mean, on held-out images.

    It assumes that the old denoiser predicts the noise that it sees and the old latents without error. Where it sees
    less noise than it expects, it predicts noise that is not there, and this counts as error.
    """
    to_old, moments = maps.to_old.weight, maps.moments
    new, old = moments.sides(to_old=True)
    imagined = (1 - to_old.square().sum(1)).clamp_min(0)
    eye = torch.eye(len(weight), dtype=torch.float64)
    noise = (eye - weight @ to_old).square().sum() + (weight.square() @ imagined).sum()
    mean = moments.fitted.mean
    variance = moments.held_out.covariance[new][:, new].trace()
    missed = 1 - moments.explained_by(weight, mean[new] - weight @ mean[old], to_old=False)
    total = target.noise * noise + target.latents * missed * variance
    return (total / (target.noise * len(weight) + target.latents * variance)).item()


# The layers


def _ignored(weight: Tensor) -> tuple[Tensor, int]:
    """The projection on the directions that a map ignores, and their number."""
    _, gains, axes = torch.linalg.svd(weight, full_matrices=True)
    axes = axes[int((gains >= IGNORED).sum()) :]
    return axes.T @ axes, len(axes)


@dataclass(frozen=True)
class NewLayers:
    """What new first and last layers are computed from."""

    before: Affine
    """the map from the new input to the old"""
    after: Affine
    """the map from the old prediction to the new"""
    ignored: Tensor
    """projection on the directions of the input that the map ignores"""
    channels: int
    """of the new latents"""
    patch: int
    """side of the squares of new latents that are one vector"""
    seed: int

    def random(self, outputs: int, area: int = 1) -> Tensor:
        """Weights as PyTorch initializes them, for the ignored directions: outputs d area, float64."""
        size = len(self.ignored)
        weight = torch.rand(outputs, size, area, generator=torch.Generator().manual_seed(self.seed)).double()
        return torch.einsum("oca,cd->oda", (2 * weight - 1) / math.sqrt(size * area), self.ignored)


def _move_unet(unet: Any, new: NewLayers) -> float:
    """New `conv_in` and `conv_out`; returns the border difference of `MoveReport`.

    `conv_in` pads with zeros. For W it makes no difference whether zeros are padded before or after it. But the bias of
    the map would be missing in the padding, while it is in the new layer's bias everywhere: the layer is exact in the
    interior, and off at the edge by what its outer kernels make of that bias.
    """
    before, after = new.before, new.after
    layer = unet.conv_in
    kernels = layer.weight.detach().cpu().double()
    offsets = torch.einsum("ochw,c->ohw", kernels, before[1])
    weight = torch.einsum("ochw,cd->odhw", kernels, before[0])
    weight = weight + new.random(len(weight), weight[0, 0].numel()).view_as(weight)
    unet.conv_in = _conv(layer, weight, offsets.sum((1, 2)) + _bias(layer))
    layer = unet.conv_out
    kernels = layer.weight.detach().cpu().double()
    unet.conv_out = _conv(layer, torch.einsum("dc,chkl->dhkl", after[0], kernels), after[0] @ _bias(layer) + after[1])
    unet.register_to_config(in_channels=new.channels, out_channels=new.channels)
    edge = offsets[:, : layer.kernel_size[0] // 2].sum((1, 2))
    return (edge.norm() / unet.conv_in.weight.detach().cpu().double().norm()).item()


def _move_sd3(transformer: Any, new: NewLayers) -> None:
    """New `pos_embed.proj` and `proj_out`, and another patch_size if the latents have another f."""
    before, after, channels, patch = new.before, new.after, new.channels, new.patch
    embed = transformer.pos_embed = _shallow_copy(transformer.pos_embed)
    kernels = embed.proj.weight.detach().cpu().double().flatten(1)
    bias = kernels @ before[1] + _bias(embed.proj)
    weight = kernels @ before[0] + new.random(len(kernels)).squeeze(2)
    weight = weight.unflatten(1, (channels, patch, patch))
    embed.proj = _conv(embed.proj, weight, bias, stride=patch)
    # rows of proj_out: row, column, channel of a patch
    old_patch = transformer.config.patch_size
    weight, bias = (_channels_first(x, old_patch) for x in _weight_and_bias(transformer.proj_out))
    weight, bias = after[0] @ weight, after[0] @ bias + after[1]
    transformer.proj_out = _linear(transformer.proj_out, *(_channels_last(x, patch) for x in (weight, bias)))
    transformer.out_channels = channels
    transformer.register_to_config(
        in_channels=channels,
        out_channels=channels,
        patch_size=patch,
        sample_size=transformer.config.sample_size * patch // old_patch,
    )
    embed.patch_size = patch


def _move_flux(transformer: Any, new: NewLayers) -> None:
    """New `x_embedder` and `proj_out`; tokens are packed by channel, row, column."""
    before, after = new.before, new.after
    weight, bias = _weight_and_bias(transformer.x_embedder)
    bias = weight @ before[1] + bias
    weight = weight @ before[0] + new.random(len(weight)).squeeze(2)
    transformer.x_embedder = _linear(transformer.x_embedder, weight, bias)
    weight, bias = _weight_and_bias(transformer.proj_out)
    transformer.proj_out = _linear(transformer.proj_out, after[0] @ weight, after[0] @ bias + after[1])
    packed = new.channels * new.patch**2
    stated = transformer.config.out_channels is not None
    transformer.out_channels = packed
    transformer.register_to_config(in_channels=packed, **({"out_channels": packed} if stated else {}))


MOVES: dict[str, Callable[[Any, NewLayers], float | None]] = {
    "UNet2DConditionModel": _move_unet,
    "SD3Transformer2DModel": _move_sd3,
    "FluxTransformer2DModel": _move_flux,
}
"""Functions that give a denoiser new first and last layers, by class."""


def _weight_and_bias(layer: nn.Linear) -> Affine:
    return layer.weight.detach().cpu().double(), _bias(layer)


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """A layer's bias, or zeros: float64, on the CPU."""
    bias = layer.bias
    return (
        layer.weight.new_zeros(len(layer.weight), device="cpu", dtype=torch.float64)
        if bias is None
        else (bias.detach().cpu().double())
    )


def _channels_first(rows: Tensor, patch: int) -> Tensor:
    """Rows of a patch from (row, column, channel) to (channel, row, column)."""
    return rows.unflatten(0, (patch, patch, -1)).movedim(2, 0).flatten(0, 2)


def _channels_last(rows: Tensor, patch: int) -> Tensor:
    return rows.unflatten(0, (-1, patch, patch)).movedim(0, 2).flatten(0, 2)


def _conv(like: nn.Conv2d, weight: Tensor, bias: Tensor, stride: int | None = None) -> nn.Conv2d:
    """A convolution with these weights, padded as `like`, in its dtype and on its device."""
    conv = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        stride=like.stride if stride is None else stride,  # type: ignore[arg-type]
        padding=like.padding,  # type: ignore[arg-type]
        padding_mode=like.padding_mode,
        device="meta",
    )
    return _loaded(conv, like, weight, bias)


def _linear(like: nn.Linear, weight: Tensor, bias: Tensor) -> nn.Linear:
    return _loaded(nn.Linear(weight.shape[1], weight.shape[0], device="meta"), like, weight, bias)


def _loaded(layer: Any, like: nn.Module, weight: Tensor, bias: Tensor) -> Any:
    state = {"weight": weight.to(like.weight), "bias": bias.to(like.weight)}  # type: ignore[arg-type]
    layer.load_state_dict(state, assign=True)
    return layer.train(like.training).requires_grad_(like.weight.requires_grad)


def _shallow_copy(module: Any) -> Any:
    """A module with the same submodules and parameters, of which it can get others without the original changing."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied


def assembled(pipe: Pipeline, **parts: Any) -> Pipeline:
    """The pipeline with other parts; built again, because each class derives values from its parts when it is built."""
    parameters = inspect.signature(type(pipe).__init__).parameters
    settings = {key: value for key, value in pipe.config.items() if key in parameters}
    return type(pipe)(**{**settings, **pipe.components, **parts})
