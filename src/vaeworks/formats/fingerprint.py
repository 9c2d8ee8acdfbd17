"""Recognize the same weights in another file, by a hash of their values and by a fingerprint that survives rounding.

Both use the first elements of every tensor, so that a VAE in a checkpoint of 7 GB takes milliseconds. They recognize
weights and do not authenticate them: a change in the other elements goes unnoticed. They ignore names, layout,
container, prefix, order and the dtype of storage, and all settings that are not weights, such as scaling, epsilon and
padding.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .archive import Archive
from .archive.entries import BITS
from .keymap import is_attention_matrix
from .locate import OPTIONAL, Located

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE = 256
"""Elements read from each tensor."""

PROJECTIONS = 32
"""Numbers in a fingerprint; the relative error of its distances is about 1 / sqrt(2 * 32), an eighth."""

SMALLEST_RMS = 1e-4
"""Tensors with a smaller RMS count less: near 1e-7, float16 has no exact digit."""

SIZE_WEIGHT, TYPICAL_RMS = 0.1, 0.1
"""Weight of a tensor's size beside its direction: a VAE with rescaled tensors is near, but not the same."""

EQUAL, ROUNDED, RELATED = 1e-6, 0.005, 0.6
"""Distances below which weights are the same, the same but rounded (bfloat16: 0.002), and related."""


def content_hash(located: Located) -> str:
    """16 hexadecimal digits of SHA-256 over our names, shapes and sampled values as float32.

    Layout and storage do not change it: a file of float16 and its copy in float32 have the same hash. Rounding to
    float16 or bfloat16 changes values and therefore the hash; use `fingerprint` to recognize rounded weights.
    """
    digest = hashlib.sha256()
    for name, shape, values in first_values(located):
        digest.update(f"{name} {list(shape)}\n".encode())
        digest.update(values.astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def fingerprint(located: Located) -> tuple[float, ...]:
    """32 random projections of the sampled values (each tensor divided by its RMS) and of the RMS values, as a unit
    vector.

    The signs depend on a tensor's name only, so fingerprints can be stored and compared later.
    Source: Johnson & Lindenstrauss 1984; Achlioptas 2003 for signs instead of Gaussians.
    """
    total, square = np.zeros(PROJECTIONS), 0.0
    for name, _, values in first_values(located):
        sample = np.nan_to_num(values.astype(np.float64))
        rms = max(math.sqrt(np.mean(sample**2)) if sample.size else 0.0, SMALLEST_RMS)
        scaled = np.append(sample / (rms * math.sqrt(max(sample.size, 1))), SIZE_WEIGHT * math.log(rms / TYPICAL_RMS))
        total += scaled @ _signs(name, scaled.size)
        square += float(np.sum(scaled**2))
    return tuple((total / math.sqrt(square or 1.0)).tolist())


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Estimated distance of two VAEs' weights, relative to their size: about 0.0002 after rounding to float16, 0.002 to
    bfloat16, 0.01 after noise of 1 %, and 1 or more between unrelated VAEs."""
    return math.sqrt(np.mean((np.asarray(a) - np.asarray(b)) ** 2))


def relation(a: Sequence[float], b: Sequence[float]) -> str:
    """The relation of two VAEs by their fingerprints, in words.

    A training run that moved the weights by less than 0.5 % looks like rounding, and a merge of two VAEs looks like a
    fine-tune of each.
    """
    apart = distance(a, b)
    if apart < EQUAL:
        return "the same weights"
    if apart < ROUNDED:
        return "the same weights, rounded to fp16/bf16"
    return f"related (a fine-tune?), about {100 * apart:.2g} % apart" if apart < RELATED else "different"


def first_values(located: Located) -> Iterator[tuple[str, tuple[int, ...], NDArray[np.float32]]]:
    """(our name, shape, first elements) of every tensor, by name."""
    archive = located.archive
    for name in sorted(located.names.keys() - {OPTIONAL}):
        theirs = located.names[name]
        shape = archive.entries[theirs].shape
        yield name, shape[:2] if is_attention_matrix(name) else shape, _head(archive, theirs)


def _head(archive: Archive, name: str) -> NDArray[np.float32]:
    """A tensor's first elements in C order."""
    place = archive.places[name]
    if place.strides is not None:
        return _first(archive.read(name)).float().numpy()
    size = BITS[place.entry.dtype] // 8
    content = bytes(next(iter(archive.chunks(name)), b"")[: SAMPLE * size])
    if place.entry.dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4")
    with np.errstate(over="ignore"):  # of float64
        return np.frombuffer(content, f"<f{size}").astype(np.float32)


def _first(tensor: Tensor) -> Tensor:
    """A strided tensor's first elements in C order; only the smallest part that has enough elements is copied."""
    while tensor.ndim > 1 and tensor[0].numel() >= SAMPLE:
        tensor = tensor[0]
    if tensor.ndim:
        tensor = tensor[: -(-SAMPLE // tensor[0].numel())]
    return tensor.flatten()[:SAMPLE]


def _signs(name: str, count: int) -> NDArray[Any]:
    """-1 and 1, count 32: the bits of a Philox stream, which NumPy guarantees, keyed by a tensor's name."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    words = np.random.Philox(key=key).random_raw(count)
    return 2.0 * ((words[:, None] >> np.arange(PROJECTIONS, dtype=np.uint64)) & np.uint64(1)) - 1
