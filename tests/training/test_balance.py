"""The supervised discriminator start: when it begins, what it does about trouble, and that a resumed run decides the
same."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vaeworks as vw
from vaeworks.config import BalanceConfig
from vaeworks.training.gan.balance import Balance
from vaeworks.training.gan.balance_state import Event, StepFigures
from vaeworks.training.gan.plateau import Plateau

CONFIG = BalanceConfig(
    start_images=1_000, window=2_000, warmup=500, ramp=1_000, smoothing=100, patience=400, cooldown=1_000, pause=400
)
FULL = 2_600  # images at which CONFIG has been at full weight for a while
BATCH = 10


def drive(balance: Balance, figures: Iterator[StepFigures]) -> list[Event]:
    return [event for f in figures for event in balance.observe(f)]


def steps(
    start: int,
    stop: int,
    *,
    loss: Callable[[int], float] = lambda n: 0.1,
    noise: float = 0.0,
    seed: int = 0,
    batch: int = BATCH,
    **values,
) -> Iterator[StepFigures]:
    """Figures of steps; loss(images) times log-normal noise, other values constant or functions of the images."""
    rng = random.Random(seed)
    for n in range(start + batch, stop + 1, batch):
        others = {name: value(n) if callable(value) else value for name, value in values.items()}
        yield StepFigures(images_seen=n, reconstruction=loss(n) * math.exp(rng.gauss(0, noise)), **others)


def at_full_weight(config: BalanceConfig = CONFIG) -> Balance:
    balance = Balance(config)
    drive(balance, steps(0, FULL, accuracy_real=0.8, accuracy_fake=0.8))
    assert balance.plan.phase == "adversarial"
    return balance


# ---------------------------------------------------------------- the start


def flat_from(a: float, b: float, tau: float, window: int, flat: float) -> int:
    """First image count at which a + b exp(-n/tau) falls by less than `flat` in the window that follows."""
    return next(
        n
        for n in range(0, 10**7, 50)
        if b * (math.exp(-n / tau) - math.exp(-(n + window) / tau)) < flat * (a + b * math.exp(-(n + window / 2) / tau))
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tau", [1_000, 4_000])
@pytest.mark.parametrize(("batch", "noise"), [(10, 0.0), (10, 0.2), (160, 0.05)])
def test_plateau_of_noisy_decay(tau: int, batch: int, noise: float, seed: int) -> None:
    """A start within two windows of the first flat one: not too early, not never."""
    window, flat = 4_000, 0.02
    config = BalanceConfig(earliest=0, latest=10**6, window=window, flat=flat)
    begins = flat_from(0.1, 0.4, tau, window, flat)
    balance = Balance(config)
    events = drive(
        balance, steps(0, 100_000, loss=lambda n: 0.1 + 0.4 * math.exp(-n / tau), noise=noise, batch=batch, seed=seed)
    )
    assert "has stopped falling" in events[0].message
    # a slope's spread grows with the noise of a bin's mean; in units of the flatness asked for
    early = window * (0.1 + 2.5 * noise * math.sqrt(batch / (window / 16)) / flat / 4)
    assert begins + window - early <= events[0].images_seen <= begins + 3 * window


def test_no_plateau_while_it_falls() -> None:
    """Five percent a window is no plateau: the latest start comes, and the sentence says that the loss still falls."""
    config = BalanceConfig(earliest=1_000, latest=50_000, window=4_000, flat=0.02)
    balance = Balance(config)
    events = drive(balance, steps(0, 60_000, loss=lambda n: math.exp(-0.05 * n / 4_000), noise=0.02))
    assert events[0].images_seen == 50_000
    assert "the latest start, while the reconstruction loss still falls by" in events[0].message


def test_no_plateau_while_it_rises() -> None:
    """A loss that goes up is not at rest either."""
    config = BalanceConfig(earliest=1_000, latest=30_000, window=4_000)
    events = drive(Balance(config), steps(0, 30_000, loss=lambda n: math.exp(0.1 * n / 4_000)))
    assert "still rises by 10" in events[0].message


def test_flat_from_the_beginning_waits_for_the_earliest() -> None:
    """Not before `earliest`, even where nothing ever moves; outliers change nothing."""
    config = BalanceConfig(earliest=20_000, latest=10**6, window=4_000)
    spiky = steps(0, 40_000, loss=lambda n: 2.0 if n % 7_000 == 0 else 0.1, noise=0.1)
    assert drive(Balance(config), spiky)[0].images_seen in range(20_000, 26_000)


def test_start_at_a_given_count() -> None:
    """start_images is what counts, whatever the loss does."""
    events = drive(Balance(CONFIG), steps(0, 2_000, loss=lambda n: 1 / n))
    assert events[0] == Event(
        1_000, "1,000 images are seen: discriminator warm-up, 500 images without adversarial gradient", "save"
    )


@pytest.mark.parametrize("batch", [1, 10, 250])
def test_plateau_measures_the_change_per_window(batch: int) -> None:
    """On an exact exponential, the change is what the formula says, at any cadence."""
    plateau = Plateau(4_000)
    for n in range(batch, 8_001, batch):
        plateau.add(n, math.exp(-0.04 * n / 4_000), 0.02)
    assert plateau.change == pytest.approx(-0.04, rel=0.02)
    assert len(plateau.ends) <= 18


def test_phases() -> None:
    """Reconstruction only, learning unfelt, a linear rise, full weight."""
    balance, plans, saves = Balance(CONFIG), {0: Balance(CONFIG).plan}, []
    for figures in steps(0, 3_000, accuracy_real=0.9, accuracy_fake=0.7):
        saves += [event.images_seen for event in balance.observe(figures) if event.action == "save"]
        plans[figures.images_seen] = balance.plan
    assert {n for n, p in plans.items() if p.train_discriminator} == set(range(1_000, 3_001, BATCH))
    assert all(p.weight == pytest.approx(min(max(0, (n - 1_500) / 1_000), 1)) for n, p in plans.items())
    assert [plans[n].phase for n in (990, 1_000, 1_490, 1_500, 2_490, 2_500)] == [
        "reconstruction",
        "warmup",
        "warmup",
        "ramp",
        "ramp",
        "adversarial",
    ]
    assert saves == [1_000, 1_500]  # so that there is always a state to come back to


def test_cold_discriminator_gets_more_time() -> None:
    """At chance, it learns alone for up to four times as long; then the user is told."""
    events = drive(Balance(CONFIG), steps(0, 4_000, accuracy_real=0.5, accuracy_fake=0.52))
    assert [e.images_seen for e in events if e.alarm] == [3_000]
    assert "hardly better than chance" in events[1].message
    late = drive(Balance(CONFIG), steps(0, 4_000, accuracy_real=lambda n: 0.5 if n < 2_000 else 0.9))
    assert not any(e.alarm for e in late)
    assert 2_000 < late[1].images_seen < 2_200


# ---------------------------------------------------------------- the watch


@pytest.mark.parametrize("seed", range(3))
def test_healthy_runs_are_silent(seed: int) -> None:
    """Noise, a discriminator that always wins until it is felt, and the usual price of a tenth: three changes of phase,
    no alarm."""
    balance = Balance(BalanceConfig.for_run(200_000))
    base = steps(
        0, 200_000, loss=lambda n: 0.08 + 0.4 * math.exp(-n / 15_000), noise=0.2, batch=20, seed=seed, logit_gap=3.0
    )
    events: list[Event] = []
    for figures in base:
        felt = balance.plan.weight
        figures = dataclasses.replace(
            figures,
            reconstruction=figures.reconstruction * (1 + 0.1 * felt),
            accuracy_real=1.0 - 0.1 * felt,
            accuracy_fake=0.99,
            adaptive_weight=1e4 if figures.images_seen % 1_000 == 0 else 20.0,
        )
        events += balance.observe(figures)
    assert [(e.action, e.alarm) for e in events] == [("save", False), ("save", False), (None, False)]
    assert 40_000 <= events[0].images_seen <= 120_000
    assert balance.plan.weight == 1.0


def test_winning_discriminator_is_held_back() -> None:
    """Halved after `patience`, paused at the next strike after `cooldown`, learning again after `pause`, halved
    again."""
    balance = at_full_weight()
    events = drive(balance, steps(FULL, FULL + 5_000, accuracy_real=0.998, accuracy_fake=0.99))
    assert [e.action for e in events] == ["halve", "pause", "resume", "halve", "pause", "resume"]
    assert events[0].message == (
        "the discriminator tells real from reconstructed in 99 % of cases for 400 images: it wins; the weight of the "
        "discriminator was halved to 0.5"
    )
    at = [e.images_seen for e in events]
    assert FULL + 400 <= at[0] <= FULL + 1_100
    assert [b - a for a, b in pairwise(at)] == [1_000, 400, 1_000, 1_000, 400]
    assert balance.plan.weight == 0.25
    assert all(e.alarm == (e.action != "resume") for e in events)


def test_paused_discriminator_does_not_learn() -> None:
    """Between pause and resume the plan says so, and the autoencoder goes on feeling it."""
    balance = at_full_weight()
    for figures in steps(FULL, FULL + 4_000, accuracy_real=1.0, accuracy_fake=1.0):
        if any(e.action == "pause" for e in balance.observe(figures)):
            break
    assert balance.plan == dataclasses.replace(balance.plan, train_discriminator=False, weight=0.5)
    until = balance.state.images_seen + CONFIG.pause
    drive(balance, steps(balance.state.images_seen, until - BATCH))
    assert not balance.plan.train_discriminator
    drive(balance, steps(until - BATCH, until))
    assert balance.plan.train_discriminator


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"logit_gap": 80.0}, r"have been \d\d(\.\d)? apart for .* the discriminator wins"),
        ({"adaptive_weight": 1e4}, "at its limit of 10000 for .*: the adversarial gradient has vanished"),
        (
            {"loss": lambda n: 0.15},
            "has been .* worse than its best for .* images; the weight of the discriminator was halved to 0.5",
        ),
    ],
    ids=["apart", "clamped", "worse"],
)
def test_other_imbalances(values: dict, words: str) -> None:
    """Each kind of trouble has its sentence, and halves the weight once it has lasted."""
    balance = at_full_weight()
    drive(balance, steps(FULL, FULL + 200, logit_gap=1.0, adaptive_weight=1.0))
    events = drive(balance, steps(FULL + 200, FULL + 1_500, **values))
    assert events[0].action == "halve"
    assert re.search(words, events[0].message), events[0].message
    assert events[0].images_seen >= FULL + 200 + CONFIG.patience


def test_trouble_has_to_last_and_to_end() -> None:
    """Hysteresis: a short win is no alarm; falling a little below the threshold does not end a long one; falling far
    does."""
    short = at_full_weight()
    blink = steps(FULL, 8_000, accuracy_real=lambda n: 1.0 if n % 1_000 < 250 else 0.5)
    assert drive(short, blink) == []
    long = at_full_weight()
    drive(long, steps(FULL, FULL + 1_000, accuracy_real=lambda n: 1.0 if n < FULL + 800 else 0.97))
    assert long.state.scale == 0.5 and long.state.images_seen == FULL + 1_000
    held, left = at_full_weight(), at_full_weight()
    for balance, dip in ((held, 0.96), (left, 0.5)):
        drive(balance, steps(FULL, FULL + 650, accuracy_real=1.0))
        assert balance.state.winning_since is not None and balance.state.scale == 1.0
        drive(balance, steps(FULL + 650, FULL + 700, accuracy_real=dip))
    assert held.state.winning_since is not None
    assert left.state.winning_since is None


def test_who_recovered_begins_anew() -> None:
    """After a time in balance, the next win is a first strike again: halved, not paused."""
    balance = at_full_weight()
    wins = [(FULL, FULL + 1_500), (FULL + 4_500, FULL + 6_000)]
    figures = steps(FULL, FULL + 6_000, accuracy_real=lambda n: 1.0 if any(a < n <= b for a, b in wins) else 0.8)
    assert [e.action for e in drive(balance, figures)] == ["halve", "halve"]


def test_one_lucky_step_is_not_the_best() -> None:
    """The first batch of a run may be an easy one; what follows is not a collapse for that."""
    events = drive(Balance(CONFIG), steps(0, 5_000, loss=lambda n: 0.01 if n == BATCH else 0.1, accuracy_real=0.8))
    assert not any(e.alarm for e in events)


def test_weight_has_a_floor() -> None:
    """Trouble without end: the weight ends at `lowest`, then only pauses are left."""
    balance = at_full_weight()
    events = drive(balance, steps(FULL, 40_000, accuracy_real=1.0))
    assert balance.state.scale == CONFIG.lowest
    assert {e.action for e in events[-4:]} == {"pause", "resume"}
    times = [e.images_seen for e in events if e.action in ("halve", "pause")]
    assert min(b - a for a, b in pairwise(times)) >= CONFIG.cooldown


# ---------------------------------------------------------------- collapse


def test_collapse_leads_to_restore() -> None:
    """The loss runs away: the state of before is restored, the weight starts again from nothing and rises to half."""
    balance, onset = at_full_weight(), FULL + 1_000
    figures = steps(
        FULL, FULL + 3_000, loss=lambda n: 0.1 * (1 if n < onset else math.exp((n - onset) / 200)), noise=0.05
    )
    for f in figures:
        if events := balance.observe(f):
            break
    (event,) = events
    assert event.action == "restore" and event.alarm
    assert "the adversarial training has collapsed; the last good state is restored" in event.message
    assert event.restore_to is not None
    assert onset - 1_000 <= event.restore_to <= onset
    assert event.images_seen <= onset + 500
    assert (balance.plan.phase, balance.plan.weight, balance.plan.train_discriminator) == ("ramp", 0.0, True)
    # the caller restores; all is well again, and no memory of the bad days raises an alarm
    now = balance.state.images_seen
    assert [e.alarm for e in drive(balance, steps(now, now + 3_000, noise=0.2, accuracy_real=0.7))] == [False]
    assert balance.plan.weight == 0.5


def collapsed() -> Balance:
    balance = at_full_weight()
    balance.validated(0.1)
    assert [e.action for e in balance.validated(1.0)] == ["restore"]
    return balance


def test_the_best_is_remembered_over_a_restore() -> None:
    """A restored state that is worse than it was is trouble again, and not a new beginning."""
    assert [e.action for e in drive(collapsed(), steps(FULL, FULL + 1_200, loss=lambda n: 0.15))][-1:] == ["halve"]


def test_averages_begin_anew_after_a_restore() -> None:
    """The first step after it may be an unlucky one."""
    spike = steps(FULL, FULL + 2_000, loss=lambda n: 0.6 if n == FULL + BATCH else 0.1)
    assert not any(e.alarm for e in drive(collapsed(), spike))


def test_restore_never_goes_behind_what_was_saved() -> None:
    """A collapse right after the weight began to rise: the checkpoint that was asked for then is the good one."""
    balance = Balance(CONFIG)
    events = drive(balance, steps(0, 2_000, loss=lambda n: 0.1 if n < 1_550 else 1.0))
    saved = [e.images_seen for e in events if e.action == "save"]
    restored = [e for e in events if e.action == "restore"]
    assert restored[0].restore_to == saved[-1] == 1_500
    assert balance.restore_to >= 1_500


def test_validation_sees_a_collapse_at_once() -> None:
    """Twice the best loss on held-out images is not noise."""
    balance = at_full_weight()
    assert balance.validated(0.1) == ()
    assert balance.validated(0.19) == ()
    (event,) = balance.validated(0.21)
    assert event.action == "restore" and "on held-out images the reconstruction is 110 % worse" in event.message
    assert [e.action for e in at_full_weight().validated(math.nan)] == ["restore"]
    assert [e.action for e in Balance(CONFIG).validated(math.nan)] == ["stop"]


def test_steps_that_are_not_finite() -> None:
    """Two in a row are passed over; three are a collapse with a discriminator, and the end of the run without one."""
    bad = [StepFigures(images_seen=FULL + BATCH * i, reconstruction=math.nan) for i in (1, 2, 3)]
    balance = at_full_weight()
    assert drive(balance, iter(bad[:2])) == []
    assert drive(balance, iter([StepFigures(images_seen=bad[2].images_seen, reconstruction=0.1)])) == []
    assert drive(balance, iter(dataclasses.replace(f, images_seen=f.images_seen + 100) for f in bad[:2])) == []
    balance = at_full_weight()
    (event,) = drive(balance, iter(bad))
    assert event.action == "restore" and "3 steps in a row were not finite" in event.message
    assert "NaN" not in json.dumps(balance.to_dict())
    (event,) = drive(Balance(CONFIG), iter(dataclasses.replace(f, reconstruction=0.1, finite=False) for f in bad))
    assert event.action == "stop" and "try a lower learning rate" in event.message


def test_the_discriminator_that_breaks_in_its_warmup_stays_cold() -> None:
    """Restored to before it learned, it has to learn alone again."""
    balance = Balance(CONFIG)
    drive(balance, steps(0, 1_100))
    drive(
        balance, iter([StepFigures(images_seen=1_100 + BATCH * i, reconstruction=0.1, finite=False) for i in (1, 2, 3)])
    )
    assert balance.plan.phase == "warmup"


def test_after_too_many_collapses_the_discriminator_stays_off() -> None:
    """Three restores, then reconstruction alone, for good."""
    balance = at_full_weight()
    balance.validated(0.1)
    for i in range(4):
        (event,) = balance.validated(1.0)
        assert event.action == "restore"
        assert ("stays off" in event.message) == (i == 3)
    drive(balance, steps(FULL, FULL + 5_000, accuracy_real=1.0))
    assert (balance.plan.phase, balance.plan.weight, balance.plan.train_discriminator) == ("off", 0.0, False)


# ---------------------------------------------------------------- the state


def stormy(seed: int, stop: int = 12_000) -> list[StepFigures]:
    """A run with every kind of trouble in it."""
    rng = random.Random(seed)
    found = []
    mood = {"loss": 0.1, "accuracy": 0.8, "gap": 1.0, "weight": 5.0}
    for n in range(25, stop + 1, 25):
        if rng.random() < 0.02:
            mood = {
                "loss": rng.choice([0.1, 0.1, 0.14, 0.5]),
                "accuracy": rng.choice([0.5, 0.8, 0.97, 1.0]),
                "gap": rng.choice([1.0, 90.0]),
                "weight": rng.choice([5.0, 1e4]),
            }
        loss = math.nan if rng.random() < 0.02 else mood["loss"] * math.exp(rng.gauss(0, 0.2))
        accuracy = None if rng.random() < 0.1 else mood["accuracy"]
        found.append(
            StepFigures(
                images_seen=n,
                reconstruction=loss,
                accuracy_real=accuracy,
                logit_gap=mood["gap"],
                adaptive_weight=mood["weight"],
            )
        )
    return found


def decisions(balance: Balance, figures: list[StepFigures]) -> list[object]:
    out: list[object] = []
    for f in figures:
        out += balance.observe(f)
        if f.images_seen % 1_000 == 0 and math.isfinite(f.reconstruction):
            out += balance.validated(f.reconstruction)
        out.append((balance.plan, balance.restore_to))
    return out


@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), plateau=st.booleans())
def test_resumed_runs_decide_the_same(seed: int, share: float, plateau: bool) -> None:
    """Saved as JSON at any point and read again, the supervisor goes on as if nothing had happened."""
    config = dataclasses.replace(
        CONFIG, start_images=None if plateau else 1_000, earliest=500, latest=5_000, flat=0.1, nonfinite=2
    )
    figures = stormy(seed)
    cut = int(share * len(figures))
    whole = decisions(Balance(config), figures)
    first = Balance(config)
    before = decisions(first, figures[:cut])
    saved = json.dumps(first.to_dict(), allow_nan=False)
    assert before + decisions(Balance.from_dict(config, json.loads(saved)), figures[cut:]) == whole


def test_storms_do_contain_what_they_should() -> None:
    """The property above is about all actions, not about silence."""
    config = dataclasses.replace(CONFIG, nonfinite=2)
    actions = {e.action for seed in range(12) for e in decisions(Balance(config), stormy(seed)) if isinstance(e, Event)}
    assert actions >= {"save", "halve", "pause", "resume", "restore"}


@given(seed=st.integers(0, 10**6))
def test_plans_are_always_possible(seed: int) -> None:
    """Weights in [0,1]; never felt before it has learned; never restored to the future."""
    balance = Balance(dataclasses.replace(CONFIG, nonfinite=2))
    learned = 0
    for f in stormy(seed):
        events = balance.observe(f)
        plan = balance.plan
        assert 0 <= plan.weight <= 1 and 0 <= balance.restore_to <= f.images_seen
        assert all(
            e.message and "\n" not in e.message and (e.action != "restore" or e.restore_to is not None) for e in events
        )
        learned += plan.train_discriminator
        assert plan.weight == 0 or learned >= CONFIG.warmup / 25


def test_states_of_other_runs_are_refused() -> None:
    """Unknown fields, wrong types, and another window are a ConfigError."""
    good = Balance(CONFIG).to_dict()
    for bad in ({**good, "colour": 1}, {**good, "phase": "party"}, {**good, "scale": "1"}, {}):
        with pytest.raises(vw.ConfigError):
            Balance.from_dict(CONFIG, bad)
    with pytest.raises(vw.ConfigError, match="cannot change within a run"):
        Balance.from_dict(dataclasses.replace(CONFIG, window=4_000), good)


@pytest.mark.parametrize(
    "change",
    [
        {"latest": 0},
        {"window": 0},
        {"warmup": -1},
        {"start_images": -1},
        {"winning": 0.9},
        {"warm": 0.3},
        {"worse": 2.0},
        {"flat": 0.0},
        {"clamp": math.inf},
        {"lowest": 0.0},
        {"restores": -1},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(change: dict) -> None:
    """In one line, at once."""
    with pytest.raises(vw.ConfigError) as error:
        BalanceConfig(**change)
    assert "\n" not in str(error.value)


@given(images=st.integers(1, 10**8))
def test_settings_for_a_run_of_any_length(images: int) -> None:
    """They are valid, and the adversarial term is felt before three quarters of the run."""
    config = BalanceConfig.for_run(images)
    assert config.latest + config.warmup + config.ramp <= max(0.75 * images, 2)
