"""The result of a finished run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...images import notebook
from ..finetune import FinetuneComparison
from ..latent_stats import LatentStats


@dataclass(frozen=True)
class RunResult:
    """The figures of a finished run."""

    run: str
    images_seen: int
    seconds: float
    """time of training and validation, over all parts of the run"""
    images_per_second: float
    val_psnr: float | None
    """dB, of the saved model on the validation crops; None without held-out images"""
    best_psnr: float | None
    """the highest validation PSNR of the run, in dB: the largest of many looks at the same images, so it flatters the
    model that reached it"""
    num_parameters: int
    precision: str
    device: str
    latents: LatentStats
    """as measured at the end of the run"""
    normalization: str
    """what the model's file says of its latents: the measured scale, or that of the VAE that the run started from"""
    finetuned: FinetuneComparison | None = None
    """what fine-tuning has changed; None for a run from random weights"""

    def __repr__(self) -> str:
        """One line: where the run is, how far it came, and how well it reconstructs."""
        quality = "no held-out images" if self.val_psnr is None else f"{self.val_psnr:.2f} dB on held-out images"
        return (
            f"RunResult({self.run!r}: {self.images_seen:,} images in {self.seconds / 60:.1f} min, {quality}, "
            f"{self.normalization}, {self.precision} on {self.device})"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as `vaeworks train --json` prints them."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """The figures as a table, for notebooks."""
        rows = [
            ("images seen", f"{self.images_seen:,}"),
            ("minutes", f"{self.seconds / 60:.1f}"),
            ("images per second", f"{self.images_per_second:.1f}"),
            ("PSNR on held-out images", _decibels(self.val_psnr)),
            ("highest of all looks", _decibels(self.best_psnr)),
            ("parameters", f"{self.num_parameters:,}"),
            ("in the file", self.normalization),
            ("standard deviation of the latents", f"{1 / self.latents.scaling_factor:.5g}"),
            ("precision", f"{self.precision} on {self.device}"),
        ]
        return notebook.heading(f"run {self.run}") + notebook.table(rows)


def _decibels(psnr: float | None) -> str:
    return "no held-out images" if psnr is None else f"{psnr:.2f} dB"
