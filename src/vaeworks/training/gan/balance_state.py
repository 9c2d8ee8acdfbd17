"""Inputs, state and decisions of the discriminator's supervisor. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .plateau import Plateau

Phase = Literal["reconstruction", "warmup", "ramp", "adversarial", "off"]

Action = Literal["save", "halve", "pause", "resume", "restore", "stop"]
"""save: write a checkpoint now, as a good state to return to. halve, pause, resume: `plan` has changed already.
restore: load weights, average and both optimizers from the newest checkpoint of at most `restore_to` images, keep
this state and the count of images, and save. stop: end the run, because the discriminator is not the cause."""


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """Figures of a step. They may come at any interval, but each step that is not finite must be reported. None: not
    measured."""

    images_seen: int
    """images seen after the step"""
    reconstruction: float
    """loss of the autoencoder without the adversarial term; positive, lower is better"""
    finite: bool = True
    """whether all losses and gradients of the step were numbers"""
    accuracy_real: float | None = None
    """share of images that the discriminator classifies as real, in [0,1]"""
    accuracy_fake: float | None = None
    """share of reconstructions that it classifies as reconstructed, in [0,1]"""
    logit_gap: float | None = None
    """mean logit of images minus mean logit of reconstructions"""
    adaptive_weight: float | None = None
    """the adaptive weight alone, before other factors"""


@dataclass(frozen=True)
class StepPlan:
    """The plan of the next step."""

    phase: Phase
    train_discriminator: bool
    weight: float
    """factor of the adversarial term, in [0,1], besides the configured weight and the adaptive weight"""


@dataclass(frozen=True)
class Event:
    """A decision, with a sentence for the user."""

    images_seen: int
    message: str
    action: Action | None = None
    alarm: bool = False
    """whether it reports trouble, and not only a change of phase"""
    restore_to: int | None = None
    """with "restore": images at the newest good state; load a checkpoint of at most so many"""


@dataclass
class BalanceState:
    """The state of the supervisor: plain numbers, none of them infinite."""

    plateau: Plateau
    phase: Phase = "reconstruction"
    phase_since: int = 0
    """images at which the phase began"""
    images_seen: int = 0
    scale: float = 1.0
    """weight of the adversarial term after halvings"""
    paused_until: int | None = None
    quiet_until: int = 0
    """images before which the supervisor does not act, except after a collapse"""
    strikes: int = 0
    """number of actions since the discriminator last was in balance"""
    restored: int = 0
    """number of restores"""
    nonfinite: int = 0
    """steps in a row that were not finite"""
    healthy_at: int = 0
    """images at the last step without trouble"""
    safe_at: int = 0
    """images at the last saved good state"""
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
