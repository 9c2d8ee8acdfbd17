"""The tables of `eval`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .console import TERMINAL, results

if TYPE_CHECKING:
    from rich.text import Text

    from ..intervals import Interval
    from ..metrics import Comparison, Evaluation, Evaluations, Speed

LABELS = {"psnr": "PSNR dB", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "lpips": "LPIPS"}
FORMS = {"psnr": ".2f", "ssim": ".4f", "ms_ssim": ".4f", "lpips": ".4f"}


def print_result(result: Evaluations) -> None:
    """One evaluation, or several with their paired differences, and the files that hold them."""
    if len(result.models) == 1:
        _print_one(result.models[0])
    else:
        _print_several(result.models)
        _print_comparisons(result.paired)
    if result.written:
        record, pictures, *page = result.written
        TERMINAL.say(f"{record}, {pictures} (original, reconstruction, difference x 4)")
        for path in page:
            TERMINAL.say(f"{path} shows it all")


def _print_one(result: Evaluation) -> None:
    """Figures with their intervals, the baselines, and the worst images."""
    from rich.table import Table

    out = results()
    out.print(_stated(result))
    table = Table("", result.title, "95 % interval", *result.baselines, box=None, header_style="bold")
    baselines = [dict(zip(("psnr", "ssim"), result.baseline(name), strict=True)) for name in result.baselines]
    for label, value, interval, form, key in _figure_rows(result):
        table.add_row(
            label, format(value, form), interval, *(format(b[key], form) if key in b else "" for b in baselines)
        )
    out.print(table)
    if result.codes:
        out.print(f"DCT and PCA keep {result.codes}")
    _print_rest(result)


def _figure_rows(result: Evaluation) -> list[tuple[str, float, str, str, str]]:
    """Label, value, interval as text, number format and key of every figure."""
    rows = []
    for key, interval in result.figures.items():
        form = FORMS.get(key, "+.2f")
        rows.append((LABELS.get(key, key), interval.value, _between(interval, form), form, key))
    if result.sets:
        for name, interval in (
            (result.sets.frechet_name, result.sets.frechet),
            (result.sets.kernel_name, result.sets.kernel),
        ):
            rows.append((name, interval.value, _between(interval, ".4g"), ".4g", name))
        rows.insert(-1, (f"{result.sets.frechet_name}, every second image", result.sets.frechet_half, "", ".4g", ""))
    return rows


def _between(interval: Interval, form: str) -> str:
    """The ends of an interval, if it has any."""
    return f"{interval.low:{form}} to {interval.high:{form}}" if interval.low == interval.low else ""


def _print_several(evaluations: Sequence[Evaluation]) -> None:
    """Models side by side, a column for each."""
    from rich.table import Table

    from ..metrics.comparison import said, titles

    out = results()
    out.print(_stated(evaluations[0]))
    table = Table("", *titles(evaluations), box=None, header_style="bold")
    table.add_row("model", *(r.model for r in evaluations))
    rows = [{label: (value, text, form) for label, value, text, form, _ in _figure_rows(r)} for r in evaluations]
    for label in dict.fromkeys(label for row in rows for label in row):
        table.add_row(label, *(_cell(*row[label]) if label in row else "" for row in rows))
    if any(r.legibility for r in evaluations):
        table.add_row("legible from", *(_legible(r) for r in evaluations))
    out.print(table)
    for name, result in zip(titles(evaluations), evaluations, strict=True):
        _print_speed(result.speed, f"{name}: ")
    for line in said(evaluations):
        TERMINAL.warn(line)
    for path, reason in evaluations[0].skipped:
        TERMINAL.warn(f"skipped {path}: {reason}")


def _cell(value: float, interval: str, form: str) -> Text:
    from rich.text import Text

    return Text(format(value, form) + (f"\n({interval})" if interval else ""))


def _print_comparisons(comparisons: Sequence[Comparison]) -> None:
    """Paired differences against the first model."""
    from rich.table import Table

    table = Table(
        "paired over images", "figure", "difference", "95 % interval", "better on", "", box=None, header_style="bold"
    )
    for c in comparisons:
        form = "+" + FORMS[c.figure]
        found = _between(c.difference, form)
        table.add_row(
            f"{c.model} - {c.against}",
            LABELS[c.figure],
            format(c.difference.value, form),
            found,
            f"{100 * c.wins:.0f} %",
            c.verdict,
        )
    results().print(table)


def _stated(result: Evaluation) -> str:
    protocol = result.protocol
    resized = "" if protocol.resize == "none" else f"; {protocol.resize}"
    return (
        f"{len(result.scores):,} images; {protocol.crop}{resized}; posterior {protocol.posterior}; 8-bit; protocol "
        f"{protocol.digest[:12]}"
    )


def _legible(result: Evaluation) -> str:
    if result.legibility is None:
        return ""
    return "at no size" if result.legibility.smallest is None else f"{result.legibility.smallest} px"


def _print_rest(result: Evaluation) -> None:
    from rich.table import Table

    out = results()
    if result.legibility:
        table = Table("text", "read wrong", "95 % interval", "characters", box=None, header_style="bold")
        for r in result.legibility.readings:
            rate = r.error_rate
            table.add_row(
                f"{r.size} px",
                f"{100 * rate.value:.1f} %",
                f"{100 * rate.low:.1f} to {100 * rate.high:.1f} %",
                f"{r.characters:,}",
            )
        out.print(table)
        out.print(f"90 % of the characters are read: {_legible(result)} on")
        edges = "; ".join(f"{e.contrast} levels {e.original:.2f} to {e.recon:.2f}" for e in result.legibility.edges)
        out.print(f"10-90 % rise of edges in px, original to reconstruction: {edges}")
    _print_speed(result.speed)
    worst = Table("worst", "PSNR dB", "SSIM", "size", box=None, header_style="bold")
    for score in result.worst(5):
        worst.add_row(Path(score.path).name, f"{score.psnr:.2f}", f"{score.ssim:.4f}", f"{score.width}x{score.height}")
    out.print(worst)
    for line in result.warnings:
        TERMINAL.warn(line)
    for path, reason in result.skipped:
        TERMINAL.warn(f"skipped {path}: {reason}")


def _print_speed(speed: Speed | None, before: str = "") -> None:
    if speed is None:
        return
    parts = []
    for what, rate, memory in (
        ("encode", speed.encode, speed.encode_memory),
        ("decode", speed.decode, speed.decode_memory),
    ):
        parts.append(f"{what} {rate:.3g} images/s" + ("" if memory is None else f", {memory / 2**20:.0f} MiB"))
    results().print(
        f"{before}{'; '.join(parts)}; {speed.size} px, batch {speed.batch}, {speed.dtype}, {speed.device}, "
        f"{speed.threads} threads; median of {speed.repeats}; memory: {speed.memory}"
    )
