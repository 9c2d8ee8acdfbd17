"""Words to what a denoiser is conditioned on, and its call, for each class of pipeline.

A pipeline's own `encode_prompt` turns words into embeddings, here as in painting, and with a gradient if its text
encoders are trained. So training and painting cannot differ.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError

Conditions = dict[str, Tensor]
"""Embeddings by name; row i belongs to caption i."""

T5_TOKENS = 77
"""Longest prompt for T5 in training, in tokens; SD3 was trained with it (arXiv 2403.03206)."""


@dataclass(frozen=True)
class Wording:
    """How one class of pipeline is conditioned and called."""

    condition: Callable[[Any, list[str], torch.device, int], Conditions]
    """pipeline, captions, device, and the pictures' side in pixels to conditions"""
    predict: Callable[[Any, Tensor, Tensor, Conditions], Tensor]
    """denoiser, noisy latents n c h w, timesteps n in [0, 1000], and conditions to a prediction n c h w"""


def denoiser_of(pipe: Any) -> Any:
    """The pipeline's denoiser. Errors: ConfigError for a pipeline without one."""
    found = getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)
    if found is None:
        raise ConfigError(f"{type(pipe).__name__} has neither a unet nor a transformer; take a text-to-image pipeline")
    return found


def wording_of(pipe: Any) -> Wording:
    """How a pipeline is conditioned. Errors: ConfigError for a class that is not supported."""
    kind = type(pipe).__name__
    if kind not in WORDINGS:
        raise ConfigError(f"{kind} cannot be trained here; take one of {', '.join(WORDINGS)}")
    return WORDINGS[kind]


def encoded(pipe: Any, captions: Sequence[str], device: torch.device, side: int) -> Conditions:
    """Conditions of captions, for pictures with this side in pixels. Each different caption is encoded once."""
    unique = list(dict.fromkeys(captions))
    found = wording_of(pipe).condition(pipe, unique, device, side)
    places = {caption: i for i, caption in enumerate(unique)}
    rows = torch.tensor([places[caption] for caption in captions], device=device)
    return {name: value[rows] for name, value in found.items()}


def _sd1_encode(pipe: Any, captions: list[str], device: torch.device, side: int) -> Conditions:
    return {"encoder_hidden_states": pipe.encode_prompt(captions, device, 1, False)[0]}


def _unet_predict(unet: Any, x: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
    added = {name: conditions[name] for name in ("text_embeds", "time_ids") if name in conditions}
    return unet(
        x, t, encoder_hidden_states=conditions["encoder_hidden_states"], added_cond_kwargs=added, return_dict=False
    )[0]


def _sdxl_encode(pipe: Any, captions: list[str], device: torch.device, side: int) -> Conditions:
    words, _, pooled, _ = pipe.encode_prompt(captions, None, device, 1, False)
    # original size, crop and target size: squares that nothing was cut from (arXiv 2307.01952, section 2.2)
    sizes = torch.tensor([[side, side, 0, 0, side, side]], device=device, dtype=words.dtype)
    return {"encoder_hidden_states": words, "text_embeds": pooled, "time_ids": sizes.expand(len(captions), -1)}


def _sd3_encode(pipe: Any, captions: list[str], device: torch.device, side: int) -> Conditions:
    longest = 1 if compact(pipe) else T5_TOKENS
    words, _, pooled, _ = pipe.encode_prompt(
        captions, None, None, device, do_classifier_free_guidance=False, max_sequence_length=longest
    )
    return {"encoder_hidden_states": words, "pooled_projections": pooled}


def _sd3_predict(transformer: Any, x: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
    return transformer(hidden_states=x, timestep=t, return_dict=False, **conditions)[0]


def _flux_encode(pipe: Any, captions: list[str], device: torch.device, side: int) -> Conditions:
    words, pooled, _ = pipe.encode_prompt(captions, None, device, max_sequence_length=T5_TOKENS)
    return {"encoder_hidden_states": words, "pooled_projections": pooled}


def _flux_predict(transformer: Any, x: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
    n, c, h, w = x.shape
    rows, columns = h // 2, w // 2
    # 2x2 latents are a token of 4 c channels, as in FluxPipeline
    tokens = x.view(n, c, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, rows * columns, 4 * c)
    places = torch.zeros(rows, columns, 3, device=x.device, dtype=x.dtype)
    places[..., 1] += torch.arange(rows, device=x.device)[:, None]
    places[..., 2] += torch.arange(columns, device=x.device)[None]
    words = conditions["encoder_hidden_states"]
    guidance = x.new_ones(n) if transformer.config.guidance_embeds else None
    found = transformer(
        hidden_states=tokens,
        timestep=t / 1000,
        guidance=guidance,
        img_ids=places.view(-1, 3),
        txt_ids=x.new_zeros(words.shape[1], 3),
        return_dict=False,
        **conditions,
    )[0]
    return found.view(n, rows, columns, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(n, c, h, w)


WORDINGS = {
    "StableDiffusionPipeline": Wording(_sd1_encode, _unet_predict),
    "StableDiffusionXLPipeline": Wording(_sdxl_encode, _unet_predict),
    "StableDiffusion3Pipeline": Wording(_sd3_encode, _sd3_predict),
    "FluxPipeline": Wording(_flux_encode, _flux_predict),
}
"""By the class of pipeline."""


# SD3 without T5


def compact(pipe: Any) -> bool:
    """Whether a pipeline is an SD3 without T5, or with one that says nothing. It sees 256 tokens of zeros in T5's
    place, all alike in every layer."""
    if type(pipe).__name__ != "StableDiffusion3Pipeline":
        return False
    return pipe.text_encoder_3 is None or not pipe.text_encoder_3.encoder.final_layer_norm.weight.any()


def compact_(pipe: Any) -> None:
    """Let the transformer of an SD3 without T5 compute one token of zeros in place of all 256: exact, and many times
    faster.

    Equal keys with equal values count in a softmax as one whose logit is larger by ln 256. `expand_` takes it back,
    which has to come before `save_pretrained`.
    """
    if compact(pipe):
        zeros = inspect.signature(type(pipe).__call__).parameters["max_sequence_length"].default
        for attention in _joint_attention(pipe.transformer):
            attention.set_processor(OneForAll(zeros, attention.processor, pipe.text_encoder_3))
        pipe.text_encoder_3 = None  # the pipeline then makes as many zeros as it is asked for


def expand_(pipe: Any) -> None:
    """The transformer's own attention again."""
    if compact(pipe):
        for attention in _joint_attention(pipe.transformer):
            if isinstance(attention.processor, OneForAll):
                pipe.register_modules(text_encoder_3=attention.processor.t5)  # an assignment would not be saved
                attention.set_processor(attention.processor.before)


def _joint_attention(transformer: Any) -> list[Any]:
    """Attention over latents and words; SD3.5's layers also have one over latents alone."""
    return [block.attn for block in transformer.transformer_blocks]


class OneForAll:
    """Joint attention whose last text token stands for `count` equal ones.

    before: the processor that it replaces. t5: the text encoder that it replaces.
    """

    def __init__(self, count: int, before: Any = None, t5: nn.Module | None = None):
        self.bias = math.log(count)
        self.before = before
        self.t5 = t5

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **ignored: Any) -> Any:
        """Results for latents n k d and words n l d, as diffusers' JointAttnProcessor2_0."""
        length = hidden_states.shape[1]
        q, k, v = _projected(attn, hidden_states, ("to_q", "to_k", "to_v"), (attn.norm_q, attn.norm_k))
        names = ("add_q_proj", "add_k_proj", "add_v_proj")
        norms = (attn.norm_added_q, attn.norm_added_k)
        q2, k2, v2 = _projected(attn, encoder_hidden_states, names, norms)
        bias = q.new_zeros(1, 1, 1, length + k2.shape[2])
        bias[..., -1] = self.bias
        mixed = F.scaled_dot_product_attention(
            torch.cat([q, q2], 2), torch.cat([k, k2], 2), torch.cat([v, v2], 2), attn_mask=bias
        )
        mixed = mixed.transpose(1, 2).flatten(2).to(q.dtype)
        latents = attn.to_out[1](attn.to_out[0](mixed[:, :length]))
        words = mixed[:, length:]
        return latents, words if attn.context_pre_only else attn.to_add_out(words)


def _projected(
    attn: Any, x: Tensor, names: tuple[str, str, str], norms: tuple[nn.Module | None, nn.Module | None]
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values n heads k d."""
    q, k, v = (getattr(attn, name)(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for name in names)
    return (norms[0](q) if norms[0] is not None else q), (norms[1](k) if norms[1] is not None else k), v
