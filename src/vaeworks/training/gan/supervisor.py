"""Connects the training step with the balance: the step's figures go in, decisions come out."""

from __future__ import annotations

from typing import Any

from ...config import BalanceConfig, from_dict, to_dict
from ...errors import FormatError
from ..state import TrainState
from ..step import StepResult
from .balance import Balance
from .balance_state import BalanceState, Event, StepFigures, StepPlan
from .plateau import Plateau


class Supervisor:
    """The balance of a run. Without a discriminator it only watches for steps that are not finite."""

    def __init__(self, trained: TrainState, saved: dict[str, Any]):
        """saved: the result of `to_dict`; {} at the start of a run."""
        self.trained = trained
        adversarial = trained.config.adversarial
        # counts are shares of the run's length at its start; a run that is extended later keeps them
        if saved and not saved.keys() >= {"config", "state"}:
            raise FormatError(
                "the checkpoint does not hold the state of the discriminator's supervisor; take an earlier one"
            )
        config = from_dict(BalanceConfig, saved["config"]) if saved else adversarial.balance(trained.config.images)
        self.balance = (
            Balance.from_dict(config, saved["state"]) if saved else Balance(config, self._first_state(config))
        )

    def _first_state(self, config: BalanceConfig) -> BalanceState:
        return BalanceState(
            Plateau(config.window), phase="reconstruction" if self.trained.adversary is not None else "off"
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {"config": to_dict(self.balance.config), "state": self.balance.to_dict()}

    @property
    def plan(self) -> StepPlan:
        """The plan of the next step."""
        return self.balance.plan

    @property
    def restore_to(self) -> int | None:
        """Images at the newest state that is certainly good; None without a discriminator."""
        return self.balance.restore_to if self.trained.adversary is not None else None

    def switch_parts(self) -> bool:
        """Freeze the encoder while the adversarial term counts, if so configured. Returns whether anything changed."""
        part, stage = self.trained.config.finetune.part, self.trained.config.adversarial.stage
        adversarial = self.plan.phase in ("ramp", "adversarial")
        encoder = part != "decoder" and not (stage == "decoder" and adversarial)
        changed = encoder != self.trained.learner.encoder_trains
        self.trained.learner.train_parts(encoder, decoder=part != "encoder")
        return changed

    def observe(self, images_seen: int, result: StepResult) -> tuple[Event, ...]:
        """Take in a step; returns the decisions."""
        others = result.others
        gap = others["logit_real"] - others["logit_fake"] if "logit_real" in others else None
        figures = StepFigures(
            images_seen=images_seen,
            reconstruction=self._watched(result),
            finite=result.finite,
            accuracy_real=others.get("accuracy_real"),
            accuracy_fake=others.get("accuracy_fake"),
            logit_gap=gap,
            adaptive_weight=others.get("adaptive_weight"),
        )
        return self.balance.observe(figures)

    def validated(self, psnr: float | None) -> tuple[Event, ...]:
        """Take in the PSNR of held-out images, in dB; returns the decisions."""
        return () if psnr is None or self.trained.adversary is None else self.balance.validated(10 ** (-psnr / 20))

    def _watched(self, result: StepResult) -> float:
        """The autoencoder's loss without the adversarial term, as a positive number; the root mean squared error stands
        for a likelihood."""
        loss = self.trained.config.loss
        pixels = result.mse**0.5 if loss.reconstruction in ("gaussian", "optimal-gaussian") else result.reconstruction
        return pixels + loss.perceptual_weight * result.perceptual
