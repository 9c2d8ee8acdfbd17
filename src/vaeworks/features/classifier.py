"""A small classifier trained on the images in question: features of a stated network, without any download."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.square_images import SquareImages
from ..data.subsets import some
from ..errors import DataError
from ..files.atomic import atomic, read_tensors, write_tensors
from ..images import to_model_range
from ..random_streams import CLASSIFIER_STEPS, Order, random_seed
from ..reporting import Progress

VERSION = 1
"""Of network and training: figures of another one are others."""

WIDTH, WIDEST, SMALLEST = 32, 128, 4
"""Channels of the first and of the last levels, and side of the last level's map."""

IMAGES, BATCH, LR = 98_304, 128, 2e-3
"""Images seen in training, and AdamW's settings; the learning rate falls to 0 along half a cosine."""

NOISE, SHIFT = 0.1, 4
"""Largest standard deviation of noise, of a range of 2, and largest shift in pixels, in training: features shall not
hang on what nobody sees."""

HELD_OUT = 8
"""An eighth of the images tells the accuracy."""

CLASSIFIER = 0xC1A55
"""Seed of everything random here."""


class Classifier(nn.Module):
    """Convolutions that halve the map until it is 4 x 4; features are the means over places of the last two levels."""

    def __init__(self, channels: int, size: int, classes: int):
        super().__init__()
        levels = max(2, round(math.log2(size / SMALLEST)) + 1)
        widths = [min(WIDTH * 2**level, WIDEST) for level in range(levels)]
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, width, 3, stride=1 if level == 0 else 2, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            )
            for level, (before, width) in enumerate(zip([channels, *widths], widths, strict=False))
        )
        self.head = nn.Linear(widths[-1] + widths[-2], classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features n d and logits n classes of images n c h w in [-1,1]."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x.mean((2, 3)))
        features = torch.cat(maps[-2:], 1)
        return features, self.head(features)


def trained(
    pictures: SquareImages, folder: Path, device: torch.device, progress: Progress | None = None
) -> tuple[Classifier, float]:
    """The classifier of these pictures, and its accuracy on the held-out eighth; read from the folder if it is there.

    Errors: DataError for pictures without at least two classes.
    """
    if len(pictures.classes) < 2:
        raise DataError(
            f"{pictures.source!r} has no classes; a classifier's features need at least two (folders with images)"
        )
    network = Classifier(int(pictures.pixels.shape[1]), pictures.size, len(pictures.classes))
    path = folder / f"classifier-{VERSION}-{pictures.digest[:16]}.safetensors"
    if not path.exists():
        accuracy = _train(network.to(device), pictures, progress)
        with atomic(path, overwrite=True) as temporary:  # another process may have trained the same meanwhile
            write_tensors(temporary, network.state_dict(), {"accuracy": str(accuracy), "pictures": pictures.digest})
    tensors, facts = read_tensors(path)
    network.load_state_dict(tensors)
    return network.to(device).eval(), float(facts["accuracy"])


def _train(network: Classifier, pictures: SquareImages, progress: Progress | None) -> float:
    unseen = torch.from_numpy(some(pictures.count, -(-pictures.count // HELD_OUT)))
    seen = torch.from_numpy(np.setdiff1d(np.arange(pictures.count), unseen))
    fit(
        network,
        lambda rows: pictures.batch(seen[rows].numpy()),
        pictures.labels[seen],
        count=IMAGES,
        batch=BATCH,
        progress=progress,
    )
    found = [classes_seen(network, pictures.batch(part.numpy())) for part in unseen.split(BATCH)]
    return (torch.cat(found) == pictures.labels[unseen]).double().mean().item()


def fit(
    network: Classifier,
    images: Callable[[Tensor], Tensor],
    targets: Tensor,
    *,
    count: int,
    batch: int,
    seed: int = CLASSIFIER,
    disturb: bool = True,
    progress: Progress | None = None,
) -> None:
    """Train a classifier from the start, on the device where it is; it ends in evaluation mode.

    images: row numbers to uint8 n c h w. targets: of every row, its class's number, n, or a probability for each class,
    n classes.
    count: images seen. seed: of weights, order and disturbances. disturb: noise and shifts in training.
    """
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.reset_parameters()
    order = Order(len(targets), seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=0.01)
    steps = count // batch
    network.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows = torch.tensor([order[step * batch + i] for i in range(batch)])
        generator.manual_seed(random_seed(seed, CLASSIFIER_STEPS, step))
        x = to_model_range(images(rows))
        x = (_disturbed(x, generator) if disturb else x).to(device)
        loss = F.cross_entropy(network(x)[1], targets[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress:
            progress((step + 1) * batch, count)
    network.eval()


@torch.inference_mode()
def classes_seen(network: Classifier, images: Tensor) -> Tensor:
    """Numbers of classes, n on the CPU, of images uint8 n c h w."""
    return network(to_model_range(images).to(next(network.parameters()).device))[1].argmax(1).cpu()


def _disturbed(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images with noise of a random strength, all of them shifted alike."""
    level = NOISE * torch.rand(len(x), 1, 1, 1, generator=generator)
    down, right = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator).tolist()
    padded = F.pad(x, (SHIFT,) * 4, mode="replicate")
    h, w = x.shape[-2:]
    shifted = padded[..., SHIFT + down : SHIFT + down + h, SHIFT + right : SHIFT + right + w]
    return torch.addcmul(shifted, level, torch.randn(x.shape, generator=generator))
