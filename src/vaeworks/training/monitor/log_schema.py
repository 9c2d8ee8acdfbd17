"""The schema of a run's log: kinds of lines, names of figures, and numbers for people.

A step line has the losses of one batch, a look line the figures of a validation, an event line a sentence. No line
depends on a clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

STEP, LOOK, EVENT = "loss", "val_psnr", "event"
"""Keys that identify the three kinds of lines."""

OBJECTIVE = ("loss", "reconstruction", "perceptual", "kl", "psnr", "bits_per_dimension", "grad_norm", "lr")
"""Figures of every step line."""

DISCRIMINATOR = (
    "discriminator_loss",
    "accuracy_real",
    "accuracy_fake",
    "logit_real",
    "logit_fake",
    "discriminator_grad_norm",
    "r1",
    "r2",
    "lecam",
    "adversarial",
    "adaptive_weight",
    "adversarial_weight",
)
"""Figures of step lines while a discriminator is trained, or gives the autoencoder a gradient."""

BEYOND = 1e150
"""Bound of all figures."""


def number(value: Any) -> float | None:
    """A figure as a finite number; None for a value that is missing, no number, not finite, or so large that its square
    is not finite."""
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, (int, float))):
        return None
    return float(value) if abs(value) < BEYOND else None


def regularizers(line: Mapping[str, Any]) -> dict[str, float | None]:
    """The regularizers of a step line: all figures besides the objective's and the discriminator's."""
    if STEP not in line:
        return {}
    return {
        name: number(value) for name, value in line.items() if name not in (*OBJECTIVE, *DISCRIMINATOR, "images_seen")
    }


def logit_gap(line: Mapping[str, Any]) -> float | None:
    """Mean logit of images minus mean logit of reconstructions; None for a line without logits."""
    real, fake = number(line.get("logit_real")), number(line.get("logit_fake"))
    return None if real is None or fake is None else real - fake


def carried(look: Mapping[str, Any]) -> list[float]:
    """Information about an image in each channel of a look line, in nats per latent element; [] without a posterior.

    ½ ln(1 + variance of the means / mean variance), the capacity of a Gaussian channel, and at most the KL divergence.
    That is an upper bound, which also counts an idle posterior that differs from the prior.
    """
    means, posteriors, kls = (finite_list(look.get(name)) for name in ("latent_std", "posterior_std", "kl_per_channel"))
    if not kls or len(means) != len(kls) or len(posteriors) != len(kls):
        return kls
    return [
        min(kl, 0.5 * math.log1p((m / max(p, 1e-30)) ** 2)) for m, p, kl in zip(means, posteriors, kls, strict=True)
    ]


def finite_list(values: Any) -> list[float]:
    """A list of figures; [] if one of them is missing or not finite."""
    found = [number(value) for value in values] if isinstance(values, (list, tuple)) else []
    return [value for value in found if value is not None] if None not in found else []


def open_alarms(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The newest event of every kind of alarm that is not over."""
    newest = {line["kind"]: line for line in lines if EVENT in line and "kind" in line}
    return [line for line in newest.values() if line["alarm"]]


def plain(value: Any) -> Any:
    """A figure as a JSON value: numbers that are not finite become null, tuples become lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def written(value: Any, form: str = ".3g") -> str:
    """A figure for people: "–" for one that is missing or not finite."""
    found = number(value)
    return "–" if found is None else format(found, form)


def percent(share: Any) -> str:
    """A share of [0,1] in percent."""
    return "–" if number(share) is None else f"{100 * share:.0f} %"


def duration(seconds: float | None) -> str:
    """Seconds as 1:02:03 or 2:03; "–" where they are unknown."""
    if number(seconds) is None:
        return "–"
    minutes, rest = divmod(max(0, round(seconds or 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
