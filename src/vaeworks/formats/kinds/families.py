"""Which diffusion model a checkpoint holds, told by the names and shapes of its denoiser, and which VAE that was
trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...config import MODELS
from ..archive.entries import Entry

Entries = Mapping[str, Entry]
ShapeOf = Callable[[str], tuple[int, ...] | None]

DENOISER_PREFIXES = ("model.diffusion_model.", "", "diffusion_model.", "unet.", "transformer.", "net.", "model.")
"""What stands before a denoiser's names: in LDM and ComfyUI checkpoints, alone, and in what other programs save."""

TEXT_ENCODERS = (
    "cond_stage_model.",
    "conditioner.",
    "text_encoders.",
    "text_encoder.",
    "text_encoder_2.",
    "te.",
    "embedder.",
)
"""What the names of a checkpoint's text and image encoders begin with."""

OTHER_PARTS = (
    "control_model.",
    "model_ema.",
    "cc_projection.",
    "optimizer.",
    "optimizer_states.",
    "lr_schedulers.",
    "callbacks.",
)

_BESIDE = (*filter(None, DENOISER_PREFIXES), *TEXT_ENCODERS, *OTHER_PARTS)
"""What the names of everything in a checkpoint but its VAE begin with."""

SCHEDULES = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "lvlb_weights",
    "logvar",
    "scale_factor",
    "edm_mean",
    "edm_std",
    "v_pred",
    "ztsnr",
    "denoiser.sigmas",
)
"""Single tensors that checkpoints keep beside their networks."""


@dataclass(frozen=True)
class CheckpointFamily:
    """A kind of diffusion model, and what the latents are that it was trained on."""

    name: str
    """"sd1", "sdxl", "flux1", ..."""
    title: str
    """the same in words"""
    latent_channels: int
    """c of its VAE"""
    downsample_factor: int
    """f of its VAE"""
    scaling_factor: float | None
    """of its VAE's latents; None where they are not normalized by two numbers, or unknown"""
    shift_factor: float | None
    """as scaling_factor"""
    vae_prefix: str
    """what the VAE's names begin with in such a checkpoint"""
    inpainting: bool = False
    """whether the denoiser also sees a mask and the latents of the masked image"""
    whole: bool = False
    """whether text encoders are beside the denoiser"""


@dataclass(frozen=True)
class _Model:
    title: str
    vae: str | None = None
    """the VAE in MODELS that it was trained with"""
    latents: tuple[int, int] = (0, 0)
    """c and f where the VAE is not in MODELS"""
    vae_prefix: str = "vae."


FIRST_STAGE = "first_stage_model."

_MODELS: dict[str, _Model] = {
    "sd1": _Model("SD 1", "sd1", vae_prefix=FIRST_STAGE),
    "sd2": _Model("SD 2", "sd2", vae_prefix=FIRST_STAGE),
    "sdxl": _Model("SDXL", "sdxl", vae_prefix=FIRST_STAGE),
    "sdxl-refiner": _Model("SDXL's refiner", "sdxl", vae_prefix=FIRST_STAGE),
    "sd-x4-upscaler": _Model("SD x4 upscaler", "sd-x4-upscaler", vae_prefix=FIRST_STAGE),
    "playground-v2.5": _Model("Playground v2.5", None, (4, 8), FIRST_STAGE),
    "svd": _Model("Stable Video Diffusion", None, (4, 8), FIRST_STAGE),
    "sd3": _Model("SD 3", "sd3", vae_prefix=FIRST_STAGE),
    "kolors": _Model("Kolors", "sdxl", vae_prefix=FIRST_STAGE),
    "flux1": _Model("Flux.1", "flux1"),
    "flux2": _Model("Flux.2", "flux2"),
    "chroma": _Model("Chroma", "flux1"),
    "lumina2": _Model("Lumina 2 or Z-Image", "flux1"),
    "hidream": _Model("HiDream", "flux1"),
    "auraflow": _Model("AuraFlow", "sdxl"),
    "pixart-alpha": _Model("PixArt-alpha", "sd1"),
    "pixart-sigma": _Model("PixArt-Sigma", "sdxl"),
    "hunyuan-dit": _Model("HunyuanDiT", "sdxl"),
    "qwen-image": _Model("Qwen-Image", latents=(16, 8)),
    "wan2.1": _Model("Wan 2.1", latents=(16, 8)),
    "wan2.2": _Model("Wan 2.2", latents=(48, 16)),
    "hunyuan-video": _Model("HunyuanVideo", latents=(16, 8)),
    "hunyuan-video-1.5": _Model("HunyuanVideo 1.5", latents=(32, 16)),
    "hunyuan-image": _Model("HunyuanImage 2.1", latents=(64, 32)),
    "ltx-video": _Model("LTX-Video", latents=(128, 32)),
    "mochi": _Model("Mochi", latents=(12, 8)),
    "cosmos": _Model("Cosmos", latents=(16, 8)),
    "cogvideox": _Model("CogVideoX", latents=(16, 8)),
    "sana": _Model("Sana", latents=(32, 32)),
    "cascade": _Model("Stable Cascade", latents=(4, 4)),
}

UNETS = ("sd1", "sd2", "sdxl", "sdxl-refiner", "sd-x4-upscaler", "playground-v2.5", "svd", "kolors")
"""Families whose denoiser is a U-Net; the others' is a transformer."""

_SIGNATURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cascade", ("clf.1.weight",)),
    ("sd3", ("joint_blocks.0.context_block.attn.qkv.weight", "x_embedder.proj.weight")),
    ("sd3", ("transformer_blocks.0.attn.add_k_proj.weight", "pos_embed.proj.weight")),
    ("auraflow", ("double_layers.0.attn.w1q.weight",)),
    ("auraflow", ("joint_transformer_blocks.0.attn.add_k_proj.weight", "register_tokens")),
    ("hunyuan-dit", ("mlp_t5.0.weight",)),
    ("hunyuan-video", ("txt_in.individual_token_refiner.blocks.0.norm1.weight",)),
    ("hunyuan-video", ("context_embedder.token_refiner.refiner_blocks.0.norm1.weight",)),
    ("flux2", ("double_stream_modulation_img.lin.weight",)),
    ("flux2", ("double_stream_modulation_img.linear.weight",)),
    ("chroma", ("distilled_guidance_layer.in_proj.weight",)),
    ("flux1", ("double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight")),
    ("flux1", ("double_blocks.0.img_attn.norm.key_norm.weight", "img_in.weight")),
    ("flux1", ("single_transformer_blocks.0.attn.to_q.weight", "x_embedder.weight")),
    ("mochi", ("t5_yproj.weight",)),
    ("mochi", ("time_embed.pooler.to_kv.weight",)),
    ("ltx-video", ("patchify_proj.weight",)),
    ("ltx-video", ("proj_in.weight", "caption_projection.linear_1.weight", "transformer_blocks.0.attn2.norm_q.weight")),
    ("sana", ("blocks.0.mlp.inverted_conv.conv.weight",)),
    ("sana", ("transformer_blocks.0.ff.conv_inverted.weight",)),
    ("pixart-alpha", ("t_block.1.weight", "ar_embedder.mlp.0.weight")),
    ("pixart-sigma", ("t_block.1.weight",)),
    ("pixart-alpha", ("adaln_single.emb.aspect_ratio_embedder.linear_1.weight", "pos_embed.proj.weight")),
    ("pixart-sigma", ("adaln_single.emb.timestep_embedder.linear_1.weight", "pos_embed.proj.weight")),
    ("cosmos", ("blocks.block0.blocks.0.block.attn.to_q.0.weight",)),
    ("cosmos", ("blocks.0.mlp.layer1.weight", "x_embedder.proj.1.weight")),
    ("cosmos", ("learnable_pos_embed.pos_emb_t", "patch_embed.proj.weight")),
    ("lumina2", ("cap_embedder.1.weight", "noise_refiner.0.attention.qkv.weight")),
    ("lumina2", ("cap_embedder.1.weight", "noise_refiner.0.attention.to_q.weight")),
    ("lumina2", ("time_caption_embed.caption_embedder.1.weight", "noise_refiner.0.attn.to_q.weight")),
    ("cogvideox", ("patch_embed.text_proj.weight", "time_embedding.linear_1.weight")),
    ("cogvideox", ("blocks.0.norm1.linear.weight", "patch_embed.proj.weight")),
    ("hidream", ("caption_projection.0.linear.weight",)),
    ("qwen-image", ("transformer_blocks.0.img_mod.1.weight",)),
    ("wan2.1", ("head.modulation", "patch_embedding.weight")),
    ("wan2.1", ("condition_embedder.time_proj.weight", "patch_embedding.weight")),
)  # fmt: skip
"""Tensors of which a denoiser has all, the telling ones before the general ones; names as published and as diffusers
has them.

Source of the names: ComfyUI's model_detection.py and diffusers' single_file_utils.py.
"""

_CONTEXTS = {768: "sd1", 1024: "sd2", 1280: "sdxl-refiner", 2048: "sdxl"}
"""The U-Nets by the width of the text embeddings that their cross-attention sees."""

_CROSS_ATTENTION = ".transformer_blocks.0.attn2.to_k.weight"
_UNET_CONTEXTS = {
    "input_blocks.0.0.weight": (
        "input_blocks.1.1",
        "input_blocks.2.1",
        "input_blocks.4.1",
        "input_blocks.5.1",
        "middle_block.1",
    ),
    "conv_in.weight": ("down_blocks.0.attentions.0", "down_blocks.1.attentions.0", "mid_block.attentions.0"),
}
"""First convolution, and where cross-attention may be found, in LDM's and in diffusers' U-Nets."""

_KOLORS_CONDITION = 5632
"""Width of what Kolors' U-Net is told besides the text; SDXL's is 2816."""


def checkpoint_family(entries: Entries) -> CheckpointFamily | None:
    """The kind of diffusion model whose denoiser is among these tensors; None where there is none that is known."""
    for prefix in DENOISER_PREFIXES:

        def shape(name: str, prefix: str = prefix) -> tuple[int, ...] | None:
            entry = entries.get(prefix + name)
            return entry.shape if entry else None

        if name := _unet(shape, "edm_mean" in entries) or _transformer(shape):
            whole = any(other.startswith(TEXT_ENCODERS) for other in entries)
            return _family(
                name,
                "vae." if prefix in ("unet.", "transformer.") else _MODELS[name].vae_prefix,
                _inpainting(shape),
                whole,
            )
    return None


def _family(name: str, vae_prefix: str, inpainting: bool, whole: bool) -> CheckpointFamily:
    model = _MODELS[name]
    vae = MODELS[model.vae] if model.vae else None
    c, f = (vae.latent_channels, vae.downsample_factor) if vae else model.latents
    scalar = vae is not None and vae.normalization == "scalar"
    scaling, shift = (vae.scaling_factor, vae.shift_factor) if vae and scalar else (None, None)
    return CheckpointFamily(name, model.title, c, f, scaling, shift, vae_prefix, inpainting, whole)


def _unet(shape: ShapeOf, edm: bool) -> str | None:
    for first, places in _UNET_CONTEXTS.items():
        context = next(
            (found[1] for place in places if (found := shape(place + _CROSS_ATTENTION)) and len(found) > 1), None
        )
        conv = shape(first)
        if conv is None or len(conv) != 4 or context not in _CONTEXTS or not _has_output(shape):
            continue
        if shape("input_blocks.1.1.time_stack.0.attn1.to_q.weight") or shape(
            "down_blocks.0.attentions.0.temporal_transformer_blocks.0.attn1.to_q.weight"
        ):
            return "svd"
        if context == 1024 and conv[1] == 7:
            return "sd-x4-upscaler"
        condition = shape("label_emb.0.0.weight") or shape("add_embedding.linear_1.weight")
        if context == 2048 and condition and condition[1:] == (_KOLORS_CONDITION,):
            return "kolors"
        return "playground-v2.5" if context == 2048 and edm else _CONTEXTS[context]
    return None


def _has_output(shape: ShapeOf) -> bool:
    """A ControlNet has a U-Net's first half only."""
    return shape("out.2.weight") is not None or shape("conv_out.weight") is not None


def _transformer(shape: ShapeOf) -> str | None:
    if shape("controlnet_blocks.0.weight") or shape("controlnet_x_embedder.weight"):
        return None
    name = next((name for name, keys in _SIGNATURES if all(shape(key) is not None for key in keys)), None)
    if name == "wan2.1" and (shape("patch_embedding.weight") or ())[1:2] == (_MODELS["wan2.2"].latents[0],):
        return "wan2.2"
    if name == "hunyuan-video" and len(shape("img_in.proj.weight") or shape("x_embedder.proj.weight") or ()) == 4:
        return "hunyuan-image"
    if name == "hunyuan-video" and (shape("cond_type_embedding.weight") or shape("cond_type_embed.weight")):
        return "hunyuan-video-1.5"
    return name


def _inpainting(shape: ShapeOf) -> bool:
    """Whether the first layer takes a mask and masked latents as well: 4 + 1 + 4 channels, or Flux.1 Fill's 64 + 64 +
    256."""
    conv = shape("input_blocks.0.0.weight") or shape("conv_in.weight")
    linear = shape("img_in.weight") or shape("x_embedder.weight")
    return bool(conv and len(conv) == 4 and conv[1] == 9) or bool(linear and len(linear) == 2 and linear[1] == 384)


def is_denoiser_name(name: str) -> bool:
    """Whether a name is one of a checkpoint's parts besides its VAE: the denoiser, text encoders, noise schedules."""
    return name in SCHEDULES or name.startswith(_BESIDE)
