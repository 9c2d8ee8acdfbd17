"""Fine-tuning: recipes that start from an existing VAE, --from FILE, whatever `load` takes."""

from __future__ import annotations

import dataclasses

from ..config import DataConfig, FinetuneConfig, LossConfig, OptimizerConfig, TrainConfig


def finetune() -> TrainConfig:
    """All of a KL autoencoder on your images; its latents move, so a diffusion model must be trained anew.

    vaeworks train finetune --from VAE --data DIR --out runs/mine
    """
    return TrainConfig(
        finetune=FinetuneConfig(required=True),
        images=20_000,
        batch=4,
        data=DataConfig(size=256, min_scale=0.5),
        loss=LossConfig(reconstruction="l1", perceptual="without-weights", perceptual_weight=0.5, beta=1e-7),
        optimizer=OptimizerConfig(lr=1e-5, betas=(0.9, 0.99), warmup_images=1_000, final_lr=0.1),
        ema_halflife=2_000,
        val_every=2_000,
        save_every=4_000,
        log_every=100,
    )


def finetune_decoder() -> TrainConfig:
    """The decoder of any KL autoencoder on your images; encoder and latents stay bit for bit the same.

    Claim: images of one kind can be improved without changing the diffusion model.
    vaeworks train finetune-decoder --from VAE --data DIR --out runs/mine
    """
    return dataclasses.replace(finetune(), finetune=FinetuneConfig(required=True, part="decoder"))


def finetune_encoder() -> TrainConfig:
    """A new encoder for a given decoder; with --finetune.teacher VAE it also learns that VAE's latents.

    vaeworks train finetune-encoder --from VAE --data DIR --out runs/mine
    """
    return dataclasses.replace(finetune(), finetune=FinetuneConfig(required=True, part="encoder"))


def sd_ft_mse() -> TrainConfig:
    """The recipe of sd-vae-ft-mse: Stable Diffusion's decoder alone, squared error + 0.1 LPIPS, a weight average.

    Claim: smoother images for the same latents, so every SD 1 and 2 checkpoint still works.
    vaeworks train sd-ft-mse --from vae.safetensors --data DIR --out runs/ft
    The model card states 280,000 steps of 192 images after those of ft-ema. LPIPS's VGG16 (528 MB) is fetched once. We
    made no run of that size, nor one on a GPU.
    """
    config = finetune()
    return dataclasses.replace(
        config,
        images=1_000_000,
        batch=16,
        finetune=FinetuneConfig(required=True, part="decoder", expects="sd1"),
        loss=LossConfig(reconstruction="mse", perceptual="lpips-vgg16", perceptual_weight=0.1),
        ema_halflife=10_000,
        val_every=20_000,
        save_every=20_000,
        log_every=1_000,
    )


def _preset(name: str) -> TrainConfig:
    return dataclasses.replace(finetune(), finetune=FinetuneConfig(required=True, part="decoder", expects=name))


def finetune_sd1() -> TrainConfig:
    """The decoder of Stable Diffusion 1 or 2, 49.5 M parameters, for its 0.18215.

    vaeworks train finetune-sd1 --from vae.safetensors --data DIR --out runs/mine
    Tested by a few steps on a CPU with random weights; we had no published weights.
    """
    return _preset("sd1")


def finetune_sdxl() -> TrainConfig:
    """The decoder of SDXL, for its 0.13025, in fp32 or bf16: fp16 overflows.

    vaeworks train finetune-sdxl --from sdxl_vae.safetensors --data DIR --out runs/mine
    As finetune-sd1.
    """
    return _preset("sdxl")


def finetune_sd3() -> TrainConfig:
    """The decoder of SD3, 16 channels.

    vaeworks train finetune-sd3 --from FILE --data DIR --out runs/mine
    As finetune-sd1.
    """
    return _preset("sd3")


def finetune_flux1() -> TrainConfig:
    """The decoder of Flux.1, 16 channels.

    vaeworks train finetune-flux1 --from ae.safetensors --data DIR --out runs/mine
    As finetune-sd1.
    """
    return _preset("flux1")


def finetune_flux2() -> TrainConfig:
    """The decoder of Flux.2, 32 channels; its statistics stay the same.

    vaeworks train finetune-flux2 --from ae.safetensors --data DIR --out runs/mine
    As finetune-sd1.
    """
    return _preset("flux2")


RECIPES = {
    "finetune": finetune,
    "finetune-decoder": finetune_decoder,
    "finetune-encoder": finetune_encoder,
    "sd-ft-mse": sd_ft_mse,
    "finetune-sd1": finetune_sd1,
    "finetune-sdxl": finetune_sdxl,
    "finetune-sd3": finetune_sd3,
    "finetune-flux1": finetune_flux1,
    "finetune-flux2": finetune_flux2,
}
