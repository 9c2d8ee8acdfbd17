"""The range of values inside an autoencoder, layer by layer, on real images."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ...data.image_ref import ImageRef, open_place
from ...data.inputs import Images, image_set, source_name
from ...data.sources.folder import find_images
from ...errors import ConfigError, DataError
from ...images import square, to_model_range
from ...models import Autoencoder, Decoder, Encoder
from ...models.tiny import TinyBlock
from ...nn import ResBlock, SpatialAttention
from ...reporting import SILENT, Reporter
from .scale import writers

Half = Literal["encoder", "decoder"]

FLOAT16_MAX = 65504.0
"""The largest finite number of float16."""

LOGITS_AT_ONCE = 2**24
"""Products of queries and keys in memory at a time, 64 MiB."""

SAMPLE = 2**18
"""About how many values of an image a percentile is computed from."""


@dataclass(frozen=True)
class LayerRange:
    """The range of one layer's output, in float32."""

    name: str
    """name of the module. Blocks and attentions: of the sum that they return; `.logits`: of queries times keys over the
    root of a head's width"""
    half: Half
    scalable: bool
    """whether `scale_activations` changes it"""
    max_abs: float
    """largest absolute value; nan where one is not a number"""
    p9999: float
    """99.99th percentile of the absolute values, largest over the images"""
    image: int
    """number of the image with max_abs"""

    @property
    def share(self) -> float:
        """max_abs / 65504: above 1, float16 overflows."""
        return self.max_abs / FLOAT16_MAX

    @property
    def overflows(self) -> bool:
        """Whether float16 overflows, or the value is not a number."""
        return not self.max_abs <= FLOAT16_MAX


def activation_ranges(
    autoencoder: Autoencoder, images: Tensor | None = None, reporter: Reporter = SILENT
) -> list[LayerRange]:
    """The range of every layer of encoder, decoder and the convolutions between them, in order of execution.

    images: n c h w in [-1,1], one at a time through encoder, posterior mode and decoder; None: `sample_images`.
    Activations are not stored, and everything is computed in float32, whatever the weights' dtype.
    Errors: ConfigError for images that the model cannot encode, that are not finite, or none.
    """
    images = sample_images(autoencoder) if images is None else images
    if not len(images) or not images.isfinite().all():
        raise ConfigError(f"images (of shape {tuple(images.shape)}) must be at least one, and finite")
    network = autoencoder if autoencoder.dtype == torch.float32 else copy.deepcopy(autoencoder).float()
    recorder = _Recorder()
    with ExitStack() as hooks, torch.inference_mode():
        for handle in recorder.watch(network):
            hooks.callback(handle.remove)
        for recorder.image, image in enumerate(reporter.track(images, "measuring activations")):
            network.decode(network.encode(image[None].to(network.device, torch.float32)).mode())
    return list(recorder.ranges.values())


def scaled_ranges(ranges: Iterable[LayerRange], scales: Mapping[Half, float]) -> list[LayerRange]:
    """The ranges after `scale_activations` by powers of two, which is exact and needs no second measurement."""
    return [
        replace(
            layer,
            max_abs=layer.max_abs * (scales[layer.half] if layer.scalable else 1),
            p9999=layer.p9999 * (scales[layer.half] if layer.scalable else 1),
        )
        for layer in ranges
    ]


def first_overflow(ranges: Iterable[LayerRange], half: Half | None = None) -> LayerRange | None:
    """The first layer in order of execution, of one half or both, that float16 cannot hold."""
    return next((layer for layer in ranges if layer.overflows and half in (None, layer.half)), None)


def sample_images(autoencoder: Autoencoder, source: Images = "photos", *, size: int = 256, limit: int = 16) -> Tensor:
    """Images to measure on, their middle squares resized to about size x size: n c size size in [-1,1], n at most
    `limit`.

    source: a folder tree (images evenly spaced in it), an image file, `photos`, the 16 bundled photographs, or images
    in memory.
    Errors: DataError for a source without a readable image; ConfigError for a model whose images are neither gray nor
    in colour.
    """
    channels, f = autoencoder.config.in_channels, autoencoder.downsample_factor
    if channels not in (1, 3):
        raise ConfigError(
            f"this model's images have {channels} channels, photographs have 1 or 3; pass images of your own"
        )
    side = max(1, round(size / f)) * f
    paths = _places(source)
    images, reason = [], ""
    for path in paths[:: math.ceil(len(paths) / limit)]:
        try:
            image = open_place(path, channels)
        except DataError as error:
            reason = reason or f"{path}: {error}"
            continue
        images.append(square(image, side))
    if not images:
        raise DataError(f"no image in {source_name(source)!r} can be read; the first: {reason}")
    return to_model_range(torch.stack(images))


def _places(source: Images) -> Sequence[ImageRef]:
    """The images of a source; a big folder is not read for a few of them."""
    if isinstance(source, (str, Path)):
        return find_images(source)
    return [file.path for file in image_set(source).files]


class _Recorder:
    """Forward hooks that record the largest values of every layer."""

    def __init__(self) -> None:
        self.ranges: dict[str, LayerRange] = {}
        self.image = 0
        self._keys: Tensor | None = None

    def watch(self, autoencoder: Autoencoder) -> Iterable[torch.utils.hooks.RemovableHandle]:
        halves = [half for half in (autoencoder.encoder, autoencoder.decoder) if isinstance(half, (Encoder, Decoder))]
        scalable = {layer for half in halves for layer, _ in writers(half)}
        for name, module in autoencoder.named_modules():
            if isinstance(module, (ResBlock, SpatialAttention)):
                yield module.register_forward_hook(self._noting(name, scalable=True))
            elif isinstance(module, (nn.Conv2d, nn.Linear, nn.GroupNorm, TinyBlock)):
                yield module.register_forward_hook(self._noting(name, module in scalable))
            if isinstance(module, SpatialAttention):
                yield module.key.register_forward_hook(self._keep_keys)  # which are computed before the queries
                yield module.query.register_forward_hook(self._noting_logits(name + ".logits", module.num_heads))

    def _noting(self, name: str, scalable: bool) -> Callable[..., None]:
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._note(name, output, scalable)

        return note

    def _keep_keys(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._keys = output

    def _noting_logits(self, name: str, heads: int) -> Callable[..., None]:
        def note(module: nn.Module, inputs: tuple[Tensor, ...], queries: Tensor) -> None:
            assert self._keys is not None
            q, k = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (queries, self._keys))  # n heads (h w) c/heads
            self._keys = None
            for part in q.split(max(1, LOGITS_AT_ONCE // (heads * k.shape[2])), dim=2):
                self._note(name, part @ k.mT / math.sqrt(k.shape[3]), False)

        return note

    def _note(self, name: str, values: Tensor, scalable: bool) -> None:
        half: Half = "encoder" if name.startswith(("encoder", "quant_conv")) else "decoder"
        flat = (values if values.is_contiguous() else values.movedim(1, -1)).flatten()  # of NHWC memory: no copy
        low, high = flat.aminmax()
        new = LayerRange(name, half, scalable, max(-low.item(), high.item()), _percentile(flat), self.image)
        old = self.ranges.get(name, new)
        most = new if math.isnan(new.max_abs) or new.max_abs > old.max_abs else old
        self.ranges[name] = replace(most, p9999=max(old.p9999, new.p9999))


def _percentile(values: Tensor) -> float:
    """The 99.99th percentile of |values|, of every k-th of them: k is odd, so that no channel is left out."""
    sample = values[:: (len(values) // SAMPLE) | 1].abs()
    return sample.kthvalue(max(1, math.ceil(0.9999 * len(sample)))).values.item()
