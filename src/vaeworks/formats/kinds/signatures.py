"""Tensor names that tell what a file is: VAEs of other kinds, adapters, encoders, upscalers. Data, for `kinds.py`.

Source of the names: ComfyUI's `VAE` class and model_detection.py, and the modules of diffusers.
"""

from __future__ import annotations

Rows = tuple[tuple[str, ...], ...]
"""Ends of tensor names, at dots; a file is of a kind if it has all of one row."""

Table = tuple[tuple[str, Rows], ...]
"""Kinds in words and their rows, the special ones before the general ones."""

VIDEO_IN = "decoder.conv_in.conv.weight"

VAES: Table = (
    ("the VAE of Qwen-Image 2.1", (("decoder.up_blocks.0.upsampler.time_conv.weight",),)),
    (
        "the video VAE of Wan 2.2",
        (("decoder.middle.0.residual.0.gamma", "decoder.upsamples.0.upsamples.0.residual.2.weight"),),
    ),
    (
        "the video VAE of Wan 2.1 or Qwen-Image",
        (
            ("decoder.middle.0.residual.0.gamma",),
            ("decoder.up_blocks.0.upsamplers.0.time_conv.weight", "decoder.mid_block.attentions.0.to_qkv.weight"),
        ),
    ),
    (
        "the video VAE of Stable Video Diffusion",
        (
            ("decoder.mid.block_1.mix_factor",),
            ("decoder.mid.block_1.time_mix_conv.weight",),
            ("decoder.mid_block.resnets.0.spatial_res_block.norm1.weight",),
        ),
    ),
    ("the video VAE of CogVideoX", (("decoder.mid_block.resnets.0.norm1.norm_layer.weight", VIDEO_IN),)),
    (
        "the VAE of HunyuanVideo 1.5 or of HunyuanImage's refiner",
        (("decoder.up_blocks.0.resnets.0.norm1.gamma", VIDEO_IN), ("decoder.up.0.block.0.norm1.gamma", VIDEO_IN)),
    ),
    (
        "the video VAE of Kandinsky",
        (
            ("decoder.mid.block_1.norm1.norm_layer.gamma",),
            ("decoder.mid.block_1.norm1.norm_layer.weight",),
            ("decoder.mid.block_1.norm1.norm_layer.norm_layer.weight",),
        ),
    ),
    ("the video VAE of VidTok", (("decoder.mid.block_1.norm1.norm.weight", VIDEO_IN),)),
    ("the audio VAE of LTX-2", (("decoder.up.0.block.0.conv1.conv.weight", "latents_mean"),)),
    (
        "the video VAE of HunyuanVideo",
        (
            ("decoder.up_blocks.0.resnets.0.conv1.conv.weight", "decoder.up_blocks.0.resnets.0.norm1.weight"),
            ("decoder.up.0.block.0.conv1.conv.weight",),
        ),
    ),
    (
        "the video VAE of LTX-Video",
        (
            ("decoder.up_blocks.0.res_blocks.0.conv1.conv.weight",),
            ("decoder.mid_block.resnets.0.conv1.conv.weight", VIDEO_IN),
        ),
    ),
    (
        "the video VAE of Mochi",
        (
            ("decoder.blocks.2.blocks.3.stack.5.weight",),
            ("blocks.2.blocks.3.stack.5.weight",),
            ("layers.4.layers.1.attn_block.attn.qkv.weight",),
            ("decoder.block_in.resnets.0.norm1.norm_layer.weight",),
        ),
    ),
    ("the video VAE of Cosmos", (("decoder.unpatcher3d.wavelets",), ("decoder.conv_in.conv_s.weight",))),
    ("the video VAE of Allegro", (("decoder.temp_conv_in.weight",),)),
    ("the video VAE of MAGVIT (EasyAnimate)", (("decoder.mid_block.convs.0.norm1.weight",),)),
    (
        "a DC-AE (of Sana)",
        (
            ("decoder.stages.1.op_list.0.main.conv.conv.bias",),
            ("encoder.project_in.conv.bias",),
            ("encoder.project_in.conv.conv.bias",),
            ("encoder.down_blocks.0.0.conv1.weight", "decoder.conv_in.weight"),
            ("encoder.down_blocks.0.0.conv.weight", "decoder.conv_in.weight"),
        ),
    ),
    (
        "the VAE of HunyuanImage 2.1 (f32, 64 channels)",
        (("decoder.up_blocks.0.norm1.weight", "decoder.mid_block.attentions.0.proj.weight"),),
    ),
    ("a video VAE of the TAESD family (TAEHV)", (("decoder.22.bias", "encoder.0.weight"),)),
    ("stage A of Stable Cascade, a VQ autoencoder", (("vquantizer.codebook.weight",),)),
    (
        "stage C of Stable Cascade, an image encoder or previewer",
        (("backbone.1.0.block.0.1.num_batches_tracked",), ("blocks.11.num_batches_tracked", "blocks.0.weight")),
    ),
    (
        "a VQ autoencoder (VQGAN or MoVQ)",
        (("quantize.embedding.weight",), ("quantize.embed",), ("quantizer.codebook.weight",)),
    ),
    ("a consistency decoder", (("decoder_unet.conv_in.weight",), ("embed_image.conv.f.weight",))),
    ("an asymmetric VAE with a decoder for inpainting", (("decoder.condition_encoder.layers.0.weight",),)),
    ("a representation autoencoder (RAE)", (("decoder.decoder_embed.weight", "decoder.decoder_pred.weight"),)),
    (
        "an audio VAE (Oobleck, of Stable Audio)",
        (("decoder.layers.1.layers.0.beta",), ("decoder.block.0.snake1.alpha",), ("decoder.block.0.snake1.beta",)),
    ),
    ("the audio VAE of ACE-Step", (("vocoder.backbone.channel_layers.0.0.bias",),)),
)
"""VAEs that are no KL autoencoders of images."""

PARTS: Table = (
    ("a face restorer (CodeFormer)", (("fuse_convs_dict.32.scale.0.weight",),)),
    (
        "a ControlNet",
        (
            ("control_model.input_blocks.0.0.weight",),
            ("control_model.time_embed.0.weight",),
            ("input_hint_block.0.weight",),
            ("controlnet_cond_embedding.conv_in.weight",),
            ("controlnet_cond_embedding.weight",),
            ("controlnet_blocks.0.weight",),
            ("controlnet_x_embedder.weight",),
        ),
    ),
    ("a T2I-Adapter", (("adapter.body.0.resnets.0.block1.weight",), ("body.0.block1.weight", "body.0.block2.weight"))),
    ("an IP-Adapter", (("image_proj.proj.weight",), ("image_proj.latents",), ("ip_adapter.1.to_k_ip.weight",))),
    (
        "a motion module (AnimateDiff)",
        (
            ("motion_modules.0.temporal_transformer.norm.weight",),
            ("motion_modules.0.transformer_blocks.0.pos_embed.pe",),
        ),
    ),
    ("a textual inversion embedding", (("emb_params",), ("string_to_param",), ("clip_g", "clip_l"))),
)
"""What has names of denoisers or of VAEs besides its own."""

ENCODERS: Table = (
    (
        "a CLIP image encoder",
        (("vision_model.encoder.layers.0.self_attn.q_proj.weight",), ("visual.transformer.resblocks.0.ln_1.weight",)),
    ),
    (
        "a text encoder (CLIP)",
        (
            ("text_model.encoder.layers.0.self_attn.q_proj.weight",),
            ("transformer.resblocks.0.ln_1.weight",),
            ("resblocks.0.ln_1.weight",),
        ),
    ),
    ("a text encoder (T5)", (("block.0.layer.0.SelfAttention.q.weight",), ("enc.blk.0.attn_q.weight",))),
    ("a language model", (("layers.0.self_attn.q_proj.weight",), ("h.0.attn.c_attn.weight",))),
    (
        "an upscaler (ESRGAN)",
        (("model.1.sub.0.RDB1.conv1.0.weight",), ("RRDB_trunk.0.RDB1.conv1.weight",), ("body.0.rdb1.conv1.weight",)),
    ),
    ("an upscaler (SwinIR, HAT or DAT)", (("conv_after_body.weight",),)),
    ("a face restorer (GFPGAN)", (("stylegan_decoder.style_conv1.modulated_conv.weight",),)),
    ("the linear layers of LPIPS, an image distance", (("lin0.model.1.weight", "lin4.model.1.weight"),)),
    (
        "an image classifier",
        (
            ("features.0.weight", "features.5.weight"),
            ("features.0.weight", "classifier.1.weight"),
            ("layer1.0.conv1.weight",),
        ),
    ),
)
"""Other networks that lie beside VAEs."""

HALVES = (
    ("encoder", "decoder", ("encoder.down.0.block.0.norm1.weight", "encoder.down_blocks.0.resnets.0.norm1.weight")),
    ("decoder", "encoder", ("decoder.up.0.block.0.norm1.weight", "decoder.up_blocks.0.resnets.0.norm1.weight")),
)
"""(half, what is missing, ends of names of which it has one)."""

LYCORIS = {
    "hada_w1_a": "LoHa",
    "lokr_w1": "LoKr",
    "lokr_w1_a": "LoKr",
    "oft_blocks": "OFT",
    "oft_diag": "OFT",
    "glora_a": "GLoRA",
}
"""Last parts of names, and the method that has them."""

LORA = (".lora_down.", ".lora_A.", ".lora.down.", "_lora.down.", ".lora_linear_layer.", ".lora_mid.")
"""Parts of names of which a LoRA has one."""

CLASSES = (
    ("AutoencoderDC", "a DC-AE (of Sana)"),
    ("AutoencoderKLWan", "the video VAE of Wan"),
    ("AutoencoderKLQwenImage", "the VAE of Qwen-Image"),
    ("AutoencoderKLHunyuanImageRefiner", "the VAE of HunyuanImage's refiner"),
    ("AutoencoderKLHunyuanImage", "the VAE of HunyuanImage 2.1"),
    ("AutoencoderKLHunyuanVideo", "the video VAE of HunyuanVideo"),
    ("AutoencoderKLLTX2Audio", "the audio VAE of LTX-2"),
    ("AutoencoderKLLTX", "the video VAE of LTX-Video"),
    ("AutoencoderKLMochi", "the video VAE of Mochi"),
    ("AutoencoderKLCosmos", "the video VAE of Cosmos"),
    ("AutoencoderKLTemporalDecoder", "the video VAE of Stable Video Diffusion"),
    ("AutoencoderKLCogVideoX", "the video VAE of CogVideoX"),
    ("AutoencoderKLAllegro", "the video VAE of Allegro"),
    ("AutoencoderKLMagvit", "the video VAE of MAGVIT (EasyAnimate)"),
    ("AsymmetricAutoencoderKL", "an asymmetric VAE with a decoder for inpainting"),
    ("AutoencoderOobleck", "an audio VAE (Oobleck, of Stable Audio)"),
    ("AutoencoderRAE", "a representation autoencoder (RAE)"),
    ("ConsistencyDecoderVAE", "a consistency decoder"),
    ("PaellaVQModel", "stage A of Stable Cascade, a VQ autoencoder"),
    ("VQModel", "a VQ autoencoder (VQGAN or MoVQ)"),
    ("ControlNet", "a ControlNet"),
    ("MotionAdapter", "a motion module (AnimateDiff)"),
    ("UNetMotionModel", "a motion module (AnimateDiff)"),
    ("T2IAdapter", "a T2I-Adapter"),
    ("CLIPVision", "a CLIP image encoder"),
    ("CLIP", "a text encoder (CLIP)"),
    ("T5", "a text encoder (T5)"),
    ("Pipeline", "a whole pipeline"),
    ("Transformer", "a diffusion transformer"),
    ("UNet", "a U-Net"),
    ("Autoencoder", "a VAE of another kind"),
    ("VAE", "a VAE of another kind"),
)
"""What classes of diffusers and transformers are, by a part of their name, the special ones before the general ones."""
