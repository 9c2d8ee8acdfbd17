"""Six claims about the SD VAE, from a debate among people who train such VAEs, judged by studies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...doctor.panels.smuggling import FAR, NONLOCAL, NORM_OUTLIER
from ...recipes.studies import BASELINE
from ..control import ratio
from ..page import number
from ..verdict import TIE, BaselineComparison
from .record import Studies, StudyRecord, whole_records

Standing = Literal["supported", "not supported", "undecided", "not testable here", "not run"]


@dataclass(frozen=True)
class Evidence:
    """A table of evidence: rows of a study against another row, or figures of the doctor."""

    study: StudyRecord
    rows: Sequence[str]
    against: str = BASELINE
    doctor: Mapping[str, str] | None = None
    """figure -> label"""


@dataclass(frozen=True)
class Claim:
    """One claim, judged."""

    said: str
    """the claim, as the debate had it"""
    tested: str
    """how it is tested, and what decides"""
    standing: Standing
    why: str
    evidence: tuple[Evidence, ...] = ()
    picked: int = 1
    """number of comparisons that could decide; the chance of a false verdict grows with it"""
    finding: str = "supported"
    """what was found where the claim is supported"""

    @property
    def verdict(self) -> str:
        """The standing, with the generators' optimizer steps where they limit what it says."""
        if self.standing not in ("supported", "not supported"):
            return self.standing
        found = self.finding if self.standing == "supported" else self.standing
        steps = sorted({e.study.steps for e in self.evidence if e.doctor is None})
        return f"{found} at {' or '.join(f'{n:,}' for n in steps)} steps" if steps else found


def judge(studies: Studies) -> list[Claim]:
    """Judge all six claims. Errors: FormatError for an incomplete record."""
    with whole_records():
        return [make(studies) for make in CLAIMS]


def weak_kl(studies: Studies) -> Claim:
    """(a) The KL term is too weak."""
    said = "SD's latents are unbounded and its KL term is too weak; hence the magic scaling factor."
    ldms = ""
    if "kl" in studies:
        latents, pixels = (
            math.prod(studies["kl"].row(BASELINE)["latents"]),
            3 * studies["kl"].arena["data"]["size"] ** 2,
        )
        ldms = f" Latent diffusion's own, 1e-6 of sums, is {number(1e-6 * latents / pixels)} here."
    tested = (
        f"Stronger KL weights against 1e-6, in mean/mean units.{ldms} Supported if any "
        "gives better pictures in the end; not supported if each is, beyond doubt, no better by more than a factor of "
        f"{TIE:g}."
    )
    if "kl" not in studies or not (stronger := _named(studies["kl"], "kl-")):
        return _not_run(said, tested, "kl")
    study = studies["kl"]
    better = [c for c in map(study.compared, stronger) if c.verdict == "better"]
    standing, why = _by(
        study,
        [BASELINE, *stronger],
        bool(better),
        all(study.bounded(row, worse=False) for row in stronger) and not study.left_out,
        f"better in the end with {_figures(better)}",
        "no stronger KL term gives better pictures in the end",
    )
    std, largest, bits = (number(study.arm(BASELINE, key)) for key in ("std", "scale.largest", "bits"))
    why += (
        f". The baseline's latents have a standard deviation of {std}, go up to {largest} times that, and say {bits} "
        "bits a number"
    )
    return Claim(said, tested, standing, why, (Evidence(study, _others(study)),), len(stronger))


def free_channels(studies: Studies) -> Claim:
    """(b) More channels are nearly free."""
    said = "More channels are nearly free detail."
    tested = (
        "More channels than 4, at the same downsample factor and as many tokens for the generator. Supported if each "
        f"count raises the PSNR with every seed and costs, beyond doubt, no more than a factor of {TIE:g}, both in how "
        "well the latents are learned and in the pictures in the end; not supported if the pictures of any are worse "
        f"in the end, unless surely by less than {TIE:g}."
    )
    more = _more_channels(studies["channels"]) if "channels" in studies else []
    if not more:
        return _not_run(said, tested, "channels")
    study = studies["channels"]
    gains = {
        row: [a - b for a, b in zip(study.each(row, "psnr"), study.each(BASELINE, "psnr"), strict=False)]
        for row in more
    }
    free = [row for row in more if all(study.bounded(row, worse=True, distance=d) for d in ("fd_recon", "fd_real"))]
    costly = [c for c in map(study.compared, more) if c.verdict == "worse" and not study.bounded(c.row, worse=True)]
    gained = all(gains[row] and min(gains[row]) > 0 for row in more)
    standing, why = _by(
        study,
        [BASELINE, *more],
        gained and free == more and not study.left_out,
        bool(costly),
        "detail is gained, and what it costs is within the factor",
        f"worse pictures after as many steps with {_figures(costly)}",
    )
    told = ", ".join(f"{row} {math.fsum(g) / len(g):+.1f} dB" for row, g in gains.items() if g)
    spared = f". Within the factor: {', '.join(free)}" if free and standing != "supported" else ""
    narrow = f". {note}" if (note := study.narrow(more)) else ""
    return Claim(
        said,
        tested,
        standing,
        f"{why}. PSNR gained: {told or '–'}{spared}{narrow}",
        (Evidence(study, _others(study)),),
        len(more),
    )


def old_discriminator(studies: Studies) -> Claim:
    """(c) PatchGAN is ancient."""
    said = "PatchGAN is ancient; a modern discriminator is better."
    tested = (
        "An anti-aliased discriminator (modern-gan) and R3GAN's against PatchGAN, with the same perceptual distance. "
        "Supported if either gives better pictures in the end; not supported if both are, beyond doubt, no better by "
        f"more than a factor of {TIE:g}. decoder-gan differs in its stage, too, and decides nothing."
    )
    study = studies.get("discriminator")
    rivals = [row for row in ("modern-gan", "r3gan") if study and row in study.arms]
    if study is None or not rivals or "patchgan" not in study.arms:
        return _not_run(said, tested, "discriminator")
    better = [c for c in (study.compared(row, "patchgan") for row in rivals) if c.verdict == "better"]
    same = all(study.bounded(row, worse=False, against="patchgan") for row in rivals) and not study.left_out
    silent = [row for row in ("patchgan", *rivals) if study.each(row, "psnr") == study.each("perceptual", "psnr")]
    standing, why = _by(
        study,
        ["patchgan", *rivals],
        bool(better) and not silent,
        same and not silent,
        f"better in the end than PatchGAN with {_figures(better)}",
        "neither gives better pictures in the end than PatchGAN",
        f"{', '.join(silent)} came out as without a discriminator: it never acted" if silent else "",
    )
    floors = ", ".join(
        f"{row} {number(study.row(row)['floor'])}" for row in ("perceptual", "patchgan", *rivals) if row in study.arms
    )
    why += f". Distance of reconstructions to real images, of one autoencoder each: {floors}"
    return Claim(
        said,
        tested,
        standing,
        why,
        (Evidence(study, [r for r in study.arms if r != "patchgan"], "patchgan"),),
        len(rivals),
    )


def better_without_kl(studies: Studies) -> Claim:
    """(d) Bounds, variance and noise beat KL."""
    said = "A plain autoencoder with bounded outputs, a variance term and perturbed latents beats KL."
    tested = (
        "Just that (clamped-ae) against every KL weight that was run on the same images by the same protocol. "
        "Supported if it gives better pictures in the end than each; not supported if it is beyond doubt no better "
        f"than one of them by more than a factor of {TIE:g}."
    )
    if "bottleneck" not in studies or "clamped-ae" not in studies["bottleneck"].arms:
        return _not_run(said, tested, "bottleneck")
    own = studies["bottleneck"]
    study = own.joined(studies["kl"]) if "kl" in studies else own
    rivals = [BASELINE, *_named(study, "kl-")]
    found = {rival: study.compared("clamped-ae", rival) for rival in rivals}
    lost = [rival for rival in rivals if study.bounded("clamped-ae", worse=False, against=rival)]
    against = ", ".join(f"{rival}: {found[rival].verdict}" for rival in rivals)
    standing, why = _by(
        study,
        ["clamped-ae", *rivals],
        all(c.verdict == "better" for c in found.values()),
        bool(lost),
        "better pictures in the end than with any KL weight that was run",
        f"no better in the end than with {', '.join(lost)}",
    )
    others = [c for c in map(own.compared, _others(own)) if c.verdict == "better" and c.row != "clamped-ae"]
    more = f". Others that are better than {BASELINE}: {_figures(others)}" if others else ""
    return Claim(
        said,
        tested,
        standing,
        f"{why}. clamped-ae against {against}{more}",
        (Evidence(own, _others(own)),),
        len(rivals),
    )


def too_much(studies: Studies) -> Claim:
    """(e) Past a point, KL and channels hurt."""
    said = "Past a point a stronger KL term, and more channels, hurt the diffusion model."
    tested = (
        "The strongest KL term and the most channels that were run. One hurts where its latents are learned worse, and "
        f"its pictures are neither better in the end nor surely within a factor of {TIE:g}; it does not hurt where "
        "both are, beyond doubt, no more than that factor worse. Where pictures are worse although the latents are "
        "learned as well, the autoencoder has lost something, not the diffusion model. Supported if both hurt, "
        "not supported if one does not. A point beyond those that were run cannot be excluded."
    )
    for name in ("kl", "channels"):
        if name not in studies or not (_named(studies[name], "kl-") if name == "kl" else _more_channels(studies[name])):
            return _not_run(said, tested, name)
    kl, channels = studies["kl"], studies["channels"]
    ends = {
        "the strongest KL term": (kl, _named(kl, "kl-")[-1]),
        "the most channels": (channels, _more_channels(channels)[-1]),
    }
    halves = [_hurt(what, *end) for what, end in ends.items()]
    standing: Standing = "undecided"
    if all(found == "supported" for found, _ in halves):
        standing = "supported"
    elif any(found == "not supported" for found, _ in halves):
        standing = "not supported"
    narrow = f". {note}" if (note := channels.narrow([ends["the most channels"][1]])) else ""
    evidence = tuple(Evidence(study, [row]) for study, row in ends.values())
    return Claim(
        said,
        tested,
        standing,
        "; ".join(words for _, words in halves) + narrow,
        evidence,
        finding="slower to learn",
    )


def _hurt(what: str, study: StudyRecord, row: str) -> tuple[Standing, str]:
    learned, final = (study.compared(row, distance=d) for d in ("fd_recon", "fd_real"))
    harmless = [study.bounded(row, worse=True, distance=d) for d in ("fd_recon", "fd_real")]
    words = study.doubt(row, BASELINE) or f"latents {learned.verdict}, pictures in the end {final.verdict}"
    if learned.verdict == "worse" and final.verdict != "better" and not any(harmless):
        return "supported", f"the latents of {what} are slower to learn ({row}: {words})"
    if all(harmless) and not study.left_out:
        return "not supported", f"the latents of {what} are not slower to learn ({row}: {words})"
    return "undecided", f"of {what} it is undecided ({row}: {words})"


DOCTOR = {
    "smuggling.norm_outlier": "largest norm, times the median",
    "smuggling.far_worst": "far change, worst cell, gray levels",
    "smuggling.far_median": "far change, cell at random",
    "smuggling.nonlocal_worst": "share of influence far away, worst cell",
}


def smuggling(studies: Studies) -> Claim:
    """(f) A few latents carry the whole picture."""
    said = "The network smuggles global information through a few latents of large magnitude."
    tested = (
        f"The doctor's smuggling panel on the autoencoder of SD's kind, {BASELINE}. A cell acts far where replacing it "
        f"changes the picture beyond its neighbours by more than {FAR:g} gray levels, by {100 * NONLOCAL:g} % of all "
        f"that it changes, and 3 times as much as a cell at random does. It is large above {NORM_OUTLIER:g} times the "
        "median norm, or half of what so few cells can have. Supported if both hold with every seed. These "
        "autoencoders have no attention and were trained for minutes. Spots that need either cannot show, so that "
        "their absence says nothing: the claim is not testable here where no cell acts far with any seed."
    )
    study = next((s for s in studies.values() if s.each(BASELINE, "smuggling.norm_outlier")), None)
    if study is None:
        return Claim(said, tested, "not run", "the doctor could not look for it")
    looked = [[arm["doctor"].get(key) for key in DOCTOR] for arm in study.arms[BASELINE]]
    seeds = [values for values in looked if all(v is not None and math.isfinite(v) for v in values)]
    limit = min(NORM_OUTLIER, math.sqrt(math.prod(study.row(BASELINE)["latents"][1:])) / 2)
    far = [worst > FAR and share > NONLOCAL and worst > 3 * common for _, worst, common, share in seeds]
    large = [norm > limit for norm, *_ in seeds]
    standing: Standing = "undecided"
    if len(seeds) > 1 and len(seeds) == len(study.arms[BASELINE]):
        standing = "supported" if all(far) and all(large) else "undecided" if any(far) else "not testable here"
    norms, changes = (", ".join(number(seed[i]) for seed in seeds) or "–" for i in (0, 1))
    why = (
        f"by seed, the largest norm is {norms} times the median (large above {limit:.3g}), and replacing the worst "
        f"cell changes what is far away by {changes} gray levels"
    )
    return Claim(said, tested, standing, why, tuple(Evidence(s, list(s.arms), doctor=DOCTOR) for s in studies.values()))


CLAIMS: tuple[Callable[[Studies], Claim], ...] = (
    weak_kl,
    free_channels,
    old_discriminator,
    better_without_kl,
    too_much,
    smuggling,
)


def _others(study: StudyRecord) -> list[str]:
    return [name for name in study.arms if name != BASELINE]


def _named(study: StudyRecord, begins: str) -> list[str]:
    """Rows of a sweep besides the baseline, the smallest value first."""
    return sorted(
        (n for n in _others(study) if n.startswith(begins)), key=lambda name: float(name.removeprefix(begins))
    )


def _more_channels(study: StudyRecord) -> list[str]:
    return [row for row in _named(study, f"f{study.scale.factor}c") if int(row.partition("c")[2]) > 4]


def _not_run(said: str, tested: str, study: str) -> Claim:
    return Claim(said, tested, "not run", f"study {study!r} was not run, or without the autoencoders that this needs")


def _by(
    study: StudyRecord,
    rows: Sequence[str],
    supported: bool,
    refuted: bool,
    if_so: str,
    if_not: str,
    obstacle: str = "",
) -> tuple[Standing, str]:
    if supported:
        return "supported", if_so
    if refuted:
        return "not supported", if_not
    missing = f"not trained: {', '.join(study.left_out)}, and not beyond doubt without" if study.left_out else ""
    return "undecided", study.doubt(*rows) or obstacle or missing or "not beyond doubt with both generators"


def _figures(found: Sequence[BaselineComparison]) -> str:
    """Ratios with their intervals, the smaller generator first."""
    return ", ".join(f"{c.row} ({'; '.join(map(ratio, c.ratios.values()))})" for c in found)
