"""Reconstruct two sounds with an autoencoder, and mix them in latent space. That mixture differs from a cross-fade.

    python examples/audio.py MODEL [SOUND SOUND] [--out sounds]

`vaeworks train audio-mel` trains a MODEL. Without sounds, the program makes a plucked string and a vowel.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.io import wavfile

import vaeworks as vw
from vaeworks.apps.audio import audible, listen, sheet
from vaeworks.apps.codes import decode_picture, encode_picture
from vaeworks.data.sources.sound import MadeSound, SoundFile
from vaeworks.data.spectrogram import MEL


def main() -> None:
    """Reconstruct each sound, write it beside its ceiling, and mix both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("sounds", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("sounds"))
    args = parser.parse_args()
    if len(args.sounds) not in (0, 2):
        parser.error("give two sounds, or none")

    codec = vw.Codec(vw.load(args.model).float())
    channels = 2 if codec.autoencoder.config.in_channels == 2 else 1
    sounds: list[SoundFile | MadeSound] = [SoundFile(path, channels) for path in args.sounds]
    sounds = sounds or [MadeSound(index, 1, channels) for index in (6, 7)]
    results = [listen(codec, sound.samples()) for sound in sounds]

    args.out.mkdir(parents=True, exist_ok=True)
    for number, result in enumerate(results):
        write(args.out / f"{number}-ceiling.wav", result.ceiling)
        write(args.out / f"{number}-reconstruction.wav", result.recon)
        sheet(result.image, result.recon_image).save(args.out / f"{number}.png")
        lost, ceiling = result.figures.log_mel, result.figures.log_mel_ceiling
        print(f"{sounds[number]}: error {lost:.2f} dB through the VAE, {ceiling:.2f} dB of spectrogram inversion alone")

    columns = min(result.image.shape[-1] for result in results)
    a, b = (encode_picture(codec, result.image[..., :columns]) for result in results)
    halfway = decode_picture(codec, (a.mean + b.mean) / 2, MEL.bands, columns)
    write(args.out / "halfway.wav", audible(halfway))


def write(path: Path, samples: np.ndarray) -> None:
    """Write a 16-bit WAV file."""
    wavfile.write(path, MEL.rate, (samples.T * 32767).round().astype(np.int16))


if __name__ == "__main__":
    main()
