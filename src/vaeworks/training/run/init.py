"""The networks at the start of a run: random weights or an existing VAE, and the frozen networks of the losses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...config import MODELS, AutoencoderConfig, TrainConfig, differences
from ...errors import ConfigError
from ...features.backbones import Backbone, load_backbone
from ...features.perceptual_distance import perceptual_distance
from ...formats.guesses import NETWORK
from ...formats.io import read
from ...formats.locate import Located, locate
from ...formats.tensor_shapes import each_shape
from ...losses import Distance
from ...losses.perceptual import FeatureDistance
from ...models import Autoencoder, build
from ...models.init import linear_init_
from ...random_streams import INIT, random_seed
from ...runtime.fp16.scale import scale_activations
from ..gan.discriminator import build_discriminator

Say = Callable[[str], None]

NORMALIZATION = (
    "scaling_factor",
    "shift_factor",
    "latents_mean",
    "latents_std",
    "normalization",
    "latents_patch",
    "latents_norm_eps",
)
"""Settings of the normalization of latents."""

ARCHITECTURE = (
    "in_channels",
    "out_channels",
    "latent_channels",
    "channels",
    "channel_mult",
    "num_res_blocks",
    "decoder_channels",
    "decoder_channel_mult",
    "mid_attention",
    "attention_factors",
    "quant_conv",
    "post_quant_conv",
    "latents_patch",
    "bottleneck.kind",
)
"""Settings by which a published VAE is recognized."""


def with_start(config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """The configuration with the architecture and scale of the VAE that the run starts from; and sentences about it.

    With a teacher, the scale is the teacher's, because its latents become this model's. Only headers are read.
    Errors: ConfigError for a TAESD, for a VAE of another architecture than `finetune.expects`, and for a teacher with
    other latents; FormatError for a file that is no VAE.
    """
    path, expects, teacher = config.finetune.path, config.finetune.expects, config.finetune.teacher
    model = config.model
    told: list[str] = []
    if path is not None:
        model, told = _of_start(config, path)
    elif expects is not None or config.finetune.required or config.finetune.part != "all":
        raise ConfigError("this recipe starts from a VAE: say which with --from FILE")
    if teacher is not None:
        model, more = _for_teacher(model, teacher, has_scale=path is not None)
        told += more
    return dataclasses.replace(config, model=model), told


def _of_start(config: TrainConfig, path: str) -> tuple[AutoencoderConfig, list[str]]:
    """The architecture and scale of the VAE at `path`, with the configured noise on its latents in training."""
    located, expects = locate(path), config.finetune.expects
    found = located.config
    if not isinstance(found, AutoencoderConfig):
        raise ConfigError(f"{path} is a TAESD, which this trainer does not train; take a KL autoencoder")
    told = [f"starting from {path}: {found.name}, not the recipe's {config.model.name}"]
    if found.name == config.model.name:
        told = [f"starting from {path}: {found.name}"]
    if expects is not None:
        found, more = _as_expected(found, located, expects)
        told += more
        told += [doubt for doubt in located.doubts if doubt != located.ambiguity]
    else:
        told += located.doubts
    if (found.encoder_scale, found.decoder_scale) != (1.0, 1.0):
        told.append("it was repaired for float16, which is undone for training; repair the result anew")
        found = dataclasses.replace(found, encoder_scale=1.0, decoder_scale=1.0)
    wished = config.model.bottleneck
    bottleneck = dataclasses.replace(
        found.bottleneck, noise=wished.noise, noise_scale=wished.noise_scale, prefixes=wished.prefixes
    )
    network = {
        name: getattr(found, name) for name in NETWORK
    }  # facts from now on, because the model is trained with these
    return found.with_facts(bottleneck=bottleneck, **network), told


def _as_expected(found: AutoencoderConfig, located: Located, expects: str) -> tuple[AutoencoderConfig, list[str]]:
    """The configuration with the scale of the published VAE, where the file leaves it open.

    Errors: ConfigError for another architecture.
    """
    published, path = MODELS[expects], located.path
    other = {name: pair for name, pair in differences(published, found).items() if name in ARCHITECTURE}
    if other:
        what = ", ".join(f"{name} is {b}, not {a}" for name, (a, b) in other.items())
        raise ConfigError(f"{path} is not {expects}'s VAE ({what}); take another recipe")
    if located.ambiguity:
        found = found.with_facts(**_normalization(published))
        return found, [f"it does not say how its latents are scaled: taken for {expects}'s {published.scaling_factor}"]
    if found.normalization == "scalar" and (found.scaling_factor, found.shift_factor) != (
        published.scaling_factor,
        published.shift_factor,
    ):
        return found, [
            f"its scaling_factor is {found.scaling_factor:g}, not {expects}'s {published.scaling_factor}; it keeps its "
            "own"
        ]
    return found, []


def _for_teacher(model: AutoencoderConfig, teacher: str, has_scale: bool) -> tuple[AutoencoderConfig, list[str]]:
    """The configuration with the teacher's normalization.

    has_scale: the model has a scale of its own, which it keeps where the teacher's is unknown.
    Errors: ConfigError where the teacher's latents have another shape.
    """
    located = locate(teacher)
    found = located.config
    if (found.name, found.in_channels) != (model.name, model.in_channels):
        ours, theirs = (f"{c.name} of {c.in_channels} channels" for c in (model, found))
        raise ConfigError(f"the teacher {teacher} is {theirs}, this model {ours}; take a teacher with the same latents")
    if located.ambiguity and has_scale:
        return model, []
    model = model.with_facts(**_normalization(found))
    if not found.normalization_known:
        model = model.mark_guesses(["scaling_factor"])
    return model, [
        f"its latents shall be those of {teacher}, and are normalized as there",
        *filter(None, [located.ambiguity]),
    ]


def _normalization(config: Any) -> dict[str, Any]:
    return {name: getattr(config, name) for name in NORMALIZATION}


def initial_model(config: TrainConfig, teacher: Autoencoder | None = None, blank: bool = False) -> Autoencoder:
    """The network at the start of a run: a function of the configuration, its seed and the file that it names.

    blank: a checkpoint will fill it, so that the file is not needed. teacher: gives the statistics of normalization
    "batchnorm". Errors: FormatError where the file is gone.
    """
    if config.finetune.path is not None and not blank:
        model = _started(config.model, start_autoencoder(config.finetune.path))
    else:
        _check_extent(config.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_seed(config.seed, INIT))
            model = build(config.model)
            if config.init == "linear" and not blank:
                linear_init_(model, torch.default_generator)
    if teacher is not None and config.model.normalization == "batchnorm":
        model.bn.load_state_dict({name: t.cpu() for name, t in teacher.bn.state_dict().items()})
    model.set_gradient_checkpointing(config.gradient_checkpointing)
    return model.requires_grad_(True).train()


MOST_TENSORS, MOST_NUMBERS = 20_000, 2**36
"""Limits of a network. A run's record may name any size, and hours would pass before memory is full."""


def _check_extent(config: AutoencoderConfig) -> None:
    """Errors: ConfigError for a network beyond these limits."""
    numbers = 0
    for count, (_, shape) in enumerate(each_shape(config)):
        numbers += math.prod(shape)
        if count >= MOST_TENSORS or numbers > MOST_NUMBERS:
            raise ConfigError(
                f"the model has more than {MOST_TENSORS:,} tensors or {MOST_NUMBERS:,} parameters; take fewer channels "
                "or num_res_blocks"
            )


def _started(config: AutoencoderConfig, start: Autoencoder) -> Autoencoder:
    """A network with copies of another's weights, because the file may change during the run. Their normalization may
    differ."""
    with torch.device("meta"):
        model = Autoencoder(config)
    tensors = start.state_dict()
    own = {name: tensors.get(name, torch.zeros_like(t, device="cpu")).clone() for name, t in model.state_dict().items()}
    model.load_state_dict(own, assign=True)
    return model


def start_autoencoder(path: str) -> Autoencoder:
    """The VAE in a file, in fp32, without a repair for float16. Its weights may be mapped from the file.

    Errors: FormatError for a missing file, or one that is no VAE.
    """
    found = read(locate(path)).float()
    config = found.config
    if isinstance(config, AutoencoderConfig) and (config.encoder_scale, config.decoder_scale) != (1.0, 1.0):
        return scale_activations(found, 1 / config.encoder_scale, 1 / config.decoder_scale)
    return found


@dataclass(frozen=True)
class Frozen:
    """Frozen networks of a run."""

    perceptual: Distance | None = None
    features: Backbone | None = None
    """network whose deepest map latents are aligned with"""
    feature_channels: int | None = None
    judge: Backbone | None = None
    """network whose features a projected discriminator judges"""
    teacher: Autoencoder | None = None


def load_frozen(config: TrainConfig, device: torch.device, say: Say | None = None, features: Any = None) -> Frozen:
    """The frozen networks that a configuration names.

    features: a network of the caller's own, instead of regularizers.alignment_network.
    Errors: FormatError or ConfigError for a network that is missing; there is no fallback.
    """
    f, size, c = config.model.downsample_factor, config.data.size, config.model.in_channels
    found = Frozen(perceptual=perceptual_distance(config.loss, device, say))
    if config.precision == "bf16" and isinstance(found.perceptual, FeatureDistance):
        found.perceptual.network.bfloat16()  # as autocast would, without casting its weights at every step
    regularizers, adversarial = config.regularizers, config.adversarial
    if features is not None and not regularizers.alignment:
        raise ConfigError("features are for the alignment of latents, whose weight is 0; set regularizers.alignment")
    if regularizers.alignment > 0:
        own = features if features is not None else regularizers.alignment_network
        if own is None:
            raise ConfigError(
                "alignment needs regularizers.alignment-network: the frozen network whose features are agreed with"
            )
        backbone = load_backbone(own, regularizers.alignment_path, f, say).to(device)
        found = dataclasses.replace(found, features=backbone, feature_channels=backbone.channels(size, c, device)[-1])
    if adversarial.discriminator == "projected":
        found = dataclasses.replace(
            found, judge=load_backbone(adversarial.network, adversarial.network_path, f, say).to(device)
        )
    if config.finetune.teacher is not None:
        found = dataclasses.replace(
            found, teacher=start_autoencoder(config.finetune.teacher).to(device).requires_grad_(False).eval()
        )
    return found


def initial_discriminator(config: TrainConfig, judge: Backbone | None) -> nn.Module | None:
    """The discriminator with random weights of the run's seed; None without one.

    Errors: ConfigError for crops too small for it.
    """
    if not config.adversarial.on:
        return None
    channels: list[int] = []
    if judge is not None:
        device = next((p.device for p in judge.parameters()), torch.device("cpu"))
        channels = judge.channels(config.data.size, config.model.in_channels, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed(config.seed, INIT, 1))
        network = build_discriminator(config.adversarial, config.model.in_channels, judge, channels)
    assert isinstance(network.least_size, int)
    if config.data.size < network.least_size:
        raise ConfigError(
            f"data.size (={config.data.size}) is too small for discriminator {config.adversarial.discriminator!r}, "
            f"which needs {network.least_size}; take larger crops, or a smaller adversarial.num-layers"
        )
    return network


__all__ = [
    "Frozen",
    "initial_discriminator",
    "initial_model",
    "load_frozen",
    "start_autoencoder",
    "with_start",
]
