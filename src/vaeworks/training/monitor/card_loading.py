"""Commands that load a trained model here and in other applications: a part of its card."""

from __future__ import annotations

from ...formats.apps.support import COMFYUI, DIFFUSERS, WEBUI, Support, support
from ...formats.diffusers_config import diffusers_class
from ...formats.locate import Located

MODEL = "model.safetensors"


def verdicts(located: Located) -> dict[str, Support]:
    """Whether each application can load the VAE, saved in the layout that it reads."""
    folder, file = support(located, "diffusers"), support(located, "ldm")
    return {DIFFUSERS: folder[DIFFUSERS], WEBUI: file[WEBUI], COMFYUI: file[COMFYUI]}


def loading(located: Located) -> str:
    """How to load a run's model, which is a KL autoencoder, with commands that work in the folder of the card."""
    m, loads = located.config, verdicts(located)
    kind, c, f = diffusers_class(m), m.latent_channels, m.downsample_factor
    python = (
        "import torch\n"
        "import vaeworks as vw\n\n"
        f'vae = vw.load("{MODEL}")\n'
        f"images = torch.rand(1, {m.in_channels}, {8 * f}, {8 * f}) * 2 - 1  # n {m.in_channels} h w in [-1,1], sides "
        f"multiples of {f}\n"
        "with torch.inference_mode():\n"
        f"    latents = vae.encode(images).mode()  # n {c} h/{f} w/{f}\n"
        "    z = vae.normalize(latents)  # what a diffusion model sees\n"
        "    images = vae.decode(vae.denormalize(z)).clamp(-1, 1)"
    )
    parts = [
        "## How to load it",
        "",
        "In the folder of this card, with vaeworks (`pip install .` in a clone of its repository):",
        "",
        f"```python\n{python}\n```",
        "",
    ]
    parts += ["### diffusers", ""]
    if loads[DIFFUSERS].loads == "no":
        parts += [f"Not by itself: {_named(loads[DIFFUSERS].why)}.", ""]
    else:
        load = f'from diffusers import {kind}\n\nvae = {kind}.from_pretrained("vae-diffusers")'
        parts += [
            f"```sh\nvaeworks convert {MODEL} vae-diffusers --layout diffusers\n```\n\n```python\n{load}\n```",
            "",
        ]
        if loads[DIFFUSERS].loads == "wrong":
            parts += [f"Mind: {_named(loads[DIFFUSERS].why)}.", ""]
    for app, into, folder in ((COMFYUI, "comfyui", "ComfyUI"), (WEBUI, "webui", "stable-diffusion-webui")):
        parts += [f"### {app}", ""]
        verdict = loads[app]
        if verdict.loads == "yes":
            parts += [f"```sh\nvaeworks install {MODEL} --into {into} {folder}\n```", ""]
        else:
            parts += [f"{'No' if verdict.loads == 'no' else 'Not as it is'}: {_named(verdict.why)}.", ""]
    return "\n".join(parts).rstrip()


def _named(why: str) -> str:
    """A verdict with the names of this folder in its commands."""
    return why.replace("SRC", MODEL).replace("DST.safetensors", "vae.safetensors").replace("DST", "vae.safetensors")
