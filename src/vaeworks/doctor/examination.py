"""The examination of a model: all panels on the same images, with a cache of their findings."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..arguments import several
from ..data import ImageFile
from ..data.image_ref import ImageRef
from ..errors import ConfigError
from ..files.atomic import atomic
from ..files.cache import cache_folder
from ..images import default_size, notebook
from ..models import Autoencoder
from ..models.digest import model_digest
from .finding import VERDICTS, Finding, NotExamined
from .image_sample import DoctorProtocol, ImageSample, Track
from .panels import TITLES, panel
from .serialization import SCHEMA, read_finding, to_dict, write_finding
from .subject import Subject, check_examinable, encode_subject

Begin = Callable[[str], Track]
"""Called with the name of a step ("reading images", "encoding", a panel's name); returns a wrapper of the step's loop
that shows progress."""


@dataclass(frozen=True)
class Examination:
    """The findings of one model."""

    model: str
    """path or name that the user gave"""
    facts: Mapping[str, Any]
    """facts of the model: name, digest, parameters, dtype, constants"""
    protocol: DoctorProtocol
    findings: Mapping[str, Finding]
    """findings by panel, worst first"""
    seconds: Mapping[str, float]
    """seconds that each panel and "encoding" took; of a cached finding, when it was made"""

    @property
    def counts(self) -> dict[str, int]:
        """Number of panels by verdict, worst first."""
        return {verdict: sum(f.verdict == verdict for f in self.findings.values()) for verdict in VERDICTS}

    def __repr__(self) -> str:
        """One line: the model, and panels by verdict."""
        counts = ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items() if count)
        return f"Examination({self.model}: {counts or 'no panel'})"

    def _repr_html_(self) -> str:
        """A row for each panel, worst first, for notebooks."""
        rows = [(TITLES[name], finding.verdict, finding.sentence) for name, finding in self.findings.items()]
        return notebook.heading(repr(self)) + notebook.table(rows, ("panel", "verdict", "finding"))

    def to_dict(self) -> dict[str, Any]:
        """Everything but pictures as JSON values: the content of report.json."""
        findings = {
            name: {"title": TITLES[name], **to_dict(found), "seconds": self.seconds.get(name, 0.0)}
            for name, found in self.findings.items()
        }
        return {
            "schema": SCHEMA,
            "vaeworks": __version__,
            "model": {"path": self.model, **self.facts},
            "protocol": asdict(self.protocol),
            "verdicts": self.counts,
            "findings": findings,
            "seconds": dict(self.seconds),
        }


def examine_files(
    autoencoder: Autoencoder,
    files: Sequence[ImageFile] | ImageSample,
    *,
    model: str = "",
    panels: Iterable[str] | None = None,
    size: int | None = None,
    limit: int | None = None,
    quick: bool = False,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    masks: Sequence[ImageRef | None] | None = None,
    known: bool | None = None,
    reference: Autoencoder | None = None,
    keep: bool = True,
    begin: Begin = lambda what: iter,
) -> Examination:
    """Examine a model on images.

    files: the images, or an `ImageSample` that several models share, so that each image is read once for all of them;
    size, limit, quick, labels and masks are then the sample's. model: its name on the page. panels: names of `TITLES`;
    None: all. size: side of the squares that images become, in pixels; None: `default_size`. limit, quick: as in
    `choose`. labels, masks: one for each file. known, reference: as in `encode_subject`. keep: cache results and reuse
    them for the same model, images and options (`doctor_cache`). begin: for progress.
    Errors: ConfigError for an unknown panel; and those of `encode_subject`.

        examination = examine(vw.load("vae.safetensors"), scan("photos").files, quick=True)
        print(examination.counts)
    """
    names = check_panels(panels)
    if isinstance(files, ImageSample):
        if (size, limit, quick, labels, masks) != (None, None, False, None, None):
            raise ConfigError("size, limit, quick, labels and masks belong to the ImageSample; leave them out here")
        sample = files
        check_examinable(autoencoder, sample.size, reference)
    else:
        size = default_size(autoencoder.config) if size is None else size
        check_examinable(autoencoder, size, reference)
        sample = ImageSample(files, size=size, limit=limit, quick=quick, labels=labels, masks=masks)
    protocol = sample.protocol(autoencoder.config.in_channels, seed, reference)
    known = autoencoder.config.normalization_known if known is None else known
    digest = model_digest(autoencoder)
    folder = doctor_cache() / f"{digest[:16]}-{_key(protocol, known)}"
    findings: dict[str, Finding] = {}
    seconds: dict[str, float] = {}
    for name in names:
        if keep and (kept := read_finding(folder / name)):
            findings[name], seconds[name] = kept
    missing = [name for name in names if name not in findings]
    if missing:
        started = time.perf_counter()
        sample.pixels(autoencoder.config.in_channels, begin("reading images"))
        subject = encode_subject(
            autoencoder, sample, seed=seed, known=known, reference=reference, track=begin("encoding")
        )
        seconds["encoding"] = time.perf_counter() - started
        for name in missing:
            subject.track = begin(name)
            findings[name], seconds[name] = _examined(name, subject)
            if keep:
                _keep(folder / name, findings[name], seconds[name])
    worst_first = sorted(findings, key=lambda name: (VERDICTS.index(findings[name].verdict), list(TITLES).index(name)))
    return Examination(
        model or autoencoder.config.name,
        _facts(autoencoder, digest, known),
        protocol,
        {n: findings[n] for n in worst_first},
        seconds,
    )


def _examined(name: str, subject: Subject) -> tuple[Finding, float]:
    started = time.perf_counter()
    try:
        found = panel(name)(subject)
    except NotExamined as why:
        found = Finding.absent(why)
    if not found.images and found.verdict != "not examined":
        found = replace(found, images=subject.count)
    return found, time.perf_counter() - started


def _keep(folder: Path, found: Finding, seconds: float) -> None:
    with atomic(folder, overwrite=True) as temporary:  # replaces a torn one
        write_finding(temporary, found, seconds)


def check_panels(panels: Iterable[str] | None) -> list[str]:
    """The panels in the order of TITLES; None: all.

    Errors: ConfigError for an unknown panel, or for none.
    """
    if panels is None:
        return list(TITLES)
    asked = several(panels)
    for name in asked:
        if name not in TITLES:
            raise ConfigError(f"panel {name!r} is not known; choose from {', '.join(TITLES)}")
    if not asked:
        raise ConfigError(f"no panel is named; choose from {', '.join(TITLES)}")
    return [name for name in TITLES if name in asked]


def doctor_cache() -> Path:
    """The folder of cached findings: doctor/ in the cache folder (docs/doctor.md). It may be deleted at any time."""
    return cache_folder().parent / "doctor"


def _key(protocol: DoctorProtocol, known: bool) -> str:
    """A hash of what a cached finding depends on besides the model: the protocol and the code."""
    return hashlib.sha256(f"{protocol.digest} {known} {_code()} {torch.__version__}".encode()).hexdigest()[:16]


@cache
def _code() -> str:
    """SHA-256 over the source, so that no cached finding outlives the code that made it."""
    digest = hashlib.sha256(__version__.encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _facts(autoencoder: Autoencoder, digest: str, known: bool) -> dict[str, Any]:
    config = autoencoder.config
    return {
        "name": config.name,
        "digest": digest,
        "parameters": sum(p.numel() for p in autoencoder.parameters()),
        "dtype": str(autoencoder.dtype).removeprefix("torch."),
        "downsample_factor": autoencoder.downsample_factor,
        "latent_channels": autoencoder.latent_channels,
        "normalization": config.normalization,
        "scaling_factor": config.scaling_factor,
        "shift_factor": config.shift_factor,
        "scaling_known": known,
    }


def check_rules(rules: Iterable[str], panels: Iterable[str] | None) -> None:
    """Errors: ConfigError for a rule that `failing` does not know, or for a panel that is not among `panels` (None:
    all)."""
    nothing = Finding.absent(NotExamined(""))
    blank = Examination("", {}, DoctorProtocol("", 0, 0), dict.fromkeys(check_panels(panels), nothing), {})
    failing(blank, rules)


def failing(examination: Examination, rules: Iterable[str]) -> list[str]:
    """A sentence for every finding that breaks a rule.

    rules: "ill" (any panel that is ill), "watch" (watch or ill), a panel's name (if it is ill), or PANEL:watch. A panel
    that could not be examined breaks none.
    Errors: ConfigError for an unknown rule.
    """
    found: dict[str, str] = {}
    for rule in rules:
        name, _, level = rule.partition(":")
        if level and name in ("ill", "watch"):
            level = "none"
        level = level or (name if name in ("ill", "watch") else "ill")
        names = list(examination.findings) if name in ("ill", "watch") else [name]
        if level not in ("ill", "watch") or (name not in TITLES and name not in ("ill", "watch")):
            raise ConfigError(
                f"--fail-on {rule!r} is no rule; give ill, watch, a panel ({', '.join(TITLES)}) or PANEL:watch"
            )
        bad = ("ill",) if level == "ill" else ("ill", "watch")
        for panel_name in names:
            finding = examination.findings.get(panel_name)
            if finding is None:
                raise ConfigError(f"--fail-on {rule!r}: the panel was not asked for; add it to --panels")
            if finding.verdict in bad:
                found[panel_name] = f"{panel_name} is {finding.verdict}: {finding.sentence}"
    return list(found.values())
