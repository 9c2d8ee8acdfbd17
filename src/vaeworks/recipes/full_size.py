"""Networks of published size, for GPUs."""

from __future__ import annotations

import dataclasses

from ..config import MODELS, AdversarialConfig, DataConfig, LossConfig, OptimizerConfig, TrainConfig


def sd1() -> TrainConfig:
    """Stable Diffusion's f8c4 network, 83.7 M parameters, on 256 px: L1, LPIPS, KL and PatchGAN, as latent diffusion.

    vaeworks train sd1 --data DIR --out runs/sd1
    kl_weight 1e-6 in latent diffusion's sum/sum convention is beta 2.08e-8 here; its learning rate 4.5e-6 is per image
    of the batch. Its discriminator starts at step 50,001 of batches of 12; the supervisor may start it earlier, once
    the reconstruction no longer improves. LPIPS's VGG16 (528 MB) is fetched once; --loss.perceptual without-weights
    does without it.
    Measured on 2 CPU cores: a step of one image without LPIPS and discriminator takes 8 s in bf16 (benchmarks/results).
    We made no run on a GPU, and none of this length.
    """
    optimizer = OptimizerConfig(
        kind="adam", lr=5.4e-5, betas=(0.5, 0.9), warmup_images=10_000, final_lr=1.0, clip_norm=0.0
    )
    return TrainConfig(
        model=dataclasses.replace(MODELS["sd1"], scaling_factor=1.0),
        images=3_000_000,
        batch=12,
        data=DataConfig(size=256, min_scale=0.5, workers=8, val_fraction=0.01, val_images=32),
        loss=LossConfig(reconstruction="l1", perceptual="lpips-vgg16", beta=2.08e-8),
        optimizer=optimizer,
        adversarial=AdversarialConfig(
            discriminator="patch",
            weight=0.5,
            earliest=0.05,
            latest=0.2,
            warmup=0.005,
            ramp=0.01,
            optimizer=dataclasses.replace(optimizer, warmup_images=0),
        ),
        ema_halflife=10_000,
        val_every=50_000,
        save_every=50_000,
        log_every=1_200,
        stats_images=5_000,
    )


def sd3() -> TrainConfig:
    """As sd1, with 16 channels and without quant convolutions: the network of SD3 and Flux.1.

    vaeworks train sd3 --data DIR --out runs/sd3
    Not run.
    """
    config = sd1()
    model = dataclasses.replace(MODELS["sd3"], scaling_factor=1.0, shift_factor=0.0)
    return dataclasses.replace(config, model=model, loss=dataclasses.replace(config.loss, beta=8.3e-8))


def vavae() -> TrainConfig:
    """f16c32 at full size, aligned with DINOv2; a modern discriminator at the end trains the decoder alone.

    Claim: semantics in the latents help diffusion most (VA-VAE, arXiv 2501.01423).
    vaeworks train vavae --data DIR --out runs/vavae
    Needs transformers, and DINOv2's weights from the hub or a folder (--regularizers.alignment-network DIR). Not run.
    """
    config = sd1()
    model = dataclasses.replace(MODELS["ldm-f16"], latent_channels=32)
    regularizers = dataclasses.replace(config.regularizers, alignment=0.1, alignment_network="hf:facebook/dinov2-large")
    adversarial = dataclasses.replace(config.adversarial, discriminator="modern", lecam=1e-3, stage="decoder")
    loss = dataclasses.replace(config.loss, beta=4.2e-8)
    return dataclasses.replace(config, model=model, regularizers=regularizers, adversarial=adversarial, loss=loss)


RECIPES = {"sd1": sd1, "sd3": sd3, "vavae": vavae}
