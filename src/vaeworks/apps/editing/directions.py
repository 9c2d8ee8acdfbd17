"""Directions in latent space that carry an attribute, fitted to images with it and without it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.source_lookup import is_source
from ...errors import ConfigError, DataError, FormatError
from ...files.atomic import atomic, check_ending, read_tensors, write_tensors
from ...models import Autoencoder
from ...models.digest import SAME_PRECISION, model_digest
from ..codes import first_half, pixel_digests

Kind = Literal["mean", "map", "logistic"]
"""mean: difference of the classes' mean channels; map: difference of their mean latents, position by position;
logistic: normal of the plane that separates them.

map needs aligned images, such as faces, and helps only there. logistic separates overlapping classes, given many more
images than channels. A plane's normal also weighs channels that only cancel disturbances of others (Haufe et al. 2014,
"On the interpretation of weight vectors of linear models"). So mean is the better direction to edit with (as in Larsen
et al. 2016, arXiv 1512.09300), and logistic the better one to sort by.
"""

METADATA_KEY = "vaeworks_direction"

LEAST = 2
"""Least number of images of each class."""


@dataclass(frozen=True, eq=False)
class Direction:
    """A change that is added to latents, times a strength. Strength 1 carries the mean of images without the attribute
    to the mean of those with it."""

    change: Tensor
    """float32 c 1 1, or c h w for aligned images; for unnormalized latents"""
    kind: Kind
    separation: float
    """AUROC of projections on directions that were fitted without the scored images; 0.5 is chance. The halves are
    chosen by content, with equal images in one of them. nan for fewer than 8 images of a class, or where all of a class
    are equal"""

    def applied(self, z: Tensor, strength: float = 1.0) -> Tensor:
        """Add the direction to latents c h w of any size; maps are resized."""
        change = self.change
        if change.shape[-2:] != (1, 1) and change.shape[-2:] != z.shape[-2:]:
            change = F.interpolate(change[None], size=z.shape[-2:], mode="bilinear", align_corners=False)[0]
        return z + strength * change.to(z)


def fit_direction(
    having: Tensor, lacking: Tensor, kind: Kind = "mean", digests: tuple[Sequence[str], Sequence[str]] | None = None
) -> Direction:
    """Fit a direction to latents n c h w of images with an attribute and without it.

    digests: of the images' contents (codes.pixel_digests), which choose the halves that measure the separation; None:
    of the latents.
    Errors: DataError for fewer than LEAST images of a class.
    """
    if min(len(having), len(lacking)) < LEAST:
        raise DataError(
            f"a direction needs {LEAST} pictures with and {LEAST} without the attribute, not {len(having)} and "
            f"{len(lacking)}"
        )
    content = (pixel_digests(having), pixel_digests(lacking)) if digests is None else digests
    halves = [torch.from_numpy(first_half(found)) for found in content]
    a, b = having.double(), lacking.double()
    return Direction(_change(a, b, kind).float(), kind, _separation(a, b, kind, halves))


def _change(having: Tensor, lacking: Tensor, kind: Kind) -> Tensor:
    """The difference of the classes: c 1 1 or c h w."""
    if kind == "map":
        return having.mean(0) - lacking.mean(0)
    a, b = having.mean((2, 3)), lacking.mean((2, 3))
    difference = a.mean(0) - b.mean(0)
    if kind == "logistic":
        normal = _normal(a, b)
        difference = normal * (normal @ difference) / (normal @ normal)
    return difference[:, None, None]


def _normal(a: Tensor, b: Tensor) -> Tensor:
    """Normal of the plane between two sets n c, by logistic regression on standardized channels."""
    from sklearn.linear_model import LogisticRegression

    x = torch.cat([a, b])
    std = x.std(0).clamp_min(1e-12)
    labels = [1] * len(a) + [0] * len(b)
    fitted = LogisticRegression(class_weight="balanced", max_iter=1000).fit(((x - x.mean(0)) / std).numpy(), labels)
    return torch.from_numpy(fitted.coef_[0]).to(x) / std


def _separation(having: Tensor, lacking: Tensor, kind: Kind, halves: Sequence[Tensor]) -> float:
    """The AUROC over both halves. halves: bool n for each class, true in the half that is fitted first."""
    from sklearn.metrics import roc_auc_score

    if min(len(having), len(lacking)) < 8 or not all(half.any() for half in halves):
        return float("nan")
    areas = []
    for of_having, of_lacking in (halves, [~half for half in halves]):
        change = _change(having[of_having], lacking[of_lacking], kind)
        values = [
            ((x if kind == "map" else x.mean((2, 3), True)) * change).sum((1, 2, 3))
            for x in (having[~of_having], lacking[~of_lacking])
        ]
        areas.append(roc_auc_score([1] * len(values[0]) + [0] * len(values[1]), torch.cat(values).numpy()))
    return float(sum(areas) / 2)


def save_direction(path: Path, direction: Direction, autoencoder: Autoencoder, *, overwrite: bool = False) -> None:
    """Write the direction to a safetensors file. Errors: ConfigError for another ending, or a file that exists."""
    check_ending(path)
    facts = {"kind": direction.kind, "model": model_digest(autoencoder), "separation": direction.separation}
    with atomic(path, overwrite) as temporary:
        write_tensors(temporary, {"change": direction.change}, {METADATA_KEY: json.dumps(facts)})


def load_direction(path: Path, autoencoder: Autoencoder) -> Direction:
    """Read a file of `save_direction`. Errors: FormatError for any other file; ConfigError for another model's
    direction."""
    tensors, metadata = read_tensors(path)
    try:
        facts = json.loads(metadata[METADATA_KEY])
        change, kind, model, separation = (
            tensors["change"].float(),
            facts["kind"],
            facts["model"],
            float(facts["separation"]),
        )
    except (KeyError, ValueError, TypeError):
        raise FormatError(f"{path} holds no direction; `vaeworks edit --save-direction` writes such files") from None
    if model != model_digest(autoencoder) or change.ndim != 3 or len(change) != autoencoder.latent_channels:
        raise ConfigError(
            f"{path} is a direction of another model; directions belong to their model {SAME_PRECISION}; fit it again "
            "with this one"
        )
    return Direction(change, kind, separation)


def split_sources(text: str) -> tuple[str, str]:
    """The sources WITH and WITHOUT of "WITH:WITHOUT". They may hold colons of their own: the colon between two sources
    that exist separates them.

    Errors: ConfigError where there is no such colon, or more than one.
    """
    pairs = [(text[:i], text[i + 1 :]) for i in range(1, len(text) - 1) if text[i] == ":"]
    found = [pair for pair in pairs if all(map(is_source, pair))]
    if not pairs:
        raise ConfigError(f"--direction {text!r} must be WITH:WITHOUT, two sources of pictures, or a .safetensors file")
    if len(found) > 1:
        readings = " or ".join(f"{a} and {b}" for a, b in found)
        raise ConfigError(
            f"--direction {text!r} may mean {readings}; write one of them as an absolute path, or rename it"
        )
    if not found:
        odd = next((side for side in pairs[0] if not is_source(side)), "")
        why = f"{odd!r} does not exist" if len(pairs) == 1 else "at none of its colons are there two sources that exist"
        raise ConfigError(f"--direction {text!r} must be WITH:WITHOUT, two sources of pictures; {why} (docs/data.md)")
    return found[0]
