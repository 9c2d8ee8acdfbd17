"""A sound through an autoencoder, and a sound halfway between two: mixed in latent space, which is no mixture of
sounds.

    python examples/audio.py MODEL [SOUND SOUND] --out sounds

MODEL is trained by `vaeworks train audio-mel`. Without sounds, a plucked string and a vowel are made.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.io import wavfile

import vaeworks as vw
from vaeworks.apps.audio import audible, listen, sheet
from vaeworks.apps.codes import decode_picture, encode_picture
from vaeworks.data.sources.sound import MadeSound, SoundFile
from vaeworks.data.spectrogram import MEL


def main() -> None:
    """Listen, mix, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("sounds", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("sounds"))
    args = parser.parse_args()
    if len(args.sounds) not in (0, 2):
        parser.error("give two sounds, or none")

    codec = vw.Codec(vw.load(args.model).float())
    channels = 2 if codec.autoencoder.config.in_channels == 2 else 1
    places = [SoundFile(path, channels) for path in args.sounds] or [MadeSound(index, 1, channels) for index in (6, 7)]
    heard = [listen(codec, place.samples()) for place in places]
    args.out.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(heard):
        write(args.out / f"{number}-ceiling.wav", each.ceiling)
        write(args.out / f"{number}-reconstruction.wav", each.recon)
        sheet(each.image, each.recon_image).save(args.out / f"{number}.png")
        print(
            f"{places[number]}: {each.figures.log_mel:.2f} dB lost by the VAE, {each.figures.log_mel_ceiling:.2f} dB "
            "by the way back"
        )

    columns = min(each.image.shape[-1] for each in heard)
    codes = [encode_picture(codec, each.image[..., :columns]) for each in heard]
    halfway = decode_picture(codec, (codes[0].mean + codes[1].mean) / 2, MEL.bands, columns)
    write(args.out / "halfway.wav", audible(halfway))


def write(path: Path, samples: np.ndarray) -> None:
    """A WAV file of 16 bits."""
    wavfile.write(path, MEL.rate, (samples.T * 32767).round().astype(np.int16))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
