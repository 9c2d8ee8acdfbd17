"""The supervisor of the discriminator: when it starts, how its weight rises, and what happens when the balance is lost.

    reconstruction  ->  warmup            ->  ramp                ->  adversarial
    only                it learns; the        the weight of the       watched
                        autoencoder gets      adversarial term
                        no gradient of it     rises

A state machine of plain numbers: no clock, no randomness, all counts in images. So a resumed run decides as the
undisturbed run would have decided, and all processes of a run decide alike from the same figures (means over
processes). It decides and gives the reason; the training loop acts. A halved weight stays halved, because a weight that
goes up and down would follow noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from ...config import BalanceConfig, from_dict, to_dict
from ...errors import ConfigError
from .balance_state import BalanceState, Event, Phase, StepFigures, StepPlan
from .plateau import Plateau


class Balance:
    """The state machine. Read `plan` before a step, call `observe` after it and `validated` after a validation."""

    def __init__(self, config: BalanceConfig, state: BalanceState | None = None):
        self.config = config
        self.state = state or BalanceState(Plateau(config.window))

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON values."""
        return to_dict(self.state)

    @classmethod
    def from_dict(cls, config: BalanceConfig, values: dict[str, Any]) -> Balance:
        """The supervisor that `to_dict` was called on.

        Errors: ConfigError for values that are no such state.
        """
        try:
            state = from_dict(BalanceState, values)
        except TypeError as error:
            raise ConfigError(f"this is no state of a discriminator's balance: {error}") from None
        if state.plateau.window != config.window:
            raise ConfigError(
                f"window (={config.window}) cannot change within a run, whose state has {state.plateau.window}"
            )
        return cls(config, state)

    @property
    def plan(self) -> StepPlan:
        """The plan of the next step."""
        s = self.state
        rise = {"ramp": (s.images_seen - s.phase_since) / self.config.ramp, "adversarial": 1.0}.get(s.phase, 0.0)
        learns = s.phase in ("warmup", "ramp", "adversarial") and s.paused_until is None
        return StepPlan(s.phase, learns, s.scale * min(rise, 1.0))

    @property
    def restore_to(self) -> int:
        """Images at the newest state that is certainly good. The newest checkpoint up to there must not be deleted."""
        # an average shows trouble only some time after it began
        return max(self.state.safe_at, self.state.healthy_at - 2 * self.config.smoothing)

    def observe(self, figures: StepFigures) -> tuple[Event, ...]:
        """Take in the figures of a step; returns the decisions."""
        s = self.state
        assert figures.images_seen >= s.images_seen, "images are counted on, also after a restore"
        images = figures.images_seen - s.images_seen
        s.images_seen = figures.images_seen
        if not (figures.finite and math.isfinite(figures.reconstruction)):
            s.nonfinite += 1
            return self._not_finite() if s.nonfinite >= self.config.nonfinite else ()
        s.nonfinite = 0
        self._average(figures, images)
        if s.phase == "reconstruction":
            s.plateau.add(figures.images_seen, figures.reconstruction, self.config.flat)
        self._watch()
        events = self._advance() if s.phase in ("reconstruction", "warmup", "ramp") else ()
        return (*events, *self._judge()) if s.phase in ("ramp", "adversarial") else events

    def validated(self, loss: float) -> tuple[Event, ...]:
        """Take in the loss of held-out images after the last step (positive, lower is better); returns decisions."""
        s = self.state
        if not math.isfinite(loss):
            return self._not_finite()
        s.validation = loss
        s.best_validation = loss if s.best_validation is None else min(loss, s.best_validation)
        if s.phase in ("ramp", "adversarial") and loss > s.best_validation * (1 + self.config.collapsed):
            cause = (
                f"on held-out images the reconstruction is {_percent(loss / s.best_validation - 1)} worse than its best"
            )
            return (self._restore(cause),)
        return ()

    # ------------------------------------------------------------------ phases

    def _advance(self) -> tuple[Event, ...]:
        """Go on to the next phase when it is time."""
        s, c = self.state, self.config
        age = s.images_seen - s.phase_since
        if s.phase == "reconstruction" and (why := self._reason_to_start()):
            self._enter("warmup" if c.warmup else "ramp")
            s.safe_at = s.images_seen  # the discriminator cannot have spoiled this state
            so = (
                f"discriminator warm-up, {c.warmup:,} images without adversarial gradient"
                if c.warmup
                else "the discriminator starts"
            )
            return (Event(s.images_seen, f"{why}: {so}", action="save"),)
        cold = s.accuracy is not None and s.accuracy < c.warm
        if s.phase == "warmup" and age >= (4 * c.warmup if cold else c.warmup):
            self._enter("ramp")
            s.safe_at = s.images_seen  # nor this one, and here the discriminator is warm
            right = "" if s.accuracy is None else f" and is right in {_percent(s.accuracy)} of cases"
            message = (
                f"the discriminator has learned for {age:,} images{right}; its weight rises over {c.ramp:,} images"
            )
            if cold:
                message += (
                    ", although it is hardly better than chance: it may be too small, or its learning rate too low"
                )
            return (Event(s.images_seen, message, action="save", alarm=cold),)
        if s.phase == "ramp" and age >= c.ramp:
            self._enter("adversarial")
            return (Event(s.images_seen, f"the adversarial term has its full weight, {s.scale:g}"),)
        return ()

    def _reason_to_start(self) -> str:
        s, c = self.state, self.config
        if c.start_images is not None:
            return f"{s.images_seen:,} images are seen" if s.images_seen >= c.start_images else ""
        if s.images_seen < c.earliest:
            return ""
        change = s.plateau.change
        pace = (
            ""
            if change is None
            else f"{'falls' if change < 0 else 'rises'} by {_percent(abs(change), 1)} in {c.window:,} images"
        )
        if s.plateau.reached:
            return f"the reconstruction loss has stopped falling (it {pace})"
        if s.images_seen < c.latest:
            return ""
        still = f", while the reconstruction loss still {pace}" if pace else ""
        return f"{s.images_seen:,} images are seen, the latest start{still}"

    def _enter(self, phase: Phase) -> None:
        self.state.phase, self.state.phase_since = phase, self.state.images_seen

    # ------------------------------------------------------------------ watching

    def _average(self, figures: StepFigures, images: int) -> None:
        """Update the exponential averages, with a half-life in images; they begin as plain means."""
        s = self.state
        age = s.images_seen - s.averaging_since
        keep = min(0.5 ** (images / self.config.smoothing), 1 - images / age) if age else 0.0

        def mix(old: float | None, new: float | None) -> float | None:
            if new is None or not math.isfinite(new):
                return old
            return new if old is None else keep * old + (1 - keep) * new

        s.reconstruction = mix(s.reconstruction, figures.reconstruction)
        sides = [a for a in (figures.accuracy_real, figures.accuracy_fake) if a is not None]
        s.accuracy = mix(s.accuracy, sum(sides) / len(sides) if sides else None)
        s.gap = mix(s.gap, figures.logit_gap)
        weight = figures.adaptive_weight
        s.clamped = mix(s.clamped, None if weight is None else float(weight >= self.config.clamp))
        if age >= self.config.smoothing:  # before, an average is as noisy as a step
            values = [v for v in (s.best, s.reconstruction) if v is not None]
            s.best = min(values, default=None)

    @property
    def _worse(self) -> float:
        """Share by which the reconstruction is worse than its best; 0 while its average is too young."""
        s = self.state
        young = s.images_seen - s.averaging_since < self.config.smoothing
        return 0.0 if young or not s.best or s.reconstruction is None else s.reconstruction / s.best - 1

    def _watch(self) -> None:
        """Update since when each trouble lasts. It begins above one threshold and ends below a lower one."""
        s, c = self.state, self.config

        def since(old: int | None, value: float | None, begins: float, ends: float) -> int | None:
            if value is None or value < ends:
                return None
            return s.images_seen if old is None and value >= begins else old

        s.worse_since = since(s.worse_since, self._worse, c.worse, c.worse / 2)
        s.collapsed_since = since(s.collapsed_since, self._worse, c.collapsed, c.worse)
        s.winning_since = since(s.winning_since, s.accuracy, c.winning, c.recovered)
        s.apart_since = since(s.apart_since, s.gap, c.apart, c.apart / 2)
        s.clamped_since = since(s.clamped_since, s.clamped, 0.9, 0.5)
        if s.phase != "adversarial":  # before, it may win, because the autoencoder has not learned from it yet
            s.winning_since = s.apart_since = s.clamped_since = None
        if s.phase not in ("ramp", "adversarial"):
            s.worse_since = s.collapsed_since = None
        if (s.worse_since, s.winning_since, s.apart_since, s.clamped_since) == (None,) * 4:
            s.healthy_at = s.images_seen
            if s.images_seen >= s.quiet_until:
                s.strikes = 0

    # ------------------------------------------------------------------ acting

    def _judge(self) -> tuple[Event, ...]:
        """Decide about trouble that lasts."""
        s, c = self.state, self.config
        if s.collapsed_since is not None and s.images_seen - s.collapsed_since >= c.smoothing:
            worse = (
                f"the reconstruction is {_percent(self._worse)} worse than its best ({s.reconstruction:.4g} against "
                f"{s.best:.4g})"
            )
            return (self._restore(worse),)
        if s.paused_until is not None:
            return self._resume()
        if s.images_seen < s.quiet_until:
            return ()
        for trouble in self._troubles():
            if trouble.since is not None and s.images_seen - trouble.since >= c.patience:
                return (self._back_off(trouble),)
        return ()

    def _troubles(self) -> tuple[_Trouble, ...]:
        """All kinds of trouble, the worst first."""
        s, c = self.state, self.config
        right = "" if s.accuracy is None else _percent(s.accuracy)
        apart = f"the logits of images and reconstructions have been {s.gap or 0:.3g} apart"
        clamped = f"the adaptive weight has been at its limit of {c.clamp:g}"
        return (
            _Trouble(s.worse_since, f"the reconstruction has been {_percent(self._worse)} worse than its best"),
            _Trouble(
                s.winning_since, f"the discriminator tells real from reconstructed in {right} of cases", ": it wins"
            ),
            _Trouble(s.apart_since, apart, ": the discriminator wins"),
            _Trouble(s.clamped_since, clamped, ": the adversarial gradient has vanished"),
        )

    def _back_off(self, trouble: _Trouble) -> Event:
        """Halve the weight at the first strike, pause the discriminator at the next, and so on alternately."""
        s, c = self.state, self.config
        assert trouble.since is not None
        message = f"{trouble.what} for {s.images_seen - trouble.since:,} images{trouble.so}; "
        halve = s.scale / 2 >= c.lowest and (s.strikes % 2 == 0 or trouble.since == s.worse_since)
        s.strikes += 1
        s.winning_since = s.apart_since = s.clamped_since = s.worse_since = None
        s.quiet_until = s.images_seen + c.cooldown
        if halve:
            s.scale /= 2
            return Event(
                s.images_seen,
                message + f"the weight of the discriminator was halved to {s.scale:g}",
                "halve",
                alarm=True,
            )
        s.paused_until = s.images_seen + c.pause
        return Event(
            s.images_seen, message + f"the discriminator does not learn for {c.pause:,} images", "pause", alarm=True
        )

    def _resume(self) -> tuple[Event, ...]:
        """End a pause when it is over."""
        s = self.state
        if s.paused_until is None or s.images_seen < s.paused_until:
            return ()
        s.paused_until = None
        s.quiet_until = s.images_seen + self.config.cooldown
        return (Event(s.images_seen, "the discriminator learns again", "resume"),)

    def _not_finite(self) -> tuple[Event, ...]:
        s = self.state
        cause = (
            f"{s.nonfinite} steps in a row were not finite"
            if s.nonfinite
            else "the loss of held-out images is not finite"
        )
        s.nonfinite = 0
        if s.phase in ("reconstruction", "off"):
            return (
                Event(
                    s.images_seen,
                    f"{cause}, without a discriminator: try a lower learning rate",
                    action="stop",
                    alarm=True,
                ),
            )
        return (self._restore(cause),)

    def _restore(self, cause: str) -> Event:
        """Restore the last good state, with half the weight and a new ramp; after too many collapses, without a
        discriminator."""
        s, c, target = self.state, self.config, self.restore_to
        now, fresh = s.images_seen, BalanceState(s.plateau)
        s = self.state = replace(
            fresh,
            images_seen=now,
            phase="warmup" if s.phase == "warmup" else "ramp",
            phase_since=now,
            scale=max(s.scale / 2, c.lowest),
            quiet_until=now + c.cooldown,
            restored=s.restored + 1,
            safe_at=now,
            averaging_since=now,
            best=s.best,
            best_validation=s.best_validation,
        )
        then = f"and the weight of the discriminator rises again, in {c.ramp:,} images and only to {s.scale:g}"
        if s.restored > c.restores:
            s.phase, s.scale = "off", 0.0
            then = (
                f"and after {s.restored} collapses the adversarial term stays off; the run goes on with the "
                "reconstruction alone"
            )
        message = f"{cause}: the adversarial training has collapsed; the last good state is restored, {then}"
        return Event(now, message, "restore", alarm=True, restore_to=target)


@dataclass(frozen=True)
class _Trouble:
    """A kind of trouble: since when it lasts, and the parts of its sentence before and after the duration."""

    since: int | None
    what: str
    so: str = ""


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"
