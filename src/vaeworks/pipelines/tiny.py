"""Tiny pipelines, built without any file: all parts of the real ones, with random weights, in sizes that run in a
second."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..config import LatentConfig
from ..errors import MissingExtraError
from ..formats.diffusers import vae_for_pipeline
from ..models import Autoencoder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TINY_SIZE = 64
"""Default image side of tiny pipelines, in pixels."""

_WIDTH = 32  # of tiny networks
SD_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
_CHATTER = {
    # an SD3 without T5
    "diffusers.pipelines.pipeline_utils": "=None of type <class 'NoneType'> cannot be saved.",
    # about image processors, which no pipeline here uses
    "transformers.utils.import_utils": "requires torchvision (not installed); falling back",
    # an empty list of modules, at every change of dtype (diffusers 0.42)
    "diffusers.models.modeling_utils": "that should be kept in float32: [].",
}  # messages about every pipeline that no user can act on


def diffusers_library() -> ModuleType:
    """The module diffusers. Errors: MissingExtraError if it or transformers is not installed."""
    for logger in _CHATTER:
        logging.getLogger(logger).addFilter(_is_no_chatter)
    try:
        import diffusers
        import transformers  # noqa: F401
    except ImportError:
        raise MissingExtraError("diffusers and transformers", "diffusers", "painting") from None
    return diffusers


def _is_no_chatter(record: logging.LogRecord) -> bool:
    return _CHATTER[record.name] not in record.getMessage()


@contextmanager
def _seeded() -> Iterator[None]:
    """Draw the same random weights every time, and leave PyTorch's random state unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(
            0
        )  # torch.manual_seed would also seed the GPUs, whose state is not restored
        yield


def _tiny_sd(autoencoder: Autoencoder) -> DiffusionPipeline:
    """Stable Diffusion 1: U-Net, one CLIP text encoder."""
    diffusers = diffusers_library()
    with _seeded():
        parts = {"unet": _tiny_unet(autoencoder, cross_attention_dim=_WIDTH), **_tiny_clip()}
    parts |= {"scheduler": diffusers.DDIMScheduler(**SD_NOISE, clip_sample=False, set_alpha_to_one=False)}
    parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return _assemble(diffusers.StableDiffusionPipeline, autoencoder, parts)


def _tiny_sdxl(autoencoder: Autoencoder) -> DiffusionPipeline:
    """SDXL: U-Net conditioned on the image size, two CLIP text encoders."""
    diffusers = diffusers_library()
    with _seeded():
        unet = _tiny_unet(
            autoencoder,
            cross_attention_dim=2 * _WIDTH,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + _WIDTH,
        )
        parts = {"unet": unet, **_tiny_clip(), **_tiny_clip("_2", projection=True)}
    parts |= {"scheduler": diffusers.EulerDiscreteScheduler(**SD_NOISE), "add_watermarker": False}
    return _assemble(diffusers.StableDiffusionXLPipeline, autoencoder, parts)


def _tiny_sd3(autoencoder: Autoencoder) -> DiffusionPipeline:
    """Stable Diffusion 3: MMDiT with 2x2 patches, two CLIP text encoders and T5."""
    diffusers = diffusers_library()
    config = autoencoder.config
    with _seeded():
        transformer = diffusers.SD3Transformer2DModel(
            sample_size=_tiny_latent_size(config),
            patch_size=2,
            in_channels=config.latent_channels,
            out_channels=config.latent_channels,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=_WIDTH,
            joint_attention_dim=2 * _WIDTH,
            pooled_projection_dim=2 * _WIDTH,
        )
        clips = _tiny_clip(projection=True) | _tiny_clip("_2", projection=True)
        parts = {"transformer": transformer, **clips, **tiny_t5("_3", width=2 * _WIDTH)}
    parts |= {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)}
    return _assemble(diffusers.StableDiffusion3Pipeline, autoencoder, parts)


def _tiny_flux(autoencoder: Autoencoder) -> DiffusionPipeline:
    """Flux.1: MMDiT on packed latents, a CLIP and a T5 text encoder."""
    diffusers = diffusers_library()
    with _seeded():
        transformer = diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=4 * autoencoder.config.latent_channels,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=_WIDTH,
            pooled_projection_dim=_WIDTH,
            guidance_embeds=True,
            axes_dims_rope=(4, 4, 8),
        )
        parts = {"transformer": transformer, **_tiny_clip(), **tiny_t5("_2", width=_WIDTH)}
    parts |= {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}
    pipe = _assemble(diffusers.FluxPipeline, autoencoder, parts)
    pipe.default_sample_size = _tiny_latent_size(autoencoder.config)  # the class has 128, an image of a megapixel
    return pipe


def _tiny_flux2(autoencoder: Autoencoder) -> DiffusionPipeline:
    """Flux.2 klein: MMDiT on packed latents, normalized by statistics in the VAE, and Qwen 3 as text encoder."""
    diffusers = diffusers_library()
    with _seeded():
        transformer = diffusers.Flux2Transformer2DModel(
            in_channels=4 * autoencoder.config.latent_channels,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * _WIDTH,  # of three hidden layers
            timestep_guidance_channels=_WIDTH,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
        parts = {"transformer": transformer, **_tiny_qwen3()}
    parts |= {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)}
    pipe = _assemble(diffusers.Flux2KleinPipeline, autoencoder, parts)
    pipe.default_sample_size = _tiny_latent_size(autoencoder.config)
    return pipe


TINY: dict[str, Callable[[Autoencoder], DiffusionPipeline]] = {
    "tiny": _tiny_sd,
    "tiny-sdxl": _tiny_sdxl,
    "tiny-sd3": _tiny_sd3,
    "tiny-flux": _tiny_flux,
    "tiny-flux2": _tiny_flux2,
}
"""Functions that build a pipeline with random weights, whose denoiser takes the VAE's latents. Errors:
MissingExtraError."""


def _assemble(kind: type[DiffusionPipeline], autoencoder: Autoencoder, parts: dict[str, Any]) -> DiffusionPipeline:
    for part in parts.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False).eval()  # T5 has dropout
    return kind(vae=vae_for_pipeline(kind.__name__, autoencoder), **parts)


def _tiny_latent_size(config: LatentConfig) -> int:
    return max(2, TINY_SIZE // config.downsample_factor)


def _tiny_unet(autoencoder: Autoencoder, **options: Any) -> nn.Module:
    return diffusers_library().UNet2DConditionModel(
        sample_size=_tiny_latent_size(autoencoder.config),
        in_channels=autoencoder.config.latent_channels,
        out_channels=autoencoder.config.latent_channels,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=8,
        **options,
    )


def _tiny_clip(suffix: str = "", *, projection: bool = False) -> dict[str, Any]:
    """A text encoder, and a tokenizer with a token for each byte inside a word and at its end."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        projection_dim=_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)
    return {f"tokenizer{suffix}": tokenizer, f"text_encoder{suffix}": encoder}


def tiny_t5(suffix: str, width: int) -> dict[str, Any]:
    """A text encoder, and a tokenizer with a token for each printable ASCII character."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    tokens = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((chr(code), -3.0) for code in range(33, 127)),
    ]
    tokenizer = T5Tokenizer(vocab=tokens, extra_ids=0, model_max_length=512)
    config = T5Config(vocab_size=len(tokens), d_model=width, d_kv=8, d_ff=2 * width, num_layers=1, num_heads=4)
    return {f"tokenizer{suffix}": tokenizer, f"text_encoder{suffix}": T5EncoderModel(config)}


def _tiny_qwen3() -> dict[str, Any]:
    """A text encoder as deep as the pipeline needs (it reads layers 9, 18 and 27), and a tokenizer of bytes."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

    tokens = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
    tokenizer = Qwen2Tokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=512)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=_WIDTH,
        num_hidden_layers=27,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    return {"tokenizer": tokenizer, "text_encoder": Qwen3ForCausalLM(config)}
