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
"""A term with a number before it."""


def parse_expression(text: str) -> list[tuple[float, str]]:
    """Weights and names of a sum such as "a.png - 0.5*b.png + 'my c.png'": signs stand between blanks, names with
    blanks in quotes.

    Errors: ConfigError for what is no such sum.
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
    """The weighted sum of latents c h w; where weights do not sum to 1, of their distances from their common mean, put
    onto that mean.

    (A sum of weights 2 would be twice as bright for no reason: it is the affine combinations that mean the same
    wherever zero lies.)
    Errors: ConfigError for latents of unlike sizes.
    """
    if len({z.shape for z in latents}) > 1:
        raise ConfigError(
            "pictures of one size are needed, not of latents "
            f"{', '.join('x'.join(map(str, z.shape[-2:])) for z in latents)}"
        )
    stack = torch.stack(list(latents))
    mean = stack.mean(dim=(0, 2, 3))[:, None, None] if not math.isclose(sum(weights), 1, abs_tol=1e-9) else 0.0
    return torch.einsum("i,ichw->chw", torch.tensor(weights, dtype=stack.dtype), stack - mean) + mean
