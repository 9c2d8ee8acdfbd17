"""What a file is that holds no VAE of ours: told by real names, those of diffusers' and transformers' own classes where
there are any."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import diffusers
import pytest
import torch
from configs import ATTENTIVE
from safetensors.torch import save_file
from torch import nn

import vaeworks as vw
from vaeworks.config import MODELS, TINY_MODELS
from vaeworks.formats.archive.entries import Entry
from vaeworks.formats.io import stored_tensors
from vaeworks.formats.kinds import checkpoint_family, foreign_kind, is_denoiser_name, unsupported_class, unsupported_vae
from vaeworks.formats.locate import locate

Shapes = Mapping[str, tuple[int, ...]]


def entries(shapes: Shapes, prefix: str = "") -> dict[str, Entry]:
    return {prefix + name: Entry("F16", tuple(shape)) for name, shape in shapes.items()}


def shapes_of(module: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def of_class(name: str, **arguments: object) -> Shapes:
    """Names and shapes of a class of diffusers', without weights."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # weight_norm, in audio VAEs
        return shapes_of(getattr(diffusers, name)(**arguments))


VAE_CLASSES: dict[str, tuple[str, dict[str, object]]] = {
    "AutoencoderDC": ("DC-AE", {}),
    "AutoencoderKLWan": ("Wan 2.1 or Qwen-Image", {"base_dim": 16}),
    "AutoencoderKLQwenImage": ("Wan 2.1 or Qwen-Image", {"base_dim": 16}),
    "AutoencoderKLQwenImage21": ("Qwen-Image 2.1", {}),
    "AutoencoderKLHunyuanVideo": ("video VAE of HunyuanVideo", {}),
    "AutoencoderKLHunyuanVideo15": ("HunyuanVideo 1.5", {}),
    "AutoencoderKLHunyuanImageRefiner": ("HunyuanImage's refiner", {}),
    "AutoencoderKLHunyuanImage": (
        "HunyuanImage 2.1",
        {
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 64,
            "block_out_channels": (128, 256, 512, 512, 1024, 1024),
            "layers_per_block": 2,
            "spatial_compression_ratio": 32,
            "sample_size": 384,
        },
    ),
    "AutoencoderKLLTXVideo": ("LTX-Video", {}),
    "AutoencoderKLLTX2Video": ("LTX-Video", {}),
    "AutoencoderKLLTX2Audio": ("audio VAE of LTX-2", {}),
    "AutoencoderKLMochi": ("Mochi", {}),
    "AutoencoderKLCosmos": ("Cosmos", {}),
    "AutoencoderKLTemporalDecoder": ("Stable Video Diffusion", {}),
    "AutoencoderKLCogVideoX": ("CogVideoX", {}),
    "AutoencoderKLAllegro": ("Allegro", {}),
    "AutoencoderKLMagvit": ("MAGVIT", {}),
    "AsymmetricAutoencoderKL": ("asymmetric", {}),
    "AutoencoderOobleck": ("Oobleck", {}),
    "VQModel": ("VQ autoencoder", {}),
    "ConsistencyDecoderVAE": ("consistency decoder", {}),
}
"""VAEs of diffusers' that are not ours: a word of the answer, and constructor arguments."""


@pytest.mark.parametrize("name", [name for name in VAE_CLASSES if hasattr(diffusers, name)])
def test_vaes_that_are_not_supported_have_a_name(name: str) -> None:
    """By its tensors, bare or within a checkpoint, and by its class, each VAE of diffusers' that is not ours is called
    what it is."""
    word, arguments = VAE_CLASSES[name]
    shapes = of_class(name, **arguments)
    for prefix in ("", "vae.", "first_stage_model."):
        kind = foreign_kind(entries(shapes, prefix))
        assert kind is not None and word in kind and "vaeworks does not support" in kind
        assert unsupported_vae(entries(shapes, prefix)) == kind
    by_class = unsupported_class(name)
    assert by_class is not None and name in by_class


def test_every_autoencoder_class_of_diffusers_is_ours_or_known() -> None:
    """No class of diffusers' with Autoencoder or VAE in its name is left without words, and only ours have none."""
    names = [
        name
        for name in dir(diffusers)
        if re.search(r"Autoencoder|VAE|VQModel", name) and isinstance(getattr(diffusers, name), type)
    ]
    assert {name for name in names if unsupported_class(name) is None} == {
        "AutoencoderKL",
        "AutoencoderKLFlux2",
        "AutoencoderTiny",
    }


ORIGINALS: dict[str, Shapes] = {
    "Wan 2.1 or Qwen-Image": {
        "decoder.middle.0.residual.0.gamma": (384, 1, 1, 1),
        "decoder.head.0.gamma": (96, 1, 1, 1),
    },
    "Wan 2.2": {
        "decoder.middle.0.residual.0.gamma": (1024, 1, 1, 1),
        "decoder.upsamples.0.upsamples.0.residual.2.weight": (1024, 1024, 3, 3, 3),
    },
    "Stable Video Diffusion": {"decoder.up.0.block.0.norm1.weight": (128,), "decoder.mid.block_1.mix_factor": (1,)},
    "HunyuanVideo": {
        "decoder.conv_in.conv.weight": (512, 16, 3, 3, 3),
        "decoder.up.0.block.0.conv1.conv.weight": (128, 256, 3, 3, 3),
    },
    "HunyuanImage 2.1": {
        "decoder.up.0.block.0.norm1.weight": (1024,),
        "decoder.conv_in.weight": (1024, 64, 3, 3),
        "encoder.down.0.downsample.conv.weight": (64, 128, 3, 3),
    },
    "HunyuanImage's refiner": {
        "decoder.up.0.block.0.norm1.weight": (1024,),
        "decoder.conv_in.weight": (1024, 32, 3, 3, 3),
    },
    "a video VAE": {"decoder.up.0.block.0.norm1.weight": (512,), "decoder.conv_in.weight": (512, 4, 3, 3, 3)},
    "an audio VAE (its convolutions": {
        "decoder.up.0.block.0.norm1.weight": (512,),
        "decoder.conv_in.weight": (512, 20, 3),
    },
    "LTX-Video": {"decoder.up_blocks.0.res_blocks.0.conv1.conv.weight": (1024, 1024, 3, 3, 3)},
    "Mochi": {"blocks.2.blocks.3.stack.5.weight": (256, 256, 3, 3, 3)},
    "Cosmos": {"decoder.unpatcher3d.wavelets": (2,), "decoder.conv_in.0.conv3d.weight": (512, 16, 1, 3, 3)},
    "DC-AE": {"decoder.stages.1.op_list.0.main.conv.conv.bias": (256,), "encoder.project_in.conv.bias": (128,)},
    "VQ autoencoder": {"decoder.up.0.block.0.norm1.weight": (128,), "quantize.embedding.weight": (8192, 3)},
    "stage A of Stable Cascade": {"vquantizer.codebook.weight": (8192, 4)},
    "stage C of Stable Cascade": {"backbone.1.0.block.0.1.num_batches_tracked": ()},
    "TAEHV": {"encoder.0.weight": (64, 3, 3, 3), "decoder.1.weight": (256, 16, 3, 3), "decoder.22.bias": (3,)},
    "Oobleck": {"decoder.layers.1.layers.0.beta": (2048,)},
    "ACE-Step": {"vocoder.backbone.channel_layers.0.0.bias": (1,)},
}
"""VAEs under the names of their authors."""


@pytest.mark.parametrize("word", ORIGINALS)
def test_vaes_under_their_authors_names(word: str) -> None:
    """The same by the names that ComfyUI looks for."""
    for prefix in ("", "vae."):
        kind = foreign_kind(entries(ORIGINALS[word], prefix))
        assert kind is not None and word in kind and "does not support" in kind


LORAS: dict[str, Shapes] = {
    "a LoRA (for an SD 1 U-Net)": {
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768),
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 768),
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": (320, 4),
    },
    "a LoRA (for an SD 2 U-Net)": {
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (8, 1024)
    },
    "a LoRA (for an SDXL U-Net)": {
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 1280),
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k.lora_down.weight": (4, 640),
    },
    "a LoRA (for the U-Net of SDXL's refiner)": {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": (4, 1280)
    },
    "a LoRA (for Flux)": {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (16, 3072)},
    "a LoRA (for Flux.2)": {"transformer.double_stream_modulation_img.linear.lora_A.weight": (16, 6144)},
    "a LoRA (for SD 3 or a model like it)": {
        "transformer.transformer_blocks.0.attn.add_k_proj.lora_A.weight": (16, 1536)
    },
    "a LoRA (for a U-Net)": {"unet.down_blocks.0.attentions.0.proj_in.lora.down.weight": (4, 320)},
    "a LoRA (for a text encoder)": {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768)},
    "a LyCORIS/LoHa (for a U-Net)": {"lora_unet_down_blocks_0_attentions_0_proj_in.hada_w1_a": (320, 4)},
    "a LyCORIS/LoKr (for Flux)": {"lora_unet_double_blocks_0_img_mlp_0.lokr_w1": (16, 16)},
    "a LyCORIS/full difference (for a U-Net)": {"lora_unet_mid_block_resnets_0_conv1.diff": (1280, 1280, 3, 3)},
}


@pytest.mark.parametrize("kind", LORAS)
def test_loras_say_what_they_are_for(kind: str) -> None:
    """LoRAs of kohya, diffusers and LyCORIS, by names and by the width of the text embeddings."""
    assert foreign_kind(entries(LORAS[kind])) == kind


UNET = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 8}
DOWN, UP = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")


def unet(context: int, channels: int = 4, **more: object) -> Shapes:
    """A small U-Net under diffusers' names."""
    layers = {"down_block_types": DOWN, "up_block_types": UP, "cross_attention_dim": context, "in_channels": channels}
    return of_class("UNet2DConditionModel", **UNET, **layers, **more)


def ldm_unet(context: int, channels: int = 4, first: str = "input_blocks.1.1", **more: tuple[int, ...]) -> Shapes:
    """What tells of a U-Net under LDM's names."""
    return {
        "time_embed.0.weight": (1280, 320),
        "input_blocks.0.0.weight": (320, channels, 3, 3),
        f"{first}.transformer_blocks.0.attn2.to_k.weight": (320, context),
        "out.2.weight": (4, 320, 3, 3),
        **{name.replace("__", "."): shape for name, shape in more.items()},
    }


SDXL_TEXT = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
SMALL = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1}

DENOISERS: dict[str, tuple[str, Shapes]] = {
    "sd1": ("sd1", ldm_unet(768)),
    "sd2": ("sd2", ldm_unet(1024)),
    "sdxl": ("sdxl", ldm_unet(2048, first="input_blocks.4.1", label_emb__0__0__weight=(1280, 2816))),
    "refiner": ("sdxl-refiner", ldm_unet(1280, first="input_blocks.4.1", label_emb__0__0__weight=(1536, 2560))),
    "upscaler": ("sd-x4-upscaler", ldm_unet(1024, 7, first="input_blocks.2.1")),
    "svd": ("svd", ldm_unet(1024, 8, input_blocks__1__1__time_stack__0__attn1__to_q__weight=(320, 320))),
    "sd3": (
        "sd3",
        {"joint_blocks.0.context_block.attn.qkv.weight": (4608, 1536), "x_embedder.proj.weight": (1536, 16, 2, 2)},
    ),
    "flux1": ("flux1", {"double_blocks.0.img_attn.norm.key_norm.scale": (128,), "img_in.weight": (3072, 64)}),
    "flux1-depth": ("flux1", {"double_blocks.0.img_attn.norm.key_norm.scale": (128,), "img_in.weight": (3072, 128)}),
    "flux2": (
        "flux2",
        {
            "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
            "img_in.weight": (6144, 128),
            "double_stream_modulation_img.lin.weight": (36864, 6144),
        },
    ),
    "chroma": (
        "chroma",
        {
            "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
            "img_in.weight": (3072, 64),
            "distilled_guidance_layer.in_proj.weight": (5120, 64),
        },
    ),
    "wan2.1": ("wan2.1", {"head.modulation": (1, 2, 1536), "patch_embedding.weight": (1536, 16, 1, 2, 2)}),
    "wan2.2": ("wan2.2", {"head.modulation": (1, 2, 3072), "patch_embedding.weight": (3072, 48, 1, 2, 2)}),
    "pixart": ("pixart-sigma", {"t_block.1.weight": (6912, 1152), "blocks.0.attn.qkv.weight": (3456, 1152)}),
    "hunyuan-image": (
        "hunyuan-image",
        {"txt_in.individual_token_refiner.blocks.0.norm1.weight": (3584,), "img_in.proj.weight": (3584, 64, 1, 1)},
    ),
}
"""Denoisers under their authors' names, and their families."""


@pytest.mark.parametrize("case", DENOISERS)
def test_families_by_the_authors_names(case: str) -> None:
    """A denoiser alone, in an LDM or ComfyUI checkpoint, is of one family, with the constants of that family's VAE."""
    expected, shapes = DENOISERS[case]
    for prefix in ("", "model.diffusion_model.", "diffusion_model."):
        family = checkpoint_family(entries(shapes, prefix))
        assert family is not None and family.name == expected
        assert not family.inpainting
        if expected in MODELS and MODELS[expected].normalization == "scalar":
            vae = MODELS[expected]
            assert (family.scaling_factor, family.shift_factor) == (vae.scaling_factor, vae.shift_factor)
            assert (family.latent_channels, family.downsample_factor) == (vae.latent_channels, vae.downsample_factor)
        kind = foreign_kind(entries(shapes, prefix))
        assert kind is not None and family.title in kind and "without a VAE" in kind


DIFFUSERS_DENOISERS: dict[str, tuple[str, Shapes]] = {
    "sd1": ("sd1", unet(768)),
    "sd2": ("sd2", unet(1024)),
    "sdxl": ("sdxl", unet(2048, **SDXL_TEXT, projection_class_embeddings_input_dim=2816)),
    "kolors": ("kolors", unet(2048, **SDXL_TEXT, projection_class_embeddings_input_dim=5632)),
    "sd3": ("sd3", of_class("SD3Transformer2DModel", **SMALL, caption_projection_dim=32)),
    "flux1": ("flux1", of_class("FluxTransformer2DModel", **SMALL, num_single_layers=1, axes_dims_rope=(4, 4, 8))),
    "flux2": ("flux2", of_class("Flux2Transformer2DModel", **SMALL, num_single_layers=1, axes_dims_rope=(4, 4, 4, 4))),
    "qwen-image": ("qwen-image", of_class("QwenImageTransformer2DModel", **SMALL, axes_dims_rope=(4, 4, 8))),
    "wan2.1": ("wan2.1", of_class("WanTransformer3DModel", **SMALL, ffn_dim=32)),
    "sana": ("sana", of_class("SanaTransformer2DModel", **SMALL, num_cross_attention_heads=1, cross_attention_dim=112)),
    "pixart-alpha": ("pixart-alpha", of_class("PixArtTransformer2DModel", num_layers=1)),
}  # fmt: skip
"""The same, small, as diffusers makes them."""


@pytest.mark.parametrize("case", DIFFUSERS_DENOISERS)
def test_families_by_the_names_of_diffusers(case: str) -> None:
    """diffusers' own classes, alone and as a part of a whole, belong to the family that they are of."""
    expected, shapes = DIFFUSERS_DENOISERS[case]
    for prefix in ("", "unet.", "transformer."):
        family = checkpoint_family(entries(shapes, prefix))
        assert family is not None and family.name == expected
        kind = foreign_kind(entries(shapes, prefix))
        assert kind is not None and family.title in kind


def test_inpainting_shows_in_the_first_layer() -> None:
    """Nine channels into SD's U-Nets, 384 into Flux.1 Fill, are a mask and masked latents as well."""
    fill = {"double_blocks.0.img_attn.norm.key_norm.scale": (128,), "img_in.weight": (3072, 384)}
    for shapes in (ldm_unet(768, 9), unet(768, 9), fill):
        family = checkpoint_family(entries(shapes))
        assert family is not None and family.inpainting
        kind = foreign_kind(entries(shapes))
        assert kind is not None and "for inpainting" in kind


def test_where_a_checkpoint_keeps_its_vae() -> None:
    """SD's under first_stage_model., what ComfyUI packaged later under vae.; Playground's is known by its edm_mean."""
    prefix = "model.diffusion_model."
    expected = {
        "sd1": "first_stage_model.",
        "sdxl": "first_stage_model.",
        "sd3": "first_stage_model.",
        "flux1": "vae.",
        "flux2": "vae.",
    }
    for case, vae_prefix in expected.items():
        family = checkpoint_family(entries(DENOISERS[case][1], prefix))
        assert family is not None and family.vae_prefix == vae_prefix
    playground = checkpoint_family(entries(DENOISERS["sdxl"][1], prefix) | entries({"edm_mean": (4,), "edm_std": (4,)}))
    assert playground is not None and playground.name == "playground-v2.5" and playground.scaling_factor is None


def test_a_stripped_checkpoint_is_no_bare_denoiser() -> None:
    """With text encoders beside the denoiser, the answer speaks of a checkpoint in which the VAE is missing."""
    parts = entries(ldm_unet(768), "model.diffusion_model.") | entries(
        {"cond_stage_model.transformer.text_model.final.weight": (768,)}
    )
    family = checkpoint_family(parts)
    assert family is not None and family.whole
    assert foreign_kind(parts) == "a checkpoint of SD 1 in which no VAE is baked; pass a VAE's own file"
    assert foreign_kind(entries(ldm_unet(768))) == "the U-Net of SD 1 without a VAE"


OTHERS: dict[str, Shapes] = {
    "a ControlNet": {
        "control_model.time_embed.0.weight": (1280, 320),
        "control_model.input_blocks.0.0.weight": (320, 4, 3, 3),
    },
    "an IP-Adapter": {"image_proj.proj.weight": (3072, 1024), "ip_adapter.1.to_k_ip.weight": (320, 768)},
    "a motion module (AnimateDiff)": {"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": (320,)},
    "a textual inversion embedding": {"emb_params": (4, 768)},
    "a hypernetwork": {
        "768.0.linear.0.weight": (1536, 768),
        "768.0.linear.0.bias": (1536,),
        "768.1.linear.1.weight": (768, 1536),
    },
    "a text encoder (T5)": {
        "encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096),
        "shared.weight": (32128, 4096),
    },
    "a language model": {
        "model.layers.0.self_attn.q_proj.weight": (4096, 4096),
        "model.embed_tokens.weight": (128000, 4096),
    },
    "an upscaler (ESRGAN)": {"model.0.weight": (64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)},
    "the state of an optimizer": {"state.0.exp_avg": (320, 4, 3, 3), "state.0.exp_avg_sq": (320, 4, 3, 3)},
    "the encoder of a VAE without its decoder": {
        "encoder.down.0.block.0.norm1.weight": (128,),
        "encoder.conv_in.weight": (128, 3, 3, 3),
    },
    "a face restorer (CodeFormer)": {
        "quantize.embedding.weight": (1024, 256),
        "fuse_convs_dict.32.scale.0.weight": (256, 256, 3, 3),
    },
    "a file without tensors": {},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files(kind: str) -> None:
    """What else lies about in the folders of models."""
    assert foreign_kind(entries(OTHERS[kind])) == kind


def test_diffusers_and_embedding_files_of_one_tensor() -> None:
    """diffusers' parts by its own classes; its textual inversion is one tensor, named like the token."""
    assert foreign_kind(entries(of_class("ControlNetModel"))) == "a ControlNet"
    assert foreign_kind(entries(of_class("T2IAdapter"))) == "a T2I-Adapter"
    assert foreign_kind(entries(of_class("MotionAdapter"))) == "a motion module (AnimateDiff)"
    assert foreign_kind(entries({"<cat-toy>": (1, 768)})) == "a textual inversion embedding"
    assert foreign_kind(entries({"<cat-toy>": (1, 17)})) is None


def test_text_encoders_of_transformers() -> None:
    """transformers' own classes, and a checkpoint's part of them."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel, T5Config, T5EncoderModel

    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.device("meta"):
        clip, vision = CLIPTextModel(CLIPTextConfig(**small)), CLIPVisionModel(CLIPVisionConfig(**small))
        t5 = T5EncoderModel(T5Config(d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4))
    prefixes = {
        "a text encoder (CLIP)": ""
        if "text_model.embeddings.token_embedding.weight" in clip.state_dict()
        else "text_model."
    }
    assert foreign_kind(entries(shapes_of(clip), prefixes["a text encoder (CLIP)"])) == "a text encoder (CLIP)"
    vision_prefix = "" if "vision_model.embeddings.class_embedding" in vision.state_dict() else "vision_model."
    assert foreign_kind(entries(shapes_of(vision), vision_prefix)) == "a CLIP image encoder"
    assert foreign_kind(entries(shapes_of(t5))) == "a text encoder (T5)"


@pytest.mark.parametrize("layout", ["native", "ldm", "diffusers"])
@pytest.mark.parametrize("name", MODELS)
def test_our_own_are_nothing_foreign(name: str, layout: str) -> None:
    """No VAE of ours, in no layout, is taken for something else or for a denoiser."""
    with torch.device("meta"):
        shapes = {n: tuple(t.shape) for n, t in stored_tensors(vw.build(name), layout).items()}
    assert foreign_kind(entries(shapes)) is None
    assert checkpoint_family(entries(shapes)) is None
    assert not any(map(is_denoiser_name, shapes))


@pytest.mark.parametrize("name", TINY_MODELS)
def test_taesd_is_nothing_foreign(name: str) -> None:
    """Nor is a member of the TAESD family."""
    with torch.device("meta"):
        vae = vw.build(name)
        for layout in ("native", "taesd", "diffusers"):
            shapes = {n: tuple(t.shape) for n, t in stored_tensors(vae, layout).items()}  # type: ignore[arg-type]
            assert foreign_kind(entries(shapes)) is None
            assert checkpoint_family(entries(shapes)) is None


def test_names_of_a_checkpoints_other_parts() -> None:
    """Denoisers, text encoders and schedules are not the VAE's; its own names are."""
    others = (
        "model.diffusion_model.out.2.bias",
        "cond_stage_model.model.ln_final.bias",
        "conditioner.embedders.0.x",
        "betas",
        "alphas_cumprod",
    )
    assert all(map(is_denoiser_name, others))
    assert not any(
        map(
            is_denoiser_name,
            ("encoder.conv_in.weight", "decoder.mid.attn_1.q.weight", "quant_conv.bias", "bn.running_mean"),
        )
    )


def test_classes_of_other_networks() -> None:
    """A config.json of something else names it; one that says nothing is left to the caller."""
    assert unsupported_class("UNet2DConditionModel") == "a U-Net (UNet2DConditionModel)"
    assert unsupported_class("FluxTransformer2DModel") == "a diffusion transformer (FluxTransformer2DModel)"
    assert unsupported_class("CLIPTextModel") == "a text encoder (CLIP) (CLIPTextModel)"
    assert unsupported_class("StableDiffusionPipeline") == "a whole pipeline (StableDiffusionPipeline)"
    assert unsupported_class("AutoencoderKL") is None
    assert unsupported_class("SomethingElse") is None


def write(path: Path, shapes: Shapes) -> Path:
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
    return path


MINE = {name: tuple(tensor.shape) for name, tensor in stored_tensors(vw.build(ATTENTIVE), "ldm").items()}


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (LORAS["a LoRA (for an SD 1 U-Net)"], "it is a LoRA (for an SD 1 U-Net)"),
        ({f"model.diffusion_model.{n}": s for n, s in ldm_unet(768).items()}, "it is the U-Net of SD 1 without a VAE"),
        (ORIGINALS["TAEHV"], "a video VAE of the TAESD family (TAEHV), which vaeworks does not support"),
        (
            {**MINE, "quantize.embedding.weight": (64, 4)},
            "is a VQ autoencoder (VQGAN or MoVQ), which vaeworks does not support",
        ),
    ],
)
def test_locate_says_what_a_file_is(shapes: Shapes, words: str, tmp_path: Path) -> None:
    """Somebody who gives another file reads, in one line, what it is."""
    with pytest.raises(vw.FormatError, match=r"^[^\n]*$") as caught:
        locate(write(tmp_path / "model.safetensors", shapes))
    assert words in str(caught.value)


def test_a_checkpoints_family_gives_the_scaling_of_its_vae(tmp_path: Path) -> None:
    """The same VAE in an SD 1 and in an SDXL checkpoint is scaled by what each was trained with."""
    for case in ("sd1", "sdxl"):
        denoiser = {f"model.diffusion_model.{name}": shape for name, shape in DENOISERS[case][1].items()}
        vae = {f"first_stage_model.{name}": shape for name, shape in MINE.items()}
        located = locate(write(tmp_path / f"{case}.safetensors", denoiser | vae))
        assert located.baked and located.prefix == "first_stage_model."
        assert located.config.scaling_factor == MODELS[case].scaling_factor
        assert located.normalization_source == "family"
