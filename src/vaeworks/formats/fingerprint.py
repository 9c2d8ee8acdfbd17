"""Recognizing the same weights in another file: by a hash of their values, and by a fingerprint that survives rounding.

Both look at a sample, the first elements of every tensor, so that a VAE in a checkpoint of 7 GB takes milliseconds.
They recognize, they do not authenticate: whoever changes the other elements goes unnoticed. Names, layout, container,
prefix, order and the dtype of storage play no part; neither do scaling, epsilon, padding and whatever else is no
weight.
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
"""Elements that are read of each tensor."""

PROJECTIONS = 32
"""Numbers in a fingerprint; its distances are right to about 1 / sqrt(2 * 32), an eighth."""

SMALLEST_RMS = 1e-4
"""Tensors smaller than this count less: of numbers near 1e-7, float16 has not one digit."""

SIZE_WEIGHT, TYPICAL_RMS = 0.1, 0.1
"""How much a tensor's size counts beside its direction: a VAE whose tensors were rescaled is near, but not the same."""

EQUAL, ROUNDED, RELATED = 1e-6, 0.005, 0.6
"""Distances below which weights are the same, the same but rounded (bfloat16: 0.002), and of common descent."""


def content_hash(located: Located) -> str:
    """16 hexadecimal digits of SHA-256 over our names, shapes and sampled values as float32.

    Equal wherever these are, whatever the layout and the storage: a file of float16 and its copy in float32 have the
    same. Rounding to float16 or bfloat16 gives another hash, as it gives other values; `fingerprint` is for that.
    """
    digest = hashlib.sha256()
    for name, shape, values in _samples(located):
        digest.update(f"{name} {list(shape)}\n".encode())
        digest.update(values.astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def fingerprint(located: Located) -> tuple[float, ...]:
    """32 random projections of the sampled values, each tensor divided by its size, and of these sizes, as a vector of
    length one.

    The signs are a function of a tensor's name, so that fingerprints may be kept and compared later.
    Source: Johnson & Lindenstrauss 1984; Achlioptas 2003 for signs instead of Gaussians.
    """
    total, square = np.zeros(PROJECTIONS), 0.0
    for name, _, values in _samples(located):
        sample = np.nan_to_num(values.astype(np.float64))
        rms = max(math.sqrt(np.mean(sample**2)) if sample.size else 0.0, SMALLEST_RMS)
        scaled = np.append(sample / (rms * math.sqrt(max(sample.size, 1))), SIZE_WEIGHT * math.log(rms / TYPICAL_RMS))
        total += scaled @ _signs(name, scaled.size)
        square += float(np.sum(scaled**2))
    return tuple((total / math.sqrt(square or 1.0)).tolist())


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Estimated distance of two VAEs' weights in units of their size: about 0.0002 after rounding to float16, 0.002 to
    bfloat16, 0.01 after noise of 1 %, and 1 or more between VAEs that have nothing to do with each other."""
    return math.sqrt(np.mean((np.asarray(a) - np.asarray(b)) ** 2))


def relation(a: Sequence[float], b: Sequence[float]) -> str:
    """What two fingerprints say of their VAEs, in words.

    A training run that moved the weights by less than 0.5 % looks like rounding, and a merge of two VAEs like a
    fine-tune of each.
    """
    apart = distance(a, b)
    if apart < EQUAL:
        return "the same weights"
    if apart < ROUNDED:
        return "the same weights, rounded to fp16/bf16"
    return f"related (a fine-tune?), about {100 * apart:.2g} % apart" if apart < RELATED else "different"


def _samples(located: Located) -> Iterator[tuple[str, tuple[int, ...], NDArray[np.float32]]]:
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
    """A strided tensor's first elements in C order; no more is copied than the smallest part that has so many."""
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
