"""Latents of other programs, given to `decode`: it says what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from configs import LEAST
from safetensors.torch import save_file

import vaeworks as vw

LATENTS = np.zeros((4, 8, 8), np.float32)

FILES = {
    "kohya.npz": ({"latents": LATENTS, "original_size": np.array([64, 64]), "crop_ltrb": np.zeros(4)}, "kohya"),
    "kohya_sd3.npz": ({"latents_8x8": LATENTS, "original_size_8x8": np.array([64, 64])}, "kohya"),
    "mar.npz": ({"moments": LATENTS, "moments_flip": LATENTS}, "MAR"),
    "others.npz": ({"x": LATENTS}, "not a file of latents"),
    "musubi.safetensors": ({"latents_1x8x8_bfloat16": LATENTS}, "musubi-tuner"),
    "flux2.safetensors": ({"latents_8x8_float32": LATENTS}, "musubi-tuner"),
    "comfy.latent": ({"latent_tensor": LATENTS[None], "latent_format_version_0": np.zeros(0)}, "ComfyUI"),
    "old.latent": ({"latent_tensor": LATENTS[None]}, "scaled by 0.18215"),
}


@pytest.mark.parametrize("name", FILES)
def test_latents_of_others(tmp_path: Path, name: str) -> None:
    content, said = FILES[name]
    path = tmp_path / name
    if path.suffix == ".npz":
        np.savez(path, **content)
    else:
        save_file({key: torch.from_numpy(array) for key, array in content.items()}, path)
    with pytest.raises(vw.FormatError, match=f"{said}.*encode the images again"):
        vw.decode(vw.build(LEAST), path)


def test_a_folder_of_them_names_their_endings(tmp_path: Path) -> None:
    for number in range(2):
        np.savez(tmp_path / f"{number}.npz", latents=LATENTS)
    with pytest.raises(vw.DataError, match=r"no \.safetensors file in .*: 2 \.npz"):
        vw.decode(vw.build(LEAST), tmp_path)
