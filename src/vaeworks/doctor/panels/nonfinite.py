"""Latents of which statistics would say nothing: what is no number, and images without content."""

from __future__ import annotations

import torch

from ..finding import Figure, Finding, NotExamined
from ..subject import Subject


def not_finite(subject: Subject) -> float:
    """Share of all latents, and of their log-variances, that are NaN or infinite: 0..1."""
    found, total = 0, 0
    for tensor in (subject.mean, subject.logvar):
        for part in subject.parts(tensor) if tensor is not None else ():
            found += int((~torch.isfinite(part)).sum())
            total += part.numel()
    return found / total


def broken(subject: Subject) -> Finding | None:
    """The finding where any latent is no finite number; None where all are.

    Errors: NotExamined for images that have one colour, all the same, whose latents have no statistics.
    """
    share = not_finite(subject)
    if share:
        return Finding(
            "ill",
            f"{share:.2%} of its latents are NaN or infinite, so that nothing else can be measured",
            {
                "not_finite": Figure("latents that are NaN or infinite", 100 * share, unit="%", limit="ill above 0"),
                "std": Figure("standard deviation of the latents", float("nan")),
            },
            meaning="The encoder overflows or has broken weights. Whatever is made with it is black or noise.",
            remedy="Look at the precision panel: if float32 is finite and float16 is not, `vaeworks repair MODEL DST "
            "--for fp16` or bf16 helps; NaN in float32 means damaged weights: take another file.",
            uncertainty=f"Counted exactly, in float32, over {subject.count} images.",
            images=subject.count,
        )
    need_content(subject)
    return None


def need_content(subject: Subject) -> None:
    """Errors: NotExamined where every image is of one colour."""
    if all(bool((part == part[..., :1, :1]).all()) for part in subject.parts(subject.pixels)):
        raise NotExamined("needs images with content: each of these is of one single colour; give photographs")
