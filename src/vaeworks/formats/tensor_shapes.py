"""Names and shapes of a configuration's tensors, computed without PyTorch, so that `inspect` answers at once.

`tests/formats/test_locate.py` compares them with the networks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ..config import AutoencoderConfig, TinyConfig

Shape = tuple[int, ...]


def tensor_shapes(config: AutoencoderConfig | TinyConfig) -> dict[str, Shape]:
    """Our names and shapes, in the order of `Autoencoder(config).state_dict()`."""
    return dict(each_shape(config))


def each_shape(config: AutoencoderConfig | TinyConfig) -> Iterator[tuple[str, Shape]]:
    """The same one by one, because a hostile file may describe more tensors than memory holds."""
    halves = _tiny(config) if isinstance(config, TinyConfig) else _kl(config)
    return itertools.chain(halves, _statistics(config))


def _statistics(config: AutoencoderConfig | TinyConfig) -> Iterator[tuple[str, Shape]]:
    if config.normalization == "batchnorm":
        channels = (config.latent_channels * config.latents_patch**2,)
        yield from (("bn.running_mean", channels), ("bn.running_var", channels), ("bn.num_batches_tracked", ()))


def _kl(config: AutoencoderConfig) -> Iterator[tuple[str, Shape]]:
    c, widths, decoder_widths = config.latent_channels, config.widths, config.decoder_widths[::-1]
    last = len(widths) - 1
    yield from _conv("encoder.conv_in", config.in_channels, config.channels, 3)
    for i, (inner, outer) in enumerate(zip((config.channels, *widths), widths, strict=False)):
        yield from _blocks(config, f"encoder.levels.{i}", inner, outer, config.num_res_blocks, 2**i)
        if i < last:
            yield from _conv(f"encoder.levels.{i}.downsample.conv", outer, outer, 3)
    yield from _middle(config, "encoder", widths[-1])
    yield from _conv("encoder.conv_out", widths[-1], config.moment_channels, 3)
    yield from _conv("decoder.conv_in", c, decoder_widths[0], 3)
    yield from _middle(config, "decoder", decoder_widths[0], norm_out=False)
    for i, (inner, outer) in enumerate(zip((decoder_widths[0], *decoder_widths), decoder_widths, strict=False)):
        yield from _blocks(config, f"decoder.levels.{i}", inner, outer, config.num_res_blocks + 1, 2 ** (last - i))
        if i < last:
            yield from _conv(f"decoder.levels.{i}.upsample.conv", outer, outer, 3)
    yield from _norm("decoder.norm_out", decoder_widths[-1])
    yield from _conv("decoder.conv_out", decoder_widths[-1], config.out_channels, 3)
    if config.quant_conv:
        yield from _conv("quant_conv", config.moment_channels, config.moment_channels, 1)
    if config.post_quant_conv:
        yield from _conv("post_quant_conv", c, c, 1)


def _middle(config: AutoencoderConfig, half: str, width: int, norm_out: bool = True) -> Iterator[tuple[str, Shape]]:
    yield from _block(f"{half}.middle.block1", width, width)
    if config.mid_attention:
        yield from _attention(f"{half}.middle.attention", width)
    yield from _block(f"{half}.middle.block2", width, width)
    if norm_out:
        yield from _norm(f"{half}.norm_out", width)


def _blocks(
    config: AutoencoderConfig, level: str, inner: int, outer: int, count: int, factor: int
) -> Iterator[tuple[str, Shape]]:
    for j in range(count):
        yield from _block(f"{level}.blocks.{j}", inner if j == 0 else outer, outer)
    if factor in config.attention_factors:
        for j in range(count):
            yield from _attention(f"{level}.attentions.{j}", outer)


def _block(name: str, inner: int, outer: int) -> Iterator[tuple[str, Shape]]:
    yield from _norm(f"{name}.norm1", inner)
    yield from _conv(f"{name}.conv1", inner, outer, 3)
    yield from _norm(f"{name}.norm2", outer)
    yield from _conv(f"{name}.conv2", outer, outer, 3)
    if inner != outer:
        yield from _conv(f"{name}.conv_shortcut", inner, outer, 1)


def _attention(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield from _norm(f"{name}.norm", width)
    for part in ("query", "key", "value", "out"):
        yield from ((f"{name}.{part}.weight", (width, width)), (f"{name}.{part}.bias", (width,)))


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield from ((f"{name}.weight", (width,)), (f"{name}.bias", (width,)))


def _conv(name: str, inner: int, outer: int, size: int, bias: bool = True) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outer, inner, size, size)
    if bias:
        yield f"{name}.bias", (outer,)


def _tiny(config: TinyConfig) -> Iterator[tuple[str, Shape]]:
    layer, width = 0, config.in_channels
    for channels in config.stem:
        yield from _conv(f"encoder.layers.{layer}", width, channels, 3)
        layer, width = layer + 2, channels  # a ReLU follows
    last = len(config.encoder_widths) - 1
    for i, (channels, blocks) in enumerate(zip(config.encoder_widths, config.encoder_blocks, strict=True)):
        if i > 0 or not config.stem:
            yield from _conv(f"encoder.layers.{layer}", width, channels, 3, bias=i == 0)
            layer += 1
        for _ in range(blocks):
            yield from _tiny_block(f"encoder.layers.{layer}", channels, config.mid_pool and i == last)
            layer += 1
        width = channels
    yield from _conv(f"encoder.layers.{layer}", width, config.latent_channels, 3)

    widths, counts = config.decoder_widths[::-1], config.decoder_blocks[::-1]
    yield from _conv("decoder.layers.0", config.latent_channels, widths[0], 3)
    layer = 2  # behind a ReLU
    for i, (channels, blocks) in enumerate(zip(widths, counts, strict=True)):
        for _ in range(blocks):
            yield from _tiny_block(f"decoder.layers.{layer}", channels, config.mid_pool and i == 0)
            layer += 1
        if i + 1 < len(widths):
            yield from _conv(f"decoder.layers.{layer + 1}", channels, widths[i + 1], 3, bias=False)
            layer += 2  # doubling and convolution
    yield from _conv(f"decoder.layers.{layer}", widths[-1], config.out_channels, 3)


def _tiny_block(name: str, width: int, pool: bool) -> Iterator[tuple[str, Shape]]:
    for i in (0, 2, 4):
        yield from _conv(f"{name}.conv.{i}", width, width, 3)
    if pool:
        yield from _conv(f"{name}.pool.0", width, 4 * width, 1, bias=False)
        yield from _norm(f"{name}.pool.1", 4 * width)
        yield from _conv(f"{name}.pool.3", 4 * width, width, 1, bias=False)
