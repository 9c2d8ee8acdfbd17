"""Pipelines with untrained networks of a chosen size, for a VAE's latents and the words of a data set."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..config import DenoiserConfig
from ..errors import ConfigError
from ..formats.diffusers import vae_for_pipeline
from ..models import Autoencoder
from ..random_streams import PAINT_WEIGHTS, random_seed
from .tiny import SD_NOISE, diffusers_library, tiny_t5

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ROOM = 4
"""Tokens that a prompt may be longer than the longest caption."""

TABLE = 4
"""Largest picture, in sides of the training pictures: the size of the transformer's table of positions."""


def trained_tokenizer(captions: Iterable[str], config: DenoiserConfig) -> Any:
    """A CLIP tokenizer (byte pairs) whose merges are learned from the captions. Any text has tokens.

    Its longest prompt is config.tokens, or the longest caption and ROOM, at most 77.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import CLIPTokenizer

    texts = sorted(set(captions))
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    plain = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77)
    backend = plain.backend_tokenizer
    learner = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    learner.train_from_iterator(
        texts,
        BpeTrainer(
            vocab_size=len(letters) + config.vocabulary,
            initial_alphabet=letters,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    known = dict.fromkeys(tokens[:-2])
    known |= dict.fromkeys(a + b for a, b in merges)
    vocabulary = {token: i for i, token in enumerate([*known, *tokens[-2:]])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
    longest = max((len(ids) for ids in tokenizer(texts, verbose=False).input_ids), default=2) if texts else 2
    tokenizer.model_max_length = config.tokens or min(77, longest + ROOM)
    return tokenizer


def blank_pipeline(
    autoencoder: Autoencoder, config: DenoiserConfig, tokenizer: Any, size: int, objective: str, seed: int
) -> DiffusionPipeline:
    """A pipeline with new networks around a VAE: StableDiffusion3Pipeline or StableDiffusionPipeline.

    tokenizer: as `trained_tokenizer` makes it. size: side of the training pictures, in pixels. objective: as in
    PaintConfig. seed: of the first weights. The VAE's latents are normalized as `autoencoder.normalize` does; what the
    pipeline's class does not apply is folded into the VAE's weights.
    Errors: ConfigError for pictures that the latents and the denoiser's patches do not divide.
    """
    check_size(autoencoder, config, size)
    side = size // autoencoder.downsample_factor
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(random_seed(seed, PAINT_WEIGHTS))
        make = _sd3 if config.kind == "sd3" else _sd1
        return make(autoencoder, config, tokenizer, side, objective)


def fitting_vae(kind: str, autoencoder: Autoencoder) -> Any:
    """The VAE for a class of pipeline, as stock diffusers. Errors: ConfigError where that has no class for it."""
    if autoencoder.config.latents_patch > 1:
        patch = autoencoder.config.latents_patch
        raise ConfigError(
            f"the latents of this {autoencoder.config.name} VAE are normalized in patches of {patch}x{patch}, which "
            "only Flux.2's pipelines do; take a VAE without such patches"
        )
    vae = vae_for_pipeline(kind, autoencoder)
    if type(vae).__name__ == "AutoencoderAdapter":
        raise ConfigError(
            f"diffusers has no class for the architecture of this {autoencoder.config.name} VAE, so that the pipeline "
            "could not be saved; take a VAE with diffusers' architecture"
        )
    return vae


def check_blank(autoencoder: Autoencoder, config: DenoiserConfig, size: int) -> None:
    """Check, before anything is encoded, that a pipeline of new networks can be built and saved.

    Errors: ConfigError; FormatError for a text encoder that cannot be read.
    """
    check_size(autoencoder, config, size)
    fitting_vae("StableDiffusion3Pipeline" if config.kind == "sd3" else "StableDiffusionPipeline", autoencoder)
    if config.text_encoder is not None:
        _published_text(config.text_encoder)


def check_size(autoencoder: Autoencoder, config: DenoiserConfig, size: int) -> None:
    """Check that the latents of pictures of this size fit a denoiser's patches or levels. Errors: ConfigError."""
    f = autoencoder.downsample_factor
    patch = config.patch_of(f) if config.kind == "sd3" else 2 ** (len(_levels(config.width)) - 1)
    multiple = f * patch
    why = f"the VAE's downsample_factor (={f}) times {patch}, "
    why += "the side of the denoiser's patches" if config.kind == "sd3" else "what the U-Net halves"
    if config.kind == "sd1" and multiple % 8:
        multiple = math.lcm(8, multiple)
        why = "pipelines with a U-Net need 8, whatever the VAE"
    if size % multiple:
        raise ConfigError(
            f"size (={size}) must be divisible by {multiple}: {why}; the nearest is "
            f"{max(1, round(size / multiple)) * multiple}"
        )


def _sd3(
    autoencoder: Autoencoder, config: DenoiserConfig, tokenizer: Any, side: int, objective: str
) -> DiffusionPipeline:
    diffusers = diffusers_library()
    c, patch = autoencoder.latent_channels, config.patch_of(autoencoder.downsample_factor)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=side,
        patch_size=patch,
        in_channels=c,
        out_channels=c,
        num_layers=config.depth,
        attention_head_dim=config.head_dim,
        num_attention_heads=config.width // config.head_dim,
        caption_projection_dim=config.width,
        joint_attention_dim=2 * config.text_width,
        pooled_projection_dim=2 * config.text_width,
        pos_embed_max_size=TABLE * side // patch,
        qk_norm="rms_norm",
    )
    _zero(transformer.norm_out.linear, transformer.proj_out)  # adaLN-Zero (arXiv 2212.09748): blocks begin as nothing
    for block in transformer.transformer_blocks:
        _zero(block.norm1.linear, block.norm1_context.linear)
    encoders = [_clip(config, tokenizer, projection=True) for _ in range(2)]
    return diffusers.StableDiffusion3Pipeline(
        vae=fitting_vae("StableDiffusion3Pipeline", autoencoder),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0),
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        **silent_t5(2 * config.text_width),
    )


def silent_t5(width: int) -> dict[str, Any]:
    """A T5 of a few hundred weights whose result is always zero: what an SD3 without T5 sees.

    diffusers loads a folder of an SD3 without T5 only if a None is passed for it; with this one it loads as it is.
    """
    parts = tiny_t5("_3", width=width)
    torch.nn.init.zeros_(parts["text_encoder_3"].encoder.final_layer_norm.weight)
    parts["text_encoder_3"].requires_grad_(False)
    return parts


def _sd1(
    autoencoder: Autoencoder, config: DenoiserConfig, tokenizer: Any, side: int, objective: str
) -> DiffusionPipeline:
    diffusers = diffusers_library()
    c = autoencoder.latent_channels
    if config.text_encoder is None:
        text_encoder = _clip(config, tokenizer)
    else:
        tokenizer, text_encoder = _published_text(config.text_encoder)
    levels = _levels(config.width)
    inner = len(levels) - 1  # with cross-attention; the smallest level of SD 1 has none
    unet = diffusers.UNet2DConditionModel(
        sample_size=side,
        in_channels=c,
        out_channels=c,
        block_out_channels=levels,
        down_block_types=(*["CrossAttnDownBlock2D"] * inner, "DownBlock2D"),
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * inner),
        layers_per_block=config.depth,
        attention_head_dim=config.head_dim,
        cross_attention_dim=text_encoder.config.hidden_size,
    )
    kind = "v_prediction" if objective == "v" else "epsilon"
    return diffusers.StableDiffusionPipeline(
        vae=fitting_vae("StableDiffusionPipeline", autoencoder),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(
            **SD_NOISE, clip_sample=False, set_alpha_to_one=False, prediction_type=kind, timestep_spacing="leading"
        ),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _levels(width: int) -> tuple[int, ...]:
    """Widths of the U-Net's levels: SD 1's four, or two in a small U-Net, as its pictures are small, too."""
    return (width, 2 * width, 4 * width, 4 * width) if width >= 320 else (width, 2 * width)


def _zero(*layers: nn.Linear) -> None:
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def _clip(config: DenoiserConfig, tokenizer: Any, *, projection: bool = False) -> Any:
    """A CLIP text encoder with new weights."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    width = config.text_width
    settings = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width if width >= 256 else 2 * width,
        projection_dim=width,
        num_hidden_layers=config.text_layers,
        num_attention_heads=max(1, width // 64) if width >= 64 else 1,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(settings) if projection else CLIPTextModel(settings)


def _published_text(name: str) -> tuple[Any, Any]:
    """Tokenizer and text encoder of a stored pipeline. Errors: FormatError."""
    from transformers import CLIPTextModel, CLIPTokenizer

    from .stable_diffusion import format_errors

    with format_errors(name):
        return (
            CLIPTokenizer.from_pretrained(name, subfolder="tokenizer", use_safetensors=True, trust_remote_code=False),
            CLIPTextModel.from_pretrained(
                name, subfolder="text_encoder", use_safetensors=True, trust_remote_code=False
            ).requires_grad_(False),
        )
