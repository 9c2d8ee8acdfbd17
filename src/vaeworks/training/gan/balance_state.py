"""What the supervisor of the discriminator is told, remembers and answers. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .plateau import Plateau

Phase = Literal["reconstruction", "warmup", "ramp", "adversarial", "off"]

Action = Literal["save", "halve", "pause", "resume", "restore", "stop"]
"""save: write a checkpoint now, a good state to come back to. halve, pause, resume: done already, `plan` has changed.
restore: put weights, average and both optimizers back to the newest checkpoint of at most `restore_to` images, keep
this state and go on counting, and save. stop: end the run, because it is not the discriminator that is ill."""


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """What a step came to. Any cadence will do, but steps that are not finite are always told; what was not measured is
    None."""

    images_seen: int
    """after the step"""
    reconstruction: float
    """what the autoencoder minimizes without the adversarial term; positive, lower is better"""
    finite: bool = True
    """whether all losses and gradients of the step were numbers"""
    accuracy_real: float | None = None
    """share of images that the discriminator takes for real, in [0,1]"""
    accuracy_fake: float | None = None
    """share of reconstructions that it does not take for real, in [0,1]"""
    logit_gap: float | None = None
    """mean logit of images minus mean logit of reconstructions"""
    adaptive_weight: float | None = None
    """before it is multiplied with anything"""


@dataclass(frozen=True)
class StepPlan:
    """What the next step does."""

    phase: Phase
    train_discriminator: bool
    weight: float
    """of the adversarial term, in [0,1]: a factor beside the recipe's own weight and the adaptive one"""


@dataclass(frozen=True)
class Event:
    """Something that was decided, in a sentence for the user."""

    images_seen: int
    message: str
    action: Action | None = None
    alarm: bool = False
    """whether it is about trouble, and no mere change of phase"""
    restore_to: int | None = None
    """with "restore": the newest good state; a checkpoint of at most so many images has it"""


@dataclass
class BalanceState:
    """All that the supervisor remembers: plain numbers, none of them infinite."""

    plateau: Plateau
    phase: Phase = "reconstruction"
    phase_since: int = 0
    """images at which the phase began"""
    images_seen: int = 0
    scale: float = 1.0
    """of the adversarial term, after halvings"""
    paused_until: int | None = None
    quiet_until: int = 0
    """nothing is done before, except after a collapse"""
    strikes: int = 0
    """how often something was done since the discriminator last was in balance"""
    restored: int = 0
    """how often the last good state was restored"""
    nonfinite: int = 0
    """steps in a row that were not finite"""
    healthy_at: int = 0
    """when all was well for the last time"""
    safe_at: int = 0
    """when the loop was last told to save a good state"""
    averaging_since: int = 0
    """images at which the averages began"""
    reconstruction: float | None = None
    """average of the loss"""
    validation: float | None = None
    """the last loss of held-out images"""
    accuracy: float | None = None
    gap: float | None = None
    clamped: float | None = None
    """share of steps with the adaptive weight at its limit"""
    best: float | None = None
    """lowest average of the loss"""
    best_validation: float | None = None
    winning_since: int | None = None
    apart_since: int | None = None
    clamped_since: int | None = None
    worse_since: int | None = None
    collapsed_since: int | None = None
