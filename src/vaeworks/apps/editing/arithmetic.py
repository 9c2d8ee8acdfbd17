"""Sums and differences of latents: "with_glasses - without + other"."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import ConfigError

WEIGHTED = re.compile(r"(?P<weight>\d+(?:\.\d*)?|\.\d+)\*(?P<name>.+)", re.DOTALL)
"""A term that begins with a number."""


def parse_expression(text: str) -> list[tuple[float, str]]:
    """Weights and names of a sum such as "a.png - 0.5*b.png + 'my c.png'". Blanks separate signs and names; names with
    blanks are quoted.

    Errors: ConfigError for any other text.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"arithmetic {text!r}: {str(error).lower()}") from None
    if words and words[0] not in ("+", "-"):
        words = ["+", *words]
    if not words or len(words) % 2 or any((word in ("+", "-")) == bool(place % 2) for place, word in enumerate(words)):
        raise ConfigError(
            f"arithmetic {text!r} must be names with + or - between them, all separated by blanks, such as 'a.png - "
            "b.png + c.png'"
        )
    return [_term(sign, word) for sign, word in zip(words[::2], words[1::2], strict=True)]


def _term(sign: str, word: str) -> tuple[float, str]:
    found = WEIGHTED.fullmatch(word)
    weight, name = (float(found["weight"]), found["name"]) if found else (1.0, word)
    return math.copysign(weight, -1 if sign == "-" else 1), name


def combined(weights: Sequence[float], latents: Sequence[Tensor]) -> Tensor:
    """The weighted sum of latents c h w. If the weights do not sum to 1, their common mean is subtracted before and
    added after.

    (Only affine combinations do not depend on the position of zero: with weights of sum 2, the image would be twice as
    bright for no reason.)
    Errors: ConfigError for latents of different sizes.
    """
    if len({z.shape for z in latents}) > 1:
        raise ConfigError(
            "arithmetic needs images of one size, not with latents of "
            f"{', '.join('x'.join(map(str, z.shape[-2:])) for z in latents)}"
        )
    stack = torch.stack(list(latents))
    mean = stack.mean(dim=(0, 2, 3))[:, None, None] if not math.isclose(sum(weights), 1, abs_tol=1e-9) else 0.0
    return torch.einsum("i,ichw->chw", torch.tensor(weights, dtype=stack.dtype), stack - mean) + mean
