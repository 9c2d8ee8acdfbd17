"""How decoded pictures respond to their originals: colour, place, sharpness, patterns, and single rows.

Pictures are float arrays n c h w in gray levels (0..255), originals first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PERIODS = (2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32)
"""Pixels after which a pattern of a decoder may repeat."""

TURNS = {
    "mirrored left to right": lambda x: x[..., ::-1],
    "mirrored top to bottom": lambda x: x[..., ::-1, :],
    "turned by 180 degrees": lambda x: x[..., ::-1, ::-1],
    "transposed": lambda x: x.swapaxes(-1, -2),
    "turned by 90 degrees": lambda x: x.swapaxes(-1, -2)[..., ::-1],
    "turned by 270 degrees": lambda x: x.swapaxes(-1, -2)[..., ::-1, :],
}
"""What a picture may be instead of upright."""


def colour_map(originals: Array, decoded: Array, block: int = 8) -> tuple[Array, Array]:
    """(matrix c c, bias c) of the least-squares map of blocks' mean colours, about their mean: decoded = mean + bias +
    matrix @ (original - mean)."""
    a, b = (_blocks(x, block) for x in (originals, decoded))
    center = a.mean(0)
    weights, *_ = np.linalg.lstsq(np.c_[a - center, np.ones(len(a))], b, rcond=None)
    matrix, bias = weights[:-1].T, weights[-1] - center  # the change of the mean colour
    return np.asarray(matrix, np.float64), np.asarray(bias, np.float64)


def turned(originals: Array, decoded: Array) -> str:
    """How the pictures are turned or mirrored, if that explains them much better than upright; else empty."""
    gray = originals.mean(1), decoded.mean(1)
    upright = float(np.square(gray[0] - gray[1]).mean())
    errors = {name: float(np.square(turn(gray[0]) - gray[1]).mean()) for name, turn in TURNS.items()}
    best = min(errors, key=lambda name: errors[name])
    return best if errors[best] < 0.5 * upright else ""


def displacement(originals: Array, decoded: Array) -> tuple[float, float]:
    """(rows, columns) in pixels by which decoded pictures are displaced, by the phase of their cross spectrum.

    A displacement by d turns the phase of frequency k by 2 pi k d. The low frequencies are fitted, weighted by their
    power. Source: Kuglin & Hines 1975; Stone et al. 2001 for the fit.
    """
    gray, moved = originals.mean(1), decoded.mean(1)
    total = np.zeros(2)
    for _ in range(3):  # a window pulls a displacement towards 0, so what was found is undone, and the rest found
        shift = _phase_shift(gray, moved)
        total += shift
        moved = _shifted(moved, -shift)
    return float(total[0]), float(total[1])


def _phase_shift(gray: Array, moved: Array) -> Array:
    a, b = (np.fft.fft2(_windowed(x)) for x in (gray, moved))
    cross = (a.conj() * b).sum(0)
    fy, fx = (np.fft.fftfreq(n) for n in cross.shape)
    low = (np.abs(fy)[:, None] < 0.15) & (np.abs(fx)[None] < 0.15) & (np.hypot(fy[:, None], fx[None]) > 0)
    weight = np.sqrt(np.abs(cross[low]))
    design = 2 * np.pi * np.stack(np.broadcast_arrays(fy[:, None], fx[None]), -1)[low]
    shift, *_ = np.linalg.lstsq(design * weight[:, None], -np.angle(cross[low]) * weight, rcond=None)
    return np.asarray(shift, np.float64)


def _shifted(x: Array, by: Array) -> Array:
    """Pictures n h w moved by (rows, columns), around their borders."""
    phases = [np.exp(-2j * np.pi * np.fft.fftfreq(n) * d) for n, d in zip(x.shape[-2:], by, strict=True)]
    return np.asarray(np.fft.ifft2(np.fft.fft2(x) * phases[0][:, None] * phases[1][None]).real)


def transfer(originals: Array, decoded: Array, frequencies: tuple[float, ...]) -> list[float]:
    """Modulation transfer at these frequencies (cycles per pixel): what share of the originals' amplitude is decoded.

    The linear part: the cross spectrum over the originals' power, over all pictures and directions.
    """
    a, b = (np.fft.fft2(_windowed(x.mean(1))) for x in (originals, decoded))
    cross, power = (a.conj() * b).real.sum(0), np.square(np.abs(a)).sum(0)
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in cross.shape), indexing="ij"))
    found = []
    for frequency in frequencies:
        ring = np.abs(radius - frequency) <= 0.02
        found.append(float(cross[ring].sum() / max(power[ring].sum(), 1e-12)))
    return found


def pattern(residual: Array) -> tuple[float, int]:
    """(amplitude in gray levels, period in pixels) of the strongest pattern that repeats in pictures n c h w.

    The amplitude is the standard deviation of the mean cell, less what chance leaves there.
    """
    flat = residual - _smooth(residual)
    best, period = 0.0, 0
    for p in PERIODS:
        h, w = (side // p * p for side in flat.shape[-2:])
        cells = flat[..., :h, :w].reshape(*flat.shape[:2], h // p, p, w // p, p)
        mean = cells.mean((0, 2, 4))
        count = cells.shape[0] * cells.shape[2] * cells.shape[4]
        chance = cells.var((0, 2, 4)).mean() / count
        amplitude = float(np.sqrt(max(mean.var((1, 2)).mean() - chance, 0.0)))
        if amplitude > 1.25 * best:  # a multiple of a period has its pattern as well
            best, period = amplitude, p
    return best, period


def radial_gain(originals: Array, decoded: Array, rings: int = 6) -> list[float]:
    """Gain about middle gray by distance from the middle, the innermost ring first, relative to it."""
    h, w = originals.shape[-2:]
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    ring = np.minimum((np.sqrt((y**2 + x**2) / 2) * rings).astype(int), rings - 1)
    gains = []
    for k in range(rings):
        a, b = (z[..., ring == k] - 127.5 for z in (originals, decoded))
        gains.append(float((a * b).sum() / max(np.square(a).sum(), 1e-12)))
    return [gain / gains[0] if gains[0] else 0.0 for gain in gains]


def odd_lines(originals: Array, decoded: Array) -> tuple[float, str, list[int]]:
    """(error of the worst row or column over that of its neighbours, "rows" or "columns", those that stand out)."""
    error = np.square(decoded - originals).mean((0, 1))
    worst, kind, lines = 1.0, "rows", []
    for name, axis in (("rows", 1), ("columns", 0)):
        profile = error.mean(axis)
        near = np.stack([np.roll(profile, k) for k in (-3, -2, -1, 1, 2, 3)])
        ratio = np.sqrt((profile + 1) / (np.median(near, 0) + 1))  # an error of a gray level is nobody's fault
        ratio[:3] = ratio[-3:] = 1.0  # borders differ
        if ratio.max() > worst:
            worst, kind = float(ratio.max()), name
            lines = [int(i) for i in np.flatnonzero(ratio > max(1.5, ratio.max() / 2))]
    return worst, kind, lines


def _blocks(x: Array, block: int) -> Array:
    n, c, h, w = x.shape
    x = x[..., : h // block * block, : w // block * block]
    return x.reshape(n, c, h // block, block, w // block, block).mean((3, 5)).transpose(0, 2, 3, 1).reshape(-1, c)


def _windowed(x: Array) -> Array:
    h, w = x.shape[-2:]
    centered = x - x.mean((-2, -1), keepdims=True)
    return np.asarray(centered * np.hanning(h)[:, None] * np.hanning(w)[None])


def _smooth(x: Array, width: int = 33) -> Array:
    """A moving mean that removes what is wider than all PERIODS."""
    from scipy.ndimage import uniform_filter

    size = min(width, min(x.shape[-2:]) // 2 * 2 - 1)
    return np.asarray(uniform_filter(x, (1, 1, size, size), mode="reflect"))
