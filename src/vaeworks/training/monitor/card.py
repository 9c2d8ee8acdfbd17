"""The card of a trained model, RUN/README.md, for Hugging Face: the model, its training, its figures, how to load it.

The card holds nothing but what the run's files hold. Of a path on this machine only the last part is shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from ...config import AutoencoderConfig, LossConfig, RegularizerConfig, TrainConfig, to_dict
from ...errors import FormatError
from ...files.atomic import write_text
from ...formats.identify import family_in_words
from ...formats.locate import locate
from ..run.folder import RESULT, read_data, read_result, read_run
from ..validation import CROP
from .card_facts import Facts
from .card_loading import MODEL, loading
from .log_lines import read_log
from .log_schema import EVENT, LOOK, number, open_alarms, written

CARD = "README.md"


def write_card(run: Path) -> Path:
    """Write the card of a finished run.

    Errors: FormatError or ConfigError where the folder does not hold a finished run.
    """
    write_text(run / CARD, card(run))
    return run / CARD


def card(run: Path) -> str:
    """The text of a finished run's card."""
    located = locate(run / MODEL)
    if not isinstance(located.config, AutoencoderConfig):
        raise FormatError(f"{run / MODEL} is a TAESD, which no run trains")
    result = read_result(run)
    if not result:
        raise FormatError(f"{run} has no {RESULT}: only a finished run has a card")
    facts = Facts(run.resolve().name, read_run(run), read_data(run), result, read_log(run), located.config)
    try:
        told = (
            f"# {facts.name}\n\n{_what(facts)}",
            _figures(facts),
            _beside_start(facts),
            _training(facts),
            _latents(facts),
            loading(located),
            _limits(facts),
        )
        return front_matter(facts) + "\n" + "\n\n".join(filter(None, told)) + "\n"
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise FormatError(
            f"the records of {run} are not those that a run leaves ({error!r:.150}), so that no card can be made"
        ) from None


def front_matter(facts: Facts) -> str:
    """The block of YAML at the top. Strings are written as JSON's, which are YAML's as well."""
    lines = ["library_name: vaeworks"]
    if facts.config.license is None:
        lines.append("license: other  # fill in the licence of these weights")
    else:
        lines.append(f"license: {json.dumps(facts.config.license)}")
    tags = ["vae", "autoencoder", "latent-diffusion", "vaeworks", facts.model.name]
    lines += ["tags:", *(f"- {json.dumps(tag)}" for tag in tags)]
    if found := re.match(r"hf:([\w.-]+/[\w.-]+)", facts.record.source):
        lines += ["datasets:", f"- {json.dumps(found[1])}"]
    metrics = {name: value for name, value in _metrics(facts).items() if value is not None}
    if metrics:
        lines += ["metrics:", *(f"- {name}" for name in metrics), *_model_index(facts, metrics)]
    return "\n".join(["---", *lines, "---", ""])


def _model_index(facts: Facts, metrics: Mapping[str, float]) -> list[str]:
    return [
        "model-index:",
        f"- name: {json.dumps(facts.name)}",
        "  results:",
        "  - task:",
        "      type: image-to-image",
        "      name: reconstruction",
        "    dataset:",
        f"      name: {json.dumps(f'{facts.source}, {facts.judged} held-out images')}",
        f"      type: {json.dumps(facts.source)}",
        "    metrics:",
        *(f"    - type: {name}\n      value: {value:.4f}" for name, value in metrics.items()),
    ]


def _metrics(facts: Facts) -> dict[str, float | None]:
    return {"psnr": number(facts.look.get(LOOK)), "ssim": number(facts.look.get("val_ssim"))}


def _what(facts: Facts) -> str:
    m, f, c = facts.model, facts.model.downsample_factor, facts.model.latent_channels
    attention = "attention in the middle" if m.mid_attention else "no attention in the middle"
    more = f", and at 1/{', 1/'.join(map(str, m.attention_factors))}" if m.attention_factors else ""
    widths = ", ".join(map(str, m.widths))
    decoder = f" (decoder {', '.join(map(str, m.decoder_widths))})" if m.decoder_widths != m.widths else ""
    return (
        f"An autoencoder for latent diffusion: {m.in_channels} x H x W images become {c} x H/{f} x W/{f} latents, and "
        f"back ({m.name}, {facts.result['num_parameters']:,} parameters). {family_in_words(m)}; widths "
        f"{widths}{decoder}, {m.num_res_blocks} residual block{'s' if m.num_res_blocks > 1 else ''} a level, "
        f"{attention}{more}. {_bottleneck(m)}"
    )


def _bottleneck(m: AutoencoderConfig) -> str:
    b = m.bottleneck
    if b.kind == "kl":
        kind = "Latents are a diagonal Gaussian posterior"
    else:
        kind = "Latents are points, without a posterior" + (f", bounded by {b.bound}" if b.bound != "none" else "")
    noise = (
        f"; the decoder was trained on latents with {b.noise} noise of scale {b.noise_scale:g}"
        if b.noise != "none"
        else ""
    )
    prefixes = f"; it was trained on the first {', '.join(map(str, b.prefixes))} channels as well" if b.prefixes else ""
    return f"{kind}{noise}{prefixes}."


def _figures(facts: Facts) -> str:
    metrics, best = _metrics(facts), number(facts.result.get("best_psnr"))
    rows = []
    if metrics["psnr"] is not None:
        rows.append(("PSNR", f"{metrics['psnr']:.2f} dB"))
        if metrics["ssim"] is not None:
            rows.append(("SSIM", f"{metrics['ssim']:.4f}"))
        if best is not None and best > metrics["psnr"] + 0.005:
            rows.append(("PSNR of the best state (best.safetensors), see below", f"{best:.2f} dB"))
    if facts.model.bottleneck.kind == "kl" and (kl := number(facts.step.get("bits_per_dimension"))) is not None:
        rows.append(("KL divergence, last training batch", f"{kl:.3g} bits per latent element"))
    table = ["| figure | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    if metrics["psnr"] is None:
        return "\n".join(
            [
                "## Figures",
                "",
                "No image was held out, so nothing was judged on unseen images.",
                "",
                *(table if rows else ()),
            ]
        )
    protocol = (
        f"On {facts.judged} images that were held out, by content hash or as a set of their own: central crops of at "
        f"most {CROP} px, not resized, by the posterior's mode, clamped and rounded to 8 bits; PSNR per image over all "
        "channels with peak 255, SSIM as in scikit-image with a Gaussian window of 11 x 11 and sigma 1.5; means over "
        "images. Figures of other protocols are not comparable: `vaeworks eval` judges on images of your own."
    )
    if any("best.safetensors" in name for name, _ in rows):
        protocol += (
            " The best state was chosen by its PSNR on these same images, of many looks during the run. That is a "
            "maximum, higher than on new images: judge best.safetensors on others."
        )
    return "\n".join(["## Figures", "", *table, "", protocol])


def _training(facts: Facts) -> str:
    config, data, result = facts.config, facts.data, facts.result
    count = len(data.get("skipped", ()))
    skipped = f"; {count:,} file{'s' if count > 1 else ''} could not be used" if count else ""
    o = config.optimizer
    points = [
        f"Images: {facts.seen}; {len(data['val']):,} more are held out{skipped}. Digest of the training images: "
        f"`{data['train_digest']}`",
        f"Recipe `{facts.record.recipe}`: {result['images_seen']:,} crops of {config.data.size} px seen, each at least "
        f"{config.data.min_scale:.0%} of the shorter side{', half of them mirrored' if config.data.flip else ''}; "
        f"batches of {config.batch}",
        f"Start: {_start(config)}",
        f"Losses: {_losses(config.loss, facts.model)}",
        *_regularizers(config.regularizers),
        f"Discriminator: {_discriminator(facts)}",
        f"Optimizer: {o.kind}, learning rate {o.lr:g}, betas {o.betas[0]:g} and {o.betas[1]:g}, warm-up "
        f"{o.warmup_images:,} images, at the end {o.final_lr:g} of it; {_average(config)}",
        f"Precision {result['precision']} (weights in fp32), {result['seconds'] / 3600:.2f} hours, seed {config.seed}",
    ]
    events = [line for line in facts.lines if EVENT in line]
    told = [f"  - {line['images_seen']:,} images: {line[EVENT]}" for line in events]
    if told:
        points.append(
            "On the way:\n"
            + "\n".join(told[:30])
            + (f"\n  - and {len(told) - 30} more, in log.jsonl" if len(told) > 30 else "")
        )
    return "\n".join(["## Training", "", *(f"- {point}" for point in points)])


def _start(config: TrainConfig) -> str:
    f = config.finetune
    teacher = f"; towards the latents of {_short(f.teacher)}, with weight {f.teacher_weight:g}" if f.teacher else ""
    if f.path is None:
        return {"default": "random weights", "linear": "a linear multi-scale transform (init `linear`)"}[
            config.init
        ] + teacher
    part = {
        "all": "everything was trained",
        "decoder": "only the decoder was trained",
        "encoder": "only the encoder was trained",
    }[f.part]
    return f"fine-tuned from {_short(f.path)}; {part}{teacher}"


def _latents_of(config: TrainConfig) -> str | None:
    """The VAE whose latents and scale the model is to have; None for latents of its own."""
    found = config.finetune.teacher or config.finetune.path
    return None if found is None else _short(found)


def _short(path: str) -> str:
    """Of a path on this machine the last part; a hub id as it is."""
    return path if path.startswith("hf:") else Path(path).name


def _beside_start(facts: Facts) -> str:
    """What fine-tuning has changed; "" for a run from random weights."""
    found = facts.result.get("finetuned")
    if not found:
        return ""
    same = [half for half in ("encoder", "decoder") if found[f"{half}_unchanged"]]
    rows = [f"- unchanged to the last bit: {' and '.join(same)}" if same else "- both halves have changed"]
    before, after, moved = (
        number(found.get(name)) for name in ("old_latents_before", "old_latents_after", "latents_moved")
    )
    if before is not None and after is not None:
        rows.append(
            f"- old latents of {facts.judged} held-out images: {before:.2f} dB by the old decoder, {after:.2f} dB by "
            "this one"
        )
    if moved is not None:
        rows.append(f"- latents have moved by {moved:.3g} standard deviations of the old ones (root mean square)")
    stds = [number(found.get(name)) for name in ("std_before", "std_after")]
    if None not in stds:
        rows.append(
            f"- their standard deviation on training crops: {written(stds[0], '.4g')} before, "
            f"{written(stds[1], '.4g')} now"
        )
    return "\n".join([f"## Beside {_short(found['start'])}, from which it was fine-tuned", "", *rows])


def _losses(loss: LossConfig, model: AutoencoderConfig) -> str:
    terms = [f"{loss.reconstruction} of pixels in [-1,1]"]
    if loss.perceptual != "none":
        terms.append(f"{loss.perceptual_weight:g} x {loss.perceptual}")
    if model.bottleneck.kind == "kl":
        terms.append(f"{loss.beta:g} x KL divergence (mean over latent elements)")
    return " + ".join(terms)


def _regularizers(config: RegularizerConfig) -> list[str]:
    """The settings that are on; of alignment also those around it."""
    off = to_dict(RegularizerConfig())
    changed = {name: value for name, value in to_dict(config).items() if value != off[name]}
    hidden = (
        ()
        if config.alignment > 0
        else ("alignment_network", "alignment_path", "alignment_margins", "alignment_adaptive")
    )
    shown = {name: value for name, value in changed.items() if name not in (*hidden, "alignment_path")}
    said = ", ".join(f"{name} {_short(value) if isinstance(value, str) else value}" for name, value in shown.items())
    return [f"Regularizers: {said}"] if said else []


def _discriminator(facts: Facts) -> str:
    a = facts.config.adversarial
    if not a.on:
        return "none"
    first = next(
        (line["images_seen"] for line in facts.lines if (number(line.get("adversarial_weight")) or 0) > 0), None
    )
    since = (
        f"with adversarial gradient from {first:,} images on"
        if first is not None
        else "without adversarial gradient so far"
    )
    adaptive = "adaptive " if a.adaptive else ""
    frozen = ", encoder frozen from then on" if a.stage == "decoder" and first is not None else ""
    return f"{a.discriminator}, {a.loss} loss, {adaptive}weight {a.weight:g}, {since}{frozen}"


def _average(config: TrainConfig) -> str:
    if not config.ema_halflife:
        return "these are the weights of the last step"
    return f"these are average weights, with a half-life of {config.ema_halflife:,} images"


def _latents(facts: Facts) -> str:
    m, stats = facts.model, facts.result["latents"]
    rows = [
        f"| {i} | {mean:.4f} | {std:.4f} |"
        for i, (mean, std) in enumerate(zip(stats["mean"], stats["std"], strict=True))
    ]
    if m.normalization == "batchnorm":
        seen = (
            f"squares of {m.latents_patch}x{m.latents_patch} latents, normalized by the statistics of each channel "
            "that the file holds"
        )
    elif m.normalization == "channel":
        seen = "`(latents - mean) / std`, by channel"
    elif not m.normalization_known:
        seen = f"latents at a scale that the file of {_latents_of(facts.config) or 'the VAE it began as'} does not say"
    else:
        seen = f"`(latents - {m.shift_factor:.5g}) * {m.scaling_factor:.5g}`: **shift_factor {m.shift_factor:.5f}, "
        seen += f"scaling_factor {m.scaling_factor:.5f}**"
        if (of := _latents_of(facts.config)) is not None:
            seen += f", as of {of}"
    measured = (
        f"Measured on {stats['num_images']:,} training crops: mean {stats['shift_factor']:.5f}, standard deviation "
        f"{1 / stats['scaling_factor']:.5f}, and by channel:"
    )
    table = ["| channel | mean | standard deviation |", "|---|---|---|", *rows]
    return "\n".join(["## Latents", "", f"A diffusion model sees {seen}.", "", measured, "", *table])


def _limits(facts: Facts) -> str:
    config, points = facts.config, []
    if (of := _latents_of(config)) is None:
        points.append("Its latents are its own: diffusion models that were made for another VAE cannot paint with it.")
    elif config.finetune.part == "decoder":
        points.append(f"Its latents are those of {of}: it fits the diffusion models of that VAE, and no others.")
    elif config.finetune.teacher is not None:
        points.append(
            f"Its encoder was trained towards the latents of {of}; how near it has come was not measured here."
        )
    else:
        points.append(
            f"Its encoder was trained: latents are not quite those of {of}, see above by how much they have moved."
        )
    if warning := (facts.result.get("finetuned") or {}).get("warning"):
        points.append(f"{warning[0].upper()}{warning[1:]}.")
    points.append(
        f"It was trained on {facts.seen}, in crops of {config.data.size} px; how well it does on others was not "
        "measured."
    )
    if config.loss.perceptual == "none" and not config.adversarial.on:
        points.append("Only a distance of pixels was minimized: fine texture comes out smooth.")
    points += [f"At the end of the run this was not mended: {line[EVENT]}." for line in open_alarms(facts.lines)]
    return "\n".join(["## What it is not good for", "", *(f"- {point}" for point in points)])
