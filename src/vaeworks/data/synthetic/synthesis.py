"""Sounds made by formulas: the samples of number k of a seed, and its position between two loudspeakers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, chirp, lfilter, sosfilt

from ...random_streams import PANNING, SOUND, random_uniforms
from ..spectrogram import MEL

Array = NDArray[np.float64]
Deal = Iterator[float]
"""A sequence of random numbers in [0,1)."""

RATE, LENGTH = MEL.rate, 127 * MEL.hop
"""Samples per second, and per sound: 2.03 s, 128 columns of a spectrogram."""

TIME = np.arange(LENGTH) / RATE

TRIADS = (0, 4, 7), (0, 3, 7), (0, 3, 6), (0, 4, 8), (0, 5, 7)
"""Major, minor, diminished, augmented, suspended, in semitones."""

FORMANTS = {
    "a": (730, 1090, 2440),
    "i": (270, 2290, 3010),
    "u": (300, 870, 2240),
    "o": (570, 840, 2410),
    "e": (530, 1840, 2480),
}
"""Hz, men's means: Peterson & Barney 1952, table II."""


def sound(index: int, seed: int) -> Array:
    """Sound number `index` of a seed, of class `index` mod 8: LENGTH samples in [-1,1], at a random level over quiet
    hiss."""
    deal = iter(random_uniforms(seed, SOUND, 2 * index, 64).tolist())
    noise = 2 * random_uniforms(seed, SOUND, 2 * index + 1, 2 * LENGTH) - 1
    level, hiss = (10 ** (_between(deal, *limits) / 20) for limits in ((-30, -3), (-90, -55)))
    made = MAKERS[CLASSES[index % len(CLASSES)]](deal, noise[:LENGTH])
    return (level * made / np.abs(made).max() + hiss * noise[LENGTH:]).clip(-1, 1)


def position(index: int, seed: int) -> float:
    """Position of sound number `index` of a seed, from 0 (left) to 1 (right); it is between 0.05 and 0.95."""
    return _between(iter(random_uniforms(seed, PANNING, index, 1).tolist()), 0.05, 0.95)


def panned(samples: Array, position: float) -> Array:
    """Left and right, 2 n, of samples n, panned with constant power: the gains are cosine and sine of `position` times
    a quarter turn."""
    angle = position * math.pi / 2
    return np.array([[math.cos(angle)], [math.sin(angle)]]) * samples


def _between(deal: Deal, low: float, high: float) -> float:
    return low + (high - low) * next(deal)


def _pitch(deal: Deal, low: float, high: float) -> float:
    """A frequency in Hz, evenly spread on a logarithmic scale."""
    return low * (high / low) ** next(deal)


def _envelope(start: float, attack: float, decay: float) -> Array:
    """A rise from `start` on, and a fall that takes `decay` seconds to 1/e."""
    since = TIME - start
    return np.where(since < 0, 0, np.minimum(since / attack, 1) * np.exp(-np.maximum(since, 0) / decay))


def _harmonics(frequency: float, slope: float, count: int = 64) -> Array:
    """A sum of sines at multiples of a frequency below 7.5 kHz, the k-th of amplitude k^-slope."""
    numbers = range(1, min(count, int(7500 / frequency)) + 1)
    return sum((np.sin(2 * math.pi * k * frequency * TIME) / k**slope for k in numbers), np.zeros(LENGTH))


def tone(deal: Deal, noise: Array) -> Array:
    """A pitch with overtones."""
    return _harmonics(_pitch(deal, 80, 2000), _between(deal, 0.7, 2.5)) * _envelope(
        _between(deal, 0, 0.8), 0.02, _between(deal, 0.3, 3)
    )


def chord(deal: Deal, noise: Array) -> Array:
    """Three pitches of the equal temperament at once."""
    root, triad = _pitch(deal, 110, 440), TRIADS[int(next(deal) * len(TRIADS))]
    envelope = _envelope(_between(deal, 0, 0.5), 0.03, _between(deal, 0.5, 3))
    return sum((_harmonics(root * 2 ** (step / 12), 1.5, 6) for step in triad), np.zeros(LENGTH)) * envelope


def sweep(deal: Deal, noise: Array) -> Array:
    """A sine whose frequency rises or falls exponentially."""
    low, high = _pitch(deal, 80, 800), _pitch(deal, 1200, 7500)
    first, last = (low, high) if next(deal) < 0.5 else (high, low)
    return chirp(TIME, first, TIME[-1], last, method="logarithmic")


def drum(deal: Deal, noise: Array) -> Array:
    """Drum beats: a skin, whose pitch falls, and rattling wires."""
    beat, made = _between(deal, 0.2, 0.6), np.zeros(LENGTH)
    for number in range(int(LENGTH / RATE / beat)):
        start = (number + 0.1) * beat
        since, skin = np.maximum(TIME - start, 0), next(deal)
        fall = 60 * since + 120 * 0.03 * (1 - np.exp(-since / 0.03))
        made += skin * np.sin(2 * math.pi * fall) * _envelope(start, 0.002, 0.15)
        made += (1 - skin) * noise * _envelope(start, 0.001, 0.06)
    return made


def noise_band(deal: Deal, noise: Array) -> Array:
    """Band noise of slowly varying loudness."""
    low = _pitch(deal, 100, 4000)
    band = butter(4, (low, min(low * _between(deal, 1.3, 4), 7600)), "bandpass", fs=RATE, output="sos")
    return sosfilt(band, noise) * (1 + 0.9 * np.sin(2 * math.pi * (_between(deal, 0.5, 6) * TIME + next(deal))))


def fm(deal: Deal, noise: Array) -> Array:
    """Frequency modulation with a falling index: Chowning 1973."""
    carrier, ratio = _pitch(deal, 100, 800), (0.5, 1, 1.4, 2, 3.5)[int(next(deal) * 5)]
    envelope = _envelope(_between(deal, 0, 0.5), 0.01, _between(deal, 0.3, 2))
    index = _between(deal, 1, 6) * envelope
    return envelope * np.sin(2 * math.pi * carrier * TIME + index * np.sin(2 * math.pi * ratio * carrier * TIME))


def pluck(deal: Deal, noise: Array) -> Array:
    """Plucked strings: noise in an averaging delay line (Karplus & Strong 1983)."""
    made, count = np.zeros(LENGTH), 1 + int(4 * next(deal))
    for number in range(count):
        delay = round(RATE / _pitch(deal, 80, 800))
        excitation, start = np.zeros(LENGTH), int((number + 0.1) / count * LENGTH)
        excitation[start : start + delay] = noise[start : start + delay]
        loop = np.zeros(delay + 2)
        loop[0], loop[delay], loop[delay + 1] = 1, -0.498, -0.498
        made += lfilter([1.0], loop, excitation)
    return made


def vowel(deal: Deal, noise: Array) -> Array:
    """Pulses of a voice, with vibrato, through three resonators: Klatt 1980."""
    pitch, formants = _pitch(deal, 90, 280), tuple(FORMANTS.values())[int(next(deal) * len(FORMANTS))]
    size = _between(deal, 0.95, 1.2)
    phase = pitch * (TIME + 0.02 / (2 * math.pi * 5) * np.sin(2 * math.pi * 5 * TIME))
    made = np.diff(np.floor(phase), prepend=0) * 1.0 + 0.002 * noise
    for formant, width in zip(formants, (60, 90, 150), strict=True):
        radius = math.exp(-math.pi * width / RATE)
        b, c = 2 * radius * math.cos(2 * math.pi * formant * size / RATE), -(radius**2)
        made = lfilter([1 - b - c], [1, -b, -c], made)
    return made * _envelope(_between(deal, 0, 0.4), 0.05, _between(deal, 0.5, 3))


MAKERS: dict[str, Callable[[Deal, Array], Array]] = {
    "tone": tone,
    "chord": chord,
    "chirp": sweep,
    "drum": drum,
    "noise": noise_band,
    "fm": fm,
    "pluck": pluck,
    "vowel": vowel,
}

CLASSES = tuple(MAKERS)
"""Sound number k is of class k mod 8."""
