"""Small networks and short runs that tests share. Importing it imports no torch."""

from __future__ import annotations

from dataclasses import replace

from vaeworks.config import AdversarialConfig, AutoencoderConfig, DataConfig, OptimizerConfig, TinyConfig, TrainConfig

# Networks

TINY = AutoencoderConfig(channels=8, channel_mult=(1, 2), num_res_blocks=1, norm_groups=4, mid_attention=False)
"""f = 2, c = 4, without attention: for tests that any network will do for."""

ATTENTIVE = replace(TINY, mid_attention=True)
"""The same with attention in the middle, as Stable Diffusion's."""

ATTENTIVE_F4 = replace(ATTENTIVE, channel_mult=(1, 1, 2))

LEAST = AutoencoderConfig(
    channels=4, channel_mult=(1, 1), num_res_blocks=1, norm_groups=2, latent_channels=2, mid_attention=False
)
"""f = 2, c = 2: the fastest."""

WIDE = AutoencoderConfig(channels=32, channel_mult=(1, 2), num_res_blocks=1)
"""32 groups, which tensors do not tell and every other program assumes."""

TINY_TAESD = TinyConfig(encoder_widths=(8, 8), encoder_blocks=(1, 1), decoder_widths=(8, 8), decoder_blocks=(1, 1))
"""The TAESD family's, f = 2."""

# Runs

SHORT = TrainConfig(
    model=TINY,
    data=DataConfig(size=32, val_fraction=0.3, workers=0, val_images=2),
    images=96,
    batch=8,
    precision="fp32",
    optimizer=OptimizerConfig(lr=1e-3, warmup_images=16),
    val_every=32,
    save_every=32,
    log_every=8,
    stats_images=16,
    keep_checkpoints=2,
)
"""12 steps without a discriminator."""

SHORT_16 = replace(SHORT, data=replace(SHORT.data, size=16))
"""The same on squares of 16 pixels."""

PLAIN_ADAM = OptimizerConfig(kind="adam", lr=1e-2, betas=(0.5, 0.9), warmup_images=0, final_lr=1.0, clip_norm=0.0)
MODERN = AdversarialConfig(
    discriminator="modern",
    channels=16,
    num_layers=2,
    start_images=24,
    warmup=0.1,
    ramp=0.2,
    lecam=1e-3,
    optimizer=PLAIN_ADAM,
)
"""Starts after 24 images, and has an effect after 40 of 128."""

WITH_DISCRIMINATOR = replace(SHORT, images=128, adversarial=MODERN)
"""16 steps: 3 without a discriminator, 2 in its warm-up, 3 in the ramp, 8 in full."""

TRAIN = """
    --model.channels 8 --model.channel-mult 1 2 --model.norm-groups 4 --data.size 16 --data.workers 0
    --data.val-fraction 0.3 --images 32 --batch 8 --val-every 16 --save-every 16 --stats-images 8 --precision fp32
""".split()
"""Words of `vaeworks train RECIPE` for a run of four steps."""
